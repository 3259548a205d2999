"""This checkout as others get it: a copy of its files, and the archive that ansible-galaxy builds of them."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.lib.command import REPOSITORY, project_files, run


def checkout(target: Path) -> Path:
    """Copy what git does not ignore, changes that are not committed included, to target/checkout and return that."""
    copy = target / "checkout"
    for path in project_files():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / path, copy / path, follow_symlinks=False)
    return copy


def build(target: Path) -> Path:
    """Return the archive that ansible-galaxy builds of the checkout, in target."""
    run("ansible-galaxy", "collection", "build", "--output-path", target, cwd=checkout(target), ANSIBLE_CONFIG=None)
    (built,) = target.glob("confops-indico-*.tar.gz")
    return built


def install(archive: Path, target: Path) -> None:
    """Install the archive, and nothing else, below target/ansible_collections."""
    run("ansible-galaxy", "collection", "install", "--offline", "--no-deps", archive, cwd=target, ANSIBLE_CONFIG=None, ANSIBLE_COLLECTIONS_PATH=str(target))
