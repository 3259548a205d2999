# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How full the file systems of an instance are, and when they will be full at the pace of the last weeks.

The pace comes from what earlier runs saw: a small file remembers how many bytes were in use, at most once in six hours and for eight weeks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import os
import statistics
import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _backup_status, _info, _repository
from ansible_collections.confops.indico.plugins.module_utils._backup_status import CRITICAL, OK, WARNING

_DAY = 86400.0
_APART = 6 * 3600  # seconds between samples that are kept
KEEP_DAYS = 56.0  # how long a sample is kept
_LEAST_DAYS = 3.0  # below, nothing is said of the pace
_LEAST_SAMPLES = 4
_STEP = 10  # so many times the usual deviation is no pace any more
_NEVER_DAYS = 366  # what lies farther away is not told as a number of days
Sample = tuple[float, int]  # seconds since the epoch, bytes in use


@dataclasses.dataclass
class Limits:
    """From where on something is wrong: percent in use, and days until a file system is full. 0 days asks nothing."""

    warning_percent: float = 85
    critical_percent: float = 95
    warning_days: float = 14


def refuse(paths: Mapping[str, str], limits: Limits, window_days: float) -> None:
    """Raise ValueError, with a sentence, for what makes no sense."""
    if not 0 < limits.warning_percent <= limits.critical_percent <= 100:
        raise ValueError(
            f"warning_percent is {limits.warning_percent:g} and critical_percent {limits.critical_percent:g};"
            " they must be more than 0, at most 100, and the second not less than the first."
        )
    if limits.warning_days < 0:
        raise ValueError(f"warning_days is {limits.warning_days:g}; it must be 0 or more.")
    if not _LEAST_DAYS <= window_days <= KEEP_DAYS:
        raise ValueError(f"window_days is {window_days:g}; it must be from {_LEAST_DAYS:g} to {KEEP_DAYS:g}.")
    for name, path in paths.items():
        if not isinstance(path, str) or not os.path.isabs(path):
            raise ValueError(f"paths, {name} is {path!r}; it must be an absolute path.")


def look(paths: Mapping[str, str], state_file: str, *, window_days: float = 28, act: bool = True, now: float | None = None) -> dict[str, Any]:
    """Return file_systems, what measure() says of each and what pace() says of its past; recorded, whether a sample was; and warnings.

    paths: by what people call it; window_days: how far back the pace is looked for; act: whether what was seen is remembered. Raises OSError.
    """
    moment = time.time() if now is None else now
    found = measure(paths)
    memory, warnings = _remembered(state_file, act)
    recorded = False
    for one in found:
        samples = [sample for sample in memory.get(one["mountpoint"], []) if moment - KEEP_DAYS * _DAY <= sample[0] <= moment]
        current = (moment, one["used_bytes"])
        one.update(pace([sample for sample in [*samples, current] if sample[0] >= moment - window_days * _DAY], one["free_bytes"]))
        if not samples or moment - samples[-1][0] >= _APART:
            samples.append(current)
            recorded = True
        memory[one["mountpoint"]] = samples
    if recorded and act:
        kept = {mountpoint: samples for mountpoint, samples in memory.items() if samples and samples[-1][0] >= moment - KEEP_DAYS * _DAY}
        try:
            _repository.replace(state_file, json.dumps({"used_bytes": kept}, sort_keys=True).encode() + b"\n")
        except OSError as error:  # such as a disk that is full
            warnings.append(f"{state_file} cannot be written, so this run is not remembered: {error.strerror}.")
            recorded = False
    return {"file_systems": found, "recorded": recorded, "warnings": warnings}


def measure(paths: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return each file system that holds one of the paths, or would hold it, once, sorted by mountpoint. Raises OSError.

    mountpoint, holds (names of the paths), total_bytes, used_bytes, free_bytes (for other users than root), used_percent (of what these can
    use, as df has it), inodes_total, inodes_free and inodes_percent, None where a file system has as many as it likes.
    """
    by_device: dict[int, dict[str, Any]] = {}
    for name, path in paths.items():
        place = os.path.realpath(path)
        while not os.path.isdir(place):
            place = os.path.dirname(place)
        device = os.stat(place).st_dev
        if device not in by_device:
            by_device[device] = {"mountpoint": _mountpoint(place, device), "holds": [], **_figures(os.statvfs(place))}
        by_device[device]["holds"].append(name)
    return sorted(by_device.values(), key=lambda one: str(one["mountpoint"]))


def _mountpoint(place: str, device: int) -> str:
    while place != "/" and os.stat(os.path.dirname(place)).st_dev == device:
        place = os.path.dirname(place)
    return place


def _figures(found: os.statvfs_result) -> dict[str, Any]:
    used, free = (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_bavail * found.f_frsize
    return {
        "total_bytes": found.f_blocks * found.f_frsize,
        "used_bytes": used,
        "free_bytes": free,
        "used_percent": _percent(used, used + free),
        "inodes_total": found.f_files or None,
        "inodes_free": found.f_favail if found.f_files else None,
        "inodes_percent": _percent(found.f_files - found.f_ffree, found.f_files) if found.f_files else None,
    }


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 1) if whole else 100.0


def _remembered(state_file: str, act: bool) -> tuple[dict[str, list[Sample]], list[str]]:
    """Return the samples by mountpoint, each list in order, and warnings. A damaged file is put aside, when act: it is worth no more than a forecast."""
    try:
        return _samples(_repository.parse_json(_repository.read_small(state_file))), []
    except FileNotFoundError:
        return {}, []
    except _repository.RepositoryError as error:
        return {}, [f"{state_file} cannot be read, so nothing is known of the past: {error}"]
    except OSError as error:
        return {}, [f"{state_file} cannot be read, so nothing is known of the past: {error.strerror}."]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        aside = f"{state_file}.damaged"
        if act:
            with contextlib.suppress(OSError):
                os.replace(state_file, aside)
        return {}, [f"{state_file} is damaged and {'was' if act else 'would be'} put aside as {aside}; forecasts begin anew."]


def _samples(known: Any) -> dict[str, list[Sample]]:
    found = {}
    for mountpoint, samples in known["used_bytes"].items():
        found[mountpoint] = sorted((float(moment), int(used)) for moment, used in samples)
        if not all(math.isfinite(moment) and used >= 0 for moment, used in found[mountpoint]):
            raise ValueError(mountpoint)
    return found


def pace(samples: list[Sample], free_bytes: int) -> dict[str, Any]:
    """Return pace_bytes (a day, negative when it shrinks) of the samples, which are in order, the pace_days that they span, and full_in_days.

    All are None when the samples are too few, the last one also when it does not grow. The pace is the median of the slopes between any two
    samples (Theil and Sen), which neither noise nor a clean-up each week leads astray. A step that happened once is none of it.
    """
    nothing: dict[str, Any] = {"pace_bytes": None, "pace_days": None, "full_in_days": None}
    days = (samples[-1][0] - samples[0][0]) / _DAY if samples else 0.0
    if days < _LEAST_DAYS or len(samples) < _LEAST_SAMPLES:
        return nothing
    level = _without_the_step([(moment / _DAY, float(used)) for moment, used in samples])
    slopes = [(after[1] - before[1]) / (after[0] - before[0]) for before, after in itertools.combinations(level, 2) if after[0] > before[0]]
    slope = statistics.median(slopes)
    return {"pace_bytes": round(slope), "pace_days": round(days, 1), "full_in_days": round(free_bytes / slope, 1) if slope >= 1 else None}


def _without_the_step(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (days, bytes) without the largest step between two of them, if there is none like it: somebody made room, or used it, once."""
    pairs = [(before, after) for before, after in zip(points, points[1:]) if after[0] > before[0]]
    if len(pairs) < _LEAST_SAMPLES - 1:
        return points
    usual = statistics.median((after[1] - before[1]) / (after[0] - before[0]) for before, after in pairs)
    steps = [(after[1] - before[1] - usual * (after[0] - before[0]), after[0]) for before, after in pairs]
    ordered = sorted(abs(step) for step, _moment in steps)
    step, since = max(steps, key=lambda one: abs(one[0]))
    if abs(step) <= max(2 * ordered[-2], _STEP * statistics.median(ordered)):
        return points
    return [(moment, used - step if moment >= since else used) for moment, used in points]


def findings(found: list[dict[str, Any]], limits: Limits) -> list[tuple[int, str]]:
    """Return what is wrong, each with its exit code for monitoring, the worst first."""
    wrong = []
    for one in found:
        code = _code(one["used_percent"], limits)
        if code == OK and limits.warning_days and one["full_in_days"] is not None and one["full_in_days"] < limits.warning_days:
            code = WARNING
        if code != OK:
            wrong.append((code, describe(one)))
        inodes = OK if one["inodes_percent"] is None else _code(one["inodes_percent"], limits)
        if inodes != OK:
            wrong.append((inodes, f"{one['mountpoint']} has {one['inodes_free']} inodes left, {one['inodes_percent']} % of them are in use"))
    return sorted(wrong, key=lambda each: -each[0])


def _code(percent: float, limits: Limits) -> int:
    return CRITICAL if percent >= limits.critical_percent else WARNING if percent >= limits.warning_percent else OK


def problems(found: list[dict[str, Any]], limits: Limits) -> list[str]:
    """Return a sentence for each thing that is wrong, the worst first."""
    return [f"{text}." for _code, text in findings(found, limits)]


def describe(one: dict[str, Any]) -> str:
    """Return how full a file system is and where that leads."""
    text = f"{one['mountpoint']} is {one['used_percent']} % full, {_info.human(one['free_bytes'])} free"
    if one["pace_bytes"] is None:
        return text
    where = "it does not grow"
    if one["full_in_days"] is not None:
        where = f"it is full in {one['full_in_days']:.0f} days" if one["full_in_days"] < _NEVER_DAYS else "it is not full within a year"
    return f"{text}; at the pace of the last {one['pace_days']:.0f} days {where}"


def summary(found: list[dict[str, Any]]) -> list[str]:
    """Return a line for each file system."""
    return [f"{describe(one)} ({', '.join(one['holds'])})" for one in found]


def judge(found: list[dict[str, Any]], limits: Limits) -> tuple[int, str]:
    """Return the exit code for monitoring and the line that says why."""
    wrong = findings(found, limits)
    if wrong:
        return wrong[0][0], f"{_backup_status.WORDS[wrong[0][0]]}: {'; '.join(text for _code, text in wrong)}"
    return OK, f"OK: {'; '.join(describe(one) for one in found)}"


def metrics(instance: str, found: list[dict[str, Any]]) -> str:
    """Return all of it in Prometheus' text format."""

    def each(key: str) -> list[tuple[dict[str, str], float]]:
        return [({"mountpoint": one["mountpoint"]}, one[key]) for one in found if one[key] is not None]

    rows: list[_backup_status.Row] = [
        ("disk_size_bytes", "Size of the file system", each("total_bytes")),
        ("disk_free_bytes", "What users other than root can still write", each("free_bytes")),
        ("disk_used_percent", "How full it is", each("used_percent")),
        ("disk_inodes", "Files that it can hold", each("inodes_total")),
        ("disk_inodes_free", "Files that can still be made", each("inodes_free")),
        ("disk_growth_bytes_per_day", "Pace of the last weeks", each("pace_bytes")),
        ("disk_full_in_days", "When it is full at that pace", each("full_in_days")),
    ]
    return _backup_status.prometheus(instance, [row for row in rows if row[2]])
