# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Schedules that systemd's timers and cron both understand: a time of day and, before it, days of the week."""

from __future__ import annotations

import re

_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")  # as cron counts them
_DAY = f"(?:{'|'.join(_DAYS)})"
_SCHEDULE = re.compile(rf"(?:({_DAY}(?:\.\.{_DAY})?(?:,{_DAY}(?:\.\.{_DAY})?)*) )?(?:\*-\*-\* )?([01]?\d|2[0-3]):([0-5]\d)(?::00)?")


def fields(schedule: str) -> str:
    """Return the five fields of a crontab. Raises ValueError, whose text is a sentence, for what cron cannot express."""
    match = _SCHEDULE.fullmatch(schedule)
    if not match:
        raise ValueError(f"The schedule {schedule!r} cannot be given to cron; write it as 01:30, as Sun 04:00 or as Mon..Fri 22:15, or use systemd's timers.")
    days = ",".join(day for part in match[1].split(",") for day in _days(part)) if match[1] else "*"
    return f"{int(match[3])} {int(match[2])} * * {days}"


def _days(part: str) -> list[str]:
    """Return the days of a range such as Sat..Mon, or the one day."""
    first, _dots, last = part.partition("..")
    begin, end = _DAYS.index(first), _DAYS.index(last or first)
    return [str(day % 7) for day in range(begin, end + 1 if end >= begin else end + 8)]
