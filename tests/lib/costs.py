"""What a complete run spends its time on, as a table at its end.

Seconds of wall clock and of the controller's processor. What the hosts do is not in the latter: containers are no children of ours.
"""

from __future__ import annotations

import json
import os
import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "CONFOPS_COSTS"  # names the file that processes of a scenario append to
_STEP = re.compile(r"INFO\s+\[(?P<scenario>\w+) > (?P<step>\w+)\] Executing")
_TICKS = os.sysconf("SC_CLK_TCK")
_SHOWN = 15


@dataclass(frozen=True)
class Cost:
    """One step of a scenario, one run of a playbook or one test. Seconds."""

    kind: str
    scenario: str
    name: str
    wall: float
    cpu: float


@contextmanager
def measured(kind: str, name: str) -> Iterator[None]:
    """Note what the block and its children cost, where a scenario keeps such notes."""
    path, scenario = os.environ.get(FILE), os.environ.get("MOLECULE_SCENARIO_NAME", "")
    if not path:
        yield
        return
    begun, spent = time.monotonic(), _spent()
    try:
        yield
    finally:
        _note(Path(path), Cost(kind, scenario, name, time.monotonic() - begun, _spent() - spent))


class Steps:
    """Follows what molecule writes, and notes each step when the next one begins or the run ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._step: tuple[str, str] | None = None
        self._begun, self._spent, self._last = time.monotonic(), 0.0, 0.0

    def follow(self, pid: int, text: str) -> None:
        """Take what the process wrote since the last call."""
        self._last = _of(pid)
        for found in _STEP.finditer(text):
            self.end()
            self._step = (found["scenario"], found["step"])

    def end(self) -> None:
        """Note the step that is under way."""
        now = time.monotonic()
        if self._step:
            _note(self._path, Cost("step", *self._step, now - self._begun, self._last - self._spent))
        self._step, self._begun, self._spent = None, now, self._last


def read(path: Path) -> list[Cost]:
    """Return what was noted, nothing when nothing was."""
    return [Cost(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def table(costs: list[Cost]) -> list[str]:
    """Return the lines of the table: scenarios by step, then the dearest playbooks and tests."""
    steps = [cost for cost in costs if cost.kind == "step"]
    scenarios = sorted({cost.scenario for cost in steps}, key=lambda name: -sum(cost.wall for cost in steps if cost.scenario == name))
    names = list(dict.fromkeys(cost.name for cost in steps))
    lines = ["wall / processor, seconds".ljust(26) + "".join(name.rjust(13) for name in [*names, "all"])] if steps else []
    for scenario in [*scenarios, "all"] if steps else []:
        mine = [cost for cost in steps if scenario in (cost.scenario, "all")]
        cells = [[cost for cost in mine if cost.name == name] for name in names]
        lines.append(scenario.ljust(26) + "".join(_cell(cell).rjust(13) for cell in [*cells, mine]))
    for kind in ("playbook", "test"):
        dearest = sorted((cost for cost in costs if cost.kind == kind), key=lambda cost: -cost.wall)
        if dearest:
            lines += ["", f"the dearest of {len(dearest)} {kind}s, of {_cell(dearest)} in all"]
            lines += [f"{_cell([cost]).rjust(13)}  {cost.scenario}: {cost.name}" for cost in dearest[:_SHOWN]]
    return lines


def _cell(costs: list[Cost]) -> str:
    return f"{sum(cost.wall for cost in costs):.0f} / {sum(cost.cpu for cost in costs):.0f}" if costs else ""


def _note(path: Path, cost: Cost) -> None:
    with path.open("a") as stream:  # one short write, so that lines of several processes do not mix
        stream.write(json.dumps(asdict(cost)) + "\n")


def _spent() -> float:
    """Return the processor's seconds of this process and of those of its children that have ended."""
    return sum(one.ru_utime + one.ru_stime for one in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)))


def _of(pid: int) -> float:
    """Return the same of another process, as /proc/PID/stat has it: utime, stime, cutime, cstime."""
    return sum(int(ticks) for ticks in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:15]) / _TICKS
