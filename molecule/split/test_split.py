"""The databases on one host, the application on another."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.lib.site import Site

SITES = Site.read_all(Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "inventory")
DATABASE, WEB = SITES["adb1"], SITES["web1"]


def test_each_host_has_its_own_part() -> None:
    units = "systemctl list-units --plain --no-legend 'indico-*' 'apache2*' | cut -d ' ' -f 1"
    assert sorted(DATABASE.run(units).split()) == [
        "indico-backup.timer",
        "indico-disk.timer",
        "indico-drill.timer",
        "indico-pack.timer",
        "indico-watch.timer",
        "indico-zeo-firewall.service",
        "indico-zeo@main.service",
    ]
    assert sorted(WEB.run(units).split()) == [
        "apache2.service",
        "indico-clean.timer",
        "indico-disk.timer",
        "indico-scheduler-purge.timer",
        "indico-scheduler.service",
        "indico-watch.timer",
    ]
    assert not WEB.shell().file("/opt/indico/db").exists
    assert DATABASE.run("ls /opt/indico/etc").split() == ["backup.json", "jobs.d", "jobs.json", "zeo-main.conf", "zeo-users", "zeo.json", "zeo.nft"]


def test_administrators_are_created_on_the_host_that_runs_indico() -> None:
    assert WEB.browser().log_in("admin", WEB.password("admin")) == "in"


def test_event_is_stored_on_the_other_host_and_outlives_its_power_failure() -> None:
    member = WEB.browser()
    assert member.log_in("bruno", WEB.password("demo")) == "in"
    event = member.create_meeting("Across hosts «é»", category="2")
    DATABASE.power_cycle(warn=False)
    visitor = WEB.browser()
    visitor.wait(f"/event/{event}/", seconds=90, in_a_row=12)  # each worker connects to the database again by itself
    assert visitor.title(f"/event/{event}/").startswith("Across hosts «é»")


def test_a_drill_needs_no_application_on_the_host() -> None:
    DATABASE.run("systemctl start indico-backup.service")
    done = DATABASE.shell().run("/opt/indico/bin/indico-backup drill")
    assert done.rc == 0 and "restored and opened by Indico" in done.stdout, done.stderr
    assert "holds no stored files: they lie on another host than the databases." in done.stderr


# The machine that the tests run on is none of zeo_allowed_sources.
@pytest.mark.parametrize(("site", "ports"), [(DATABASE, {22}), (WEB, {22, 80, 443})], ids=["database", "web"])
def test_nothing_else_is_open(site: Site, ports: set[int]) -> None:
    open_ports = set()
    for port in (22, 80, 443, 8091, 9675, 9676):
        with socket.socket() as probe:
            probe.settimeout(2)
            if probe.connect_ex((site.variables["lab_address"], port)) == 0:
                open_ports.add(port)
    assert open_ports == ports


def test_status_covers_both_hosts(tmp_path: Path) -> None:
    run = WEB.play(playbook="playbooks/status.yml", report_file=str(tmp_path / "status.json"))
    assert run.returncode == 0, run.output
    text = (tmp_path / "status.json").read_text()
    assert '"adb1": {' in text and '"web1": {' in text
