"""Two database hosts: whatever happens to the primary, what was acknowledged is there, and nothing serves twice.

The tests tell one story, in their order. A writer commits to both databases all the time and notes what was acknowledged.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.playbook import Run
from tests.lib.site import Site

HERE = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
SITES = Site.read_all(HERE / "inventory")
DB1, DB2, APP, VAULT = SITES["db1"], SITES["db2"], SITES["app1"], SITES["vault1"]
NAMES = ("main", "rooms")
NOTES = "/opt/indico/tmp/acknowledged"
PYTHON = "/opt/indico/current/bin/python"
# Which numbers each database of the primary holds, asked over the network as an application does.
STORED = r"""
import sys, warnings
warnings.simplefilter('ignore')
from ZEO.ClientStorage import ClientStorage
from ZODB.DB import DB
conf = {}
execfile('/opt/indico/etc/indico.conf', conf)
host, port = conf['DBConnectionParams']
for number in (port, port + 1):
    storage = ClientStorage((host, number), wait_timeout=5, username=conf['DBUserName'], password=conf['DBPassword'], realm=conf['DBRealm'], read_only=1)
    print ' '.join(map(str, DB(storage).open().root()['probe']))
"""


def failover(**extra: object) -> Run:
    return APP.play(playbook="playbooks/failover.yml", confirm="indico", **extra)


def failback(host: str) -> Run:
    return APP.play(playbook="playbooks/failback.yml", confirm="indico", host=host)


def refuses(run: Run, sentence: str) -> None:
    """The run must have ended with a failure that begins with the sentence."""
    assert run.returncode != 0 and [failure for failure in run.failures if failure.startswith(sentence)], run.output


class Writer:
    """Somebody who writes to both databases without a pause, on the application's host."""

    def __init__(self) -> None:
        APP.copy([HERE / "writer.py2"], "/usr/local/lib")
        first = max([0, *self.acknowledged()]) + 2 if APP.shell().file(NOTES).exists else 1
        APP.run(f"runuser -u indico -- touch {NOTES}")
        APP.run(f"systemd-run --quiet --unit probe --uid indico --property KillMode=control-group {PYTHON} /usr/local/lib/writer.py2 {NOTES} {first}")

    @staticmethod
    def acknowledged() -> dict[int, float]:
        """Return when each number was acknowledged, in seconds since the epoch."""
        return {int(number): float(moment) for number, moment in (line.split() for line in APP.run(f"cat {NOTES}").splitlines())}

    def wait(self, more: int = 20, seconds: float = 60) -> None:
        """Wait until that many more writes were acknowledged."""
        goal, deadline = len(self.acknowledged()) + more, time.monotonic() + seconds
        while len(self.acknowledged()) < goal:
            assert time.monotonic() < deadline, f"{len(self.acknowledged())} of {goal} writes were acknowledged within {seconds} s"
            time.sleep(0.3)

    def end(self) -> float:
        """Stop writing. Return the longest time in seconds without an acknowledged write."""
        APP.run("systemctl stop probe; systemctl reset-failed probe 2>/dev/null || :")
        moments = sorted(self.acknowledged().values())[self.before :]
        return max((later - earlier for earlier, later in zip(moments, moments[1:], strict=False)), default=0.0)

    @property
    def before(self) -> int:
        return getattr(self, "_before", 0)

    def mark(self) -> None:
        self._before = max(len(self.acknowledged()) - 1, 0)


@pytest.fixture
def writer() -> Iterator[Writer]:
    one = Writer()
    try:
        one.wait()
        one.mark()
        yield one
    finally:
        one.end()


def lost() -> list[int]:
    """Return the acknowledged numbers that one of the databases does not hold."""
    wanted = set(Writer.acknowledged())
    rows = APP.run(f"cat > /tmp/stored.py <<'END'\n{STORED}\nEND\nrunuser -u indico -- {PYTHON} /tmp/stored.py").splitlines()
    assert len(rows) == len(NAMES)
    return sorted(wanted - set.intersection(*({int(number) for number in row.split()} for row in rows)))


def last(host: Site) -> list[str]:
    """Return the newest tid of each database on a host, from the files."""
    script = (
        "import sys; sys.path.insert(0, '/opt/indico/lib');"
        "from ansible_collections.confops.indico.plugins.module_utils import _filestorage;"
        "print(*[getattr(_filestorage.last_transaction(path), 'tid', 'none') for path in sys.argv[1:]])"
    )
    return host.run(f'python3 -B -c "{script}" ' + " ".join(f"/opt/indico/db/{name}/Data.fs" for name in NAMES)).split()


def generation() -> int:
    return int(json.loads(DB2.run("cat /opt/indico/etc/zeo-primary.json"))["generation"])


def wait_until_equal(seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while last(DB1) != last(DB2):
        assert time.monotonic() < deadline, (last(DB1), last(DB2))
        time.sleep(0.5)


def test_the_standby_holds_what_the_primary_holds() -> None:
    member = APP.browser()
    assert member.log_in("bruno", APP.password("demo")) == "in"
    member.create_meeting("On both hosts", category="2")
    wait_until_equal()
    assert DB1.run("cat /opt/indico/etc/zeo-primary.json") == DB2.run("cat /opt/indico/etc/zeo-primary.json")


def test_what_was_committed_last_is_sent_before_a_server_ends() -> None:
    """Without what lib/runzeo does about it, half of the rounds lose the last one."""
    DB1.copy([HERE / "stop.py2"], "/usr/local/lib")
    assert DB1.run("for _ in $(seq 8); do /opt/indico/zeo/bin/python -W ignore /usr/local/lib/stop.py2 /opt/indico/lib/runzeo; done").split() == ["2"] * 8


def test_lag_and_role_are_metrics(writer: Writer) -> None:
    for host, read_only in ((DB1, 0), (DB2, 1)):
        host.run_job("indico-zeo-watch.service")
        metrics = host.run("cat /var/lib/indico-zeo.prom")
        for name in NAMES:
            assert f'indico_zeo_read_only{{instance_name="indico",storage="{name}"}} {read_only}' in metrics
    assert set(json.loads(DB2.run("cat /opt/indico/db/following.json"))) == set(NAMES)
    rows = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith("indico_zeo_replication_lag_seconds{"))
    assert sorted(rows) == [f'indico_zeo_replication_lag_seconds{{instance_name="indico",storage="{name}"}}' for name in NAMES]
    assert all(0 <= float(value) < 5 for value in rows.values())


def test_strangers_and_wrong_passwords_do_not_get_in() -> None:
    APP.run("ip address add 10.213.0.105/24 dev eth0")
    probe = "import socket, sys; s = socket.socket(); s.settimeout(3); s.bind((sys.argv[1], 0));print([s.connect_ex(('10.213.0.101', int(sys.argv[2])))])"
    ports = (9675, 9676, 10675, 10676, 9674)
    answers = {source: [APP.run(f'python3 -c "{probe}" {source} {port}') for port in ports] for source in ("10.213.0.105", "10.213.0.103")}
    APP.run("ip address del 10.213.0.105/24 dev eth0")
    assert answers == {"10.213.0.105": ["[111]"] * 5, "10.213.0.103": ["[0]"] * 5}


def test_a_failover_needs_its_confirmation_and_a_goal() -> None:
    refused = APP.play(playbook="playbooks/failover.yml", to="db2")
    assert [failure for failure in refused.failures if failure.endswith("To do it, run this again with -e confirm=indico")], refused.output
    unnamed = APP.play(playbook="playbooks/failover.yml", confirm="indico")
    sentence = "Name the host that is to be the primary: -e to=, one of db1, db2."
    assert unnamed.returncode != 0 and [failure for failure in unnamed.failures if sentence in failure], unnamed.output
    plan = APP.play("--check", playbook="playbooks/failover.yml", to="db2")
    assert (plan.returncode, plan.changed) == (0, {}), plan.output


def test_a_standby_that_was_never_level_is_no_primary() -> None:
    DB2.run("systemctl stop indico-zeo-watch.timer && mv /opt/indico/db/following.json /var/tmp/")  # or that is noted anew within a minute
    refused = APP.play("--check", playbook="playbooks/failover.yml", to="db2", unplanned=True)
    forced = APP.play("--check", playbook="playbooks/failover.yml", to="db2", unplanned=True, incomplete=True)
    DB2.run("mv /var/tmp/following.json /opt/indico/db/ && systemctl start indico-zeo-watch.timer")
    sentence = "db2 may lack more than the last moments of main, rooms: it was never level with db1 there"
    refuses(refused, sentence)
    assert (forced.returncode, forced.changed) == (0, {}), forced.output


def test_a_host_that_is_broken_counts_as_one_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its SSH answers, and nothing works there: it is not left out without a word."""
    monkeypatch.delenv("ANSIBLE_STRATEGY")  # for Mitogen it is a host that cannot be reached
    DB1.run("chmod -x /usr/bin/python3.9")
    try:
        refused = failover(to="db2")
    finally:
        DB1.run("chmod +x /usr/bin/python3.9")
    refuses(refused, "db1 does not answer. If it is lost, run this again with -e unplanned=true")


def test_an_older_decision_does_not_replace_a_newer_one() -> None:
    """As when site.yml read who is the primary, and a failover decided anew before it wrote that."""
    claim = "/opt/indico/etc/zeo-primary.json"
    DB1.run("systemctl stop indico-zeo-watch.timer")  # which would hear of it within a minute, and stop the servers
    DB2.run(f'cp -p {claim} /var/tmp/claim && sed -i \'s/"primary": "db1"/"primary": "db2"/; s/"generation": /&9/\' {claim}')
    run = APP.play("--start-at-task", "Follow the primary", site_claim=json.loads(DB1.run(f"cat {claim}")))
    DB2.run(f"cp -p /var/tmp/claim {claim}")
    DB1.run("systemctl start indico-zeo-watch.timer")
    sentence = "this host knows that db2 is the primary, generation 9"
    assert [failure for failure in run.failures if sentence in failure], run.failures


def test_backups_and_packs_on_both_hosts(writer: Writer) -> None:
    for host in (DB1, DB2):
        assert "main full" in host.run("/opt/indico/bin/indico-backup run --full")
        assert "pack done in" in host.run("/opt/indico/bin/indico-backup pack --days 0")
    writer.wait()
    writer.end()
    assert lost() == []
    wait_until_equal()


def test_planned_failover_loses_nothing(writer: Writer, capsys: pytest.CaptureFixture[str]) -> None:
    run = failover(to="db2")
    assert run.returncode == 0, run.failures
    writer.wait()
    gap = writer.end()
    assert lost() == []
    wait_until_equal()
    assert DB1.run("systemctl is-active indico-zeo@main indico-zeo@rooms").split() == ["active"] * 2
    assert "replicate-from 10.213.0.102:10675" in DB1.run("cat /opt/indico/etc/zeo-main.conf")
    with capsys.disabled():
        print(f" [planned failover: {gap:.1f} s without service]", end="")


def test_site_yml_follows_the_failover() -> None:
    run = APP.play()
    # The jobs of the hosts are the same on both; nothing of the databases moves back.
    assert (run.returncode, run.changed) == (0, {}), run.output


def test_the_copy_comes_from_the_first_host_whoever_is_the_primary() -> None:
    """It follows the other one by now, and backs up its own copy of the databases."""
    DB1.run("/opt/indico/bin/indico-backup run")
    newest = DB1.run("ls /var/backups/indico/sets").split()[-1]
    VAULT.run("systemctl start indico-offsite.service")
    status = json.loads(VAULT.run("/opt/indico/bin/indico-offsite status"))
    assert status["ok"] and status["newest_set"] == newest, status
    assert DB2.shell().run("systemctl cat indico-pull.socket").rc != 0


def test_primary_killed(writer: Writer, capsys: pytest.CaptureFixture[str]) -> None:
    for name in NAMES:
        DB2.run(f"kill -9 {DB2.main_pid(f'indico-zeo@{name}')}")
    writer.wait()
    gap = writer.end()
    assert lost() == []
    with capsys.disabled():
        print(f" [kill -9 of the primary: {gap:.1f} s without service]", end="")


def test_a_full_disk_costs_nothing_and_the_standby_takes_over(writer: Writer, capsys: pytest.CaptureFixture[str]) -> None:
    place = "/opt/indico/db/rooms"
    DB2.run(
        f"rm -rf /var/tmp/rooms; systemctl stop indico-zeo@rooms && cp -a {place} /var/tmp/rooms && mount -t tmpfs -o mode=700 tmpfs {place}"
        f" && cp -a /var/tmp/rooms/. {place}/"
        f" && chown --reference /var/tmp/rooms {place} && mount -o remount,size=$(( $(du -sB1 {place} | cut -f 1) + 200000 )) {place}"
        " && systemctl start indico-zeo@rooms"
    )
    writer.wait(5)
    deadline = time.monotonic() + 60
    while "No space left" not in DB2.run("tail -50 /opt/indico/log/zeo/rooms.log"):
        assert time.monotonic() < deadline, "the disk never filled"
        time.sleep(1)
    run = failover(to="db1")
    assert run.returncode == 0, run.failures
    writer.wait()
    gap = writer.end()
    assert lost() == []
    DB2.run(f"systemctl stop indico-zeo@rooms && umount {place} && systemctl start indico-zeo@rooms")
    wait_until_equal(90)
    with capsys.disabled():
        print(f" [full disk, then failover: {gap:.1f} s without service]", end="")


def test_power_off_and_unplanned_failover(writer: Writer, capsys: pytest.CaptureFixture[str]) -> None:
    off = time.time()
    DB1.power_off()
    refused = failover(to="db2")
    refuses(refused, "db1 does not answer. If it is lost, run this again with -e unplanned=true")
    begun = time.time()
    run = failover(to="db2", unplanned=True)
    assert run.returncode == 0, run.failures
    writer.wait()
    writer.end()
    missing = lost()
    gap = min(moment for moment in writer.acknowledged().values() if moment > begun) - begun
    acknowledged = writer.acknowledged()
    # The replica is asynchronous: the last moments may be lost, and nothing older than they are.
    assert all(acknowledged[number] > off - 2 for number in missing)
    with capsys.disabled():
        print(f" [power-off and unplanned failover: {gap:.1f} s without service, {len(missing)} of {len(acknowledged)} acknowledged writes lost]", end="")


def test_a_lost_primary_that_comes_back_does_not_serve(writer: Writer) -> None:
    DB1.power_on()
    deadline = time.monotonic() + 90
    while f"db2 says that db2 is the primary (generation {generation()} since" not in DB1.run(
        "journalctl --sync; journalctl --unit 'indico-zeo@*' --output cat --no-pager"
    ):
        assert time.monotonic() < deadline, DB1.run("journalctl --unit 'indico-zeo@*' --no-pager | tail -20")
        time.sleep(1)
    assert "active" not in DB1.shell().run("systemctl is-active indico-zeo@main indico-zeo@rooms").stdout.split()
    refused = APP.play()
    assert "db1 holds main, rooms and was left behind by a failover" in refused.output
    writer.wait()
    before = last(DB1)
    writer.wait()
    assert last(DB1) == before


def test_failback_sets_aside_what_was_never_replicated() -> None:
    # A transaction that only db1 has, as one that was acknowledged in the moment of the power failure.
    only = last(DB1)
    DB1.run(
        "cat > /tmp/only.py <<'END'\nimport transaction\nfrom ZODB.DB import DB\nfrom ZODB.FileStorage import FileStorage\n"
        "db = DB(FileStorage('/opt/indico/db/main/Data.fs'))\ndb.open().root()['only here'] = 1\ntransaction.commit()\ndb.close()\nEND\n"
        "runuser -u zeo -- /opt/indico/zeo/bin/python /tmp/only.py"
    )
    assert last(DB1) != only
    plan = APP.play("--check", playbook="playbooks/failback.yml", host="db1")
    assert (plan.returncode, plan.changed) == (0, {}), plan.output
    assert "Set aside, because db2 does not have its newest transaction: main" in plan.output
    run = failback("db1")
    assert run.returncode == 0, run.failures
    wait_until_equal(120)
    assert [line for line in DB1.run("ls /opt/indico/db/main.apart-*").splitlines() if line == "Data.fs"]
    refused = failback("db2")
    assert [failure for failure in refused.failures if failure == "db2 is the primary, or no host knows of one yet; there is nothing to bring back."], (
        refused.output
    )


def test_back_to_where_it_was(writer: Writer) -> None:
    run = failover(to="db1")
    assert run.returncode == 0, run.failures
    again = failover(to="db1")
    assert (again.returncode, again.changed) == (0, {}), again.output
    writer.wait()
    writer.end()
    missing = lost()
    assert len(missing) < 50  # those of the power failure, no more
    wait_until_equal()
    visitor = APP.browser()
    visitor.wait("/")
    status = APP.play(playbook="playbooks/status.yml")
    assert status.returncode == 0, status.output


def test_a_primary_that_runs_gives_way_too() -> None:
    """As when the network between the two comes back after somebody promoted the standby."""
    claim = "/opt/indico/etc/zeo-primary.json"
    DB2.run(f'cp -p {claim} /var/tmp/claim && sed -i \'s/"primary": "db1"/"primary": "db2"/; s/"generation": /&9/\' {claim}')
    said = DB1.run_job("indico-zeo-watch.service")
    states = DB1.shell().run("systemctl is-active indico-zeo@main indico-zeo@rooms").stdout.split()
    DB2.run(f"cp -p /var/tmp/claim {claim}")
    DB1.run("systemctl start indico-zeo@main indico-zeo@rooms")
    assert "db2 says that db2 is the primary (generation 9" in said
    assert states == ["inactive"] * 2
    APP.browser().wait("/")


def test_a_standby_does_not_follow_another_history() -> None:
    """Somebody puts an older copy of a database into the primary's place."""
    commit = (
        f'runuser -u indico -- {PYTHON} -c "import transaction; from ZEO.ClientStorage import ClientStorage; from ZODB.DB import DB; conf = {{}};'
        " execfile('/opt/indico/etc/indico.conf', conf); host, port = conf['DBConnectionParams']; storage = ClientStorage((host, port + 1), wait_timeout=5,"
        " username=conf['DBUserName'], password=conf['DBPassword'], realm=conf['DBRealm']); DB(storage).open().root()['another'] = 1; transaction.commit()\""
    )
    wait_until_equal()
    path = "/opt/indico/db/rooms/Data.fs"
    DB1.run(f"cp -p {path} /var/tmp/older.fs")
    APP.run(commit)
    wait_until_equal()
    DB1.run(f"systemctl stop indico-zeo@rooms && cp -p /var/tmp/older.fs {path} && rm {path}.index && systemctl start --no-block indico-zeo@rooms")
    # The standby ends later, so the primary does not serve what was set back.
    deadline = time.monotonic() + 60
    while "db2 holds newer transactions than db1, which is the primary (rooms: 20" not in DB1.run("journalctl --unit indico-zeo@rooms -n 20 --output cat"):
        assert time.monotonic() < deadline, DB1.run("journalctl --unit indico-zeo@rooms -n 20")
        time.sleep(1)
    refused = APP.play()
    refuses(refused, f"db1 is the primary, generation {generation()}, but ends before the other one in rooms: it was set back")
    refused = failback("db2")
    refuses(refused, "db2 holds newer transactions of rooms than db1, which is the primary")
    # A standby that is silent then cannot be asked.
    DB2.run("systemctl stop indico-zeo-claim.socket")
    before = last(DB2)
    DB1.wait_for_unit("indico-zeo@rooms")
    APP.run(commit)
    deadline = time.monotonic() + 30
    while "is not one of this database: the standby has a history of its own and must not follow" not in DB1.run("tail -100 /opt/indico/log/zeo/rooms.log"):
        assert time.monotonic() < deadline, DB1.run("tail -100 /opt/indico/log/zeo/rooms.log")
        time.sleep(1)
    assert last(DB2) == before
    refused = failover(to="db2")
    refuses(refused, "db2 lacks what db1 had half a minute ago (rooms).")
    DB2.run("systemctl start indico-zeo-claim.socket")
    run = failback("db2")
    assert run.returncode == 0, run.failures
    wait_until_equal()
    assert [line for line in DB2.run("ls /opt/indico/db/rooms.apart-*").splitlines() if line == "Data.fs"]


def test_a_primary_made_anew_does_not_empty_its_standby() -> None:
    """Its disk was replaced and the host set up again: it knows nothing, and the standby is the only copy."""
    missing = lost()
    DB2.run_job("indico-zeo-watch.service")  # notes that it is level, as it does each minute
    DB1.run("systemctl stop indico-zeo@main indico-zeo@rooms && mv /opt/indico/db /var/tmp/db && mv /opt/indico/etc/zeo-primary.json /var/tmp/")
    refused = APP.play()
    refuses(refused, f"db1 is the primary, generation {generation()}, but ends before the other one in main, rooms: it was set back")
    back = failback("db2")
    refuses(back, "db2 holds newer transactions of main, rooms than db1, which is the primary")
    run = failover(to="db2", unplanned=True)
    assert run.returncode == 0, run.failures
    APP.browser().wait("/")
    # An empty host needs no failback: site.yml installs it, and it fills.
    again = APP.play()
    assert again.returncode == 0, again.failures
    wait_until_equal(90)
    assert lost() == missing
