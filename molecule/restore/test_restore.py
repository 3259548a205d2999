"""Backup sets of a living site, and the site brought back from them, asked through its pages."""

from __future__ import annotations

import json
import os
import re

import pytest

from tests.lib.browser import Browser
from tests.lib.load import only_closed
from tests.lib.playbook import Run
from tests.lib.site import Site
from tests.lib.source import appears, start

BACKUP, RESTORE, COMMAND = "playbooks/backup.yml", "playbooks/restore.yml", "/opt/indico/bin/indico-backup"
DATABASE = "/opt/indico/db/main/Data.fs"
# Waits until another file has the database's name, then notes who could write to it.
_WATCH = rf"""cat > /run/watch <<'END'
old=$(stat --format %i {DATABASE})
while [ "$(stat --format %i {DATABASE} 2> /dev/null || echo $old)" = $old ]; do sleep 0.02; done
workers=$(pgrep -u indico -f '^\(wsgi:') && loaded=0
for pid in $workers; do if grep -q cPersistence /proc/$pid/maps; then loaded=$((loaded + 1)); fi; done
echo "workers $(echo $workers | wc -w), with Indico $loaded, schedulers $(pgrep -c -f bin/indico_scheduler)" > /run/at-exchange
END
rm -f /run/at-exchange; nohup bash /run/watch > /dev/null 2>&1 &"""


def back_up(site: Site, **extra: object) -> dict:
    """Run the playbook and return the manifest of the newest set."""
    run = site.play(playbook=BACKUP, **extra)
    assert run.returncode == 0, run.output
    newest = site.run("ls /var/backups/indico/sets").split()[-1]
    return {**json.loads(site.run(f"cat /var/backups/indico/sets/{newest}/manifest.json")), "stamp": newest}


def restore(site: Site, **extra: object) -> Run:
    run = site.play(playbook=RESTORE, confirm="indico", **extra)
    assert run.returncode == 0, run.output
    return run


def titles(site: Site) -> list[str]:
    """Return the titles of all events that begin with Marked, as the category's page shows them to a visitor."""
    visitor = site.browser()
    visitor.wait("/")
    page = visitor.get("/category/2/overview?period=year&year=2017&month=4&day=3").text + visitor.get("/category/2/").text
    return sorted(set(re.findall(r"Marked \w+", page)))


def stored_file(site: Site) -> tuple[str, bytes]:
    """Return the path and the content of a stored file that a page of the category shows."""
    visitor = site.browser()
    page = visitor.get("/category/2/").text
    for event in sorted(set(re.findall(r"/event/\d+/", page))):
        for link in re.findall(r'href="([^"]+/material/[^"]+)"', visitor.get(event).text):
            answer = visitor.get(link)
            if answer.headers.get("Content-Type") == "application/pdf":
                return link, answer.content
    raise AssertionError("no event of the category shows a stored file")


@pytest.fixture(scope="module")
def history(site: Site) -> dict[str, dict]:
    """Two sets with an event each, and an event that is in none."""
    member = site.browser()
    assert member.log_in("bruno", site.password("demo")) == "in"
    sets = {}
    for name in ("one", "two"):
        member.create_meeting(f"Marked {name}", category="2")
        sets[name] = back_up(site, why=f"after {name}", full=name == "one")
    member.create_meeting("Marked three", category="2")
    assert titles(site) == ["Marked one", "Marked three", "Marked two"]
    return sets


def test_a_set_holds_all_of_the_site(site: Site, history: dict[str, dict]) -> None:
    one, two = history["one"], history["two"]
    assert (one["storages"][0]["name"], one["storages"][0]["kind"]) == ("main", "full")
    assert [(part["name"], part["kind"]) for part in two["storages"]] == [("main", "incremental"), ("rooms", "nothing")]
    assert (two["instance"], two["why"]) == ("indico", "after two")
    assert two["releases"]["current"]["packages"]["ZODB3"] == "3.10.5"
    assert two["archive"]["files"] == int(site.run("find /opt/indico/archive -type f | wc -l"))
    assert "indico.conf" in two["etc"]
    # What did not change between two sets is on disk once.
    inodes = [set(site.run(f"find /var/backups/indico/sets/{each['stamp']}/archive -type f -printf '%i\\n'").split()) for each in (one, two)]
    assert inodes[0]
    assert inodes[0] <= inodes[1]
    assert site.run("stat --format '%U %a' /var/backups/indico") == "root 700"


def test_without_a_new_transaction_there_is_no_new_set(site: Site) -> None:
    assert "no new set" not in site.run(f"{COMMAND} run --why test")  # the third event
    run = site.play(playbook=BACKUP)
    assert run.changed == {}, run.output
    assert site.play("--check", playbook=BACKUP).changed == {}


def test_stock_repozo_restores_the_same_bytes(site: Site) -> None:
    site.run("/opt/indico/zeo/bin/repozo -R -r /var/backups/indico/main -o /tmp/stock.fs")
    size = site.run("stat --format %s /tmp/stock.fs")
    site.run(f"cmp --bytes {size} /tmp/stock.fs {DATABASE} && rm -f /tmp/stock.fs /tmp/stock.fs.index")


def test_plan_changes_nothing_and_the_confirmation_is_asked_for(site: Site, history: dict[str, dict]) -> None:
    inode = site.run(f"stat --format '%i %s' {DATABASE}")
    plan = site.play("--check", playbook=RESTORE, set=history["one"]["stamp"])
    assert plan.returncode == 0, plan.output
    assert history["one"]["storages"][0]["file"] in plan.output
    refused = site.play(playbook=RESTORE)
    assert refused.failures == ["This stops indico and replaces its data by what the plan above says. To do it, run this again with -e confirm=indico"]
    unknown = site.play(playbook=RESTORE, confirm="indico", set="2001-01-01-00-00-00")
    assert [failure for failure in unknown.failures if "There is no set 2001-01-01-00-00-00" in failure], unknown.failures
    assert site.run(f"stat --format '%i %s' {DATABASE}") == inode


def test_everything_is_destroyed_and_comes_back_as_of_each_set(site: Site, history: dict[str, dict]) -> None:
    before = stored_file(site)
    site.run(f"systemctl stop apache2 indico-scheduler 'indico-zeo@*'; rm {DATABASE}* && rm -r /opt/indico/archive")
    restore(site)
    assert titles(site) == ["Marked one", "Marked three", "Marked two"]
    assert stored_file(site) == before
    for name, expected in (("one", ["Marked one"]), ("two", ["Marked one", "Marked two"])):
        # O8: pages, stored files, which Apache sends, and the port that leads to the other one.
        site.run(_WATCH)
        old = set(site.workers())
        with only_closed(site.browser(), "/", before[0], f"http://{site.variables['lab_address']}/"):
            restore(site, set=history[name]["stamp"])
        # No worker and no scheduler knew the old database any more when the new one took its place.
        assert site.run("cat /run/at-exchange") == "workers 2, with Indico 0, schedulers 0"
        assert not old & set(site.workers())
        assert titles(site) == expected
        assert site.browser().log_in("admin", site.password("admin")) == "in"
    # What a restore replaced is a database too: nothing is lost by choosing the wrong set.
    restore(site)
    assert titles(site) == ["Marked one", "Marked three", "Marked two"]


def test_restored_to_a_moment_between_two_sets(site: Site, history: dict[str, dict]) -> None:
    restore(site, time=history["one"]["storages"][0]["last_transaction"]["time"], storage="main")
    assert titles(site) == ["Marked one"]
    # B10: nothing can rename a mount point, so its contents are exchanged.
    before, archive = stored_file(site), f"{site.prefix}/archive"
    site.run(f"mount --bind {archive} {archive}")
    try:
        run = restore(site)
        assert f"{archive} is a mount point, so its contents are exchanged one by one" in run.output
        (kept,) = re.findall(rf"{archive}/\.replaced-[0-9-]+", site.run(f"ls -d {archive}/.[!.]*"))
        assert site.run(f"diff -rq --exclude='.*' {archive} {kept}") == ""
        assert stored_file(site) == before
    finally:
        site.run(f"umount --lazy {archive} && rm -rf {archive}/.replaced-*")


def test_a_site_that_does_not_come_up_is_put_back_before_anybody_sees_it(site: Site, history: dict[str, dict]) -> None:
    site.run("mv /opt/indico/etc/indico.wsgi /opt/indico/etc/indico.wsgi.away")
    run = site.play(playbook=RESTORE, confirm="indico", set=history["one"]["stamp"])
    site.run("mv /opt/indico/etc/indico.wsgi.away /opt/indico/etc/indico.wsgi")
    assert run.returncode != 0
    (said,) = [failure for failure in run.failures if "The data are back to where they were, and the services run on them." in failure]
    assert said.startswith("Ask for the home page failed: ")
    assert titles(site) == ["Marked one", "Marked three", "Marked two"]
    assert site.run("ls -d /opt/indico/archive/*")
    assert site.run("find /opt/indico/db /opt/indico -maxdepth 2 -name '*.failed-*' -o -name 'archive.restored'") == ""
    assert site.run("ls /opt/indico/etc/maintenance") == ""


def test_a_restore_that_fails_behind_its_opening_keeps_what_visitors_wrote(site: Site, history: dict[str, dict]) -> None:
    """The scheduler, which starts last, fails once."""
    once = "/etc/systemd/system/indico-scheduler.service.d/once.conf"
    site.run(
        f"mkdir -p {once.rpartition('/')[0]} && printf '[Service]\nExecStartPre=+/bin/sh -c \"test -e /run/once || ! touch /run/once\"\n' > {once}"
        " && systemctl daemon-reload"
    )
    with only_closed(site.browser(), "/"):  # O8
        run = site.play(playbook=RESTORE, confirm="indico", set=history["one"]["stamp"])
    site.run(f"rm -r {once.rpartition('/')[0]} && systemctl daemon-reload")
    assert run.returncode != 0
    (said,) = [failure for failure in run.failures if "The data are back to where they were, and the services run on them." in failure]
    assert titles(site) == ["Marked one", "Marked three", "Marked two"]
    kept = re.search(r"What was written to the restored data meanwhile is in \*(\.failed-[0-9-]+)\.", said)
    assert kept and site.run(f"cd /opt/indico && ls db/*/Data.fs{kept[1]} archive{kept[1]}/*")
    site.run(f"rm -r /opt/indico/db/*/Data.fs{kept[1]} /opt/indico/archive{kept[1]}")


def test_a_killed_restore_leaves_the_site_closed(site: Site, history: dict[str, dict]) -> None:
    site.run("rm -f /opt/indico/db/*/Data.fs*.replaced-*")
    process = start(site, RESTORE, {"confirm": "indico", "set": history["one"]["stamp"]})
    appears(site, '"$(ls -d /opt/indico/db/main/Data.fs.replaced-* | head -n 1)"', process)
    os.killpg(process.pid, 9)
    process.communicate()
    site.run("timeout 60 sh -c \"while pgrep -f '[a]nsible|[m]itogen'; do sleep 0.5; done\"")  # what it had begun on the host ends by itself
    site.power_cycle(warn=False)
    site.wait_for_unit("apache2.service")
    assert site.browser().get("/").status_code == 503
    assert "This site is being restored and will be back soon." in site.browser().get("/").text
    refused = site.play(playbook="playbooks/maintenance.yml", state="off")
    sentence = "A restore was begun and has not ended, so what is there may be half of each. playbooks/restore.yml, run again, ends it. Nothing was done."
    assert sentence in " ".join(refused.failures), refused.output
    half = site.play(playbook=RESTORE, confirm="indico", storage="main")
    assert "An earlier restore of the whole set was killed, so what is there may be half of each. Run this without -e storage." in half.failures[0], half.output
    restore(site)
    assert titles(site) == ["Marked one", "Marked three", "Marked two"]


def test_backups_while_somebody_writes_restore_what_was_acknowledged(site: Site) -> None:
    """Each set holds at least the event whose creation was answered before the run began."""
    member: Browser = site.browser()
    assert member.log_in("bruno", site.password("demo")) == "in"
    for number in range(5):
        event = member.create_meeting(f"Busy {number}", category="2")
        assert "incremental" in site.run(f"{COMMAND} run --why busy")
    site.run(f"systemctl stop apache2 indico-scheduler 'indico-zeo@*'; rm {DATABASE}*")
    restore(site)
    assert site.browser().title(f"/event/{event}/").startswith("Busy 4")


def test_timer_runs_the_command_and_leaves_word(site: Site) -> None:
    assert "backup done in" in site.run_job("indico-backup.service")
    assert "indico-backup.timer" in site.run("systemctl list-timers --no-pager")
    assert json.loads(site.run(f"{COMMAND} status"))["run"]["ok"]
    assert site.run(f"{COMMAND} check").startswith("OK: ")
    assert 'indico_backup_status{instance_name="indico"} 2' in site.run("cat /var/backups/indico/metrics.prom")
    assert len(site.run(f"{COMMAND} list").splitlines()) >= 2


def test_failure_is_said_everywhere(site: Site) -> None:
    site.run(f"mv {DATABASE} {DATABASE}.away")
    failed = site.shell().run(f"{COMMAND} run")
    check = site.shell().run(f"{COMMAND} check")
    metrics = site.run("cat /var/backups/indico/metrics.prom")
    site.run(f"mv {DATABASE}.away {DATABASE}")
    assert failed.rc == 1
    assert failed.stderr.strip() == f"The database {DATABASE} cannot be read: No such file or directory."
    assert check.rc == 1 and check.stdout.startswith("WARNING: the last run failed (The database")
    assert 'indico_backup_status{instance_name="indico"} 0' in metrics
    site.run(f"{COMMAND} run")
    assert site.run(f"{COMMAND} check").startswith("OK: ")


def test_two_at_once_are_one(site: Site) -> None:
    """The lock ends with the process that holds it, so the second says who that is and nothing is left."""
    holder = "import fcntl, os, time; fcntl.flock(os.open('/var/backups/indico', 0), 2); print(1, flush=True); time.sleep(20)"
    site.run(f'nohup python3 -c "{holder}" >/tmp/holder 2>&1 & while ! [ -s /tmp/holder ]; do sleep 0.1; done')
    second = site.shell().run(f"{COMMAND} run")
    site.run("pkill -f fcntl.flock")
    assert second.rc == 1
    assert re.fullmatch(r"The repository /var/backups/indico is in use by process \d+; nothing was done\.", second.stderr.strip())
    assert "backup done" in site.run(f"{COMMAND} run")
