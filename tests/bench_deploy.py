"""How long a roll-out and its way back take, by the number of application hosts. `make bench-deploy` runs it; it prints figures and judges nothing.

The hosts are those of the scenario `cluster` with more applications, made anew and removed at the end; HOSTS="1 2 4" says how many applications take part.
Each roll-out brings a release that no application has yet. The scheduler's host gets it before them, so that the time of its build stands apart.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import yaml

from tests.lib.playbook import Run, play

REPOSITORY = Path(__file__).resolve().parents[1]
SCENARIO = REPOSITORY / "molecule/cluster/inventory"
# A package that nothing needs makes a release that is another one.
VERSIONS = ["0.1.16", "0.1.14", "0.1.13", "0.1.12", "0.1.11"]


def inventory_of(applications: int, directory: Path) -> Path:
    """Return the scenario's inventory with so many applications."""
    inventory = directory / "inventory"
    shutil.copytree(SCENARIO, inventory)
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text())
    model = hosts["indico_app"]["hosts"]["app1"]
    first = int(model["lab_address"].rpartition(".")[2])
    # The scenario's own keep their addresses, the database's lies between them and the rest.
    for number in range(3, applications + 1):
        hosts["indico_app"]["hosts"][f"app{number}"] = {**model, "lab_address": f"10.213.0.{first + number}"}
    hosts["indico"]["vars"]["zeo_allowed_sources"] = [one["lab_address"] for one in hosts["indico_app"]["hosts"].values()]
    (inventory / "hosts.yml").write_text(yaml.safe_dump(hosts))
    return inventory


def timed(inventory: Path, playbook: str, *options: str, **extra: object) -> tuple[float, Run]:
    """Run a playbook; end with what it said when it fails."""
    begun = time.monotonic()
    done = play(inventory, *options, playbook=playbook, **extra)
    if done.returncode:
        sys.exit("\n".join(done.failures) or done.output)
    return time.monotonic() - begun, done


def without_service(run: Run) -> list[float]:
    return [float(seconds) for seconds in re.findall(r"\((\d+\.\d) s from the stop", run.output)]


def main() -> None:
    numbers = [int(number) for number in os.environ.get("HOSTS", "1 2 4").split()]
    with tempfile.TemporaryDirectory() as directory:
        inventory = inventory_of(max(numbers), Path(directory))
        timed(inventory, "lab/up.yml")
        timed(inventory, "site.yml")
        print("applications   build and first host   roll-out   back   each host drained, stopped and well again", flush=True)
        for number, version in zip(numbers, VERSIONS, strict=False):
            some = ",".join(f"app{one}" for one in range(1, number + 1))
            wanted = {"indico_packages": [f"iso8601=={version}"], "python2_builder": "db1"}
            built, _run = timed(inventory, "playbooks/deploy.yml", "--limit", "db1", **wanted)
            deployed, there = timed(inventory, "playbooks/deploy.yml", "--limit", some, **wanted)
            rolled, back = timed(inventory, "playbooks/rollback.yml", "--limit", f"{some},db1")
            print(f"{number:12} {built:22.1f} {deployed:10.1f} {rolled:6.1f}   {without_service(there)} {without_service(back)}", flush=True)
        timed(inventory, "lab/down.yml")


if __name__ == "__main__":
    main()
