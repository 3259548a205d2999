"""repozo_verify finds what is wrong with a repository, whatever it is, and names the file. The repository is made once and copied."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.confops.indico.plugins.module_utils import _filestorage, _repository, _repozo, _verify
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError
from ansible_collections.confops.indico.plugins.modules import repozo_verify

from tests.unit.storage import Storage, record, tid_of

FIRST = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
# What is backed up, one line for each chain. A chain mixes compressed files and others, as changing an option does.
KINDS = (("fs", "deltafsz", "deltafs", "deltafsz"), ("fsz", "deltafs", "deltafsz"), ("fs",))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of three chains; each backup is an hour after the one before."""
    base = tmp_path_factory.mktemp("made")
    repository = base / "repository"
    repository.mkdir()
    storage = Storage(base / "Data.fs")
    stamps = (f"{FIRST + timedelta(hours=number):{_repository.STAMP}}" for number in range(99))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_repozo, "_stamp", lambda _repository: next(stamps))
        for kinds in KINDS:
            for kind in kinds:
                storage.add(4)
                _repozo.backup(str(storage.path), str(repository), compression="gzip" if kind.endswith("z") else "none", full="first" if kind[0] == "f" else "")
    assert sorted(path.name.split(".")[1] for path in repository.iterdir()) == sorted([*sum(KINDS, ()), "dat", "dat", "dat", "json"])
    return repository


@pytest.fixture
def repository(made: Path, tmp_path: Path) -> Path:
    """A copy, in another directory than its .dat files name."""
    return shutil.copytree(made, tmp_path / "moved", copy_function=shutil.copyfile)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_verify, "_PATIENCE", 0.0)


def name(hours: int, suffix: str) -> str:
    return f"{FIRST + timedelta(hours=hours):{_repository.STAMP}}.{suffix}"


def problems(repository: Path, **options: Any) -> list[str]:
    return _verify.verify(str(repository), **options).problems


def state_of(repository: Path) -> dict[str, Any]:
    return _repository.read_state(str(repository))


def forget(repository: Path, key: str) -> None:
    _repository.write_state(str(repository), {part: value for part, value in state_of(repository).items() if part != key})


def rewrite(repository: Path, file: str, content: bytes) -> None:
    """Put other content into a file and the fitting md5 and size into the last line of its .dat file: a backup of something wrong."""
    (repository / file).write_bytes(gzip.compress(content) if file.endswith("z") else content)
    dat = next(path for path in repository.glob("*.dat") if file in path.read_text())
    lines = dat.read_text().splitlines()
    number = next(number for number, line in enumerate(lines) if file in line)
    path, start, _end, _md5 = lines[number].split()
    lines[number] = f"{path} {start} {int(start) + len(content)} {hashlib.md5(content, usedforsecurity=False).hexdigest()}"
    dat.write_text("\n".join(lines[: number + 1]) + "\n")
    forget(repository, "stored")
    state = state_of(repository)
    state.get("verified", {}).pop(file, None)
    _repository.write_state(str(repository), state)


# What is sound


def test_a_moved_repository_is_sound(repository: Path) -> None:
    report = _verify.verify(str(repository))
    assert report.problems == []
    assert [(chain["stamp"], chain["ok"], chain["problems"], chain["files"]) for chain in report.chains] == [
        (name(0, "")[:-1], True, [], 4),
        (name(4, "")[:-1], True, [], 3),
        (name(7, "")[:-1], True, [], 1),
    ]
    data = [path.stat().st_size for path in repository.glob("*fs*")]
    assert (report.verified_files, report.verified_bytes, report.skipped_files) == (8, sum(data), 0)
    assert sum(chain["bytes"] for chain in report.chains) == sum(data)
    assert (report.remembered, report.warnings) == (True, [])
    assert report.seconds >= 0


def test_a_moved_repository_is_added_to_and_stays_sound(repository: Path, made: Path) -> None:
    storage = Storage(repository.parent / "Data.fs")
    shutil.copyfile(made.parent / "Data.fs", storage.path)
    storage.tids = ["kept"] * 32
    storage.add(4)
    result = _repozo.backup(str(storage.path), str(repository))
    assert result.decision.kind == "incremental"
    assert problems(repository) == []
    directories = [line.rpartition("/")[0] for line in (repository / name(7, "dat")).read_text().splitlines()]
    assert directories == [str(made), str(repository)]


def test_what_stock_repozo_writes_is_sound(repository: Path) -> None:
    """It remembers nothing and leaves indexes."""
    (repository / "confops.json").unlink()
    for hours in range(8):
        (repository / name(hours, "index")).write_bytes(b"\x80index")
    assert problems(repository, jobs=1) == []


def test_lines_that_stock_repozo_added_are_no_damage(repository: Path) -> None:
    forget_last = state_of(repository)
    dat = (repository / name(0, "dat")).read_bytes()
    two = b"".join(dat.splitlines(keepends=True)[:2])
    forget_last["stored"][name(0, "dat")] = {"bytes": len(two), "md5": hashlib.md5(two, usedforsecurity=False).hexdigest()}
    _repository.write_state(str(repository), forget_last)
    assert problems(repository) == []


def test_a_database_without_a_transaction_is_sound(repository: Path) -> None:
    rewrite(repository, name(7, "fs"), b"FS21")
    assert problems(repository) == []


def test_python_3_writes_another_magic(repository: Path) -> None:
    content = (repository / name(7, "fs")).read_bytes()
    rewrite(repository, name(7, "fs"), b"FS30" + content[4:])
    assert problems(repository) == []


@pytest.mark.parametrize("size", [2**20 - 31, 2**20 - 30, 2**20 + 1, 5 * 2**20])
@pytest.mark.parametrize("file", [name(7, "fs"), name(6, "deltafsz")])
def test_a_transaction_larger_than_what_is_kept(repository: Path, file: str, size: int) -> None:
    big = record(tid_of(FIRST + timedelta(days=2)), bytes(size))
    rewrite(repository, file, (b"FS21" if file.endswith(".fs") else b"") + big)
    assert problems(repository) == []
    rewrite(repository, file, (b"FS21" if file.endswith(".fs") else b"") + big[:-8] + struct.pack(">Q", len(big) - 8 + 5))
    assert problems(repository) == [f"{file} does not end with a whole, committed transaction."]


# What the content tells


@pytest.mark.parametrize("file", [name(0, "fs"), name(4, "fsz")])
def test_a_full_backup_of_something_else(repository: Path, file: str) -> None:
    rewrite(repository, file, b"SQLite format 3\0" * 9)
    assert [sentence for sentence in problems(repository) if file in sentence][-2:] == [
        f"{file} does not begin with FS21 or FS30: it holds no FileStorage.",
        f"{file} does not end with a whole, committed transaction.",
    ]


@pytest.mark.parametrize("end", [b"", b"x", b"\0" * 7, b"\0" * 8, b"\xff" * 8, struct.pack(">Q", 22), struct.pack(">Q", 40), struct.pack(">Q", 2**33)])
@pytest.mark.parametrize("file", [name(7, "fs"), name(6, "deltafsz")])
def test_a_range_that_ends_inside_a_transaction(repository: Path, file: str, end: bytes) -> None:
    head = b"FS21" if file.endswith(".fs") else b""
    rewrite(repository, file, head + record(tid_of(FIRST + timedelta(days=2)), b"x" * 50)[:-8] + end)
    assert problems(repository) == [f"{file} does not end with a whole, committed transaction."]


@pytest.mark.parametrize("length", range(1, 31))
def test_a_range_that_is_shorter_than_a_transaction(repository: Path, length: int) -> None:
    rewrite(repository, name(7, "fs"), b"FS21" + bytes(length))
    assert problems(repository) == [f"{name(7, 'fs')} does not end with a whole, committed transaction."]


def test_a_range_that_ends_with_what_was_not_committed(repository: Path) -> None:
    whole = record(tid_of(FIRST + timedelta(days=2)), b"x" * 50)
    rewrite(repository, name(7, "fs"), b"FS21" + whole + whole[:16] + b"c" + whole[17:])
    assert problems(repository) == [f"{name(7, 'fs')} does not end with a whole, committed transaction."]


@pytest.mark.parametrize("file", [name(7, "fs"), name(6, "deltafsz")])
def test_a_range_that_ends_with_a_transaction_of_no_day(repository: Path, file: str) -> None:
    tid = struct.pack(">LL", ((126 * 12 + 1) * 31 + 29) * 1440, 0)  # 30 February 2026
    rewrite(repository, file, (b"FS21" if file.endswith(".fs") else b"") + record(tid, b"x" * 50))
    assert problems(repository) == [f"{file}: The transaction {tid.hex()} stands for no moment of the calendar: it is damaged."]


@pytest.mark.parametrize("scope", ["all", "new"])
def test_transactions_that_go_back_in_time(repository: Path, scope: str) -> None:
    """What is remembered of a file that is not read again counts."""
    last = name(5, "deltafs")
    with (repository / last).open("rb") as stream:
        found = _filestorage.ending_at(stream, (repository / last).stat().st_size)
    assert found
    assert problems(repository) == []
    rewrite(repository, name(6, "deltafsz"), record(bytes.fromhex(found.tid), b"x" * 50))
    sentence = f"{name(6, 'deltafsz')} begins with transaction {found.tid}, which is not newer than {found.tid} at the end of {last}."
    for _each in range(2):
        assert problems(repository, scope=scope) == [sentence]


def test_damage_to_the_header_of_a_compressed_file_is_found(repository: Path) -> None:
    """gzip does not look at the time there, nor does it change the content."""
    path = repository / name(4, "fsz")
    content = bytearray(path.read_bytes())
    content[4] ^= 1
    path.write_bytes(content)
    assert problems(repository) == [f"{path.name} holds what it should, but is not as it was written, or confops.json is not, which remembers its md5."]
    forget(repository, "stored")
    assert problems(repository) == []


def test_a_file_compressed_anew_is_not_as_it_was_written(repository: Path) -> None:
    path = repository / name(4, "fsz")
    size = path.stat().st_size
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 9, mtime=1) + gzip.compress(b"", mtime=1))
    assert problems(repository) == [
        f"{path.name} has {path.stat().st_size} bytes; it was written with {size}.",
        f"{path.name} holds what it should, but is not as it was written, or confops.json is not, which remembers its md5.",
    ]


def test_an_index_must_hold_something(repository: Path) -> None:
    (repository / name(1, "index")).touch()
    (repository / name(2, "index")).write_bytes(b"x")
    report = _verify.verify(str(repository))
    assert report.problems == report.chains[0]["problems"] == [f"{name(1, 'index')} is empty."]
    assert [chain["ok"] for chain in report.chains] == [False, True, True]


UNFINISHED = "is unfinished: the run that wrote it was interrupted. The next backup removes it."


def test_an_unfinished_file_is_a_warning(repository: Path) -> None:
    """B19: nothing that was acknowledged is lost with it."""
    (repository / ".confops-1.fsz").touch()
    (repository / "tmp.tmp").touch()
    report = _verify.verify(str(repository))
    assert (report.problems, report.warnings) == ([], [f"{file} {UNFINISHED}" for file in (".confops-1.fsz", "tmp.tmp")])


def killed(repository: Path, suffix: str = "deltafs") -> str:
    """Leave what a backup leaves that is killed between the name of its file and its line."""
    left = name(9, suffix)
    (repository / left).write_bytes(b"x")
    _repository.write_state(str(repository), {**state_of(repository), "writing": left})
    return left


@pytest.mark.parametrize("suffix", ["deltafs", "deltafsz", "fs", "fsz"])
def test_a_file_that_was_not_acknowledged_is_a_warning(repository: Path, suffix: str) -> None:
    """B19: the run said that it was about to name the file, and did not come to its line."""
    left = killed(repository, suffix)
    report = _verify.verify(str(repository))
    assert (report.problems, len(report.chains), report.verified_files) == ([], 3, 8)
    assert report.warnings == [f"{left} does not count: the run that wrote it was interrupted. The next backup completes it, or stores the same again."]


def test_a_file_without_a_line_is_damage_unless_a_run_said_so(repository: Path) -> None:
    """B19, the other side: nobody said that it would come, it was acknowledged already, it is not the newest, or others lack their line too."""
    left = killed(repository)
    told, unlisted = state_of(repository), f"{left} is here, but {name(7, 'dat')} does not list it."
    for state in (
        {**told, "writing": name(8, "deltafs")},
        {**told, "stored": {**told["stored"], left: {"bytes": 1, "md5": "0" * 32}}},
        {key: value for key, value in told.items() if key != "writing"},
    ):
        _repository.write_state(str(repository), state)
        assert problems(repository, check=True) == [unlisted]
    _repository.write_state(str(repository), told)
    (repository / name(8, "deltafs")).write_bytes(b"x")
    assert unlisted in problems(repository, check=True)


def test_a_backup_that_is_at_work_is_no_interrupted_one(repository: Path, at_work: subprocess.Popen[str]) -> None:
    """B19: it is about to write the line."""
    killed(repository)
    report = _verify.verify(str(repository))
    assert report.problems == []
    assert report.warnings == [f"What was verified is not remembered. The repository {repository} is in use by process {at_work.pid}; nothing was done."]


def test_a_file_that_cannot_be_read_is_named(repository: Path) -> None:
    path = repository / name(1, "deltafsz")
    path.unlink()
    path.mkdir()
    assert problems(repository) == [f"{path.name} is a directory, not a file."]


def replace_by(path: Path, kind: str) -> str:
    """Put something else in the place of a file, and return what it is. A device is one only for root."""
    path.unlink(missing_ok=True)
    if kind == "link to a device":
        path.symlink_to("/dev/zero")
        return "is a symbolic link to a device, not a file."
    if kind == "dangling link":
        path.symlink_to("nowhere")
        return "is a symbolic link that leads nowhere."
    if kind == "loop":
        path.symlink_to(path.name)
        return "is a symbolic link that leads nowhere."
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            here = os.open(path.parent, os.O_PATH)
            one.bind(f"/proc/self/fd/{here}/{path.name}")  # a socket's path may have 107 bytes only
            os.close(here)
        return "is a socket, not a file."
    if kind == "directory":
        path.mkdir()
        return "is a directory, not a file."
    os.mkfifo(path)
    return "is a FIFO, not a file."


@pytest.mark.parametrize("kind", ["FIFO", "socket", "directory", "link to a device", "dangling link", "loop"])
@pytest.mark.parametrize("file", [name(1, "deltafsz"), name(2, "deltafs"), name(4, "fsz"), name(7, "fs"), name(2, "index")])
def test_what_is_no_file_is_named_in_one_sentence(repository: Path, file: str, kind: str) -> None:
    """B4: it is neither waited for nor read without end."""
    sentence = replace_by(repository / file, kind)
    assert problems(repository) == [f"{file} {sentence}"]
    assert _repository.read(str(repository)).all_problems() == ([] if file.endswith("index") else [f"{file} {sentence}"])


@pytest.mark.parametrize("kind", ["FIFO", "socket", "directory", "link to a device"])
def test_a_dat_file_or_a_memory_that_is_no_file(repository: Path, kind: str) -> None:
    """B4: the chain is damaged, or the memory is."""
    sentence = replace_by(repository / name(4, "dat"), kind).replace("a symbolic link to ", "")
    found = problems(repository, check=True)
    assert found == [f"{name(4, 'dat')} {sentence}"]
    replace_by(repository / "confops.json", kind)
    report = _verify.verify(str(repository), check=True)
    assert (report.problems, report.warnings) == (found, ["confops.json is damaged: what it remembered is lost."])


@pytest.mark.parametrize("kind", ["FIFO", "socket", "directory"])
def test_a_leftover_that_is_no_file(repository: Path, kind: str) -> None:
    """B4: what a backup can remove is a leftover, a directory is not."""
    sentence = replace_by(repository / ".confops-1.fsz", kind)
    report = _verify.verify(str(repository), check=True)
    assert (report.problems, report.warnings) == (([f".confops-1.fsz {sentence}"], []) if kind == "directory" else ([], [f".confops-1.fsz {UNFINISHED}"]))


def test_links_to_files_are_followed_and_told(repository: Path, tmp_path: Path) -> None:
    """B16: stock repozo restores from them, and so does this."""
    for file in (name(1, "deltafsz"), name(2, "deltafs"), name(0, "dat")):
        (repository / file).rename(tmp_path / file)
        (repository / file).symlink_to(tmp_path / file)
    report = _verify.verify(str(repository), check=True)
    assert report.problems == []
    assert report.warnings == [
        f"{file} is a symbolic link: what it leads to lies outside of the repository." for file in (name(1, "deltafsz"), name(2, "deltafs"))
    ]


def test_a_dat_file_as_windows_writes_it(repository: Path) -> None:
    """B16: CRLF, and backslashes in the paths. The bytes are the same ones."""
    for dat in repository.glob("*.dat"):
        dat.write_bytes(dat.read_bytes().replace(b"\n", b"\r\n"))
    assert problems(repository) == []
    forget(repository, "stored")
    dat = repository / name(4, "dat")
    dat.write_bytes(re.sub(rb"(?m)^.*/", rb"C:\\backup\\main\\", dat.read_bytes()))
    assert b"C:\\backup\\main\\2026" in dat.read_bytes()
    assert problems(repository) == []


def test_an_empty_member_before_the_data(repository: Path) -> None:
    """B16: gzip reads over it, and so does stock repozo."""
    forget(repository, "stored")
    for path in repository.glob("*z"):
        path.write_bytes(gzip.compress(b"") + path.read_bytes())
    assert problems(repository) == []


@pytest.mark.parametrize("file", [name(2, "deltafs"), name(3, "deltafsz")])
@pytest.mark.parametrize("scope", ["all", "new"])
@pytest.mark.parametrize("memory", ["stored", "verified"])
def test_a_file_that_was_changed_together_with_its_line(repository: Path, file: str, scope: str, memory: str) -> None:
    """B22: what confops.json remembers counts, time and again."""
    _verify.verify(str(repository))
    forget(repository, "stored" if memory == "verified" else "verified")
    state = state_of(repository)
    before = b"".join(_repository.blocks(str(repository / file), file.endswith("z")))
    after = before[:100] + bytes([before[100] ^ 1]) + before[101:]
    rewrite(repository, file, after)
    state.get("stored", {}).pop(name(0, "dat"), None)
    _repository.write_state(str(repository), state)
    old, new = (hashlib.md5(content, usedforsecurity=False).hexdigest() for content in (before, after))
    sentence = f"{name(0, 'dat')} says that {file} has the md5 {new}; confops.json remembers {old}."
    if memory == "stored" and file.endswith("z"):
        sentence = f"{file} holds what it should, but is not as it was written, or confops.json is not, which remembers its md5."
    for _each in range(2):
        assert sentence in problems(repository, scope=scope)


def test_every_file_from_one_to_the_end_is_read(repository: Path) -> None:
    """B2: what chooses where to stop must not believe bytes that nobody compared."""
    chain = _repository.read(str(repository)).chains[0]
    assert [_verify.damage(str(repository), chain, first) for first in range(5)] == [[]] * 5
    path = repository / name(1, "deltafsz")
    content = b"".join(_repository.blocks(str(path), True))
    path.write_bytes(gzip.compress(bytes([content[0] ^ 64]) + content[1:]))
    assert [len(_verify.damage(str(repository), chain, first)) for first in range(4)] == [1, 1, 0, 0]
    assert _verify.damage(str(repository), chain)[0].startswith(f"{path.name} has the md5 ")
    (repository / name(0, "dat")).unlink()
    assert _verify.damage(str(repository), _repository.read(str(repository)).chains[0], 3) == [f"{name(0, 'dat')} is missing."]


def test_everything_is_checked_before_it_fails(repository: Path) -> None:
    damaged = [name(0, "fs"), name(1, "deltafsz"), name(4, "fsz"), name(7, "fs")]
    for file in damaged:
        path = repository / file
        path.write_bytes(path.read_bytes()[:-1])
    found = problems(repository)
    assert all(any(sentence.startswith(file) for sentence in found) for file in damaged)


def test_a_large_file_uses_two_threads_and_is_read_the_same(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_verify, "CHUNK", 1)
    used: list[Iterator[bytes]] = []
    really_ahead = _repository.ahead

    def ahead(source: Iterator[bytes]) -> Iterator[bytes]:
        used.append(source)
        return really_ahead(source)

    monkeypatch.setattr(_repository, "ahead", ahead)
    for path in repository.glob("2*"):
        if path.name < name(7, ""):
            path.unlink()
    assert problems(repository, jobs=2) == []
    assert len(used) == 1
    path = repository / name(7, "fs")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert [sentence.split(" has ")[0] for sentence in problems(repository, jobs=2)] == [path.name]
    assert problems(repository, jobs=1) == problems(repository, jobs=2)
    assert len(used) == 3


# 1,000 corruptions


def flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def some(repository: Path, chance: random.Random, pattern: str) -> Path:
    return chance.choice(sorted(repository.glob(pattern)))


def flip_a_bit(repository: Path, chance: random.Random) -> str:
    path = some(repository, chance, chance.choice(["*.fs", "*.fsz", "*.deltafs", "*.deltafsz", "*.dat"]))
    flip(path, chance)
    return path.name


def flip_many(repository: Path, chance: random.Random) -> str:
    path = some(repository, chance, "2*")
    content = bytearray(path.read_bytes())
    start = chance.randrange(len(content))
    end = min(len(content), start + chance.randrange(1, 200))
    content[start:end] = bytes(byte ^ chance.randrange(1, 256) for byte in content[start:end])
    path.write_bytes(content)
    return path.name


def truncate(repository: Path, chance: random.Random) -> str:
    path = some(repository, chance, "2*")
    os.truncate(path, chance.randrange(path.stat().st_size))
    return path.name


def lengthen(repository: Path, chance: random.Random) -> str:
    path = some(repository, chance, "2*")
    with path.open("ab") as stream:
        stream.write(chance.choice([b"\0", b"\n", b"garbage", gzip.compress(b""), path.read_bytes()]))
    return path.name


def remove(repository: Path, chance: random.Random) -> str:
    path = some(repository, chance, "2*")
    path.unlink()
    # Without its full backup a chain shows as a .dat file of nothing.
    return f"{path.stem}.dat" if path.suffix in (".fs", ".fsz") else path.name


def add(repository: Path, chance: random.Random) -> str:
    moment = FIRST + timedelta(minutes=chance.choice([-30, 30, 90, 7 * 60 + 30]))
    path = repository / f"{moment:{_repository.STAMP}}.{chance.choice(['fs', 'fsz', 'deltafs', 'deltafsz', 'dat'])}"
    shutil.copyfile(some(repository, chance, f"*{path.suffix}"), path)
    return path.stem


def add_in_the_same_second(repository: Path, chance: random.Random) -> str:
    path = some(repository, chance, "*fs*")
    other = path.with_suffix(chance.choice([suffix for suffix in (".fs", ".fsz", ".deltafs", ".deltafsz") if suffix != path.suffix]))
    shutil.copyfile(path, other)
    return other.name


def exchange(repository: Path, chance: random.Random) -> str:
    one = some(repository, chance, "*fs*")
    other = chance.choice([path for path in sorted(repository.glob("*fs*")) if path.read_bytes() != one.read_bytes()])
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    return chance.choice([one, other]).name


def rename(repository: Path, chance: random.Random) -> str:
    path = some(repository, chance, "*fs*")
    suffix = path.suffix[:-1] if path.suffix.endswith("z") else f"{path.suffix}z"
    path.rename(path.with_suffix(suffix))
    return path.with_suffix(suffix).name


def rename_in_the_dat_file_too(repository: Path, chance: random.Random) -> str:
    """The name is then that of a file with the other compression, wherever one looks."""
    old = some(repository, chance, "*fs*").name
    new = rename_one(repository, old)
    for dat in repository.glob("*.dat"):
        dat.write_text(dat.read_text().replace(f"{old} ", f"{new} "))
    forget(repository, "stored")
    return new


def rename_one(repository: Path, old: str) -> str:
    new = old[:-1] if old.endswith("z") else f"{old}z"
    (repository / old).rename(repository / new)
    return new


def change_lines(repository: Path, chance: random.Random) -> str:
    """Lines twice, out of order, missing, or with a range that overlaps or leaves a hole. Nothing is remembered of the file."""
    dat = chance.choice([repository / name(0, "dat"), repository / name(4, "dat")])
    lines = dat.read_text().splitlines()
    number, other = chance.sample(range(len(lines)), 2)
    path, start, end, md5 = lines[number].split()
    change = chance.choice(["twice", "order", "missing", "start", "end", "md5", "number"])
    if change == "twice":
        lines.insert(other, lines[number])
    elif change == "order":
        lines[number], lines[other] = lines[other], lines[number]
    elif change == "missing":
        del lines[number]
    elif change == "start":
        lines[number] = f"{path} {max(0, int(start) + chance.choice([-1, 1]) * chance.randrange(1, 500)) or 1} {end} {md5}"
    elif change == "end":
        lines[number] = f"{path} {start} {int(end) + chance.choice([-1, 1]) * chance.randrange(1, 500)} {md5}"
    elif change == "md5":
        lines[number] = f"{path} {start} {end} {md5[1:]}{'0' if md5[0] != '0' else '1'}"
    else:
        lines[number] = f"{path} {start} {end}"
    dat.write_text("\n".join(lines) + "\n")
    forget(repository, "stored")
    return dat.name


CORRUPTIONS: list[Callable[[Path, random.Random], str]] = [
    *[flip_a_bit] * 5,
    flip_many,
    truncate,
    lengthen,
    remove,
    add,
    add_in_the_same_second,
    exchange,
    rename,
    rename_in_the_dat_file_too,
    *[change_lines] * 2,
]


def restore(repository: Path, made: dict[str, bytes]) -> None:
    """Undo a corruption."""
    for path in list(repository.iterdir()):
        if path.name not in made:
            path.unlink()
    for file, content in made.items():
        path = repository / file
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)


@pytest.mark.parametrize("seed", range(10))
def test_every_corruption_is_found_and_its_file_named(repository: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 (the same each time)
    made = {path.name: path.read_bytes() for path in repository.iterdir()}
    for number in range(100):
        corrupt = chance.choice(CORRUPTIONS)
        named = corrupt(repository, chance)
        found = problems(repository, jobs=1, check=True)
        assert any(named in sentence for sentence in found), (seed, number, corrupt.__name__, named, found)
        restore(repository, made)
    assert problems(repository) == []


def test_flips_in_what_others_wrote_are_found_or_change_nothing(repository: Path) -> None:
    """Without a memory, what passes restores the same."""

    def content() -> list[bytes]:
        return [b"".join(_repository.blocks(str(path), path.suffix.endswith("z"))) for path in sorted(repository.glob("*fs*"))]

    (repository / "confops.json").unlink()
    made = {path.name: path.read_bytes() for path in repository.iterdir()}
    chance, passed, whole = random.Random(1), 0, content()  # noqa: S311 (the same each time)
    for _each in range(200):
        flip(some(repository, chance, chance.choice(["*z", "*.dat"])), chance)
        if not problems(repository, jobs=1, check=True):
            passed += 1
            assert content() == whole
        restore(repository, made)
    assert 0 < passed < 100


# What is remembered


def test_only_what_is_new_is_read_again(repository: Path) -> None:
    first = _verify.verify(str(repository), scope="new")
    assert (first.verified_files, first.skipped_files) == (8, 0)
    memory = state_of(repository)["verified"]
    again = _verify.verify(str(repository), scope="new")
    assert (again.problems, again.verified_files, again.verified_bytes, again.skipped_files, again.remembered) == ([], 0, 0, 8, True)
    assert state_of(repository)["verified"] == memory
    assert memory[name(5, "deltafs")].keys() == {"bytes", "md5", "start", "end", "first", "last", "at"}
    assert datetime.strptime(memory[name(5, "deltafs")]["at"], "%Y-%m-%dT%H:%M:%SZ")
    # Damage of the same size is not looked for, by definition; a changed size, line or memory is.
    path = repository / name(5, "deltafs")
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert problems(repository, scope="new") == []
    assert [sentence.split(" has ")[0] for sentence in problems(repository)] == [path.name]
    assert path.name not in state_of(repository)["verified"]
    assert [sentence.split(" has ")[0] for sentence in problems(repository, scope="new")] == [path.name]


@pytest.mark.parametrize("change", [("bytes", 1), ("start", 1), ("end", 1)])
def test_a_file_that_differs_from_what_is_remembered_is_read_again(repository: Path, change: tuple[str, Any]) -> None:
    _verify.verify(str(repository))
    state = state_of(repository)
    state["verified"][name(4, "fsz")][change[0]] = change[1]
    _repository.write_state(str(repository), state)
    report = _verify.verify(str(repository), scope="new")
    assert (report.problems, report.verified_files, report.skipped_files) == ([], 1, 7)


def test_the_last_line_of_a_compressed_file_is_remembered_too(repository: Path) -> None:
    _verify.verify(str(repository))
    dat = repository / name(4, "dat")
    path, start, end, md5 = dat.read_text().splitlines()[-1].split()
    dat.write_text(dat.read_text().replace(f"{start} {end} {md5}", f"{start} {int(end) + 1} {md5}"))
    forget(repository, "stored")
    size = int(end) - int(start)
    assert problems(repository, scope="new") == [f"{Path(path).name} holds {size} bytes uncompressed; {dat.name} says {size + 1}."]


def test_other_memories_stay_and_those_of_removed_files_go(repository: Path) -> None:
    _verify.verify(str(repository))
    before = state_of(repository)
    for path in repository.glob(f"{name(7, '')}*"):
        path.unlink()
    _repository.write_state(str(repository), {**before, "pins": ["kept"]})
    assert problems(repository, scope="new") == []
    after = state_of(repository)
    assert after.pop("verified") == {file: known for file, known in before.pop("verified").items() if file != name(7, "fs")}
    assert after == {**before, "pins": ["kept"]}


@pytest.mark.parametrize(
    "state",
    [{"stored": 1, "verified": [1]}, {"stored": {name(4, "fsz"): {"bytes": "1"}}, "verified": {name(4, "fsz"): 7}}, {"stored": {name(4, "dat"): {"md5": 1}}}],
)
def test_a_damaged_memory_is_made_anew(repository: Path, state: dict[str, Any]) -> None:
    _repository.write_state(str(repository), state)
    assert problems(repository, scope="new") == []
    assert len(state_of(repository)["verified"]) == 8


def test_check_mode_verifies_and_remembers_nothing(repository: Path) -> None:
    before = {path.name: path.read_bytes() for path in repository.iterdir()}
    report = _verify.verify(str(repository), check=True)
    assert (report.problems, report.verified_files, report.remembered, report.warnings) == ([], 8, False, [])
    assert {path.name: path.read_bytes() for path in repository.iterdir()} == before


def test_a_memory_that_cannot_be_written_is_a_warning(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(path: str, _content: bytes) -> None:
        raise OSError(30, "Read-only file system", path)

    monkeypatch.setattr(_repository, "replace", read_only)
    report = _verify.verify(str(repository))
    assert (report.problems, report.verified_files, report.remembered) == ([], 8, False)
    assert report.warnings == [f"What was verified is not remembered. {repository}/confops.json: Read-only file system."]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pins": 1}'])
def test_a_memory_that_is_damaged_is_a_warning_and_kept(repository: Path, content: bytes) -> None:
    (repository / "confops.json").write_bytes(content)
    lost = "confops.json is damaged: what it remembered is lost."
    report = _verify.verify(str(repository), check=True)
    assert (report.problems, report.remembered, report.warnings) == ([], False, [lost])
    report = _verify.verify(str(repository))
    assert (report.problems, report.remembered) == ([], True)
    assert report.warnings == [lost, "confops.json is kept as confops.json.damaged-1: it may name pinned chains. Until that is settled none is pruned."]
    assert (repository / "confops.json.damaged-1").read_bytes() == content
    assert _verify.verify(str(repository)).warnings == []


def test_a_memory_that_a_killed_run_did_not_finish_is_a_warning(repository: Path) -> None:
    (repository / ".confops-1-2-confops.json").write_bytes(b"{")
    report = _verify.verify(str(repository))
    assert (report.problems, report.warnings) == ([], [f".confops-1-2-confops.json {UNFINISHED}"])


def test_whoever_owns_the_repository_owns_what_is_remembered(repository: Path) -> None:
    """root may verify what is another user's."""
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    for path in [repository, *repository.iterdir()]:
        os.chown(path, owner, -1)
    (repository / "confops.json").chmod(0o640)
    assert _verify.verify(str(repository)).remembered
    assert {path.stat().st_uid for path in repository.iterdir()} == {owner}
    assert (repository / "confops.json").stat().st_mode & 0o777 == 0o640


def test_a_memory_that_cannot_be_read_is_a_warning(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(_repository, "_load", refuse)
    report = _verify.verify(str(repository))
    assert (report.problems, report.verified_files, report.remembered) == ([], 8, False)
    assert report.warnings == [
        "confops.json cannot be read (Permission denied): what it remembers was not compared.",
        f"What was verified is not remembered. {repository}: Permission denied.",
    ]


# While others are at work

_HOLD = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def at_work(repository: Path) -> Iterator[subprocess.Popen[str]]:
    """A run in another process, which has an unfinished file."""
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(repository)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        (repository / f".confops-{process.pid}.fsz").touch()
        yield process
        process.kill()


def test_a_backup_at_work_does_not_disturb(repository: Path, at_work: subprocess.Popen[str]) -> None:
    report = _verify.verify(str(repository))
    assert (report.problems, report.verified_files, report.remembered) == ([], 8, False)
    assert report.warnings == [f"What was verified is not remembered. The repository {repository} is in use by process {at_work.pid}; nothing was done."]


def test_a_line_that_a_backup_is_about_to_write_is_waited_for(repository: Path, at_work: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The data file is there a moment before its line."""
    monkeypatch.setattr(_verify, "_PATIENCE", 60.0)
    dat = repository / name(4, "dat")
    whole = dat.read_bytes()
    dat.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    waited: list[float] = []

    def pause(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            dat.write_bytes(whole)
        if len(waited) == 5:
            at_work.kill()
            at_work.wait()
            (repository / f".confops-{at_work.pid}.fsz").unlink()

    monkeypatch.setattr(time, "sleep", pause)
    report = _verify.verify(str(repository))
    assert (report.problems, report.verified_files, report.remembered, report.warnings) == ([], 8, True, [])
    assert len(waited) == 5


def test_a_line_that_does_not_come_is_a_problem(repository: Path, at_work: subprocess.Popen[str]) -> None:
    dat = repository / name(4, "dat")
    dat.write_bytes(b"".join(dat.read_bytes().splitlines(keepends=True)[:2]))
    forget(repository, "stored")
    assert at_work.pid
    assert problems(repository) == [f"{name(6, 'deltafsz')} is here, but {dat.name} does not list it."]


def test_a_chain_that_is_pruned_meanwhile_is_left_out(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_all = _verify._read_all

    def prune_first(*arguments: Any) -> Any:
        for path in repository.iterdir():
            if path.name < name(4, ""):
                path.unlink()
        return read_all(*arguments)

    monkeypatch.setattr(_verify, "_read_all", prune_first)
    report = _verify.verify(str(repository))
    assert (report.problems, len(report.chains)) == ([], 2)
    assert sorted(state_of(repository)["verified"])[0] == name(4, "fsz")


def test_a_file_that_goes_meanwhile_is_missing(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_all = _verify._read_all

    def remove_first(*arguments: Any) -> Any:
        (repository / name(5, "deltafs")).unlink()
        return read_all(*arguments)

    monkeypatch.setattr(_verify, "_read_all", remove_first)
    assert problems(repository) == [f"{name(5, 'deltafs')} cannot be read: No such file or directory."]


# The module


def module(capsys: pytest.CaptureFixture[str], repository: Path, **options: Any) -> dict[str, Any]:
    """Run the module and return its answer."""
    with patch_module_args({"repository": str(repository), **options}), pytest.raises(SystemExit):
        repozo_verify.main()
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    answer.pop("invocation")
    return answer


def test_the_module_checks_runs_and_runs_again(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checked, ran = module(capsys, repository, _ansible_check_mode=True), module(capsys, repository)
    again = module(capsys, repository, scope="new", jobs=1)
    assert (checked.pop("remembered"), ran.pop("remembered")) == (False, True)
    assert {**checked, "seconds": 0} == {**ran, "seconds": 0}
    assert ran.keys() == {"changed", "chains", "problems", "verified_files", "verified_bytes", "skipped_files", "seconds"}
    assert (ran["changed"], again["changed"]) == (False, False)
    assert (ran["verified_files"], again["verified_files"], again["skipped_files"]) == (8, 0, 8)
    assert again["chains"] == ran["chains"]


def test_the_module_fails_with_the_first_problems_and_all_the_data(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for hours in range(1, 5):
        (repository / name(hours, "index")).touch()
    failed = module(capsys, repository)
    sentences = [f"{name(hours, 'index')} is empty." for hours in range(1, 5)]
    assert failed["failed"] is True
    assert failed["msg"] == f"The repository {repository} is not sound. {' '.join(sentences[:3])} And 1 more."
    assert failed["problems"] == sentences
    assert [chain["ok"] for chain in failed["chains"]] == [False, False, True]
    assert (failed["verified_files"], failed["remembered"]) == (8, True)
    assert _verify.summary("/r", sentences[:3]) == f"The repository /r is not sound. {' '.join(sentences[:3])}"


def test_the_module_warns(repository: Path, capsys: pytest.CaptureFixture[str], at_work: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _module, sentence: warned.append(sentence))
    answer = module(capsys, repository)
    assert answer["remembered"] is False
    assert warned == [f"What was verified is not remembered. The repository {repository} is in use by process {at_work.pid}; nothing was done."]


def test_there_must_be_something_to_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README").touch()
    for path, sentence in (
        (tmp_path, f"The repository {tmp_path} is empty: it holds no backup."),
        (tmp_path / "no", f"The repository {tmp_path}/no cannot be read: No such file or directory."),
    ):
        failed = module(capsys, path)
        assert (failed["failed"], failed["msg"]) == (True, sentence)


def test_there_are_only_so_many_cores(repository: Path) -> None:
    """B17"""
    with pytest.raises(RepositoryError, match=r"^jobs is 99999999999999999999; at most 1024 are possible\.$"):
        _verify.verify(str(repository), jobs=99999999999999999999)


@pytest.mark.parametrize("jobs", [0, -1])
def test_a_core_is_needed(repository: Path, jobs: int) -> None:
    with pytest.raises(RepositoryError, match=rf"^jobs is {jobs}; at least one is needed\.$"):
        _verify.verify(str(repository), jobs=jobs)
