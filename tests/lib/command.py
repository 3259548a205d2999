"""Runs one of the project's commands and shows what it said when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
UMASK = os.umask(0o077)
os.umask(UMASK)


Follow = Callable[[int, str], None]


def run(*command: str | Path, cwd: Path = REPOSITORY, log: Path | None = None, follow: Follow | None = None, **environment: str | None) -> str:
    """Run a command of this Python environment and return its output; the test fails when it exits with anything but 0.

    With log the output goes to that file while the command runs, and a failure shows its end; follow then gets the process's number and what it wrote
    since the last call. environment is added to the variables of this process; None takes one away. The umask is the one that the tests began with: a
    scenario may start while a unit test has another.
    """
    merged = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | environment
    variables = {name: value for name, value in ({**os.environ} | merged).items() if value is not None}
    if log:
        with log.open("wb") as stream:
            process = subprocess.Popen(command, cwd=cwd, env=variables, umask=UMASK, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT)
            if follow:
                _tell(process.pid, log, follow)
            returncode = process.wait()
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


def _tell(pid: int, log: Path, follow: Follow) -> None:
    """Tell follow what the process writes until it has ended. It is not waited for here, so that what it cost can still be read."""
    with log.open(errors="replace") as stream:
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.2)
            follow(pid, stream.read())


def project_files() -> list[Path]:
    """Return the files of the checkout that git does not ignore, committed or not, relative to it."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return [Path(name) for name in listed if name and os.path.lexists(REPOSITORY / name)]
