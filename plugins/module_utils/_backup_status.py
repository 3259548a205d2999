# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How backups, drills and packs ended: status files, Prometheus metrics, pings of a monitoring service, and the judgement of a check."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
import urllib.request
from collections.abc import Collection, Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Protocol

from ansible_collections.confops.indico.plugins.module_utils import _catalogue, _filestorage, _repository, _verify
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError

if TYPE_CHECKING:
    from ansible_collections.confops.indico.plugins.module_utils._backup_set import Settings

BACKUP, DRILL, PACK = "status.json", "drill.json", "pack.json"  # in the directory of the sets
# As monitoring wants it: https://www.monitoring-plugins.org/doc/guidelines.html
OK, WARNING, CRITICAL, UNKNOWN = range(4)
WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
_PING_SECONDS = 10.0
Row = tuple[str, str, list[tuple[dict[str, str], float]]]  # a metric's name, what it is, and its labels and values


class Outcome(Protocol):
    """What a run tells of itself: a dataclass that has at least these."""

    problem: str | None
    warnings: list[str]
    seconds: float

    def line(self) -> str: ...


@dataclasses.dataclass
class Limits:
    """From where on a check warns. Hours and days are ages, bytes the least that a database has; 0 asks nothing."""

    warning_hours: float = 26
    critical_hours: float = 50
    verified_days: float = 35
    drill_days: float = 0
    pack_days: float = 0
    minimum_bytes: int = 200
    shrunk_percent: float = 50


@contextlib.contextmanager
def announced(settings: Settings, outcome: Outcome, name: str, *, act: bool) -> Iterator[None]:
    """Run something that fills outcome. Its status and the metrics are written and its pings sent however it ends, unless act is false.

    Whatever it raises becomes a RepositoryError, whose text is outcome.problem.
    """
    began = time.monotonic()
    if act:
        _ping(settings, "start", "", outcome)
    try:
        yield
    except (RepositoryError, _filestorage.FileStorageError, OSError) as error:
        outcome.problem = _repository.told(error, settings.directory)
        raise RepositoryError(outcome.problem) from error
    except BaseException as error:
        outcome.problem = f"it was ended ({type(error).__name__} {error})."
        raise
    finally:
        outcome.seconds = round(time.monotonic() - began, 3)
        if act:
            _ping(settings, "failure" if outcome.problem else "success", outcome.line(), outcome)
            _leave_word(settings, outcome, name)


def _ping(settings: Settings, when: str, text: str, outcome: Outcome) -> None:
    """Tell a monitoring service, if one is to be told; that it does not answer is no reason to have no backup."""
    url = settings.pings.get(when)
    if not url:
        return
    try:
        request = urllib.request.Request(url, data=text.encode(), headers={"Content-Type": "text/plain; charset=utf-8"})  # noqa: S310 (the site's own)
        with urllib.request.build_opener().open(request, timeout=_PING_SECONDS) as answer:
            answer.read()
    except (OSError, ValueError) as error:
        outcome.warnings.append(f"The ping for {when} was not received: {_repository.reason(error).replace(url, 'its URL')}.")  # the URL may be a secret


def _leave_word(settings: Settings, outcome: Outcome, name: str) -> None:
    last = read(settings, name) or {}
    now = int(time.time())
    status = {
        **dataclasses.asdict(outcome),  # type: ignore[call-overload]
        "ok": outcome.problem is None,
        "ended": datetime.fromtimestamp(now, timezone.utc).strftime(_verify.TIME),
        "ended_seconds": now,
        "success_seconds": now if outcome.problem is None else last.get("success_seconds", 0),
        "line": outcome.line(),
    }
    with contextlib.suppress(OSError):  # a full disk must not hide the first error
        _repository.replace(os.path.join(settings.directory, name), json.dumps(status, indent=1, sort_keys=True).encode() + b"\n")
    if settings.metrics:
        try:
            _repository.replace(settings.metrics, _metrics(settings).encode())
            os.chmod(settings.metrics, 0o644)
        except (OSError, RepositoryError) as error:
            outcome.warnings.append(f"The metrics file {settings.metrics} cannot be written: {_repository.reason(error)}.")


def read(settings: Settings, name: str) -> dict[str, Any] | None:
    """Return the word that the last run left, None when none did or it is damaged."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return dict(_repository.load_json(os.path.join(settings.directory, name)))
    return None


def whole(settings: Settings) -> dict[str, Any]:
    """Return all that is known: run, drill and pack (None before the first), and for each storage what its repository holds now.

    in_use is who holds the lock on the backups (process, since), None when nobody does.

    Raises RepositoryError when no run has left word yet.
    """
    run = read(settings, BACKUP)
    if run is None:
        raise RepositoryError(f"No run has left word in {os.path.join(settings.directory, BACKUP)}.")
    repositories = {name: _repository_now(settings.repository(name)) for name in settings.storages if os.path.isdir(settings.repository(name))}
    return {
        "run": run,
        "drill": read(settings, DRILL),
        "pack": read(settings, PACK),
        "repositories": repositories,
        "in_use": _repository.busy(settings.directory),
    }


def _repository_now(path: str) -> dict[str, Any]:
    """Return what a repository holds: bytes, chains, the newest chain's files and range (bytes), recoverable (from, to), and problems.

    verified is the moment since when every file is known to be as it was written (ISO 8601), None when one never was verified.
    """
    found = _catalogue.catalogue(path)
    verified = [chain["verified"] for chain in found["chains"]]
    newest = found["chains"][-1] if found["chains"] else None
    return {
        "bytes": found["totals"]["stored_bytes"],
        "chains": len(found["chains"]),
        "chain_length": len(newest["files"]) if newest else 0,
        "database_bytes": newest["raw_bytes"] if newest else 0,
        "recoverable": found["recoverable"],
        "verified": min(verified) if verified and all(verified) else None,
        "problems": found["problems"],
    }


def _metrics(settings: Settings) -> str:
    known = whole(settings)
    run, now = known["run"], known["repositories"]

    def each(value: Any) -> list[tuple[dict[str, str], float]]:
        return [({"storage": name}, value(one)) for name, one in now.items()]

    rows: list[Row] = [
        ("backup_status", "2 after a success, 1 after one with warnings, 0 after a failure", [({}, _grade(run))]),
        ("backup_time_seconds", "When the last run ended", [({}, run["ended_seconds"])]),
        ("backup_success_time_seconds", "When the last good run ended", [({}, run["success_seconds"])]),
        ("backup_duration_seconds", "How long the last run took", [({}, run["seconds"])]),
        ("backup_added_bytes", "What the last run stored", [({"storage": one["name"]}, one["stored_bytes"]) for one in run["storages"]]),
        ("backup_verified_time_seconds", "Since when all backups are known to be whole, 0 when one is not", each(lambda one: _seconds(one["verified"]))),
        ("repository_bytes", "Size of the repository", each(lambda one: one["bytes"])),
        ("chain_length", "Files of the newest chain", each(lambda one: one["chain_length"])),
        ("recovery_window_seconds", "From the first to the last moment that can be restored", each(_window)),
    ]
    for what in ("drill", "pack"):
        if last := known[what]:
            rows += [
                (f"{what}_status", "2 after a success, 1 after one with warnings, 0 after a failure", [({}, _grade(last))]),
                (f"{what}_time_seconds", f"When the last {what} ended", [({}, last["ended_seconds"])]),
                (f"{what}_success_time_seconds", f"When the last good {what} ended", [({}, last["success_seconds"])]),
                (f"{what}_duration_seconds", f"How long the last {what} took", [({}, last["seconds"])]),
            ]
    if known["pack"]:
        reclaimed = [({"storage": one["name"]}, one["reclaimed_bytes"] or 0) for one in known["pack"]["storages"]]
        rows.append(("pack_reclaimed_bytes", "What the last pack gave back", reclaimed))
    return prometheus(settings.instance, rows)


def _grade(status: dict[str, Any]) -> int:
    return (1 if status["warnings"] else 2) if status["ok"] else 0


def _seconds(moment: str | None) -> float:
    return datetime.strptime(moment, _verify.TIME).replace(tzinfo=timezone.utc).timestamp() if moment else 0


def _window(one: dict[str, Any]) -> float:
    return _seconds(one["recoverable"]["latest"]) - _seconds(one["recoverable"]["earliest"]) if one["recoverable"] else 0


def prometheus(instance: str, rows: list[Row]) -> str:
    """Return the rows in Prometheus' text format."""
    lines = []
    for name, words, values in rows:
        lines += [f"# HELP indico_{name} {words}.", f"# TYPE indico_{name} {'counter' if name.endswith('_total') else 'gauge'}"]
        for labels, value in values:
            shown = ",".join(f'{key}="{text}"' for key, text in {"instance_name": instance, **labels}.items())
            lines.append(f"indico_{name}{{{shown}}} {value:.15g}")
    return "\n".join(lines) + "\n"


def judge(known: dict[str, Any] | None, sizes: list[dict[str, int]], now: float, limits: Limits, more: Collection[tuple[int, str]] = ()) -> tuple[int, str]:
    """Return the exit code for monitoring and the line that says why, the worst first.

    known is what whole() returns, None when no run has left word; more are findings of the caller's, of which there
    is one at least then. sizes are the bytes of each storage in the newest sets, from the older to the newer; now is in seconds.
    """
    found = sorted([*more, *(_findings(known, sizes, now, limits) if known else ())], key=lambda one: -one[0])
    if found or not known:
        return found[0][0], f"{WORDS[found[0][0]]}: {'; '.join(text for _code, text in found)}"
    drilled = f", drilled {_age(known['drill'], now):.0f} hours ago" if known["drill"] else ""
    return OK, f"OK: the last good backup is {_age(known['run'], now):.0f} hours old{drilled}"


def _age(status: dict[str, Any], now: float) -> float:
    """Return the hours since the last success."""
    return (now - float(status["success_seconds"])) / 3600


def _findings(known: dict[str, Any], sizes: list[dict[str, int]], now: float, limits: Limits) -> Iterator[tuple[int, str]]:
    run = known["run"]
    if not run["success_seconds"]:
        yield CRITICAL, f"no backup has ever succeeded; the last run: {run['problem']}"
        return
    age = _age(run, now)
    if age > limits.warning_hours:
        yield (CRITICAL if age > limits.critical_hours else WARNING), f"the last good backup is {age:.0f} hours old"
    if not run["ok"]:
        yield WARNING, f"the last run failed ({run['problem']}); the last good backup is {age:.0f} hours old"
    for name, one in known["repositories"].items():
        if one["problems"]:
            yield CRITICAL, f"{name}: {one['problems'][0]}"
        if one["chains"] and limits.verified_days:
            days = (now - _seconds(one["verified"])) / 86400
            if not one["verified"]:
                yield WARNING, f"{name}: not all backups were verified"
            elif days > limits.verified_days:
                yield WARNING, f"{name}: backups were last verified {days:.0f} days ago"
    newest = sizes[-1] if sizes else {}
    for name, size in newest.items():
        if 0 < size < limits.minimum_bytes:
            yield WARNING, f"{name} has {size} bytes, less than {limits.minimum_bytes}"
        before = sizes[-2].get(name, 0) if len(sizes) > 1 else 0
        if limits.shrunk_percent and size < before * (1 - limits.shrunk_percent / 100):
            yield WARNING, f"{name} shrank from {before} to {size} bytes"
    for what, days in (("drill", limits.drill_days), ("pack", limits.pack_days)):
        last = known[what]
        if last and not last["ok"]:
            yield WARNING, f"the last {what} failed ({last['problem']})"
        elif days and (not last or _age(last, now) > days * 24):
            yield WARNING, f"the last good {what} is {_age(last, now) / 24:.0f} days old" if last else f"no {what} was made"
