"""Visitors who ask all the time, while something happens to the site."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import requests

from tests.lib.browser import Browser


class Visitors:
    """Ask for pages in some threads, with a new connection for each request, as long as the with block lasts.

    paths are asked for in turn; one that begins with http is a whole address. answers counts what came: status codes, and the names of errors.
    """

    def __init__(self, browser: Browser, *paths: str, number: int = 3, pause: float = 0.4) -> None:
        self.answers: Counter[str] = Counter()
        self.slowest = 0.0
        self._browser, self._pause = browser, pause
        self._addresses = itertools.cycle(path if path.startswith("http") else browser.base_url + path for path in paths)
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _number in range(number)]

    def _ask(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                address = next(self._addresses)
            begun = time.monotonic()
            try:
                answer = str(self._browser.session.get(address, headers={"Connection": "close"}, timeout=60).status_code)
            except requests.RequestException as error:
                answer = repr(error)
            with self._lock:
                self.answers[answer] += 1
                self.slowest = max(self.slowest, time.monotonic() - begun)
            self._stop.wait(self._pause)

    def __enter__(self) -> Visitors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(90)


@contextmanager
def only_closed(browser: Browser, *paths: str) -> Iterator[None]:
    """See that visitors who ask ten times a second get pages or the maintenance page (503), and nothing else (O8)."""
    with Visitors(browser, *paths, number=5, pause=0.4) as visitors:
        yield
    print(dict(visitors.answers), f"slowest {visitors.slowest:.1f} s")
    assert set(visitors.answers) == {"200", "503"}, visitors.answers
