# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command that timers, cron and people run on the host. Its settings are a JSON file that role backup writes."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn, TextIO

from ansible_collections.confops.indico.plugins.module_utils import (
    _adopt,
    _backup_set,
    _backup_status,
    _crontab,
    _drill,
    _jobs,
    _numbers,
    _pack,
    _repository,
    _units,
)
from ansible_collections.confops.indico.plugins.module_utils._backup_status import Limits
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError


def main(settings_path: str, arguments: list[str]) -> int:
    """Run the command and return its exit code: 0 when all is well, for check 0 to 3 as monitoring has it, 75 outside of the allowed hours, otherwise 1."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _end)
    try:
        settings = _backup_set.read_settings(settings_path)
        if getattr(options, "scheduled", False) and not _crontab.allowed(settings.allowed_hours, time.localtime()):
            _say(f"It is {time.strftime('%H:%M')}, outside of {settings.allowed_hours}: nothing was done.")
            return _crontab.SKIPPED
        return _VERBS[options.verb](settings, options)
    except (RepositoryError, ValueError) as error:
        if options.verb == "check":
            _say(f"UNKNOWN: {error}")
            return _backup_status.UNKNOWN
        _say(str(error), sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Backup sets of an Indico instance.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    run = verbs.add_parser("run", help="make a backup set, if anything was committed since the last one")
    run.add_argument("--full", action="store_true", help="begin a new chain for each storage")
    run.add_argument("--why", default="by hand", help="goes into the manifest")
    drill = verbs.add_parser("drill", help="restore the newest set beside the site, open it with Indico's code and compare")
    pack = verbs.add_parser("pack", help="back up, pack the databases, and begin new chains with what is left")
    pack.add_argument("--days", type=_numbers.DAYS, help="keep every revision of that many days")
    for verb in (run, drill, pack):
        verb.add_argument("--scheduled", action="store_true", help="do nothing outside of the allowed hours")
    adopt = verbs.add_parser("adopt", help="make a lost or damaged .dat file of a repository anew from its data files")
    adopt.add_argument("storage", help="name of the storage whose repository it is")
    adopt.add_argument("stamp", nargs="?", help="name of the chain, like 2026-11-24-02-00-00; by default each that needs it")
    adopt.add_argument("--check", action="store_true", help="say what would be done")
    verbs.add_parser("list", help="the sets, a line each")
    verbs.add_parser("status", help="how the last run, drill and pack ended and what the repositories hold, as JSON")
    check = verbs.add_parser("check", help="one line and an exit code for monitoring", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for one in dataclasses.fields(Limits):
        check.add_argument(f"--{one.name.replace('_', '-')}", type=_numbers.real(), default=one.default, help="0 asks nothing")
    return parser


def _run(settings: _backup_set.Settings, options: argparse.Namespace) -> int:
    done = _backup_set.run(settings, who=_who(), why=options.why, full=options.full, patience=_patience(options))
    return _report(done.line(), done.warnings)


def _patience(options: argparse.Namespace) -> float:
    """Return the seconds to wait for another run: a person is told at once who is at work, a job has time."""
    return _repository.PATIENCE if options.scheduled else 0.0


def _who() -> str:
    return os.environ.get("SUDO_USER") or os.environ.get("USER") or "root"


def _run_drill(settings: _backup_set.Settings, _options: argparse.Namespace) -> int:
    done = _drill.run(settings)
    return _report(done.line(), done.warnings)


def _run_pack(settings: _backup_set.Settings, options: argparse.Namespace) -> int:
    done = _pack.run(settings, days=options.days, who=_who(), patience=_patience(options))
    return _report(done.line(), done.warnings)


def _report(line: str, warnings: list[str]) -> int:
    for warning in warnings:
        _say(warning, sys.stderr)
    _say(line)
    return 0


def _run_adopt(settings: _backup_set.Settings, options: argparse.Namespace) -> int:
    if options.storage not in settings.storages:
        raise RepositoryError(f"There is no storage {options.storage}; there are {', '.join(settings.storages)}.")
    done = _adopt.adopt(settings.repository(options.storage), options.stamp, check=options.check)
    for line in done.lines(options.check):
        _say(line)
    return 0


def _list(settings: _backup_set.Settings, _options: argparse.Namespace) -> int:
    for one in _backup_set.manifests(settings):
        newest = ", ".join(f"{part['name']} to {(part['last_transaction'] or {}).get('time', 'nothing')}" for part in one["storages"])
        _say(f"{one['stamp']}  {newest}, {one['archive']['files']} stored files  ({one['why']}, {one['who']})")
    return 0


def _status(settings: _backup_set.Settings, _options: argparse.Namespace) -> int:
    _say(json.dumps(_backup_status.whole(settings), indent=1, sort_keys=True))
    return 0


def _check(settings: _backup_set.Settings, options: argparse.Namespace) -> int:
    limits = Limits(**{one.name: getattr(options, one.name) for one in dataclasses.fields(Limits)})
    sizes = [{part["name"]: part["end"] for part in one["storages"]} for one in _backup_set.manifests(settings)[-2:]]
    now = time.time()
    more = _around(settings, now)
    try:
        known = _backup_status.whole(settings)
    except RepositoryError as error:
        if not more:
            raise
        more.append((_backup_status.WARNING, str(error).rstrip(".")))
        known = None
    if known and settings.metrics and not os.path.exists(settings.metrics):
        more.append((_backup_status.WARNING, f"there is no {settings.metrics}, which each run writes"))
    code, line = _backup_status.judge(known, sizes, now, limits, more)
    _say(line)
    return code


def _around(settings: _backup_set.Settings, now: float) -> list[tuple[int, str]]:
    """Return what is wrong around the backups, each with its exit code for monitoring: jobs that do not run, servers that work on another file."""
    found = [(_backup_status.CRITICAL, sentence.rstrip(".")) for sentence in _backup_set.replaced(settings)]
    if not settings.jobs_settings:
        return found
    own = [f"{settings.instance}-{verb}" for verb in ("backup", "drill", "pack", "watch")]
    try:
        jobs = _jobs.table(_jobs.read_settings(settings.jobs_settings), now)
    except (_jobs.JobError, _units.UnitError, OSError) as error:
        return [*found, (_backup_status.CRITICAL, f"nobody knows whether the jobs run: {_repository.reason(error)}")]
    # A backup that failed at its work is told from its own status.
    return found + [(code, text.rstrip(".")) for code, name, text in _jobs.judge(jobs, now) if name in own and code == _backup_status.CRITICAL]


_Verb = Callable[[_backup_set.Settings, argparse.Namespace], int]
_VERBS: dict[str, _Verb] = {"run": _run, "drill": _run_drill, "pack": _run_pack, "adopt": _run_adopt, "list": _list, "status": _status, "check": _check}


def _end(_signal: int, _frame: Any) -> NoReturn:
    raise _repository.EndedError("It was ended from outside: its time limit has passed, or somebody stopped it.")


def _say(line: str, stream: TextIO | None = None) -> None:
    """Write a line for the person or the timer that runs the command; this is no module, whose output would be its result."""
    (stream or sys.stdout).write(line + "\n")
    (stream or sys.stdout).flush()
