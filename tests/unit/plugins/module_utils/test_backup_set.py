"""Backup sets: what links in the archive lead to, and what is no file."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from ansible_collections.confops.indico.plugins.module_utils import (
    _backup_set,
    _backup_status,
    _disk_space,
    _indico_mirror,
    _offsite,
    _repository,
    _repozo,
    _stored_files,
)
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError

from tests.unit.storage import Storage


class Site:
    """An instance with one storage and an archive, and a second disk beside it."""

    def __init__(self, place: Path) -> None:
        self.archive, self.disk, self.sets = place / "indico/archive", place / "disk2", place / "backups/sets"
        (place / "indico/db/main").mkdir(parents=True)
        (place / "backups").mkdir()
        self.storage = Storage(place / "indico/db/main/Data.fs", seed=1)
        self.storage.add(3)
        write(self.archive / "2014/talk.pdf", "talk")
        write(self.disk / "2013/old.pdf", "old")
        self.settings = _backup_set.Settings("indico", str(place / "indico"), str(place / "backups"), ["main"], compression="none")

    def run(self, *, check: bool = False) -> _backup_set.Outcome:
        return _backup_set.run(self.settings, who="me", why="test", check=check)

    def problem(self, *, check: bool = False) -> str:
        with pytest.raises(RepositoryError) as caught:
            self.run(check=check)
        return str(caught.value)

    def newest(self) -> Path:
        return self.sets / _backup_set.manifests(self.settings)[-1]["stamp"] / "archive"

    def missing(self, *paths: bytes) -> list[bytes]:
        """Ask what the drill asks of the newest set."""
        copy = str(self.newest())
        return _stored_files.missing(paths, copy, _stored_files.listing(copy, str(self.archive)), str(self.archive))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    def stamp(newest: str | None, _place: str) -> str:  # a backup each second, without waiting for it
        return (_repository.time_of(newest or "2026-03-02-01-00-00") + timedelta(seconds=1)).strftime(_repository.STAMP)

    monkeypatch.setattr(_repository, "fresh_stamp", stamp)
    return Site(tmp_path)


def test_a_link_out_of_the_archive_makes_the_set_incomplete_until_it_is_declared(site: Site) -> None:
    # B6
    (site.archive / "2013").symlink_to(site.disk / "2013")
    said = site.problem()
    assert said.startswith("The databases are stored, but stored files are not: links in ") and f"(2013 -> {site.disk}/2013)" in said
    assert "`backup_archive_roots`" in said
    (manifest,) = _backup_set.manifests(site.settings)
    assert manifest["archive"]["left_out"] == [{"path": "2013", "target": f"{site.disk}/2013"}]
    assert manifest["storages"][0]["end"] == site.storage.ends[-1]
    assert site.missing(b"2014/talk.pdf", b"2013/old.pdf") == [b"2013/old.pdf"]
    # The alarm stays though nothing is new.
    assert site.problem() == said == site.problem(check=True) and len(_backup_set.manifests(site.settings)) == 1
    assert (_backup_status.read(site.settings, _backup_status.BACKUP) or {})["ok"] is False
    site.settings.archive_roots = [str(site.disk)]
    assert site.run(check=True).changed and site.run().set
    assert (site.newest() / "2013/old.pdf").read_text() == "old" and not (site.newest() / "2013").is_symlink()
    assert site.missing(b"2013/old.pdf") == [] and _backup_set.manifests(site.settings)[-1]["archive"]["files"] == 2
    assert not site.run().changed


def test_what_is_declared_is_copied_once_and_linked_afterwards(site: Site) -> None:
    # B6
    write(site.disk / "one.pdf", "one")
    (site.archive / "2013").symlink_to(site.disk / "2013")
    (site.archive / "one.pdf").symlink_to(site.disk / "one.pdf")
    (site.disk / "2013/further").symlink_to(site.disk / "further")
    (site.disk / "2013/loop").symlink_to(site.disk)
    write(site.disk / "further/deep.pdf", "deep")
    site.settings.archive_roots = [str(site.disk)]
    assert f"(2013/loop -> {site.disk})" in site.problem()
    (site.disk / "2013/loop").unlink()
    first = site.run() and site.newest()
    site.storage.add(1)
    second = site.run() and site.newest()
    assert first != second
    for name in ("2013/old.pdf", "one.pdf", "2013/further/deep.pdf", "2014/talk.pdf"):
        assert (first / name).stat().st_ino == (second / name).stat().st_ino and not (second / name).is_symlink()
    write(site.disk / "one.pdf", "changed")
    site.storage.add(1)
    site.run()
    assert (site.newest() / "one.pdf").read_text() == "changed" and (second / "one.pdf").read_text() == "one"


def test_a_link_that_a_process_of_the_site_made_is_not_followed(site: Site) -> None:
    # B6
    (site.archive / "shadow").symlink_to("/etc/passwd")
    (site.archive / "2014/up").symlink_to("../../..")
    (site.archive / "gone").symlink_to(site.disk / "gone")
    site.settings.archive_roots = [str(site.disk)]
    said = site.problem()
    assert "shadow -> /etc/passwd" in said and "2014/up -> " in said and "gone -> " in said
    assert (site.newest() / "shadow").is_symlink() and (site.newest() / "2014/up").is_symlink()
    assert site.missing(b"shadow", b"2014/up/disk2/2013/old.pdf") == [b"shadow", b"2014/up/disk2/2013/old.pdf"]


def test_a_directory_that_is_exchanged_for_a_link_meanwhile_is_not_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    # B6
    (site.archive / "2013").symlink_to(site.disk / "2013")
    site.settings.archive_roots = [str(site.disk)]
    write(site.archive.parent / "etc/secret", "secret")
    declared = _stored_files.declared

    def exchanged(target: str, roots: list[str]) -> bool:
        (site.disk / "2013").rename(site.disk / "aside")
        (site.disk / "2013").symlink_to(site.archive.parent / "etc")
        return declared(target, roots)

    monkeypatch.setattr(_stored_files, "declared", exchanged)
    assert f"{site.disk}/2013, to which 2013 in the archive leads, cannot be copied" in site.problem()
    assert not list(site.sets.rglob("secret"))


def test_links_inside_the_archive_stay_links(site: Site) -> None:
    # B6
    (site.archive / "2012").symlink_to("2014")
    (site.archive / "2011").symlink_to(site.archive / "2014")
    (site.archive / "2014/same.pdf").symlink_to("talk.pdf")
    (site.archive / "2014/none.pdf").symlink_to("nothing.pdf")
    site.run()
    assert (site.newest() / "2012").is_symlink()
    told = _backup_set.manifests(site.settings)[-1]["archive"]
    assert told["link_count"] == 4 and {"path": "2012", "link": "2014"} in told["links"] and told["left_out"] == []
    names = (b"2012/talk.pdf", b"2011/talk.pdf", b"2014/same.pdf", b"2012/same.pdf")
    assert site.missing(*names, b"2014/none.pdf") == [b"2014/none.pdf"]
    (site.newest() / "2014/talk.pdf").unlink()  # the living archive has it still
    assert site.missing(*names) == list(names)


@pytest.fixture
def special(site: Site) -> Iterator[list[str]]:
    """Put a FIFO, a device and a socket where files lie."""
    os.mkfifo(site.archive / "fifo")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(site.archive / "socket"))
        yield ["fifo", "socket"]


def test_what_is_no_file_is_not_copied_and_nothing_waits_for_it(site: Site, special: list[str]) -> None:
    # B4
    site.settings.archive_roots = [str(site.disk)]
    os.mkfifo(site.disk / "fifo")
    (site.archive / "link").symlink_to(site.disk / "fifo")
    assert "link -> " in site.problem()
    assert not any((site.newest() / name).exists() for name in special)
    assert site.missing(b"fifo", b"socket", b"link") == [b"fifo", b"socket", b"link"]


def test_a_pack_needs_the_databases_only(site: Site) -> None:
    # B6
    (site.archive / "2013").symlink_to(site.disk / "2013")
    done = _backup_set.run_databases(site.settings, who="me", why="before a pack")
    assert done.set and "2013 -> " in done.warnings[-1]
    (Path(site.settings.database("main"))).unlink()
    with pytest.raises(RepositoryError):
        _backup_set.run_databases(site.settings, who="me", why="before a pack")
    assert json.loads((site.sets / done.set / "manifest.json").read_text())["archive"]["left_out"]


def kinds(path: Path) -> Iterator[None]:
    """Put at a path, one after the other, what is no file."""
    os.mkfifo(path)
    yield
    path.unlink()
    path.mkdir()
    yield
    path.rmdir()
    path.symlink_to("/dev/zero")
    yield
    path.unlink()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(path))
        yield
    path.unlink()


@pytest.mark.parametrize("read", ["settings", "manifest", "offsite settings", "offsite status", "offsite set", "mirror", "disk space"])
def test_what_is_no_file_is_not_read_as_one(tmp_path: Path, site: Site, read: str) -> None:
    # B4
    path = tmp_path / "place/manifest.json"
    path.parent.mkdir()
    copy = _offsite.Settings("indico", str(tmp_path / "place"), ["main"], "/none/")
    for _kind in kinds(path):
        if read == "settings":
            with pytest.raises(RepositoryError, match=r"cannot be used"):
                _backup_set.read_settings(str(path))
        elif read == "manifest":
            stamp = site.sets / "2026-03-02-01-00-00"
            stamp.mkdir(parents=True, exist_ok=True)
            path.rename(stamp / path.name)
            with pytest.raises(RepositoryError, match=r"manifest\.json cannot be read"):
                _backup_set.manifests(site.settings)
            (stamp / path.name).rename(path)
        elif read == "offsite settings":
            with pytest.raises(RepositoryError, match=r"cannot be used"):
                _offsite.read_settings(str(path))
        elif read == "offsite status":
            path.rename(tmp_path / "place/status.json")
            with pytest.raises(RepositoryError, match=r"^No pull has left word in "):
                _offsite.status(copy)
            (tmp_path / "place/status.json").rename(path)
        elif read == "offsite set":
            assert next(_offsite._wrong_set(str(path.parent))).startswith("its manifest.json cannot be used")
        elif read == "mirror":
            (tmp_path / "place" / _indico_mirror.MARKER).unlink(missing_ok=True)
            path.rename(tmp_path / "place" / _indico_mirror.MARKER)
            with pytest.raises(_indico_mirror.MirrorError):
                _indico_mirror.look(str(path.parent))
            (tmp_path / "place" / _indico_mirror.MARKER).rename(path)
        else:
            found = _disk_space.look({"here": str(tmp_path)}, str(path), act=False)
            assert any(f"{path} cannot be read, so nothing is known of the past" in one for one in found["warnings"])


@pytest.mark.parametrize("check", [True, False])
def test_a_run_that_could_not_write_is_refused_in_check_mode_too(site: Site, monkeypatch: pytest.MonkeyPatch, check: bool) -> None:
    # B13
    monkeypatch.setattr(os, "access", lambda path, _mode: path != site.settings.directory)
    assert site.problem(check=check) == f"{site.settings.directory} cannot be written to (Permission denied), so no backup can be made."
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert site.problem(check=check) == "There is no rsync on this host, which copies the stored files. No backup was made."
    assert not site.sets.exists()


def test_room_for_the_stored_files_is_asked_before_they_are_copied(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    # B13, B20
    site.run()
    write(site.archive / "2014/new.pdf", "x" * 5000)
    site.storage.add(1)
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=4000))
    sentence = f"the new stored files need 5000 bytes on the file system of {site.settings.directory}, which has 4000 free."
    assert site.problem(check=True) == sentence
    assert site.problem() == f"The databases are stored, but no set was made: {sentence}"
    assert _repository.read(site.settings.repository("main")).chains[-1].end == site.storage.ends[-1]
    monkeypatch.undo()
    monkeypatch.setattr(_repository, "fresh_stamp", lambda _newest, _place: "2026-03-02-02-00-00")
    assert site.run().set


def test_a_set_that_cannot_be_made_leaves_nothing_and_says_what_is_stored(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    # B20
    def fail(*_arguments: object) -> None:
        raise RepositoryError("rsync failed (exit code 11): No space left on device")

    monkeypatch.setattr(_backup_set, "_copy_archive", fail)
    assert site.problem() == "The databases are stored, but no set was made: rsync failed (exit code 11): No space left on device"
    assert list(site.sets.iterdir()) == []
    assert _repository.read(site.settings.repository("main")).chains[-1].end == site.storage.ends[-1]


def test_what_is_wrong_with_one_storage_keeps_no_other_from_being_backed_up(site: Site) -> None:
    """B8, B21: a database that is refused each night must not take the others with it."""
    (Path(site.settings.prefix) / "db/rooms").mkdir()
    rooms = Storage(Path(site.settings.prefix) / "db/rooms/Data.fs", seed=2)
    rooms.add(2)
    site.settings.storages[:] = ["main", "rooms"]
    site.run()
    content = site.storage.path.read_bytes()
    site.storage.path.write_bytes(content[:4])
    rooms.add(2)
    said = site.problem()
    assert "the database lost what is backed up" in said and said.endswith(" rooms was backed up, but no set was made.")
    assert len(list((Path(site.settings.directory) / "rooms").glob("*.deltafs"))) == 1


def test_who_ends_a_backup_ends_all_of_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.settings.storages[:] = ["main", "main"]

    def end(*_arguments: object, **_options: object) -> None:
        asked.append(1)
        raise _repository.EndedError("It was ended from outside.")

    asked: list[int] = []
    monkeypatch.setattr(_repozo, "backup", end)
    assert site.problem() == "It was ended from outside." and asked == [1]
