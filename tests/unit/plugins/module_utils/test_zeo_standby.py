"""Who may serve, for every combination of claims, and what the files say of two hosts."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _filestorage, _zeo_standby
from ansible_collections.confops.indico.plugins.module_utils._zeo_standby import Claim, StandbyError

from tests.unit.storage import Storage


@pytest.mark.parametrize("own", [0, 1, 2, 3])
@pytest.mark.parametrize("other", [0, 1, 2, 3])
def test_a_primary_gives_way_to_a_claim_that_is_as_new_or_newer(own: int, other: int) -> None:
    found = _zeo_standby.judge("db1", Claim(own, "db1"), {"db2": Claim(other, "db2", "2026-11-26T03:12:09Z")})
    assert bool(found.refusal) == (other >= own)
    if other >= own:
        assert found.refusal.startswith(
            f"db2 says that db2 is the primary (generation {other} since 2026-11-26T03:12:09Z), and db1 is of generation {own}: it does not serve."
        )
        assert "playbooks/failback.yml" in found.refusal


@pytest.mark.parametrize("other", [Claim(2, "db1"), Claim(1, "db1"), None])
def test_who_agrees_or_is_silent_does_not_stop_a_primary(other: Claim | None) -> None:
    found = _zeo_standby.judge("db1", Claim(2, "db1"), {"db2": other})
    assert found.refusal == ""
    assert found.silent == ([] if other else ["db2"])


def test_a_standby_may_always_serve() -> None:
    assert _zeo_standby.judge("db1", Claim(1, "db2"), {"db2": Claim(7, "db2")}).refusal == ""
    assert _zeo_standby.judge("db1", Claim(), {"db2": Claim(7, "db2")}).refusal == ""


def test_of_two_hosts_at_most_one_serves_as_primary() -> None:
    """Whatever a failover that was cut off has left behind."""
    claims = [Claim(generation, primary) for generation in (1, 2, 3) for primary in ("db1", "db2")]
    for one in claims:
        for two in claims:
            serving = [
                host
                for host, own, peer, others in (("db1", one, "db2", two), ("db2", two, "db1", one))
                if own.primary == host and not _zeo_standby.judge(host, own, {peer: others}).refusal
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
        assert _zeo_standby.ask("127.0.0.1", port) == claim
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
        (tmp_path / "zeo.json").write_text(json.dumps({"instance": "indico", "host": "db1", "peers": {"db2": "127.0.0.1"}, "claim_port": port}))
        found = _zeo_standby.may_start(_zeo_standby.read_settings(str(tmp_path / "zeo.json")))
    assert found.refusal.startswith("db2 says that db2 is the primary (generation 2), and db1 is of generation 1: it does not serve.")


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
    assert other["known"] is False
    (missing,) = _zeo_standby.databases(str(tmp_path), ["rooms"], {})
    assert "No such file" in missing["error"]
