"""A migration of databases that lie on a host without an application: its host leads all the same. The tests build on each other."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.lib.migration import MIGRATE, PATCH, check_as_it_was, check_nobody_is_at_it, check_told_as_it_was, look, told
from tests.lib.site import Site
from tests.lib.source import make, runs

HOSTS = Site.read_all(Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "inventory")
DATABASE, WEB = HOSTS["adb1"], HOSTS["web1"]


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the extra variables say of a release with the task."""
    directory = tmp_path_factory.mktemp("patches")
    DATABASE.run("mkdir -p /srv/deploy")  # where the task looks what it is to do
    return {**make(WEB, {"mark.patch": PATCH}, directory), "indico_patches": [str(directory / "mark.patch")]}


@pytest.fixture(scope="module")
def before() -> str:
    (name,) = {runs(one) for one in (WEB, DATABASE)}
    return name


def test_a_rehearsal_that_fails_touches_nothing(before: str, wanted: dict[str, Any]) -> None:
    found = look(WEB)
    began = WEB.main_pid("apache2.service"), DATABASE.main_pid("indico-zeo@main.service")
    with told(DATABASE, "fail"):
        run = WEB.play(playbook=MIGRATE, **wanted)
    assert run.returncode != 0
    for one in (WEB, DATABASE):
        (message,) = [failure for failure in run.failures if f" so {one.name} goes on as it was, with {before}. " in failure]
        assert message.startswith("The rehearsal failed,")
        assert "ValueError: It failed half way." in message
    assert began == (WEB.main_pid("apache2.service"), DATABASE.main_pid("indico-zeo@main.service"))
    check_as_it_was([WEB], [DATABASE], WEB, before, found)


def test_a_migration_that_fails_half_way_is_put_back_on_every_host(before: str, wanted: dict[str, Any]) -> None:
    found = look(WEB)
    with told(DATABASE, "fail-half-way"):
        run = WEB.play(playbook=MIGRATE, **wanted)
    assert run.returncode != 0
    for one in (WEB, DATABASE):
        (message,) = [failure for failure in run.failures if failure.startswith(f"{one.name} ")]
        check_told_as_it_was(message, one.name, before)
    check_as_it_was([WEB], [DATABASE], WEB, before, found)


def test_the_databases_are_migrated(before: str, wanted: dict[str, Any]) -> None:
    objects, _marks = look(WEB)
    run = WEB.play(playbook=MIGRATE, **wanted)
    assert run.returncode == 0, run.output
    (name,) = {runs(one) for one in (WEB, DATABASE)}
    assert re.fullmatch("fix-1234-[0-9a-f]{12}", name) and name != before
    after, marks = look(WEB)
    assert after == objects
    assert set(marks) == {"marked"}
    member = WEB.browser()
    assert member.log_in("bruno", WEB.password("demo")) == "in"
    assert "Written behind it" in WEB.browser().title(f"/event/{member.create_meeting('Written behind it', category='2')}/")
    WEB.wait_for_unit("indico-scheduler.service")
    for one in (WEB, DATABASE):
        check_nobody_is_at_it(one)
