# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Schedules that systemd's timers and cron both understand: a time of day and, before it, days of the week; and hours in which jobs may run."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta

_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")  # as cron counts them
_DAY = f"(?:{'|'.join(_DAYS)})"
_SCHEDULE = re.compile(rf"(?:({_DAY}(?:\.\.{_DAY})?(?:,{_DAY}(?:\.\.{_DAY})?)*) )?(?:\*-\*-\* )?([01]?[0-9]|2[0-3]):([0-5][0-9])(?::00)?")
SKIPPED = 75  # with this exit code a job says that it was not its hour, which is no failure (EX_TEMPFAIL)
HOURS = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")


def fields(schedule: str) -> str:
    """Return the five fields of a crontab. Raises ValueError, whose text is a sentence, for what cron cannot express."""
    match = _SCHEDULE.fullmatch(schedule)
    if not match:
        raise ValueError(f"The schedule {schedule!r} cannot be given to cron; write it as 01:30, as Sun 04:00 or as Mon..Fri 22:15, or use systemd's timers.")
    days = ",".join(day for part in match[1].split(",") for day in _days(part)) if match[1] else "*"
    return f"{int(match[3])} {int(match[2])} * * {days}"


def following(crontab: str, now: datetime) -> datetime:
    """Return the next moment, in local time, of five fields that fields() made."""
    minute, hour, _day, _month, days = crontab.split()
    moment = now.replace(hour=int(hour), minute=int(minute), second=0, microsecond=0)
    wanted = {str(number) for number in range(7)} if days == "*" else set(days.split(","))
    while moment <= now or str(moment.isoweekday() % 7) not in wanted:
        moment += timedelta(days=1)
    return moment


def allowed(hours: str, now: time.struct_time) -> bool:
    """Return whether the local time lies in hours, such as 22:00-06:00 (empty for always). Raises ValueError, with a sentence, for what is no such range."""
    if not hours:
        return True
    match = HOURS.fullmatch(hours)
    if not match:
        raise ValueError(f"The allowed hours are {hours!r}; they must be two times such as 22:00-06:00.")
    begin, end = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
    minute = now.tm_hour * 60 + now.tm_min
    return begin <= minute < end if begin < end else minute >= begin or minute < end


def _days(part: str) -> list[str]:
    """Return the days of a range such as Sat..Mon, or the one day."""
    first, _dots, last = part.partition("..")
    begin, end = _DAYS.index(first), _DAYS.index(last or first)
    return [str(day % 7) for day in range(begin, end + 1 if end >= begin else end + 8)]
