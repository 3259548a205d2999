# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The transactions that a repository holds: which moments can be had back, and where they lie in which chain.

A FileStorage only grows and its tids ascend, so a moment is a cut behind the last transaction that is not later. A pack is the
exception. It rewrites what is older than its time: such transactions have the status p and hold only what was still current
then. A database cut before the last of them would lack objects, so that is never done; the chain before has it, or nothing.

One flipped bit in a tid moves a transaction by years. So the first bytes of a file only tell which files to read. Nothing is
decided before the file that holds the cut, and the file that proves where the later transactions begin, agree with their md5.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import zlib
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, BinaryIO, NamedTuple
from zoneinfo import ZoneInfo

from ansible_collections.confops.indico.plugins.module_utils import _filestorage, _prune, _repository, _repozo
from ansible_collections.confops.indico.plugins.module_utils._filestorage import HEAD, Transaction
from ansible_collections.confops.indico.plugins.module_utils._repository import CHUNK, Chain, DataFile, Entry, Repository, RepositoryError

_ISO = re.compile(r"([0-9]{4}-[0-9][0-9]-[0-9][0-9])[T ]([0-9][0-9]:[0-9][0-9](?::[0-9][0-9])?)(?:\.([0-9]{1,6}))?(Z|[+-][0-9][0-9]:[0-9][0-9])?")
_INSTANT = timedelta(microseconds=1)  # the finest that a datetime holds; a tid is finer
_ORPHAN = re.compile(r"([0-9]{4}(?:-[0-9][0-9]){5})\.dat belongs to no backup here\.")  # a sentence of _repository.read
_NOTHING = "d41d8cd98f00b204e9800998ecf8427e"  # the md5 of no bytes
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
    return f"{moment.year:04}{moment:-%m-%dT%H:%M:%S.%fZ}"  # strftime writes the year 1 with one digit


def moment_of(text: str, zone: str = "UTC", *, end: bool = True) -> datetime:
    """Return the moment (UTC) that an operator wrote: a day of that zone, repozo's stamp, or ISO 8601 with a zone.

    A day, a stamp and a time without fraction name a span; they mean its last instant, or its first without end. Raises RepositoryError.
    """
    rest_of_second = timedelta(seconds=1) - _INSTANT if end else timedelta()
    match = _ISO.fullmatch(text)
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9][0-9]-[0-9][0-9]", text):
            day = datetime.strptime(text, "%Y-%m-%d")
            if not end:
                return _in_zone(day, zone)
            return _in_zone(day + timedelta(days=1), zone) - _INSTANT
        if re.fullmatch(r"[0-9]{4}(-[0-9][0-9]){5}", text):
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
        raise RepositoryError(f"The transaction {text!r} is not understood: its id has 16 hexadecimal digits. Write it between quotes.")
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


class Damage(RepositoryError):
    """A file of the repository does not hold what was backed up."""


def verified(repository: str, file: DataFile, entry: Entry) -> Generator[bytes, None, None]:
    """Yield the uncompressed bytes of a data file. They count only when the end is reached: there Damage is raised if they are not what was backed up."""
    digest, size, expected = hashlib.md5(usedforsecurity=False), 0, entry.end - entry.start
    blocks = _repository.blocks(os.path.join(repository, file.name), file.compressed)
    try:
        for piece in _repository.ahead(blocks) if expected > CHUNK else blocks:
            digest.update(piece)
            size += len(piece)
            if size > expected:
                raise Damage(f"{file.name} is damaged: it holds more than the {expected} bytes that its .dat file says.")
            yield piece
    except OSError as error:
        raise Damage(f"{file.name} cannot be read: {error.strerror}.") from error
    except RepositoryError as error:
        raise error if isinstance(error, Damage) else Damage(str(error)) from error
    if size != expected:
        raise Damage(f"{file.name} is damaged: it holds {size} bytes of {expected}.")
    if digest.hexdigest() != entry.md5:
        raise Damage(f"{file.name} is damaged: its md5 is {digest.hexdigest()}, its .dat file says {entry.md5}.")


def file_records(repository: str, file: DataFile, entry: Entry) -> Generator[Record, None, None]:
    """Yield each transaction of a data file. They count only when the end is reached: there Damage is raised if the file is not as it was backed up."""
    position = entry.start or HEAD
    with contextlib.closing(verified(repository, file, entry)) as pieces:
        for record in walk(pieces, entry.start):
            yield record
            position = record.end
        deque(pieces, maxlen=0)
    if position != entry.end:
        raise _not_whole(file, entry, position)


def _not_whole(file: DataFile, entry: Entry, position: int) -> Damage:
    return Damage(f"{file.name} is damaged: no whole transaction begins at byte {position - entry.start} of what it holds.")


class Look(NamedTuple):
    """What a data file, which agrees with its md5, tells of a moment.

    found is its last transaction that is not later, later the tid of its first one that is; packed: a pack has rewritten that one.
    earliest, of a full backup, is the first tid at which the database is whole: the last that a pack rewrote, or the first of all.
    """

    found: Record | None
    later: bytes | None
    packed: bool
    earliest: bytes | None


class Files:
    """The data files of one repository, as one plan reads them: each is read once for a moment, and compared with its md5 to the end."""

    def __init__(self, repository: str) -> None:
        self.repository = repository
        self._looks: dict[tuple[str, bytes], Look | Damage] = {}

    def look(self, file: DataFile, entry: Entry, limit: bytes) -> Look:
        """Return what a file tells of the moment whose greatest tid is limit. Raises Damage."""
        key = (file.name, limit)
        if key not in self._looks:
            try:
                self._looks[key] = _look(self.repository, file, entry, limit)
            except Damage as error:
                self._looks[key] = error
        seen = self._looks[key]
        if isinstance(seen, Damage):
            raise seen
        return seen


def _look(repository: str, file: DataFile, entry: Entry, limit: bytes) -> Look:
    found: Record | None = None
    later: Record | None = None
    earliest: Record | None = None
    settled, reduced = not file.full, ""
    with contextlib.closing(verified(repository, file, entry)) as pieces:
        for record in walk(pieces, entry.start):
            if not settled and earliest and not record.packed:
                settled = True
            elif not settled:
                earliest = record
            if found and later is None and record.tid <= found.tid:
                reduced = f"{file.name}: the transaction {record.tid.hex()} is not newer than {found.tid.hex()} before it, so its transactions tell no time."
                break
            if later is None and record.tid > limit:
                later = record
            elif later is None:
                found = record
            if later and settled:
                break
        deque(pieces, maxlen=0)  # the md5 is of all of it
    if reduced:
        raise Damage(reduced)
    position = found.end if found else entry.start or HEAD
    if later is None and position != entry.end:
        raise _not_whole(file, entry, position)
    return Look(found, later and later.tid, later is not None and later.packed, earliest and earliest.tid)


def _first_tid(repository: str, file: DataFile, entry: Entry) -> bytes | None:
    """Return the tid that a data file seems to begin with, None when it does not begin as one does. It only tells which files to read."""
    if file.full and entry.end == HEAD:
        return b""  # a database without a transaction, before all that follow
    try:
        with _repository.open_regular(os.path.join(repository, file.name), follow=True, buffering=0) as stream:
            start = stream.read(65536)
        if file.compressed:
            start = zlib.decompressobj(wbits=31).decompress(start, 64)
    except (OSError, zlib.error, RepositoryError):
        return None
    if file.full:
        start = start[HEAD:] if start[:HEAD] in _filestorage.MAGIC else b""
    return start[:8] if len(start) >= 8 else None


def open_repository(path: str) -> tuple[Repository, list[str]]:
    """Read a repository as its next backup will find it, and return a warning for each thing that is wrong in it.

    The newest data file without its line in the .dat file is what an interrupted run left, and does not count, unless
    something tells that it was stored. Raises RepositoryError when there is no backup.
    """
    repository, state = _prune.read(path), _repository.read_state(path)
    strange = _repository.strangers(repository, state)
    if strange:
        left_out = {name for chain in repository.chains if chain.stamp in strange for name in _repository.only_of(chain)}
        repository = _prune.read(path, without=left_out)
    warnings = [*strange.values(), *repository.unfinished, *repository.all_problems()]
    newest = repository.chains[-1] if repository.chains else None
    if newest and [entry.name for entry in newest.entries] == newest.names[:-1] and not _acknowledged(path, newest, state):
        warnings.append(f"{newest.names[-1]} is left out, since nothing tells that its backup was finished: what it holds is not restored.")
        newest.files.pop()
        if not newest.files:
            repository.chains.pop()
    if not repository.chains:
        raise RepositoryError(f"The repository {path} holds no full backup. {' '.join(warnings)}".rstrip())
    warnings += _lost(repository, state)
    for chain in repository.chains:
        _pass_over_empty(chain)
    _miss_newer(repository)
    return repository, warnings


def _acknowledged(path: str, chain: Chain, state: dict[str, Any]) -> bool:
    """Whether the run came to its end that wrote the newest file of a chain: confops.json remembers it, or its line is there, but damaged."""
    name = chain.names[-1]
    if name in _repository.section(state, "stored") and state.get("writing") != name:
        return True
    with contextlib.suppress(OSError, RepositoryError):
        dat = _repository.read_small(os.path.join(path, f"{chain.stamp}.dat"), follow=True)
        return dat.count(b"\n") > len(chain.entries)  # a run that was interrupted leaves at most a line without an end
    return False


def _miss_newer(repository: Repository) -> None:
    """Count a .dat file without its full backup, newer than all backups, as damage of the newest chain: what it tells of is not there."""
    newest, soon = repository.chains[-1], _repository.stamp_of(datetime.now(timezone.utc) + _CLOCKS)
    for sentence in repository.problems:
        match = _ORPHAN.fullmatch(sentence)
        if match and match[1] > newest.files[-1].stamp and _repository.moment_of(match[1]) and match[1] <= soon:
            newest.problems.append(sentence)
            newest.entries.append(Entry(f"{match[1]}.fs", newest.end, newest.end, ""))


def _pass_over_empty(chain: Chain) -> None:
    """Leave out incremental backups of no bytes. Stock repozo makes one when a transaction is being written and none has ended."""
    empty = {entry.name for entry in chain.entries if entry.start == entry.end and entry.start > 0 and entry.md5 == _NOTHING}
    if chain.names == [entry.name for entry in chain.entries]:
        chain.files = [file for file in chain.files if file.name not in empty]
        chain.entries = [entry for entry in chain.entries if entry.name not in empty]


def _lost(repository: Repository, state: dict[str, Any]) -> list[str]:
    """Return a warning when confops.json remembers a newer backup than there is."""
    tail, newest = state.get("tail"), repository.chains[-1]
    stamp, end = (tail.get("chain"), tail.get("end")) if isinstance(tail, dict) else (None, None)
    if not isinstance(stamp, str) or not isinstance(end, int) or (newest.stamp, newest.end) >= (stamp, end):
        return []
    held = {chain.stamp: chain.end for chain in repository.chains}.get(stamp, 0)
    return [f"{_repository.STATE} remembers the chain {stamp} up to byte {end} of the database; the repository holds {held} bytes of that."]


def sound(chain: Chain) -> int:
    """Return how many files from the chain's start on agree with their lines in the .dat file, and these with confops.json. Their data is not read."""
    position = 0
    for number, (file, entry) in enumerate(zip(chain.files, chain.entries)):
        held = None if file.compressed else file.bytes
        fits = file.name == entry.name and file.name not in chain.doubted and entry.start == position < entry.end
        if not fits or held not in (None, entry.end - position):
            return number
        position = entry.end
    return min(len(chain.files), len(chain.entries))


def refuse_damaged(chain: Chain, more: str = "") -> Damage:
    """Return the error for a chain of which more would be needed than is whole."""
    return Damage(f"The chain {chain.stamp} is damaged: {' '.join(dict.fromkeys(filter(None, [*chain.problems, more])))}")


# Finding a moment


def locate(files: Files, chain: Chain, limit: bytes) -> Cut:
    """Find the last transaction of a chain that is not after limit. Raises Damage when a damaged file may hold it.

    The first bytes of each file tell where to look. The file found so is compared with its md5, and the one behind it too,
    when only that one proves that nothing more is wanted. The files before are compared when the database is written.
    """
    firsts, broken = _firsts(files.repository, chain)
    number = sum(first <= limit for first in firsts) - 1
    try:
        return _cut(files, chain, limit, number, len(firsts), broken)
    except Damage as error:
        with contextlib.suppress(Damage):
            # The wanted transaction may end the file before. Then no other file is needed as a proof.
            before = _cut(files, chain, limit, number - 1, len(firsts), broken) if number > 0 else None
            if before and before.tid == limit:
                return before
        raise refuse_damaged(chain, str(error)) from error


def _firsts(repository: str, chain: Chain) -> tuple[list[bytes], str]:
    """Return the tids that the files of a chain seem to begin with, as far as they can be right, and a sentence about the first that cannot."""
    firsts: list[bytes] = []
    newest = b""
    for number, (file, entry) in enumerate(list(zip(chain.files, chain.entries))[: sound(chain)]):
        first = _first_tid(repository, file, entry)
        if first is None:
            return firsts, f"{file.name} does not begin with a transaction."
        if number and first <= newest:
            return firsts, behind_the_last(file.name, first, newest)
        firsts.append(first)
        newest = max(first, bytes.fromhex(chain.lasts.get(file.name, "")))
    return firsts, ""


def behind_the_last(name: str, first: bytes, last: bytes) -> str:
    """Return the sentence about a data file whose first tid is not newer than the last one of the file before."""
    return f"{name} is damaged: it begins with the transaction {first.hex()}, which is not newer than {last.hex()} in the file before."


def _cut(files: Files, chain: Chain, limit: bytes, number: int, whole: int, broken: str) -> Cut:
    """Return where a moment falls in a chain, of which so many files seem whole, when the file of that number holds it; -1: it is before all. Raises Damage."""
    pairs = list(zip(chain.files, chain.entries))[:whole]
    if number < 0:
        if not pairs:
            raise Damage(broken)
        return Cut(chain, [], 0, None, files.look(*pairs[0], limit).later, False)
    look = files.look(*pairs[number], limit)
    found, later = look.found, look.later
    exactly = found is not None and found.tid == limit
    if later is None and not exactly and number + 1 < whole:
        later = files.look(*pairs[number + 1], limit).later
    if later is None and not exactly and not whole == len(chain.files) == len(chain.entries):
        raise Damage(broken)
    return Cut(chain, chain.files[: number + 1], found.end if found else 0, found, later, look.packed)


def last_good(files: Files, chains: list[Chain], limit: bytes) -> tuple[Chain, Record] | None:
    """Return the last transaction, not after limit, of which every byte up to it agrees with its md5, and its chain; None when there is none."""
    for chain in reversed(chains):
        good: Record | None = None
        firsts, _broken = _firsts(files.repository, chain)
        for file, entry, first in zip(chain.files, chain.entries, firsts):
            if good and first <= good.tid:
                break
            try:
                look = files.look(file, entry, limit)
            except Damage:
                break
            good = None if look.packed else look.found or good
            if look.later is not None:
                break
        if good:
            return chain, good
    return None


def behind(repository: Repository, limit: bytes) -> tuple[int, bytes]:
    """Return how many transactions of the newest chain are later than limit, and the newest tid. Damaged files end the count."""
    chain, count, newest = repository.chains[-1], 0, limit
    firsts, _broken = _firsts(repository.path, chain)
    begin = max(0, sum(first <= limit for first in firsts) - 1)
    with contextlib.suppress(Damage):
        for pair in list(zip(chain.files, chain.entries))[begin : len(firsts)]:
            for record in file_records(repository.path, *pair):
                if record.tid > limit:
                    count, newest = count + 1, max(newest, record.tid)
    return count, newest


def way_out(good: Record | None) -> str:
    """Return a sentence for a refusal: what can be restored instead, and how."""
    if not good:
        return "No transaction before can be restored."
    return f"The last good transaction is {good.tid.hex()} of {iso(time_of(good.tid))}; to restore to it, set transaction to its id."


def select(files: Files, repository: Repository, wanted: Wanted) -> tuple[Cut, list[str]]:
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
            tried.append(locate(files, chain, wanted.limit))
        except RepositoryError as error:
            damage = damage or error
            continue
        if tried[-1].later is not None or (wanted.exact and _is_there(tried[-1], wanted)):
            break
    # Another chain may stand in for a damaged one, but only if it surely has the moment.
    if damage and not (tried and _is_there(tried[-1], wanted) and (wanted.exact or tried[-1].later is not None or tried[-1].chain is chains[-1])):
        raise damage
    for chain in reversed(chains[:start]):
        if any(_is_there(cut, wanted) for cut in tried) or tried[-1].later is None:
            break
        tried.append(locate(files, chain, wanted.limit))
    # After a restore the next chain may know less than the one before: what went furthest is how it was. Of two, the first was packed less.
    there = [cut for cut in tried if _is_there(cut, wanted)]
    best = max(there, key=lambda cut: cut.tid, default=None)
    if best is None and tried[-1].later is None and tried[-1].chain is chains[-1]:
        best = tried[-1]
    if best is None:
        raise _unreachable(files, wanted, tried)
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


def _unreachable(files: Files, wanted: Wanted, tried: list[Cut]) -> RepositoryError:
    """Return the error for a moment that no chain holds whole, with the nearest that can be had."""
    before = [cut.transaction.tid for cut in tried if cut.transaction and not cut.packed]
    after = [cut.later if cut.transaction and not cut.packed else _earliest(files, cut.chain, wanted.limit) for cut in tried]
    if any(cut.transaction and cut.packed and cut.transaction.tid == wanted.limit for cut in tried):
        says = "was rewritten by a pack: the database as of then is not whole any more"
    elif wanted.exact:
        says = "is not in the repository"
    else:
        says = "is before everything that the repository holds whole"
    return RepositoryError(f"{wanted.text} {says}. {nearest(max(before, default=None), min(filter(None, after), default=None))}")


def _earliest(files: Files, chain: Chain, limit: bytes) -> bytes | None:
    """Return the first transaction of a chain at which the database is whole, None when its full backup is damaged."""
    with contextlib.suppress(Damage):
        return files.look(chain.files[0], chain.entries[0], limit).earliest
    return None


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

    live is a database that continues the newest chain, whose transactions count too. Raises RepositoryError.
    """
    low = limit_of(since - _INSTANT) if since and since.year > 1900 else b""
    window = _Window(low, limit_of(until) if until else b"\xff" * 8, limit)
    warnings: list[str] = []
    for number in range(len(repository.chains)):
        if _concerns(repository.chains, number, since, until):
            _list_chain(repository, number, window, live, warnings)
    return Listing(list(window.kept), window.count > limit, warnings)


class _Window:
    """Collects the transactions behind low up to high (tids); the newest are kept, as many as limit. What a file holds counts when all of it was read."""

    def __init__(self, low: bytes, high: bytes, limit: int) -> None:
        self.low, self.high, self.count, self.newest = low, high, 0, b""
        self.kept: deque[Record] = deque(maxlen=limit)
        self.before: Record | None = None

    def take(self, records: Iterator[Record]) -> bool:
        """Take in one file. Return whether it goes beyond high. Raises Damage when the file is not as it was backed up; then it counts for nothing."""
        fresh: deque[Record] = deque(maxlen=self.kept.maxlen)
        before, count, newest, beyond = self.before, self.count, self.newest, False
        for record in records:
            # A transaction that a rewritten one follows cannot be restored from here.
            if before and not beyond and not record.packed and self.low < before.tid <= self.high and before.tid > newest:
                fresh.append(before)
                newest, count = before.tid, count + 1
            beyond = beyond or record.tid > self.high
            before = record
        self.before, self.count, self.newest = before, count, newest
        self.kept.extend(fresh)
        return beyond

    def end(self) -> None:
        """Take in the last transaction of a chain, which nothing follows."""
        last, self.before = self.before, None
        if last and self.low < last.tid <= self.high and last.tid > self.newest:
            self.kept.append(last)
            self.newest, self.count = last.tid, self.count + 1


def _concerns(chains: list[Chain], number: int, since: datetime | None, until: datetime | None) -> bool:
    """Whether a chain may hold transactions of a window that the chain before does not hold."""
    begin = stamp_end(chains[number - 1].files[-1]) if number else None
    end = stamp_end(chains[number].files[-1]) if number + 1 < len(chains) else None
    return not (begin and until and begin - until > _CLOCKS) and not (end and since and since - end > _CLOCKS)


def _list_chain(repository: Repository, number: int, window: _Window, live: str | None, warnings: list[str]) -> None:
    """Take in what a chain has of the window. What lies in a damaged file or behind it cannot be restored and is missing; a warning says so."""
    chain = repository.chains[number]
    firsts, broken = _firsts(repository.path, chain)
    try:
        beyond = False
        for index, pair in enumerate(list(zip(chain.files, chain.entries))[: len(firsts)]):
            if index + 1 == len(firsts) or firsts[index + 1] > window.low:
                beyond = window.take(file_records(repository.path, *pair))
            if beyond:
                break
        if broken and not beyond:
            raise refuse_damaged(chain, broken)
        if live and not beyond and number + 1 == len(repository.chains):
            with open_live(live, repository) as stream:
                window.take(walk(range_of(stream, chain.end), chain.end))
    except RepositoryError as error:
        warnings.append(str(error))
    window.end()


# The live database


def open_live(path: str, repository: Repository) -> BinaryIO:
    """Open the database that the newest chain is of. Raises RepositoryError when the one at path is not its continuation."""
    chain = repository.chains[-1]
    if sound(chain) != len(chain.entries) or len(chain.entries) != len(chain.files):
        raise refuse_damaged(chain)
    try:
        stream = _repository.open_regular(path, follow=True, buffering=0)
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
