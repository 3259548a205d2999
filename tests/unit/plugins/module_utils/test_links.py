"""References of pages and style sheets: found, rewritten, checked."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _links
from ansible_collections.confops.indico.plugins.module_utils._links import EMBEDDED, LINK


def keep(_kind: str, value: str) -> str:
    return value


def numbered(kind: str, value: str) -> str | None:
    """Take away what is called gone, and give the rest another name."""
    return None if "gone" in value else f"{kind}:{value}"


def test_what_needs_no_change_stays_byte_for_byte() -> None:
    page = "<!DOCTYPE html>\n<HTML><Head><title>R&D &amp &eacute;</title>\n</head><body class=x ID='y'>a<br/>b & c &#233;\n<p>\udcff<a href=x>é</a></body>"
    assert _links.rewrite_html(page, keep) == page


@pytest.mark.parametrize(
    ("page", "rewritten"),
    [
        ('<a href="x?a=1&amp;b=2">t</a>', '<a href="link:x?a=1&amp;b=2">t</a>'),
        ("<a HREF='x' class=\"y\" download>t</a>", '<a href="link:x" class="y" download>t</a>'),
        ('<a href="gone">t</a>', "<a>t</a>"),
        ('<img src=a alt="A &quot;b&quot;"/>', '<img src="embedded:a" alt="A &quot;b&quot;" />'),
        ('<img src="gone" alt="A">', '<img alt="A">'),
        ('<img src="a" srcset="b 2x" onerror="c()">', '<img src="embedded:a">'),
        ('<img src="a" src="b">', '<img src="embedded:a">'),
        ('<form action="x"><input type="image" src="y"><button formaction="z">', None),
        ('<td background="x">', '<td background="embedded:x">'),
        ("<p style=\"background: url('x')\">", '<p style="background: url(&quot;embedded:x&quot;)">'),
        ('a<script src="x">if (a < b) { "</p>" }</script>b', "ab"),
        ("a<script>never closed", "a"),
        ('a<!--[if IE]><script src="x"></script><![endif]-->b<!-- c -->d', "abd"),
        ("<noscript>Without</noscript>", "Without"),
        ('<base href="x"><meta http-equiv="Refresh" content="0; url=x"><link rel="alternate" href="x">a', "a"),
        ('<link rel="shortcut icon" href="x">', '<link rel="shortcut icon" href="embedded:x">'),
        ("<style>p { background: url(x) }</style>", '<style>p { background: url("embedded:x") }</style>'),
        (
            '<iframe src="https://gone.example/?a&amp;b"></iframe>',
            '<a href="https://gone.example/?a&amp;b">https://gone.example/?a&amp;b</a> <iframe></iframe>',
        ),
        ('<iframe srcdoc="<script>x</script>"></iframe>', "<iframe></iframe>"),
    ],
)
def test_a_page_is_rewritten(page: str, rewritten: str | None) -> None:
    if rewritten is None:
        assert _links.references(page, css=False) == [(LINK, "x"), (EMBEDDED, "y"), (LINK, "z")]
    else:
        assert _links.rewrite_html(page, numbered) == rewritten


@pytest.mark.parametrize(
    ("page", "rewritten"),
    [
        ("<!DOCTYPE html><html><head a='b'><title>t</title></head><body c>d", "<!DOCTYPE html><html><head a='b'>HEAD<title>t</title></head><body c>BODYd"),
        ("<!DOCTYPE html>\nplain", "<!DOCTYPE html>HEADBODY\nplain"),
        ("plain", "HEADBODYplain"),
        ("<head><script>x</script></head><body><script>y</script>z", "<head>HEAD</head><body>BODYz"),
    ],
)
def test_what_is_added_comes_first(page: str, rewritten: str) -> None:
    assert _links.rewrite_html(page, keep, "HEAD", "BODY") == rewritten


@pytest.mark.parametrize(
    ("sheet", "rewritten"),
    [
        ("a { b: url(x.png) }", 'a { b: url("embedded:x.png") }'),
        ("a { b: URL( 'x y.png' ) }", 'a { b: url("embedded:x y.png") }'),
        ('@import "x.css"; @import url(y.css) print;', '@import "embedded:x.css"; @import url("embedded:y.css") print;'),
        ("a { b: url(gone.png) }", 'a { b: url("data:,") }'),
        ("a { b: url() ; c: curl }", "a { b: url() ; c: curl }"),
        ("""a { b: url('x"</style>') }""", 'a { b: url("embedded:x\\22 \\3c /style>") }'),
    ],
)
def test_a_style_sheet_is_rewritten(sheet: str, rewritten: str) -> None:
    assert _links.rewrite_css(sheet, numbered) == rewritten


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    (root / "event/files").mkdir(parents=True)
    (root / "event/files/résumé 1.txt").write_text("x")
    (root / "event/files/own.html").write_text('<a href="nowhere"><img src="https://example.org/x">')
    (root / "style.css").write_text("a { b: url(event/files/r%C3%A9sum%C3%A9%201.txt) }")
    (root / "index.html").write_text(
        '<link rel="stylesheet" href="style.css?v=1"><a href="event/index.html#part">e</a> <a href="https://a.b/">o</a><a href="#">t</a><a href="tel:1">m</a>'
    )
    (root / "event/index.html").write_text(
        '<a href="../index.html">i</a><a href="files/r%C3%A9sum%C3%A9%201.txt">f</a><img src="data:,"><a href="files/own.html">'
    )
    (tmp_path / "outside.txt").write_text("x")
    return root


def stored(path: str) -> bool:
    return path.startswith("event/files/")


def test_a_whole_site_has_no_broken_link(site: Path) -> None:
    assert _links.check(str(site), stored) == []
    assert [one["page"] for one in _links.check(str(site))] == ["event/files/own.html"] * 2


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ('<a href="gone.html">', "there is no such file"),
        ('<a href="files">', "is no file"),
        ('<a href="../../outside.txt">', "leads out of the mirror"),
        ('<a href="..%2F../outside.txt">', "leads out of the mirror"),
        ('<a href="/index.html">', "does not begin at the page"),
        ('<a href="//example.org/x">', "does not begin at the page"),
        ('<a href="file:///etc/passwd">', "a browser does not follow file: from here"),
        ('<a href="javascript:x()">', "a browser does not follow javascript: from here"),
        ('<a href="http://[x/">', "is no address"),
        ('<a href="a%00b">', "there is no such file"),
        ('<img src="https://example.org/x.png">', "would be fetched from elsewhere"),
        ('<p style="background: url(gone.png)">', "there is no such file"),
        ("<style>@import 'gone.css';</style>", "there is no such file"),
    ],
)
def test_a_broken_link_is_found(site: Path, reference: str, why: str) -> None:
    page = site / "event/index.html"
    page.write_text(page.read_text() + reference)
    (broken,) = _links.check(str(site), stored)
    assert (broken["page"], broken["why"]) == ("event/index.html", why)


def test_a_file_that_goes_breaks_every_link_to_it(site: Path) -> None:
    (site / "event/files/résumé 1.txt").unlink()
    assert [one["page"] for one in _links.check(str(site), stored)] == ["style.css", "event/index.html"]


def test_a_link_of_the_file_system_is_broken(site: Path) -> None:
    (site / "event/files/out").symlink_to("/etc")
    (site / "event/passwd.html").symlink_to("/etc/passwd")
    assert _links.check(str(site), stored) == [
        {"page": "event/passwd.html", "link": "", "why": "is neither a file nor a directory"},
        {"page": "event/files/out", "link": "", "why": "is neither a file nor a directory"},
    ]
