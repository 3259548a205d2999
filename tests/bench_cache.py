"""Requests per second with each cache that Indico may have. `make bench-cache` runs it; it prints figures and judges nothing.

The host is the one of the scenario `default`, booted and filled first and removed at the end; INVENTORY=... measures a host of the lab that is there.
Each request carries the cookie of somebody who is logged in, so each one asks the cache for a session. Files are measured twice: right after the
cache was emptied, and again.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.lib.browser import Browser
from tests.lib.site import Site

REPOSITORY = Path(__file__).resolve().parents[1]
SECONDS, CONNECTIONS = 5, 4
# wrk's own report has no 95th percentile.
REPORT = """
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("\\nFIGURES %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(95),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


def run(site: Site, playbook: str, **extra: object) -> None:
    """Run a playbook; end with what it said when it fails."""
    done = site.play(playbook=playbook, **extra)
    if done.returncode:
        sys.exit("\n".join(done.failures) or done.output)


def log_in(site: Site) -> Browser:
    browser = site.browser()
    browser.wait("/", in_a_row=5)
    if browser.log_in("bruno", site.password("demo")) != "in":
        sys.exit("The sample user bruno cannot log in.")
    return browser


def measure(browser: Browser, path: str, script: str) -> tuple[float, float, int]:
    """Return requests per second, the 95th percentile in milliseconds, and how many went wrong."""
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.session.cookies)
    headers = [word for name, value in {**browser.session.headers, "Cookie": cookies}.items() for word in ("--header", f"{name}: {value!s}")]
    command = ["wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{SECONDS}s", "--script", script, *headers, browser.base_url + path]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    requests, microseconds, percentile, wrong = map(int, re.findall(r"^FIGURES (\d+) (\d+) (\d+) (\d+)$", done.stdout, re.MULTILINE)[0])
    return requests / microseconds * 1e6, percentile / 1000, wrong


def compare(site: Site) -> None:
    redis = {"indico_redis_password": "a-password-of-the-benchmark"}
    events = re.findall(r"/event/\d+/", log_in(site).get("/category/2/overview?period=year").text + log_in(site).get("/category/2/").text)
    paths = {"home page": "/", "category": "/category/2/", "event": sorted(set(events))[0], "HTTP API": "/export/categ/0.json"}
    print(f"{SECONDS} s each, {CONNECTIONS} connections, {os.cpu_count()} processors", flush=True)
    print(f"{'':16}" + "".join(f"{name:>26}" for name in paths) + f"\n{'':16}" + f"{'requests/s    p95 ms':>26}" * len(paths), flush=True)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(REPORT)
        script.flush()
        for backend, ways in (("files", ("cold", "warm")), ("memcached", ("warm",)), ("redis", ("warm",))):
            run(site, "site.yml", indico_cache_backend=backend, **(redis if backend == "redis" else {}))
            browser = log_in(site)
            for path in paths.values():
                browser.wait(path, in_a_row=8)
            for way in ways:
                figures = []
                for path in paths.values():
                    if way == "cold":
                        site.run(f"find {site.prefix}/cache -mindepth 1 -type f ! -path '*/flask-session/*' -delete")
                    figures.append(measure(browser, path, script.name))
                line = "".join(f"{rate:16.1f}{slow:10.0f}" for rate, slow, _wrong in figures)
                wrong = sum(wrong for _rate, _slow, wrong in figures)
                print(f"{backend + (' ' + way if len(ways) > 1 else ''):16}{line}{f'   {wrong} went wrong' if wrong else ''}", flush=True)


def main() -> None:
    given = os.environ.get("INVENTORY")
    site = Site.read(Path(given or REPOSITORY / "molecule/default/inventory").resolve())
    if not given:
        for playbook in ("lab/down.yml", "lab/up.yml", "site.yml", "lab/seed.yml"):
            run(site, playbook)
    compare(site)
    run(site, "site.yml" if given else "lab/down.yml")


if __name__ == "__main__":
    main()
