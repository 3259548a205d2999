"""Runs a playbook as an operator does and returns what it said it changed."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Run:
    """What one run of ansible-playbook did.

    changed maps the name of each task that changed something to its results (one for each host and loop item);
    output is everything that it printed.
    """

    returncode: int
    output: str
    changed: dict[str, list[dict]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    tasks: int = 0

    def paths(self) -> list[str]:
        """Return the paths that confops.indico.tree tasks changed, in order."""
        return [path for results in self.changed.values() for result in results for path in result.get("changed_paths", [])]

    def diff(self) -> str:
        """Return all diffs as one text."""
        return json.dumps([result.get("diff") for results in self.changed.values() for result in results])


def play(inventory: Path, *arguments: str, playbook: str = "site.yml", **extra: object) -> Run:
    """Run a playbook of the repository; extra are extra variables. The run may fail: look at returncode."""
    environment = dict(os.environ, ANSIBLE_CONFIG=str(REPOSITORY / "ansible.cfg"), ANSIBLE_STDOUT_CALLBACK="ansible.posix.json", ANSIBLE_FORCE_COLOR="0")
    command = ["ansible-playbook", "-i", str(inventory), playbook, "--diff", *arguments]
    if extra:
        command += ["--extra-vars", json.dumps(extra)]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    run = Run(done.returncode, done.stdout + done.stderr)
    start = done.stdout.find("{\n")
    if start < 0:
        run.failures.append(run.output)
        return run
    report, _end = json.JSONDecoder().raw_decode(done.stdout[start:])
    for one_play in report["plays"]:
        for task in one_play["tasks"]:
            run.tasks += 1
            for result in task["hosts"].values():
                if result.get("changed"):
                    run.changed.setdefault(task["task"]["name"], []).append(result)
                if result.get("failed") or result.get("unreachable"):
                    run.failures.append(str(result.get("msg", result)))
    return run
