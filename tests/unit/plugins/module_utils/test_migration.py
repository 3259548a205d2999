"""What a host remembers of a migration, and what leads back from it. That Indico's own code migrates is seen on a host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _backup_set, _migration, _release, _repository
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError

from tests.unit.storage import Storage

NEW = "fix-bbbbbbbbbbbb"


@pytest.fixture
def settings(tmp_path: Path) -> _backup_set.Settings:
    """A site with a database that somebody wrote to, one that nobody did, a release that runs and one that is wanted."""
    prefix = tmp_path / "indico"
    for name, version in (("1.2.2-aaaaaaaaaaaa", "1.2.2"), (NEW, "1.3")):
        (prefix / "releases" / name / f"lib/python2.7/site-packages/indico-{version}.dist-info").mkdir(parents=True)
    (prefix / "current").symlink_to("releases/1.2.2-aaaaaaaaaaaa")
    for name, transactions in (("main", 20), ("rooms", 0)):
        (prefix / "db" / name).mkdir(parents=True)
        Storage(prefix / "db" / name / "Data.fs").add(transactions)
    (tmp_path / "backups").mkdir()
    found = _backup_set.Settings("indico", str(prefix), str(tmp_path / "backups"), ["main", "rooms"])
    found.drill_directory, found.release = str(tmp_path / "scratch"), str(prefix / "current")
    return found


def test_a_release_without_the_program_is_refused_before_anything_is_done(settings: _backup_set.Settings) -> None:
    with pytest.raises(RepositoryError, match=rf"{NEW} has no bin/migration/migrate\.py"):
        _migration.rehearse(settings, NEW, who="ada")
    assert list(Path(settings.directory).iterdir()) == []


def test_what_begins_is_noted_until_it_has_ended(settings: _backup_set.Settings) -> None:
    assert _migration.back(settings) == {}
    _migration.begin(settings.prefix, NEW, {"id": "1", "who": "ada"})
    told = _migration.back(settings)
    assert {key: told[key] for key in ("id", "who", "from", "release", "set")} == {
        "id": "1",
        "who": "ada",
        "from": "1.2.2-aaaaaaaaaaaa",
        "release": NEW,
        "set": None,
    }
    assert _release.look(settings.prefix)["migration"] == {**told, "back": True}
    assert _migration.back(settings) == {**told, "back": True}
    assert _migration.end(settings.prefix)
    assert not _migration.end(settings.prefix)
    assert _release.look(settings.prefix)["migration"] is None


def test_nothing_is_migrated_without_a_set_to_go_back_to(settings: _backup_set.Settings) -> None:
    _migration.begin(settings.prefix, NEW, {"id": "1", "who": "ada"})
    with pytest.raises(RepositoryError, match="No set was made to go back to"):
        _migration.migrate(settings, NEW, user="indico")


def test_the_set_is_pinned_and_noted(settings: _backup_set.Settings) -> None:
    _migration.begin(settings.prefix, NEW, {"id": "1", "who": "ada"})
    done = _migration.pin(settings, NEW, who="ada")
    (manifest,) = _backup_set.manifests(settings)
    assert (manifest["stamp"], manifest["why"], manifest["who"]) == (done["set"], f"before the migration to {NEW}", "ada")
    assert json.loads((Path(settings.directory) / "main/confops.json").read_text())["pins"] == [done["pinned"]["main"]]
    # Without a new transaction there is no new set, and the newest one leads back.
    assert _migration.pin(settings, NEW, who="ada")["set"] == done["set"]
    assert _migration.back(settings)["set"] == done["set"]


def test_a_step_that_waited_while_all_was_put_back_does_nothing(settings: _backup_set.Settings) -> None:
    _migration.begin(settings.prefix, NEW, {"id": "1", "who": "ada"})
    done = _migration.pin(settings, NEW, who="ada")
    _migration.back(settings)
    for forgotten in (False, True):
        with pytest.raises(RepositoryError, match="This migration was put back meanwhile, so nothing was done"):
            _migration.pin(settings, NEW, who="ada")
        with pytest.raises(RepositoryError, match="This migration was put back meanwhile, so nothing was done"):
            _migration.migrate(settings, NEW, user="indico")
        assert _migration.end(settings.prefix) is not forgotten
    assert [one["stamp"] for one in _backup_set.manifests(settings)] == [done["set"]]


def test_nothing_is_put_back_while_it_goes_on(settings: _backup_set.Settings) -> None:
    _migration.begin(settings.prefix, NEW, {"id": "1", "who": "ada"})
    with _repository.lock(settings.directory), pytest.raises(RepositoryError, match=r"is in use by process \d+; nothing was done"):
        _migration.back(settings)


def test_fewer_objects_are_no_success() -> None:
    _migration._compare({"events": 3, "users": 2}, {"events": 3, "users": 4})
    with pytest.raises(RepositoryError, match="After the migration there are 2 events of 3, 0 users of 2"):
        _migration._compare({"events": 3, "users": 2}, {"events": 2})


def test_the_version_that_runs_is_known(settings: _backup_set.Settings) -> None:
    assert _migration._version(settings.release) == "1.2.2"
    with pytest.raises(RepositoryError, match="does not say which version"):
        _migration._version(settings.directory)
