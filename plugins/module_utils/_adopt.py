# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Makes the .dat file of a chain anew from its data files.

Stock repozo restores by the names of the data files alone, so a chain whose .dat file is lost or damaged is not lost.
This reads every data file of the chain and writes a .dat file only when all of this holds:

- the files consist of whole, committed transactions, each newer than the one before;
- each transaction names the offset in Data.fs at which it lies, so that no file is missing, foreign or in the wrong place;
- no file differs from what confops.json remembers of it, or from the line that the old .dat file has of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _filestorage, _prune, _repository
from ansible_collections.confops.indico.plugins.module_utils._repository import Chain, DataFile, Entry, Repository, RepositoryError

_KEPT = ".replaced-"  # stands before a number in the name that an old .dat file gets; stock repozo passes over such names


@dataclass
class Result:
    """What a run did, or in check mode would do. chains are as the module returns them."""

    chains: list[dict[str, Any]] = field(default_factory=list)
    changed: bool = False

    def lines(self, check: bool) -> list[str]:
        """Return what a person reads."""
        does = "would be made" if check else "was made"
        found = []
        for one in self.chains:
            kept = f"; the old one {'would be' if check else 'is'} kept as {one['kept_as']}" if one["kept_as"] else ""
            made = f"{does} anew from {one['files']} files{kept}" if one["changed"] else f"agrees with its {one['files']} files"
            found.append(f"{one['stamp']}.dat {made}.")
        return found or ["Every .dat file agrees with its data files as far as the directory tells; nothing was done."]


def adopt(path: str, stamp: str | None = None, *, check: bool = False) -> Result:
    """Make the .dat file of one chain anew, or of each whose .dat file is missing or disagrees with the directory.

    All chains are read before the first .dat file is written. Raises RepositoryError, which names the file, and OSError.
    """
    if any(character.isspace() for character in path):
        raise RepositoryError(f"The repository is {path!r}; stock repozo splits its lines on blanks, so its path must hold none.")
    result = Result()
    with _repository.lock(path):
        repository, state = _prune.read(path), _repository.read_state(path)
        strange = _repository.strangers(repository, state)
        made = [(chain, _entries(path, chain, state)) for chain in _chosen(repository, state, stamp)]
        for chain, entries in made:
            lines = _lines(path, chain, entries)
            kept = _kept_as(path, chain, lines)
            # Who names a chain that confops.json does not know says that it is of this database.
            fits = _read(path, chain) == lines and _remembered(state, chain, lines) and not (stamp and chain.stamp in strange)
            result.chains.append({"stamp": chain.stamp, "changed": not fits, "files": len(entries), "end": entries[-1].end, "kept_as": kept})
            if not fits and not check:
                _write(path, chain, lines, kept)
        result.changed = any(one["changed"] for one in result.chains)
    return result


def _chosen(repository: Repository, state: dict[str, Any], stamp: str | None) -> list[Chain]:
    """Return the chains whose .dat file is to be made. Raises RepositoryError when the named one is not there or not alone."""
    if stamp is None:
        return [chain for chain in repository.chains if chain.problems or not _remembered(state, chain, _read(repository.path, chain))]
    found = [chain for chain in repository.chains if chain.stamp == stamp]
    if not found:
        raise RepositoryError(f"There is no chain {stamp} in {repository.path}; a chain is named after its full backup, like 2026-11-24-02-00-00.")
    return found


def _remembered(state: dict[str, Any], chain: Chain, content: bytes | None) -> bool:
    """Whether a .dat file begins with what is remembered of it, if anything is."""
    known = _repository.section(state, "stored").get(f"{chain.stamp}.dat", {})
    if content is None or not {"bytes", "md5"} <= known.keys():
        return True
    return any(_md5(lines[: known["bytes"]]) == known["md5"] for lines in (content, content.replace(b"\r\n", b"\n")))


def _entries(path: str, chain: Chain, state: dict[str, Any]) -> list[Entry]:
    """Read the data files of a chain and return its lines. Raises RepositoryError for the first thing that does not fit."""
    for one, next_one in zip(chain.files, chain.files[1:]):
        if one.stamp == next_one.stamp:
            raise RepositoryError(f"{one.name} and {next_one.name} are of the same second: which of them is meant nobody can tell. Move one away first.")
    names = set(chain.names)
    absent = [entry.name for entry in chain.entries if entry.name not in names and _repository.data_file(entry.name, 0)]
    if absent:
        raise RepositoryError(f"{chain.stamp}.dat lists {absent[0]}, which is not here. Bring it back; if it is lost, move {chain.stamp}.dat away.")
    listed, entries, walk = {entry.name: entry.md5 for entry in chain.entries}, list[Entry](), _Walk()
    for one in chain.files:
        start = walk.position
        md5 = walk.through(path, one)
        _compare(chain, one, md5, listed.get(one.name), state)
        entries.append(Entry(one.name, start, walk.position, md5))
    return entries


def _compare(chain: Chain, one: DataFile, md5: str, listed: str | None, state: dict[str, Any]) -> None:
    """Raise RepositoryError when a file is not as it was written, by what confops.json remembers or else by the old .dat file."""
    known = [_repository.section(state, "verified").get(one.name, {}).get("md5")]
    known += [None if one.compressed else _repository.section(state, "stored").get(one.name, {}).get("md5")]
    for remembered in [remembered for remembered in known if remembered]:
        if remembered != md5:
            raise RepositoryError(f"{one.name} has the md5 {md5}; {_repository.STATE} remembers {remembered}. The file was changed after it was written.")
    if listed not in (None, md5) and not any(known):
        raise RepositoryError(f"{one.name} has the md5 {md5}; {chain.stamp}.dat says {listed}. Perhaps the file is damaged, so its line stays.")


class _Walk:
    """Goes through the transactions of a chain, one data file after the other. position is the offset (bytes) in Data.fs."""

    def __init__(self) -> None:
        self.position = 0
        self._last = b""

    def through(self, path: str, one: DataFile) -> str:
        """Read one data file and return the md5 of what it holds. Raises RepositoryError when that is not the next range of the database."""
        found = hashlib.md5(usedforsecurity=False)
        begin = self.position
        reader = _Reader(_told(_repository.blocks(os.path.join(path, one.name), one.compressed), found))
        if one.full:
            if reader.take(_filestorage.HEAD) not in _filestorage.MAGIC:
                raise RepositoryError(f"{one.name} does not begin with FS21 or FS30: it holds no FileStorage.")
            self.position = _filestorage.HEAD
        while self._transaction(reader, one, begin):
            pass
        if self.position == begin:
            raise RepositoryError(f"{one.name} is empty.")
        return found.hexdigest()

    def _transaction(self, reader: _Reader, one: DataFile, begin: int) -> bool:
        """Go over the next transaction; False at the end of the file."""
        header = _filestorage.HEADER
        head = reader.take(header.size)
        if not head:
            return False
        broken = RepositoryError(f"{one.name} holds no whole, committed transaction at byte {self.position - begin} of what it holds.")
        if len(head) < header.size:
            raise broken
        tid, length, status, user, description, extension = header.unpack(head)
        texts = user + description + extension
        if status not in _filestorage.COMMITTED or length < header.size + texts:
            raise broken
        reader.skip(texts)
        data = length - header.size - texts
        record = reader.take(min(data, _filestorage.RECORD.size))
        reader.skip(data - len(record))
        if reader.take(8) != head[8:16]:
            raise broken
        if tid <= self._last:
            raise RepositoryError(f"{one.name} holds the transaction {tid.hex()} after {self._last.hex()}, which is not older.")
        if len(record) == _filestorage.RECORD.size:
            place = _filestorage.RECORD.unpack(record)[3]
            if place != self.position:
                raise RepositoryError(f"{one.name} holds a transaction of byte {place} of the database where byte {self.position} belongs: a file is missing.")
        self._last, self.position = tid, self.position + length + 8
        return True


class _Reader:
    """Takes so many bytes at a time from pieces of any size."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")

    def take(self, size: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        return b"".join(bytes(part) for part in self._parts(size))

    def skip(self, size: int) -> None:
        for _part in self._parts(size):
            pass

    def _parts(self, size: int) -> Iterator[memoryview]:
        while size > 0:
            if not self._rest:
                self._rest = memoryview(next(self._pieces, b""))
                if not self._rest:
                    return
            part, self._rest = self._rest[:size], self._rest[size:]
            size -= len(part)
            yield part


def _told(pieces: Iterator[bytes], found: Any) -> Iterator[bytes]:
    """Yield the pieces, each of which found, a hash, is told."""
    for piece in pieces:
        found.update(piece)
        yield piece


def _lines(path: str, chain: Chain, entries: list[Entry]) -> bytes:
    """Return the content of a .dat file. A line that is there and right stays as it is, whatever directory it names."""
    old = dict(zip(chain.entries, _whole_lines(_read(path, chain) or b"")))
    return b"".join(old.get(entry, entry.line(path).encode("utf-8", "surrogateescape")) for entry in entries)


def _whole_lines(content: bytes) -> list[bytes]:
    lines = [line for line in content.split(b"\n")[:-1] if _repository.parse_dat(line.decode("utf-8", "replace") + "\n")[0]]
    return [line.removesuffix(b"\r") + b"\n" for line in lines]


def _read(path: str, chain: Chain) -> bytes | None:
    """Return the content of a chain's .dat file, None when there is none. Raises RepositoryError when it is no file."""
    try:
        return _repository.read_small(os.path.join(path, f"{chain.stamp}.dat"), follow=True)
    except FileNotFoundError:
        return None


def _kept_as(path: str, chain: Chain, lines: bytes) -> str | None:
    """Return the name under which the old .dat file is kept, None when there is none or it says the same."""
    if _read(path, chain) in (None, lines):
        return None
    here = set(os.listdir(path))
    return next(name for name in (f"{chain.stamp}.dat{_KEPT}{number}" for number in itertools.count(1)) if name not in here)


def _write(path: str, chain: Chain, lines: bytes, kept: str | None) -> None:
    """Write the .dat file and what is remembered of it. Killed at any moment, the old one or the new one is there."""
    dat = f"{chain.stamp}.dat"
    try:
        _repository.set_aside(path)
        _remember(path, dat, None)  # or it would contradict the new file until it is written below
        if kept:
            _repository.replace(os.path.join(path, kept), _read(path, chain) or b"")
        _repository.replace(os.path.join(path, dat), lines)
        _remember(path, dat, {"bytes": len(lines), "md5": _md5(lines)})
    except OSError as error:
        now: bytes | None = None
        with contextlib.suppress(OSError, RepositoryError):
            now = _read(path, chain)
        is_there = "The new .dat file is there." if now == lines else "The old .dat file is as it was."
        raise RepositoryError(f"{dat} in {path} cannot be written: {error.strerror or error}. {is_there} Run it again.") from error
    after = next((one for one in _prune.read(path).chains if one.stamp == chain.stamp), None)
    if after is None or after.problems:
        raise RepositoryError(f"{dat} was written, but the chain is not sound: {' '.join(after.problems if after else ['it is gone.'])}")


def _remember(path: str, dat: str, known: dict[str, Any] | None) -> None:
    state = _repository.read_state(path)
    before = _repository.section(state, "stored")
    after = {name: value for name, value in before.items() if name != dat} | ({dat: known} if known else {})
    if after != before:
        _repository.write_state(path, {**state, "stored": after})


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
