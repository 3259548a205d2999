"""What site.yml says of groups that do not fit together, before it connects to anybody."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.lib.playbook import REPOSITORY, play

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
    inventory = {"indico": {"vars": variables, "children": {name: {"hosts": dict.fromkeys(hosts, NOWHERE)} for name, hosts in groups.items()}}}
    (tmp_path / "hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")
    run = play(tmp_path / "hosts.yml")
    assert run.returncode != 0
    assert [failure for failure in run.failures if sentence in failure], run.failures
    assert "192.0.2.1" not in "".join(run.failures)


@pytest.mark.parametrize("name", ["single", "cluster"])
def test_the_inventories_to_copy_are_accepted(tmp_path: Path, name: str) -> None:
    """All variables as preflight has them, and the groups as site.yml has them, which then finds that nobody answers."""
    inventory = tmp_path / name
    shutil.copytree(REPOSITORY / "inventories" / name, inventory)
    vault = {"indico_admin_password": "correct horse", "indico_zeo_password": "battery staple", "indico_redis_password": "sixteen-letters_~"}
    pairs = {f"{role}_tls_{part}": "-----BEGIN X-----" for role in ("web", "loadbalancer") for part in ("certificate", "key")}
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
