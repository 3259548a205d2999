"""The kinds of damage: small functions that do something to a copy of a repository, to its database, or to the clock.

The first words of a docstring say what happens; B1 to B22 are the numbers of the faults that the kind comes from.
A function raises NotHere when the copy has nothing of the kind.
"""

from __future__ import annotations

import functools
import gzip
import inspect
import json
import os
import random
import re
import shutil
import socket
import stat
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from tests.hostile.world import Backup, Template, md5
from tests.unit.storage import START, record, tid_of

EVERY = ("backup", "verify", "newest", "time", "transaction", "prune", "pull")


class NotHere(Exception):
    """The kind does not fit to the template, or this user may not do it."""


@dataclass
class Damage:
    """A copy of a template that is to be damaged, and what the damage means for the judge.

    database is the content that a backup must store, None for the one in the template. must_warn: success without a warning is a silent
    error. shift: how far the clock is set on. during: called while our code runs. unprivileged: our code runs as another user.
    """

    template: Template
    place: Path
    random: random.Random
    database: bytes | None = None
    must_warn: bool = False
    shift: timedelta = timedelta(hours=1)
    during: Callable[[], None] | None = None
    unprivileged: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def ahead(self) -> bool:
        """Whether the database ends with transactions of the future, also by the clock as it was set."""
        return self.template.name == "ahead" and self.shift < timedelta(days=1000)

    @property
    def repository(self) -> Path:
        return self.place / "source/main"

    @property
    def live(self) -> Path:
        return self.place / "Data.fs"

    @property
    def state(self) -> Path:
        return self.repository / "confops.json"

    # What there is

    def chain(self) -> list[Backup]:
        return self.template.chains()[-1]

    def some_chain(self) -> list[Backup]:
        return self.random.choice(self.template.chains())

    def deltas(self) -> list[Backup]:
        found = [one for one in self.template.backups if ".delta" in one.name]
        if not found:
            raise NotHere("no incremental backup")
        return found

    def delta(self) -> Path:
        return self.path(self.random.choice(self.deltas()))

    def data(self) -> Path:
        return self.path(self.random.choice(self.template.backups))

    def newest(self) -> Path:
        return self.path(self.template.backups[-1])

    def path(self, one: Backup) -> Path:
        return self.repository / one.name

    def dat(self, chain: list[Backup] | None = None) -> Path:
        return self.repository / f"{(chain or self.chain())[0].stamp}.dat"

    def compressed(self) -> Path:
        found = [one for one in self.template.backups if one.name.endswith("z")]
        if not found:
            raise NotHere("nothing compressed")
        return self.path(self.random.choice(found))

    def plain_file(self) -> Path:
        found = [one for one in self.template.backups if not one.name.endswith("z")]
        if not found:
            raise NotHere("everything compressed")
        return self.path(self.random.choice(found))

    def role(self) -> Path:
        """Return a file of any role: a full, an incremental, a .dat, an index, the memory."""
        roles = [self.path(self.template.backups[0]), self.newest(), self.dat(), self.state]
        roles += [self.path(one) for one in self.deltas()[:2]] if len(self.template.backups) > 1 else []
        roles.append(self.repository / f"{self.template.backups[-1].stamp}.index")
        return self.random.choice(roles)

    def memory(self) -> dict[str, object]:
        if not self.state.exists():
            raise NotHere("no memory")
        return dict(json.loads(self.state.read_text()))

    def lines(self, chain: list[Backup] | None = None) -> list[str]:
        return self.dat(chain).read_text().splitlines(keepends=True)

    # What is done to it

    def unpacked(self, path: Path) -> bytes:
        content = path.read_bytes()
        return gzip.decompress(content) if path.name.endswith("z") else content

    def pack(self, path: Path, content: bytes) -> None:
        path.write_bytes(gzip.compress(content, 1) if path.name.endswith("z") else content)

    def change(self, path: Path, at: int, data: bytes) -> None:
        """Put data into what a data file holds, unpacked."""
        content = bytearray(self.unpacked(path))
        content[at : at + len(data)] = data
        self.pack(path, bytes(content))

    def first_header(self, path: Path) -> int:
        return 0 if ".delta" in path.name else 4

    def headers(self, path: Path) -> list[int]:
        """Return where the transactions begin in what a data file holds."""
        content, position, found = self.unpacked(path), self.first_header(path), []
        while position < len(content):
            found.append(position)
            position += struct.unpack(">Q", content[position + 8 : position + 16])[0] + 8
        return found

    def line_of(self, one: Backup, **changes: object) -> None:
        """Rewrite the line of a backup: start, end, md5 or name."""
        chain = next(chain for chain in self.template.chains() if one in chain)
        lines = self.lines(chain)
        number = chain.index(one)
        name, start, end, digest = lines[number].split()
        told = {"name": name, "start": start, "end": end, "md5": digest, **changes}
        lines[number] = f"{told['name']} {told['start']} {told['end']} {told['md5']}\n"
        self.dat(chain).write_text("".join(lines))

    def special(self, path: Path) -> Path:
        """Make room for something that is no file, and return the name."""
        path.unlink(missing_ok=True)
        return path

    def device(self, path: Path, minor: int) -> None:
        path = self.special(path)
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        except PermissionError as error:
            raise NotHere("only root makes device nodes") from error

    def write_database(self, content: bytes, expected: bytes | None = None) -> None:
        """Replace the database; expected is what of it must be stored."""
        self.live.write_bytes(content)
        self.database = content if expected is None else expected

    def live_headers(self) -> list[int]:
        generation = self.template.generations[-1]
        return [4, *generation.ends[:-1]]


@dataclass(frozen=True)
class Kind:
    """One kind of damage. actions are what is tried upon it.

    harmless: every byte is there, so a refusal is a false alarm. refusable: all is there, but to refuse is right.
    undetectable: actions that cannot know, since all that tells of it was forged too.
    """

    name: str
    damage: Callable[[Damage], None]
    actions: tuple[str, ...] = EVERY
    harmless: bool = False
    refusable: bool = False
    undetectable: tuple[str, ...] = ()

    @property
    def faults(self) -> str:
        return " ".join(re.findall(r"\bB\d+\b", inspect.getdoc(self.damage) or ""))


KINDS: dict[str, Kind] = {}


def kind(
    *, actions: tuple[str, ...] = EVERY, harmless: bool = False, refusable: bool = False, undetectable: tuple[str, ...] = ()
) -> Callable[[Callable[[Damage], None]], Callable[[Damage], None]]:
    def register(function: Callable[[Damage], None]) -> Callable[[Damage], None]:
        name = function.__name__.replace("_", "-")
        KINDS[name] = Kind(name, function, actions, harmless, refusable, undetectable)
        return function

    return register


DATABASE = ("backup",)
FORGED = ("pull",)  # another host has no memory of what was written

# Nothing


@kind(harmless=True)
def nothing(d: Damage) -> None:
    """Nothing is damaged."""


# The content of data files


@kind()
def bit_in_first_tid(d: Damage) -> None:
    """One bit flips in the first tid of an incremental backup (B2)."""
    path = d.delta()
    at = d.random.randrange(8)
    d.change(path, at, bytes([d.unpacked(path)[at] ^ 1 << d.random.randrange(8)]))


@kind()
def high_bit_in_first_tid(d: Damage) -> None:
    """The first incremental backup begins in another century (B2)."""
    path = d.path(d.deltas()[0])
    d.change(path, 0, bytes([d.unpacked(path)[0] | 0x44]))


@kind()
def bit_on_disk(d: Damage) -> None:
    """One bit of a data file flips, compressed or not."""
    path = d.data()
    content = bytearray(path.read_bytes())
    content[d.random.randrange(len(content))] ^= 1 << d.random.randrange(8)
    path.write_bytes(content)


@kind()
def bit_in_a_length(d: Damage) -> None:
    """One bit of a transaction's length flips."""
    path = d.data()
    at = d.random.choice(d.headers(path)) + 8 + d.random.randrange(8)
    d.change(path, at, bytes([d.unpacked(path)[at] ^ 1 << d.random.randrange(8)]))


@kind()
def status_not_committed(d: Damage) -> None:
    """A transaction in a backup says that it was never committed."""
    path = d.data()
    d.change(path, d.random.choice(d.headers(path)) + 16, b"c")


@kind()
def head_of_another_file(d: Damage) -> None:
    """A data file begins with what another one begins with (B2)."""
    d.deltas()
    one, other = d.random.sample(d.template.backups, 2)
    content = d.unpacked(d.path(other))[: d.random.choice([8, 64, 512])]
    d.change(d.path(one), 0, content[: len(d.unpacked(d.path(one)))])


@kind()
def swapped_files(d: Damage) -> None:
    """Two data files have each other's content (B2)."""
    d.deltas()
    one, other = (d.path(found) for found in d.random.sample(d.template.backups, 2))
    content = d.unpacked(one)
    d.pack(one, d.unpacked(other))
    d.pack(other, content)


@kind()
def garbage_at_the_beginning(d: Damage) -> None:
    """A data file begins with garbage (B2)."""
    d.change(d.data(), 0, d.random.randbytes(d.random.choice([1, 8, 100])))


@kind()
def garbage_as_a_whole(d: Damage) -> None:
    """A data file is garbage of the right size."""
    path = d.data()
    path.write_bytes(d.random.randbytes(path.stat().st_size))


@kind()
def zeroed_page(d: Damage) -> None:
    """512 bytes of a data file are zeros."""
    path = d.data()
    content = bytearray(path.read_bytes())
    at = d.random.randrange(max(1, len(content) - 512))
    content[at : at + 512] = bytes(min(512, len(content) - at))
    path.write_bytes(content)


@kind()
def zeroed_header(d: Damage) -> None:
    """The header of a transaction in a backup is zeros (B8)."""
    path = d.data()
    d.change(path, d.random.choice(d.headers(path)), bytes(23))


@kind()
def emptied_newest(d: Damage) -> None:
    """The newest data file has no bytes (B5)."""
    d.newest().write_bytes(b"")


@kind()
def emptied_full(d: Damage) -> None:
    """The newest full backup has no bytes (B5)."""
    d.path(d.chain()[0]).write_bytes(b"")


@kind()
def emptied_file(d: Damage) -> None:
    """A data file has no bytes (B5)."""
    d.data().write_bytes(b"")


@kind()
def changed_newest(d: Damage) -> None:
    """The newest data file has another content of the same size (B5)."""
    path = d.newest()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@kind()
def cut_by_some_bytes(d: Damage) -> None:
    """A data file lacks its last bytes."""
    path = d.data()
    os.truncate(path, path.stat().st_size - d.random.randrange(1, 60))


@kind()
def cut_behind_a_transaction(d: Damage) -> None:
    """A data file lacks its last transactions; what is there is whole."""
    path = d.data()
    headers = d.headers(path)
    if len(headers) < 2:
        raise NotHere("one transaction")
    d.pack(path, d.unpacked(path)[: d.random.choice(headers[1:])])


@kind()
def garbage_behind(d: Damage) -> None:
    """Garbage follows a data file; behind gzip, it is no gzip."""
    path = d.data()
    path.write_bytes(path.read_bytes() + d.random.randbytes(d.random.choice([1, 100, 5000])))


@kind()
def zeros_behind(d: Damage) -> None:
    """Zeros follow a data file, as after a crash of some file systems."""
    path = d.data()
    path.write_bytes(path.read_bytes() + bytes(d.random.choice([1, 512, 4096])))


@kind()
def half_of_gzip(d: Damage) -> None:
    """A compressed file is cut off in the middle."""
    path = d.compressed()
    os.truncate(path, path.stat().st_size // 2)


@kind()
def gzip_without_its_trailer(d: Damage) -> None:
    """A compressed file lacks its checksum and length, or some bytes of them."""
    path = d.compressed()
    os.truncate(path, path.stat().st_size - d.random.randrange(1, 9))


@kind()
def wrong_sum_in_gzip(d: Damage) -> None:
    """The checksum of a compressed file is another one."""
    path = d.compressed()
    content = bytearray(path.read_bytes())
    content[-8 + d.random.randrange(4)] ^= 1 << d.random.randrange(8)
    path.write_bytes(content)


@kind(refusable=True)
def other_time_in_gzip(d: Damage) -> None:
    """Only the time in a gzip header differs: what is in it is the same, the file is another one."""
    path = d.compressed()
    content = bytearray(path.read_bytes())
    content[4:8] = d.random.randbytes(4)
    path.write_bytes(content)


@kind(harmless=True)
def empty_first_member(d: Damage) -> None:
    """A compressed file begins with an empty gzip member (B16)."""
    path = d.compressed()
    path.write_bytes(gzip.compress(b"") + path.read_bytes())


@kind(harmless=True)
def two_members(d: Damage) -> None:
    """A compressed file is two gzip members of the same bytes (B16)."""
    path = d.compressed()
    content = d.unpacked(path)
    path.write_bytes(gzip.compress(content[:100]) + gzip.compress(content[100:]))


@kind()
def member_too_many(d: Damage) -> None:
    """A further gzip member follows a compressed file."""
    path = d.compressed()
    path.write_bytes(path.read_bytes() + gzip.compress(record(tid_of(START + timedelta(days=99)), b"forged")))


@kind()
def plain_named_gzip(d: Damage) -> None:
    """A compressed file was unpacked, and has its old name."""
    path = d.compressed()
    path.write_bytes(d.unpacked(path))


@kind()
def gzip_named_plain(d: Damage) -> None:
    """A plain file was compressed, and has its old name."""
    path = d.plain_file()
    path.write_bytes(gzip.compress(path.read_bytes()))


@kind()
def compressed_with_zlib(d: Damage) -> None:
    """A file that should be gzip is zlib's own format."""
    path = d.compressed()
    path.write_bytes(zlib.compress(d.unpacked(path)))


@kind()
def gzip_of_endless_zeros(d: Damage) -> None:
    """A compressed file unpacks to 400 MB of zeros."""
    d.compressed().write_bytes(_endless_zeros())


@functools.cache
def _endless_zeros() -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    return b"".join([packer.compress(bytes(2**20)) for _number in range(400)]) + packer.flush()


@kind()
def huge_sparse_file(d: Damage) -> None:
    """A plain file grew to 1 TiB without taking room."""
    os.truncate(d.plain_file(), 2**40)


@kind()
def growing_file(d: Damage) -> None:
    """A data file grows while it is read."""
    path = d.data()

    def grow() -> None:
        with path.open("ab") as stream:
            if stream.tell() < 64 * 2**20:
                stream.write(b"\1" * 2**18)

    d.during = grow
    grow()


@kind(undetectable=FORGED)
def edited_with_its_line(d: Damage) -> None:
    """A data file was edited, and its line in the .dat file fits (B22)."""
    d.memory()
    one = d.random.choice(d.template.backups)
    path = d.path(one)
    at = d.random.choice(d.headers(path)) + 40
    d.change(path, at, d.random.randbytes(8))
    d.line_of(one, md5=md5(d.unpacked(path)))


@kind(undetectable=FORGED)
def cut_with_its_line(d: Damage) -> None:
    """The newest data file lacks transactions, and its line in the .dat file fits (B22)."""
    d.memory()
    one, path = d.chain()[-1], d.newest()
    headers = d.headers(path)
    content = d.unpacked(path)[: headers[-1]]
    d.pack(path, content)
    start = int(d.lines()[-1].split()[1])
    d.line_of(one, end=start + len(content), md5=md5(content))


@kind(undetectable=FORGED)
def forged_transaction(d: Damage) -> None:
    """The newest data file has a transaction more, and its line in the .dat file fits (B22)."""
    d.memory()
    one, path = d.chain()[-1], d.newest()
    content = d.unpacked(path) + record(tid_of(d.template.now), b"forged", user="admin")
    d.pack(path, content)
    start = int(d.lines()[-1].split()[1])
    d.line_of(one, end=start + len(content), md5=md5(content))


@kind()
def transactions_backwards(d: Damage) -> None:
    """A data file holds an older transaction than the file before it, and its line in the .dat file fits."""
    one = d.random.choice(d.deltas())
    d.change(d.path(one), 0, tid_of(START - timedelta(days=1)))
    d.line_of(one, md5=md5(d.unpacked(d.path(one))))


@kind()
def transaction_of_no_date(d: Damage) -> None:
    """A transaction is of 31 February, and its line in the .dat file fits."""
    one = d.random.choice(d.deltas())
    minutes = ((((2026 - 1900) * 12 + 1) * 31 + 30) * 24 + 1) * 60
    d.change(d.path(one), 0, struct.pack(">LL", minutes, 5))
    d.line_of(one, md5=md5(d.unpacked(d.path(one))))


@kind()
def file_of_another_repository(d: Damage) -> None:
    """A data file comes from a repository of another database."""
    path = d.data()
    content = _foreign(d, len(d.unpacked(path)), full=".delta" not in path.name)
    d.pack(path, content)


def _foreign(d: Damage, size: int, *, full: bool) -> bytes:
    """Return transactions of another database, of about so many bytes."""
    content = b"FS21" if full else b""
    number = 0
    while len(content) < size:
        content += record(tid_of(START + timedelta(minutes=number, seconds=7)), d.random.randbytes(200), user="other")
        number += 1
    return content


# What is there and what is not


@kind()
def missing_newest(d: Damage) -> None:
    """The newest data file is gone."""
    d.newest().unlink()


@kind()
def missing_delta(d: Damage) -> None:
    """An incremental backup is gone."""
    d.delta().unlink()


@kind()
def missing_middle(d: Damage) -> None:
    """An incremental backup in the middle is gone, together with its line."""
    chain = next((chain for chain in d.template.chains() if len(chain) > 2), None)
    if chain is None:
        raise NotHere("no middle")
    one = d.random.choice(chain[1:-1])
    d.path(one).unlink()
    d.dat(chain).write_text("".join(line for line in d.lines(chain) if one.name not in line))


@kind()
def missing_full(d: Damage) -> None:
    """A full backup is gone."""
    d.path(d.some_chain()[0]).unlink()


@kind()
def missing_full_and_dat(d: Damage) -> None:
    """A full backup and its .dat file are gone."""
    chain = d.some_chain()
    d.path(chain[0]).unlink()
    d.dat(chain).unlink()


@kind(harmless=True)
def missing_dat(d: Damage) -> None:
    """A .dat file is gone; each data file is there (B16)."""
    d.dat(d.some_chain()).unlink()


@kind(harmless=True)
def missing_memory(d: Damage) -> None:
    """confops.json is gone: a repository as stock repozo leaves it."""
    d.memory()
    d.state.unlink()


@kind()
def missing_newest_with_its_line(d: Damage) -> None:
    """The newest data file and its line are gone; confops.json remembers it."""
    if d.chain()[-1].name not in json.dumps(d.memory()):
        raise NotHere("it is not remembered")
    if len(d.chain()) == 1:
        raise NotHere("no incremental backup")
    d.newest().unlink()
    d.dat().write_text("".join(d.lines()[:-1]))


def _add(d: Damage, stamp: str, suffix: str, content: bytes) -> None:
    path = d.repository / f"{stamp}.{suffix}"
    if path.exists():
        raise NotHere("the name is taken")
    d.pack(path, content)


def _between(d: Damage, seconds: int = 60) -> str:
    """Return a stamp shortly behind a backup."""
    return _behind(d.random.choice(d.template.backups), seconds)


def _behind(one: Backup, seconds: int = 60) -> str:
    moment = START.strptime(one.stamp + "+0000", "%Y-%m-%d-%H-%M-%S%z")
    return f"{moment + timedelta(seconds=seconds):%Y-%m-%d-%H-%M-%S}"


@kind()
def delta_too_many(d: Damage) -> None:
    """An incremental backup of another repository lies between the others."""
    _add(d, _between(d), d.random.choice(["deltafs", "deltafsz"]), _foreign(d, 900, full=False))


@kind()
def delta_too_many_with_a_line(d: Damage) -> None:
    """An incremental backup of another repository lies behind the newest, with a line of its own that fits."""
    stamp = f"{d.template.now + timedelta(seconds=60):%Y-%m-%d-%H-%M-%S}"
    content = _foreign(d, 900, full=False)
    _add(d, stamp, "deltafs", content)
    end = d.template.backups[-1].end
    with d.dat().open("a") as stream:
        stream.write(f"{d.repository}/{stamp}.deltafs {end} {end + len(content)} {md5(content)}\n")


@kind()
def full_too_many(d: Damage) -> None:
    """A full backup of another repository lies between the others, without a .dat file."""
    _add(d, _between(d), d.random.choice(["fs", "fsz"]), _foreign(d, 900, full=True))


@kind()
def interleaved_chain(d: Damage) -> None:
    """A whole chain of another repository lies between the others, with its .dat file."""
    d.deltas()
    one = d.random.choice(d.template.backups[:-1])  # behind the newest nobody could tell that it is another's
    content, stamp = _foreign(d, 900, full=True), _behind(one)
    _add(d, stamp, "fs", content)
    (d.repository / f"{stamp}.dat").write_text(f"{d.repository}/{stamp}.fs 0 {len(content)} {md5(content)}\n")


@kind()
def same_second(d: Damage) -> None:
    """A full and an incremental backup are of the same second."""
    one = d.random.choice(d.deltas())
    _add(d, one.stamp, "fs", _foreign(d, 900, full=True))


@kind()
def plain_beside_gzip(d: Damage) -> None:
    """A data file is there compressed and plain, and one of them is damaged."""
    one = d.random.choice(d.template.backups)
    name = one.name[:-1] if one.name.endswith("z") else f"{one.name}z"
    content = bytearray(d.unpacked(d.path(one)))
    content[-20] ^= 1
    d.pack(d.repository / name, bytes(content))


@kind()
def delta_of_month_13(d: Damage) -> None:
    """An incremental backup is named after a month that no calendar has."""
    _add(d, d.random.choice(["2026-13-01-00-00-00", "2026-02-30-25-61-61"]), "deltafs", _foreign(d, 500, full=False))


@kind()
def full_of_month_13(d: Damage) -> None:
    """A full backup is named after a month that no calendar has."""
    content = _foreign(d, 500, full=True)
    stamp = d.random.choice(["2026-13-01-00-00-00", "0000-00-00-00-00-00", "9999-99-99-99-99-99"])
    _add(d, stamp, "fs", content)
    (d.repository / f"{stamp}.dat").write_text(f"{d.repository}/{stamp}.fs 0 {len(content)} {md5(content)}\n")


@kind()
def backup_of_the_future(d: Damage) -> None:
    """A full backup of another repository is named after a year to come (B9)."""
    _add(d, "2041-01-01-00-00-00", "fs", _foreign(d, 500, full=True))


@kind()
def renamed_delta(d: Damage) -> None:
    """An incremental backup has another time in its name."""
    path = d.delta()
    path.rename(path.with_name(f"{_between(d, 120)}.{path.name.split('.')[1]}"))


@kind(harmless=True)
def newline_in_a_name(d: Damage) -> None:
    """A file is named like a backup, with a newline behind it; it is none."""
    (d.repository / f"{_between(d)}.{d.random.choice(['fs', 'deltafsz', 'dat', 'index'])}\n").write_bytes(b"x")


@kind(harmless=True)
def odd_names(d: Damage) -> None:
    """There are files with blanks, with bytes that are no UTF-8, with a minus in front."""
    for name in (b"\xff\xfe.fs", b"-rf", b"a b.fs", b"\xd9\xa1.dat", b"2026-03-01-12-30-00.FS", "２０２６-03-01-12-30-00.fs".encode()):  # noqa: RUF001
        (d.repository / os.fsdecode(name)).write_bytes(b"x")


@kind(harmless=True)
def unrelated_file(d: Damage) -> None:
    """Somebody left a file of their own."""
    (d.repository / d.random.choice(["README", "notes.txt", f"{d.newest().name}~", f"{d.newest().name}.bak", ".nfs0001"])).write_bytes(b"mine")


@kind(harmless=True)
def unrelated_directory(d: Damage) -> None:
    """The repository is the root of a file system."""
    (d.repository / "lost+found").mkdir()


@kind(harmless=True, refusable=True)
def index_from_elsewhere(d: Damage) -> None:
    """An index file belongs to no backup."""
    (d.repository / "2025-01-01-00-00-00.index").write_bytes(b"index")


@kind(harmless=True, refusable=True)
def dat_from_elsewhere(d: Damage) -> None:
    """A .dat file belongs to no backup."""
    (d.repository / "2025-01-01-00-00-00.dat").write_text("/x/2025-01-01-00-00-00.fs 0 10 d41d8cd98f00b204e9800998ecf8427e\n")


@kind(harmless=True, refusable=True)
def empty_index(d: Damage) -> None:
    """The index of a backup is empty; ZODB makes a new one."""
    (d.repository / f"{d.template.backups[-1].stamp}.index").write_bytes(b"")


@kind(harmless=True, refusable=True)
def unfinished_file(d: Damage) -> None:
    """A run that was killed left a file that has no name yet (B19)."""
    (d.repository / ".confops-4711.deltafs").write_bytes(b"half")


@kind(harmless=True, refusable=True)
def stock_unfinished(d: Damage) -> None:
    """Stock repozo was killed a week ago and left its file."""
    path = d.repository / "tmp.tmp"
    path.write_bytes(b"half")
    os.utime(path, (0, 0))


@kind(harmless=True, refusable=True)
def stock_at_work(d: Damage) -> None:
    """Stock repozo seems to be at work."""
    (d.repository / "tmp.tmp").write_bytes(b"half")


# What is no file


@kind()
def fifo(d: Damage) -> None:
    """A FIFO has the name of a file (B4)."""
    os.mkfifo(d.special(d.role()))


@kind()
def socket_as_file(d: Damage) -> None:
    """A socket has the name of a file (B4)."""
    path = d.special(d.role())
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(path.parent)  # the path of a socket must be short
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)


@kind()
def device_of_zeros(d: Damage) -> None:
    """The device 1:5, which never ends, has the name of a file (B4)."""
    d.device(d.role(), 5)


@kind()
def device_that_is_full(d: Damage) -> None:
    """The device 1:7, which never ends and is always full, has the name of a file (B4)."""
    d.device(d.role(), 7)


@kind()
def directory_as_file(d: Damage) -> None:
    """A directory has the name of a file (B4)."""
    d.special(d.role()).mkdir()


@kind()
def link_to_nothing(d: Damage) -> None:
    """A link to nothing has the name of a file (B4)."""
    d.special(d.role()).symlink_to("/nonexistent/file")


@kind()
def link_to_itself(d: Damage) -> None:
    """A link to itself has the name of a file (B4)."""
    path = d.special(d.role())
    path.symlink_to(path.name)


@kind()
def link_to_a_device(d: Damage) -> None:
    """A link to /dev/zero has the name of a file (B4)."""
    d.special(d.role()).symlink_to("/dev/zero")


@kind()
def link_to_another_backup(d: Damage) -> None:
    """A data file is a link to another one (B4)."""
    d.deltas()
    one, other = (d.path(found) for found in d.random.sample(d.template.backups, 2))
    d.special(one).symlink_to(other.name)


@kind(harmless=True)
def link_to_the_same_bytes(d: Damage) -> None:
    """A file lies behind a link, whole (B16)."""
    path = d.role()
    if not path.exists():
        raise NotHere("no such file")
    aside = d.place / "aside"
    shutil.move(path, aside)
    path.symlink_to(aside)


@kind()
def fifo_as_unfinished_file(d: Damage) -> None:
    """A FIFO is named like what a killed run leaves (B4)."""
    os.mkfifo(d.repository / d.random.choice([".confops-4711.deltafs", ".confops-1-2-confops.json", "tmp.tmp"]))


@kind()
def fifo_as_backup_too_many(d: Damage) -> None:
    """A FIFO is named like a further backup (B4)."""
    os.mkfifo(d.repository / f"{_between(d)}.{d.random.choice(['fs', 'fsz', 'deltafs', 'deltafsz', 'dat', 'index'])}")


# Permissions


@kind(refusable=True)
def unreadable_file(d: Damage) -> None:
    """A file has the mode 000, and our code runs as another user than root."""
    path = d.role()
    path.touch()
    path.chmod(0)
    d.unprivileged = True


@kind(refusable=True)
def readonly_directory(d: Damage) -> None:
    """Nothing may be written to the repository (B13)."""
    d.repository.chmod(0o555)
    d.unprivileged = True


# .dat files


@kind(harmless=True)
def dat_cut_by_some_bytes(d: Damage) -> None:
    """The .dat file lacks its last 1 to 10 bytes; confops.json knows the file as stored and verified (B3)."""
    d.memory()
    os.truncate(d.dat(), d.dat().stat().st_size - d.random.randrange(1, 11))


@kind(refusable=True)
def dat_of_stock_cut(d: Damage) -> None:
    """The .dat file lacks its end, and there is no memory: stock repozo was killed while it wrote the line (B3)."""
    d.state.unlink(missing_ok=True)
    os.truncate(d.dat(), d.dat().stat().st_size - d.random.randrange(1, 90))


@kind(harmless=True)
def dat_with_carriage_returns(d: Damage) -> None:
    """The .dat file has lines as Windows ends them (B16)."""
    dat = d.dat(d.some_chain())
    dat.write_bytes(dat.read_bytes().replace(b"\n", b"\r\n"))


@kind(harmless=True)
def dat_with_backslashes(d: Damage) -> None:
    """The .dat file has paths as Windows writes them (B16)."""
    dat = d.dat(d.some_chain())
    dat.write_bytes(dat.read_bytes().replace(b"/", b"\\"))


@kind(harmless=True)
def dat_without_last_newline(d: Damage) -> None:
    """The last line of the .dat file lacks its newline."""
    d.memory()
    os.truncate(d.dat(), d.dat().stat().st_size - 1)


@kind(harmless=True, refusable=True)
def dat_empty(d: Damage) -> None:
    """A .dat file is empty."""
    d.dat(d.some_chain()).write_bytes(b"")


@kind(harmless=True, refusable=True)
def dat_with_a_line_twice(d: Damage) -> None:
    """A line of a .dat file is there twice."""
    chain = d.some_chain()
    lines = d.lines(chain)
    number = d.random.randrange(len(lines))
    d.dat(chain).write_text("".join([*lines[: number + 1], *lines[number:]]))


@kind(harmless=True, refusable=True)
def dat_out_of_order(d: Damage) -> None:
    """The lines of a .dat file are in another order."""
    chain = next((chain for chain in d.template.chains() if len(chain) > 1), None)
    if chain is None:
        raise NotHere("one line")
    lines = d.lines(chain)
    d.dat(chain).write_text("".join(lines[::-1]))


@kind(harmless=True, refusable=True)
def dat_with_a_wrong_md5(d: Damage) -> None:
    """A line has another md5."""
    d.line_of(d.random.choice(d.template.backups), md5=md5(d.random.randbytes(9)))


@kind(harmless=True, refusable=True)
def dat_with_capitals(d: Damage) -> None:
    """A line has its md5 in capital letters."""
    one = d.random.choice(d.template.backups)
    d.line_of(one, md5=md5(d.unpacked(d.path(one))).upper())


@kind(harmless=True, refusable=True)
def dat_with_a_wrong_range(d: Damage) -> None:
    """A line has another range."""
    one = d.random.choice(d.template.backups)
    d.line_of(one, **d.random.choice([{"end": one.end + 1}, {"end": 3}, {"start": 1}, {"start": one.end, "end": one.end}]))


@kind(harmless=True, refusable=True)
def dat_with_wild_numbers(d: Damage) -> None:
    """A line has a range of numbers that are none (B17)."""
    number = d.random.choice(["99999999999999999999", "-1", "nan", "1e99", "0x10", "", "１２", "999999999999999999"])  # noqa: RUF001
    d.line_of(d.random.choice(d.template.backups), **{d.random.choice(["start", "end"]): number})


@kind(harmless=True, refusable=True)
def dat_without_a_line(d: Damage) -> None:
    """A line of a .dat file is missing; its data file is there."""
    chain = d.some_chain()
    lines = d.lines(chain)
    if len(lines) > 1 and d.random.random() < 0.7:
        del lines[d.random.randrange(len(lines) - 1)]
    else:
        d.memory()
        del lines[-1]
    d.dat(chain).write_text("".join(lines))


@kind(harmless=True, refusable=True)
def dat_with_a_line_too_many(d: Damage) -> None:
    """The .dat file lists a file that never was."""
    end = d.template.backups[-1].end
    with d.dat().open("a") as stream:
        stream.write(f"/x/2026-04-01-00-00-00.deltafs {end} {end + 100} {md5(b'')}\n")


@kind(harmless=True, refusable=True)
def dat_of_another_chain(d: Damage) -> None:
    """A .dat file holds what another one holds."""
    chains = d.template.chains()
    if len(chains) < 2:
        raise NotHere("one chain")
    one, other = d.random.sample(chains, 2)
    d.dat(one).write_bytes(d.dat(other).read_bytes())


@kind(harmless=True, refusable=True)
def dat_with_garbage(d: Damage) -> None:
    """A .dat file has a line of garbage, or zeros at its end as after a power failure."""
    chain = d.some_chain()
    dat = d.dat(chain)
    garbage = d.random.choice([b"\0" * 100, d.random.randbytes(80), b"\xff\xfe\n", b"\xef\xbb\xbf", b"\n", b"\n\n\n", b"# comment\n", b"\x1a"])
    dat.write_bytes(d.random.choice([dat.read_bytes() + garbage, garbage + dat.read_bytes()]))


@kind(harmless=True, refusable=True)
def dat_without_an_end(d: Damage) -> None:
    """A .dat file goes on for 20 MB without a newline."""
    dat = d.dat()
    dat.write_bytes(dat.read_bytes() + b"x" * 20 * 2**20)


@kind(harmless=True, refusable=True)
def dat_with_many_lines(d: Damage) -> None:
    """A .dat file lists 5,000 files that never were (B14)."""
    with d.dat().open("a") as stream:
        for number in range(5000):
            stream.write(f"/x/2026-05-01-00-{number // 60 % 60:02}-{number % 60:02}.deltafs {number} {number + 1} {md5(b'')}\n")


@kind(harmless=True, refusable=True)
def dat_that_leads_elsewhere(d: Damage) -> None:
    """A line of the .dat file names a path that leads out of the repository."""
    one = d.random.choice(d.template.backups)
    d.line_of(one, name=d.random.choice([f"../../{one.name}", "/etc/passwd", "../x", "..", ".", "/", f"{one.name}/"]))


# confops.json


def _state(d: Damage, content: bytes | str) -> None:
    d.memory()
    d.state.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)


@kind(harmless=True, refusable=True)
def memory_of_brackets(d: Damage) -> None:
    """confops.json is 100,000 brackets (B18)."""
    _state(d, d.random.choice(["[", '{"a":']) * 100_000)


@kind(harmless=True, refusable=True)
def memory_cut(d: Damage) -> None:
    """confops.json lacks its end, or all."""
    text = json.dumps(d.memory())
    _state(d, text[: d.random.randrange(len(text))])


@kind(harmless=True, refusable=True)
def memory_of_another_type(d: Damage) -> None:
    """confops.json holds no mapping."""
    _state(d, d.random.choice(["[]", "null", "1", '"x"', "NaN", "1e999", "\ufeff{}", "\0", "{}{}", '{"pins": 1}', '{"pins": {"a": 1}}']))


@kind(harmless=True, refusable=True)
def memory_with_wrong_parts(d: Damage) -> None:
    """The parts of confops.json are of other types."""
    wrong = [None, 1, "x", [], [[]], {"x": 1}, {"x": {"bytes": "many", "md5": 5}}, {"2026-03-01-12-30-00.fs": {}}, True]
    state = {key: d.random.choice(wrong) for key in ("stored", "verified", "tail", "writing", "pruning")}
    _state(d, json.dumps({**d.memory(), **state}))


@kind(harmless=True, refusable=True)
def memory_with_wild_numbers(d: Damage) -> None:
    """The numbers in confops.json are none (B17)."""
    text = json.dumps(d.memory())
    number = d.random.choice(["NaN", "Infinity", "-1", "1e999", "99999999999999999999", "1.5", "null", "9" * 5000])
    _state(d, re.sub(r'("(?:bytes|end|start)": )\d+', lambda match: match[1] + number, text))


@kind(harmless=True, refusable=True)
def memory_that_prunes_all(d: Damage) -> None:
    """confops.json says that the deletion of every chain has begun."""
    _state(d, json.dumps({**d.memory(), "pruning": [chain[0].stamp for chain in d.template.chains()], "pins": []}))


@kind(harmless=True, refusable=True)
def memory_that_writes_the_newest(d: Damage) -> None:
    """confops.json says that the newest backup is being written, though it is stored and verified, and its line is gone (B3)."""
    _state(d, json.dumps({**d.memory(), "writing": d.chain()[-1].name}))
    if d.random.random() < 0.5 and len(d.chain()) > 1:
        d.dat().write_text("".join(d.lines()[:-1]))


@kind(harmless=True, refusable=True)
def memory_with_a_wrong_tail(d: Damage) -> None:
    """What confops.json remembers of the database's end is wrong."""
    tail = d.memory().get("tail")
    if not isinstance(tail, dict):
        raise NotHere("no tail")
    wrong = d.random.choice([{"bytes": -5}, {"bytes": 2**70}, {"bytes": True}, {"bytes": 1.5}, {"md5": None}, {"end": -1}, {"md5": md5(b"")}])
    _state(d, json.dumps({**d.memory(), "tail": {**tail, **wrong}}))


@kind(harmless=True, refusable=True)
def memory_of_another_repository(d: Damage) -> None:
    """confops.json comes from a repository of another database."""
    text = json.dumps(d.memory())
    _state(d, re.sub(r"[0-9a-f]{32}", lambda match: md5(match[0].encode()), text))


@kind(harmless=True, refusable=True)
def memory_with_odd_text(d: Damage) -> None:
    """confops.json holds keys twice, halves of surrogates, and names with a path."""
    text = json.dumps(d.memory())
    _state(d, text[:-1] + r', "stored": {"\ud800": {"bytes": 1, "md5": "x"}, "../../x": {"bytes": 1, "md5": "\u0000"}}, "pins": ["\ud800", "../x"]}')


@kind(harmless=True, refusable=True)
def memory_of_many_megabytes(d: Damage) -> None:
    """confops.json has 8 MB of entries that mean nothing."""
    extra = {f"2020-01-01-00-00-{number:02}.fs{number}": {"bytes": 1, "md5": "0" * 32} for number in range(100_000)}
    state = d.memory()
    _state(d, json.dumps({**state, "stored": {**extra, **dict(state.get("stored") or {})}}))  # type: ignore[call-overload]


# The clock


@kind(harmless=True, refusable=True)
def clock_set_back(d: Damage) -> None:
    """The clock shows a time before the newest backup."""
    d.shift = timedelta(days=-d.random.choice([1, 30, 400]))


@kind(harmless=True)
def clock_set_on(d: Damage) -> None:
    """The clock shows a time years after the newest backup."""
    d.shift = timedelta(days=4000)


# The database


@kind(actions=DATABASE)
def database_of_four_bytes(d: Damage) -> None:
    """The database lost all its transactions (B21)."""
    d.write_database(b"FS21")
    d.must_warn = True


@kind(actions=DATABASE)
def database_of_no_bytes(d: Damage) -> None:
    """The database is empty (B21)."""
    d.write_database(b"")
    d.must_warn = True


@kind(actions=DATABASE)
def database_shrunk(d: Damage) -> None:
    """The database lost transactions that its chain has (B21)."""
    ends = [end for end in d.template.generations[-1].ends if end < d.template.backups[-1].end]
    d.write_database(d.template.live[: d.random.choice(ends)])
    d.must_warn = True


@kind(actions=DATABASE)
def database_cut_in_a_transaction(d: Damage) -> None:
    """The database lost its end in the middle of a transaction that its chain has (B21)."""
    ends = [4, *(end for end in d.template.generations[-1].ends if end < d.template.backups[-1].end)]
    end = d.random.choice(ends)
    d.write_database(d.template.live[: end + d.random.randrange(30, 90)], d.template.live[:end])
    d.must_warn = True


def _header(d: Damage, behind: bool) -> int:
    covered = d.template.backups[-1].end
    return d.random.choice([begin for begin in d.live_headers() if (begin >= covered) == behind])


def _zero_header(d: Damage, tail: str) -> None:
    at = _header(d, d.random.random() < 0.7)
    content = d.template.live
    rest = {"garbage": d.random.randbytes(3000), "zeros": bytes(3000), "itself": content[at + 23 :]}[tail]
    d.write_database(content[:at] + bytes(23) + rest, content[:at])
    d.must_warn = True


@kind(actions=DATABASE)
def database_with_zeroed_header_and_garbage(d: Damage) -> None:
    """The header of a transaction is zeros, garbage follows (B8)."""
    _zero_header(d, "garbage")


@kind(actions=DATABASE)
def database_with_zeroed_header_and_zeros(d: Damage) -> None:
    """The header of a transaction is zeros, zeros follow (B8)."""
    _zero_header(d, "zeros")


@kind(actions=DATABASE)
def database_with_zeroed_header_alone(d: Damage) -> None:
    """The header of the last transaction but one is zeros, whole transactions follow (B8)."""
    at = d.live_headers()[-2]
    d.write_database(d.template.live[:at] + bytes(23) + d.template.live[at + 23 :], d.template.live)
    d.must_warn = True


@kind(actions=DATABASE)
def database_with_garbage_behind(d: Damage) -> None:
    """Garbage follows the last transaction (B8)."""
    d.write_database(d.template.live + d.random.randbytes(d.random.choice([30, 3000])), d.template.live)
    d.must_warn = True


@kind(actions=DATABASE)
def database_of_the_future(d: Damage) -> None:
    """The newest transactions lie years ahead (B9)."""
    more = b"".join(record(tid_of(d.template.now + timedelta(days=2500, minutes=number)), b"x" * 300) for number in range(3))
    d.write_database(d.template.live + more)
    d.must_warn = True


@kind(actions=DATABASE)
def database_replaced(d: Damage) -> None:
    """Another database lies at the path (B7)."""
    d.write_database(_foreign(d, len(d.template.live) + d.random.choice([-2000, 2000]), full=True))


@kind(actions=DATABASE, harmless=True)
def database_packed(d: Damage) -> None:
    """The database was packed."""
    generation = d.template.generations[-1]
    begin = generation.ends[-3]
    kept = record(generation.tids[-3], b"packed" * 30, status=b"p")
    d.write_database(b"FS21" + kept + generation.content[begin:])


@kind(actions=DATABASE, harmless=True)
def database_rolled_back(d: Damage) -> None:
    """The database was restored to an older state and went on from there, further than before."""
    end = d.template.backups[-1].end
    last = max(number for number in d.template.generations[-1].ends if number < end)
    more = b"".join(record(tid_of(d.template.now + timedelta(minutes=number)), b"other" * 200) for number in range(6))
    d.write_database(d.template.live[:last] + more)


@kind(actions=DATABASE, harmless=True)
def database_unchanged(d: Damage) -> None:
    """Nothing was committed since the newest backup."""
    d.write_database(d.template.live[: d.template.backups[-1].end])


@kind(actions=DATABASE, harmless=True)
def database_in_a_commit(d: Damage) -> None:
    """A server writes a transaction at this moment: its status is c, and it may be cut."""
    whole = record(tid_of(d.template.now + timedelta(minutes=9)), b"u" * 700)
    more = whole[:16] + b"c" + whole[17:]
    d.write_database(d.template.live + more[: d.random.choice([5, 23, 100, len(more)])], d.template.live)


@kind(actions=DATABASE)
def database_is_none(d: Damage) -> None:
    """The database is no FileStorage."""
    d.write_database(d.random.choice([b"SQLite format 3\0" * 100, b"\0" * 5000, d.random.randbytes(5000), b"FS", b"FS20" + d.template.live[4:]]))


@kind(actions=DATABASE)
def database_missing(d: Damage) -> None:
    """There is no database."""
    d.live.unlink()


@kind(actions=DATABASE)
def database_no_file(d: Damage) -> None:
    """Something that is no file has the database's name (B4)."""
    d.live.unlink()
    what = d.random.choice(["fifo", "directory", "zero", "link", "loop"])
    if what == "fifo":
        os.mkfifo(d.live)
    elif what == "directory":
        d.live.mkdir()
    else:
        d.live.symlink_to({"zero": "/dev/zero", "link": "/nonexistent/Data.fs", "loop": d.live.name}[what])


@kind(actions=DATABASE, harmless=True)
def database_behind_a_link(d: Damage) -> None:
    """The database lies behind a link (B12)."""
    other = d.place / "disk2.fs"
    shutil.move(d.live, other)
    d.live.symlink_to(other)


@kind(actions=DATABASE)
def database_with_a_tid_of_no_date(d: Damage) -> None:
    """The newest transaction is of 31 February."""
    minutes = ((((2027 - 1900) * 12 + 1) * 31 + 30) * 24 + 1) * 60
    d.write_database(d.template.live + record(struct.pack(">LL", minutes, 5), b"x" * 300))
    d.must_warn = True


@kind(actions=DATABASE)
def database_with_tids_backwards(d: Damage) -> None:
    """The newest transaction is older than the one before."""
    d.write_database(d.template.live + record(tid_of(START - timedelta(days=9)), b"x" * 300))


@kind(actions=DATABASE, harmless=True, refusable=True)
def database_being_packed(d: Damage) -> None:
    """A server packs the database."""
    d.live.with_name("Data.fs.pack").write_bytes(b"FS21")


@kind(actions=DATABASE, harmless=True)
def database_of_an_old_pack(d: Damage) -> None:
    """A pack that was killed a week ago left its file."""
    d.live.with_name("Data.fs.pack").write_bytes(b"FS21")
    os.utime(d.live.with_name("Data.fs.pack"), (0, 0))


@kind(actions=DATABASE, refusable=True)
def database_unreadable(d: Damage) -> None:
    """The database has the mode 000, and our code runs as another user than root."""
    d.live.chmod(0)
    d.unprivileged = True


@kind(actions=DATABASE)
def database_growing(d: Damage) -> None:
    """Transactions are committed while the backup reads."""
    number = 0

    def commit() -> None:
        nonlocal number
        if number < 300:
            number += 1
            with d.live.open("ab") as stream:
                stream.write(record(tid_of(d.template.now + timedelta(seconds=number)), b"grow" * 1000))

    d.during = commit


@kind(actions=DATABASE)
def database_shrinking(d: Damage) -> None:
    """The database is cut off while the backup reads."""
    left = len(d.template.live)

    def shrink() -> None:
        nonlocal left
        left = max(4, left - 500)
        os.truncate(d.live, left)

    d.during = shrink
    d.must_warn = True
