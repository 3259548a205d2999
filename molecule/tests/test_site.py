"""What every site must do, asked over HTTP."""

from __future__ import annotations

import re

from tests.lib.browser import Browser
from tests.lib.site import Site


def event_called(browser: Browser, category: int, title: str) -> str:
    """Return the path of the first event with this title in a category."""
    page = browser.get(f"/category/{category}/overview?period=week").text + browser.get(f"/category/{category}/").text
    for path in sorted(set(re.findall(r"/event/\d+/", page))):
        if browser.title(path).startswith(title):
            return path
    raise AssertionError(f"category {category} shows no event called {title}")


def test_what_indico_counts_with_is_the_fast_one(site: Site) -> None:
    """O20: ujson was built and could not be loaded, and Indico went on without it."""
    assert site.run(f"{site.prefix}/current/bin/python -c 'import ujson; print(ujson.dumps([1]))'") == "[1]"


def test_home_page_lists_the_categories(visitor: Browser) -> None:
    home = visitor.get("/").text
    assert all(name in home for name in ("Seminars", "Workshops", "Conferences"))


def test_event_page_shows_its_title_and_programme(visitor: Browser) -> None:
    path = event_called(visitor, 2, "Événements & données")
    page = visitor.get(path).text
    assert re.search("Talk 3 of Événements (&|&amp;) données", page)
    assert re.search(r"Dana</span>\s*<span[^>]*>Dvořák", page)


def test_title_in_another_script(visitor: Browser) -> None:
    assert event_called(visitor, 3, "加速器 Asia-Pacific accelerators")


def test_everything_that_a_page_links_to_loads(visitor: Browser) -> None:
    """Style sheets, scripts and images come by X-Sendfile from several directories."""
    page = visitor.get(event_called(visitor, 2, "Accelerator controls")).text
    paths = set(re.findall(r'(?:src|href)="((?:https?://[^"/]+)?/[^"]+\.(?:css|js|png|gif|ico)[^"]*)"', page))
    own = sorted(path for path in paths if path.startswith(("/", visitor.public_url)))
    assert len(own) > 20
    answers = {path: visitor.get(path) for path in own}
    assert [path for path, answer in answers.items() if answer.status_code != 200 or not answer.content] == []


def test_stored_file_comes_with_its_bytes(site: Site, visitor: Browser) -> None:
    page = visitor.get(event_called(visitor, 2, "Open software for conferences")).text
    path = next(link for link in re.findall(r'href="([^"]+/material/[^"]+)"', page) if "talk" in visitor.get(link).headers.get("Content-Disposition", ""))
    answer = visitor.get(path)
    assert answer.headers["Content-Type"] == "application/pdf"
    assert answer.content.startswith(b"%PDF-1.4") and b"(Talk " in answer.content
    assert "X-Sendfile" not in answer.headers, "the web server handed on the header instead of the file"
    stored = site.run(f"find {site.prefix}/archive -name 'talk-1.pdf' -printf '%u:%g %m\\n' | sort -u")
    assert stored.startswith(f"{site.user}:www-data ")


def test_login(site: Site) -> None:
    assert site.browser().log_in("admin", "not the password") == "Wrong login or password"
    browser = site.browser()
    assert browser.log_in("admin", site.password("admin")) == "in"
    assert "Server administration" in browser.get("/").text or "/admin/" in browser.get("/").text


def test_administration_is_closed_to_visitors_and_members(visitor: Browser, member: Browser) -> None:
    for browser in (visitor, member):
        page = browser.get("/admin/")
        assert "Administrator list" not in page.text and "general settings" not in page.text.lower()


def test_event_written_by_one_worker_is_read_by_the_others(site: Site, member: Browser, visitor: Browser) -> None:
    """Whichever worker wrote it: each of them is killed once, so every later answer comes from one that did not."""
    title = "Written once «é»"
    event = member.create_meeting(title, category="2")
    workers = site.workers()
    assert len(workers) == int(site.variables.get("web_processes", 2))
    for worker in workers:
        site.run(f"kill -9 {worker}")
        visitor.wait(f"/event/{event}/")
        assert visitor.title(f"/event/{event}/").startswith(title)
    assert not set(workers) & set(site.workers())


def test_session_outlives_the_worker_that_opened_it(site: Site, member: Browser) -> None:
    """It is kept in the cache that all workers share."""
    for worker in site.workers():
        site.run(f"kill -9 {worker}")
    member.wait("/")
    assert "Logout" in member.get("/").text


def test_head_answers_as_get_does(visitor: Browser) -> None:
    """Load balancers ask so."""
    answer = visitor.session.head(visitor.base_url + "/", headers=dict(visitor.session.headers), timeout=60)
    assert (answer.status_code, answer.content) == (200, b"")
