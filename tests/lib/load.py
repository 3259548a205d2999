"""Visitors who ask all the time, while something happens to the site."""

from __future__ import annotations

import threading
import time
from collections import Counter
from types import TracebackType

import requests

from tests.lib.browser import Browser


class Visitors:
    """Ask for a page in some threads, with a new connection for each request, as long as the with block lasts.

    answers counts what came: status codes, and the names of errors.
    """

    def __init__(self, browser: Browser, path: str, number: int = 3, pause: float = 0.4) -> None:
        self.answers: Counter[str] = Counter()
        self.slowest = 0.0
        self._browser, self._path, self._pause = browser, path, pause
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _number in range(number)]

    def _ask(self) -> None:
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                answer = str(self._browser.session.get(self._browser.base_url + self._path, headers={"Connection": "close"}, timeout=60).status_code)
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
