"""Runs molecule's scenarios beside the other tests."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from tests.lib import costs
from tests.lib.command import REPOSITORY, run
from tests.lib.site import CACHE

# Three run at once, for each one waits most of the time, the controller for a host or a host for the controller; but for these.
# The first two, one after the other, leave what the others begin with: the images, the network and the wheelhouse. Each scenario would make them for
# itself on a machine that has none; where they are there, all begin at once. The last one measures how long a site is away.
FIRST, LAST = ["hosts", "offsite"], ["standby"]
LONG = ["cluster", "administration", "restore", "alternative", "default", "jobs", "split"]  # begun before the short ones, so that both ends fall together
SCENARIOS = [*FIRST, *LONG, *sorted({path.parent.name for path in REPOSITORY.glob("molecule/*/molecule.yml")} - {*FIRST, *LONG, *LAST}), *LAST]


def _inputs() -> Path:
    """Return the file that says that images and wheelhouse of this state of the tree are there. Its name tells of what they are made from."""
    digest = hashlib.sha256()
    for path in [REPOSITORY / "lab/image", *sorted(path for path in (REPOSITORY / "roles/python2/files/wheelhouse").rglob("*") if path.is_file())]:
        digest.update(path.read_bytes())
    return CACHE / "lab" / f"prepared-{digest.hexdigest()[:12]}"


def _prepared() -> bool:
    """Whether what the first two make is there already."""
    environment = dict(os.environ, CONTAINERS_CONF=str(CACHE / "lab/containers.conf"))
    if not _inputs().exists() or not list((CACHE / "wheelhouse").glob("*.tar")) or not list((CACHE / "images").glob("*.tar")):
        return False
    return subprocess.run(["podman", "network", "exists", "confops"], env=environment, check=False).returncode == 0


class Scenarios:
    """Those that are wanted, begun at once; directory is the place for their logs."""

    def __init__(self, wanted: list[str], directory: Path) -> None:
        self._directory = directory
        self._costs = directory / "costs.jsonl"
        self._pool = ThreadPoolExecutor(3)
        self._running: dict[str, Future[None]] = {}
        self._begun = ThreadPoolExecutor(1).submit(self._begin, wanted)

    def _begin(self, wanted: list[str]) -> None:
        others = [name for name in SCENARIOS if name not in FIRST + LAST]
        for group in ([*others, *FIRST], LAST) if _prepared() else (*([name] for name in FIRST), others, LAST):
            for name in group:
                if name in wanted:
                    self._running[name] = self._pool.submit(self._run, name)
            wait(self._running.values())
            if group == [FIRST[-1]] and set(FIRST) <= set(wanted) and not any(one.exception() for one in self._running.values()):
                _inputs().touch()

    def _run(self, name: str) -> None:
        log = self._directory / f"{name}.log"
        steps = costs.Steps(self._costs)
        variables = {"NO_COLOR": "1", "ANSIBLE_FORCE_COLOR": "0", costs.FILE: str(self._costs)}
        try:
            output = run("molecule", "test", "--scenario-name", name, log=log, follow=steps.follow, **variables)
        finally:
            steps.end()
        passed = re.findall(r"(\d+) passed", output)
        assert passed and int(passed[-1]) > 0, f"the verify step of {name} ran no test: see {log}"

    def costs(self) -> list[str]:
        """Return the lines of a table of what they cost."""
        return costs.table(costs.read(self._costs))

    def end(self, name: str) -> None:
        """Wait for the end of one, and raise what it raised."""
        while name not in self._running and not self._begun.done():
            time.sleep(1)
        self._running[name].result()
