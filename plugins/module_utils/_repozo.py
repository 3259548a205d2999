# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Makes a backup of one storage into a repozo repository: full, incremental or nothing.

Nothing counts before it is on disk: the data first, under a name that nobody reads, then its name, then its line in the
.dat file. Whatever moment a run is killed at, what was acknowledged before restores, and the next run clears up.
"""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import shutil
import subprocess
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from ansible_collections.confops.indico.plugins.module_utils import _filestorage, _prune, _repository
from ansible_collections.confops.indico.plugins.module_utils._repository import CHUNK, Chain, Entry, Repository, RepositoryError

_TAIL = 2**20  # bytes before the end of a chain that are remembered, to recognise the database by


@dataclass
class Decision:
    """What a run does and why. start and end are the range of Data.fs (bytes) that it would store; chain is the one that it continues."""

    kind: str  # full, incremental or nothing
    reason: str
    start: int
    end: int
    chain: Chain | None = None


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


def decide(repository: Repository, database: BinaryIO, path: str, state: dict[str, Any], *, full: str = "", max_incrementals: int | None = None) -> Decision:
    """Compare an open database with the repository. path is for messages; full is a reason to make a full backup in any case.

    Raises FileStorageError.
    """
    chain = repository.chains[-1] if repository.chains else None
    sound = chain if chain and not chain.problems else None
    # The end of a chain is the end of a transaction, if it is a chain of this database at all.
    known = sound.end if sound and same(database, sound, state) else _filestorage.HEAD
    end = _filestorage.committed_end(database, path, known)
    if end == _filestorage.HEAD:
        return Decision("nothing", "the database holds no transaction yet", 0, 0)

    def whole(reason: str) -> Decision:
        return Decision("full", reason, 0, end)

    if full:
        return whole(full)
    if chain is None:
        return whole("the repository holds no full backup yet")
    if sound is None:
        return whole(f"the chain {chain.stamp} is damaged: {chain.problems[0]}")
    if end < sound.end:
        return whole(f"the database ends at {end}, before the {sound.end} bytes that the chain covers: it was packed or replaced")
    if known != sound.end:
        return whole(f"the database differs from the chain before byte {sound.end}: it was packed or replaced")
    if end == sound.end:
        return Decision("nothing", "no transaction since the last backup", end, end, sound)
    if max_incrementals is not None and len(sound.files) > max_incrementals:
        return whole(f"the chain {sound.stamp} holds {len(sound.files) - 1} incremental backups already")
    return Decision("incremental", f"{end - sound.end} bytes since the last backup", sound.end, end, sound)


def same(database: BinaryIO, chain: Chain, state: dict[str, Any]) -> bool:
    """Whether the database is the one that the chain is of.

    A FileStorage only grows; what replaces it, a pack or another copy, differs at the end of what the chain covers.
    The last MiB there is remembered; without that the last range is compared, as `repozo -Q` does.
    """
    if os.fstat(database.fileno()).st_size < chain.end:
        return False
    tail = state.get("tail")
    if isinstance(tail, dict) and (tail.get("chain"), tail.get("end")) == (chain.stamp, chain.end) and isinstance(tail.get("bytes"), int):
        return md5_of(database, chain.end - tail["bytes"], chain.end) == tail.get("md5")
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


def repair(repository: Repository, act: bool) -> list[str]:
    """Find what interrupted runs left, remove it when act, and say what that was. The lock must be held.

    The newest data file without a line in its .dat file is one, if it is the one that a run said it was about to name, or if
    the line is cut off: it was not acknowledged. A data file whose line is damaged or missing for another reason stays.
    What is wrong beyond that is not touched; the chain is then not added to.
    """
    done = []
    writing = _repository.read_state(repository.path).get("writing")
    for name in repository.leftovers:
        # Stock repozo takes no lock: its file may belong to a run that goes on.
        if name == _repository.STOCK_TEMPORARY and time.time() - os.stat(os.path.join(repository.path, name)).st_mtime < 86400:
            raise RepositoryError(f"{name} in {repository.path} is less than a day old: stock repozo may be at work there. Remove it when none is.")
        done.append(f"removed {name}, which an interrupted run left")
        if act:
            os.unlink(os.path.join(repository.path, name))
    chain = repository.chains[-1] if repository.chains else None
    if chain:
        done += _repair_chain(repository, chain, writing, act)
    aside = _repository.set_aside(repository.path, act)
    if aside:
        done.append(f"moved the damaged {_repository.STATE} to {aside}, since it may name pinned chains; until that is settled none is pruned")
    return done


def _repair_chain(repository: Repository, chain: Chain, writing: object, act: bool) -> list[str]:
    dat = os.path.join(repository.path, f"{chain.stamp}.dat")
    listed = [entry.name for entry in chain.entries]
    unlisted = chain.names[-1]
    if listed != chain.names[:-1] or not (unlisted == writing or _cut_off(dat)):
        return []
    if act:
        if listed:
            _repository.replace(dat, _whole_lines(dat))  # what may be there of the next line goes
        os.unlink(os.path.join(repository.path, unlisted))
        for name in [os.path.join(repository.path, f"{unlisted.split('.')[0]}.index"), *([] if listed else [dat])]:
            if os.path.exists(name):
                os.unlink(name)
        _repository.sync(repository.path)
    return [f"removed {unlisted}, which an interrupted run left without its line in {os.path.basename(dat)}"]


def _cut_off(dat: str) -> bool:
    """Whether a .dat file ends within a line, as an interrupted stock repozo leaves it."""
    try:
        with open(dat, "rb") as stream:
            content = stream.read()
    except FileNotFoundError:
        return False
    return bool(content) and not content.endswith(b"\n")


def _whole_lines(dat: str) -> bytes:
    """Return the lines of a .dat file as they are, without one that was cut off."""
    with open(dat, encoding="utf-8", errors="surrogateescape", newline="\n") as stream:
        return "".join(line for line in stream if _repository.parse_dat(line)[0]).encode("utf-8", "surrogateescape")


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
    if pack_running(path):
        raise RepositoryError(f"{path} is being packed ({path}.pack is there and new); back it up afterwards.")
    with _repository.lock(repository_path):
        result = Result(Decision("nothing", "", 0, 0))
        try:
            result.repaired = _prune.finish(repository_path, act=not check) + repair(_repository.read(repository_path), act=not check)
            repository = _repository.read(repository_path)
            if check and result.repaired:
                repository = _as_repaired(repository, result.repaired)
            state = _repository.read_state(repository_path)
        except OSError as error:
            raise RepositoryError(f"{error.filename or repository_path}: {error.strerror or error}. No backup was made.") from error
        try:
            database = open(path, "rb", buffering=0)  # noqa: SIM115 (closed below; its errors are told apart)
        except OSError as error:
            raise RepositoryError(f"The database {path} cannot be read: {error.strerror}.") from error
        with database:
            result.decision = decide(repository, database, path, state, full=full, max_incrementals=max_incrementals)
            result.last_transaction = _filestorage.ending_at(database, result.decision.end) if result.decision.end else None
            if result.decision.kind != "nothing":
                # How well a first one is compressed nobody knows. A disk that it fills says so, and what was there stays.
                needed = stored_bytes(repository, result.decision.end - result.decision.start, compression, unknown=0)
                _repository.need_room(f"The {result.decision.kind} backup", needed, repository_path)
            if result.decision.kind != "nothing" and not check:
                try:
                    _repository.need_features(repository_path)
                    _store(result, database, path, repository, state, compression)
                except OSError as error:
                    raise RepositoryError(_explain(error, repository_path, result.decision)) from error
        result.seconds = time.monotonic() - began
        return result


def stored_bytes(repository: Repository, size: int, compression: str, unknown: int) -> int:
    """Return about what a backup stores of so many bytes of a database, compressed as well as the last full one; unknown when there is none."""
    if compression == "none":
        return size
    chains = [chain for chain in repository.chains if not chain.problems]
    return size * chains[-1].files[0].bytes // chains[-1].entries[0].end if chains else unknown


def _as_repaired(repository: Repository, repaired: list[str]) -> Repository:
    """Return what reading would find after the repair, for check mode: a newest data file that is said to be removed is gone."""
    chain = repository.chains[-1] if repository.chains else None
    if chain and any(sentence.startswith(f"removed {chain.names[-1]},") for sentence in repaired):
        repository = _repository.read(repository.path, without=chain.names[-1:])
        for chain in repository.chains[-1:]:
            chain.problems = [one for one in chain.problems if not one.endswith(" is not whole.")]  # the line that was cut off goes with its file
    return repository


def _explain(error: OSError, repository_path: str, decision: Decision) -> str:
    if error.errno == errno.ENOSPC:
        free = shutil.disk_usage(repository_path).free
        return _repository.no_room(f"The {decision.kind} backup", decision.end - decision.start, free, repository_path)
    return f"The {decision.kind} backup could not be written to {repository_path}: {error.strerror or error}. Nothing that was there has changed."


def _stamp(repository: Repository) -> str:
    return _repository.fresh_stamp(repository.newest, repository.path)


def _store(result: Result, database: BinaryIO, path: str, repository: Repository, state: dict[str, Any], compression: str) -> None:
    decision = result.decision
    suffix = ("fs" if decision.kind == "full" else "deltafs") + ("z" if compression == "gzip" else "")
    unfinished = os.path.join(repository.path, f"{_repository.TEMPORARY}{os.getpid()}.{suffix}")
    try:
        with open(unfinished, "x+b", buffering=0, opener=lambda name, flags: os.open(name, flags, 0o600)) as target:
            _repository.inherit(target.fileno(), repository.path)
            result.md5, tail, stored_md5 = _copy(database, decision.start, decision.end, target, compression)
            os.fsync(target.fileno())
            result.stored_bytes = os.fstat(target.fileno()).st_size
        if not os.path.samestat(os.fstat(database.fileno()), os.stat(path)):
            raise RepositoryError(f"{path} was replaced while it was read (a pack ended); nothing was stored, run again.")
        stamp = _stamp(repository)
        name = f"{stamp}.{suffix}"
        state["writing"] = name  # until its line is there
        _repository.write_state(repository.path, state)
        os.link(unfinished, os.path.join(repository.path, name))  # unlike a rename, it replaces nothing
    finally:
        if os.path.exists(unfinished):
            os.unlink(unfinished)
    _repository.sync(repository.path)
    chain = decision.chain if decision.kind == "incremental" and decision.chain else Chain(stamp, [])
    entries = [*chain.entries, Entry(name, decision.start, decision.end, result.md5)]
    dat = os.path.join(repository.path, f"{chain.stamp}.dat")
    # Lines that are there stay as they are, whatever directory they name.
    lines = (_whole_lines(dat) if chain.entries else b"") + entries[-1].line(repository.path).encode()
    _repository.replace(dat, lines)
    del state["writing"]
    state["tail"] = {"chain": chain.stamp, "end": decision.end, "bytes": len(tail), "md5": hashlib.md5(tail, usedforsecurity=False).hexdigest()}
    here = set(os.listdir(repository.path))
    state["stored"] = {
        **{one: record for one, record in _repository.section(state, "stored").items() if one in here},
        name: {"bytes": result.stored_bytes, "md5": stored_md5},
        os.path.basename(dat): {"bytes": len(lines), "md5": hashlib.md5(lines, usedforsecurity=False).hexdigest()},
    }
    _repository.write_state(repository.path, state)
    # What counts is what is there.
    after = _repository.read(repository.path).chains[-1]
    if after.problems or after.entries != entries:
        raise RepositoryError(f"{name} was written to {repository.path}, but what is there now is something else: {' '.join(after.problems)}")
    result.file = os.path.join(repository.path, name)


def _copy(source: BinaryIO, start: int, end: int, target: BinaryIO, compression: str) -> tuple[str, bytes, str]:
    """Copy a range of the database. Return its md5, its last MiB and the md5 of what is stored.

    Reading and md5 keep one core busy, compressing another.
    """
    found, tail = hashlib.md5(usedforsecurity=False), b""
    stored = found if compression == "none" else hashlib.md5(usedforsecurity=False)
    position = 0
    pieces: queue.Queue[bytes | None] = queue.Queue(4)
    failed: list[BaseException] = []

    def write() -> None:
        write_piece, finish = _compressor(target) if compression == "gzip" else (lambda piece: _write(target, piece), lambda: None)
        try:
            while (piece := pieces.get()) is not None:
                write_piece(piece)
            finish()
        except BaseException as error:  # it is raised by the thread that reads
            failed.append(error)
            while pieces.get() is not None:
                pass

    def follow() -> None:
        """Take in what was stored since the last call. The thread that reads has time for it while the other compresses."""
        nonlocal position
        while stored is not found and (written := os.pread(target.fileno(), CHUNK, position)):
            stored.update(written)
            position += len(written)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        while start < end and not failed:
            piece = os.pread(source.fileno(), min(CHUNK, end - start), start)
            if not piece:
                raise RepositoryError(f"The database became shorter than {end} bytes while it was read; nothing was stored, run again.")
            pieces.put(piece)
            found.update(piece)
            tail = (tail + piece)[-_TAIL:]
            start += len(piece)
            follow()
    finally:
        pieces.put(None)
        writer.join()
    if failed:
        raise failed[0]
    follow()
    return found.hexdigest(), tail, stored.hexdigest()


def _write(target: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[target.write(view) :]


def _compressor(target: BinaryIO) -> tuple[Callable[[bytes], None], Callable[[], None]]:
    """Return two functions: one takes a piece to compress into target, one ends it. Both make ordinary gzip.

    igzip (Debian's isal) is several times as fast as zlib; without it zlib's fastest level serves.
    """
    program = shutil.which("igzip")
    if program is None:
        packer = zlib.compressobj(1, wbits=31)

        def finish() -> None:
            _write(target, packer.flush())

        return lambda piece: _write(target, packer.compress(piece)), finish

    process = subprocess.Popen([program, "-1", "-c"], stdin=subprocess.PIPE, stdout=target, stderr=subprocess.PIPE)
    feed, complaints = cast("BinaryIO", process.stdin), cast("BinaryIO", process.stderr)

    def end() -> None:
        complaint = b""
        try:
            feed.close()
        finally:
            complaint = complaints.read()
            complaints.close()
            process.wait()
        if process.returncode:
            raise OSError(_errno_of(target), f"igzip failed ({complaint.decode(errors='replace').strip() or process.returncode})")

    def put(piece: bytes) -> None:
        try:
            feed.write(piece)
        except BrokenPipeError:
            end()  # which says why
            raise

    return put, end


def _errno_of(target: BinaryIO) -> int:
    """Return why a program could not write to target: igzip does not say that the disk is full."""
    usage = os.fstatvfs(target.fileno())
    return errno.ENOSPC if usage.f_bavail * usage.f_frsize < 2 * CHUNK else errno.EIO
