# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Packs a storage through its ZEO server, and says what came of it.

What came of it is seen from the file or, when that lies on another host, from the size that the server tells. Whether there is anything
to pack is asked of ZODB's own code, which reads the file. Where there is not, the server is not asked to pack, since it would remove
what the last pack left (Data.fs.old) and change nothing else.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _filestorage, _repository, _zeo, _zeo_info
from ansible_collections.confops.indico.plugins.module_utils._zeo import Server, ZeoError

_FULL = ("No space left on device", "Disk quota exceeded", "File too large")
_LOST = ("DisconnectedError", "ClientDisconnected")
_PACK = r"""
storage = connected(True)
before = figures(storage)
if request['time'] is not None:
    try:
        storage.pack(request['time'], wait=True)
        after = figures(storage)
    except Exception as error:
        fail('pack', error)
    answer(before=before, after=after)
answer(before=before)
"""
# As ZODB/FileStorage/fspack.py does it (FileStoragePacker.copyToPacktime), except that nothing is written.
_PREDICT = r"""
import binascii, pickletools
try:
    from persistent.TimeStamp import TimeStamp
    from ZODB.FileStorage.FileStorage import RedundantPackWarning
    from ZODB.FileStorage.fspack import GC
    from ZODB.serialize import referencesf
    from ZODB.utils import z64
except ImportError as error:
    fail('import', error)
def name(oid):
    return '0x%x' % int(binascii.hexlify(oid), 16)
class Walk(GC):
    'Reaches what a pack reaches. Where a pack fails, it answers with the object that makes it fail.'
    def findReachableAtPacktime(self, roots):
        todo = [(oid, None) for oid in roots]
        while todo:
            oid, holder = todo.pop()
            if not isinstance(oid, bytes) or len(oid) != 8:
                self.broken(holder, 'it refers to %r, which is no object id' % (oid,))
            if oid in self.reachable:
                continue
            position = self.oid2curpos.get(oid)
            if position is None:
                if oid == z64 and not len(self.oid2curpos):
                    continue
                self.broken(holder, 'it refers to %s, which does not exist' % name(oid))
            self.reachable[oid] = position
            for one in self.findrefs(position):
                todo.append((one, position))
    def findrefs(self, position):
        try:
            return GC.findrefs(self, position)
        except Exception as error:
            self.broken(position, 'its references cannot be read (%s)' % ' '.join([type(error).__name__, str(error)]).strip())
    def broken(self, position, reason):
        if position is None:
            answer(broken={'oid': '0x0', 'class': 'unknown', 'tid': '', 'reason': reason})
        record = head = self._read_data_header(position)
        while record.back and not record.plen:
            record = self._read_data_header(record.back)
        data = self._file.read(record.plen)
        answer(broken={'oid': name(head.oid), 'class': kind(data), 'tid': binascii.hexlify(head.tid).decode(), 'reason': reason})
def kind(data):
    'Return module.Class of a record. Nothing is unpickled.'
    words = []
    try:
        for opcode, argument, _position in pickletools.genops(data):
            if opcode.name == 'GLOBAL':
                return argument.replace(' ', '.')
            if opcode.name == 'STACK_GLOBAL':
                return '.'.join(words[-2:])
            if opcode.name == 'STOP':
                return '.'.join(words[:2]) or 'unknown'
            if isinstance(argument, (str, type(u''))):
                words.append(argument)
    except Exception:
        pass
    return 'unknown'
def freed(gc):
    'Return the bytes that the pack would give back, without those of garbage unless gc is true.'
    pos, saved = 4, 0
    while pos < gc.packpos:
        transaction, kept = gc._read_txn_header(pos), 0
        end, pos = pos + transaction.tlen, pos + transaction.headerlen()
        while pos < end:
            record = gc._read_data_header(pos)
            if gc.isReachable(record.oid, pos):
                kept = 1
                if not record.plen and record.back:
                    origin = record
                    while origin.back and not origin.plen:
                        origin = gc._read_data_header(origin.back)
                    saved -= max(origin.plen, 8) - 8
            else:
                saved += record.recordlen()
            pos += record.recordlen()
        pos += 8
        if not kept:
            saved += transaction.headerlen() + 8
        if saved and request['enough']:
            break
    return saved
try:
    moment = request['time']
    stop = TimeStamp(*time.gmtime(moment)[:5] + (moment % 60,)).raw()
    stream = open(request['path'], 'rb')
    gc = Walk(stream, request['end'], stop, False, referencesf)
    gc.buildPackIndex()
    gc.reachable = gc.oid2curpos
    if request['gc']:
        gc.findReachableFromFuture()
    saved = freed(gc)
    if request['gc'] and (request['walk'] or not saved):
        gc = Walk(stream, request['end'], stop, True, referencesf)
        gc.findReachable()
        saved = saved or freed(gc)
    answer(any=saved != 0, bytes=max(saved, 0))
except RedundantPackWarning:
    answer(any=False, bytes=0)
except Exception as error:
    fail('predict', error)
"""


@dataclass
class Packed:
    """What a pack did, or with predicted, would do: then reclaimed_bytes is what it gives back at least. Sizes are None when nobody knows them."""

    result: str  # "packed" or "nothing"
    bytes_before: int | None
    bytes_after: int | None
    reclaimed_bytes: int | None
    seconds: float
    packed_to: str
    predicted: bool = False

    def line(self) -> str:
        """Return all of it in one line."""
        if self.result == "nothing":
            return f"nothing to pack up to {self.packed_to}"
        if self.predicted:
            return f"a pack up to {self.packed_to} would give back at least {self.reclaimed_bytes} of {self.bytes_before} bytes"
        sizes = f"{self.bytes_before} bytes before, {self.bytes_after} after, {self.reclaimed_bytes} reclaimed"
        return f"packed up to {self.packed_to} in {self.seconds:.1f} s: {sizes}"


def pack(
    python: str,
    server: Server,
    *,
    database: str | None = None,
    days: float = 0,
    time_limit: float = 3600,
    keep_old: bool = True,
    gc: bool = True,
    check: bool = False,
) -> Packed:
    """Pack the storage up to so many days ago. With check, only predict.

    python: an interpreter that has ZEO; database: path of the Data.fs when it lies on this host, which check needs; time_limit: seconds, after
    which a server that packs goes on by itself; keep_old: whether Data.fs.old stays, where database is given; gc: whether the server's configuration
    has it remove objects that nothing refers to (pack-gc). Raises ZeoError.
    """
    began, now = time.monotonic(), time.time()
    # A pack puts a new file at the path: it would remove what lies there instead of the server's own.
    for sentence in _zeo_info.other_files(python, {"": server}, {"": database}, time_limit=min(time_limit, 10)) if database else ():
        raise ZeoError(f"Nothing was packed. {sentence}")
    moment = now - days * 86400
    to = datetime.fromtimestamp(int(moment), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

    def left() -> float:
        return max(began + time_limit - time.monotonic(), 1)

    def seconds() -> float:
        return round(time.monotonic() - began, 3)

    if database:
        _refuse_file(database)
        _zeo.ask(python, server, _PACK, {"time": None}, time_limit=left())  # a server that is not there says so before the file is read
        size, foreseen = _predict(python, database, moment, enough=not check, walk=check, gc=gc, time_limit=left())
        if not foreseen["any"]:
            return Packed("nothing", size, size, 0, seconds(), to, check)
        if check:
            return Packed("packed", size, size - foreseen["bytes"], foreseen["bytes"], seconds(), to, predicted=True)
    elif check:
        raise ZeoError(f"What a pack by {server} would do cannot be predicted: its file does not lie on this host, or `database` does not name it.")
    before, earlier = (_stat(database), _stat(f"{database}.old", missing=True)) if database else (None, None)
    reply = _zeo.ask(python, server, _PACK, {"time": moment}, time_limit=left())
    if reply.answer is None:
        sentences = _failed(server, reply, database, time_limit, before, earlier)
        found = _found_broken(python, database, moment, left()) if database and gc and not reply.late else ""
        raise ZeoError(f"{sentences} {found}".strip())
    told = reply.answer
    if not database or before is None:
        return _compare(told["before"]["bytes"], told["after"]["bytes"], seconds(), to)
    after, old = _stat(database), _stat(f"{database}.old", missing=True)
    if after is None or after.st_ino == before.st_ino:
        return Packed("nothing", before.st_size, before.st_size, 0, seconds(), to)
    ours = old is not None and old.st_ino == before.st_ino
    whole = old.st_size if old and ours else before.st_size  # what was written while the pack ran is in both files
    if ours and not keep_old:
        os.unlink(f"{database}.old")
    return Packed("packed", whole, after.st_size, max(whole - after.st_size, 0), seconds(), to)


def _compare(before: int, after: int, seconds: float, to: str) -> Packed:
    if after < before:
        return Packed("packed", before, after, before - after, seconds, to)
    return Packed("nothing", before, after, 0, seconds, to)


def _stat(path: str, *, missing: bool = False) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError as error:
        if missing:
            return None
        raise ZeoError(f"The database {path} is not there.") from error
    except OSError as error:
        raise ZeoError(f"The database {path} cannot be looked at: {error.strerror}.") from error


def _refuse_file(database: str) -> None:
    """Raise ZeoError for a database whose pack would go wrong whatever it holds."""
    if os.path.islink(database):
        raise ZeoError(
            f"{database} is a symbolic link to {os.path.realpath(database)}. A pack would put the packed file beside the link and leave the other one"
            " there. Let the directory be the link instead."
        )
    found = _stat(database, missing=True)
    if found and not stat.S_ISREG(found.st_mode):
        raise ZeoError(f"{database} is no regular file, so it is not packed.")
    directory = os.path.dirname(os.path.abspath(database))
    if found and not _may_write(directory, found.st_uid, found.st_gid):
        raise ZeoError(f"{directory} cannot be written to by the owner of {os.path.basename(database)}, so the server cannot pack it.")


def _may_write(directory: str, uid: int, gid: int) -> bool:
    """Whether a process of that user and group may make files there. Other groups of the user are not known."""
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        return False
    found = os.stat(directory)
    if uid == found.st_uid:
        return bool(found.st_mode & stat.S_IWUSR) or uid == 0
    return uid == 0 or bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _found_broken(python: str, database: str, moment: float, time_limit: float) -> str:
    """Return the sentences about the object that made a pack fail, empty when it is none of the database's objects."""
    try:
        _predict(python, database, moment, enough=True, walk=True, gc=True, time_limit=time_limit)
    except ZeoError as error:
        return str(error)
    return ""


def _broken(database: str, told: dict[str, str]) -> str:
    """Return the sentences about an object that makes every pack fail."""
    time_of = ""
    with contextlib.suppress(_filestorage.FileStorageError, ValueError):
        time_of = f" of {_filestorage.Transaction(told['tid'], _filestorage.time_of(bytes.fromhex(told['tid'])), '', '').data()['time']}"
    return (
        f"No pack of {database} that removes garbage can succeed: object {told['oid']} ({told['class']}),"
        f" written by transaction {told['tid'] or 'unknown'}{time_of}, is broken: {told['reason']}."
        " playbooks/check.yml lists all such objects. `zeo_pack_gc: false` packs without looking for garbage."
    )


def _predict(python: str, database: str, moment: float, *, enough: bool, walk: bool, gc: bool, time_limit: float) -> tuple[int, dict[str, Any]]:
    """Return the size of the file, and whether a pack to a moment (seconds since 1970) finds anything in it and how many bytes it gives back at least.

    With walk, all that a pack of a server with gc reaches is read, too, since one broken object makes it fail. Garbage, to which nothing refers any more,
    counts only when there is nothing else, and not without gc. With enough, the first thing that is found ends the search.
    """
    owner = _stat(database)
    try:
        with _repository.open_regular(database) as stream:
            end = _filestorage.committed_end(stream, database)
    except (_filestorage.FileStorageError, _repository.RepositoryError) as error:
        raise ZeoError(str(error)) from error
    except OSError as error:
        raise ZeoError(f"The database {database} cannot be read: {error.strerror}.") from error
    if end == _filestorage.HEAD:
        return end, {"any": False, "bytes": 0}
    request = {"path": os.path.abspath(database), "end": end, "time": moment, "enough": enough, "walk": walk, "gc": gc}
    reply = _zeo.run(python, _PREDICT, request, owner=owner, time_limit=time_limit)
    if reply.late:
        raise ZeoError(f"The time limit has passed while {database} was looked through; nothing was packed.")
    if reply.answer is None:
        raise ZeoError(f"Whether there is anything to pack in {database} cannot be told: {': '.join((reply.failure or ('', 'it failed', ''))[1:])}.")
    if "broken" in reply.answer:
        raise ZeoError(_broken(database, reply.answer["broken"]))
    return end, reply.answer


def _failed(server: Server, reply: _zeo.Reply, database: str | None, time_limit: float, before: os.stat_result | None, earlier: os.stat_result | None) -> str:
    """Return sentences about a pack that failed; what it left is removed. before and earlier: the database and its Data.fs.old as they were."""
    where = f"storage {server.storage} of {server}"
    if reply.late:
        return f"The pack of {where} is not done within {time_limit:g} s: the server may still be packing, and goes on by itself."
    _stage, name, text = reply.failure or ("", "", "")
    if "Already packing" in text:
        return f"A pack of {where} is running already; it goes on by itself."
    if name in _LOST:
        found = "the server closed the connection, or ended"
    elif any(one in text for one in _FULL):
        found = f"its disk is full ({next(one for one in _FULL if one in text)})"
    elif "ReadOnlyError" in f"{name} {text}":
        found = "its database is read-only there"
    else:
        found = f"{name}: {text}"
    sentences = [f"The pack of {where} failed: {found}."]
    if database and before:
        now = _stat(database, missing=True)
        sentences.append("The database is as it was." if now and now.st_ino == before.st_ino else f"{database} is another file than before: look at it.")
        if earlier and not _stat(f"{database}.old", missing=True):
            sentences.append(f"The server has removed {database}.old, which was there from an earlier pack.")
        sentences += _sweep(f"{database}.pack")
    return " ".join(sentences)


def _sweep(path: str) -> list[str]:
    """Remove what a pack that failed has left beside the database. Return a sentence about it, or none when there is nothing."""
    try:
        left = os.stat(path)
        until = time.monotonic() + 2
        while _is_open(left) and time.monotonic() < until:
            time.sleep(0.1)
        if _is_open(left):
            return [f"{path} ({left.st_size} bytes) stays, since a process may have it open; the next pack writes over it."]
        # Another pack that began at this moment would lose its file if it were removed at once: it opens it by its name.
        aside = f"{path}.failed"
        os.rename(path, aside)
        if _is_open(left):
            os.rename(aside, path)
            return []
        os.unlink(aside)
        return [f"{path} ({left.st_size} bytes), which it left, was removed."]
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"{path}, which it left, cannot be removed: {error.strerror}."]


def _is_open(file: os.stat_result) -> bool:
    """Whether any process has the file open, or may have, as far as this one may see."""
    for process in os.listdir("/proc"):
        if not process.isdigit():
            continue
        try:
            descriptors = os.listdir(f"/proc/{process}/fd")
        except PermissionError:
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{process}").st_uid == file.st_uid:
                    return True
            continue
        except OSError:
            continue
        for descriptor in descriptors:
            with contextlib.suppress(OSError):
                found = os.stat(f"/proc/{process}/fd/{descriptor}")
                if (found.st_dev, found.st_ino) == (file.st_dev, file.st_ino):
                    return True
    return False
