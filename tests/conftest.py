"""The order of the tests, the scenarios that run beside them, and the collection's archive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lib import collection
from tests.lib.command import REPOSITORY
from tests.lib.scenarios import Scenarios

ORDER = ["tests/test_lint.py", "tests/unit", "tests/test_archive.py", "tests/test_sanity.py"]  # then the others: they boot hosts


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what answers in seconds first."""

    def place(item: pytest.Item) -> int:
        return next((index for index, start in enumerate(ORDER) if item.path.is_relative_to(REPOSITORY / start)), len(ORDER))

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def end_of_scenario(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], None]:
    """Begin the scenarios that are wanted, before the first test, and return a function that waits for the end of one."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function) and item.path.name == "test_scenarios.py"]
    wanted = [item.callspec.params["name"] for item in items]
    return Scenarios(wanted, tmp_path_factory.mktemp("molecule")).end


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
