"""Packs on a living site: nothing that is written meanwhile is lost, backups before and after, and what is refused."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import pytest

from tests.lib.site import Site

PACK, COMMAND, BACKUPS = "playbooks/pack.yml", "/opt/indico/bin/indico-backup", "/var/backups/indico"
DATABASE, SETTINGS = "/opt/indico/db/main/Data.fs", "/opt/indico/etc/backup.json"
# Each word is done to root['probe'] of the main storage, through its server: a number is a revision of so many bytes.
PROBE = r"""
import sys, transaction
from ZEO.ClientStorage import ClientStorage
from ZODB import DB
from persistent.mapping import PersistentMapping
storage = ClientStorage(('127.0.0.1', 9675), wait_timeout=10)
root = DB(storage).open().root()
for word in sys.argv[1:]:
    if word == 'history':
        print len(storage.history(root['probe']._p_oid, size=1000))
    elif word == 'remove':
        del root['probe']
    else:
        root.setdefault('probe', PersistentMapping())['text'] = word[0] * int(word)
    transaction.commit()
"""
# Commits as fast as it can until its input ends, then says the last number that was acknowledged and the one that is there.
WRITER = r"""
import os, threading, sys, transaction
from ZEO.ClientStorage import ClientStorage
from ZODB import DB
db = DB(ClientStorage(('127.0.0.1', 9675), wait_timeout=10))
root, last = db.open().root(), 0
while not os.path.exists('/run/enough'):
    root['writer'] = last + 1
    transaction.commit()
    last += 1
print last, db.open().root()['writer']
"""
# The oldest chain as it was after its full backup and incrementals, beside the file that it is of.
RESTORE = r"""
from ansible_collections.confops.indico.plugins.module_utils import _history, _restore
import sys
request = _restore.Request(repository='/var/backups/indico/main', target='/var/tmp/restored/Data.fs', wanted=_history.wanted_transaction(sys.argv[1]))
print(_restore.restore(request).plan.bytes)
"""


def probe(site: Site, *words: str) -> str:
    return site.run(f'/opt/indico/zeo/bin/python -c "{PROBE}" {" ".join(words)} 2>/dev/null')


def sizes(site: Site) -> dict[str, int]:
    return {name: int(site.run(f"stat --format %s /opt/indico/db/{name}/Data.fs")) for name in site.storages}


def report(site: Site) -> dict:
    return json.loads(site.run(f"cat {BACKUPS}/pack.json"))


def manifests(site: Site) -> list[dict]:
    return [json.loads(line) for line in site.run(f"for one in {BACKUPS}/sets/*/manifest.json; do tr -d '\\n' < $one; echo; done").splitlines()]


def refusal(site: Site, **extra: object) -> str:
    run = site.play(playbook=PACK, days=0, **extra)
    assert run.returncode != 0, run.output
    (sentence,) = run.failures
    return sentence


@pytest.fixture(scope="module", autouse=True)
def revisions(site: Site) -> Iterator[None]:
    """An object with revisions that a pack removes: twenty of them are larger than all the rest."""
    site.run("rm -f /run/enough")
    probe(site, *["300000"] * 20)
    yield
    probe(site, "remove")


@pytest.fixture
def to_now(site: Site) -> Iterator[None]:
    """The job keeps no revision: here, all are of today."""
    site.run(f'sed -i \'s/"pack_days": 1/"pack_days": 0/\' {SETTINGS}')
    yield
    site.run(f'sed -i \'s/"pack_days": 0/"pack_days": 1/\' {SETTINGS}')


def test_what_is_of_today_stays(site: Site) -> None:
    before = sizes(site)["main"]
    run = site.play(playbook=PACK)
    assert run.returncode == 0, run.output
    assert "main nothing to pack, rooms nothing to pack" in run.output
    assert sizes(site)["main"] >= before


def test_check_mode_says_what_a_pack_would_do(site: Site) -> None:
    known = "find /opt/indico/db /var/backups/indico -name '*.json' -o -name '*.fsz' -o -name '*.deltafsz' -o -name 'Data.fs.*' | sort | xargs md5sum"
    before = site.run(known)
    run = site.play("--check", playbook=PACK, days=0)
    assert run.returncode == 0 and list(run.changed) == ["Back up, pack, begin new chains"], run.output
    ((result,),) = run.changed.values()
    assert result["line"].startswith("a pack would do this: ")
    assert result["storages"][0]["reclaimed_bytes"] > 19 * 300000
    assert result["space"][0]["free_bytes"] > result["space"][0]["needed_bytes"] > 0
    assert site.run(known) == before


def test_nothing_that_is_written_meanwhile_is_lost(site: Site, to_now: None) -> None:
    """The job packs in its sandbox, while events are made and another client commits without a pause."""
    chains = json.loads(site.run(f"{COMMAND} status"))["repositories"]["main"]["chains"]
    events, stop = [], threading.Event()
    member = site.browser()
    assert member.log_in("bruno", site.password("demo")) == "in"

    def make_events() -> None:
        while not stop.is_set():
            events.append(member.create_meeting(f"During the pack {len(events)}", category="2"))

    written: list[str] = []
    threads = [threading.Thread(target=make_events), threading.Thread(target=lambda: written.append(site.run(f'/opt/indico/zeo/bin/python -c "{WRITER}"')))]
    for thread in threads:
        thread.start()
    try:
        said = site.run_job("indico-pack.service")
    finally:
        stop.set()
        site.run("touch /run/enough")
        for thread in threads:
            thread.join()
    assert "pack done in " in said, said
    told = report(site)
    assert told["storages"][0]["result"] == "packed"
    assert told["storages"][0]["reclaimed_bytes"] > 19 * 300000
    acknowledged, there = map(int, written[0].split())
    assert acknowledged == there > 100
    visitor = site.browser()
    assert len(events) > 1
    for number, event in enumerate(events):
        assert visitor.title(f"/event/{event}/").startswith(f"During the pack {number}")
    now = json.loads(site.run(f"{COMMAND} status"))["repositories"]["main"]
    assert (now["problems"], now["chains"], now["chain_length"]) == ([], chains + 1, 1)
    assert now["verified"]
    assert [one["why"] for one in manifests(site)][-2:] == ["before a pack", "after a pack"]
    assert 'indico_pack_status{instance_name="indico"} 2' in site.run(f"cat {BACKUPS}/metrics.prom")


def test_the_old_chain_still_restores_what_was_packed_away(site: Site) -> None:
    before = [one for one in manifests(site) if one["why"] == "before a pack"][-1]["storages"][0]
    site.run("mkdir /var/tmp/restored")
    restored = site.run(f'cd / && PYTHONPATH=/opt/indico/lib python3 -B -c "{RESTORE}" {before["last_transaction"]["tid"]}')
    assert int(restored) == before["end"]
    site.run(f"cmp --bytes {before['end']} /var/tmp/restored/Data.fs {DATABASE}.old && rm -r /var/tmp/restored")


def test_no_pack_while_a_backup_runs(site: Site) -> None:
    site.run(f"flock {BACKUPS} sleep 20 >/dev/null 2>&1 & sleep 0.3")
    try:
        assert refusal(site).startswith(f"The repository {BACKUPS} is in use by process ")
    finally:
        site.run("pkill -x sleep")


def test_no_pack_without_room(site: Site) -> None:
    probe(site, "200000", "200000")
    site.run(f"mount -t tmpfs -o size=500m,mode=700 tmpfs {BACKUPS}")
    try:
        site.run(f"{COMMAND} run && kib=$(df --output=used {BACKUPS} | tail -1) && mount -o remount,size=$((kib + 300))k {BACKUPS}")
        before = sizes(site)
        sentence = refusal(site)
        assert sizes(site)["main"] >= before["main"]
    finally:
        site.run(f"umount {BACKUPS}")
    assert sentence.startswith("A pack with the full backup after it needs up to ")
    assert f" bytes on the file system of {BACKUPS}, which has " in sentence and sentence.endswith(" free; nothing was packed.")


def test_a_server_that_is_dead_is_named_and_the_other_one_packs(site: Site) -> None:
    site.run("systemctl stop indico-zeo@rooms")
    try:
        began = time.monotonic()
        sentence = refusal(site)
        assert time.monotonic() - began < 30
    finally:
        site.run("systemctl start indico-zeo@rooms")
    assert sentence == "rooms: The ZEO server at 127.0.0.1:9676 refuses connections: it does not run, or listens elsewhere."
    assert [one["result"] for one in report(site)["storages"]] == ["packed", "failed"]
    assert "the last pack failed (rooms: The ZEO server at 127.0.0.1:9676 " in site.shell().run(f"{COMMAND} check --shrunk-percent 0").stdout
    assert 'indico_pack_status{instance_name="indico"} 0' in site.run(f"cat {BACKUPS}/metrics.prom")


def test_killed_after_the_pack_the_next_backup_is_a_full_one(site: Site) -> None:
    probe(site, "200000", "200000")
    site.run(
        f"exec >/dev/null 2>&1; old=$(stat --format %i {DATABASE}); {COMMAND} pack --days 0 & pid=$!;"
        f" while [ $(stat --format %i {DATABASE}) = $old ] && kill -0 $pid; do :; done; kill -9 $pid; :"
    )
    done = site.run(f"{COMMAND} run")
    assert "main full " in done, done
    now = json.loads(site.run(f"{COMMAND} status"))["repositories"]["main"]
    assert now["problems"] == [] and now["verified"]


def test_revisions_of_the_days_that_are_kept_can_be_undone(site: Site) -> None:
    """Days are fractions here: what is older than a few seconds goes, the one that was current then stays.

    The pack counts from the moment when it begins, which may be many seconds behind this one: so much it may be late.
    """
    probe(site, "1000", "2000", "3000")
    first = float(site.run("date +%s.%N"))
    time.sleep(20)
    probe(site, "4000", "5000")
    run = site.play(playbook=PACK, days=(float(site.run("date +%s.%N")) - first - 1) / 86400)
    assert run.returncode == 0, run.output
    assert report(site)["storages"][0]["result"] == "packed"
    assert probe(site, "history") == "3"
    assert json.loads(site.run(f"{COMMAND} drill > /dev/null; {COMMAND} status"))["drill"]["ok"]
