# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command that timers and people run on the host. Its settings are a JSON file that role backup writes."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import TextIO

from ansible_collections.confops.indico.plugins.module_utils import _backup_set
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError

# As monitoring wants it: https://www.monitoring-plugins.org/doc/guidelines.html
OK, WARNING, CRITICAL, UNKNOWN = range(4)


def main(settings_path: str, arguments: list[str]) -> int:
    """Run the command and return its exit code: 0 when all is well, for check one of the four above, otherwise 1."""
    parser = argparse.ArgumentParser(prog="backup", description="Backup sets of an Indico instance.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    run = verbs.add_parser("run", help="make a backup set, if anything was committed since the last one")
    run.add_argument("--full", action="store_true", help="begin a new chain for each storage")
    run.add_argument("--why", default="by hand", help="goes into the manifest")
    verbs.add_parser("list", help="the sets, a line each")
    verbs.add_parser("status", help="how the last run ended, as JSON")
    check = verbs.add_parser("check", help="one line and an exit code for monitoring")
    check.add_argument("--warning-hours", type=float, default=26, help="age of the last good run")
    check.add_argument("--critical-hours", type=float, default=50)
    options = parser.parse_args(arguments)
    try:
        settings = _backup_set.read_settings(settings_path)
        if options.verb == "run":
            who = os.environ.get("SUDO_USER") or os.environ.get("USER") or "root"
            _say(_backup_set.run(settings, who=who, why=options.why, full=options.full).line())
        elif options.verb == "list":
            for one in _backup_set.manifests(settings):
                newest = ", ".join(f"{part['name']} to {(part['last_transaction'] or {}).get('time', 'nothing')}" for part in one["storages"])
                _say(f"{one['stamp']}  {newest}, {one['archive']['files']} stored files  ({one['why']}, {one['who']})")
        elif options.verb == "status":
            _say(json.dumps(_status(settings), indent=1, sort_keys=True))
        else:
            code, line = judge(_status(settings), time.time(), options.warning_hours, options.critical_hours)
            _say(line)
            return code
    except RepositoryError as error:
        _say(f"{settings_path}: {error}" if options.verb == "check" else str(error), sys.stderr)
        return UNKNOWN if options.verb == "check" else 1
    return 0


def _say(line: str, stream: TextIO | None = None) -> None:
    """Write a line for the person or the timer that runs the command; this is no module, whose output would be its result."""
    (stream or sys.stdout).write(line + "\n")


def _status(settings: _backup_set.Settings) -> dict[str, object]:
    path = os.path.join(settings.directory, _backup_set.STATUS)
    try:
        with open(path, encoding="utf-8") as stream:
            return dict(json.load(stream))
    except (OSError, ValueError) as error:
        raise RepositoryError(f"No run has left word in {path} ({error}).") from error


def judge(status: dict[str, object], now: float, warning_hours: float, critical_hours: float) -> tuple[int, str]:
    """Return the exit code for monitoring and the line that says why."""
    success = status.get("success_seconds")
    hours = (now - float(success)) / 3600 if isinstance(success, (int, float)) and success else None
    if hours is None:
        return CRITICAL, f"CRITICAL: no backup has ever succeeded; the last run: {status.get('problem')}"
    if hours > critical_hours:
        return CRITICAL, f"CRITICAL: the last good backup is {hours:.0f} hours old"
    if not status["ok"]:
        return WARNING, f"WARNING: the last run failed ({status['problem']}); the last good backup is {hours:.0f} hours old"
    if hours > warning_hours:
        return WARNING, f"WARNING: the last good backup is {hours:.0f} hours old"
    return OK, f"OK: the last good backup is {hours:.0f} hours old"
