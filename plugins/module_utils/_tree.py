# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Directories, files and links as declared state: one plan for check mode and for the run."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _repository

_VALIDATION_SECONDS = 600
_MODE = re.compile(r"0?[0-7]{4}\Z")  # four, since an unquoted 0640 comes as the number 416
_DEFAULT_MODE = {"directory": "0755", "file": "0644"}


class TreeError(Exception):
    """What is declared cannot be had; the message is a sentence for the operator."""


@dataclass
class Entry:
    """One declared path. state is directory, file, link or absent; mode is None for links and absent paths."""

    path: str
    state: str
    content: bytes = b""
    target: str = ""
    owner: str = "root"
    group: str = "root"
    mode: int | None = None
    validate: list[str] = field(default_factory=list)
    hidden: bool = False
    hidden_lines: list[str] = field(default_factory=list)


@dataclass
class Change:
    """One path that differs. before and after describe it as text, content first."""

    entry: Entry
    content_differs: bool
    before: str
    after: str
    created: bool = False

    def diff(self) -> dict[str, str]:
        path = self.entry.path
        return {"before_header": path, "after_header": path, "before": self.before, "after": self.after}


def entry(declared: dict[str, Any]) -> Entry:
    """Turn one item of the module's option entries into an Entry. Raises TreeError for what makes no sense."""
    path = declared["path"]
    _refuse_path(path)
    content, target = declared.get("content"), declared.get("target")
    if content is not None and target is not None:
        raise TreeError(f"{path}: content makes a file and target makes a link; it cannot be both.")
    state = declared.get("state") or ("file" if content is not None else "link" if target is not None else "directory")
    if (state == "file") != (content is not None) or (state == "link") != (target is not None) or target == "":
        raise TreeError(f"{path}: a file needs content, a link needs target, and nothing else takes them.")
    mode = declared.get("mode") or _DEFAULT_MODE.get(state)
    if mode is not None and not _MODE.match(mode):
        raise TreeError(f"{path}: the mode is {mode!r}; write it in octal digits between quotes, like '0640'.")
    return Entry(
        path=path,
        state=state,
        content=(content or "").encode(),
        target=target or "",
        owner=declared.get("owner") or "root",
        group=declared.get("group") or "root",
        mode=int(mode, 8) if mode is not None and state in _DEFAULT_MODE else None,
        validate=declared.get("validate") or [],
        hidden=bool(declared.get("hidden")),
        hidden_lines=declared.get("hidden_lines") or [],
    )


def _refuse_path(path: str) -> None:
    if not os.path.isabs(path) or path.startswith("//") or os.path.normpath(path) != path:
        raise TreeError(f"{path}: a path must be absolute and without '.', '..', doubled or trailing slashes.")


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _name(number: int, database: str) -> str:
    try:
        return pwd.getpwuid(number).pw_name if database == "owner" else grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _number(name: str, database: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid if database == "owner" else grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _kind(found: os.stat_result) -> str:
    for kind, test in (("directory", stat.S_ISDIR), ("file", stat.S_ISREG), ("link", stat.S_ISLNK)):
        if test(found.st_mode):
            return kind
    return "special file"


def _text(content: bytes) -> str:
    return content.decode(errors="backslashreplace")


def _shown(one: Entry, content: bytes) -> str:
    if one.hidden:
        return "content: hidden\n"
    lines = _text(content).splitlines(keepends=True)
    return "".join(next((f"{start}hidden\n" for start in one.hidden_lines if line.startswith(start)), line) for line in lines)


def _found_content(path: str, kind: str) -> bytes:
    if kind == "link":
        return os.readlink(path).encode() + b"\n"
    if kind == "file":
        with open(path, "rb") as stream:
            return stream.read()
    return b""


def _attributes(kind: str, owner: str, group: str, mode: int | None) -> dict[str, str]:
    shown = {"kind": kind}
    if mode is not None:
        shown.update(owner=owner, group=group, mode=f"{mode:04o}")
    return shown


def _compare(one: Entry) -> Change | None:
    """Compare one entry with what is on the host."""
    found = _lstat(one.path)
    if one.state == "absent":
        if found is None:
            return None
        kind = _kind(found)
        return Change(one, True, _shown(one, _found_content(one.path, kind)) + f"kind: {kind}\n", "kind: absent\n")

    wanted_content = (one.target + "\n").encode() if one.state == "link" else one.content
    wanted = _attributes(one.state, one.owner, one.group, one.mode)
    if found is None:
        after = _shown(one, wanted_content) + "".join(f"{key}: {value}\n" for key, value in wanted.items())
        return Change(one, True, "kind: absent\n", after, created=True)

    kind = _kind(found)
    mode = None if kind == "link" else stat.S_IMODE(found.st_mode)
    present = _attributes(kind, _name(found.st_uid, "owner"), _name(found.st_gid, "group"), mode)
    content = _found_content(one.path, kind)
    content_differs = kind != one.state or content != wanted_content
    differing = [key for key in {**present, **wanted} if present.get(key) != wanted.get(key)]
    if not content_differs and not differing:
        return None

    def show(text: bytes, attributes: dict[str, str]) -> str:
        lines = [f"{key}: {attributes[key]}\n" for key in differing if key in attributes]
        return (_shown(one, text) if content_differs else "") + "".join(lines)

    return Change(one, content_differs, show(content, present), show(wanted_content, wanted))


def _refuse(changes: list[Change], check_mode: bool) -> None:
    """Raise TreeError for what cannot be done, before anything is done. In check mode what an earlier task would bring may be missing."""
    made: set[str] = set()
    for change in changes:
        one = change.entry
        found = _lstat(one.path)
        kind = _kind(found) if found else None
        if kind == "special file":
            raise TreeError(f"{one.path}: it is a special file; remove it by hand.")
        if kind == "directory" and one.state != "directory" and os.listdir(one.path):
            declared = "nothing" if one.state == "absent" else f"a {one.state}"
            raise TreeError(f"{one.path}: it is a directory with something in it, where {declared} is declared; empty it by hand.")
        if kind is not None and kind != "directory" and one.state == "directory":
            raise TreeError(f"{one.path}: it is a {kind}, where a directory is declared; remove it by hand.")
        if one.state == "absent" or check_mode:
            continue
        parent = os.path.dirname(one.path)
        if not os.path.isdir(parent) and parent not in made:
            raise TreeError(f"{one.path}: its parent {parent} does not exist and is not declared before it.")
        if one.state == "directory":
            made.add(one.path)
        if one.mode is not None:
            for database, name in (("owner", one.owner), ("group", one.group)):
                if _number(name, database) is None:
                    raise TreeError(f"{one.path}: there is no {'user' if database == 'owner' else 'group'} {name} on this host.")


def plan(entries: list[Entry], check_mode: bool = False) -> list[Change]:
    """Return what differs, in the declared order. Raises TreeError when something declared cannot be had."""
    declared: dict[str, Entry] = {}
    for one in entries:
        if one.path in declared:
            raise TreeError(f"{one.path}: it is declared twice.")
        declared[one.path] = one
    for one in entries:
        for above in map(str, PurePosixPath(one.path).parents):
            state = declared[above].state if above in declared else "directory"
            if state != "directory" and (state, one.state) != ("absent", "absent"):
                raise TreeError(f"{one.path}: it lies below {above}, which is declared as {state}.")
    changes = [change for change in map(_compare, entries) if change]
    _refuse(changes, check_mode)
    _need_rights(changes)
    return changes


def _need_rights(changes: list[Change]) -> None:
    """Raise TreeError for what this user may not do, so that check mode refuses what the run would."""
    changing: set[str] = set()
    for change in changes:
        path, found = change.entry.path, _lstat(change.entry.path)
        if not found or change.entry.state == "absent" or (change.content_differs and change.entry.state != "directory"):
            _need_place(path, changing)
        if found and not stat.S_ISLNK(found.st_mode):
            _need_hold(change, found)
        _need_owner(change.entry)
        changing.add(path)


def _need_place(path: str, changing: set[str]) -> None:
    """Raise TreeError unless a name may be made or taken away at the path. An earlier change may make its directory, or make it writable."""
    parent = os.path.dirname(path)
    while not os.path.lexists(parent) and parent not in changing:
        parent = os.path.dirname(parent)
    if parent in changing or not os.path.isdir(parent):
        return
    try:
        _repository.need_writable(parent)
    except _repository.RepositoryError as error:
        raise TreeError(f"{path}: {error}") from error


def _need_hold(change: Change, found: os.stat_result) -> None:
    """Raise TreeError unless this user may change or replace what is there."""
    one = change.entry
    if os.geteuid() == 0:
        # Nothing else stops root from writing.
        if not os.access(one.path, os.W_OK, effective_ids=True):
            raise TreeError(f"{one.path}: it cannot be changed, since it is immutable or its file system is read-only.")
    elif found.st_uid != os.geteuid() and (one.state == "directory" or (one.state == "file" and not change.content_differs)):
        raise TreeError(f"{one.path}: only its owner {_name(found.st_uid, 'owner')} or root can change it.")


def _need_owner(one: Entry) -> None:
    """Raise TreeError unless this user may give a file or directory to its owner and group."""
    if os.geteuid() == 0 or one.mode is None:
        return
    uid, gid = _number(one.owner, "owner"), _number(one.group, "group")
    if (uid is not None and uid != os.geteuid()) or (gid is not None and gid not in {os.getegid(), *os.getgroups()}):
        raise TreeError(f"{one.path}: only root can give it to owner {one.owner} and group {one.group}.")


def _run(command: list[str], subject: str, path: str, check_mode: bool) -> bool:
    """Run a validation. Return False when its program is not there yet, which only check mode forgives."""
    argv = [word.replace("{}", path) for word in command]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=_VALIDATION_SECONDS)
    except FileNotFoundError as error:
        if check_mode:
            return False
        raise TreeError(f"{subject}: it cannot be validated, since there is no {argv[0]} on this host.") from error
    except subprocess.TimeoutExpired as error:
        raise TreeError(f"{subject}: {argv[0]} did not validate it within {_VALIDATION_SECONDS} seconds, nothing was changed.") from error
    if done.returncode != 0:
        raise TreeError(f"{subject}: {argv[0]} refused it (exit code {done.returncode}), nothing was changed: {_text(done.stdout).strip()}")
    return True


def validate(changes: list[Change], stage: str | None, command: list[str], check_mode: bool = False, needs: list[str] | None = None) -> list[str]:
    """Run every validation on copies. Returns the paths that could not be validated yet (check mode only).

    needs: paths outside the stage that its validation reads, and that an earlier task of a run in check mode may only have announced.
    """
    skipped: list[str] = []
    if stage:
        _refuse_path(stage)
    with _private_directory() as scratch:
        for number, change in enumerate(changes):
            if change.entry.validate and change.content_differs and change.entry.state == "file":
                directory = os.path.join(scratch, str(number))
                os.mkdir(directory, 0o700)
                copy = os.path.join(directory, os.path.basename(change.entry.path))
                with open(copy, "xb") as stream:
                    stream.write(change.entry.content)
                if not _run(change.entry.validate, change.entry.path, copy, check_mode):
                    skipped.append(change.entry.path)
        inside = [change for change in changes if stage and change.entry.path.startswith(stage + "/")]
        if stage and command and inside:
            if not os.path.isdir(stage) and not check_mode:
                raise TreeError(f"{stage}: it does not exist, so nothing can be staged from it.")
            possible = not check_mode or all(map(os.path.exists, [stage, *(needs or [])]))
            if not (possible and _validate_stage(inside, stage, command, os.path.join(scratch, "stage"), check_mode)):
                skipped.append(stage)
    return skipped


def _validate_stage(inside: list[Change], stage: str, command: list[str], copy: str, check_mode: bool) -> bool:
    shutil.copytree(stage, copy, symlinks=True)
    copy = os.path.realpath(copy)
    for change in inside:
        path = copy + change.entry.path[len(stage):]  # fmt: skip
        parent = os.path.dirname(path)
        if os.path.commonpath([copy, os.path.realpath(parent)]) != copy:
            raise TreeError(f"{change.entry.path}: a link leads out of {stage}, so it cannot be staged.")
        os.makedirs(parent, exist_ok=True)  # missing in check mode only
        if os.path.islink(path) or os.path.isfile(path):
            os.unlink(path)
        elif os.path.isdir(path) and change.entry.state != "directory":
            os.rmdir(path)  # empty: plan refuses others
        if change.entry.state == "directory":
            os.makedirs(path, exist_ok=True)
        elif change.entry.state == "link":
            os.symlink(change.entry.target, path)
        elif change.entry.state == "file":
            with open(path, "xb") as stream:
                stream.write(change.entry.content)
    return _run(command, stage, copy, check_mode)


@contextlib.contextmanager
def _private_directory() -> Iterator[str]:
    directory = tempfile.mkdtemp(prefix="confops-")
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def apply(changes: list[Change]) -> None:
    """Make the host as planned, in order; a file or link that is replaced is the old one or the new one at any moment."""
    for change in changes:
        one = change.entry
        if one.state == "absent":
            if os.path.isdir(one.path) and not os.path.islink(one.path):
                os.rmdir(one.path)
            else:
                os.unlink(one.path)
        elif one.state == "directory":
            with contextlib.suppress(FileExistsError):
                os.mkdir(one.path, 0o700)
            _set_attributes(one.path, one, os.O_DIRECTORY)
        elif one.state == "file" and not change.content_differs:
            _set_attributes(one.path, one, 0)
        else:
            _replace(one)
        _repository.sync(os.path.dirname(one.path))


def _set_attributes(path: str, one: Entry, flags: int) -> None:
    # Through a descriptor that follows no link: a service user may own the directory around it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | flags)
    try:
        os.fchown(descriptor, _number(one.owner, "owner") or 0, _number(one.group, "group") or 0)
        os.fchmod(descriptor, one.mode or 0)  # after chown, which clears the set-id bits
    finally:
        os.close(descriptor)


def _replace(one: Entry) -> None:
    if os.path.isdir(one.path) and not os.path.islink(one.path):
        os.rmdir(one.path)  # empty: plan refuses others
    with tempfile.TemporaryDirectory(prefix=".confops-", dir=os.path.dirname(one.path)) as beside:
        new = os.path.join(beside, "new")
        if one.state == "link":
            os.symlink(one.target, new)
        else:
            with open(new, "xb") as stream:
                stream.write(one.content)
                stream.flush()
                os.fsync(stream.fileno())
            _set_attributes(new, one, 0)
        os.replace(new, one.path)
