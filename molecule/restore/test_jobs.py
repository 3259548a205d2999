"""How backups are started and what happens around them: timers or cron, pings, task files, allowed hours, full and read-only disks."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.lib.site import Site

COMMAND, BACKUPS = "/opt/indico/bin/indico-backup", "/var/backups/indico"
LISTENER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        text = self.rfile.read(int(self.headers['Content-Length'])).decode()
        print(self.path, text, file=open('/run/heard', 'a'), flush=True)
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(('127.0.0.1', 8099), Handler).serve_forever()
"""


def configure(site: Site, *, again: bool = False, **extra: object) -> str:
    """Run the roles that have jobs with these variables, and return what that showed; a second run then changes nothing."""
    run = site.play("--tags", "backup,cron,scheduler", **extra)
    assert run.returncode == 0, run.output
    if again:
        second = site.play("--tags", "backup,cron,scheduler", **extra)
        assert (second.returncode, second.changed) == (0, {}), second.output
    return run.output


def ended(site: Site) -> int:
    return json.loads(site.run(f"{COMMAND} status"))["run"]["ended_seconds"]


def soon(site: Site) -> str:
    """Return a minute that begins in 50 to 110 seconds, by the host's clock, as a schedule."""
    return site.run("date --date '+110 seconds' +%H:%M")


def wait_for_a_run(site: Site, after: int) -> None:
    until = time.monotonic() + 180
    while ended(site) <= after:
        assert time.monotonic() < until, f"nothing ran: {site.run('systemctl list-timers --no-pager; cat /etc/cron.d/* 2>/dev/null || :')}"
        time.sleep(2)


def busy(site: Site, title: str) -> None:
    """Make a transaction for the next backup."""
    member = site.browser()
    assert member.log_in("bruno", site.password("demo")) == "in"
    member.create_meeting(title, category="2")


@pytest.fixture(scope="module", autouse=True)
def as_it_was(site: Site) -> object:
    yield
    configure(site)


def test_cron_runs_the_same_job(site: Site) -> None:
    last = ended(site)
    busy(site, "For cron")
    configure(site, again=True, indico_jobs_backend="cron", backup_schedule=soon(site))
    timers = site.run("systemctl list-timers --no-pager")
    assert "indico-backup.timer" not in timers and "indico-drill.timer" not in timers and "indico-pack.timer" not in timers
    jobs = site.run("cat /etc/cron.d/indico-backup")
    assert "0 4 * * 0 root systemctl start indico-drill.service" in jobs and "30 3 * * 6 root systemctl start indico-pack.service" in jobs
    wait_for_a_run(site, last)
    newest = site.run(f"ls {BACKUPS}/sets").split()[-1]
    assert json.loads(site.run(f"cat {BACKUPS}/sets/{newest}/manifest.json"))["why"] == "schedule"


def test_timer_fires(site: Site) -> None:
    last = ended(site)
    configure(site, backup_schedule=soon(site), backup_schedule_jitter="0")
    assert not site.shell().file("/etc/cron.d/indico-backup").exists
    wait_for_a_run(site, last)


def test_nothing_is_scheduled_for_others(site: Site) -> None:
    """AWX runs the playbooks."""
    configure(site, again=True, indico_jobs_backend="none")
    assert "indico-" not in site.run("systemctl list-timers --no-pager")
    assert not site.shell().file("/etc/cron.d/indico-backup").exists
    configure(site, backup_schedule="", backup_drill_schedule="", backup_pack_schedule="", cron_clean_schedule="", cron_disk_schedule="", scheduler_keep_days=0)
    timers = site.run("systemctl list-timers --no-pager --no-legend | grep --only-matching 'indico-.*timer'").split()
    assert timers == ["indico-watch.timer"]  # it tells of those jobs that fail when they are started by hand


def test_outside_of_the_allowed_hours_a_scheduled_run_does_nothing(site: Site) -> None:
    hours = site.run("date --date '+2 hours' +%H:%M") + "-" + site.run("date --date '+3 hours' +%H:%M")
    configure(site, backup_allowed_hours=hours)
    last = ended(site)
    assert f"outside of {hours}: nothing was done." in site.run_job("indico-backup.service")
    assert ended(site) == last


def test_pings_are_sent_from_inside_the_sandbox(site: Site) -> None:
    site.run("rm -f /run/heard")
    site.run(f'systemd-run --unit listener --collect python3 -c "{LISTENER}"')
    shown = configure(site, again=True, **{f"backup_ping_{when}": f"http://127.0.0.1:8099/{when}" for when in ("start", "success", "failure")})
    site.run("systemctl start indico-backup.service indico-drill.service")
    site.run("mv /opt/indico/db/main/Data.fs /opt/indico/db/main/Data.fs.away")
    failed = site.shell().run("systemctl start indico-backup.service")
    site.run("mv /opt/indico/db/main/Data.fs.away /opt/indico/db/main/Data.fs; systemctl stop listener")
    assert failed.rc != 0
    assert "8099/" not in shown  # such a URL may be a secret
    heard = [line.split()[:2] for line in site.run("cat /run/heard").splitlines()]
    assert sorted(heard) == sorted([["/start"]] * 3 + [["/success", "backup"], ["/success", "drill"], ["/failure", "backup"]])
    assert site.run("stat --format %a /opt/indico/etc/backup.json") == "600"


def test_task_files_around_the_playbook(site: Site, tmp_path: Path) -> None:
    site.run("rm -f /run/hook-*")
    for name in ("before", "after", "failure"):
        task = [{"name": name, "ansible.builtin.copy": {"content": name, "dest": f"/run/hook-{name}", "mode": "0600"}}]
        (tmp_path / f"{name}.yml").write_text(json.dumps(task))
    hooks = {f"backup_{name}_tasks": str(tmp_path / f"{name}.yml") for name in ("before", "after", "failure")}
    run = site.play(playbook="playbooks/backup.yml", **hooks)
    assert run.returncode == 0, run.output
    assert site.run("cat /run/hook-before /run/hook-after") == "beforeafter"
    assert not site.shell().file("/run/hook-failure").exists
    site.run("mv /opt/indico/db/main/Data.fs /opt/indico/db/main/Data.fs.away")
    failed = site.play(playbook="playbooks/backup.yml", **hooks)
    site.run("mv /opt/indico/db/main/Data.fs.away /opt/indico/db/main/Data.fs")
    assert "Make the set: The database /opt/indico/db/main/Data.fs cannot be read: No such file or directory." in failed.failures
    assert site.run("cat /run/hook-failure") == "failure"


@pytest.mark.parametrize(
    ("mount", "sentence"),
    [
        (f"mount -t tmpfs -o size=200k,mode=700 tmpfs {BACKUPS}", f" bytes on the file system of {BACKUPS}/main, which has "),
        (f"mount --bind {BACKUPS} {BACKUPS} && mount -o remount,bind,ro {BACKUPS}", "Read-only file system"),
    ],
    ids=["full", "read-only"],
)
def test_a_disk_that_takes_nothing(site: Site, mount: str, sentence: str) -> None:
    busy(site, "For a bad disk")
    held = f"find {BACKUPS} -type f ! -name '*.json' ! -name metrics.prom -exec md5sum {{}} + | sort | md5sum"
    before = site.run(held)
    site.run(mount)
    failed = site.shell().run(f"{COMMAND} run")
    left = site.run(f"find {BACKUPS} -name '.confops-*'")
    site.run(f"umount {BACKUPS}")
    assert failed.rc == 1 and sentence in failed.stderr, failed.stderr
    assert left == ""
    assert site.run(held) == before
    assert "incremental" in site.run(f"{COMMAND} run")


def test_a_database_that_is_replaced_by_an_older_copy(site: Site) -> None:
    """The next backup begins a new chain, and the old one keeps what the copy lacks."""
    older = site.run(f"ls {BACKUPS}/sets").split()[0]
    newest = site.run(f"ls {BACKUPS}/sets").split()[-1]
    restored = site.play(playbook="playbooks/restore.yml", confirm="indico", set=older)
    assert restored.returncode == 0, restored.output
    assert "main full" in site.run(f"{COMMAND} run")
    assert site.run(f"{COMMAND} check --shrunk-percent 0").startswith("OK")
    back = site.play(playbook="playbooks/restore.yml", confirm="indico", set=newest)
    assert back.returncode == 0, back.output
    assert drilled_after(site)


def drilled_after(site: Site) -> bool:
    site.run(f"{COMMAND} run")
    return bool(json.loads(site.run(f"{COMMAND} drill >/dev/null; {COMMAND} status"))["drill"]["ok"])
