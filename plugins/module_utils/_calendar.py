# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What systemd's timers understand: calendar expressions and time spans (systemd.time(7)), judged without systemd.

A controller need not have systemd, and a unit with a wrong expression would be refused only when others have changed already.
"""

from __future__ import annotations

import re
import zoneinfo
from datetime import date

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LONG_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SHORTHANDS = "minutely hourly daily monthly weekly yearly annually quarterly semiannually semi-annually biannually bi-annually anually semi-anually bi-anually"
_WORDS = frozenset(_SHORTHANDS.split())
_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ITEM = re.compile(r"(\d{1,4})(?:\.\.(\d{1,4}))?(?:/(\d{1,4}))?", re.ASCII)
_SECONDS = re.compile(r"(\d{1,2})(?:\.\d{1,6})?(?:\.\.(\d{1,2})(?:\.\d{1,6})?)?(?:/(\d{1,2})(?:\.\d{1,6})?)?", re.ASCII)
_UNIT = "usec|us|msec|ms|seconds?|sec|s|minutes?|min|months?|M|m|hours?|hr|h|days?|d|weeks?|w|years?|y"
_SPAN = re.compile(rf"\s*(?:\d+(?:\.\d+)?\s*(?:{_UNIT})?(?![A-Za-z])\s*|\d+(?:\.\d+)?(?:{_UNIT})(?=\d))+", re.ASCII)


def span(text: str) -> bool:
    """Return whether systemd reads it as a time span, such as 90, 10min or 1h 30min. infinity is none."""
    return _SPAN.fullmatch(text) is not None


def problem(expression: str, today: date) -> str | None:
    """Return what is wrong with a calendar expression, as the end of a sentence, or None."""
    words = expression.split()
    if not words or expression != " ".join(words):
        return "a schedule is written such as 01:30, Sun 04:00 or *-*-01 03:00"
    if len(words) > 1 and _is_zone(words[-1]):
        words.pop()
    if [word.lower() for word in words[:1]] and words[0].lower() in _WORDS and len(words) == 1:
        return None
    if _is_days(words[0]):
        words.pop(0)
    elif words[0][0].isalpha():
        return f"{words[0]!r} is no day of the week and no range of them, such as Mon..Fri"
    wrong = None
    if words and ("-" in words[0] or "~" in words[0]):
        wrong = _date_problem(words.pop(0), today)
    if words and wrong is None:
        wrong = _time_problem(words.pop(0))
    if wrong is None and words:
        wrong = f"{words[0]!r} is no time zone, and nothing else may stand there"
    return wrong


def _is_zone(word: str) -> bool:
    """Return whether a word is a time zone. Without a database of them, whatever looks like one is believed."""
    if word == "UTC":
        return True
    if not re.fullmatch("[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)+", word):
        return False
    known = zoneinfo.available_timezones()
    return word in known if known else True


def _is_days(word: str) -> bool:
    for part in word.lower().split(","):
        first, dots, last = part.partition("..") if ".." in part else part.partition("-")
        numbers = [_day_number(first)] + ([_day_number(last)] if dots else [])
        if None in numbers or numbers != sorted(numbers, key=lambda number: number or 0):
            return False
    return True


def _day_number(word: str) -> int | None:
    return next((names.index(word) for names in (_DAYS, _LONG_DAYS) if word in names), None)


def _values(text: str, low: int, high: int, pattern: re.Pattern[str] = _ITEM) -> list[int] | None:
    """Return the numbers that a part stands for, or None when it is wrong. With a huge step they are few."""
    if text == "*":
        return list(range(low, high + 1))
    found: list[int] = []
    for item in text.split(","):
        match = pattern.fullmatch(item)
        if not match:
            return None
        first = int(match[1])
        last = int(match[2]) if match[2] else high if match[3] else first
        step = int(match[3]) if match[3] else 1
        if not low <= first <= last <= high or step < 1:
            return None
        found += range(first, last + 1, step)
    return found


def _date_problem(text: str, today: date) -> str | None:
    match = re.fullmatch(r"(?:([^-~]+)-)?([^-~]+)([-~])([^-~]+)", text)
    if not match:
        return f"{text!r} is no date, such as *-*-01"
    years = [_full_year(year) for year in _values(match[1], 0, 2199) or ()] if match[1] and match[1] != "*" else [2199]
    months, days = _values(match[2], 1, 12), _values(match[4], 1, 31)
    if not years or not months or not days or not all(1970 <= year <= 2199 for year in years):
        return f"{text!r} is no date, such as *-*-01"
    if match[3] == "-":
        possible = [(month, day) for month in months for day in days if day <= _MONTH_DAYS[month - 1]]
        if not possible or (max(years), *max(possible)) < (today.year, today.month, today.day):
            return f"{text!r} never comes"
    elif max(years) < today.year:
        return f"{text!r} never comes"
    return None


def _full_year(year: int) -> int:
    return year if year > 99 else year + (1900 if year >= 70 else 2000)


def _time_problem(text: str) -> str | None:
    parts = text.split(":")
    good = len(parts) in (2, 3) and all(_values(part, 0, high) for part, high in zip(parts[:2], (23, 59)))
    if good and (len(parts) < 3 or parts[2] == "*" or _values(parts[2], 0, 59, _SECONDS)):
        return None
    return f"{text!r} is no time of day, from 00:00 to 23:59"
