"""Indico as a person sees it: pages, forms and files over HTTP."""

from __future__ import annotations

import html
import re
import ssl
import time
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter


class OnlyCertificate(HTTPAdapter):
    """Trusts the one certificate in a file, which need not be an authority's."""

    def __init__(self, certificate: str) -> None:
        self.certificate = certificate
        super().__init__()

    def init_poolmanager(self, *arguments: object, **options: object) -> None:
        context = ssl.create_default_context(cafile=self.certificate)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        super().init_poolmanager(*arguments, ssl_context=context, **options)


class Browser:
    """One visitor of a site, with cookies of their own.

    base_url is the address that the host answers on, certificate a file with the only certificate that it may show.
    Behind a proxy, headers are what the proxy adds and public_url is the address that the pages speak of;
    links and redirections to it are followed by way of base_url. Paths begin behind the site's own path, if it has one.
    """

    def __init__(self, base_url: str, certificate: str = "", headers: dict[str, str] | None = None, public_url: str = "") -> None:
        self.base_url = base_url.rstrip("/")
        self.public_url = public_url or self.base_url
        self.root = urlsplit(self.base_url).path
        self.session = requests.Session()
        if certificate:
            self.session.verify = certificate
            self.session.mount("https://", OnlyCertificate(certificate))
        self.session.trust_env = False  # or an authority list in the environment would be asked all the same
        self.session.headers.update(headers or {})

    def get(self, path: str) -> requests.Response:
        """Ask for a path or for a public address, following redirections."""
        for _hop in range(10):
            answer = self.session.get(self._here(path), timeout=60, allow_redirects=False, headers=self._cookies())
            if not answer.is_redirect:
                return answer
            path = answer.headers["Location"]
        raise AssertionError(f"{path} redirects for ever")

    def post(self, path: str, data: dict[str, str]) -> requests.Response:
        headers = {"Referer": self.public_url + "/", **self._cookies()}
        return self.session.post(self._here(path), data=data, timeout=60, allow_redirects=False, headers=headers)

    def _here(self, path: str) -> str:
        path = path.removeprefix(self.public_url)
        return self.base_url + (path[len(self.root) :] if self.root and path.startswith(self.root + "/") else path)

    def _cookies(self) -> dict[str, str]:
        # Sent by hand: behind the proxy the cookie is marked secure, while this side speaks plain HTTP.
        return {"Cookie": "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.session.cookies)} if self.session.cookies else {}

    def title(self, path: str) -> str:
        """Return the text of the page's title element; the page must answer 200."""
        page = self.get(path)
        assert page.status_code == 200, f"{path} answered {page.status_code}: {page.text[:500]}"
        match = re.search(r"<title>(.*?)</title>", page.text, re.DOTALL)
        assert match, f"{path} has no title"
        return html.unescape(match.group(1)).strip()

    def log_in(self, login: str, password: str) -> str:
        """Send the login form. Return 'in' or what the page says instead."""
        answer = self.post("/user/login", {"login": login, "password": password})
        if answer.status_code in (302, 303):
            return "in"
        match = re.search(r"Wrong login or password", answer.text)
        return match.group(0) if match else answer.text

    def create_meeting(self, title: str, category: str = "0") -> str:
        """Create a meeting through the web form, as the user that is logged in. Return its id."""
        form = {
            "event_type": "meeting", "categId": category, "title": title, "description": "", "ok": "ok",
            "sDay": "3", "sMonth": "4", "sYear": "2017", "sHour": "9", "sMinute": "0",
            "eDay": "3", "eMonth": "4", "eYear": "2017", "eHour": "18", "eMinute": "0",
            "Timezone": "Europe/Zurich", "keywords": "", "eventProtection": "inherit",
            "chairperson": "[]", "allowedUsers": "[]",
            "locationName": "", "locationAddress": "", "roomName": "",
        }  # fmt: skip
        answer = self.post("/event/create/save", form)
        match = re.search(r"/event/(\w+)/manage", answer.headers.get("Location", ""))
        assert match, f"creating an event answered {answer.status_code}: {answer.text[:2000]}"
        return match.group(1)

    def wait(self, path: str = "/", seconds: float = 60, in_a_row: int = 1) -> float:
        """Ask for a page until it answers 200, so many times in a row. Return the seconds that took; fail with the last answer that was another one."""
        start, last, well = time.monotonic(), "no answer", 0
        while time.monotonic() - start < seconds:
            try:
                page = self.get(path)
                well = well + 1 if page.status_code == 200 else 0
                if well == in_a_row:
                    return time.monotonic() - start
                if well:
                    continue
                last = f"{page.status_code} {page.text[:200]}"
            except requests.RequestException as error:
                last, well = str(error), 0
            time.sleep(0.2)
        raise AssertionError(f"{self.base_url}{path} did not answer within {seconds} s, last: {last}")
