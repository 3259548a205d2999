# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Verifies a repozo repository: what the directory shows, and every byte of what was backed up. Needs no ZODB and changes no backup."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _filestorage, _prune, _repository
from ansible_collections.confops.indico.plugins.module_utils._repository import CHUNK, Chain, DataFile, Entry, Found, Repository, RepositoryError

TIME = "%Y-%m-%dT%H:%M:%SZ"
_TAIL = 2**20  # bytes at the end of a range that are kept; a transaction is rarely larger
_SMALLEST = 23  # bytes of a transaction's header, which its length counts
_PATIENCE = 5.0  # seconds to wait for a run that holds the repository
_MOST_JOBS = 1024


@dataclass
class Report:
    """What a verification found. problems are sentences that name the file. Bytes are those on disk."""

    chains: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    verified_files: int = 0
    verified_bytes: int = 0
    skipped_files: int = 0
    remembered: bool = False
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class _Content:
    """What reading one file found. first and last are the tids (hexadecimal) of its range, empty when they are not known."""

    problems: list[str] = field(default_factory=list)
    first: str = ""
    last: str = ""
    gone: bool = False


@dataclass(frozen=True)
class _Task:
    """One file to read, its line, and what was remembered when it was written."""

    file: DataFile
    entry: Entry
    dat: str
    stored: dict[str, Any] | None


def verify(path: str, *, scope: str = "all", jobs: int | None = None, check: bool = False) -> Report:
    """Verify the repository at path. With scope new, files that are remembered as verified are not read again.

    jobs is how many cores to keep busy, by default all. With check nothing is remembered.
    Raises RepositoryError when there is nothing to verify; what is wrong with the backups is in the report.
    """
    began = time.monotonic()
    jobs = len(os.sched_getaffinity(0)) if jobs is None else jobs
    if jobs < 1:
        raise RepositoryError(f"jobs is {jobs}; at least one is needed.")
    if jobs > _MOST_JOBS:
        raise RepositoryError(f"jobs is {jobs}; at most {_MOST_JOBS} are possible.")
    report = Report()
    try:
        state = _repository.read_state(path)  # before the rest, so that it never knows more than the directory shows
        if _repository.damaged(path):
            report.warnings.append(f"{_repository.STATE} is damaged: what it remembered is lost.")
    except OSError as error:
        state = {}
        report.warnings.append(f"{_repository.STATE} cannot be read ({error.strerror}): what it remembers was not compared.")
    at = datetime.now(timezone.utc).strftime(TIME)
    repository = look(path)
    if not repository.newest:
        if repository.unfinished:
            raise RepositoryError(f"The repository {path} holds no backup yet. {repository.unfinished[0]}")
        raise RepositoryError(f"The repository {path} is empty: it holds no backup.")
    stored, memory = _stored(state), _repository.section(state, "verified")
    here = _repository.listing(path)
    tasks = [
        _Task(one, entry, f"{chain.stamp}.dat", stored.get(one.name))
        for chain in repository.chains
        for one, entry in _listed(chain)
        if (scope == "all" or not recall(memory, one, entry)) and not _irregular(here, one.name)
    ]
    contents = _read_all(path, tasks, jobs)
    if any(content.gone for content in contents.values()):
        # It may have been pruned meanwhile.
        there = {chain.stamp for chain in look(path).chains}
        repository.chains = [chain for chain in repository.chains if chain.stamp in there]
    report.warnings += repository.unfinished
    report.problems += repository.problems
    # Nothing that was acknowledged is lost with these.
    report.warnings += [f"{name} is unfinished: the run that wrote it was interrupted. The next backup removes it." for name in repository.leftovers]
    strange = _repository.strangers(repository, state)
    for chain in repository.chains:
        problems = [*chain.problems, *([strange[chain.stamp]] if chain.stamp in strange else []), *_beside(path, chain, stored, here)]
        problems += [sentence for name in chain.names if name in contents for sentence in contents[name].problems]
        problems = list(dict.fromkeys([*problems, *_in_order(chain, contents, memory)]))
        report.warnings += [f"{name} is a symbolic link: what it leads to lies outside of the repository." for name in chain.names if _is_link(here, name)]
        report.problems += problems
        report.chains.append(
            {"stamp": chain.stamp, "ok": not problems, "problems": problems, "files": len(chain.files), "bytes": sum(one.bytes for one in chain.files)}
        )
    report.verified_files, report.verified_bytes = len(tasks), sum(task.file.bytes for task in tasks)
    report.skipped_files = sum(1 for chain in repository.chains for one, _entry in _listed(chain) if one.name not in contents)
    if not check:
        _remember(path, [task for task in tasks if task.dat[: -len(".dat")] not in strange], contents, at, report)
    report.seconds = round(time.monotonic() - began, 3)
    return report


def damage(path: str, chain: Chain, first: int = 0, *, jobs: int = 1) -> list[str]:
    """Read every file of a chain from the given one (its number, 0 is the full backup) to the last, and return a sentence for each thing that is wrong.

    The files before it are not read. That covers what the directory and the .dat file tell of the whole chain, what confops.json
    remembers of its files, and the order of the transactions. Empty means that all of them may be believed.
    """
    state: dict[str, Any] = {}
    with contextlib.suppress(OSError):
        state = _repository.read_state(path)
    stored, memory = _stored(state), _repository.section(state, "verified")
    here = _repository.listing(path)
    names = {name for name in chain.names[first:] if not _irregular(here, name)}
    tasks = [_Task(one, entry, f"{chain.stamp}.dat", stored.get(one.name)) for one, entry in _listed(chain) if one.name in names]
    contents = _read_all(path, tasks, jobs)
    found = [*chain.problems, *_otherwise_remembered(chain, stored, memory)]
    found += [sentence for name in chain.names if name in contents for sentence in contents[name].problems]
    return list(dict.fromkeys([*found, *_in_order(chain, contents, memory)]))


def summary(path: str, problems: list[str]) -> str:
    """Return the first problems as one message, and what mends them if a command does."""
    more = [f"And {len(problems) - 3} more."] if len(problems) > 3 else []
    return " ".join(filter(None, [f"The repository {path} is not sound.", *problems[:3], *more, _repository.advice(problems)]))


def look(path: str) -> Repository:
    """Read the repository, but count as no problem what a run that holds it at this moment is about to finish."""
    repository = _prune.read(path)
    until = time.monotonic() + _PATIENCE
    while repository.leftovers or repository.unacknowledged or repository.all_problems():
        if not _repository.in_use(path):
            return _prune.read(path)  # nobody is at work any more
        repository = _prune.read(path)
        if time.monotonic() > until or not (repository.unacknowledged or repository.all_problems()):
            at_work = _prune.unacknowledged(repository.unacknowledged or "")
            repository.unfinished = [sentence for sentence in repository.unfinished if sentence != at_work]
            repository.leftovers = [name for name in repository.leftovers if not name.startswith(_repository.TEMPORARY)]
            return repository
        time.sleep(0.05)
    return repository


def recall(memory: dict[str, dict[str, Any]], one: DataFile, entry: Entry) -> dict[str, Any] | None:
    """Return what is remembered of a verified file, None when it or its line has changed since."""
    known = memory.get(one.name)
    same = known and [known.get(key) for key in ("bytes", "md5", "start", "end")] == [one.bytes, entry.md5, entry.start, entry.end]
    return known if same else None


def _stored(state: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what is remembered of the files as they were written, as far as it is whole."""
    section = _repository.section(state, "stored")
    return {name: known for name, known in section.items() if isinstance(known.get("bytes"), int) and isinstance(known.get("md5"), str)}


def _listed(chain: Chain) -> Iterator[tuple[DataFile, Entry]]:
    """Yield each file of a chain that has a line, and that line."""
    entries = {entry.name: entry for entry in reversed(chain.entries)}
    for one in chain.files:
        if one.name in entries:
            yield one, entries[one.name]


def _beside(path: str, chain: Chain, stored: dict[str, dict[str, Any]], here: dict[str, Found]) -> Iterator[str]:
    """Yield what is wrong with a chain besides the content of its files, as far as reading the small files tells."""
    dat = f"{chain.stamp}.dat"
    try:
        # Lines that stock repozo added later are not remembered.
        if dat in stored and not _begins_with(_repository.read_small(os.path.join(path, dat), follow=True), stored[dat]):
            yield f"{dat} is not as it was written, or {_repository.STATE} is not, which remembers its md5."
    except (OSError, RepositoryError):
        pass  # it is among the chain's problems
    for one in chain.files:
        known = stored.get(one.name)
        if known and one.compressed and known["bytes"] != one.bytes and not _irregular(here, one.name):
            yield f"{one.name} has {one.bytes} bytes; it was written with {known['bytes']}."
        index = f"{one.stamp}.index"
        found = here.get(index)
        if found and not found.regular:
            yield found.problem(index)
        elif found and not found.bytes:
            yield f"{index} is empty."


def _begins_with(content: bytes, known: dict[str, Any]) -> bool:
    """Whether a .dat file begins with what was written, in lines that end as they were written or as Windows ends them."""
    return any(_md5(lines[: known["bytes"]]) == known["md5"] for lines in (content, content.replace(b"\r\n", b"\n")))


def _otherwise_remembered(chain: Chain, stored: dict[str, dict[str, Any]], memory: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield a sentence for each line whose md5 is not the one that is remembered of the file: somebody changed both the file and its line.

    The range of a file never changes after it was written. What was stored uncompressed is remembered by the md5 of the same bytes.
    """
    for one, entry in _listed(chain):
        known = [memory.get(one.name, {}).get("md5"), None if one.compressed else stored.get(one.name, {}).get("md5")]
        for md5 in [md5 for md5 in dict.fromkeys(known) if md5 not in (None, entry.md5)]:
            yield f"{chain.stamp}.dat says that {one.name} has the md5 {entry.md5}; {_repository.STATE} remembers {md5}."


def _irregular(here: dict[str, Found], name: str) -> bool:
    """Whether something other than a file lies under a name. That is among the chain's problems already."""
    return name in here and not here[name].regular


def _is_link(here: dict[str, Found], name: str) -> bool:
    return name in here and here[name].link


def _in_order(chain: Chain, contents: dict[str, _Content], memory: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield a sentence where a file's transactions are not newer than those of the file before it."""
    before, last = "", ""
    for one, entry in _listed(chain):
        content = contents.get(one.name)
        known = recall(memory, one, entry) or {}
        first_here, last_here = (content.first, content.last) if content else (str(known.get("first", "")), str(known.get("last", "")))
        if last and first_here and first_here <= last:
            yield f"{one.name} begins with transaction {first_here}, which is not newer than {last} at the end of {before}."
        before, last = one.name, last_here


def _read_all(path: str, tasks: list[_Task], jobs: int) -> dict[str, _Content]:
    """Read the files, the largest first. One that is more than a core's share gets a second one for unpacking."""
    share = sum(task.file.bytes for task in tasks) / jobs
    ordered = sorted(tasks, key=lambda task: -task.file.bytes)

    def check(task: _Task) -> _Content:
        try:
            return _check(path, task, jobs > 1 and task.file.bytes > max(share, CHUNK))
        except OSError as error:
            return _Content([f"{task.file.name} cannot be read: {error.strerror}."], gone=isinstance(error, FileNotFoundError))
        except RepositoryError as error:
            return _Content([str(error)])
        except _filestorage.FileStorageError as error:
            return _Content([f"{task.file.name}: {error}"])

    with ThreadPoolExecutor(max(1, min(jobs, len(ordered)))) as pool:
        return {task.file.name: content for task, content in zip(ordered, pool.map(check, ordered))}


def _check(path: str, task: _Task, two_cores: bool) -> _Content:
    """Read one file and compare it with its line. Raises RepositoryError, OSError."""
    one, entry = task.file, task.entry
    plain, stored = hashlib.md5(usedforsecurity=False), hashlib.md5(usedforsecurity=False)
    waiting: deque[bytes] = deque()  # as it lies on disk; its md5 is left to this thread, since unpacking takes longer
    keep: Callable[[bytes], object] = waiting.append if one.compressed and task.stored else lambda piece: None
    pieces = _repository.blocks(os.path.join(path, one.name), one.compressed, keep)
    size, head, tail = 0, b"", b""
    for piece in _repository.ahead(pieces) if two_cores else pieces:
        plain.update(piece)
        while waiting:
            stored.update(waiting.popleft())
        size += len(piece)
        if size > entry.end - entry.start:  # a file that was set to a huge size, or packs endless zeros, would be read for hours
            more = f"more than {entry.end - entry.start} bytes" if one.compressed else f"{one.bytes} bytes"
            return _Content([f"{one.name} holds {more}{' uncompressed' * one.compressed}; {task.dat} says {entry.end - entry.start}."])
        head = head if len(head) >= 16 else (head + piece)[:16]
        tail = piece if len(piece) >= _TAIL else (tail + piece)[-_TAIL:]
    for piece in waiting:
        stored.update(piece)
    found = _Content()
    uncompressed = " uncompressed" if one.compressed else ""
    if size != entry.end - entry.start:
        found.problems.append(f"{one.name} holds {size} bytes{uncompressed}; {task.dat} says {entry.end - entry.start}.")
    if plain.hexdigest() != entry.md5:
        found.problems.append(f"{one.name} has the md5 {plain.hexdigest()}{uncompressed}; {task.dat} says {entry.md5}.")
    if found.problems:
        return found
    if task.stored and one.compressed and stored.hexdigest() != task.stored["md5"]:
        # Only the header of the compressed file differs.
        found.problems.append(f"{one.name} holds what it should, but is not as it was written, or {_repository.STATE} is not, which remembers its md5.")
    if one.full:
        if head[: _filestorage.HEAD] not in _filestorage.MAGIC:
            found.problems.append(f"{one.name} does not begin with {' or '.join(magic.decode() for magic in _filestorage.MAGIC)}: it holds no FileStorage.")
        head, size = head[_filestorage.HEAD :], size - _filestorage.HEAD
        tail = tail[-size:] if size else b""
    if size or not one.full:  # a database without a transaction has its head only
        found.first = head[:8].hex()
        _filestorage.time_of(head[:8].ljust(8, b"\0"))
        whole, found.last = _last(tail, size)
        if not whole:
            found.problems.append(f"{one.name} does not end with a whole, committed transaction.")
        elif found.last and found.first > found.last:
            found.problems.append(f"{one.name} begins with transaction {found.first} and ends with {found.last}, which is older.")
    return found


def _last(tail: bytes, size: int) -> tuple[bool, str]:
    """Whether size bytes of transactions, of which tail is the end, end with a whole one; and its tid, when its beginning is in tail."""
    if len(tail) < 8:
        return False, ""
    (length,) = struct.unpack(">Q", tail[-8:])
    if length + 8 > len(tail):
        return len(tail) < size and _SMALLEST <= length <= size - 8, ""
    # What precedes the tail stands for the head of a file, which no transaction reaches into.
    found = _filestorage.ending_at(io.BytesIO(bytes(_filestorage.HEAD) + tail), _filestorage.HEAD + len(tail))
    return found is not None, found.tid if found else ""


def _remember(path: str, tasks: list[_Task], contents: dict[str, _Content], at: str, report: Report) -> None:
    """Remember what was verified, and forget what was found damaged or is gone. When that cannot be written, the report says so."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            with _repository.lock(path):
                state = _repository.read_state(path)
                before = state.get("verified")
                here = set(os.listdir(path))
                missing = {sentence.split(",")[0] for sentence in report.problems if sentence.endswith(" is missing.")}  # until the next backup settles it
                kept = (here | missing) - contents.keys()
                verified = {name: known for name, known in _repository.section(state, "verified").items() if name in kept}
                # A file that was changed together with its line is found again only as long as its memory stays.
                verified.update({task.file.name: known for task in tasks if (known := _evidence(state, task)) and task.file.name in here})
                verified.update(
                    {
                        task.file.name: {
                            "bytes": task.file.bytes,
                            "md5": task.entry.md5,
                            "start": task.entry.start,
                            "end": task.entry.end,
                            "first": contents[task.file.name].first,
                            "last": contents[task.file.name].last,
                            "at": at,
                        }
                        for task in tasks
                        if task.file.name in here and not contents[task.file.name].problems and not _evidence(state, task)
                    }
                )
                if verified != before:
                    aside = _repository.set_aside(path)
                    if aside:
                        report.warnings.append(f"{_repository.STATE} is kept as {aside}: it may name pinned chains. Until that is settled none is pruned.")
                    _repository.write_state(path, {**state, "verified": verified})
            report.remembered = True
            return
        except RepositoryError as error:
            reason = str(error)
        except OSError as error:
            reason = f"{error.filename or path}: {error.strerror}."
            until = 0
        if time.monotonic() > until:
            report.warnings.append(f"What was verified is not remembered. {reason}")
            return
        time.sleep(0.05)


def _evidence(state: dict[str, Any], task: _Task) -> dict[str, Any] | None:
    """Return what is remembered of a file with another md5 than its line says, None when there is no such memory."""
    known = _repository.section(state, "verified").get(task.file.name)
    return known if known and known.get("md5") != task.entry.md5 else None


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
