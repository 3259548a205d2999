"""How long site.yml takes on a host of the lab, and on what. `make bench-converge` runs it; it prints figures and judges nothing.

The host is the one of the scenario `default`, made anew and removed at the end. Images and wheels are built first if need be, and not counted.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
INVENTORY = REPOSITORY / "molecule/default/inventory"
MITOGEN = {"ANSIBLE_STRATEGY": "mitogen_linear", "ANSIBLE_STRATEGY_PLUGINS": str(REPOSITORY / "lab/strategy")}
PROFILE = {"ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks", "PROFILE_TASKS_TASK_OUTPUT_LIMIT": "8"}


def play(playbook: str, *options: str, **environment: str) -> tuple[float, str]:
    """Run a playbook. Return the seconds that it took and what it printed; end with its output when it fails."""
    command = ["ansible-playbook", "-i", str(INVENTORY), playbook, *options]
    variables = {**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0", **environment}
    start = time.monotonic()
    done = subprocess.run(command, cwd=REPOSITORY, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout)
    return time.monotonic() - start, done.stdout


def show(what: str, seconds: float, printed: str) -> None:
    (recap,) = re.findall(r"^default1 .*ok=(\d+) +changed=(\d+) .* skipped=(\d+)", printed, re.MULTILINE)
    print(f"{what:44} {seconds:6.1f} s   {recap[0]} tasks, {recap[1]} changed, {recap[2]} skipped", flush=True)


def main() -> None:
    play("lab/down.yml")
    play("lab/up.yml")
    print("warming the caches: images, wheels", flush=True)
    play("site.yml")
    play("lab/down.yml")
    booted, _printed = play("lab/up.yml")
    print(f"{'boot a host':44} {booted:6.1f} s", flush=True)
    first, printed = play("site.yml", **PROFILE)
    show("empty host to first page and scheduler", first, printed)
    print(printed[printed.rindex("=====") + 5 :].strip())
    for what, options, environment in (
        ("no change", (), PROFILE),
        ("no change, --check --diff", ("--check", "--diff"), {}),
        ("no change, Mitogen", (), MITOGEN),
        ("no change, Mitogen, --check --diff", ("--check", "--diff"), MITOGEN),
    ):
        seconds, printed = play("site.yml", *options, **environment)
        show(what, seconds, printed)
        if environment is PROFILE:
            print(printed[printed.rindex("=====") + 5 :].strip())
    play("lab/down.yml")


if __name__ == "__main__":
    main()
