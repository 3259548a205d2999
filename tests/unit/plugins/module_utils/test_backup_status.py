"""What is said of backups and drills: status, metrics, pings, the judgement of a check."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _backup_command, _backup_set, _backup_status, _crontab, _drill
from ansible_collections.confops.indico.plugins.module_utils._backup_status import CRITICAL, OK, UNKNOWN, WARNING, Limits
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError

from tests.unit.storage import Storage

NOW = 1_800_000_000.0
HOUR = 3600
GOOD: dict[str, Any] = {
    "run": {"ok": True, "problem": None, "success_seconds": NOW - 5 * HOUR},
    "drill": {"ok": True, "problem": None, "success_seconds": NOW - 50 * HOUR},
    "repositories": {"main": {"problems": [], "chains": 2, "verified": "2027-01-14T08:00:00Z"}},
}
SIZES = [{"main": 1_000_000}, {"main": 1_001_000}]


@pytest.fixture
def site(tmp_path: Path) -> _backup_set.Settings:
    """An instance with one database, whose backups and metrics go beside it."""
    (tmp_path / "indico/db/main").mkdir(parents=True)
    (tmp_path / "backups").mkdir()
    (tmp_path / "archive").mkdir()
    Storage(tmp_path / "indico/db/main/Data.fs").add(20)
    return _backup_set.Settings(
        instance="indico",
        prefix=str(tmp_path / "indico"),
        directory=str(tmp_path / "backups"),
        storages=["main"],
        compression="none",
        metrics=str(tmp_path / "metrics.prom"),
        drill_directory=str(tmp_path / "drill"),
        release=str(tmp_path / "indico/current"),
    )


def metrics(site: _backup_set.Settings) -> dict[str, str]:
    lines = [line for line in Path(site.metrics).read_text().splitlines() if not line.startswith("#")]
    return dict(line.rsplit(" ", 1) for line in lines)


def saved(site: _backup_set.Settings, tmp_path: Path) -> str:
    path = tmp_path / "backup.json"
    path.write_text(json.dumps(vars(site)))
    return str(path)


def make_set(site: _backup_set.Settings) -> _backup_set.Outcome:
    return _backup_set.run(site, who="root", why="test")


def test_a_good_run_is_told(site: _backup_set.Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = make_set(site)
    assert outcome.storages[0]["kind"] == "full"
    known = _backup_status.whole(site)
    assert known["run"]["ok"] and known["run"]["line"].startswith("backup done in ")
    assert known["drill"] is None and known["pack"] is None
    assert known["repositories"]["main"]["chain_length"] == 1 and known["repositories"]["main"]["verified"]
    found = metrics(site)
    assert found['indico_backup_status{instance_name="indico"}'] == "2"
    assert found['indico_chain_length{instance_name="indico",storage="main"}'] == "1"
    assert float(found['indico_backup_verified_time_seconds{instance_name="indico",storage="main"}']) > time.time() - 100
    assert found['indico_recovery_window_seconds{instance_name="indico",storage="main"}'] == "0"
    assert not [name for name in found if "drill" in name or "pack" in name]
    assert _backup_command.main(saved(site, tmp_path), ["check"]) == OK
    assert capsys.readouterr().out == "OK: the last good backup is 0 hours old\n"
    assert _backup_command.main(saved(site, tmp_path), ["status"]) == 0
    assert json.loads(capsys.readouterr().out) == known


def test_a_failed_run_is_told_and_remembers_the_last_good_one(site: _backup_set.Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_set(site)
    good = _backup_status.whole(site)["run"]["success_seconds"]
    Path(site.database("main")).unlink()
    problem = f"The database {site.database('main')} cannot be read: No such file or directory."
    with pytest.raises(RepositoryError, match="cannot be read"):
        make_set(site)
    run = _backup_status.whole(site)["run"]
    assert (run["ok"], run["problem"], run["success_seconds"]) == (False, problem, good)
    assert metrics(site)['indico_backup_status{instance_name="indico"}'] == "0"
    assert _backup_command.main(saved(site, tmp_path), ["check"]) == WARNING
    assert capsys.readouterr().out == f"WARNING: the last run failed ({problem}); the last good backup is 0 hours old\n"


def test_without_a_run_a_check_knows_nothing(site: _backup_set.Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _backup_command.main(saved(site, tmp_path), ["check"]) == UNKNOWN
    assert capsys.readouterr().out == f"UNKNOWN: No run has left word in {site.directory}/status.json.\n"


def test_a_server_that_works_on_another_file_stops_backups_and_drills(
    site: _backup_set.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """B7: what the path holds is a dead file."""
    make_set(site)
    site.zeo_settings = str(tmp_path / "zeo.json")
    Path(site.zeo_settings).write_text("{}")
    monkeypatch.setattr(_backup_set._zeo_info, "replaced", lambda _path, names: [f"It serves another file than {names}."])
    for act in (lambda: make_set(site), lambda: _backup_set.run(site, who="root", why="test", check=True)):
        with pytest.raises(RepositoryError, match=r"^It serves another file than "):
            act()
    assert _backup_command.main(saved(site, tmp_path), ["check"]) == CRITICAL
    assert capsys.readouterr().out.startswith("CRITICAL: It serves another file than ['main']; the last run failed (")


def test_a_check_knows_of_jobs_that_do_not_run(
    site: _backup_set.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """O1: also before the first run has left word."""
    wrong = [(CRITICAL, "indico-backup", "indico-backup cannot start."), (CRITICAL, "indico-clean", "indico-clean cannot start.")]
    monkeypatch.setattr(_backup_command._jobs, "read_settings", lambda _path: None)
    monkeypatch.setattr(_backup_command._jobs, "table", lambda _settings, _now: [])
    monkeypatch.setattr(_backup_command._jobs, "judge", lambda _jobs, _now: wrong)
    site.jobs_settings = str(tmp_path / "jobs.json")
    assert _backup_command.main(saved(site, tmp_path), ["check"]) == CRITICAL
    assert capsys.readouterr().out == f"CRITICAL: indico-backup cannot start; No run has left word in {site.directory}/status.json\n"
    make_set(site)
    assert _backup_command.main(saved(site, tmp_path), ["check"]) == CRITICAL
    assert capsys.readouterr().out == "CRITICAL: indico-backup cannot start\n"


def test_metrics_that_cannot_be_written_are_a_warning(site: _backup_set.Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """O1: the directory is missing; the backup is made all the same."""
    site.metrics = str(tmp_path / "absent/metrics.prom")
    outcome = make_set(site)
    assert outcome.set and outcome.warnings[0].startswith(f"The metrics file {site.metrics} cannot be written: ")
    assert _backup_command.main(saved(site, tmp_path), ["check"]) == WARNING
    assert capsys.readouterr().out == f"WARNING: there is no {site.metrics}, which each run writes\n"


def test_a_run_that_is_ended_leaves_word(site: _backup_set.Settings, tmp_path: Path) -> None:
    """What its unit's time limit does: the program that it waits for is ended with it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/rsync").write_text("#!/bin/sh\necho > $0.runs\nexec sleep 60\n")
    (tmp_path / "bin/rsync").chmod(0o755)
    (tmp_path / "indico/archive").mkdir()
    code = "import sys; from ansible_collections.confops.indico.plugins.module_utils._backup_command import main; sys.exit(main(sys.argv[1], ['run']))"
    environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", code, saved(site, tmp_path)], env=environment, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 30
    while not (tmp_path / "bin/rsync.runs").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _out, complaint = process.communicate(timeout=30)
    assert (process.returncode, complaint) == (1, "It was ended from outside: its time limit has passed, or somebody stopped it.\n")
    assert _backup_status.whole(site)["run"]["problem"] == complaint.strip()
    assert metrics(site)['indico_backup_status{instance_name="indico"}'] == "0"
    # The database's backup was complete by then, and the next run goes on from it.
    (tmp_path / "bin/rsync").unlink()
    assert _backup_status.whole(site)["repositories"]["main"]["problems"] == []


@pytest.mark.parametrize(
    ("change", "sizes", "limits", "code", "line"),
    [
        ({}, SIZES, {}, OK, "OK: the last good backup is 5 hours old, drilled 50 hours ago"),
        ({"run": {"success_seconds": NOW - 30 * HOUR}}, SIZES, {}, WARNING, "WARNING: the last good backup is 30 hours old"),
        ({"run": {"success_seconds": NOW - 60 * HOUR}}, SIZES, {}, CRITICAL, "CRITICAL: the last good backup is 60 hours old"),
        (
            {"run": {"ok": False, "problem": "no disk.", "success_seconds": 0}},
            SIZES,
            {},
            CRITICAL,
            "CRITICAL: no backup has ever succeeded; the last run: no disk.",
        ),
        (
            {"run": {"ok": False, "problem": "no disk.", "success_seconds": NOW - HOUR}},
            SIZES,
            {},
            WARNING,
            "WARNING: the last run failed (no disk.); the last good backup is 1 hours old",
        ),
        ({"main": {"problems": ["a.dat is missing."]}}, SIZES, {}, CRITICAL, "CRITICAL: main: a.dat is missing."),
        ({"main": {"verified": None}}, SIZES, {}, WARNING, "WARNING: main: not all backups were verified"),
        ({"main": {"verified": "2026-11-15T08:00:00Z"}}, SIZES, {}, WARNING, "WARNING: main: backups were last verified 61 days ago"),
        ({"main": {"verified": "2026-11-15T08:00:00Z"}}, SIZES, {"verified_days": 0}, OK, "OK: the last good backup is 5 hours old, drilled 50 hours ago"),
        ({}, [{"main": 900}], {"minimum_bytes": 4096}, WARNING, "WARNING: main has 900 bytes, less than 4096"),
        ({}, [{"main": 0}], {}, OK, "OK: the last good backup is 5 hours old, drilled 50 hours ago"),
        ({}, [{"main": 1_000_000}, {"main": 400_000}], {}, WARNING, "WARNING: main shrank from 1000000 to 400000 bytes"),
        ({}, [{"main": 1_000_000}, {"main": 600_000}], {}, OK, "OK: the last good backup is 5 hours old, drilled 50 hours ago"),
        ({"drill": {"ok": False, "problem": "no page."}}, SIZES, {}, WARNING, "WARNING: the last drill failed (no page.)"),
        ({}, SIZES, {"drill_days": 1}, WARNING, "WARNING: the last good drill is 2 days old"),
        ({"drill": None}, SIZES, {"drill_days": 1}, WARNING, "WARNING: no drill was made"),
        ({"pack": {"ok": False, "problem": "no room."}}, SIZES, {}, WARNING, "WARNING: the last pack failed (no room.)"),
        ({"pack": {"ok": True, "success_seconds": NOW - 300 * HOUR}}, SIZES, {}, OK, "OK: the last good backup is 5 hours old, drilled 50 hours ago"),
        ({"pack": {"ok": True, "success_seconds": NOW - 300 * HOUR}}, SIZES, {"pack_days": 8}, WARNING, "WARNING: the last good pack is 12 days old"),
        ({}, SIZES, {"pack_days": 8}, WARNING, "WARNING: no pack was made"),
        (
            {"run": {"success_seconds": NOW - 30 * HOUR}, "main": {"problems": ["a.dat is missing."]}},
            SIZES,
            {},
            CRITICAL,
            "CRITICAL: main: a.dat is missing.; the last good backup is 30 hours old",
        ),
    ],
)
def test_judgement(change: dict[str, Any], sizes: list[dict[str, int]], limits: dict[str, float], code: int, line: str) -> None:
    known = {
        "run": {**GOOD["run"], **change.get("run", {})},
        "drill": change["drill"] and {**GOOD["drill"], **change["drill"]} if "drill" in change else GOOD["drill"],
        "pack": change.get("pack"),
        "repositories": {"main": {**GOOD["repositories"]["main"], **change.get("main", {})}},
    }
    assert _backup_status.judge(known, sizes, NOW, Limits(**limits)) == (code, line)


class Watcher(http.server.BaseHTTPRequestHandler):
    heard: list[tuple[str, str]]

    def do_POST(self) -> None:
        self.heard.append((self.path, self.rfile.read(int(self.headers["Content-Length"])).decode()))
        self.send_response(200 if self.path != "/broken" else 500)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def watcher() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A service that watches over jobs: its address and what it heard."""
    Watcher.heard = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Watcher) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", Watcher.heard
        server.shutdown()


def test_pings(site: _backup_set.Settings, watcher: tuple[str, list[tuple[str, str]]]) -> None:
    url, heard = watcher
    site.pings = {"start": f"{url}/start", "success": f"{url}/good", "failure": f"{url}/bad"}
    predicted = _backup_set.run(site, who="root", why="test", check=True)
    assert predicted.line().startswith("a backup would do this: main "), "O10"
    assert " done in " not in predicted.line()
    assert heard == []
    outcome = make_set(site)
    Path(site.database("main")).unlink()
    with pytest.raises(RepositoryError, match="cannot be read"):
        make_set(site)
    assert heard[:3] == [("/start", ""), ("/good", outcome.line()), ("/start", "")]
    assert heard[3][0] == "/bad" and heard[3][1].startswith("backup failed: The database ")
    assert len(heard) == 4


def test_a_ping_that_is_not_received_is_a_warning_without_its_url(site: _backup_set.Settings, watcher: tuple[str, list[tuple[str, str]]]) -> None:
    url, _heard = watcher
    site.pings = {"start": f"{url}/broken", "success": "http://127.0.0.1:1/secret"}
    outcome = make_set(site)
    assert outcome.problem is None
    assert outcome.warnings[0] == "The ping for start was not received: HTTP Error 500: Internal Server Error."
    assert outcome.warnings[1].startswith("The ping for success was not received: ") and "secret" not in outcome.warnings[1]
    assert metrics(site)['indico_backup_status{instance_name="indico"}'] == "1"


def test_a_scheduled_run_keeps_to_the_hours_and_a_person_need_not(site: _backup_set.Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin = time.localtime(time.time() + 2 * HOUR)
    end = time.localtime(time.time() + 3 * HOUR)
    site.allowed_hours = f"{time.strftime('%H:%M', begin)}-{time.strftime('%H:%M', end)}"
    assert _backup_command.main(saved(site, tmp_path), ["run", "--scheduled"]) == _crontab.SKIPPED
    assert f"outside of {site.allowed_hours}: nothing was done." in capsys.readouterr().out
    assert list(Path(site.directory).iterdir()) == []
    assert _backup_command.main(saved(site, tmp_path), ["run"]) == 0


def test_a_drill_says_what_it_lacks(site: _backup_set.Settings) -> None:
    with pytest.raises(RepositoryError, match=f"There is no set in {site.sets}; make a backup first."):
        _drill.run(site)
    make_set(site)
    with pytest.raises(RepositoryError, match=f"{site.release} holds no release of Indico, whose code opens what is restored."):
        _drill.run(site)
    assert not Path(site.drill_directory).exists()
    assert _backup_status.whole(site)["drill"]["problem"].endswith("whose code opens what is restored.")
    assert metrics(site)['indico_drill_status{instance_name="indico"}'] == "0"


def test_a_drill_needs_space(site: _backup_set.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    make_set(site)
    size = Path(site.database("main")).stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(RepositoryError, match=f"needs up to {size + 2**20} bytes on the file system of .*, which has 1000 free;"):
        _drill.run(site, check=True)
