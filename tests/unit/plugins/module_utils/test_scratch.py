"""The scratch directory of drills and checks: whose it is, who may use it, and what is left in it."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _backup_set, _scratch
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError

from tests.unit.storage import Storage

HOLD = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def site(tmp_path: Path) -> _backup_set.Settings:
    """An instance with two databases that somebody wrote to, one that nobody did, and a backup of them."""
    for name in ("main", "rooms", "empty"):
        (tmp_path / "indico/db" / name).mkdir(parents=True)
        Storage(tmp_path / "indico/db" / name / "Data.fs").add({"main": 20, "rooms": 3, "empty": 0}[name])
    (tmp_path / "backups").mkdir()
    settings = _backup_set.Settings("indico", str(tmp_path / "indico"), str(tmp_path / "backups"), ["main", "rooms", "empty"])
    settings.drill_directory = str(tmp_path / "scratch")
    return settings


def test_it_is_nobodys_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "scratch"
    with _scratch.directory(str(path), act=True) as given:
        assert given == str(path)
        found = path.stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (pwd.getpwnam("nobody").pw_uid, 0o700)
        (path / "main").mkdir()
        (path / "main/Data.fs").write_bytes(b"x")
    assert not path.exists()
    with pytest.raises(KeyError), _scratch.directory(str(path), act=True):
        raise KeyError
    assert not path.exists()


def test_what_a_killed_run_left_goes_first(tmp_path: Path) -> None:
    path = tmp_path / "scratch"
    (path / "main").mkdir(parents=True)
    (path / "main/Data.fs").write_bytes(b"old")
    (path / "file").write_bytes(b"old")
    (path / "link").symlink_to(tmp_path)
    path.chmod(0o755)
    with _scratch.directory(str(path), act=True):
        assert list(path.iterdir()) == []
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert [one.name for one in tmp_path.iterdir()] == []


def test_nothing_happens_without_act(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch/file").write_bytes(b"stays")
    with _scratch.directory(str(tmp_path / "scratch"), act=False):
        pass
    assert (tmp_path / "scratch/file").read_bytes() == b"stays"


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_directory_is_left_alone(tmp_path: Path, kind: str) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").write_bytes(b"x")
    (tmp_path / "scratch").write_bytes(b"") if kind == "file" else (tmp_path / "scratch").symlink_to(other)
    with (
        pytest.raises(RepositoryError, match=rf"^{tmp_path}/scratch is no directory, so nothing can be restored in it\.$"),
        _scratch.directory(str(tmp_path / "scratch"), act=True),
    ):
        pass
    assert (other / "precious").exists()


def test_two_runs_do_not_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run has it: it is waited for, but not for ever, and what it has there stays."""
    path = tmp_path / "scratch"
    path.mkdir()
    (path / "theirs").write_bytes(b"x")
    monkeypatch.setattr(_scratch._repository, "PATIENCE", 0.0)
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        with (
            pytest.raises(RepositoryError, match=rf"^{path} is in use by process {other.pid}, by a drill or a check that has not ended\.$"),
            _scratch.directory(str(path), act=True),
        ):
            pass
        assert (path / "theirs").exists()
        other.communicate()
    with _scratch.directory(str(path), act=True):
        assert list(path.iterdir()) == []


def test_a_run_that_ends_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It removes the directory that was waited for, so another one is made."""
    path = tmp_path / "scratch"
    path.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        waited = []

        def ends(seconds: float) -> None:
            waited.append(seconds)
            path.rmdir()
            other.communicate()

        monkeypatch.setattr(_scratch.time, "sleep", ends)
        with _scratch.directory(str(path), act=True):
            assert path.is_dir()
    assert waited == [1]
    assert not path.exists()


def test_the_newest_set_is_restored_as_its_manifest_says(site: _backup_set.Settings) -> None:
    with pytest.raises(RepositoryError, match=rf"^There is no set in {site.sets}; make a backup first\.$"):
        _scratch.newest(site, _scratch.Plan(), "A check")
    _backup_set.run(site, who="me", why="test")
    plan = _scratch.Plan()
    _scratch.newest(site, plan, "A check")
    assert [(one["name"], one["bytes"]) for one in plan.storages] == [(name, Path(site.database(name)).stat().st_size) for name in ("main", "rooms")]
    assert plan.needed_bytes == sum(one["bytes"] for one in plan.storages) + 2**20
    assert plan.databases() == "main to 2026-03-01T12:00:19Z, rooms to 2026-03-01T12:00:02Z"
    with _scratch.directory(site.drill_directory, act=True) as scratch:
        for one in plan.storages:
            copy = Path(_scratch.restore(site, plan, one, scratch))
            assert copy.read_bytes() == Path(site.database(one["name"])).read_bytes()
            assert {copy.owner(), copy.parent.owner()} == {"nobody"}
        plan.storages[0]["bytes"] += 1
        shutil.rmtree(Path(scratch) / "main")
        with pytest.raises(RepositoryError, match=rf"^main has \d+ bytes when it is restored; the manifest of set {plan.set} says \d+\.$"):
            _scratch.restore(site, plan, plan.storages[0], scratch)


def test_a_set_without_a_transaction_is_refused(site: _backup_set.Settings) -> None:
    site.storages = ["empty"]
    _backup_set.run(site, who="me", why="test")
    with pytest.raises(RepositoryError, match=r"^Set .* holds no transaction of any storage\.$"):
        _scratch.newest(site, _scratch.Plan(), "A check")


def test_check_mode_refuses_a_place_that_cannot_be_made(site: _backup_set.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """B4, B13: with the run's sentence."""
    _backup_set.run(site, who="root", why="test")
    os.mkfifo(site.drill_directory)
    with pytest.raises(RepositoryError, match=r"/scratch is no directory, so nothing can be restored in it\.$"):
        _scratch.newest(site, _scratch.Plan(), "A drill")
    Path(site.drill_directory).unlink()
    asked: list[str] = []
    monkeypatch.setattr(_scratch._repository, "need_writable", asked.append)
    _scratch.newest(site, _scratch.Plan(), "A drill")
    assert asked == [str(tmp_path)]


def test_a_copy_of_a_damaged_backup_is_refused_with_the_last_good_transaction(site: _backup_set.Settings, tmp_path: Path) -> None:
    """B2: a drill names what can be restored."""
    _backup_set.run(site, who="root", why="test")
    plan = _scratch.Plan()
    _scratch.newest(site, plan, "A drill")
    [full] = Path(site.repository("main")).glob("*.fs*")
    content = bytearray(full.read_bytes())
    content[len(content) // 2] ^= 1
    full.write_bytes(content)
    (tmp_path / "scratch").mkdir()
    with pytest.raises(RepositoryError, match=r"is damaged: .* No transaction before can be restored\.$"):
        _scratch.restore(site, plan, plan.storages[0], str(tmp_path / "scratch"))
