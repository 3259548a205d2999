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
    """A client of ZEO writes an object into each and reads it back through a new connection, with the login that the servers ask for."""
    script = (
        "import json, transaction; from ZEO.ClientStorage import ClientStorage; from ZODB import DB\n"
        "servers = json.load(open('/srv/events/etc/zeo.json'))['servers']\n"
        "login = dict((key, str(servers[0][key])) for key in ('username', 'password', 'realm'))\n"
        "connect = lambda port: DB(ClientStorage(('127.0.0.1', port), wait_timeout=5, **login))\n"
        "for port in (19675, 19676):\n"
        "    db = connect(port); db.open().root()['probe'] = port; transaction.commit(); db.close()\n"
        "for port in (19675, 19676):\n"
        "    db = connect(port); print db.open().root()['probe']; db.close()\n"
    )
    assert site.run(f'/srv/events/current/bin/python -c "{script}" 2>/dev/null').split() == ["19675", "19676"]
    for name in ("main", "rooms"):
        assert site.shell().file(f"/srv/events/db/{name}/Data.fs").user == "zodb"


def test_indico_finds_the_rooms(site: Site) -> None:
    """The address lies in the main database; the site's own code opens what it names."""
    script = (
        "from indico.core.db import DBMgr; manager = DBMgr.getInstance(); manager.startRequest();"
        "from MaKaC.plugins.RoomBooking.default.dalManager import DALManager; DALManager.connect();"
        "print DALManager.usesMainIndicoDB(), DALManager.getInstance().storage._addr"
    )
    assert site.run(f'runuser -u events -- /srv/events/current/bin/python -W ignore -c "{script}"') == "False ('127.0.0.1', 19676)"


def test_status_says_when_indico_looks_elsewhere_for_the_rooms(site: Site) -> None:
    script = (
        "from indico.core.db import DBMgr; manager = DBMgr.getInstance(); manager.startRequest();"
        "from MaKaC.common.info import HelperMaKaCInfo; HelperMaKaCInfo.getMaKaCInfoInstance().setRoomBookingDBConnectionParams(('elsewhere', 9676));"
        "manager.endRequest()"
    )
    site.run(f'runuser -u events -- /srv/events/current/bin/python -W ignore -c "{script}"')
    status = site.play(playbook="playbooks/status.yml")
    assert status.failures == ["Indico looks elsewhere for the rooms: address: elsewhere:9676 -> 127.0.0.1:19676. site.yml sets it."]
    assert list(site.play("--tags", "indico").changed) == ["confops.indico.indico : Rooms | Say in the main database where theirs is"]
    assert site.play(playbook="playbooks/status.yml").failures == []


def test_names_follow_the_instance(site: Site) -> None:
    units = set(site.run("systemctl list-units --plain --no-legend 'events-*' | cut -d ' ' -f 1").split())
    # what a timer starts is listed only while it runs
    by_timer = {unit.replace(".timer", ".service") for unit in units if unit.endswith(".timer")}
    assert sorted(units - by_timer) == [
        "events-redis.service",
        "events-scheduler-metrics.timer",
        "events-scheduler.service",
        "events-watch.timer",
        "events-zeo-watch.timer",
        "events-zeo@main.service",
        "events-zeo@rooms.service",
    ]
    assert not site.shell().file("/opt/indico").exists


def test_a_rotated_log_is_opened_anew(site: Site) -> None:
    pid = site.main_pid("events-zeo@rooms")
    site.run("mv /srv/events/log/zeo/rooms.log /srv/events/log/zeo/rooms.log.1 && systemctl reload events-zeo@rooms")
    site.run(f"{site.prefix}/zeo/bin/python -c \"import socket; socket.create_connection(('127.0.0.1', 19676)).close()\"")
    site.run("for i in 1 2 3 4 5 6 7 8 9; do grep -q 'new connection' /srv/events/log/zeo/rooms.log && exit 0; sleep 0.5; done; exit 1")
    assert site.main_pid("events-zeo@rooms") == pid


def test_cron_starts_the_jobs(site: Site) -> None:
    assert "30 1 * * * root systemctl start events-backup.service" in site.run("cat /etc/cron.d/events-backup")
    assert "15 4 * * 1,2,3,4,5 root systemctl start events-scheduler-purge.service" in site.run("cat /etc/cron.d/events-scheduler")
    site.run("systemctl start events-backup.service")
    assert "restored and opened by Indico" in site.run_job("events-drill.service")
    assert "main nothing to pack, rooms nothing to pack" in site.run_job("events-pack.service")  # all that is there is of today


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


def test_an_event_is_mirrored_from_below_a_path(site: Site) -> None:
    """Every page and file of it, or the run would have failed."""
    run = site.play(playbook="playbooks/offline_mirror.yml", events=["24"], target="/srv/mirror")
    assert run.returncode == 0, run.output
    (made,) = (result for results in run.changed.values() for result in results)
    assert (made["changed"], made["broken"], made["files"] > 40) == (True, [], True)
    assert "/conf/" not in site.run("cat /srv/mirror/index.html").replace("https://events.example.org/conf/", "")
