# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Events as a static site: Indico's database tells what there is, the living site is read as a visitor reads it, and the links are made relative.

Indico 1.2.2 has a generator of its own. It packs every stored file without asking who may see it, needs LaTeX for a conference, stores what it made in
the archive and the database, makes no page for the talks of a meeting, and checks no link. So the site is read instead: what a visitor cannot
see cannot get into a mirror, and the pages are those that people know. They come without scripts, which would ask the site; the timetable of a conference,
which is drawn by a script, is Indico's own page of the same timetable that needs none.

A mirror is made in a directory beside its target. Once every link in it is found to lead somewhere, the two are exchanged in one step.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import filecmp
import hashlib
import http.client
import json
import os
import posixpath
import re
import shutil
import ssl
import stat
import time
import unicodedata
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from html import escape
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

from ansible_collections.confops.indico.plugins.module_utils import _indico, _links, _repository
from ansible_collections.confops.indico.plugins.module_utils._info import human

MARKER = ".confops-mirror.json"
_ADDRESS = "127.0.0.1"  # where the host asks itself, and so from where

SCRIPT = r"""
connect()
from datetime import datetime, timedelta
from indico.core.config import Config
from indico.web.flask.app import make_app
from MaKaC.accessControl import AccessWrapper
from MaKaC.common.indexes import IndexesHolder
from MaKaC.common.info import HelperMaKaCInfo
from MaKaC.conference import CategoryManager, Conference, ConferenceHolder, LocalFile
from MaKaC.webinterface import urlHandlers
from pytz import timezone

def text(value):
    try:
        return value.decode('utf-8')
    except UnicodeDecodeError:
        return value.decode('latin-1')

def local(event, moment):
    return moment.astimezone(timezone(event.getTimezone()))

def wanted():
    'Return the events that are asked for.'
    holder = ConferenceHolder()
    if not arguments['day']:
        events = []
        for key in arguments['events']:
            event = holder.getById(key) if holder.hasKey(key) else None
            if event is None or event.getId() != key or type(event) is not Conference:
                answer(refused='There is no event %s in this Indico.' % key)
            events.append(event)
        return events
    last = datetime.strptime(arguments['day'], '%Y-%m-%d')
    first = last - timedelta(days=arguments['days'] - 1)
    near = {}
    for key in arguments['categories']:
        if not CategoryManager().hasKey(key):
            answer(refused='There is no category %s in this Indico.' % key)
        found = IndexesHolder().getById('categoryDateAll').getObjectsInDays(key, first - timedelta(days=1), last + timedelta(days=1))
        near.update((event.getId(), event) for event in found)
    return [event for event in near.values()
            if local(event, event.getStartDate()).date() <= last.date() and first.date() <= local(event, event.getEndDate()).date()]

def materials(owner, visitor, found, title):
    for material in owner.getAllMaterialList():
        if not material.canAccess(visitor):
            continue
        for resource in material.getResourceList():
            if not resource.canAccess(visitor):
                continue
            url = str(urlHandlers.UHFileAccess.getURL(resource))
            if not isinstance(resource, LocalFile):
                if text(resource.getURL()).startswith((u'http://', u'https://')):
                    found['links'].append({'url': url, 'to': text(resource.getURL())})
                continue
            if resource.getId() == 'minutes':
                found['pages'].append({'url': url, 'title': title + u': ' + text(material.getTitle())})
                continue
            try:
                size = os.path.getsize(resource.getFilePath())
            except (OSError, IOError):
                size = None
            found['files'].append({'url': url, 'name': text(resource.getFileName()), 'title': title, 'size': size})

def describe(event, visitor):
    found = {'id': event.getId(), 'title': text(event.getTitle()), 'timezone': event.getTimezone(), 'pages': [], 'files': [], 'links': [],
             'start': local(event, event.getStartDate()).strftime('%Y-%m-%d %H:%M'), 'end': local(event, event.getEndDate()).strftime('%Y-%m-%d %H:%M'),
             'moment': event.getStartDate().strftime('%Y-%m-%d %H:%M'), 'visible': bool(event.canAccess(visitor))}
    if not found['visible']:
        return found
    materials(event, visitor, found, found['title'])
    owners = [(session, urlHandlers.UHSessionDisplay) for session in event.getSessionList()]
    for contribution in sorted(event.getContributionList(), key=lambda one: (str(one.getStartDate() or '9'), len(one.getId()), one.getId())):
        owners.append((contribution, urlHandlers.UHContributionDisplay))
        owners.extend((part, urlHandlers.UHSubContributionDisplay) for part in contribution.getSubContributionList())
    for owner, handler in owners:
        if owner.canAccess(visitor):
            found['pages'].append({'url': str(handler.getURL(owner)), 'title': text(owner.getTitle())})
            materials(owner, visitor, found, text(owner.getTitle()))
    return found

trusted = arguments['address'] in HelperMaKaCInfo.getMaKaCInfoInstance().getIPBasedACLMgr().get_full_access_acl()
if trusted and not arguments['protected']:
    answer(refused='Indico shows protected events to %s, from where this host asks itself, so a mirror would hold what a visitor may not see. '
                   'Take the address off its list of IP addresses with full access, or give protected=true.' % arguments['address'])
# The site may lie below a path of its host.
with make_app().test_request_context('/', base_url=Config.getInstance().getBaseURL()):
    visitor = AccessWrapper()
    if trusted:
        visitor.setIP(arguments['address'])
    events = [describe(event, visitor) for event in wanted()]
hidden = [event for event in events if not event['visible']]
if hidden and (arguments['protected'] or not arguments['day']):
    names = u', '.join(u'%s (%s)' % (event['id'], event['title']) for event in hidden)
    more = (u'to mirror it, give %s full access in the administration of Indico (Protection, IP-based access) for the time of the run'
            % text(arguments['address'])) if arguments['protected'] else u'a mirror holds only what a visitor may see'
    answer(refused=u'Protected: event %s; %s.' % (names, more))
answer(events=sorted((event for event in events if event['visible']), key=lambda event: (event['moment'], len(event['id']), event['id'])),
       left_out=[{'id': event['id'], 'title': event['title']} for event in hidden])
"""

_ID = r"[^/.]+"
_TALK = rf"contribution/{_ID}(?:/{_ID})?"
_MATERIAL = rf"(?:session/{_ID}/)?(?:{_TALK}/)?material/{_ID}/"
# What of an event is mirrored, by the rest of its path. All else, such as forms and what is made on demand, stays a link to the site.
_PAGE = re.compile(
    rf"(?:|overview|timetable/|other-view|contributions|authors|speakers|program|registration/registrants|page/{_ID}|session/{_ID}/"
    rf"|(?:session/{_ID}/)?{_TALK}|(?:session/{_ID}/)?contribution/{_ID}/author/{_ID}|{_MATERIAL}(?:minutes(?:\.html)?)?)\Z"
)
_STORED = re.compile(rf"{_MATERIAL}[^/]+\Z")
_STATIC_TIMETABLE = "other-view?view=standard&fr=no"
_SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif", "image/svg+xml": ".svg", "text/css": ".css"}
_ASSETS = (
    "image/",
    "font/",
    "video/",
    "audio/",
    "text/css",
    "application/font",
    "application/x-font",
    "application/vnd.ms-fontobject",
    "application/octet-stream",
)

# Nothing is fetched but from the mirror: it lies in a directory (file:) or on a web server ('self').
_POLICY = "default-src 'none'; img-src 'self' file: data:; style-src 'self' file: 'unsafe-inline'; font-src 'self' file: data:; media-src 'self' file:"
_STYLE = """/* What needs the site is hidden, what its scripts would open is shown. */
.pageHeader, #buttonBar, .toolbar, #goToDayLink, #staticURLContainer { display: none !important; }
.contributionListFiltersContainer, .authorIndexFiltersContainer { display: none !important; }
.material_list { display: block !important; }
.mirrorBar, .mirror { font-family: sans-serif; font-size: 13px; line-height: 1.5; color: #333; }
.mirrorBar { padding: 6px 16px; background: #eee; border-bottom: 1px solid #ccc; }
.mirror { max-width: 60em; margin: 2em auto; padding: 0 1em; }
.mirror li { margin: 0.4em 0; }
.mirror small { color: #666; }
"""


class MirrorError(Exception):
    """There is no new mirror; the message is a sentence for the operator. broken lists the links that lead nowhere."""

    def __init__(self, sentence: str, broken: list[dict[str, str]] | None = None) -> None:
        super().__init__(sentence)
        self.broken = broken or []


# Names


def safe_name(name: str, limit: int = 120) -> str:
    """Return a name that any file system takes, within limit bytes of UTF-8: letters of all scripts stay, signs with a meaning somewhere become _."""
    name = unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode("utf-8"))
    name = "".join("_" if unicodedata.category(letter).startswith("C") or letter in '<>:"/\\|?*' else letter for letter in name)
    name = re.sub(r"[. ]+\Z|\A[. ]+", "_", re.sub(r"\.\.+", ".", name)) or "_"
    if re.match(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|\Z)", name, re.IGNORECASE):
        name = "_" + name
    if len(name.encode()) <= limit:
        return name
    stem, suffix = os.path.splitext(name)
    suffix = suffix if len(suffix.encode()) <= 16 else ""
    ending = "-" + hashlib.sha256(name.encode()).hexdigest()[:8] + suffix
    return stem.encode()[: limit - len(ending.encode())].decode("utf-8", "ignore").rstrip(". ") + ending


def relative(place: str, page: str) -> str:
    """Return the link from a page to a place, both relative to the mirror's root."""
    return quote(posixpath.relpath(place, posixpath.dirname(page) or "."), safe="/")


# The site


def _is_error(page: str) -> bool:
    """Return whether a page tells of an error. Indico answers 200 with some of them, or with nothing; they have a frame, and no event in their title."""
    return not page.strip() or (re.search(r"<title>\s*Indico\s*</title>", page) is not None and '<div class="wrapper">' in page)


class Visitor:
    """Asks this host for pages under the name that browsers use. url is its home page as this host reaches it, public_url as browsers see it."""

    def __init__(self, url: str, public_url: str, timeout: float = 120) -> None:
        self._parts = urlsplit(url)
        self._public = urlsplit(public_url)
        self._timeout = timeout
        self._context = ssl.create_default_context()
        # It is this very host, under an address that no certificate names.
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE

    @contextlib.contextmanager
    def get(self, key: str) -> Iterator[http.client.HTTPResponse]:
        """Ask for key, a path below the home page; redirections are answers. Raises OSError or HTTPException."""
        host, port = self._parts.hostname or "", self._parts.port
        connection = (
            http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._context)
            if self._parts.scheme == "https"
            else http.client.HTTPConnection(host, port, timeout=self._timeout)
        )
        headers = {"Host": self._public.netloc, "X-Forwarded-Proto": self._public.scheme, "User-Agent": "confops.indico mirror"}
        try:
            connection.request("GET", f"{self._parts.path.rstrip('/')}/{key}", headers=headers)
            yield connection.getresponse()
        finally:
            connection.close()


@dataclass
class _Page:
    """A page that is on disk, not yet rewritten: its own key."""

    key: str
    place: str


@dataclass
class Crawl:
    """Reads events into a directory. events are those of SCRIPT.

    A key is the path of something on the site, below its home page. places says where each one is that was asked for: a path in the
    mirror, an address elsewhere, or None for what stays on the site. failed are those that should be in the mirror and are not, and why;
    elsewhere those that pages of the mirror link to, that a visitor cannot have, and why.
    """

    visitor: Visitor
    public_url: str
    events: list[dict[str, Any]]
    directory: str
    places: dict[str, str | None] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._home = self.public_url.rstrip("/") + "/"
        self._ids = {event["id"] for event in self.events}
        self._links = {self.key(one["url"]): one["to"] for event in self.events for one in event["links"]}
        self._files = {self.key(one["url"]): one for event in self.events for one in event["files"]}
        self._needed = {*self._files, *(self._first(event) for event in self.events)}
        self._needed.update(self.key(one["url"]) for event in self.events for one in event["pages"])
        self._pages: list[_Page] = []
        self._queue: deque[str] = deque()
        self._taken: set[str] = set()  # places, in small letters: some file systems know no others

    def key(self, url: str, base: str = "") -> str:
        """Return the key of an address on a page (its key is base), or nothing when it is not on this site."""
        try:
            parts = urlsplit(urljoin(self._home + base, url.strip()))
            home = urlsplit(self._home)
        except ValueError:
            return ""
        if parts.scheme not in ("http", "https") or parts.netloc != home.netloc or not parts.path.startswith(home.path):
            return ""
        path = posixpath.normpath(parts.path) + ("/" if parts.path.endswith("/") and parts.path != "/" else "")
        if not path.startswith(home.path):
            return ""
        return quote(unquote(path[len(home.path) :], errors="surrogateescape"), safe="/~!$&'()*+,;=:@")

    def _event(self, key: str) -> tuple[str, str] | None:
        """Return the event that key belongs to, when it is one of ours, and the rest of its path."""
        match = re.match(r"event/([^/]+)(?:/|\Z)", key)
        return (match[1], key[match.end() :]) if match and match[1] in self._ids else None

    def _wanted(self, kind: str, key: str) -> str:
        """Return the key under which something is mirrored, or nothing when it is not."""
        mine = self._event(key)
        if mine:
            for rest in ("timetable/" if mine[1] == "other-view" else mine[1], mine[1] + "/"):
                if _PAGE.match(rest) or f"event/{mine[0]}/{rest}" in self._files:
                    return f"event/{mine[0]}/{rest}"
            if _STORED.match(mine[1]):
                return ""  # what the database does not name, a visitor may not see
        return key if kind == _links.EMBEDDED and (mine or not key.startswith("event/")) else ""

    def run(self) -> None:
        """Read everything, then make the links relative and write the pages that lead to all of it. Raises MirrorError when the site does not answer."""
        for event in self.events:
            for key in [self._first(event), *(self.key(one["url"]) for one in [*event["pages"], *event["files"]])]:
                self._want(key)
        while self._queue:
            self._fetch(self._queue.popleft())
        self._write("static/mirror.css", _STYLE)
        for page in self._pages:
            self._rewrite(page)
        for event in self.events:
            self._write(self._contents(event), self._contents_page(event))
        self._write("index.html", self._index_page())

    def _first(self, event: dict[str, Any]) -> str:
        """Return the key of an event's own page."""
        return self.key(f"event/{quote(event['id'], safe='')}/")

    def _want(self, key: str) -> None:
        if key not in self.places:
            self.places[key] = None
            self._queue.append(key)

    def _fetch(self, key: str) -> None:
        mine = self._event(key)
        page = bool(mine and _PAGE.match(mine[1]))
        due = page or key in self._files
        asked = f"event/{mine[0]}/{_STATIC_TIMETABLE}" if mine and mine[1] == "timetable/" else key
        for attempt in (1, 2):
            status, location = 0, ""
            try:
                with self.visitor.get(asked) as answer:
                    status, location = answer.status, answer.getheader("Location") or ""
                    why = f"the site answered {status}" if status != 200 else self._keep(key, answer, page=page)
            except (OSError, http.client.HTTPException) as error:
                why = f"the site did not answer: {error or type(error).__name__}"
            lasting = status and status < 500
            if not why or lasting or attempt == 2:
                break
            time.sleep(1)
        if not why or (page and 300 <= status < 400 and self._redirected(key, location)):
            return
        if key in self._needed or (due and not lasting):
            self.failed[key] = why
            self.places[key] = self._place(key, "")  # nothing will be there, and the check will find it
        elif due:
            self.elsewhere[key] = why

    def _redirected(self, key: str, location: str) -> bool:
        """Follow a redirection to something else of the same event, or out of the site. Return whether it was one."""
        target = self.key(location, key)
        address = self._links.get(target, "") if target else location
        if urlsplit(address).scheme in ("http", "https"):
            self.places[key] = address
            return True
        if not target:
            return False
        wanted = self._wanted(_links.LINK, target)
        if not wanted or wanted == key:
            return False
        self._want(wanted)
        self.places[key] = wanted + "\0"  # where that will be is not known yet
        return True

    def _keep(self, key: str, answer: http.client.HTTPResponse, *, page: bool) -> str:
        """Store what the site gave. Return what is wrong with it, or nothing. Raises OSError or HTTPException."""
        kind = (answer.getheader("Content-Type") or "").split(";")[0].strip().lower()
        if not page and key not in self._files and not kind.startswith(_ASSETS):
            return f"it is {kind or 'of no type'}"
        place = self._place(key, kind)
        path = os.path.join(self.directory, place)
        length, size = answer.length, 0
        with contextlib.ExitStack() as undo:
            undo.callback(self._taken.discard, place.lower())
            with self._create(place) as stream:
                undo.callback(os.unlink, path)
                while chunk := answer.read(2**20):
                    size += stream.write(chunk)
            if length is not None and size != length:
                raise OSError(f"the answer ended after {size} of {length} bytes")
            if key in self._files and size != self._files[key]["size"]:
                return f"the site gave {size} bytes, the archive has {self._files[key]['size']}"
            if page and _is_error(_links.read(path)):
                return "the site answered with an error's page"
            undo.pop_all()
        self.places[key] = place
        if page or kind == "text/css":
            self._pages.append(_Page(key, place))
            for how, value in _links.references(_links.read(path), css=not page):
                found = self.key(value, key)
                wanted = self._wanted(how, found) if found and not value.startswith("#") else ""
                if wanted:
                    self._want(wanted)
        return ""

    # Places

    def _place(self, key: str, kind: str) -> str:
        """Return a place of its own for a key."""
        mine = self._event(key)
        if not mine:
            return self._free("static/" + "/".join(safe_name(unquote(part)) for part in key.split("/") if part))
        event, rest = safe_name(unquote(mine[0])), [unquote(part) for part in mine[1].split("/") if part]
        if key in self._files:
            where = safe_name("-".join(part for part in rest if part != "material").rpartition(".")[0] or "-".join(rest))
            return self._free(f"event/{event}/files/{where}/{safe_name(self._files[key]['name'])}")
        if _PAGE.match(mine[1]):
            return self._free(f"event/{event}/{safe_name('-'.join(rest).removesuffix('.html') or 'index', 115)}.html")
        stem, suffix = os.path.splitext("-".join(rest))
        return self._free(f"event/{event}/{safe_name(stem + (_SUFFIXES.get(kind) or suffix))}")

    def _free(self, place: str) -> str:
        stem, suffix = posixpath.splitext(place)
        number = 1
        while place.lower() in self._taken or place.lower() + "/" in self._taken:
            number += 1
            place = f"{stem}-{number}{suffix}"
        self._taken.add(place.lower())
        return place

    def _target(self, key: str) -> str | None:
        """Return what places says of a key, behind all redirections."""
        for _hop in range(5):
            target = self.places.get(key)
            if target is None or not target.endswith("\0"):
                return target
            key = target[:-1]
        return None

    @contextlib.contextmanager
    def _create(self, place: str) -> Iterator[Any]:
        path = os.path.join(self.directory, place)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), "wb") as stream:
            yield stream

    def _write(self, place: str, text: str) -> None:
        with self._create(place) as stream:
            stream.write(text.encode("utf-8", "surrogateescape"))

    # Pages

    def change(self, page: str, key: str, kind: str, value: str) -> str | None:
        """Return what a reference becomes on a page: page is its place and key its key."""
        if value.startswith("#"):
            return value
        try:
            parts = urlsplit(urljoin(self._home + key, value.strip()))
        except ValueError:
            return None
        if kind == _links.EMBEDDED and parts.scheme == "data":
            return value
        found = self.key(value, key)
        wanted = self._wanted(kind, found) if found else ""
        target = self._target(wanted) if wanted else self._links.get(found)
        if target and "://" in target:
            return target if kind == _links.LINK else None
        if target:
            return relative(target, page) + (f"#{parts.fragment}" if parts.fragment else "")
        if kind == _links.EMBEDDED or parts.scheme not in _links.OUTSIDE:
            return None
        return parts.geturl()

    def _rewrite(self, page: _Page) -> None:
        path = os.path.join(self.directory, page.place)
        text = _links.read(path)

        def change(kind: str, value: str) -> str | None:
            return self.change(page.place, page.key, kind, value)

        if page.place.endswith(".html"):
            mine = self._event(page.key) or ("", "")
            event = next(one for one in self.events if one["id"] == mine[0])
            text = _links.rewrite_html(text, change, self._head(page.place), self._bar(page, event))
        else:
            text = _links.rewrite_css(text, change)
        os.unlink(path)
        self._write(page.place, text)

    def _head(self, place: str) -> str:
        style = f'<link rel="stylesheet" href="{relative("static/mirror.css", place)}">'
        return f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">{style}'

    def _bar(self, page: _Page, event: dict[str, Any]) -> str:
        links = [("index.html", "All events"), (self._target(self._first(event)) or "index.html", event["title"]), (self._contents(event), "Contents")]
        site = escape(self._home + page.key)
        words = [f'<a href="{relative(place, page.place)}">{escape(title)}</a>' for place, title in links]
        return f'<div class="mirrorBar">{" · ".join(words)} · offline copy of <a href="{site}">{site}</a></div>'

    def _contents(self, event: dict[str, Any]) -> str:
        return f"event/{safe_name(event['id'])}/contents.html"

    def _listed(self, title: str, body: str, place: str) -> str:
        return (
            f'<!DOCTYPE html>\n<html lang="en"><head>{self._head(place)}<title>{escape(title)}</title></head>\n'
            f'<body><div class="mirror"><h1>{escape(title)}</h1>\n{body}</div></body></html>\n'
        )

    def _contents_page(self, event: dict[str, Any]) -> str:
        """Return the page with a link to each page and file of an event: in Indico's own pages some are behind a script."""
        place = self._contents(event)
        lists = []
        for title, ones in (("Pages", event["pages"]), ("Files", event["files"])):
            items = []
            for one in ones:
                target = self._target(self.key(one["url"]))
                text = escape(f"{one['title']}: {one['name']}" if "name" in one else one["title"])
                items.append(f'<li><a href="{relative(target, place)}">{text}</a></li>\n' if target else f"<li>{text}</li>\n")
            lists.append(f"<h2>{title}</h2>\n<ul>\n{''.join(items)}</ul>\n" if items else "")
        home = relative(self._target(self._first(event)) or "index.html", place)
        back = f'<p><a href="{relative("index.html", place)}">All events</a> · <a href="{home}">{escape(event["title"])}</a></p>\n'
        return self._listed(f"Contents of {event['title']}", back + "".join(lists), place)

    def _index_page(self) -> str:
        items = []
        for event in self.events:
            end = event["end"][11:] if event["end"][:10] == event["start"][:10] else event["end"]
            home = self._target(self._first(event)) or self._contents(event)
            link = f'<a href="{relative(home, "index.html")}">{escape(event["title"])}</a>'
            files = f'<a href="{relative(self._contents(event), "index.html")}">contents, {len(event["files"])} files</a>'
            items.append(f"<li>{event['start']} to {end} <small>({event['timezone']})</small><br>{link} <small>({files})</small></li>\n")
        body = f"<ul>\n{''.join(items)}</ul>\n" if items else "<p>There was no event.</p>\n"
        site = f'<p><small>Copied from <a href="{escape(self._home)}">{escape(self._home)}</a></small></p>\n'
        return self._listed("Offline mirror", body + site, "index.html")


# The target


def look(target: str) -> dict[str, Any] | None:
    """Return what the mirror at target says of itself, or None when nothing is there. Raises MirrorError for anything else."""
    parent = os.path.dirname(target)
    if not os.path.isdir(parent):
        raise MirrorError(f"The directory {parent}, where the mirror {os.path.basename(target)} shall be, does not exist; make it first.")
    here = os.path.realpath(parent)
    while True:
        state = os.stat(here)
        if state.st_uid not in (0, os.geteuid()) or (state.st_mode & 0o022 and not state.st_mode & stat.S_ISVTX):
            raise MirrorError(f"Others may write in {here}, so no mirror is written below it; name a directory that belongs to root.")
        if here == "/":
            break
        here = os.path.dirname(here)
    try:
        state = os.lstat(target)
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(state.st_mode) or state.st_uid not in (0, os.geteuid()):
        raise MirrorError(f"{target} exists and is no directory of ours, so it is left alone; name another one.")
    try:
        marker: dict[str, Any] = _repository.load_json(os.path.join(target, MARKER))
        return {"site": str(marker["site"]), "events": list(marker["events"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MirrorError(f"{target} exists and is no mirror (it has no {MARKER} of ours), so it is left alone; name another one.") from error


def same(one: str, other: str) -> bool:
    """Return whether two directories hold the same files. Anything that is neither a file nor a directory is a difference."""

    def names(root: str) -> dict[str, int]:
        found = {}
        for directory, directories, files in os.walk(root):
            for name in [*directories, *files]:
                path = os.path.join(directory, name)
                found[os.path.relpath(path, root)] = stat.S_IFMT(os.lstat(path).st_mode)
        return found

    files = names(one)
    if files != names(other) or not set(files.values()) <= {stat.S_IFREG, stat.S_IFDIR}:
        return False
    return all(filecmp.cmp(os.path.join(one, name), os.path.join(other, name), shallow=False) for name, kind in files.items() if kind == stat.S_IFREG)


def exchange(new: str, target: str) -> None:
    """Put new in the place of target, and target, if there is one, in the place of new, in one step. Raises MirrorError."""
    if not os.path.lexists(target):
        os.rename(new, target)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(new), -100, os.fsencode(target), 2):  # AT_FDCWD, RENAME_EXCHANGE
        why = os.strerror(ctypes.get_errno())
        raise MirrorError(f"The file system of {target} cannot exchange two directories ({why}); put the mirror on a local one.")


@contextlib.contextmanager
def _beside(target: str) -> Iterator[str]:
    """Yield a new directory beside target, alone in this work. It is removed at the end, and what a run that was killed left goes first."""
    parent, name = os.path.split(target)
    new = os.path.join(parent, f".{name}.confops-new")
    descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MirrorError(f"Another run writes a mirror in {parent}; wait for its end.") from error
        if os.path.lexists(new):
            shutil.rmtree(new)
        os.mkdir(new, 0o700)
        try:
            yield new
        finally:
            if os.path.lexists(new):
                shutil.rmtree(new)
    finally:
        os.close(descriptor)


def counted(root: str) -> tuple[int, int]:
    """Return how many files lie below root, and their bytes."""
    sizes = [os.lstat(os.path.join(directory, name)).st_size for directory, _directories, files in os.walk(root) for name in files]
    return len(sizes), sum(sizes)


def stored(place: str) -> bool:
    """Return whether a place in a mirror is one of the files that people stored, which stay as they are."""
    return re.match(r"event/[^/]+/files/", place) is not None


def write(target: str, found: dict[str, Any], visitor: Visitor, public_url: str, *, protected: bool = False) -> dict[str, Any]:
    """Mirror the events that SCRIPT found; with protected, for root's eyes only. Return changed, target, events, files, bytes and elsewhere.

    Raises MirrorError: then target is as it was.
    """
    look(target)
    events = found["events"]
    target = os.path.join(os.path.realpath(os.path.dirname(target)), os.path.basename(target))
    try:
        _repository.need_room("A mirror", sum(one["size"] or 0 for event in events for one in event["files"]), os.path.dirname(target))
    except _repository.RepositoryError as error:
        raise MirrorError(str(error)) from error
    mask = os.umask(0o022)
    try:
        with _beside(target) as new:
            crawl = Crawl(visitor, public_url, events, new)
            crawl.run()
            marker = {"format": 1, "site": public_url, "events": [event["id"] for event in events], "protected": protected}
            crawl._write(MARKER, json.dumps(marker, indent=2) + "\n")
            broken = _links.check(new, stored)
            if broken or crawl.failed:
                raise MirrorError(_sentence(target, broken, crawl), broken)
            result: dict[str, Any] = {
                "target": target,
                "events": [],
                "elsewhere": [{"url": crawl._home + key, "why": why} for key, why in sorted(crawl.elsewhere.items())],
            }
            for event in events:
                files, size = counted(os.path.join(new, "event", safe_name(event["id"])))
                result["events"].append({"id": event["id"], "title": event["title"], "start": event["start"], "files": files, "bytes": size})
            result["files"], result["bytes"] = counted(new)
            result["changed"] = not (os.path.isdir(target) and same(new, target))
            if result["changed"]:
                os.chmod(new, 0o700 if protected else 0o755)  # anybody may read what any visitor may see
                os.sync()  # what is on disk when the power goes is the old mirror or all of the new one
                exchange(new, target)
            return result
    finally:
        os.umask(mask)


def _sentence(target: str, broken: list[dict[str, str]], crawl: Crawl) -> str:
    links = [f"{one['link']} on {one['page']} ({one['why']})" for one in broken]
    lines = [f"{crawl._home}{key}: {why}" for key, why in sorted(crawl.failed.items())]
    told = [*lines, *(links if not lines else [])]
    rest = f" and {len(told) - 5} more" if len(told) > 5 else ""
    return f"{len(broken)} links of the new mirror are broken, so {target} is as it was. {'; '.join(told[:5])}{rest}."


def mirror(options: dict[str, Any], *, check: bool) -> dict[str, Any]:
    """Do what module indico_mirror is asked for and return its result. Raises MirrorError, IndicoError or OSError."""
    start = time.monotonic()
    target, day = os.path.normpath(options["target"]), options["day"]
    try:
        day = day and date.fromisoformat(day).isoformat()
    except ValueError as error:
        raise MirrorError(f"{day} is no day; write it as 2013-05-28.") from error
    if options["days"] < 1:
        raise MirrorError(f"{options['days']} days hold no event; name 1 or more.")
    if not os.path.isabs(target) or target == "/":
        raise MirrorError(f"{options['target']} is no place for a mirror; name a directory by its whole path.")
    if not _indico.installed(options["current"]):
        raise MirrorError(f"There is no configured release at {options['current']}, so there are no events.")
    present = look(target)
    asked = {
        "day": day or "",
        "days": options["days"],
        "categories": options["categories"],
        "events": list(dict.fromkeys(options["events"] or [])),
        "protected": options["protected"],
        "address": _ADDRESS,
    }
    found = _indico.run(SCRIPT, asked, current=options["current"], user=options["user"], timeout=600)
    if check:
        events = [{name: event[name] for name in ("id", "title", "start")} for event in found["events"]]
        changed = present is None or present["events"] != [event["id"] for event in events]
        return {
            "changed": changed,
            "target": target,
            "events": events,
            "left_out": found["left_out"],
            "line": f"would be mirrored in {target}: {_titles(events)}",
        }
    result = write(target, found, Visitor(options["url"], options["public_url"]), options["public_url"], protected=options["protected"])
    seconds = round(time.monotonic() - start, 1)
    events = result["events"]
    size = f"{len(events)} event{'' if len(events) == 1 else 's'}, {result['files']} files, {human(result['bytes'])}"
    line = f"{size} in {target}, no broken link, {seconds} s: {_titles(events)}"
    return {**result, "left_out": found["left_out"], "broken": [], "seconds": seconds, "line": line}


def _titles(events: list[dict[str, Any]]) -> str:
    return ", ".join(f"{event['id']} {event['title']}" for event in events) or "no event"
