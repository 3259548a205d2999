"""Schedules for cron, when they are due next, and the hours in which jobs may run."""

from __future__ import annotations

import time
from datetime import datetime

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _crontab

FRIDAY = datetime(2026, 11, 27, 12, 0, 30)


@pytest.mark.parametrize(
    ("schedule", "fields"),
    [
        ("01:30", "30 1 * * *"),
        ("*-*-* 01:30:00", "30 1 * * *"),
        ("Sun 04:00", "0 4 * * 0"),
        ("Mon..Fri 22:15", "15 22 * * 1,2,3,4,5"),
        ("Sat..Mon 00:05", "5 0 * * 6,0,1"),
        ("Tue,Thu..Sat 9:00", "0 9 * * 2,4,5,6"),
    ],
)
def test_what_both_can_say(schedule: str, fields: str) -> None:
    assert _crontab.fields(schedule) == fields


@pytest.mark.parametrize("schedule", ["", "hourly", "*:0/15", "25:00", "1:60", "Sunday 04:00", "Mon, Tue 01:00", "*-*-01 01:00", "01:30:10"])
def test_what_cron_cannot_is_refused(schedule: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be given to cron; write it as 01:30, as Sun 04:00 or as Mon\.\.Fri 22:15, or use systemd's timers"):
        _crontab.fields(schedule)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("12:01", "2026-11-27 12:01"),
        ("12:00", "2026-11-28 12:00"),
        ("Fri 01:30", "2026-12-04 01:30"),
        ("Sun 04:00", "2026-11-29 04:00"),
        ("Mon..Thu 22:15", "2026-11-30 22:15"),
        ("Tue,Sat 03:00", "2026-11-28 03:00"),
    ],
)
def test_the_next_moment_of_a_crontab(schedule: str, expected: str) -> None:
    assert f"{_crontab.following(_crontab.fields(schedule), FRIDAY):%Y-%m-%d %H:%M}" == expected


@pytest.mark.parametrize(
    ("hours", "minute", "expected"),
    [
        ("", "12:00", True),
        ("22:00-06:00", "21:59", False),
        ("22:00-06:00", "22:00", True),
        ("22:00-06:00", "05:59", True),
        ("22:00-06:00", "06:00", False),
        ("01:00-03:30", "03:29", True),
        ("01:00-03:30", "03:30", False),
        ("01:00-03:30", "00:59", False),
    ],
)
def test_allowed_hours(hours: str, minute: str, expected: bool) -> None:
    assert _crontab.allowed(hours, time.strptime(minute, "%H:%M")) == expected


@pytest.mark.parametrize("hours", ["22-6", "24:00-06:00", "22:00", "22:00 - 06:00"])
def test_hours_that_are_none(hours: str) -> None:
    with pytest.raises(ValueError, match=r"The allowed hours are '.*'; they must be two times such as 22:00-06:00\."):
        _crontab.allowed(hours, time.localtime())
