# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads a FileStorage (Data.fs) without ZODB. The format is that of ZODB3 3.10: ZODB/FileStorage/format.py there describes it."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import BinaryIO

MAGIC = b"FS21"
# tid, length, status, then the lengths of user, description and extension; the record ends with its length once more.
_HEADER = struct.Struct(">8sQcHHH")
_LENGTH = struct.Struct(">Q")


class FileStorageError(Exception):
    """The file is no FileStorage; the message is a sentence for the operator."""


@dataclass(frozen=True)
class Transaction:
    """One committed transaction: its id (16 hexadecimal digits), when it was committed (UTC), by whom and what for."""

    tid: str
    time: datetime
    user: str
    description: str


def time_of(tid: bytes) -> datetime:
    """Return the moment (UTC) that a tid of 8 bytes stands for."""
    minutes, fraction = struct.unpack(">LL", tid)
    year, month, day = minutes // 535680 + 1900, minutes // 44640 % 12 + 1, minutes // 1440 % 31 + 1
    return datetime(year, month, day, minutes // 60 % 24, minutes % 60, tzinfo=timezone.utc) + timedelta(seconds=fraction * 60 / 2**32)


def last_transaction(path: str) -> Transaction | None:
    """Return the newest committed transaction in the file, None when it has none.

    A server may be writing: what it has not finished is passed over. Raises FileStorageError, OSError.
    """
    with open(path, "rb") as stream:
        if stream.read(4) != MAGIC:
            raise FileStorageError(f"{path} is no FileStorage: it does not begin with {MAGIC.decode()}.")
        for _attempt in range(50):
            end = stream.seek(0, os.SEEK_END)
            if end == len(MAGIC):
                return None
            found = _ending_at(stream, end)
            if found:
                return found
    raise FileStorageError(f"{path} does not end with a whole transaction; a server that opens it cuts off what is not whole.")


def _ending_at(stream: BinaryIO, end: int) -> Transaction | None:
    """Return the transaction whose record ends at this offset, None when none does or it is not committed yet (status c)."""
    if end < len(MAGIC) + _HEADER.size + _LENGTH.size:
        return None
    stream.seek(end - _LENGTH.size)
    (length,) = _LENGTH.unpack(stream.read(_LENGTH.size))
    start = end - _LENGTH.size - length
    if length < _HEADER.size or start < len(MAGIC):
        return None
    stream.seek(start)
    tid, again, status, user, description, _extension = _HEADER.unpack(stream.read(_HEADER.size))
    if again != length or status not in (b" ", b"p", b"u"):
        return None
    return Transaction(tid.hex(), time_of(tid), stream.read(user).decode(errors="replace"), stream.read(description).decode(errors="replace"))
