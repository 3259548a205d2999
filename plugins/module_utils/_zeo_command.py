# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command for the database servers of a host. Its settings are a JSON file that role zeo writes.

A timer runs `watch`, the servers' unit asks `may-start` before it starts, the rest is for people and monitoring.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from typing import TextIO

from ansible_collections.confops.indico.plugins.module_utils import _backup_status, _numbers, _repository, _zeo, _zeo_info, _zeo_standby
from ansible_collections.confops.indico.plugins.module_utils._zeo import Settings, ZeoError
from ansible_collections.confops.indico.plugins.module_utils._zeo_info import Limits


def main(settings_path: str, arguments: list[str]) -> int:
    """Run the command and return its exit code: 0 when all is well, for check 0 to 3 as monitoring has it, otherwise 1."""
    options = parser().parse_args(arguments)
    options.settings = settings_path
    try:
        return _VERBS[options.verb](_zeo.read_settings(settings_path), options)
    except (ZeoError, _zeo_standby.StandbyError, _repository.RepositoryError, OSError) as error:
        check, said = options.verb == "check", _repository.told(error)
        _say(f"UNKNOWN: {said}" if check else said, sys.stdout if check else sys.stderr)
        return _backup_status.UNKNOWN if check else 1


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The database servers of an Indico instance.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("status", help="what each server does, as JSON")
    check = verbs.add_parser("check", help="one line and an exit code for monitoring", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for one in dataclasses.fields(Limits):
        check.add_argument(f"--{one.name.replace('_', '-')}", type=_numbers.real(), default=one.default, help="0 asks nothing")
    verbs.add_parser("metrics", help="write the metrics file, if the settings name one, and note how a standby follows")
    verbs.add_parser("watch", help="stop servers that another host took over from, then as metrics")
    verbs.add_parser("claim", help="what this host tells the other one: who is the primary, and its newest transactions, as JSON")
    verbs.add_parser("may-start", help="whether the servers of this host may run, as an exit code")
    return parser


def _status(settings: Settings, _options: argparse.Namespace) -> int:
    found = _zeo_info.info(settings.python, settings.servers, databases=settings.databases, time_limit=settings.time_limit)
    _say(json.dumps({"servers": found, "problems": _zeo_info.problems(found)}, indent=1, sort_keys=True))
    return 0


def _check(settings: Settings, options: argparse.Namespace) -> int:
    limits = Limits(**{one.name: getattr(options, one.name) for one in dataclasses.fields(Limits)})
    code, line = _zeo_info.judge(_zeo_info.info(settings.python, settings.servers, databases=settings.databases, time_limit=settings.time_limit), limits)
    _say(line)
    return code


def _metrics(settings: Settings, options: argparse.Namespace) -> int:
    if not settings.metrics and not settings.peers:
        return 0
    found = _zeo_info.info(settings.python, settings.servers, databases=settings.databases, time_limit=settings.time_limit)
    lags = _lags(settings, found, options.settings) if settings.peers else {}
    if settings.peers:
        noted = _zeo_standby.read_settings(options.settings).following
        _zeo_standby.note_following(noted, {name: seconds for name, (_transactions, seconds) in lags.items()}, time.time())
    if settings.metrics:
        _repository.replace(settings.metrics, _zeo_info.metrics(settings.instance, found, lags).encode())
        os.chmod(settings.metrics, 0o644)
    return 0


def _lags(settings: Settings, found: list[dict[str, object]], path: str) -> dict[str, tuple[int, float]]:
    """Return how far this host is behind the primary, by storage; nothing when it is the primary. A primary that does not answer tells nothing."""
    standby = _zeo_standby.read_settings(path)
    host = standby.peers.get(_zeo_standby.read_claim(standby.claim).primary)
    lags: dict[str, tuple[int, float]] = {}
    for one in found if host else []:
        own = settings.servers[str(one["name"])]
        newest = one.get("last_transaction")
        if one["error"]:
            continue
        primary = dataclasses.replace(own, address=f"[{host}]:{_port(own)}" if ":" in str(host) else f"{host}:{_port(own)}")
        try:
            lags[str(one["name"])] = _zeo_info.lag(settings.python, primary, newest["tid"] if isinstance(newest, dict) else "", time_limit=settings.time_limit)
        except ZeoError as error:
            _say(str(error), sys.stderr)
    return lags


def _port(server: _zeo.Server) -> int:
    place = server.place()
    if isinstance(place, str):
        raise ZeoError(f"{server.address} is a socket: another host cannot be asked through it.")
    return place[1]


def _watch(settings: Settings, options: argparse.Namespace) -> int:
    if settings.peers:
        refusal = _zeo_standby.fence(_zeo_standby.read_settings(options.settings))
        if refusal:
            _say(refusal, sys.stderr)
    return _metrics(settings, options)


def _claim(_settings: Settings, options: argparse.Namespace) -> int:
    _say(json.dumps(_zeo_standby.tell(_zeo_standby.read_settings(options.settings))))
    return 0


def _may_start(settings: Settings, options: argparse.Namespace) -> int:
    refusal = _zeo_standby.may_start(_zeo_standby.read_settings(options.settings)).refusal if settings.peers else ""
    if refusal:
        _say(refusal, sys.stderr)
    return 1 if refusal else 0


_Verb = Callable[[Settings, argparse.Namespace], int]
_VERBS: dict[str, _Verb] = {"status": _status, "check": _check, "metrics": _metrics, "watch": _watch, "claim": _claim, "may-start": _may_start}


def _say(line: str, stream: TextIO | None = None) -> None:
    """Write a line for the person or the timer that runs the command."""
    (stream or sys.stdout).write(line + "\n")
    (stream or sys.stdout).flush()
