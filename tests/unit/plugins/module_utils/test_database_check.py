"""What a check finds in databases that ZODB 5.8 and 6 wrote: damage at every kind of place, and references that dangle on purpose.

ZODB3 3.10.5 does the same on a host, by the scenarios.
"""

from __future__ import annotations

import json
import os
import pwd
import random
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _backup_set, _database_check, _scratch
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError

# Makes whole.fs, where objects of several kinds refer to what is in lost, and dangling.fs, the same without that. Classes of no module that exists.
MAKE = r"""
import json, sys, types
import transaction
from BTrees.OOBTree import OOBTree
from persistent import Persistent
from persistent.list import PersistentList
from persistent.mapping import PersistentMapping
from persistent.wref import WeakRef
from ZODB import DB
from ZODB.FileStorage import FileStorage
from ZODB.utils import u64

site = sys.modules["site_code"] = types.ModuleType("site_code")
class Event(Persistent):
    pass
class Arguments(Persistent):
    "Its pickles begin with a class and arguments, and references to it name no class."
    def __new__(cls, *arguments):
        return Persistent.__new__(cls)
    def __getnewargs__(self):
        return 1, "x"
class Many(dict):
    pass
class Row(list):
    pass
for one in (Event, Arguments, Many, Row):
    one.__module__, one.__qualname__ = "site_code", one.__name__
    setattr(site, one.__name__, one)

whole, dangling = sys.argv[1:]
databases = {}
db = DB(FileStorage(whole), databases=databases, database_name="main")
other = DB(FileStorage(whole + ".other"), databases=databases, database_name="other")
connection = db.open()
root = connection.root()

def commit(words):
    transaction.get().note(words)
    transaction.commit()

root["tree"] = OOBTree()
for number in range(200):
    root["tree"][number] = PersistentList([number])
commit("a tree")
lost = [Event() for _number in range(6)] + [Arguments()]
root["keeper"] = keeper = PersistentMapping(enumerate(lost))
root["event"] = event = Event()
event.many, event.row, event.deep = Many(a=lost[0]), Row([lost[1]]), (1, {"x": [lost[2], lost[2]]})
root["arguments"] = arguments = Arguments()
arguments.child, arguments.other = lost[3], lost[6]
root["weak"] = weak = Event()
weak.child = WeakRef(lost[4])
connection.get_connection("other").root()["child"] = child = Event()
commit("events")
root["abroad"] = abroad = Event()
abroad.child = child
del root["keeper"]
commit("no longer")
numbers = {name: u64(one._p_oid) for name, one in (("event", event), ("arguments", arguments))}
gone = [u64(one._p_oid) for one in lost]
left_out = gone + [u64(keeper._p_oid)]
db.close()
other.close()

source, target = FileStorage(whole, read_only=True), FileStorage(dangling)
for one in source.iterator():
    target.tpc_begin(one, one.tid, one.status)
    for record in one:
        if u64(record.oid) not in left_out:
            target.restore(record.oid, record.tid, record.data, "", record.data_txn, one)
    target.tpc_vote(one)
    target.tpc_finish(one)
target.close()
print(json.dumps([numbers, gone]))
"""


@dataclass
class Sample:
    """Databases that a version of ZODB wrote: a whole one, and one where the objects gone are missing, to which those in numbers refer."""

    python: str
    whole: Path
    dangling: Path
    numbers: dict[str, int]
    gone: list[int]

    def examine(self, path: Path, listed: int = 100) -> dict[str, Any]:
        found = _database_check.examine(self.python, str(path), listed=listed)
        assert found["seconds"] >= 0 and found["memory_bytes"] > 10**6
        return found


@pytest.fixture(scope="session")
def samples(environment: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Sample]:
    made: dict[str, Sample] = {}

    def sample(version: str) -> Sample:
        if version not in made:
            place, python = tmp_path_factory.mktemp(version), str(environment(version) / "bin/python")
            whole, dangling = place / "whole.fs", place / "dangling.fs"
            done = subprocess.run([python, "-c", MAKE, whole, dangling], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            for path in place.iterdir():
                if path.suffix != ".fs":
                    path.unlink()
            made[version] = Sample(python, whole, dangling, *json.loads(done.stdout))
        return made[version]

    return sample


@pytest.fixture(params=["zodb5", "zodb6"])
def sample(request: pytest.FixtureRequest, samples: Callable[[str], Sample]) -> Sample:
    return samples(cast("str", request.param))


@pytest.fixture
def five(samples: Callable[[str], Sample]) -> Sample:
    return samples("zodb5")


def expected(sample: Sample) -> list[tuple[str, str, str, str]]:
    """Return the references that dangle: whose, its class, to what, its class."""
    event, arguments = f"{sample.numbers['event']:#x}", f"{sample.numbers['arguments']:#x}"
    gone = [f"{one:#x}" for one in sample.gone]
    kept = [(event, "site_code.Event", one, "site_code.Event") for one in gone[:3]]
    return sorted([*kept, (arguments, "site_code.Arguments", gone[3], "site_code.Event"), (arguments, "site_code.Arguments", gone[6], "unknown")])


def references(found: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return sorted((one["from_oid"], one["from_class"], one["oid"], one["class"]) for one in found["dangling"])


# Structure and references


def test_a_whole_database(sample: Sample) -> None:
    found = sample.examine(sample.whole)
    assert {name: found[name] for name in ("transactions", "problems_found", "problems", "dangling_found", "dangling")} == {
        "transactions": 4,
        "problems_found": 0,
        "problems": [],
        "dangling_found": 0,
        "dangling": [],
    }
    assert found["records"] > found["objects"] > 200
    assert list(sample.whole.parent.glob("whole.fs*")) == [sample.whole]


def test_references_to_what_does_not_exist(sample: Sample) -> None:
    """All that are there, through containers and subclasses of them; neither a weak one nor one into another database."""
    found = sample.examine(sample.dangling)
    assert (found["problems"], found["problems_found"]) == ([], 0)
    assert references(found) == expected(sample)
    assert found["dangling_found"] == 5
    assert {one["reason"] for one in found["dangling"]} == {"it does not exist"}
    assert all(re.fullmatch("[0-9a-f]{16}", one["tid"]) and one["time"].startswith("20") for one in found["dangling"])


def test_the_same_as_fsrefs_says(sample: Sample) -> None:
    done = subprocess.run([sample.python, "-m", "ZODB.scripts.fsrefs", sample.dangling], capture_output=True, text=True, check=False)
    said = set()
    for paragraph in done.stdout.strip().split("\n\n"):
        whose = re.match(r"oid (0x[0-9a-f]+) ", paragraph)
        assert whose, done.stdout + done.stderr
        said |= {(whose[1], int(oid, 16)) for oid in re.findall(r"\toid (0x[0-9a-f]+) missing", paragraph)}
    assert said == {(whose, int(oid, 16)) for whose, _kind, oid, _class in references(sample.examine(sample.dangling))}


def test_the_list_is_capped_and_the_number_is_not(five: Sample) -> None:
    found = five.examine(five.dangling, listed=2)
    assert (len(found["dangling"]), found["dangling_found"]) == (2, 5)
    assert set(references(found)) < set(expected(five))
    assert five.examine(five.dangling, listed=0)["dangling_found"] == 5


def test_an_object_whose_creation_was_undone(five: Sample, tmp_path: Path) -> None:
    """It is in the file, with a pointer to nothing. Nobody refers to it in the first database, somebody does in the second."""
    content = bytearray(five.whole.read_bytes())
    newest = content_of(bytes(content))
    oid = five.gone[0].to_bytes(8, "big")
    begin, tid = len(content), (int.from_bytes(max(one.tid for one in newest), "big") + 1000).to_bytes(8, "big")
    content += struct.pack(">8sQcHHH", tid, 23 + 50, b" ", 0, 0, 0)
    content += oid + tid + struct.pack(">QQHQQ", next(one.record for one in newest if one.oid == oid), begin, 0, 0, 0) + struct.pack(">Q", 23 + 50)
    path = tmp_path / "undone.fs"
    path.write_bytes(content)
    found = five.examine(path)
    assert found["problems"] == []
    holders = {(one["from_class"], one["oid"], one["reason"]) for one in found["dangling"]}
    assert holders == {(kind, f"{five.gone[0]:#x}", "its creation was undone") for kind in ("site_code.Event", "persistent.mapping.PersistentMapping")}


@dataclass
class Found:
    """One object's record in a file: where it, its transaction and its data begin (offsets), and where both end."""

    oid: bytes
    tid: bytes
    transaction: int
    record: int
    data: int
    end: int
    transaction_end: int


def content_of(content: bytes) -> list[Found]:
    found, at = [], 4
    while at < len(content):
        tid, length, *texts = struct.unpack(">8sQxHHH", content[at : at + 23])
        record = at + 23 + sum(texts)
        while record < at + length:
            end = record + 42 + (int.from_bytes(content[record + 34 : record + 42], "big") or 8)
            found.append(Found(content[record : record + 8], tid, at, record, record + 42, end, at + length))
            record = end
        at += length + 8
    return found


# Damage


Damage = tuple[int, bytes, "int | None", str]
# What is put where in a whole file, and the position and words that a check must give (None: any). The first record is one in the middle of a transaction.
DAMAGE: dict[str, Callable[[Found, Found], Damage]] = {
    "the head of the file": lambda _one, _last: (0, b"XX", None, "invalid file header"),
    "tid": lambda one, _last: (one.transaction, bytes(8), one.transaction, "time-stamp reduction"),
    "length": lambda one, _last: (one.transaction + 8, b"\1", one.transaction, "truncated possibly because of damaged records"),
    "status": lambda one, _last: (one.transaction + 16, b"x", one.transaction, "has invalid status"),
    "checkpoint": lambda one, _last: (one.transaction + 16, b"c", one.transaction, "checkpoint flag was not cleared"),
    "length of the user": lambda one, _last: (one.transaction + 17, b"\xff\xff", one.transaction, "has an invalid transaction header"),
    "length of the description": lambda one, _last: (one.transaction + 20, b"\5", None, "data record exceeds transaction record"),
    "length at the end": lambda one, _last: (one.transaction_end, b"\1", one.transaction_end, "inconsistent transaction length"),
    "pointer to the record before": lambda _one, last: (last.record + 16, struct.pack(">Q", 5), last.record, "incorrect previous pointer"),
    "pointer to the transaction": lambda one, _last: (one.record + 24, b"\1", one.record, "data record exceeds transaction record"),
    "length of a version": lambda _one, last: (last.record + 32, b"\0\1", None, ""),
    "length of the data": lambda one, _last: (one.record + 41, b"\xff", None, ""),
    "enormous length of the data": lambda one, _last: (one.record + 34, b"\xff" * 8, None, ""),
    "class": lambda _one, last: (last.data, b"\xff\xff", last.record, "cannot be unpickled"),
    "no data at all": lambda _one, last: (last.data, bytes(last.end - last.data), last.record, "cannot be unpickled"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_at_each_kind_of_place(five: Sample, tmp_path: Path, kind: str) -> None:
    whole = five.whole.read_bytes()
    records = content_of(whole)
    one = next(one for one in records if one.transaction > 4 and one.record > one.transaction + 100)
    at, value, position, words = DAMAGE[kind](one, records[-1])
    path = tmp_path / "Data.fs"
    path.write_bytes(whole[:at] + value + whole[at + len(value) :])
    found = five.examine(path)
    assert found["problems_found"] >= 1
    first = found["problems"][0]
    assert words in first["problem"], first
    assert str(tmp_path) not in first["problem"]
    if position is not None:
        assert first["position"] == position, first


def test_what_a_pack_leaves_is_no_problem(five: Sample, tmp_path: Path) -> None:
    """Packs of ZODB3 3.10.5 leave records that do not point to the one before."""
    content = bytearray(five.whole.read_bytes())
    root = next(one for one in reversed(content_of(bytes(content))) if one.oid == bytes(8))
    assert content[root.record + 16 : root.record + 24] != bytes(8)
    content[root.record + 16 : root.record + 24] = bytes(8)
    path = tmp_path / "Data.fs"
    path.write_bytes(content)
    assert five.examine(path)["problems_found"] == 0


def test_an_object_under_another_id_is_missing(five: Sample, tmp_path: Path) -> None:
    whole = bytearray(five.whole.read_bytes())
    new = content_of(bytes(whole))[-1]  # that of the last transaction which the root refers to
    whole[new.record] = 0xFF
    path = tmp_path / "Data.fs"
    path.write_bytes(whole)
    found = five.examine(path)
    assert (found["problems"], [(one["from_oid"], one["oid"]) for one in found["dangling"]]) == ([], [("0x0", f"{int.from_bytes(new.oid, 'big'):#x}")])


def test_what_is_cut_off(five: Sample, tmp_path: Path) -> None:
    whole, path = five.whole.read_bytes(), tmp_path / "Data.fs"
    ends = sorted({one.transaction_end + 8 for one in content_of(whole)})
    for length in (0, 3, ends[0] + 10, ends[0] + 23, ends[1] - 8, ends[1] - 1, len(whole) - 1):
        path.write_bytes(whole[:length])
        (problem,) = five.examine(path)["problems"]
        assert ("empty file" if length == 0 else "invalid file header" if length < 4 else "truncated") in problem["problem"]
        assert problem["position"] == (None if length < 4 else max(end for end in [4, *ends] if end <= length))
    path.write_bytes(whole[: ends[0]])
    assert five.examine(path)["problems"] == []


def test_an_object_that_nothing_refers_to_and_that_cannot_be_read(five: Sample, tmp_path: Path) -> None:
    """fsrefs does not name such an object. The others are looked at all the same."""
    content = bytearray(five.dangling.read_bytes())
    root = next(one for one in reversed(content_of(bytes(content))) if one.oid == bytes(8))
    content[root.data : root.end] = b"(" * (root.end - root.data)
    path = tmp_path / "Data.fs"
    path.write_bytes(content)
    found = five.examine(path)
    assert [(one["position"], one["problem"].split(" (")[0]) for one in found["problems"]] == [(root.record, "the data of object 0x0 cannot be unpickled")]
    assert references(found) == expected(five)


def test_an_answer_whatever_the_bytes_are(five: Sample, tmp_path: Path) -> None:
    chance, whole, path = random.Random(7), five.whole.read_bytes(), tmp_path / "Data.fs"  # noqa: S311 (the same each time)
    for _flip in range(25):
        content = bytearray(whole)
        for _place in range(chance.choice([1, 1, 40])):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        found = five.examine(path)
        assert found["problems_found"] >= len(found["problems"])


def test_a_program_that_gives_no_answer(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho no ZODB here >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(RepositoryError, match=r"^The check of /var/tmp/Data\.fs gave no answer \(exit code 3\): no ZODB here$"):
        _database_check.examine(str(program), "/var/tmp/Data.fs")


# The whole check


@pytest.fixture
def site(five: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _backup_set.Settings:
    """An instance with two databases and a backup of them: main, where references dangle, and rooms."""
    prefix = tmp_path / "indico"
    for name, source in (("main", five.dangling), ("rooms", five.whole)):
        (prefix / "db" / name).mkdir(parents=True)
        (prefix / "db" / name / "Data.fs").write_bytes(source.read_bytes())
    (tmp_path / "backups").mkdir()
    (prefix / "zeo").symlink_to(Path(five.python).parents[1])
    settings = _backup_set.Settings("indico", str(prefix), str(tmp_path / "backups"), ["main", "rooms"], drill_directory=str(tmp_path / "scratch"))
    _backup_set.run(settings, who="me", why="test")
    # The environment of the tests may lie where nobody cannot go.
    monkeypatch.setattr(_scratch, "USER", pwd.getpwuid(os.geteuid()).pw_name)
    return settings


def test_every_storage_of_the_newest_set(site: _backup_set.Settings, five: Sample) -> None:
    before = {name: Path(site.database(name)).stat() for name in site.storages}
    done = _database_check.run(site)
    assert done.set == _backup_set.manifests(site)[-1]["stamp"]
    assert [(one["name"], one["transactions"], one["dangling_found"], one["problems_found"]) for one in done.storages] == [
        ("main", 4, 5, 0),
        ("rooms", 4, 0, 0),
    ]
    first = done.storages[0]["dangling"][0]
    assert done.problem == (
        f"Set {done.set}: 5 dangling references, the first in main: object {first['from_oid']} ({first['from_class']}), of transaction {first['tid']}"
        f" ({first['time']}), refers to {first['oid']} ({first['class']}): it does not exist."
    )
    assert done.line() == f"check failed: {done.problem}"
    assert done.warnings == []
    assert not Path(site.drill_directory).exists()
    assert {name: Path(site.database(name)).stat() for name in site.storages} == before


def test_a_known_number_of_dangling_references_is_allowed(site: _backup_set.Settings) -> None:
    done = _database_check.run(site, allow_dangling=4)
    assert done.problem and done.problem.endswith(": it does not exist. 4 are allowed.")
    done = _database_check.run(site, allow_dangling=5)
    assert (done.problem, len(done.warnings)) == (None, 1)
    assert done.warnings[0].startswith("5 dangling references, the first in main: object ")
    assert done.line().startswith(f"check done in {done.seconds:.1f} s: set {done.set} restored: main to ")
    assert done.line().endswith(" objects in 4 transactions; no problem, 5 dangling references, which the site allows")


def test_damage_is_told_before_references(site: _backup_set.Settings) -> None:
    """The backup holds what the living file held, whose damage is older."""
    database = Path(site.database("rooms"))
    content = bytearray(database.read_bytes())
    newest = content_of(bytes(content))[-1]
    content[newest.record + 24] = 1
    database.write_bytes(content)
    _backup_set.run(site, who="me", why="test", full=True)
    done = _database_check.run(site, allow_dangling=5)
    assert done.problem and done.problem.startswith(
        f"Set {done.set}: 1 problem, the first in rooms at byte {newest.record}: the file data record exceeds transaction record"
    )


def test_check_mode_says_what_it_needs(site: _backup_set.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_database_check, "examine", None)
    done = _database_check.run(site, check=True)
    assert done.line() == f"a check would restore set {done.set} ({done.databases()}) to {done.needed_bytes} bytes, of {done.free_bytes} that are free"
    assert not Path(site.drill_directory).exists()


def test_without_a_set_or_a_zodb(site: _backup_set.Settings) -> None:
    (Path(site.prefix) / "zeo").unlink()
    with pytest.raises(RepositoryError, match=rf"^There is no {site.prefix}/zeo/bin/python, whose ZODB reads what is restored\.$"):
        _database_check.run(site)
    site.directory = str(Path(site.directory).parent / "others")
    Path(site.directory).mkdir()
    with pytest.raises(RepositoryError, match=rf"^There is no set in {site.sets}; make a backup first\.$"):
        _database_check.run(site)
    assert not Path(site.drill_directory).exists()


CHECK = """
import json, sys
from ansible_collections.confops.indico.plugins.module_utils import _backup_set, _database_check, _scratch
_scratch.USER = sys.argv[2]
_database_check.end_in_order()
_database_check.run(_backup_set.read_settings(sys.argv[1]))
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_ended_in_the_middle_nothing_stays(site: _backup_set.Settings, tmp_path: Path, how: signal.Signals) -> None:
    """What reads the copy ends too. The copies go at once, or where the check was killed, when the next one begins."""
    (tmp_path / "backup.json").write_text(json.dumps(vars(site)))
    (tmp_path / "zeo/bin").mkdir(parents=True)
    program = tmp_path / "zeo/bin/python"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid.new\nmv {tmp_path}/pid.new {tmp_path}/pid\nexec sleep 600\n")
    program.chmod(0o755)
    real = (Path(site.prefix) / "zeo").readlink()
    (Path(site.prefix) / "zeo").unlink()
    (Path(site.prefix) / "zeo").symlink_to(tmp_path / "zeo")
    command = [sys.executable, "-c", CHECK, tmp_path / "backup.json", _scratch.USER]
    environment = {**os.environ, "PYTHONPATH": "collections"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[4]) as running:
        while not (tmp_path / "pid").exists():
            assert running.poll() is None, running.communicate()
            time.sleep(0.01)
        assert Path(site.drill_directory, "main/Data.fs").exists()
        running.send_signal(how)
        _out, said = running.communicate()
    if how == signal.SIGTERM:
        assert said.endswith("RepositoryError: The check was ended from outside.\n")
    assert Path(site.drill_directory).exists() == (how == signal.SIGKILL)
    until = time.monotonic() + 10
    while Path("/proc", (tmp_path / "pid").read_text().strip()).exists():
        assert time.monotonic() < until, "what read the copy is still running"
        time.sleep(0.01)
    (Path(site.prefix) / "zeo").unlink()
    (Path(site.prefix) / "zeo").symlink_to(real)
    assert _database_check.run(site, allow_dangling=5).problem is None
    assert not Path(site.drill_directory).exists()
