"""Scheduled jobs: the real timer and the real cron fire them, one that fails is told, one that hangs is ended, and all is in one table."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.lib.site import Site

JOBS, BACKUP, ZEO = "/opt/indico/bin/indico-jobs", "/opt/indico/bin/indico-backup", "/opt/indico/bin/indico-zeo"
DROPINS = "/run/systemd/system"
COMMIT = """
import transaction
from ZEO.ClientStorage import ClientStorage
from ZODB.DB import DB
DB(ClientStorage(('127.0.0.1', 9676))).open().root()['here'] = True
transaction.commit()
"""
# Keeps each mail and each post that it gets in a file.
SINK = """
import http.server, smtpd, asyncore, threading
class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        open('/run/sink/posts', 'a').write(self.path + ' ' + self.rfile.read(int(self.headers['Content-Length'])).decode() + chr(10))
        self.send_response(200)
        self.end_headers()
class Sink(smtpd.SMTPServer):
    def process_message(self, peer, sender, recipients, data, **more):
        open('/run/sink/mails', 'a').write(sender + ' to ' + ' '.join(recipients) + chr(10) + data.decode() + chr(10))
threading.Thread(target=http.server.HTTPServer(('127.0.0.1', 8099), Hook).serve_forever, daemon=True).start()
Sink(('127.0.0.1', 2525), None)
asyncore.loop()
"""
TOLD = {"cron_mail_to": ["ops@example.org"], "cron_smtp_port": 2525, "cron_failure_url": "http://127.0.0.1:8099/hook", "cron_schedule_jitter": "0"}


def configure(site: Site, *, tags: str = "cron", **extra: object) -> str:
    """Run the role, or those of the tags, with these variables. Return what that showed."""
    run = site.play("--tags", tags, "--diff", **extra)
    assert run.returncode == 0, run.output
    return run.output


def jobs(site: Site) -> dict[str, dict[str, Any]]:
    return {job["name"]: job for job in json.loads(site.shell().run(f"{JOBS} status --json").stdout)["jobs"]}


def wait_for_a_run(site: Site, name: str, after: float) -> dict[str, Any]:
    until = time.monotonic() + 180
    while True:
        job = jobs(site)[name]
        if (job["ended"] or 0) > after:
            return job
        assert time.monotonic() < until, f"{name} did not run: {job}"
        time.sleep(3)


def now(site: Site) -> float:
    return float(site.run("date +%s.%N"))


@pytest.fixture(scope="module", autouse=True)
def sink(site: Site) -> Iterator[None]:
    site.run(f'mkdir -p /run/sink && systemd-run --unit sink --collect python3 -c "{SINK}"; systemctl start indico-clean indico-disk')
    yield
    site.run("systemctl stop sink")
    configure(site)
    assert "indico-clean.timer" in site.run("systemctl list-timers --no-pager")


@pytest.fixture
def full(site: Site) -> Iterator[str]:
    """A file system that is 95 % full where the backups lie; how full the others are is the machine's business."""
    place = "/var/backups/indico"
    site.run(f"mkdir -p {place} && mount -t tmpfs -o size=20m tmpfs {place} && head -c {19 * 2**20} /dev/zero > {place}/filler")
    yield place
    site.run(f"umount {place}")


def test_a_timer_fires_and_says_nothing_unless_it_fails(site: Site, full: str) -> None:
    """A file that was left behind goes without a word; a disk that is too full is told by mail and to the URL."""
    site.run("rm -f /run/sink/*; touch --date '2 days ago' /opt/indico/tmp/Indico-left.tmp; mkdir -p /var/lib/metrics")
    began, soon = now(site), site.run("date --date '+100 seconds' +%H:%M")
    metrics = {"cron_metrics_file": "/var/lib/metrics/jobs.prom", "cron_disk_metrics_file": "/var/lib/metrics/disk.prom"}
    given = {**TOLD, **metrics, "cron_clean_schedule": soon, "cron_disk_schedule": soon}
    assert "/hook" not in configure(site, **given)  # such a URL may be a secret
    before = jobs(site)
    assert [before[f"indico-{name}"]["started_by"] for name in ("clean", "disk")] == ["timer", "timer"]
    assert began < before["indico-clean"]["next"] < began + 180
    assert site.play("--tags", "cron", "--check", **given).changed == {}

    assert wait_for_a_run(site, "indico-clean", began)["result"] == "success"
    disk = wait_for_a_run(site, "indico-disk", began)
    assert (disk["result"], disk["failures"] > 0) == ("exit code 1", True)
    assert not site.shell().file("/opt/indico/tmp/Indico-left.tmp").exists
    site.run("for i in $(seq 50); do [ -e /run/sink/posts ] && exit 0; sleep 0.2; done; exit 1")
    mails = site.run("cat /run/sink/mails")
    assert mails.count("Subject:") == 1
    assert mails.startswith("indico@") and "to ops@example.org\n" in mails and "Subject: indico-disk failed on " in mails
    assert f"{full} is 95.0 % full" in site.run("cat /run/sink/posts") and "exit code 1" in mails
    assert 'indico_job_failures{instance_name="indico",unit="indico-clean"} 0' in site.run("cat /var/lib/metrics/jobs.prom")
    assert 'indico_disk_used_percent{instance_name="indico",mountpoint="/"}' in site.run("cat /var/lib/metrics/disk.prom")
    status = site.shell().run(f"{JOBS} status")
    assert status.rc == 1 and "indico-disk failed: exit code 1, " in status.stderr
    assert site.run("stat --format %a /opt/indico/etc/jobs.json") == "600"

    configure(site, **TOLD)
    site.run(f"rm {full}/filler; systemctl start indico-disk")
    assert jobs(site)["indico-disk"]["failures"] == 0


def test_cron_or_somebody_else_starts_them(site: Site) -> None:
    configure(site, indico_jobs_backend="cron", cron_clean_schedule="Sun 04:30")
    assert "30 4 * * 0 root systemctl start indico-clean.service\n" in site.run("cat /etc/cron.d/indico-cron") + "\n"
    assert "indico-clean.timer" not in site.run("systemctl list-timers --no-pager")
    clean = jobs(site)["indico-clean"]
    assert (clean["started_by"], site.run(f"date --date @{clean['next']} '+%a %H:%M'")) == ("cron", "Sun 04:30")
    configure(site, indico_jobs_backend="none")
    assert {job["started_by"] for name, job in jobs(site).items() if name in ("indico-clean", "indico-disk")} == {None}
    assert not site.shell().file("/etc/cron.d/indico-cron").exists
    began = now(site)
    site.run("systemctl start indico-clean")
    assert wait_for_a_run(site, "indico-clean", began)["result"] == "success"


def test_a_job_that_hangs_is_ended_and_told(site: Site) -> None:
    configure(site, **TOLD, cron_time_limit="2s")
    site.run("rm -f /run/sink/*; mkdir -p /run/systemd/system/indico-clean.service.d")
    site.run("printf '[Service]\\nExecStart=\\nExecStart=sleep 600\\n' > /run/systemd/system/indico-clean.service.d/hang.conf; systemctl daemon-reload")
    began = now(site)
    failed = site.shell().run("systemctl start indico-clean")
    site.run("rm -r /run/systemd/system/indico-clean.service.d; systemctl daemon-reload")
    assert failed.rc != 0
    job = wait_for_a_run(site, "indico-clean", began)
    assert job["result"] == "ended after its time limit" and job["seconds"] < 60
    site.run("for i in $(seq 50); do grep -q 'ended after its time limit' /run/sink/mails && exit 0; sleep 0.2; done; exit 1")
    site.run("systemctl start indico-clean")
    assert jobs(site)["indico-clean"]["failures"] == 0


def test_at_the_wrong_hour_and_beside_another_one_nothing_is_done(site: Site) -> None:
    hours = site.run("date --date '+2 hours' +%H:%M") + "-" + site.run("date --date '+3 hours' +%H:%M")
    configure(site, cron_allowed_hours=hours)
    before = jobs(site)["indico-clean"]
    assert f"outside of {hours}: nothing was done." in site.run_job("indico-clean.service")
    after = jobs(site)["indico-clean"]
    assert after["skipped"] > (before["skipped"] or 0) and after["ended"] == before["ended"] and not after["failures"]
    held = site.shell().run("flock /opt/indico /opt/indico/bin/indico-manage clean")
    assert held.rc == 1 and held.stderr.startswith("/opt/indico is being cleaned already by process ")


# Each part of an alarm is broken once (O1, B7)


@contextmanager
def dropped_in(site: Site, unit: str, text: str) -> Iterator[None]:
    """Add lines to the [Service] section of a unit."""
    site.run(f"mkdir -p {DROPINS}/{unit}.d && printf '[Service]\\n{text}\\n' > {DROPINS}/{unit}.d/test.conf && systemctl daemon-reload")
    try:
        yield
    finally:
        site.run(f"rm -r {DROPINS}/{unit}.d && systemctl daemon-reload")


def answer(site: Site, command: str) -> tuple[int, str]:
    done = site.shell().run(command)
    return done.rc, done.stdout + done.stderr


def wait_for_a_mail(site: Site, words: str) -> None:
    site.run(f"for i in $(seq 50); do grep -q '{words}' /run/sink/mails && exit 0; sleep 0.2; done; cat /run/sink/mails; exit 1")


@pytest.fixture(scope="module")
def told(site: Site, sink: None) -> Iterator[None]:
    """All metrics files lie in a directory that does not exist before."""
    files = ("backup_metrics_file", "zeo_metrics_file", "cron_metrics_file", "cron_disk_metrics_file", "scheduler_metrics_file")
    given = {name: f"/var/lib/absent/deep/{name}.prom" for name in files}
    configure(site, tags="backup,cron,scheduler,zeo", **TOLD, **given)
    site.run("rm -f /run/sink/*; systemctl start indico-backup indico-disk indico-clean indico-scheduler-metrics indico-zeo-watch indico-watch")
    assert set(site.run("ls /var/lib/absent/deep").split()) == {f"{name}.prom" for name in files}
    assert answer(site, f"{JOBS} check") == (0, f"OK: {len(jobs(site))} jobs, none of which failed or is overdue\n")
    yield
    configure(site, tags="backup,cron,scheduler,zeo")


def test_a_directory_that_is_missing_keeps_no_job_from_its_work(site: Site, told: None) -> None:
    """O1."""
    site.run("mv /var/lib/absent /var/lib/elsewhere")
    began = now(site)
    site.run("systemctl start indico-backup indico-clean")
    disk = site.shell().run("systemctl start indico-disk")
    assert wait_for_a_run(site, "indico-backup", began)["result"] == "success"
    rc, said = answer(site, f"{BACKUP} check")
    site.run("mv /var/lib/elsewhere /var/lib/absent; systemctl start indico-disk indico-watch")
    assert (rc, said) == (1, "WARNING: there is no /var/lib/absent/deep/backup_metrics_file.prom, which each run writes\n")
    assert disk.rc != 0
    wait_for_a_mail(site, "Subject: indico-disk failed on .*: exit code 1")


def test_a_job_that_cannot_begin_is_told_although_it_leaves_no_record(site: Site, told: None) -> None:
    """O1: the directory is missing for what ends the job, too. The disk of the records is full, and so is /tmp, where systemd wants to make directories."""
    site.run("rm -f /run/sink/*; mount -t tmpfs -o size=4k tmpfs /var/lib/indico-jobs; head -c 4096 /dev/zero > /var/lib/indico-jobs/filler")
    site.run("mount -t tmpfs -o nr_inodes=1 tmpfs /tmp")
    with dropped_in(site, "indico-clean.service", "ReadWritePaths=/nonexistent/directory"):
        failed = site.shell().run("systemctl start indico-clean")
        wait_for_a_mail(site, "could not start")
        site.run("umount /tmp /var/lib/indico-jobs")
        rc, said = answer(site, f"{JOBS} status")
    site.run("systemctl start indico-clean")
    assert failed.rc != 0
    assert rc == 2 and "CRITICAL: indico-clean failed: could not start (" in said
    assert "job         indico-clean\n" in site.run("cat /run/sink/posts")
    assert answer(site, f"{JOBS} check")[0] == 0


def test_a_broken_unit_and_a_timer_that_is_off_are_critical_everywhere(site: Site, told: None) -> None:
    """O1."""
    site.run("rm -f /run/sink/*; systemctl disable --now indico-backup.timer")
    with dropped_in(site, "indico-disk.service", "ExecStart="):
        backup, status = answer(site, f"{BACKUP} check"), site.play(playbook="playbooks/status.yml")
        site.run("systemctl start indico-watch")
        metrics = site.run("cat /var/lib/absent/deep/cron_metrics_file.prom")
        rc, said = answer(site, f"{JOBS} check")
    site.run("systemctl enable --now indico-backup.timer")
    off, broken = (
        "indico-backup is never started: indico-backup.timer is inactive.",
        "indico-disk cannot start: systemd says that its unit file is bad-setting.",
    )
    assert backup[0] == 2 and off in backup[1]
    assert rc == 2 and off in said and broken in said
    (sentences,) = status.failures
    assert off in sentences and broken in sentences
    for name in ("backup", "disk"):
        assert f'indico_job_status{{instance_name="indico",unit="indico-{name}"}} 0' in metrics
    wait_for_a_mail(site, "indico-backup is never started")
    assert site.run("cat /run/sink/posts").count("indico-disk cannot start") == 1
    assert answer(site, f"{JOBS} check")[0] == 0


def test_a_database_that_is_replaced_under_its_server_is_critical_everywhere(site: Site, told: None) -> None:
    """B7: also from inside the sandboxes of the jobs. Hosts of the lab let nobody look into /proc/PID/fd, so the transactions have to show it."""
    place = "/opt/indico/db/rooms"
    site.run(f"cd {place} && cp --preserve Data.fs x && rm Data.fs && mv x Data.fs")
    site.run(f'/opt/indico/zeo/bin/python -c "{COMMIT}" 2>/dev/null')
    failed = site.shell().run("systemctl start indico-backup")
    said, check, zeo = site.run("journalctl --unit indico-backup --lines 20 --no-pager"), answer(site, f"{BACKUP} check"), answer(site, f"{ZEO} check")
    site.run("systemctl start indico-zeo-watch")
    metrics, status = site.run("cat /var/lib/absent/deep/zeo_metrics_file.prom"), site.play(playbook="playbooks/status.yml")
    site.run("systemctl restart indico-zeo@rooms && systemctl start indico-backup")
    sentence = f"and the newest in {place}/Data.fs is "
    assert failed.rc != 0 and sentence in said
    assert (check[0], zeo[0]) == (2, 2) and sentence in check[1] and sentence in zeo[1]
    assert 'indico_zeo_file_replaced{instance_name="indico",storage="rooms"} 1' in metrics
    assert sentence in status.failures[0]
    assert answer(site, f"{ZEO} check")[0] == 0
