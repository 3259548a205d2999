"""Runs one of the project's commands and shows what it said when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
UMASK = os.umask(0o077)
os.umask(UMASK)


def run(*command: str | Path, cwd: Path = REPOSITORY, log: Path | None = None, **environment: str | None) -> str:
    """Run a command of this Python environment and return its output; the test fails when it exits with anything but 0.

    With log the output goes to that file while the command runs, and a failure shows its end. environment is added to
    the variables of this process; None takes one away. The umask is the one that the tests began with: a scenario may start while a unit test has another.
    """
    merged = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | environment
    variables = {name: value for name, value in ({**os.environ} | merged).items() if value is not None}
    if log:
        with log.open("wb") as stream:
            returncode = subprocess.run(
                command, cwd=cwd, env=variables, umask=UMASK, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, check=False
            ).returncode
        output = log.read_text(errors="replace")
    else:
        done = subprocess.run(
            command, cwd=cwd, env=variables, umask=UMASK, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        returncode, output = done.returncode, done.stdout
    if returncode:
        said = f"the end of {log}:\n" + "\n".join(output.splitlines()[-150:]) if log else output
        pytest.fail(f"`{' '.join(map(str, command))}` exited with {returncode}; {said}", pytrace=False)
    return output


def project_files() -> list[Path]:
    """Return the files of the checkout that git does not ignore, committed or not, relative to it."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return [Path(name) for name in listed if name and os.path.lexists(REPOSITORY / name)]
