"""Packs and figures of servers of ZODB 3.10 that ask for a password: the truth about each failure, through the modules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lib.site import Site

LOGIN = {"username": "{{ indico_zeo_user }}", "password": "{{ indico_zeo_password }}", "realm": "{{ indico_instance }}"}
ADDRESS = "127.0.0.1:19675"
# Revisions of one object, and with a size in front, an object of so many bytes that stays.
WRITE = r"""
import json, os, sys, transaction
from ZEO.ClientStorage import ClientStorage
from ZODB import DB
from ZODB.FileStorage import FileStorage
from persistent.mapping import PersistentMapping
where, kept = sys.argv[1], int(sys.argv[2])
login = dict((key, str(json.load(open(sys.argv[3]))['servers'][0][key])) for key in ('username', 'password', 'realm'))
db = DB(ClientStorage(('127.0.0.1', int(where)), wait_timeout=10, **login) if where.isdigit() else FileStorage(where))
root = db.open().root()
root['probe'] = PersistentMapping()
for number in range(10):
    root['probe'][number] = 'x' * 500
    root[number] = PersistentMapping(text=os.urandom(kept))
    transaction.commit()
db.close()
"""
# It waits before it packs, for as long as a file named hold lies in its directory.
SLOW = r"""
import os, sys, time
from ZEO.runzeo import main
from ZODB.FileStorage.fspack import GC
usual = GC.findReachable
def findReachable(self):
    while os.path.exists('hold'):
        time.sleep(0.02)
    return usual(self)
GC.findReachable = findReachable
main(sys.argv[1:])
"""


def ask(site: Site, tmp_path: Path, module: str, *arguments: str, **options: Any) -> dict[str, Any]:
    """Run a module of the collection on the host and return its result, whatever that is."""
    task = {"name": "Ask", f"confops.indico.{module}": {"python": "{{ indico_prefix }}/zeo/bin/python", **options}, "ignore_errors": True}
    defaults = "{{ playbook_dir }}/defaults.yml"
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "indico_zeo", "gather_facts": False, "vars_files": [defaults], "tasks": [task]}]))
    (tmp_path / "defaults.yml").write_text(json.dumps({"indico_zeo_user": "indico"}))
    run = site.play(*arguments, playbook=str(tmp_path / "play.yml"))
    report = json.JSONDecoder().raw_decode(run.output[run.output.index("{\n") :])[0]
    return dict(report["plays"][0]["tasks"][0]["hosts"][site.name])


def write(site: Site, where: str, kept: int = 1) -> None:
    script = WRITE.replace("'", "'\\''")
    site.run(f"{site.prefix}/zeo/bin/python -c '{script}' {where} {kept} {site.prefix}/etc/zeo.json")


def server(name: str, **other: Any) -> dict[str, Any]:
    return {"name": name, "address": ADDRESS, **LOGIN, **other}


def test_each_failure_is_named_and_the_others_are_packed(site: Site, tmp_path: Path) -> None:
    write(site, "19675")
    database = f"{site.prefix}/db/main/Data.fs"
    servers = [
        server("dead", address="127.0.0.1:1"),
        server("unknown", storage="rooms"),
        server("no login", username="", password="", realm=""),
        server("wrong password", password="none-of-theirs"),
        server("wrong user", username="visitor"),
        server("wrong realm", realm="zope"),
        server("main", database=database),
    ]
    foreseen = ask(site, tmp_path, "zeopack", "--check", servers=servers[-1:])
    result = ask(site, tmp_path, "zeopack", servers=servers)
    whose = f"The ZEO server at {ADDRESS}"
    assert {one["name"]: one["error"] for one in result["storages"]} == {
        "dead": "The ZEO server at 127.0.0.1:1 refuses connections: it does not run, or listens elsewhere.",
        "unknown": f"{whose} has no storage named rooms.",
        "no login": f"{whose} asks for a user and a password, and none was given.",
        "wrong password": f"{whose} refuses the user indico with this password.",
        "wrong user": f"{whose} refuses the user visitor with this password.",
        "wrong realm": f"{whose} has the realm {site.instance}, not zope: its users and passwords belong to that.",
        "main": None,
    }
    main, predicted = result["storages"][-1], foreseen["storages"][0]
    assert (foreseen["changed"], predicted["result"], result["changed"], result["failed"], main["result"]) == (True, "packed", True, True, "packed")
    assert main["reclaimed_bytes"] == main["bytes_before"] - main["bytes_after"] >= predicted["reclaimed_bytes"] > 4000
    assert int(site.run(f"stat -c %s {database}")) == main["bytes_after"]


def test_what_the_last_pack_left_stays_when_there_is_nothing_to_pack(site: Site, tmp_path: Path) -> None:
    write(site, "19676")
    old = f"{site.prefix}/db/rooms/Data.fs.old"
    rooms = [server("rooms", address="127.0.0.1:19676", database=f"{site.prefix}/db/rooms/Data.fs")]
    first, again = (ask(site, tmp_path, "zeopack", servers=rooms) for _time in range(2))
    assert [(one["changed"], one["storages"][0]["result"]) for one in (first, again)] == [(True, "packed"), (False, "nothing")]
    assert int(site.run(f"stat -c %s {old}")) == first["storages"][0]["bytes_before"]
    write(site, "19676")
    assert ask(site, tmp_path, "zeopack", servers=rooms, keep_old=False)["storages"][0]["result"] == "packed"
    assert not site.shell().file(old).exists


@pytest.fixture
def cramped(site: Site, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A server whose disk is almost full, and that packs only when it may."""
    place, python, owner = "/run/cramped", f"{site.prefix}/zeo/bin/python", site.variables["zeo_user"]
    (tmp_path / "zeo.conf").write_text(f"<zeo>\n  address 127.0.0.1:19699\n</zeo>\n<filestorage 1>\n  path {place}/Data.fs\n</filestorage>\n")
    (tmp_path / "slow.py").write_text(SLOW)
    site.run(f"mkdir -p {place} && mount -t tmpfs -o size=1536k tmpfs {place} && touch {place}/hold")
    try:
        write(site, f"{place}/Data.fs", 80_000)
        site.copy([tmp_path / "zeo.conf", tmp_path / "slow.py"], place)
        site.run(f"chown -R {owner}: {place}")
        site.run(f"systemd-run --unit cramped --uid {owner} --working-directory {place} {python} {place}/slow.py -C {place}/zeo.conf")
        site.run(f"for i in $(seq 100); do {python} -c \"import socket; socket.create_connection(('127.0.0.1', 19699))\" && exit 0; sleep 0.1; done; exit 1")
        yield {"name": "cramped", "address": "127.0.0.1:19699", "database": f"{place}/Data.fs"}
    finally:
        site.run(f"systemctl stop cramped; umount --lazy {place}; rmdir {place}")


def test_a_time_limit_a_pack_that_runs_and_a_full_disk(site: Site, tmp_path: Path, cramped: dict[str, Any]) -> None:
    late = ask(site, tmp_path, "zeopack", servers=[cramped], time_limit=5)
    second = ask(site, tmp_path, "zeopack", servers=[cramped])
    where = "storage 1 of the ZEO server at 127.0.0.1:19699"
    assert late["msg"] == f"The pack of {where} is not done within 5 s: the server may still be packing, and goes on by itself."
    assert second["msg"] == f"A pack of {where} is running already; it goes on by itself."
    site.run("rm /run/cramped/hold; while ! ls /run/cramped/Data.fs.pack; do sleep 0.1; done")  # its disk is full, which nobody is told, and the file stays
    full = ask(site, tmp_path, "zeopack", servers=[cramped])
    assert full["msg"].startswith(
        f"The pack of {where} failed: its disk is full (No space left on device). The database is as it was. /run/cramped/Data.fs.pack ("
    )
    assert full["msg"].endswith(" bytes), which it left, was removed.")
    assert not site.shell().file("/run/cramped/Data.fs.pack").exists


def test_figures_and_the_command(site: Site, tmp_path: Path) -> None:
    result = ask(site, tmp_path, "zeo_info", servers=[server("main"), server("unknown", storage="rooms")])
    main, unknown = result["servers"]
    assert (main["error"], main["protocol"], main["timeout_thread_alive"], main["read_only"]) == (None, "Z3101", True, False)
    assert result["problems"] == [f"unknown: {unknown['error']}"] == [f"unknown: The ZEO server at {ADDRESS} has no storage named rooms."]
    command = f"{site.prefix}/bin/{site.instance}-zeo"
    assert site.run(f"{command} check").startswith("OK: main ")
    status = json.loads(site.run(f"{command} status"))
    assert [(one["name"], one["error"]) for one in status["servers"]] == [("main", None), ("rooms", None)]
    site.run(f"systemctl start {site.instance}-zeo-watch.service")
    metrics = site.run(f"cat {site.variables['zeo_metrics_file']}")
    for name in ("main", "rooms"):
        assert f'indico_zeo_up{{instance_name="{site.instance}",storage="{name}"}} 1' in metrics
    assert site.run(f"stat -c %a {site.variables['zeo_metrics_file']}") == "644"
