"""The site is closed for maintenance and opened again, whatever happens in between."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.browser import Browser
from tests.lib.playbook import Run
from tests.lib.site import Site

PLAYBOOK = "playbooks/maintenance.yml"
SCHEDULER = "indico-scheduler.service"
TEXT = 'Wir sind um 14 Uhr zurück — bis dann & "Danke"'
ON = {"state": "on", "text": TEXT, "retry_after": 1800}


def succeeded(run: Run) -> Run:
    assert run.returncode == 0, run.output
    return run


@pytest.fixture
def opened(site: Site) -> Iterator[None]:
    """Whatever a test ends with, the site is open for the next one."""
    yield
    if site.shell().file(f"{site.prefix}/etc/maintenance/on").exists:
        site.play(playbook=PLAYBOOK, state="off")


def paths_of_the_site(visitor: Browser) -> list[str]:
    """Return the home page, an event page, a file that somebody stored, and one of Indico's own files."""
    category = visitor.get("/category/2/").text + visitor.get("/category/2/overview?period=week").text
    for event in sorted(set(re.findall(r"/event/\d+/", category))):
        stored = re.search(r'href="([^"]+/material/[^"]+\.pdf)"', visitor.get(event).text)
        if stored:
            script = re.search(r'src="([^"]+\.js[^"]*)"', visitor.get(event).text)
            assert script is not None
            return ["/", event, stored.group(1), script.group(1)]
    raise AssertionError("no event has a stored file")


def check_closed(visitor: Browser, paths: list[str]) -> None:
    for path in paths:
        answer = visitor.get(path)
        assert (answer.status_code, answer.headers["Retry-After"], answer.headers["Cache-Control"]) == (503, "1800", "no-store"), path
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "Wir sind um 14 Uhr zurück — bis dann &amp; &#34;Danke&#34;" in answer.text
        assert not answer.content.startswith(b"%PDF")
    posted = visitor.post("/user/login", {"login": "bruno", "password": "wrong"})
    assert posted.status_code == 503


def is_running(site: Site) -> bool:
    return site.shell().run(f"systemctl is-active {SCHEDULER}").stdout.strip() == "active"


def test_maintenance_is_on_until_it_is_off(site: Site, visitor: Browser, opened: None, tmp_path: Path) -> None:
    paths = paths_of_the_site(visitor)
    assert [visitor.get(path).status_code for path in paths] == [200] * 4

    predicted = succeeded(site.play("--check", playbook=PLAYBOOK, **ON))
    assert visitor.get("/").status_code == 200 and is_running(site)
    done = succeeded(site.play(playbook=PLAYBOOK, **ON))
    assert done.changed.keys() == predicted.changed.keys() == {"Put the sign up, or take it down", "Pause the scheduler"}
    assert done.touched() == predicted.touched()
    assert done.touched()[-2:] == [f"{site.prefix}/etc/maintenance/{name}" for name in ("page.html", "on")]
    check_closed(visitor, paths)
    assert not is_running(site)
    assert succeeded(site.play(playbook=PLAYBOOK, **ON)).changed == {}

    # A run of site.yml leaves it on, with something to do and without.
    site.run(f"touch {site.prefix}/etc/logging.conf")
    assert succeeded(site.play("--tags", "web,scheduler")).touched() == ["apache2.service"]
    assert succeeded(site.play("--check", "--tags", "web,scheduler")).changed == {}
    check_closed(visitor, paths)
    assert not is_running(site)

    status = succeeded(site.play(playbook="playbooks/status.yml", report_file=str(tmp_path / "status.json")))
    assert "visitors get 503 and the scheduler pauses" in status.output
    seen = json.loads((tmp_path / "status.json").read_text())[site.name]
    assert (seen["maintenance"]["retry_after"], seen["page"]["status"], seen["problems"]) == (1800, 503, [])

    # Nothing starts the scheduler, and a reboot ends nothing.
    site.run(f"systemctl start {SCHEDULER}")
    assert not is_running(site)
    site.power_cycle(warn=True)
    site.wait_for_unit("apache2.service", seconds=90)
    check_closed(visitor, paths)
    assert not is_running(site)

    predicted = succeeded(site.play("--check", playbook=PLAYBOOK, state="off"))
    assert visitor.get("/").status_code == 503
    done = succeeded(site.play(playbook=PLAYBOOK, state="off"))
    assert done.touched() == predicted.touched() == [f"{site.prefix}/etc/maintenance/{name}" for name in ("on", "page.html")] + [SCHEDULER]
    assert [visitor.get(path).status_code for path in paths] == [200] * 4
    site.wait_for_unit(SCHEDULER)
    assert succeeded(site.play(playbook=PLAYBOOK, state="off")).changed == {}


def status_from_the_host(site: Site, forwarded: str) -> str:
    """Ask for the home page from the host itself, which claims to ask for somebody else, and return the status."""
    ask = f"import http.client as h, ssl; c = h.HTTPSConnection('{site.variables['lab_address']}', context=ssl._create_unverified_context()); "
    ask += f"c.request('GET', '/', headers={{'X-Forwarded-For': '{forwarded}'}}); print(c.getresponse().status)"
    return site.run(f'python3 -c "{ask}"').strip()


def test_an_address_may_still_see_the_site(site: Site, visitor: Browser, opened: None) -> None:
    gateway = site.variables["lab_address"].rpartition(".")[0] + ".1"
    succeeded(site.play(playbook=PLAYBOOK, state="on", allow=[gateway, "2001:DB8::7"]))
    assert visitor.get("/").status_code == 200
    assert status_from_the_host(site, gateway) == "503"
    # The list is the whole of it, and a word in a header does not stand for an address.
    again = succeeded(site.play(playbook=PLAYBOOK, state="on", allow="192.0.2.7"))
    known = f"{site.prefix}/etc/maintenance/allow-"
    assert sorted(again.touched()) == sorted([f"{known}192.0.2.7", f"{known}{gateway}", f"{known}2001:db8::7"])
    assert visitor.get("/").status_code == 503
    assert status_from_the_host(site, "../on") == "503"
    succeeded(site.play(playbook=PLAYBOOK, state="off"))
    assert site.run(f"find {site.prefix}/etc/maintenance -type f") == ""
    visitor.wait("/")


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({}, "Say what is wanted: -e state=on or -e state=off."),
        ({"state": "on", "retry_after": "soon"}, "retry_after is 'soon'; it must be an integer from 1 to 9999999."),
        ({"state": "on", "allow": "192.0.2.0/24"}, "allow has 192.0.2.0/24; it must hold addresses, without networks or names."),
        (
            {"state": "on", "allow": "192.0.2.7", "web_trusted_proxies": ["192.0.2.1"]},
            "allow cannot work behind a proxy (web_trusted_proxies), whose address is the only one that Apache sees.",
        ),
    ],
    ids=["no state", "no number", "a network", "a proxy"],
)
def test_what_makes_no_sense_is_refused(site: Site, visitor: Browser, extra: dict[str, object], sentence: str) -> None:
    run = site.play(playbook=PLAYBOOK, **extra)
    assert run.returncode != 0
    assert [failure for failure in run.failures if sentence in failure], run.failures
    assert run.changed == {}
    assert visitor.get("/").status_code == 200
