"""Repositories whose whole history is known: each transaction, each state of the database, each backup.

Our own code makes the backups. What a restore must give is never asked of it, but taken from the history.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import struct
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

from ansible_collections.confops.indico.plugins.module_utils import _offsite, _repository, _repozo, _verify

from tests.unit.storage import record, tid_of

START = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
HEAD = 4  # bytes of a Data.fs before its first transaction
DATA = re.compile(r"\d{4}(?:-\d\d){5}\.(?:delta)?fsz?")
_PLUGINS = "ansible_collections.confops.indico.plugins.module_utils."


class Clock(datetime):
    """What our modules take for datetime: its now() is the moment that the bench sets, and goes on from there."""

    base = START
    since = 0.0

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        return cls.base + timedelta(seconds=time.monotonic() - cls.since)

    @classmethod
    def set(cls, moment: datetime) -> None:
        cls.base, cls.since = moment, time.monotonic()
        for name, module in list(sys.modules.items()):
            if name.startswith(_PLUGINS) and isinstance(getattr(module, "datetime", None), type):
                module.datetime = cls  # type: ignore[attr-defined]


def random_of(*names: object) -> random.Random:
    """Return a random generator for these names; the same ones give the same numbers in each run."""
    return random.Random("/".join(map(str, names)))  # noqa: S311 (the same damage each time)


@dataclass
class Generation:
    """A database between two packs. ends are the offsets (bytes) behind each transaction; before the transaction number whole_from it lacks objects."""

    content: bytes = b"FS21"
    tids: list[bytes] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    whole_from: int = 0

    def add(self, moment: datetime, data: bytes, *, status: bytes = b" ") -> None:
        self.content += record(tid_of(moment), data, status=status, user="admin", description="/event/all")
        self.tids.append(tid_of(moment))
        self.ends.append(len(self.content))


@dataclass
class Backup:
    """One acknowledged backup: the file that it wrote, the generation (number) and how much of it (bytes) there was."""

    name: str
    generation: int
    end: int

    @property
    def stamp(self) -> str:
        return self.name.split(".")[0]


@dataclass
class Template:
    """A sound repository and its history. files maps each name in it to its bytes; now is the moment after the last backup."""

    name: str
    place: Path
    compression: str
    now: datetime
    generations: list[Generation]
    backups: list[Backup]
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def live(self) -> bytes:
        """The database as it is now: some transactions more than in the newest backup."""
        return self.generations[-1].content

    def state(self, backup: Backup) -> bytes:
        return self.generations[backup.generation].content[: backup.end]

    def chains(self) -> list[list[Backup]]:
        found: list[list[Backup]] = []
        for one in self.backups:
            if ".fs" in one.name:
                found.append([])
            found[-1].append(one)
        return found

    def states_at(self, limit: bytes, *, exact: bool, known: Iterable[str]) -> list[bytes]:
        """Return each state that may be restored for a tid: those with the newest transaction up to it. known are the backups that count."""
        candidates: list[tuple[bytes, bytes]] = []
        for number, generation in enumerate(self.generations):
            end = max((one.end for one in self.backups if one.generation == number and one.name in known), default=0)
            there = [index for index, tid in enumerate(generation.tids) if tid <= limit and generation.ends[index] <= end]
            if there and there[-1] >= generation.whole_from and (not exact or generation.tids[there[-1]] == limit):
                candidates.append((generation.tids[there[-1]], generation.content[: generation.ends[there[-1]]]))
        newest = max((tid for tid, _content in candidates), default=b"")
        return [content for tid, content in candidates if tid == newest]


class Maker:
    """Makes a template: rounds of transactions, each followed by a backup."""

    def __init__(self, place: Path, name: str, compression: str, step: timedelta = timedelta(hours=1)) -> None:
        place.mkdir(parents=True)
        self.repository, self.database = place / "repository", place / "Data.fs"
        self.repository.mkdir()
        self.random, self.step, self.round = random_of("template", name), step, 0
        self.template = Template(name, place, compression, START, [Generation()], [])

    def commit(self, number: int = 3, *, ahead: timedelta = timedelta()) -> None:
        generation = self.template.generations[-1]
        for index in range(number):
            size = self.random.randrange(100, 1500)
            data = self.random.randbytes(size // 3) + b"indico " * (size // 9)
            generation.add(START + self.step * self.round + timedelta(seconds=100 * index) + ahead, data)
        self.database.write_bytes(generation.content)

    def back_up(self, *, full: bool = False, compression: str = "") -> None:
        self.template.now = START + self.step * self.round + timedelta(seconds=1800)
        self.round += 1
        Clock.set(self.template.now)
        done = _repozo.backup(str(self.database), str(self.repository), compression=compression or self.template.compression, full="asked" if full else "")
        assert done.file, "the template's backup stored nothing"
        generation = len(self.template.generations) - 1
        self.template.backups.append(Backup(Path(done.file).name, generation, len(self.template.generations[-1].content)))

    def pack(self) -> None:
        """Begin a generation as a pack does: the last transactions stay, rewritten, and the last of them says from where on it is whole."""
        old, packed = self.template.generations[-1], Generation()
        for tid, begin, end in list(zip(old.tids, [HEAD, *old.ends], old.ends))[-4:]:
            kept = old.content[begin + 23 : end - 8][: (end - begin) // 3]
            packed.content += struct.pack(">8sQcHHH", tid, 23 + len(kept), b"p", 0, 0, 0) + kept + struct.pack(">Q", 23 + len(kept))
            packed.tids.append(tid)
            packed.ends.append(len(packed.content))
        packed.whole_from = len(packed.tids) - 1
        self.template.generations.append(packed)

    def end(self, *, verify: bool = True) -> Template:
        """Verify it, add what the next backup will find, and read back what is there."""
        Clock.set(self.template.now)
        if verify:
            assert not _verify.verify(str(self.repository)).problems
        last = self.template.generations[-1].tids[-1]
        self.commit(2, ahead=timedelta(days=1800) if last > tid_of(START + timedelta(days=365)) else timedelta())
        self.template.files = {path.name: path.read_bytes() for path in self.repository.iterdir()}
        return self.template


def _plain(place: Path) -> Template:
    return _one_chain(Maker(place, "plain", "none"), 4)


def _gzip(place: Path) -> Template:
    return _one_chain(Maker(place, "gzip", "gzip"), 4)


def _single(place: Path) -> Template:
    return _one_chain(Maker(place, "single", "gzip"), 0, verify=False)


def _one_chain(maker: Maker, deltas: int, *, verify: bool = True) -> Template:
    maker.commit(12)
    maker.back_up()
    for _delta in range(deltas):
        maker.commit()
        maker.back_up()
    return maker.end(verify=verify)


def _bare(place: Path) -> Template:
    """As stock repozo leaves it: index files, and no memory of ours."""
    maker = Maker(place, "bare", "gzip")
    maker.commit(12)
    maker.back_up()
    for number in range(4):
        maker.commit()
        maker.back_up(compression="none" if number % 2 else "gzip")
    for one in maker.template.backups:
        (maker.repository / f"{one.stamp}.index").write_bytes(b"(index of " + one.stamp.encode() + b")")
    (maker.repository / _repository.STATE).unlink()
    return maker.end(verify=False)


def _chains(place: Path) -> Template:
    """Three chains of one database."""
    maker = Maker(place, "chains", "gzip", timedelta(days=1))
    for number in range(9):
        maker.commit()
        maker.back_up(full=number in (3, 6), compression="none" if number % 4 == 1 else "gzip")
    return maker.end()


def _packed(place: Path) -> Template:
    """A chain, a pack, another chain; the first one is pinned."""
    maker = Maker(place, "packed", "none", timedelta(days=1))
    for number in range(6):
        if number == 3:
            maker.pack()
        maker.commit(5)
        maker.back_up()
    state = json.loads((maker.repository / _repository.STATE).read_text())
    (maker.repository / _repository.STATE).write_text(json.dumps({**state, "pins": [maker.template.backups[0].stamp]}))
    return maker.end()


def _ahead(place: Path) -> Template:
    """The clock was wrong once: the newest transactions lie years ahead (B9)."""
    maker = Maker(place, "ahead", "gzip")
    maker.commit(12)
    maker.back_up()
    for ahead in (0, 0, 1800):
        maker.commit(ahead=timedelta(days=ahead))
        maker.back_up()
    return maker.end()


_MAKERS: list[Callable[[Path], Template]] = [_plain, _gzip, _bare, _chains, _packed, _single, _ahead]


def templates(root: Path) -> dict[str, Template]:
    """Make all templates below root, with what another host has pulled of each. Return them by name."""
    found = {}
    for maker in _MAKERS:
        name = maker.__name__.strip("_")
        found[name] = maker(root / name)
        _pulled(found[name])
    return found


def _pulled(template: Template) -> None:
    """Pull what there was two backups ago to HOST, as another host does."""
    source = template.place / "source/main"
    shutil.copytree(template.place / "repository", source)
    for one in template.backups[-2:]:
        (source / one.name).unlink()
        for dat in source.glob("*.dat"):
            dat.write_text("".join(line for line in dat.read_text().splitlines(keepends=True) if one.name not in line))
    (template.place / "host").mkdir()
    Clock.set(template.now)
    done = _offsite.pull(pull_settings(template.place))
    assert done.ok, done.line()
    shutil.rmtree(template.place / "source")


def pull_settings(place: Path) -> _offsite.Settings:
    return _offsite.Settings("indico", str(place / "host"), ["main"], f"{place / 'source'}/", reserve_mb=0, keep_monthly=0)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
