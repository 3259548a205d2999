# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Indico's stored files: its archive, and a backup set's copy of it.

Two questions are answered here. Do the files that the database names lie in a directory? Can a set's files take the place of the archive?
A directory is listed once, as a set of paths, so that every name can be looked up. Paths are bytes, relative to the directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

_BLOCK = 4096  # bytes that a file system gives to a file at once
_LINKS = 40  # that lead to one file; the kernel follows as many
OWN = (".restored", ".replaced-", ".failed-", "lost+found")  # how names begin that an exchange leaves in the archive, when that is a mount point


@dataclass
class Exchange:
    """How a set's files take the place of the archive. Paths are absolute; sizes are bytes.

    target: the archive, where the paths' links lead; copy: where the set's files are written first; kept: the directory of what was there,
    with STAMP at its end. With mount_point the archive cannot be renamed, so the contents are exchanged instead. writable: the run may write
    beside the archive. problems: sentences; while there are any, a restore must not begin.
    """

    target: str
    copy: str
    kept: str
    mount_point: bool
    same_file_system: bool
    writable: bool
    needed_bytes: int = 0
    free_bytes: int = 0
    problems: list[str] = field(default_factory=list)


def plan(source: str, archive: str, stamp: str = "STAMP") -> Exchange:
    """Say whether the files of source (a set's archive) can take the place of those in archive, and where they go. Changes nothing.

    stamp: what the name of the replaced files ends with. Raises OSError when source cannot be read.
    """
    target = os.path.realpath(archive)
    mounted = is_mount_point(target)
    place = target if mounted else os.path.dirname(target)
    name = "" if mounted else os.path.basename(target)
    found = Exchange(
        target=target,
        copy=os.path.join(place, f"{name}.restored"),
        kept=os.path.join(place, f"{name}.replaced-{stamp}"),
        mount_point=mounted,
        same_file_system=not os.path.isdir(target) or os.stat(target).st_dev == os.stat(os.path.dirname(target)).st_dev,
        writable=os.access(place, os.W_OK | os.X_OK),
    )
    found.problems += _obstacles(found, place, archive)
    found.needed_bytes = taken(source)
    with contextlib.suppress(FileNotFoundError):
        found.needed_bytes = max(found.needed_bytes - taken(found.copy), 0)  # an earlier run, which was killed, may have copied some
    if os.path.isdir(place):
        found.free_bytes = shutil.disk_usage(place).free
        if found.needed_bytes > found.free_bytes:
            found.problems.append(f"The stored files need {found.needed_bytes} bytes on the file system of {place}, which has {found.free_bytes} free.")
    return found


def _obstacles(found: Exchange, place: str, archive: str) -> Iterator[str]:
    """Yield sentences about what keeps the files of a set from the place of the archive. After a reboot, a mount inside would hide what was restored."""
    if not os.path.isdir(place):
        yield f"{place} is no directory, so the stored files cannot be restored beside {archive}."
    elif not found.writable:
        yield f"{place} cannot be written to, so the stored files cannot be restored in {archive}."
    if os.path.lexists(found.target) and not os.path.isdir(found.target):
        yield f"{archive} is no directory, so stored files cannot be exchanged with it."
    for mount in _mount_points():
        if mount.startswith(f"{found.target}/"):
            yield f"{mount} is a mount point inside {archive}, and would stay with the replaced files. Unmount it first."


def exchange(archive: str, incoming: str, outgoing: str) -> bool:
    """Put the directory incoming in the place of the archive, whose own files go to outgoing. Return whether anything was done: nothing without incoming.

    The archive is renamed where that is possible. In a mount point its entries are moved one by one. What fails is taken back before OSError is raised.
    After a kill the next run goes on. It may bring another outgoing, and an incoming that was copied again.
    """
    archive = os.path.realpath(archive)
    if not os.path.isdir(incoming):
        return False
    undo: list[Callable[[], None]] = []
    try:
        if is_mount_point(archive):
            _exchange_entries(archive, incoming, outgoing, undo)
        else:
            if os.path.lexists(archive):
                _rename(archive, outgoing, undo)
            _rename(incoming, archive, undo)
    except OSError:
        for step in reversed(undo):
            step()
        raise
    _sync(os.path.dirname(archive))
    return True


def _exchange_entries(archive: str, incoming: str, outgoing: str, undo: list[Callable[[], None]]) -> None:
    aside = os.path.join(archive, f"{OWN[0]}-whole")  # tells a later run that all that was there is aside already
    os.makedirs(outgoing, 0o750, exist_ok=True)
    _copy_owner(archive, outgoing)
    if not os.path.exists(aside):
        for name in os.listdir(archive):
            if not name.startswith(OWN):
                _rename(os.path.join(archive, name), os.path.join(outgoing, name), undo)
        _sync(outgoing)
        with open(aside, "wb"):
            undo.append(lambda: os.unlink(aside))
        _sync(archive)
    for name in os.listdir(incoming):
        if os.path.lexists(os.path.join(archive, name)):  # a run that was killed had brought it, and it was copied again
            _rename(os.path.join(archive, name), os.path.join(outgoing, name), undo)
        _rename(os.path.join(incoming, name), os.path.join(archive, name), undo)
    _sync(archive)
    os.rmdir(incoming)
    os.unlink(aside)


def _rename(before: str, after: str, undo: list[Callable[[], None]]) -> None:
    os.rename(before, after)
    undo.append(lambda: os.rename(after, before))


def _sync(directory: str) -> None:
    """Put the names in a directory on disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy_owner(source: str, target: str) -> None:
    found = os.stat(source)
    os.chown(target, found.st_uid, found.st_gid)
    os.chmod(target, stat.S_IMODE(found.st_mode))


def taken(directory: str) -> int:
    """Return the bytes that the files and directories below a directory take when they are copied, a file with several names once. Raises OSError."""
    total, seen, waiting = 0, set(), [directory]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                    total += _BLOCK
                elif (found.st_dev, found.st_ino) not in seen:
                    if found.st_nlink > 1:
                        seen.add((found.st_dev, found.st_ino))
                    total += -(-found.st_size // _BLOCK) * _BLOCK
    return total


def is_mount_point(path: str) -> bool:
    """Whether something is mounted there, also when it is of the same file system as its parent (a bind mount)."""
    return os.path.ismount(path) or os.path.realpath(path) in _mount_points()


def _mount_points() -> list[str]:
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        return [re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split()[4]) for line in stream]
    return []


def listing(directory: str, home: str = "") -> set[bytes]:
    """Return the paths of all files below directory. Links to directories are not followed. Raises OSError.

    home: for a set's copy, the archive that it was made of. Then a link counts only when it leads to a file of the copy itself.
    """
    root = os.fsencode(directory)
    found, waiting = set(), [b""]
    while waiting:
        below = waiting.pop()
        with os.scandir(os.path.join(root, below)) as entries:
            for entry in entries:
                path = os.path.join(below, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                elif _is_file_inside(directory, path, home) if home and entry.is_symlink() else entry.is_file():
                    found.add(path)
    return found


def spellings(path: bytes, home: str) -> tuple[bytes, bytes]:
    """Return a path of the database as it is, and as Indico spelt it in older times (MaKaC/fileRepository.py); it takes a file under either.

    home is where Indico keeps its files: in even older times it noted whole paths.
    """
    path = path.removeprefix(os.fsencode(home) + b"/")
    return path, path.decode(errors="replace").encode("latin-1", "replace")


def missing(paths: Iterable[bytes], directory: str, present: set[bytes], home: str) -> list[bytes]:
    """Return those of the database's paths that are no file in directory, of which present is a listing.

    Where directory is the archive itself (home), links are followed wherever they lead, as Indico does. In a set's copy they never leave the copy:
    what lies outside may be gone when the copy is needed.
    """
    root = os.fsencode(directory)
    living = os.path.realpath(directory) == os.path.realpath(home)

    def there(path: bytes) -> bool:
        # Asked again, as it may lie behind a link, or have come since the listing.
        return path in present or (os.path.isfile(os.path.join(root, path)) if living else _is_file_inside(directory, path, home))

    return [path for path in paths if not any(there(one) for one in spellings(path, home))]


def _is_file_inside(directory: str, path: bytes, home: str) -> bool:
    place = _inside(os.fsencode(directory), path, os.fsencode(home))
    try:
        return place is not None and stat.S_ISREG(os.lstat(place).st_mode)
    except OSError:
        return False


def _inside(root: bytes, path: bytes, home: bytes) -> bytes | None:
    """Return where a path of a copy leads when no link may leave the copy; None when one does. A link to a path of home means the same path of the copy."""
    place: list[bytes] = []
    waiting, links = path.split(b"/")[::-1], 0
    while waiting:
        part = waiting.pop()
        if part == b".." and not place:
            return None
        if part in (b"", b".", b".."):
            del place[len(place) - (part == b"..") :]
            continue
        try:
            link = os.readlink(os.path.join(root, *place, part))
        except OSError as error:
            if error.errno != errno.EINVAL:  # it is there and no link
                return None
            place.append(part)
            continue
        links += 1
        if links > _LINKS:
            return None
        if link.startswith(b"/"):
            if not f"{os.fsdecode(link)}/".startswith(f"{os.fsdecode(home)}/"):
                return None
            link, place = link[len(home) :], []
        waiting += link.split(b"/")[::-1]
    return os.path.join(root, *place)


def leaving(directory: str, archive: str, below: bytes = b"") -> Iterator[tuple[bytes, str]]:
    """Yield each link below a path of directory that leads out of the archive, and where it leads. directory: the archive, or a copy of it.

    The copy keeps links as they are. So one that stays in the archive is as good in the copy, and of one that leaves it the copy has nothing.
    """
    home = f"{os.path.realpath(archive)}/"
    for path in links(directory, below):
        target = os.path.realpath(os.path.join(archive, os.fsdecode(path)))
        if not f"{target}/".startswith(home):
            yield path, target


def links(directory: str, below: bytes = b"") -> list[bytes]:
    """Return the paths of the symbolic links below a path of directory, sorted. Raises OSError."""
    found, waiting = [], [below]
    while waiting:
        place = waiting.pop()
        with os.scandir(os.path.join(os.fsencode(directory), place)) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(os.path.join(place, entry.name))
                elif entry.is_symlink():
                    found.append(os.path.join(place, entry.name))
    return sorted(found)


def declared(target: str, roots: Iterable[str]) -> bool:
    """Whether a real path is one of the directories that the operator declared as part of the archive, or below one of them."""
    return any(f"{target}/".startswith(f"{os.path.realpath(root).rstrip('/')}/") for root in roots if os.path.isabs(root))


@contextlib.contextmanager
def opened(target: str) -> Iterator[int]:
    """Give a descriptor of a file or directory whose real path is target. Raises OSError, also when a link came in between since that was asked.

    Who may write to the archive may change what a path means at any moment; a descriptor stays what it is.
    """
    descriptor = os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.readlink(f"/proc/self/fd/{descriptor}") != target:
            raise OSError(errno.ELOOP, "Another file took its place", target)
        yield descriptor
    finally:
        os.close(descriptor)
