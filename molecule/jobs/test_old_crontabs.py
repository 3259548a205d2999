"""playbooks/old_crontabs.yml finds what somebody wrote into crontabs, removes what is named, and cron no longer runs it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lib.playbook import Run
from tests.lib.site import Site

PLAYBOOK = "playbooks/old_crontabs.yml"
LOOK = "Look, and remove what was named"
SPOOL = "/var/spool/cron/crontabs"
KEPT = r"""MAILTO=""
# what somebody had on a host of Indico 1.x
0 8 * * * df | gawk '{ if ($5+0 > 85) print $6 }' | mailx -s "Disk space warning on HOST" admins
0 5 * * * rsync --password-file=/root/x rsync://me:hunter2@192.0.2.1/ {prefix}/archive
"""
GOES = r"""30 1 * * * {prefix}/bin/httpd_logrotate /usr/sbin/httpd 120 {prefix}/log/
30 2 * * * {prefix}/bin/indicolog_rotate {prefix}/log/
40 3 * * * mv {prefix}/log/scheduler.log.* {prefix}/log/backup/.
0 4 * * * {prefix}/bin/offlineMirror.sh
00 02 * * * python2.6 {prefix}/bin/maintenance/packDB.py
00 01 * * * python2.6 {prefix}/bin/maintenance/removeOldBackups.py {prefix}/db_backups/indico
0 2 * * * find {prefix}/cache/ -type f -mtime +1 -exec rm -rf {} \;
0 1 * * * find {prefix}/tmp -type f -mtime +1 -exec rm {} \;
"""
KINDS = ["disk_space", "other", "apache_logs", "indico_logs", "scheduler_logs", "offline_mirror", "pack", "backup_retention", "cache", "tmp"]


def look(site: Site, report: Path, *arguments: str, **extra: object) -> tuple[Run, list[dict[str, Any]]]:
    run = site.play(*arguments, playbook=PLAYBOOK, report_file=str(report), **extra)
    assert run.returncode == 0, run.output
    (found,) = json.loads(report.read_text()).values()
    return run, found


def state(site: Site) -> str:
    """Return what identifies the crontabs and all that is in them."""
    return site.run(f"cd / && find etc/cron* {SPOOL[1:]} -printf '%p %U %G %m %T@\\n' -type f -exec sha256sum {{}} ';' | sort; ls -A /var/backups")


@pytest.fixture
def crontab(site: Site) -> Iterator[str]:
    """Give the crontab that a user and the host have, whose last line but one runs each minute and leaves a mark."""
    site.run("command -v crontab >/dev/null || (apt-get -qq update; DEBIAN_FRONTEND=noninteractive apt-get -qq install cron) >/dev/null")
    # The commands do what the lines are known for, in a directory of no consequence.
    marks = f"* * * * * touch {site.prefix}/tmp/kept.mark\n* * * * * find {site.prefix}/tmp -name goes.mark -delete\n"
    text = (KEPT + GOES).replace("{prefix}", site.prefix) + marks
    site.run(f"crontab -u {site.user} - <<'END'\n{text}END")
    site.run("cat > /etc/cron.d/indico-by-hand <<'END'\n0 2 * * * root zeopack localhost:9675\n# stays\n0 3 * * * root true\nEND")
    site.run(
        "cat > /etc/cron.weekly/pack-by-hand <<'END'\n#!/bin/sh\npython2.6 "
        + site.prefix
        + "/bin/maintenance/packDB.py\nEND\nchmod 755 /etc/cron.weekly/pack-by-hand"
    )
    site.run("systemctl restart cron")  # which reads them at once, and again at a full minute when it sees that they are new
    try:
        yield text
    finally:
        site.run(f"crontab -u {site.user} -r || :; rm -f /etc/cron.d/indico-by-hand /etc/cron.weekly/pack-by-hand")
        site.run(f"rm -f /var/backups/old_crontab-* {site.prefix}/tmp/*.mark")


def test_found_removed_and_no_longer_run(site: Site, crontab: str, tmp_path: Path) -> None:
    report, mine = tmp_path / "report.json", f"{SPOOL}/{site.user}"
    kept, goes = f"{site.prefix}/tmp/kept.mark", f"{site.prefix}/tmp/goes.mark"
    before = state(site)
    run, found = look(site, report)
    assert state(site) == before
    assert run.changed.keys() == {"Report | Write it to a file on the controller"}
    in_mine = [one for one in found if one["file"] == mine]
    assert [one["kind"] for one in in_mine] == [*KINDS, "other", "tmp"]
    assert [one["kind"] for one in in_mine if not one["certain"]] == ["disk_space", "other", "other"]
    assert {one["user"] for one in in_mine} == {site.user}
    others = {(one["file"], one["line"]): (one["kind"], one["certain"]) for one in found if one["file"] != mine}
    assert others == {("/etc/cron.d/indico-by-hand", 1): ("pack", True), ("/etc/cron.weekly/pack-by-hand", 2): ("pack", True)}, (
        "or a file of the roles is found"
    )
    assert "hunter2" not in run.output + report.read_text()

    predicted, _found = look(site, report, "--check", remove="all")
    assert state(site) == before
    removed = predicted.changed[LOOK][0]["removed"]
    assert sorted(removed) == sorted(one["id"] for one in found if one["certain"])
    assert f"find {site.prefix}/cache/ -type f -mtime +1 -exec rm -rf" in predicted.diff()

    owner, inode = (site.run(f"stat -c '{form}' {mine}") for form in ("%U:%G %a", "%i"))
    original = site.run(f"cat {mine}")
    done, _found = look(site, report, remove="all")
    assert done.changed[LOOK][0]["removed"] == removed
    assert done.changed[LOOK][0]["diff"] == predicted.changed[LOOK][0]["diff"]
    left = [line for line in crontab.splitlines() if line in KEPT.replace("{prefix}", site.prefix).splitlines() or "kept.mark" in line]
    assert site.run(f"crontab -u {site.user} -l").splitlines() == left
    assert site.run(f"stat -c '%U:%G %a' {mine}") == owner and site.run(f"stat -c %i {mine}") != inode
    assert site.run("cat /etc/cron.d/indico-by-hand") == "# stays\n0 3 * * * root true"
    assert not site.shell().file("/etc/cron.weekly/pack-by-hand").exists
    copies = done.changed[LOOK][0]["copies"]
    assert len(copies) == 3
    assert site.run(f"stat -c '%U %a' {' '.join(copies)}").splitlines() == ["root 600"] * 3
    (copy,) = (path for path in copies if "-spool-" in path)
    assert site.run(f"cat {copy}") == original

    # At the next full minute cron runs the line that was beside it, and that one no more.
    site.run(f"rm -f {kept}; touch {goes}; for i in $(seq 70); do test -e {kept} && sleep 1 && exit 0; sleep 1; done; exit 1")
    assert site.shell().file(goes).exists, "cron still runs the line that was removed"

    after = state(site)
    again, found = look(site, report, remove="all")
    assert again.changed.keys() <= {"Report | Write it to a file on the controller"}
    assert [one["kind"] for one in found] == ["disk_space", "other", "other"]

    # What is not certain goes when it is named, and what went before is nothing that fails.
    disk = found[0]["id"]
    run, _found = look(site, report, remove=f"{disk},{removed[0]}")
    assert (run.changed[LOOK][0]["removed"], run.changed[LOOK][0]["unknown"]) == ([disk], [removed[0]])
    assert "mailx" not in site.run(f"crontab -u {site.user} -l")
    assert state(site) != after

    wrong = site.play(playbook=PLAYBOOK, remove="everything")
    assert wrong.returncode != 0
    assert "'everything' is not what can be removed; say all, an id of the report" in "".join(wrong.failures)
