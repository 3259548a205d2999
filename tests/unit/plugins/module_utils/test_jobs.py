"""The records of scheduled jobs, their table, and who is told of a failure. A shell script stands in for systemctl."""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import ClassVar

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _crontab, _jobs, _jobs_command
from ansible_collections.confops.indico.plugins.module_utils._backup_status import CRITICAL, WARNING

NOW = 1_795_824_000.0  # 2026-11-28T00:00:00Z
SERVICE = "[Unit]\nOnFailure=indico-failure@%N.service\n[Service]\nExecStart=/bin/true\n"
# Answers in the order of the names, each from a file of that name if there is one.
SYSTEMCTL = """#!/bin/sh
properties=$3
shift 4
nothing="ActiveState=inactive\\nNextElapseUSecRealtime=\\nNextElapseUSecMonotonic=\\n"
for unit; do cat "${0%/*}/$unit" 2>/dev/null || printf "Description=$unit\\n$nothing"; echo; done
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _jobs.Settings:
    for name in ("system", "cron.d", "bin"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(_jobs, "SYSTEM", str(tmp_path / "system"))
    monkeypatch.setattr(_jobs, "CRONTABS", str(tmp_path / "cron.d"))
    monkeypatch.setattr(_jobs, "RUN", str(tmp_path))
    (tmp_path / "bin/systemctl").write_text(SYSTEMCTL)
    (tmp_path / "bin/systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    for name in ("backup", "clean", "disk"):
        (tmp_path / f"system/indico-{name}.service").write_text(SERVICE)
    (tmp_path / "system/indico-scheduler.service").write_text("[Service]\nExecStart=/bin/true\n")
    (tmp_path / "system/indico2-backup.service").write_text(SERVICE.replace("indico", "indico2"))
    return _jobs.Settings("indico", str(tmp_path / "state"))


def test_jobs_are_the_services_that_tell_of_a_failure(settings: _jobs.Settings) -> None:
    assert _jobs.names(settings) == ["indico-backup", "indico-clean", "indico-disk"]


@pytest.mark.parametrize(
    ("given", "result"),
    [
        ({"SERVICE_RESULT": "success", "EXIT_CODE": "exited", "EXIT_STATUS": "0"}, "success"),
        ({"SERVICE_RESULT": "exit-code", "EXIT_CODE": "exited", "EXIT_STATUS": "3"}, "exit code 3"),
        ({"SERVICE_RESULT": "signal", "EXIT_CODE": "killed", "EXIT_STATUS": "KILL"}, "killed by SIGKILL"),
        ({"SERVICE_RESULT": "timeout", "EXIT_CODE": "killed", "EXIT_STATUS": "TERM"}, "ended after its time limit"),
        ({"SERVICE_RESULT": "resources"}, "could not start (resources)"),
        ({"SERVICE_RESULT": "exit-code", "EXIT_CODE": "exited", "EXIT_STATUS": "226"}, "could not start (exit code 226, see systemd.exec(5))"),
    ],
)
def test_how_a_run_ended(settings: _jobs.Settings, given: dict[str, str], result: str) -> None:
    known = _jobs.ended(settings, "indico-backup", given, NOW - 4.26, NOW)
    assert known == _jobs.record(settings, "indico-backup")
    assert (known["result"], known["seconds"], known["ended"]) == (result, 4.3, NOW)
    assert (known["succeeded"], known["failures"]) == ((NOW, 0) if result == "success" else (None, 1))


def test_failures_are_counted_and_a_run_at_the_wrong_hour_is_none(settings: _jobs.Settings) -> None:
    good, bad = {"SERVICE_RESULT": "success", "EXIT_STATUS": "0"}, {"SERVICE_RESULT": "exit-code", "EXIT_STATUS": "1"}
    for moment, given in enumerate((good, bad, bad)):
        _jobs.ended(settings, "indico-backup", given, NOW + moment, NOW + moment)
    for given in ({"SERVICE_RESULT": "success", "EXIT_STATUS": "75"}, {"SERVICE_RESULT": "exec-condition"}):
        known = _jobs.ended(settings, "indico-backup", given, NOW + 9, NOW + 9)
        assert (known["result"], known["failures"], known["succeeded"], known["skipped"]) == ("exit code 1", 2, NOW, NOW + 9)
    assert _jobs.ended(settings, "indico-backup", good, NOW + 10, NOW + 11)["failures"] == 0


def test_a_damaged_record_is_none(settings: _jobs.Settings) -> None:
    Path(settings.state).mkdir()
    for text in ("", "{", "[]", "7"):
        Path(settings.state, "indico-clean.json").write_text(text)
        assert _jobs.record(settings, "indico-clean") == {}
    assert _jobs.ended(settings, "indico-clean", {"SERVICE_RESULT": "success"}, NOW, NOW)["failures"] == 0


def test_the_table_says_what_starts_each_and_when(settings: _jobs.Settings, tmp_path: Path) -> None:
    (tmp_path / "bin/indico-backup.timer").write_text("ActiveState=active\nNextElapseUSecRealtime=Sat 2026-11-28 01:32:12 UTC\nNextElapseUSecMonotonic=\n")
    (tmp_path / "bin/indico-disk.service").write_text("Description=Look at the disks\nActiveState=activating\n")
    (tmp_path / "cron.d/indico-cron").write_text(f"# Ansible managed\n{_crontab.fields('04:30')} root systemctl start indico-clean.service\n")
    _jobs.ended(settings, "indico-backup", {"SERVICE_RESULT": "exit-code", "EXIT_STATUS": "1"}, NOW - 3, NOW)
    backup, clean, disk = _jobs.table(settings, NOW)
    assert (backup["started_by"], _jobs.iso(backup["next"]), backup["result"]) == ("timer", "2026-11-28T01:32:12Z", "exit code 1")
    assert (clean["started_by"], time.strftime("%H:%M", time.localtime(clean["next"])), clean["result"]) == ("cron", "04:30", None)
    assert (disk["started_by"], disk["next"], disk["running"], disk["description"]) == (None, None, True, "Look at the disks")
    lines = _jobs.summary([backup, clean, disk])
    assert [line.split("  ")[0] for line in lines] == ["job", "indico-backup", "indico-clean", "indico-disk"]
    assert "exit code 1" in lines[1] and "never ran" in lines[2] and "running" in lines[3] and lines[3].endswith("nothing")
    assert _jobs.problems([backup, clean, disk], NOW) == [
        "WARNING: indico-backup failed: exit code 1, 2026-11-28T00:00:00Z; it has never succeeded. journalctl --unit indico-backup says why."
    ]
    assert 'indico_job_failures{instance_name="indico",unit="indico-backup"} 1\n' in _jobs.metrics("indico", [backup, clean, disk], NOW)


def test_a_span_since_boot_is_a_moment(settings: _jobs.Settings, tmp_path: Path) -> None:
    (tmp_path / "bin/indico-disk.timer").write_text("ActiveState=active\nNextElapseUSecRealtime=\nNextElapseUSecMonotonic=1d 2h 3min 4.500s\n")
    now = time.time()
    (disk,) = [job for job in _jobs.table(settings, now) if job["name"] == "indico-disk"]
    assert disk["next"] == pytest.approx(now - time.clock_gettime(time.CLOCK_MONOTONIC) + 86400 + 7200 + 180 + 4.5, abs=1)


# Who is told


class _Mailbox(socketserver.StreamRequestHandler):
    """As much of SMTP as one client needs."""

    letters: ClassVar[list[str]] = []
    refuses = False

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        for line in self.rfile:
            verb = line[:4].upper().strip()
            if verb == b"QUIT":
                break
            if verb == b"DATA":
                self.wfile.write(b"354 go\r\n")
                lines = []
                for text in self.rfile:
                    if text == b".\r\n":
                        break
                    lines.append(text.decode())
                self.letters.append("".join(lines))
            self.wfile.write(b"550 no\r\n" if verb == b"RCPT" and self.refuses else b"250 ok\r\n")


class _Hook(http.server.BaseHTTPRequestHandler):
    heard: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.heard.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(500 if "broken" in self.path else 200)
        self.end_headers()

    def log_message(self, *_words: object) -> None:
        return


@pytest.fixture
def listening(settings: _jobs.Settings) -> Iterator[_jobs.Settings]:
    _Mailbox.letters, _Mailbox.refuses, _Hook.heard = [], False, []
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Mailbox) as mail, http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hook) as hook:
        for server in (mail, hook):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        settings.smtp_host, settings.smtp_port = "127.0.0.1", mail.server_address[1]
        settings.mail_to, settings.mail_from = ["ada@example.org", "bruno@example.org"], "indico@example.org"
        settings.failure_url = f"http://127.0.0.1:{hook.server_address[1]}/secret"
        yield settings
        for server in (mail, hook):
            server.shutdown()


def command(settings: _jobs.Settings, tmp_path: Path, *words: str) -> int:
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps(vars(settings)))
    return _jobs_command.main(str(path), list(words))


def test_people_are_told_once_a_day(listening: _jobs.Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _attempt in range(3):
        _jobs.ended(listening, "indico-backup", {"SERVICE_RESULT": "timeout", "EXIT_STATUS": "TERM"}, time.time() - 5, time.time())
        assert command(listening, tmp_path, "failed", "indico-backup") == 0
    assert len(_Mailbox.letters) == len(_Hook.heard) == 1
    assert "To: ada@example.org, bruno@example.org" in _Mailbox.letters[0] and "Auto-Submitted: auto-generated" in _Mailbox.letters[0]
    assert "Subject: indico-backup failed on " in _Mailbox.letters[0] and "ended after its time limit" in _Hook.heard[0]
    known = _jobs.record(listening, "indico-backup")
    _jobs.remember(listening, "indico-backup", {**known, "told": time.time() - 86400})
    assert command(listening, tmp_path, "failed", "indico-backup") == 0
    assert len(_Mailbox.letters) == 2
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "indico-backup failed: mail to ada@example.org, bruno@example.org, the URL for failures."
    assert said[1].startswith("indico-backup failed again; people were told ")


def test_one_way_that_fails_does_not_close_the_other(listening: _jobs.Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _Mailbox.refuses = True
    assert command(listening, tmp_path, "failed", "indico-disk") == 1
    assert len(_Hook.heard) == 1
    assert f"was not taken by 127.0.0.1:{listening.smtp_port}: " in capsys.readouterr().err
    _Mailbox.refuses, url = False, listening.failure_url
    listening.failure_url = url.replace("secret", "broken")
    assert command(listening, tmp_path, "failed", "indico-disk") == 1
    assert len(_Mailbox.letters) == 1
    said = capsys.readouterr().err
    assert _jobs.record(listening, "indico-disk")["told"]  # the mail went
    assert said.startswith("The URL for failures was not reached: ") and "broken" not in said
    assert command(listening, tmp_path, "failed", "indico-none") == 1
    assert capsys.readouterr().err.startswith("There is no job indico-none; there are indico-backup, ")


def test_settings_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "jobs.json").write_text('{"instances": "indico"}')
    assert _jobs_command.main(str(tmp_path / "jobs.json"), ["status"]) == 1
    assert f"{tmp_path}/jobs.json cannot be used: " in capsys.readouterr().err


# Alarms do not share the fate of what they watch (O1)


def declare(settings: _jobs.Settings, since: float, **jobs: dict[str, str]) -> None:
    """Write what a role says of its jobs, as of a moment."""
    settings.declared = str(Path(settings.state).with_name("jobs.d"))
    Path(settings.declared).mkdir(exist_ok=True)
    path = Path(settings.declared, "indico-cron.json")
    path.write_text(json.dumps({f"indico-{name}": job for name, job in jobs.items()}))
    os.utime(path, (since, since))


def unit(tmp_path: Path, name: str, **properties: object) -> None:
    """Have systemd say this of a unit."""
    usual = {"Description": name, "ActiveState": "inactive", "NextElapseUSecRealtime": "", "NextElapseUSecMonotonic": ""}
    (tmp_path / f"bin/{name}").write_text("".join(f"{key}={value}\n" for key, value in {**usual, **properties}.items()))


def judged(settings: _jobs.Settings, now: float, name: str) -> list[tuple[int, str]]:
    return [(code, text) for code, job, text in _jobs.judge(_jobs.table(settings, now), now) if job == name]


DAILY = {"started_by": "timer", "schedule": "01:30", "jitter": "10min"}
RUNS = {"ActiveState": "active", "LoadState": "loaded", "UnitFileState": "enabled"}


@pytest.mark.parametrize(
    ("timer", "words"),
    [
        ({"ActiveState": "inactive", "LoadState": "loaded"}, "indico-clean.timer is inactive."),
        ({"LoadState": "not-found"}, "indico-clean.timer is not-found."),
        ({**RUNS, "UnitFileState": "disabled"}, "indico-clean.timer is disabled, so the next boot does not start it."),
    ],
    ids=["stopped", "missing", "disabled"],
)
def test_a_timer_that_is_off_is_critical(settings: _jobs.Settings, tmp_path: Path, timer: dict[str, str], words: str) -> None:
    """O1."""
    now = time.time()
    declare(settings, now, clean=DAILY)
    unit(tmp_path, "indico-clean.timer", **timer)
    assert judged(settings, now, "indico-clean") == [(CRITICAL, f"indico-clean is never started: {words} site.yml sets it right.")]
    assert command(settings, tmp_path, "status") == CRITICAL
    assert 'indico_job_status{instance_name="indico",unit="indico-clean"} 0\n' in _jobs.metrics("indico", _jobs.table(settings, now), now)
    unit(tmp_path, "indico-clean.timer", **RUNS)
    assert judged(settings, now, "indico-clean") == []
    assert 'indico_job_status{instance_name="indico",unit="indico-clean"} 2\n' in _jobs.metrics("indico", _jobs.table(settings, now), now)


@pytest.mark.parametrize("load", ["bad-setting", "not-found", "masked", "error"])
def test_a_unit_that_systemd_cannot_use_is_critical(settings: _jobs.Settings, tmp_path: Path, load: str) -> None:
    """O1: also when its file is gone, so that nothing on the host but the declaration names it."""
    now = time.time()
    (tmp_path / "system/indico-clean.service").unlink()
    declare(settings, now, clean={})
    unit(tmp_path, "indico-clean.service", LoadState=load)
    assert judged(settings, now, "indico-clean") == [(CRITICAL, f"indico-clean cannot start: systemd says that its unit file is {load}. site.yml writes it.")]
    assert f"unit {load}" in "\n".join(_jobs.summary(_jobs.table(settings, now)))


def test_a_job_that_could_not_begin_is_known_from_systemd_alone(settings: _jobs.Settings, tmp_path: Path) -> None:
    """O1: 226 is NAMESPACE. Neither the job nor what ends it could run, so there is no record."""
    now, since_boot = time.time(), time.clock_gettime(time.CLOCK_MONOTONIC)
    failed = {"ActiveState": "failed", "Result": "exit-code", "ExecMainCode": 1, "ExecMainStatus": 226, "InvocationID": "abc"}
    unit(tmp_path, "indico-clean.service", **failed, InactiveEnterTimestampMonotonic=int((since_boot - 60) * 1e6))
    ((code, text),) = judged(settings, now, "indico-clean")
    assert code == CRITICAL
    assert text.startswith("indico-clean failed: could not start (exit code 226, see systemd.exec(5)), ") and "it has never succeeded" in text
    # A record of the same run, or of a later one, counts.
    _jobs.ended(settings, "indico-clean", {"SERVICE_RESULT": "success", "INVOCATION_ID": "def"}, now - 20, now - 10)
    assert judged(settings, now, "indico-clean") == []


def test_a_run_that_was_killed_and_left_no_record_is_a_failure(settings: _jobs.Settings, tmp_path: Path) -> None:
    now, since_boot = time.time(), time.clock_gettime(time.CLOCK_MONOTONIC)
    failed = {"ActiveState": "failed", "Result": "signal", "ExecMainCode": 2, "ExecMainStatus": 9, "InvocationID": "abc"}
    unit(tmp_path, "indico-clean.service", **failed, InactiveEnterTimestampMonotonic=int((since_boot - 60) * 1e6))
    ((code, text),) = judged(settings, now, "indico-clean")
    assert (code, text.split(",")[0]) == (WARNING, "indico-clean failed: killed by SIGKILL")


@pytest.mark.parametrize("starter", ["timer", "cron"])
def test_a_job_that_was_due_and_did_not_run_is_critical(settings: _jobs.Settings, tmp_path: Path, starter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """O1: whether it never ran since it was declared, or ran before and no more; both of what starts jobs."""
    monkeypatch.setattr(time, "clock_gettime", lambda _clock: 90 * 86400.0)  # the host has been up for long
    declare(settings, NOW, clean={**DAILY, "started_by": starter})
    unit(tmp_path, "indico-clean.timer", **RUNS)
    unit(tmp_path, "cron.service", ActiveState="active")
    if starter == "cron":
        unit(tmp_path, "indico-clean.timer")
        (tmp_path / "cron.d/indico-cron").write_text("30 1 * * * root systemctl start indico-clean.service\n")
    due = _crontab.following("30 1 * * *", datetime.fromtimestamp(NOW)).timestamp()
    assert judged(settings, due + 3600, "indico-clean") == []
    ((code, text),) = judged(settings, due + 4300, "indico-clean")
    assert code == CRITICAL and text.startswith("indico-clean was due before ") and "it never ran" in text
    _jobs.ended(settings, "indico-clean", {"SERVICE_RESULT": "success", "EXIT_STATUS": "0"}, due, due + 60)
    assert judged(settings, due + 4300, "indico-clean") == []
    ((code, text),) = judged(settings, due + 86400 + 4300, "indico-clean")
    assert f"it ended last {_jobs.iso(due + 60)}" in text
    # One that runs now is not late, and a run at the wrong hour counts.
    unit(tmp_path, "indico-clean.service", ActiveState="activating")
    assert judged(settings, due + 86400 + 4300, "indico-clean") == []
    unit(tmp_path, "indico-clean.service")
    _jobs.ended(settings, "indico-clean", {"SERVICE_RESULT": "exec-condition"}, due + 86400, due + 86400)
    assert judged(settings, due + 86400 + 4300, "indico-clean") == []


def test_a_record_from_the_future_hides_nothing(settings: _jobs.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock was wrong once: the job would count as having run for years."""
    monkeypatch.setattr(time, "clock_gettime", lambda _clock: 90 * 86400.0)
    declare(settings, NOW, clean=DAILY)
    unit(tmp_path, "indico-clean.timer", **RUNS)
    _jobs.ended(settings, "indico-clean", {"SERVICE_RESULT": "success"}, NOW + 1e8, NOW + 1e8)
    assert [code for code, _text in judged(settings, NOW + 3 * 86400, "indico-clean")] == [CRITICAL]


def test_cron_that_does_not_run_or_lost_its_line_is_critical(settings: _jobs.Settings, tmp_path: Path) -> None:
    """O1."""
    now = time.time()
    declare(settings, now, clean={"started_by": "cron", "schedule": "01:30", "jitter": ""})
    ((code, text),) = judged(settings, now, "indico-clean")
    assert (code, text) == (CRITICAL, f"indico-clean is never started: no file in {_jobs.CRONTABS} starts it. site.yml sets it right.")
    (tmp_path / "cron.d/indico-cron").write_text("30 1 * * * root systemctl start indico-clean.service\n")
    ((_code, text),) = judged(settings, now, "indico-clean")
    assert "cron.service does not run" in text


def test_a_job_that_nothing_starts_is_not_missed(settings: _jobs.Settings, tmp_path: Path) -> None:
    declare(settings, NOW, clean={})
    assert judged(settings, NOW + 1e7, "indico-clean") == []
    assert command(settings, tmp_path, "check") == 0


@pytest.mark.parametrize(("text", "seconds"), [("0", 0), ("90", 90), ("10min", 600), ("1h 30min", 5400), ("2 hours", 7200), ("1d", 86400), ("500ms", 0.5)])
def test_spans(text: str, seconds: float) -> None:
    assert _jobs.span(text) == seconds


def test_a_schedule_that_only_systemd_understands(settings: _jobs.Settings, tmp_path: Path) -> None:
    (tmp_path / "bin/systemd-analyze").write_text(
        "#!/bin/sh\necho '    Next elapse: Sat 2026-11-28 02:00:00 CET'\necho '       (in UTC): Sat 2026-11-28 01:00:00 UTC'\n"
    )
    (tmp_path / "bin/systemd-analyze").chmod(0o755)
    assert _jobs._following("hourly", NOW) == NOW + 3600
    (tmp_path / "bin/systemd-analyze").write_text("#!/bin/sh\nexit 1\n")
    assert _jobs._following("hourly", NOW) is None


def test_the_watch_tells_once_a_day_and_at_once_of_what_is_new(listening: _jobs.Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """O1."""
    listening.metrics = str(tmp_path / "jobs.prom")
    declare(listening, time.time(), clean=DAILY, disk={})
    for _look in range(2):
        assert command(listening, tmp_path, "watch") == 0
    assert len(_Mailbox.letters) == len(_Hook.heard) == 1
    assert "Subject: 1 jobs of indico do not run as they should on " in _Mailbox.letters[0] and "indico-clean is never started: " in _Hook.heard[0]
    assert "indico_jobs_look_time_seconds" in Path(listening.metrics).read_text()
    unit(tmp_path, "indico-disk.service", LoadState="bad-setting")
    assert command(listening, tmp_path, "watch") == 0
    assert len(_Hook.heard) == 2 and "indico-disk cannot start" in _Hook.heard[1] and "indico-clean" not in _Hook.heard[1]
    unit(tmp_path, "indico-clean.timer", **RUNS)
    assert command(listening, tmp_path, "watch") == 0
    unit(tmp_path, "indico-clean.timer")
    assert command(listening, tmp_path, "watch") == 0
    assert len(_Hook.heard) == 3
    capsys.readouterr()


def test_a_disk_that_takes_nothing_keeps_no_word_back(listening: _jobs.Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """O1: neither the records nor the metrics can be written, and people are told all the same."""
    (tmp_path / "full").write_text("")
    listening.state = listening.metrics = str(tmp_path / "full/no")
    declare_at = Path(tmp_path, "state")
    declare_at.mkdir()
    listening.declared = str(declare_at)
    (declare_at / "a.json").write_text(json.dumps({"indico-clean": DAILY}))
    assert command(listening, tmp_path, "watch") == 1
    assert command(listening, tmp_path, "failed", "indico-backup") == 1
    assert len(_Hook.heard) == 2
    assert "That people were told cannot be noted in " in capsys.readouterr().err
