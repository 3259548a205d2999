"""Asking ZEO servers: why one does not answer, what one counts, and the command on the host. The servers are real ones of ZEO 5 and 6."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.confops.indico.plugins.module_utils import _filestorage, _history, _zeo, _zeo_command, _zeo_info, _zeo_standby, _zeopack
from ansible_collections.confops.indico.plugins.module_utils._backup_status import CRITICAL, OK, UNKNOWN, WARNING
from ansible_collections.confops.indico.plugins.module_utils._zeo import Server, ZeoError
from ansible_collections.confops.indico.plugins.module_utils._zeo_info import Limits
from ansible_collections.confops.indico.plugins.modules import zeo_info

from tests.unit.zeo_server import Live, answering

LOGIN = Server("db1:9675", "1", "worker", "s3cret", "indico")
GOOD: dict[str, Any] = {
    "name": "main",
    "error": None,
    "clients": 3,
    "bytes": 1000,
    "read_only": False,
    "lock_held_seconds": 0.0,
    "waiting_transactions": 0,
    "timeout_thread_alive": True,
    "last_transaction": {"tid": "03f9d0a41c3b5d55", "time": "2026-11-26T03:12:05Z"},
}


NEWEST = pytest.mark.parametrize("live", ["zodb6"], indirect=True)


@pytest.fixture(params=["zodb5", "zodb6"])
def live(tmp_path: Path, environment: Callable[[str], Path], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Live:
    monkeypatch.setattr(_zeo, "UNPRIVILEGED", "root")  # nobody else may look into root's cache, where the environments are
    return Live(tmp_path, environment(request.param))


def settings(live: Live, **other: Any) -> str:
    """Write the settings of a host that has the server, and return their path."""
    path = live.directory / "zeo.json"
    servers = [{"name": "main", "address": live.address, "database": str(live.database)}]
    files = {"metrics": str(live.directory / "zeo.prom"), "following": str(live.directory / "following.json")}
    whole = {"instance": "indico", "python": live.python, "time_limit": 10, "servers": servers, **files, **other}
    path.write_text(json.dumps(whole))
    return str(path)


# Connecting


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("AuthError", "empty username or password", "asks for a user and a password, and no password was given."),
        ("AuthError", "Authentication failed", "refuses the user worker with this password."),
        ("LookupError", "No such user: worker", "refuses the user worker with this password."),
        ("AuthError", "expected realm 'zope', got realm 'indico'", "has the realm zope, not indico: its users and passwords belong to that."),
        ("ValueError", "unknown storage: 1", "has no storage named 1."),
        ("ServerException", "('builtins.ValueError', ('unknown storage_id: 1',))", "has no storage named 1."),
        ("KeyError", "'x'", "refuses the connection: KeyError: 'x'."),
    ],
)
def test_the_reason_that_zeo_keeps_to_itself(name: str, text: str, sentence: str) -> None:
    assert _zeo._why("/p", LOGIN, "Z3101", name, text) == f"The ZEO server at db1:9675 {sentence}"


def test_no_login_at_all() -> None:
    found = _zeo._why("/p", Server("db1:9675"), "Z3101", "AuthError", "empty username or password")
    assert found == "The ZEO server at db1:9675 asks for a user and a password, and none was given."


@pytest.mark.parametrize("address", ["9675", "db1", "db1:0", "db1:70000", "db/zeo.sock", ""])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ZeoError, match="is no address of a ZEO server: it must be host:port, or the absolute path of a socket"):
        Server(address).place()


def test_addresses() -> None:
    assert Server("[::1]:9675").place() == ("::1", 9675)
    assert Server("db1:9675").place() == ("db1", 9675)
    assert Server("/run/zeo").place() == "/run/zeo"


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH\r\n", b"", b"\x00\x00\x00\x05abcde", b"\x00\x00"])
def test_what_answers_is_no_zeo_server(said: bytes) -> None:
    with answering(said) as server, pytest.raises(ZeoError, match=rf"^What answers at {server.address} is no ZEO server\.$"):
        _zeo.greet(server, 5)


def test_a_server_that_accepts_and_says_nothing(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "zeo"))
        listener.listen()
        with pytest.raises(ZeoError, match="accepts connections, but does not answer within 1 s: it hangs, or is no ZEO server"):
            _zeo.greet(Server(str(tmp_path / "zeo")), 1)
    with pytest.raises(ZeoError, match="refuses connections: it does not run, or listens elsewhere"):
        _zeo.greet(Server(str(tmp_path / "zeo")), 1)
    with pytest.raises(ZeoError, match=r"^There is no socket /none/zeo: the ZEO server does not run\.$"):
        _zeo.greet(Server("/none/zeo"), 1)


def test_a_name_without_an_address() -> None:
    with pytest.raises(ZeoError, match="cannot be found: its name has no address"):
        _zeo.greet(Server("none.invalid:9675"), 5)


@NEWEST
def test_a_server_of_another_protocol(live: Live) -> None:
    with answering(b"\x00\x00\x00\x05Z3101") as server:
        (found,) = _zeo_info.info(live.python, {"old": server})
    assert f"offers the protocol Z3101, and {live.python} did not get on with it" in found["error"]


@NEWEST
def test_an_interpreter_without_zeo(live: Live) -> None:
    live.make("commit(1, 1)")
    with live.running():
        (found,) = _zeo_info.info("/usr/bin/python3", {"main": live.server})
        (none,) = _zeo_info.info("/none/python", {"main": live.server})
    assert found["error"].startswith("/usr/bin/python3 has no ZEO (No module named 'ZEO'")
    assert "/none/python" in none["error"]


def test_passwords_come_on_standard_input_only(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text(
        '#!/bin/sh\ntr "\\0" "\\n" < /proc/$$/cmdline > ' + f"{tmp_path}/seen\nenv >> {tmp_path}/seen\ncat > {tmp_path}/stdin\n" + "echo '{\"answer\": {}}'\n"
    )
    fake.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_zeo, "UNPRIVILEGED", "root")
        with answering(b"\x00\x00\x00\x02Z5") as server:
            reply = _zeo.ask(str(fake), Server(server.address, "1", "worker", "s3cret", "indico"), "", time_limit=5)
    assert reply.answer == {}
    assert "s3cret" not in (tmp_path / "seen").read_text()
    assert json.loads((tmp_path / "stdin").read_text())["password"] == "s3cret"
    assert "s3cret" not in repr(LOGIN)


def test_what_takes_too_long_ends_with_all_that_it_started(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\nsleep 1000 &\necho $! > {tmp_path}/child\nwait\n")
    fake.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_zeo, "UNPRIVILEGED", "root")
        assert _zeo.run(str(fake), "", {}, time_limit=1).late
    state = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    deadline = time.monotonic() + 10  # a signal takes its time on a busy machine
    while state.exists() and state.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


# What a server counts


def test_figures(live: Live) -> None:
    live.make("for number in range(5): commit(number, 500)")
    with live.running():
        found = _zeo_info.info(live.python, {"main": live.server, "rooms": Server(live.address, "rooms")})
        ours, other = found
    size = live.database.stat().st_size
    assert (ours["error"], ours["protocol"], ours["clients"], ours["read_only"], ours["bytes"]) == (None, "Z5", 0, False, size)
    assert (ours["lock_held_seconds"], ours["waiting_transactions"], ours["commits"], ours["objects"]) == (0.0, 0, 0, 2)
    last = _filestorage.last_transaction(str(live.database))
    assert last is not None
    assert ours["last_transaction"] == {"tid": last.tid, "time": last.data()["time"]}
    assert other == {"name": "rooms", "address": live.address, "storage": "rooms", "error": f"The ZEO server at {live.address} has no storage named rooms."}
    assert _zeo_info.summary(found) == f"main 0 clients, {size} bytes, to {ours['last_transaction']['time']}; rooms does not answer"


def test_a_server_that_takes_nothing_in(live: Live) -> None:
    live.make("commit(1, 500)")
    with live.running(read_only=True):
        (found,) = _zeo_info.info(live.python, {"main": live.server})
    assert (found["error"], found["read_only"], found["clients"]) == (None, True, 0)
    assert _zeo_info.summary([found]).endswith(", read-only")


@NEWEST
def test_a_database_without_transactions(live: Live) -> None:
    live.database.write_bytes(b"FS30")
    with live.running():
        (found,) = _zeo_info.info(live.python, {"main": live.server})
        assert _zeo_info.lag(live.python, live.server, "") == (0, 0.0)
    assert (found["error"], found["last_transaction"], found["objects"]) == (None, None, 0)
    assert "last_transaction" not in _zeo_info.metrics("indico", [found])


@NEWEST
def test_how_far_a_copy_is_behind(live: Live) -> None:
    live.make("for number in range(4): commit(number, 500)")
    with live.running():
        (found,) = _zeo_info.info(live.python, {"main": live.server})
        newest = found["last_transaction"]["tid"]
        older = _history.limit_of(_filestorage.time_of(bytes.fromhex(newest)) - timedelta(minutes=256)).hex()
        assert _zeo_info.lag(live.python, live.server, newest) == (0, 0.0)
        transactions, seconds = _zeo_info.lag(live.python, live.server, older)
    assert transactions == 5  # the first one makes the root
    assert seconds == pytest.approx(256 * 60, abs=0.01)
    text = _zeo_info.metrics("indico", [found], {"main": (transactions, 61.5)})
    assert 'indico_zeo_replication_lag_transactions{instance_name="indico",storage="main"} 5' in text
    assert 'indico_zeo_replication_lag_seconds{instance_name="indico",storage="main"} 61.5' in text


@pytest.mark.parametrize(
    ("change", "code", "sentence"),
    [
        ({}, OK, "OK: main 3 clients, 1000 bytes, to 2026-11-26T03:12:05Z"),
        ({"error": "It is dead."}, CRITICAL, "CRITICAL: main: It is dead"),
        ({"lock_held_seconds": 31.0}, WARNING, "WARNING: main: one transaction has held the commit lock for 31 s"),
        ({"lock_held_seconds": 301.0}, CRITICAL, "CRITICAL: main: one transaction has held the commit lock for 301 s, and nobody else can commit"),
        ({"waiting_transactions": 10}, WARNING, "WARNING: main: 10 transactions wait for the commit lock"),
        (
            {"timeout_thread_alive": False, "waiting_transactions": 12},
            CRITICAL,
            "CRITICAL: main: the thread that ends transactions which take too long is dead; the server must be started anew;"
            " main: 12 transactions wait for the commit lock",
        ),
        ({"timeout_thread_alive": None}, OK, "OK: main 3 clients, 1000 bytes, to 2026-11-26T03:12:05Z"),
    ],
)
def test_the_judgement_of_a_check(change: dict[str, Any], code: int, sentence: str) -> None:
    assert _zeo_info.judge([{**GOOD, **change}], Limits()) == (code, sentence)
    assert bool(_zeo_info.problems([{**GOOD, **change}])) == (code != OK)


def test_no_limits_no_questions() -> None:
    bad = {**GOOD, "lock_held_seconds": 9999.0, "waiting_transactions": 9999}
    assert _zeo_info.problems([bad], Limits(0, 0, 0)) == []


# The server's database and the file at its path


def replace(live: Live) -> None:
    """Do what `cp Data.fs x; rm Data.fs; mv x Data.fs` does while the server runs."""
    copy = live.directory / "x"
    shutil.copy(live.database, copy)
    live.database.unlink()
    copy.rename(live.database)


def commit(live: Live) -> None:
    """Commit through the server, as an application does."""
    script = "storage = connected(False)\nfrom ZODB.DB import DB\nwith DB(storage).transaction() as connection:\n    connection.root()['x'] = 1\n"
    assert _zeo.ask(live.python, live.server, script + "answer()\n", time_limit=20).answer == {}


def test_a_database_that_is_replaced_under_its_server_is_critical(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    """B7: at once, by what the server has open, and after the next commit by the transactions, too."""
    live.make("commit(1, 500)")
    path = settings(live)
    with live.running():
        assert _zeo_info.replaced(path, ["main"]) == []
        replace(live)
        (sentence,) = _zeo_info.replaced(path, ["main"])
        assert f"Process {live.process.pid} serves another file than the one at {live.database}" in sentence
        saved = Path(re.findall(r"copy (/proc/\d+/fd/\d+) ", sentence)[0])
        commit(live)
        told = _zeo_info.info(live.python, {"main": live.server})[0]["last_transaction"]["tid"]
        last = _filestorage.last_transaction(str(saved))
        assert last is not None and last.tid == told
        assert _zeo_command.main(path, ["check"]) == CRITICAL
        assert capsys.readouterr().out.startswith(f"CRITICAL: main: Process {live.process.pid} serves another file ")
        assert _zeo_command.main(path, ["metrics"]) == 0
        assert 'indico_zeo_file_replaced{instance_name="indico",storage="main"} 1\n' in (live.directory / "zeo.prom").read_text()
        assert _zeo_info.replaced(path, ["rooms"]) == []
        held = live.database.read_bytes()
        with pytest.raises(ZeoError, match=r"^Nothing was packed\. Process "):
            _zeopack.pack(live.python, live.server, database=str(live.database), time_limit=60)
        assert live.database.read_bytes() == held


def test_the_transactions_alone_show_it_where_proc_does_not(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """B7: as for somebody who may not look into the server's process."""
    live.make("commit(1, 500)")
    path = settings(live)
    monkeypatch.setattr(_zeo_info, "_other_file", lambda _path: None)
    with live.running():
        replace(live)
        assert _zeo_info.replaced(path, ["main"]) == []
        commit(live)
        (sentence,) = _zeo_info.replaced(path, ["main"])
        assert re.search(rf"has committed transaction [0-9a-f]{{16}}, and the newest in {live.database} is [0-9a-f]{{16}}\. Backups read that file\.", sentence)


@NEWEST
def test_a_database_that_is_gone_or_newer_than_its_server(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """B7."""
    live.make("commit(1, 500)")
    path = settings(live)
    older, newer = live.directory / "older.fs", live.directory / "newer.fs"
    shutil.copy(live.database, older)
    live.make("commit(2, 500)")
    live.database.rename(newer)
    older.rename(live.database)
    with live.running():
        live.database.rename(live.directory / "away")
        (found,) = _zeo_info.info(live.python, {"main": live.server}, databases={"main": str(live.database)})
        assert found["file_problem"] == f"the ZEO server at {live.address} answers, but there is no {live.database}."
        assert _zeo_info.replaced(path, ["main"]) == []  # whoever reads it says so
        monkeypatch.setattr(_zeo_info, "_other_file", lambda _path: None)
        newer.rename(live.database)
        (sentence,) = _zeo_info.replaced(path, ["main"])
        assert sentence.startswith(f"{live.database} holds transaction ")


@NEWEST
def test_a_pack_is_no_replacement(live: Live) -> None:
    """B7: it exchanges the file as well, and opens the new one."""
    live.make("for number in range(30): commit(number, 500)")
    path = settings(live)
    with live.running():
        assert _zeopack.pack(live.python, live.server, database=str(live.database), days=0, time_limit=60).result == "packed"
        assert _zeo_info.replaced(path, ["main"]) == []


def test_a_transaction_from_the_future_is_a_warning() -> None:
    """B9."""
    ahead = _filestorage.ahead_seconds("03f9d0a41c3b5d55", 1_700_000_000.0)
    assert ahead > 1e7
    code, line = _zeo_info.judge([{**GOOD, "ahead_seconds": ahead}], Limits())
    assert code == WARNING and "the newest transaction is of 2026-11-26T03:12:05Z, " in line and "hours ahead of this host's clock" in line
    assert _zeo_info.judge([{**GOOD, "ahead_seconds": 2.0}], Limits())[0] == OK
    assert [_filestorage.ahead_seconds(tid, 1e10) for tid in ("03f9d0a41c3b5d55", "", "0" * 16)] == [0.0] * 3


# The command and the module


@NEWEST
def test_status_check_and_metrics(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    live.make("commit(1, 500)")
    path = settings(live)
    with live.running():
        assert _zeo_command.main(path, ["status"]) == 0
        status = json.loads(capsys.readouterr().out)
        assert _zeo_command.main(path, ["check"]) == OK
        line = capsys.readouterr().out
        assert _zeo_command.main(path, ["metrics"]) == 0
    metrics = live.directory / "zeo.prom"
    up = metrics.read_text()
    assert (status["problems"], status["servers"][0]["bytes"]) == ([], live.database.stat().st_size)
    assert line.startswith("OK: main 0 clients, ")
    assert metrics.stat().st_mode & 0o777 == 0o644
    assert 'indico_zeo_up{instance_name="indico",storage="main"} 1\n' in up
    assert f'indico_zeo_database_bytes{{instance_name="indico",storage="main"}} {live.database.stat().st_size}\n' in up
    assert "# TYPE indico_zeo_commits_total counter\n" in up
    assert "# TYPE indico_zeo_clients gauge\n" in up
    assert _zeo_command.main(path, ["watch"]) == 0
    assert metrics.read_text() == (
        "# HELP indico_zeo_up 1 when the server answers and has the storage.\n"
        "# TYPE indico_zeo_up gauge\n"
        'indico_zeo_up{instance_name="indico",storage="main"} 0\n'
    )
    assert _zeo_command.main(path, ["check"]) == CRITICAL
    assert capsys.readouterr().out == f"CRITICAL: main: The ZEO server at {live.address} refuses connections: it does not run, or listens elsewhere\n"


@NEWEST
def test_a_standby_tells_how_far_it_is_behind(live: Live) -> None:
    live.make("commit(1, 500)")
    path = settings(live, host="db2", peers={"db1": "127.0.0.1"}, claim_port=1)
    (live.directory / _zeo_standby.CLAIM).write_text('{"generation": 1, "primary": "db1"}')
    with live.running():
        assert _zeo_command.main(path, ["watch"]) == 0
    assert 'indico_zeo_replication_lag_transactions{instance_name="indico",storage="main"} 0\n' in (live.directory / "zeo.prom").read_text()
    noted = _zeo_standby.read_following(str(live.directory / "following.json"))
    assert noted["main"]["level"] == noted["main"]["answered"] > 0


@NEWEST
def test_a_primary_is_behind_nobody(live: Live) -> None:
    live.make("commit(1, 500)")
    path = settings(live, host="db1", peers={"db2": "127.0.0.1"}, claim_port=1)
    (live.directory / _zeo_standby.CLAIM).write_text('{"generation": 1, "primary": "db1"}')
    with live.running():
        assert _zeo_command.main(path, ["metrics"]) == 0
    assert "replication" not in (live.directory / "zeo.prom").read_text()


@NEWEST
def test_a_host_without_another_one_may_start(live: Live) -> None:
    assert _zeo_command.main(settings(live), ["may-start"]) == 0


@NEWEST
def test_a_host_that_another_one_took_over_from_may_not_start(live: Live, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = settings(live, host="db1", peers={"db2": "127.0.0.1"}, claim_port=1)
    monkeypatch.setattr(_zeo_standby, "may_start", lambda _settings: _zeo_standby.Judgement("db2 is the primary."))
    assert _zeo_command.main(path, ["may-start"]) == 1
    assert capsys.readouterr().err == "db2 is the primary.\n"


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"instance": "indico", "python": "/p", "servers": [{}]}', '{"instance": "i", "python": "/p", "servers": 3}']
)
def test_damaged_settings_are_named(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "zeo.json"
    path.write_text(content)
    assert _zeo_command.main(str(path), ["check"]) == UNKNOWN
    assert capsys.readouterr().out.startswith(f"UNKNOWN: The settings {path} cannot be used: ")
    assert _zeo_command.main(str(path), ["status"]) == 1
    assert capsys.readouterr().err.startswith(f"The settings {path} cannot be used: ")


def test_settings(tmp_path: Path) -> None:
    path = tmp_path / "zeo.json"
    login = {"username": "worker", "password": "s3cret", "realm": "indico"}
    servers = [{"name": "main", "address": "127.0.0.1:9675", "storage": "1", "database": "/db/Data.fs", **login}, {"name": "rooms", "address": "/run/zeo"}]
    path.write_text(json.dumps({"instance": "indico", "python": "/p", "time_limit": 5, "servers": servers, "claim_port": 9674}))
    found = _zeo.read_settings(str(path))
    assert found.servers == {"main": Server("127.0.0.1:9675", "1", "worker", "s3cret", "indico"), "rooms": Server("/run/zeo")}
    assert found.databases == {"main": "/db/Data.fs", "rooms": ""}
    assert (found.instance, found.python, found.metrics, found.time_limit, found.peers) == ("indico", "/p", "", 5.0, False)


def run_module(capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    with patch_module_args(options), pytest.raises(SystemExit):
        zeo_info.main()
    return dict(json.loads(capsys.readouterr().out))


@NEWEST
def test_the_module(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    live.make("commit(1, 500)")
    with live.running():
        servers = [{"name": "main", "address": live.address}, {"address": f"{live.address}0"}]
        result = run_module(capsys, python=live.python, servers=servers, _ansible_check_mode=True)
    assert (result["changed"], result["servers"][0]["error"]) == (False, None)
    assert result["problems"] == [f"{live.address}0: '{live.address}0' is no address of a ZEO server: it must be host:port, or the absolute path of a socket."]
    assert result["summary"].endswith(f"; {live.address}0 does not answer")


def test_the_module_wants_different_names(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_module(capsys, servers=[{"address": "a:1"}, {"address": "a:1"}])
    assert result["msg"] == "Each of `servers` must have a name of its own."


@NEWEST
def test_the_module_with_the_settings_of_a_host(live: Live, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live.make("commit(1, 500)")
    with live.running():
        result = run_module(capsys, settings=settings(live))
    assert ([one["error"] for one in result["servers"]], result["problems"], result["summary"][:16]) == ([None], [], "main 0 clients, ")
    none = run_module(capsys, settings=str(tmp_path / "none"))
    assert (none["servers"], none["summary"]) == ([], "no servers")
    assert none["problems"][0].startswith(f"The settings {tmp_path / 'none'} cannot be used: ")


def test_scripts_run_without_roots_rights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "--reuid=65534" in _zeo._words(None)
    assert f"--reuid={tmp_path.stat().st_uid}" in _zeo._words(tmp_path.stat())
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert _zeo._words(None) == []
