"""One test for each linter. `make lint` runs these alone."""

from __future__ import annotations

import shutil

import pytest

from tests.lib.command import REPOSITORY, project_files, run


@pytest.mark.parametrize(
    "command",
    ["ansible-lint --nocolor --strict -q", "yamllint --strict .", "ruff check", "ruff format --check", "mypy", "antsibull-changelog lint"],
    ids=["ansible-lint", "yamllint", "ruff", "ruff-format", "mypy", "changelog"],
)
def test_lint(command: str) -> None:
    run(*command.split())


def test_shellcheck() -> None:
    assert shutil.which("shellcheck"), "the Debian package shellcheck is missing: `lab/prepare shellcheck` installs it"
    shebangs = (b"#!/bin/sh", b"#!/bin/bash")
    files = [path for path in project_files() if path.suffix != ".j2"]  # a template is no shell yet; what it renders is validated on the host
    scripts = [path for path in files if (REPOSITORY / path).is_file() and (REPOSITORY / path).read_bytes().startswith(shebangs)]
    assert scripts
    run("shellcheck", *scripts)
