"""Packing, through real servers of ZEO 5 and 6."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.confops.indico.plugins.module_utils import _zeo, _zeopack
from ansible_collections.confops.indico.plugins.module_utils._zeo import Server, ZeoError
from ansible_collections.confops.indico.plugins.modules import zeopack

from tests.unit.zeo_server import Live, answering

# What a database holds, and whether a pack finds anything in it
CONTENTS = {
    "superseded": ("for number in range(20): commit(number, 500)", True),
    "garbage only": ("orphan()", True),
    "new": ("", False),
    "packed": ("for number in range(3): commit(number, 500)\nimport time; time.sleep(0.01); database.pack()", False),
    "packed, and used since": ("for number in range(3): commit(number, 500)\nimport time; time.sleep(0.01); database.pack(); commit(9, 500)", True),
    "undone": ("commit(1, 500); commit(2, 500); database.undo(database.undoLog(0, 1)[0]['id']); transaction.commit()", True),
}


NEWEST = pytest.mark.parametrize("live", ["zodb6"], indirect=True)


@pytest.fixture(params=["zodb5", "zodb6"])
def live(tmp_path: Path, environment: Callable[[str], Path], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Live:
    monkeypatch.setattr(_zeo, "UNPRIVILEGED", "root")  # nobody else may look into root's cache, where the environments are
    return Live(tmp_path, environment(request.param))


def await_pack(live: Live) -> None:
    """Wait until the server, which logs it, begins to pack."""
    while "started" not in (live.directory / "server.log").read_text():
        time.sleep(0.02)


def inode(live: Live) -> int:
    return live.database.stat().st_ino


@pytest.mark.parametrize("content", CONTENTS)
def test_what_is_predicted_is_what_happens(live: Live, content: str) -> None:
    statements, anything = CONTENTS[content]
    live.make(statements)
    size, before = live.database.stat().st_size, inode(live)
    with live.running():
        foreseen = _zeopack.pack(live.python, live.server, database=str(live.database), check=True)
        assert (inode(live), live.database.stat().st_size) == (before, size)
        done = _zeopack.pack(live.python, live.server)  # the server's word alone: nothing is predicted
    assert (foreseen.result == "packed", done.result == "packed", inode(live) != before) == (anything,) * 3
    assert foreseen.bytes_before == done.bytes_before == size
    assert done.bytes_after == live.database.stat().st_size
    assert foreseen.reclaimed_bytes == done.reclaimed_bytes == size - live.database.stat().st_size


@NEWEST
def test_what_was_superseded_is_a_lower_bound_where_there_is_garbage_too(live: Live) -> None:
    live.make("commit(1, 500); commit(2, 500); root['part'] = PersistentMapping(x='x' * 3000); transaction.commit(); del root['part']; transaction.commit()")
    with live.running():
        foreseen = _zeopack.pack(live.python, live.server, database=str(live.database), check=True)
        done = _zeopack.pack(live.python, live.server, database=str(live.database))
    assert foreseen.reclaimed_bytes is not None
    assert done.reclaimed_bytes is not None
    assert 500 < foreseen.reclaimed_bytes < done.reclaimed_bytes - 3000
    assert foreseen.line().endswith(f"would give back at least {foreseen.reclaimed_bytes} of {done.bytes_before} bytes")


def test_packs_once_and_leaves_the_former_file_alone_then(live: Live) -> None:
    live.make("for number in range(20): commit(number, 500)")
    size = live.database.stat().st_size
    with live.running():
        done = _zeopack.pack(live.python, live.server, database=str(live.database))
        after = live.database.stat().st_size
        again = _zeopack.pack(live.python, live.server, database=str(live.database))
    assert (done.result, done.bytes_before, done.bytes_after, done.reclaimed_bytes) == ("packed", size, after, size - after)
    assert done.line() == f"packed up to {done.packed_to} in {done.seconds:.1f} s: {size} bytes before, {after} after, {size - after} reclaimed"
    assert (again.result, again.bytes_before, again.bytes_after, again.reclaimed_bytes) == ("nothing", after, after, 0)
    assert again.line() == f"nothing to pack up to {again.packed_to}"
    assert Path(f"{live.database}.old").stat().st_size == size


@NEWEST
def test_the_former_file_goes_when_it_is_not_wanted(live: Live) -> None:
    live.make("for number in range(20): commit(number, 500)")
    with live.running():
        assert _zeopack.pack(live.python, live.server, database=str(live.database), keep_old=False).result == "packed"
    assert not Path(f"{live.database}.old").exists()


@NEWEST
def test_what_is_younger_than_the_days_stays(live: Live) -> None:
    live.make("for number in range(20): commit(number, 500)")
    before = inode(live)
    with live.running():
        assert _zeopack.pack(live.python, live.server, database=str(live.database), days=1).result == "nothing"
    assert inode(live) == before


@NEWEST
def test_an_empty_database_has_nothing_to_pack(live: Live) -> None:
    live.database.write_bytes(b"FS30")
    with live.running():
        assert _zeopack.pack(live.python, live.server, database=str(live.database)).result == "nothing"


@NEWEST
def test_a_server_that_does_not_run(live: Live) -> None:
    with pytest.raises(ZeoError, match=rf"^The ZEO server at {live.address} refuses connections: it does not run, or listens elsewhere\.$"):
        _zeopack.pack(live.python, live.server, check=True, database="/none")


def test_a_storage_that_the_server_does_not_have(live: Live) -> None:
    live.make("commit(1, 1)")
    with live.running(), pytest.raises(ZeoError, match=rf"^The ZEO server at {live.address} has no storage named rooms\.$"):
        _zeopack.pack(live.python, Server(live.address, "rooms"))


@NEWEST
def test_a_server_that_hangs(live: Live) -> None:
    live.make("commit(1, 1)")
    with live.running():
        live.process.send_signal(signal.SIGSTOP)
        with pytest.raises(ZeoError, match=r"accepts connections, but does not answer within 1 s: it hangs, or is no ZEO server\.$"):
            _zeopack.pack(live.python, live.server, time_limit=1)


@NEWEST
def test_a_pack_that_takes_too_long_goes_on_and_another_one_says_so(live: Live) -> None:
    live.make("for number in range(20): commit(number, 500)")
    before = inode(live)
    live.hold.touch()
    with live.running():
        with pytest.raises(ZeoError, match=r"^The pack of storage 1 of the ZEO server at \S+ is not done within 4 s: the server may still be packing"):
            _zeopack.pack(live.python, live.server, time_limit=4)
        with pytest.raises(ZeoError, match=r"^A pack of storage 1 of the ZEO server at \S+ is running already; it goes on by itself\.$"):
            _zeopack.pack(live.python, live.server, database=str(live.database))
        live.hold.unlink()
        while inode(live) == before:
            time.sleep(0.02)


def test_a_full_disk(live: Live) -> None:
    live.make("for number in range(20): commit(number, 20000)")
    before = inode(live)
    Path(f"{live.database}.old").write_bytes(b"of an earlier pack")
    with live.running(largest=100_000), pytest.raises(ZeoError) as failure:
        _zeopack.pack(live.python, live.server, database=str(live.database))
    assert str(failure.value) == (
        f"The pack of storage 1 of {live.server} failed: its disk is full (File too large). The database is as it was."
        f" The server has removed {live.database}.old, which was there from an earlier pack."
    )
    assert not Path(f"{live.database}.pack").exists()
    assert inode(live) == before


@NEWEST
def test_a_server_that_ends_while_it_packs(live: Live) -> None:
    live.make("for number in range(20): commit(number, 500)")
    live.hold.touch()
    with live.running():
        end = threading.Thread(target=lambda: (await_pack(live), live.process.kill()))
        end.start()
        with pytest.raises(ZeoError, match=r"failed: the server closed the connection, or ended\. The database is as it was\.$"):
            _zeopack.pack(live.python, live.server, database=str(live.database))
        end.join()


def test_a_file_that_a_process_has_open_stays(tmp_path: Path) -> None:
    left = tmp_path / "Data.fs.pack"
    left.write_bytes(b"half")
    with left.open("rb"):
        assert _zeopack._sweep(str(left)) == [f"{left} (4 bytes) stays, since a process may have it open; the next pack writes over it."]
    assert _zeopack._sweep(str(left)) == [f"{left} (4 bytes), which it left, was removed."]
    assert _zeopack._sweep(str(left)) == []
    assert list(tmp_path.iterdir()) == []


@NEWEST
def test_check_needs_the_file(live: Live) -> None:
    with pytest.raises(ZeoError, match="cannot be predicted: its file does not lie on this host"):
        _zeopack.pack(live.python, live.server, check=True)


@NEWEST
def test_a_damaged_database_is_not_packed(live: Live) -> None:
    live.make("for number in range(3): commit(number, 500)")
    with live.running():
        content = live.database.read_bytes()
        live.database.write_bytes(content[:200] + bytes(100) + content[300:])
        with pytest.raises(ZeoError, match=rf"^Whether there is anything to pack in {live.database} cannot be told: Corrupted"):
            _zeopack.pack(live.python, live.server, database=str(live.database))
        live.database.write_bytes(content)


def run_module(capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    with patch_module_args(options), pytest.raises(SystemExit):
        zeopack.main()
    return dict(json.loads(capsys.readouterr().out))


@NEWEST
def test_the_module_packs_the_others_when_one_fails(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    live.make("for number in range(20): commit(number, 500)")
    with live.running(), answering(b"SSH-2.0-OpenSSH\r\n") as other:
        servers = [{"name": "rooms", "address": other.address}, {"name": "main", "address": live.address, "database": str(live.database)}]
        foreseen = run_module(capsys, python=live.python, servers=servers[1:], _ansible_check_mode=True)
        result = run_module(capsys, python=live.python, servers=servers)
    assert (foreseen["changed"], foreseen["storages"][0]["result"]) == (True, "packed")
    assert result["msg"] == f"What answers at {other.address} is no ZEO server."
    assert result["failed"]
    assert result["changed"]
    assert [(one["name"], one["result"]) for one in result["storages"]] == [("rooms", "failed"), ("main", "packed")]


def test_the_module_refuses_a_time_in_the_future(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_module(capsys, servers=[{"address": "127.0.0.1:9675"}], days=-1)
    assert "days" in result["msg"] and result["msg"].endswith("'-1' is not allowed; it must be a number from 0 to 36500.")


MAPPING = rb"\x80\x02cpersistent.mapping\nPersistentMapping\n.\x80\x02"
PUT = """
def put(data):
    'Store a record that the root refers to.'
    commit(1, 500); commit(2, 500)
    root['holder'] = PersistentMapping(); transaction.commit()
    meta, oid = TransactionMetaData(), root['holder']._p_oid
    storage.tpc_begin(meta)
    storage.store(oid, storage.load(oid)[1], data, '', meta)
    storage.tpc_vote(meta)
    storage.tpc_finish(meta)
"""


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        pytest.param(
            rb"\x80\x02cpersistent.mapping\nPersistentMapping\n.\x80\x02}U\x04dataC\x08\x00\x00\x00\x00\x00\x00\x0f\x0fQs.",
            r"it refers to 0xf0f, which does not exist",
            id="dangling",
        ),
        pytest.param(MAPPING + rb"NQ.", r"its references cannot be read \(AssertionError", id="None"),
        pytest.param(MAPPING + rb"}U\xff", r"its references cannot be read \(\w+", id="cut"),
    ],
)
def test_a_broken_object_is_foreseen_and_named_by_the_failing_run(live: Live, record: bytes, reason: str) -> None:
    # B11
    live.make(f"{PUT}\nput(b'{record.decode()}')")
    whole = rf"No pack of {live.database} that removes garbage can succeed: object 0x\w+ \(persistent\.mapping\.PersistentMapping\), "
    whole += rf"written by transaction \w{{16}} of \S+Z, is broken: {reason}.*\. playbooks/check\.yml lists all such objects\. `zeo_pack_gc: false` packs"
    before = live.database.read_bytes()
    with live.running():
        with pytest.raises(ZeoError, match=f"^{whole}"):
            _zeopack.pack(live.python, live.server, database=str(live.database), check=True)
        with pytest.raises(ZeoError, match=rf"^The pack of storage 1 of {live.server} failed: \w+.*The database is as it was\. {whole}"):
            _zeopack.pack(live.python, live.server, database=str(live.database))
    assert live.database.read_bytes() == before


@NEWEST
def test_a_server_without_garbage_collection_packs_what_is_broken(live: Live) -> None:
    # B11
    live.make(f"{PUT}\nput(b'\\x80\\x02cpersistent.mapping\\nPersistentMapping\\n.\\x80\\x02NQ.')")
    with live.running(collect=False):
        foreseen = _zeopack.pack(live.python, live.server, database=str(live.database), gc=False, check=True)
        done = _zeopack.pack(live.python, live.server, database=str(live.database), gc=False)
    assert (foreseen.result, done.result, foreseen.reclaimed_bytes) == ("packed", "packed", done.reclaimed_bytes)


def test_a_database_behind_a_link_is_not_packed(tmp_path: Path) -> None:
    # B12
    (tmp_path / "disk2").mkdir()
    (tmp_path / "disk2/Data.fs").write_bytes(b"FS30")
    link = tmp_path / "Data.fs"
    link.symlink_to("disk2/Data.fs")
    for keep_old in (True, False):
        with pytest.raises(ZeoError, match=rf"^{link} is a symbolic link to {tmp_path}/disk2/Data\.fs\. A pack would put the packed file beside the link"):
            _zeopack.pack("/python", Server("127.0.0.1:1"), database=str(link), keep_old=keep_old)


def test_what_is_no_file_or_cannot_be_written_is_not_packed(tmp_path: Path) -> None:
    # B4, B13
    os.mkfifo(tmp_path / "Data.fs")
    with pytest.raises(ZeoError, match=rf"^{tmp_path}/Data\.fs is no regular file, so it is not packed\.$"):
        _zeopack.pack("/python", Server("127.0.0.1:1"), database=str(tmp_path / "Data.fs"), check=True)
    (tmp_path / "Data.fs").unlink()
    (tmp_path / "Data.fs").write_bytes(b"FS30")
    os.chown(tmp_path / "Data.fs", 65534, 65534)
    with pytest.raises(ZeoError, match=rf"^{tmp_path} cannot be written to by the owner of Data\.fs, so the server cannot pack it\.$"):
        _zeopack.pack("/python", Server("127.0.0.1:1"), database=str(tmp_path / "Data.fs"), check=True)
