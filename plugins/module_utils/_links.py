# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The references of HTML pages and style sheets: found, rewritten, and checked on disk.

A reference is a link, which somebody may follow, or embedded: the browser fetches it by itself. Rewriting takes scripts out.
What finds the references to rewrite also finds those to check, so nothing that is rewritten goes unchecked.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from html import escape
from html.parser import HTMLParser
from typing import Optional
from urllib.parse import unquote, urlsplit

LINK, EMBEDDED = "link", "embedded"
Change = Callable[[str, str], Optional[str]]  # (LINK or EMBEDDED, what is written there) -> what shall be; None takes it away

OUTSIDE = ("http", "https", "mailto", "tel", "ftp")  # where a link may lead that leaves the disk
_BLANK = "data:,"

_LINKS = {"a": ("href",), "area": ("href",), "form": ("action",), "input": ("formaction",), "button": ("formaction",)}
_EMBEDDED = {
    "link": ("href",),
    "video": ("src", "poster"),
    "object": ("data",),
    **dict.fromkeys(("img", "input", "audio", "source", "track", "embed", "iframe", "frame"), ("src",)),
    **dict.fromkeys(("body", "table", "tr", "td", "th"), ("background",)),
}
_REMOVED = ("srcset", "ping", "integrity", "manifest", "nonce")
_FRAMES = ("iframe", "frame", "embed", "object", "video", "audio")
_CSS = re.compile(
    r"""@import\s*(?:"(?P<import1>[^"]*)"|'(?P<import2>[^']*)')|url\(\s*(?:"(?P<url1>[^"]*)"|'(?P<url2>[^']*)'|(?P<url3>[^)"'\s]*))\s*\)""", re.IGNORECASE
)


def rewrite_css(text: str, change: Change) -> str:
    """Return a style sheet in which change has decided on every reference. What it takes away becomes an empty picture."""

    def replace(match: re.Match[str]) -> str:
        value = next(found for found in match.groups() if found is not None)
        changed = change(EMBEDDED, value) if value else value
        if changed == value:
            return match[0]
        quoted = _css_string(_BLANK if changed is None else changed)
        return f'@import "{quoted}"' if match[0].startswith("@") else f'url("{quoted}")'

    return _CSS.sub(replace, text)


def _css_string(value: str) -> str:
    return re.sub(r'["\\\n\r<]', lambda match: f"\\{ord(match[0]):x} ", value)


class _Page(HTMLParser):
    """Collects the edits of a page: (start, end, text), by position, so that what needs no change stays as it is, byte for byte."""

    def __init__(self, text: str, change: Change) -> None:
        super().__init__(convert_charrefs=False)
        self.text, self.change = text, change
        self.edits: list[tuple[int, int, str]] = []
        self.head = self.body = 0
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self._script: int | None = None
        self._style: int | None = None
        self.feed(text)
        self.close()
        if self._script is not None:
            self.edits.append((self._script, len(text), ""))

    def result(self, head: str, body: str) -> str:
        """Return the page with its edits, head at the begin of its head and body at the begin of its body."""
        parts, end = [], 0
        after = max(self.body, self.head)
        added = [(self.head, self.head, head), (after, after, body)]
        for start, stop, text in sorted([*added, *self.edits], key=lambda edit: edit[0]):
            if start >= end:  # not within what another one has replaced
                parts += [self.text[end:start], text]
                end = stop
        return "".join([*parts, self.text[end:]])

    def _position(self) -> int:
        line, column = self.getpos()
        return self._lines[line - 1] + column

    def handle_decl(self, decl: str) -> None:
        self.head = self.head or self.text.find(">", self._position()) + 1

    def handle_comment(self, data: str) -> None:
        start = self._position()
        end = self.text.find("-->", start)
        if end >= 0:  # old browsers read pages out of some comments
            self.edits.append((start, end + 3, ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        start, raw = self._position(), self.get_starttag_text() or ""
        end = start + len(raw)
        given: dict[str, str | None] = {}
        for name, value in attrs:
            given.setdefault(name, value)  # as browsers do, the first one counts
        if tag == "head":
            self.head = end
        elif tag == "body":
            self.body = end
        elif tag == "script":
            self._script = start
            return
        elif tag == "style":
            self._style = end
        rel = (given.get("rel") or "").lower().split()
        pointless = tag == "link" and not {"stylesheet", "icon"}.intersection(rel)
        if pointless or tag in ("base", "noscript") or (tag == "meta" and (given.get("http-equiv") or "").lower() in ("refresh", "content-security-policy")):
            self.edits.append((start, end, ""))
            return
        changed, before = self._attributes(tag, given)
        if changed != given:
            words = [tag, *(name if value is None else f'{name}="{escape(value)}"' for name, value in changed.items())]
            self.edits.append((start, end, before + f"<{' '.join(words)}{' /' if raw.endswith('/>') else ''}>"))

    def _attributes(self, tag: str, given: dict[str, str | None]) -> tuple[dict[str, str | None], str]:
        """Return the attributes as they shall be, and what comes before the tag."""
        changed: dict[str, str | None] = {}
        before = ""
        for name, value in given.items():
            kind = LINK if name in _LINKS.get(tag, ()) else EMBEDDED if name in _EMBEDDED.get(tag, ()) else ""
            if name.startswith("on") or name in _REMOVED or name == "srcdoc":
                continue
            if name == "style" and value:
                changed[name] = rewrite_css(value, self.change)
            elif kind and value:
                new = self.change(kind, value)
                if new is not None:
                    changed[name] = new
                elif tag in _FRAMES and urlsplit(value).scheme in ("http", "https"):
                    before = f'<a href="{escape(value)}">{escape(value)}</a> '
            else:
                changed[name] = value
        return changed, before

    def handle_endtag(self, tag: str) -> None:
        start = self._position()
        end = self.text.find(">", start) + 1 or len(self.text)
        if tag == "script" and self._script is not None:
            self.edits.append((self._script, end, ""))
            self._script = None
        elif tag == "noscript":
            self.edits.append((start, end, ""))
        elif tag == "style" and self._style is not None and start >= self._style:
            old = self.text[self._style : start]
            new = rewrite_css(old, self.change)
            if new != old:
                self.edits.append((self._style, start, new))
            self._style = None


def rewrite_html(text: str, change: Change, head: str = "", body: str = "") -> str:
    """Return a page without scripts in which change has decided on every reference. head and body come at the begin of these elements.

    Of a frame or film that change takes away, a link stays.
    """
    return _Page(text, change).result(head, body)


def references(text: str, *, css: bool) -> list[tuple[str, str]]:
    """Return the references of a page or of a style sheet, in order: LINK or EMBEDDED, and what is written there."""
    found: list[tuple[str, str]] = []

    def change(kind: str, value: str) -> str:
        found.append((kind, value))
        return value

    rewrite = rewrite_css if css else rewrite_html
    rewrite(text, change)
    return found


def read(path: str) -> str:
    """Return a page's text such that writing it gives the same bytes."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return stream.read()


def check(root: str, opaque: Callable[[str], bool] = lambda _path: False) -> list[dict[str, str]]:
    """Return each broken reference below root: page (relative to root), link and why.

    opaque tells of a path, relative to root, whether the file is somebody's own, which is not looked into.
    A link may lead to the web, but what is embedded must lie on disk, below root; links of the file system are broken anywhere.
    """
    broken = []
    for directory, directories, files in os.walk(root):
        directories.sort()
        for name in sorted([*directories, *files]):
            path = os.path.join(directory, name)
            page = os.path.relpath(path, root)
            mode = os.lstat(path).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                broken.append({"page": page, "link": "", "why": "is neither a file nor a directory"})
            elif name.endswith((".html", ".css")) and stat.S_ISREG(mode) and not opaque(page):
                for kind, value in dict.fromkeys(references(read(path), css=name.endswith(".css"))):
                    why = _why(root, page, kind, value)
                    if why:
                        broken.append({"page": page, "link": value, "why": why})
    return broken


def _why(root: str, page: str, kind: str, value: str) -> str:
    """Return why a reference is broken, or nothing."""
    try:
        parts = urlsplit(value.strip())
    except ValueError:
        return "is no address"
    if parts.scheme:
        if kind == EMBEDDED:
            return "" if parts.scheme == "data" else "would be fetched from elsewhere"
        return "" if parts.scheme in OUTSIDE else f"a browser does not follow {parts.scheme}: from here"
    if parts.netloc or parts.path.startswith("/"):
        return "does not begin at the page"
    if not parts.path:
        return ""
    path = os.path.normpath(os.path.join(root, os.path.dirname(page), unquote(parts.path, errors="surrogateescape")))
    if not path.startswith(os.path.normpath(root) + os.sep):
        return "leads out of the mirror"
    try:
        mode = os.lstat(path).st_mode
    except (OSError, ValueError):
        return "there is no such file"
    return "" if stat.S_ISREG(mode) else "is no file"
