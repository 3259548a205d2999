"""Disk space: the pace is found again in noisy data, whatever happened in between; thresholds; a memory that is damaged costs forecasts and nothing else."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _disk_space
from ansible_collections.confops.indico.plugins.module_utils._disk_space import Limits, Sample
from hypothesis import given, settings
from hypothesis import strategies as st

DAY = 86400.0
NOW = 1.7e9
GB = 2**30
QUARTER = 0.25  # days between samples


def line(days: float, per_day: float, *, noise: float = 0, seed: int = 0, start: int = 100 * GB) -> list[Sample]:
    """Return samples each six hours, up to NOW."""
    chance = random.Random(seed)  # noqa: S311 (noise)
    count = int(days / QUARTER) + 1
    return [(NOW - days * DAY + n * QUARTER * DAY, int(start + per_day * n * QUARTER + chance.uniform(-noise, noise))) for n in range(count)]


def full(mountpoint: str = "/", **changes: Any) -> dict[str, Any]:
    """Return what is known of one file system that is well."""
    figures = {"total_bytes": 100 * GB, "used_bytes": 40 * GB, "free_bytes": 60 * GB, "used_percent": 40.0}
    inodes = {"inodes_total": 1000, "inodes_free": 900, "inodes_percent": 10.0}
    return {"mountpoint": mountpoint, "holds": ["prefix"], **figures, **inodes, "pace_bytes": None, "pace_days": None, "full_in_days": None, **changes}


# The pace


@settings(max_examples=60, deadline=None)
@given(per_day=st.floats(0.05, 20), days=st.integers(7, 28), noise=st.floats(0, 0.5), seed=st.integers(0, 999))
def test_the_pace_is_found_in_noise(per_day: float, days: int, noise: float, seed: int) -> None:
    """noise: in days of growth."""
    found = _disk_space.pace(line(days, per_day * GB, noise=noise * per_day * GB, seed=seed), 100 * GB)
    assert found["pace_bytes"] == pytest.approx(per_day * GB, rel=0.2)
    assert found["full_in_days"] == pytest.approx(100 / per_day, rel=0.3)
    assert found["pace_days"] == days


@settings(max_examples=60, deadline=None)
@given(at=st.integers(2, 81), step=st.floats(-90, 90), seed=st.integers(0, 99))
def test_one_step_is_no_pace(at: int, step: float, seed: int) -> None:
    """A clean-up, or something large that came once."""
    samples = [(moment, used + int(step * GB) * (n >= at)) for n, (moment, used) in enumerate(line(21, GB, noise=GB / 10, seed=seed))]
    assert _disk_space.pace(samples, 100 * GB)["pace_bytes"] == pytest.approx(GB, rel=0.25)


def test_what_is_cleaned_each_week_does_not_grow() -> None:
    samples = [(moment, used - int((moment - NOW) // (7 * DAY)) * 7 * GB) for moment, used in line(28, GB)]
    assert abs(_disk_space.pace(samples, 100 * GB)["pace_bytes"]) < GB / 4


def test_shrinking_is_never_full() -> None:
    found = _disk_space.pace(line(10, -GB), GB)
    assert found["pace_bytes"] == pytest.approx(-GB)
    assert found["full_in_days"] is None
    assert _disk_space.pace([(moment, 5) for moment, _used in line(10, 0)], GB) == {"pace_bytes": 0, "pace_days": 10.0, "full_in_days": None}


@pytest.mark.parametrize("samples", [[], [(NOW, 1)], line(2.75, GB), [(NOW - 20 * DAY, 1), (NOW - DAY, 2), (NOW, 3)], [(NOW, n) for n in range(9)]])
def test_too_little_says_nothing(samples: list[Sample]) -> None:
    assert _disk_space.pace(samples, GB) == {"pace_bytes": None, "pace_days": None, "full_in_days": None}


def test_samples_far_apart_and_at_one_moment() -> None:
    """Somebody ran it by hand: the growth of three weeks lies between two samples."""
    days = (0, 0, 1, 2, 3, 24, 25)
    assert _disk_space.pace([(NOW + day * DAY, day * GB) for day in days], GB)["pace_bytes"] == pytest.approx(GB)


# What is remembered


class Disk:
    """One file system, whose use and moment a test sets."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.state = directory, directory / "state.json"

    def look(self, now: float, used: int = 40 * GB, **options: Any) -> dict[str, Any]:
        figures = {key: value for key, value in full(used_bytes=used, free_bytes=100 * GB - used).items() if key not in ("mountpoint", "holds")}
        with patch.object(_disk_space, "_figures", return_value=figures):
            return _disk_space.look({"prefix": str(self.directory)}, str(self.state), now=now, **options)

    def samples(self) -> list[list[float]]:
        return next(iter(json.loads(self.state.read_text())["used_bytes"].values()))  # type: ignore[no-any-return]


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_runs_remember_and_a_forecast_comes(disk: Disk) -> None:
    for hour in range(24 * 10):
        seen = disk.look(NOW + hour * 3600, used=int(40 * GB + hour * GB / 24))
        assert seen["recorded"] == (hour % 6 == 0)
        assert (seen["file_systems"][0]["pace_bytes"] is None) == (hour < 72)
    assert len(disk.samples()) == 40
    (one,) = seen["file_systems"]
    assert one["pace_bytes"] == pytest.approx(GB)
    assert one["full_in_days"] == pytest.approx(50, abs=0.2)
    assert "% full, 50.04 GB free; at the pace of the last 10 days it is full in 50 days" in _disk_space.describe(one)


def test_what_is_older_than_eight_weeks_is_forgotten(disk: Disk) -> None:
    for day in range(100):
        disk.look(NOW + day * DAY)
    assert [moment for moment, _used in disk.samples()] == [NOW + day * DAY for day in range(43, 100)]


def test_check_mode_remembers_nothing(disk: Disk) -> None:
    seen = disk.look(NOW, act=False)
    assert (seen["recorded"], seen["warnings"]) == (True, [])
    assert list(disk.directory.iterdir()) == []


def test_a_clock_that_jumps_back(disk: Disk) -> None:
    """What comes from the future counts for nothing, and what was right before is still there."""
    for quarter in range(40):
        disk.look(NOW + quarter * DAY / 4, used=40 * GB + quarter * GB // 4)
    for jump in (-4 * DAY, -3.9 * DAY):
        seen = disk.look(NOW + 10 * DAY + jump, used=46 * GB)
        assert seen["warnings"] == []
        assert seen["file_systems"][0]["pace_bytes"] == pytest.approx(GB, rel=0.1)
    assert [moment for moment, _used in disk.samples()] == sorted({moment for moment, _used in disk.samples()})
    assert disk.look(0)["file_systems"][0]["pace_bytes"] is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"null",
        b'{"used_bytes": []}',
        b'{"used_bytes": {"/": 3}}',
        b'{"used_bytes": {"/": [[1]]}}',
        b'{"used_bytes": {"/": [["x", 1]]}}',
        b'{"used_bytes": {"/": [[NaN, 1]]}}',
        b'{"used_bytes": {"/": [[1, Infinity]]}}',
        b'{"used_bytes": {"/": [[1, -1]]}}',
        b'{"used_bytes": {"/": [[null, null]]}}',
        b"[" * 100000,
    ],
)
def test_a_damaged_memory_is_put_aside(disk: Disk, content: bytes) -> None:
    disk.state.write_bytes(content)
    seen = disk.look(NOW, act=False)
    assert seen["warnings"] == [f"{disk.state} is damaged and would be put aside as {disk.state}.damaged; forecasts begin anew."]
    assert disk.state.read_bytes() == content
    seen = disk.look(NOW)
    assert seen["warnings"] == [f"{disk.state} is damaged and was put aside as {disk.state}.damaged; forecasts begin anew."]
    assert Path(f"{disk.state}.damaged").read_bytes() == content
    assert disk.samples() == [[NOW, 40 * GB]]
    assert disk.look(NOW + 1)["warnings"] == []


def test_a_memory_that_cannot_be_had_is_a_warning(disk: Disk) -> None:
    disk.state.mkdir()
    seen = disk.look(NOW)
    assert seen["recorded"] is False
    assert [warning.split(" cannot be ")[1].split(",")[0] for warning in seen["warnings"]] == ["read", "written"]


# What is measured


def test_paths_on_one_file_system_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "link").symlink_to("db")
    paths = {"prefix": str(tmp_path), "db": str(tmp_path / "link"), "not yet": str(tmp_path / "a/b/c")}
    (one,) = _disk_space.measure(paths)
    assert one["holds"] == ["prefix", "db", "not yet"]
    assert os.path.ismount(one["mountpoint"])
    usage = os.statvfs(tmp_path)
    assert (one["total_bytes"], one["inodes_total"]) == (usage.f_blocks * usage.f_frsize, usage.f_files or None)
    assert 0 < one["used_percent"] <= 100


def test_other_file_systems_are_other_lines(tmp_path: Path) -> None:
    found = _disk_space.measure({"prefix": str(tmp_path), "proc": "/proc/self"})
    assert [one["holds"] for one in found if one["mountpoint"] == "/proc"] == [["proc"]]
    assert len(found) == 2


def test_without_a_limit_of_inodes() -> None:
    figures = _disk_space._figures(os.statvfs_result((4096, 4096, 1000, 100, 50, 0, 0, 0, 0, 255)))
    assert figures["inodes_percent"] is figures["inodes_total"] is figures["inodes_free"] is None
    assert figures["used_percent"] == 94.7  # as df: 900 of the 950 that users can have
    assert _disk_space.findings([full(**figures)], Limits())[0][0] == 1


# What is wrong


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({}, 0, "OK: / is 40.0 % full, 60.00 GB free"),
        ({"used_percent": 84.9}, 0, "OK: / is 84.9 % full, 60.00 GB free"),
        ({"used_percent": 85.0}, 1, "WARNING: / is 85.0 % full, 60.00 GB free"),
        ({"used_percent": 95.0}, 2, "CRITICAL: / is 95.0 % full, 60.00 GB free"),
        ({"inodes_percent": 96.0, "inodes_free": 40}, 2, "CRITICAL: / has 40 inodes left, 96.0 % of them are in use"),
        (
            {"pace_bytes": GB, "pace_days": 21.0, "full_in_days": 9.2},
            1,
            "WARNING: / is 40.0 % full, 60.00 GB free; at the pace of the last 21 days it is full in 9 days",
        ),
        (
            {"pace_bytes": GB, "pace_days": 21.0, "full_in_days": 14.0},
            0,
            "OK: / is 40.0 % full, 60.00 GB free; at the pace of the last 21 days it is full in 14 days",
        ),
        (
            {"pace_bytes": 5, "pace_days": 21.0, "full_in_days": 9e9},
            0,
            "OK: / is 40.0 % full, 60.00 GB free; at the pace of the last 21 days it is not full within a year",
        ),
        ({"pace_bytes": -5, "pace_days": 21.0}, 0, "OK: / is 40.0 % full, 60.00 GB free; at the pace of the last 21 days it does not grow"),
    ],
)
def test_judgement(changes: dict[str, Any], code: int, text: str) -> None:
    assert _disk_space.judge([full(**changes)], Limits()) == (code, text)


def test_the_worst_comes_first() -> None:
    found = [full("/", used_percent=90.0), full("/srv", used_percent=99.0), full("/var")]
    assert [sentence.split()[0] for sentence in _disk_space.problems(found, Limits())] == ["/srv", "/"]
    assert _disk_space.judge(found, Limits())[0] == 2
    assert _disk_space.problems([full(full_in_days=1.0, pace_bytes=1, pace_days=3.0)], Limits(warning_days=0)) == []


def test_summary_names_what_lies_there() -> None:
    assert _disk_space.summary([full(holds=["prefix", "db/main"])]) == ["/ is 40.0 % full, 60.00 GB free (prefix, db/main)"]


def test_metrics() -> None:
    text = _disk_space.metrics("events", [full("/srv", pace_bytes=7, pace_days=9.0, full_in_days=3.5), full(inodes_total=None)])
    assert 'indico_disk_size_bytes{instance_name="events",mountpoint="/srv"} 107374182400\n' in text
    assert 'indico_disk_full_in_days{instance_name="events",mountpoint="/srv"} 3.5\n' in text
    assert text.count("indico_disk_inodes{") == text.count("indico_disk_growth_bytes_per_day{") == 1


@pytest.mark.parametrize(
    ("paths", "limits", "window", "sentence"),
    [
        ({}, Limits(96, 95), 28, "warning_percent is 96 and critical_percent 95; they must be more than 0, at most 100, and the second not less than"),
        ({}, Limits(0, 95), 28, "warning_percent is 0"),
        ({}, Limits(85, 101), 28, "warning_percent is 85 and critical_percent 101"),
        ({}, Limits(warning_days=-1), 28, "warning_days is -1; it must be 0 or more."),
        ({}, Limits(), 57, "window_days is 57; it must be from 3 to 56."),
        ({"prefix": "opt"}, Limits(), 28, "paths, prefix is 'opt'; it must be an absolute path."),
    ],
)
def test_what_makes_no_sense_is_refused(paths: dict[str, str], limits: Limits, window: float, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace(".", "[.]")):
        _disk_space.refuse(paths, limits, window)
