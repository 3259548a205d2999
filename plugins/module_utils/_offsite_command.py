# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command that a timer and people run on the host that pulls backups. Its settings are a JSON file that role offsite writes."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from typing import Any, NoReturn, TextIO

from ansible_collections.confops.indico.plugins.module_utils import _backup_status, _numbers, _offsite
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError


def main(settings_path: str, arguments: list[str]) -> int:
    """Run the command and return its exit code: 0 when all is well, for check one of _backup_status, otherwise 1."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _end)
    os.umask(0o077)
    try:
        settings = _offsite.read_settings(settings_path)
        if options.verb == "pull":
            done = _offsite.pull(settings)
            for sentence in done.warnings:
                _say(f"warning: {sentence}", sys.stderr)
            _say(done.line(), sys.stdout if done.ok else sys.stderr)
            return 0 if done.ok else 1
        if options.verb == "list":
            for line in _offsite.lines(settings):
                _say(line)
        elif options.verb == "status":
            _say(json.dumps(_offsite.status(settings), indent=1, sort_keys=True))
        else:
            code, line = _offsite.judge(_offsite.status(settings), time.time(), options.warning_hours, options.critical_hours)
            _say(line)
            return code
    except RepositoryError as error:
        _say(f"UNKNOWN: {error}" if options.verb == "check" else str(error), sys.stdout if options.verb == "check" else sys.stderr)
        return _backup_status.UNKNOWN if options.verb == "check" else 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="offsite", description="The copy of another host's backup sets.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("pull", help="pull what is new, verify it, and remove what is too old")
    verbs.add_parser("list", help="the sets that are here, a line each")
    verbs.add_parser("status", help="how the last pull ended, as JSON")
    check = verbs.add_parser("check", help="one line and an exit code for monitoring")
    check.add_argument("--warning-hours", type=_numbers.HOURS, default=30, help="age of the newest set here")
    check.add_argument("--critical-hours", type=_numbers.HOURS, default=54)
    return parser


def _end(_signal: int, _frame: Any) -> NoReturn:
    raise SystemExit("ended before the pull was done")


def _say(line: str, stream: TextIO | None = None) -> None:
    """Write a line for the person or the timer that runs the command; this is no module, whose output would be its result."""
    (stream or sys.stdout).write(line + "\n")
