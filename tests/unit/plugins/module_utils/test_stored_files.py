"""Stored files: what a directory holds, and which names of the database lead to nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _indico_file_check, _stored_files

HOME = "/opt/indico/archive"


def store(root: Path, *names: bytes) -> set[bytes]:
    """Write files of three bytes below root and return its listing."""
    for name in names:
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"abc")
    return _stored_files.listing(str(root))


def test_listing_holds_files_at_any_depth_whatever_their_names_are(tmp_path: Path) -> None:
    names = (b"a", b"2026/C1/c0/1/talk.pdf", b"2026/C1/\xe9t\xe9.txt", "2026/C1/été.txt".encode())
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    assert store(tmp_path, *names) == set(names)


def test_listing_of_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        _stored_files.listing(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        pytest.param(b"2026/C1/1/talk.pdf", b"2026/C1/1/talk.pdf", id="as-it-is"),
        pytest.param("2026/C1/1/été.pdf".encode(), b"2026/C1/1/\xe9t\xe9.pdf", id="latin-1"),
        pytest.param("2026/C1/1/加.pdf".encode(), b"2026/C1/1/?.pdf", id="what-latin-1-lacks"),
        pytest.param(b"2026/C1/1/\xe9t\xe9.pdf", b"2026/C1/1/\xe9t\xe9.pdf", id="not-utf-8"),
        pytest.param(b"/opt/indico/archive/2001/C1/1/talk.pdf", b"2001/C1/1/talk.pdf", id="whole-path"),
    ],
)
def test_a_name_finds_its_file_under_each_spelling(tmp_path: Path, name: bytes, stored: bytes) -> None:
    present = store(tmp_path, stored, b"other")
    assert _stored_files.missing([name], str(tmp_path), present, HOME) == []
    (tmp_path / os.fsdecode(stored)).unlink()
    assert _stored_files.missing([name], str(tmp_path), _stored_files.listing(str(tmp_path)), HOME) == [name]


def test_a_file_behind_a_link_out_of_the_archive_is_there_but_not_in_a_copy(tmp_path: Path) -> None:
    store(tmp_path / "elsewhere", b"C1/talk.pdf")
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive/2026").symlink_to("../elsewhere")
    archive = str(tmp_path / "archive")
    assert _stored_files.listing(archive) == set()
    assert _stored_files.missing([b"2026/C1/talk.pdf", b"2026/C1/no.pdf"], archive, set(), archive) == [b"2026/C1/no.pdf"]
    assert _stored_files.missing([b"2026/C1/talk.pdf"], archive, set(), HOME) == [b"2026/C1/talk.pdf"]  # B6


def test_both_ways_are_compared_and_lists_are_limited(tmp_path: Path) -> None:
    present = store(tmp_path, b"C1/a", b"C1/\xe9", b"C2/b", b"C2/c", b"offline/5/package.zip", b"\xff")
    found: dict[str, Any] = {
        "paths": ["C1/a", "C1/é".encode().decode("latin-1"), "C9/x", "C9/y"],
        "packages": [f"{tmp_path}/offline/5/package.zip", f"{tmp_path}/offline/5/thrown away.zip"],
        "unnamed": ["event 1, material 2, resource 0: a.txt"],
        "broken": [],
    }
    report = _indico_file_check.compare(found, str(tmp_path), present, 1)
    assert (report["files"], report["stored"]) == (4, 6)
    assert report["missing"] == {"count": 2, "paths": ["C9/x"]}
    assert report["orphans"] == {"count": 3, "bytes": 9, "paths": ["C2/b"]}
    assert report["unnamed"] == {"count": 1, "objects": found["unnamed"]} and report["broken"] == {"count": 0, "objects": []}
    assert _indico_file_check.compare(found, str(tmp_path), present, 9)["orphans"]["paths"] == ["C2/b", "C2/c", "\\xff"]


def archive_with(tmp_path: Path, *, mounted: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Return the paths of a set's files and of an archive with other files, which may be a mount point."""
    store(tmp_path / "set", b"2026/new.pdf")
    store(tmp_path / "archive", b"2026/old.pdf", b"2025/old.pdf")
    monkeypatch.setattr(_stored_files, "_mount_points", lambda: [str(tmp_path / "archive")] if mounted else [])
    return str(tmp_path / "set"), str(tmp_path / "archive")


@pytest.mark.parametrize("mounted", [False, True])
def test_stored_files_are_exchanged_also_in_a_mount_point_and_back_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounted: bool) -> None:
    # B10
    source, archive = archive_with(tmp_path, mounted=mounted, monkeypatch=monkeypatch)
    found = _stored_files.plan(source, archive, "S")
    assert (found.mount_point, found.writable, found.problems) == (mounted, True, [])
    assert 0 < found.needed_bytes < found.free_bytes
    shutil.copytree(source, found.copy)
    assert _stored_files.plan(source, archive, "S").needed_bytes == 0
    assert _stored_files.exchange(archive, found.copy, found.kept)
    present = {path for path in _stored_files.listing(archive) if not path.startswith(b".replaced-")}
    assert present == {b"2026/new.pdf"} and _stored_files.listing(found.kept) == {b"2026/old.pdf", b"2025/old.pdf"}
    assert not _stored_files.exchange(archive, found.copy, found.kept)
    failed = found.kept.replace("replaced", "failed")
    assert _stored_files.exchange(archive, found.kept, failed)
    assert _stored_files.listing(failed) == {b"2026/new.pdf"}
    assert {path for path in _stored_files.listing(archive) if not path.startswith(b".failed-")} == {b"2026/old.pdf", b"2025/old.pdf"}


@pytest.mark.parametrize("mounted", [False, True])
def test_an_exchange_that_was_killed_at_any_step_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounted: bool) -> None:
    # B10
    class Killed(BaseException):
        pass

    rename, step, done = os.rename, 0, False
    while not done:
        step += 1
        place = tmp_path / str(step)
        source, archive = archive_with(place, mounted=mounted, monkeypatch=monkeypatch)
        found = _stored_files.plan(source, archive, "S")
        shutil.copytree(source, found.copy)
        left = step

        def dying(before: str, after: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Killed
            rename(before, after)

        monkeypatch.setattr(os, "rename", dying)
        try:
            _stored_files.exchange(archive, found.copy, found.kept)
            done = True
        except Killed:
            monkeypatch.setattr(os, "rename", rename)
            assert _stored_files.exchange(archive, found.copy, found.kept)
        present = {path for path in _stored_files.listing(archive) if not path.startswith(b".replaced-")}
        assert present == {b"2026/new.pdf"} and _stored_files.listing(found.kept) == {b"2026/old.pdf", b"2025/old.pdf"}
    assert step == (4 if mounted else 3)


@pytest.mark.parametrize("mounted", [False, True])
def test_an_exchange_that_fails_at_any_step_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounted: bool) -> None:
    # B10
    rename, step, done = os.rename, 0, False
    while not done:
        step += 1
        source, archive = archive_with(tmp_path / str(step), mounted=mounted, monkeypatch=monkeypatch)
        found = _stored_files.plan(source, archive, "S")
        shutil.copytree(source, found.copy)
        left = step

        def failing(before: str, after: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise OSError(5, "Input/output error")
            rename(before, after)

        monkeypatch.setattr(os, "rename", failing)
        try:
            _stored_files.exchange(archive, found.copy, found.kept)
            done = True
        except OSError:
            present = {path for path in _stored_files.listing(archive) if not path.startswith(b".restored")}
            assert present == {b"2026/old.pdf", b"2025/old.pdf"}
            assert _stored_files.listing(found.copy) == {b"2026/new.pdf"}
            assert not Path(archive, ".restored-whole").exists()


def test_an_exchange_in_a_mount_point_takes_a_second_copy_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # B10: a restore that is run again copies the set again, while some of its files are in the archive already.
    source, archive = archive_with(tmp_path, mounted=True, monkeypatch=monkeypatch)
    store(tmp_path / "archive/.replaced-1", b"2026/old.pdf", b"2025/old.pdf")
    shutil.rmtree(tmp_path / "archive/2025")
    (tmp_path / "archive/2026/old.pdf").rename(tmp_path / "archive/2026/new.pdf")
    (tmp_path / "archive/.restored-whole").touch()
    found = _stored_files.plan(source, archive, "2")
    shutil.copytree(source, found.copy)
    assert _stored_files.exchange(archive, found.copy, found.kept)
    assert {path for path in _stored_files.listing(archive) if not path.startswith(b".replaced-")} == {b"2026/new.pdf"}
    assert _stored_files.listing(f"{archive}/.replaced-1") == {b"2026/old.pdf", b"2025/old.pdf"}


def test_a_plan_names_what_keeps_the_stored_files_from_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # B10
    source, archive = archive_with(tmp_path, mounted=False, monkeypatch=monkeypatch)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10, 9, 1))
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    monkeypatch.setattr(_stored_files, "_mount_points", lambda: [f"{archive}/2025"])
    first, second, third = _stored_files.plan(source, archive).problems
    assert first == f"{tmp_path} cannot be written to, so the stored files cannot be restored in {archive}."
    assert second == f"{archive}/2025 is a mount point inside {archive}, and would stay with the replaced files. Unmount it first."
    assert third == f"The stored files need 8192 bytes on the file system of {tmp_path}, which has 1 free."


def test_an_archive_behind_a_link_is_exchanged_where_the_link_leads(tmp_path: Path) -> None:
    # B12
    store(tmp_path / "set", b"a")
    store(tmp_path / "disk2/archive", b"b")
    (tmp_path / "archive").symlink_to("disk2/archive")
    found = _stored_files.plan(str(tmp_path / "set"), str(tmp_path / "archive"))
    assert found.copy == f"{tmp_path}/disk2/archive.restored"


def test_mount_points_of_this_machine_are_known() -> None:
    assert _stored_files.is_mount_point("/proc") and not _stored_files.is_mount_point("/proc/self")
