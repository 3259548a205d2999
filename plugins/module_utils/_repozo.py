# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Makes a backup of one storage into a repozo repository: full, incremental or nothing.

Nothing counts before it is on disk: the data first, under a name that nobody reads, then its name, then its line in the
.dat file. Whatever moment a run is killed at, what was acknowledged before restores, and the next run clears up.

Before it adds to a chain, a run looks whether that chain is as it was stored. Before it begins a new one, it looks whether
the database still holds what the newest chain ends with: a database that lost it must not push good backups out.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, BinaryIO

from ansible_collections.confops.indico.plugins.module_utils import _filestorage, _pipeline, _prune, _repository
from ansible_collections.confops.indico.plugins.module_utils._repository import CHUNK, Chain, DataFile, Entry, Repository, RepositoryError

_SMALL = 4 * 2**20  # bytes of a chain's files that are read before each run, the newest first
_SEVERAL = 100  # files of a chain that are read before each run
_GZIP = 20  # bytes of the smallest gzip file
_RESTORED = ".restored"  # behind the name of a database: what a restore to an earlier moment noted


@dataclass
class Decision:
    """What a run does and why. start and end are the range of Data.fs (bytes) that it would store; chain is the one that it continues.

    warnings are sentences that the operator must see although the run succeeds.
    """

    kind: str  # full, incremental or nothing
    reason: str
    start: int
    end: int
    chain: Chain | None = None
    warnings: list[str] = field(default_factory=list, compare=False)


@dataclass
class Result:
    """What a run did, or in check mode would do. Sizes are bytes, seconds the time that it took."""

    decision: Decision
    repaired: list[str] = field(default_factory=list)
    file: str | None = None
    stored_bytes: int = 0
    md5: str | None = None
    last_transaction: _filestorage.Transaction | None = None
    seconds: float = 0.0

    @property
    def warnings(self) -> list[str]:
        return self.decision.warnings


def decide(repository: Repository, database: BinaryIO, path: str, state: dict[str, Any], *, full: str = "", max_incrementals: int | None = None) -> Decision:
    """Compare an open database with the repository. path is for messages; full is a reason to make a full backup in any case.

    Raises FileStorageError for a damaged database, RepositoryError for one that lost what the newest chain holds; with full both are warnings.
    """
    chain = repository.chains[-1] if repository.chains else None
    gone = [] if chain else _gone(repository, state)
    if chain and not chain.problems:
        chain.problems += unsound(repository.path, chain, state)
    sound = chain if chain and not chain.problems else None
    # The end of a chain is the end of a transaction, if it is a chain of this database at all.
    known = sound.end if sound and same(database, sound, state) else _filestorage.HEAD
    tail = _filestorage.look_at_end(database, path, known)
    end = tail.start
    warnings = [*repository.misread, *_about_tail(tail, path, full)]
    if chain and not (sound and known == sound.end and end >= known):  # it may have been cut off since it was compared
        lost = _lost(repository, chain, database, end, path, state)
        if lost and not full:
            raise RepositoryError(f"Nothing was stored. {lost}")
        warnings += [lost] if lost else []
    if chain and not sound:
        warnings.append(f"The chain {chain.stamp} cannot be trusted any more, so nothing is added to it: {chain.problems[0]} Older backups stay as they are.")
    warnings += [f"There is no chain to add to: {gone[0]}"] if gone else []
    if end == _filestorage.HEAD:
        return Decision("nothing", "the database holds no transaction yet", 0, 0, warnings=warnings)
    ahead = _filestorage.ahead_of_clock(database, end)
    warnings += [ahead.sentence(path)] if ahead else []
    # What a chain holds already was looked through when it was stored.
    begin = sound.end if sound and known == sound.end and not full else _filestorage.HEAD
    odd = _filestorage.disorder(database, begin, end, path) if end > begin else ""
    warnings += [odd] if odd else []

    def whole(reason: str) -> Decision:
        return Decision("full", reason, 0, end, warnings=warnings)

    if full:
        return whole(full)
    if chain is None:
        return whole(f"the repository holds no full backup any more: {gone[0]}" if gone else "the repository holds no full backup yet")
    if sound is None:
        return whole(f"the chain {chain.stamp} is damaged: {chain.problems[0]}")
    if end < sound.end:
        return whole(f"the database ends at {end}, before the {sound.end} bytes that the chain covers: it was packed or replaced")
    if known != sound.end:
        return whole(f"the database differs from the chain before byte {sound.end}: it was packed or replaced")
    if end == sound.end:
        return Decision("nothing", "no transaction since the last backup", end, end, sound, warnings)
    if max_incrementals is not None and len(sound.files) > max_incrementals:
        return whole(f"the chain {sound.stamp} holds {len(sound.files) - 1} incremental backups already")
    return Decision("incremental", f"{end - sound.end} bytes since the last backup", sound.end, end, sound, warnings)


def _about_tail(tail: _filestorage.Tail, path: str, full: str) -> list[str]:
    """Return warnings about what lies behind the last committed transaction. Raises FileStorageError for damage, unless a full backup was asked for."""
    if not tail.unfinished and not full:
        raise _filestorage.FileStorageError(
            f"{tail.problem(path)} Nothing was stored. A full backup that you ask for (full: true) stores the {tail.start} bytes before the damage."
        )
    if not tail.unfinished:
        return [f"{tail.problem(path)} The backup holds only the {tail.start} bytes before the damage."]
    if tail.cut_off:
        return [f"The last transaction of {path} is cut off: {tail.bytes} bytes lie behind byte {tail.start} and are not in the backup."]
    return []


def same(database: BinaryIO, chain: Chain, state: dict[str, Any]) -> bool:
    """Whether the database is the one that the chain is of.

    A FileStorage only grows; what replaces it, a pack or another copy, differs at the end of what the chain covers.
    The last MiB there is remembered; without that the last range is compared, as `repozo -Q` does.
    """
    if os.fstat(database.fileno()).st_size < chain.end:
        return False
    tail = state.get("tail")
    if isinstance(tail, dict) and (tail.get("chain"), tail.get("end")) == (chain.stamp, chain.end):
        size = tail.get("bytes")
        if isinstance(size, int) and 0 < size <= chain.end:
            return md5_of(database, chain.end - size, chain.end) == tail.get("md5")
    return md5_of(database, chain.entries[-1].start, chain.end) == chain.entries[-1].md5


def md5_of(stream: BinaryIO, start: int, end: int) -> str:
    """Return the md5 of a range (bytes) of an open file, or of what there is of it."""
    found = hashlib.md5(usedforsecurity=False)
    while start < end:
        piece = os.pread(stream.fileno(), min(CHUNK, end - start), start)
        if not piece:
            break
        found.update(piece)
        start += len(piece)
    return found.hexdigest()


# Whether a chain is as it was stored


def unsound(path: str, chain: Chain, state: dict[str, Any]) -> list[str]:
    """Return what is wrong with a chain whose lists are in order, as far as a cheap look tells: sentences that name the file and the difference.

    Each file must be there with the size that is remembered. The .dat file and the newest small files must have their md5, and so must
    every file that was written to since it was stored. With 1,000 sound files this takes less than 50 ms. Reads only.
    """
    stored = _repository.section(state, "stored")
    found = [f"{name}, which {_repository.STATE} remembers, is missing." for name in _missing(chain, stored)]
    found += _dat_differs(path, chain, stored)
    left, several = _SMALL, _SEVERAL
    verified = _repository.section(state, "verified")
    for one, entry in reversed(list(zip(chain.files, chain.entries))):
        record = stored.get(one.name, {})
        try:
            problem, read = _differs(path, one, entry, record, verified.get(one.name, {}), left if several > 0 else 0)
        except OSError as error:
            problem, read = f"{one.name} cannot be read: {error.strerror}.", 0
        except RepositoryError as error:
            problem, read = str(error), 0
        found += [problem] if problem else []
        left, several = left - read, several - bool(read)
    return found


def _missing(chain: Chain, stored: dict[str, dict[str, Any]]) -> list[str]:
    """Return the data files that are remembered as stored since the chain began and are not in it."""
    return sorted(name for name in stored if (one := _repository.data_file(name, 0)) and one.stamp >= chain.stamp and name not in chain.names)


def _gone(repository: Repository, state: dict[str, Any]) -> list[str]:
    """Say which full backups are missing where no chain is left: those that are remembered, or continued by what is here."""
    remembered = (_repository.data_file(name, 0) for name in sorted(_repository.section(state, "stored")))
    found = [f"{one.name}, which {_repository.STATE} remembers, is missing." for one in remembered if one and one.full]
    return found or [f"{one.name} continues a full backup that is not here." for one in repository.strays[:1]]


def _dat_differs(path: str, chain: Chain, stored: dict[str, dict[str, Any]]) -> list[str]:
    """Say when the lines of the .dat file that are remembered are others now. Lines that stock repozo added later are not remembered."""
    name = f"{chain.stamp}.dat"
    size, md5 = stored.get(name, {}).get("bytes"), stored.get(name, {}).get("md5")
    if not isinstance(size, int) or not isinstance(md5, str):
        return []
    try:
        content = _repository.read_small(os.path.join(path, name), follow=True)
    except OSError as error:
        return [f"{name} cannot be read: {error.strerror}."]
    if any(_md5(lines[:size]) == md5 for lines in (content, content.replace(b"\r\n", b"\n"))) or _as_remembered(chain, stored):
        return []
    return [f"{name} is not as it was written: {_repository.STATE} remembers another md5 of its first {size} bytes."]


def _as_remembered(chain: Chain, stored: dict[str, dict[str, Any]]) -> bool:
    """Whether each line says what is remembered of its file, in whatever way it is written."""
    return all(_entry_of(entry.name, stored.get(entry.name, {})) == entry for entry in chain.entries)


def _entry_of(name: str, record: dict[str, Any]) -> Entry | None:
    """Return the line that a file had when it was stored, None when that is not remembered."""
    start, end, plain = record.get("start"), record.get("end"), record.get("plain")
    return Entry(name, start, end, plain) if isinstance(start, int) and isinstance(end, int) and isinstance(plain, str) else None


def _differs(path: str, one: DataFile, entry: Entry, record: dict[str, Any], verified: dict[str, Any], most: int) -> tuple[str, int]:
    """Return a sentence when a file is not as it was stored or verified, and how many bytes were read for that, at most as many as given.

    A file that was written to since then is read in any case.
    """
    known = record.get("bytes", verified.get("bytes"))
    if isinstance(known, int) and known != one.bytes:
        return f"{one.name} has {one.bytes} bytes; it was written with {known}.", 0
    if one.bytes < (_GZIP if one.compressed else 1):
        return f"{one.name} has {one.bytes} bytes: it is empty or cut off.", 0
    place = os.path.join(path, one.name)
    now = os.stat(place)
    if not stat.S_ISREG(now.st_mode):
        return f"{one.name} is no regular file.", 0
    written = isinstance(record.get("mtime"), int) and record["mtime"] != now.st_mtime_ns
    if isinstance(record.get("md5"), str):
        if one.bytes > most and not written:
            return "", 0
        if _md5_of_file(place) != record["md5"]:
            return f"{one.name} is not as it was written: {_repository.STATE} remembers another md5.", one.bytes
        record["mtime"] = now.st_mtime_ns
        return "", one.bytes
    if entry.end - entry.start > most:
        return "", 0
    _stored, plain, size = _read_file(path, one)
    wrong = (size, plain) != (entry.end - entry.start, entry.md5)
    return (f"{one.name} does not hold the {entry.end - entry.start} bytes with the md5 {entry.md5} that its line says." if wrong else ""), size


def _open(path: str) -> BinaryIO:
    return _repository.open_regular(path, follow=True, buffering=0)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _md5_of_file(path: str) -> str:
    with _open(path) as stream:
        return md5_of(stream, 0, os.fstat(stream.fileno()).st_size)


def _read_file(path: str, one: DataFile) -> tuple[str, str, int]:
    """Read a whole data file. Return its md5, and the md5 and size of what it holds uncompressed. Raises RepositoryError for a damaged one, OSError."""
    _open(os.path.join(path, one.name)).close()
    stored, plain, size = hashlib.md5(usedforsecurity=False), hashlib.md5(usedforsecurity=False), 0
    for piece in _repository.blocks(os.path.join(path, one.name), one.compressed, stored.update):
        plain.update(piece)
        size += len(piece)
    return stored.hexdigest(), plain.hexdigest(), size


# Whether the database still holds what was backed up


def _lost(repository: Repository, chain: Chain, database: BinaryIO, end: int, path: str, state: dict[str, Any]) -> str:
    """Say when the database ends before the transaction that the newest chain ends with, unless a restore put it there. Nothing otherwise.

    A pack keeps the newest transactions. A database that ends earlier lost some, and backups of it would push out those that have them.
    """
    last = _filestorage.ending_at(database, end)
    if last is None and chain.end == _filestorage.HEAD:
        return ""  # neither ever held anything
    held = _last_tid(repository.path, chain, state)
    if last and (held is None or last.tid >= held or _put_back(path, database, end, state)):
        return ""
    ends = f"ends with the transaction {last.tid} of {last.data()['time']}" if last else "holds no transaction"
    holds = f"up to the transaction {held} of {_moment(held)}" if held else "transactions"
    return (
        f"{path} {ends}, but the newest chain {chain.stamp} holds {holds}: the database lost what is backed up."
        " Restore it with playbooks/restore.yml. If it is as you want it, ask for a full backup (full: true, or indico-backup run --full)."
    )


def _moment(tid: str) -> str:
    with contextlib.suppress(_filestorage.FileStorageError, ValueError):
        return _filestorage.time_of(bytes.fromhex(tid)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return "an unknown time"


def _last_tid(path: str, chain: Chain, state: dict[str, Any]) -> str | None:
    """Return the newest tid (hexadecimal) of a chain: what is remembered of its newest file, or what the newest file that can be read ends with."""
    for one in reversed(chain.files):
        for name in ("stored", "verified"):
            record = _repository.section(state, name).get(one.name, {})
            if isinstance(record.get("last"), str) and len(record["last"]) == 16:
                return str(record["last"])
        with contextlib.suppress(OSError, RepositoryError):
            return _tid_at_end(path, one)
    return None


def _tid_at_end(path: str, one: DataFile) -> str:
    """Return the tid (hexadecimal) of the last transaction in a data file. Raises RepositoryError, OSError.

    A compressed file is unpacked a second time when that transaction is larger than what is kept of the end.
    """
    with _open(os.path.join(path, one.name)) as stream:
        if not one.compressed:  # it may have been set to a huge size
            size = os.fstat(stream.fileno()).st_size
            begin = size - 8 - int.from_bytes(os.pread(stream.fileno(), 8, size - 8), "big") if size >= 8 else -1
            if begin < 0:
                raise RepositoryError(f"{one.name} does not end with a whole transaction.")
            return os.pread(stream.fileno(), 8, begin).hex()
    size, tail = 0, b""
    for piece in _pieces(path, one):
        size, tail = size + len(piece), (tail + piece)[-_pipeline.TAIL :]
    begin = size - 8 - int.from_bytes(tail[-8:], "big")
    tid = tail[begin - size + len(tail) :][:8] if begin >= size - len(tail) else b""
    position = 0
    for piece in _pieces(path, one) if 0 <= begin < size - len(tail) else ():
        tid += piece[max(begin - position, 0) : max(begin + 8 - position, 0)]
        position += len(piece)
        if len(tid) == 8:
            break
    if len(tid) < 8:
        raise RepositoryError(f"{one.name} does not end with a whole transaction.")
    return tid.hex()


def _pieces(path: str, one: DataFile) -> Iterator[bytes]:
    return _repository.blocks(os.path.join(path, one.name), one.compressed)


def note_restored(target: str, unfinished: str, last: _filestorage.Transaction) -> None:
    """Note that the file unfinished, which is about to become the database target, ends earlier because somebody restored it so.

    The note lies beside the database. It holds for that very file and once: the next full backup uses it up. Raises OSError.
    """
    found = os.stat(unfinished)
    note = {"inode": found.st_ino, "bytes": found.st_size, "tid": last.tid, "at": datetime.now(timezone.utc).isoformat()}
    # What is noted of the database that is there stays: this restore may be killed, or put back.
    kept = [one for one in _notes(target) if os.path.exists(target) and one.get("inode") == os.stat(target).st_ino][:1]
    _repository.replace(target + _RESTORED, json.dumps([note, *kept], sort_keys=True).encode() + b"\n")


def _notes(path: str) -> list[dict[str, Any]]:
    """Return what restores noted beside a database, the newest first; nothing when there is no such note or it is damaged."""
    with contextlib.suppress(OSError, RepositoryError, ValueError, RecursionError):
        notes = _repository.parse_json(_repository.read_small(os.path.realpath(path) + _RESTORED, follow=True))
        if isinstance(notes, list):
            return [one for one in notes if isinstance(one, dict) and isinstance(one.get("bytes"), int) and isinstance(one.get("at"), str)]
    return []


def _put_back(path: str, database: BinaryIO, end: int, state: dict[str, Any]) -> bool:
    """Whether the last restore made this very file, which still holds what was restored, and no backup has been made of it since."""
    inode = os.fstat(database.fileno()).st_ino
    for note in _notes(path):
        if note.get("inode") == inode and note["at"] != state.get("restored") and note["bytes"] <= end:
            last = _filestorage.ending_at(database, note["bytes"])
            return last is not None and last.tid == note.get("tid")
    return False


# What interrupted runs left


def repair(repository: Repository, state: dict[str, Any], act: bool) -> list[str]:
    """Find what interrupted runs left, remove or complete it when act, and say what that was. The lock must be held.

    What confops.json calls stored or verified is never removed: when its line in the .dat file is missing or damaged, the line is written again from
    what is remembered and what the file holds. The newest data file without a line is removed only when no run acknowledged it: when a run
    said that it was about to name it, or when stock repozo left its line cut off. What is wrong beyond that is not touched.
    Without act, repository and state, what is remembered of it, become what they would be.
    """
    done = []
    for name in repository.leftovers:
        # Stock repozo takes no lock: its file may belong to a run that goes on.
        if name == _repository.STOCK_TEMPORARY and time.time() - os.lstat(os.path.join(repository.path, name)).st_mtime < 86400:
            raise RepositoryError(f"{name} in {repository.path} is less than a day old: stock repozo may be at work there. Remove it when none is.")
        done.append(f"removed {name}, which an interrupted run left")
        if act:
            os.unlink(os.path.join(repository.path, name))
    for chain in repository.chains:
        done += _complete(repository, chain, state, act)
    if repository.chains:
        done += _remove_unlisted(repository, state, act)
    aside = _repository.set_aside(repository.path, act)
    if aside:
        done.append(f"moved the damaged {_repository.STATE} to {aside}, since it may name pinned chains; until that is settled none is pruned")
    return done


def _complete(repository: Repository, chain: Chain, state: dict[str, Any], act: bool) -> list[str]:
    """Write the missing and damaged lines of a .dat file again, when act and when each can be proven. Say which."""
    stored, dat = _repository.section(state, "stored"), f"{chain.stamp}.dat"
    if not chain.problems and not _dat_differs(repository.path, chain, stored):
        return []
    place = os.path.join(repository.path, dat)
    lines = _lines(place)
    entries = _proven_lines(repository.path, chain, state) if len(lines) <= len(chain.files) else None  # a line too many tells of a file that is gone
    old = {entries_of[0]: line for line in lines if (entries_of := _repository.parse_dat(line)[0])}
    if entries is None or (entries == chain.entries and len(old) == len(lines)):
        return []
    written = [entry.name for entry in entries if entry not in old]
    content = b""
    if act:
        content = "".join(old.get(entry) or entry.line(repository.path) for entry in entries).encode("utf-8", "surrogateescape")
        _repository.replace(place, content)
    records = {**stored, **{name: _nameless(_record(stored, state, name)) for name in written}}
    writing = state.get("writing")
    if writing in written or (isinstance(writing, dict) and writing.get("name") in written):
        del state["writing"]
    state["stored"] = {name: record for name, record in records.items() if record and name != dat}
    if act:
        state["stored"][dat] = {"bytes": len(content), "md5": _md5(content)}
        _repository.write_state(repository.path, state)
    chain.entries = entries
    chain.problems = [one for one in chain.problems if dat not in one or f"; {dat} says " in one]
    return [f"wrote the lines of {dat} for {', '.join(written) or 'its files'} again, from what {_repository.STATE} remembers and the files hold"]


def _lines(dat: str) -> list[str]:
    """Return the lines of a .dat file as they are, the last one perhaps cut off; none when it is missing or no regular file."""
    with contextlib.suppress(FileNotFoundError, RepositoryError):
        return [line.decode("utf-8", "surrogateescape") for line in io.BytesIO(_repository.read_small(dat, follow=True))]
    return []


def _proven_lines(path: str, chain: Chain, state: dict[str, Any]) -> list[Entry] | None:
    """Return the lines that a .dat file must have, None when one of them cannot be proven or names a file that is not here.

    A line that is there and contradicts nothing stays; any other must follow from a file that was acknowledged.
    """
    there = {entry.name: entry for entry in chain.entries}
    if not set(there) <= set(chain.names):
        return None
    stored, verified = _repository.section(state, "stored"), _repository.section(state, "verified")
    entries, position = [], 0
    for one in chain.files:
        line = there.get(one.name)
        remembered = _entry_of(one.name, stored.get(one.name, {}))
        if not line or line.start != position or line.end <= position or (remembered and remembered != line):
            line = _proven(path, one, position, _record(stored, state, one.name), verified.get(one.name, {}))
        if line is None:
            return None
        entries.append(line)
        position = line.end
    return entries


def _record(stored: dict[str, dict[str, Any]], state: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what is remembered of a file as it was stored, or was about to be when its run was killed."""
    writing = state.get("writing")
    return stored.get(name) or (writing if isinstance(writing, dict) and writing.get("name") == name else {})


def _proven(path: str, one: DataFile, start: int, record: dict[str, Any], verified: dict[str, Any]) -> Entry | None:
    """Return the line of a file that begins at start and is, byte by byte, what was stored or verified; None when that is not certain."""
    if one.bytes not in (record.get("bytes"), verified.get("bytes")):
        return None
    try:
        on_disk, plain, size = _read_file(path, one)
    except (OSError, RepositoryError):
        return None
    entry = Entry(one.name, start, start + size, plain)
    if size <= 0 or (_entry_of(one.name, record) or entry) != entry:
        return None
    if on_disk == record.get("md5"):
        return entry
    return entry if not record and [verified.get(key) for key in ("start", "end", "md5")] == [entry.start, entry.end, plain] else None


def _remove_unlisted(repository: Repository, state: dict[str, Any], act: bool) -> list[str]:
    """Remove the newest data file, when act and when it has no line and no run acknowledged it. Say so."""
    chain, writing = repository.chains[-1], state.get("writing")
    place = os.path.join(repository.path, f"{chain.stamp}.dat")
    listed, unlisted = [entry.name for entry in chain.entries], chain.names[-1]
    begun = unlisted in (writing, writing.get("name") if isinstance(writing, dict) else None)
    acknowledged = unlisted in _repository.section(state, "stored") or unlisted in _repository.section(state, "verified")
    if listed != chain.names[:-1] or acknowledged or not (begun or _cut_off(place)):
        return []
    if not act:
        del chain.files[-1]
        # A line that was cut off goes with its file.
        chain.problems = [one for one in chain.problems if unlisted not in one and not one.endswith(" is not whole.")]
        repository.chains = [one for one in repository.chains if one.files]
    else:
        if not begun and not _repository.damaged(repository.path):
            # Should this be cut short, the file still is known as one that does not count.
            _repository.write_state(repository.path, {**state, "writing": unlisted})
        if listed:
            _repository.replace(place, _whole_lines(place))  # what may be there of the next line goes
        os.unlink(os.path.join(repository.path, unlisted))
        for name in [os.path.join(repository.path, f"{unlisted.split('.')[0]}.index"), *([] if listed else [place])]:
            if os.path.exists(name):
                os.unlink(name)
        _repository.sync(repository.path)
    return [f"removed {unlisted}, which an interrupted run left without its line in {os.path.basename(place)}"]


def _cut_off(dat: str) -> bool:
    """Whether a .dat file ends within a line, as an interrupted stock repozo leaves it."""
    return bool(lines := _lines(dat)) and not lines[-1].endswith("\n")


def _whole_lines(dat: str) -> bytes:
    """Return the lines of a .dat file as they are, without one that was cut off."""
    return "".join(line for line in _lines(dat) if _repository.parse_dat(line)[0]).encode("utf-8", "surrogateescape")


# The run


def pack_running(path: str) -> bool:
    """Whether a server packs the database: it writes Data.fs.pack beside it, then renames."""
    try:
        return time.time() - os.stat(path + ".pack").st_mtime < 3600
    except FileNotFoundError:
        return False


def backup(path: str, repository_path: str, *, compression: str = "gzip", full: str = "", max_incrementals: int | None = None, check: bool = False) -> Result:
    """Make a backup of the database at path, or with check say what that would be. compression is none or gzip.

    Raises RepositoryError and FileStorageError, whose messages are for the operator.
    """
    began = time.monotonic()
    if any(character.isspace() for character in repository_path):
        raise RepositoryError(f"The repository is {repository_path!r}; stock repozo splits its lines on blanks, so its path must hold none.")
    with _repository.lock(repository_path):
        result = Result(Decision("nothing", "", 0, 0))
        try:
            if pack_running(path):
                raise RepositoryError(f"{path} is being packed ({path}.pack is there and new); back it up afterwards.")
            repository, state, result.repaired = _prepare(repository_path, check)
        except OSError as error:
            raise RepositoryError(f"{error.filename or repository_path}: {error.strerror or error}. No backup was made.") from error
        try:
            with _filestorage.opened(path) as database:
                result.decision = decide(repository, database, path, state, full=full, max_incrementals=max_incrementals)
                result.last_transaction = _filestorage.ending_at(database, result.decision.end) if result.decision.end else None
                if result.decision.kind != "nothing":
                    _ask(result, repository, compression)
                    if not check:
                        _store(result, database, path, repository, state, compression)
        except OSError as error:
            raise RepositoryError(f"The database {path} cannot be read: {error.strerror or error}.") from error
        result.seconds = time.monotonic() - began
        return result


def _prepare(path: str, check: bool) -> tuple[Repository, dict[str, Any], list[str]]:
    """Bring in order what interrupted runs left, or with check only say what that would be. Return the repository and its memory as they are then.

    The prediction comes first in any case, so a directory that cannot be written is refused before anything in it changes.
    """
    repository, state = _prune.read(path, acknowledged=False), _repository.read_state(path)
    told = _prune.finish(path, act=False) + repair(repository, state, act=False)
    if told:
        _repository.need_writable(path)
    if told and not check:
        told = _prune.finish(path)
        told += repair(_prune.read(path, acknowledged=False), _repository.read_state(path), act=True)
        repository, state = _prune.read(path, acknowledged=False), _repository.read_state(path)
    return repository, state, told


def _ask(result: Result, repository: Repository, compression: str) -> None:
    """Raise RepositoryError when the repository cannot be written, or has no room for what is to be stored."""
    _repository.need_writable(repository.path)
    # How well a first one is compressed nobody knows. A disk that it fills says so, and what was there stays.
    needed = stored_bytes(repository, result.decision.end - result.decision.start, compression, unknown=0)
    try:
        _repository.need_room(f"The {result.decision.kind} backup", needed, repository.path)
    except OSError as error:
        raise RepositoryError(f"The repository {repository.path} does not say how much room it has: {error.strerror}. No backup was made.") from error


def stored_bytes(repository: Repository, size: int, compression: str, unknown: int) -> int:
    """Return about what a backup stores of so many bytes of a database, compressed as well as the last full one; unknown when there is none."""
    if compression == "none":
        return size
    chains = [chain for chain in repository.chains if not chain.problems]
    return size * chains[-1].files[0].bytes // chains[-1].entries[0].end if chains else unknown


def _explain(error: OSError, repository: Repository, result: Result) -> str:
    """Return what failed and, by what is on disk now, what holds: before a file has its name nothing has changed, and after that the next run goes on."""
    decision, why = result.decision, f"{error.strerror or error}"
    name = os.path.basename(result.file or "")
    if result.file and os.path.exists(result.file):
        dat = f"{decision.chain.stamp if decision.kind == 'incremental' and decision.chain else name.split('.')[0]}.dat"
        with contextlib.suppress(OSError):
            if any(entry.name == name for line in _lines(os.path.join(repository.path, dat)) for entry in _repository.parse_dat(line)[0]):
                return f"{name} is stored in {repository.path} and restores, but {_repository.STATE} could not be written: {why}. The next run completes it."
        return f"{name} is stored in {repository.path}, but its line in {dat} could not be written: {why}. The next run writes it."
    unchanged = f"Nothing was stored. Before that, this run {'; '.join(result.repaired)}." if result.repaired else "Nothing that was there has changed."
    full = None if result.repaired else _repository.full(error, f"The {decision.kind} backup", decision.end - decision.start, repository.path)
    return full or f"The {decision.kind} backup could not be written to {repository.path}: {why}. {unchanged}"


def _stamp(repository: Repository) -> str:
    return _repository.fresh_stamp(repository.newest, repository.path)


def _store(result: Result, database: BinaryIO, path: str, repository: Repository, state: dict[str, Any], compression: str) -> None:
    """Store what was decided. Raises RepositoryError, which says what holds now."""
    try:
        _repository.need_features(repository.path)
        record, tail = _store_data(result, database, path, repository, state, compression)
        entries = _acknowledge(result, path, repository, state, record, tail)
        after = _repository.read(repository.path).chains[-1]
    except OSError as error:
        raise RepositoryError(_explain(error, repository, result)) from error
    # What counts is what is there.
    sizes = {one.name: one.bytes for one in after.files}
    if after.problems or after.entries != entries or sizes.get(record["name"]) != record["bytes"]:
        raise RepositoryError(f"{record['name']} was written to {repository.path}, but what is there now is something else: {' '.join(after.problems)}")


def _store_data(result: Result, database: BinaryIO, path: str, repository: Repository, state: dict[str, Any], compression: str) -> tuple[dict[str, Any], bytes]:
    """Write the data and give them their name. Return what is to be remembered of the file, and the last MiB of the range."""
    decision = result.decision
    suffix = ("fs" if decision.kind == "full" else "deltafs") + ("z" if compression == "gzip" else "")
    unfinished = os.path.join(repository.path, f"{_repository.TEMPORARY}{os.getpid()}.{suffix}")
    try:
        with open(unfinished, "x+b", buffering=0, opener=lambda name, flags: os.open(name, flags, 0o600)) as target:
            _repository.inherit(target.fileno(), repository.path)
            copied = _copy(database, decision.start, decision.end, target, compression)
            os.fsync(target.fileno())
            written = os.fstat(target.fileno())
        if _replaced(database, path):
            raise RepositoryError(f"{path} was replaced while it was read (a pack ended); nothing was stored, run again.")
        result.md5, result.stored_bytes = copied.md5, written.st_size
        name = f"{_stamp(repository)}.{suffix}"
        record = {
            "name": name,
            "bytes": copied.stored_bytes,
            "md5": copied.stored_md5,
            "mtime": written.st_mtime_ns,
            "start": decision.start,
            "end": decision.end,
            "plain": copied.md5,
            "last": result.last_transaction.tid if result.last_transaction else "",
        }
        # Until its line is there. A run that finds the file without it proves with this that it is whole.
        _repository.write_state(repository.path, {**state, "writing": record})
        result.file = os.path.join(repository.path, name)
        os.link(unfinished, result.file)  # unlike a rename, it replaces nothing
    finally:
        with contextlib.suppress(OSError):  # the next run clears up
            os.unlink(unfinished)
    _repository.sync(repository.path)
    return record, copied.tail


def _replaced(database: BinaryIO, path: str) -> bool:
    """Whether path is no longer the file that is open."""
    try:
        return not os.path.samestat(os.fstat(database.fileno()), os.stat(path))
    except FileNotFoundError:
        return True


def _acknowledge(result: Result, path: str, repository: Repository, state: dict[str, Any], record: dict[str, Any], tail: bytes) -> list[Entry]:
    """Write the line of a file that has its name, then remember how it was stored. Return the lines of its chain."""
    decision, name = result.decision, record["name"]
    chain = decision.chain if decision.kind == "incremental" and decision.chain else Chain(name.split(".")[0], [])
    dat = os.path.join(repository.path, f"{chain.stamp}.dat")
    # Lines that are there stay as they are, whatever directory they name.
    entries = [*chain.entries, Entry(name, decision.start, decision.end, record["plain"])]
    lines = (_whole_lines(dat) if chain.entries else b"") + entries[-1].line(repository.path).encode()
    _repository.replace(dat, lines)
    before = state.pop("writing", None)  # of a run that was killed when the line was there
    state["tail"] = {"chain": chain.stamp, "end": decision.end, "bytes": len(tail), "md5": _md5(tail)}
    here = set(os.listdir(repository.path))
    state["stored"] = {
        **{one: known for one, known in _repository.section(state, "stored").items() if one in here},
        **({before["name"]: _nameless(before)} if isinstance(before, dict) and before.get("name") in here else {}),
        name: _nameless(record),
        os.path.basename(dat): {"bytes": len(lines), "md5": _md5(lines)},
    }
    state["verified"] = {one: known for one, known in _repository.section(state, "verified").items() if one in here}
    used = [note["at"] for note in _notes(path) if note.get("inode") == os.stat(path).st_ino]
    if used:
        state["restored"] = used[0]
    _repository.write_state(repository.path, state)
    return entries


def _nameless(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "name"}


def _copy(source: BinaryIO, start: int, end: int, target: BinaryIO, compression: str) -> _pipeline.Copied:
    return _pipeline.copy(source, start, end, target, compression)
