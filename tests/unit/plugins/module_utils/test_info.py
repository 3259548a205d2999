"""What status says, from a host made of a directory and a small web server."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _info

GOOD: dict[str, Any] = {
    "releases": {"current": {"name": "1.2.2-abc", "path": "/opt/indico/releases/1.2.2-abc", "version": "1.2.2"}},
    "debian_packages": {"python2.7": "2.7.18"},
    "units": [
        {
            "name": "apache2.service",
            "active": "active",
            "sub": "running",
            "enabled": True,
            "since": "2026-01-02T03:04:05Z",
            "restarts": 2,
            "memory_bytes": 2**20,
        }
    ],
    "storages": [{"name": "main", "port": 9675, "bytes": 3 * 2**30, "last_transaction": {"time": "2026-01-02T03:04:06Z"}, "error": None}],
    "page": {"url": "https://127.0.0.1", "status": 200, "seconds": 0.1234, "error": None},
    "maintenance": None,
    "sizes": {"archive": 5 * 2**40, "cache": 512},
    "file_system": {"total_bytes": 2**40, "free_bytes": 2**39},
}
GOOD["units"][0]["memory_bytes"] = 2**20
UNIT, STORAGE = GOOD["units"][0], GOOD["storages"][0]


def test_summary() -> None:
    assert _info.summary(GOOD) == [
        "indico 1.2.2 in /opt/indico/releases/1.2.2-abc",
        "python2.7 2.7.18",
        "apache2.service: active, since 2026-01-02T03:04:05Z, 1.00 MB, restarted 2 times",
        "storage main: 3.00 GB, port 9675, last transaction 2026-01-02T03:04:06Z",
        "home page: 200 in 0.12 s from https://127.0.0.1",
        "on disk: archive 5.00 TB, cache 512 bytes",
        "free: 512.00 GB of 1.00 TB",
    ]


def test_summary_of_what_was_deployed() -> None:
    deployed = {"action": "deploy", "who": "ada", "where": "control1", "ended": "2026-01-02T03:04:05Z", "from": "1.2.2-000"}
    known = {"source": "/srv/indico.git", "commit": "7c2a3f0b1f7f0f", "patches": [{"name": "a.patch"}], "extra_packages": ["plugin==1.0"], "deployed": deployed}
    current = {**GOOD["releases"]["current"], **known}
    lock = {"who": "bruno", "where": "control2", "began": "2026-01-02T03:05:00Z", "action": "rollback", "release": "1.2.2-000"}
    assert _info.summary({**GOOD, "releases": {"current": current}, "deployment": lock})[:2] == [
        "indico 1.2.2 in /opt/indico/releases/1.2.2-abc, commit 7c2a3f0b1f7f of /srv/indico.git, with a.patch, and plugin==1.0,"
        " deployed by ada at control1 2026-01-02T03:04:05Z",
        "bruno at control2 is at the releases since 2026-01-02T03:05:00Z (rollback 1.2.2-000)",
    ]


def test_summary_of_an_empty_host() -> None:
    nothing = {"releases": {}, "debian_packages": {}, "units": [], "storages": [], "page": None, "maintenance": None, "sizes": {}}
    empty = {**nothing, "file_system": GOOD["file_system"]}
    assert _info.summary(empty) == ["nothing is installed here", "free: 512.00 GB of 1.00 TB"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"units": [{**UNIT, "active": "failed", "sub": "failed"}]}, "apache2.service is failed (failed)."),
        ({"units": [{**UNIT, "enabled": False}]}, "apache2.service would not start at boot."),
        ({"storages": [{**STORAGE, "error": "no such file"}]}, "The storage main cannot be read: no such file"),
        ({"page": {**GOOD["page"], "status": 500}}, "The home page at https://127.0.0.1 answered with 500."),
        ({"page": {**GOOD["page"], "status": None, "error": "refused"}}, "The home page at https://127.0.0.1 answered nothing: refused."),
    ],
)
def test_a_problem_is_a_sentence(change: dict[str, Any], sentence: str) -> None:
    assert _info.problems(GOOD) == []
    assert _info.problems({**GOOD, **change}) == [sentence]
    assert _info.summary({**GOOD, **change})


def test_a_transaction_ahead_of_the_clock_is_a_problem() -> None:
    """B9."""
    ahead = {**STORAGE, "ahead_seconds": 7200.0}
    (sentence,) = _info.problems({**GOOD, "storages": [ahead]})
    assert sentence.startswith("The storage main: the newest transaction is of 2026-01-02T03:04:06Z, 2.0 hours ahead of this host's clock: ")
    assert _info.problems({**GOOD, "storages": [{**STORAGE, "ahead_seconds": 1.0}]}) == []


def test_what_restores_put_aside_is_listed(tmp_path: Path) -> None:
    """O21."""
    (tmp_path / "db/main").mkdir(parents=True)
    (tmp_path / "db/main/Data.fs").write_bytes(b"x")
    (tmp_path / "db/main/Data.fs.replaced-2026-03-01-11-20-40").write_bytes(b"x" * 100)
    (tmp_path / "db/main/Data.fs.failed-2026-13-01-11-20-40").write_bytes(b"x")  # no moment
    kept = tmp_path / "archive.failed-2026-02-01-00-00-00"
    (kept / "2026").mkdir(parents=True)
    (kept / "2026/file").write_bytes(b"x" * 7)
    found = _info.replaced(str(tmp_path))
    assert [(one["path"], one["bytes"], one["moment"]) for one in found] == [
        (str(kept), 7, "2026-02-01T00:00:00Z"),
        (f"{tmp_path}/db/main/Data.fs.replaced-2026-03-01-11-20-40", 100, "2026-03-01T11:20:40Z"),
    ]
    lines = _info.summary({**GOOD, "replaced": found})
    assert f"  {kept}, 7 bytes, {found[0]['age_days']:.0f} days old" in lines
    assert "put aside by restores (playbooks/cleanup.yml -e what=replaced removes them):" in lines
    assert _info.replaced(str(tmp_path / "none")) == []


def test_maintenance_is_told_and_no_problem() -> None:
    scheduler = {**UNIT, "name": "indico-scheduler.service", "active": "inactive", "sub": "dead", "since": None}
    closed = {**GOOD, "units": [UNIT, scheduler], "page": {**GOOD["page"], "status": 503}}
    assert _info.problems(closed) == ["indico-scheduler.service is inactive (dead).", "The home page at https://127.0.0.1 answered with 503."]
    closed["maintenance"] = {"since": "2026-01-02T03:04:05Z", "retry_after": 3600}
    assert _info.problems(closed) == []
    assert "maintenance is on since 2026-01-02T03:04:05Z: visitors get 503 and the scheduler pauses" in _info.summary(closed)
    # What is no part of it stays one.
    broken = {**closed, "units": [{**UNIT, "active": "inactive", "sub": "dead"}, {**scheduler, "active": "failed", "sub": "failed"}]}
    assert _info.problems({**broken, "page": {**GOOD["page"], "status": 500}}) == [
        "apache2.service is inactive (dead).",
        "indico-scheduler.service is failed (failed).",
        "The home page at https://127.0.0.1 answered with 500.",
    ]


def test_maintenance_is_read_from_its_file(tmp_path: Path) -> None:
    assert _info.maintenance(str(tmp_path)) is None
    (tmp_path / "etc/maintenance").mkdir(parents=True)
    (tmp_path / "etc/maintenance/on").write_text("1800")
    os.utime(tmp_path / "etc/maintenance/on", (0, 0))
    assert _info.maintenance(str(tmp_path)) == {"since": "1970-01-01T00:00:00Z", "retry_after": 1800}
    (tmp_path / "etc/maintenance/on").write_text("")
    assert (_info.maintenance(str(tmp_path)) or {})["retry_after"] is None


def test_releases_and_their_packages(tmp_path: Path) -> None:
    packages = tmp_path / "releases/1.2.2-abc/lib/python2.7/site-packages"
    for name in ("indico-1.2.2.dist-info", "zc.queue-1.3.dist-info", "indico_fonts-1.1.dist-info", "indico", "six.py"):
        (packages / name).mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/1.2.2-abc")
    (tmp_path / "zeo").symlink_to("releases/gone")
    release = str(tmp_path / "releases/1.2.2-abc")
    assert _info.releases(str(tmp_path)) == {"current": {"name": "1.2.2-abc", "path": release, "version": "1.2.2"}}
    assert _info.packages(release) == {"indico": "1.2.2", "indico-fonts": "1.1", "zc.queue": "1.3"}
    assert _info.packages(str(tmp_path / "releases/gone")) == {}


def test_a_database_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "db/main").mkdir(parents=True)
    (tmp_path / "db/main/Data.fs").write_bytes(b"FS21")
    (tmp_path / "db/odd").mkdir()
    (tmp_path / "db/odd/Data.fs").write_bytes(b"garbage")
    main, odd, gone = _info.databases(str(tmp_path), [{"name": name, "port": "9675"} for name in ("main", "odd", "gone")])
    assert (main["bytes"], main["last_transaction"], main["error"]) == (4, None, None)
    assert "odd/Data.fs is no FileStorage" in odd["error"]
    assert "No such file" in gone["error"]


def test_sizes_count_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "archive/2016").mkdir(parents=True)
    (tmp_path / "archive/2016/file").write_bytes(b"x" * 100_000)
    found = _info.sizes(str(tmp_path))
    assert list(found) == ["archive"]
    assert 100_000 <= found["archive"] < 150_000
    assert _info.sizes(str(tmp_path / "nowhere")) == {}
    nowhere, here = (_info.file_system(str(path)) for path in (tmp_path / "nowhere/at/all", tmp_path))
    assert nowhere["total_bytes"] == here["total_bytes"]  # what is free changes all the time
    assert 0 < nowhere["free_bytes"] < here["total_bytes"]


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            named = self.headers["Host"] == "indico.example.org" and self.headers["X-Forwarded-Proto"] == "https"
            status = {"/": 200 if named else 404, "/moved": 301}.get(self.path, 500)
            self.send_response(status)
            self.send_header("Location", "/")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/moved", 301), ("/broken", 500)])
def test_page_is_asked_for_under_its_public_name(server: str, path: str, status: int) -> None:
    answer = _info.page(server + path, "https://indico.example.org/events", 5)
    assert (answer["status"], answer["error"]) == (status, None)
    assert 0 <= answer["seconds"] < 5


def test_page_of_a_dead_server() -> None:
    answer = _info.page("http://127.0.0.1:9", "http://127.0.0.1:9", 5)
    assert answer["status"] is None
    assert "refused" in answer["error"]
