# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The scheduled jobs of a host: how each ended last, when it runs next, and who is told when it fails.

A job is a service of systemd with a line OnFailure=<instance>-failure@%N.service; a timer, a line of cron's or nothing starts it. systemd tells
how it ended (systemd.exec(5), SERVICE_RESULT), so one that was killed, or took too long, leaves word as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import smtplib
import socket
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.message import EmailMessage
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _backup_status, _crontab, _repository, _units

SYSTEM, CRONTABS = "/etc/systemd/system", "/etc/cron.d"
_LINES = 50  # of the journal, in a mail
_PATIENCE = 30.0  # seconds for a mail server or a URL
_WORDS = {
    "exit-code": "exit code {}",
    "signal": "killed by {}",
    "core-dump": "killed by {}",
    "timeout": "ended after its time limit",
    "oom-kill": "out of memory",
}


class JobError(Exception):
    """Something about the jobs is wrong; the message is a sentence for the operator."""


@dataclass
class Settings:
    """What role cron writes. state: directory of the records; mail_to: addresses, none for no mail; failure_url: empty for none; disk: see _disk_space."""

    instance: str
    state: str
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
        with open(path, encoding="utf-8") as stream:
            return Settings(**json.load(stream))
    except (OSError, ValueError, TypeError) as error:
        raise JobError(f"{path} cannot be used: {error}; site.yml writes it.") from error


def names(settings: Settings) -> list[str]:
    """Return the names of the jobs' units, without their suffix, in order."""
    found = []
    for name in sorted(os.listdir(SYSTEM)):
        if name.startswith(f"{settings.instance}-") and name.endswith(".service") and not os.path.islink(f"{SYSTEM}/{name}"):
            with contextlib.suppress(FileNotFoundError), open(f"{SYSTEM}/{name}", encoding="utf-8") as stream:
                if f"\nOnFailure={settings.instance}-failure@" in stream.read():
                    found.append(name.removesuffix(".service"))
    return found


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
            result="success" if good else _WORDS.get(result, result).format(_signal(code)),
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


def record(settings: Settings, name: str) -> dict[str, Any]:
    """Return what is known of a job: result, seconds and invocation of its last run, failures in a row; began, ended, succeeded, skipped, told (epoch)."""
    try:
        known = _repository.load_json(f"{settings.state}/{name}.json")
    except (FileNotFoundError, ValueError):  # a damaged one is written anew by the next run
        return {}
    return known if isinstance(known, dict) else {}


def table(settings: Settings, now: float) -> list[dict[str, Any]]:
    """Return each job: name, description, running (bool), started_by (timer, cron or None), next (seconds since the epoch or None), and its record."""
    units = names(settings)
    if not units:
        return []
    services = _units.show([f"{name}.service" for name in units], ("Description", "ActiveState"))
    timers = _units.show([f"{name}.timer" for name in units], ("ActiveState", "NextElapseUSecRealtime", "NextElapseUSecMonotonic"))
    cron = crontabs(settings.instance)
    found = []
    for name, service, timer in zip(units, services, timers):
        one: dict[str, Any] = {"name": name, "description": service["Description"], "running": service["ActiveState"] == "activating"}
        if timer["ActiveState"] == "active":
            one.update(started_by="timer", next=_elapse(timer, now))
        elif name in cron:
            one.update(started_by="cron", next=_crontab.following(cron[name], datetime.fromtimestamp(now)).timestamp())
        else:
            one.update(started_by=None, next=None)
        known = record(settings, name)
        found.append({**one, **{key: known.get(key) for key in ("began", "ended", "seconds", "result", "succeeded", "skipped", "failures")}})
    return found


def _elapse(timer: Mapping[str, str], now: float) -> float | None:
    """Return when a timer fires next. systemd writes one as a date, the other as a span since the host booted (systemd.time(7))."""
    date = timer["NextElapseUSecRealtime"]
    if date:
        done = subprocess.run(["date", "--date", date, "+%s"], stdout=subprocess.PIPE, text=True, check=False)
        return float(done.stdout) if done.returncode == 0 else None
    span = timer["NextElapseUSecMonotonic"]
    seconds = 0.0
    for number, unit in re.findall(r"([\d.]+)(us|ms|min|[smhdw]|month|y)\b", span):
        seconds += float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800, "month": 2629800, "y": 31557600}[unit]
    return now - time.clock_gettime(time.CLOCK_MONOTONIC) + seconds if seconds else None


def crontabs(instance: str) -> dict[str, str]:
    """Return the five fields of each job that a crontab of the instance starts."""
    found = {}
    for path in (f"{CRONTABS}/{name}" for name in sorted(os.listdir(CRONTABS)) if name.startswith(f"{instance}-")) if os.path.isdir(CRONTABS) else ():
        with open(path, encoding="utf-8") as stream:
            for match in re.finditer(r"^((?:\S+ ){5})root systemctl start (\S+)\.service$", stream.read(), re.MULTILINE):
                found[match[2]] = match[1].strip()
    return found


def summary(jobs: list[dict[str, Any]]) -> list[str]:
    """Return a table for people, a line for each job."""
    rows = [("job", "last run", "result", "seconds", "next run", "by")]
    for job in jobs:
        result = "running" if job["running"] else job["result"] or ("skipped" if job["skipped"] else "never ran")
        seconds = "" if job["seconds"] is None else f"{job['seconds']:g}"
        rows.append((job["name"], iso(job["began"]), result, seconds, iso(job["next"]), job["started_by"] or "nothing"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def problems(jobs: list[dict[str, Any]]) -> list[str]:
    """Return a sentence for each job whose last run failed."""
    return [
        f"{job['name']} failed: {job['result']}, {iso(job['ended'])}; {_succeeded(job)}. journalctl --unit {job['name']} says why."
        for job in jobs
        if job["failures"]
    ]


def _succeeded(known: Mapping[str, Any]) -> str:
    when = iso(known.get("succeeded"))
    return f"the last success was {when}" if when else "it has never succeeded"


def iso(seconds: float | None) -> str:
    """Return a moment in UTC, such as 2026-11-28T01:30:00Z; empty for none."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def metrics(instance: str, jobs: list[dict[str, Any]]) -> str:
    """Return the records in Prometheus' text format."""

    # Not "job": that label is Prometheus' own.
    def each(key: str) -> list[tuple[dict[str, str], float]]:
        return [({"unit": job["name"]}, job[key]) for job in jobs if job[key] is not None]

    rows: list[_backup_status.Row] = [
        ("job_last_run_timestamp_seconds", "When the job ended last", each("ended")),
        ("job_last_success_timestamp_seconds", "When it last ended well", each("succeeded")),
        ("job_last_run_seconds", "How long it took", each("seconds")),
        ("job_failures", "Failures since the last success", each("failures")),
    ]
    return _backup_status.prometheus(instance, [row for row in rows if row[2]])


def message(name: str, description: str, known: Mapping[str, Any], journal: str) -> tuple[str, str]:
    """Return subject and text of the word that a job failed."""
    host = socket.getfqdn()
    result = known.get("result", "it could not be started")
    lines = [
        f"{description or name} failed on {host}: {result}.",
        "",
        f"job         {name}",
        f"began       {iso(known.get('began'))}",
        f"ended       {iso(known.get('ended'))}, after {known.get('seconds', 0):g} seconds",
        f"failures    {known.get('failures', 1)} in a row; {_succeeded(known)}",
        f"again       systemctl start {name}.service",
        f"more        journalctl --unit {name}.service",
        "",
        journal.strip() or "It wrote nothing.",
    ]
    return f"{name} failed on {host}: {result}", "\n".join(lines) + "\n"


def journal(name: str, invocation: str | None) -> str:
    """Return the last lines that a run wrote, and systemd of it; of a run that could not begin, the last ones of its unit."""
    # The fields of what systemd writes about a unit, and of what the unit writes itself: systemd.journal-fields(7).
    of = [f"INVOCATION_ID={invocation}", "+", f"_SYSTEMD_INVOCATION_ID={invocation}"] if invocation else ["--unit", f"{name}.service"]
    words = ["journalctl", *of, "--lines", str(_LINES), "--output", "short-iso", "--no-pager", "--quiet"]
    return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False).stdout


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
            wrong.append(f"The mail to {', '.join(settings.mail_to)} was not taken by {settings.smtp_host}:{settings.smtp_port}: {error}.")
    if settings.failure_url:
        try:
            request = urllib.request.Request(  # noqa: S310 (the site's own)
                settings.failure_url, data=text.encode(), headers={"Content-Type": "text/plain; charset=utf-8"}
            )
            with urllib.request.build_opener().open(request, timeout=_PATIENCE) as answer:
                answer.read()
            told.append("the URL for failures")
        except (OSError, ValueError) as error:
            wrong.append(f"The URL for failures was not reached: {str(error).replace(settings.failure_url, 'it')}.")  # it may be a secret
    return told, wrong
