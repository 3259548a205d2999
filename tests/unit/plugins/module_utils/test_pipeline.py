"""Copying a range of a database: what is written, and that no thread or child is waited for without end."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _pipeline, _repository
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError

PIECES = 5
COMPRESSIONS = ["igzip", "zlib", "none"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of several pieces that does not compress, so each of them is written."""
    path = tmp_path_factory.mktemp("source") / "Data.fs"
    path.write_bytes(os.urandom(PIECES * _repository.CHUNK + 12345))
    return path


@pytest.fixture(autouse=True)
def time_limit() -> Iterator[None]:
    """B1: whatever hangs ends here."""

    def end(*_arguments: object) -> None:
        raise TimeoutError("it hangs")

    # Scenarios may run beside this test, in threads and processes of their own.
    threads, processes = set(threading.enumerate()), children()
    signal.signal(signal.SIGALRM, end)
    signal.alarm(60)
    yield
    signal.alarm(0)
    until = time.monotonic() + 5
    while set(threading.enumerate()) - threads and time.monotonic() < until:  # a signal may come while one is told to end
        time.sleep(0.01)
    assert not set(threading.enumerate()) - threads
    left = [Path(f"/proc/{process}/cmdline").read_bytes() for process in children() - processes]
    assert not [command for command in left if b"molecule" not in command]


def children() -> set[str]:
    """Return the processes that this one started and has not waited for."""
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has ended meanwhile
            found |= set((task / "children").read_text().split())
    return found


def copied(source: Path, target: Path, how: str, monkeypatch: pytest.MonkeyPatch, start: int = 0) -> _pipeline.Copied:
    if how == "igzip" and not shutil.which("igzip"):
        pytest.skip("no igzip (package isal) here")
    if how == "zlib":
        monkeypatch.setattr(shutil, "which", lambda _name: None)
    with source.open("rb", buffering=0) as stream, target.open("w+b", buffering=0) as out:
        return _pipeline.copy(stream, start, source.stat().st_size, out, "none" if how == "none" else "gzip")


@pytest.mark.parametrize("how", COMPRESSIONS)
@pytest.mark.parametrize("start", [0, 5, PIECES * _repository.CHUNK + 12344])
def test_what_is_copied(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, start: int) -> None:
    target = tmp_path / "out"
    done = copied(source, target, how, monkeypatch, start)
    wanted, stored = source.read_bytes()[start:], target.read_bytes()
    assert (stored if how == "none" else gzip.decompress(stored)) == wanted
    assert (done.md5, done.tail) == (hashlib.md5(wanted, usedforsecurity=False).hexdigest(), wanted[-(2**20) :])
    assert (done.stored_md5, done.stored_bytes) == (hashlib.md5(stored, usedforsecurity=False).hexdigest(), len(stored))


class Writes:
    """Counts the bytes that are written to the file, by whatever thread, and makes the write of one of them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.real, self.bytes, self.failing = _pipeline._write, 0, -1
        monkeypatch.setattr(_pipeline, "_write", self.write)

    def write(self, descriptor: int, data: bytes) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):  # and not igzip's pipe
            self.bytes += len(data)
            if 0 <= self.failing < self.bytes:
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        self.real(descriptor, data)


@pytest.mark.parametrize("how", COMPRESSIONS)
def test_any_write_that_fails_ends_the_copy_with_its_errno(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """B1: the first, some in between, and the last, which comes when there is nothing left to hand over."""
    writes = Writes(monkeypatch)
    size = copied(source, tmp_path / "out", how, monkeypatch).stored_bytes
    for failing in (0, size // 2, size - 1):
        writes.bytes, writes.failing = 0, failing
        with pytest.raises(OSError, match="Disk quota exceeded") as raised:
            copied(source, tmp_path / "out", how, monkeypatch)
        assert raised.value.errno == errno.EDQUOT


def fake(directory: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = directory / "igzip"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _name: str(path))


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("exit 3", r"igzip failed \(3\)|Broken pipe"),
        ("echo 'no memory' >&2; exit 1", r"igzip failed \(no memory\)"),
        ("cat >/dev/null; exit 1", r"igzip failed \(1\)"),
        ("cat >/dev/null", "igzip did not compress everything"),
        ("gzip -1 | head -c 1000; cat >/dev/null", "igzip did not compress everything"),
        ("kill -9 $$", r"igzip failed \(-9\)"),
        ("yes x | head -c 1000000 >&2; cat >/dev/null; exit 1", r"igzip failed"),
    ],
)
def test_an_igzip_that_fails_is_noticed(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, sentence: str) -> None:
    """B1: what it leaves is looked at, its exit code alone is not believed."""
    fake(tmp_path, script, monkeypatch)
    with pytest.raises(OSError, match=sentence):
        copied(source, tmp_path / "out", "fake", monkeypatch)


@pytest.mark.parametrize("script", ["exec sleep 1000", "cat >/dev/null; exec sleep 1000"])
def test_an_igzip_that_does_nothing_is_ended(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """B1: a child that makes no progress is not waited for without end."""
    fake(tmp_path, script, monkeypatch)
    monkeypatch.setattr(_pipeline, "STALLED", 0.5)
    with pytest.raises(RepositoryError, match=r"^Nothing could be written for 0 seconds, so the backup was given up"):
        copied(source, tmp_path / "out", "fake", monkeypatch)


@pytest.mark.parametrize("how", COMPRESSIONS)
def test_a_signal_that_ends_the_run_ends_its_threads_and_its_child(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """B1: the command's time limit raises in the main thread, wherever that is."""
    real = _pipeline._write

    def slow(descriptor: int, data: bytes) -> None:
        time.sleep(0.05)
        real(descriptor, data)

    def end(*_arguments: object) -> None:
        raise RepositoryError("It was ended from outside.")

    monkeypatch.setattr(_pipeline, "_write", slow)
    signal.signal(signal.SIGUSR1, end)
    subprocess.Popen(["sh", "-c", f"(sleep 0.15; kill -USR1 {os.getpid()}) &"]).wait()
    with pytest.raises(RepositoryError, match="ended from outside"):
        for _time in range(50):
            copied(source, tmp_path / "out", how, monkeypatch)


def failing_read(code: int) -> Callable[..., bytes]:
    def read(*_arguments: Any) -> bytes:
        raise OSError(code, os.strerror(code))

    return read


@pytest.mark.parametrize("how", COMPRESSIONS)
def test_a_database_that_cannot_be_read_is_named(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """B20: it is not the repository that failed."""
    monkeypatch.setattr(os, "pread", failing_read(errno.EIO))
    with pytest.raises(RepositoryError, match=r"^The database .*Data\.fs cannot be read at byte 0: Input/output error\. Nothing was stored\.$"):
        copied(source, tmp_path / "out", how, monkeypatch)


def test_a_database_that_becomes_shorter(source: Path, tmp_path: Path) -> None:
    with source.open("rb", buffering=0) as stream, (tmp_path / "out").open("w+b", buffering=0) as out:
        size = source.stat().st_size
        with pytest.raises(RepositoryError, match=rf"^The database became shorter than {size + 1} bytes"):
            _pipeline.copy(stream, 0, size + 1, out, "gzip")
