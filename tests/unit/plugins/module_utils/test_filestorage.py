"""Reading a FileStorage from its bytes."""

from __future__ import annotations

import os
import struct
import threading
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


def filled(tmp_path: Path, tail: bytes, number: int = 3) -> tuple[str, int]:
    """Return a storage with some transactions and a tail, and the offset where the tail begins."""
    records = [transaction(TID[:7] + bytes([one])) for one in range(number)]
    return storage(tmp_path, *records, tail), 4 + sum(map(len, records))


NEXT = transaction(TID[:7] + b"\x80", data=b"y" * 300)


@pytest.mark.parametrize(
    "tail",
    [
        b"\0" * 200,
        b"\xff" * 200,
        b"garbage " * 40,
        b"\0" * 23 + NEXT[23:] + NEXT[:-1],  # the header of one is zeroed
        transaction(status=b"c") + NEXT[:100],  # no server writes a second one before the first is committed
        transaction(status=b"x"),
        NEXT[:8] + b"\x7f" + NEXT[9:] + NEXT + b"tail",  # a damaged length reaches beyond the end
        NEXT[:8] + b"\x7f" + NEXT[9:16] + b"c" + NEXT[17:] + NEXT + b"tail",
        NEXT[:-1] + b"\0" + b"tail" * 10,
    ],
)
def test_what_is_no_unfinished_transaction_is_damage(tmp_path: Path, tail: bytes) -> None:
    """B8: where reading stops is not where the database ends."""
    path, end = filled(tmp_path, tail)
    sentence = rf"^.*Data\.fs is damaged at byte {end}: no transaction begins there, and {len(tail)} bytes lie behind\."
    with Path(path).open("rb") as stream, pytest.raises(_filestorage.FileStorageError, match=sentence):
        _filestorage.committed_end(stream, path)
    with pytest.raises(_filestorage.FileStorageError, match=sentence):
        _filestorage.last_transaction(path)
    assert getattr(_filestorage.last_transaction(path, strict=False), "tid", "") == (TID[:7] + b"\2").hex()


@pytest.mark.parametrize("tail", [NEXT[:16] + b"c" + NEXT[17:], *(NEXT[:16] + b"c" + NEXT[17:size] for size in (17, 23, 24, 100, 338)), NEXT[:9]])
def test_a_transaction_that_a_server_writes_is_no_damage(tmp_path: Path, tail: bytes) -> None:
    """B8: a server writes the status c first, and the committed one at the end."""
    path, end = filled(tmp_path, tail)
    with Path(path).open("rb") as stream:
        assert _filestorage.look_at_end(stream, path) == _filestorage.Tail(end, len(tail))


def test_a_transaction_that_was_cut_off_is_told_from_one_that_is_being_written(tmp_path: Path) -> None:
    """B8: a server gives the committed status last, so such a file lost its end."""
    path, end = filled(tmp_path, NEXT[:-3])
    with Path(path).open("rb") as stream:
        assert _filestorage.look_at_end(stream, path) == _filestorage.Tail(end, len(NEXT) - 3, cut_off=True)


def test_a_server_that_writes_while_the_end_is_looked_for(tmp_path: Path) -> None:
    """B8: 200 transactions are written in small pieces, a third of them undone. None is taken for damage, and none is missed."""
    path, end = filled(tmp_path, b"")
    stop = threading.Event()

    def write() -> None:
        at = end
        with Path(path).open("r+b", buffering=0) as stream:
            for number in range(200):
                one = transaction(TID[:6] + (1000 + number).to_bytes(2, "big"), data=b"z" * (100 + 997 * number % 5000))
                stream.seek(at)
                for first in range(0, len(one), 1000):
                    stream.write((one[:16] + b"c" + one[17:])[first : first + 1000])
                if number % 3 == 2:
                    stream.truncate(at)
                    continue
                stream.seek(at + 16)
                stream.write(b" ")
                at += len(one)
        stop.set()

    thread = threading.Thread(target=write)
    thread.start()
    known = end
    while not stop.is_set():
        with Path(path).open("rb", buffering=0) as stream:
            found = _filestorage.committed_end(stream, path, known)
            assert found >= known
            known = found
    thread.join()
    with Path(path).open("rb", buffering=0) as stream:
        assert _filestorage.committed_end(stream, path) == Path(path).stat().st_size


def test_transactions_that_are_later_than_the_clock_are_counted(tmp_path: Path) -> None:
    """B9: the newest tells, and no more are read than asked for."""
    path, end = filled(tmp_path, b"", number=5)
    moment = _filestorage.time_of(TID)
    assert _filestorage.ahead_of_clock(path) is None
    assert _filestorage.ahead_of_clock(path, now=moment - timedelta(minutes=4)) is None
    found = _filestorage.ahead_of_clock(path, now=moment - timedelta(minutes=6))
    assert found == _filestorage.Ahead(5, False, found.newest)
    assert found.newest.tid == (TID[:7] + b"\4").hex()
    assert found.sentence("Data.fs").startswith("Data.fs holds 5 transactions from the future, the newest of 2015-07-24T23:08:23Z (03b09a8c66666604).")
    with Path(path).open("rb") as stream:
        few = _filestorage.ahead_of_clock(stream, end, now=moment - timedelta(days=1), most=2)
    assert few == _filestorage.Ahead(2, True, few.newest)
    assert "more than 2 transactions" in few.sentence("Data.fs")


@pytest.mark.parametrize("tail", [b"", NEXT[:50]])
def test_an_empty_database_is_of_no_time(tmp_path: Path, tail: bytes) -> None:
    assert _filestorage.ahead_of_clock(storage(tmp_path, tail)) is None


def test_a_fifo_is_no_database(tmp_path: Path) -> None:
    """B4: nothing waits for somebody to write into it."""
    os.mkfifo(tmp_path / "Data.fs")
    with pytest.raises(_filestorage.FileStorageError, match="is no regular file"):
        _filestorage.last_transaction(str(tmp_path / "Data.fs"))
