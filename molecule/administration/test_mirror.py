"""Events of the site as a static mirror: complete, opened in a browser without a network, and no more than a visitor may see."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator
from datetime import datetime
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.lib import chromium
from tests.lib.playbook import Run
from tests.lib.site import Site

PLAYBOOK = "playbooks/offline_mirror.yml"
WRITE = "Read the site and write the mirror"
TARGET = "/srv/mirror"
MEETING, CONFERENCE = "16", "32"  # the first of each kind in the sample content; both are on one day, with the lecture 0


def mirror(site: Site, *arguments: str, **extra: object) -> Run:
    return site.play(*arguments, playbook=PLAYBOOK, **{"target": TARGET, **extra})


def refused(run: Run, sentence: str) -> None:
    assert run.returncode != 0
    assert any(sentence in failure for failure in run.failures), run.failures


def inside(site: Site, code: str) -> str:
    """Run Python 2.7 inside Indico, as the service user, in one transaction, and return what it prints."""
    script = f"# coding: utf-8\nfrom indico.core.db import DBMgr\nDBMgr.getInstance().startRequest()\n{code}\nDBMgr.getInstance().endRequest(True)\n"
    return site.run(f"runuser -u {site.user} -- {site.prefix}/current/bin/python -W ignore - <<'END'\n{script}\nEND")


def protect(site: Site, of_event: str, value: int) -> None:
    inside(site, f"from MaKaC.conference import ConferenceHolder\nConferenceHolder().getById('{MEETING}'){of_event}.setProtection({value})")


def state(site: Site) -> str:
    """Return what identifies the mirror and everything in it, and what lies beside it."""
    return site.run(f"ls -A /srv; find {TARGET} -printf '%i %p %s %T@\\n' | sort") + contents(site)


def contents(site: Site) -> str:
    return site.run(f"cd {TARGET} && find . -type f -print0 | sort -z | xargs -0 sha256sum")


def archived(site: Site, event: str) -> dict[str, list[str]]:
    """Return the stored files of an event in the archive, without its minutes: SHA-256 by name."""
    found: dict[str, list[str]] = {}
    for line in site.run(f"find {site.prefix}/archive -type f -path '*/C{event}/*' ! -name minutes.txt -exec sha256sum {{}} +").splitlines():
        digest, path = line.split(maxsplit=1)
        found.setdefault(Path(path).name, []).append(digest)
    return found


def follow(page: Path, text: str) -> Path:
    """Return the file that a link of the page leads to in the browser: the first whose content, without tags, is text."""
    for target, content in re.findall(r'<a\b[^>]*\bhref="([^"]*)"[^>]*>(.*?)</a>', chromium.dom(page.as_uri()), re.DOTALL):
        if unescape(re.sub(r"<[^>]*>", "", content)).strip() == text:
            parts = urlsplit(unescape(target))
            assert (parts.scheme, parts.netloc) == ("", "")
            found = page.parent / unquote(parts.path)
            assert found.is_file(), found
            return found.resolve()
    raise AssertionError(f"{page} has no link {text}")


@pytest.fixture(scope="module")
def day(site: Site) -> str:
    written = re.search(r"\((\d+ \w+ \d+)\)", site.browser().title(f"/event/{MEETING}/"))
    assert written
    return datetime.strptime(written[1], "%d %B %Y").date().isoformat()


def unpack(archive: Path) -> None:
    """As people do it, beside the archive."""
    subprocess.run(["tar", "--extract", "--file", archive.name], cwd=archive.parent, check=True)


@pytest.fixture(scope="module")
def made(site: Site, day: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, Path]]:
    """Mirror the day. Return the run and where its fetched mirror was unpacked."""
    place = tmp_path_factory.mktemp("fetched")
    site.run(f"rm -rf {TARGET}")
    run = mirror(site, day=day, fetch=str(place))
    assert run.returncode == 0, run.output
    unpack(place / f"{site.name}-mirror.tar")
    yield run, place / "mirror"
    site.run(f"rm -rf {TARGET}")


def test_a_day_is_mirrored_with_all_its_files(site: Site, made: tuple[Run, Path], day: str) -> None:
    run, place = made
    (result,) = run.changed[WRITE]
    assert [event["id"] for event in result["events"]] == ["0", MEETING, CONFERENCE]
    assert all(event["start"] == f"{day} 09:00" for event in result["events"])
    assert (result["broken"], result["left_out"], result["elsewhere"]) == ([], [], [])
    files = [path for path in place.rglob("*") if path.is_file()]
    assert (result["files"], result["bytes"]) == (len(files), sum(path.stat().st_size for path in files))
    for event in result["events"]:
        own = [path for path in (place / "event" / event["id"]).rglob("*") if path.is_file()]
        assert (event["files"], event["bytes"]) == (len(own), sum(path.stat().st_size for path in own))
        stored: dict[str, list[str]] = {}
        for path in (place / "event" / event["id"] / "files").rglob("*.*"):
            stored.setdefault(path.name, []).append(hashlib.sha256(path.read_bytes()).hexdigest())
        assert stored == archived(site, event["id"])
        assert "résumé.txt" in stored
    assert len(archived(site, MEETING)) == 5
    modes = site.run(f"find {TARGET} -printf '%U %m %y\\n' | sort -u").splitlines()
    assert modes == ["0 644 f", "0 755 d"]


def test_the_browser_follows_the_links_without_a_network(site: Site, made: tuple[Run, Path]) -> None:
    _run, place = made
    meeting = follow(place / "index.html", "Événements & données")
    assert meeting == place / f"event/{MEETING}/index.html"
    assert "Chloé" in chromium.dom(meeting.as_uri())

    talk = follow(follow(meeting, "Contents"), "Talk 1 of Événements & données")
    slides = follow(talk, "talk-1.pdf")
    assert hashlib.sha256(slides.read_bytes()).hexdigest() in archived(site, MEETING)["talk-1.pdf"]
    document = follow(meeting, "Documents")
    assert document.name == "résumé.txt"
    assert "Summary of Événements &amp; données" in chromium.dom(document.as_uri())
    assert "Minutes of Événements" in chromium.dom(follow(meeting, "Minutes").as_uri())

    conference = follow(place / "index.html", "Physics of the next collider")
    timetable = follow(conference, "Timetable")
    assert "Talk 4 of Physics of the next collider" in chromium.dom(timetable.as_uri())
    assert follow(follow(conference, "Author List"), "BÜHLER, Bruno").name == "session-0-contribution-0-author-0.html"
    assert follow(follow(conference, "Contribution List"), "Talk 2 of Physics of the next collider").name == "session-0-contribution-1.html"


def test_everything_that_a_page_loads_lies_on_disk(made: tuple[Run, Path]) -> None:
    _run, place = made
    look = """{
        color: getComputedStyle(document.querySelector('.meetingEventHeader')).backgroundColor,
        sheets: [...document.querySelectorAll('link[rel=stylesheet]')].map(link => link.sheet !== null),
        pictures: [...document.images].map(image => image.naturalWidth),
        asked: performance.getEntriesByType('resource').map(entry => entry.name),
        scripts: document.scripts.length,
    }"""
    seen = chromium.measure(place / f"event/{MEETING}/index.html", look)
    assert seen["color"] == "rgb(26, 100, 160)"
    assert len(seen["sheets"]) >= 5 and all(seen["sheets"])
    assert len(seen["pictures"]) > 5 and all(seen["pictures"])
    assert seen["asked"] == []  # the browser lists what it asks a network for, and not what it reads from disk
    assert seen["scripts"] == 1  # the one that looks
    other = place.parent / "other.html"
    other.write_text('<html><head></head><body><img src="https://example.org/x.png"></body></html>')
    assert chromium.measure(other, "performance.getEntriesByType('resource').map(entry => entry.name)") == ["https://example.org/x.png"]


RICH = """
import os, tempfile
from indico.core.config import Config
from indico.web.flask.app import make_app
from MaKaC.conference import ConferenceHolder, Link, LocalFile, Material
with make_app().test_request_context('/'):
    event = ConferenceHolder().getById('20')
    many = Material()
    many.setTitle('Many')
    event.addMaterial(many)
    for name, data in (('Größe #1 100%.txt', 'one'), ('a' * 200 + '.txt', 'two'), ('own.html', '<img src="https://example.org/x.png">')):
        path = os.path.join(tempfile.mkdtemp(dir=Config.getInstance().getUploadedFilesTempDir()), 'file')
        open(path, 'wb').write(data)
        stored = LocalFile()
        stored.setFileName(name)
        stored.setName(name)
        stored.setFilePath(path)
        many.addResource(stored)
    film = Link()
    film.setURL('https://video.example.org/film?a=1&b=2')
    film.setName('film')
    many.addResource(film)
    part = event.getContributionById('0').newSubContribution()
    part.setTitle('Part of a talk')
    event.setDescription('<a href="/event/20/contribution/99">dead</a> <a href="/event/16/">other</a> <img src="https://example.org/y.png" alt="why">')
"""
PLAIN = """
from MaKaC.conference import ConferenceHolder
from indico.web.flask.app import make_app
with make_app().test_request_context('/'):
    event = ConferenceHolder().getById('20')
    for material in event.getMaterialList():
        if material.getTitle() == 'Many':
            event.removeMaterial(material)
    talk = event.getContributionById('0')
    for part in talk.getSubContributionList():
        talk.removeSubContribution(part)
    event.setDescription('<p>A sample event.</p>')
"""


def test_what_people_write_and_store_is_mirrored_as_it_is(site: Site, made: tuple[Run, Path], tmp_path: Path) -> None:
    inside(site, RICH)
    try:
        run = mirror(site, events=["20"], target="/srv/rich", fetch=str(tmp_path))
    finally:
        inside(site, PLAIN)
        site.run("rm -rf /srv/rich")
    assert run.returncode == 0, run.output
    # Indico answers 200 for a talk that does not exist; its words about that are no page of a mirror.
    (elsewhere,) = run.changed[WRITE][0]["elsewhere"]
    assert (elsewhere["url"].endswith("/event/20/contribution/99"), elsewhere["why"]) == (True, "the site answered with an error's page")
    unpack(tmp_path / f"{site.name}-rich.tar")

    page = tmp_path / "rich/event/20/index.html"
    text = chromium.dom(page.as_uri())
    for link in ("/event/20/contribution/99", "/event/16/"):
        assert re.search(rf'<a href="https?://[^"]+{link}">', text), text
    assert '<img alt="why">' in text
    assert '<a href="https://video.example.org/film?a=1&amp;b=2"' in text
    material = follow(page, "Many")
    assert chromium.dom(follow(material, "Größe #1 100%.txt").as_uri()).count("one") == 1
    (long,) = (tmp_path / "rich").rglob("aaaa*.txt")
    assert long.read_bytes() == b"two" and len(long.name) <= 120
    assert follow(material, "own.html").read_bytes() == b'<img src="https://example.org/x.png">'
    assert follow(follow(page, "Contents"), "Part of a talk").name.startswith("session-0-contribution-0-")


def test_a_second_run_changes_nothing(site: Site, made: tuple[Run, Path], day: str) -> None:
    _run, place = made
    before = state(site)
    again = mirror(site, day=day, fetch=str(place.parent))
    assert again.returncode == 0, again.output
    assert again.changed == {}
    assert state(site) == before


def test_check_mode_says_which_events_and_writes_nothing(site: Site, made: tuple[Run, Path], day: str) -> None:
    before = state(site)
    run = mirror(site, "--check", events=[CONFERENCE])
    assert run.returncode == 0, run.output
    (result,) = run.changed[WRITE]
    assert result["events"] == [{"id": CONFERENCE, "title": "Physics of the next collider", "start": f"{day} 09:00"}]
    assert mirror(site, "--check", day=day).changed == {}
    assert mirror(site, "--check", events=[CONFERENCE], target="/srv/new").changed[WRITE][0]["line"].startswith("would be mirrored in /srv/new: 32 Physics")
    assert state(site) == before


def test_a_killed_run_leaves_the_old_mirror_and_the_next_one_writes_the_new(site: Site, made: tuple[Run, Path]) -> None:
    before = contents(site)
    # The process that holds the directory of the target dies while it reads the site.
    die = "for one in /proc/[0-9]*; do readlink $one/fd/* 2>/dev/null | grep -qx /srv && kill -KILL ${one#/proc/} && exit; done"
    site.run(f"(for i in $(seq 600); do [ -e /srv/.mirror.confops-new/static ] && {die}; sleep 0.1; done) >/dev/null 2>&1 &")
    assert mirror(site, events=["33"]).returncode != 0
    assert site.run("ls -A /srv").split() == [".mirror.confops-new", "mirror"]
    assert contents(site) == before

    site.run("ln -s /etc /srv/.mirror.confops-new/link")
    run = mirror(site, events=["33"])
    assert run.returncode == 0, run.output
    assert [event["title"] for event in run.changed[WRITE][0]["events"]] == ["加速器 Asia-Pacific accelerators"]
    assert site.run("ls -A /srv; ls /srv/mirror/event").split() == ["mirror", "33"]
    assert site.run("test -s /etc/passwd && echo there") == "there"


def test_a_broken_link_is_refused_and_the_old_mirror_stays(site: Site, made: tuple[Run, Path]) -> None:
    before = state(site)
    stored = site.run(f"find {site.prefix}/archive -path '*/C{MEETING}/*' -name talk-2.pdf")
    site.run(f"mv {stored} {stored}.away")
    try:
        run = mirror(site, events=[MEETING])
    finally:
        site.run(f"mv {stored}.away {stored}")
    refused(run, f"so {TARGET} is as it was.")
    refused(run, f"/event/{MEETING}/session/0/contribution/1/material/0/0.pdf: the site answered ")
    assert state(site) == before


def test_a_file_that_is_not_whole_is_refused(site: Site, made: tuple[Run, Path]) -> None:
    """The database tells the archive's size while the site gives other bytes: here of a file that grows meanwhile."""
    before = state(site)
    stored = site.run(f"find {site.prefix}/archive -path '*/C{MEETING}/*' -name talk-2.pdf")
    site.run(f"cp -p {stored} /root/talk-2.pdf")
    site.run(f"(while [ -e /root/talk-2.pdf ]; do [ -e /srv/.mirror.confops-new ] && echo more >>{stored} && exit; sleep 0.02; done) >/dev/null 2>&1 &")
    try:
        run = mirror(site, events=[MEETING])
    finally:
        site.run(f"cat /root/talk-2.pdf >{stored}; rm /root/talk-2.pdf")
    refused(run, "the site gave 361 bytes, the archive has 356")
    assert state(site) == before


def test_an_unknown_event_is_refused(site: Site, made: tuple[Run, Path]) -> None:
    before = state(site)
    refused(mirror(site, events=[MEETING, "4711"]), "There is no event 4711 in this Indico.")
    refused(mirror(site, events=["default"]), "There is no event default in this Indico.")
    refused(mirror(site, day="28.5.2013"), "28.5.2013 is no day; write it as 2013-05-28.")
    refused(mirror(site), "Say which events")
    assert state(site) == before


def test_what_is_no_mirror_is_left_alone(site: Site) -> None:
    site.run("install -d /srv/other /srv/open -m 755 && touch /srv/other/file && chmod 777 /srv/open && ln -s /etc /srv/link && mkdir /srv/empty")
    before = site.run("find /srv/other /srv/open /srv/link /srv/empty -printf '%p %i %T@\\n'")
    refused(mirror(site, events=[MEETING], target="/srv/other"), "/srv/other exists and is no mirror (it has no .confops-mirror.json of ours)")
    refused(mirror(site, events=[MEETING], target="/srv/empty"), "/srv/empty exists and is no mirror")
    refused(mirror(site, events=[MEETING], target="/srv/link"), "/srv/link exists and is no directory of ours")
    refused(mirror(site, events=[MEETING], target="/srv/open/mirror"), "Others may write in /srv/open")
    refused(mirror(site, events=[MEETING], target="/srv/none/mirror"), "The directory /srv/none, where the mirror mirror shall be, does not exist")
    refused(mirror(site, events=[MEETING], target="/"), "/ is no place for a mirror")
    assert site.run("find /srv/other /srv/open /srv/link /srv/empty -printf '%p %i %T@\\n'") == before
    site.run("rm -r /srv/other /srv/open /srv/link /srv/empty")


def test_what_a_visitor_may_not_see_is_in_no_mirror(site: Site, made: tuple[Run, Path], day: str) -> None:
    before = state(site)
    protect(site, "", 1)
    try:
        refused(mirror(site, events=[MEETING]), f"Protected: event {MEETING} (Événements & données); a mirror holds only what a visitor may see.")
        refused(mirror(site, events=[MEETING], protected=True), "to mirror it, give 127.0.0.1 full access")
        assert state(site) == before

        run = mirror(site, day=day)
        assert run.returncode == 0, run.output
        (result,) = run.changed[WRITE]
        assert [event["id"] for event in result["events"]] == ["0", CONFERENCE]
        assert result["left_out"] == [{"id": MEETING, "title": "Événements & données"}]
        assert "left out, since it is protected: " in run.output
        assert site.run(f"grep -rl 'Talk 1 of Événements' {TARGET} || :") == ""
    finally:
        protect(site, "", 0)


def test_a_protected_talk_of_a_public_event_is_left_out(site: Site, made: tuple[Run, Path]) -> None:
    protect(site, ".getContributionById('2')", 1)
    try:
        run = mirror(site, events=[MEETING])
    finally:
        protect(site, ".getContributionById('2')", 0)
    assert run.returncode == 0, run.output
    assert site.run(f"find {TARGET} -name 'talk-*.pdf' -printf '%f\\n' | sort").split() == ["talk-1.pdf", "talk-2.pdf", "talk-4.pdf"]
    assert site.run(f"find {TARGET} -name 'session-0-contribution-2*'") == ""


def test_a_host_that_sees_protected_events_mirrors_them_only_when_told(site: Site, made: tuple[Run, Path]) -> None:
    access = "from MaKaC.common.info import HelperMaKaCInfo\nHelperMaKaCInfo.getMaKaCInfoInstance().getIPBasedACLMgr().{}_full_access('127.0.0.1')"
    protect(site, "", 1)
    inside(site, access.format("grant"))
    try:
        refused(mirror(site, events=[MEETING]), "Indico shows protected events to 127.0.0.1")
        run = mirror(site, events=[MEETING], protected=True)
    finally:
        inside(site, access.format("revoke"))
        protect(site, "", 0)
    assert run.returncode == 0, run.output
    assert site.run(f"find {TARGET} -name talk-1.pdf") != ""
    assert site.run(f"stat --format '%U %a' {TARGET}") == "root 700"


def test_the_job_mirrors_what_was_in_the_last_days(site: Site) -> None:
    """Of one category; a target that cannot be is a failure, and without a target there is no job."""
    target = "/srv/nightly/mirror"
    run = site.play("--tags", "cron", cron_mirror_target=target, cron_mirror_days=40, cron_mirror_categories=["1"], cron_schedule_jitter="0")
    assert run.returncode == 0, run.output
    assert re.search("indico-mirror .* never ran .*T04:00:00Z  timer", site.run("/opt/indico/bin/indico-jobs status"))

    failed = site.shell().run("systemctl start indico-mirror")
    assert failed.rc != 0
    sentence = "The directory /srv/nightly, where the mirror mirror shall be, does not exist; make it first."
    assert sentence in site.run("journalctl --sync; journalctl --unit indico-mirror --output cat --no-pager")
    assert "indico-mirror failed: exit code 1" in site.shell().run("/opt/indico/bin/indico-jobs status").stderr

    site.run("mkdir /srv/nightly")
    assert "4 events, " in site.run_job("indico-mirror.service")
    assert re.search("indico-mirror .* success ", site.run("/opt/indico/bin/indico-jobs status"))
    assert sorted(site.run(f"ls {target}/event").split(), key=int) == ["8", "9", "10", "11"]
    assert "What a database learns from a detector" in site.run(f"cat {target}/index.html")

    run = site.play("--tags", "cron")
    assert run.returncode == 0, run.output
    assert site.shell().run("systemctl cat indico-mirror").rc != 0
    assert site.shell().file(f"{target}/index.html").exists
    site.run("rm -r /srv/nightly")
