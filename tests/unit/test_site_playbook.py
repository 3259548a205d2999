"""What site.yml says of groups that do not fit together, before it connects to anybody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.lib.playbook import play

NOWHERE = {"ansible_host": "192.0.2.1"}


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
        ({"indico_app": ["a", "b"]}, {}, "Group indico_app has a, b; stored files lie on one host, others would not find them."),
        ({"indico_zeo": ["a"], "indico_app": ["b"]}, {}, "b is not in indico_zeo, so indico_zeo_host must name the host that is."),
        ({"indico_zeo": ["a"], "indico_app": ["b"]}, {"indico_zeo_host": "localhost"}, "b is not in indico_zeo, so indico_zeo_host must name"),
        ({"indico_zeo": ["a", "b"], "indico_backup": ["c"]}, {}, "Group indico_backup has c, and group indico_zeo has a, b; backups are pulled from one host."),
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
        "applications",
        "no database",
        "loopback",
        "two sources",
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
