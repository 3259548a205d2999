"""Reading a FileStorage from its bytes."""

from __future__ import annotations

import struct
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _filestorage

TID = bytes.fromhex("03b09a8c66666666")


def transaction(tid: bytes = TID, status: bytes = b" ", user: bytes = b"", description: bytes = b"", data: bytes = b"x" * 30) -> bytes:
    """Return one transaction record as ZODB writes it."""
    length = 23 + len(user) + len(description) + len(data)
    return struct.pack(">8sQcHHH", tid, length, status, len(user), len(description), 0) + user + description + data + struct.pack(">Q", length)


def storage(tmp_path: Path, *records: bytes, magic: bytes = b"FS21") -> str:
    path = tmp_path / "Data.fs"
    path.write_bytes(magic + b"".join(records))
    return str(path)


@pytest.mark.parametrize(
    ("tid", "moment"),
    [
        ("0000000000000000", datetime(1900, 1, 1, tzinfo=timezone.utc)),
        # What persistent.TimeStamp of ZODB3 3.10.5 says of these.
        ("03b09a8c66666666", datetime(2015, 7, 24, 23, 8, 24, tzinfo=timezone.utc)),
        ("03b5e57500000000", datetime(2016, 3, 17, 20, 5, tzinfo=timezone.utc)),
        ("03b5e57580000000", datetime(2016, 3, 17, 20, 5, 30, tzinfo=timezone.utc)),
        ("03b9cfff00000000", datetime(2016, 9, 10, 1, 35, tzinfo=timezone.utc)),
    ],
)
def test_time_of_a_tid(tid: str, moment: datetime) -> None:
    assert abs(_filestorage.time_of(bytes.fromhex(tid)) - moment) < timedelta(milliseconds=1)


@pytest.mark.parametrize(("month", "day"), [(2, 30), (2, 31), (4, 31), (11, 31)])
def test_a_tid_of_a_day_that_no_calendar_has(tmp_path: Path, month: int, day: int) -> None:
    tid = struct.pack(">LL", (((2026 - 1900) * 12 + month - 1) * 31 + day - 1) * 1440, 7)
    sentence = f"^The transaction {tid.hex()} stands for no moment of the calendar: it is damaged\\.$"
    with pytest.raises(_filestorage.FileStorageError, match=sentence):
        _filestorage.time_of(tid)
    with pytest.raises(_filestorage.FileStorageError, match=sentence):
        _filestorage.last_transaction(storage(tmp_path, transaction(), transaction(tid)))


def test_last_transaction(tmp_path: Path) -> None:
    path = storage(tmp_path, transaction(b"\0" * 8), transaction(user=b" /ada", description="geändert".encode()))
    assert _filestorage.last_transaction(path) == _filestorage.Transaction(TID.hex(), _filestorage.time_of(TID), " /ada", "geändert")


@pytest.mark.parametrize("status", [b" ", b"p", b"u"])
def test_packed_and_undone_transactions_are_committed(tmp_path: Path, status: bytes) -> None:
    assert _filestorage.last_transaction(storage(tmp_path, transaction(status=status)))


def test_new_storage_has_none(tmp_path: Path) -> None:
    assert _filestorage.last_transaction(storage(tmp_path)) is None


@pytest.mark.parametrize("tail", [transaction(status=b"c"), transaction()[:-1], transaction()[:10], transaction() + b"\0", b"\xff" * 8, b"x"])
def test_what_is_not_whole_is_passed_over(tmp_path: Path, tail: bytes) -> None:
    first = transaction(b"\0" * 7 + b"\1")
    assert _filestorage.last_transaction(storage(tmp_path, tail[: len(transaction()) - 1])) is None
    whole = 2 if tail[:-1] == transaction() else 1
    path = storage(tmp_path, first, tail)
    with Path(path).open("rb") as stream:
        assert _filestorage.committed_end(stream, path) == 4 + len(first) * whole
        assert [end for _found, end in _filestorage.transactions(stream)] == [4 + len(first) * number for number in range(1, whole + 1)]


def test_transactions_of_a_part(tmp_path: Path) -> None:
    records = [transaction(bytes([0] * 7 + [number]), description=b"n%d" % number) for number in range(5)]
    path = storage(tmp_path, *records)
    with Path(path).open("rb") as stream:
        found = list(_filestorage.transactions(stream, 4 + len(records[0]) * 3))
    assert [(one.description, end) for one, end in found] == [("n3", 4 + len(records[0]) * 4), ("n4", 4 + len(records[0]) * 5)]


@pytest.mark.parametrize("magic", [b"", b"FS", b"FS20", b"hello"])
def test_another_file_is_refused(tmp_path: Path, magic: bytes) -> None:
    with pytest.raises(_filestorage.FileStorageError, match=r"Data\.fs is no FileStorage: it does not begin with FS21\."):
        _filestorage.last_transaction(storage(tmp_path, magic=magic))
