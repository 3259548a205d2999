"""Drills on a living site: the newest set is opened by Indico's own code and compared with what the site held then."""

from __future__ import annotations

import json
import time

import pytest

from tests.lib.site import Site

BACKUP, DRILL, COMMAND = "playbooks/backup.yml", "playbooks/drill.yml", "/opt/indico/bin/indico-backup"
SETS = "/var/backups/indico/sets"
ROOMS = r"""
from indico.core.db import DBMgr
DBMgr.getInstance().startRequest()
from MaKaC.plugins.RoomBooking.default.dalManager import DALManager
from MaKaC.plugins.RoomBooking.default.room import Room
DALManager.connect()
rooms = DALManager.getRoot('Rooms')
for number in (1, 2, 3):
    rooms[number] = room = Room()
    room.id, room.name, room.building, room.floor, room.roomNr = number, 'Room %d' % number, 4, 'B', str(number)
DALManager.commit()
"""


def drilled(site: Site) -> dict:
    """Run the playbook and return the report that it left."""
    run = site.play(playbook=DRILL)
    assert run.returncode == 0, run.output
    return json.loads(site.run(f"{COMMAND} status"))["drill"]


def failure(site: Site) -> str:
    run = site.play(playbook=DRILL)
    assert run.returncode != 0, run.output
    (sentence,) = run.failures
    return sentence


@pytest.fixture(scope="module", autouse=True)
def rooms(site: Site) -> None:
    """Rooms in a database of their own, through Indico's own classes, and a set that holds them."""
    site.run(f'PYTHON_EGG_CACHE=/opt/indico/tmp/egg-cache runuser -u indico -- /opt/indico/current/bin/python -c "{ROOMS}" 2>/dev/null')
    assert "rooms " in site.run(f"{COMMAND} run")


def test_newest_set_is_what_the_site_was(site: Site) -> None:
    report = drilled(site)
    assert report["ok"] and report["warnings"] == []
    assert report["counts"] == report["live"]
    assert report["counts"]["rooms"] == 3
    assert report["opened"] == {kind: number for kind, number in report["counts"].items() if kind != "files"}
    assert report["files_compared"] == report["counts"]["files"]
    assert [one["name"] for one in report["storages"]] == ["main", "rooms"]
    assert not site.shell().file("/opt/indico/drill").exists
    assert site.shell().run("pgrep -u nobody").rc == 1
    assert 'indico_drill_status{instance_name="indico"} 2' in site.run("cat /var/backups/indico/metrics.prom")
    assert ", drilled 0 hours ago" in site.run(f"{COMMAND} check --drill-days 8")


def test_what_happened_since_does_not_matter(site: Site) -> None:
    before = drilled(site)
    member = site.browser()
    assert member.log_in("bruno", site.password("demo")) == "in"
    event = member.create_meeting("After the set", category="2")
    report = drilled(site)
    assert report["counts"] == report["live"] == before["counts"]
    assert site.browser().title(f"/event/{event}/").startswith("After the set")


def test_unit_of_the_weekly_job_has_all_that_it_needs(site: Site) -> None:
    assert "drill done in " in site.run_job("indico-drill.service")
    assert "indico-drill.timer" in site.run("systemctl list-timers --no-pager")


def test_check_mode_says_what_it_needs_and_leaves_no_report(site: Site) -> None:
    before = site.run("cat /var/backups/indico/drill.json")
    run = site.play("--check", playbook=DRILL)
    assert run.returncode == 0 and run.changed == {}
    assert "a drill would restore set " in run.output
    assert site.run("cat /var/backups/indico/drill.json") == before


def test_a_file_that_the_set_lacks_is_found(site: Site) -> None:
    newest = site.run(f"ls {SETS}").split()[-1]
    lost = site.run(f"find {SETS}/{newest}/archive -type f | head -1")
    site.run(f"mv '{lost}' /tmp/lost")
    try:
        sentence = failure(site)
    finally:
        site.run(f"mv /tmp/lost '{lost}'")
    assert sentence.startswith(f"Set {newest} lacks 1 of ") and lost.split("/archive/")[1] in sentence
    assert "the last drill failed (Set " in site.shell().run(f"{COMMAND} check").stdout
    assert 'indico_drill_status{instance_name="indico"} 0' in site.run("cat /var/backups/indico/metrics.prom")
    assert not site.shell().file("/opt/indico/drill").exists


def test_a_damaged_backup_is_found(site: Site) -> None:
    victim = site.run("ls /var/backups/indico/main/*.fsz | tail -1")
    site.run(f"cp --preserve {victim} /tmp/whole && printf X | dd of={victim} bs=1 seek=5000 conv=notrunc status=none")
    try:
        sentence = failure(site)
    finally:
        site.run(f"mv /tmp/whole {victim}")
    assert sentence.startswith("The repository /var/backups/indico/main is not sound.")
    assert drilled(site)["ok"]


def test_a_set_that_is_less_than_the_site_was_is_found(site: Site) -> None:
    """The newest set is made to name an older transaction of another site's history: here, the living site is asked for another one."""
    newest = site.run(f"ls {SETS}").split()[-1]
    path = f"{SETS}/{newest}/manifest.json"
    manifest = json.loads(site.run(f"cat {path}"))
    site.run(f"cp {path} /tmp/manifest.json && sed -i 's/{manifest['storages'][0]['end']}/{manifest['storages'][0]['end'] + 1}/' {path}")
    try:
        sentence = failure(site)
    finally:
        site.run(f"cp /tmp/manifest.json {path}")
    assert f"the manifest of set {newest} says {manifest['storages'][0]['end'] + 1}." in sentence


def test_a_site_that_was_packed_since_is_not_compared(site: Site) -> None:
    """An event changes the objects that are counted, and a pack forgets how they were before."""
    member = site.browser()
    assert member.log_in("bruno", site.password("demo")) == "in"
    member.create_meeting("Before the pack", category="2")
    site.run("/opt/indico/zeo/bin/zeopack 127.0.0.1:9675 2>/dev/null")
    report = drilled(site)
    assert report["live"] == {}
    assert report["warnings"][0].startswith("The living databases were packed since set ")
    site.run(f"{COMMAND} run")
    assert drilled(site)["live"]["rooms"] == 3


def test_killed_in_the_middle_it_leaves_nothing_that_runs(site: Site) -> None:
    for pause in (0.2, 0.5, 0.9):
        site.run(f"({COMMAND} drill >/dev/null 2>&1 & pid=$!; sleep {pause}; kill -9 $pid) 2>/dev/null")
        time.sleep(0.5)
        assert site.shell().run("pgrep -u nobody").stdout == ""
    assert drilled(site)["ok"]
    assert not site.shell().file("/opt/indico/drill").exists
