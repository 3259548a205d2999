"""Runs molecule's scenarios beside the other tests."""

from __future__ import annotations

import re
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from tests.lib.command import REPOSITORY, run

# Three run at once, for each one waits most of the time, the controller for a host or a host for the controller; but for these.
# The first two, one after the other, leave what the others begin with: the images and the wheelhouse, which each would make for itself on a machine
# that has neither. The last one measures how long a site is away.
FIRST, LAST = ["hosts", "offsite"], ["standby"]
LONG = ["cluster", "administration", "restore", "alternative", "default", "jobs", "split"]  # begun before the short ones, so that both ends fall together
SCENARIOS = [*FIRST, *LONG, *sorted({path.parent.name for path in REPOSITORY.glob("molecule/*/molecule.yml")} - {*FIRST, *LONG, *LAST}), *LAST]


class Scenarios:
    """Those that are wanted, begun at once; directory is the place for their logs."""

    def __init__(self, wanted: list[str], directory: Path) -> None:
        self._directory = directory
        self._pool = ThreadPoolExecutor(3)
        self._running: dict[str, Future[None]] = {}
        self._begun = ThreadPoolExecutor(1).submit(self._begin, wanted)

    def _begin(self, wanted: list[str]) -> None:
        for group in (*([name] for name in FIRST), [name for name in SCENARIOS if name not in FIRST + LAST], LAST):
            for name in group:
                if name in wanted:
                    self._running[name] = self._pool.submit(self._run, name)
            wait(self._running.values())

    def _run(self, name: str) -> None:
        log = self._directory / f"{name}.log"
        output = run("molecule", "test", "--scenario-name", name, log=log, NO_COLOR="1", ANSIBLE_FORCE_COLOR="0")
        passed = re.findall(r"(\d+) passed", output)
        assert passed and int(passed[-1]) > 0, f"the verify step of {name} ran no test: see {log}"

    def end(self, name: str) -> None:
        """Wait for the end of one, and raise what it raised."""
        while name not in self._running and not self._begun.done():
            time.sleep(1)
        self._running[name].result()
