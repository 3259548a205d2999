"""Restores from a repository to any transaction. The database is made by hand, so that every moment of it is known byte by byte."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import resource
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.confops.indico.plugins.module_utils import _filestorage, _history, _repository, _repozo, _restore
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError
from ansible_collections.confops.indico.plugins.modules import repozo_restore
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.storage import START, Storage, record, tid_of

HALF = timedelta(milliseconds=500)


class World(Storage):
    """A database, its repository and the clock, which goes on by a second with each thing that happens.

    prefixes holds, for each tid, what the database was up to it; a pack makes more than one of them. backups holds what each backup saw.
    """

    def __init__(self, directory: Path) -> None:
        self.directory, self.repository = directory, directory / "backups"
        self.repository.mkdir()
        (directory / "db").mkdir()
        super().__init__(directory / "db" / "Data.fs")
        self.clock, self.backups, self.times = 0, {}, {}
        self.whole: dict[str, set[bytes]] = {}  # by tid, what a restore may give: everything that some backup holds whole
        self.all: list[str] = []
        self.rewritten = 0  # transactions at the start of the file that a pack rewrote

    def tick(self) -> datetime:
        self.clock += 1
        return START + timedelta(seconds=self.clock)

    def add(self, number: int = 1, size: int = 400, *, step: float = 1, user: str = "", description: str = "") -> int:
        with self.path.open("ab") as stream:
            for _each in range(number):
                now = self.tick()
                data = self.random.randbytes(size // 2) + b"a" * (size - size // 2)
                stream.write(record(tid_of(now), data, user=user, description=description))
                self.tids.append(tid_of(now).hex())
                self.all.append(self.tids[-1])
                self.times[self.tids[-1]] = now
                self.ends.append(stream.tell())
        return self.ends[-1]

    def prefix(self, tid: str) -> bytes:
        return self.path.read_bytes()[: self.ends[self.tids.index(tid) + 1]]

    def backup(self, *, full: str = "", compression: str = "gzip") -> str:
        """Make a backup and return its stamp."""
        stamp = self.tick().strftime(_repository.STAMP)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_repozo, "_stamp", lambda repository: stamp)
            result = _repozo.backup(str(self.path), str(self.repository), full=full, compression=compression)
        if result.file:
            self.backups[stamp] = self.path.read_bytes()
            for tid in self.tids[max(0, self.rewritten - 1) :]:
                self.whole.setdefault(tid, set()).add(self.prefix(tid))
        return stamp

    def pack(self, keep: int, rewritten: int = 0) -> None:
        """Replace the database as a pack does: the newest stay, of those before some hold less now, the others are gone."""
        self.tick()
        stay = len(self.tids) - keep
        content, kept = self.path.read_bytes(), self.tids[max(0, stay - rewritten) :]
        packed = [record(bytes.fromhex(tid), b"what was current", status=b"p") for tid in self.tids[max(0, stay - rewritten) : stay]]
        starts = [4]
        for one in packed:
            starts.append(starts[-1] + len(one))
        shift = self.ends[stay] - starts[-1]
        self.path.write_bytes(b"FS21" + b"".join(packed) + content[self.ends[stay] :])
        self.ends, self.tids, self.rewritten = [*starts, *(end - shift for end in self.ends[stay + 1 :])], kept, len(packed)

    def file(self, stamp: str) -> Path:
        return next(path for path in self.repository.iterdir() if re.fullmatch(rf"{stamp}\.(delta)?fsz?", path.name))

    @property
    def target(self) -> Path:
        return self.directory / "out" / "Data.fs"

    def request(self, moment: str | None = None, *, tid: str | None = None, zone: str = "UTC", **options: Any) -> _restore.Request:
        self.target.parent.mkdir(exist_ok=True)
        wanted = _history.wanted_time(moment, zone) if moment else _history.wanted_transaction(tid) if tid else None
        return _restore.Request(str(self.repository), str(self.target), wanted, **{"confirm": str(self.target), **options})

    def restore(self, moment: str | None = None, *, tid: str | None = None, check: bool = False, **options: Any) -> _restore.Result:
        request = self.request(moment, tid=tid, **options)
        for path in [] if check else kept(self.target.parent):
            path.unlink()  # so that the next one need not wait for a second of its own
        return _restore.restore(request, check=check)

    def restored(self, moment: str | None = None, *, tid: str | None = None, **options: Any) -> bytes:
        """Predict, restore, compare both and return the new database."""
        before = everything(self.directory)
        checked = self.restore(moment, tid=tid, check=True, **options)
        assert everything(self.directory) == before
        result = self.restore(moment, tid=tid, **options)
        assert result.plan == checked.plan
        assert checked.last_transaction in (result.last_transaction, None)
        content = self.target.read_bytes()
        assert len(content) == result.plan.bytes
        assert result.last_transaction == _filestorage.last_transaction(str(self.target))
        assert not leftovers(self.target.parent)
        return content

    def refused(self, moment: str | None = None, *, tid: str | None = None, **options: Any) -> str:
        """Return the sentence with which the run and check mode refuse. Nothing may have changed."""
        before = everything(self.directory)
        for check in (True, False):
            with pytest.raises(RepositoryError) as refusal:
                _restore.restore(self.request(moment, tid=tid, **options), check=check)
        after = everything(self.directory)
        after.pop(self.target.with_name("Data.fs.lock"), None) if self.target.with_name("Data.fs.lock") not in before else None
        assert after == before
        return str(refusal.value)


def everything(directory: Path) -> dict[Path, tuple[bytes, int, int]]:
    return {path: (path.read_bytes(), path.stat().st_ino, path.stat().st_mtime_ns) for path in directory.rglob("*") if path.is_file()}


def leftovers(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir() if path.name.startswith(".confops-")]


def kept(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if re.fullmatch(r"Data\.fs\.replaced-\d{4}(-\d\d){5}", path.name))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def chain(world: World) -> World:
    """A full backup and two incremental ones, of three transactions each."""
    for compression in ("gzip", "gzip", "none"):
        world.add(3)
        world.backup(compression=compression)
    return world


@pytest.fixture
def three(world: World) -> World:
    """Three chains: the database was packed before the second, and the third is another full backup of the same file."""
    world.add(4)
    world.backup()
    world.add(3)
    world.backup(compression="none")
    world.add(3)
    world.backup()
    world.add(2)
    world.pack(4, rewritten=3)
    world.add(2)
    world.backup()
    world.add(2)
    world.backup()
    world.add(2)
    world.backup(full="it is time", compression="none")
    world.add(3)
    world.backup()
    return world


# Moments


@pytest.mark.parametrize(
    ("text", "zone", "first", "last"),
    [
        ("2026-03-01", "UTC", "2026-03-01T00:00:00.000000Z", "2026-03-01T23:59:59.999999Z"),
        ("2026-03-01", "Europe/Zurich", "2026-02-28T23:00:00.000000Z", "2026-03-01T22:59:59.999999Z"),
        ("2026-03-29", "Europe/Zurich", "2026-03-28T23:00:00.000000Z", "2026-03-29T21:59:59.999999Z"),  # 23 hours
        ("2026-10-25", "Europe/Zurich", "2026-10-24T22:00:00.000000Z", "2026-10-25T22:59:59.999999Z"),  # 25 hours
        ("2018-11-03", "America/Sao_Paulo", "2018-11-03T03:00:00.000000Z", "2018-11-04T02:59:59.999999Z"),  # the next day has no midnight
        ("2018-11-04", "America/Sao_Paulo", "2018-11-04T03:00:00.000000Z", "2018-11-05T01:59:59.999999Z"),
        ("2024-02-29", "UTC", "2024-02-29T00:00:00.000000Z", "2024-02-29T23:59:59.999999Z"),
        ("2026-03-01-12-00-07", "Europe/Zurich", "2026-03-01T12:00:07.000000Z", "2026-03-01T12:00:07.999999Z"),
        ("2026-03-01T12:00:07Z", "Europe/Zurich", "2026-03-01T12:00:07.000000Z", "2026-03-01T12:00:07.999999Z"),
        ("2026-03-01T12:00:07.5Z", "UTC", "2026-03-01T12:00:07.500000Z", "2026-03-01T12:00:07.500000Z"),
        ("2026-03-01T12:00:07.123456+01:00", "UTC", "2026-03-01T11:00:07.123456Z", "2026-03-01T11:00:07.123456Z"),
        ("2026-03-01 12:00-05:30", "UTC", "2026-03-01T17:30:00.000000Z", "2026-03-01T17:30:00.999999Z"),
    ],
)
def test_moments(text: str, zone: str, first: str, last: str) -> None:
    assert _history.iso(_history.moment_of(text, zone, end=False)) == first
    assert _history.iso(_history.moment_of(text, zone)) == last


@pytest.mark.parametrize(
    ("text", "zone", "sentence"),
    [
        ("2026-03-01T12:00:00", "Europe/Zurich", "The time '2026-03-01T12:00:00' names no zone: add Z for UTC, or an offset like +01:00."),
        ("2026-03-01 12:00", "UTC", "names no zone"),
        ("2026-02-30", "UTC", "The time '2026-02-30' is no moment of the calendar"),
        ("2026-03-01-12-00-61", "UTC", "no moment of the calendar"),
        ("2026-03-01T25:00:00Z", "UTC", "no moment of the calendar"),
        ("9999-12-31", "UTC", "no moment of the calendar"),
        ("yesterday", "UTC", "is not understood: write a day"),
        ("2026-03-01T12:00:00+0100", "UTC", "is not understood"),
        ("", "UTC", "is not understood"),
        ("2026-03-01", "Europe/Nowhere", "This host does not know the timezone 'Europe/Nowhere'"),
        ("2026-03-01", "../etc/passwd", "does not know the timezone"),
        ("1899-01-01", "UTC", "is none that a transaction can have"),
    ],
)
def test_refused_moments(text: str, zone: str, sentence: str) -> None:
    with pytest.raises(RepositoryError, match=re.escape(sentence)):
        _history.wanted_time(text, zone)


@pytest.mark.parametrize("text", ["", "12", "03b09a8c6666666", "03b09a8c6666666g", "03b09a8c666666666"])
def test_refused_transactions(text: str) -> None:
    with pytest.raises(RepositoryError, match="its id has 16 hexadecimal digits"):
        _history.wanted_transaction(text)


@given(st.datetimes(datetime(1901, 1, 1), datetime(2199, 1, 1)))
def test_the_limit_of_a_moment_is_the_greatest_tid_in_it(moment: datetime) -> None:
    moment = moment.replace(tzinfo=timezone.utc)
    limit = int.from_bytes(_history.limit_of(moment), "big")
    assert _filestorage.time_of(limit.to_bytes(8, "big")) <= moment
    assert _filestorage.time_of((limit + 2).to_bytes(8, "big")) > moment


@given(st.datetimes(datetime(1901, 1, 1), datetime(2199, 1, 1)), st.integers(0, 2**32 - 1))
def test_the_time_of_a_transaction_asks_for_it(moment: datetime, fraction: int) -> None:
    tid = tid_of(moment)[:4] + fraction.to_bytes(4, "big")
    shown = _history.iso(_filestorage.time_of(tid))
    assert _history.wanted_time(shown, "UTC").limit >= tid


# Every moment


def test_the_newest(chain: World) -> None:
    assert chain.restored() == chain.path.read_bytes()
    assert stat.S_IMODE(chain.target.stat().st_mode) == 0o600


def test_each_backup(three: World) -> None:
    for stamp, content in three.backups.items():
        assert three.restored(stamp) == content
        assert three.restored(_history.iso(_repository.time_of(stamp))) == content


def test_every_transaction_of_three_chains(three: World) -> None:
    reachable = [tid for tid in three.all if tid in three.whole]
    assert len(reachable) == len(three.all) == 21
    for tid in reachable[::2] + reachable[1::2]:
        assert three.restored(tid=tid) in three.whole[tid]
        assert three.restored(tid=tid.upper()) in three.whole[tid]
        now = three.times[tid]
        for moment in (_history.iso(now), _history.iso(now + HALF), now.strftime("%Y-%m-%dT%H:%M:%S+00:00")):
            assert three.restored(moment) in three.whole[tid]


def test_only_what_a_pack_took_before_a_backup_is_refused(world: World) -> None:
    """The pack's time lies behind the newest backup: what was committed between is rewritten or gone."""
    world.add(3)
    first = world.backup()
    world.add(5)
    world.pack(2, rewritten=2)
    world.backup()
    lost, rewritten, packed, whole = world.all[3], world.all[4], world.all[5], world.all[6]
    assert world.restored(tid=world.all[2]) == world.backups[first]
    before, after = (
        f"The nearest before it is {world.all[2]} of 2026-03-01T12:00:03.000000Z",
        f"the nearest after it is {packed} of 2026-03-01T12:00:07.000000Z.",
    )
    assert world.refused(tid=lost) == f"The transaction {lost} is not in the repository. {before} and {after}"
    assert (
        world.refused(tid=rewritten)
        == f"The transaction {rewritten} was rewritten by a pack: the database as of then is not whole any more. {before} and {after}"
    )
    assert world.restored(tid=packed) == world.prefix(packed)
    assert world.restored(tid=whole) == world.prefix(whole)
    result = world.restore("2026-03-01T12:00:06Z")
    assert world.target.read_bytes() == world.backups[first]
    [warning] = result.plan.warnings
    assert warning.endswith("between 2026-03-01T12:00:03.000000Z and the wanted time, if there was anything, is in no backup.")


def test_a_moment_between_a_backup_and_the_next_full_one(world: World) -> None:
    world.add(3)
    world.backup()
    world.add(3)
    world.backup(full="weekly")
    for tid in world.all:
        assert world.restored(tid=tid) == world.prefix(tid)
        assert world.restored(_history.iso(world.times[tid])) == world.prefix(tid)


def test_what_a_restored_database_lost_is_still_there(world: World) -> None:
    """After a restore the next chain knows less than the one before; the moment between belongs to the one before."""
    world.add(6)
    first = world.backup()
    lost, old = world.all[4], world.path.read_bytes()
    world.path.write_bytes(old[: world.ends[3]])
    world.tids, world.ends = world.tids[:3], world.ends[:4]
    world.tick()
    between = _history.iso(START + timedelta(seconds=world.clock))
    world.add(2)
    world.backup()
    assert world.restored(tid=lost) == old[: len(old) - 431]
    assert world.restored(between) == world.backups[first]
    assert world.restored(tid=world.all[-1]) == world.path.read_bytes()


def test_a_transaction_newer_than_the_stamp_of_its_backup(chain: World) -> None:
    """The clock of the backup may be behind, or the server's ahead: tids count, stamps only tell where to begin."""
    for path in sorted(chain.repository.glob("2026*")):
        path.rename(path.with_name(path.name.replace("2026-03-01-12-", "2026-03-01-11-")))
    for path in chain.repository.glob("*.dat"):
        path.write_text(path.read_text().replace("2026-03-01-12-", "2026-03-01-11-"))
    for tid in chain.all:
        assert chain.restored(tid=tid) == chain.prefix(tid)
        assert chain.restored(_history.iso(chain.times[tid])) == chain.prefix(tid)


def test_a_day(world: World) -> None:
    world.add(2)
    world.backup()
    world.clock = 11 * 3600  # 23:00 UTC
    world.add(2)
    world.backup()
    world.clock = 12 * 3600
    world.add(2)
    world.backup()
    assert world.restored("2026-03-01", zone="Europe/Zurich") == world.prefix(world.all[1])
    assert world.restored("2026-03-01") == world.prefix(world.all[3])
    assert world.restored("2026-03-02") == world.path.read_bytes()
    assert "before everything that the repository holds" in world.refused("2026-02-28")


def test_after_the_newest_backup(chain: World) -> None:
    last = chain.all[-1]
    chain.add(2)
    result = chain.restore("2026-03-02")
    assert chain.target.read_bytes() == chain.prefix(last)
    assert result.plan.warnings == [
        "The newest backup is of 2026-03-01-12-00-12, before the wanted time:"
        " what was committed after 2026-03-01T12:00:11.000000Z is not in it and not restored."
    ]
    nearest = f"The nearest before it is {last} of 2026-03-01T12:00:11.000000Z and there is none after it."
    assert chain.refused(tid=chain.all[-1]) == f"The transaction {chain.all[-1]} is not in the repository. {nearest}"


def test_an_unknown_transaction(three: World) -> None:
    between = f"{int(three.all[1], 16) + 1:016x}"
    sentence = (
        f"The transaction {between} is not in the repository. The nearest before it is {three.all[1]} of 2026-03-01T12:00:02.000000Z"
        f" and the nearest after it is {three.all[2]} of 2026-03-01T12:00:03.000000Z."
    )
    assert three.refused(tid=between) == sentence
    early = "03e0000000000000"
    assert three.refused(tid=early).endswith(f"There is none before it and the nearest after it is {three.all[0]} of 2026-03-01T12:00:01.000000Z.")


def test_an_empty_repository(world: World) -> None:
    assert world.refused() == f"The repository {world.repository} holds no full backup."
    (world.repository / "2026-03-01-12-00-00.deltafs").write_bytes(b"?")
    assert "is an incremental backup without the full one" in world.refused()
    shutil.rmtree(world.repository)
    assert world.refused() == f"The repository {world.repository} cannot be opened: No such file or directory."


# The live database


def test_the_live_tail(chain: World) -> None:
    chain.add(4)
    live = str(chain.path)
    assert chain.restored(live=live) == chain.path.read_bytes()
    for tid in chain.all:
        result = chain.restore(tid=tid, live=live)
        assert chain.target.read_bytes() == chain.prefix(tid)
        assert result.plan.live_bytes == max(0, len(chain.prefix(tid)) - len(list(chain.backups.values())[-1]))
        assert chain.restored(_history.iso(chain.times[tid] + HALF), live=live) == chain.prefix(tid)
    assert chain.restored("2027-01-01", live=live) == chain.path.read_bytes()


def test_the_live_tail_without_what_is_not_committed(chain: World) -> None:
    chain.add(2)
    whole = chain.path.read_bytes()
    chain.unfinished()
    assert chain.restored(live=str(chain.path)) == whole


def test_a_live_database_without_anything_new(chain: World) -> None:
    result = chain.restore(live=str(chain.path))
    assert chain.target.read_bytes() == chain.path.read_bytes()
    assert (result.plan.live_bytes, result.last_transaction) == (0, _filestorage.last_transaction(str(chain.path)))


def test_an_unknown_transaction_and_the_live_database(chain: World) -> None:
    chain.add(2)
    unknown = f"{int(chain.all[-2], 16) + 1:016x}"
    assert chain.refused(tid=unknown, live=str(chain.path)) == (
        f"The transaction {unknown} is neither in the repository nor in {chain.path}. The nearest before it is {chain.all[-2]} of"
        f" 2026-03-01T12:00:13.000000Z and the nearest after it is {chain.all[-1]} of 2026-03-01T12:00:14.000000Z."
    )


def test_a_live_database_that_is_another(chain: World) -> None:
    content = chain.path.read_bytes()
    chain.add(3)
    chain.pack(5)
    live = str(chain.path)
    assert "does not continue the newest chain 2026-03-01-12-00-04: it was packed or replaced since" in chain.refused(live=live)
    assert "does not continue" in chain.refused("2026-03-02", live=live)
    assert chain.restored(tid=chain.all[4], live=live) == content[: 4 + 5 * 431], "what the backups hold needs no live database"
    assert chain.refused(live=live + "x") == f"The live database {live}x cannot be read: No such file or directory."


def test_the_live_database_is_the_target(chain: World) -> None:
    """The usual case: the server is stopped, and what came after the last good transaction goes."""
    chain.add(4)
    old, wanted = chain.path.read_bytes(), chain.prefix(chain.all[-2])
    request = chain.request(tid=chain.all[-2], live=str(chain.path))
    request.target = request.confirm = str(chain.path)
    result = _restore.restore(request)
    assert chain.path.read_bytes() == wanted
    assert Path(result.replaced or "").read_bytes() == old


def test_a_live_database_that_is_packed_while_it_is_read(chain: World, monkeypatch: pytest.MonkeyPatch) -> None:
    chain.add(4)
    original = _restore._server_lock

    @contextmanager
    def pack(target: str, attributes: tuple[int, int, int]) -> Iterator[None]:
        with original(target, attributes):
            chain.pack(3)
            yield

    monkeypatch.setattr(_restore, "_server_lock", pack)
    with pytest.raises(RepositoryError, match="does not continue the newest chain"):
        chain.restore(live=str(chain.path))
    assert not chain.target.exists()
    assert not leftovers(chain.target.parent)


# Damage


def flip(path: Path, at: int = -20) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("damage", [flip, cut, extend, Path.unlink, lambda path: path.write_bytes(b"")])
def test_damage_to_a_file(chain: World, number: int, damage: Callable[[Path], None]) -> None:
    """Whatever needs the file is refused and the target untouched; what lies before it is restored."""
    stamp = list(chain.backups)[number]
    damage(chain.file(stamp))
    chain.request()
    chain.target.write_bytes(b"old")
    before = everything(chain.target.parent)
    for index, tid in enumerate([*chain.all, None]):
        if tid and index // 3 < number:
            chain.restore(tid=tid)
            assert chain.target.read_bytes() == chain.prefix(tid)
            shutil.rmtree(chain.target.parent)
            chain.target.parent.mkdir()
            chain.target.write_bytes(b"old")
            before = everything(chain.target.parent)
        else:
            with pytest.raises(RepositoryError, match=r"damaged|cut off|no full backup"):
                _restore.restore(chain.request(tid=tid))
            chain.target.with_name("Data.fs.lock").unlink(missing_ok=True)
            assert everything(chain.target.parent) == before


def test_damage_is_said_in_the_words_of_the_repository(chain: World) -> None:
    cut(chain.file("2026-03-01-12-00-12"))
    assert chain.refused() == (
        "The chain 2026-03-01-12-00-04 is damaged: 2026-03-01-12-00-12.deltafs has 1284 bytes; 2026-03-01-12-00-04.dat says 1293."
        f" The last good transaction is {chain.all[5]} of 2026-03-01T12:00:07.000000Z; to restore to it, set transaction to its id."
    )
    result = chain.restore(tid=chain.all[5])
    assert result.plan.warnings == ["2026-03-01-12-00-12.deltafs has 1284 bytes; 2026-03-01-12-00-04.dat says 1293."]


def test_a_byte_behind_the_cut_is_compared_too(chain: World) -> None:
    flip(chain.file("2026-03-01-12-00-12"), 1200)
    with pytest.raises(RepositoryError, match=r"2026-03-01-12-00-12\.deltafs is damaged: its md5 is .*, its \.dat file says .*\. The last"):
        chain.restore(tid=chain.all[6])
    assert not chain.target.exists()
    assert not leftovers(chain.target.parent)


def test_another_chain_stands_in_for_a_damaged_one(world: World) -> None:
    world.add(3)
    stamp = world.backup()
    world.add(3)
    world.backup(full="weekly")
    world.file(stamp).unlink()
    (world.repository / f"{stamp}.dat").write_text("?")
    for tid in world.all:
        assert world.restored(tid=tid) == world.prefix(tid)


def test_a_damaged_chain_before_a_pack(three: World) -> None:
    (three.repository / f"{next(iter(three.backups))}.dat").unlink()
    assert three.refused(tid=three.all[1]).startswith("The chain 2026-03-01-12-00-05 is damaged: 2026-03-01-12-00-05.dat is missing.")
    assert three.restored() == three.path.read_bytes()


def test_what_an_interrupted_backup_left_does_not_count(chain: World) -> None:
    expected = chain.path.read_bytes()
    (chain.repository / "2026-03-01-13-00-00.deltafs").write_bytes(b"half a transaction")
    result = chain.restore()
    assert chain.target.read_bytes() == expected
    assert result.plan.warnings == [
        "2026-03-01-13-00-00.deltafs is here, but 2026-03-01-12-00-04.dat does not list it.",
        "2026-03-01-13-00-00.deltafs is left out, since nothing tells that its backup was finished: what it holds is not restored.",
    ]
    (chain.repository / "2026-03-01-13-00-00.deltafs").rename(chain.repository / "2026-03-01-13-00-00.fs")
    assert chain.restored() == expected


def test_a_file_that_is_no_database(world: World) -> None:
    content = b"not a database at all"
    (world.repository / "2026-03-01-12-00-00.fs").write_bytes(content)
    digest = _repozo.hashlib.md5(content, usedforsecurity=False).hexdigest()
    (world.repository / "2026-03-01-12-00-00.dat").write_text(f"{world.repository}/2026-03-01-12-00-00.fs 0 {len(content)} {digest}\n")
    with pytest.raises(RepositoryError, match="fs holds no whole database: it ends with no committed transaction"):
        world.restore()
    assert "does not begin with a transaction" in world.refused("2026-03-01")
    assert not list(world.target.parent.glob("*"))


def test_a_repository_that_stock_repozo_wrote(chain: World) -> None:
    """It holds no state of this collection, paths of another place, and index files."""
    (chain.repository / "confops.json").unlink()
    [dat] = chain.repository.glob("*.dat")
    dat.write_text(dat.read_text().replace(str(chain.repository), "/mnt/elsewhere"))
    (chain.repository / "2026-03-01-12-00-04.index").write_bytes(b"index")
    (chain.repository / "2026-03-01-12-00-13.index").write_bytes(b"as ZODB3 3.10.5 names it when the second is over")
    chain.add(1)
    assert chain.restored(live=str(chain.path)) == chain.path.read_bytes()
    assert chain.restored(tid=chain.all[4]) == chain.prefix(chain.all[4])
    assert chain.restore().plan.warnings == []
    assert not chain.target.with_name("Data.fs.index").exists()


# Damage and the choice of a moment (B2)


def flip_bit(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 0x80 >> bit % 8
    path.write_bytes(content)


def _transaction(tid: str) -> _filestorage.Transaction:
    return _filestorage.Transaction(tid, _filestorage.time_of(bytes.fromhex(tid)), "", "")


@pytest.fixture
def plain(world: World) -> World:
    """A full backup and three incremental ones, not compressed, of two transactions each."""
    for _each in range(4):
        world.add(2)
        world.backup(compression="none")
    return world


def right_or_refused(world: World, number: int, moment: str | None, tid: str | None) -> bool:
    """Plan a restore, whose right end is the transaction of that number. Return whether it is refused; then the last good transaction must be restorable."""
    right = world.prefix(world.all[number])
    try:
        chosen = _restore.plan(world.request(moment, tid=tid))
    except RepositoryError:
        with pytest.raises(RepositoryError) as refusal:
            _restore.restore(world.request(moment, tid=tid), check=True)
        named = re.search(r"The last good transaction is ([0-9a-f]{16}) of", str(refusal.value))
        assert named, refusal.value
        assert world.all.index(named[1]) <= number
        assert _restore.plan(world.request(tid=named[1])).bytes == len(world.prefix(named[1]))
        return True
    assert (chosen.bytes, chosen.last_transaction) == (len(right), _transaction(world.all[number]))
    return False


def test_the_first_byte_of_a_delta_flipped_leaves_out_nothing_silently(plain: World) -> None:
    """B2: byte 0 of the first delta, 0x04 -> 0x44; a restore to today left out three deltas."""
    delta = plain.file(list(plain.backups)[1])
    flip_bit(delta, 1)
    assert delta.read_bytes()[0] == 0x44
    sentence = plain.refused("2026-03-02")
    assert sentence.startswith(f"The chain 2026-03-01-12-00-03 is damaged: {delta.name} is damaged: its md5 is ")
    assert sentence.endswith(f"The last good transaction is {plain.all[1]} of 2026-03-01T12:00:02.000000Z; to restore to it, set transaction to its id.")
    assert plain.restored(tid=plain.all[1]) == plain.prefix(plain.all[1])


def test_each_single_bit_of_a_first_tid_gives_the_right_state_or_a_refusal(plain: World) -> None:
    """B2: every bit of the first tids of three deltas, for a time behind all, one between, and transactions: nothing is silently wrong."""
    between = _history.iso(plain.times[plain.all[3]] + HALF)
    refused = 0
    for stamp in list(plain.backups)[1:]:
        path = plain.file(stamp)
        sound = path.read_bytes()
        for bit in range(64):
            flip_bit(path, bit)
            refused += right_or_refused(plain, 7, "2026-03-02", None)
            refused += right_or_refused(plain, 3, between, None)
            for number in (1, 3, 7):
                right_or_refused(plain, number, None, plain.all[number])
            path.write_bytes(sound)
    assert 192 < refused < 384


def swap(world: World, one: int, other: int) -> None:
    first, second = (world.file(list(world.backups)[number]) for number in (one, other))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def head_of(world: World, one: int, other: int) -> None:
    """Put the beginning of one file over that of the other."""
    first, second = (world.file(list(world.backups)[number]) for number in (one, other))
    content = second.read_bytes()
    second.write_bytes(first.read_bytes()[:300] + content[300:])


def garbage(world: World, one: int, other: int) -> None:
    path = world.file(list(world.backups)[other])
    path.write_bytes(world.random.randbytes(path.stat().st_size))


def zeros(world: World, one: int, other: int) -> None:
    path = world.file(list(world.backups)[one])
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [swap, head_of, garbage, zeros])
@pytest.mark.parametrize(("one", "other"), [(1, 2), (1, 3), (2, 3), (3, 1), (2, 1)])
def test_natural_damage_gives_the_right_state_or_a_refusal(plain: World, damage: Callable[[World, int, int], None], one: int, other: int) -> None:
    """B2: another file's head, swapped files, garbage."""
    damage(plain, one, other)
    for number, tid in enumerate(plain.all):
        right_or_refused(plain, number, None, tid)
        right_or_refused(plain, number, _history.iso(plain.times[tid] + HALF), None)
    with pytest.raises(RepositoryError, match=r"damaged.* The last good transaction is"):
        plain.restore()


def test_the_first_tid_of_a_later_full_backup_is_not_believed(three: World) -> None:
    """B2: an older chain must not stand in, with a warning that is not true, for a full backup whose first tid is damaged."""
    stamps = list(three.backups)
    plain_full = three.file(stamps[5])
    assert plain_full.suffix == ".fs"
    number = three.all.index(_filestorage.transactions(plain_full.open("rb")).__next__()[0].tid)
    for bit in range(32, 96, 3):  # behind the four bytes of the file's head
        flip_bit(plain_full, bit)
        for tid in (three.all[number + 1], three.all[-1]):
            sentence = three.refused(tid=tid) if tid == three.all[-1] else ""
            assert not sentence or "damaged" in sentence
            try:
                three.restore(_history.iso(three.times[tid] + HALF))
            except RepositoryError as refusal:
                assert "damaged" in str(refusal)
            else:
                assert three.target.read_bytes() in three.whole[tid]
        flip_bit(plain_full, bit)


def test_damage_in_the_run_names_the_last_good_transaction(plain: World) -> None:
    flip(plain.file(list(plain.backups)[2]), 200)
    with pytest.raises(RepositoryError, match=rf"its md5 is .* Nothing has changed\. The last good transaction is {plain.all[3]} of"):
        plain.restore()
    assert not plain.target.exists()
    flip(plain.file(next(iter(plain.backups))), 200)
    with pytest.raises(RepositoryError, match=r"Nothing has changed\. No transaction before can be restored\.$"):
        plain.restore()


def test_the_last_good_transaction_may_lie_in_an_older_chain(world: World) -> None:
    world.add(2)
    world.backup()
    world.add(2)
    flip(world.file(world.backup(full="weekly")), 60)
    sentence = world.refused("2026-03-02")
    assert f"The last good transaction is {world.all[1]} of" in sentence
    assert world.restored(tid=world.all[1]) == world.prefix(world.all[1])


def test_an_acknowledged_backup_without_its_line_is_no_interrupted_one(plain: World) -> None:
    """confops.json says that it was stored: to leave it out would restore an older state than the newest."""
    [dat] = plain.repository.glob("*.dat")
    dat.write_text("".join(dat.read_text().splitlines(keepends=True)[:-1]))
    sentence = plain.refused()
    assert f"{plain.file(list(plain.backups)[3]).name} is here, but {dat.name} does not list it." in sentence
    assert f"The last good transaction is {plain.all[5]} of" in sentence
    assert "The last good transaction is" in plain.refused("2026-03-02")
    assert plain.restored(tid=plain.all[5]) == plain.prefix(plain.all[5])


def test_a_line_that_is_damaged_tells_that_its_backup_was_finished(plain: World) -> None:
    """Without confops.json too: an interrupted run leaves at most a line without an end."""
    (plain.repository / "confops.json").unlink()
    [dat] = plain.repository.glob("*.dat")
    sound = dat.read_bytes()
    dat.write_bytes(sound[:-10] + b"?" + sound[-9:])
    assert f"The last good transaction is {plain.all[5]} of" in plain.refused()
    assert f"The last good transaction is {plain.all[5]} of" in plain.refused("2026-03-02")
    dat.write_bytes(sound[:-10])
    assert "is left out, since nothing tells that its backup was finished" in plain.restore().plan.warnings[-1]


def test_a_full_backup_that_vanished_is_missed(world: World) -> None:
    """Its .dat file tells of it; the chain before ends earlier."""
    world.add(2)
    world.backup()
    world.add(2)
    path = world.file(world.backup(full="weekly"))
    path.unlink()
    for sentence in (world.refused(), world.refused("2026-03-02")):
        assert f"{path.stem}.dat belongs to no backup here. The last good transaction is {world.all[1]} of" in sentence
    assert world.restored(tid=world.all[1]) == world.prefix(world.all[1])


def test_a_transaction_comes_from_another_chain_when_one_is_damaged(world: World) -> None:
    """The damage lies before the file that holds it, so only the run finds it, and check mode, which reads the same."""
    world.add(2)
    first = world.backup()
    world.add(2)
    world.backup()
    world.backup(full="weekly")
    flip(world.file(first), -5)
    tid = world.all[3]
    assert world.restored(tid=tid) == world.prefix(tid)
    world.target.unlink()
    for check in (True, False):
        [warning] = world.restore(tid=tid, check=check).plan.warnings
        assert f"{world.file(first).name} is damaged" in warning


def test_a_newest_backup_that_vanished_is_told(plain: World) -> None:
    [dat] = plain.repository.glob("*.dat")
    dat.write_text("".join(dat.read_text().splitlines(keepends=True)[:-1]))
    plain.file(list(plain.backups)[3]).unlink()
    end = plain.ends[6]
    assert plain.restore().plan.warnings == [
        "2026-03-01-12-00-12.deltafs, which confops.json remembers, is missing.",
        f"confops.json remembers the chain 2026-03-01-12-00-03 up to byte {plain.ends[8]} of the database; the repository holds {end} bytes of that.",
    ]


def append(world: World, name: str, content: bytes) -> None:
    """Add an incremental backup to the only chain, as another program may have made it."""
    (world.repository / name).write_bytes(content)
    [dat] = world.repository.glob("*.dat")
    start = int(dat.read_text().split()[-2])
    digest = _repozo.hashlib.md5(content, usedforsecurity=False).hexdigest()
    with dat.open("a") as stream:
        stream.write(f"{world.repository}/{name} {start} {start + len(content)} {digest}\n")


def test_an_incremental_backup_of_nothing_holds_nothing(plain: World) -> None:
    """Stock repozo makes one while a transaction is being written."""
    append(plain, "2026-03-01-12-30-00.deltafs", b"")
    plain.clock = 3600
    plain.add(2)
    append(plain, "2026-03-01-13-30-00.deltafs", plain.path.read_bytes()[plain.ends[8] :])
    assert plain.restored() == plain.path.read_bytes()
    for tid in plain.all:
        assert plain.restored(tid=tid) == plain.prefix(tid)
    assert plain.restored("2026-03-01T12:59:00Z") == plain.prefix(plain.all[7])
    assert tids(listed(plain)) == plain.all


def test_a_chain_that_begins_with_an_empty_database(world: World) -> None:
    (world.repository / "2026-03-01-11-00-00.fs").write_bytes(b"FS21")
    digest = _repozo.hashlib.md5(b"FS21", usedforsecurity=False).hexdigest()
    (world.repository / "2026-03-01-11-00-00.dat").write_text(f"{world.repository}/2026-03-01-11-00-00.fs 0 4 {digest}\n")
    world.add(2)
    append(world, "2026-03-01-13-00-00.deltafs", world.path.read_bytes()[4:])
    for tid in world.all:
        assert world.restored(tid=tid) == world.prefix(tid)
    assert "before everything" in world.refused("2026-02-28")


@pytest.mark.parametrize("same_file", [True, False])
def test_transactions_that_do_not_ascend_tell_no_time(plain: World, same_file: bool) -> None:
    last = plain.all[7] if not same_file else plain.all[6]
    content = record(bytes.fromhex(last), b"again") if not same_file else record(tid_of(START + timedelta(hours=2)), b"x") + record(bytes.fromhex(last), b"y")
    append(plain, "2026-03-01-15-00-00.deltafs", content)
    if same_file:
        assert "is not newer than" in plain.refused("2026-03-02")
    assert plain.restored(tid=plain.all[5]) == plain.prefix(plain.all[5])
    assert "2026-03-01-15-00-00.deltafs is damaged: it begins with the transaction" in plain.refused()


def test_nothing_is_read_twice_by_a_newest_restore(plain: World, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = _repository.blocks
    monkeypatch.setattr(_repository, "blocks", lambda path, *options: (read.append(Path(path).name), original(path, *options))[1])
    plain.restore()
    names = [plain.file(stamp).name for stamp in plain.backups]
    assert sorted(read) == sorted([*names, names[-1]]), "only the newest, which is small, is read before to tell its last transaction"
    read.clear()
    plain.restore(_history.iso(plain.times[plain.all[3]] + HALF))
    assert sorted(read) == sorted([*names[:2], names[1], names[2]])


# Clocks that were wrong (B9)


@pytest.fixture
def ahead(plain: World) -> World:
    """The last three of the eleven transactions lie years in the future."""
    plain.clock = int(timedelta(days=9 * 365).total_seconds())
    plain.add(2)
    append(plain, "2026-03-01-15-00-00.deltafs", plain.path.read_bytes()[plain.ends[8] :])
    plain.add(1)
    append(plain, "2026-03-01-16-00-00.deltafs", plain.path.read_bytes()[plain.ends[10] :])
    return plain


def test_the_newest_restores_what_lies_in_the_future_and_says_so(ahead: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """B9."""
    assert ahead.restored() == ahead.path.read_bytes()
    [warning] = ahead.restore(check=True).plan.warnings
    assert warning.startswith(f"3 transactions are from the future, by this host's clock; the newest is {ahead.all[-1]} of 2035-02-27T")
    monkeypatch.setattr(_restore, "_READ_FOR_LAST", 0)
    ahead.target.unlink()
    assert ahead.restore().plan.warnings == [warning]


def test_a_time_says_what_it_leaves_out_since_a_clock_was_wrong(ahead: World) -> None:
    """B9: a restore to the present moment left out later transactions silently."""
    now = _history.iso(datetime.now(timezone.utc))
    result = ahead.restore(now)
    assert ahead.target.read_bytes() == ahead.prefix(ahead.all[7])
    [warning] = result.plan.warnings
    assert f"leaves out transactions: 3 transactions are from the future, by this host's clock; the newest is {ahead.all[-1]} of 2035" in warning
    assert ahead.restore("2026-03-01T12:00:02Z").plan.warnings == [], "what comes after that time was not committed before it"
    assert ahead.restore(tid=ahead.all[8]).plan.warnings == []
    assert ahead.restored(tid=ahead.all[8]) == ahead.prefix(ahead.all[8])


def test_the_live_database_may_lie_in_the_future_too(plain: World) -> None:
    plain.clock = int(timedelta(days=9 * 365).total_seconds())
    plain.add(2)
    result = plain.restore(_history.iso(datetime.now(timezone.utc)), live=str(plain.path))
    assert plain.target.read_bytes() == plain.prefix(plain.all[7])
    assert f"2 transactions are from the future, by this host's clock; the newest is {plain.all[-1]}" in " ".join(result.plan.warnings)


# The target


def test_the_target_must_be_confirmed(chain: World) -> None:
    chain.target.parent.mkdir()
    chain.target.write_bytes(b"precious")
    says = f"{chain.target} exists. To have it replaced (it is kept under another name), set confirm to its path"
    assert chain.refused(confirm=None) == f"{says}."
    assert chain.refused(confirm="yes") == f"{says}; it is 'yes'."
    assert chain.restored() == chain.path.read_bytes()
    [old] = kept(chain.target.parent)
    assert old.read_bytes() == b"precious"


@pytest.mark.parametrize("path", ["Data.fs", "/nowhere/at/all/Data.fs", "/tmp/../tmp/Data.fs", "/tmp"])
def test_targets_that_make_no_sense(chain: World, path: str) -> None:
    request = chain.request()
    request.target = request.confirm = path
    with pytest.raises(RepositoryError, match=r"must be an absolute path|does not exist|is a directory, not a file"):
        _restore.restore(request)


def test_a_link_is_not_replaced(chain: World) -> None:
    chain.target.parent.mkdir()
    chain.target.symlink_to(chain.path)
    assert chain.refused() == f"{chain.target} is a link to {chain.path}, which a restore would not replace. Set target to the path of the file."
    chain.target.unlink()
    chain.target.symlink_to("nowhere")
    assert f"is a link to {chain.target.parent}/nowhere" in chain.refused()


def test_a_target_in_a_linked_directory_is_replaced_there(chain: World) -> None:
    (chain.directory / "disk2").mkdir()
    chain.target.parent.symlink_to(chain.directory / "disk2")
    (chain.directory / "disk2/Data.fs").write_bytes(b"old")
    chain.restore()
    assert chain.target.parent.is_symlink()
    assert (chain.directory / "disk2/Data.fs").read_bytes() == chain.path.read_bytes()
    assert [path.read_bytes() for path in kept(chain.directory / "disk2")] == [b"old"]


def test_owner_and_mode(chain: World) -> None:
    chain.target.parent.mkdir()
    chain.target.write_bytes(b"old")
    chain.target.chmod(0o640)
    user, group = (1, 2) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(chain.target, user, group)

    def attributes() -> tuple[int, int, int]:
        found = chain.target.stat()
        return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)

    chain.restored()
    assert attributes() == (user, group, 0o640)
    lock = chain.target.with_name("Data.fs.lock").stat()
    assert (lock.st_uid, lock.st_gid) == (user, group), "the next server must be able to open it"
    content = chain.target.stat()
    result = chain.restore(mode="0600", owner=str(os.geteuid()), group=str(os.getegid()))
    assert attributes() == (os.geteuid(), os.getegid(), 0o600)
    assert (result.plan.changed, result.plan.content, chain.target.stat().st_ino) == (True, False, content.st_ino)
    assert not chain.restore(mode="0600").plan.changed
    assert "the mode is '416'" in chain.refused(mode="416").lower()
    assert "does not know the owner nobody-there" in chain.refused(owner="nobody-there")


def test_a_second_run_changes_nothing(chain: World) -> None:
    for wanted in ({}, {"tid": chain.all[7]}, {"tid": chain.all[4]}, {"moment": chain.all and "2026-03-01T12:00:02Z"}, {"live": str(chain.path)}):
        assert chain.restore(**wanted).plan.changed
        before = everything(chain.directory)
        result = chain.restore(**wanted)
        assert (result.plan.changed, result.md5, result.replaced) == (False, None, None)
        assert everything(chain.directory) == before
        flip(chain.target, 100)
        assert chain.restore(**wanted).plan.changed
        assert chain.restore(**wanted).plan.changed is False
        chain.target.unlink()


def test_the_index_goes_with_its_database(chain: World) -> None:
    chain.target.parent.mkdir()
    for name in ("Data.fs", "Data.fs.index", "Data.fs.tmp", "Data.fs.pack", "Data.fs.old", "Data.fs.lock"):
        (chain.target.parent / name).write_text(name)
    result = chain.restore()
    replaced = Path(result.replaced or "").name
    assert re.fullmatch(r"Data\.fs\.replaced-\d{4}(-\d\d){5}", replaced)
    assert {path.name: path.read_text() for path in chain.target.parent.iterdir() if path.name != "Data.fs"} == {
        replaced: "Data.fs",
        f"{replaced}.index": "Data.fs.index",
        "Data.fs.old": "Data.fs.old",
        "Data.fs.lock": "Data.fs.lock",
    }


def test_a_stale_index_without_a_database_goes(chain: World) -> None:
    chain.target.parent.mkdir()
    chain.target.with_name("Data.fs.index").write_text("stale")
    chain.restored()
    assert not chain.target.with_name("Data.fs.index").exists()


HOLD = """
import fcntl, sys, time
stream = open(sys.argv[1], "r+")
fcntl.flock(stream, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(chain: World) -> Iterator[int]:
    chain.target.parent.mkdir()
    chain.target.write_bytes(b"served")
    lock = chain.target.with_name("Data.fs.lock")
    lock.write_text(" 1\n")
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        yield process.pid
        process.kill()


def test_a_database_that_is_served_is_refused(chain: World, holder: int) -> None:
    """Check mode only warns: a plan is made before the server is stopped."""
    (sentence,) = _restore.restore(chain.request(), check=True).plan.warnings
    with pytest.raises(RepositoryError) as refusal:
        _restore.restore(chain.request())
    assert str(refusal.value) == sentence
    # Some file systems show another device in /proc/locks than stat does.
    assert sentence in [f"{chain.target} is in use by {who}: stop its server first. Nothing has changed." for who in (f"process {holder}", "another process")]
    assert chain.target.read_bytes() == b"served"


def test_a_lock_file_alone_says_nothing(chain: World) -> None:
    chain.target.parent.mkdir()
    chain.target.with_name("Data.fs.lock").write_text(" 12345\n")
    assert chain.restored() == chain.path.read_bytes()
    assert chain.target.with_name("Data.fs.lock").read_text() == " 12345\n"


def test_no_server_can_start_meanwhile(chain: World, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = []

    def try_to_start(source: str, target: str, original: Callable[[str, str], None] = os.replace) -> None:
        if target == str(chain.target):
            with chain.target.with_name("Data.fs.lock").open("r+") as stream, pytest.raises(BlockingIOError):
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            refused.append(target)
        original(source, target)

    monkeypatch.setattr(os, "replace", try_to_start)
    chain.restore()
    assert refused


def test_a_repository_in_use_is_refused(chain: World) -> None:
    with _repository.lock(str(chain.repository)):
        assert "is in use" in chain.refused()


# Space, errors and kills


def test_too_little_space(chain: World, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = chain.path.stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    assert chain.refused() == (
        f"The restored database needs up to {needed} bytes on the file system of {chain.target.parent}, which has {needed - 1} free;"
        " nothing that was there has changed."
    )
    assert chain.restore(tid=chain.all[2]).plan.needed_bytes == 4 + 3 * 431
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed))
    assert chain.restored() == chain.path.read_bytes()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fails_while_it_is_written(chain: World, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    chain.target.parent.mkdir()
    for name in ("Data.fs", "Data.fs.index", "Data.fs.lock"):
        (chain.target.parent / name).write_text(name)
    before = everything(chain.directory)
    written = []

    def put(stream: Any, data: bytes, original: Callable[[Any, bytes], None] = _restore._put) -> None:
        if written:
            raise OSError(error, os.strerror(error))
        original(stream, data)
        written.append(data)

    monkeypatch.setattr(_restore, "_put", put)
    with pytest.raises(RepositoryError, match=rf"could not be restored: {os.strerror(error)}\. Nothing has changed\.$"):
        chain.restore()
    assert written
    assert everything(chain.directory) == before


def test_a_file_that_cannot_grow_changes_nothing(chain: World) -> None:
    """The kernel's limit on a file's size stands for a full disk, which only root can make."""
    chain.target.parent.mkdir()
    for name in ("Data.fs", "Data.fs.index", "Data.fs.lock"):
        (chain.target.parent / name).write_text(name)
    before, request = everything(chain.directory), chain.request()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(RepositoryError, match=r"/Data\.fs could not be restored: File too large\. Nothing has changed\.$"):
            _restore.restore(request)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert everything(chain.directory) == before
    assert chain.restored() == chain.path.read_bytes()


@pytest.mark.parametrize("dated", [True, False])
def test_a_transaction_of_no_day(chain: World, dated: bool) -> None:
    tid = struct.pack(">LL", ((126 * 12 + 3) * 31 + 30) * 1440, 0)  # 31 April 2026
    [file] = chain.repository.glob("*.deltafs")
    (chain.repository / _repository.STATE).unlink()
    content = record(tid, b"x" * 50)
    file.write_bytes(content)
    [dat] = chain.repository.glob("*.dat")
    *lines, last = dat.read_text().splitlines()
    path, start, _end, _md5 = last.split()
    digest = _repozo.hashlib.md5(content, usedforsecurity=False).hexdigest()
    dat.write_text("\n".join([*lines, f"{path} {start} {int(start) + len(content)} {digest}"]) + "\n")
    sentence = f"The transaction {tid.hex()} stands for no moment of the calendar: it is damaged."
    assert sentence in (chain.refused("2026-05-01") if dated else chain.refused())
    assert chain.restored(tid=chain.all[5]) == chain.prefix(chain.all[5])


@pytest.mark.parametrize(("name", "call"), [("link", 0), ("replace", 0), ("replace", 1), ("fsync", 0), ("fchown", 0)])
def test_a_call_that_fails_changes_nothing(chain: World, monkeypatch: pytest.MonkeyPatch, name: str, call: int) -> None:
    chain.target.parent.mkdir()
    for each in ("Data.fs", "Data.fs.index", "Data.fs.tmp", "Data.fs.lock"):
        (chain.target.parent / each).write_text(each)
    before = everything(chain.directory)
    calls, original = [], getattr(os, name)

    def fail(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == call + 1:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return original(*arguments, **options)

    monkeypatch.setattr(os, name, fail)
    with pytest.raises(RepositoryError, match=r"could not be restored: Operation not permitted\. Nothing has changed\."):
        chain.restore()
    assert len(calls) >= call + 1
    assert everything(chain.directory) == before
    monkeypatch.undo()
    assert chain.restored() == chain.path.read_bytes()


CALLS = ("open", "link", "replace", "fsync", "unlink", "fchown", "fchmod", "close")


def killed(run: Callable[[], object], number: int, after: bool) -> bool:
    """Run it in another process that dies before or after the call of that number, of those that change files. Return whether it died."""
    child = os.fork()
    if child == 0:
        count = 0

        def dying(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                now = count == number  # there are several threads
                if now and not after:
                    os._exit(9)
                try:
                    return original(*arguments, **options)
                finally:
                    if now:
                        os._exit(9)

            return call

        try:
            for name in CALLS:
                setattr(os, name, dying(getattr(os, name)))
            _restore._put = dying(_restore._put)
            run()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_moment(chain: World, after: bool) -> None:
    directory = chain.target.parent
    new, number, died = chain.path.read_bytes(), 0, True
    while died:
        number += 1
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        old = {name: name.encode() for name in ("Data.fs", "Data.fs.index", "Data.fs.tmp", "Data.fs.pack")}
        for name, content in old.items():
            (directory / name).write_bytes(content)
        died = killed(lambda: _restore.restore(chain.request()), number, after)
        now = chain.target.read_bytes()
        index = directory / "Data.fs.index"
        assert now in (new, b"Data.fs")
        assert now != new or not index.exists(), "an index is never beside the wrong database"
        result = _restore.restore(chain.request())
        assert chain.target.read_bytes() == new
        assert result.plan.changed == (now != new)
        [replaced] = kept(directory)
        assert replaced.read_bytes() == b"Data.fs"
        assert replaced.with_name(f"{replaced.name}.index").read_bytes() == b"Data.fs.index"
        assert not index.exists()
        assert not leftovers(directory)
    assert number > 15


def test_killed_without_an_old_database(chain: World) -> None:
    died, number = True, 0
    while died:
        number += 1
        shutil.rmtree(chain.target.parent, ignore_errors=True)
        chain.target.parent.mkdir()
        died = killed(chain.restore, number, False)
        assert not chain.target.exists() or chain.target.read_bytes() == chain.path.read_bytes()
        chain.restore()
        assert {path.name for path in chain.target.parent.iterdir()} == {"Data.fs", "Data.fs.lock"}
    assert number > 8


CHANGES = ("open", "link", "replace", "fsync", "unlink", "fchown", "fchmod", "write")


@contextmanager
def failing(number: int, after: bool, code: int) -> Iterator[list[str]]:
    """Let the call of that number, of those that change files, fail before or after it took effect. Yields what was called."""
    called: list[str] = []

    def instead(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return original(*arguments, **options)
            called.append(name)
            now = len(called) == number
            if now and (not after or name == "open"):  # what was opened would stay open
                raise OSError(code, os.strerror(code))
            result = original(*arguments, **options)
            if now:
                raise OSError(code, os.strerror(code))
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGES[:-1]:
            patch.setattr(os, name, instead(name, getattr(os, name)))
        patch.setattr(_restore, "_put", instead("write", _restore._put))
        yield called


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("old", [True, False])
def test_an_error_of_the_system_at_any_call_says_what_is_there_now(chain: World, old: bool, after: bool) -> None:
    """B20: the old database or the new one is there, and the sentence tells which. The next run ends it."""
    directory, new, number, called, seen = chain.target.parent, chain.path.read_bytes(), 0, ["open"], set()
    while number <= len(called):
        number += 1
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        for name in ("Data.fs.index", "Data.fs.tmp", ".confops-1-Data.fs", *(["Data.fs", "Data.fs.pack"] if old else [])):
            (directory / name).write_text(name)
        before = {path.name: content for path, (content, _inode, _time) in everything(directory).items() if not path.name.startswith(".confops-")}
        failed, sentence = False, ""
        with failing(number, after, [errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT][number % 4]) as called:
            try:
                _restore.restore(chain.request())
            except RepositoryError as error:
                failed, sentence = True, str(error)
        now = {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.startswith(".confops-") and path.suffix != ".lock"}
        if now.get("Data.fs") == new:
            assert not failed or "Data.fs is restored" in sentence
            assert "Data.fs.index" not in now
        else:
            assert failed or number > len(called)
            assert now.get("Data.fs") == before.get("Data.fs")
            assert "The old database has its name" in sentence or now == before or (not old and "Data.fs.index, an index of no database, is gone" in sentence)
            assert "as changed" not in sentence or now == before, sentence
        seen.update(called[number - 1 : number])
        _restore.restore(chain.request())
        assert chain.target.read_bytes() == new
        assert [path.read_bytes() for path in kept(directory)] == ([b"Data.fs"] if old else [])
        assert not leftovers(directory)
    assert seen >= ({*CHANGES} if old else {*CHANGES} - {"link"})


# What is not a file, and what this user may not do


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def as_directory(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def socket_file(path: Path) -> None:
    path.unlink(missing_ok=True)
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize(("put", "word"), [(fifo, "FIFO"), (as_directory, "directory"), (socket_file, "socket")])
@pytest.mark.parametrize("suffix", ["", ".lock", ".index", ".tmp", ".pack"])
def test_a_target_that_is_no_file_is_refused_at_once(chain: World, put: Callable[[Path], None], word: str, suffix: str) -> None:
    """B4."""
    chain.target.parent.mkdir()
    path = chain.target.with_name(f"Data.fs{suffix}")
    put(path)
    sentence = chain.refused()
    assert sentence.startswith(f"{path} is a ")
    assert sentence.lower().endswith(f"{word.lower()}, not a file. remove it first.")


@pytest.mark.parametrize("put", [fifo, as_directory, socket_file])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_data_file_that_is_no_file_is_refused_at_once(chain: World, put: Callable[[Path], None], which: int) -> None:
    """B4."""
    put(chain.file(list(chain.backups)[which]))
    for wanted in ({}, {"moment": "2026-03-02"}, {"tid": chain.all[-1]}):
        assert "damaged" in (sentence := chain.refused(**wanted)) or "not a file" in sentence
    assert _history.open_repository(str(chain.repository))[1] + listed(chain).warnings
    if which:
        assert chain.restored(tid=chain.all[0]) == chain.prefix(chain.all[0])


@pytest.mark.parametrize("put", [fifo, as_directory, socket_file])
def test_a_live_database_that_is_no_file_is_refused_at_once(chain: World, put: Callable[[Path], None]) -> None:
    """B4."""
    put(chain.directory / "live")
    assert "live is a " in (sentence := chain.refused(live=str(chain.directory / "live"))) and "not a file" in sentence


def as_nobody(action: Callable[[], object]) -> str:
    """Return what the action raises for a user who owns nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing"
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            action()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    said = os.read(reading, 10000).decode()
    os.close(reading)
    os.waitpid(child, 0)
    return said


@pytest.fixture
def open_to_all(chain: World) -> Iterator[World]:
    """A world that everybody may read, and whose target nobody else may write."""
    chain.target.parent.mkdir()
    for path in (*chain.directory.rglob("*"), chain.directory, *chain.directory.parents):
        if path.owner() == "root" and path.is_relative_to(tempfile.gettempdir()) and path != Path(tempfile.gettempdir()):
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    chain.target.parent.chmod(0o755)
    return chain


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@needs_root
def test_check_mode_refuses_what_this_user_may_not_do(open_to_all: World) -> None:
    """B13: the run's sentence."""
    target = open_to_all.target
    request = open_to_all.request()

    def both() -> set[str]:
        return {as_nobody(lambda: _restore.restore(request, check=True)), as_nobody(lambda: _restore.restore(request))}

    assert both() == {f"RepositoryError: {target.parent} is not writable for user nobody."}
    target.parent.chmod(0o777)
    target.write_bytes(b"old")
    assert both() == {f"RepositoryError: Only root can give {target} to user 0 and group 0. Run this as root, or set owner and group."}
    target.with_name("Data.fs.lock").touch(0o600)
    assert both() == {f"RepositoryError: {target}.lock cannot be opened by this user, so nobody can tell whether {target} is in use."}
    target.with_name("Data.fs.lock").unlink()
    target.unlink()
    assert as_nobody(lambda: _restore.restore(request)) == "nothing"
    assert target.read_bytes() == open_to_all.path.read_bytes()


@needs_root
def test_check_mode_refuses_a_read_only_file_system(chain: World) -> None:
    """B13: the run's sentence."""
    chain.target.parent.mkdir()
    if subprocess.run(["mount", "--bind", chain.target.parent, chain.target.parent], check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("this host lets nobody mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", chain.target.parent], check=True)
        assert chain.refused() == f"{chain.target.parent} is on a read-only file system."
    finally:
        subprocess.run(["umount", chain.target.parent], check=True)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"owner": "99999999999999999999"}, "The owner is 99999999999999999999; a number of a user or group is at most 4294967294."),
        ({"group": "4294967295"}, "The group is 4294967295; a number of a user or group is at most 4294967294."),
        ({"owner": "-1"}, "This host does not know the owner -1."),
        ({"owner": "nan"}, "This host does not know the owner nan."),
        ({"owner": "²"}, "This host does not know the owner ²."),
        ({"mode": "1e99"}, "The mode is '1e99'"),
        ({"mode": "-0600"}, "The mode is '-0600'"),
        ({"mode": "99999999999999999999"}, "The mode is '99999999999999999999'"),
    ],
)
def test_numbers_that_are_none(chain: World, options: dict[str, str], sentence: str) -> None:
    """B17."""
    assert chain.refused(**options).startswith(sentence)


# Any history


@settings(max_examples=60)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(1, 4), st.integers(20, 300)),
            st.tuples(st.just("backup"), st.booleans(), st.sampled_from(["gzip", "none"])),
            st.tuples(st.just("pack"), st.integers(1, 5), st.integers(0, 3)),
        ),
        min_size=3,
        max_size=25,
    ),
    st.data(),
)
def test_any_history_restores_to_any_transaction(history: list[Any], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory))
        world.add(2)
        for what, first, second in history:
            if what == "add":
                world.add(first, second)
            elif what == "backup":
                world.backup(full="by chance" if first else "", compression=second)
            elif len(world.tids) > first and world.rewritten <= len(world.tids) - first:
                world.pack(first, second)
        world.backup()
        listing = _history.listed(_history.open_repository(str(world.repository))[0], None, None, 1000, None)
        assert [one.tid.hex() for one in listing.records] == [tid for tid in world.all if tid in world.whole]
        for tid in data.draw(st.lists(st.sampled_from(world.all), min_size=1, max_size=4)):
            if tid in world.whole:
                assert world.restored(tid=tid) in world.whole[tid]
                assert world.restored(_history.iso(world.times[tid] + HALF)) in world.whole[tid]
            else:
                assert "is not in the repository" in (sentence := world.refused(tid=tid)) or "was rewritten by a pack" in sentence


# Listing


def listed(world: World, since: str | None = None, until: str | None = None, limit: int = 1000, live: str | None = None) -> _history.Listing:
    begin = _history.moment_of(since, end=False) if since else None
    end = _history.moment_of(until) if until else None
    return _history.listed(_history.open_repository(str(world.repository))[0], begin, end, limit, live)


def tids(listing: _history.Listing) -> list[str]:
    return [one.tid.hex() for one in listing.records]


def test_a_window(three: World) -> None:
    reachable = [tid for tid in three.all if tid in three.whole]
    assert tids(listed(three)) == reachable
    for first in (0, 3, 7, 12, len(reachable) - 2):
        for last in (first, first + 1, len(reachable) - 1):
            since, until = _history.iso(three.times[reachable[first]]), _history.iso(three.times[reachable[last]])
            assert tids(listed(three, since, until)) == reachable[first : last + 1]
    newest = listed(three, limit=2)
    assert (tids(newest), newest.more) == (reachable[-2:], True)
    assert not listed(three, limit=len(reachable)).more
    assert tids(listed(three, "2027-01-01")) == tids(listed(three, until="2025-01-01")) == []


def test_a_window_over_days_passes_over_other_chains(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(6):
        world.clock = day * 86400
        world.add(2)
        world.backup(full="daily")
    read: list[str] = []
    original = _history.file_records
    monkeypatch.setattr(_history, "file_records", lambda path, file, entry: (read.append(file.name), original(path, file, entry))[1])
    assert tids(listed(world, "2026-03-05", "2026-03-05")) == world.all[8:10]
    assert [name[:10] for name in read] == ["2026-03-04", "2026-03-05", "2026-03-06"]


def test_the_live_database_is_listed_too(chain: World) -> None:
    chain.add(2)
    assert tids(listed(chain)) == chain.all[:-2]
    assert tids(listed(chain, live=str(chain.path))) == chain.all
    assert tids(listed(chain, until=_history.iso(chain.times[chain.all[-2]]), live=str(chain.path))) == chain.all[:-1]
    chain.pack(3)
    listing = listed(chain, live=str(chain.path))
    assert tids(listing) == chain.all[:-2]
    assert "does not continue the newest chain" in listing.warnings[0]


def test_transactions_of_a_damaged_file_are_not_listed(three: World) -> None:
    stamp = list(three.backups)[1]
    path = three.file(stamp)
    content = path.read_bytes()
    path.write_bytes(content[:500] + b"\xff" * (len(content) - 500))
    listing = listed(three)
    assert [sentence for sentence in listing.warnings if stamp in sentence]
    assert three.all[3] in tids(listing)
    assert three.all[4] not in tids(listing), "a restore compares the whole file and refuses"
    assert three.all[-1] in tids(listing)


@pytest.mark.parametrize("bit", [0, 6, 9, 33])
@pytest.mark.parametrize("number", [1, 2])
def test_a_list_never_shows_a_time_that_a_flipped_bit_made(chain: World, number: int, bit: int) -> None:
    """B2: what is listed can be restored, or a warning says what is damaged."""
    flip_bit(chain.file(list(chain.backups)[number]), bit)
    for since, until in ((None, None), ("2026-03-01T12:00:02Z", "2026-03-01T12:00:06Z"), (None, "2026-03-02"), ("2026-03-01T12:00:06Z", None)):
        listing = listed(chain, since, until)
        assert set(tids(listing)) <= set(chain.all)
        first, last = _history.moment_of(since or "1970-01-01", end=False), _history.moment_of(until or "2030-01-01")
        assert listing.warnings or tids(listing) == [tid for tid in chain.all if first <= chain.times[tid] <= last]
        for tid in tids(listing):
            assert chain.restore(tid=tid, check=True).plan.last_transaction == _transaction(tid)


# The module


def module(capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    """Run the module and return its answer."""
    with patch_module_args(options), pytest.raises(SystemExit):
        repozo_restore.main()
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    answer.pop("invocation", None)
    return answer


def test_the_module_checks_runs_and_then_has_nothing_to_do(chain: World, capsys: pytest.CaptureFixture[str]) -> None:
    chain.request()
    old = b"old"
    chain.target.write_bytes(old)
    options = {
        "repository": str(chain.repository),
        "target": str(chain.target),
        "confirm": str(chain.target),
        "transaction": chain.all[4],
        "_ansible_diff": True,
    }
    checked = module(capsys, **options, _ansible_check_mode=True)
    assert chain.target.read_bytes() == old
    ran = module(capsys, **options)
    again = module(capsys, **options)
    content = chain.prefix(chain.all[4])
    assert chain.target.read_bytes() == content
    for answer in (checked, ran):
        for name in ("seconds", "free_bytes"):
            assert answer.pop(name) > 0
    [replaced] = kept(chain.target.parent)
    expected = {
        "changed": True,
        "file": str(chain.target),
        "bytes": len(content),
        "last_transaction": {"tid": chain.all[4], "time": "2026-03-01T12:00:06.000000Z", "user": "", "description": ""},
        "chain": "2026-03-01-12-00-04",
        "files": ["2026-03-01-12-00-04.fsz", "2026-03-01-12-00-08.deltafsz"],
        "live_bytes": 0,
        "replaces": {"bytes": 3, "last_transaction": None},
        "needed_bytes": len(content),
    }
    digest = _repozo.hashlib.md5(content, usedforsecurity=False).hexdigest()
    assert ran.pop("diff") == checked.pop("diff")
    assert {**checked, "md5": digest, "replaced": str(replaced)} == {**expected, "md5": digest, "replaced": str(replaced)} == ran
    assert (checked["md5"], checked["replaced"]) == (None, None)
    assert again["changed"] is False
    assert again["diff"]["before"] == again["diff"]["after"]


def test_the_module_lists(chain: World, capsys: pytest.CaptureFixture[str]) -> None:
    chain.add(1, user=" /ada", description="geändert")
    options = {"repository": str(chain.repository), "live": str(chain.path), "state": "listed"}
    answer = module(capsys, **options, since="2026-03-01T12:00:11Z", until="2026-03-01")
    assert answer["transactions"] == [
        {"tid": chain.all[8], "time": "2026-03-01T12:00:11.000000Z", "user": "", "description": "", "bytes": 431},
        {"tid": chain.all[9], "time": "2026-03-01T12:00:13.000000Z", "user": " /ada", "description": "geändert", "bytes": 445},
    ]
    assert (answer["changed"], answer["more"]) == (False, False)


@pytest.mark.parametrize("limit", [0, -1, 99999999999999999999, "nan", "inf", "1e99", 1.5])
def test_a_limit_that_is_none(chain: World, capsys: pytest.CaptureFixture[str], limit: Any) -> None:
    """B17."""
    answer = module(capsys, repository=str(chain.repository), state="listed", limit=limit)
    assert answer["failed"]
    assert "limit" in answer["msg"]
    assert "it must be a whole number from 1 to 1000000." in answer["msg"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"time": "2026-03-01", "transaction": "0" * 16}, "mutually exclusive"),
        ({"time": "2026-03-01T12:00:00"}, "names no zone"),
        ({"time": ""}, "is not understood"),
        # B17
        ({"time": "nan"}, "The time 'nan' is not understood"),
        ({"time": "inf"}, "The time 'inf' is not understood"),
        ({"time": "1e99"}, "The time '1e99' is not understood"),
        ({"time": "-1"}, "The time '-1' is not understood"),
        ({"time": 99999999999999999999}, "The time '99999999999999999999' is not understood"),
        ({"time": "0000-01-01"}, "is no moment of the calendar"),
        ({"time": "0001-01-01", "timezone": "Asia/Tokyo"}, "The time 0001-01-01T14:41:00.999999Z is none that a transaction can have"),
        ({"time": "0000-01-01T00:00:00Z"}, "is no moment of the calendar"),
        ({"time": "0001-01-01T00:00:00+23:59"}, "is no moment of the calendar"),
        ({"time": "9999-12-31T23:59:59-23:59"}, "is no moment of the calendar"),
        ({"time": "9999-12-31T23:59:59Z"}, "is none that a transaction can have"),
        ({"time": "99999-01-01"}, "is not understood"),
        ({"state": "listed", "since": "0001-01-01", "until": "1899-01-01"}, "is none that a transaction can have"),
        ({"state": "listed", "since": "9999-12-30"}, "is none that a transaction can have"),
        ({"transaction": 99999999999999999999}, "16 hexadecimal digits. Write it between quotes."),
        ({"transaction": "ffffffffffffffff"}, "is not in the repository"),
        ({"transaction": "04089ae000000000"}, "stands for no moment of the calendar"),
        ({"target": "/tmp/a\0b"}, "target holds a zero byte"),
        ({"transaction": ""}, "16 hexadecimal digits"),
        ({"target": None}, "must be an absolute path"),
        ({"target": "Data.fs"}, "must be an absolute path"),
        ({"repository": "/nowhere"}, "The repository /nowhere cannot be"),
    ],
)
def test_the_module_refuses(chain: World, capsys: pytest.CaptureFixture[str], options: dict[str, Any], sentence: str) -> None:
    chain.request()
    answer = module(capsys, **{"repository": str(chain.repository), "target": str(chain.target), **options})
    assert answer["failed"]
    assert sentence in answer["msg"]


def test_the_module_warns(chain: World, capsys: pytest.CaptureFixture[str]) -> None:
    chain.request()
    answer = module(capsys, repository=str(chain.repository), target=str(chain.target), time="2026-03-02", timezone="Europe/Zurich")
    assert "The newest backup is of 2026-03-01-12-00-12, before the wanted time" in str(answer["warnings"])


def test_a_large_compressed_file_is_not_read_in_advance(chain: World, monkeypatch: pytest.MonkeyPatch) -> None:
    chain.add(2)
    chain.backup()
    monkeypatch.setattr(_restore, "_READ_FOR_LAST", 10)
    checked, result = chain.restore(check=True), chain.restore()
    assert (checked.last_transaction, checked.plan) == (None, result.plan)
    assert result.last_transaction == _filestorage.last_transaction(str(chain.path))
    assert time.strptime(_history.iso(result.last_transaction.time), "%Y-%m-%dT%H:%M:%S.%fZ")
