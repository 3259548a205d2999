# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A repozo repository: its names, its chains, and what this collection remembers beside them.

The format is that of repozo in ZODB3 3.10.5 (src/ZODB/scripts/repozo.py there), which later versions kept:

- YYYY-MM-DD-HH-MM-SS in UTC names a run; .fs is a full backup, .deltafs an incremental one, a trailing z means gzip;
- a full backup and the incrementals up to the next full one are a chain;
- the .dat file of a chain, named after its full backup, has a line "PATH START END MD5" for each of its files, in order:
  the range of Data.fs that the file holds (bytes) and the md5 of that range, uncompressed;
- an .index file may accompany a run; ZODB makes a new one when it is missing.

confops.json is this collection's own: stock repozo passes over it, and a repository without it is whole.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import math
import os
import pwd
import queue
import re
import shutil
import stat
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, BinaryIO

STAMP = "%Y-%m-%d-%H-%M-%S"
STATE = "confops.json"
_ASIDE = f"{STATE}.damaged-"  # how the names of those begin that were found damaged
_LONG = 1800.0  # seconds after which a holder's age is worth a word: it may make no progress
PATIENCE = 600.0  # seconds that a run waits for another one, unless a person waits for its end
TEMPORARY = ".confops-"  # how the names of unfinished files begin
STOCK_TEMPORARY = "tmp.tmp"  # repozo's own, always the same
_DATA = re.compile(r"([0-9]{4}(?:-[0-9][0-9]){5})\.(delta)?fs(z)?")
_BESIDE = re.compile(r"([0-9]{4}(?:-[0-9][0-9]){5})\.(dat|index)")
_LINE = re.compile(r"(?:.*[/\\])?([^/\\]+) ([0-9]{1,18}) ([0-9]{1,18}) ([0-9a-f]{32})\r?")  # a .dat file may have been on Windows meanwhile
CHUNK = 4 * 2**20
_PACKED = 2**20  # bytes of a compressed file that are read at once; they unpack to more
SMALL = 32 * 2**20  # bytes that a .dat file or confops.json may have; a chain of 100,000 files needs less
_LACKING = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOLCK, errno.EBADF)  # what file systems answer that lack a function
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
}


class RepositoryError(Exception):
    """The repository cannot be used; the message is a sentence for the operator."""


class EndedError(RepositoryError):
    """Somebody, or a time limit, ends this process: nothing else may be begun."""


def reason(error: Exception, place: str = "") -> str:
    """Return why something failed, for a sentence, without its end. Of an OSError that is what the system says, and where.

    place: the path to name where the error names none, as for a write to an open file.
    """
    inner = getattr(error, "reason", None)  # urllib wraps what the system says
    if isinstance(inner, OSError):
        return reason(inner, place)
    if isinstance(error, OSError) and error.errno is None:
        return str(error).rstrip(".")
    if isinstance(error, OSError):
        where = error.filename if isinstance(error.filename, (str, bytes, os.PathLike)) else place
        return f"{error.strerror or error}{f' ({os.fsdecode(where)})' if where else ''}"
    if isinstance(error, KeyError):
        return f"it does not say {error.args[0]}" if error.args else "something is not there"
    return str(error).rstrip(".")


def told(error: Exception, place: str = "") -> str:
    """Return what to say of an error that ends a run: its own sentence, or for an OSError one that names path and reason. place: as for reason()."""
    if isinstance(error, OSError):
        return f"A call to the system failed: {reason(error, place)}. What was done before it stays."
    return str(error)


@dataclass(frozen=True)
class Entry:
    """One line of a .dat file: the file's name without its directory, the range of Data.fs that it holds, and the md5 of that."""

    name: str
    start: int
    end: int
    md5: str

    def line(self, directory: str) -> str:
        return f"{os.path.join(directory, self.name)} {self.start} {self.end} {self.md5}\n"


@dataclass(frozen=True)
class DataFile:
    """One full or incremental backup as the directory shows it. bytes is its size there."""

    name: str
    stamp: str
    full: bool
    compressed: bool
    bytes: int

    @property
    def time(self) -> datetime:
        return time_of(self.stamp)


@dataclass
class Chain:
    """A full backup, its incrementals, and their .dat file. problems are sentences; a chain that has any is not added to.

    Two things follow from confops.json, see compare(): doubted are the names of files whose line is not the one that is remembered,
    lasts the newest tid (hexadecimal) of each file, by name, as far as it is remembered, and confirmed those that were stored with the md5 of their line.
    """

    stamp: str
    files: list[DataFile]
    entries: list[Entry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    doubted: set[str] = field(default_factory=set, compare=False)
    lasts: dict[str, str] = field(default_factory=dict, compare=False)
    confirmed: set[str] = field(default_factory=set, compare=False)

    @property
    def end(self) -> int:
        """Bytes of Data.fs that the chain covers."""
        return self.entries[-1].end if self.entries else 0

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.files]


@dataclass
class Repository:
    """What a directory holds. strays are data files before the first full backup, leftovers what an interrupted run left.

    problems are those of no chain; misread are those among them about files that stock repozo takes for backups, of which every backup warns.
    unfinished are sentences about chains and files that _prune.read leaves out. unacknowledged is the data file among these that a run wrote and
    did not acknowledge before it was interrupted.
    """

    path: str
    chains: list[Chain]
    strays: list[DataFile]
    leftovers: list[str]
    problems: list[str]
    misread: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    unacknowledged: str | None = None

    @property
    def newest(self) -> str | None:
        """The stamp of the newest data file."""
        files = [one for chain in self.chains for one in chain.files] + self.strays
        return max((one.stamp for one in files), default=None)

    def all_problems(self) -> list[str]:
        return self.problems + [sentence for chain in self.chains for sentence in chain.problems]


def time_of(stamp: str) -> datetime:
    """Return the moment (UTC) that a stamp names. Raises ValueError for one that is no date."""
    return datetime.strptime(stamp, STAMP).replace(tzinfo=timezone.utc)


def moment_of(stamp: str) -> datetime | None:
    """Return the moment (UTC) that a stamp names, None for one that is no date."""
    try:
        return time_of(stamp)
    except ValueError:
        return None


def fresh_stamp(newest: str | None, place: str) -> str:
    """Return a stamp of now that is later than newest, waiting for the next second if need be. place is for the message.

    Raises RepositoryError when newest lies in the future, since the clock was set back, or where no calendar goes.
    """
    while True:
        now = datetime.now(timezone.utc)
        stamp = now.strftime(STAMP)
        if newest is None or stamp > newest:
            return stamp
        last = moment_of(newest)
        if last is None:
            raise RepositoryError(f"The newest backup in {place} is named {newest}, a moment that no calendar has. Take it out of there first.")
        if (last - now).total_seconds() > 5:
            raise RepositoryError(
                f"It is {stamp} by this host's clock, but the newest backup in {place} is of {newest}: the clock was set back. Set it right first."
            )
        time.sleep(0.05)


def data_file(name: str, size: int) -> DataFile | None:
    """Return what the name says of a data file, None when it is the name of something else."""
    match = _DATA.fullmatch(name)
    return match and DataFile(name, match[1], not match[2], bool(match[3]), size)


def parse_dat(text: str) -> tuple[list[Entry], list[str]]:
    """Return the lines of a .dat file and what is wrong with the others."""
    entries, wrong = [], []
    *lines, rest = text.split("\n")
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match:
            entries.append(Entry(match[1], int(match[2]), int(match[3]), match[4]))
        else:
            wrong.append(f"line {number} is not whole")
    return entries, wrong + ([f"line {len(lines) + 1} is not whole"] if rest else [])


def open_regular(path: str, *, follow: bool = False, buffering: int = -1) -> BinaryIO:
    """Open a file for reading, and nothing but a file: a FIFO would block for ever, a device may have no end.

    With follow, a symbolic link may lead to the file. Raises RepositoryError for anything that is no regular file, OSError otherwise.
    """
    refuse_irregular(path, os.stat(path, follow_symlinks=follow).st_mode)  # before it is opened: opening a device may already act on it
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    try:
        refuse_irregular(path, os.fstat(descriptor).st_mode)  # another one may have been put there meanwhile
        return os.fdopen(descriptor, "rb", buffering)
    except BaseException:
        os.close(descriptor)
        raise


def refuse_irregular(path: str, mode: int) -> None:
    """Raise RepositoryError, which names the file, unless mode (st_mode) is that of a regular file."""
    if not stat.S_ISREG(mode):
        raise RepositoryError(f"{os.path.basename(path)} is {kind_of(mode)}, not a file.")


def kind_of(mode: int) -> str:
    """Return in words what an st_mode describes."""
    return "a file" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "something unknown")


def read_small(path: str, *, follow: bool = False) -> bytes:
    """Return all of a small file. Raises RepositoryError when it is no regular file or larger than SMALL, OSError otherwise."""
    with open_regular(path, follow=follow) as stream:
        content = stream.read(SMALL + 1)
    if len(content) > SMALL:
        raise RepositoryError(f"{os.path.basename(path)} has more than {SMALL} bytes.")
    return content


def read(path: str, without: Collection[str] = ()) -> Repository:
    """Read the directory and its .dat files, none of the data, as if the files named in without were not there.

    Raises RepositoryError when it is no directory.
    """
    try:
        found = {name: one for name, one in listing(path).items() if name not in without}
    except OSError as error:
        raise RepositoryError(f"The repository {path} cannot be read: {error.strerror}.") from error
    files = sorted(filter(None, (data_file(name, one.bytes) for name, one in found.items())), key=lambda one: (one.stamp, not one.full))
    unfinished = {name for name in found if name.startswith(TEMPORARY) or name == STOCK_TEMPORARY}
    directories = {name for name in unfinished if stat.S_ISDIR(found[name].mode)}  # no run makes such, so none removes them
    repository = Repository(path, [], [], sorted(unfinished - directories), [f"{name} is a directory, not a file." for name in sorted(directories)])
    holder_of: dict[str, Chain] = {}
    for one in files:
        if one.full:
            repository.chains.append(Chain(one.stamp, [one]))
        elif repository.chains:
            repository.chains[-1].files.append(one)
        else:
            repository.strays.append(one)
        if repository.chains:
            holder_of[one.name] = repository.chains[-1]
    repository.problems += [f"{one.name} is an incremental backup without the full one that it continues." for one in repository.strays]
    stamps = {one.stamp for one in files}
    for name in sorted(found):
        match = _BESIDE.fullmatch(name)
        if match and match[1] not in stamps and not (match[2] == "index" and _near(match[1], stamps)):
            repository.problems.append(f"{name} belongs to no backup here.")
    repository.misread += [
        f"{name!r} ends with a line break: stock repozo takes it for a backup. Take it out of there."
        for name in sorted(found)
        if name.endswith("\n") and (_DATA.fullmatch(name[:-1]) or _BESIDE.fullmatch(name[:-1]))
    ]
    repository.problems += repository.misread
    for chain in repository.chains:
        _read_chain(chain, path, found)
    for one, next_one in zip(files, files[1:]):
        if one.stamp == next_one.stamp:
            holders = {id(held): held.problems for two in (one, next_one) if (held := holder_of.get(two.name))}
            for problems in holders.values() or [repository.problems]:
                problems.append(f"{one.name} and {next_one.name} are of the same second; stock repozo restores only one of them.")
    return repository


def compare(repository: Repository, state: dict[str, Any], here: Collection[str]) -> None:
    """Add to the chains what confops.json knows better than the directory shows; here are all names in that.

    A data file that is remembered and gone is missing from its chain, also when its line is gone with it. A line that is not as remembered
    tells of a file that was changed together with it: the range of a file and its md5 never change after it was written.
    """
    stored, verified = section(state, "stored"), section(state, "verified")
    remembered = sorted(filter(None, (data_file(name, 0) for name in {*stored, *verified})), key=lambda one: one.stamp)
    deleted = state.get("pruning")
    fulls = {chain.stamp for chain in repository.chains} | {one.stamp for one in remembered if one.full}
    fulls |= {stamp for stamp in (deleted if isinstance(deleted, list) else []) if isinstance(stamp, str)}
    chains = {chain.stamp: chain for chain in repository.chains}
    for one in remembered:
        owner = chains.get(max((stamp for stamp in fulls if stamp <= one.stamp), default=""))
        if owner and one.name not in here:
            owner.problems.append(f"{one.name}, which {STATE} remembers, is missing.")
    for chain in repository.chains:
        compressed = {one.name: one.compressed for one in chain.files}
        for entry in chain.entries:
            written, read_again = stored.get(entry.name, {}), verified.get(entry.name, {})
            known = [read_again.get("md5"), written.get("plain"), None if compressed.get(entry.name, True) else written.get("md5")]
            for md5 in [md5 for md5 in dict.fromkeys(known) if md5 not in (None, entry.md5)]:
                chain.problems.append(f"{chain.stamp}.dat says that {entry.name} has the md5 {entry.md5}; {STATE} remembers {md5}.")
                chain.doubted.add(entry.name)
            if written.get("end") not in (None, entry.end):
                chain.problems.append(f"{chain.stamp}.dat says that {entry.name} ends at byte {entry.end}; {STATE} remembers {written['end']}.")
                chain.doubted.add(entry.name)
            if written.get("plain") == entry.md5 and entry.name not in chain.doubted:
                chain.confirmed.add(entry.name)
            last = written.get("last") or read_again.get("last")
            if isinstance(last, str) and re.fullmatch("[0-9a-f]{16}", last):
                chain.lasts[entry.name] = last


def strangers(repository: Repository, state: dict[str, Any]) -> dict[str, str]:
    """Return a sentence, by stamp, for each chain that is no backup of this repository, although a whole chain lies there.

    Its name is no moment. Or it lies between the files of another chain, whose .dat file lists what follows: a backup adds to the
    newest chain only. Or confops.json knows backups before and behind it, and nothing of it.
    """
    known = {*section(state, "stored"), *section(state, "verified")}
    moments = sorted(one.stamp for name in known if (one := data_file(name, 0)))
    found = {}
    for chain in repository.chains:
        full, own = chain.files[0].name, {entry.name for entry in chain.entries}
        others = [(entry.name, other.stamp) for other in repository.chains if other.stamp < chain.stamp for entry in other.entries]
        taken = next(((name, stamp) for name, stamp in others if name in chain.names and name not in own), None)
        if moment_of(chain.stamp) is None:
            found[chain.stamp] = f"{full} is named after a moment that no calendar has: it is lost here, or damaged. Take it out of there."
        elif taken:
            found[chain.stamp] = (
                f"{full} lies within the chain {taken[1]}, whose .dat file lists {taken[0]}: it is of another repository. Take it out of there."
            )
        elif moments and moments[0] < chain.stamp < moments[-1] and not known & {*chain.names, f"{chain.stamp}.dat"}:
            found[chain.stamp] = (
                f"{full} is not known: {STATE} remembers backups before and after it, but none of its chain."
                " Take it out of there, or adopt the chain if it is of this database."
            )
    return found


def only_of(chain: Chain) -> set[str]:
    """Return the names that belong to a strange chain alone: its full backup, what its own .dat file lists, and the files beside them."""
    own = {chain.files[0].name, *({entry.name for entry in chain.entries} & set(chain.names))}
    return own | {f"{name.split('.')[0]}.index" for name in own} | {f"{chain.stamp}.dat"}


def _near(stamp: str, stamps: Collection[str]) -> bool:
    """Whether an index is of one of these backups although it names another second: repozo of ZODB3 3.10.5 asks the clock twice."""
    moment = moment_of(stamp)
    if moment is None or not 1 < moment.year < 9999:
        return False
    return any(stamp_of(moment + timedelta(seconds=seconds)) in stamps for seconds in range(-2, 3))


def stamp_of(moment: datetime) -> str:
    """Return the stamp of the second that a moment is in. A stamp is later than the moment when it is greater than this."""
    return f"{moment.year:04}{moment:-%m-%d-%H-%M-%S}"


@dataclass(frozen=True)
class Found:
    """What lies under a name: its size (bytes) and st_mode, those of its target where it is a symbolic link that leads somewhere."""

    bytes: int
    mode: int
    link: bool

    @property
    def regular(self) -> bool:
        return stat.S_ISREG(self.mode)

    def problem(self, name: str) -> str:
        """Return the sentence about a name that should be a file's and is not."""
        if stat.S_ISLNK(self.mode):
            return f"{name} is a symbolic link that leads nowhere."
        return f"{name} is {'a symbolic link to ' * self.link}{kind_of(self.mode)}, not a file."


def listing(path: str) -> dict[str, Found]:
    """Return what is in a directory. What another run removes in this moment is not there. Raises OSError."""
    known = {}
    with os.scandir(path) as found:
        for entry in found:
            with contextlib.suppress(FileNotFoundError):
                known[entry.name] = _found(entry)
    return known


def _found(entry: os.DirEntry[str]) -> Found:
    status = entry.stat(follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        return Found(status.st_size, status.st_mode, False)
    with contextlib.suppress(OSError):
        status = entry.stat()
    return Found(status.st_size, status.st_mode, True)


def sizes(path: str) -> dict[str, int]:
    """Return the names in a directory and their sizes (bytes); where a symbolic link is, that of the file that it leads to. Raises OSError."""
    return {name: one.bytes for name, one in listing(path).items()}


def _read_chain(chain: Chain, path: str, found: dict[str, Found]) -> None:
    chain.problems += [found[one.name].problem(one.name) for one in chain.files if not found[one.name].regular]
    dat = f"{chain.stamp}.dat"
    try:
        chain.entries, wrong = parse_dat(read_small(os.path.join(path, dat), follow=True).decode("utf-8", "replace"))
    except FileNotFoundError:
        chain.problems.append(f"{dat} is missing.")
        return
    except RepositoryError as error:
        chain.problems.append(str(error))
        return
    except OSError as error:
        chain.problems.append(f"{dat} cannot be read: {error.strerror}.")
        return
    chain.problems += [f"{dat}: {sentence}." for sentence in wrong]
    chain.problems += [f"{one.name} is named after a moment that no calendar has." for one in chain.files if moment_of(one.stamp) is None]
    listed = [entry.name for entry in chain.entries]
    if listed != chain.names:
        names, known = set(chain.names), set(listed)
        missing, extra = [name for name in listed if name not in names], [name for name in chain.names if name not in known]
        chain.problems += [f"{dat} lists {name}, which is not here." for name in missing]
        chain.problems += [f"{name} is here, but {dat} does not list it." for name in extra]
        if not missing and not extra:
            chain.problems.append(f"{dat} lists its files twice or out of order.")
    position = 0
    for entry in chain.entries:
        if entry.start != position or entry.end <= entry.start:
            chain.problems.append(f"{dat}: {entry.name} covers {entry.start} to {entry.end}, where a range that begins at {position} belongs.")
        position = entry.end
    files = {one.name: one for one in chain.files}
    for entry in chain.entries:
        held = files.get(entry.name)
        if held and not held.compressed and found[held.name].regular and held.bytes != entry.end - entry.start:
            chain.problems.append(f"{held.name} has {held.bytes} bytes; {dat} says {entry.end - entry.start}.")


@contextlib.contextmanager
def lock(path: str, patience: float = 0.0) -> Iterator[None]:
    """Hold the repository against other runs of this collection on this host; the lock ends with the process, whatever ends it.

    It lies on the directory itself, so no file is left. Raises RepositoryError when another process still holds it after patience seconds.
    """
    until = time.monotonic() + patience
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise RepositoryError(f"The repository {path} cannot be opened: {error.strerror}.") from error
    try:
        while not _taken(descriptor, path):
            if time.monotonic() >= until:
                raise RepositoryError(f"The repository {path} is in use{holder(descriptor)}; nothing was done.")
            time.sleep(1)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int, path: str) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _LACKING:
            raise RepositoryError(f"{path} lies on a file system without locks (flock: {error.strerror}); nothing was done.") from error
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        return False
    return True


def need_features(path: str) -> None:
    """Raise RepositoryError when the file system of a directory lacks what a run needs there: hard links, and putting names on disk.

    It tries both with an empty file, whose name the next run takes for a leftover if this one is killed. The lock must be held.
    Raises OSError for other errors.
    """
    tried = os.path.join(path, f"{TEMPORARY}{os.getpid()}.tried")
    try:
        os.close(os.open(tried, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.link(tried, f"{tried}-link")
        sync(path)
    except OSError as error:
        lacks = "hard links" if error.filename2 else "fsync of directories" if error.filename is None or error.filename == path else ""
        if lacks and error.errno in (*_LACKING, errno.EPERM, errno.EMLINK):
            raise RepositoryError(f"{path} lies on a file system without {lacks} ({os.strerror(error.errno or 0)}); nothing was written.") from error
        raise
    finally:
        for name in (f"{tried}-link", tried):
            with contextlib.suppress(OSError):
                os.unlink(name)


def in_use(path: str) -> bool:
    """Whether another process holds the lock, as far as /proc/locks tells. It is asked without taking the lock, which would stop a run that begins."""
    return _holder_of(os.stat(path)) is not None


def holder(descriptor: int) -> str:
    """Return who holds the lock on an open file, for a sentence."""
    process = _holder_of(os.fstat(descriptor))
    since = _began(process) if process else None
    age = f", which began {_ago(since)}" if since and time.time() - since > _LONG else ""
    return f" by process {process}{age}" if process else " by another process"


def busy(path: str) -> dict[str, Any] | None:
    """Return who holds the lock on a directory: process and since (epoch, None when unknown) when that began; None when nobody does."""
    with contextlib.suppress(FileNotFoundError):
        process = _holder_of(os.stat(path))
        return {"process": int(process), "since": _began(process)} if process else None
    return None


def _ago(since: float) -> str:
    """Return a moment (epoch) and how long ago that is, for people."""
    moment = datetime.fromtimestamp(since, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    minutes = max(time.time() - since, 0) / 60
    return f"{moment}, {minutes:.0f} minutes ago" if minutes < 120 else f"{moment}, {minutes / 60:.0f} hours ago"


def _began(process: str) -> float | None:
    """Return when a process began (epoch), None when it has ended: field 22 of proc(5)'s stat, in ticks since the host booted."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as stream:
        ticks = float(stream.read().rpartition(")")[2].split()[19])
        return round(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK"), 1)
    return None


def _holder_of(directory: os.stat_result) -> str | None:
    wanted = f"{os.major(directory.st_dev):02x}:{os.minor(directory.st_dev):02x}:{directory.st_ino}"
    with contextlib.suppress(OSError), open("/proc/locks", encoding="ascii") as stream:
        for line in stream:
            words = line.split()
            if "FLOCK" in words and wanted in words:
                return words[words.index(wanted) - 1]
    return None


def named(state: dict[str, Any]) -> object:
    """Return the data file that a run said it was about to name, None when there is none. Older memories hold its name, newer ones a record of it."""
    writing = state.get("writing")
    return writing.get("name") if isinstance(writing, dict) else writing


def unacknowledged(repository: Repository, state: dict[str, Any]) -> str | None:
    """Return the data file that an interrupted run named and did not acknowledge, None when there is none.

    It is the newest, the run said that it was about to name it, it has no line in the .dat file, and all before it have theirs.
    Nothing is lost with it: the next backup gives it its line, or removes it and stores the same range again.
    """
    chain = repository.chains[-1] if repository.chains else None
    if not chain or chain.names[-1] != named(state) or chain.names[-1] in section(state, "stored"):
        return None
    return chain.names[-1] if [entry.name for entry in chain.entries] == chain.names[:-1] else None


def advice(problems: Collection[str]) -> str:
    """Return the sentence that says what mends some of these problems, empty when nothing does."""
    if not any(re.search(r"\.dat( is missing|: line |: .* covers | lists |\b.* does not list | is not as it was written)", problem) for problem in problems):
        return ""
    return "If the data files are whole, module repozo_adopt or the command `adopt` of the instance's backup command makes the .dat file anew."


def read_state(path: str) -> dict[str, Any]:
    """Return what is remembered of the repository; nothing when there is no such file or it is damaged. Raises OSError."""
    return _well_formed(_load(path) or {})


def damaged(path: str) -> bool:
    """Whether there is a confops.json that cannot be understood. Raises OSError."""
    return _load(path) is None


def _load(path: str) -> dict[str, Any] | None:
    try:
        state = load_json(os.path.join(path, STATE))
    except FileNotFoundError:
        return {}
    except (ValueError, RepositoryError):
        return None
    pins = state.get("pins", []) if isinstance(state, dict) else None
    return state if isinstance(pins, list) and all(map(_text, pins)) else None


def _well_formed(state: dict[str, Any]) -> dict[str, Any]:
    """Return what of a memory is of the kinds that whoever uses it expects. All but the pins can be found again, so the rest is left out.

    Of a file whose record is damaged the name stays: that it was there is known. A record of anything else than a file of a backup means nothing.
    """
    kept = {key: value for key, value in state.items() if key not in _PARTS or _PARTS[key](value)}
    for name in ("stored", "verified"):
        if name in kept:
            kept[name] = {key: value if _record(value) else {} for key, value in kept[name].items() if _DATA.fullmatch(key) or _BESIDE.fullmatch(key)}
    return kept


def _text(value: object) -> bool:
    """Whether a value is a text that can be printed, which one with half of a character cannot."""
    return isinstance(value, str) and value.isprintable()


def _size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _record(value: object) -> bool:
    """Whether a value is what is remembered of one file: sizes and offsets (bytes), md5 and tids (hexadecimal), and a time."""
    return isinstance(value, dict) and all(_size(one) if key in ("bytes", "start", "end", "mtime") else _text(one) for key, one in value.items())


def _tail(value: object) -> bool:
    """Whether a value is what is remembered of the end of the newest chain."""
    if not isinstance(value, dict) or not (_text(value.get("chain")) and _text(value.get("md5"))):
        return False
    return _size(value.get("end")) and _size(value.get("bytes")) and bool(0 < value["bytes"] <= value["end"])


_PARTS: dict[str, Callable[[object], bool]] = {
    "pruning": lambda value: isinstance(value, list),
    "stored": lambda value: isinstance(value, dict),
    "tail": _tail,
    "verified": lambda value: isinstance(value, dict),
    "writing": lambda value: _text(value) or _record(value),
}


def load_json(path: str, *, follow: bool = False) -> Any:
    """Return what a small JSON file on this host says. It may be damaged in any way, or be no file at all.

    With follow, a symbolic link may lead to the file.

    Raises ValueError for what is no JSON, has numbers that are not finite or absurdly long, is larger than SMALL or no regular file;
    OSError.
    """
    try:
        content = read_small(path, follow=follow)
    except RepositoryError as error:
        raise ValueError(str(error)) from error
    return parse_json(content)


def parse_json(content: bytes | str) -> Any:
    """Return what a JSON text says. Raises ValueError for all that is none, whatever it is."""
    try:
        return json.loads(content, parse_int=_whole, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _whole(digits: str) -> int:
    """Return a whole number. No size or time needs 20 digits, and converting a million of them takes minutes."""
    if len(digits) > 20:
        raise ValueError("a number has more than 20 digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is not finite")
    return number


def set_aside(path: str, act: bool = True) -> str | None:
    """Give a damaged confops.json another name, when act, and return that; None when it is sound.

    All else in it can be found again, the pins cannot. Whoever is about to write the file calls this first; the lock must be held.
    """
    if not damaged(path):
        return None
    names = os.listdir(path)
    free = next(name for name in (f"{_ASIDE}{number}" for number in itertools.count(1)) if name not in names)
    if act:
        os.rename(os.path.join(path, STATE), os.path.join(path, free))
        sync(path)
    return free


def aside(path: str) -> list[str]:
    """Return the names of what was set aside and may hold pins."""
    return sorted(name for name in os.listdir(path) if name.startswith(_ASIDE))


def section(state: dict[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """Return a part of what is remembered, by file name; what is damaged there is left out."""
    found = state.get(name)
    return {key: value for key, value in found.items() if isinstance(value, dict)} if isinstance(found, dict) else {}


def write_state(path: str, state: dict[str, Any]) -> None:
    """Replace what is remembered of the repository, in one step."""
    replace(os.path.join(path, STATE), json.dumps(state, indent=1, sort_keys=True).encode() + b"\n")


def replace(path: str, content: bytes) -> None:
    """Write a file so that at any moment the old content or the new one is there, and the new one is on disk when this returns."""
    directory, name = os.path.split(path)
    unfinished = os.path.join(directory, f"{TEMPORARY}{os.getpid()}-{time.monotonic_ns()}-{name}")
    try:
        with open(unfinished, "xb") as stream:
            _take_over(stream.fileno(), path)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise
    sync(directory)


def _take_over(descriptor: int, path: str) -> None:
    """Give an open file the owner, group and mode of the file at path, if there is one."""
    try:
        replaced = os.lstat(path)
    except FileNotFoundError:
        with contextlib.suppress(PermissionError):  # a unit may lack the right to give files away, and a new one is readable as it is
            inherit(descriptor, os.path.dirname(path))
        return
    if stat.S_ISREG(replaced.st_mode):
        with contextlib.suppress(PermissionError):  # who is not root gives nothing away
            os.fchown(descriptor, replaced.st_uid, replaced.st_gid)
        os.fchmod(descriptor, replaced.st_mode & 0o777)


def inherit(descriptor: int, directory: str) -> None:
    """Give a new file of root's the owner and group of its directory: whoever owns a repository must be able to read all of it."""
    if os.geteuid() == 0:
        found = os.stat(directory)
        os.fchown(descriptor, found.st_uid, found.st_gid)


def need_room(what: str, needed: int, *directories: str, more: int = 0) -> int:
    """Return how many bytes are free on the file system of the directories, with more, which will be. Raises RepositoryError when what needs more."""
    free = shutil.disk_usage(directories[0]).free + more
    if needed > free:
        raise RepositoryError(no_room(what, needed, free, *directories))
    return free


def no_room(what: str, needed: int, free: int, *directories: str) -> str:
    """Return the sentence about a file system that is too full for what begins it; needed and free are bytes."""
    return f"{what} needs up to {needed} bytes on the file system of {' and '.join(directories)}, which has {free} free; nothing that was there has changed."


def full(error: OSError, what: str, needed: int, directory: str) -> str | None:
    """Return the sentence of no_room() for a disk that a run found full. None when there is room all the same: a quota or something else ran out."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(directory).free
            return no_room(what, needed, free, directory) if needed > free else None
    return None


def sync(directory: str) -> None:
    """Put the names in a directory on disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        lacking = f"its file system cannot put a directory on disk (fsync: {error.strerror})"
        raise OSError(error.errno, lacking if error.errno in _LACKING else error.strerror, directory) from error
    finally:
        os.close(descriptor)


def blocks(path: str, compressed: bool, stored: Callable[[bytes], object] = lambda piece: None) -> Iterator[bytes]:
    """Yield the uncompressed bytes of a data file in pieces of at most 4 MiB. stored is called with each piece as it lies on disk.

    A symbolic link is followed, as stock repozo does: md5 and size tell whether the right bytes lie there.
    Raises RepositoryError when it is no regular file, or a compressed one is damaged, cut off or followed by something else; OSError.
    """
    name = os.path.basename(path)
    with open_regular(path, follow=True, buffering=0) as stream:

        def more() -> bytes:
            piece = stream.read(_PACKED if compressed else CHUNK)
            stored(piece)
            return piece

        if not compressed:
            yield from iter(more, b"")
            return
        unpack, rest = None, more()
        while rest or unpack:
            unpack = unpack or zlib.decompressobj(wbits=31)  # gzip's frame, whose length and checksum it compares
            try:
                plain = unpack.decompress(rest, CHUNK)
            except zlib.error as error:
                raise RepositoryError(f"{name} is damaged: {error}.") from error
            if plain:
                yield plain
            if unpack.eof:
                rest, unpack = unpack.unused_data, None  # a gzip file may hold several members, one after the other
            elif not rest and not plain:
                raise RepositoryError(f"{name} is cut off.")
            else:
                rest = unpack.unconsumed_tail
            rest = rest or more()


def ahead(source: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what source yields, which a thread of its own prepares: unpacking and md5 each keep a core busy."""
    ready: queue.Queue[bytes | BaseException | None] = queue.Queue(4)
    stopped = threading.Event()

    def put(item: bytes | BaseException | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def prepare() -> None:
        try:
            for piece in source:
                put(piece)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:  # it belongs to whoever reads
            put(error)

    thread = threading.Thread(target=prepare, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


def need_writable(directory: str) -> None:
    """Raise RepositoryError when this process may not create and remove files in a directory. Check mode asks this as the run does."""
    try:
        read_only = os.statvfs(directory).f_flag & os.ST_RDONLY
    except OSError as error:
        raise RepositoryError(f"{directory} cannot be used: {error.strerror}.") from error
    if read_only:
        raise RepositoryError(f"{directory} is on a read-only file system.")
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise RepositoryError(f"{directory} is not writable for user {_user()}.")


def _user() -> str:
    """Return the name of the user that this process acts as, or the number of one without a name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
