"""Packs between two backups: the order of the steps, what is refused, and a kill between any two of them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.confops.indico.plugins.module_utils import (
    _backup_command,
    _backup_set,
    _backup_status,
    _crontab,
    _filestorage,
    _history,
    _pack,
    _prune,
    _repository,
    _repozo,
    _restore,
    _scratch,
    _verify,
    _zeo,
    _zeopack,
)
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError

from tests.unit.storage import Storage

UNCHANGED = "nothing was packed."
KEPT = 5  # transactions that the servers of these tests leave
HOSTILE = {"window_days": None, "keep_daily": 1, "keep_chains_min": 1}  # keeps nothing beside the newest verified chain


class Site:
    """An instance with two storages, and the servers that pack them. calls tells in order what was done to which storage."""

    def __init__(self, place: Path) -> None:
        self.place, self.calls, self.silent = place, [], ""
        self.during: Callable[[str], object] = lambda name: None  # is called while a server packs
        self.storages = {}
        for name, number in (("main", 30), ("rooms", 12)):
            (place / f"indico/db/{name}").mkdir(parents=True)
            self.storages[name] = Storage(place / f"indico/db/{name}/Data.fs", seed=number)
            self.storages[name].add(number)
        servers = [
            {"name": name, "address": f"127.0.0.1:{port}", "storage": "1", "database": self.database(name)} for name, port in (("main", 1), ("rooms", 2))
        ]
        (place / "zeo.json").write_text(json.dumps({"instance": "indico", "python": "/python", "metrics": "", "time_limit": 10, "servers": servers}))
        (place / "backups").mkdir()
        self.settings = _backup_set.Settings(
            instance="indico",
            prefix=str(place / "indico"),
            directory=str(place / "backups"),
            storages=["main", "rooms"],
            compression="none",
            metrics=str(place / "metrics.prom"),
            zeo_settings=str(place / "zeo.json"),
        )

    def database(self, name: str) -> str:
        return str(self.place / f"indico/db/{name}/Data.fs")

    def content(self, name: str) -> bytes:
        return Path(self.database(name)).read_bytes()

    def serve(self, _python: str, server: _zeo.Server, *, database: str, days: float, check: bool, **_options: Any) -> _zeopack.Packed:
        name = Path(database).parent.name
        self.calls += [] if check else [f"pack {name}"]
        if self.silent == name:
            raise _zeo.ZeoError(f"The ZEO server {server.address} does not answer.")
        before = len(self.content(name))
        storage = self.storages[name]
        keep = min(KEPT + int(days), len(storage.tids))
        if keep == len(storage.tids):
            return _zeopack.Packed(result="nothing", bytes_before=before, bytes_after=before, reclaimed_bytes=0, seconds=0.1, packed_to="2026-03-01T12:00:00Z")
        if not check:
            self.during(name)
            Path(f"{database}.old").unlink(missing_ok=True)
            os.link(database, f"{database}.old")
            storage.pack(keep)
        after = len(self.content(name))
        reclaimed = storage.ends[-1 - keep] - 4 if check else before - after
        return _zeopack.Packed(
            result="packed", bytes_before=before, bytes_after=after, reclaimed_bytes=reclaimed, seconds=0.1, packed_to="2026-03-01T12:00:00Z"
        )

    def was_packed(self, name: str) -> None:
        """Take note of a pack to one day ago that another process did."""
        one, keep = self.storages[name], KEPT + 1
        shift = one.ends[-1 - keep] - 4
        one.ends, one.tids = [end - shift for end in one.ends[-1 - keep :]], one.tids[-keep:]

    def chains(self, name: str) -> list[bytes]:
        """Return what each chain restores to, from the oldest. Each must be sound."""
        repository = _repository.read(self.settings.repository(name))
        assert repository.all_problems() == []
        return [b"".join((Path(repository.path) / one.name).read_bytes() for one in chain.files) for chain in repository.chains]

    def newest_is_verified(self, name: str) -> bool:
        repository = _repository.read(self.settings.repository(name))
        return _prune.verified(repository.chains[-1], _repository.read_state(repository.path))

    def pack(self, **options: Any) -> _pack.Pack:
        return _pack.run(self.settings, **options)

    def refusal(self, **options: Any) -> str:
        with pytest.raises(RepositoryError) as refused:
            self.pack(**options)
        return str(refused.value)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    found = Site(tmp_path)
    monkeypatch.setattr(_zeopack, "pack", found.serve)

    def stamp(newest: str | None, _place: str) -> str:  # a backup each second, without waiting for it
        return (_repository.time_of(newest or "2026-03-02-01-00-00") + timedelta(seconds=1)).strftime(_repository.STAMP)

    monkeypatch.setattr(_repository, "fresh_stamp", stamp)
    monkeypatch.setattr(_prune, "now", lambda: _repository.time_of("2026-03-02-02-00-00"))
    return found


def watch(site: Site, monkeypatch: pytest.MonkeyPatch, step: Callable[[], None] = lambda: None) -> None:
    """Have what is done to the backups told in the site's calls, too. step is called before each of them, and of the packs."""

    def wrap(module: Any, name: str, told: Callable[..., str]) -> None:
        function = getattr(module, name)

        def told_first(*arguments: Any, **options: Any) -> Any:
            if not options.get("check"):
                step()
                site.calls.append(told(*arguments, **options))
            return function(*arguments, **options)

        monkeypatch.setattr(module, name, told_first)

    wrap(_repozo, "backup", lambda database, _repository, **options: f"{'full' if options['full'] else 'backup'} {Path(database).parent.name}")
    wrap(_verify, "verify", lambda repository, **_options: f"verify {Path(repository).name}")
    wrap(_backup_set, "_make_set", lambda *_arguments: "set")
    wrap(_prune, "prune", lambda repository, *_arguments, **_options: f"prune {Path(repository).name}")
    wrap(_zeopack, "pack", lambda _python, _server, **_options: "ask for a pack")


BEFORE = ["backup main", "verify main", "backup rooms", "verify rooms", "set", "prune main", "prune rooms"]
PACKS = ["ask for a pack", "pack main", "ask for a pack", "pack rooms"]
AFTER = ["full main", "verify main", "full rooms", "verify rooms", "set", "prune main", "prune rooms"]


def test_the_order(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    watch(site, monkeypatch)
    old = {name: site.content(name) for name in site.storages}
    done = site.pack()
    assert site.calls == [*BEFORE, *PACKS, *AFTER]
    for name in site.storages:
        assert site.chains(name) == [old[name], site.content(name)]
        assert len(site.content(name)) < len(old[name])
        assert site.newest_is_verified(name)
    assert (done.set_needed, done.set_before, done.set_after) == (True, "2026-03-02-01-00-01", "2026-03-02-01-00-02")
    assert [one["why"] for one in _backup_set.manifests(site.settings)] == ["before a pack", "after a pack"]
    assert done.line() == (
        f"pack done in {done.seconds:.1f} s: main {len(old['main'])} to {len(site.content('main'))} bytes,"
        f" rooms {len(old['rooms'])} to {len(site.content('rooms'))} bytes, set 2026-03-02-01-00-02 begins new chains"
    )


def test_without_anything_to_pack_nothing_is_done(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pack()
    site.calls.clear()
    watch(site, monkeypatch)
    done = site.pack()
    assert site.calls == [one for one in BEFORE if one != "set"]
    assert (done.changed, done.wanted(), done.set_needed, done.space) == (False, [], False, [])
    assert done.line().endswith(": main nothing to pack, rooms nothing to pack")


def test_only_what_was_packed_begins_a_new_chain(site: Site) -> None:
    site.pack()
    site.storages["main"].add(10, step=100)
    done = site.pack()
    assert [one["result"] for one in done.storages] == ["packed", "nothing"]
    assert [len(site.chains(name)) for name in ("main", "rooms")] == [3, 2]


def test_the_newest_set_is_of_the_new_chain(site: Site) -> None:
    """The old one holds the same transactions and more; a drill must not restore that in its place."""
    old = site.content("main")
    done = site.pack()
    plan = _scratch.Plan()
    site.settings.drill_directory = str(site.place / "drill")
    _scratch.newest(site.settings, plan, "A drill")
    assert (plan.set, plan.storages[0]["chain"]) == (done.set_after, done.set_after)
    target = str(site.place / "restored.fs")
    request = _restore.Request(repository=site.settings.repository("main"), target=target, wanted=_history.wanted_transaction(plan.storages[0]["tid"]))
    _restore.restore(request)
    assert Path(target).read_bytes() == old  # whoever asks for a transaction has the chain that was packed less
    Path(target).unlink()
    request.chain = plan.storages[0]["chain"]
    _restore.restore(request)
    assert Path(target).read_bytes() == site.content("main")
    request.chain, request.confirm = "2026-03-02-09-00-00", target
    with pytest.raises(RepositoryError, match=f"There is no chain 2026-03-02-09-00-00 in {request.repository}."):
        _restore.restore(request)


def test_a_set_that_no_chain_holds_is_found(site: Site) -> None:
    site.pack()
    site.settings.drill_directory = str(site.place / "drill")
    manifest = Path(site.settings.sets, "2026-03-02-01-00-02", "manifest.json")
    told = json.loads(manifest.read_text())
    told["storages"][0]["end"] += 100_000
    manifest.write_text(json.dumps(told))
    with pytest.raises(RepositoryError) as refused:
        _scratch.newest(site.settings, _scratch.Plan(), "A drill")
    end = told["storages"][0]["end"]
    assert str(refused.value) == f"The chains of main hold less of the database than they should: the manifest of set 2026-03-02-01-00-02 says {end}."


def test_the_newest_backup_covers_the_last_commit(site: Site) -> None:
    _backup_set.run(site.settings, who="root", why="test")
    site.storages["main"].add(3)
    old = site.content("main")
    site.pack()
    assert site.chains("main")[0] == old


def test_what_is_committed_while_a_server_packs_is_in_the_full_backup(site: Site) -> None:
    def commit(name: str) -> None:
        site.storages[name].add(2)

    site.during = commit
    site.pack(days=2)  # two more stay
    assert site.chains("main")[-1] == site.content("main")


def test_days_come_from_the_settings_unless_they_are_given(site: Site) -> None:
    site.settings.pack_days = 3
    assert site.pack(check=True).days == 3
    assert site.pack(check=True, days=0.5).days == 0.5
    assert site.refusal(days=-1) == "days is -1; a pack keeps the revisions of 0 days or more."


def test_check_mode_predicts_and_touches_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    watch(site, monkeypatch)
    _backup_set.run(site.settings, who="root", why="test")
    site.storages["main"].add(1)
    site.calls.clear()
    before = {path: path.read_bytes() for path in site.place.rglob("*") if path.is_file()}
    predicted = site.pack(check=True)
    assert {path: path.read_bytes() for path in site.place.rglob("*") if path.is_file()} == before
    assert site.calls == []
    sizes = {name: len(site.content(name)) for name in site.storages}
    given_back = {one["name"]: one["reclaimed_bytes"] for one in predicted.storages}
    assert predicted.line() == (
        f"a pack would do this: a new backup set first, main {sizes['main']} bytes, of which at least {given_back['main']} would be given back,"
        f" rooms {sizes['rooms']} bytes, of which at least {given_back['rooms']} would be given back"
    )
    done = site.pack()
    assert done.set_needed and predicted.set_needed
    assert [(one["name"], one["result"], one["reclaimed_bytes"]) for one in done.storages] == [
        (one["name"], one["result"], one["reclaimed_bytes"]) for one in predicted.storages
    ]
    assert [(one["directories"], one["needed_bytes"]) for one in done.space] == [(one["directories"], one["needed_bytes"]) for one in predicted.space]


# What is refused


def unpacked(site: Site, name: str = "main") -> bool:
    return not Path(f"{site.database(name)}.old").exists()


def test_no_pack_while_a_backup_runs(site: Site) -> None:
    with _repository.lock(site.settings.directory):
        assert site.refusal() == f"The repository {site.settings.directory} is in use by process {os.getpid()}; nothing was done."
    assert unpacked(site)


def test_no_backup_and_no_other_pack_while_a_pack_runs(site: Site) -> None:
    refused = []

    def try_others(_name: str) -> None:
        for run in (lambda: _backup_set.run(site.settings, who="root", why="test"), lambda: _pack.run(site.settings, check=True)):
            with pytest.raises(RepositoryError) as error:
                run()
            refused.append(str(error.value))

    site.during = try_others
    site.pack()
    assert set(refused) == {f"The repository {site.settings.directory} is in use by process {os.getpid()}; nothing was done."}
    assert len(refused) == 4


def test_a_scheduled_pack_waits_for_a_backup(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    with contextlib.ExitStack() as backup:

        def end(seconds: float) -> None:
            waited.append(seconds)
            backup.close()

        backup.enter_context(_repository.lock(site.settings.directory))
        monkeypatch.setattr(_repository.time, "sleep", end)
        assert site.pack(patience=10).changed
    assert [seconds for seconds in waited if seconds >= 1] == [1]  # other waits, for what the backup itself starts, are shorter


def test_no_pack_without_a_good_backup(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is stored of one storage is damaged at once."""
    _backup_set.run(site.settings, who="root", why="test")
    verify = _verify.verify

    def damage(repository: str, **options: Any) -> _verify.Report:
        newest = max(Path(repository).glob("*.fs"))
        if newest.parent.name == "rooms":
            newest.write_bytes(newest.read_bytes()[:-1])
        return verify(repository, **options)

    monkeypatch.setattr(_verify, "verify", damage)
    sentence = site.refusal()
    broken = max(Path(site.settings.repository("rooms")).glob("*.fs"))
    assert sentence.startswith("Nothing was packed, since the backup before it failed: ")
    assert f"{broken.name} has {broken.stat().st_size} bytes" in sentence
    assert unpacked(site)
    assert json.loads(Path(site.settings.directory, "pack.json").read_text())["problem"] == sentence


@pytest.mark.parametrize(("keep_old", "old", "factor"), [(True, 0, 3), (False, 0, 2), (True, 1000, 3)], ids=["kept", "removed", "one before"])
def test_no_pack_without_room(site: Site, monkeypatch: pytest.MonkeyPatch, keep_old: bool, old: int, factor: int) -> None:
    """All lies on one file system here: at most there are the copies that grow, what stays of the old state, and the new full backups."""
    site.settings.pack_keep_old = keep_old
    main, rooms = len(site.content("main")), len(site.content("rooms"))
    Path(f"{site.database('main')}.old").write_bytes(b"o" * old)
    needed = {3: main + rooms + main + rooms - old, 2: main + rooms}[factor]
    free = needed - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": free}))
    places = " and ".join([str(Path(site.database(name)).parent) for name in ("main", "rooms")] + [site.settings.directory])
    sentence = f"A pack with the full backup after it needs up to {needed} bytes on the file system of {places}, which has {free} free; {UNCHANGED}"
    assert site.refusal(check=True) == sentence
    assert site.refusal() == sentence
    assert unpacked(site, "rooms")
    free += 1
    (space,) = site.pack(check=True).space
    assert (" and ".join(space["directories"]), space["needed_bytes"], space["free_bytes"]) == (places, needed, free)


def test_a_compressed_backup_is_expected_to_be_as_small_as_the_last_one(site: Site) -> None:
    site.settings.compression = "gzip"
    before = site.pack(check=True).space[0]["needed_bytes"]
    stored = sum(one["stored_bytes"] for one in _backup_set.run(site.settings, who="root", why="test").storages)
    size = sum(len(site.content(name)) for name in site.storages)
    assert before == 2 * size
    assert site.pack(check=True).space[0]["needed_bytes"] == size + stored


@pytest.mark.parametrize("silent", ["main", "rooms"])
def test_a_storage_that_fails_does_not_keep_the_other_from_it(site: Site, silent: str) -> None:
    (other,) = {"main", "rooms"} - {silent}
    site.silent = silent
    port = {"main": 1, "rooms": 2}[silent]
    assert site.refusal() == f"{silent}: The ZEO server 127.0.0.1:{port} does not answer."
    assert unpacked(site, silent) and not unpacked(site, other)
    assert len(site.chains(other)) == 2 and site.newest_is_verified(other)
    assert site.refusal(check=True) == f"{silent}: The ZEO server 127.0.0.1:{port} does not answer."
    told = json.loads(Path(site.settings.directory, "pack.json").read_text())
    assert {one["name"]: one["result"] for one in told["storages"]} == {silent: "failed", other: "packed"}


def test_a_server_that_fails_after_the_pack_has_its_full_backup(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose_the_connection(*arguments: Any, **options: Any) -> _zeopack.Packed:
        done = site.serve(*arguments, **options)
        if not options["check"]:
            raise _zeo.ZeoError("The connection broke.")
        return done

    monkeypatch.setattr(_zeopack, "pack", lose_the_connection)
    assert site.refusal() == "main: The connection broke. rooms: The connection broke."
    assert [site.chains(name)[-1] for name in site.storages] == [site.content(name) for name in site.storages]


def test_what_cannot_be_backed_up_afterwards_is_said(site: Site) -> None:
    """rooms fails and leaves its unfinished copy, which stops its backup; main has its new chain all the same."""

    def fill_the_disk(name: str) -> None:
        if name == "main":
            Path(f"{site.database('main')}.pack").write_bytes(b"")
            raise _zeo.ZeoError("The disk is full.")

    site.during = fill_the_disk
    sentence = site.refusal()
    assert sentence == (
        f"main: The disk is full. rooms packed and stored in full, but the backup did not end: {site.database('main')} is being packed"
        f" ({site.database('main')}.pack is there and new); back it up afterwards."
        " rooms was backed up, but no set was made. The next backup goes on from there."
    )
    assert len(site.chains("rooms")) == 2 and site.newest_is_verified("rooms")
    assert [one["why"] for one in _backup_set.manifests(site.settings)] == ["before a pack"]


def test_a_storage_that_no_server_is_known_for(site: Site) -> None:
    site.settings.storages.append("minutes")
    (site.place / "indico/db/minutes").mkdir()
    Storage(Path(site.database("minutes"))).add(10)
    assert site.refusal() == f"minutes: {site.settings.zeo_settings} names no server of this storage."
    assert not unpacked(site)


def test_settings_of_the_servers_that_cannot_be_read(site: Site) -> None:
    (site.place / "zeo.json").unlink()
    assert site.settings.zeo_settings in site.refusal()


# Killed


def killed_at(site: Site, monkeypatch: pytest.MonkeyPatch, step: int) -> bool:
    """Run a pack in a process that is killed before this step (from 0); return whether it came that far."""
    child = os.fork()
    if child == 0:
        count = 0

        def live() -> None:
            nonlocal count
            if count == step:
                os._exit(9)
            count += 1

        watch(site, monkeypatch, live)
        site.during = lambda name: live()
        _pack.run(site.settings)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("policy", [{}, HOSTILE], ids=["default", "hostile"])
@pytest.mark.parametrize("again", ["backup", "pack"])
@pytest.mark.parametrize("step", range(len(BEFORE) + len(PACKS) + len(AFTER)))
def test_killed_between_any_two_steps(site: Site, monkeypatch: pytest.MonkeyPatch, step: int, again: str, policy: dict[str, Any]) -> None:
    for name, value in policy.items():
        setattr(site.settings, name, value)
    old = {name: site.content(name) for name in site.storages}
    assert killed_at(site, monkeypatch, step)
    for name in site.storages:
        if site.content(name) != old[name]:  # what the pack took away is in a backup until the full one after it is verified
            assert site.chains(name)[0] == old[name] or site.newest_is_verified(name)
            site.was_packed(name)
    if again == "backup":
        _backup_set.run(site.settings, who="root", why="test")
    else:
        site.pack()
    for name in site.storages:
        assert site.chains(name)[-1] == site.content(name)
        assert site.newest_is_verified(name)
        assert again == "backup" or len(site.content(name)) < len(old[name])
        assert policy or site.content(name) == old[name] or site.chains(name)[0] == old[name]
    assert _backup_set.manifests(site.settings)[-1]["storages"][0]["end"] == len(site.content("main"))


def test_every_step_was_tried(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not killed_at(site, monkeypatch, len(BEFORE) + len(PACKS) + len(AFTER))


def test_an_old_chain_stays_until_the_new_one_is_verified(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The full backup after the pack is damaged before it is verified: not even a policy that wants to be rid of the old chain removes it.

    The next run begins another chain (B5).
    """
    for name, value in HOSTILE.items():
        setattr(site.settings, name, value)
    old = site.content("main")
    verify = _verify.verify

    def damage(repository: str, **options: Any) -> _verify.Report:
        fulls = sorted(Path(repository).glob("*.fs"))
        if len(fulls) == 2:
            fulls[1].write_bytes(fulls[1].read_bytes()[:-9] + bytes(9))
        return verify(repository, **options)

    monkeypatch.setattr(_verify, "verify", damage)
    assert "main and rooms packed, but without a full backup after it: " in site.refusal()
    assert site.chains("main")[0] == old
    monkeypatch.setattr(_verify, "verify", verify)
    outcome = _backup_set.run(site.settings, who="root", why="test")
    assert [one["kind"] for one in outcome.storages] == ["full", "full"]
    assert site.chains("main")[-1] == site.content("main")


# What is told


def saved(site: Site) -> str:
    path = site.place / "backup.json"
    path.write_text(json.dumps(vars(site.settings)))
    return str(path)


def test_status_metrics_and_check(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert _backup_command.main(saved(site), ["pack", "--days", "2"]) == 0
    assert capsys.readouterr().out.startswith("pack done in ")
    told = _backup_status.whole(site.settings)["pack"]
    assert told["ok"] and told["days"] == 2
    lines = [line for line in Path(site.settings.metrics).read_text().splitlines() if not line.startswith("#")]
    found = dict(line.rsplit(" ", 1) for line in lines)
    assert found['indico_pack_status{instance_name="indico"}'] == "2"
    assert float(found['indico_pack_success_time_seconds{instance_name="indico"}']) > time.time() - 100
    assert {"indico_pack_time_seconds", "indico_pack_duration_seconds"} <= {line.split("{")[0] for line in lines}
    assert found['indico_pack_reclaimed_bytes{instance_name="indico",storage="main"}'] == str(told["storages"][0]["reclaimed_bytes"])
    site.silent = "rooms"
    assert _backup_command.main(saved(site), ["pack"]) == 1
    assert capsys.readouterr().err == "rooms: The ZEO server 127.0.0.1:2 does not answer.\n"
    assert _backup_command.main(saved(site), ["check", "--shrunk-percent", "0"]) == _backup_status.WARNING
    assert capsys.readouterr().out == "WARNING: the last pack failed (rooms: The ZEO server 127.0.0.1:2 does not answer.)\n"


def test_a_scheduled_pack_keeps_to_the_hours(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    begin, end = time.localtime(time.time() + 7200), time.localtime(time.time() + 10800)
    site.settings.allowed_hours = f"{time.strftime('%H:%M', begin)}-{time.strftime('%H:%M', end)}"
    assert _backup_command.main(saved(site), ["pack", "--scheduled"]) == _crontab.SKIPPED
    assert f"outside of {site.settings.allowed_hours}: nothing was done." in capsys.readouterr().out
    assert unpacked(site)


def test_a_database_that_is_none_is_told_by_its_name(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(*_arguments: Any, **_options: Any) -> _zeopack.Packed:
        raise _filestorage.FileStorageError("Data.fs is no FileStorage.")

    monkeypatch.setattr(_zeopack, "pack", look)
    assert site.refusal(check=True) == "main: Data.fs is no FileStorage. rooms: Data.fs is no FileStorage."
