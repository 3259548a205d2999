"""The command for people, as they see it: sentences, exit codes, data."""

from __future__ import annotations

import json

from tests.lib.browser import Browser
from tests.lib.site import Site

COMMAND = "/opt/indico/bin/indico-manage"


def test_status_is_that_of_the_playbook(site: Site) -> None:
    status = json.loads(site.run(f"{COMMAND} status --json"))
    assert status["problems"] == []
    assert [unit["name"] for unit in status["units"]] == site.units
    assert status["page"]["status"] == 200
    assert status["scheduler"]["daemon"]["pid"] == site.main_pid("indico-scheduler.service")
    rules = {task["rule"] for task in status["scheduler"]["tasks"]}
    assert rules - {None} == {"daily at 02:00 UTC", "daily at 06:00 UTC"}  # an event's alarm is a task without a rule


def test_status_says_when_the_database_is_away(site: Site) -> None:
    """Indico waits for ever for a database that is away; the command does not."""
    site.run("systemctl stop apache2 indico-scheduler indico-zeo@main")
    done = site.shell().run(f"{COMMAND} tasks list")
    site.run("systemctl start indico-zeo@main indico-scheduler apache2")
    assert done.rc == 1
    assert done.stderr.startswith("ZEO at 127.0.0.1:9675 does not answer")
    site.browser().wait("/")


def test_administrators(site: Site) -> None:
    """Rights come and go without a password; those of the last one stay."""
    assert site.run(f"{COMMAND} admins list") == "Ada Admin <admin@example.org>, Local: admin"
    assert site.run(f"{COMMAND} admins grant chloe@example.org --dry-run") == "administrator: granted"
    assert site.run(f"{COMMAND} admins grant chloe@example.org") == "administrator: granted"
    assert site.run(f"{COMMAND} admins grant chloe@example.org") == ""
    browser = site.browser()
    assert browser.log_in("chloe", site.password("demo")) == "in"
    assert "Administrator list" in browser.get("/admin/").text
    assert site.run(f"{COMMAND} admins revoke chloe@example.org") == "administrator: no longer"
    assert "Administrator list" not in browser.get("/admin/").text
    last = site.shell().run(f"{COMMAND} admins revoke admin@example.org")
    assert (last.rc, last.stderr.startswith("admin@example.org is the only administrator.")) == (1, True)
    unknown = site.shell().run(f"{COMMAND} admins grant nobody@example.org")
    assert unknown.stderr.startswith("There is no account nobody@example.org yet; to create it, give login, password")


def test_a_deleted_event_comes_back(site: Site, member: Browser, visitor: Browser) -> None:
    event = member.create_meeting("Deleted by mistake", category="2")
    assert member.post(f"/event/{event}/manage/tools/delete", {"confirm": "1"}).status_code == 303
    assert "Deleted by mistake" not in visitor.get(f"/event/{event}/").text
    assert f"event {event}, Deleted by mistake, of 2017-04-03" in site.run(f"{COMMAND} events deleted")
    predicted = site.run(f"{COMMAND} events restore {event} --dry-run")
    assert "Deleted by mistake" not in visitor.get(f"/event/{event}/").text
    assert site.run(f"{COMMAND} events restore {event}") == predicted
    assert visitor.title(f"/event/{event}/").startswith("Deleted by mistake")
    assert site.run(f"{COMMAND} events restore {event}") == f"Event {event} (Deleted by mistake) is not deleted."
    assert site.shell().run(f"{COMMAND} events restore 4711").stderr.startswith("There is no event 4711, and the database holds no deleted one")
