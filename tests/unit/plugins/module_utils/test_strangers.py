"""What does not belong into a repository, and what is gone or was changed together with its line: confops.json and the tids tell."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _adopt, _history, _prune, _repository, _repozo, _restore, _verify
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError

from tests.unit.storage import START, Storage, record, tid_of

PLUGINS = Path(__file__).parents[4] / "plugins"


class Site:
    """A database whose chains begin at 12:00:01, 12:00:04 and so on, each with two incremental backups; states holds what each backup saw."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch, chains: int, compression: str) -> None:
        self.place, self.storage, self.repository = place, Storage(place / "Data.fs"), place / "repository"
        self.repository.mkdir()
        self.states: dict[str, bytes] = {}
        for number in range(3 * chains):
            self.storage.add(2, step=60)
            monkeypatch.setattr(_repozo, "_stamp", lambda _repository, number=number: self.stamp(number * 60 + 1))
            done = _repozo.backup(str(self.storage.path), str(self.repository), compression=compression, full="asked" if number % 3 == 0 else "")
            assert done.file
            self.states[Path(done.file).name] = self.storage.path.read_bytes()
        self.names = list(self.states)
        monkeypatch.setattr(_repozo, "_stamp", lambda _repository: self.stamp(86400))
        monkeypatch.setattr(_prune, "now", lambda: datetime(2026, 4, 1, tzinfo=timezone.utc))

    @staticmethod
    def stamp(seconds: int) -> str:
        return f"{START + timedelta(seconds=seconds):%Y-%m-%d-%H-%M-%S}"

    @property
    def newest(self) -> bytes:
        return self.states[self.names[-1]]

    def restore(self, **options: Any) -> _restore.Plan:
        target = self.place / "restored.fs"
        target.unlink(missing_ok=True)
        return _restore.restore(_restore.Request(repository=str(self.repository), target=str(target), **options)).plan

    def restored(self) -> bytes:
        return (self.place / "restored.fs").read_bytes()

    def foreign(self, stamp: str, data: bytes = b"foreign" * 20) -> None:
        """Put a whole chain of another database there."""
        content = b"FS21" + b"".join(record(tid_of(START + timedelta(seconds=7 + number)), data) for number in range(3))
        (self.repository / f"{stamp}.fs").write_bytes(content)
        (self.repository / f"{stamp}.dat").write_text(f"{self.repository}/{stamp}.fs 0 {len(content)} {_repozo._md5(content)}\n")

    def dat(self, name: str) -> Path:
        return next(path for path in self.repository.glob("*.dat") if name in path.read_text())

    def change(self, name: str, change: Callable[[bytes], bytes]) -> None:
        """Change a data file, and its line as well."""
        content = (self.repository / name).read_bytes()
        changed = change(content)
        (self.repository / name).write_bytes(changed)
        lines = self.dat(name)
        lines.write_text(lines.read_text().replace(_repozo._md5(content), _repozo._md5(changed)))

    def forget(self) -> None:
        (self.repository / _repository.STATE).unlink()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch, 3, "none")


def problems(site: Site) -> str:
    return " ".join(_verify.verify(str(site.repository)).problems)


# Names


def test_no_pattern_takes_the_digits_of_other_scripts() -> None:
    """B9: a file named with full-width digits counted as a backup, and the next one waited for its moment to pass. Write [0-9], or use re.ASCII."""
    lines = [f"{path.name}: {line}" for path in PLUGINS.rglob("*.py") for line in path.read_text().splitlines()]
    assert [line for line in lines if re.search(r"\\[dD]", line) and "re.ASCII" not in line] == []


def test_a_name_in_digits_of_another_script_is_no_backup(site: Site) -> None:
    name = "２０２６-03-01-12-30-00.fs"  # noqa: RUF001
    (site.repository / name).write_bytes(b"x")
    assert _repository.data_file(name, 1) is None
    site.storage.add(1, step=60)
    assert _repozo.backup(str(site.storage.path), str(site.repository), compression="none").decision.kind == "incremental"


@pytest.mark.parametrize("suffix", ["fs", "deltafsz", "dat", "index"])
def test_a_line_break_behind_a_name_is_told(site: Site, suffix: str) -> None:
    """Stock repozo takes such a file for a backup and restores it."""
    (site.repository / f"{site.stamp(90)}.{suffix}\n").write_bytes(b"x")
    assert "ends with a line break" in problems(site)
    site.restore()
    assert site.restored() == site.newest
    site.storage.add(1, step=60)
    (warning,) = _repozo.backup(str(site.storage.path), str(site.repository), compression="none").warnings
    assert "ends with a line break: stock repozo takes it for a backup" in warning


# Chains of another database


@pytest.mark.parametrize("stamp", ["9999-99-99-99-99-99", "2026-13-01-00-00-00", "0000-00-00-00-00-00"])
@pytest.mark.parametrize("memory", [True, False])
def test_a_full_backup_of_no_moment_is_left_out(site: Site, stamp: str, memory: bool) -> None:
    site.foreign(stamp)
    if not memory:
        site.forget()
    plan = site.restore()
    assert site.restored() == site.newest
    assert f"{stamp}.fs is named after a moment that no calendar has" in " ".join(plan.warnings)
    assert f"{stamp}.fs is named after" in problems(site)
    plan = site.restore(wanted=_history.wanted_transaction(site.storage.tids[3]))
    assert site.restored() == site.newest[: site.storage.ends[4]]


@pytest.mark.parametrize("behind", [1, 61, 421])
def test_a_chain_within_another_one_is_left_out(site: Site, behind: int) -> None:
    """The last of them has one incremental backup of ours behind it, which looked as if its run had been interrupted."""
    site.foreign(site.stamp(behind + 30))
    site.forget()
    plan = site.restore()
    assert site.restored() == site.newest
    assert "it is of another repository" in " ".join(plan.warnings)
    assert "it is of another repository" in problems(site)


def test_an_unknown_chain_between_known_ones_is_left_out_until_it_is_adopted(site: Site) -> None:
    stamp = site.stamp(150)
    site.foreign(stamp, b"")
    plan = site.restore(wanted=_history.wanted_time(f"{START + timedelta(seconds=200):%Y-%m-%dT%H:%M:%SZ}", "UTC"))
    assert f"{stamp}.fs is not known" in " ".join(plan.warnings)
    assert site.restored() == site.newest[: site.storage.ends[4]]
    assert f"{stamp}.fs is not known" in problems(site)
    assert f"{stamp}.fs is not known" in problems(site), "a verification must not make it known"
    assert _adopt.adopt(str(site.repository), stamp).changed
    assert "is not known" not in problems(site)


def test_chains_of_stock_repozo_are_all_restored(site: Site) -> None:
    """Without a memory nothing is strange."""
    site.forget()
    assert _repository.strangers(_repository.read(str(site.repository)), {}) == {}
    assert site.restore().warnings == []
    assert site.restored() == site.newest


# Files of another database


@pytest.mark.parametrize("memory", [True, False])
def test_a_foreign_incremental_backup_with_a_line_is_refused(site: Site, memory: bool) -> None:
    content = record(tid_of(START + timedelta(seconds=30)), b"foreign" * 20)
    name = f"{site.stamp(3600)}.deltafs"
    (site.repository / name).write_bytes(content)
    end = len(site.newest)
    with site.dat(site.names[-1]).open("a") as stream:
        stream.write(f"{site.repository}/{name} {end} {end + len(content)} {_repozo._md5(content)}\n")
    if not memory:
        site.forget()
    with pytest.raises(RepositoryError, match=f"{name} is damaged: it begins with the transaction .* not newer .* The last good transaction is"):
        site.restore()
    site.restore(wanted=_history.wanted_transaction(site.storage.tids[-1]))
    assert site.restored() == site.newest


@pytest.mark.parametrize("tid", [tid_of(START - timedelta(days=1)), struct.pack(">LL", ((((2030 - 1900) * 12 + 1) * 31 + 30) * 24 + 1) * 60, 5), b"\xff" * 8])
@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("check", [True, False])
def test_a_file_that_begins_with_another_tid_is_refused(site: Site, tid: bytes, memory: bool, check: bool) -> None:
    """Its line fits. One older than what the file before ends with, one of no moment, one newer than what follows."""
    site.change(site.names[-2], lambda content: tid + content[8:])
    if not memory:
        site.forget()
    with pytest.raises(RepositoryError, match="damaged"):
        _restore.restore(_restore.Request(repository=str(site.repository), target=str(site.place / "restored.fs")), check=check)
    assert problems(site)


@pytest.mark.parametrize("number", [0, 4, -1])
def test_a_file_that_was_changed_with_its_line_is_refused(site: Site, number: int) -> None:
    """B22."""
    site.change(site.names[number], lambda content: content[:-50] + b"X" + content[-49:])
    assert "confops.json remembers" in problems(site)
    with pytest.raises(RepositoryError, match=r"confops\.json remembers"):
        chain = site.names[number // 3 * 3].split(".")[0]
        site.restore(chain=chain)


def test_a_transaction_that_was_added_with_its_line_is_refused(site: Site) -> None:
    """B22."""
    name, more = site.names[-1], record(tid_of(START + timedelta(days=1)), b"forged")
    content = (site.repository / name).read_bytes()
    (site.repository / name).write_bytes(content + more)
    dat = site.dat(name)
    dat.write_text(dat.read_text().replace(f"{len(site.newest)} {_repozo._md5(content)}", f"{len(site.newest) + len(more)} {_repozo._md5(content + more)}"))
    with pytest.raises(RepositoryError, match=rf"{name} ends at byte .* confops\.json remembers"):
        site.restore()


# What is gone


def test_a_backup_that_is_gone_with_its_line_is_missed(site: Site) -> None:
    """Its chain counts as damaged: prune must not remove the last whole one because of it."""
    name = site.names[-1]
    dat = site.dat(name)
    (site.repository / name).unlink()
    dat.write_text("".join(line for line in dat.read_text().splitlines(keepends=True) if name not in line))
    assert f"{name}, which confops.json remembers, is missing." in problems(site)
    assert f"{name}, which confops.json remembers, is missing." in problems(site), "until the next backup settles it"
    assert f"{name}, which confops.json remembers, is missing." in site.restore().warnings
    assert site.restored() == site.states[site.names[-2]]
    done = _prune.prune(str(site.repository), _prune.Policy(keep_daily=1, keep_chains_min=1, require_verified=False))
    assert done.deleted == [site.names[0].split(".")[0]], "the chain before is the last whole one"
    assert _repozo.backup(str(site.storage.path), str(site.repository), compression="none", full="asked").decision.kind == "full"
    assert "is missing" not in problems(site)


def test_a_chain_that_was_removed_by_hand_is_not_missing_from_the_one_before(site: Site) -> None:
    for path in site.repository.iterdir():
        if path.name.split(".")[0] in {name.split(".")[0] for name in site.names[3:6]}:
            path.unlink()
    assert problems(site) == ""


def test_a_file_whose_record_is_damaged_stays_known(site: Site) -> None:
    """Otherwise its chain would be strange."""
    path = site.repository / _repository.STATE
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "stored": {**state["stored"], **{name: {"bytes": -5} for name in site.names[3:6]}}}))
    assert _repository.read_state(str(site.repository))["stored"][site.names[3]] == {}
    assert problems(site) == ""


# What has no end


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_file_that_is_much_too_large_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str) -> None:
    site = Site(tmp_path, monkeypatch, 1, compression)
    site.forget()
    path = site.repository / site.names[-1]
    if compression == "none":
        with path.open("r+b") as stream:
            stream.truncate(2**40)
    else:
        monkeypatch.setattr(_repository, "blocks", lambda *_all: iter(lambda: bytes(2**20), None))  # it unpacks for ever
    assert re.search(r"holds (more than )?\d+ bytes", problems(site))
    site.storage.add(1, step=60)
    monkeypatch.undo()
    monkeypatch.setattr(_repozo, "_stamp", lambda _repository: site.stamp(86400))
    assert _repozo.backup(str(site.storage.path), str(site.repository), compression=compression).decision.kind in ("full", "incremental")
