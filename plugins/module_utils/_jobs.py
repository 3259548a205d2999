# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The scheduled jobs of a host: how each ended last, when it runs next, what is wrong with it, and who is told.

A job is a service of systemd with a line OnFailure=<instance>-failure@%N.service; a timer, a line of cron's or nothing starts it. systemd tells
how it ended (systemd.exec(5), SERVICE_RESULT), so one that was killed, or took too long, leaves word as well.

What is judged comes from three places, so that no single one can hide a problem: the roles' declaration of the jobs (declared), what systemd says
of the units (show), and the records that the jobs leave (record). A job that could not even begin leaves no record; systemd knows it all the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import smtplib
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.message import EmailMessage
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _backup_status, _children, _crontab, _repository, _units
from ansible_collections.confops.indico.plugins.module_utils._backup_status import CRITICAL, OK, WARNING, WORDS

SYSTEM, CRONTABS, RUN = "/etc/systemd/system", "/etc/cron.d", "/run"
_LINES = 50  # of the journal, in a mail
_PATIENCE = 30.0  # seconds for a mail server or a URL
_WORDS = {
    "exit-code": "exit code {}",
    "signal": "killed by {}",
    "core-dump": "killed by {}",
    "timeout": "ended after its time limit",
    "oom-kill": "out of memory",
    "resources": "could not start (resources)",
}
_NOT_STARTED = range(200, 244)  # exit codes by which systemd says that it could not run the command: systemd.exec(5)
_SLACK = 3600.0  # seconds after its time until a job counts as one that did not run
_AHEAD = 300.0  # seconds; a record from later than that was written while the clock was wrong
SERVICE = (
    "Description",
    "LoadState",
    "ActiveState",
    "Result",
    "ExecMainCode",
    "ExecMainStatus",
    "InactiveEnterTimestampMonotonic",
    "ConditionResult",
    "ConditionTimestampMonotonic",
    "InvocationID",
)
_TIMER = ("LoadState", "UnitFileState", "ActiveState", "NextElapseUSecRealtime", "NextElapseUSecMonotonic")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "M": 2629800, "y": 31557600}
_SPELLED = {"usec": "us", "msec": "ms", "sec": "s", "second": "s", "min": "m", "minute": "m", "hr": "h", "hour": "h", "day": "d", "week": "w"}
_SPELLED.update(month="M", year="y")
_Table = list[dict[str, Any]]


class JobError(Exception):
    """Something about the jobs is wrong; the message is a sentence for the operator."""


@dataclass
class Settings:
    """What role cron writes.

    state: directory of the records; declared: directory in which the roles say which jobs there are, empty for none; mail_to: addresses, none for
    no mail; failure_url: empty for none; disk: see _disk_space.
    """

    instance: str
    state: str
    declared: str = ""
    metrics: str = ""
    mail_to: list[str] = field(default_factory=list)
    mail_from: str = ""
    smtp_host: str = "localhost"
    smtp_port: int = 25
    failure_url: str = ""
    disk: dict[str, Any] = field(default_factory=dict)


def read_settings(path: str) -> Settings:
    """Raises JobError when the file is not what the role writes."""
    try:
        return Settings(**_repository.load_json(path, follow=True))
    except (OSError, ValueError, TypeError) as error:
        raise JobError(f"{path} cannot be used: {_repository.reason(error)}; site.yml writes it.") from error


@dataclass(frozen=True)
class Declared:
    """What a role wants of a job. started_by: timer, cron or None; schedule: as OnCalendar has it; every, jitter: spans; since (epoch): when it said so."""

    started_by: str | None = None
    schedule: str = ""
    every: str = ""
    jitter: str = ""
    since: float = 0.0


def declared(settings: Settings) -> dict[str, Declared]:
    """Return what the roles say of their jobs. Raises JobError for a file that is not theirs."""
    found: dict[str, Declared] = {}
    for path in _files(settings.declared, ".json") if settings.declared else ():
        try:
            since = os.stat(path).st_mtime
            found.update({name: Declared(**one, since=since) for name, one in _repository.load_json(path, follow=True).items()})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise JobError(f"{path} cannot be used: {_repository.reason(error)}; site.yml writes it.") from error
    return found


def _files(directory: str, suffix: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return [f"{directory}/{name}" for name in sorted(os.listdir(directory)) if name.endswith(suffix)]
    return []


def names(settings: Settings) -> list[str]:
    """Return the names of the jobs' units, without their suffix, in order: those that are there and those that should be. Raises JobError."""
    found = set(declared(settings))
    for name in sorted(os.listdir(SYSTEM)):
        if name.startswith(f"{settings.instance}-") and name.endswith(".service") and not os.path.islink(f"{SYSTEM}/{name}"):
            with contextlib.suppress(OSError), open(f"{SYSTEM}/{name}", encoding="utf-8", errors="replace") as stream:
                if f"\nOnFailure={settings.instance}-failure@" in stream.read():
                    found.add(name.removesuffix(".service"))
    return sorted(found)


def ended(settings: Settings, name: str, environment: Mapping[str, str], began: float, now: float) -> dict[str, Any]:
    """Write down how a run ended, and return that. environment: what systemd gives to ExecStopPost; began and now: seconds since the epoch. Raises OSError."""
    result, code = environment.get("SERVICE_RESULT", ""), environment.get("EXIT_STATUS", "")
    last = record(settings, name)
    if result == "exec-condition" or (result == "success" and code == str(_crontab.SKIPPED)):
        last["skipped"] = now
    else:
        good = result == "success"
        last.update(
            began=began,
            ended=now,
            seconds=round(now - began, 1),
            result=_result(result, _signal(code)),
            succeeded=now if good else last.get("succeeded"),
            failures=0 if good else last.get("failures", 0) + 1,
            invocation=environment.get("INVOCATION_ID"),
        )
    remember(settings, name, last)
    return last


def remember(settings: Settings, name: str, known: Mapping[str, Any]) -> None:
    """Write a record. Raises OSError."""
    os.makedirs(settings.state, exist_ok=True)
    _repository.replace(f"{settings.state}/{name}.json", json.dumps(known, sort_keys=True).encode() + b"\n")


def _signal(code: str) -> str:
    return f"SIG{code}" if code.isalpha() else code


def _result(result: str, code: str) -> str:
    """Return how a run ended, for people. result: as systemd has it; code: exit code, or name of the signal."""
    if result == "exit-code" and code.isdigit() and int(code) in _NOT_STARTED:
        return f"could not start (exit code {code}, see systemd.exec(5))"
    return _WORDS.get(result, result).format(code)


def record(settings: Settings, name: str) -> dict[str, Any]:
    """Return what is known of a job: result, seconds and invocation of its last run, failures in a row; began, ended, succeeded, skipped, told (epoch)."""
    try:
        known = _repository.load_json(f"{settings.state}/{name}.json")
    except (OSError, ValueError):  # a damaged one is written anew by the next run; one that cannot be read must keep no word back
        return {}
    return known if isinstance(known, dict) else {}


def table(settings: Settings, now: float) -> _Table:
    """Return each job, as the three places have it.

    name, description, running (bool), load_state (systemd's), expected (what should start it: timer, cron or None), started_by (what does), next and
    due (when it runs next, and by when it must have run; seconds since the epoch or None), idle (a sentence when what should start it does not), and
    how it ran last: began, ended, seconds, result, succeeded, skipped, failures. Raises JobError, UnitError.
    """
    units = names(settings)
    if not units:
        return []
    services = _units.show([f"{name}.service" for name in units], SERVICE)
    timers = _units.show([f"{name}.timer" for name in units], _TIMER)
    cron, wanted, booted = crontabs(settings.instance), declared(settings), now - time.clock_gettime(time.CLOCK_MONOTONIC)
    no_cron = "cron" in {one.started_by for one in wanted.values()} and _units.show(["cron.service"], ("ActiveState",))[0]["ActiveState"] != "active"
    found = []
    for name, service, timer in zip(units, services, timers):
        active = service["ActiveState"]
        one: dict[str, Any] = {"name": name, "description": service["Description"], "running": active == "activating"}
        one["load_state"] = service.get("LoadState", "loaded")
        if timer["ActiveState"] == "active":
            one.update(started_by="timer", next=_elapse(timer, now))
        elif name in cron:
            one.update(started_by="cron", next=_crontab.following(cron[name], datetime.fromtimestamp(now)).timestamp())
        else:
            one.update(started_by=None, next=None)
        want = wanted.get(name, Declared())
        known = latest(settings, name, service, booted)
        one.update({key: known.get(key) for key in ("began", "ended", "seconds", "result", "succeeded", "skipped", "failures")})
        one.update(expected=want.started_by, idle=_idle(name, want, timer, name in cron, no_cron=no_cron))
        one["due"] = None if active in ("activating", "deactivating") else _due(want, known, now, booted)
        found.append(one)
    return found


def latest(settings: Settings, name: str, service: Mapping[str, str], booted: float) -> dict[str, Any]:
    """Return how a job ran last: its record, unless systemd knows of a run that left none. service: systemd's properties; booted: seconds since the epoch."""
    known = record(settings, name)
    moment = int(service.get("InactiveEnterTimestampMonotonic") or 0) / 1e6 + booted
    condition = int(service.get("ConditionTimestampMonotonic") or 0) / 1e6
    if condition and service.get("ConditionResult") == "no":
        known["skipped"] = max(known.get("skipped") or 0, condition + booted)
    idle = service["ActiveState"] in ("inactive", "failed") and int(service.get("InactiveEnterTimestampMonotonic") or 0)
    if not idle or service.get("InvocationID") == known.get("invocation", "") or moment <= (known.get("ended") or 0):
        return known
    result, code = service.get("Result", ""), service.get("ExecMainStatus", "")
    if result == "exec-condition" or (result == "success" and code == str(_crontab.SKIPPED)):
        return {**known, "skipped": max(known.get("skipped") or 0, moment)}
    if service.get("ExecMainCode") in ("2", "3") and code.isdigit():  # CLD_KILLED, CLD_DUMPED
        with contextlib.suppress(ValueError):
            code = signal.Signals(int(code)).name
    good = result == "success"
    ran = {"began": None, "ended": moment, "seconds": None, "result": _result(result, code), "invocation": service.get("InvocationID")}
    return {**known, **ran, "succeeded": moment if good else known.get("succeeded"), "failures": 0 if good else known.get("failures", 0) + 1}


def _idle(name: str, want: Declared, timer: Mapping[str, str], listed: bool, *, no_cron: bool) -> str | None:
    """Return why nothing starts a job that something should start, for a sentence; None when something does. listed: whether a crontab names it."""
    if want.started_by == "timer":
        load = timer.get("LoadState", "loaded")
        if load != "loaded":
            return f"{name}.timer is {load}"
        if timer["ActiveState"] != "active":
            return f"{name}.timer is {timer['ActiveState']}"
        if timer.get("UnitFileState", "enabled") != "enabled":
            return f"{name}.timer is {timer['UnitFileState'] or 'disabled'}, so the next boot does not start it"
    elif want.started_by == "cron":
        if not listed:
            return f"no file in {CRONTABS} starts it"
        if no_cron:
            return "cron.service does not run"
    return None


def _due(want: Declared, known: Mapping[str, Any], now: float, booted: float) -> float | None:
    """Return by when a job must have run again, None when nothing starts it. A moment in the future was noted by a clock that was wrong."""
    if want.started_by is None:
        return None
    last = max((moment for moment in (known.get("ended"), known.get("skipped"), want.since) if moment and moment <= now + _AHEAD), default=booted)
    if want.every:
        return max(last, booted) + 3 * span(want.every) + _SLACK / 4
    following = _following(want.schedule, last)
    return None if following is None else max(following, booted) + span(want.jitter) + _SLACK


def _following(schedule: str, after: float) -> float | None:
    """Return when a schedule comes round next after a moment; None when systemd does not understand it."""
    with contextlib.suppress(ValueError):
        return _crontab.following(_crontab.fields(schedule), datetime.fromtimestamp(after)).timestamp()
    words = ["systemd-analyze", "calendar", f"--base-time=@{int(after)}", schedule]
    done = _children.run(words, env=dict(os.environ, LC_ALL="C"))
    moments = re.findall(r"(?:Next elapse|\(in UTC\)): \S+ (\S+ \S+) UTC$", done.stdout, re.MULTILINE)
    return datetime.strptime(moments[-1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc).timestamp() if moments else None


def span(text: str) -> float:
    """Return the seconds of a span such as 1h 30min, as systemd.time(7) has it; a number alone is of seconds."""
    seconds = 0.0
    for number, unit in re.findall(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", text):
        short = unit if unit in _UNITS else _SPELLED.get(unit.lower().removesuffix("s") if unit.lower() not in _SPELLED else unit.lower(), "s")
        seconds += float(number) * _UNITS[short]
    return seconds


def _elapse(timer: Mapping[str, str], now: float) -> float | None:
    """Return when a timer fires next. systemd writes one as a date, the other as a span since the host booted (systemd.time(7))."""
    date = timer["NextElapseUSecRealtime"]
    if date:
        done = _children.run(["date", "--date", date, "+%s"])
        return float(done.stdout) if done.returncode == 0 else None
    seconds = span(timer["NextElapseUSecMonotonic"]) if re.match(r"[0-9]", timer["NextElapseUSecMonotonic"]) else 0.0
    return now - time.clock_gettime(time.CLOCK_MONOTONIC) + seconds if seconds else None


def crontabs(instance: str) -> dict[str, str]:
    """Return the five fields of each job that a crontab of the instance starts."""
    found = {}
    for path in (one for one in _files(CRONTABS, "") if os.path.basename(one).startswith(f"{instance}-")):
        with open(path, encoding="utf-8", errors="replace") as stream:
            for match in re.finditer(r"^((?:\S+ ){5})root systemctl start (\S+)\.service$", stream.read(), re.MULTILINE):
                found[match[2]] = match[1].strip()
    return found


def summary(jobs: _Table) -> list[str]:
    """Return a table for people, a line for each job."""
    rows = [("job", "last run", "result", "seconds", "next run", "by")]
    for job in jobs:
        result = "running" if job["running"] else job["result"] or ("skipped" if job["skipped"] else "never ran")
        if job.get("load_state", "loaded") != "loaded":
            result = f"unit {job['load_state']}"
        seconds = "" if job["seconds"] is None else f"{job['seconds']:g}"
        rows.append((job["name"], iso(job["began"]), result, seconds, iso(job["next"]), job["started_by"] or "nothing"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def judge(jobs: _Table, now: float) -> list[tuple[int, str, str]]:
    """Return what is wrong: the exit code for monitoring, the job's name and a sentence, the worst first.

    Critical is a job that cannot start, that nothing starts, or that was due and did not run; a run that failed at its work is a warning.
    """
    found = [(code, job["name"], text) for job in jobs for code, text in _wrong(job, now)]
    return sorted(found, key=lambda one: -one[0])


def _wrong(job: Mapping[str, Any], now: float) -> Iterator[tuple[int, str]]:
    name, load, due = job["name"], job.get("load_state", "loaded"), job.get("due")
    if load != "loaded":
        yield CRITICAL, f"{name} cannot start: systemd says that its unit file is {load}. site.yml writes it."
    if job.get("idle"):
        yield CRITICAL, f"{name} is never started: {job['idle']}. site.yml sets it right."
    if due and now > due and not job["running"]:
        ran = f"it ended last {iso(job['ended'])}" if job["ended"] else "it never ran"
        yield CRITICAL, f"{name} was due before {iso(due)} and did not run; {ran}. journalctl --unit {name} says more."
    if job["failures"]:
        code = CRITICAL if str(job["result"]).startswith("could not start") else WARNING
        yield code, f"{name} failed: {job['result']}, {iso(job['ended'])}; {_succeeded(job)}. journalctl --unit {name} says why."


def problems(jobs: _Table, now: float) -> list[str]:
    """Return a sentence for each thing that is wrong, the worst first."""
    return [f"{WORDS[code]}: {text}" for code, _name, text in judge(jobs, now)]


def line(jobs: _Table, now: float) -> tuple[int, str]:
    """Return the exit code for monitoring and the line that says why."""
    wrong = judge(jobs, now)
    if wrong:
        return wrong[0][0], f"{WORDS[wrong[0][0]]}: {' '.join(text for _code, _name, text in wrong)}"
    return OK, f"OK: {len(jobs)} jobs, none of which failed or is overdue"


def _succeeded(known: Mapping[str, Any]) -> str:
    when = iso(known.get("succeeded"))
    return f"the last success was {when}" if when else "it has never succeeded"


def iso(seconds: float | None) -> str:
    """Return a moment in UTC, such as 2026-11-28T01:30:00Z; empty for none."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def metrics(instance: str, jobs: _Table, now: float) -> str:
    """Return the table in Prometheus' text format. now: seconds since the epoch."""
    worst: dict[str, int] = {}
    for code, name, _text in judge(jobs, now):
        worst[name] = max(worst.get(name, OK), code)

    # Not "job": that label is Prometheus' own.
    def each(key: str) -> list[tuple[dict[str, str], float]]:
        return [({"unit": job["name"]}, job[key]) for job in jobs if job[key] is not None]

    rows: list[_backup_status.Row] = [
        ("job_last_run_timestamp_seconds", "When the job ended last", each("ended")),
        ("job_last_success_timestamp_seconds", "When it last ended well", each("succeeded")),
        ("job_last_run_seconds", "How long it took", each("seconds")),
        ("job_failures", "Failures since the last success", each("failures")),
        (
            "job_status",
            "2 when all is well, 1 when the last run failed, 0 when it cannot start, is started by nothing or did not run in time",
            [({"unit": job["name"]}, 2 - worst.get(job["name"], OK)) for job in jobs],
        ),
        ("jobs_look_time_seconds", "When somebody looked at the jobs", [({}, now)]),
    ]
    return _backup_status.prometheus(instance, [row for row in rows if row[2]])


def message(name: str, description: str, known: Mapping[str, Any], journal: str) -> tuple[str, str]:
    """Return subject and text of the word that a job failed."""
    host = socket.getfqdn()
    result = known.get("result") or "it could not be started"
    lines = [
        f"{description or name} failed on {host}: {result}.",
        "",
        f"job         {name}",
        f"began       {iso(known.get('began'))}",
        f"ended       {iso(known.get('ended'))}, after {known.get('seconds') or 0:g} seconds",
        f"failures    {known.get('failures', 1)} in a row; {_succeeded(known)}",
        f"again       systemctl start {name}.service",
        f"more        journalctl --unit {name}.service",
        "",
        journal.strip() or "It wrote nothing.",
    ]
    return f"{name} failed on {host}: {result}", "\n".join(lines) + "\n"


def alarm(instance: str, wrong: list[str]) -> tuple[str, str]:
    """Return subject and text of the word that jobs of the host do not run as they should. wrong: sentences."""
    host = socket.getfqdn()
    return f"{len(wrong)} jobs of {instance} do not run as they should on {host}", "\n".join([*wrong, "", f"{instance}-jobs status says more."]) + "\n"


def told(settings: Settings) -> dict[str, float]:
    """Return when people were told of each job that still is as it was then. That is kept in memory, which no full disk and no missing directory touches."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        known = _repository.load_json(_told_path(settings))
        return {str(name): float(moment) for name, moment in known.items()} if isinstance(known, dict) else {}
    return {}


def note_told(settings: Settings, known: Mapping[str, float]) -> None:
    """Remember what told() returns. Raises OSError."""
    _repository.replace(_told_path(settings), json.dumps(known, sort_keys=True).encode() + b"\n")


def _told_path(settings: Settings) -> str:
    return f"{RUN}/{settings.instance}-jobs-told.json"


def journal(name: str, invocation: str | None) -> str:
    """Return the last lines that a run wrote, and systemd of it; of a run that could not begin, the last ones of its unit."""
    # The fields of what systemd writes about a unit, and of what the unit writes itself: systemd.journal-fields(7).
    of = [f"INVOCATION_ID={invocation}", "+", f"_SYSTEMD_INVOCATION_ID={invocation}"] if invocation else ["--unit", f"{name}.service"]
    words = ["journalctl", *of, "--lines", str(_LINES), "--output", "short-iso", "--no-pager", "--quiet"]
    return _children.run(words, stderr=subprocess.STDOUT).stdout


def tell(settings: Settings, subject: str, text: str) -> tuple[list[str], list[str]]:
    """Send the word by mail and to the URL, as far as they are wanted. Return who was told, and a sentence for each who could not be."""
    told, wrong = [], []
    if settings.mail_to:
        mail = EmailMessage()
        mail["Subject"], mail["From"], mail["To"] = subject, settings.mail_from, ", ".join(settings.mail_to)
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answers from those who are away
        mail.set_content(text)
        try:
            with smtplib.SMTP(settings.smtp_host, settings.smtp_port, timeout=_PATIENCE) as server:
                server.send_message(mail)
            told.append(f"mail to {', '.join(settings.mail_to)}")
        except (OSError, smtplib.SMTPException) as error:
            wrong.append(f"The mail to {', '.join(settings.mail_to)} was not taken by {settings.smtp_host}:{settings.smtp_port}: {_repository.reason(error)}.")
    if settings.failure_url:
        try:
            request = urllib.request.Request(  # noqa: S310 (the site's own)
                settings.failure_url, data=text.encode(), headers={"Content-Type": "text/plain; charset=utf-8"}
            )
            with urllib.request.build_opener().open(request, timeout=_PATIENCE) as answer:
                answer.read()
            told.append("the URL for failures")
        except (OSError, ValueError) as error:
            wrong.append(f"The URL for failures was not reached: {_repository.reason(error).replace(settings.failure_url, 'it')}.")  # it may be a secret
    return told, wrong
