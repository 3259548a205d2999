"""The order of the tests, and the collection's archive."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.lib.command import REPOSITORY, project_files, run

ORDER = ["tests/test_lint.py", "tests/unit", "tests/test_archive.py", "tests/test_sanity.py"]  # then the others: they boot hosts


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what answers in seconds first."""

    def place(item: pytest.Item) -> int:
        return next((index for index, start in enumerate(ORDER) if item.path.is_relative_to(REPOSITORY / start)), len(ORDER))

    items.sort(key=place)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the archive that ansible-galaxy builds from this checkout, changes that are not committed included."""
    copy = tmp_path_factory.mktemp("checkout")
    for path in project_files():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / path, copy / path, follow_symlinks=False)
    target = tmp_path_factory.mktemp("archive")
    run("ansible-galaxy", "collection", "build", "--output-path", target, cwd=copy, ANSIBLE_CONFIG=None)
    (built,) = target.glob("confops-indico-*.tar.gz")
    return built


@pytest.fixture(scope="session")
def installed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with ansible_collections in it, which holds the installed archive and nothing else."""
    target = tmp_path_factory.mktemp("installed")
    run("ansible-galaxy", "collection", "install", "--offline", "--no-deps", archive, cwd=target, ANSIBLE_CONFIG=None, ANSIBLE_COLLECTIONS_PATH=str(target))
    return target
