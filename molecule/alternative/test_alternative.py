"""Every variable that the inventory changes, seen to have its effect."""

from __future__ import annotations

import socket

from tests.lib.browser import Browser
from tests.lib.site import Site


def test_pages_speak_of_the_public_address_only(site: Site, visitor: Browser) -> None:
    page = visitor.get("/").text
    assert "https://events.example.org/conf/" in page
    assert site.variables["lab_address"] not in page


def test_worker_sees_the_visitor_that_the_proxy_names(site: Site, visitor: Browser) -> None:
    visitor.get("/event/nosuchevent/")
    assert "192.0.2.7" in site.run(f"cat {site.prefix}/log/indico/*.log {site.prefix}/log/apache2/*.log")


def test_both_storages_are_served_apart(site: Site) -> None:
    """A client of ZEO writes an object into each and reads it back through a new connection."""
    script = (
        "import sys, transaction; from ZEO.ClientStorage import ClientStorage; from ZODB import DB\n"
        "for port in (19675, 19676):\n"
        "    db = DB(ClientStorage(('127.0.0.1', port), wait_timeout=5)); root = db.open().root(); root['probe'] = port; transaction.commit(); db.close()\n"
        "for port in (19675, 19676):\n"
        "    db = DB(ClientStorage(('127.0.0.1', port), wait_timeout=5)); print db.open().root()['probe']; db.close()\n"
    )
    assert site.run(f'/srv/events/current/bin/python -c "{script}" 2>/dev/null').split() == ["19675", "19676"]
    for name in ("main", "rooms"):
        assert site.shell().file(f"/srv/events/db/{name}/Data.fs").user == "zodb"


def test_monitor_answers(site: Site) -> None:
    answer = site.run("python3 -c \"import socket; print(socket.create_connection(('127.0.0.1', 18091)).makefile().read())\"")
    assert "ZEO monitor server version 3.10.5" in answer


def test_names_follow_the_instance(site: Site) -> None:
    units = site.run("systemctl list-units --plain --no-legend 'events-*' | cut -d ' ' -f 1").split()
    assert sorted(units) == ["events-scheduler.service", "events-zeo@main.service", "events-zeo@rooms.service"]
    assert not site.shell().file("/opt/indico").exists


def test_cron_starts_the_jobs(site: Site) -> None:
    assert "30 1 * * * root systemctl start events-backup.service" in site.run("cat /etc/cron.d/events-backup")
    site.run("systemctl start events-backup.service")
    assert "restored and opened by Indico" in site.run_job("events-drill.service")


def test_configuration_reaches_indico(site: Site) -> None:
    script = (
        "from indico.core.config import Config; c = Config.getInstance();"
        " print c.getSessionLifetime(), c.getSupportEmail(), c.getCSRFLevel(), c.getDBConnectionParams()"
    )
    seen = site.run(f"runuser -u events -- /srv/events/current/bin/python -W ignore -c '{script}'")
    assert seen == "86400 events@example.org 3 ('127.0.0.1', 19675)"


def test_no_tls_port(site: Site) -> None:
    with socket.socket() as probe:
        probe.settimeout(2)
        assert probe.connect_ex((site.variables["lab_address"], 443)) != 0
