"""Stored files: what a directory holds, and which names of the database lead to nothing."""

from __future__ import annotations

import os
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


def test_a_file_behind_a_link_to_a_directory_is_there(tmp_path: Path) -> None:
    store(tmp_path / "elsewhere", b"C1/talk.pdf")
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive/2026").symlink_to("../elsewhere")
    archive = str(tmp_path / "archive")
    assert _stored_files.listing(archive) == set()
    assert _stored_files.missing([b"2026/C1/talk.pdf", b"2026/C1/no.pdf"], archive, set(), HOME) == [b"2026/C1/no.pdf"]


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
