"""What made a database grow: counted from its bytes, and compared with what was written and with what ZODB reads."""

from __future__ import annotations

import json
import pickle
import re
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _filestorage, _growth
from ansible_collections.confops.indico.plugins.module_utils._filestorage import FileStorageError, class_of
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.storage import START, tid_of

NEVER = datetime(1900, 1, 1, tzinfo=START.tzinfo)
HOUR = timedelta(hours=1)
STATE = b"}q\x02U\x04nameq\x03X\x03\x00\x00\x00Adaq\x04s."


def new(module: str, name: str, state: bytes = STATE) -> bytes:
    """Return the data of a record as ZODB3 3.10 writes them."""
    return f"c{module}\n{name}\nq\x01.".encode() + state


EVENT, USER, BUCKET = new("MaKaC.conference", "Conference"), new("MaKaC.user", "Avatar"), new("BTrees.OOBTree", "OOBucket", STATE * 9)


class Put(NamedTuple):
    """What a transaction does to an object. data None: it goes back to the record at offset back; version: the name of a version, as of old."""

    oid: int
    data: bytes | None
    back: int = 0
    version: bytes = b""


class Database:
    """A Data.fs that is written by hand. at holds the offset of each object's newest record, ends that behind each transaction."""

    def __init__(self, path: Path) -> None:
        self.path, self.at, self.ends, self.content = path, {}, [4], bytearray(b"FS21")
        self.at: dict[int, int] = {}
        self.save()

    def save(self) -> None:
        self.path.write_bytes(self.content)

    def add(self, moment: datetime, *puts: Put, user: bytes = b"", description: bytes = b"", extension: bytes = b"", status: bytes = b" ") -> int:
        """Append a transaction and return its size (bytes)."""
        start, tid, records = len(self.content), tid_of(moment), bytearray()
        head = 23 + len(user) + len(description) + len(extension)
        for one in puts:
            at, version = start + head + len(records), struct.pack(">QQ", 0, 0) + one.version if one.version else b""
            before = 0 if status == b"p" else self.at.get(one.oid, 0)
            records += struct.pack(">Q8sQQHQ", one.oid, tid, before, start, len(one.version), len(one.data or b"")) + version
            records += struct.pack(">Q", one.back) if one.data is None else one.data
            self.at[one.oid] = at
        length = head + len(records)
        self.content += struct.pack(">8sQcHHH", tid, length, status, len(user), len(description), len(extension)) + user + description + extension
        self.content += records + struct.pack(">Q", length)
        self.ends.append(len(self.content))
        self.save()
        return length + 8

    def growth(self, since: datetime = NEVER, top: int = 10) -> dict[str, Any]:
        return _growth.growth(str(self.path), since, top=top)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "Data.fs")


def counts(found: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return records, new, revised, undone and packed of each class."""
    return {one["class"]: tuple(one[kind] for kind in ("records", "new", "revised", "undone", "packed")) for one in found["classes"]}


def test_all_that_is_said(database: Database) -> None:
    first = database.add(START, Put(1, EVENT), Put(2, USER), user=b" ada", description=b"/event/create")
    event = database.at[1]
    second = database.add(START + 24 * HOUR, Put(1, EVENT + b"x" * 100), Put(3, BUCKET), description=b"/event/modify")
    third = database.add(START + 25 * HOUR, Put(1, EVENT + b"x" * 100), user=b" ada", description=b"/event/create")
    fourth = database.add(START + 25.5 * HOUR, Put(1, None, event), Put(2, None), description=b"undo")
    found = database.growth()
    assert found.pop("seconds") >= 0
    size = 42 + len(EVENT)
    assert found == {
        "path": str(database.path),
        "since": "1900-01-01T00:00:00Z",
        "file_bytes": len(database.content),
        "bytes": len(database.content) - 4,
        "transactions": 4,
        "records": 7,
        "new": 3,
        "revised": 2,
        "undone": 2,
        "packed": 0,
        "distinct": {"classes": 3, "requests": 3, "revised_objects": 2},
        "days": [
            {"day": "2026-03-01", "transactions": 1, "records": 2, "bytes": first},
            {"day": "2026-03-02", "transactions": 3, "records": 5, "bytes": second + third + fourth},
        ],
        "classes": [
            {"class": "MaKaC.conference.Conference", "bytes": 3 * size + 200 + 50, "records": 4, "new": 1, "revised": 2, "undone": 1, "packed": 0},
            {"class": "BTrees.OOBTree.OOBucket", "bytes": 42 + len(BUCKET), "records": 1, "new": 1, "revised": 0, "undone": 0, "packed": 0},
            {"class": "MaKaC.user.Avatar", "bytes": 42 + len(USER) + 50, "records": 2, "new": 1, "revised": 0, "undone": 1, "packed": 0},
        ],
        "requests": [
            {"user": "", "description": "/event/modify", "transactions": 1, "records": 2, "bytes": second},
            {"user": "ada", "description": "/event/create", "transactions": 2, "records": 3, "bytes": first + third},
            {"user": "", "description": "undo", "transactions": 1, "records": 2, "bytes": fourth},
        ],
        "largest": [
            {"tid": tid_of(moment).hex(), "time": f"{moment:%Y-%m-%dT%H:%M:%SZ}", "user": user, "description": words, "records": records, "bytes": number}
            for moment, user, words, records, number in (
                (START + 24 * HOUR, "", "/event/modify", 2, second),
                (START + 25 * HOUR, "ada", "/event/create", 1, third),
                (START, "ada", "/event/create", 2, first),
                (START + 25.5 * HOUR, "", "undo", 2, fourth),
            )
        ],
        "revised_most": [
            {"oid": "0x1", "class": "MaKaC.conference.Conference", "revisions": 3, "bytes": 2 * size + 200 + 50},
            {"oid": "0x2", "class": "MaKaC.user.Avatar", "revisions": 1, "bytes": 50},
        ],
    }
    assert _growth.summary({**found, "path": "Data.fs"}) == [
        "Data.fs: 1.10 KB in 4 transactions since 1900-01-01T00:00:00Z, 99.6 % of 1.11 KB",
        "7 records: 3 new objects, 2 new revisions, 2 undone",
        "2 days, the busiest 2026-03-02: 898.00 Bytes, 3 transactions",
        "class MaKaC.conference.Conference: 541.00 Bytes, 4 records, 1 new object",
        "class BTrees.OOBTree.OOBucket: 277.00 Bytes, 1 record, 1 new object",
        "class MaKaC.user.Avatar: 137.00 Bytes, 2 records, 1 new object",
        "request /event/modify: 518.00 Bytes, 1 transaction",
        "request /event/create by ada: 477.00 Bytes, 2 transactions",
        "request undo: 135.00 Bytes, 1 transaction",
        "transaction 04074c3000000000 of 2026-03-02T12:00:00Z, /event/modify: 518.00 Bytes, 2 records",
        "transaction 04074c6c00000000 of 2026-03-02T13:00:00Z, /event/create by ada: 245.00 Bytes, 1 record",
        "transaction 0407469000000000 of 2026-03-01T12:00:00Z, /event/create by ada: 232.00 Bytes, 2 records",
        "object 0x1, MaKaC.conference.Conference: 3 revisions, 444.00 Bytes",
        "object 0x2, MaKaC.user.Avatar: 1 revision, 50.00 Bytes",
    ]


def test_of_each_list_as_many_as_are_wanted(database: Database) -> None:
    for number in range(5):
        database.add(START + number * HOUR, *[Put(oid, new("m", f"Class{oid}", STATE * 4**oid)) for oid in range(number + 1)], description=b"%d" % number)
    found = database.growth(top=2)
    assert [one["class"] for one in found["classes"]] == ["m.Class4", "m.Class3"]
    assert [one["description"] for one in found["requests"]] == ["4", "3"]
    assert [one["description"] for one in found["largest"]] == ["4", "3"]
    assert [(one["oid"], one["revisions"]) for one in found["revised_most"]] == [("0x0", 4), ("0x1", 3)]
    assert found["distinct"] == {"classes": 5, "requests": 5, "revised_objects": 4}


def test_the_window_begins_with_the_transaction_of_that_moment(database: Database) -> None:
    for number in range(6):
        database.add(START + number * HOUR, Put(number, EVENT))
    for number in range(6):
        at = START + number * HOUR
        assert database.growth(at)["transactions"] == 6 - number
        assert database.growth(at - timedelta(microseconds=1))["transactions"] == 6 - number
        assert database.growth(at + timedelta(microseconds=1))["transactions"] == 5 - number
    empty = database.growth(START + 100 * HOUR)
    assert (empty["bytes"], empty["records"], empty["classes"], empty["days"], empty["largest"]) == (0, 0, [], [], [])
    assert _growth.summary(empty) == [f"{database.path}: 0.00 Bytes in 0 transactions since 2026-03-05T16:00:00Z"]
    assert database.growth(datetime(1, 1, 1, tzinfo=START.tzinfo))["transactions"] == 6


def test_days_before_now() -> None:
    assert _growth.since_days(1.5, 86400 * 2) == datetime(1970, 1, 1, 12, tzinfo=START.tzinfo)
    assert _growth.since_days(10**9, 86400 * 2) == datetime(1970, 1, 1, tzinfo=START.tzinfo)


def test_what_a_pack_rewrote_is_neither_new_nor_revised(database: Database) -> None:
    database.add(START, Put(1, EVENT), Put(2, USER), status=b"p")
    database.add(START + HOUR, Put(1, EVENT))
    found = database.growth()
    assert counts(found) == {"MaKaC.conference.Conference": (2, 0, 1, 0, 1), "MaKaC.user.Avatar": (1, 0, 0, 0, 1)}
    assert "3 records: 1 new revision, 2 rewritten by a pack" in _growth.summary(found)


def test_undone_objects_have_the_class_that_they_had(database: Database) -> None:
    database.add(START, Put(1, EVENT), Put(2, USER))
    event = database.at[1]
    database.add(START + HOUR, Put(1, BUCKET))
    database.add(START + 2 * HOUR, Put(1, None, event))
    database.add(START + 3 * HOUR, Put(1, None, database.at[1]), Put(2, None), Put(3, None))
    assert counts(database.growth(START + 2 * HOUR)) == {
        "MaKaC.conference.Conference": (2, 0, 0, 2, 0),
        "MaKaC.user.Avatar": (1, 0, 0, 1, 0),
        "unknown": (1, 0, 0, 1, 0),
    }


@pytest.mark.parametrize("back", [1, 4, 10**6, 2**63, 2**64 - 1])
def test_a_pointer_that_leads_astray(database: Database, back: int) -> None:
    database.add(START, Put(1, EVENT), Put(2, USER))
    database.add(START + HOUR, Put(1, None, back))
    assert counts(database.growth(START + HOUR)) == {"unknown": (1, 0, 0, 1, 0)}


def test_a_pointer_to_itself_or_to_another_object_ends(database: Database) -> None:
    database.add(START, Put(2, USER))
    other, begin = database.at[2], len(database.content)
    database.add(START + HOUR, Put(1, None, begin + 23), Put(3, None, other))
    assert counts(database.growth(START + HOUR)) == {"unknown": (2, 0, 0, 2, 0)}


def test_records_of_versions_as_of_old(database: Database) -> None:
    database.add(START, Put(1, EVENT, version=b"/draft"), Put(2, USER))
    assert counts(database.growth()) == {"MaKaC.conference.Conference": (1, 1, 0, 0, 0), "MaKaC.user.Avatar": (1, 1, 0, 0, 0)}


def test_texts_of_any_length_and_spelling(database: Database) -> None:
    database.add(START, Put(1, EVENT), user=b"u" * 65535, description=b"\xff\xfe" + b"d" * 65533, extension=b"e" * 65535)
    database.add(START + HOUR, Put(1, EVENT), description="Größe\n".encode())
    assert [one["description"][:5] for one in database.growth()["largest"]] == ["\ufffd\ufffdddd", "Größe"]
    assert [len(one["user"]) for one in database.growth()["largest"]] == [65535, 0]


@pytest.mark.parametrize("piece", [512, 600, 1000, 4096])
def test_pieces_do_not_show(database: Database, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    for number in range(60):
        puts = [Put(oid, (EVENT, USER, BUCKET)[oid % 3] + b"x" * (number * oid * 7)) for oid in range(number % 7)]
        database.add(START + number * HOUR, *puts, description=b"d" * (number * 11))
    whole = database.growth()
    monkeypatch.setattr(_growth, "_PIECE", piece)
    again = database.growth()
    assert {**whole, "seconds": 0} == {**again, "seconds": 0}
    assert whole["records"] == sum(number % 7 for number in range(60))


def test_names_that_are_longer_than_the_head_of_a_record(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    long, arguments = new("m" * 5000, "C"), b"(ca\nB\nU" + bytes([200]) + b"x" * 200 + b"tq\x01."
    monkeypatch.setattr(_growth, "_PIECE", 600)
    database.add(START, Put(1, long), Put(2, EVENT), Put(3, arguments), Put(4, long))
    assert counts(database.growth()) == {"m" * 5000 + ".C": (2, 2, 0, 0, 0), "MaKaC.conference.Conference": (1, 1, 0, 0, 0), "a.B": (1, 1, 0, 0, 0)}


# What is no database, or not a whole one


@pytest.mark.parametrize("content", [b"", b"FS", b"FS20", b"hello" * 100])
def test_another_file_is_refused(database: Database, content: bytes) -> None:
    database.path.write_bytes(content)
    with pytest.raises(FileStorageError, match=r"Data\.fs is no FileStorage: it does not begin with FS21\."):
        database.growth()


def test_a_database_without_a_transaction(database: Database) -> None:
    found = database.growth()
    assert (found["file_bytes"], found["bytes"], found["transactions"], found["days"]) == (4, 0, 0, [])


def test_a_transaction_without_an_object(database: Database) -> None:
    database.add(START, description=b"nothing")
    assert (database.growth()["transactions"], database.growth()["records"]) == (1, 0)


def test_what_is_being_written_is_left_out(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    database.add(START, Put(1, EVENT))
    database.add(START + HOUR, Put(1, EVENT), Put(2, USER))
    for length in range(database.ends[1], database.ends[2]):
        database.path.write_bytes(database.content[:length])
        found = database.growth()
        assert (found["file_bytes"], found["transactions"], found["records"]) == (database.ends[1], 1, 1)
    voted = bytearray(database.content)
    voted[database.ends[1] + 16 : database.ends[1] + 17] = b"c"
    database.path.write_bytes(voted)
    assert database.growth()["transactions"] == 1


def test_a_pack_meanwhile_changes_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is replaced and grows after its end was found."""
    for number in range(5):
        database.add(START + number * HOUR, Put(1, EVENT))
    original = _filestorage.committed_end

    def found_then_replaced(*arguments: Any) -> int:
        end = original(*arguments)
        with database.path.open("ab") as stream:
            stream.write(b"more")
        other = database.path.with_name("Data.fs.pack")
        other.write_bytes(b"FS21")
        other.replace(database.path)
        return end

    monkeypatch.setattr(_filestorage, "committed_end", found_then_replaced)
    assert database.growth()["transactions"] == 5


def test_damage_is_named_by_its_place(database: Database) -> None:
    for number in range(3):
        database.add(START + number * HOUR, Put(1, EVENT), Put(2, USER))
    second = database.ends[1]
    whole = bytes(database.content)

    def damaged(offset: int, value: bytes) -> str:
        database.path.write_bytes(whole[:offset] + value + whole[offset + len(value) :])
        with pytest.raises(FileStorageError) as caught:
            database.growth()
        return str(caught.value)

    no_transaction = f"{database.path} is damaged: no whole transaction begins at {second}."
    no_record = f"{database.path} is damaged: the record at {second + 23} is none of the transaction at {second}."
    assert damaged(second + 8, struct.pack(">Q", 22)) == no_transaction
    assert damaged(second + 8, struct.pack(">Q", 2**63)) == no_transaction
    assert damaged(second + 16, b"x") == no_transaction
    assert damaged(second + 17, b"\xff\xff") == no_transaction
    assert damaged(database.ends[2] - 8, bytes(8)) == no_transaction
    assert damaged(second + 23 + 24, struct.pack(">Q", 5)) == no_record
    assert damaged(second + 23 + 34, struct.pack(">Q", 2**40)) == no_record
    assert damaged(second, struct.pack(">L", (((2026 - 1900) * 12 + 1) * 31 + 29) * 1440)).endswith("stands for no moment of the calendar: it is damaged.")
    database.path.write_bytes(whole[: second + 47] + bytes(8) + whole[second + 55 :])
    assert database.growth(START + 2 * HOUR)["transactions"] == 1
    database.path.write_bytes(whole[: database.ends[2] - 8] + struct.pack(">Q", 7) + whole[database.ends[2] :])
    with pytest.raises(FileStorageError, match=rf"is damaged: no transaction ends at {database.ends[2]}\.$"):
        database.growth(START + HOUR)


@given(st.data())
def test_whatever_is_damaged_it_ends_with_a_sentence(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    database = Database(tmp_path_factory.mktemp("flips") / "Data.fs")
    for number in range(3):
        database.add(START + number * HOUR, Put(1, EVENT), Put(2, None, database.at.get(1, 0)), description=b"words")
    content = bytearray(database.content)
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1, max_size=4)):
        content[at] = value
    database.path.write_bytes(content)
    since = data.draw(st.sampled_from([NEVER, START + HOUR]))
    try:
        with patch("time.sleep"):
            found = database.growth(since)
    except FileStorageError as error:
        assert str(error).endswith(".")
    else:
        assert sum(one["records"] for one in found["classes"]) == found["records"]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 40),  # hours
            st.lists(st.tuples(st.integers(0, 5), st.sampled_from([EVENT, USER, BUCKET])), max_size=6, unique_by=lambda put: put[0]),
            st.sampled_from([b"", b"ada", b"bob"]),
        ),
        max_size=12,
    ),
    st.integers(0, 400),
)
def test_any_history_adds_up(tmp_path_factory: pytest.TempPathFactory, history: list[tuple[int, list[tuple[int, bytes]], bytes]], hours: int) -> None:
    database = Database(tmp_path_factory.mktemp("history") / "Data.fs")
    since, moment = START + hours * HOUR, START
    classes: Counter[tuple[str, str]] = Counter()
    users, days, size, seen = Counter[str](), Counter[str](), 0, set()
    for step, puts, user in history:
        moment += (step + 1) * HOUR
        written = database.add(moment, *[Put(oid, data) for oid, data in puts], user=user)
        if moment >= since:
            size += written
            users[user.decode()] += written
            days[f"{moment:%Y-%m-%d}"] += written
            for oid, data in puts:
                classes[class_of(data), "revised" if oid in seen else "new"] += 1
        seen |= {oid for oid, _data in puts}
    found = database.growth(since, top=100)
    assert found["bytes"] == size
    assert {one["user"]: one["bytes"] for one in found["requests"]} == users
    assert {one["day"]: one["bytes"] for one in found["days"]} == days
    assert {(one["class"], kind): one[kind] for one in found["classes"] for kind in ("new", "revised") if one[kind]} == classes
    around = sum((31 + len(one["user"])) * one["transactions"] for one in found["requests"])
    assert sum(one["bytes"] for one in found["classes"]) == size - around


# Classes


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (EVENT, "MaKaC.conference.Conference"),
        (b"cMaKaC.user\nAvatar\n.N.", "MaKaC.user.Avatar"),
        (b"\x80\x02cMaKaC.user\nAvatar\nq\x01.N.", "MaKaC.user.Avatar"),
        (b"\x80\x03cMaKaC.user\nAvatar\nr\x00\x01\x00\x00.N.", "MaKaC.user.Avatar"),
        (b"(cMaKaC.user\nAvatar\nq\x01Ntq\x02.N.", "MaKaC.user.Avatar"),
        (b"(cMaKaC.user\nAvatar\nq\x01(K\x01U\x01xttq\x02.N.", "MaKaC.user.Avatar"),
        (b"\x80\x02cMaKaC.user\nAvatar\nq\x01K\x01K\x02\x86\x86.N.", "MaKaC.user.Avatar"),
        (b"((U\x0aMaKaC.userq\x01U\x06Avatarq\x02tq\x03Ntq\x04.N.", "MaKaC.user.Avatar"),
        (b"((S'MaKaC.user'\np1\nS'Avatar'\np2\ntp3\nNtp4\n.N.", "MaKaC.user.Avatar"),
        (b"((X\x0a\0\0\0MaKaC.userX\x06\0\0\0Avatart)t.N.", "MaKaC.user.Avatar"),
        (b"((U\x0aMaKaC.userq\x01h\x01tNt.N.", "MaKaC.user.MaKaC.user"),
        (b"cBTrees.OOBTree\nOOBucket\nq\x01.(((U\x01aK\x01ttttq\x02.", "BTrees.OOBTree.OOBucket"),
        (b"cq.\nq.\nq..N.", "q..q."),
        # As no class is given, these are not guessed.
        (b"", "unknown"),
        (b".", "unknown"),
        (b"N.", "unknown"),
        (b"\0" * 100, "unknown"),
        (b"cMaKaC.user\nAvatar\nq\x01", "unknown"),
        (b"cMaKaC.user\nAvatar", "unknown"),
        (b"U\x08\0\0\0\0\0\0\0\x07Q.", "unknown"),
        (b"(U\x08\0\0\0\0\0\0\0\x07QNt.", "unknown"),
        (b"(ccopy_reg\n_reconstructor\n(cMaKaC.user\nAvatar\nc__builtin__\nobject\nNtRNt.", "unknown"),
        (b"(P1\nP2\nt.", "unknown"),
        (b"(imod\nname\n.", "unknown"),
        (b"tttt.", "unknown"),
        (b"h\x07.", "unknown"),
        (b"R.", "unknown"),
        (b"0000.", "unknown"),
    ],
)
def test_class_of_a_record(data: bytes, name: str) -> None:
    assert class_of(data) == name


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("shape", [lambda one: one, lambda one: (one, None), lambda one: (one, (1, "x", [2])), lambda one: ((one.__module__, "Counter"), None)])
def test_class_of_what_pickle_writes(protocol: int, shape: Callable[[type], object]) -> None:
    assert class_of(pickle.dumps(shape(Counter), protocol) + pickle.dumps({"state": 1}, protocol)) == "collections.Counter"


@given(st.binary(max_size=60) | st.lists(st.sampled_from(b"(c\nq\x01.tNU\x05h0R\x80\x02\x93\x94\x8cab1Q}s"), max_size=40).map(bytes))
def test_no_data_are_too_strange(data: bytes) -> None:
    """Where the head names a class, reading the whole pickle names the same."""
    name, match = class_of(data), _filestorage.CLASS.match(data)
    if match and match[0].isascii() and b" " not in match[0]:
        with patch.object(_filestorage, "CLASS", re.compile(b"(?!)")):
            assert class_of(data) == name


# ZODB

ZODB = r"""
import collections, json, sys, tempfile, time
import transaction
from BTrees.OOBTree import OOBTree
from persistent.list import PersistentList
from persistent.mapping import PersistentMapping
from ZODB import DB
from ZODB.blob import Blob
from ZODB.FileStorage import FileStorage
from ZODB.utils import get_pickle_metadata, u64

path, packed = sys.argv[1], sys.argv[2] == "packed"
db = DB(FileStorage(path, blob_dir=path + ".blobs"))
root = db.open().root()

def commit(words, user=""):
    transaction.get().note(words)
    if user:
        transaction.get().setUser(user)
    transaction.commit()

root["tree"] = OOBTree()
for number in range(500):
    root["tree"][number] = PersistentList([number])
commit("tree")
for round in range(5):
    for number in range(0, 500, 50):
        root["tree"][number].append("x" * 1000)
    root["counter"] = PersistentMapping(round=round)
    commit("round", "ada")
root["blob"] = Blob(b"content" * 1000)
commit("blob")
if packed:
    time.sleep(0.01)
    db.pack()
    for round in range(2):
        root["tree"][7].append(round)
        commit("after the pack")
db.undo(db.undoInfo(0, 1)[0]["id"])
commit("undone")
db.close()

found = collections.defaultdict(collections.Counter)
seen, transactions = {}, 0
for one in FileStorage(path, read_only=True, blob_dir=path + ".blobs").iterator():
    transactions += 1
    for record in one:
        kind = "undone" if record.data_txn or not record.data else "packed" if one.status == "p" else "revised" if record.oid in seen else "new"
        if record.data:
            seen[record.oid] = ".".join(get_pickle_metadata(record.data))
        found[seen[record.oid]][kind] += 1
print(json.dumps([transactions, found]))
"""


@pytest.mark.parametrize("version", ["zodb5", "zodb6"])
@pytest.mark.parametrize("history", ["whole", "packed"])
def test_a_database_that_zodb_wrote(environment: Callable[[str], Path], tmp_path: Path, version: str, history: str) -> None:
    path = tmp_path / "Data.fs"
    done = subprocess.run([environment(version) / "bin/python", "-c", ZODB, path, history], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    transactions, expected = json.loads(done.stdout)
    found = _growth.growth(str(path), NEVER, top=100)
    kinds = {one["class"]: {kind: one[kind] for kind in ("new", "revised", "undone", "packed") if one[kind]} for one in found["classes"]}
    assert (found["transactions"], kinds) == (transactions, expected)
    assert kinds["BTrees.OOBTree.OOBucket"] and kinds["ZODB.blob.Blob"]
    assert bool(found["packed"]) == (history == "packed")
    assert found["undone"] > 0
    assert found["bytes"] == path.stat().st_size - 4
