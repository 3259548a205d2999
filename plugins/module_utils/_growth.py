# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a database grew by: which classes, which requests, on which days. Reads a FileStorage, needs no ZODB, and executes nothing of it.

Only the transactions of the window are read, which lie at the end of the file, and of each object's record its head. A server may be
writing: what it commits after the beginning is left out. A pack puts another file into the place of this one, which is read to its end.
"""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, BinaryIO

from ansible.module_utils.common.text.formatters import bytes_to_human
from ansible_collections.confops.indico.plugins.module_utils import _filestorage, _history
from ansible_collections.confops.indico.plugins.module_utils._filestorage import CLASS, HEADER, RECORD, UNKNOWN, FileStorageError

_PIECE = 2**20  # bytes that are read at a time
_HEAD = 512  # bytes of a record that nearly always name its class
_LONGEST = 2**20  # bytes that are read for that when they do not
_DAY = 1440  # minutes
_EARLIEST = datetime(1901, 1, 1, tzinfo=timezone.utc)  # no transaction is older
_INSTANT = timedelta(microseconds=1)
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_FEW = 3  # transactions and objects that the lines for people name
_KINDS = (("new", "new object"), ("revised", "new revision"), ("undone", "undone"), ("packed", "rewritten by a pack"))
_SHIFT = 64  # bits; a number of revisions lies above them and the bytes of these below, so that an object costs one number


@dataclass
class _Class:
    """What the records of one class add up to: size in bytes; each record is one of new, revised, undone and packed.

    objects: oid of each object that a record replaced an earlier one of -> how many did, above _SHIFT bits, and their bytes.
    """

    name: str
    size: int = 0
    records: int = 0
    new: int = 0
    revised: int = 0
    undone: int = 0
    packed: int = 0
    objects: dict[bytes, int] = field(default_factory=dict)


@dataclass
class _Sum:
    """Transactions, and the records and bytes in them."""

    transactions: int = 0
    records: int = 0
    bytes: int = 0

    def add(self, records: int, size: int) -> None:
        self.transactions += 1
        self.records += records
        self.bytes += size


def growth(path: str, since: datetime, *, top: int = 10) -> dict[str, Any]:
    """Return what the file's committed transactions from since (UTC) on consist of; each list holds at most top entries, the largest first.

    path, since (ISO 8601), file_bytes, bytes, transactions, records, new, revised, undone, packed, seconds; distinct: how many there are
    of the following; days: [{day, transactions, records, bytes}] in order and all of them; classes: [{class, records, bytes, new, revised,
    undone, packed}]; requests: [{user, description, transactions, records, bytes}]; largest: [{tid, time, user, description, records,
    bytes}]; revised_most: [{oid, class, revisions, bytes}]. Raises FileStorageError when the file is damaged, OSError.
    """
    began = time.monotonic()
    with open(path, "rb") as stream:
        end = _filestorage.committed_end(stream, path)
        start = _start(stream, end, _history.limit_of(max(since, _EARLIEST) - _INSTANT), path)
        found = _Reader(stream, path, start, end).read(top)
    return {"path": path, "since": since.strftime(_TIME), "file_bytes": end, "bytes": end - start, **found, "seconds": round(time.monotonic() - began, 3)}


def _start(stream: BinaryIO, end: int, before: bytes, path: str) -> int:
    """Return the offset (bytes) of the first transaction whose tid is greater than before. It is looked for from the end, as a window is mostly short."""
    stream.seek(_filestorage.HEAD)
    if stream.read(8) > before:
        return _filestorage.HEAD
    last = before.hex()
    while end > _filestorage.HEAD:
        one = _filestorage.ending_at(stream, end)
        if one is None:
            raise FileStorageError(f"{path} is damaged: no transaction ends at {end}.")
        if one.tid <= last:
            break
        end = _filestorage.begin_of(stream, end)
    return end


class _Reader:
    """Reads the transactions from start to end (bytes), both the ends of transactions, and adds up."""

    def __init__(self, stream: BinaryIO, path: str, start: int, end: int) -> None:
        self.descriptor, self.path, self.start, self.end = stream.fileno(), path, start, end
        self.classes: dict[str, _Class] = {}
        self.heads: dict[bytes, _Class] = {}  # first pickle of a record -> its class
        self.requests: dict[tuple[bytes, bytes], _Sum] = {}
        self.days: dict[int, _Sum] = {}  # days since that of the tid 0, in months of 31 days

    def read(self, top: int) -> dict[str, Any]:
        largest: list[tuple[int, bytes, bytes, bytes, int]] = []
        for tid, user, description, records, size in self._transactions():
            self.requests.setdefault((user, description), _Sum()).add(records, size)
            self.days.setdefault(int.from_bytes(tid[:4], "big") // _DAY, _Sum()).add(records, size)
            one = (size, tid, user, description, records)
            if len(largest) < top:
                heapq.heappush(largest, one)
            elif largest and one > largest[0]:
                heapq.heapreplace(largest, one)
        classes, total = list(self.classes.values()), _Sum()
        for day in self.days.values():
            total.transactions, total.records, total.bytes = (total.transactions + day.transactions, total.records + day.records, total.bytes + day.bytes)
        kinds = {kind: sum(getattr(one, kind) for one in classes) for kind in ("new", "revised", "undone", "packed")}
        objects = ((value, oid, one.name) for one in classes for oid, value in one.objects.items())
        return {
            "transactions": total.transactions,
            "records": total.records,
            **kinds,
            "distinct": {"classes": len(classes), "requests": len(self.requests), "revised_objects": sum(len(one.objects) for one in classes)},
            "days": [{"day": _day(number), **vars(one)} for number, one in sorted(self.days.items())],
            "classes": [_class_dict(one) for one in heapq.nsmallest(top, classes, key=lambda one: (-one.size, one.name))],
            "requests": [
                {"user": _text(user), "description": _text(description), **vars(one)}
                for (user, description), one in heapq.nsmallest(top, self.requests.items(), key=lambda item: (-item[1].bytes, item[0]))
            ],
            "largest": [
                {**_filestorage.Transaction(tid.hex(), _filestorage.time_of(tid), _text(user), _text(description)).data(), "records": records, "bytes": size}
                for size, tid, user, description, records in sorted(largest, reverse=True)
            ],
            "revised_most": [
                {"oid": f"0x{oid.hex().lstrip('0') or '0'}", "class": name, "revisions": value >> _SHIFT, "bytes": value & (1 << _SHIFT) - 1}
                for value, oid, name in heapq.nlargest(top, objects)
            ],
        }

    def _transactions(self) -> Iterator[tuple[bytes, bytes, bytes, int, int]]:
        """Yield the tid, user, description, number of records and bytes of each transaction, after its records were added up."""
        position, whole = self.start, self.end
        piece, base, reach = b"", position, position  # reach: where the piece ends
        unpack, match, heads = RECORD.unpack_from, CLASS.match, self.heads
        while position < whole:
            if position + _HEAD > reach < whole:
                piece, base = self._at(position, _PIECE), position
                reach = base + len(piece)
            at = position - base
            tid, length, status, user, description, extension = HEADER.unpack_from(piece, at) if reach - position >= HEADER.size else (b"", 0, b"", 0, 0, 0)
            texts = HEADER.size + user + description
            begin, finish, records = position + texts + extension, position + length, 0
            if status not in _filestorage.COMMITTED or begin > finish or finish + 8 > whole or self._at(finish, 8) != length.to_bytes(8, "big"):
                raise FileStorageError(f"{self.path} is damaged: no whole transaction begins at {position}.")
            words = piece[at + HEADER.size : at + texts] if position + texts <= reach else self._at(position + HEADER.size, user + description)
            packed, record = status == b"p", begin
            while record < finish:
                if record + _HEAD > reach < whole:
                    piece, base = self._at(record, _PIECE), record
                    reach = base + len(piece)
                at = record - base
                oid, _tid, before, transaction, version, size = unpack(piece, at) if reach - record >= RECORD.size else (b"", b"", 0, 0, 0, 0)
                data = RECORD.size + (16 + version if version else 0)
                after = record + data + (size or 8)
                if after > finish or transaction != position:
                    raise FileStorageError(f"{self.path} is damaged: the record at {record} is none of the transaction at {position}.")
                found = match(piece, at + data, at + data + size) if size else None
                one = heads.get(found[0]) if found else None
                if one is None:
                    one = self._class(record, oid, before, record + data, size)
                    if found:
                        heads[found[0]] = one
                one.records += 1
                one.size += after - record
                if not size:
                    one.undone += 1
                elif packed:
                    one.packed += 1
                elif not before:
                    one.new += 1
                else:
                    one.revised += 1
                if before and not packed:
                    one.objects[oid] = one.objects.get(oid, 0) + (1 << _SHIFT) + after - record
                records += 1
                record = after
            yield tid, words[:user], words[user:], records, length + 8
            position = finish + 8

    def _at(self, position: int, count: int) -> bytes:
        """Return the bytes from position on, none from beyond the window."""
        return os.pread(self.descriptor, max(0, min(count, self.end - position)), position)

    def _class(self, record: int, oid: bytes, before: int, data: int, size: int) -> _Class:
        """Return the class of a record (offset). Without data it is that of the record that it goes back to, or else of the one before."""
        if not size:
            record, data, size = self._source(record, oid, before, data)
        name = _filestorage.class_of(self._at(data, min(size, _LONGEST))) if size else UNKNOWN
        return self.classes.setdefault(name, _Class(name))

    def _source(self, record: int, oid: bytes, before: int, data: int) -> tuple[int, int, int]:
        """Follow the pointers of a record that has no data. Return the record, the offset of its data and their size, 0 when there are none."""
        while True:
            target = int.from_bytes(self._at(data, 8), "big") or before
            if not _filestorage.HEAD <= target < record:
                return record, data, 0
            found, _tid, before, _transaction, version, size = RECORD.unpack(self._at(target, RECORD.size))
            record, data = target, target + RECORD.size + (16 + version if version else 0)
            if found != oid or size:
                return record, data, size if found == oid else 0


def _day(number: int) -> str:
    """Return the day, ISO 8601. Raises FileStorageError when that is none, as 30 February."""
    return _filestorage.time_of((number * _DAY).to_bytes(4, "big") + bytes(4)).strftime("%Y-%m-%d")


def _class_dict(one: _Class) -> dict[str, Any]:
    return {"class": one.name, "bytes": one.size, **{name: value for name, value in vars(one).items() if name not in ("name", "size", "objects")}}


def _text(text: bytes) -> str:
    return text.decode(errors="replace").strip()


def summary(found: dict[str, Any]) -> list[str]:
    """Return what growth found for people, a line for each thing."""
    share = f", {100 * found['bytes'] / found['file_bytes']:.1f} % of {_size(found['file_bytes'])}" if found["bytes"] else ""
    lines = [f"{found['path']}: {_size(found['bytes'])} in {_number(found['transactions'], 'transaction')} since {found['since']}{share}"]
    if not found["records"]:
        return lines
    kinds = [_number(found[kind], words) for kind, words in _KINDS if found[kind]]
    lines.append(f"{_number(found['records'], 'record')}: {', '.join(kinds)}")
    busiest = max(found["days"], key=lambda one: int(one["bytes"]))
    lines.append(f"{_number(len(found['days']), 'day')}, the busiest {busiest['day']}: {_amount(busiest, 'transaction')}")
    lines += [f"class {one['class']}: {_amount(one, 'record')}, {_number(one['new'], 'new object')}" for one in found["classes"]]
    lines += [f"request {_who(one)}: {_amount(one, 'transaction')}" for one in found["requests"]]
    lines += [f"transaction {one['tid']} of {one['time']}, {_who(one)}: {_amount(one, 'record')}" for one in found["largest"][:_FEW]]
    lines += [f"object {one['oid']}, {one['class']}: {_number(one['revisions'], 'revision')}, {_size(one['bytes'])}" for one in found["revised_most"][:_FEW]]
    return lines


def _number(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 or what.endswith(('undone', 'pack')) else 's'}"


def _amount(one: dict[str, Any], what: str) -> str:
    return f"{_size(one['bytes'])}, {_number(one[what + 's'], what)}"


def _size(number: int) -> str:
    return str(bytes_to_human(number))


def _who(one: dict[str, Any]) -> str:
    return f"{one['description'] or 'without description'}{' by ' + one['user'] if one['user'] else ''}"


def since_days(days: float, now: float) -> datetime:
    """Return the moment (UTC) that lies days before now (seconds since the epoch)."""
    return datetime.fromtimestamp(max(0.0, now - days * 86400), timezone.utc)
