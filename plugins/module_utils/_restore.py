# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Restores a database from a repozo repository, as it was at any of its transactions.

The new file is written beside the target and every byte of it compared with the repository's md5 before it takes the target's
name, in one step. Whatever moment a run is killed at, the old database or the new one is there, whole; the next run clears up.
What was there before stays as TARGET.replaced-STAMP. Where a file is damaged, nothing is written; the error names the last good transaction.

While the database is written and swapped, the server's own lock is held, so no server can start on either. The order of the swap:

- the old database gets its second name;
- its .index moves with it: a database without one opens, only slower, while one beside the wrong database might be believed;
- the new database takes the name;
- .tmp and .pack, which the server left when it stopped or was killed, go: nothing ever reads them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import grp
import hashlib
import os
import pwd
import re
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, BinaryIO, Protocol

from ansible_collections.confops.indico.plugins.module_utils import _filestorage, _history, _repository, _repozo
from ansible_collections.confops.indico.plugins.module_utils._filestorage import Transaction
from ansible_collections.confops.indico.plugins.module_utils._history import Cut, Damage, Files, Record, Wanted
from ansible_collections.confops.indico.plugins.module_utils._repository import Repository, RepositoryError

_RESTORED = "The restored database"
_AHEAD = timedelta(minutes=5)  # the clocks of two hosts may differ by that much
_LARGEST_ID = 2**32 - 2  # of a user or group
_END = 2**20  # bytes at the end of a file that are kept to see its last transaction; one is rarely larger
_READ_FOR_LAST = 64 * 2**20  # a file of up to these bytes is read in advance to tell the newest transaction


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...
    def copy(self) -> _Hash: ...


@dataclass
class Request:
    """What is asked for. wanted None means the newest there is; owner, group and mode None mean those of the file that is replaced.

    chain names the only one to take it from, None whichever has it.
    """

    repository: str
    target: str
    wanted: Wanted | None = None
    chain: str | None = None
    live: str | None = None
    confirm: str | None = None
    owner: str | None = None
    group: str | None = None
    mode: str | None = None
    served: bool = False  # the caller stops the server before the run, so a plan says nothing of it


@dataclass
class Part:
    """A range of the result (bytes) and the file that holds it. Nothing beyond upto is written.

    md5 is of the whole range and None for the live database. as_stored: confops.json remembers that the file was stored so, whatever its tids say.
    """

    path: str
    compressed: bool
    start: int
    end: int
    upto: int
    md5: str | None
    as_stored: bool = False


@dataclass
class Replaced:
    """The file that is at the target: its size, its newest transaction if it ends with a whole one, and its owner, group and mode."""

    bytes: int
    last_transaction: Transaction | None
    attributes: tuple[int, int, int]


@dataclass
class Plan:
    """What a run does. content says that the database differs, attributes (uid, gid, mode) that the file shall have.

    last_transaction is None when only reading a large file would tell. free_bytes changes by itself.
    """

    target: str
    parts: list[Part]
    last_transaction: Transaction | None
    replaces: Replaced | None
    attributes: tuple[int, int, int]
    content: bool = True
    needed_bytes: int = 0
    free_bytes: int = field(default=0, compare=False)
    warnings: list[str] = field(default_factory=list)

    @property
    def chain(self) -> str:
        return self.files[0].split(".")[0]

    @property
    def bytes(self) -> int:
        return self.parts[-1].upto

    @property
    def files(self) -> list[str]:
        return [os.path.basename(part.path) for part in self.parts if part.md5]

    @property
    def live_bytes(self) -> int:
        return sum(part.upto - part.start for part in self.parts if not part.md5)

    @property
    def changed(self) -> bool:
        return self.content or not self.replaces or self.replaces.attributes != self.attributes

    def diff(self) -> dict[str, str]:
        before = _describe(self.replaces.bytes, self.replaces.last_transaction, self.replaces.attributes) if self.replaces else ""
        after = _describe(self.bytes, self.last_transaction, self.attributes)
        return {"before_header": self.target, "after_header": self.target, "before": before if self.changed else after, "after": after}


@dataclass
class Result:
    """What a run did, or in check mode would do: then md5 and replaced (the path of the old database) are None."""

    plan: Plan
    last_transaction: Transaction | None
    md5: str | None = None
    replaced: str | None = None
    seconds: float = 0.0

    def answer(self) -> dict[str, Any]:
        """Return it as the module does."""
        plan, replaces = self.plan, self.plan.replaces
        return {
            "changed": plan.changed,
            "file": plan.target,
            "bytes": plan.bytes,
            "last_transaction": transaction_dict(self.last_transaction),
            "md5": self.md5,
            "chain": plan.chain,
            "files": plan.files,
            "live_bytes": plan.live_bytes,
            "replaces": replaces and {"bytes": replaces.bytes, "last_transaction": transaction_dict(replaces.last_transaction)},
            "replaced": self.replaced,
            "needed_bytes": plan.needed_bytes,
            "free_bytes": plan.free_bytes,
            "seconds": round(self.seconds, 3),
            "diff": plan.diff(),
        }


def transaction_dict(found: Transaction | None) -> dict[str, Any] | None:
    return {"tid": found.tid, "time": _history.iso(found.time), "user": found.user, "description": found.description} if found else None


def record_dict(record: Record) -> dict[str, Any]:
    return {**(transaction_dict(record.transaction()) or {}), "bytes": record.end - record.start}


def _describe(size: int, last: Transaction | None, attributes: tuple[int, int, int]) -> str:
    newest = f"{last.tid} of {_history.iso(last.time)}" if last else "not known"
    return f"bytes: {size}\nnewest transaction: {newest}\nowner, group, mode: {attributes[0]}, {attributes[1]}, {attributes[2]:04o}\n"


# The plan


def plan(request: Request, files: Files | None = None) -> Plan:
    """Decide what a run does; nothing is written. files, of the request's repository, remembers what was read of it.

    Raises RepositoryError for what cannot or must not be done, and Damage when the cause is a damaged file of the repository.
    """
    target = request.target
    replaces = _look_at(target)
    if replaces and request.confirm != target:
        raise RepositoryError(
            f"{target} exists. To have it replaced (it is kept under another name), set confirm to its path"
            + (f"; it is {request.confirm!r}." if request.confirm else ".")
        )
    attributes = _attributes(request, replaces)
    repository, warnings = _opened(request)
    parts, last, more = _choose(files or Files(request.repository), repository, request)
    chosen = Plan(target, parts, last, replaces, attributes, warnings=warnings + more)
    if replaces and replaces.bytes == chosen.bytes and _equal(chosen):
        chosen.content = False
        _need_rights(chosen)
        return chosen
    _need_rights(chosen)
    chosen.needed_bytes = chosen.bytes
    unfinished = sum(os.lstat(path).st_blocks * 512 for path in _unfinished(target))
    chosen.free_bytes = _repository.need_room(_RESTORED, chosen.needed_bytes, os.path.dirname(target), more=unfinished)
    try:
        with contextlib.suppress(FileNotFoundError), _repository.open_regular(f"{target}.lock") as lock:
            _lock(lock.fileno(), target)
    except _InUse as error:  # the run refuses; a plan is made while the server still runs
        chosen.warnings += [] if request.served else [str(error)]
    return chosen


def _opened(request: Request) -> tuple[Repository, list[str]]:
    """Return the repository with the chains that the request may use, and warnings."""
    repository, warnings = _history.open_repository(request.repository)
    if request.chain is not None:
        repository = dataclasses.replace(repository, chains=[chain for chain in repository.chains if chain.stamp == request.chain])
        if not repository.chains:
            raise RepositoryError(f"There is no chain {request.chain} in {repository.path}.")
    return repository, warnings


def _look_at(target: str) -> Replaced | None:
    if not os.path.isabs(target or "") or os.path.normpath(target) != target or "\0" in target:
        raise RepositoryError(f"The target {target} must be an absolute path without '.', '..', doubled or trailing slashes.")
    if not os.path.isdir(os.path.dirname(target)):
        raise RepositoryError(f"The directory of {target} does not exist.")
    for suffix in ("lock", "index", "tmp", "pack"):
        _need_file_or_nothing(f"{target}.{suffix}")
    try:
        found = os.lstat(target)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        raise RepositoryError(f"{target} is a link to {os.path.realpath(target)}, which a restore would not replace. Set target to the path of the file.")
    _need_file_or_nothing(target)
    last = None
    with _repository.open_regular(target) as stream, contextlib.suppress(_filestorage.FileStorageError):  # it may be damaged: that is why it is replaced
        last = _filestorage.ending_at(stream, found.st_size)
    return Replaced(found.st_size, last, (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)))


def _need_file_or_nothing(path: str) -> None:
    """Raise RepositoryError when the path is there and is no file: opening a FIFO may never return, and a directory cannot be replaced."""
    with contextlib.suppress(FileNotFoundError):
        mode = os.lstat(path).st_mode
        if not stat.S_ISREG(mode):
            raise RepositoryError(f"{path} is {_repository.kind_of(mode)}, not a file. Remove it first.")


def _need_rights(chosen: Plan) -> None:
    """Raise RepositoryError for what this user may not do, so that check mode refuses what the run would."""
    target, replaces = chosen.target, chosen.replaces
    if chosen.content:
        _repository.need_writable(os.path.dirname(target))
    if replaces and chosen.changed and os.geteuid() == 0 and not os.access(target, os.W_OK, effective_ids=True):
        raise RepositoryError(f"{target} cannot be replaced: it is immutable, or its file system is read-only.")
    if not chosen.changed or os.geteuid() == 0:
        return
    lock = f"{target}.lock"
    if chosen.content and os.path.lexists(lock) and not os.access(lock, os.R_OK | os.W_OK, effective_ids=True):
        raise RepositoryError(f"{lock} cannot be opened by this user, so nobody can tell whether {target} is in use.")
    uid, gid, _mode = chosen.attributes
    if uid != os.geteuid() or gid not in {os.getegid(), *os.getgroups()}:
        raise RepositoryError(f"Only root can give {target} to user {uid} and group {gid}. Run this as root, or set owner and group.")


def _attributes(request: Request, replaces: Replaced | None) -> tuple[int, int, int]:
    uid, gid, mode = replaces.attributes if replaces else (os.geteuid(), os.getegid(), 0o600)
    if request.owner is not None:
        uid = _identity("owner", request.owner, lambda name: pwd.getpwnam(name).pw_uid)
    if request.group is not None:
        gid = _identity("group", request.group, lambda name: grp.getgrnam(name).gr_gid)
    if request.mode is not None:
        if not re.fullmatch(r"0?[0-7]{4}", request.mode):
            raise RepositoryError(f"The mode is {request.mode!r}; write it in octal digits between quotes, like '0600'.")
        mode = int(request.mode, 8)
    return uid, gid, mode


def _identity(option: str, name: str, known: Callable[[str], int]) -> int:
    """Return the number of a user or group that is given by name or number. Raises RepositoryError."""
    if re.fullmatch(r"[0-9]+", name):
        if len(name) > 10 or int(name) > _LARGEST_ID:
            raise RepositoryError(f"The {option} is {name}; a number of a user or group is at most {_LARGEST_ID}.")
        return int(name)
    try:
        return known(name)
    except KeyError as error:
        raise RepositoryError(f"This host does not know the {option} {name}.") from error


def _choose(files: Files, repository: Repository, request: Request) -> tuple[list[Part], Transaction | None, list[str]]:
    """Return the parts of the result, its newest transaction if that is known, and warnings."""
    wanted, chain = request.wanted, repository.chains[-1]
    if wanted is None:
        if not _history.sound(chain) == len(chain.files) == len(chain.entries):
            raise _history.refuse_damaged(chain)
        parts = _parts(repository, Cut(chain, chain.files, chain.end, None, None, False))
        if request.live:
            parts, last_of_all, _none = _with_live(repository, request, parts, None)
        else:
            last_of_all = _last_of(repository)
        return parts, last_of_all, _dated_ahead(repository, last_of_all)
    cut, warnings = _history.select(files, repository, wanted)
    parts, last = _parts(repository, cut), cut.transaction
    beyond = cut.later is None and cut.chain is chain and cut.tid != wanted.limit
    if beyond and request.live:
        parts, found, more = _with_live(repository, request, parts, last)
        return parts, found, warnings + more
    if beyond and wanted.exact:
        raise RepositoryError(f"{wanted.text} is not in the repository. {_history.nearest(cut.tid, None)}")
    if beyond and last and wanted.moment > _history.stamp_end(chain.files[-1]):
        warnings.append(
            f"The newest backup is of {chain.files[-1].stamp}, before the wanted time:"
            f" what was committed after {_history.iso(last.transaction().time)} is not in it and not restored."
        )
    return parts, last and last.transaction(), warnings + _left_out(wanted, cut.later, lambda: _history.behind(repository, wanted.limit))


def _clock() -> datetime:
    """Return the moment behind which no transaction can lie, unless a clock is or was wrong."""
    return datetime.now(timezone.utc) + _AHEAD


def _dated_ahead(repository: Repository, last: Transaction | None) -> list[str]:
    """Return a warning when the restored database ends with transactions of the future. last is its newest one, if known."""
    if last is None or last.time <= _clock():
        return []
    count, _newest = _history.behind(repository, _history.limit_of(_clock()))
    return [
        f"{_many(max(count, 1))} from the future, by this host's clock; the newest is {last.tid} of {_history.iso(last.time)}."
        " A clock was wrong when it was committed, or this host's clock is wrong now. Without a time, all of it is restored."
    ]


def _left_out(wanted: Wanted, later: bytes | None, behind: Callable[[], tuple[int, bytes]]) -> list[str]:
    """Return a warning when a time leaves out transactions only since their tids lie in the future.

    Tids ascend, so later, the first that is left out, tells for all of them; behind counts them and finds the newest.
    """
    if wanted.exact or later is None or _history.time_of(later) <= _clock():
        return []
    count, newest = behind()
    return [
        f"{wanted.text} leaves out transactions: {_many(count)} from the future, by this host's clock; the newest is {newest.hex()} of"
        f" {_history.iso(_history.time_of(newest))}. They may have been committed before that time, when a clock was wrong."
        " To restore them too, leave the time out or name a transaction."
    ]


def _many(count: int) -> str:
    return "1 transaction is" if count == 1 else f"{count} transactions are"


def _parts(repository: Repository, cut: Cut) -> list[Part]:
    pairs = zip(cut.files, cut.chain.entries)
    return [
        Part(
            os.path.join(repository.path, file.name),
            file.compressed,
            entry.start,
            entry.end,
            min(entry.end, cut.end),
            entry.md5,
            as_stored=file.name in cut.chain.confirmed,
        )
        for file, entry in pairs
    ]


def _with_live(repository: Repository, request: Request, parts: list[Part], last: Record | None) -> tuple[list[Part], Transaction | None, list[str]]:
    """Append what the live database has beyond the chain, up to the wanted moment. Return the parts, the newest transaction and warnings."""
    wanted, live, later, count, newest = request.wanted, request.live or "", None, 0, b""
    with _history.open_live(live, repository) as stream:
        end = start = repository.chains[-1].end
        for record in _history.walk(_history.range_of(stream, start), start):
            if later or (wanted and record.tid > wanted.limit):
                later, count, newest = later or record.tid, count + 1, max(newest, record.tid)
            else:
                last, end = record, record.end
    if wanted and wanted.exact and not (last and last.tid == wanted.limit):
        raise RepositoryError(f"{wanted.text} is neither in the repository nor in {live}. {_history.nearest(last and last.tid, later)}")
    warnings = _left_out(wanted, later, lambda: (count, newest)) if wanted else []
    if end == start:
        return parts, last.transaction() if last else _last_of(repository), warnings
    return [*parts, Part(live, False, start, end, end, None)], last and last.transaction(), warnings


def _last_of(repository: Repository) -> Transaction | None:
    """Return the newest transaction of the newest chain, None when much would have to be read to find it."""
    chain = repository.chains[-1]
    file, entry = chain.files[-1], chain.entries[-1]
    if file.full and not file.compressed:
        with _repository.open_regular(os.path.join(repository.path, file.name), follow=True) as stream:
            last = _filestorage.ending_at(stream, entry.end)
        if last is None and entry.end > _filestorage.HEAD:
            raise Damage(f"{file.name} holds no whole database: it ends with no committed transaction.")
        return last
    if file.bytes > _READ_FOR_LAST:
        return None
    records = deque(_history.file_records(repository.path, file, entry), maxlen=1)
    return records[0].transaction() if records else None


def _equal(chosen: Plan) -> bool:
    """Whether the target, which has the size of the result, is the result. The newest part is the likeliest to differ."""
    if chosen.last_transaction and chosen.replaces and chosen.replaces.last_transaction != chosen.last_transaction:
        return False
    with _repository.open_regular(chosen.target, buffering=0) as stream:
        for part in reversed(chosen.parts):
            wanted = part.md5
            if part.upto < part.end or wanted is None:
                digest = hashlib.md5(usedforsecurity=False)
                for piece in _only(_source(part), part.upto - part.start):
                    digest.update(piece)
                wanted = digest.hexdigest()
            if _repozo.md5_of(stream, part.start, part.upto) != wanted:
                return False
    return True


# The run


def restore(request: Request, *, check: bool = False) -> Result:
    """Restore a database, or with check say what that would do. Raises RepositoryError, whose message is for the operator."""
    began = time.monotonic()
    with _repository.lock(request.repository):
        files = Files(request.repository)
        try:
            result = _run(request, files, check)
        except Damage as error:
            result = _run(_instead(request, files, error), files, check)
            result.plan.warnings.append(str(error))
    result.seconds = time.monotonic() - began
    return result


def _instead(request: Request, files: Files, error: Damage) -> Request:
    """Return a request that takes the same transaction from another chain, which holds it whole. Otherwise raise the error with what can be restored."""
    wanted = request.wanted
    found = _history.last_good(files, _opened(request)[0].chains, wanted.limit if wanted else b"\xff" * 8)
    if wanted and wanted.exact and not request.chain and found and found[1].tid == wanted.limit:
        return dataclasses.replace(request, chain=found[0].stamp)
    raise RepositoryError(f"{error} {_history.way_out(found and found[1])}") from error


def _run(request: Request, files: Files, check: bool) -> Result:
    """Plan, and do what is planned unless check. Raises Damage for a damaged file of the repository, RepositoryError for all else."""
    needed, target = 0, request.target
    try:
        chosen = plan(request, files)
        needed, result = chosen.needed_bytes, Result(chosen, chosen.last_transaction)
        if check and chosen.content:
            _rehearse(chosen, request)
        elif chosen.content:
            _replace(chosen, result, request)
        elif not check and chosen.changed:
            _set_attributes(chosen)
    except OSError as error:
        raise RepositoryError(_explain(error, target, needed)) from error
    except _filestorage.FileStorageError as error:
        raise Damage(f"What the repository holds is damaged. {error} Nothing has changed.") from error
    if chosen.last_transaction is None and result.last_transaction:  # only reading all of it told what it ends with
        chosen.warnings += _dated_ahead(_opened(request)[0], result.last_transaction)
    return result


def _explain(error: OSError, target: str, needed: int) -> str:
    """Return the sentence for an error before the new database took its name."""
    full = _repository.full(error, _RESTORED, needed, os.path.dirname(target))
    return full or f"{target} could not be restored: {_reason(error)}. Nothing has changed."


def _reason(error: OSError) -> str:
    return f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}"


def _set_attributes(chosen: Plan) -> None:
    """Give a target that already holds the right bytes its owner, group and mode. Raises RepositoryError."""
    try:
        os.chown(chosen.target, *chosen.attributes[:2], follow_symlinks=False)
        os.chmod(chosen.target, chosen.attributes[2])
    except OSError as error:
        raise RepositoryError(f"Owner, group and mode of {chosen.target} could not be set: {_reason(error)}. Its bytes are as wanted.") from error


def _replace(chosen: Plan, result: Result, request: Request) -> None:
    directory, name = os.path.split(chosen.target)
    with _server_lock(chosen.target, chosen.attributes):
        for stale in _unfinished(chosen.target):
            os.unlink(stale)
        unfinished = os.path.join(directory, f"{_repository.TEMPORARY}{os.getpid()}-{name}")
        try:
            with open(unfinished, "x+b", buffering=0, opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
                result.md5 = _write(chosen, stream, request)
                result.last_transaction = _verify_end(chosen, stream)
                os.fchown(stream.fileno(), *chosen.attributes[:2])
                os.fchmod(stream.fileno(), chosen.attributes[2])
                os.fsync(stream.fileno())
            if request.wanted or request.chain:  # the next backup asks why the database ends earlier than its chain
                _repozo.note_restored(chosen.target, unfinished, result.last_transaction)
            result.replaced = _swap(chosen, unfinished)
        except BaseException:
            with contextlib.suppress(OSError):  # the next run removes it; the first error is the one to tell
                os.unlink(unfinished)
            raise


def _unfinished(target: str) -> list[str]:
    """Return what killed runs left beside the target. The target's lock must be held for them to be removed."""
    directory, name = os.path.split(target)
    return [os.path.join(directory, one) for one in os.listdir(directory) if re.fullmatch(rf"{re.escape(_repository.TEMPORARY)}[0-9]+-{re.escape(name)}", one)]


@contextlib.contextmanager
def _server_lock(target: str, attributes: tuple[int, int, int]) -> Iterator[None]:
    """Hold the lock that a server takes on its database. The file stays, as it does after a server; the next server must be able to open it."""
    path = f"{target}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    try:
        _repository.refuse_irregular(path, os.fstat(descriptor).st_mode)
        _lock(descriptor, target)
        os.fchown(descriptor, *attributes[:2])
        yield
    finally:
        os.close(descriptor)


class _InUse(RepositoryError):
    """A server holds the database."""


def _lock(descriptor: int, target: str) -> None:
    """Take the lock. As for zc.lockfile, flock tells whether the database is in use; the file's existence does not."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _InUse(f"{target} is in use{_repository.holder(descriptor)}: stop its server first. Nothing has changed.") from error


def _source(part: Part) -> Iterator[bytes]:
    """Yield the bytes of a part; a file's are unpacked ahead."""
    if part.md5:
        yield from _repository.ahead(_repository.blocks(part.path, part.compressed))
        return
    with _repository.open_regular(part.path, follow=True, buffering=0) as stream:
        yield from _history.range_of(stream, part.start, part.end)


def _only(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    """Yield the first bytes, as many as count."""
    for piece in pieces:
        yield piece[:count]
        count -= len(piece)
        if count <= 0:
            return


def _write(chosen: Plan, target: BinaryIO, request: Request) -> str:
    """Write the result and return its md5. Unpacking, md5 and writing have a thread each."""
    digest: _Hash = hashlib.md5(usedforsecurity=False)
    for piece in _repository.ahead(_verified(chosen, digest, request)):
        _put(target, piece)
    return digest.hexdigest()


def _put(target: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[target.write(view) :]


def _verified(chosen: Plan, whole: _Hash, request: Request) -> Iterator[bytes]:
    """Yield the bytes of the result and put them into its hash. Each file is compared with its md5 to the end, also beyond the cut."""
    order = _Order()
    for part in chosen.parts:
        if part.md5 is None:
            # A pack may have put another file there since it was compared.
            _history.open_live(part.path, _history.open_repository(request.repository)[0]).close()
        # One hash serves for the first file, of which the result begins.
        own: _Hash = whole if part.start == 0 else hashlib.md5(usedforsecurity=False)
        position = part.start
        for piece in _read(part):
            order.take(piece, part.end - position)
            taken, rest = piece[: max(0, part.upto - position)], piece[max(0, part.upto - position) :]
            if taken:
                whole.update(taken)
                if own is not whole:
                    own.update(taken)
                yield taken
            if rest:
                if own is whole:
                    own = whole.copy()
                own.update(rest)
            position += len(piece)
            if position > part.end:
                raise Damage(f"{part.path} is damaged: it holds more than the {part.end - part.start} bytes that its .dat file says. Nothing has changed.")
        if position != part.end:
            raise Damage(f"{part.path} is damaged: it holds {position - part.start} bytes of {part.end - part.start}. Nothing has changed.")
        if part.md5 and own.hexdigest() != part.md5:
            raise Damage(f"{part.path} is damaged: its md5 is {own.hexdigest()}, its .dat file says {part.md5}. Nothing has changed.")
        order.end(part)


class _Order:
    """Sees whether each file of a chain continues the one before: its first transaction is newer than the last one there."""

    def __init__(self) -> None:
        self.head, self.tail, self.last = b"", b"", b""

    def take(self, piece: bytes, left: int) -> None:
        """Take in a piece of a file, of which so many bytes are left, the piece's included."""
        if len(self.head) < _filestorage.HEAD + 8:
            self.head = (self.head + piece)[: _filestorage.HEAD + 8]
        if left - len(piece) < _END:
            self.tail = (self.tail + piece)[-_END:]

    def end(self, part: Part) -> None:
        """Compare a file that was read as a whole with the one before. Raises Damage, but not for what was stored so: the database itself was like that."""
        skip = 0 if part.start else _filestorage.HEAD
        size = part.end - part.start - skip
        name = os.path.basename(part.path)
        try:
            first, last = _filestorage.first_and_last(self.head[skip:], self.tail[-size:] if size else b"", size)
        except _filestorage.FileStorageError as error:
            if not part.as_stored:
                raise Damage(f"{name} is damaged. {error} Nothing has changed.") from error
            first, last = "", ""
        if part.as_stored or part.md5 is None:
            first = ""
        if first and last and first > last:
            raise Damage(f"{name} is damaged: it begins with the transaction {first} and ends with {last}, which is older. Nothing has changed.")
        if first and self.last and bytes.fromhex(first) <= self.last:
            raise Damage(f"{_history.behind_the_last(name, bytes.fromhex(first), self.last)} Nothing has changed.")
        self.head, self.tail, self.last = b"", b"", bytes.fromhex(last)


def _read(part: Part) -> Iterator[bytes]:
    """Yield the bytes of a part. Raises Damage when a file of the repository cannot be read."""
    try:
        yield from _source(part)
    except OSError as error:
        raise Damage(f"{part.path} cannot be read: {error.strerror}. Nothing has changed.") from error
    except RepositoryError as error:
        raise Damage(f"{error} Nothing has changed.") from error


def _rehearse(chosen: Plan, request: Request) -> None:
    """Read what a run would read, and compare it. Who plans a restore learns of damage before anything is stopped. Raises Damage."""
    deque(_repository.ahead(_verified(chosen, hashlib.md5(usedforsecurity=False), request)), maxlen=0)


def _verify_end(chosen: Plan, stream: BinaryIO) -> Transaction:
    """Return the newest transaction of what was written; it must be the expected one."""
    stream.seek(0)
    magic = stream.read(_filestorage.HEAD)
    last = _filestorage.ending_at(stream, stream.seek(0, os.SEEK_END))
    expected = chosen.last_transaction
    if magic not in _filestorage.MAGIC or last is None or (expected and last != expected):
        raise Damage(
            f"What the repository holds is no whole database: it ends with {f'transaction {last.tid}' if last else 'no committed transaction'}"
            f"{f', where {expected.tid} was expected' if expected else ''}. Nothing has changed."
        )
    return last


def _swap(chosen: Plan, unfinished: str) -> str | None:
    """Give the new database its name. Return the other name of the old one, None when there was none. Raises RepositoryError, which says what is there now."""
    target, new = chosen.target, os.stat(unfinished)
    if os.path.lexists(target) != (chosen.replaces is not None):
        raise RepositoryError(f"{target} {'appeared' if not chosen.replaces else 'disappeared'} while it was being restored. Nothing has changed.")
    kept = _kept(target) if chosen.replaces else None
    linked = kept is not None and not os.path.lexists(kept)
    stale = not kept and os.path.lexists(f"{target}.index")
    try:
        _rename(target, unfinished, kept, linked)
    except OSError as error:
        # A file system may report an error and have renamed all the same: what counts is what is there.
        if not _is_at(new, target):
            left = _go_back(target, kept, linked)
            if left:
                raise RepositoryError(f"{target} could not be restored: {_reason(error)}. The old database has its name; {left}.") from error
            if stale and not os.path.lexists(f"{target}.index"):
                raise RepositoryError(f"{target} could not be restored: {_reason(error)}. Only {target}.index, an index of no database, is gone.") from error
            raise
        raise RepositoryError(f"{_is_restored(target, kept)}, but the system reported: {_reason(error)}.") from error
    try:
        _repository.sync(os.path.dirname(target))
        for suffix in ("tmp", "pack"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{target}.{suffix}")
    except OSError as error:
        raise RepositoryError(f"{_is_restored(target, kept)}, but what follows failed: {_reason(error)}.") from error
    return kept


def _rename(target: str, unfinished: str, kept: str | None, linked: bool) -> None:
    index = f"{target}.index"
    if kept:
        if linked:
            os.link(target, kept, follow_symlinks=False)
        _repository.sync(os.path.dirname(target))
        with contextlib.suppress(FileNotFoundError):
            os.replace(index, f"{kept}.index")
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(index)
    os.replace(unfinished, target)


def _is_at(file: os.stat_result, path: str) -> bool:
    try:
        return os.path.samestat(file, os.lstat(path))
    except FileNotFoundError:
        return False


def _is_restored(target: str, kept: str | None) -> str:
    return f"{target} is restored{f' and the old database kept as {kept}' if kept else ''}"


def _go_back(target: str, kept: str | None, linked: bool) -> str:
    """Give the old database's index its name back and take the second name away. Return what is left of that, for a sentence."""
    left = []
    if kept and linked:
        try:
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{kept}.index", f"{target}.index")
        except OSError:
            left.append(f"its index is still {kept}.index")
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(kept)
        except OSError:
            left.append(f"{kept} is a second name of it")
    return " and ".join(left)


def _kept(target: str) -> str:
    """Return the name under which the old database stays: the one that a killed run gave it, or one of its own."""
    directory, name = os.path.split(target)
    now = os.lstat(target)
    for one in sorted(os.listdir(directory)):
        if one.startswith(f"{name}.replaced-") and os.path.samestat(os.lstat(os.path.join(directory, one)), now):
            return os.path.join(directory, one)
    while True:
        path = f"{target}.replaced-{datetime.now(timezone.utc).strftime(_repository.STAMP)}"
        if not os.path.lexists(path):
            return path
        time.sleep(0.05)
