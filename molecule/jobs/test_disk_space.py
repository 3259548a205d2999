"""A disk that is nearly full is named, with what lies on it; what was seen is remembered, but not in check mode; and a past makes a forecast."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.lib.site import Site

PLAYBOOK = "playbooks/disk_space.yml"
STATE = "/var/lib/indico-jobs/disk_space.json"
BACKUPS = "/var/backups/indico"
# What this machine's own disk is like is none of the tests' business.
LENIENT = {"warning_percent": 100, "critical_percent": 100, "warning_days": 0}


@pytest.fixture
def small(site: Site) -> Iterator[None]:
    """A file system of its own for the backups, 20 MiB of which 19 are in use."""
    site.run(
        f"rm -f {STATE}; mkdir -p {BACKUPS} && mount -t tmpfs -o size=20m,nr_inodes=1000 tmpfs {BACKUPS} && head -c {19 * 2**20} /dev/zero > {BACKUPS}/filler"
    )
    yield
    site.run(f"umount {BACKUPS}; rm -f {STATE} {STATE}.damaged")


def test_a_disk_that_is_nearly_full_is_named(site: Site, small: None) -> None:
    run = site.play("--check", playbook=PLAYBOOK)
    assert run.returncode != 0
    (failure,) = run.failures
    assert f"{BACKUPS} is 95.0 % full, 1.00 MB free." in failure
    assert site.run(f"ls {STATE} 2>/dev/null || :") == ""
    assert f"{BACKUPS} is 95.0 % full, 1.00 MB free (backups)" in run.output

    lenient = site.play(playbook=PLAYBOOK, **LENIENT)
    assert lenient.returncode == 0, lenient.output
    assert lenient.changed.keys() == {"Look"}
    assert site.play(playbook=PLAYBOOK, **LENIENT).changed == {}
    assert f"(prefix, log, tmp, archive, cache, {', '.join(f'db/{name}' for name in site.storages)})" in lenient.output
    known = json.loads(site.run(f"cat {STATE}"))["used_bytes"]
    assert [used for _moment, used in known[BACKUPS]] == [19 * 2**20]


def test_inodes_are_a_limit_too(site: Site, small: None) -> None:
    site.run(f"rm {BACKUPS}/filler && cd {BACKUPS} && seq 950 | xargs touch")
    (failure,) = site.play(playbook=PLAYBOOK, warning_percent=90, critical_percent=100).failures
    assert f"{BACKUPS} has 49 inodes left, 95.1 % of them are in use." in failure


def test_the_past_makes_a_forecast_and_a_damaged_one_costs_no_more(site: Site, small: None) -> None:
    """One MiB a day, for ten days."""
    site.run(f"head -c {12 * 2**20} /dev/zero > {BACKUPS}/filler")
    now = int(site.run("date +%s"))
    past = [[now - hours * 3600, 12 * 2**20 - hours * 2**20 // 24] for hours in range(240, 0, -6)]
    site.run(f"echo '{json.dumps({'used_bytes': {BACKUPS: past}})}' > {STATE}")
    sentence = f"{BACKUPS} is 60.0 % full, 8.00 MB free; at the pace of the last 10 days it is full in 8 days"
    run = site.play(playbook=PLAYBOOK, warning_percent=100, critical_percent=100)
    assert [failure for failure in run.failures if f"{sentence}." in failure], run.output
    assert site.play(playbook=PLAYBOOK, **LENIENT).returncode == 0

    site.run(f"echo '{{' > {STATE}")
    run = site.play(playbook=PLAYBOOK, **LENIENT)
    assert run.returncode == 0, run.output
    assert f"{STATE} is damaged and was put aside as {STATE}.damaged; forecasts begin anew." in run.output
    assert BACKUPS in json.loads(site.run(f"cat {STATE}"))["used_bytes"]


def test_limits_that_make_no_sense_are_refused(site: Site) -> None:
    (failure,) = site.play(playbook=PLAYBOOK, warning_percent=96).failures
    assert failure.startswith("warning_percent is 96 and critical_percent 95; they must be")
