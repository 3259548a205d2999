"""What site.yml says of groups that do not fit together, before it connects to anybody."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lib.playbook import REPOSITORY, play
from tests.unit import certificates

BALANCED = {"indico_loadbalancer": ["l"], "indico_app": ["a"], "indico_zeo": ["a"]}
NOWHERE = {"ansible_host": "192.0.2.1", "loadbalancer_address": "10.0.0.1"}


def test_failover_says_when_nobody_answers(tmp_path: Path) -> None:
    hosts = {name: {"ansible_host": "127.0.0.1", "ansible_port": 1} for name in ("db1", "db2")}
    (tmp_path / "hosts.yml").write_text(json.dumps({"indico_zeo": {"hosts": hosts}}), encoding="utf-8")
    run = play(tmp_path / "hosts.yml", playbook="playbooks/failover.yml", to="db2", confirm="indico")
    assert run.returncode != 0
    assert [failure for failure in run.failures if failure.startswith("None of db1, db2 and the hosts that run Indico can be reached.")], run.failures
    limited = play(tmp_path / "hosts.yml", "--limit", "db2", playbook="playbooks/failover.yml", to="db2", confirm="indico")
    assert limited.returncode != 0
    assert [failure for failure in limited.failures if failure.startswith("Run this without --limit.")], limited.failures


@pytest.mark.parametrize(
    ("playbook", "arguments", "sentence"),
    [
        ("restore", ["-e", "tiem=2026-11-20"], "restore.yml does not know the extra variable tiem. Did you mean time?"),  # O2
        ("maintenance", ["-e", "state=on", "-e", "text=We are back"], "An extra variable was cut at a blank before 'are back'."),  # O5
        ("refresh", ["-e", "from=/srv/x", "-e", "tmie=x", "--check"], "refresh.yml does not know the extra variable tmie."),
        ("site", ["--tags", "zoe", "--limit", "a"], "site.yml has no tag zoe. Did you mean zeo?"),
        ("status", [], "The inventory has a group indico_schedular, which nothing reads. Did you mean indico_scheduler?"),  # O4
    ],
)
def test_a_misspelt_word_is_refused_before_a_host_is_asked(tmp_path: Path, playbook: str, arguments: list[str], sentence: str) -> None:
    """With the command line as ansible-playbook has it. A host that is asked does not answer, and would be another failure."""
    groups = ["indico_zeo", "indico_app", "indico_schedular" if playbook == "status" else "indico_scheduler"]
    inventory = {"indico": {"children": {name: {"hosts": {"a": NOWHERE}} for name in groups}}}
    (tmp_path / "hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")
    run = play(tmp_path / "hosts.yml", *arguments, playbook=f"playbooks/{playbook}.yml")
    assert run.returncode != 0
    assert len(run.failures) == 1 and sentence in run.failures[0], run.output
    assert run.tasks == 1


def test_names_of_the_site_and_variables_of_the_inventory_may_be_given(tmp_path: Path) -> None:
    """The first host may be outside of the instance, as here: the site's names are those of its own hosts."""
    own = {"indico_site_variables": ["place"], "indico_prefix": "/srv/{{ place }}"}
    children = {name: {"hosts": {"a": NOWHERE}} for name in ("indico_zeo", "indico_app", "indico_scheduler")}
    inventory = {"all": {"hosts": {"other": NOWHERE}, "children": {"indico": {"vars": own, "children": children}}}}
    (tmp_path / "hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")
    nowhere = {"ansible_port": 1, "ansible_ssh_common_args": "-o ProxyCommand=false"}
    run = play(tmp_path / "hosts.yml", playbook="playbooks/pack.yml", place="x", days="{{ 3 + 4 }}", **nowhere)
    assert run.tasks > 1, run.output


@pytest.mark.parametrize(
    ("groups", "variables", "sentence"),
    [
        ({"indico_scheduler": ["a", "b"]}, {}, "Group indico_scheduler has a, b; the scheduler runs on one host."),
        (
            {"indico_app": ["a", "b"]},
            {"indico_cache_backend": "redis"},
            "Group indico_app has a, b, and each would keep sessions in a Redis of its own; indico_redis_host must name one that all of them reach.",
        ),
        (
            {"indico_app": ["a", "b"]},
            {"indico_cache_backend": "memcached"},
            "Group indico_app has a, b, and each would keep sessions in a memcached of its own; indico_memcached_servers must name those",
        ),
        ({"indico_app": ["a", "b"]}, {}, "indico_server_name is set nowhere; it must be the name under which visitors reach the balancer."),
        (BALANCED, {}, "indico_server_name is set nowhere; it must be the name under which visitors reach the balancer."),
        (BALANCED, {"indico_server_name": "{{ inventory_hostname }}"}, "indico_server_name is not the same on all hosts (l, a);"),
        (BALANCED, {"indico_server_name": "x"}, "web_tls of a is selfsigned; behind the balancers (l) it must be none."),
        (
            BALANCED,
            {"indico_server_name": "x", "web_tls": "none", "web_trusted_proxies": ["10.0.0.9"]},
            "web_trusted_proxies of a lacks 10.0.0.1, the balancers' own (loadbalancer_address).",
        ),
        (
            BALANCED,
            {"indico_server_name": "x", "web_tls": "none", "web_trusted_proxies": ["10.0.0.1"], "loadbalancer_tls": "none"},
            "indico_base_url is https://x, and loadbalancer_tls is none; visitors would be sent elsewhere.",
        ),
        ({"indico_loadbalancer": ["a"], "indico_app": ["a"]}, {}, "a is in indico_loadbalancer and in indico_app; both want its ports"),
        ({"indico_loadbalancer": ["l"]}, {}, "Group indico_loadbalancer has l, and group indico_app has nobody."),
        ({"indico_zeo": ["a"], "indico_app": ["b"]}, {}, "b is not in indico_zeo, so indico_zeo_host must name the host that is."),
        ({"indico_zeo": ["a"], "indico_app": ["b"]}, {"indico_zeo_host": "localhost"}, "b is not in indico_zeo, so indico_zeo_host must name"),
        ({"indico_zeo": [], "indico_backup": ["c"]}, {}, "Group indico_backup has c, and group indico_zeo has nobody; there are no backups to pull."),
        ({"indico_zeo": ["a", "b", "c"]}, {}, "Group indico_zeo has a, b, c; the databases have one primary and at most one standby."),
        ({"indico_zeo": ["a"], "indico_backup": ["a"]}, {}, "a is to keep a copy of backups that lie on the same host; take it out of indico_backup."),
        ({"indico_cache": ["a", "b"]}, {}, "Group indico_cache has a, b; sessions lie on one host, others would not find them."),
        (
            {"indico_zeo": ["a"], "indico_app": ["a"], "indico_cache": ["b"]},
            {"indico_cache_backend": "redis"},
            "a has no Redis (b has it), so indico_redis_host must name the host that has.",
        ),
        (
            {"indico_zeo": ["a"], "indico_app": ["a"], "indico_cache": ["b"]},
            {"indico_cache_backend": "memcached"},
            "a has no memcached (b has it), and memcached is reached on its own host only.",
        ),
    ],
    ids=[
        "schedulers",
        "own redis",
        "own memcached",
        "applications without a name",
        "balancer without a name",
        "two names",
        "TLS behind the balancer",
        "other proxy",
        "HTTP or HTTPS",
        "balancer is application",
        "nobody to balance",
        "no database",
        "loopback",
        "nobody to pull from",
        "three databases",
        "same host",
        "two caches",
        "redis elsewhere",
        "memcached elsewhere",
    ],
)
def test_groups_that_do_not_fit_are_refused(tmp_path: Path, groups: dict[str, list[str]], variables: dict[str, Any], sentence: str) -> None:
    children = {name: {"hosts": dict.fromkeys(hosts, NOWHERE)} for name, hosts in groups.items()}
    children |= {name: {"hosts": {}} for name in ("indico_zeo", "indico_app", "indico_scheduler") if name not in groups}
    inventory = {"indico": {"vars": variables, "children": children}}
    (tmp_path / "hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")
    run = play(tmp_path / "hosts.yml")
    assert run.returncode != 0
    assert [failure for failure in run.failures if sentence in failure], run.failures
    assert "192.0.2.1" not in "".join(run.failures)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("", "No deployment brought 1.2.2-a, so nobody knows what ran before it; name a release with -e release=. a has 1.2.2-a. Nothing was done."),
        ("1.2.2-b", "There is no release 1.2.2-b on a. a has 1.2.2-a. Nothing was done."),
    ],
)
def test_a_rollback_with_nothing_to_go_to_says_so_once(tmp_path: Path, wanted: str, expected: str) -> None:
    """O12: each sentence names what it is about. The check is that of the playbook, with what a host would say."""
    tasks = [task for one in yaml.safe_load((REPOSITORY / "playbooks/rollback.yml").read_text()) for task in one.get("tasks", [])]
    (check,) = [task for task in tasks if task["name"] == "Refuse what is not there"]
    said = {"releases": ["1.2.2-a"], "current": "1.2.2-a", "previous": None, "deployment": None}
    values = {"__python2_releases": said, "release": wanted, "release_wanted": wanted, "release_targets": [], "release_known": ["a"]}
    only = [{"hosts": "a", "gather_facts": False, "vars": values, "tasks": [check]}]
    (tmp_path / "play.yml").write_text(json.dumps(only), encoding="utf-8")
    (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"hosts": {"a": NOWHERE}}}), encoding="utf-8")
    run = play(tmp_path / "hosts.yml", playbook=str(tmp_path / "play.yml"))
    assert run.failures == [expected]


@pytest.mark.parametrize("name", ["single", "cluster"])
def test_the_inventories_to_copy_are_accepted(tmp_path: Path, name: str) -> None:
    """All variables as preflight has them, and the groups as site.yml has them, which then finds that nobody answers."""
    inventory = tmp_path / name
    shutil.copytree(REPOSITORY / "inventories" / name, inventory)
    vault = {"indico_admin_password": "correct horse", "indico_zeo_password": "battery staple", "indico_redis_password": "sixteen-letters_~"}
    pem = dict(zip(("certificate", "key"), certificates.pair(), strict=True))
    pairs = {f"{role}_tls_{part}": text for role in ("web", "loadbalancer") for part, text in pem.items()}
    (inventory / "group_vars/indico/vault.yml").write_text(json.dumps({f"vault_{key}": value for key, value in (vault | pairs).items()}), encoding="utf-8")
    # The facts that preflight would have gathered.
    check = [{"hosts": "indico", "gather_facts": False, "tasks": [{"confops.indico.preflight": {}}]}]
    (tmp_path / "check.yml").write_text(json.dumps(check), encoding="utf-8")
    nowhere = {"ansible_facts": {"fqdn": "indico.example.org"}, "ansible_port": 1, "ansible_ssh_common_args": "-o ProxyCommand=false"}
    run = play(inventory, playbook=str(tmp_path / "check.yml"), **nowhere)
    assert run.returncode == 0, run.failures
    run = play(inventory, **nowhere)
    assert run.returncode != 0
    assert all("could not be sent to remote host" in failure for failure in run.failures), run.failures
