"""The order of the tests, the scenarios that run beside them, and the collection's archive."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lib import collection
from tests.lib.command import REPOSITORY
from tests.lib.scenarios import LAST, Scenarios

ORDER = ["tests/test_lint.py", "tests/test_archive.py", "tests/test_sanity.py", "tests/test_scenarios.py", "tests/unit"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what answers in seconds first, and the unit tests beside the last scenario, which leaves the machine idle most of the time.

    `make check` has them without any scenario.
    """

    def place(item: pytest.Item) -> int:
        last = isinstance(item, pytest.Function) and item.path.name == "test_scenarios.py" and item.callspec.params["name"] in LAST
        return len(ORDER) if last else next(index for index, start in enumerate([*ORDER, "."]) if item.path.is_relative_to(REPOSITORY / start))

    items.sort(key=place)


@pytest.fixture(autouse=True)
def behind_the_scenarios(request: pytest.FixtureRequest) -> None:
    """A scenario measures how long a site is away, and unit tests wait. Only this thread steps back: those that run scenarios keep their place."""
    if request.path.is_relative_to(REPOSITORY / "tests/unit") and os.getpriority(os.PRIO_PROCESS, 0) < 10:
        os.setpriority(os.PRIO_PROCESS, 0, 10)


SCENARIOS = pytest.StashKey[Scenarios]()


@pytest.fixture(scope="session", autouse=True)
def end_of_scenario(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], None]:
    """Begin the scenarios that are wanted, before the first test, and return a function that waits for the end of one."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function) and item.path.name == "test_scenarios.py"]
    wanted = [item.callspec.params["name"] for item in items]
    scenarios = Scenarios(wanted, tmp_path_factory.mktemp("molecule"))
    request.config.stash[SCENARIOS] = scenarios
    return scenarios.end


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what the scenarios cost."""
    lines = config.stash[SCENARIOS].costs() if SCENARIOS in config.stash else []
    if lines:
        terminalreporter.section("what the scenarios cost")
        terminalreporter.write("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the archive that ansible-galaxy builds of this checkout."""
    return collection.build(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="session")
def installed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with ansible_collections in it, which holds the installed archive and nothing else."""
    target = tmp_path_factory.mktemp("installed")
    collection.install(archive, target)
    return target
