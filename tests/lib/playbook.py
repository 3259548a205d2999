"""Runs a playbook as an operator does and returns what it said it changed."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.lib.costs import measured

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

    def touched(self) -> list[str]:
        """Return the paths and units that the collection's modules changed, in order."""
        kinds = ("changed_paths", "stopped", "enabled", "started", "restarted", "reloaded")
        results = [result for results in self.changed.values() for result in results]
        return [name for result in results for name in dict.fromkeys(name for kind in kinds for name in result.get(kind, []))]

    def diff(self) -> str:
        """Return all diffs as one text."""
        return json.dumps([result.get("diff") for results in self.changed.values() for result in results])


def play(inventory: Path, *arguments: str, playbook: str = "site.yml", cwd: Path = REPOSITORY, **extra: object) -> Run:
    """Run a playbook as somebody does who stands in cwd: a checkout, or a directory with ansible_collections in it.

    extra are extra variables. The run may fail: look at returncode.
    """
    environment = dict(os.environ, ANSIBLE_STDOUT_CALLBACK="ansible.posix.json", ANSIBLE_FORCE_COLOR="0")
    if (cwd / "ansible.cfg").exists():
        environment.update(ANSIBLE_CONFIG=str(cwd / "ansible.cfg"), ANSIBLE_COLLECTIONS_PATH=str(cwd / "collections"))
    else:
        environment.pop("ANSIBLE_CONFIG", None)
        environment["ANSIBLE_COLLECTIONS_PATH"] = str(cwd)
    command = ["ansible-playbook", "-i", str(inventory), playbook, "--diff", *arguments]
    if extra:
        command += ["--extra-vars", json.dumps(extra)]
    with measured("playbook", " ".join([playbook, *arguments, *(f"{name}=" for name in extra)])):
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=900)
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
                for one in result.get("results", [result]):  # of a loop, each item
                    if one.get("failed") or one.get("unreachable"):
                        run.failures.append(str(one.get("msg", one)))
    return run
