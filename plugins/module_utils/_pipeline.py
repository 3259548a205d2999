# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Copies a range of a database into a file, compressed or not, and keeps two cores busy.

The main thread reads and computes the md5. Other threads compress and write, with igzip as a child. Everything that can block for
ever happens in those: the main thread only waits a moment at a time, and asks each time whether they still live and get on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import queue
import shutil
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

from ansible_collections.confops.indico.plugins.module_utils._repository import CHUNK, RepositoryError

TAIL = 2**20  # bytes before the end of a range that are handed back
STALLED = 600.0  # seconds without progress after which the copy is given up
_LOOK = 0.2  # seconds of one wait
_GRACE = 5.0  # seconds that threads and the child have to end, once they are told to
_PIECE = 2**18  # bytes of igzip's output that are taken at once
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, which Python knows from 3.10 on


@dataclass(frozen=True)
class Copied:
    """What was copied: md5 of the range, its last MiB, md5 and number of the bytes that are stored."""

    md5: str
    tail: bytes
    stored_md5: str
    stored_bytes: int


class _Packer(Protocol):
    """Takes the pieces of a range. take and finish run in a thread of their own and may block; abort makes them end, close comes behind that."""

    target: _Target

    def take(self, piece: bytes) -> None: ...
    def finish(self) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...


def copy(source: BinaryIO, start: int, end: int, target: BinaryIO, compression: str) -> Copied:
    """Copy a range (bytes) of an open database to target; compression is gzip or none.

    Raises RepositoryError when the range cannot be read or nothing moves any more, OSError when target cannot be written. No thread or child is left.
    """
    plain, tail = hashlib.md5(usedforsecurity=False), b""
    try:
        packer = _packer(target, compression, end - start)
        worker = _Worker(packer)
    except RuntimeError as error:
        raise RepositoryError(f"This process may start no thread: {error}. Nothing was stored.") from error
    try:
        while start < end:
            piece = _read(source, start, end)
            worker.put(piece)
            plain.update(piece)
            tail = piece[-TAIL:] if len(piece) >= TAIL else (tail + piece)[-TAIL:]
            start += len(piece)
        worker.end()
    finally:
        worker.stop()
    stored = packer.target
    if os.fstat(target.fileno()).st_size != stored.bytes:
        raise OSError(errno.EIO, f"the file has {os.fstat(target.fileno()).st_size} bytes, where {stored.bytes} were written")
    return Copied(plain.hexdigest(), tail, stored.md5.hexdigest(), stored.bytes)


def _read(source: BinaryIO, start: int, end: int) -> bytes:
    try:
        piece = os.pread(source.fileno(), min(CHUNK, end - start), start)
    except OSError as error:
        raise RepositoryError(f"The database {source.name} cannot be read at byte {start}: {error.strerror}. Nothing was stored.") from error
    if not piece:
        raise RepositoryError(f"The database became shorter than {end} bytes while it was read; nothing was stored, run again.")
    return piece


class _Worker:
    """The thread that hands pieces to a packer. Whoever puts pieces learns within a moment when it died, or when it does not get on."""

    def __init__(self, packer: _Packer) -> None:
        self._packer = packer
        self._pieces: queue.Queue[bytes | None] = queue.Queue(4)
        self._failed: BaseException | None = None
        self._stopped = threading.Event()
        self._taken = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            packer.abort()
            packer.close()
            raise

    def _run(self) -> None:
        try:
            while (piece := self._next()) is not None:
                self._packer.take(piece)
                self._taken += 1
            if not self._stopped.is_set():
                self._packer.finish()
        except BaseException as error:  # it is raised where the pieces come from
            self._failed = error

    def _next(self) -> bytes | None:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Empty):
                return self._pieces.get(timeout=_LOOK)
        return None

    def put(self, piece: bytes | None) -> None:
        """Hand over a piece, None behind the last. Raises what the thread died of."""
        for _look in self._watch():
            with contextlib.suppress(queue.Full):
                self._pieces.put(piece, timeout=_LOOK)
                return

    def end(self) -> None:
        """Wait until everything is written. Raises what the thread died of."""
        self.put(None)
        for _look in self._watch():
            self._thread.join(_LOOK)
            if not self._thread.is_alive():
                break
        if self._failed:
            raise self._failed

    def stop(self) -> None:
        """End the thread and the child, in the middle of their work if need be."""
        self._stopped.set()
        self._packer.abort()
        self._thread.join(_GRACE)
        if not self._thread.is_alive():
            self._packer.close()

    def _watch(self) -> Iterator[None]:
        """Yield for each moment of waiting. Raises what the thread died of, and RepositoryError when it makes no progress."""
        progress, since = self._progress(), time.monotonic()
        while True:
            if self._failed:
                raise self._failed
            if self._progress() != progress:
                progress, since = self._progress(), time.monotonic()
            elif time.monotonic() - since > STALLED:
                raise RepositoryError(f"Nothing could be written for {STALLED:.0f} seconds, so the backup was given up. Nothing was stored.")
            yield

    def _progress(self) -> tuple[int, int]:
        return self._taken, self._packer.target.bytes


class _Target:
    """The file that is written, with the md5 and the number of its bytes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._descriptor = stream.fileno()
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.bytes = 0

    def write(self, data: bytes) -> None:
        _write(self._descriptor, data)
        self.md5.update(data)
        self.bytes += len(data)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class _Plain:
    """Stores pieces as they are."""

    def __init__(self, target: _Target) -> None:
        self.target = target

    def take(self, piece: bytes) -> None:
        self.target.write(piece)

    def finish(self) -> None:
        pass

    def abort(self) -> None:
        pass

    def close(self) -> None:
        pass


class _Zlib(_Plain):
    """Compresses pieces with the fastest level of zlib."""

    def __init__(self, target: _Target) -> None:
        super().__init__(target)
        self._packer = zlib.compressobj(1, wbits=31)

    def take(self, piece: bytes) -> None:
        self.target.write(self._packer.compress(piece))

    def finish(self) -> None:
        self.target.write(self._packer.flush())


class _Igzip(_Plain):
    """Compresses pieces with igzip, several times as fast as zlib. It writes into a pipe, so errors of the file are this process' own and keep their errno."""

    def __init__(self, target: _Target, program: str, size: int) -> None:
        super().__init__(target)
        self._size = size
        self._complaints = os.memfd_create("igzip")  # unlike a pipe it never blocks igzip
        try:
            self._process = subprocess.Popen([program, "-1", "-c"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._complaints, bufsize=0)
        except BaseException:
            os.close(self._complaints)
            raise
        self._feed, self._output = cast("BinaryIO", self._process.stdin), cast("BinaryIO", self._process.stdout)
        for pipe in (self._feed, self._output):
            with contextlib.suppress(OSError):  # larger pipes let both sides work longer at a time
                fcntl.fcntl(pipe.fileno(), _SET_PIPE_SIZE, 2**20)
        self._end = b""
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._drain, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._process.kill()
            self.close()
            raise

    def _drain(self) -> None:
        try:
            while piece := self._output.read(_PIECE):
                self.target.write(piece)
                self._end = (self._end + piece)[-4:]
        except BaseException as error:
            self._failed = error
            self._process.kill()  # so that the thread that feeds it ends too

    def take(self, piece: bytes) -> None:
        try:
            _write(self._feed.fileno(), piece)
        except BrokenPipeError:
            self.finish()  # which says why
            raise

    def finish(self) -> None:
        self._feed.close()
        self._thread.join()
        code = self._process.wait()
        if self._failed:
            raise self._failed
        if code:
            complaint = os.pread(self._complaints, 1000, 0).decode(errors="replace").strip()
            raise OSError(errno.EIO, f"igzip failed ({complaint or code})")
        # Its exit code alone proves nothing: gzip's last four bytes are the size of what was compressed.
        if self._end != struct.pack("<L", self._size % 2**32):
            raise OSError(errno.EIO, "igzip did not compress everything")

    def abort(self) -> None:
        self._process.kill()
        if self._thread.is_alive():
            self._thread.join(_GRACE)

    def close(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
        for stream in (self._feed, self._output):
            with contextlib.suppress(OSError):
                stream.close()
        os.close(self._complaints)


def _packer(target: BinaryIO, compression: str, size: int) -> _Packer:
    """Return what stores size bytes in target. Both kinds of compression make ordinary gzip."""
    if compression == "none":
        return _Plain(_Target(target))
    program = shutil.which("igzip")
    return _Igzip(_Target(target), program, size) if program else _Zlib(_Target(target))
