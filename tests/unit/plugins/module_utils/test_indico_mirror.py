"""The mirror's names, links, reading of a small site, and its directory."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _indico_mirror, _links
from ansible_collections.confops.indico.plugins.module_utils._indico_mirror import Crawl, MirrorError, Visitor, relative, safe_name

PUBLIC = "https://indico.example.org/conf"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("talk-1.pdf", "talk-1.pdf"),
        ("résumé 加速器.txt", "résumé 加速器.txt"),
        ("re\u0301sume\u0301.txt", "résumé.txt"),
        ("../../etc/passwd", "__._etc_passwd"),
        ("a..b...pdf", "a.b.pdf"),
        ("..", "_"),
        (".", "_"),
        ("", "_"),
        (".htaccess", "_htaccess"),
        ("/etc/passwd", "_etc_passwd"),
        ('a\\b:c*d?e<f>g|h"i', "a_b_c_d_e_f_g_h_i"),
        ("a\nb\x00c\u202ed.txt", "a_b_c_d.txt"),
        ("end. ", "end_"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("console.txt", "console.txt"),
        ("\udcff.txt", "_.txt"),
    ],
)
def test_a_name_is_safe_anywhere(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_a_long_name_keeps_its_ending_and_stays_itself() -> None:
    names = ["é" * 200 + letter + ".pdf" for letter in "ab"]
    safe = [safe_name(name) for name in names]
    assert all(len(name.encode()) <= 120 and name.endswith(".pdf") and name.startswith("éé") for name in safe)
    assert safe[0] != safe[1]
    assert len(safe_name("x" * 300 + "." + "y" * 300).encode()) <= 120


def test_a_relative_link_is_quoted() -> None:
    assert relative("event/1/files/0/résumé #1?.txt", "event/1/index.html") == "files/0/r%C3%A9sum%C3%A9%20%231%3F.txt"
    assert relative("index.html", "event/1/index.html") == "../../index.html"
    assert relative("static/a.css", "index.html") == "static/a.css"


def event(key: str, **more: Any) -> dict[str, Any]:
    times = {"start": "2013-05-28 09:00", "end": "2013-05-28 18:00", "moment": "2013-05-28 07:00", "timezone": "Europe/Zurich", "visible": True}
    return {"id": key, "title": f"Event <{key}>", **times, "pages": [], "files": [], "links": [], **more}


def file(path: str, name: str, size: int | None) -> dict[str, Any]:
    return {"url": f"{PUBLIC}/{path}", "name": name, "title": "Talk", "size": size}


@pytest.fixture
def crawl(tmp_path: Path) -> Crawl:
    """Two events whose pages are known to be at their places, as after reading."""
    files = [file("event/1/material/0/0.txt", "résumé.txt", 3)]
    links = [{"url": f"{PUBLIC}/event/1/material/1/0", "to": "https://elsewhere.example/film"}]
    known = Crawl(Visitor("http://127.0.0.1:1/", PUBLIC), PUBLIC, [event("1", files=files, links=links), event("2")], str(tmp_path))
    known.places = {
        "event/1/": "event/1/index.html",
        "event/2/": "event/2/index.html",
        "event/1/timetable/": "event/1/timetable.html",
        "event/1/session/0/": "event/1/session-0.html",
        "event/1/material/0/": "event/1/material/0/0.txt\0",
        "event/1/material/0/0.txt": "event/1/files/0-0/résumé.txt",
        "images/a.png": "static/images/a.png",
        "event/1/contribution/9": None,
    }
    return known


@pytest.mark.parametrize(
    ("kind", "value", "changed"),
    [
        (_links.LINK, f"{PUBLIC}/event/1/", "index.html"),
        (_links.LINK, "/conf/event/1/", "index.html"),
        (_links.LINK, "/conf/event/1", "index.html"),
        (_links.LINK, "/conf/event/1/?view=text#day", "index.html#day"),
        (_links.LINK, "../event/2/", f"{PUBLIC}/event/event/2/"),
        (_links.LINK, "../2/", "../2/index.html"),
        (_links.LINK, "timetable/?showDate=all", "timetable.html"),
        (_links.LINK, "other-view?view=standard&fr=no", "timetable.html"),
        (_links.LINK, "session/0/", "session-0.html"),
        (_links.LINK, "material/0/", "files/0-0/r%C3%A9sum%C3%A9.txt"),
        (_links.LINK, "material/0/0.txt", "files/0-0/r%C3%A9sum%C3%A9.txt"),
        (_links.LINK, "material/0/1.txt", f"{PUBLIC}/event/1/material/0/1.txt"),
        (_links.LINK, "material/1/0", "https://elsewhere.example/film"),
        (_links.LINK, "contribution/9", f"{PUBLIC}/event/1/contribution/9"),
        (_links.LINK, "manage/", f"{PUBLIC}/event/1/manage/"),
        (_links.LINK, "contribution/0.pdf", f"{PUBLIC}/event/1/contribution/0.pdf"),
        (_links.LINK, "/conf/event/3/", f"{PUBLIC}/event/3/"),
        (_links.LINK, "/conf/category/0/", f"{PUBLIC}/category/0/"),
        (_links.LINK, "/other/event/1/", "https://indico.example.org/other/event/1/"),
        (_links.LINK, "/conf/../event/1/", "https://indico.example.org/event/1/"),
        (_links.LINK, "//evil.example/conf/event/1/", "https://evil.example/conf/event/1/"),
        (_links.LINK, "http://elsewhere.example/?a=1&b=2#c", "http://elsewhere.example/?a=1&b=2#c"),
        (_links.LINK, "mailto:a@example.org", "mailto:a@example.org"),
        (_links.LINK, "#here", "#here"),
        (_links.LINK, "javascript:alert(1)", None),
        (_links.LINK, "file:///etc/passwd", None),
        (_links.LINK, "http://[x/", None),
        (_links.EMBEDDED, "/conf/images/a.png?123", "../../static/images/a.png"),
        (_links.EMBEDDED, "/conf/images/none.png", None),
        (_links.EMBEDDED, "https://elsewhere.example/a.png", None),
        (_links.EMBEDDED, "/conf/event/3/picture/0.png", None),
        (_links.EMBEDDED, "data:image/gif;base64,R0", "data:image/gif;base64,R0"),
    ],
)
def test_a_link_becomes_relative_or_leads_to_the_site(crawl: Crawl, kind: str, value: str, changed: str | None) -> None:
    assert crawl.change("event/1/index.html", "event/1/", kind, value) == changed


# A small site behind a path of its own: what it answers by path.
PAGES: dict[str, tuple[int, str, bytes | str]] = {
    "event/1/": (
        200,
        "text/html; charset=utf-8",
        '<html><head><link rel="stylesheet" href="/conf/css/a.css?1"><script src="/conf/x.js"></script></head><body><img src="/conf/images/none.png" alt="n">'
        '<a href="/conf/event/1/timetable/">t</a><a href="/conf/event/1/material/0/">m</a><a href="contribution/7">7</a><a href="contribution/8">8</a>'
        '<a href="contribution/9">9</a>'
        '<a href="/conf/event/2/">2</a><img src="https://elsewhere.example/x.png"><img src="/conf/event/1/logo"></body></html>',
    ),
    "event/1/other-view?view=standard&fr=no": (200, "text/html", "<p>Static timetable <a href='/conf/event/1/contribution/1'>1</a>"),
    "event/1/contribution/1": (200, "text/html", "<h1>Talk</h1>"),
    "event/1/contribution/7": (404, "text/html", "none"),
    "event/1/contribution/9": (200, "text/html", '<head><title>Indico</title></head><div class="wrapper">Sorry</div>'),
    "event/1/contribution/8": (302, f"{PUBLIC}/event/1/user/login", ""),
    "event/1/material/0/": (303, f"{PUBLIC}/event/1/material/0/0.html", ""),
    "event/1/material/0/0.html": (200, "text/html", b"<a href='nowhere'>\xff"),
    "event/1/logo": (200, "image/png", b"\x89PNG"),
    "css/a.css": (200, "text/css", "a { b: url('../images/b.png') } c { d: url(../images/none.png) }"),
    "images/b.png": (200, "image/png", b"\x89PNG"),
}
ERROR = '<html><head><title>Indico</title></head><body><div class="wrapper">Sorry</div></body></html>'
FILES = [file("event/1/material/0/0.html", "../own é.html", 19)]


class Site(http.server.BaseHTTPRequestHandler):
    pages = PAGES

    def do_GET(self) -> None:
        assert self.headers["Host"] == "indico.example.org" and self.headers["X-Forwarded-Proto"] == "https"
        status, kind, body = self.pages.get(self.path[len("/conf/") :], (404, "text/html", "none"))
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        self.send_header("Location" if 300 <= status < 400 else "Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *_arguments: object) -> None:
        pass


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, str, bytes | str]]:
    """Return the site's pages, to change."""
    copy = dict(PAGES)
    monkeypatch.setattr(Site, "pages", copy)
    monkeypatch.setattr(_indico_mirror.time, "sleep", lambda _seconds: None)
    return copy


@pytest.fixture
def visitor(pages: dict[str, Any]) -> Iterator[Visitor]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Visitor(f"http://127.0.0.1:{server.server_port}/conf/", PUBLIC, 10)
    server.shutdown()
    server.server_close()


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a place for a mirror. The directories above it belong to whoever runs the tests, in a place where others may write too."""
    real = os.stat

    def trusted(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        found = real(path, *arguments, **options)
        return os.stat_result((found.st_mode & ~0o022, *found[1:4], os.geteuid(), *found[5:])) if str(path) in map(str, tmp_path.parents) else found

    monkeypatch.setattr(_indico_mirror.os, "stat", trusted)
    (tmp_path / "site").mkdir()
    return str(tmp_path / "site" / "mirror")


def found(**more: Any) -> dict[str, Any]:
    return {"events": [event("1", files=FILES, pages=[{"url": f"{PUBLIC}/event/1/contribution/1", "title": "Talk"}], **more)], "left_out": []}


def beside(target: str) -> list[str]:
    """Return what lies in the directory of the target."""
    return [path.name for path in Path(target).parent.iterdir()]


def tree(root: str) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(Path(root).rglob("*")) if path.is_file()}


def test_a_site_becomes_a_mirror(visitor: Visitor, target: str) -> None:
    result = _indico_mirror.write(target, found(), visitor, PUBLIC)
    mirror = tree(target)
    assert list(mirror) == [
        ".confops-mirror.json",
        "event/1/contents.html",
        "event/1/contribution-1.html",
        "event/1/files/0-0/__own é.html",
        "event/1/index.html",
        "event/1/logo.png",
        "event/1/timetable.html",
        "index.html",
        "static/css/a.css",
        "static/images/b.png",
        "static/mirror.css",
    ]
    page = mirror["event/1/index.html"].decode()
    for text in (
        'href="../../static/css/a.css"', '<img alt="n">', '<a href="timetable.html">', '<a href="files/0-0/__own%20%C3%A9.html">m</a>', '<img src="logo.png">',
        f'<a href="{PUBLIC}/event/1/contribution/7">', f'<a href="{PUBLIC}/event/1/contribution/8">', f'<a href="{PUBLIC}/event/2/">', "<img><img",
        "Content-Security-Policy",
    ):  # fmt: skip
        assert text in page, page
    assert "<script" not in page
    assert mirror["static/css/a.css"] == b"a { b: url('../images/b.png') } c { d: url(\"data:,\") }"
    assert mirror["event/1/files/0-0/__own é.html"] == PAGES["event/1/material/0/0.html"][2]
    assert "Event &lt;1&gt;" in mirror["index.html"].decode()
    assert "contribution-1.html" in mirror["event/1/contents.html"].decode()
    assert json.loads(mirror[".confops-mirror.json"])["events"] == ["1"]
    assert result["elsewhere"] == [
        {"url": f"{PUBLIC}/event/1/contribution/7", "why": "the site answered 404"},
        {"url": f"{PUBLIC}/event/1/contribution/8", "why": "the site answered 302"},
        {"url": f"{PUBLIC}/event/1/contribution/9", "why": "the site answered with an error's page"},
    ]
    assert (result["changed"], result["files"], result["bytes"]) == (True, len(mirror), sum(map(len, mirror.values())))
    assert result["events"][0]["files"] == 6


def test_a_second_mirror_is_written_only_when_something_differs(visitor: Visitor, target: str, pages: dict[str, Any]) -> None:
    _indico_mirror.write(target, found(), visitor, PUBLIC)
    before = Path(target).stat().st_ino
    assert not _indico_mirror.write(target, found(), visitor, PUBLIC)["changed"]
    assert Path(target).stat().st_ino == before

    pages["event/1/contribution/1"] = (200, "text/html", "<h1>Other</h1>")
    assert _indico_mirror.write(target, found(), visitor, PUBLIC)["changed"]
    assert b"Other" in tree(target)["event/1/contribution-1.html"]
    index = Path(target, "index.html")
    index.unlink()
    index.symlink_to("/etc/passwd")
    assert _indico_mirror.write(target, found(), visitor, PUBLIC)["changed"]
    assert not index.is_symlink()
    assert Path("/etc/passwd").stat().st_size > 0
    assert beside(target) == ["mirror"]
    assert Path(target).stat().st_mode & 0o777 == 0o755
    assert _indico_mirror.write(target, found(), visitor, PUBLIC, protected=True)["changed"]
    assert Path(target).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("path", "answer", "sentence"),
    [
        ("event/1/material/0/0.html", (404, "text/html", ""), f"{PUBLIC}/event/1/material/0/0.html: the site answered 404"),
        ("event/1/material/0/0.html", (200, "text/html", "short"), "the site gave 5 bytes, the archive has 19"),
        ("event/1/contribution/1", (403, "text/html", ""), f"{PUBLIC}/event/1/contribution/1: the site answered 403"),
        ("event/1/contribution/7", (500, "text/html", ""), f"{PUBLIC}/event/1/contribution/7: the site answered 500"),
        ("event/1/contribution/1", (200, "text/html", ERROR), f"{PUBLIC}/event/1/contribution/1: the site answered with an error's page"),
        ("event/1/contribution/1", (200, "text/html", " "), f"{PUBLIC}/event/1/contribution/1: the site answered with an error's page"),
        ("event/1/", (302, f"{PUBLIC}/user/login", ""), f"{PUBLIC}/event/1/: the site answered 302"),
    ],
)
def test_what_is_missing_fails_the_run_and_leaves_the_old_mirror(
    visitor: Visitor, target: str, pages: dict[str, Any], path: str, answer: tuple[int, str, str], sentence: str
) -> None:
    _indico_mirror.write(target, found(), visitor, PUBLIC)
    before = tree(target)
    pages[path] = answer
    with pytest.raises(MirrorError) as error:
        _indico_mirror.write(target, found(), visitor, PUBLIC)
    assert sentence in str(error.value)
    assert error.value.broken
    assert all(one["why"] == "there is no such file" for one in error.value.broken)
    assert tree(target) == before
    assert beside(target) == ["mirror"]


def test_a_site_that_is_gone_fails_the_run(target: str, pages: dict[str, Any]) -> None:
    with pytest.raises(MirrorError, match=r"the site did not answer: .*refused"):
        _indico_mirror.write(target, found(), Visitor("http://127.0.0.1:1/", PUBLIC, 1), PUBLIC)
    assert not Path(target).exists()


def test_a_redirection_that_never_ends_stays_on_the_site(visitor: Visitor, target: str, pages: dict[str, Any]) -> None:
    pages["event/1/contribution/7"] = (302, f"{PUBLIC}/event/1/contribution/8", "")
    pages["event/1/contribution/8"] = (302, f"{PUBLIC}/event/1/contribution/7", "")
    _indico_mirror.write(target, found(), visitor, PUBLIC)
    assert f'<a href="{PUBLIC}/event/1/contribution/7">' in tree(target)["event/1/index.html"].decode()


def test_no_event_is_a_mirror_too(visitor: Visitor, target: str) -> None:
    assert _indico_mirror.write(target, {"events": [], "left_out": []}, visitor, PUBLIC)["events"] == []
    assert b"There was no event." in tree(target)["index.html"]


def test_what_is_no_mirror_is_refused(target: str, tmp_path: Path) -> None:
    assert _indico_mirror.look(target) is None
    Path(target).mkdir()
    for text in (None, "", "[]", "{}", '{"site": "x"}'):
        if text is not None:
            Path(target, _indico_mirror.MARKER).write_text(text)
        with pytest.raises(MirrorError, match="exists and is no mirror"):
            _indico_mirror.look(target)
    Path(target, _indico_mirror.MARKER).write_text('{"site": "x", "events": ["1"]}')
    assert _indico_mirror.look(target) == {"site": "x", "events": ["1"]}
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(MirrorError, match="no directory of ours"):
        _indico_mirror.look(str(tmp_path / "link"))
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(MirrorError, match=r"Others may write in .*open"):
        _indico_mirror.look(str(tmp_path / "open/mirror"))
    with pytest.raises(MirrorError, match="does not exist"):
        _indico_mirror.look(str(tmp_path / "none/mirror"))


def test_two_runs_do_not_meet(visitor: Visitor, target: str) -> None:
    with _indico_mirror._beside(target), pytest.raises(MirrorError, match="Another run writes a mirror"):
        _indico_mirror.write(target, found(), visitor, PUBLIC)


def test_an_exchange_is_one_step(tmp_path: Path) -> None:
    new, target = tmp_path / "new", tmp_path / "target"
    for path in (new, target):
        path.mkdir()
        (path / path.name).touch()
    _indico_mirror.exchange(str(new), str(target))
    assert (tree(str(target)), tree(str(new))) == ({"new": b""}, {"target": b""})
    with pytest.raises(MirrorError, match="cannot exchange"):
        _indico_mirror.exchange(str(tmp_path / "none"), str(target))
