"""playbooks/cleanup.yml removes what is old and logs nobody out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lib.browser import Browser
from tests.lib.playbook import Run
from tests.lib.site import Site

PLAYBOOK = "playbooks/cleanup.yml"
EVERYTHING = "find {prefix}/cache {prefix}/tmp {prefix}/log -printf '%p %y\\n' | sort"


def logged_in(site: Site) -> Browser:
    browser = site.browser()
    assert browser.log_in("chloe", site.password("demo")) == "in"
    assert "Logout" in browser.get("/").text
    return browser


def session_file(site: Site, browser: Browser) -> str:
    """Return the file in which the site keeps the session of somebody who is logged in."""
    cookie = browser.session.cookies.get("indico_session")
    assert cookie is not None, browser.session.cookies
    name = hashlib.sha256(cookie.encode()).hexdigest()
    path = f"{site.prefix}/cache/generic_cache/flask-session/{name[:4]}/{name[:8]}/{name}"
    assert site.run(f"head -c 2 {path}") == "(I"
    return path


def as_service(site: Site, command: str) -> str:
    return site.run(f"runuser -u {site.user} -- sh -c '{command}'")


def listing(site: Site) -> set[str]:
    return set(site.run(EVERYTHING.format(prefix=site.prefix)).splitlines())


@contextmanager
def held_open(site: Site, path: str, who: str) -> Iterator[None]:
    """Have a process of somebody read the file all the time, slowly."""
    unit = f"holds-{who}"
    site.run(f"systemd-run --quiet --collect --unit {unit} --property User={who} --property StandardInput=file:{path} sleep infinity")
    try:
        yield
    finally:
        site.run(f"systemctl stop {unit}")


def numbers(run: Run, report: Path) -> dict[str, dict[str, int]]:
    assert run.returncode == 0, run.output
    (found,) = json.loads(report.read_text()).values()
    return found


@pytest.mark.parametrize("who", ["root", "indico"])
def test_file_in_use_stays(site: Site, tmp_path: Path, who: str) -> None:
    path = f"{site.prefix}/tmp/IndicoHeld-{who}"
    as_service(site, f"echo held > {path}; touch -d -2days {path}")
    with held_open(site, path, who):
        assert numbers(site.play(playbook=PLAYBOOK, what="tmp", report_file=str(tmp_path / "report")), tmp_path / "report")["tmp"]["kept"]["in use"] == 1
        assert site.run(f"cat {path}") == "held"
    run = site.play(playbook=PLAYBOOK, what="tmp", report_file=str(tmp_path / "report"))
    assert numbers(run, tmp_path / "report")["tmp"]["files"] == 1
    assert not site.shell().file(path).exists


def test_old_things_go_and_nobody_is_logged_out(site: Site, member: Browser, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    other, forgotten = logged_in(site), logged_in(site)
    mine, ended = session_file(site, member), session_file(site, forgotten)
    # Ten days without a change, where the file is written anew only after half of 31.
    site.run(f"touch -d '-10 days' {mine} {ended}")
    site.run(f"sed -i '1s/^(I[0-9]*$/(I1480000000/' {ended}")

    old = {
        "cache/abstract_books/1.pdf": "-2 days",
        "cache/categOverview": "-2 days",
        "tmp/IndicoOld": "-4 hours",
        "tmp/tmpOldIndico.tmp": "-4 hours",
        "log/indico/scheduler.log.2020-01-01": "-200 days",
        "log/indico/indico.log.3.gz": "-200 days",
    }
    stays = {
        "cache/abstract_books/2.pdf": "-2 hours",
        "tmp/IndicoYoung": "-2 hours",
        "tmp/something": "-90 days",
        "tmp/egg-cache/IndicoLibrary.tmp": "-900 days",
        "log/indico/scheduler.log.2026-01-01": "-20 days",
        "log/indico/old.log": "-900 days",
    }
    as_service(site, f"mkdir -p {site.prefix}/cache/abstract_books")
    for name, age in {**old, **stays}.items():
        as_service(site, f'echo "{name}" > {site.prefix}/{name}; touch -d "{age}" {site.prefix}/{name}')
    links = [f"{site.prefix}/tmp/IndicoLink.tmp", f"{site.prefix}/cache/link"]
    for link in links:
        as_service(site, f"ln -sfn /etc/passwd {link}; touch -h -d -9days {link}")

    before = listing(site)
    predicted = site.play("--check", playbook=PLAYBOOK, report_file=str(report))
    foretold = numbers(predicted, report)
    assert listing(site) == before
    assert predicted.changed.keys() == {"Clean up", "Report | Write it to a file on the controller"}
    assert f"{site.prefix}/tmp/IndicoOld" in predicted.diff()

    done = site.play(playbook=PLAYBOOK, report_file=str(report))
    found = numbers(done, report)
    # Entries of the cache end in between, by their own clock.
    assert {**found, "cache": None} == {**foretold, "cache": None}
    assert found["cache"]["files"] >= foretold["cache"]["files"] >= 2
    gone = before - listing(site)
    assert {f"{site.prefix}/{name} f" for name in old} | {f"{ended} f"} <= gone
    assert len([path for path in gone if path.endswith(" f")]) == sum(one["files"] for one in found.values())
    assert (found["tmp"]["files"], found["logs"]["files"]) == (2, 2)
    assert found["sessions"]["files"] >= 1 and found["sessions"]["kept"]["live"] >= 2
    assert {f"{site.prefix}/{name} f" for name in stays} | {f"{mine} f"} | {f"{link} l" for link in links} <= listing(site)

    for browser in (member, other):
        assert "Logout" in browser.get("/").text
    assert "Logout" not in forgotten.get("/").text

    again = site.play(playbook=PLAYBOOK)
    assert again.returncode == 0, again.output
    assert again.changed == {}
    assert site.play("--tags", "indico,zeo").changed == {}, "a role's directory is gone, or is not as it was"
    site.run(" ".join(["rm", *links, *(f"{site.prefix}/{name}" for name in stays)]))


def test_only_what_was_asked_for(site: Site) -> None:
    as_service(site, f"touch -d -2days {site.prefix}/tmp/IndicoOld {site.prefix}/cache/old")
    run = site.play(playbook=PLAYBOOK, what="cache,sessions")
    assert run.returncode == 0, run.output
    assert site.run(f"cd {site.prefix} && ls -d cache/old tmp/IndicoOld 2>&1 || :").splitlines()[-1] == "tmp/IndicoOld"
    assert site.play("--check", playbook=PLAYBOOK, what="tmp", min_age_hours=72).changed == {}
    assert site.play(playbook=PLAYBOOK, what=["tmp"]).changed.keys() == {"Clean up"}
    wrong = site.play(playbook=PLAYBOOK, what="everything")
    assert wrong.returncode != 0
    assert "what is 'everything'; it must be a list of cache, tmp, sessions, logs, replaced, or a text with commas between them." in "".join(wrong.failures)
