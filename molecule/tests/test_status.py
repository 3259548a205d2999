"""playbooks/status.yml says what the host says by another way."""

from __future__ import annotations

import json
from pathlib import Path

from tests.lib.browser import Browser
from tests.lib.site import Site

PLAYBOOK = "playbooks/status.yml"


def test_status_tells_what_runs_and_how_large_it_is(site: Site, member: Browser, tmp_path: Path) -> None:
    member.create_meeting("Seen by status", category="2")
    written = site.run("date -u +%Y-%m-%dT%H:%M")
    before = _bytes(site)
    run = site.play(playbook=PLAYBOOK, report_file=str(tmp_path / "status.json"))
    assert run.returncode == 0, run.output
    after = _bytes(site)
    seen = json.loads((tmp_path / "status.json").read_text())[site.name]
    assert seen["releases"]["current"]["path"] == site.run(f"readlink -f {site.prefix}/current")
    assert (seen["packages"]["indico"], seen["packages"]["ZODB3"]) == ("1.2.2", "3.10.5")
    assert {unit["name"]: unit["pid"] for unit in seen["units"]} == {unit: site.main_pid(unit) for unit in site.units}
    assert [storage["name"] for storage in seen["storages"]] == site.storages
    for storage in seen["storages"]:  # the scheduler may write while status.yml looks
        assert before[storage["name"]] <= storage["bytes"] <= after[storage["name"]]
    assert seen["storages"][0]["last_transaction"]["time"] >= written
    assert seen["page"]["status"] == 200
    assert seen["sizes"]["archive"] > 10_000
    assert run.changed.keys() <= {"Report | Write it to a file on the controller"}


def _bytes(site: Site) -> dict[str, int]:
    return {name: int(site.run(f"stat --format %s {site.prefix}/db/{name}/Data.fs")) for name in site.storages}


def test_status_fails_when_something_does_not_run(site: Site) -> None:
    scheduler = f"{site.instance}-scheduler.service"
    site.run(f"systemctl stop {scheduler}")
    run = site.play(playbook=PLAYBOOK)
    site.run(f"systemctl start {scheduler}")
    assert run.returncode != 0
    (sentences,) = run.failures
    assert sentences.splitlines()[0] == f"{scheduler} is inactive (dead)."
    site.wait_for_unit(scheduler)
