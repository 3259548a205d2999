"""Whatever dies comes back by itself, with every transaction that was acknowledged."""

from __future__ import annotations

import threading
import time

import pytest
import requests

from tests.lib.browser import Browser
from tests.lib.site import Site


class Writer(threading.Thread):
    """Somebody who creates events all the time. acknowledged holds the id of each that the site said it had stored."""

    def __init__(self, browser: Browser) -> None:
        super().__init__(daemon=True)
        self.browser, self.acknowledged, self.stop = browser, [], threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                self.acknowledged.append(self.browser.create_meeting(f"Survivor {len(self.acknowledged)}", category="2"))
            except (requests.RequestException, AssertionError):
                time.sleep(0.2)  # not acknowledged: it may be there or not

    def wait_for(self, number: int, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while len(self.acknowledged) < number:
            assert time.monotonic() < deadline, f"only {len(self.acknowledged)} of {number} writes were acknowledged within {seconds} s"
            time.sleep(0.1)


def all_there(site: Site, acknowledged: list[str]) -> None:
    visitor = site.browser()
    visitor.wait("/")
    missing = [event for event in acknowledged if not visitor.title(f"/event/{event}/").startswith("Survivor")]
    assert missing == []


def test_zeo_killed_while_somebody_writes(site: Site, member: Browser) -> None:
    writer = Writer(member)
    writer.start()
    writer.wait_for(5)
    unit = f"{site.instance}-zeo@main.service"
    pid = site.main_pid(unit)
    site.run(f"kill -9 {pid}")
    took = site.wait_for_unit(unit, not_pid=pid, seconds=10)
    before = len(writer.acknowledged)
    writer.wait_for(before + 5)
    writer.stop.set()
    writer.join(30)
    print(f"ZEO was back after {took:.1f} s, {len(writer.acknowledged)} writes acknowledged")
    all_there(site, writer.acknowledged)


def test_worker_killed_while_somebody_writes(site: Site, member: Browser) -> None:
    writer = Writer(member)
    writer.start()
    writer.wait_for(3)
    for worker in site.workers():
        site.run(f"kill -9 {worker}")
    writer.wait_for(len(writer.acknowledged) + 3)
    writer.stop.set()
    writer.join(30)
    all_there(site, writer.acknowledged)


def wait_for_scheduler(site: Site, seconds: float = 20) -> None:
    """Wait until Indico's own command finds the daemon, whose state lives in the database."""
    deadline = time.monotonic() + seconds
    while True:
        done = site.shell().run(f"runuser -u {site.user} -- {site.prefix}/current/bin/indico_scheduler check || exit 1")  # 255 would be ssh's own
        if done.rc == 0:
            return
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(1)


def test_web_server_killed(site: Site) -> None:
    pid = site.main_pid("apache2.service")
    site.run(f"kill -9 {pid}")
    site.wait_for_unit("apache2.service", not_pid=pid, seconds=20)
    site.browser().wait("/")


def test_scheduler_killed(site: Site) -> None:
    unit = f"{site.instance}-scheduler.service"
    pid = site.main_pid(unit)
    site.run(f"kill -9 {pid}")
    site.wait_for_unit(unit, not_pid=pid, seconds=20)
    wait_for_scheduler(site)


@pytest.mark.parametrize("warn", [False, True], ids=["power failure", "reboot"])
def test_host_is_switched_off_and_on_while_somebody_writes(site: Site, member: Browser, warn: bool) -> None:
    """Everything starts by itself."""
    writer = Writer(member)
    writer.start()
    writer.wait_for(5)
    site.power_cycle(warn=warn)
    took = site.browser().wait("/", seconds=90)
    before = len(writer.acknowledged)
    writer.wait_for(before + 2)
    writer.stop.set()
    writer.join(30)
    print(f"the home page answered {took:.1f} s after the power came back")
    all_there(site, writer.acknowledged)
    for unit in site.units:
        site.wait_for_unit(unit)
    wait_for_scheduler(site)
