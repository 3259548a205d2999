"""What needs no Indico of the scheduler's modules: declarations, the log, and the judgement of what was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _scheduler

TASK = {"task": "janitor", "category": None, "interval": 1, "minutes": [], "hours": [], "weekdays": [], "month_days": [], "arguments": {}, "state": "present"}


def found(**changes: Any) -> dict[str, Any]:
    """Return what info() finds on a host whose scheduler is well."""
    counts = {"spooled": 0, "waiting": 1, "running": 0, "failed": 0, "finished": 3}
    daemon = {"running": True, "host": "a.example.org", "pid": 7, "here": True, "alive": True}
    daemon.update(changes.pop("daemon", {}))
    return {"here": "a.example.org", "daemon": daemon, "counts": counts, "overdue": 0, "tasks": [], **changes}


@pytest.mark.parametrize(
    ("given", "completed"),
    [
        ({"frequency": "minutely"}, {"minutes": [], "hours": []}),
        ({"frequency": "hourly"}, {"minutes": [0], "hours": []}),
        ({"frequency": "daily", "hours": [2]}, {"minutes": [0], "hours": [2]}),
        ({"frequency": "weekly"}, {"minutes": [0], "hours": [0], "weekdays": ["mon"]}),
        ({"frequency": "monthly"}, {"minutes": [0], "hours": [0], "month_days": [1]}),
        ({"frequency": "monthly", "weekdays": ["fri"]}, {"weekdays": ["fri"], "month_days": []}),
    ],
)
def test_what_a_rule_leaves_open_does_not_depend_on_the_moment(given: dict[str, Any], completed: dict[str, Any]) -> None:
    (task,) = _scheduler.declaration([{**TASK, **given}])["tasks"]
    assert {name: task[name] for name in completed} == completed
    assert task["class"] == "indico.modules.scheduler.tasks.janitor.JanitorTask"


def test_a_class_of_ones_own_keeps_its_path() -> None:
    (task,) = _scheduler.declaration([{**TASK, "frequency": "daily", "task": "example.tasks.MirrorTask"}])["tasks"]
    assert task["class"] == "example.tasks.MirrorTask"


def test_the_same_class_for_two_categories_is_two_tasks() -> None:
    tasks = [{"task": "category_statistics", "category": category} for category in ("0", "1")]
    assert _scheduler.problems(tasks) == []
    assert len(_scheduler.problems([*tasks, tasks[0]])) == 1


@pytest.mark.parametrize(
    ("changes", "sentences"),
    [
        ({}, []),
        ({"daemon": {"running": False, "host": None, "pid": None, "here": False, "alive": None}}, ["No scheduler runs, as the database has it."]),
        ({"daemon": {"alive": False}}, ["The database says that the scheduler runs here as process 7, but there is no such process."]),
        (
            {"daemon": {"host": "b.example.org", "here": False, "alive": None}},
            ["The database says that the scheduler runs on b.example.org, and this is a.example.org."],
        ),
        ({"overdue": 901}, ["A task waits since 901 seconds after its time: no scheduler looks at the database."]),
        (
            {
                "tasks": [{"number": 4, "name": "JanitorTask", "state": "failed", "error": "disk full"}],
                "counts": {"spooled": 0, "waiting": 0, "running": 0, "failed": 1, "finished": 0},
            },
            ["1 tasks failed, such as JanitorTask (4): disk full."],
        ),
    ],
    ids=["well", "stopped", "dead", "elsewhere", "late", "failed"],
)
def test_judgement(changes: dict[str, Any], sentences: list[str]) -> None:
    assert _scheduler.judge(found(**changes)) == sentences


def test_another_host_may_be_the_one_that_runs_it() -> None:
    elsewhere = found(daemon={"host": "b.example.org", "here": False, "alive": None})
    assert _scheduler.judge(elsewhere, expected=False) == []
    assert len(_scheduler.judge({**elsewhere, "overdue": 901}, expected=False)) == 1


@pytest.mark.parametrize(
    ("changes", "up"),
    [({}, 1), ({"daemon": {"running": False}}, 0), ({"daemon": {"alive": False}}, 0), ({"daemon": {"here": False, "alive": None}}, 1), ({"overdue": 901}, 0)],
)
def test_metrics(changes: dict[str, Any], up: int) -> None:
    lines = _scheduler.metrics("conf", found(**changes), 1000.5).splitlines()
    assert f'indico_scheduler_up{{instance_name="conf"}} {up}' in lines
    assert 'indico_scheduler_tasks{instance_name="conf",state="finished"} 3' in lines
    assert 'indico_scheduler_info_time_seconds{instance_name="conf"} 1000' in lines


def test_errors_come_from_the_end_of_the_log_and_the_newest_counts(tmp_path: Path) -> None:
    line = "2026-11-27 10:00:0{} 812 worker/{}: ERROR    [JanitorTask:4|RN] failed with exception '{}'. \n"
    (tmp_path / "scheduler.log.2026-11-26").write_text(line.format(1, 4, "old") + line.format(2, 5, "it's full"))
    (tmp_path / "scheduler.log").write_text(line.format(3, 4, "new") + "Traceback (most recent call last):\n")
    (tmp_path / "scheduler.log.1.gz").write_bytes(b"\x1f\x8b")
    assert _scheduler.logged_errors(str(tmp_path / "scheduler.log")) == {4: "new", 5: "it's full"}
    (tmp_path / "scheduler.log").unlink()
    (tmp_path / "scheduler.log").symlink_to(tmp_path / "scheduler.log.2026-11-26")
    assert _scheduler.logged_errors(str(tmp_path / "scheduler.log")) == {4: "old", 5: "it's full"}
    assert _scheduler.logged_errors(str(tmp_path / "none/scheduler.log")) == {}


def test_a_daemon_that_has_ended_is_not_said_to_run() -> None:
    """O11: in maintenance the daemon is stopped, and the database still names its process."""
    stopped = found()
    stopped["daemon"]["alive"] = False
    assert _scheduler.summary(stopped)[0].startswith("the scheduler does not run here; ")


def test_summary_has_a_line_for_each_task() -> None:
    task = {
        "number": None,
        "name": "JanitorTask",
        "state": "spooled",
        "rule": "daily",
        "next": "2026-11-28T02:00:00Z",
        "ended": None,
        "started": None,
        "error": None,
    }
    lines = _scheduler.summary(found(tasks=[task]))
    assert lines[0] == "the scheduler runs on a.example.org as process 7; 0 spooled, 1 waiting, 0 running, 0 failed, 3 finished"
    assert lines[1].split() == ["-", "spooled", "JanitorTask", "next", "2026-11-28T02:00:00Z", "daily"]
