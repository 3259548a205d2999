"""Who may serve, for every combination of claims, and what the files say of two hosts."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _filestorage, _zeo_standby
from ansible_collections.confops.indico.plugins.module_utils._zeo_standby import Claim, StandbyError, Standing

from tests.unit.storage import Storage


@pytest.mark.parametrize("own", [0, 1, 2, 3])
@pytest.mark.parametrize("other", [0, 1, 2, 3])
def test_a_primary_gives_way_to_a_claim_that_is_as_new_or_newer(own: int, other: int) -> None:
    found = _zeo_standby.judge("db1", Standing(Claim(own, "db1")), {"db2": Standing(Claim(other, "db2", "2026-11-26T03:12:09Z"))})
    assert bool(found.refusal) == (other >= own)
    if other >= own:
        assert found.refusal.startswith(
            f"db2 says that db2 is the primary (generation {other} since 2026-11-26T03:12:09Z), and db1 is of generation {own}: it does not serve."
        )
        assert "playbooks/failback.yml" in found.refusal


@pytest.mark.parametrize("other", [Claim(2, "db1"), Claim(1, "db1"), None])
def test_who_agrees_or_is_silent_does_not_stop_a_primary(other: Claim | None) -> None:
    found = _zeo_standby.judge("db1", Standing(Claim(2, "db1")), {"db2": other and Standing(other)})
    assert found.refusal == ""
    assert found.silent == ([] if other else ["db2"])


def test_a_standby_may_always_serve() -> None:
    assert _zeo_standby.judge("db1", Standing(Claim(1, "db2")), {"db2": Standing(Claim(7, "db2"))}).refusal == ""
    assert _zeo_standby.judge("db1", Standing(Claim()), {"db2": Standing(Claim(7, "db2"))}).refusal == ""


def test_of_two_hosts_at_most_one_serves_as_primary() -> None:
    """Whatever a failover that was cut off has left behind."""
    claims = [Claim(generation, primary) for generation in (1, 2, 3) for primary in ("db1", "db2")]
    for one in claims:
        for two in claims:
            serving = [
                host
                for host, own, peer, others in (("db1", one, "db2", two), ("db2", two, "db1", one))
                if own.primary == host and not _zeo_standby.judge(host, Standing(own), {peer: Standing(others)}).refusal
            ]
            assert len(serving) < 2, (one, two)


@contextmanager
def host(answer: bytes) -> Iterator[int]:
    """A host that tells a claim to each who connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _address = server.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):  # who asks may have had enough
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def test_claims_over_the_network() -> None:
    claim = Claim(3, "db2", "2026-11-26T03:12:09Z")
    with host(json.dumps(claim.data()).encode()) as port:
        assert _zeo_standby.ask("127.0.0.1", port) == Standing(claim)
    with host(json.dumps({**claim.data(), "newest": {"main": "03f9d0a41c3b5d55"}}).encode()) as port:
        assert _zeo_standby.ask("127.0.0.1", port) == Standing(claim, {"main": "03f9d0a41c3b5d55"})
    with host(b"HTTP/1.1 400 Bad Request\r\n") as port, pytest.raises(StandbyError, match=rf"What 127\.0\.0\.1:{port} says is no claim of a primary"):
        _zeo_standby.ask("127.0.0.1", port)
    with host(b"x" * 10**6) as port, pytest.raises(StandbyError, match="is no claim of a primary"):
        _zeo_standby.ask("127.0.0.1", port)
    with host(b"") as port:
        assert _zeo_standby.ask("127.0.0.1", port) is None
    assert _zeo_standby.ask("127.0.0.1", port) is None


def test_claims_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "zeo-primary.json"
    assert _zeo_standby.read_claim(str(path)) == Claim()
    path.write_text('{"generation": 2, "primary": "db2"}')
    assert _zeo_standby.read_claim(str(path)) == Claim(2, "db2")
    for text in ("", "{}", "[]", "2", '{"generation": "soon", "primary": "db2"}', '{"generation": 2, "primary": "db2"}x'):
        path.write_text(text)
        with pytest.raises(StandbyError, match=r"zeo-primary\.json is no claim of a primary"):
            _zeo_standby.read_claim(str(path))
    with pytest.raises(StandbyError, match=r"The settings .*/none\.json cannot be read"):
        _zeo_standby.read_settings(str(tmp_path / "none.json"))


def test_may_start_asks_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_zeo_standby, "_SLOWLY", 0)
    (tmp_path / "zeo-primary.json").write_text('{"generation": 1, "primary": "db1"}')
    with host(b'{"generation": 2, "primary": "db2"}') as port:
        (tmp_path / "zeo.json").write_text(
            json.dumps({"instance": "indico", "host": "db1", "peers": {"db2": "127.0.0.1"}, "claim_port": port, "following": "", "servers": []})
        )
        found = _zeo_standby.may_start(_zeo_standby.read_settings(str(tmp_path / "zeo.json")))
    assert found.refusal.startswith("db2 says that db2 is the primary (generation 2), and db1 is of generation 1: it does not serve.")


def test_a_claim_that_arrives_while_the_others_are_asked_stops_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failover told the new primary first. The look of each minute began before this host knew, and would have stopped the new standby's servers."""
    claim = tmp_path / "zeo-primary.json"
    settings = _zeo_standby.Settings("indico", "db2", {"db1": "10.0.0.1"}, 9674, str(claim), "", {})
    newer = Claim(2, "db1", "2026-12-01T04:34:30Z")

    def ask(_address: str, _port: int) -> Standing:
        claim.write_text(json.dumps(arriving.data()))
        return Standing(newer)

    stopped: list[list[str]] = []
    monkeypatch.setattr(_zeo_standby, "ask", ask)
    monkeypatch.setattr(_zeo_standby.subprocess, "run", lambda command, **_options: stopped.append(command))
    arriving = newer
    assert (_zeo_standby.fence(settings), stopped) == ("", [])
    assert _zeo_standby.may_start(settings).refusal == ""
    arriving = Claim(1, "db2")
    assert _zeo_standby.fence(settings).startswith("db1 says that db1 is the primary (generation 2 since 2026-12-01T04:34:30Z)")
    assert stopped == [["systemctl", "stop", "indico-zeo@*.service"]]


def test_transactions_are_found_in_the_files(tmp_path: Path) -> None:
    directory = tmp_path / "db/main"
    directory.mkdir(parents=True)
    storage = Storage(directory / "Data.fs")
    storage.add(5)
    with storage.path.open("rb") as stream:
        tids = [one.tid for one, _end in _filestorage.transactions(stream)]
    for tid in tids:
        assert _zeo_standby.has(str(storage.path), tid)
    between = f"{int(tids[2], 16) + 1:016x}"
    assert not _zeo_standby.has(str(storage.path), between)
    assert not _zeo_standby.has(str(storage.path), "0" * 16)
    assert not _zeo_standby.has(str(storage.path), "f" * 16)
    (found,) = _zeo_standby.databases(str(tmp_path), ["main"], {"main": tids[-1]})
    assert (found["known"], found["last_transaction"]["tid"], found["error"]) == (True, tids[-1], None)
    (other,) = _zeo_standby.databases(str(tmp_path), ["main"], {"main": between})
    assert (other["known"], other["behind"]) == (False, False)
    (ahead,) = _zeo_standby.databases(str(tmp_path), ["main"], {"main": "f" * 16})
    assert (ahead["known"], ahead["behind"]) == (False, True)
    (lost,) = _zeo_standby.databases(str(tmp_path), ["rooms"], {"rooms": tids[0]})
    assert (lost["known"], lost["behind"]) == (None, True)
    (missing,) = _zeo_standby.databases(str(tmp_path), ["rooms"], {})
    assert "No such file" in missing["error"]


OLDER, NEWER = "03f9d0a41c3b5d55", "03f9d0a500000000"


@pytest.mark.parametrize(
    ("own", "other", "refused"),
    [
        ({"main": NEWER}, {"main": OLDER}, ""),
        ({"main": NEWER}, {"main": NEWER}, ""),
        ({"main": OLDER}, {}, ""),
        ({"main": OLDER, "rooms": NEWER}, {"main": NEWER, "rooms": NEWER}, "main: "),
        ({"main": NEWER}, {"main": OLDER, "rooms": OLDER}, "rooms: "),
        ({}, {"main": OLDER, "rooms": OLDER}, "main: "),
    ],
    ids=["behind", "level", "empty standby", "set back", "one database lost", "made anew"],
)
def test_a_primary_that_ends_before_its_standby_does_not_start(own: dict[str, str], other: dict[str, str], refused: str) -> None:
    found = _zeo_standby.compare("db1", Standing(Claim(2, "db1"), own), {"db2": Standing(Claim(2, "db1"), other), "db3": None})
    assert bool(found) == bool(refused)
    if refused:
        assert found.startswith(f"db2 holds newer transactions than db1, which is the primary ({refused}")
        assert "playbooks/failover.yml -e to=db2 -e unplanned=true" in found and "playbooks/failback.yml -e host=db2 -e discard=db2" in found


def test_what_only_a_lost_primary_holds_stops_nobody() -> None:
    assert _zeo_standby.compare("db2", Standing(Claim(3, "db2"), {"main": OLDER}), {"db1": Standing(Claim(2, "db1"), {"main": NEWER})}) == ""


def test_may_start_compares_what_the_hosts_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_zeo_standby, "_SLOWLY", 0)
    monkeypatch.setattr(_zeo_standby, "_PATIENCE", 0)
    storage = Storage(tmp_path / "Data.fs")
    storage.add(3)
    (tmp_path / "zeo-primary.json").write_text('{"generation": 1, "primary": "db1"}')
    settings = _zeo_standby.Settings("indico", "db1", {"db2": "127.0.0.1"}, 0, str(tmp_path / "zeo-primary.json"), "", {"main": str(storage.path)})
    told = _zeo_standby.tell(settings)
    assert told["newest"] == _zeo_standby.newest({"main": str(storage.path), "rooms": str(tmp_path / "none")}) != {}
    with host(json.dumps(told).encode()) as port:
        assert _zeo_standby.may_start(replace(settings, claim_port=port)).refusal == ""
        storage.path.write_bytes(b"FS21")
        assert "which is the primary (main: 20" in _zeo_standby.may_start(replace(settings, claim_port=port)).refusal


def test_a_host_that_may_not_read_its_database_does_not_seem_empty(tmp_path: Path) -> None:
    (tmp_path / "damaged.fs").write_bytes(b"no FileStorage")
    assert _zeo_standby.newest({"main": str(tmp_path / "damaged.fs"), "rooms": str(tmp_path / "none")}) == {}
    with pytest.raises(StandbyError, match=rf"The database {tmp_path} cannot be read: .*directory"):
        _zeo_standby.newest({"main": str(tmp_path)})


def test_a_standby_that_was_never_level_is_incomplete(tmp_path: Path) -> None:
    path = str(tmp_path / "following.json")
    held = [{"name": name, "last_transaction": {"tid": OLDER}, "error": None} for name in ("main", "rooms")]

    def lacking() -> list[str]:
        return _zeo_standby.incomplete(held, _zeo_standby.read_following(path))

    assert lacking() == ["main", "rooms"]
    _zeo_standby.note_following(path, {"main": 4000.0, "rooms": 0.3}, 1000.0)
    assert lacking() == ["main"]  # it is being filled
    _zeo_standby.note_following(path, {"main": 0.0}, 1060.0)  # of rooms the primary did not answer
    assert lacking() == []
    _zeo_standby.note_following(path, {}, 90000.0)  # the primary is lost
    assert lacking() == []
    for minute in range(5):
        _zeo_standby.note_following(path, {"main": 0.1, "rooms": 60.0 * minute + 10}, 2000.0 + 60 * minute)
    assert lacking() == ["rooms"]  # it was left behind while the primary answered
    held[0]["error"] = "damaged"
    assert lacking() == ["main", "rooms"]
    Path(path).write_text("[1]", encoding="utf-8")
    with pytest.raises(StandbyError, match=r"What this host noted of its primary in .*following\.json cannot be read"):
        _zeo_standby.read_following(path)
