"""The action as ansible-playbook runs it, for a host that nobody can reach."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit import certificates

REPOSITORY = Path(__file__).resolve().parents[4]
ADMIN = {"login": "ada", "password": "correct horse", "email": "ada@example.org", "first_name": "Ada", "family_name": "Admin"}
FACTS = {"fqdn": "nowhere.example.org", "distribution": "Debian", "distribution_major_version": "11", "python_version": "3.9.2"}


def preflight(tmp_path: Path, variables: dict[str, Any], *options: str, arguments: dict[str, Any] | None = None) -> tuple[dict[str, Any], str]:
    """Run the action alone for a host with these variables. Return its result and all that was printed."""
    inventory = {"all": {"hosts": {"nowhere": {"ansible_host": "192.0.2.1", **variables}}}}
    (tmp_path / "hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")
    return run(tmp_path, tmp_path / "hosts.yml", *options, arguments=arguments)


def run(tmp_path: Path, inventory: Path, *options: str, arguments: dict[str, Any] | None = None) -> tuple[dict[str, Any], str]:
    play = [{"hosts": "all", "gather_facts": False, "tasks": [{"name": "Check", "confops.indico.preflight": arguments or {}}]}]
    (tmp_path / "play.yml").write_text(json.dumps(play), encoding="utf-8")
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_LOCAL_TEMP": str(tmp_path / "ansible"),
    }
    command = [
        sys.executable,
        "-m",
        "ansible",
        "playbook",
        "-i",
        str(inventory),
        "-e",
        json.dumps({"ansible_facts": FACTS}),
        *options,
        str(tmp_path / "play.yml"),
    ]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120)
    printed = done.stdout + done.stderr
    report, _end = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("{\n") :])
    (result,) = report["plays"][0]["tasks"][0]["hosts"].values()
    return result, printed


@pytest.mark.parametrize("options", [(), ("--check", "--diff")])
def test_defaults_and_an_administrator_pass_without_a_connection(tmp_path: Path, options: tuple[str, ...]) -> None:
    result, _printed = preflight(tmp_path, {"indico_admins": [ADMIN]}, *options)
    assert result["problems"] == []
    assert not result["changed"]
    assert not result.get("failed")


@pytest.mark.parametrize("options", [(), ("--check", "--diff")])
def test_problems_of_templated_values_are_found_and_no_secret_is_printed(tmp_path: Path, options: tuple[str, ...]) -> None:
    variables = {
        "word": "soon",
        "vault_password": "hunter2",
        "zeo_transaction_timeout": "{{ word }}",
        "web_threads": "{{ '4' }}",
        "indico_prefix": "/srv/{{ missing }}",
        "indico_admins": [{**ADMIN, "password": "{{ vault_password }}"}],
        "indico_conf": {"SmtpPassword": ["{{ vault_password }}"]},
        "web_porcesses": 3,
    }
    result, printed = preflight(tmp_path, variables, *options)
    expected = [
        "web_porcesses is not a variable of this collection. Did you mean web_processes? (A site lists names of its own in indico_site_variables.)",
        "backup_drill_directory cannot be read: 'missing' is undefined",
        "indico_prefix cannot be read: 'missing' is undefined",
        "zeo_transaction_timeout is 'soon'; it must be an integer.",
        "indico_conf.SmtpPassword is a hidden value; it must be a string.",
        "indico_admins, ada has a password of fewer than 8 characters.",
    ]
    assert result["problems"] == expected
    assert result["failed"]
    assert not result["changed"]
    assert result["msg"] == "\n".join(["Preflight found 6 problems:", *(f"- {sentence}" for sentence in expected)])
    assert "hunter2" not in printed


def test_only_some_roles(tmp_path: Path) -> None:
    result, _printed = preflight(tmp_path, {"web_threads": "many", "zeo_user": 3}, arguments={"roles": ["zeo"]})
    assert result["problems"] == ["zeo_user is 3; it must be a string."]
    assert result["msg"] == "Preflight found a problem:\n- zeo_user is 3; it must be a string."


def test_a_role_that_does_not_exist(tmp_path: Path) -> None:
    result, _printed = preflight(tmp_path, {}, arguments={"roles": ["zoe"]})
    assert "roles names zoe; this collection has backup, common, cron, indico, " in result["msg"]


def test_values_are_returned_with_defaults_and_templates(tmp_path: Path) -> None:
    arguments = {"roles": ["common"], "values": ["indico_prefix", "indico_base_url"]}
    result, _printed = preflight(tmp_path, {"indico_base_url": "https://{{ 'a' }}.example.org"}, arguments=arguments)
    assert result["values"] == {"indico_prefix": "/opt/indico", "indico_base_url": "https://a.example.org"}


def test_a_value_that_no_checked_role_has(tmp_path: Path) -> None:
    result, _printed = preflight(tmp_path, {}, arguments={"roles": ["zeo"], "values": ["indico_prefix"]})
    assert "values names indico_prefix, which no checked role has." in result["msg"]


def test_the_inventory_to_copy_is_complete_but_for_its_secrets(tmp_path: Path) -> None:
    site = tmp_path / "mysite"
    shutil.copytree(REPOSITORY / "inventories/single", site)
    vault = site / "group_vars/indico/vault.yml.example"
    filled = vault.read_text(encoding="utf-8")
    vault.rename(vault.with_suffix(""))
    result, _printed = run(tmp_path, site)
    pem = "web_tls_certificate and web_tls_key are no certificate with its key, without a passphrase, that OpenSSL reads."
    assert result["problems"] == ["indico_admins, admin has no password; there is no default.", pem]
    secrets = yaml.safe_load(filled) | {"vault_indico_admin_password": "correct horse"}
    secrets |= dict(zip(("vault_web_tls_certificate", "vault_web_tls_key"), certificates.pair(), strict=True))
    vault.with_suffix("").write_text(json.dumps(secrets), encoding="utf-8")
    result, _printed = run(tmp_path, site)
    assert result["problems"] == []
