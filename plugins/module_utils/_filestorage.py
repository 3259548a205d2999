# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads a FileStorage (Data.fs) without ZODB. The format is that of ZODB3 3.10: ZODB/FileStorage/format.py there describes it."""

from __future__ import annotations

import errno
import os
import pickletools
import re
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, BinaryIO, NamedTuple

MAGIC = (b"FS21", b"FS30")  # written by Python 2 and by Python 3
HEAD = 4  # bytes before the first transaction
# tid, length, status, then the lengths of user, description and extension; the record ends with its length once more.
HEADER = struct.Struct(">8sQcHHH")
# An object's record: oid, tid, offset of the object's record before (0 when it has none), offset of the transaction, length of a version's
# name (no longer used), length of the data. When that is 0, the offset of the record whose data these are follows; an undo writes such.
RECORD = struct.Struct(">8s8sQQHQ")
_LENGTH = struct.Struct(">Q")
COMMITTED = (b" ", b"p", b"u")  # a transaction that is being written has the status c; p is left by a pack, u by an undo

TOLERANCE = timedelta(minutes=5)  # clocks of two hosts may differ by that much
_LOOKS = 10  # times to look at a file that a server may be writing, 10 ms apart
_SEARCHED = 64 * 2**20  # bytes behind the last whole transaction that are searched for others

UNKNOWN = "unknown"  # what stands for the class of a record that does not tell it
# The first of a record's two pickles, as ZODB mostly writes it: a class alone or, by older versions, with None for arguments. It ends where the match does.
CLASS = re.compile(rb"(?:\x80[\x02\x03])?(?:c([^\n]+)\n([^\n]+)\n(?:q.|r....)?\.|\(c([^\n]+)\n([^\n]+)\n(?:q.|r....)?Nt(?:q.|r....)?\.)", re.DOTALL)


class FileStorageError(Exception):
    """The file is no FileStorage, or a damaged one; the message is a sentence for the operator."""


@dataclass(frozen=True)
class Transaction:
    """One committed transaction: its id (16 hexadecimal digits), when it was committed (UTC), by whom and what for."""

    tid: str
    time: datetime
    user: str
    description: str

    def data(self) -> dict[str, str]:
        """Return it as results show it, the time in ISO 8601."""
        return {"tid": self.tid, "time": self.time.strftime("%Y-%m-%dT%H:%M:%SZ"), "user": self.user, "description": self.description}


def time_of(tid: bytes) -> datetime:
    """Return the moment (UTC) that a tid of 8 bytes stands for. Raises FileStorageError when that is none, as 30 February."""
    minutes, fraction = struct.unpack(">LL", tid)
    year, month, day = minutes // 535680 + 1900, minutes // 44640 % 12 + 1, minutes // 1440 % 31 + 1
    try:
        minute = datetime(year, month, day, minutes // 60 % 24, minutes % 60, tzinfo=timezone.utc)
    except ValueError as error:
        raise FileStorageError(f"The transaction {tid.hex()} stands for no moment of the calendar: it is damaged.") from error
    return minute + timedelta(seconds=fraction * 60 / 2**32)


def ahead_seconds(tid: str, now: float) -> float:
    """Return how far a transaction (hexadecimal, empty for none) is ahead of a clock (seconds since the epoch), 0 when it is not, or stands for no moment."""
    try:
        moment = time_of(bytes.fromhex(tid)).timestamp() if tid.strip("0") else now
    except FileStorageError:
        return 0.0
    return round(max(moment - now, 0.0), 3)


def ahead_sentence(moment: str, seconds: float) -> str:
    """Return what is wrong with a newest transaction that lies in the future, without a full stop."""
    return (
        f"the newest transaction is of {moment}, {seconds / 3600:.1f} hours ahead of this host's clock: a clock was wrong, or is; "
        "a restore to a time leaves such transactions out"
    )


@dataclass(frozen=True)
class Tail:
    """What lies behind the last committed transaction of a file: from start, that many bytes (0 when the file ends there).

    unfinished says that these bytes are one transaction which was not written to its end, or is being written at this moment. cut_off says that
    this transaction has the status of a committed one: a file that lost its end looks so, a server that writes does not.
    """

    start: int
    bytes: int
    unfinished: bool = True
    cut_off: bool = False

    def problem(self, path: str) -> str:
        """Return the sentences about a tail that is no unfinished transaction."""
        return (
            f"{path} is damaged at byte {self.start}: no transaction begins there, and {self.bytes} bytes lie behind."
            " Run playbooks/check.yml to see what is damaged. Restore with playbooks/restore.yml or the module repozo_restore."
        )


@dataclass(frozen=True)
class Ahead:
    """The transactions at the end of a database that are later than the clock: how many, whether there are more, and the newest."""

    count: int
    more: bool
    newest: Transaction

    def sentence(self, path: str) -> str:
        """Return what the operator should know."""
        several = f"{'more than ' if self.more else ''}{self.count} transactions" if self.count > 1 else "one transaction"
        return (
            f"{path} holds {several} from the future, the newest of {self.newest.data()['time']} ({self.newest.tid})."
            " This host's clock is slow now, or a clock was fast before. A restore to a time before that leaves them out; to keep them, name the transaction."
        )


def opened(path: str) -> BinaryIO:
    """Open a database for reading, unbuffered. A link to it is followed. Raises FileStorageError for anything that is no regular file; OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would wait for its writer
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb", 0)
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise FileStorageError(f"{path} is no regular file, so it is no database.")


def last_transaction(path: str, *, strict: bool = True) -> Transaction | None:
    """Return the newest committed transaction in the file, None when it has none.

    A server may be writing: what it has not finished is passed over. Without strict, damage behind the last whole transaction is passed over too.
    Raises FileStorageError, OSError.
    """
    with opened(path) as stream:
        return ending_at(stream, look_at_end(stream, path).start if not strict else committed_end(stream, path))


def committed_end(stream: BinaryIO, path: str, start: int = HEAD) -> int:
    """Return the offset (bytes) where the last committed transaction of an open FileStorage ends.

    start must be the end of a transaction; path is for the messages. Raises OSError, and FileStorageError also when
    the file goes on behind that offset with anything else than one unfinished transaction.
    """
    tail = look_at_end(stream, path, start)
    if not tail.unfinished:
        raise FileStorageError(tail.problem(path))
    return tail.start


def look_at_end(stream: BinaryIO, path: str, start: int = HEAD) -> Tail:
    """Return where the last committed transaction of an open FileStorage ends, and what lies behind.

    A server may be writing at this moment. Mostly the file ends with a whole transaction, or does a moment later; when it
    does not, the transactions are walked through from start, which must be the end of one. path is for the messages.
    Raises FileStorageError when it is none, OSError.
    """
    stream.seek(0)
    if stream.read(HEAD) not in MAGIC:
        raise FileStorageError(f"{path} is no FileStorage: it does not begin with FS21.")
    for _attempt in range(_LOOKS):
        end = stream.seek(0, os.SEEK_END)
        if end == HEAD or ending_at(stream, end):
            return Tail(end, 0)
        time.sleep(0.01)
    for attempt in range(_LOOKS):
        for _transaction, end in transactions(stream, start):
            start = end
        tail = _behind(stream, start)
        if tail.unfinished or attempt == _LOOKS - 1:
            break
        time.sleep(0.01)  # a server may have undone one transaction and begun another between two reads
    return tail


def _behind(stream: BinaryIO, start: int) -> Tail:
    """Judge what lies behind start, the end of the last committed transaction. A server writes no second one before the first is committed or gone."""
    size = stream.seek(0, os.SEEK_END)  # before the header is read: a transaction only grows
    if size - start < HEADER.size:
        return Tail(start, max(size - start, 0))
    stream.seek(start)
    head = stream.read(HEADER.size)
    if len(head) < HEADER.size:  # it was undone at this moment
        return Tail(start, 0)
    _tid, length, status, user, description, extension = HEADER.unpack(head)
    possible = length >= HEADER.size + user + description + extension and start + length + _LENGTH.size >= size
    if not possible or status not in (*COMMITTED, b"c") or _holds_transaction(stream, start + 1, size):
        return Tail(start, size - start, unfinished=False)
    return Tail(start, size - start, cut_off=status != b"c")


def _holds_transaction(stream: BinaryIO, start: int, size: int) -> bool:
    """Whether a whole, committed transaction begins somewhere between start and size (bytes), as far as is searched.

    When a damaged length reaches beyond the end of the file, this tells the transactions behind it from the data of a single one.
    """
    stream.seek(start)
    found = stream.read(min(size - start, _SEARCHED))
    for match in re.finditer(rb"[\x03-\x05](?=.{7}\0.{7}[ pu])", found, re.DOTALL):  # years 1993 to 2087, less than 64 PiB
        at = match.start()
        if at + HEADER.size > len(found):
            break
        _tid, length, _status, user, description, extension = HEADER.unpack_from(found, at)
        end = start + at + length
        if length < HEADER.size + user + description + extension or end + _LENGTH.size > size:
            continue
        stream.seek(end)
        if stream.read(_LENGTH.size) == _LENGTH.pack(length):
            return True
    return False


def ahead_of_clock(source: str | BinaryIO, end: int | None = None, *, now: datetime | None = None, most: int = 1000) -> Ahead | None:
    """Return what a database holds at its end that is more than 5 minutes later than now, None when there is nothing.

    source is a path or an open database, end the offset (bytes) of its last committed transaction, which is looked for when it is left out.
    At most that many transactions are read, from the end backwards; one is read when all is well. Raises FileStorageError, OSError.
    """
    if isinstance(source, str):
        with opened(source) as stream:
            return ahead_of_clock(stream, look_at_end(stream, source).start if end is None else end, now=now, most=most)
    end = look_at_end(source, str(source.name)).start if end is None else end
    newest: Transaction | None = None
    count = 0
    while count < most and (one := ending_at(source, end)) and is_ahead(one.time, now):
        newest, count, end = newest or one, count + 1, begin_of(source, end)
    return Ahead(count, count == most, newest) if newest else None


def is_ahead(moment: datetime, now: datetime | None = None) -> bool:
    """Whether a moment is more than 5 minutes later than now, by default this host's clock."""
    return moment > (now or datetime.now(timezone.utc)) + TOLERANCE


def transactions(stream: BinaryIO, start: int = HEAD) -> Iterator[tuple[Transaction, int]]:
    """Yield each committed transaction from start, which must be the end of one (bytes), and the offset where it ends.

    It stops at the first that is not whole or not committed yet; whether that is the end of the file is for the caller to see.
    """
    size = stream.seek(0, os.SEEK_END)
    while start + HEADER.size + _LENGTH.size <= size:
        stream.seek(start)
        head = stream.read(HEADER.size)
        if len(head) < HEADER.size:  # it has been cut off at this moment
            return
        tid, length, status, user, description, extension = HEADER.unpack(head)
        end = start + length + _LENGTH.size
        if length < HEADER.size + user + description + extension or end > size or status not in COMMITTED:
            return
        texts = stream.read(user + description)
        stream.seek(end - _LENGTH.size)
        if stream.read(_LENGTH.size) != _LENGTH.pack(length):
            return
        yield _transaction(tid, texts[:user], texts[user:]), end
        start = end


def ending_at(stream: BinaryIO, end: int) -> Transaction | None:
    """Return the transaction whose record ends at this offset, None when none does or it is not committed yet (status c).

    Raises FileStorageError when its tid is damaged.
    """
    if end < HEAD + HEADER.size + _LENGTH.size:
        return None
    stream.seek(end - _LENGTH.size)
    trailer = stream.read(_LENGTH.size)
    if len(trailer) < _LENGTH.size:  # it has been cut off at this moment
        return None
    (length,) = _LENGTH.unpack(trailer)
    start = end - _LENGTH.size - length
    if length < HEADER.size or start < HEAD:
        return None
    stream.seek(start)
    head = stream.read(HEADER.size)
    if len(head) < HEADER.size:
        return None
    tid, again, status, user, description, _extension = HEADER.unpack(head)
    if again != length or status not in COMMITTED:
        return None
    return _transaction(tid, stream.read(user), stream.read(description))


def first_and_last(head: bytes, tail: bytes, size: int) -> tuple[str, str]:
    """Return the tids (hexadecimal) that size bytes of transactions begin and end with. head and tail are the first and last of these bytes.

    One is empty when it cannot be seen: the last transaction may begin before tail. Raises FileStorageError for a tid that is no moment.
    """
    first = head[:8].hex() if size >= HEADER.size and len(head) >= 8 else ""
    if first:
        time_of(head[:8])
    begin = len(tail) - 8 - int.from_bytes(tail[-8:], "big")
    last = tail[begin : begin + 8].hex() if 0 <= begin <= len(tail) - HEADER.size - 8 else ""
    if last:
        time_of(bytes.fromhex(last))
    return first, last


def disorder(stream: BinaryIO, start: int, end: int, path: str) -> str:
    """Return a sentence when no whole transactions in ascending order fill an open database from start to end (bytes), nothing when they do.

    Both must be the end of a transaction. Only headers are read. path is for the sentence. Raises OSError.
    """
    position, newest, size = start, b"", stream.seek(0, os.SEEK_END)
    if start > HEAD:
        stream.seek(begin_of(stream, start))
        newest = stream.read(8)
    while position < end:
        head = os.pread(stream.fileno(), HEADER.size, position)
        tid, length, status, user, description, extension = HEADER.unpack(head) if len(head) == HEADER.size else (b"", 0, b"", 0, 0, 0)
        behind = position + length + _LENGTH.size
        whole = length >= HEADER.size + user + description + extension and behind <= min(end, size) and status in COMMITTED
        if not whole or os.pread(stream.fileno(), _LENGTH.size, behind - _LENGTH.size) != head[8:16]:
            return f"{path} is damaged at byte {position}: no transaction begins there, but others follow. The backup holds these bytes as they are."
        if tid <= newest:
            return f"{path}: the transaction {tid.hex()} at byte {position} is not newer than {newest.hex()} before it. The backup holds both as they are."
        position, newest = behind, tid
    return ""


def begin_of(stream: BinaryIO, end: int) -> int:
    """Return the offset where the transaction begins whose record ends at this offset, which must be the end of one."""
    stream.seek(end - _LENGTH.size)
    (length,) = _LENGTH.unpack(stream.read(_LENGTH.size))
    return end - _LENGTH.size - int(length)


def _transaction(tid: bytes, user: bytes, description: bytes) -> Transaction:
    return Transaction(tid.hex(), time_of(tid), user.decode(errors="replace"), description.decode(errors="replace"))


class _Global(NamedTuple):
    """A class that a pickle names."""

    module: str
    name: str


def class_of(data: bytes) -> str:
    """Return the class, as module.Class, of the object whose record's data begin so; UNKNOWN when they do not tell it. Nothing of them is executed."""
    match = CLASS.match(data)
    if match:
        return class_name(match)
    try:
        found = _first_of(data)
    except (ValueError, LookupError, TypeError, OverflowError, MemoryError):  # a pickle that is damaged, or none at all
        return UNKNOWN
    if isinstance(found, tuple) and not isinstance(found, _Global) and found and isinstance(found[0], tuple):
        found = found[0]  # the class, then arguments for making an instance
    if isinstance(found, tuple) and len(found) == 2 and all(isinstance(one, (str, bytes)) for one in found):
        return ".".join(one if isinstance(one, str) else one.decode(errors="replace") for one in found)
    return UNKNOWN


def class_name(match: re.Match[bytes]) -> str:
    """Return module.Class of a match of CLASS."""
    return f"{(match[1] or match[3]).decode(errors='replace')}.{(match[2] or match[4]).decode(errors='replace')}"


def _first_of(data: bytes) -> Any:
    """Return what the first pickle in data describes: classes, texts, and tuples of them; whatever else it makes is None.

    Raises ValueError, LookupError, TypeError, OverflowError or MemoryError for what is no pickle.
    """
    mark = object()
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    given: Any
    for opcode, given, _position in pickletools.genops(data):
        name = opcode.name
        if name == "STOP":
            return stack[-1]
        if name == "GLOBAL":
            stack.append(_Global(*given.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack[-2:] = [_Global(*stack[-2:])]
        elif name == "MARK":
            stack.append(mark)
        elif name == "DUP":
            stack.append(stack[-1])
        elif "PUT" in name or name == "MEMOIZE":
            memo[len(memo) if given is None else given] = stack[-1]
        elif "GET" in name:
            stack.append(memo[given])
        elif isinstance(given, (str, bytes)) and name not in ("PERSID", "INST"):
            stack.append(given)
        else:
            before = opcode.stack_before
            marked = pickletools.markobject in before
            at = _last(stack, mark) - before.index(pickletools.markobject) if marked else len(stack) - len(before)
            if at < 0:
                break
            made = tuple(stack[at + marked :]) if "TUPLE" in name else None
            stack[at:] = [made] * len(opcode.stack_after)
    raise ValueError("the pickle does not end")


def _last(stack: list[Any], mark: object) -> int:
    """Return where the last mark lies. Raises ValueError when there is none."""
    return len(stack) - 1 - stack[::-1].index(mark)
