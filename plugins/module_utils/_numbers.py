# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The types of all numeric options, of modules and of commands: a number is finite and within a range.

Python takes "nan", "inf" and "1e99" for numbers. A comparison with nan is always false, so a limit that is nan limits nothing.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

_GREATEST = 10**9  # of what only counts


class NumberError(ValueError, argparse.ArgumentTypeError):
    """The value is no number of this range; Ansible and argparse both show the sentence with the option's name."""


class Number(str):
    """A type for argument_spec and for argparse. To Ansible's own checks it equals the name of a type, "int" or "float"; called, it returns the number."""

    minimum: float
    maximum: float

    def __new__(cls, kind: str, minimum: float, maximum: float) -> Number:
        made = super().__new__(cls, kind)
        made.minimum, made.maximum, made.__name__ = minimum, maximum, kind  # type: ignore[attr-defined]
        return made

    def __call__(self, value: Any) -> int | float:
        number = _whole(value) if self == "int" else _real(value)
        if number is None or not self.minimum <= number <= self.maximum:
            what = "a whole number" if self == "int" else "a number"
            raise NumberError(f"{str(value)[:40]!r} is not allowed; it must be {what} from {self.minimum:g} to {_shown(self.maximum)}.")
        return number


def _shown(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"


def _whole(value: Any) -> int | None:
    """Return a whole number, None for anything else. "1e99" is none: written out it would have 100 digits."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    try:
        return int(value) if isinstance(value, str) else int(value) if value == int(value) else None
    except (TypeError, ValueError, OverflowError):
        return None


def _real(value: Any) -> float | None:
    """Return a finite number, None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def whole(minimum: int = 0, maximum: int = _GREATEST) -> Number:
    """Return the type of a whole number from minimum to maximum."""
    return Number("int", minimum, maximum)


def real(minimum: float = 0, maximum: float = 10**15) -> Number:
    """Return the type of a finite number from minimum to maximum."""
    return Number("float", minimum, maximum)


COUNT = whole()
PORT = whole(1, 65535)
DAYS = real(0, 36500)
WHOLE_DAYS = whole(0, 36500)
HOURS = real(0, 876000)
# poll() counts milliseconds in 32 bits, so no wait may be longer than 24 days.
SECONDS = real(0, 2_000_000)
WHOLE_SECONDS = whole(0, 2_000_000)
PERCENT = real(0, 100)
