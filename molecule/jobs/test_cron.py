"""Scheduled jobs: the real timer and the real cron fire them, one that fails is told, one that hangs is ended, and all is in one table."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lib.site import Site

JOBS = "/opt/indico/bin/indico-jobs"
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


def configure(site: Site, **extra: object) -> str:
    """Run the role with these variables. Return what it showed."""
    run = site.play("--tags", "cron", "--diff", **extra)
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
