"""A release whose code needs another database: migrated with the old one kept, and put back by itself when that fails. The tests build on each other."""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any

import pytest

from tests.lib.load import only_closed
from tests.lib.migration import BACK, MIGRATE, PATCH, check_as_it_was, check_told_as_it_was, look, told
from tests.lib.playbook import REPOSITORY, play
from tests.lib.site import Site
from tests.lib.source import appears, make, runs, start


@pytest.fixture(scope="module")
def wanted(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the extra variables say of a release with the task."""
    directory = tmp_path_factory.mktemp("patches")
    return {**make(site, {"mark.patch": PATCH}, directory), "indico_patches": [str(directory / "mark.patch")]}


@pytest.fixture(scope="module")
def before(site: Site) -> str:
    return runs(site)


def databases(site: Site, sizes: dict[str, int]) -> tuple[dict[str, int], str]:
    """Return the size of each database, and a sum of what it begins with, up to the sizes that are given."""
    for name in site.storages:
        sizes.setdefault(name, int(site.run(f"stat --format %s {site.prefix}/db/{name}/Data.fs")))
    return sizes, "".join(site.run(f"head --bytes {size} {site.prefix}/db/{name}/Data.fs | sha256sum") for name, size in sizes.items())


def as_it_was(site: Site, before: str, objects: list[list[str]]) -> None:
    check_as_it_was([site], [], site, before, (objects, [None] * len(objects[1])))


def test_a_site_with_a_standby_is_refused() -> None:
    run = play(REPOSITORY / "molecule/standby/inventory", playbook=MIGRATE)
    assert run.returncode != 0
    assert run.failures[0].startswith("This playbook migrates a site with one database host; group indico_zeo has db1, db2.")


def test_a_rehearsal_that_fails_touches_nothing(site: Site, before: str, wanted: dict[str, Any]) -> None:
    objects, _marks = look(site)
    began = site.main_pid("apache2.service")
    with told(site, "fail"):
        run = site.play(playbook=MIGRATE, **wanted)
    assert run.returncode != 0
    assert re.match(rf"The rehearsal failed, so {site.name} goes on as it was, with {before}\. migrate\.py failed \(exit code -1\): ", run.failures[-1])
    assert "ValueError: It failed half way." in run.failures[-1]
    assert site.main_pid("apache2.service") == began
    as_it_was(site, before, objects)


def test_a_migration_that_fails_half_way_is_put_back(site: Site, before: str, wanted: dict[str, Any]) -> None:
    objects, _marks = look(site)
    sizes, content = databases(site, {})
    with told(site, "fail-half-way"), only_closed(site.browser(), "/", "/category/2/"):  # O8
        run = site.play(playbook=MIGRATE, **wanted)
    assert run.returncode != 0
    check_told_as_it_was(run.failures[-1], site.name, before)
    as_it_was(site, before, objects)
    assert databases(site, sizes)[1] == content
    # What had been done to them is beside them.
    assert len(site.run(f"ls {site.prefix}/db/*/Data.fs.replaced-*").split()) >= 2
    last = json.loads(site.run(f"tail -n 1 {site.prefix}/releases/.deployments"))
    assert last["result"].startswith("failed: Migrate the databases: migrate.py failed")


def test_a_killed_migration_is_put_back_by_one_command(site: Site, before: str, wanted: dict[str, Any]) -> None:
    objects, _marks = look(site)
    with told(site, "linger"):
        process = start(site, MIGRATE, wanted)
        appears(site, f"{site.prefix}/releases/.migration", process)
        while not site.shell().run(f"pgrep -u {site.user} -f 'python -c'").succeeded or '"set": null' in site.run(f"cat {site.prefix}/releases/.migration"):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.5)
        time.sleep(5)
        os.killpg(process.pid, 9)
        process.communicate()
        site.power_cycle(warn=False)
    site.wait_for_unit("apache2.service", seconds=90)
    # It stays closed, and nobody opens it or goes on without the databases.
    assert site.browser().get("/").status_code == 503
    opened = site.play(playbook="playbooks/maintenance.yml", state="off")
    assert opened.failures == ["A migration was begun and has not ended. playbooks/migrate_back.yml puts everything back and opens the site. Nothing was done."]
    again = site.play(playbook="playbooks/deploy.yml", unlock=True)
    assert re.match(
        rf"A migration of {site.name} to fix-1234-\S+ was begun and has not ended\. playbooks/migrate_back\.yml puts everything back\.", again.failures[0]
    )
    run = site.play(playbook=BACK, unlock=True)
    assert run.returncode == 0, run.output
    as_it_was(site, before, objects)
    nothing = site.play(playbook=BACK)
    assert nothing.failures == [f"No migration of {site.name} was begun that has not ended, so there is nothing to put back. Nothing was done."]


def test_the_databases_are_migrated(site: Site, before: str, wanted: dict[str, Any]) -> None:
    objects, _marks = look(site)
    with only_closed(site.browser(), "/", "/category/2/"):  # O8
        run = site.play(playbook=MIGRATE, **wanted)
    assert run.returncode == 0, run.output
    assert re.fullmatch("fix-1234-[0-9a-f]{12}", runs(site))
    assert "Principal categories" in site.browser().get("/").text
    found, marks = look(site)
    assert found == objects
    assert set(marks) == {"marked"}
    said = re.search(rf"{site.name} was closed for .*? leads back to what was before\.", run.output)
    assert said
    print(said[0])
    assert "Marking the categories (1.2.3)" in run.output
    # The set stays, and a rollback does not put the old code on the new database.
    stamp = re.search(r"Set (\S+) is pinned", said[0])
    assert stamp
    for name in site.storages:
        assert json.loads(site.run(f"cat /var/backups/{site.instance}/{name}/confops.json"))["pins"], name
    assert stamp[1] in site.run(f"ls /var/backups/{site.instance}/sets").split()
    back = site.play(playbook="playbooks/rollback.yml")
    assert back.returncode != 0
    assert back.failures[0].startswith(f"The databases of {site.name} were migrated to {runs(site)}, which older releases do not know;")
    assert before in site.run(f"ls {site.prefix}/releases").split()
    site.wait_for_unit(f"{site.instance}-scheduler.service")


def test_what_runs_is_not_migrated_again(site: Site, wanted: dict[str, Any]) -> None:
    run = site.play(playbook=MIGRATE, **wanted)
    assert run.returncode == 0, run.output
    assert run.changed == {}
