"""O3: a schedule that systemd would refuse is refused on the controller. systemd itself is asked where it is there."""

from __future__ import annotations

import shutil
import subprocess
from datetime import date

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _calendar

TODAY = date(2026, 11, 30)
GOOD = [
    "01:30",
    "3:0",
    "Sun 04:00",
    "sunday 3:00",
    "Mon..Fri 22:15",
    "Mon-Fri 22:15",
    "Mon",
    "daily",
    "hourly UTC",
    "quarterly",
    "semi-annually",
    "Mon,Tue *-*-01..07 02:00:00",
    "*:0/15",
    "*-*~3 01:00",
    "01:30 Europe/Zurich",
    "*-*-* *:*:00.5",
    "2036-*-* 1:00",
    "1,2:30",
    "00..23/2:30",
    "*-1,2-31",
    "*-02-29",
]
WRONG = [
    "",
    " 01:30",
    "25:99",
    "24:00",
    "1:60",
    "1:30:60",
    "01:30 Mars/X",
    "Sun-Tue 3:00",
    "Fri..Mon 1:00",
    "Mon.. 3:00",
    "Mo 3:00",
    "now",
    "*-13-01",
    "*-*-32",
    "*-*-5..2",
    "*-00-01",
    "1..:30",
    "5..2:30",
    "*/2:00",
    "0/0:00",
    "03",
    "Mon 3",
    "nightly",
    "01:30 02:30",
    "01.30",
    "0130",
    "\u0661:30",
    "01:30; reboot",
    "nan",
]
NEVER = ["*-02-30", "2020-01-01", "*-02-30..31", "2026-11-29 1:00", "26-1-1"]
SPANS = ["5", "10min", "1h 30min", "1h30min", "1.5h", "2 h", "1y", "0", "90 seconds"]
NO_SPANS = ["", "10mins", "abc", "10x", "-5min", "nan", "1e3", "inf", "infinity", "min", "10 min utes", "0x10"]


@pytest.mark.parametrize("expression", GOOD)
def test_a_schedule_that_systemd_takes_is_right(expression: str) -> None:
    assert _calendar.problem(expression, TODAY) is None


@pytest.mark.parametrize("expression", WRONG + NEVER)
def test_a_schedule_that_systemd_refuses_or_that_never_comes_is_wrong(expression: str) -> None:
    assert _calendar.problem(expression, TODAY)


@pytest.mark.parametrize("text", SPANS)
def test_a_span_is_right(text: str) -> None:
    assert _calendar.span(text)


@pytest.mark.parametrize("text", NO_SPANS)
def test_what_is_no_span_is_wrong(text: str) -> None:
    assert not _calendar.span(text)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not there to be asked")
def test_systemd_agrees() -> None:
    def taken(kind: str, *texts: str) -> list[str]:
        return [text for text in texts if subprocess.run(["systemd-analyze", kind, text], capture_output=True, check=False).returncode == 0]

    assert taken("calendar", *GOOD) == GOOD
    assert taken("calendar", *[text for text in WRONG if text != " 01:30"]) == []
    assert taken("timespan", *SPANS) == SPANS
    assert taken("timespan", *[text for text in NO_SPANS if text != "infinity"]) == []
