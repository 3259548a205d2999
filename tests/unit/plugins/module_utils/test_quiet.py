"""A closed site comes to rest: its workers end, nobody stays at the databases, and nobody waits for ever (O8)."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.confops.indico.plugins.module_utils import _quiet, _units
from ansible_collections.confops.indico.plugins.module_utils._quiet import QuietError
from ansible_collections.confops.indico.plugins.modules import indico_quiet

ME = pwd.getpwuid(os.geteuid()).pw_name
# A process with a worker's title. It maps its argument, as one does that has loaded a library, and heeds the signals that are not in the second.
_WORKER = r"""
import mmap, signal, sys, time
library = open(sys.argv[1], "rb")
kept = mmap.mmap(library.fileno(), 0, access=mmap.ACCESS_READ)
for name in sys.argv[2].split():
    signal.signal(getattr(signal, name), signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a worker."""
    started = []

    def begin(*, instance: str = "unit-test", package: str = "persistent", deaf: str = "") -> subprocess.Popen[str]:
        library = tmp_path / f"lib/site-packages/{package}/library.so"
        library.parent.mkdir(parents=True, exist_ok=True)
        library.write_bytes(b"x" * 4096)
        command = ["bash", "-c", 'exec -a "$0" "$@"', f"(wsgi:{instance})", sys.executable, "-c", _WORKER, str(library), deaf]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout and process.stdout.readline() == "ready\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("_CALM", 0.15), ("_TERM", 0.3), ("_KILL", 0.3), ("_PAUSE", 0.02)):
        monkeypatch.setattr(_quiet, name, seconds)


def test_workers_that_have_loaded_indico_end_and_all_others_stay(start: Start) -> None:
    # O8
    loaded = [start(), start()]
    others = [start(package="mod_wsgi"), start(instance="unit-test-2")]
    found = {worker.pid: worker.loaded for worker in _quiet.workers(ME, "unit-test")}
    assert found == {loaded[0].pid: True, loaded[1].pid: True, others[0].pid: False}
    done = _quiet.end(ME, "unit-test", 5)
    assert (done.ended, done.killed) == (sorted(process.pid for process in loaded), [])
    assert [process.wait(5) for process in loaded] == [-signal.SIGUSR1] * 2
    assert [process.poll() for process in others] == [None, None]
    assert _quiet.end(ME, "unit-test", 5).ended == []


@pytest.mark.parametrize(("deaf", "ended_by"), [("SIGUSR1", signal.SIGTERM), ("SIGUSR1 SIGTERM", signal.SIGKILL)])
def test_a_request_that_takes_too_long_is_cut_off(start: Start, deaf: str, ended_by: signal.Signals) -> None:
    # O8
    process = start(deaf=deaf)
    assert _quiet.end(ME, "unit-test", 0.2).killed == [process.pid]
    assert process.wait(5) == -ended_by


def test_a_worker_that_nothing_ends_is_an_error_and_not_a_wait_without_end(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    # B1's kind, O8
    process = start()
    with (
        monkeypatch.context() as deaf,
        pytest.raises(QuietError, match=rf"^The workers {process.pid} of unit-test do not end\. Nothing else was stopped\.$"),
    ):
        deaf.setattr(os, "kill", lambda _pid, _signal: None)
        _quiet.end(ME, "unit-test", 0.1)


def test_a_user_that_the_host_does_not_know_is_named() -> None:
    with pytest.raises(QuietError, match=r"^This host does not know the user nobody-here\.$"):
        _quiet.workers("nobody-here", "indico")


def test_whoever_is_connected_to_a_database_is_named_until_they_go() -> None:
    # O8
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert _quiet.clients([port]) == []
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted = server.accept()[0]
            (found,) = _quiet.clients([port, 1])
            assert found.startswith(f"process {os.getpid()} (")
            with pytest.raises(
                QuietError, match=rf"^The databases are still in use by process {os.getpid()} \(.*\)\. End it, then run this again\. No database was touched\.$"
            ):
                _quiet.alone([port], 0.1)
            threading.Timer(0.2, lambda: (client.close(), accepted.close())).start()
            _quiet.alone([port], 5)
    assert _quiet.clients([]) == []


def test_an_address_of_another_host_counts_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    line = "   0: 0A00000A:25CB 0B00000A:9C40 01 00000000:00000000 00:00000000 00000000   998        0 4711 1 0000000000000000 20 4 30 10 -1\n"
    (tmp_path / "net/tcp").write_text("  sl  local_address rem_address   st\n" + line)
    monkeypatch.setattr(_quiet, "_PROC", str(tmp_path))
    assert _quiet.clients([9675]) == ["1 connection(s) of another host or of a process that has ended"]


@pytest.fixture
def web() -> Iterator[HTTPServer]:
    """An Apache that answers with server.status, and nothing of a site that is not closed when that is 503."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(self.server.status)  # type: ignore[attr-defined]
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_site_that_is_open_all_the_same_is_refused(web: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    # O8: the configuration of Apache may be older than the maintenance page.
    monkeypatch.setattr(_quiet, "_OPEN", 0.2)
    url = f"http://127.0.0.1:{web.server_port}/"
    web.status = 503  # type: ignore[attr-defined]
    _quiet.closed(url, "http://indico.example.org")
    web.status = 200  # type: ignore[attr-defined]
    with pytest.raises(QuietError, match=r"^The home page answers 200 although the site is closed\. Run site\.yml, which brings Apache's configuration"):
        _quiet.closed(url, "http://indico.example.org")


def test_an_apache_that_does_not_run_lets_nobody_in() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    _quiet.closed(f"http://127.0.0.1:{port}/", "http://indico.example.org")


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What systemd says of every unit (state), and what it was told (calls)."""
    told: dict[str, Any] = {"state": "active", "calls": [], "changed": 10**9}

    def answer(told: dict[str, Any]) -> dict[str, str]:
        return {"ActiveState": told["state"], "StateChangeTimestampMonotonic": str(int(told["changed"] * 1e6))}

    monkeypatch.setattr(_units, "show", lambda names, _properties: [answer(told) for _name in names])
    monkeypatch.setattr(_units, "act", lambda verb, name: told["calls"].append((verb, name)))
    return told


@pytest.mark.parametrize(("state", "verb"), [("active", "reload"), ("inactive", "start"), ("failed", "start")])
def test_apache_is_reloaded_or_started_and_all_workers_are_new(systemd: dict[str, Any], monkeypatch: pytest.MonkeyPatch, state: str, verb: str) -> None:
    old, new = _quiet.Worker(1, 10), _quiet.Worker(1, 20)  # the pid was used again
    answers = [[old], [old, new], [], [new]]
    monkeypatch.setattr(_quiet, "workers", lambda _user, _instance: answers.pop(0))
    systemd["state"] = state
    assert _quiet.renew("apache2.service", "indico", "indico", 5) == [1]
    assert (systemd["calls"], answers) == ([(verb, "apache2.service")], [])


def test_an_apache_that_keeps_its_old_workers_is_an_error(systemd: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_quiet, "workers", lambda _user, _instance: [_quiet.Worker(1, 10)])
    for do in (_quiet.renew, _quiet.fresh):
        with pytest.raises(QuietError, match=r"^apache2\.service has not started new workers of indico 0 s after it was told to\. Its log says why\.$"):
            do("apache2.service", "indico", "indico", 0.1)


def test_a_reload_is_over_when_all_workers_are_younger_than_it(start: Start, systemd: dict[str, Any]) -> None:
    process = start()
    now = time.clock_gettime(time.CLOCK_MONOTONIC)
    systemd["changed"] = now - 1
    assert _quiet.fresh("apache2.service", ME, "unit-test", 0.1) == [process.pid]
    systemd["changed"] = now + 5
    with pytest.raises(QuietError, match=r"^apache2"):
        _quiet.fresh("apache2.service", ME, "unit-test", 0.1)


def test_the_prediction_says_what_the_run_does(start: Start, systemd: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    process = start()
    given = {"instance": "unit-test", "user": ME, "scheduler": "indico-scheduler.service"}
    results = []
    for check in (True, False):
        with patch_module_args({**given, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            indico_quiet.main()
        results.append(json.loads(capsys.readouterr().out))
    assert [(one["changed"], one["stopped"], one["ended"]) for one in results] == [(True, ["indico-scheduler.service"], [process.pid])] * 2
    assert systemd["calls"] == [("stop", "indico-scheduler.service")]
