"""The copy that another host pulls: what is taken over, what a source in the wrong hands cannot do, and what is left when a pull is killed.

rsync runs as it does over SSH, between two directories of this machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _offsite, _offsite_command, _prune, _repository, _repozo, _restore, _verify
from ansible_collections.confops.indico.plugins.module_utils._offsite import Listed, Memory
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError

from tests.unit.storage import START, Storage


class World:
    """A source, its database, the host that pulls, and the clock of both."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.source, self.host, self.now = directory / "source", directory / "host", START
        self.main, self.sets, self.copy = self.source / "main", self.source / "sets", self.host / "copy"
        for path in (self.source, self.main, self.sets, self.host):
            path.mkdir()
        self.storage = Storage(directory / "Data.fs")
        self.stored = {"one.pdf": b"1" * 1000, "two.pdf": b"2" * 1000}
        self.settings = _offsite.Settings("indico", str(self.host), ["main"], f"{self.source}/", reserve_mb=0, metrics=str(self.host / "metrics.prom"))
        monkeypatch.setattr(_repozo, "_stamp", lambda _repository: self.stamp())
        monkeypatch.setattr(_prune, "now", lambda: self.now)

    def stamp(self) -> str:
        return f"{self.now:{_repository.STAMP}}"

    def backup(self, days: float = 1, *, full: bool = False, transactions: int = 3) -> str:
        """Let time pass, make a backup and a set as backup_set does, and return the set's stamp."""
        self.now += timedelta(days=days)
        self.storage.add(transactions)
        done = _repozo.backup(str(self.storage.path), str(self.main), full="asked" if full else "")
        assert done.file
        self.now += timedelta(seconds=1)
        place = self.sets / self.stamp()
        (place / "archive").mkdir(parents=True)
        (place / "etc").mkdir()
        for name, content in self.stored.items():
            (place / "archive" / name).write_bytes(content)
            os.utime(place / "archive" / name, (1, 1))
        (place / "etc/indico.conf").write_bytes(b"BaseURL = 'x'\n")
        self.manifest(place, end=done.decision.end, file=Path(done.file).name)
        return place.name

    def manifest(self, place: Path, **main: Any) -> None:
        files = [path for path in (place / "archive").iterdir() if path.is_file() and not path.is_symlink()]
        told = {
            "storages": [{"name": "main", "last_transaction": {"time": "2026-03-01T12:00:00Z"}, **main}],
            "archive": {"files": len(files), "bytes": sum(path.stat().st_size for path in files)},
            "etc": {"indico.conf": hashlib.sha256(b"BaseURL = 'x'\n").hexdigest()},
            "why": "test",
            "who": "root",
        }
        (place / "manifest.json").write_text(json.dumps(told))

    def pull(self, **changes: Any) -> _offsite.Outcome:
        for name, value in changes.items():
            setattr(self.settings, name, value)
        return _offsite.pull(self.settings)

    def names(self, base: Path | None = None) -> list[str]:
        """Return what there is of backups, without what each side remembers for itself."""
        base = base or self.copy
        return sorted(str(path.relative_to(base)) for path in base.rglob("*") if (path.is_file() and path.suffix != ".json") or path.name == "manifest.json")

    def content(self) -> dict[str, bytes]:
        return {name: (self.copy / name).read_bytes() for name in self.names()}

    def restored(self) -> bytes:
        target = self.host.parent / "restored.fs"
        target.unlink(missing_ok=True)
        _restore.restore(_restore.Request(repository=str(self.copy / "main"), target=str(target)))
        return target.read_bytes()

    def newest(self, suffix: str = "fs*") -> Path:
        return sorted(self.main.glob(f"*{suffix}"))[-1]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


# What a good source has


def test_everything_comes_once(world: World) -> None:
    first = world.backup()
    second = world.backup()
    done = world.pull()
    assert (done.ok, done.files, done.sets, done.refused) == (True, 2, [first, second], [])
    assert world.names() == world.names(world.source)
    assert world.restored() == world.storage.path.read_bytes()
    again = world.pull()
    assert (again.ok, again.files, again.sets, again.bytes) == (True, 0, [], 0)
    assert again.line().endswith(": 0 files and 0 sets, 0 bytes")
    third = world.backup()
    done = world.pull()
    assert (done.files, done.sets) == (1, [third])
    assert world.restored() == world.storage.path.read_bytes()
    # A stored file that did not change is on disk once.
    assert (world.copy / "sets" / third / "archive/one.pdf").stat().st_nlink == 3


def test_it_is_nobody_elses_to_read(world: World) -> None:
    world.backup()
    world.pull()
    assert {path.stat().st_mode & 0o777 for path in world.copy.rglob("*") if path.is_file() and path.suffix not in (".json", ".dat")} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in world.copy.rglob("*") if path.is_dir()} == {0o700}


def test_index_files_and_what_the_source_remembers_stay_there(world: World) -> None:
    world.backup()
    world.newest().with_suffix(".index").write_bytes(b"forged")
    (world.main / "confops.json").write_text('{"pins": ["x"], "verified": {}}')
    (world.source / "status.json").write_text("{}")
    assert world.pull().ok
    assert list(world.copy.rglob("*.index")) == []
    assert "pins" not in (world.copy / "main/confops.json").read_text()
    assert set((world.copy / "main").iterdir()) == {world.copy / "main" / name for name in ("confops.json", world.newest().name, world.newest("dat").name)}


def test_a_backup_that_is_being_made_is_left_for_the_next_pull(world: World) -> None:
    world.backup()
    world.pull()
    dat = world.newest("dat")
    before = dat.read_bytes()
    world.backup()
    after = dat.read_bytes()
    dat.write_bytes(before)  # the data are named first, then listed
    unfinished = max(world.sets.iterdir())
    unfinished.rename(world.sets / f".confops-{unfinished.name}")
    done = world.pull()
    assert (done.ok, done.files, done.sets) == (True, 0, [])
    dat.write_bytes(after)
    (world.sets / f".confops-{unfinished.name}").rename(unfinished)
    done = world.pull()
    assert (done.ok, done.files, len(done.sets)) == (True, 1, 1)


def test_each_side_keeps_its_own_calendar(world: World) -> None:
    for number in range(8):
        world.backup(10, full=number % 2 == 0)
    policy = {"window_days": 20, "keep_monthly": 0, "keep_chains_min": 1}
    done = world.pull(**policy)
    assert [name.split("/")[0] for name in done.deleted] == ["main", "main", "sets", "sets", "sets", "sets"]
    # What was removed here is still at the source; it neither comes back nor alarms anybody.
    assert world.pull().line().endswith(": 0 files and 0 sets, 0 bytes")
    assert len(list((world.copy / "sets").iterdir())) == 4
    # The source forgets earlier: nothing here goes for it.
    kept = world.names()
    for path in sorted(world.main.iterdir())[:4] + sorted(world.sets.iterdir())[:5]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert world.pull(window_days=90).ok
    assert world.names() == kept


def test_what_was_lost_here_comes_back_when_its_md5_is_known(world: World) -> None:
    world.backup()
    world.backup()
    world.pull()
    lost = world.copy / "main" / world.newest("fs*").name
    content = lost.read_bytes()
    lost.unlink()
    assert world.pull().ok
    assert lost.read_bytes() == content


# What is written down


def test_a_pull_that_only_deletes_has_changed_something(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """O15: playbooks/pull.yml takes changed from this, not from words."""
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"instance": "indico", "directory": str(tmp_path), "storages": ["main"], "source": "/b/"}))
    monkeypatch.setattr("signal.signal", lambda *_arguments: None)
    for outcome, changed in ((_offsite.Outcome(deleted=["main/2026"]), True), (_offsite.Outcome(), False), (_offsite.Outcome(files=1), True)):
        monkeypatch.setattr(_offsite, "pull", lambda _settings, outcome=outcome: outcome)
        assert _offsite_command.main(str(settings), ["pull", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["changed"] is changed
    monkeypatch.setattr(_offsite, "pull", lambda _settings: _offsite.Outcome(problem="It is away."))
    assert _offsite_command.main(str(settings), ["pull", "--json"]) == 1
    assert capsys.readouterr().err == "pull failed: It is away.\n"


def test_status_metrics_list_and_check(world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = world.host / "settings.json"
    settings.write_text(json.dumps(vars(world.settings)))
    monkeypatch.setattr("time.time", lambda: world.now.timestamp())
    monkeypatch.setattr("signal.signal", lambda *_arguments: None)

    def command(*arguments: str) -> tuple[int, str, str]:
        code = _offsite_command.main(str(settings), list(arguments))
        return code, *capsys.readouterr()

    code, said, _error = command("check")
    assert (code, said.startswith("UNKNOWN: No pull has left word in ")) == (3, True)
    stamp = world.backup()
    world.now += timedelta(hours=3)
    code, said, error = command("pull")
    assert (code, error) == (0, "")
    assert said.startswith("pull done in ") and ": 1 files and 1 sets, " in said
    status = json.loads(command("status")[1])
    assert (status["ok"], status["newest_set"], status["lag_seconds"]) == (True, stamp, 3 * 3600)
    metrics = (world.host / "metrics.prom").read_text()
    for line in ("status", "lag_seconds", "success_time_seconds", "verified_time_seconds", "bytes", "refused"):
        assert f'indico_offsite_{line}{{instance_name="indico"}} ' in metrics
    assert 'indico_offsite_status{instance_name="indico"} 2\n' in metrics
    assert 'indico_offsite_lag_seconds{instance_name="indico"} 10800\n' in metrics
    code, said, _error = command("pull", "--json")
    assert (code, json.loads(said)["changed"]) == (0, False)
    assert command("check")[:2] == (0, "OK: the newest set here is 3 hours old\n")
    assert command("list")[1] == f"{stamp}  main to 2026-03-01T12:00:00Z, 2 stored files  (test, root)\n"
    world.now += timedelta(hours=30)
    assert command("check")[:2] == (1, "WARNING: the newest set here is 33 hours old\n")
    world.now += timedelta(hours=30)
    assert command("check")[:2] == (2, "CRITICAL: the newest set here is 63 hours old\n")
    shutil.rmtree(world.source)
    code, _said, error = command("pull")
    assert code == 1 and error.startswith("pull failed: Reading from the source failed (rsync's exit code 23): ")
    assert 'indico_offsite_status{instance_name="indico"} 0\n' in (world.host / "metrics.prom").read_text()
    code, said, _error = command("check")
    assert code == 2 and "; the last pull failed: Reading from the source" in said


@pytest.mark.parametrize(
    ("code", "said", "sentence"),
    [
        (255, "Host key verification failed.", "adb1 shows an SSH key that is not the one known here. Run site.yml for both hosts, if it was set up anew ("),
        (255, "x@y: Permission denied (publickey).", "adb1 refuses the SSH key of this host. Run site.yml for both hosts ("),
        (255, "ssh: connect to host y port 22: Connection refused", "adb1 refuses connections to its SSH server ("),
        (255, "ssh: connect to host y port 22: Connection timed out", "adb1 cannot be reached: the connection timed out ("),
        (255, "ssh: Could not resolve hostname y: Name or service not known", "adb1 has a name that cannot be resolved here ("),
        (11, "rsync: write failed: No space left on device (28)", "adb1 has more than there is room for here. What is here stays ("),
        (30, "", "adb1 was silent for 300 seconds ("),
        (12, "connection unexpectedly closed\nrsync error: x", "Reading from adb1 failed (rsync's exit code 12): connection unexpectedly closed"),
    ],
)
def test_why_a_pull_failed(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, said: str, sentence: str) -> None:
    program = tmp_path / "bin/rsync"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{said}\nEND\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with pytest.raises(RepositoryError) as error:
        world.pull(name="adb1")
    assert str(error.value).startswith(f"pull failed: {sentence}")
    assert json.loads((world.host / "status.json").read_text())["problem"].startswith(sentence)


def test_no_rsync(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RepositoryError, match=r"There is no rsync on this host\."):
        world.pull()


def test_two_at_once_are_one(world: World) -> None:
    world.backup()
    with _repository.lock(str(world.host)), pytest.raises(RepositoryError, match="is in use by process"):
        world.pull()
    assert not world.copy.exists()


def test_settings_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"instance": "x", "colour": 1}')
    with pytest.raises(RepositoryError, match=r"The settings .* cannot be used: .*colour"):
        _offsite.read_settings(str(tmp_path / "settings.json"))


# A disk that fills


def test_a_pull_that_needs_more_than_there_is_room_for_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.backup()
    world.pull()
    kept = world.content()
    world.backup()
    monkeypatch.setattr(_offsite, "_free", lambda _settings: 10)
    with pytest.raises(RepositoryError, match=r"has \d+ bytes that are not here, and .* has room for 10, when 0 MiB stay free\. What is here stays\."):
        world.pull()
    assert world.content() == kept
    monkeypatch.undo()
    assert world.restored()


def test_a_source_that_sends_more_than_it_had_shown_is_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """rsync may write no file that is larger than the largest that was shown."""
    world.backup()
    listed = _offsite._list

    def smaller(settings: _offsite.Settings) -> dict[str, dict[str, Listed]]:
        return {part: {name: Listed(one.kind, 5 if ".fs" in name else one.bytes) for name, one in names.items()} for part, names in listed(settings).items()}

    monkeypatch.setattr(_offsite, "_list", smaller)
    with pytest.raises(RepositoryError, match="Reading from the source failed"):
        world.pull()
    assert world.names() == []
    assert max(path.stat().st_size for path in (world.host / "incoming/main").iterdir()) <= 5


def test_rsync_is_ended_when_the_room_runs_out(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "bin/rsync"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(_offsite, "_free", lambda _settings: 0)
    with pytest.raises(RepositoryError, match="was about to be full, of which 0 MiB stay free"):
        world.pull()


# A source in the wrong hands


def vandalise(world: World, what: str) -> None:
    """Do one evil thing to a source with a chain of two backups and two sets, all of which was pulled."""
    data, dat, last = world.newest(), world.newest("dat"), sorted(world.sets.iterdir())[-1]
    if what == "all deleted":
        shutil.rmtree(world.source)
        world.main.mkdir(parents=True)
        world.sets.mkdir()
    elif what == "newest deleted":
        data.unlink()
    elif what == "truncated":
        data.write_bytes(data.read_bytes()[:-1])
    elif what == "replaced by a link":
        data.unlink()
        data.symlink_to("/etc/passwd")
    elif what == "list rewritten":
        dat.write_bytes(dat.read_bytes().replace(b" 0 ", b" 1 "))
    elif what == "list shortened":
        dat.write_bytes(dat.read_bytes().splitlines(keepends=True)[0])
    elif what == "list with another name":
        dat.write_bytes(dat.read_bytes() + b"x/../../etc/passwd 1 2 " + b"0" * 32 + b"\n")
    elif what == "set a link":
        shutil.rmtree(last)
        last.symlink_to("/etc")
    elif what == "sets deleted":
        shutil.rmtree(last)
    else:
        raise AssertionError(what)


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("all deleted", "is the newest backup here and no longer at the source, which never removes its newest."),
        ("newest deleted", "is the newest backup here and no longer at the source, which never removes its newest."),
        ("truncated", "here; what is here stays."),
        ("replaced by a link", "at the source is a symbolic link, not a file."),
        ("list rewritten", ".dat was rewritten at the source: it no longer begins with what is here, which stays."),
        ("list shortened", ".dat was rewritten at the source: it no longer begins with what is here, which stays."),
        ("list with another name", "it lists passwd, which no backup is called."),
        ("set a link", "at the source is a symbolic link, not a directory."),
        ("sets deleted", "is the newest set here and no longer at the source, which never removes its newest."),
    ],
)
def test_what_was_pulled_stays_whatever_becomes_of_the_source(world: World, what: str, sentence: str) -> None:
    world.backup()
    world.backup()
    world.pull(window_days=1, keep_monthly=0, keep_chains_min=1)
    kept = world.content()
    vandalise(world, what)
    done = world.pull()
    assert not done.ok
    assert [one for one in done.refused if sentence in one], done.refused
    assert world.content() == kept
    assert world.restored() == world.storage.path.read_bytes()
    status = _offsite.status(world.settings)
    code, line = _offsite.judge(status, world.now.timestamp(), 1e9, 1e9)
    assert code == 2 and f"{len(done.refused)} refused: " in line
    assert 'indico_offsite_status{instance_name="indico"} 1\n' in (world.host / "metrics.prom").read_text()


def forged_chain(world: World, moment: datetime) -> str:
    """Put a sound chain of that moment into the source, and return its stamp."""
    before, world.now = world.now, moment
    other = Storage(world.source.parent / "Forged.fs", seed=2)
    other.add(2)
    fresh = world.source.parent / "forged"
    fresh.mkdir()
    _repozo.backup(str(other.path), str(fresh))
    for path in fresh.iterdir():
        if path.suffix != ".json":
            path.rename(world.main / path.name)
    world.now = before
    return f"{moment:{_repository.STAMP}}"


@pytest.mark.parametrize("forget", [False, True], ids=["known", "state lost"])
def test_a_backup_of_the_past_that_was_not_there_before_is_refused(world: World, forget: bool) -> None:
    world.backup()
    world.pull()
    if forget:
        (world.host / "state.json").unlink()
    stamp = forged_chain(world, world.now - timedelta(hours=1))
    done = world.pull()
    (sentence,) = done.refused
    assert sentence.startswith(f"main/{stamp}.dat is not taken over: {stamp}.fsz was not there before, and is not newer than ")
    assert not (world.copy / "main" / f"{stamp}.dat").exists()


def test_the_past_is_closed_by_a_pull_that_the_source_made_fail(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a source would break off every pull and hand in what displaces the old chains."""
    world.backup()
    with monkeypatch.context() as patch, pytest.raises(RepositoryError, match="cut"):
        patch.setattr(_offsite, "_fetch_chains", lambda *_arguments: (_ for _ in ()).throw(RepositoryError("cut")))
        world.pull()
    stamp = forged_chain(world, world.now - timedelta(hours=1))
    done = world.pull()
    assert [one.split(" ")[0] for one in done.refused] == [f"main/{stamp}.dat"]
    assert done.files == 1
    assert world.restored() == world.storage.path.read_bytes()


def test_a_backup_of_the_future_is_refused(world: World) -> None:
    world.backup()
    stamp = forged_chain(world, world.now + timedelta(hours=2))
    (world.sets / "2099-01-01-00-00-00").mkdir()
    (world.sets / "2026-02-31-00-00-00").mkdir()
    done = world.pull()
    assert [one.split(":")[0] for one in done.refused] == [
        f"main/{stamp}.dat is not taken over",
        "sets/2026-02-31-00-00-00 is named after a moment that no calendar has.",
        "sets/2099-01-01-00-00-00 is of the future",
    ]
    assert f"{stamp}.fsz is of the future: it is " in done.refused[0]
    assert world.restored() == world.storage.path.read_bytes()


def test_clocks_may_differ_a_little(world: World) -> None:
    world.backup()
    world.now -= timedelta(minutes=30)
    assert world.pull().ok


def test_what_does_not_verify_never_lands(world: World) -> None:
    """A chain that is here must not be spoilt by what is added to it."""
    world.backup()
    world.pull()
    kept = world.content()
    world.backup()
    data = world.newest()
    content = bytearray(data.read_bytes())
    content[-20] ^= 1
    data.write_bytes(content)
    done = world.pull()
    assert [one for one in done.refused if ".dat is not taken over, since what came with it is not sound: " in one and data.name in one], done.refused
    assert {name: text for name, text in world.content().items() if name in kept} == kept
    assert not (world.copy / "main" / data.name).exists()
    assert "names backups that are not here" in done.problems[0]
    assert _offsite.status(world.settings)["newest_set"] == min(path.name for path in world.sets.iterdir())


def test_a_set_that_is_not_what_its_manifest_says_is_refused(world: World) -> None:
    stamp = world.backup()
    (world.sets / stamp / "archive/one.pdf").write_bytes(b"less")
    (world.sets / stamp / "archive/three.pdf").symlink_to("/etc/passwd")
    done = world.pull()
    assert done.refused == [f"sets/{stamp} is not taken over: it has 2 stored files of 1004 bytes; its manifest says 2 of 2000."]
    assert list((world.copy / "sets").iterdir()) == []
    (world.sets / stamp / "manifest.json").write_text('{"storages": [{"name": "../x"}]}')
    assert world.pull().refused[0].startswith(f"sets/{stamp} is not taken over: its manifest.json cannot be used: it does not say end.")


def test_configuration_that_is_not_of_the_manifest_is_refused(world: World) -> None:
    stamp = world.backup()
    (world.sets / stamp / "etc/other.conf").write_bytes(b"x")
    assert world.pull().refused == [f"sets/{stamp} is not taken over: the files of its configuration are not those of its manifest."]


def test_links_and_devices_in_a_set_do_not_come(world: World) -> None:
    stamp = world.backup()
    (world.sets / stamp / "archive/link").symlink_to("/etc/passwd")
    os.mkfifo(world.sets / stamp / "archive/pipe")
    assert world.pull().ok
    assert {path.name for path in (world.copy / "sets" / stamp / "archive").iterdir()} == {"one.pdf", "two.pdf"}


def test_odd_names_of_stored_files_come(world: World) -> None:
    world.stored = {"a b\nc": b"1", "\u00e9 -> x": b"2", "-rf": b"3", ".confops-x": b"4"}
    stamp = world.backup()
    assert world.pull().ok
    assert {path.name: path.read_bytes() for path in (world.copy / "sets" / stamp / "archive").iterdir()} == world.stored


def test_nothing_is_removed_while_something_is_refused(world: World) -> None:
    for number in range(4):
        world.backup(20, full=number % 2 == 0)
    forged_chain(world, world.now + timedelta(days=1))
    done = world.pull(window_days=1, keep_monthly=0, keep_chains_min=1)
    assert (done.ok, done.deleted) == (False, [])


# The decision alone


NOW = START + timedelta(days=10)
FULL, MORE, NEXT = "2026-03-02-00-00-00", "2026-03-03-00-00-00", "2026-03-04-00-00-00"


def dat(*names: str) -> bytes:
    return b"".join(f"/r/{name} {number} {number + 1} {'0' * 32}\n".encode() for number, name in enumerate(names))


def chosen(dats: dict[str, bytes], here: dict[str, bytes] | None = None, memory: Memory | None = None, **offered: Listed) -> _offsite.Choice:
    entries = [entry.name for text in dats.values() for entry in _repository.parse_dat(text.decode())[0]]
    held = {entry.name: 1 for text in (here or {}).values() for entry in _repository.parse_dat(text.decode())[0]}
    return _offsite.choose("main", {**{name: Listed("-", 1) for name in entries}, **offered}, dats, held, here or {}, memory or Memory(), NOW)


@pytest.mark.parametrize(
    ("dats", "reason"),
    [
        ({FULL: b"half a li"}, "line 1 is not whole"),
        ({FULL: dat(f"{MORE}.fs")}, "it does not list its full backup first and no other"),
        ({FULL: dat(f"{FULL}.fs", f"{MORE}.fs")}, "it does not list its full backup first and no other"),
        ({FULL: dat(f"{FULL}.fs", f"{NEXT}.deltafs", f"{MORE}.deltafs")}, "it lists its files out of order"),
        ({FULL: dat(f"{FULL}.fs", f"{FULL}.deltafs")}, "it lists its files out of order"),
        ({FULL: dat("x.fs")}, "it lists x.fs, which no backup is called"),
        ({FULL: dat(f"{FULL}.fs", "2026-02-31-00-00-00.deltafs")}, "it lists its files out of order"),
        ({FULL: dat(f"{FULL}.fs", "2026-03-32-00-00-00.deltafs")}, "2026-03-32-00-00-00.deltafs is named after a moment that no calendar has"),
        ({FULL: dat(f"{FULL}.fs", f"{NEXT}.deltafs"), MORE: dat(f"{MORE}.fs")}, f"it goes on behind the chain {MORE}"),
    ],
)
def test_lists_that_are_no_chain(dats: dict[str, bytes], reason: str) -> None:
    choice = chosen(dats)
    assert choice.refused == [f"main/{FULL}.dat is not taken over: {reason}."]
    assert FULL not in choice.chains


def test_an_empty_list_is_no_chain() -> None:
    assert chosen({FULL: b""}).chains == {}


def test_a_listed_file_that_the_source_does_not_have() -> None:
    choice = _offsite.choose("main", {f"{FULL}.fs": Listed("-", 1)}, {FULL: dat(f"{FULL}.fs", f"{MORE}.deltafs")}, {}, {}, Memory(), NOW)
    assert choice.refused == [f"main/{FULL}.dat is not taken over: it lists {MORE}.deltafs, which is not there."]


def test_what_an_interrupted_pull_had_accepted_is_still_accepted() -> None:
    dats = {FULL: dat(f"{FULL}.fs", f"{MORE}.deltafs")}
    assert chosen(dats, memory=Memory(NEXT)).chains == {}
    assert chosen(dats, memory=Memory(NEXT, pending=[f"{FULL}.fs", f"{MORE}.deltafs"])).chains == {FULL: [f"{FULL}.fs", f"{MORE}.deltafs"]}


def test_what_was_removed_here_is_neither_taken_nor_refused() -> None:
    choice = chosen({FULL: dat(f"{FULL}.fs")}, memory=Memory(NEXT, removed=[FULL]))
    assert (choice.chains, choice.refused) == ({}, [])


# Killed


def test_killed_at_any_step_the_next_pull_completes_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step is a call that changes the disk. At no moment is what is here unsound, nor does a verification say so (B19)."""
    world.backup()
    world.pull()
    start = world.host.parent / "start"
    shutil.copytree(world.host, start)
    world.backup()
    world.backup()
    world.backup(full=True)
    expected = world.names(world.source)
    step = 0
    while True:
        step += 1
        shutil.rmtree(world.host)
        shutil.copytree(start, world.host)
        if not killed(world, step):
            break
        if world.copy.exists():
            assert world.restored()
            assert _verify.verify(str(world.copy / "main"), jobs=1, check=True).problems == [], step
        done = world.pull()
        assert done.ok, (step, done.line())
        assert world.names() == expected, step
        assert world.restored() == world.storage.path.read_bytes()
        assert [path.name for path in world.host.rglob(".confops-*")] == []
    assert step > 20


def killed(world: World, step: int) -> bool:
    """Pull in a process that ends without a word before its step-th change. Return whether it came that far."""
    pid = os.fork()
    if not pid:
        left = step

        def counting(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if not left:
                    os._exit(9)
                return function(*arguments, **options)

            return call

        for name in ("link", "rename", "replace", "unlink", "makedirs"):
            setattr(os, name, counting(getattr(os, name)))
        shutil.rmtree = counting(shutil.rmtree)  # type: ignore[assignment]
        _offsite._rsync = counting(_offsite._rsync)
        try:
            world.pull()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


def test_ended_by_a_signal_it_leaves_word(world: World, tmp_path: Path) -> None:
    settings, program = world.host / "settings.json", tmp_path / "bin/rsync"
    settings.write_text(json.dumps(vars(world.settings)))
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nkill $PPID\nexec sleep 60\n")
    program.chmod(0o755)
    run = f"from ansible_collections.confops.indico.plugins.module_utils import _offsite_command; _offsite_command.main({str(settings)!r}, ['pull'])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run([sys.executable, "-c", run], env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (1, "ended before the pull was done\n")
    assert _offsite.status(world.settings)["problem"] == "it was ended (SystemExit)."
