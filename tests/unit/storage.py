"""A FileStorage made by hand: transactions of known content, as ZODB3 3.10 writes them, without ZODB."""

from __future__ import annotations

import random
import struct
from datetime import datetime, timedelta, timezone
from pathlib import Path

START = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def tid_of(moment: datetime) -> bytes:
    """Return the transaction id of a moment (UTC), as ZODB makes it."""
    minutes = (((moment.year - 1900) * 12 + moment.month - 1) * 31 + moment.day - 1) * 24 * 60 + moment.hour * 60 + moment.minute
    return struct.pack(">LL", minutes, int((moment.second + moment.microsecond / 1e6) * 2**32 / 60))


class Storage:
    """A Data.fs that grows. ends holds the offset (bytes) behind each transaction, tids their ids in hexadecimal."""

    def __init__(self, path: Path, seed: int = 1) -> None:
        self.path, self.ends, self.tids, self.random = path, [4], [], random.Random(seed)  # noqa: S311 (the same bytes each time)
        path.write_bytes(b"FS21")

    def add(self, number: int = 1, size: int = 400, *, step: float = 1, user: str = "", description: str = "") -> int:
        """Append transactions of about size bytes each, step seconds apart from the one before. Return the offset behind the last."""
        with self.path.open("ab") as stream:
            for _each in range(number):
                tid = tid_of(START + timedelta(seconds=len(self.tids) * step))
                stream.write(record(tid, self.random.randbytes(size // 2) + b"a" * (size - size // 2), user=user, description=description))
                self.tids.append(tid.hex())
                self.ends.append(stream.tell())
        return self.ends[-1]

    def unfinished(self, size: int = 400) -> bytes:
        """Append a transaction that is not committed yet, and return the record that it will be."""
        whole = record(tid_of(START + timedelta(days=1)), b"u" * size)
        with self.path.open("ab") as stream:
            stream.write(whole[:16] + b"c" + whole[17:])
        return whole

    def pack(self, keep: int) -> None:
        """Do what a pack does: another file, with the newest transactions only, takes the place of the old one."""
        content = self.path.read_bytes()
        packed = self.path.with_name("Data.fs.packed")
        shift = self.ends[-1 - keep] - 4
        packed.write_bytes(b"FS21" + content[self.ends[-1 - keep] :])
        packed.replace(self.path)
        self.ends, self.tids = [end - shift for end in self.ends[-1 - keep :]], self.tids[-keep:]


def record(tid: bytes, data: bytes, *, status: bytes = b" ", user: str = "", description: str = "") -> bytes:
    """Return one transaction record."""
    texts = user.encode() + description.encode()
    length = 23 + len(texts) + len(data)
    return struct.pack(">8sQcHHH", tid, length, status, len(user.encode()), len(description.encode()), 0) + texts + data + struct.pack(">Q", length)
