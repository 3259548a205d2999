"""Making backups: what is decided, what is stored, and what is left when a run is killed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import resource
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.confops.indico.plugins.module_utils import (
    _backup_set,
    _catalogue,
    _filestorage,
    _history,
    _pipeline,
    _prune,
    _repository,
    _repozo,
    _restore,
    _verify,
)
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError
from ansible_collections.confops.indico.plugins.modules import repozo

from tests.unit.storage import Storage, record, tid_of


class Site:
    """A storage and its repository; each backup carries the next second, without waiting for it."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.storage, self.repository = Storage(directory / "Data.fs"), directory / "repository"
        self.repository.mkdir()
        self.seconds = 0
        monkeypatch.setattr(_repozo, "_stamp", self.stamp)

    def stamp(self, _repository_read: object = None) -> str:
        self.seconds += 1
        return f"2026-03-01-12-{self.seconds // 60:02}-{self.seconds % 60:02}"

    def backup(self, **options: Any) -> _repozo.Result:
        return _repozo.backup(str(self.storage.path), str(self.repository), **options)

    def restored(self, target: Path) -> bytes:
        target.unlink(missing_ok=True)
        _restore.restore(_restore.Request(repository=str(self.repository), target=str(target)))
        return target.read_bytes()

    def names(self) -> list[str]:
        return sorted(path.name for path in self.repository.iterdir())


def everything(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def in_child(prepare: Callable[[], object], act: Callable[[], object]) -> str:
    """Run both in a process of their own, which may give up rights, and return the sentence with which act refuses, or nothing."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            prepare()
            act()
        except RepositoryError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as stream:
        sentence = stream.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return sentence


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


@pytest.mark.parametrize("compression", ["gzip", "none"])
@pytest.mark.parametrize("program", [True, False], ids=["igzip", "zlib"])
def test_full_then_incremental_then_nothing(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compression: str, program: bool) -> None:
    if not program:
        monkeypatch.setattr(shutil, "which", lambda _name: None)
    kinds = []
    for number in (5, 3, 0, 1):
        site.storage.add(number)
        predicted = site.backup(compression=compression, check=True)
        done = site.backup(compression=compression)
        assert predicted.decision == done.decision
        kinds.append(done.decision.kind)
        assert site.restored(tmp_path / "out.fs") == site.storage.path.read_bytes()
    assert kinds == ["full", "incremental", "nothing", "incremental"]
    assert _verify.verify(str(site.repository)).problems == []


def test_pieces_larger_than_a_chunk(site: Site, tmp_path: Path) -> None:
    site.storage.add(3, size=_repository.CHUNK + 12345)
    site.backup()
    assert site.restored(tmp_path / "out.fs") == site.storage.path.read_bytes()


def change(site: Site, what: str) -> None:
    if what == "packed":
        site.storage.pack(2)
    elif what == "packed, then longer than before":
        site.storage.pack(2)
        site.storage.add(20)
    elif what == "another database":
        Storage(site.storage.path, seed=7).add(30)
    elif what == "another history of the same length":
        end = site.storage.ends[-1]
        Storage(site.storage.path, seed=7).add(len(site.storage.tids))
        assert site.storage.path.stat().st_size == end


@pytest.mark.parametrize("remembered", [True, False], ids=["with its memory", "as stock repozo leaves it"])
@pytest.mark.parametrize("what", ["packed", "packed, then longer than before", "another database", "another history of the same length"])
def test_a_database_that_is_another_one_begins_a_new_chain(site: Site, tmp_path: Path, what: str, remembered: bool) -> None:
    site.storage.add(8)
    site.backup()
    site.storage.add(2)
    site.backup()
    if not remembered:
        (site.repository / _repository.STATE).unlink()
    change(site, what)
    before = {name: content for name, content in everything(site.repository).items() if name != _repository.STATE}
    done = site.backup()
    assert before.items() <= everything(site.repository).items()
    assert done.decision.kind == "full"
    assert "packed or replaced" in done.decision.reason
    assert site.restored(tmp_path / "out.fs") == site.storage.path.read_bytes()


def test_a_full_backup_when_asked_for_and_when_the_chain_is_long(site: Site) -> None:
    site.storage.add(2)
    kinds = []
    for _each in range(5):
        kinds.append(site.backup(max_incrementals=2).decision.kind)
        site.storage.add(1)
    assert kinds == ["full", "incremental", "incremental", "full", "incremental"]
    assert site.backup(full="because").decision.reason == "because"


def test_what_is_not_committed_yet_is_left_for_the_next_run(site: Site, tmp_path: Path) -> None:
    site.storage.add(3)
    committed = site.storage.path.read_bytes()
    whole = site.storage.unfinished()
    site.backup()
    assert site.restored(tmp_path / "out.fs") == committed
    assert site.backup().decision.kind == "nothing"
    site.storage.path.write_bytes(committed + whole)
    assert site.backup().decision.kind == "incremental"
    assert site.restored(tmp_path / "out.fs") == committed + whole


def test_an_empty_database_has_nothing_to_store(site: Site) -> None:
    assert (site.backup().decision.kind, site.backup().decision.reason) == ("nothing", "the database holds no transaction yet")


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (lambda site: site.storage.path.unlink(), "Data.fs cannot be read: No such file or directory."),
        (lambda site: shutil.rmtree(site.repository), "repository cannot be opened: No such file or directory."),
        (lambda site: site.storage.path.with_name("Data.fs.pack").touch(), "is being packed"),
        (lambda site: (site.repository / "tmp.tmp").touch(), "stock repozo may be at work there"),
        (lambda site: setattr(site, "repository", site.repository.with_name("my backups")), "stock repozo splits its lines on blanks"),
    ],
    ids=["no database", "no repository", "pack", "stock repozo", "blank"],
)
def test_refusals_are_sentences(site: Site, prepare: Callable[[Site], object], sentence: str) -> None:
    site.storage.add(1)
    prepare(site)
    for check in (True, False):
        with pytest.raises(RepositoryError, match=sentence):
            site.backup(check=check)


def test_a_transaction_of_no_day_is_refused(site: Site) -> None:
    site.storage.add(3)
    site.backup()
    before = everything(site.repository)
    tid = struct.pack(">LL", ((126 * 12 + 1) * 31 + 29) * 1440, 0)  # 30 February 2026
    with site.storage.path.open("ab") as stream:
        stream.write(record(tid, b"x" * 50))
    for check in (True, False):
        with pytest.raises(_filestorage.FileStorageError, match=f"^The transaction {tid.hex()} stands for no moment of the calendar: it is damaged\\.$"):
            site.backup(check=check)
    assert everything(site.repository) == before


@pytest.mark.parametrize("kind", ["incremental", "nothing"])
def test_a_damaged_memory_is_set_aside_since_it_holds_the_pins(site: Site, kind: str) -> None:
    site.storage.add(3)
    site.backup()
    state = site.repository / _repository.STATE
    damaged = state.read_bytes()[:-9]
    state.write_bytes(damaged)
    site.storage.add(0 if kind == "nothing" else 1)
    predicted, done = site.backup(check=True), site.backup()
    assert (predicted.decision, predicted.repaired) == (done.decision, done.repaired)
    assert done.decision.kind == kind
    assert done.repaired == ["moved the damaged confops.json to confops.json.damaged-1, since it may name pinned chains; until that is settled none is pruned"]
    assert (site.repository / "confops.json.damaged-1").read_bytes() == damaged
    with pytest.raises(RepositoryError, match=r"^confops\.json\.damaged-1 in .* is damaged, so it is not known which chains are pinned; nothing was deleted\."):
        _prune.prune(str(site.repository), _prune.Policy(keep_daily=1))
    assert site.backup().repaired == []


@pytest.mark.parametrize("tail", [7, {}, [], {"chain": "2026-03-01-12-00-01"}, {"bytes": "many"}, {"md5": 7}])
def test_a_memory_of_another_form_is_passed_over(site: Site, tail: Any) -> None:
    site.storage.add(3)
    site.backup()
    state = _repository.read_state(str(site.repository))
    state["tail"] = {**state["tail"], **tail} if isinstance(tail, dict) else tail
    _repository.write_state(str(site.repository), state)
    site.storage.add(1)
    assert site.backup().decision.kind == "incremental"  # the last range is compared instead (B18)


def test_a_chain_with_two_files_of_one_second_is_not_continued(site: Site, tmp_path: Path) -> None:
    """Stock repozo passes over one of them."""
    site.storage.add(3)
    site.backup()
    site.storage.add(3)
    site.backup()
    (site.repository / "2026-03-01-12-00-02.deltafsz").rename(site.repository / "2026-03-01-12-00-01.deltafsz")
    dat = site.repository / "2026-03-01-12-00-01.dat"
    dat.write_text(dat.read_text().replace("00-02", "00-01"))
    site.storage.add(3)
    predicted, done = site.backup(check=True), site.backup()
    assert predicted.decision == done.decision
    assert (done.decision.kind, done.decision.reason) == (
        "full",
        "the chain 2026-03-01-12-00-01 is damaged: 2026-03-01-12-00-01.fsz and 2026-03-01-12-00-01.deltafsz are of the same second;"
        " stock repozo restores only one of them.",
    )
    assert site.restored(tmp_path / "out.fs") == site.storage.path.read_bytes()


def test_something_that_is_no_database_is_refused(site: Site) -> None:
    site.storage.path.write_bytes(b"hello")
    with pytest.raises(Exception, match=r"Data\.fs is no FileStorage"):
        site.backup()
    assert site.names() == []


def test_a_clock_that_was_set_back_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    site.storage.add(1)
    site.backup()
    (name,) = [one for one in site.names() if one.endswith("fsz")]
    for suffix in (".fsz", ".dat"):
        (site.repository / (name.split(".")[0] + suffix)).rename(site.repository / f"2999-01-01-00-00-00{suffix}")
    dat = site.repository / "2999-01-01-00-00-00.dat"
    dat.write_text(dat.read_text().replace(name, "2999-01-01-00-00-00.fsz"))
    site.storage.add(1)
    before = everything(site.repository)
    with pytest.raises(RepositoryError, match="the clock was set back"):
        site.backup()
    assert everything(site.repository) == before


def test_a_backup_named_after_no_moment_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    site.storage.add(1)
    (site.repository / "9999-99-99-99-99-99.fs").write_bytes(b"FS21")
    before = everything(site.repository)
    with pytest.raises(RepositoryError, match=r"is named 9999-99-99-99-99-99, a moment that no calendar has\. Take it out of there first\.$"):
        site.backup()
    assert everything(site.repository) == before


def test_a_full_disk_leaves_what_was_there(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    site.storage.add(3)
    site.backup()
    before, content = site.names(), site.storage.path.read_bytes()
    site.storage.add(3)

    def full(_target: object, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_pipeline, "_write", full)
        # There is room, so it was a quota, or the inodes: numbers of bytes would be untrue.
        with pytest.raises(RepositoryError, match=r"^The incremental backup could not .*: No space left on device\. Nothing that was there has changed\.$"):
            site.backup(compression="none")
        patch.setattr(_repozo, "_ask", lambda *_arguments: None)
        patch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=10))
        with pytest.raises(
            RepositoryError, match=r"^The incremental backup needs up to \d+ bytes on .*, which has 10 free; nothing that was there has changed\.$"
        ):
            site.backup(compression="none")
    assert site.names() == before
    assert site.restored(tmp_path / "out.fs") == content


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_a_backup_without_room_is_not_begun(site: Site, monkeypatch: pytest.MonkeyPatch, compression: str) -> None:
    """How small the first one will be nobody knows, unless nothing is compressed."""
    site.storage.add(3)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=10))
    if compression == "gzip":
        site.backup(compression=compression)
        site.storage.add(3)
    before = site.names()
    for check in (True, False):
        with pytest.raises(RepositoryError, match=r"^The (full|incremental) backup needs up to \d+ bytes on the file system of .*, which has 10 free; nothing"):
            site.backup(compression=compression, check=check)
    assert site.names() == before


@pytest.mark.parametrize("compression", ["gzip", "none"])
@pytest.mark.parametrize("program", [True, False], ids=["igzip", "zlib"])
@pytest.mark.parametrize("before", [0, 1], ids=["full", "incremental"])
def test_a_file_that_cannot_grow_leaves_what_was_there(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compression: str, program: bool, before: int
) -> None:
    """The kernel's limit on a file's size stands for a full disk, which only root can make."""
    if not program:
        monkeypatch.setattr(shutil, "which", lambda _name: None)
    for _each in range(before):
        site.storage.add(3)
        site.backup()
    known, content = everything(site.repository), site.storage.path.read_bytes()
    site.storage.add(20, size=9000)
    sentence = in_child(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)), lambda: site.backup(compression=compression))
    kind = "incremental" if before else "full"
    assert sentence.startswith(f"The {kind} backup could not be written to {site.repository}: ")
    assert sentence.endswith(". Nothing that was there has changed.")
    assert everything(site.repository) == known
    assert not before or site.restored(tmp_path / "out.fs") == content
    assert (site.backup(compression=compression).decision.kind, site.restored(tmp_path / "out.fs")) == (kind, site.storage.path.read_bytes())


@pytest.mark.parametrize("left", [False, True], ids=["new", "with a leftover"])
@pytest.mark.parametrize("mode", [0o500, 0o000], ids=["read only", "another owner's"])
def test_a_repository_that_cannot_be_written_is_left_alone(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int, left: bool) -> None:
    """B13: check mode asks what the run needs, and says the same. root gives up its rights for this, so that the mode counts."""
    site.storage.add(3)
    site.backup()
    site.storage.add(3)
    if left:
        (site.repository / ".confops-1.fsz").write_bytes(b"unfinished")
    known = everything(site.repository)
    monkeypatch.chdir(tmp_path)  # who is nobody cannot come from above
    tmp_path.chmod(0o711)

    def become_another() -> None:
        site.storage.path.chmod(0o644)
        for path in site.repository.iterdir():
            path.chmod(0o644)
        site.repository.chmod(mode | mode >> 6)
        site.storage.path, site.repository = Path("Data.fs"), Path("repository")
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)

    sentences = []
    for check in (True, False):
        site.storage.path, site.repository = tmp_path / "Data.fs", tmp_path / "repository"
        sentences.append(in_child(become_another, lambda check=check: site.backup(check=check)))  # type: ignore[misc]
    site.storage.path, site.repository = tmp_path / "Data.fs", tmp_path / "repository"
    site.repository.chmod(0o700)
    user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    wanted = "The repository repository cannot be opened: Permission denied." if mode == 0 else f"repository is not writable for user {user}."
    assert sentences == [wanted, wanted]
    assert everything(site.repository) == known


def test_what_root_stores_belongs_to_the_owner_of_the_repository(site: Site, tmp_path: Path) -> None:
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    os.chown(site.repository, owner, -1)
    for _each in range(2):
        site.storage.add(2)
        site.backup()
    assert [path.stat().st_uid for path in site.repository.iterdir()] == [owner] * 4
    assert site.restored(tmp_path / "out.fs") == site.storage.path.read_bytes()


def test_a_pack_that_ends_while_the_database_is_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.storage.add(9)
    copy = _repozo._copy

    def slow(*arguments: Any) -> Any:
        done = copy(*arguments)
        site.storage.pack(2)
        return done

    monkeypatch.setattr(_repozo, "_copy", slow)
    with pytest.raises(RepositoryError, match="was replaced while it was read"):
        site.backup()
    assert site.names() == []


@pytest.mark.parametrize("suffix", ["fs", "fsz", "deltafs", "deltafsz", "dat", "index"])
@pytest.mark.parametrize("stamp", ["0000-00-00-00-00-00", "0001-01-01-00-00-00", "2026-13-45-99-99-99", "9999-12-31-23-59-59", "9999-99-99-99-99-99"])
def test_names_of_no_moment_end_in_sentences(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stamp: str, suffix: str) -> None:
    site.storage.add(3)
    site.backup()
    monkeypatch.undo()
    (site.repository / f"{stamp}.{suffix}").write_bytes(b"x")
    before, path, target = everything(site.repository), str(site.repository), tmp_path / "out.fs"
    policy = _prune.Policy(window_days=36500, keep_yearly=1, keep_chains_min=1, require_verified=False)

    def listed() -> None:
        repository, _warnings = _history.open_repository(path)
        for day in ("0001-01-01", "2026-03-01", "9899-12-31"):
            _history.listed(repository, _history.moment_of(day, end=False), _history.moment_of(day), 9, None)

    acts: list[Callable[[], object]] = [
        lambda: _catalogue.catalogue(path, max_gap=1),
        lambda: _verify.verify(path, check=True),
        listed,
        lambda: _restore.restore(_restore.Request(path, str(target), _history.wanted_time("2026-03-01", "UTC"))),
        lambda: _prune.prune(path, policy),
        lambda: site.backup(full="asked for"),
    ]
    for act in acts:
        with contextlib.suppress(RepositoryError):
            act()
    kept = {name: content for name, content in before.items() if name != _repository.STATE}
    assert kept.items() <= everything(site.repository).items()
    assert site.restored(target) == site.storage.path.read_bytes()


def module(capsys: pytest.CaptureFixture[str], site: Site, **options: Any) -> dict[str, Any]:
    """Run the module and return its answer."""
    with patch_module_args({"database": str(site.storage.path), "repository": str(site.repository), **options}), pytest.raises(SystemExit):
        repozo.main()
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    answer.pop("invocation")
    return answer


def test_the_module_checks_runs_and_then_has_nothing_to_do(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.storage.add(3, user="ada")
    (site.repository / ".confops-1.fs").touch()
    checked, ran, again = module(capsys, site, _ansible_check_mode=True), module(capsys, site), module(capsys, site)
    for key in ("kind", "reason", "start", "end", "raw_bytes", "last_transaction", "repaired", "changed"):
        assert checked[key] == ran[key]
    assert (ran["changed"], ran["kind"], ran["repaired"]) == (True, "full", ["removed .confops-1.fs, which an interrupted run left"])
    assert (ran["last_transaction"]["tid"], ran["last_transaction"]["user"]) == (site.storage.tids[-1], "ada")
    assert (checked["file"], Path(ran["file"]).stat().st_size) == (None, ran["stored_bytes"])
    assert (again["changed"], again["kind"], again["reason"]) == (False, "nothing", "no transaction since the last backup")


def test_the_module_fails_with_the_sentence(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.storage.path.write_bytes(b"hello")
    for options, sentence in (
        ({}, f"{site.storage.path} is no FileStorage: it does not begin with FS21."),
        ({"max_incrementals": 0}, "max_incrementals is 0; it must be 1 or more."),
        ({"repository": "/no/such/place"}, "The repository /no/such/place cannot be opened: No such file or directory."),
    ):
        failed = module(capsys, site, **options)
        assert (failed["failed"], failed["msg"]) == (True, sentence)


CALLS = ["fsync", "link", "unlink", "replace"]


def killed(site: Site, monkeypatch: pytest.MonkeyPatch, number: int) -> bool:
    """Run a backup in a child that ends before the number-th call that changes the disk. Return whether it got there."""
    child = os.fork()
    if child == 0:
        left = [number]
        for name in CALLS:
            real = getattr(os, name)

            def call(*arguments: Any, _real: Any = real, **options: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    os._exit(9)
                return _real(*arguments, **options)

            setattr(os, name, call)
        try:
            site.backup()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9


@pytest.mark.parametrize("before", [0, 2], ids=["the first full", "an incremental"])
def test_killed_before_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    """The last acknowledged backup restores at once, and the next run clears up and stores what was missed."""
    number, again = 0, True
    while again:
        (tmp_path / str(number)).mkdir()
        site = Site(tmp_path / str(number), monkeypatch)
        acknowledged = b""
        for _each in range(before):
            site.storage.add(3)
            site.backup()
            acknowledged = site.storage.path.read_bytes()
        site.storage.add(2)
        again = killed(site, monkeypatch, number)
        site.seconds += 1  # the child took one
        out = tmp_path / "out.fs"
        if acknowledged:
            assert site.restored(out).startswith(acknowledged), number
        predicted = site.backup(check=True)
        done = site.backup()
        assert (predicted.decision, predicted.repaired) == (done.decision, done.repaired), number
        assert site.restored(out) == site.storage.path.read_bytes(), number
        assert _verify.verify(str(site.repository)).problems == [], number
        assert site.backup().repaired == []
        number += 1
    assert number > 10


def test_killed_at_random_moments_while_somebody_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 runs, each ended by a signal somewhere. Whatever was acknowledged restores; nothing is lost and nothing stays broken."""
    site = Site(tmp_path, monkeypatch)
    acknowledged = 0
    for number in range(200):
        site.storage.add(1 + number % 3, size=3000)
        child = os.fork()
        if child == 0:
            site.backup(compression=("gzip", "none")[number % 2])
            os._exit(0)
        pause = site.storage.random.random() * 0.012
        subprocess.run(["sleep", f"{pause:.4f}"], check=True)
        os.kill(child, 9)
        done = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        site.seconds += 1
        if done:
            acknowledged = site.storage.ends[-1]
        if number % 10 == 9 and acknowledged:
            assert len(site.restored(tmp_path / "out.fs")) >= acknowledged
    site.backup()
    assert site.restored(tmp_path / "out.fs") == site.storage.path.read_bytes()
    assert _verify.verify(str(site.repository)).problems == []
    assert [name for name in site.names() if name.startswith(_repository.TEMPORARY)] == []


def test_a_line_that_stock_repozo_left_cut_off_goes_with_its_file(site: Site, tmp_path: Path) -> None:
    site.storage.add(2)
    site.backup()
    site.storage.add(2)
    last = site.backup().file
    dat = next(site.repository.glob("*.dat"))
    dat.write_text(dat.read_text()[:-20])
    (site.repository / _repository.STATE).unlink()
    done = site.backup()
    assert last and done.repaired == [f"removed {Path(last).name}, which an interrupted run left without its line in {dat.name}"]
    assert done.decision.kind == "incremental"
    assert site.restored(tmp_path / "out.fs") == site.storage.path.read_bytes()


def cut(number: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:-number]


def flip(position: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


DAMAGED_LINES: dict[str, Callable[[bytes], bytes | None]] = {
    **{f"cut by {number}": cut(number) for number in range(1, 11)},
    "cut by 60": cut(60),
    "empty": lambda _content: b"",
    "missing": lambda _content: None,
    "first byte": flip(0),
    "md5": flip(-3),
    "range": flip(-40),
    "another line": flip(-120),
}


@pytest.mark.parametrize(
    ("damage", "memory"),
    [
        *((name, "ours") for name in DAMAGED_LINES),
        *((name, memory) for name in ("cut by 1", "cut by 60", "missing", "range") for memory in ("of an earlier version", "of a verification")),
    ],
)
def test_an_acknowledged_backup_is_never_removed_and_its_line_is_written_again(site: Site, tmp_path: Path, damage: str, memory: str) -> None:
    """B3: the database is packed meanwhile, so nothing else has what the incremental backup holds."""
    for compression in ("gzip", "none", "gzip"):
        site.storage.add(2)
        site.backup(compression=compression)
    held = site.storage.path.read_bytes()
    _verify.verify(str(site.repository))
    state = _repository.read_state(str(site.repository))
    if memory == "of an earlier version":
        state["stored"] = {name: {key: one[key] for key in ("bytes", "md5")} for name, one in state["stored"].items()}
    elif memory == "of a verification":
        del state["stored"]
    _repository.write_state(str(site.repository), state)
    dat = next(site.repository.glob("*.dat"))
    whole = dat.read_bytes()
    damaged = DAMAGED_LINES[damage](whole)
    dat.write_bytes(damaged) if damaged is not None else dat.unlink()
    files = {name for name in site.names() if "fs" in name}
    site.storage.pack(1)
    predicted, done = site.backup(check=True), site.backup()
    assert (predicted.decision, predicted.repaired) == (done.decision, done.repaired)
    assert files <= set(site.names())
    assert done.decision.kind == "full"
    parsed = _repository.parse_dat((damaged or b"").decode(errors="replace"))[0] == _repository.parse_dat(whole.decode())[0]
    if parsed or (memory != "ours" and _repository.parse_dat((damaged or b"").decode(errors="replace"))[1] == [] and damaged):
        return  # what is there contradicts nothing that is remembered, or is only proven by its own md5
    assert [one for one in done.repaired if one.startswith(f"wrote the lines of {dat.name} for ")] == done.repaired
    assert dat.read_bytes() == whole
    out = tmp_path / "out.fs"
    _restore.restore(_restore.Request(str(site.repository), str(out), chain=dat.stem))
    assert out.read_bytes() == held


def test_a_line_is_not_written_again_for_a_file_that_is_another_one_now(site: Site) -> None:
    """B3: nothing is proven by its name. The file stays, and a new chain begins."""
    site.storage.add(2)
    site.backup()
    site.storage.add(2)
    name = Path(site.backup(compression="none").file or "").name
    dat, delta = next(site.repository.glob("*.dat")), site.repository / name
    dat.write_bytes(dat.read_bytes()[:-5])
    delta.write_bytes(flip(100)(delta.read_bytes()))
    kept = delta.read_bytes()
    done = site.backup()
    assert (done.repaired, done.decision.kind, delta.read_bytes()) == ([], "full", kept)
    assert any("cannot be trusted any more" in sentence for sentence in done.warnings)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "shorter": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "another byte": lambda path: path.write_bytes(flip(len(path.read_bytes()) // 2)(path.read_bytes())),
    "missing": lambda path: path.unlink(),
    "a FIFO": lambda path: (path.unlink(), os.mkfifo(path)),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("remembered", [True, False], ids=["with its memory", "as stock repozo leaves it"])
@pytest.mark.parametrize(("which", "damage"), [*(("newest", one) for one in DAMAGES), ("full", "empty"), ("full", "missing"), ("first delta", "another byte")])
def test_a_chain_that_is_not_as_it_was_stored_gets_a_full_backup_at_once(site: Site, tmp_path: Path, damage: str, which: str, remembered: bool) -> None:
    """B5: whether there is something new or not, and the run says which file differs."""
    for compression in ("gzip", "gzip", "none", "gzip"):
        site.storage.add(2)
        site.backup(compression=compression)
    if not remembered:
        (site.repository / _repository.STATE).unlink()
    files = sorted(path for path in site.repository.iterdir() if "fs" in path.name)
    path = files[{"full": 0, "first delta": 1, "newest": -1}[which]]
    DAMAGES[damage](path)
    predicted, done = site.backup(check=True), site.backup()
    assert predicted.decision == done.decision
    assert done.decision.kind == "full"
    stray = (damage, which, remembered) == ("missing", "full", False)  # nothing knows its name any more
    name = files[1].name if stray else path.name
    assert name in done.decision.reason
    assert any(name in sentence for sentence in done.warnings)
    assert site.restored(tmp_path / "out.fs") == site.storage.path.read_bytes()
    assert site.backup().decision.kind == "nothing"


@pytest.mark.parametrize("mtime", ["the old one", "another"])
def test_a_large_file_that_was_written_to_is_read(site: Site, monkeypatch: pytest.MonkeyPatch, mtime: str) -> None:
    """B5: small files are read before each run, a large one only when its time of change says so."""
    site.storage.add(3)
    path = Path(site.backup().file or "")
    site.storage.add(1)
    site.backup()
    monkeypatch.setattr(_repozo, "_SMALL", 0)
    times = path.stat().st_mtime_ns
    DAMAGES["another byte"](path)
    os.utime(path, ns=(times, times if mtime == "the old one" else times + 1))
    assert site.backup().decision.kind == ("nothing" if mtime == "the old one" else "full")


def test_the_look_before_each_run_takes_less_than_50_ms_for_a_thousand_files(site: Site) -> None:
    """B5: of the processor's time, the least of five, since others use the machine too."""
    site.storage.add(1)
    site.backup()
    stamp, path = "2026-03-01-12-00-01", str(site.repository)
    lines, stored = (site.repository / f"{stamp}.dat").read_text(), _repository.read_state(path)["stored"]
    end, data = site.storage.ends[-1], b"x" * 4000
    for number in range(1000):
        name = f"2026-03-02-{number // 3600:02}-{number // 60 % 60:02}-{number % 60:02}.deltafs"
        (site.repository / name).write_bytes(data)
        md5 = _repozo._md5(data)
        stored[name] = {"bytes": 4000, "md5": md5, "mtime": (site.repository / name).stat().st_mtime_ns, "start": end, "end": end + 4000, "plain": md5}
        lines += f"{site.repository}/{name} {end} {end + 4000} {md5}\n"
        end += 4000
    (site.repository / f"{stamp}.dat").write_text(lines)
    stored[f"{stamp}.dat"] = {"bytes": len(lines), "md5": _repozo._md5(lines.encode())}
    chain = _repository.read(path).chains[-1]
    took = []
    for _time in range(5):
        began = time.process_time()
        assert _repozo.unsound(path, chain, {"stored": stored}) == []
        took.append(time.process_time() - began)
    assert min(took) < 0.05


def test_a_set_is_made_although_an_older_or_the_newest_chain_is_damaged(site: Site, tmp_path: Path) -> None:
    """B5: the nightly run does not fail each night; it begins another chain and warns."""
    site.storage.add(3)
    prefix = tmp_path / "prefix"
    (prefix / "db/main").mkdir(parents=True)
    site.storage.path = site.storage.path.rename(prefix / "db/main/Data.fs")
    (tmp_path / "sets").mkdir()
    settings = _backup_set.Settings("indico", str(prefix), str(tmp_path / "sets"), ["main"], window_days=None, keep_daily=9)
    kinds, warnings = [], []
    for night in range(4):
        if night in (1, 3):
            newest = max((tmp_path / "sets/main").glob("*fsz"))
            DAMAGES["empty" if night == 1 else "another byte"](newest)
        outcome = _backup_set.run(settings, who="test", why="test")
        kinds.append(outcome.storages[0]["kind"])
        warnings.append([one for one in outcome.warnings if "cannot be trusted" in one])
    assert kinds == ["full", "full", "nothing", "full"]
    assert list(map(len, warnings)) == [0, 1, 0, 1]


@pytest.mark.parametrize("compression", ["gzip", "none"])
@pytest.mark.parametrize("memory", ["whole", "none", "damaged chain"])
@pytest.mark.parametrize("what", ["cut to its head", "cut below its chain", "an older pack"])
def test_a_database_that_lost_what_its_chain_holds_is_refused(site: Site, tmp_path: Path, what: str, memory: str, compression: str) -> None:
    """B21: backups of it would push out those that have more. A full backup that somebody asks for is made, with the same warning."""
    for _each in range(2):
        site.storage.add(4, size=2**20 + 999 if compression == "none" else 400)
        site.backup(compression=compression)
    if memory == "none":
        (site.repository / _repository.STATE).unlink()
    elif memory == "damaged chain":
        DAMAGES["empty"](max(site.repository.glob("*deltafs*")))
    os.truncate(site.storage.path, 4 if what == "cut to its head" else site.storage.ends[3])
    if what == "an older pack":
        site.storage.ends, site.storage.tids = site.storage.ends[:4], site.storage.tids[:3]
        site.storage.pack(2)
    before = everything(site.repository)
    for check in (True, False):
        with pytest.raises(RepositoryError, match=r"^Nothing was stored\. .*Data\.fs .* but the newest chain .*: the database lost what is backed up\."):
            site.backup(check=check)
    assert everything(site.repository) == before
    done = site.backup(full="asked for")
    assert any("the database lost what is backed up" in sentence for sentence in done.warnings)
    assert done.decision.kind == ("nothing" if what == "cut to its head" else "full")
    if done.file:
        assert site.restored(tmp_path / "out.fs") == site.storage.path.read_bytes()
        assert (site.backup().decision.kind, site.backup().warnings) == ("nothing", [])


def test_a_restore_to_an_earlier_moment_is_backed_up_once(site: Site) -> None:
    """B21: a restore notes what it did, so a full backup follows. The same loss without another restore is refused."""
    for _each in range(2):
        site.storage.add(4)
        site.backup()
    request = _restore.Request(str(site.repository), str(site.storage.path), _history.wanted_transaction(site.storage.tids[5]), confirm=str(site.storage.path))
    _restore.restore(request)
    assert site.storage.path.stat().st_size == site.storage.ends[6]
    assert (site.backup(check=True).decision.kind, site.backup().decision.kind, site.backup().decision.kind) == ("full", "full", "nothing")
    os.truncate(site.storage.path, site.storage.ends[5])
    with pytest.raises(RepositoryError, match="the database lost what is backed up"):
        site.backup()


def test_a_restored_database_that_lost_more_is_refused(site: Site) -> None:
    """B21: the note of a restore vouches for what was restored and for nothing less."""
    site.storage.add(8)
    site.backup()
    request = _restore.Request(str(site.repository), str(site.storage.path), _history.wanted_transaction(site.storage.tids[5]), confirm=str(site.storage.path))
    _restore.restore(request)
    os.truncate(site.storage.path, site.storage.ends[5])
    with pytest.raises(RepositoryError, match="the database lost what is backed up"):
        site.backup()


@pytest.mark.parametrize("damage", [lambda tail: bytes(len(tail)), lambda tail: b"\xff" * 40 + tail[40:], lambda tail: b"a" * len(tail)])
@pytest.mark.parametrize("before", [0, 1], ids=["no chain", "a chain"])
def test_a_database_that_is_damaged_before_its_end_is_refused(site: Site, tmp_path: Path, damage: Callable[[bytes], bytes], before: int) -> None:
    """B8: the run says where, how much lies behind and what to do. A full backup that somebody asks for holds what comes before."""
    site.storage.add(5)
    for _each in range(before):
        site.backup()
    good = site.storage.ends[-1]
    site.storage.add(5)
    content = site.storage.path.read_bytes()
    site.storage.path.write_bytes(content[:good] + damage(content[good:-9]) + b"\0" * 9)
    for check in (True, False):
        with pytest.raises(_filestorage.FileStorageError, match=rf"is damaged at byte {good}: .* {len(content) - good} bytes lie behind\..*check\.yml"):
            site.backup(check=check)
    done = site.backup(full="asked for")
    assert (done.decision.kind, done.decision.end) == ("full", good)
    assert any(f"{len(content) - good} bytes lie behind" in sentence for sentence in done.warnings)
    assert site.restored(tmp_path / "out.fs") == content[:good]


def test_transactions_of_the_future_are_told(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """B9: with each run, also when there is nothing to store."""
    site.storage.add(2)
    moment = datetime.now(timezone.utc) + timedelta(days=800)
    with site.storage.path.open("ab") as stream:
        for number in range(3):
            stream.write(record(tid_of(moment + timedelta(minutes=number)), b"x" * 50))
    for kind in ("full", "nothing"):
        answer = module(capsys, site)
        assert answer["kind"] == kind
        [warning] = answer["warnings"]
        assert "Data.fs holds 3 transactions from the future, the newest of " in str(warning)


def test_a_fifo_in_the_place_of_the_database_is_refused(site: Site) -> None:
    """B4: nothing waits for somebody to write into it."""
    site.storage.path.unlink()
    os.mkfifo(site.storage.path)
    with pytest.raises(_filestorage.FileStorageError, match=r"Data\.fs is no regular file, so it is no database\.$"):
        site.backup()


@pytest.mark.parametrize("size", [-1, 0, 10**9, True, "1"])
def test_a_remembered_tail_of_no_size_is_passed_over(site: Site, size: Any) -> None:
    site.storage.add(3)
    site.backup()
    state = _repository.read_state(str(site.repository))
    state["tail"]["bytes"] = size
    _repository.write_state(str(site.repository), state)
    site.storage.add(1)
    assert site.backup().decision.kind in ("incremental", "full")


ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)


class Faults:
    """Makes the number-th call that changes the disk fail, and with lasting all later ones too. Buffered writes count as one."""

    def __init__(self, number: int, code: int, lasting: bool) -> None:
        self.left, self.code, self.lasting, self.hit = number, code, lasting, False
        for name in ("write", "fsync", "link", "unlink", "replace", "rename", "mkdir"):
            setattr(os, name, self.failing(getattr(os, name)))
        opened = open

        def buffered(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            stream = opened(path, mode, *arguments, **options)
            if "x" not in mode and "w" not in mode:
                return stream
            return SimpleStream(stream, self.failing(stream.write))

        _repository.open = buffered  # type: ignore[attr-defined]

    def failing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == -1 or (self.lasting and self.left < 0):
                self.hit = True
                raise OSError(self.code, os.strerror(self.code))
            return real(*arguments, **options)

        return call


class SimpleStream:
    """A stream whose write is another one."""

    def __init__(self, stream: Any, write: Callable[..., Any]) -> None:
        self.stream, self.write = stream, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def __enter__(self) -> SimpleStream:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stream.close()


def faulty(site: Site, number: int, code: int, lasting: bool, compression: str) -> tuple[str, bool]:
    """Run a backup in a child where the number-th call fails; it is killed after 20 seconds. Return its sentence and whether it came so far."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        real, sentence, end = os.write, "", 0
        faults = Faults(number, code, lasting)
        try:
            site.backup(compression=compression)
        except RepositoryError as error:
            sentence = str(error)
        except BaseException as error:
            sentence, end = repr(error), 1
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
            end = 2  # a child is left
        real(writer, json.dumps([sentence, faults.hit]).encode())
        os._exit(end)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as stream:
        told = stream.read()
    assert (os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), told[:1]) == (0, "["), (number, code, told)
    sentence, hit = json.loads(told)
    return str(sentence), bool(hit)


@pytest.mark.parametrize(
    ("compression", "before", "lasting"),
    [("igzip", 0, False), ("igzip", 2, True), ("zlib", 2, False), ("none", 0, True), ("none", 2, False)],
    ids=["igzip, a full, once", "igzip, an incremental, from then on", "zlib, an incremental, once", "a full, from then on", "an incremental, once"],
)
def test_a_system_error_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str, before: int, lasting: bool) -> None:
    """B1, B20: no run hangs, its sentence is true, what was acknowledged restores, and the next run goes on."""
    if compression == "zlib":
        monkeypatch.setattr(shutil, "which", lambda _name: None)
    how, number, hit = ("none" if compression == "none" else "gzip"), 0, True
    while hit:
        (tmp_path / str(number)).mkdir()
        site = Site(tmp_path / str(number), monkeypatch)
        acknowledged = b""
        for _each in range(before):
            site.storage.add(3)
            site.backup(compression=how)
            acknowledged = site.storage.path.read_bytes()
        known = everything(site.repository)
        site.storage.add(20, size=9000)
        sentence, hit = faulty(site, number, ERRORS[number % 4], lasting, how)
        site.seconds += 1  # the child took one
        now = everything(site.repository)
        out = tmp_path / "out.fs"
        stored = [name for name in now if name not in known and name.endswith(("fs", "fsz")) and not name.startswith(".")]
        if "othing that was there has changed" in sentence or "Nothing was stored" in sentence:
            assert not stored
            assert {name: content for name, content in now.items() if name != _repository.STATE and not name.startswith(".confops-")}.items() <= known.items()
        elif sentence:
            assert len(stored) == 1
            assert stored[0] in sentence
            assert ("restores" in sentence) == any(stored[0].encode() in content for name, content in now.items() if name.endswith(".dat") and name[0] != ".")
        if acknowledged:
            assert site.restored(out).startswith(acknowledged), number
        done = site.backup(compression=how)
        assert done.decision.kind in ("full", "incremental", "nothing")
        assert site.restored(out) == site.storage.path.read_bytes(), (number, sentence)
        assert _verify.verify(str(site.repository)).problems == [], (number, sentence)
        assert site.backup().repaired == []
        number += 1
    assert number > 10
