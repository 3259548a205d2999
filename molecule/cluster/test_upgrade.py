"""A migration of the databases of a site on several hosts: put back everywhere when it fails anywhere. The tests build on each other."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lib.migration import BACK, MIGRATE, PATCH, Found, check_as_it_was, check_nobody_is_at_it, check_told_as_it_was, look, told
from tests.lib.playbook import play
from tests.lib.site import Site
from tests.lib.source import make, runs, start

HOSTS = Site.read_all(Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "inventory")
BALANCER, DATABASE = HOSTS["lb1"], HOSTS["db1"]
APPS = [HOSTS["app1"], HOSTS["app2"]]


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the extra variables say of a release with the task."""
    directory = tmp_path_factory.mktemp("patches")
    DATABASE.run("mkdir -p /srv/deploy")  # where the task looks what it is to do
    return {**make(APPS[0], {"mark.patch": PATCH}, directory), "indico_patches": [str(directory / "mark.patch")]}


@pytest.fixture(scope="module")
def before() -> str:
    (name,) = {runs(one) for one in [*APPS, DATABASE]}
    return name


def check_all(before: str, found: Found, apps: list[Site] = APPS) -> None:
    check_as_it_was(apps, [DATABASE], DATABASE, before, found, BALANCER)


def test_a_part_of_the_hosts_is_refused() -> None:
    run = BALANCER.play("--limit", "app1", playbook=MIGRATE)
    assert run.failures == ["A migration is for every host of a site, and this run goes without app2, db1. Run it without --limit. Nothing was done."]


def test_a_migration_that_fails_half_way_is_put_back_on_every_host(before: str, wanted: dict[str, Any]) -> None:
    found = look(APPS[0])
    with told(DATABASE, "fail-half-way"):
        run = BALANCER.play(playbook=MIGRATE, **wanted)
    assert run.returncode != 0
    for one in [*APPS, DATABASE]:
        (message,) = [failure for failure in run.failures if failure.startswith(f"{one.name} ")]
        check_told_as_it_was(message, one.name, before)
    check_all(before, found)


def test_a_host_that_dies_keeps_the_site_closed_until_one_command_puts_it_back(before: str, wanted: dict[str, Any], tmp_path: Path) -> None:
    """The databases are back by then, and the other host, but who knows what the dead one would serve. Whoever knows that it is off takes it out."""
    found = look(APPS[0])
    process = start(BALANCER, MIGRATE, wanted)
    while '"set": "' not in DATABASE.shell().run(f"cat {DATABASE.prefix}/releases/.migration").stdout:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.3)
    APPS[1].power_off()
    output = " ".join(process.communicate(timeout=400)[0].split())
    assert process.returncode != 0
    assert "app2 cannot be reached any more. The way back failed, too (app2 cannot be reached), so the site stays closed." in output, output
    assert "Nothing is lost: playbooks/migrate_back.yml goes the way back again." in output
    assert runs(APPS[0]) == before
    assert APPS[0].browser().get("/").status_code == 503
    # It is lost for the night, say, so somebody takes it out of the inventory.
    rest = tmp_path / "inventory"
    shutil.copytree(BALANCER.inventory, rest)
    hosts = yaml.safe_load((rest / "hosts.yml").read_text())
    del hosts["indico_app"]["hosts"]["app2"]
    (rest / "hosts.yml").write_text(yaml.safe_dump(hosts, sort_keys=False))
    back = play(rest, playbook=BACK, unlock=True)
    assert back.returncode == 0, back.output
    check_all(before, found, APPS[:1])
    member = BALANCER.browser()
    assert member.log_in("bruno", BALANCER.password("demo")) == "in"
    event = member.create_meeting("Written without it", category="2")
    # It comes back as it was left, closed, and what was written meanwhile stays.
    APPS[1].power_on()
    APPS[1].wait_for_unit("apache2.service", seconds=90)
    assert [one.browser().get("/").status_code for one in APPS] == [200, 503]
    refused = BALANCER.play(playbook="playbooks/deploy.yml", unlock=True)
    assert re.match(r"A migration of \w+ to fix-1234-\S+ was begun and has not ended\. playbooks/migrate_back\.yml puts everything back\.", refused.failures[0])
    found = look(APPS[0])
    back = BALANCER.play(playbook=BACK, unlock=True)
    assert back.returncode == 0, back.output
    check_all(before, found)
    assert "Written without it" in BALANCER.browser().title(f"/event/{event}/")


def test_the_databases_are_migrated_and_each_host_serves_them(before: str, wanted: dict[str, Any]) -> None:
    objects, _marks = look(APPS[0])
    run = BALANCER.play(playbook=MIGRATE, **wanted)
    assert run.returncode == 0, run.output
    (name,) = {runs(one) for one in [*APPS, DATABASE]}
    assert re.fullmatch("fix-1234-[0-9a-f]{12}", name) and name != before
    for one in APPS:
        after, marks = look(one)
        assert after == objects
        assert set(marks) == {"marked"}
    said = re.search(rf"{DATABASE.name} was closed for .*? leads back to what was before\.", run.output)
    assert said
    print(said[0])
    BALANCER.browser().wait("/", in_a_row=5)
    member = BALANCER.browser()
    assert member.log_in("bruno", BALANCER.password("demo")) == "in"
    assert "Written behind it" in BALANCER.browser().title(f"/event/{member.create_meeting('Written behind it', category='2')}/")
    DATABASE.wait_for_unit(f"{DATABASE.instance}-scheduler.service")
    for one in [*APPS, DATABASE]:
        check_nobody_is_at_it(one)
