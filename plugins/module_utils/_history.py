# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The transactions that a repository holds: which moments can be had back, and where they lie in which chain.

A FileStorage only grows and its tids ascend, so a moment is a cut behind the last transaction that is not later. A pack is the
exception. It rewrites what is older than its time: such transactions have the status p and hold only what was still current
then. A database cut before the last of them would lack objects, so that is never done; the chain before has it, or nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import zlib
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import BinaryIO, NamedTuple
from zoneinfo import ZoneInfo

from ansible_collections.confops.indico.plugins.module_utils import _filestorage, _prune, _repository, _repozo
from ansible_collections.confops.indico.plugins.module_utils._filestorage import HEAD, Transaction
from ansible_collections.confops.indico.plugins.module_utils._repository import CHUNK, Chain, DataFile, Entry, Repository, RepositoryError

_ISO = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,6}))?(Z|[+-]\d\d:\d\d)?")
_INSTANT = timedelta(microseconds=1)  # the finest that a datetime holds; a tid is finer
_CLOCKS = timedelta(days=1)  # how far a stamp may lie from the transactions of its backup, when files are passed over by their stamp


class Record(NamedTuple):
    """One committed transaction in a file: the range of Data.fs that it takes (bytes); packed: a pack has rewritten it."""

    tid: bytes
    packed: bool
    start: int
    end: int
    user: bytes
    description: bytes

    def transaction(self) -> Transaction:
        return Transaction(self.tid.hex(), time_of(self.tid), self.user.decode(errors="replace"), self.description.decode(errors="replace"))


@dataclass(frozen=True)
class Wanted:
    """How far to go: limit is the greatest tid that is taken. exact: a transaction of that tid must be there. text is for messages."""

    limit: bytes
    moment: datetime
    exact: bool
    text: str


@dataclass
class Cut:
    """Where a wanted moment falls in a chain: behind transaction, at end (bytes), in the last of files.

    transaction is None when the chain begins after the moment. later is the tid that follows, None when the chain holds none.
    packed: that one was rewritten by a pack, so what is before it is not whole.
    """

    chain: Chain
    files: list[DataFile]
    end: int
    transaction: Record | None
    later: bytes | None
    packed: bool

    @property
    def tid(self) -> bytes:
        return self.transaction.tid if self.transaction else b""


@dataclass
class Listing:
    """The newest transactions of a window, in order; more: the window holds older ones too. warnings are sentences."""

    records: list[Record]
    more: bool
    warnings: list[str] = field(default_factory=list)


# Moments


def iso(moment: datetime) -> str:
    """Return a moment (UTC) so that it can be given as a time again."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment_of(text: str, zone: str = "UTC", *, end: bool = True) -> datetime:
    """Return the moment (UTC) that an operator wrote: a day of that zone, repozo's stamp, or ISO 8601 with a zone.

    A day, a stamp and a time without fraction name a span; they mean its last instant, or its first without end. Raises RepositoryError.
    """
    rest_of_second = timedelta(seconds=1) - _INSTANT if end else timedelta()
    match = _ISO.fullmatch(text)
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            day = datetime.strptime(text, "%Y-%m-%d")
            if not end:
                return _in_zone(day, zone)
            return _in_zone(day + timedelta(days=1), zone) - _INSTANT
        if re.fullmatch(r"\d{4}(-\d\d){5}", text):
            return _repository.time_of(text) + rest_of_second
        if match and match[4]:
            whole = datetime.fromisoformat(f"{match[1]}T{match[2]}{match[4].replace('Z', '+00:00')}")
            return (whole + (timedelta(microseconds=int(match[3].ljust(6, "0"))) if match[3] else rest_of_second)).astimezone(timezone.utc)
    except (ValueError, OverflowError) as error:
        raise RepositoryError(f"The time {text!r} is no moment of the calendar: {error}.") from error
    if match:
        raise RepositoryError(f"The time {text!r} names no zone: add Z for UTC, or an offset like +01:00.")
    raise RepositoryError(
        f"The time {text!r} is not understood: write a day (2026-03-01), ISO 8601 with a zone (2026-03-01T12:00:00Z) or repozo's stamp (2026-03-01-12-00-00)."
    )


def _in_zone(local: datetime, zone: str) -> datetime:
    if zone == "UTC":  # known on a host without time zone data, too
        return local.replace(tzinfo=timezone.utc)
    try:
        known = ZoneInfo(zone)
    except (KeyError, ValueError, OSError) as error:
        raise RepositoryError(f"This host does not know the timezone {zone!r}; write a name like Europe/Zurich.") from error
    return local.replace(tzinfo=known).astimezone(timezone.utc)


def time_of(tid: bytes) -> datetime:
    """Return the moment (UTC) that a tid stands for. Raises RepositoryError when that is none, as in a damaged file."""
    try:
        return _filestorage.time_of(tid)
    except _filestorage.FileStorageError as error:
        raise RepositoryError(str(error)) from error


def limit_of(moment: datetime) -> bytes:
    """Return the greatest tid whose time, to the microsecond, is not after the moment (UTC)."""
    if not 1900 <= moment.year <= 9900:
        raise RepositoryError(f"The time {iso(moment)} is none that a transaction can have.")
    minutes = (((moment.year - 1900) * 12 + moment.month - 1) * 31 + moment.day - 1) * 24 * 60 + moment.hour * 60 + moment.minute
    half_microseconds = 2 * (moment.second * 1_000_000 + moment.microsecond) + 1
    return (minutes << 32 | (half_microseconds << 32) // 120_000_000).to_bytes(8, "big")


def wanted_time(text: str, zone: str) -> Wanted:
    """Return what a time asks for. Raises RepositoryError."""
    moment = moment_of(text, zone)
    return Wanted(limit_of(moment), moment, False, f"The time {text}")


def wanted_transaction(text: str) -> Wanted:
    """Return what a tid of 16 hexadecimal digits asks for. Raises RepositoryError."""
    if not re.fullmatch(r"[0-9a-fA-F]{16}", text):
        raise RepositoryError(f"The transaction {text!r} is not understood: its id has 16 hexadecimal digits.")
    limit = bytes.fromhex(text)
    return Wanted(limit, time_of(limit), True, f"The transaction {text.lower()}")


# Reading


class _Reader:
    """Reads forward in pieces of a file; position is where the pieces begin."""

    def __init__(self, pieces: Iterator[bytes], position: int) -> None:
        self.pieces, self.position, self.piece = pieces, position, b""

    def take(self, start: int, count: int) -> bytes:
        """Return count bytes at start, which is not before the start of the last call; fewer at the end of the pieces."""
        while start >= self.position + len(self.piece):
            self.position += len(self.piece)
            self.piece = next(self.pieces, b"")
            if not self.piece:
                return b""
        offset = start - self.position
        while len(self.piece) - offset < count and (more := next(self.pieces, b"")):
            self.piece, self.position, offset = self.piece[offset:] + more, start, 0
        return self.piece[offset : offset + count]


def walk(pieces: Iterator[bytes], position: int) -> Iterator[Record]:
    """Yield each committed transaction of pieces that begin at position of a Data.fs: at 0, or behind a transaction.

    It stops at the first that is not whole or not committed; whether that is the end is for the caller to see.
    """
    reader = _Reader(pieces, position)
    if position == 0:
        if reader.take(0, HEAD) not in _filestorage.MAGIC:
            return
        position = HEAD
    size = _filestorage.HEADER.size
    while len(head := reader.take(position, size)) == size:
        tid, length, status, user, description, extension = _filestorage.HEADER.unpack(head)
        if length < size + user + description + extension or status not in _filestorage.COMMITTED:
            return
        texts = reader.take(position + size, user + description)
        if reader.take(position + length, 8) != head[8:16]:
            return
        end = position + length + 8
        yield Record(tid, status == b"p", position, end, texts[:user], texts[user:])
        position = end


def file_records(repository: str, file: DataFile, entry: Entry) -> Generator[Record, None, None]:
    """Yield each transaction of a data file. Raises RepositoryError when it does not consist of whole ones."""
    blocks = _repository.blocks(os.path.join(repository, file.name), file.compressed)
    position = entry.start or HEAD
    for record in walk(_repository.ahead(blocks) if file.compressed else blocks, entry.start):
        yield record
        position = record.end
    if position != entry.end:
        raise RepositoryError(f"{file.name} is damaged: no whole transaction begins at byte {position - entry.start} of what it holds.")


def _first_tid(repository: str, file: DataFile) -> bytes | None:
    """Return the tid that a data file begins with, None when it does not begin as one does."""
    try:
        with open(os.path.join(repository, file.name), "rb", buffering=0) as stream:
            start = stream.read(65536)
        if file.compressed:
            start = zlib.decompressobj(wbits=31).decompress(start, 64)
    except (OSError, zlib.error):
        return None
    if file.full:
        start = start[HEAD:] if start[:HEAD] in _filestorage.MAGIC else b""
    return start[:8] if len(start) >= 8 else None


def open_repository(path: str) -> tuple[Repository, list[str]]:
    """Read a repository as its next backup will find it, and return a warning for each thing that is wrong in it.

    The newest data file without its line in the .dat file is what an interrupted run left, and does not count.
    Raises RepositoryError when there is no backup.
    """
    repository = _prune.read(path)
    warnings = repository.unfinished + repository.all_problems()
    newest = repository.chains[-1] if repository.chains else None
    if newest and [entry.name for entry in newest.entries] == newest.names[:-1]:
        newest.files.pop()
        if not newest.files:
            repository.chains.pop()
    if not repository.chains:
        raise RepositoryError(f"The repository {path} holds no full backup. {' '.join(warnings)}".rstrip())
    return repository, warnings


def sound(chain: Chain) -> int:
    """Return how many files from the chain's start on agree with their lines in the .dat file. Their data is not read."""
    position = 0
    for number, (file, entry) in enumerate(zip(chain.files, chain.entries)):
        held = None if file.compressed else file.bytes
        if file.name != entry.name or entry.start != position or entry.end <= position or held not in (None, entry.end - position):
            return number
        position = entry.end
    return min(len(chain.files), len(chain.entries))


def refuse_damaged(chain: Chain, whole: Record | None, more: str = "") -> RepositoryError:
    """Return the error for a chain of which more would be needed than is whole, up to a transaction if it is known."""
    reach = f". Up to the transaction {whole.tid.hex()} of {iso(whole.transaction().time)} it can be restored" if whole else ""
    return RepositoryError(f"The chain {chain.stamp} is damaged: {' '.join(filter(None, [*chain.problems, more]))[:-1]}{reach}.")


# Finding a moment


def locate(repository: str, chain: Chain, limit: bytes) -> Cut:
    """Find the last transaction of a chain that is not after limit. Raises RepositoryError when a damaged file may hold it.

    Only the first bytes of each file and one whole file are read.
    """
    whole, later, number = sound(chain), None, -1
    broken = ""
    for index, file in enumerate(chain.files[:whole]):
        first = _first_tid(repository, file)
        if first is None:
            whole, broken = index, f"{file.name} does not begin with a transaction."
            break
        if first > limit:
            later = first
            break
        number = index
    if number < 0:
        if later is None:
            raise refuse_damaged(chain, None, broken)
        return Cut(chain, [], 0, None, later, False)
    found, packed, end = None, False, 0
    with contextlib.closing(file_records(repository, chain.files[number], chain.entries[number])) as records:
        for record in records:
            if record.tid > limit:
                later, packed = record.tid, record.packed
                break
            found, end = record, record.end
    surely = whole == len(chain.files) == len(chain.entries) or (found and found.tid == limit)
    if later is None and not surely:
        raise refuse_damaged(chain, found, broken)
    return Cut(chain, chain.files[: number + 1], end, found, later, packed)


def select(repository: Repository, wanted: Wanted) -> tuple[Cut, list[str]]:
    """Find the chain that holds a wanted moment as it was, and where. Return the cut and warnings.

    The stamps tell only where to begin; what counts are the transactions. A chain that has none after the moment may have
    missed some, so the next one is asked, too. When the newest has none, whether the moment lies beyond is for the caller to
    see, also for a wanted transaction. Raises RepositoryError when the moment cannot be had.
    """
    chains = repository.chains
    start = max((number for number, chain in enumerate(chains) if stamp_end(chain.files[0]) <= wanted.moment), default=0)
    tried: list[Cut] = []
    damage: RepositoryError | None = None
    for chain in chains[start:]:
        try:
            tried.append(locate(repository.path, chain, wanted.limit))
        except RepositoryError as error:
            damage = damage or error
            continue
        if tried[-1].later is not None or (wanted.exact and _is_there(tried[-1], wanted)):
            break
    # Another chain may stand in for a damaged one, but only if it surely has the moment.
    if damage and not (tried and _is_there(tried[-1], wanted) and (tried[-1].later is not None or tried[-1].chain is chains[-1])):
        raise damage
    for chain in reversed(chains[:start]):
        if any(_is_there(cut, wanted) for cut in tried) or tried[-1].later is None:
            break
        tried.append(locate(repository.path, chain, wanted.limit))
    # After a restore the next chain may know less than the one before: what went furthest is how it was. Of two, the first was packed less.
    there = [cut for cut in tried if _is_there(cut, wanted)]
    best = max(there, key=lambda cut: cut.tid, default=None)
    if best is None and tried[-1].later is None and tried[-1].chain is chains[-1]:
        best = tried[-1]
    if best is None:
        raise _unreachable(repository.path, wanted, tried)
    warnings = [str(damage)] if damage else []
    surely = any(cut.tid == best.tid and (cut.later is not None or cut.chain is chains[-1]) for cut in [best, *there])
    if best.transaction and not surely and best.transaction.transaction().time < wanted.moment:
        warnings.append(
            f"After the backup {best.files[-1].name} the database was packed or replaced, before it was backed up again: what was committed between"
            f" {iso(best.transaction.transaction().time)} and the wanted time, if there was anything, is in no backup."
        )
    return best, warnings


def stamp_end(file: DataFile) -> datetime:
    """Return the last instant of the second that names a file; the first that a tid can have for a second that is none."""
    try:
        return file.time + (timedelta(seconds=1) - _INSTANT)
    except ValueError:
        return _filestorage.time_of(bytes(8))


def _is_there(cut: Cut, wanted: Wanted) -> bool:
    return cut.transaction is not None and not cut.packed and (not wanted.exact or cut.tid == wanted.limit)


def _unreachable(repository: str, wanted: Wanted, tried: list[Cut]) -> RepositoryError:
    """Return the error for a moment that no chain holds whole, with the nearest that can be had."""
    before = [cut.transaction.tid for cut in tried if cut.transaction and not cut.packed]
    after = [cut.later if cut.transaction and not cut.packed else _earliest(repository, cut.chain) for cut in tried]
    if any(cut.transaction and cut.packed and cut.transaction.tid == wanted.limit for cut in tried):
        says = "was rewritten by a pack: the database as of then is not whole any more"
    elif wanted.exact:
        says = "is not in the repository"
    else:
        says = "is before everything that the repository holds whole"
    return RepositoryError(f"{wanted.text} {says}. {nearest(max(before, default=None), min(filter(None, after), default=None))}")


def _earliest(repository: str, chain: Chain) -> bytes | None:
    """Return the first transaction of a chain at which the database is whole: the last that a pack rewrote, or the first of all."""
    found: Record | None = None
    with contextlib.closing(file_records(repository, chain.files[0], chain.entries[0])) as records:
        for record in records:
            if found and not record.packed:
                break
            found = record
    return found and found.tid


def nearest(before: bytes | None, after: bytes | None) -> str:
    """Return a sentence that names the nearest transactions that can be restored."""
    sides = [
        f"the nearest {side} it is {tid.hex()} of {iso(time_of(tid))}" if tid else f"there is none {side} it"
        for tid, side in ((before, "before"), (after, "after"))
    ]
    text = " and ".join(sides)
    return f"{text[0].upper()}{text[1:]}."


# Listing


def listed(repository: Repository, since: datetime | None, until: datetime | None, limit: int, live: str | None) -> Listing:
    """Return the transactions from since to until (UTC) that can be restored, at most limit of them, the newest.

    live is a database that continues the newest chain, whose transactions count too.
    """
    low = limit_of(since - _INSTANT) if since and since.year > 1900 else b""
    high = limit_of(until) if until else b"\xff" * 8
    kept: deque[Record] = deque(maxlen=limit)
    listing, newest, count = Listing([], False), b"", 0
    for number in range(len(repository.chains)):
        if not _concerns(repository.chains, number, since, until):
            continue
        before: Record | None = None
        for record in itertools.chain(_chain_records(repository, number, low, high, live, listing.warnings), [None]):
            # A transaction that a rewritten one follows cannot be restored from here.
            if before and not (record and record.packed) and low < before.tid <= high and before.tid > newest:
                kept.append(before)
                newest, count = before.tid, count + 1
            before = record
    listing.records, listing.more = list(kept), count > limit
    return listing


def _concerns(chains: list[Chain], number: int, since: datetime | None, until: datetime | None) -> bool:
    """Whether a chain may hold transactions of a window that the chain before does not hold."""
    begin = stamp_end(chains[number - 1].files[-1]) if number else None
    end = stamp_end(chains[number].files[-1]) if number + 1 < len(chains) else None
    return not (begin and until and begin - until > _CLOCKS) and not (end and since and since - end > _CLOCKS)


def _chain_records(repository: Repository, number: int, low: bytes, high: bytes, live: str | None, warnings: list[str]) -> Iterator[Record]:
    """Yield a chain's transactions in a range of tids and one on each side. What a damaged file holds is missing; a warning says so."""
    chain = repository.chains[number]
    files = list(zip(chain.files, chain.entries))[: sound(chain)]
    firsts = [_first_tid(repository.path, file) or b"" for file, _entry in files]
    try:
        for index, (file, entry) in enumerate(files):
            if index + 1 < len(files) and firsts[index + 1] <= low:
                continue
            with contextlib.closing(file_records(repository.path, file, entry)) as records:
                for record in records:
                    yield record
                    if record.tid > high:
                        return
        if live and number + 1 == len(repository.chains):
            with open_live(live, repository) as stream:
                for record in walk(range_of(stream, chain.end), chain.end):
                    yield record
                    if record.tid > high:
                        return
    except RepositoryError as error:
        warnings.append(str(error))


# The live database


def open_live(path: str, repository: Repository) -> BinaryIO:
    """Open the database that the newest chain is of. Raises RepositoryError when the one at path is not its continuation."""
    chain = repository.chains[-1]
    if sound(chain) != len(chain.entries) or len(chain.entries) != len(chain.files):
        raise refuse_damaged(chain, None)
    try:
        stream = open(path, "rb", buffering=0)  # noqa: SIM115 (the caller closes it)
    except OSError as error:
        raise RepositoryError(f"The live database {path} cannot be read: {error.strerror}.") from error
    if not _repozo.same(stream, chain, _repository.read_state(repository.path)):
        stream.close()
        raise RepositoryError(
            f"The live database {path} does not continue the newest chain {chain.stamp}: it was packed or replaced since, or is damaged."
            " Nothing of it can be appended; without it the backups alone are restored."
        )
    return stream


def range_of(stream: BinaryIO, start: int, end: int | None = None) -> Iterator[bytes]:
    """Yield the bytes of an open file from start to end, or to where it ends now."""
    stop = os.fstat(stream.fileno()).st_size if end is None else end
    while start < stop and (piece := os.pread(stream.fileno(), min(CHUNK, stop - start), start)):
        yield piece
        start += len(piece)
