"""Fixtures for the tests that molecule's verify step runs; MOLECULE_SCENARIO_DIRECTORY says which scenario."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.lib import costs
from tests.lib.browser import Browser
from tests.lib.site import Site


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note what each test costs, its fixtures included."""
    with costs.measured("test", item.nodeid.split("/")[-1]):
        return (yield)


@pytest.fixture(scope="session")
def site() -> Site:
    return Site.read(Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "inventory")


@pytest.fixture
def visitor(site: Site) -> Browser:
    return site.browser()


@pytest.fixture
def member(site: Site) -> Browser:
    """Somebody who is logged in."""
    browser = site.browser()
    assert browser.log_in("bruno", site.password("demo")) == "in"
    return browser
