"""The table of what a run costs, and which scenarios a change asks for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.lib import costs, since
from tests.lib.command import REPOSITORY
from tests.lib.scenarios import SCENARIOS


def test_steps_are_noted_by_what_molecule_writes(tmp_path: Path) -> None:
    steps = costs.Steps(tmp_path / "costs.jsonl")
    steps.follow(os.getpid(), "INFO     [default > create] Executing\nTASK [x]\n")
    steps.follow(os.getpid(), "ok\nINFO     [default > create] Executed: Successful\nINFO     [default > verify] Executing\n")
    steps.end()
    noted = costs.read(tmp_path / "costs.jsonl")
    assert [(cost.kind, cost.scenario, cost.name) for cost in noted] == [("step", "default", "create"), ("step", "default", "verify")]
    assert all(cost.wall >= 0 and cost.cpu >= 0 for cost in noted)


def test_what_is_measured_is_noted_where_somebody_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(costs.FILE, raising=False)
    with costs.measured("test", "unseen"):
        pass
    monkeypatch.setenv(costs.FILE, str(tmp_path / "costs.jsonl"))
    monkeypatch.setenv("MOLECULE_SCENARIO_NAME", "jobs")
    with pytest.raises(ZeroDivisionError), costs.measured("playbook", "site.yml"):
        raise ZeroDivisionError
    (cost,) = costs.read(tmp_path / "costs.jsonl")
    assert (cost.kind, cost.scenario, cost.name) == ("playbook", "jobs", "site.yml")


def test_the_table_has_sums_and_the_dearest_first() -> None:
    one = [costs.Cost("step", "a", "create", 2, 1), costs.Cost("step", "b", "create", 5, 1), costs.Cost("step", "b", "verify", 5, 3)]
    more = [costs.Cost("test", "a", "test_x", 1, 0), costs.Cost("test", "b", "test_y", 3, 2)]
    lines = [line.split() for line in costs.table([*one, *more])]
    assert lines[1] == ["b", "5", "/", "1", "5", "/", "3", "10", "/", "4"]
    assert lines[2] == ["a", "2", "/", "1", "2", "/", "1"]
    assert lines[3] == ["all", "7", "/", "2", "5", "/", "3", "12", "/", "5"]
    assert lines[-2:] == [["3", "/", "2", "b:", "test_y"], ["1", "/", "0", "a:", "test_x"]]
    assert costs.table([]) == []


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("docs/backup.md", set()),
        ("README.md", set()),
        ("tests/unit/test_costs.py", set()),
        ("molecule/jobs/test_jobs.py", {"jobs"}),
        ("playbooks/failover.yml", {"standby"}),
        ("roles/loadbalancer/templates/haproxy.cfg.j2", {"cluster"}),
        ("roles/memcached/tasks/main.yml", {"alternative"}),
        ("roles/zeo/tasks/main.yml", set(SCENARIOS)),
        ("playbooks/site.yml", set(SCENARIOS)),
        ("playbooks/tasks/report.yml", set(SCENARIOS)),
        ("plugins/module_utils/_tree.py", set(SCENARIOS)),
        ("molecule/tests/test_site.py", set(SCENARIOS)),
        ("a file that nobody thought of", set(SCENARIOS)),
    ],
)
def test_a_change_asks_for_the_scenarios_that_see_it(path: str, names: set[str]) -> None:
    assert since.wanted(path) == names


def test_no_playbook_and_no_chosen_role_asks_for_nothing() -> None:
    paths = [f"playbooks/{path.name}" for path in REPOSITORY.glob("playbooks/*.yml")] + [f"roles/{role}/tasks/main.yml" for role in since.CHOSEN]
    assert [path for path in paths if not since.wanted(path)] == []
