"""repozo_info tells what a repository holds, from the directory and the .dat files alone."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.confops.indico.plugins.module_utils import _catalogue, _repository, _repozo, _verify
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError
from ansible_collections.confops.indico.plugins.modules import repozo_info

from tests.unit.storage import Storage

# Two chains. Between the third and the fourth backup a night has passed.
BACKUPS = (("2026-03-01-12-00-00", "none"), ("2026-03-01-13-00-00", "gzip"), ("2026-03-02-01-00-01", "none"), ("2026-03-02-02-00-00", "gzip"))
A, C = BACKUPS[0][0], BACKUPS[2][0]
NOW = datetime(2026, 3, 2, 2, 30, tzinfo=timezone.utc)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "repository"
    path.mkdir()
    storage = Storage(tmp_path / "Data.fs")
    stamps = iter(BACKUPS)
    for stamp, compression in stamps:
        monkeypatch.setattr(_repozo, "_stamp", lambda _repository, stamp=stamp: stamp)
        storage.add(3)
        _repozo.backup(str(storage.path), str(path), compression=compression, full="asked for" if stamp == C else "")
    return path


def catalogue(repository: Path, **options: Any) -> dict[str, Any]:
    return _catalogue.catalogue(str(repository), now=NOW, **options)


def line(repository: Path, dat: str, number: int) -> list[str]:
    return (repository / dat).read_text().splitlines()[number].split()


def test_everything_that_there_is(repository: Path) -> None:
    full, delta = line(repository, f"{A}.dat", 0), line(repository, f"{A}.dat", 1)
    found = catalogue(repository)
    compressed = (repository / "2026-03-01-13-00-00.deltafsz").stat().st_size
    assert found["chains"][0] == {
        "stamp": A,
        "files": [
            {
                "name": f"{A}.fs",
                "kind": "full",
                "time": "2026-03-01T12:00:00Z",
                "start": 0,
                "end": int(full[2]),
                "raw_bytes": int(full[2]),
                "stored_bytes": int(full[2]),
                "compressed": False,
                "md5": full[3],
                "verified_at": None,
            },
            {
                "name": "2026-03-01-13-00-00.deltafsz",
                "kind": "incremental",
                "time": "2026-03-01T13:00:00Z",
                "start": int(full[2]),
                "end": int(delta[2]),
                "raw_bytes": int(delta[2]) - int(full[2]),
                "stored_bytes": compressed,
                "compressed": True,
                "md5": delta[3],
                "verified_at": None,
            },
        ],
        "first_backup": "2026-03-01T12:00:00Z",
        "last_backup": "2026-03-01T13:00:00Z",
        "raw_bytes": int(delta[2]),
        "stored_bytes": int(full[2]) + compressed,
        "problems": [],
        "pinned": False,
        "verified": None,
    }
    assert [(chain["stamp"], chain["first_backup"], chain["last_backup"]) for chain in found["chains"]][1:] == [
        (C, "2026-03-02T01:00:01Z", "2026-03-02T02:00:00Z")
    ]
    assert found["totals"] == {
        "chains": 2,
        "files": 4,
        "raw_bytes": sum(chain["raw_bytes"] for chain in found["chains"]),
        "stored_bytes": sum(path.stat().st_size for path in repository.glob("*fs*")),
    }
    assert found["recoverable"] == {"earliest": "2026-03-01T12:00:00Z", "latest": "2026-03-02T02:00:00Z"}
    assert (found["last_full"], found["last_incremental"], found["age_seconds"]) == ("2026-03-02T01:00:01Z", "2026-03-02T02:00:00Z", 1800)
    assert (found["problems"], found["leftovers"], found["gaps"]) == ([], [], [])


@pytest.mark.parametrize(("max_gap", "seconds"), [(0, []), (3598, [3600, 43201, 3599]), (3599, [3600, 43201]), (3600, [43201]), (43200, [43201]), (43201, [])])
def test_gaps_longer_than_allowed(repository: Path, max_gap: int, seconds: list[int]) -> None:
    gaps = catalogue(repository, max_gap=max_gap)["gaps"]
    assert [gap["seconds"] for gap in gaps] == seconds
    assert {"after": "2026-03-01T13:00:00Z", "before": "2026-03-02T01:00:01Z", "seconds": 43201} in gaps or 43201 not in seconds


def test_a_gap_has_no_negative_length(repository: Path) -> None:
    """B17"""
    with pytest.raises(RepositoryError, match=r"^max_gap is -1; it is a number of seconds, 0 or more\.$"):
        catalogue(repository, max_gap=-1)


def test_what_was_verified_and_has_not_changed_since(repository: Path) -> None:
    _verify.verify(str(repository))
    state = _repository.read_state(str(repository))
    state["verified"][f"{A}.fs"]["at"] = "2026-03-01T14:00:00Z"
    _repository.write_state(str(repository), state)
    first, second = catalogue(repository)["chains"]
    later = state["verified"]["2026-03-01-13-00-00.deltafsz"]["at"]
    assert [file["verified_at"] for file in first["files"]] == ["2026-03-01T14:00:00Z", later]
    assert (first["verified"], second["verified"]) == ("2026-03-01T14:00:00Z", later)
    with (repository / "2026-03-01-13-00-00.deltafsz").open("ab") as stream:
        stream.write(b"x")
    first, second = catalogue(repository)["chains"]
    assert [file["verified_at"] for file in first["files"]] == ["2026-03-01T14:00:00Z", None]
    assert (first["verified"], second["verified"]) == (None, later)


@pytest.mark.parametrize(
    ("pins", "pinned"), [([C], [False, True]), ([], [False, False]), (None, [False, False]), ({"a": 1}, [False, False]), (7, [False, False])]
)
def test_pins(repository: Path, pins: Any, pinned: list[bool]) -> None:
    _repository.write_state(str(repository), {"pins": pins})
    assert [chain["pinned"] for chain in catalogue(repository)["chains"]] == pinned


def test_only_sound_chains_are_recoverable(repository: Path) -> None:
    (repository / f"{C}.dat").unlink()
    found = catalogue(repository)
    assert found["problems"] == found["chains"][1]["problems"] == [f"{C}.dat is missing."]
    assert found["recoverable"] == {"earliest": "2026-03-01T12:00:00Z", "latest": "2026-03-01T13:00:00Z"}
    unlisted = found["chains"][1]["files"][0]
    assert [unlisted[key] for key in ("start", "end", "raw_bytes", "md5", "verified_at")] == [None] * 5
    assert (found["chains"][1]["raw_bytes"], found["chains"][1]["stored_bytes"] > 0) == (0, True)
    (repository / f"{A}.dat").unlink()
    assert catalogue(repository)["recoverable"] is None


def test_a_name_that_is_no_date_has_no_time(repository: Path) -> None:
    for path in list(repository.glob(f"{C}*")):
        path.rename(repository / path.name.replace("2026-03-02", "2026-02-30"))
    found = catalogue(repository, max_gap=1)
    assert found["chains"][0]["files"][0]["time"] is found["chains"][0]["first_backup"] is None
    assert found["last_full"] == "2026-03-01T12:00:00Z"
    assert found["age_seconds"] == 1800


def test_leftovers_and_strays_are_told(repository: Path) -> None:
    (repository / ".confops-1.fs").touch()
    (repository / "2026-02-01-00-00-00.deltafs").touch()
    found = catalogue(repository)
    assert found["leftovers"] == [".confops-1.fs"]
    assert found["problems"] == ["2026-02-01-00-00-00.deltafs is an incremental backup without the full one that it continues."]
    assert found["totals"]["files"] == 4


def test_no_data_is_read_and_nothing_written(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    really_open = _repository.open_regular

    def note(path: str, **options: Any) -> Any:
        opened.append(Path(path).name)
        return really_open(path, **options)

    before = sorted((path.name, path.stat().st_mtime_ns) for path in repository.iterdir())
    monkeypatch.setattr(_repository, "open_regular", note)
    catalogue(repository)
    assert sorted(set(opened)) == [f"{A}.dat", f"{C}.dat", "confops.json"]
    assert sorted((path.name, path.stat().st_mtime_ns) for path in repository.iterdir()) == before


def test_an_empty_repository_has_an_empty_catalogue(tmp_path: Path) -> None:
    found = catalogue(tmp_path)
    assert (found["chains"], found["problems"], found["gaps"], found["totals"]) == ([], [], [], {"chains": 0, "files": 0, "raw_bytes": 0, "stored_bytes": 0})
    assert [found[key] for key in ("recoverable", "last_full", "last_incremental", "age_seconds")] == [None] * 4


def test_a_missing_repository(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"/no cannot be read: No such file or directory\.$"):
        catalogue(tmp_path / "no")


# The module


def module(capsys: pytest.CaptureFixture[str], repository: Path, **options: Any) -> dict[str, Any]:
    """Run the module and return its answer."""
    with patch_module_args({"repository": str(repository), **options}), pytest.raises(SystemExit):
        repozo_info.main()
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    answer.pop("invocation")
    return answer


def test_the_module_answers_the_same_in_check_mode(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checked, ran = module(capsys, repository, max_gap=3600, _ansible_check_mode=True), module(capsys, repository, max_gap=3600)
    assert ran.pop("changed") is checked.pop("changed") is False
    assert ran.pop("age_seconds") - checked.pop("age_seconds") in (0, 1)
    expected = catalogue(repository, max_gap=3600)
    expected.pop("age_seconds")
    assert checked == ran == expected


def test_the_module_fails_without_a_repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed = module(capsys, tmp_path / "no")
    assert (failed["failed"], failed["msg"]) == (True, f"The repository {tmp_path}/no cannot be read: No such file or directory.")
