# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Removes what an instance leaves behind in its cache, its temporary files, its sessions and its logs, and nothing that somebody needs.

The directories are writable by the service user and this runs as root. So each directory is opened by its descriptor and without following
a link, and each file is looked at and removed by its name in that very directory: a link that somebody puts there leads nowhere.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import pickletools
import re
import shutil
import signal
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _info, _repository
from ansible_collections.confops.indico.plugins.module_utils._info import human

KINDS = ("cache", "tmp", "sessions", "logs")
ON_REQUEST = ("replaced",)  # goes only when it is named: what restores put aside may be all that there is of something
_LISTED = 1000  # paths that are listed for a diff
_DAY = 86400
_DEEP = 30  # directories below each other; Indico makes fewer
_SESSIONS = ("generic_cache", "flask-session")
# What Indico's own cleanup goes by (maintenanceMng.py), but for vars.js.tpl.tmp: pages load it for months, and Apache may be about to send it.
_TEMPORARY = re.compile(r"Indico|.*(?<!\.tpl)\.tmp\Z")
_OLD_LOG = re.compile(r".*(log\.[0-9]{4}-[0-9][0-9]-[0-9][0-9]|log-[0-9]{8}|log\.[0-9]{1,3}|\.gz)\Z")

_Judge = Callable[[tuple[str, ...], int], str]


class CleanupError(Exception):
    """The directories are not as they should be; the message is a sentence for the operator."""


@dataclass
class Rules:
    """From when on something is old."""

    cache_days: float = 1
    min_age_hours: float = 3
    session_lifetime: float | None = None  # as indico.conf says
    log_days: float = 120
    replaced_days: float = 7


@dataclass
class Kind:
    """What was removed of one kind, or in a check would be. kept: reason -> number of files."""

    files: int = 0
    size: int = 0
    directories: int = 0
    kept: dict[str, int] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)

    def keep(self, reason: str) -> None:
        self.kept[reason] = self.kept.get(reason, 0) + 1

    def listing(self) -> str:
        more = [f"and {self.files - len(self.paths)} more"] if self.files > len(self.paths) else []
        return "".join(line + "\n" for line in self.paths + more)

    def data(self) -> dict[str, Any]:
        return {"files": self.files, "bytes": self.size, "directories": self.directories, "kept": dict(sorted(self.kept.items()))}


def run(prefix: str, what: list[str], rules: Rules, *, check: bool = False) -> dict[str, Kind]:
    """Clean below prefix and return what went of each kind. With check, only say what would. Raises CleanupError, or OSError for anything unexpected."""
    if not os.path.isdir(prefix):
        raise CleanupError(f"There is no instance at {prefix}.")
    sweep = _Sweep(prefix, rules, check)
    with contextlib.nullcontext() if check else _alone(prefix):
        return {kind: getattr(sweep, kind)() for kind in KINDS + ON_REQUEST if kind in what}


@contextlib.contextmanager
def _alone(prefix: str) -> Iterator[None]:
    """Hold the instance against other clean-ups. The lock lies on the directory and ends with the process. Raises CleanupError when another one holds it."""
    descriptor = os.open(prefix, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CleanupError(f"{prefix} is being cleaned already{_repository.holder(descriptor)}; nothing was done.") from error
        yield
    finally:
        os.close(descriptor)


def lines(found: dict[str, Kind], *, check: bool = False) -> list[str]:
    """Return the same for people, a line for each kind."""
    told = []
    for name, one in found.items():
        line = f"{name}: {one.files} files ({human(one.size)}) {'would go' if check else 'removed'}"
        line += f", {one.directories} empty directories" if one.directories else ""
        kept = ", ".join(f"{number} {reason}" for reason, number in sorted(one.kept.items()))
        told.append(line + (f"; kept: {kept}" if kept else ""))
    return told


def expiry(head: bytes) -> float | None:
    """Return when an entry of Indico's file cache ends (seconds since the epoch, infinite for one that never does), None when that cannot be read.

    An entry is the pickle of (expiry, value). The value may be of any class, so nothing is unpickled: the expiry stands at the very beginning,
    where it is a number or None and takes no code to read. head: the first bytes of the file.
    """
    try:
        for opcode, argument, _position in pickletools.genops(head):
            if opcode.name in ("PROTO", "FRAME", "MARK"):
                continue
            if opcode.name == "NONE":
                return float("inf")
            return float(argument) if isinstance(argument, (int, float)) and not isinstance(argument, bool) else None
    except (ValueError, OverflowError):
        pass
    return None


class _Sweep:
    """One method for each kind."""

    def __init__(self, prefix: str, rules: Rules, check: bool) -> None:
        self.prefix, self.rules, self.check, self.now = os.path.realpath(prefix), rules, check, time.time()

    def cache(self) -> Kind:
        """Remove entries of the cache by their own expiry, and everything else there by its age. Sessions are not its affair."""
        kind = Kind()

        def judge(place: tuple[str, ...], descriptor: int) -> str:
            ends = self._ends(descriptor) if place[0] == _SESSIONS[0] else None
            if ends is None:  # such as the number of a timetable's version, whose copies live for five minutes
                return self._young(os.fstat(descriptor), self.rules.cache_days * _DAY)
            return "valid" if self.now <= ends else ""

        # The application makes namespaces when it needs them; there are few.
        self._walk(kind, ("cache",), judge, skip=lambda place: place == _SESSIONS, fixed=lambda place: place[0] == _SESSIONS[0] and len(place) < 3)
        return kind

    def sessions(self) -> Kind:
        """Remove sessions that have ended. One in use is written anew only when half its life is gone, so its age says little."""
        kind = Kind()
        lifetime = _lifetime(self.prefix) if self.rules.session_lifetime is None else self.rules.session_lifetime
        oldest = max(lifetime, 7 * _DAY)  # a lifetime of 0 stands for a week

        def judge(_place: tuple[str, ...], descriptor: int) -> str:
            ends = self._ends(descriptor)
            if ends is None:
                return "live" if self._young(os.fstat(descriptor), oldest) else ""
            return "live" if self.now <= ends else ""

        self._walk(kind, ("cache", *_SESSIONS), judge, fixed=lambda _place: False)
        return kind

    def tmp(self) -> Kind:
        """Remove temporary files by the names that Indico gives them. Its directories there, such as egg-cache with its libraries, are in use for years."""
        kind = Kind()

        def judge(place: tuple[str, ...], descriptor: int) -> str:
            return self._young(os.fstat(descriptor), self.rules.min_age_hours * 3600) if _TEMPORARY.match(place[0]) else "other name"

        for top in (("tmp",), ("tmp", "shared")):
            self._walk(kind, top, judge, skip=lambda _place: True)
        return kind

    def logs(self) -> Kind:
        """Remove logs that were rotated long ago. A log that is being written has another name, or is open."""
        kind = Kind()

        def judge(place: tuple[str, ...], descriptor: int) -> str:
            return self._young(os.fstat(descriptor), self.rules.log_days * _DAY) if _OLD_LOG.match(place[-1]) else "not rotated"

        self._walk(kind, ("log",), judge, skip=lambda place: len(place) > 1)
        return kind

    def replaced(self) -> Kind:
        """Remove what restores and migrations put aside, by the moment in its name. Only root makes names in these directories, or who owns the data."""
        kind = Kind()
        for one in _info.replaced(self.prefix):
            path = one["path"]
            if one["age_days"] <= self.rules.replaced_days:
                kind.keep("too young")
            elif os.path.islink(path) or not (os.path.isfile(path) or os.path.isdir(path)):
                kind.keep("no plain file")
            elif self._in_use(path):
                kind.keep("in use")
            else:
                if os.path.isdir(path):
                    kind.directories += 1
                    kind.files += sum(len(names) for _place, _directories, names in os.walk(path))
                    if not self.check:
                        shutil.rmtree(path)
                else:
                    kind.files += 1
                    if not self.check:
                        os.unlink(path)
                kind.size += one["bytes"]
                kind.paths.append(path)
        return kind

    def _in_use(self, path: str) -> bool:
        """Whether a process may have the file open, such as a server whose database was replaced while it ran. Stored files are open for moments only."""
        if os.path.isdir(path):
            return False
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return not self._alone(descriptor)
        finally:
            os.close(descriptor)

    def _ends(self, descriptor: int) -> float | None:
        """Return when an entry ends, None when it does not say."""
        ends = expiry(os.pread(descriptor, 128, 0))
        return None if ends == float("inf") else ends

    def _young(self, found: os.stat_result, oldest: float) -> str:
        return "too young" if self.now - found.st_mtime <= oldest else ""

    def _walk(
        self,
        kind: Kind,
        top: tuple[str, ...],
        judge: _Judge,
        *,
        skip: Callable[[tuple[str, ...]], bool] = lambda _place: False,
        fixed: Callable[[tuple[str, ...]], bool] = lambda _place: True,
    ) -> None:
        """Go through the files below top (names, below the prefix) and remove those for which judge gives no reason to stay.

        judge gets the names below top, and a descriptor of the file. skip says which directories are not entered, fixed which stay when they are empty.
        """

        def enter(place: tuple[str, ...], directory: int) -> None:
            for name in sorted(os.listdir(directory)):
                inner = (*place, name)
                with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # a worker was faster
                    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode):
                        self._file(kind, top, inner, directory, judge)
                    elif not stat.S_ISDIR(found.st_mode):
                        kind.keep("no plain file")
                    elif not skip(inner):
                        with _opened(name, directory, os.O_DIRECTORY) as below:
                            if below is None or os.fstat(below).st_dev != os.fstat(directory).st_dev or len(inner) > _DEEP:
                                kind.keep("no plain file")
                            elif not fixed(inner) and self._young(found, _DAY) == "" and not os.listdir(below):
                                self._directory(kind, name, directory)
                            else:
                                enter(inner, below)

        with self._top(top) as directory:
            if directory is not None:
                enter((), directory)

    @contextlib.contextmanager
    def _top(self, names: tuple[str, ...]) -> Iterator[int | None]:
        """Give a descriptor of a directory below the prefix, None where there is none."""
        with contextlib.ExitStack() as stack:
            directory = os.open(self.prefix, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, directory)
            for number, name in enumerate(names):
                try:
                    below = stack.enter_context(_opened(name, directory, os.O_DIRECTORY))
                except FileNotFoundError:
                    yield None
                    return
                if below is None:
                    raise CleanupError(f"{os.path.join(self.prefix, *names[: number + 1])} is no directory, or a symbolic link, which is not followed.")
                directory = below
            yield directory

    def _file(self, kind: Kind, top: tuple[str, ...], place: tuple[str, ...], directory: int, judge: _Judge) -> None:
        with _opened(place[-1], directory, os.O_NONBLOCK) as descriptor:
            if descriptor is None or not stat.S_ISREG(os.fstat(descriptor).st_mode):
                kind.keep("no plain file")
                return
            reason = judge(place, descriptor)
            if not reason:
                # Asked again now that nobody can write to it any more.
                reason = judge(place, descriptor) if self._alone(descriptor) else "in use"
            if reason:
                kind.keep(reason)
                return
            found = os.fstat(descriptor)
            if not self.check:
                os.unlink(place[-1], dir_fd=directory)
            kind.files += 1
            kind.size += found.st_size
            if len(kind.paths) < _LISTED:
                kind.paths.append(os.path.join(self.prefix, *top, *place).encode("utf-8", "backslashreplace").decode())

    def _directory(self, kind: Kind, name: str, directory: int) -> None:
        with contextlib.suppress(OSError):  # something came into it
            if not self.check:
                os.rmdir(name, dir_fd=directory)
            kind.directories += 1

    def _alone(self, descriptor: int) -> bool:
        """Return whether no other process has the file open or mapped. Where it says so with a lease, others that open it wait until it is closed here.

        The kernel grants a lease for writing only to the one who alone has the file open, whatever may be seen in /proc; and to its owner, or with a
        capability that containers lack.
        """
        owner = os.fstat(descriptor).st_uid
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)  # told when somebody waits; SIGIO would end this process
        changes = os.geteuid() == 0 != owner
        try:
            if changes:
                os.seteuid(owner)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            return True
        except BlockingIOError:
            return False
        except OSError:
            pass  # the file system has no leases
        finally:
            if changes:
                os.seteuid(0)
        found = os.fstat(descriptor)
        return self._held is not None and (found.st_dev, found.st_ino) not in self._held

    @functools.cached_property
    def _held(self) -> set[tuple[int, int]] | None:
        """Device and inode of what other processes have open or mapped, as /proc tells; None when one of them does not show it."""
        held = set()
        for pid in os.listdir("/proc"):
            if not pid.isdigit() or int(pid) == os.getpid():
                continue
            try:
                paths = [f"/proc/{pid}/fd/{number}" for number in os.listdir(f"/proc/{pid}/fd")]
                with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as stream:
                    paths += {line.rstrip("\n").split(maxsplit=5)[5] for line in stream if f" {self.prefix}/" in line}
            except PermissionError:
                return None
            except OSError:  # it has ended
                continue
            for path in paths:
                try:
                    found = os.stat(path)
                except PermissionError:
                    return None
                except OSError:
                    continue
                held.add((found.st_dev, found.st_ino))
        return held


def _lifetime(prefix: str) -> float:
    """Return the seconds that a session lives, as the instance is configured."""
    with contextlib.suppress(FileNotFoundError), open(os.path.join(prefix, "etc", "indico.conf"), encoding="utf-8", errors="replace") as stream:
        for line in stream:
            said = re.match(r"SessionLifetime\s*=\s*([0-9]+)", line)
            if said:
                return float(said[1])
    return 31 * _DAY  # Indico's own default


@contextlib.contextmanager
def _opened(name: str, directory: int, flags: int) -> Iterator[int | None]:
    """Give a descriptor of what has that name in a directory, for reading; None when it is a link or of another type. Raises FileNotFoundError."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=directory)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            raise
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)
