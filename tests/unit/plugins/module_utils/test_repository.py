"""A repository is read without its data: what is a backup, what belongs to it, and what is wrong. Files are made by hand here."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import gzip
import hashlib
import itertools
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _catalogue, _prune, _repository, _repozo, _verify
from ansible_collections.confops.indico.plugins.module_utils._repository import CHUNK, DataFile, Entry, RepositoryError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

A, B, C, D = (f"2026-03-01-12-00-0{number}" for number in range(4))
MD5 = hashlib.md5(b"", usedforsecurity=False).hexdigest()


def make(path: Path, *names: str, dat: str | None = None) -> Path:
    """Make files of 10 bytes, and a .dat file named after the first that lists them, or says what dat says."""
    for name in names:
        (path / name).write_bytes(b"0123456789")
    lines = [f"/old/place/{name} {number * 10} {number * 10 + 10} {MD5}\n" for number, name in enumerate(names)]
    (path / f"{names[0].split('.')[0]}.dat").write_text("".join(lines) if dat is None else dat)
    return path


def problems(path: Path) -> list[str]:
    return _repository.read(str(path)).all_problems()


# Names and lines


@pytest.mark.parametrize(
    ("name", "full", "compressed"),
    [(f"{A}.fs", True, False), (f"{A}.fsz", True, True), (f"{A}.deltafs", False, False), (f"{A}.deltafsz", False, True)],
)
def test_names_of_data_files(name: str, full: bool, compressed: bool) -> None:
    found = _repository.data_file(name, 7)
    assert found == DataFile(name, A, full, compressed, 7)
    assert found.time == datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "name", [f"{A}.dat", f"{A}.index", f"{A}.fs.part", f"{A}.fszz", f"{A}.fs\n", f"x{A}.fs", f"{A[1:]}.fs", f"{A}fs", "confops.json", "tmp.tmp"]
)
def test_names_of_other_files(name: str) -> None:
    assert _repository.data_file(name, 7) is None


def test_a_name_that_is_no_date() -> None:
    with pytest.raises(ValueError, match="day is out of range"):
        _repository.time_of("2026-02-30-12-00-00")


def test_lines_are_read_and_written_back() -> None:
    text = f"/some where/b/{A}.fs 0 6611 {MD5}\n{A}.deltafs 6611 10780 {MD5}\n"
    entries, wrong = _repository.parse_dat(text)
    assert (entries, wrong) == ([Entry(f"{A}.fs", 0, 6611, MD5), Entry(f"{A}.deltafs", 6611, 10780, MD5)], [])
    assert entries[0].line("/new") == f"/new/{A}.fs 0 6611 {MD5}\n"
    assert _repository.parse_dat("") == ([], [])


@pytest.mark.parametrize(
    "line",
    [
        f"{A}.fs 0 10 {MD5}",
        f"{A}.fs 0 10 {MD5[1:]}\n",
        f"{A}.fs 0 10 {MD5}0\n",
        f"{A}.fs 0 10 {MD5.upper()}\n",
        f"{A}.fs -1 10 {MD5}\n",
        f"{A}.fs 0x1 10 {MD5}\n",
        f"{A}.fs 0  10 {MD5}\n",
        f"{A}.fs 0 {MD5}\n",
        f"{A}.fs 0 {'9' * 19} {MD5}\n",
        f"/b/ 0 10 {MD5}\n",
        "\n",
    ],
)
def test_a_line_that_is_not_whole(line: str) -> None:
    good = f"{B}.fs 0 10 {MD5}\n"
    assert _repository.parse_dat(good + line) == ([Entry(f"{B}.fs", 0, 10, MD5)], ["line 2 is not whole"])


# Chains


def test_chains_and_what_lies_beside_them(tmp_path: Path) -> None:
    make(tmp_path, f"{A}.fs", f"{B}.deltafsz")
    make(tmp_path, f"{C}.fsz", f"{D}.deltafs")
    for name in (f"{A}.index", f"{B}.index", "confops.json", "README", ".confops-7.fsz", "tmp.tmp"):
        (tmp_path / name).write_text("{}")
    found = _repository.read(str(tmp_path))
    assert [(chain.stamp, chain.names, chain.end) for chain in found.chains] == [(A, [f"{A}.fs", f"{B}.deltafsz"], 20), (C, [f"{C}.fsz", f"{D}.deltafs"], 20)]
    assert found.leftovers == [".confops-7.fsz", "tmp.tmp"]
    assert found.newest == D
    assert (found.strays, found.all_problems()) == ([], [])


def test_an_empty_directory_and_none(tmp_path: Path) -> None:
    found = _repository.read(str(tmp_path))
    assert (found.chains, found.newest, found.all_problems()) == ([], None, [])
    with pytest.raises(RepositoryError, match=rf"^The repository {tmp_path}/no cannot be read: No such file or directory\.$"):
        _repository.read(f"{tmp_path}/no")
    (tmp_path / "file").touch()
    with pytest.raises(RepositoryError, match=r"/file cannot be read: Not a directory\.$"):
        _repository.read(f"{tmp_path}/file")


def test_a_chain_without_lines_ends_at_zero(tmp_path: Path) -> None:
    make(tmp_path, f"{A}.fs", dat="")
    assert _repository.read(str(tmp_path)).chains[0].end == 0


def line(name: str, start: int, end: int) -> str:
    return f"/b/{name} {start} {end} {MD5}\n"


_FULL, _DELTA = f"{A}.fs", f"{B}.deltafs"
_BOTH = line(_FULL, 0, 10) + line(_DELTA, 10, 20)


@pytest.mark.parametrize(
    ("dat", "sentences"),
    [
        (_BOTH, []),
        ("", [f"{_FULL} is here, but {A}.dat does not list it.", f"{_DELTA} is here, but {A}.dat does not list it."]),
        (line(_FULL, 0, 10), [f"{_DELTA} is here, but {A}.dat does not list it."]),
        (_BOTH[:-1], [f"{A}.dat: line 2 is not whole.", f"{_DELTA} is here, but {A}.dat does not list it."]),
        (_BOTH + line(f"{C}.deltafs", 20, 30), [f"{A}.dat lists {C}.deltafs, which is not here."]),
        (
            line(_FULL, 0, 10) + line(f"{B}.deltafsz", 10, 20),
            [f"{A}.dat lists {B}.deltafsz, which is not here.", f"{_DELTA} is here, but {A}.dat does not list it."],
        ),
        (
            line(_DELTA, 10, 20) + line(_FULL, 0, 10),
            [
                f"{A}.dat lists its files twice or out of order.",
                f"{A}.dat: {_DELTA} covers 10 to 20, where a range that begins at 0 belongs.",
                f"{A}.dat: {_FULL} covers 0 to 10, where a range that begins at 20 belongs.",
            ],
        ),
        (
            _BOTH + line(_DELTA, 10, 20),
            [f"{A}.dat lists its files twice or out of order.", f"{A}.dat: {_DELTA} covers 10 to 20, where a range that begins at 20 belongs."],
        ),
        (line(_FULL, 0, 10) + line(_DELTA, 9, 19), [f"{A}.dat: {_DELTA} covers 9 to 19, where a range that begins at 10 belongs."]),
        (line(_FULL, 0, 10) + line(_DELTA, 11, 21), [f"{A}.dat: {_DELTA} covers 11 to 21, where a range that begins at 10 belongs."]),
        (line(_FULL, 1, 11) + line(_DELTA, 11, 21), [f"{A}.dat: {_FULL} covers 1 to 11, where a range that begins at 0 belongs."]),
        (
            line(_FULL, 0, 10) + line(_DELTA, 10, 10),
            [f"{A}.dat: {_DELTA} covers 10 to 10, where a range that begins at 10 belongs.", f"{_DELTA} has 10 bytes; {A}.dat says 0."],
        ),
        (line(_FULL, 0, 10) + line(_DELTA, 10, 21), [f"{_DELTA} has 10 bytes; {A}.dat says 11."]),
    ],
)
def test_what_the_dat_file_says_is_compared(tmp_path: Path, dat: str, sentences: list[str]) -> None:
    assert problems(make(tmp_path, _FULL, _DELTA, dat=dat)) == sentences


def test_a_compressed_file_has_any_size(tmp_path: Path) -> None:
    assert problems(make(tmp_path, f"{A}.fsz", dat=line(f"{A}.fsz", 0, 99))) == []


def test_other_problems_have_their_sentences(tmp_path: Path) -> None:
    make(tmp_path, f"{B}.fs")
    (tmp_path / f"{B}.dat").unlink()
    assert problems(tmp_path) == [f"{B}.dat is missing."]
    (tmp_path / f"{B}.dat").mkdir()
    assert problems(tmp_path) == [f"{B}.dat is a directory, not a file."]
    (tmp_path / f"{B}.dat").rmdir()
    make(tmp_path, f"{B}.fs")
    (tmp_path / f"{A}.deltafs").touch()
    (tmp_path / f"{C}.dat").touch()
    (tmp_path / "2026-03-01-12-00-04.index").touch()
    assert problems(tmp_path) == [
        f"{A}.deltafs is an incremental backup without the full one that it continues.",
        f"{C}.dat belongs to no backup here.",
        "2026-03-01-12-00-04.index belongs to no backup here.",
    ]


@pytest.mark.parametrize(
    ("index", "belongs"),
    [(A, True), (B, True), (C, True), (D, False), ("2026-03-01-11-59-58", True), ("2026-03-01-11-59-57", False), ("2026-02-30-12-00-00", False)],
)
def test_an_index_may_be_of_the_second_after_its_backup(tmp_path: Path, index: str, belongs: bool) -> None:
    """repozo of ZODB3 3.10.5 asks the clock once for each of the two names."""
    make(tmp_path, f"{A}.fs")
    (tmp_path / f"{index}.index").touch()
    assert problems(tmp_path) == ([] if belongs else [f"{index}.index belongs to no backup here."])


def test_one_file_for_each_second(tmp_path: Path) -> None:
    make(tmp_path, f"{A}.fs", f"{A}.deltafs")
    found = _repository.read(str(tmp_path))
    assert found.chains[0].problems == [f"{A}.fs and {A}.deltafs are of the same second; stock repozo restores only one of them."]
    assert found.problems == []
    (tmp_path / f"{A}.fsz").touch()
    for chain in _repository.read(str(tmp_path)).chains:
        assert any(re.search(rf"{A}\.fsz? and {A}\.fsz? are of the same second", sentence) for sentence in chain.problems)


def test_a_moment_that_no_calendar_has(tmp_path: Path) -> None:
    assert problems(make(tmp_path, "2026-02-30-12-00-00.fs")) == ["2026-02-30-12-00-00.fs is named after a moment that no calendar has."]


def test_lines_as_windows_writes_them() -> None:
    """B16: stock repozo asks the directory alone, so a .dat file that was edited there lists the same."""
    assert _repository.parse_dat(f"C:\\b\\{A}.fs 0 10 {MD5}\r\n{B}.deltafs 10 20 {MD5}\r\n") == (
        [Entry(f"{A}.fs", 0, 10, MD5), Entry(f"{B}.deltafs", 10, 20, MD5)],
        [],
    )
    assert _repository.parse_dat(f"{A}.fs 0 10 {MD5}\r") == ([], ["line 1 is not whole"])
    assert _repository.parse_dat(f"{A}.fs 0 10 {MD5}\r\r\n") == ([], ["line 1 is not whole"])


def test_bytes_that_are_no_text_make_a_line_that_is_not_whole(tmp_path: Path) -> None:
    make(tmp_path, f"{A}.fs")
    (tmp_path / f"{A}.dat").write_bytes(b"\xff\xfe" + line(f"{A}.fs", 0, 10).encode()[:-5] + b"\n")
    assert problems(tmp_path) == [f"{A}.dat: line 1 is not whole.", f"{A}.fs is here, but {A}.dat does not list it."]


def test_what_vanishes_while_it_is_listed_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, f"{A}.fs")
    (tmp_path / ".confops-1").touch()
    listed = os.scandir

    class Listing:
        """A listing made a moment before the unfinished file went."""

        def __enter__(self) -> list[os.DirEntry[str]]:
            entries = list(listed(tmp_path))
            (tmp_path / ".confops-1").unlink()
            return entries

        def __exit__(self, *_error: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", lambda _path: Listing())
    found = _repository.read(str(tmp_path))
    assert (found.leftovers, found.all_problems(), found.newest) == ([], [], A)


# The lock

_HOLD = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until it ends."""
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_lock_names_its_holder_and_ends_with_it(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    assert _repository.in_use(str(tmp_path))
    with pytest.raises(RepositoryError) as caught, _repository.lock(str(tmp_path)):
        pytest.fail("The lock was given twice.")
    assert str(caught.value) == f"The repository {tmp_path} is in use by process {holder.pid}; nothing was done."
    holder.kill()
    holder.wait()
    assert not _repository.in_use(str(tmp_path))
    with _repository.lock(str(tmp_path)):
        assert _repository.in_use(str(tmp_path))
    assert not _repository.in_use(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_holder_that_is_long_at_it_is_named_with_its_age(tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    busy = _repository.busy(str(tmp_path))
    assert busy is not None and busy["process"] == holder.pid
    assert abs(busy["since"] - time.time()) < 60
    monkeypatch.setattr(_repository, "_LONG", -1.0)
    sentence = rf" is in use by process {holder.pid}, which began \d{{4}}-\d\d-\d\dT[\d:]+Z, \d+ minutes ago; nothing was done\.$"
    with pytest.raises(RepositoryError, match=sentence), _repository.lock(str(tmp_path)):
        pytest.fail("The lock was given twice.")
    assert _repository._ago(time.time() - 3 * 3600).endswith(", 3 hours ago")
    holder.kill()
    holder.wait()
    assert _repository.busy(str(tmp_path)) is None


def test_the_lock_is_waited_for(tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    def end(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            holder.kill()
            holder.wait()

    monkeypatch.setattr(_repository.time, "sleep", end)
    with _repository.lock(str(tmp_path), 60):
        assert len(waited) == 2
    clock = itertools.count()
    monkeypatch.setattr(_repository.time, "monotonic", lambda: next(clock))
    with _repository.lock(str(tmp_path)), pytest.raises(RepositoryError, match=rf" is in use by process {os.getpid()};"), _repository.lock(str(tmp_path), 60):
        pytest.fail("The lock was given twice.")
    assert 50 < len(waited) < 70


def test_the_lock_ends_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), _repository.lock(str(tmp_path)):
        raise KeyError
    with _repository.lock(str(tmp_path)):
        pass


def test_a_holder_that_the_kernel_does_not_name(tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_repository, "_holder_of", lambda _directory: None)
    with pytest.raises(RepositoryError, match=r" is in use by another process; nothing was done\.$"), _repository.lock(str(tmp_path)):
        pytest.fail("The lock was given twice.")


def test_there_is_nothing_to_lock(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"/no cannot be opened: No such file or directory\.$"), _repository.lock(f"{tmp_path}/no"):
        pytest.fail("There is no such directory.")


# What is remembered


@pytest.mark.parametrize("content", [None, b"{}", b"", b"{", b"[1]", b"\xff", b"null", b'{"pins": 7}'])
def test_a_memory_that_is_damaged_is_empty_and_never_lost(tmp_path: Path, content: bytes | None) -> None:
    memory, path = tmp_path / "confops.json", str(tmp_path)
    if content is not None:
        memory.write_bytes(content)
    damaged = content not in (None, b"{}")
    assert (_repository.read_state(path), _repository.damaged(path)) == ({}, damaged)
    for number in (1, 2):
        if content is not None:
            memory.write_bytes(content)
        expected = f"confops.json.damaged-{number}" if damaged else None
        assert _repository.set_aside(path, act=False) == expected
        assert memory.exists() is (content is not None)
        assert _repository.set_aside(path) == expected
        assert not expected or (tmp_path / expected).read_bytes() == content
    assert (_repository.aside(path), memory.exists()) == (["confops.json.damaged-1", "confops.json.damaged-2"] if damaged else [], content == b"{}")
    assert problems(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"tail": ' + b"9" * 5000 + b"}",
        b'{"tail": -' + b"9" * 10_000_000 + b"}",
        b'{"tail": NaN}',
        b'{"tail": [Infinity, -Infinity]}',
        b'{"tail": 1e999}',
        b'{"pins": ["\\ud800"]}',
        b'{"pins": ["\xed\xa0\x80"]}',
        b'{"pins": [1]}',
        b'{"pins": [["x"]]}',
        b'{"pins": [null]}',
        b'{"pins": {"x": 1}}',
        b'{"a": "\xff"}',
        '{"a": 1}'.encode("utf-16")[:-1],
        b"\0" * 100,
    ],
    ids=lambda content: content[:20].decode("latin-1"),
)
def test_a_memory_that_is_no_memory_is_damaged(tmp_path: Path, content: bytes) -> None:
    """B18: whatever it holds, it is set aside and never a traceback."""
    (tmp_path / "confops.json").write_bytes(content)
    assert (_repository.read_state(str(tmp_path)), _repository.damaged(str(tmp_path))) == ({}, True)
    assert _repository.set_aside(str(tmp_path)) == "confops.json.damaged-1"


KEYS = ["bytes", "md5", "start", "end", "first", "at", "chain", f"{A}.fs"]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["bytes", "md5", "start", "end", "first", "at", "chain", f"{A}.fs"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANYTHING | st.dictionaries(st.sampled_from(["pins", "pruning", "stored", "tail", "verified", "writing"]), ANYTHING))
def test_any_memory_is_borne(tmp_path: Path, state: Any) -> None:
    """B18: verify, catalogue and prune go on, or refuse with a sentence, whatever confops.json says."""
    for path in tmp_path.iterdir():
        path.unlink()
    make(tmp_path, f"{A}.fs", f"{B}.deltafs")
    make(tmp_path, f"{C}.fs")
    (tmp_path / "confops.json").write_text(json.dumps(state))
    path = str(tmp_path)
    json.dumps([_catalogue.catalogue(path), dataclasses.asdict(_verify.verify(path, jobs=1))]).encode()
    with contextlib.suppress(RepositoryError):
        json.dumps(dataclasses.asdict(_prune.prune(path, _prune.Policy(keep_daily=1))))
    _prune.finish(path)
    database = tmp_path / "Data.fs"
    database.write_bytes(b"FS21" + bytes(30))
    chain = _repository.read(path).chains[-1]
    with database.open("rb", buffering=0) as stream:
        assert _repozo.same(stream, chain, _repository.read_state(path)) in (True, False)


def test_a_memory_is_written_and_read_back(tmp_path: Path) -> None:
    state = {"pins": [A], "stored": {f"{A}.fs": {"bytes": 1}}}
    _repository.write_state(str(tmp_path), state)
    assert _repository.read_state(str(tmp_path)) == state
    assert [path.name for path in tmp_path.iterdir()] == ["confops.json"]


def test_a_part_of_a_memory_leaves_out_what_is_damaged() -> None:
    assert _repository.section({"stored": {"a": {"bytes": 1}, "b": 2}}, "stored") == {"a": {"bytes": 1}}
    assert _repository.section({"stored": [1]}, "stored") == _repository.section({}, "stored") == {}


def test_replacing_leaves_the_old_content_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    _repository.replace(str(path), b"old")
    _repository.replace(str(path), b"older")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        _repository.replace(str(path), b"new")
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


OTHER = 65534 if os.geteuid() == 0 else os.geteuid()  # whose files a test may make: root's may be anybody's


def test_a_file_that_is_replaced_keeps_its_owner_group_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.chown(path, OTHER, -1)
    before = path.stat()
    for mode in (0o600, 0o640, 0o666):
        path.chmod(mode)
        _repository.replace(str(path), b"new")
        after = path.stat()
        assert (after.st_uid, after.st_gid, after.st_mode & 0o7777, path.read_bytes()) == (OTHER, before.st_gid, mode, b"new")


def test_a_new_file_belongs_to_the_owner_of_its_directory(tmp_path: Path) -> None:
    os.chown(tmp_path, OTHER, -1)
    _repository.replace(str(tmp_path / "file"), b"new")
    assert (tmp_path / "file").stat().st_uid == OTHER


@pytest.mark.parametrize("link", ["/etc/shadow", "nowhere"])
def test_a_link_is_replaced_and_nothing_of_its_target_taken_over(tmp_path: Path, link: str) -> None:
    (tmp_path / "file").symlink_to(link)
    _repository.replace(str(tmp_path / "file"), b"new")
    assert not (tmp_path / "file").is_symlink()
    assert ((tmp_path / "file").read_bytes(), (tmp_path / "file").stat().st_uid) == (b"new", os.geteuid())


@pytest.mark.parametrize("there", [True, False])
def test_who_is_not_root_gives_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    path, asked = tmp_path / "file", []
    if there:
        path.write_bytes(b"somebody else's")

    def refuse(_descriptor: int, uid: int, gid: int) -> None:
        asked.append((uid, gid))
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "fchown", refuse)
    _repository.replace(str(path), b"new")
    assert (path.read_bytes(), len(asked)) == (b"new", there)


# What is no file


@pytest.mark.parametrize(
    ("make_it", "kind"),
    [
        (os.mkfifo, "a FIFO"),
        (os.mkdir, "a directory"),
        (lambda path: Path(path).symlink_to("/dev/zero"), "a symbolic link"),
        (lambda path: Path(path).symlink_to("/etc/hostname"), "a symbolic link"),
    ],
)
def test_only_files_are_opened(tmp_path: Path, make_it: Callable[[str], object], kind: str) -> None:
    """B4: a FIFO blocks for ever, a device has no end."""
    path = str(tmp_path / "x.dat")
    make_it(path)
    with pytest.raises(RepositoryError, match=rf"^x\.dat is {kind}, not a file\.$"):
        _repository.open_regular(path)
    if "link" not in kind:
        with pytest.raises(RepositoryError, match=rf"^x\.dat is {kind}, not a file\.$"):
            next(_repository.blocks(path, False))


def test_devices_are_not_opened(tmp_path: Path) -> None:
    """B4"""
    with pytest.raises(RepositoryError, match=r"^zero is a device, not a file\.$"):
        _repository.open_regular("/dev/zero")
    (tmp_path / "x.fs").symlink_to("/dev/zero")
    with pytest.raises(RepositoryError, match=r"^x\.fs is a device, not a file\.$"):
        next(_repository.blocks(str(tmp_path / "x.fs"), False))


def test_what_takes_the_place_of_a_file_meanwhile_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """B4: it is asked again once it is open."""
    (tmp_path / "x.fs").write_bytes(b"x")
    really = (tmp_path / "x.fs").stat()
    (tmp_path / "x.fs").unlink()
    os.mkfifo(tmp_path / "x.fs")
    monkeypatch.setattr(os, "stat", lambda *_arguments, **_options: really)
    with pytest.raises(RepositoryError, match=r"^x\.fs is a FIFO, not a file\.$"):
        _repository.open_regular(str(tmp_path / "x.fs"))


def test_a_small_file_may_not_be_large(tmp_path: Path) -> None:
    """B4, B18: a file of a GB is not taken into memory."""
    make(tmp_path, f"{A}.fs")
    for name in (f"{A}.dat", "confops.json"):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(2**30)
    assert problems(tmp_path) == [f"{A}.dat has more than {_repository.SMALL} bytes."]
    assert _repository.damaged(str(tmp_path))


# Speed


def test_many_disagreements_take_a_moment(tmp_path: Path) -> None:
    """B14: two lines of 20,000 were 124 s. Here the same goes for the rest of what may be many."""
    names = [f"{datetime(2026, 1, 1) + timedelta(seconds=3 * number):{_repository.STAMP}}.{'deltafs' if number else 'fs'}" for number in range(20_000)]
    lines = [line(name, 10 * number, 10 * number + 10) for number, name in enumerate(names)]
    for name in names[:10_000]:
        (tmp_path / name).touch()
    for number in range(4000):
        stamp = f"{datetime(2025, 1, 1) + timedelta(seconds=9 * number):{_repository.STAMP}}"
        (tmp_path / f"{stamp}.index").touch()
        (tmp_path / f"{stamp}.deltafs").touch()
        (tmp_path / f"{stamp}.deltafsz").touch()
    del lines[7], lines[9]
    (tmp_path / f"{names[0][:19]}.dat").write_text("".join(lines))
    began = time.process_time()
    found = _repository.read(str(tmp_path))
    assert time.process_time() - began < 20  # it took 124 s when it was quadratic, and takes about one
    assert (len(found.chains[0].files), len(found.strays)) == (10_000, 8000)


# File systems that lack something


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """B15"""

    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RepositoryError) as caught, _repository.lock(str(tmp_path)):
        pytest.fail("There is no lock.")
    assert str(caught.value) == f"{tmp_path} lies on a file system without locks (flock: {os.strerror(number)}); nothing was done."


@pytest.mark.parametrize(
    ("call", "number", "lacks"),
    [
        ("link", errno.EPERM, "hard links"),
        ("link", errno.EOPNOTSUPP, "hard links"),
        ("fsync", errno.EINVAL, "fsync of directories"),
        ("fsync", errno.ENOTSUP, "fsync of directories"),
    ],
)
def test_a_file_system_without_what_a_backup_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, lacks: str) -> None:
    """B15: it is told before the first byte, and nothing stays behind."""
    _repository.need_features(str(tmp_path))

    def refuse(*names: object) -> None:
        raise OSError(number, os.strerror(number), *([names[0], None, names[1]] if call == "link" else []))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(RepositoryError) as caught:
        _repository.need_features(str(tmp_path))
    assert str(caught.value) == f"{tmp_path} lies on a file system without {lacks} ({os.strerror(number)}); nothing was written."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("call", "number"), [("link", errno.ENOSPC), ("fsync", errno.EIO), ("open", errno.EROFS)])
def test_other_errors_are_no_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    """B15"""

    def refuse(*_names: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as context:
        context.setattr(os, call, refuse)
        with pytest.raises(OSError, match=os.strerror(number)):
            _repository.need_features(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_put_on_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """B15: wherever it happens."""

    def refuse(_descriptor: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="its file system cannot put a directory on disk"):
        _repository.sync(str(tmp_path))


# Reading data

PLAIN = random.Random(7).randbytes(20_000) + b"a" * 20_000  # noqa: S311 (the same bytes each time)


def unpacked(path: Path, content: bytes, compressed: bool = True) -> bytes:
    path.write_bytes(content)
    stored: list[bytes] = []
    pieces = list(_repository.blocks(str(path), compressed, stored.append))
    assert b"".join(stored) == content
    assert all(0 < len(piece) <= CHUNK for piece in pieces)
    return b"".join(pieces)


def test_data_is_read_as_it_is_or_unpacked(tmp_path: Path) -> None:
    assert unpacked(tmp_path / "x.fs", PLAIN, compressed=False) == PLAIN
    assert unpacked(tmp_path / "x.fsz", gzip.compress(PLAIN)) == PLAIN
    assert unpacked(tmp_path / "x.fsz", gzip.compress(b"")) == b""
    assert unpacked(tmp_path / "x.fs", b"", compressed=False) == b""


def test_a_file_of_several_members(tmp_path: Path) -> None:
    members = [gzip.compress(PLAIN[start : start + 9000]) for start in range(0, len(PLAIN), 9000)]
    assert unpacked(tmp_path / "x.fsz", b"".join(members) + gzip.compress(b"")) == PLAIN


def test_a_file_that_unpacks_to_much_more_comes_in_pieces(tmp_path: Path) -> None:
    """Its end is still inside the unpacker when the file has been read."""
    content = bytes(5 * CHUNK // 2)
    assert unpacked(tmp_path / "x.fsz", gzip.compress(content)) == content


@pytest.mark.parametrize("small", [1, 7, 64])
def test_pieces_of_any_size_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: int) -> None:
    monkeypatch.setattr(_repository, "CHUNK", small)
    monkeypatch.setattr(_repository, "_PACKED", small)
    content = gzip.compress(PLAIN[-20_500:-19_000]) * 2
    (tmp_path / "x.fsz").write_bytes(content)
    assert b"".join(_repository.blocks(str(tmp_path / "x.fsz"), True)) == PLAIN[-20_500:-19_000] * 2


def test_a_file_that_is_cut_off_anywhere(tmp_path: Path) -> None:
    content = gzip.compress(PLAIN[-20_300:-19_700])
    for length in range(1, len(content)):
        with pytest.raises(RepositoryError, match=r"^x\.fsz is cut off\.$"):
            unpacked(tmp_path / "x.fsz", content[:length])
    with pytest.raises(RepositoryError, match=r"^x\.fsz is cut off\.$"):
        unpacked(tmp_path / "x.fsz", content + content[:9])


@pytest.mark.parametrize("trailing", [b"\0", b"garbage", b"\0" * 512])
def test_a_file_that_something_else_follows(tmp_path: Path, trailing: bytes) -> None:
    with pytest.raises(RepositoryError, match=r"^x\.fsz is (damaged: Error -3 .*|cut off)\.$"):
        unpacked(tmp_path / "x.fsz", gzip.compress(PLAIN) + trailing)


def test_a_file_that_is_not_compressed_or_fails_its_checksum(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"^x\.fsz is damaged: Error -3 while decompressing data: incorrect header check\.$"):
        unpacked(tmp_path / "x.fsz", PLAIN)
    content = bytearray(gzip.compress(PLAIN))
    content[-8] ^= 1
    with pytest.raises(RepositoryError, match=r"incorrect data check\.$"):
        unpacked(tmp_path / "x.fsz", bytes(content))
    content[-8] ^= 1
    content[-1] ^= 1
    with pytest.raises(RepositoryError, match=r"incorrect length check\.$"):
        unpacked(tmp_path / "x.fsz", bytes(content))


def test_raw_deflate_is_not_gzip(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="incorrect header check"):
        unpacked(tmp_path / "x.fsz", zlib.compress(PLAIN))


def test_reading_ahead_yields_the_same_in_order() -> None:
    pieces = [bytes([number]) for number in range(100)]
    assert list(_repository.ahead(iter(pieces))) == pieces
    assert list(_repository.ahead(iter([]))) == []


def test_an_error_ahead_reaches_the_reader(tmp_path: Path) -> None:
    (tmp_path / "x.fsz").write_bytes(gzip.compress(PLAIN)[:-1])
    with pytest.raises(RepositoryError, match="cut off"):
        list(_repository.ahead(_repository.blocks(str(tmp_path / "x.fsz"), True)))


def test_a_reader_that_stops_leaves_no_thread() -> None:
    before = threading.active_count()
    reading = _repository.ahead(iter([b"x"] * 1000))
    assert next(reading) == b"x"
    reading.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


# An error of the system as a sentence


def test_a_reason_names_what_the_system_says_and_where(tmp_path: Path) -> None:
    """B18: nobody reads the number of an error."""
    missing = tmp_path / "gone"
    with pytest.raises(FileNotFoundError) as found:
        missing.read_bytes()
    assert _repository.reason(found.value) == f"No such file or directory ({missing})"
    assert _repository.reason(OSError(errno.ENOSPC, "No space left on device"), "/srv/x") == "No space left on device (/srv/x)"
    assert _repository.reason(OSError(errno.EIO, "Input/output error", 7)) == "Input/output error"  # a descriptor is no path
    assert _repository.reason(KeyError("python")) == "it does not say python"
    assert _repository.reason(ValueError("Too many.")) == "Too many"


def test_what_ends_a_run_is_told_in_sentences() -> None:
    assert _repository.told(_repository.RepositoryError("It is in use.")) == "It is in use."
    said = _repository.told(OSError(errno.EIO, "Input/output error", "/srv/x"))
    assert said == "A call to the system failed: Input/output error (/srv/x). What was done before it stays."
