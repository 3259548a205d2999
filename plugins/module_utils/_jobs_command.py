# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command about scheduled jobs: for people the table of them, for systemd what to do when one ended or failed, and the look at the disks.

Its settings are a JSON file that role cron writes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import TextIO

from ansible_collections.confops.indico.plugins.module_utils import _backup_status, _crontab, _disk_space, _jobs, _repository, _units

_AGAIN = 20 * 3600  # seconds for which nobody is told anew that the same job still fails: those that run every few minutes would send hundreds of mails


def main(settings_path: str, arguments: list[str]) -> int:
    """Run the command and return its exit code: 0 when all is well, 1 when something is wrong, 2 when a job does not run at all, or for unknown words.

    check has the codes of monitoring, 0 to 3.
    """
    options = parser().parse_args(arguments)
    try:
        code: int = options.run(_jobs.read_settings(settings_path), options)
    except (_jobs.JobError, _units.UnitError, OSError, ValueError) as error:
        if options.run is _check:
            _say(f"UNKNOWN: {_repository.told(error)}")
            return _backup_status.UNKNOWN
        _say(_repository.told(error), sys.stderr)
        return 1
    return code


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Scheduled jobs of an Indico instance on this host.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, run: Callable[[_jobs.Settings, argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        return made

    verb("status", _status, "every job: its last run, how that ended, and the next one").add_argument("--json", action="store_true", help="as data")
    verb("check", _check, "one line and an exit code for monitoring")
    verb("watch", _watch, "tell people of jobs that cannot start or do not run; a timer runs it")
    verb("disk", _disk, "how full the file systems are, and when they will be").add_argument("--json", action="store_true", help="as data")
    verb("allowed", _allowed, "whether it is between two times; systemd asks before it starts a job").add_argument("hours", metavar="HH:MM-HH:MM")
    verb("ended", _ended, "note how a job ended; systemd calls it").add_argument("name")
    verb("failed", _failed, "tell people that a job failed; systemd calls it").add_argument("name")
    return parser


def _status(settings: _jobs.Settings, options: argparse.Namespace) -> int:
    now = time.time()
    jobs = _jobs.table(settings, now)
    wrong = _jobs.problems(jobs, now)
    if options.json:
        _say(json.dumps({"jobs": jobs, "problems": wrong}, indent=1, sort_keys=True))
    else:
        for line in _jobs.summary(jobs):
            _say(line)
        for sentence in wrong:
            _say(sentence, sys.stderr)
    return _jobs.line(jobs, now)[0]


def _check(settings: _jobs.Settings, _options: argparse.Namespace) -> int:
    now = time.time()
    code, line = _jobs.line(_jobs.table(settings, now), now)
    _say(line)
    return code


def _watch(settings: _jobs.Settings, _options: argparse.Namespace) -> int:
    """Tell people of what is critical, each job once in 20 hours, unless it was well meanwhile."""
    now = time.time()
    jobs = _jobs.table(settings, now)
    wrong: dict[str, list[str]] = {}
    for code, name, text in _jobs.judge(jobs, now):
        if code == _backup_status.CRITICAL:
            wrong.setdefault(name, []).append(text)
    known = {name: moment for name, moment in _jobs.told(settings).items() if name in wrong}
    fresh = [name for name in wrong if not 0 <= now - known.get(name, 0) < _AGAIN]
    complaints: list[str] = []
    if fresh:
        told, complaints = _jobs.tell(settings, *_jobs.alarm(settings.instance, [text for name in fresh for text in wrong[name]]))
        known.update(dict.fromkeys(fresh if told else [], now))
    try:
        _jobs.note_told(settings, known)
        if settings.metrics:
            _publish(settings.metrics, _jobs.metrics(settings.instance, jobs, now))
    except OSError as error:
        complaints.append(f"{error.filename or settings.metrics} cannot be written: {error.strerror}.")
    for sentence in [text for texts in wrong.values() for text in texts] + complaints:
        _say(sentence, sys.stderr)
    return 1 if complaints else 0


def _disk(settings: _jobs.Settings, options: argparse.Namespace) -> int:
    limits = _disk_space.Limits(**settings.disk["limits"])
    paths = {name: path for name, path in settings.disk["paths"].items() if os.path.isdir(path)}
    found = _disk_space.look(paths, settings.disk["state"])
    wrong = _disk_space.problems(found["file_systems"], limits)
    if settings.disk["metrics"]:
        _publish(settings.disk["metrics"], _disk_space.metrics(settings.instance, found["file_systems"]))
    if options.json:
        _say(json.dumps({**found, "problems": wrong}, indent=1, sort_keys=True))
    else:
        for line in _disk_space.summary(found["file_systems"]):
            _say(line)
        for sentence in found["warnings"] + wrong:
            _say(sentence, sys.stderr)
    return 1 if wrong else 0


def _allowed(_settings: _jobs.Settings, options: argparse.Namespace) -> int:
    if _crontab.allowed(options.hours, time.localtime()):
        return 0
    _say(f"It is {time.strftime('%H:%M')}, outside of {options.hours}: nothing was done.")
    return 1


def _ended(settings: _jobs.Settings, options: argparse.Namespace) -> int:
    os.umask(0o022)  # not the job's, so that all records are alike
    now = time.time()
    (state,) = _units.show([f"{options.name}.service"], ("ExecMainStartTimestampMonotonic",))
    started = int(state["ExecMainStartTimestampMonotonic"] or 0) / 1e6
    began = now - time.clock_gettime(time.CLOCK_MONOTONIC) + started if started else now
    _jobs.ended(settings, options.name, os.environ, began, now)
    if settings.metrics:
        _publish(settings.metrics, _jobs.metrics(settings.instance, _jobs.table(settings, now), now))
    return 0


def _failed(settings: _jobs.Settings, options: argparse.Namespace) -> int:
    if options.name not in _jobs.names(settings):
        raise _jobs.JobError(f"There is no job {options.name}; there are {', '.join(_jobs.names(settings))}.")
    (state,) = _units.show([f"{options.name}.service"], _jobs.SERVICE)
    now = time.time()
    known = _jobs.latest(settings, options.name, state, now - time.clock_gettime(time.CLOCK_MONOTONIC))
    before = max(known.get("told") or 0, _jobs.told(settings).get(options.name, 0))
    if known.get("failures", 1) > 1 and 0 <= now - before < _AGAIN:
        _say(f"{options.name} failed again; people were told {_jobs.iso(before)}.")
        return 0
    told, wrong = _jobs.tell(settings, *_jobs.message(options.name, state["Description"], known, _jobs.journal(options.name, known.get("invocation"))))
    if told:
        try:
            _jobs.remember(settings, options.name, {**known, "told": now})
        except OSError as error:  # such as a full disk, of which people are told all the same
            wrong.append(f"That people were told cannot be noted in {settings.state}: {error.strerror}.")
    _say(f"{options.name} failed: {', '.join(told) or 'nobody was told'}.")
    for sentence in wrong:
        _say(sentence, sys.stderr)
    return 1 if wrong else 0


def _publish(path: str, text: str) -> None:
    _repository.replace(path, text.encode())
    os.chmod(path, 0o644)  # whoever collects metrics reads it


def _say(line: str, stream: TextIO | None = None) -> None:
    (stream or sys.stdout).write(line + "\n")
    (stream or sys.stdout).flush()
