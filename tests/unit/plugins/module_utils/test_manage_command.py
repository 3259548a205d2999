"""The command for people: its words, its exit codes and what it prints. What it asks Indico is seen in the scenarios."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _indico, _manage_command, _scheduler


@pytest.fixture
def settings(tmp_path: Path) -> str:
    path = tmp_path / "manage.json"
    host = {"units": [], "storages": [], "url": None, "public_url": None}
    path.write_text(json.dumps({"instance": "conf", "prefix": str(tmp_path), "user": "conf", "host": host}))
    return str(path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Note what Indico is asked, and answer with one step, or in batches."""
    calls: list[dict[str, Any]] = []

    def run(script: str, arguments: dict[str, Any], **_how: Any) -> dict[str, Any]:
        calls.append({"script": script, **arguments})
        return {"steps": [f"step {len(calls)}"], "left": max(0, 2 - len(calls)) if arguments.get("verb") == "purge" else 0}

    monkeypatch.setattr(_indico, "run", run)
    return calls


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["tasks", "run", "3", "4"], {"verb": "run", "numbers": [3, 4], "check": False}),
        (["tasks", "requeue"], {"verb": "requeue", "numbers": []}),
        (["tasks", "delete", "3", "--dry-run"], {"verb": "delete", "numbers": [3], "check": True}),
        (["tasks", "delete", "3", "--yes"], {"verb": "delete", "check": False}),
        (["admins", "grant", "ada@example.org"], {"email": "ada@example.org", "state": "present", "login": None}),
        (["admins", "revoke", "ada@example.org", "--dry-run"], {"state": "absent", "check": True}),
    ],
)
def test_words_become_arguments(
    settings: str, asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], words: list[str], given: dict[str, Any]
) -> None:
    assert _manage_command.main(settings, words) == 0
    assert {name: asked[0][name] for name in given} == given
    assert capsys.readouterr().out == "step 1\n"


def test_a_declared_task_is_completed(settings: str, asked: list[dict[str, Any]]) -> None:
    assert _manage_command.main(settings, ["tasks", "add", "category_statistics", "--category", "0", "--hours", "6", "18"]) == 0
    (task,) = asked[0]["tasks"]
    assert (asked[0]["script"], task["class"], task["hours"], task["minutes"]) == (_scheduler.DECLARE, _scheduler.CLASSES["category_statistics"], [6, 18], [0])


def test_a_purge_goes_on_until_nothing_is_left(settings: str, asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert _manage_command.main(settings, ["tasks", "purge", "--days", "7", "--json"]) == 0
    assert [call["days"] for call in asked] == [7, 7]
    assert json.loads(capsys.readouterr().out) == {"steps": ["step 1", "step 2"]}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["tasks", "delete", "3", "4"], "This deletes 3, 4 for good; add --yes."),
        (["tasks", "add", "category_statistics"], "[0] (category_statistics) has no category; 0 is the home of all."),
        (["mirror", "/srv/mirror", "--day", "today"], "today is no day; write it as 2013-05-28."),
        (["mirror", "/srv/mirror", "--days", "0"], "0 days hold no event; name 1 or more."),
        (["mirror", "mirror", "--categories", "1", "2"], "mirror is no place for a mirror; name a directory by its whole path."),
    ],
)
def test_what_is_refused(settings: str, asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], words: list[str], sentence: str) -> None:
    assert _manage_command.main(settings, words) == 1
    assert capsys.readouterr().err == sentence + "\n"
    assert _manage_command.main(settings, [*words, "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"error": sentence}
    assert asked == []


def test_cleaning(settings: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forgotten = tmp_path / "tmp/Indico123"
    forgotten.parent.mkdir()
    forgotten.write_text("x" * 100)
    os.utime(forgotten, (1e9, 1e9))
    assert _manage_command.main(settings, ["clean", "tmp", "--dry-run"]) == 0
    assert capsys.readouterr().out == "tmp: 1 files (100 bytes) would go\n"
    assert _manage_command.main(settings, ["clean", "tmp", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cleaned"]["tmp"]["bytes"] == 100
    assert not forgotten.exists()
    assert _manage_command.main(settings, ["clean", "archive"]) == 1
    assert capsys.readouterr().err == "archive cannot be cleaned; cache, tmp, sessions, logs, replaced can.\n"


def test_problems_are_an_exit_code(settings: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    counts = dict.fromkeys(("spooled", "waiting", "running", "failed", "finished"), 0)
    found = {"daemon": {"running": False, "host": None, "pid": None}, "counts": counts, "tasks": [], "problems": ["No scheduler runs."]}
    monkeypatch.setattr(_scheduler, "info", lambda *_where, **_how: found)
    assert _manage_command.main(settings, ["tasks", "list"]) == 1
    said = capsys.readouterr()
    assert (said.out.splitlines()[0].startswith("the scheduler does not run"), said.err) == (True, "No scheduler runs.\n")
    assert _manage_command.main(settings, ["tasks", "show", "5"]) == 1
    assert capsys.readouterr().err == "There is no task 5.\n"


def test_unknown_words_exit_with_2(settings: str) -> None:
    with pytest.raises(SystemExit) as end:
        _manage_command.main(settings, ["tasks", "paint"])
    assert end.value.code == 2


def test_metrics_are_readable_by_others(settings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = dict.fromkeys(("spooled", "waiting", "running", "failed", "finished"), 0)
    found = {"daemon": {"running": True, "alive": True}, "counts": counts, "overdue": 0, "tasks": [], "problems": []}
    monkeypatch.setattr(_scheduler, "info", lambda *_where, **_how: found)
    assert _manage_command.main(settings, ["metrics", str(tmp_path / "scheduler.prom")]) == 0
    assert 'indico_scheduler_up{instance_name="conf"} 1' in (tmp_path / "scheduler.prom").read_text()
    assert (tmp_path / "scheduler.prom").stat().st_mode & 0o777 == 0o644
