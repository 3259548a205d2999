"""Which jobs are found in crontabs, how sure that is, and that only those go which are named."""

from __future__ import annotations

import os
import re
import stat
import time
from pathlib import Path

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _job_units, _old_crontabs
from ansible_collections.confops.indico.plugins.module_utils._old_crontabs import CrontabError, Report

from tests.unit.roles import SPECS

REPOSITORY = Path(__file__).resolve().parents[4]
SPOOL, SYSTEM = "/var/spool/cron/crontabs", "/etc/cron.d"

# What an administrator of Indico 1.x had: line -> kind, and whether it is certain.
CRONTAB = r"""# m h dom mon dow command
MAILTO=indico@example.org
INDICO = "/opt/indico"

# httpd log rotate
30 1 * * * /opt/indico/bin/httpd_logrotate /usr/sbin/httpd 120 /opt/indico/log/
# indico log rotate
30 2 * * * /opt/indico/bin/indicolog_rotate /opt/indico/log/
# scheduler log rotate
40 3 * * * mv /opt/indico/log/scheduler.log.* /opt/indico/log/backup/.
# indico offline mirror
0 4 * * * /opt/indico/bin/offlineMirror.sh
# pack Indico DB
00 02 * * * python2.6 /opt/indico/bin/maintenance/packDB.py
# check disk space
0 8 * * * df | gawk '{ if ($5+0 > 85) print $6 " is " $5 " full" }' | mailx -s "Disk space warning on HOST" admins
# clean up old backup copies
00 01 * * * python2.6 /opt/indico/bin/maintenance/removeOldBackups.py /opt/indico/db_backups/indico
00 01 * * * python2.6 /opt/indico/bin/maintenance/removeOldBackups.py /opt/indico/db_backups/indico2
00 01 * * * python2.6 /opt/indico/bin/maintenance/removeOldBackups.py /opt/indico/db_backups/room_booking
# clean up cache
0 2 * * * find /opt/indico/cache/ -type f -mtime +1 -exec rm -rf {} \;
# clean up temporary files
0 1 * * * find /opt/indico/tmp -type f -mtime +1 -exec rm {} \;
"""
FOUND = [
    (6, "apache_logs", True),
    (8, "indico_logs", True),
    (10, "scheduler_logs", True),
    (12, "offline_mirror", True),
    (14, "pack", True),
    (16, "disk_space", False),
    (18, "backup_retention", True),
    (19, "backup_retention", True),
    (20, "backup_retention", True),
    (22, "cache", True),
    (24, "tmp", True),
]


class Host:
    """A root directory with crontabs."""

    def __init__(self, root: Path) -> None:
        self.root, self.copies = root, root / "var/backups"
        self.copies.mkdir(parents=True)
        self.file("/opt/indico/bin/indico-backup", "role backup's", 0o755)

    def file(self, name: str, content: str | bytes, mode: int = 0o644) -> Path:
        path = self.root / name[1:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path

    def look(self, prefix: str = "/opt/indico") -> Report:
        return _old_crontabs.look(prefix, root=str(self.root))

    def job(self, line: str) -> tuple[str, bool] | None:
        """Return the kind and the certainty of a job in root's crontab."""
        path = self.file(f"{SPOOL}/root", f"0 1 * * * {line}\n", 0o600)
        found = self.look().findings
        path.unlink()
        assert len(found) < 2
        return (found[0].kind.name, found[0].certain) if found else None

    def state(self) -> dict[str, tuple[bytes, int, int]]:
        files = [path for path in self.root.rglob("*") if path.is_file() and self.copies not in path.parents]
        return {f"/{path.relative_to(self.root)}": (path.read_bytes(), path.stat().st_mode, path.stat().st_uid) for path in files}

    def remove(self, *wanted: str) -> Report:
        """Remove after a check that foretold the same and did nothing; a second run then finds nothing to remove."""
        before = self.state()
        predicted = self.look()
        _old_crontabs.remove(predicted, list(wanted), str(self.copies), check=True)
        assert self.state() == before and not list(self.copies.iterdir())
        done = self.look()
        _old_crontabs.remove(done, list(wanted), str(self.copies))
        assert (done.removed, done.diff, done.unknown) == (predicted.removed, predicted.diff, predicted.unknown)
        assert len(done.copies) == len(done.diff)
        after = self.state()
        again = self.look()
        _old_crontabs.remove(again, list(wanted), str(self.copies))
        assert (again.removed, again.copies, self.state()) == ([], [], after)
        assert len(again.findings) == len(done.findings) - len(done.removed)
        return done


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_crontab_of_a_user(host: Host) -> None:
    host.file(f"{SPOOL}/apache", CRONTAB, 0o600)
    found = host.look().findings
    assert [(one.line, one.kind.name, one.certain) for one in found] == FOUND
    assert {(one.file, one.user) for one in found} == {(f"{SPOOL}/apache", "apache")}
    pack = found[4].data()
    assert re.fullmatch("[0-9a-f]{8}", pack["id"])
    assert (pack["schedule"], pack["text"]) == ("00 02 * * *", "python2.6 /opt/indico/bin/maintenance/packDB.py")
    assert len({one.identity for one in found}) == len(found)


def test_the_same_in_the_system_s_crontabs(host: Host) -> None:
    lines = [re.sub(r"^(\S+ \S+ \* \* \*) ", r"\1 apache ", line) for line in CRONTAB.splitlines()]
    for name in ("/etc/crontab", f"{SYSTEM}/indico"):
        host.file(name, "\n".join(lines) + "\n")
    found = host.look().findings
    assert [(one.line, one.kind.name, one.certain) for one in found] == FOUND * 2
    assert {one.user for one in found} == {"apache"}
    assert found[4].text == "python2.6 /opt/indico/bin/maintenance/packDB.py"


@pytest.mark.parametrize(
    ("line", "kind", "certain"),
    [
        # The talk's other commands, word by word.
        ("python2.6 .../removeOldBackups.py .../db_backups/indico", "backup_retention", False),
        ("df | gawk '...' | mailx -s \"Disk space warning on HOST\" admins", "disk_space", False),
        ("zeopack localhost:9675", "pack", True),
        ("repozo -BvzQ -r /foo/backup -f /foo/Data.fs", "backup", False),
        ("sudo -u apache indico_scheduler start", "scheduler", True),
        ("echo 'dbi.pack()' | indico_shell", "pack", False),
        ("/opt/indico/bin/maintenance/packDB.py|tee -a /var/log/pack|/usr/local/bin/report", "pack", False),
        ("/opt/indico/bin/maintenance/packDB.py 2>&1|tee -a /var/log/pack | grep -v ok", "pack", True),
        ("/opt/indico/bin/maintenance/packDB.py", "pack", True),
        ("python /opt/indico/bin/maintenance/category_integrity.py", "category_integrity", True),
        # As people vary them.
        ("cd /opt/indico/bin/maintenance && nice -n 19 python2.6 packDB.py >/dev/null 2>&1", "pack", True),
        ("[ -x /opt/indico/bin/offlineMirror.sh ] && /opt/indico/bin/offlineMirror.sh 2>&1 | mail -s mirror root", "offline_mirror", True),
        ("PYTHONPATH=/opt/indico/lib python /opt/indico/bin/maintenance/packDB.py", "pack", True),
        ("find /opt/indico/cache -type f -mtime +1 -delete; find /opt/indico/tmp -mtime +1 -delete", "cache", True),
        ("find /opt/indico/tmp -type f -mtime +1 -print0 | xargs -0 rm -f", "tmp", True),
        ("rm -rf /opt/indico/cache/*", "cache", True),
        ("tmpwatch 24 /opt/indico/tmp", "tmp", True),
        ("repozo -BQ -r /var/backups/indico -f /opt/indico/db/Data.fs", "backup", True),
        ("/usr/bin/zeopack -d 1 -h localhost -p 9676", "pack", True),
        ("/usr/bin/python2.6 /opt/indico/bin/taskDaemon.py start", "scheduler", True),
        ("mail -s x root < /opt/indico/log/indico.log", "other", False),
        # Something else is in the same line, or around it.
        ("python2.6 /opt/indico/bin/maintenance/packDB.py && rsync -a /opt/indico/db other:", "pack", False),
        ("python2.6 /opt/indico/bin/maintenance/packDB.py; /usr/local/bin/report", "pack", False),
        ("echo $(/usr/local/bin/report); /opt/indico/bin/maintenance/packDB.py", "pack", False),
        ("rsync -a /opt/indico/bin/maintenance/packDB.py other:", "pack", False),
        ("su - apache -c 'indico_scheduler start'", "scheduler", False),
        ("rsync -a /opt/indico/archive other:", "other", False),
        ("echo packDB.py", "pack", False),
        ("for f in /opt/indico/tmp/*; do rm $f; done", "tmp", False),
        ("find /opt/indico -type f -mtime +1 -delete", "other", False),
        ("packDB.py 'and an open quote", "pack", False),
        # Another instance, or another program's.
        ("python /srv/other/bin/maintenance/packDB.py", "pack", False),
        ("repozo -B -r /backup/plone -f /srv/plone/Data.fs", "backup", False),
        ("zeopack localhost:8100", "pack", False),
        ("mv /var/log/airflow/scheduler.log.1 /var/tmp", "scheduler_logs", False),
    ],
)
def test_a_job(host: Host, line: str, kind: str, certain: bool) -> None:
    assert host.job(line) == (kind, certain)


@pytest.mark.parametrize(
    "line",
    [
        "run-parts /etc/cron.hourly",
        "find /opt/indico2/cache -type f -delete",
        "find /opt/indico-old/tmp -type f -exec rm {} \\;",
        "find /srv/opt/indico/cache -delete",
        "find /var/cache -type f -mtime +1 -exec rm {} \\;",
        "df -h > /var/log/df",
        "pdf /x | mailx root",
        "systemctl start indico-backup.service",
        "/opt/indico/bin/indico-backup check || echo trouble",
        "/opt/indico/bin/indico-manage clean --dry-run",
        "/opt/indico/bin/events-zeo check",
    ],
)
def test_no_job_of_the_instance(host: Host, line: str) -> None:
    assert host.job(line) is None


@pytest.mark.parametrize(
    "line",
    [
        "find /opt/indico/tmp /var/tmp -type f -mtime +1 -exec rm {} \\;",
        "find . /opt/indico/tmp -type f -delete",
        "rm -rf /opt/indico/cache/* /srv/x/*",
        "rm -rf /opt/indico/cache/../../x/*",
        "rm -rf /opt/indico/cache/* old",
        "rm -rf /opt/indico/tmp/$X",
        "/opt/indico/bin/zeopack a b",
        "zeopack localhost:9675 other:9675",
        "zeopack -h other.example.org -p 9675",
        "/opt/indico/bin/repozo -BQ -r /backup -f /opt/plone/Data.fs",
        "/opt/plone/bin/repozo -BQ -r /backup -f /opt/indico/db/Data.fs",
        "find /opt/indico/tmp -type f -mtime +1 | xargs scp -t other:",
        "find /opt/indico/tmp -type f -mtime +1 -delete -print | xargs rm -f /srv/x",
        "find /opt/indico/tmp -type f -mtime +1 -exec cp {} /mnt \\; -delete",
        "find /opt/indico/tmp -type f -mtime +1 -fprint /srv/list -delete",
        "find /opt/indico/cache -newer /srv/mark -delete",
        "find /srv/x -type f -delete # not /opt/indico/tmp",
        "/opt/other/bin/packDB.py # /opt/indico",
        "mv /opt/indico/log/scheduler.log.1 /backup/logs",
        "python /opt/indico/bin/maintenance/removeOldBackups.py /srv/plone/backups",
        "find /opt/indico/tmp -type f -delete -print | awk '{system(\"x \" $0)}'",
        "/opt/indico/bin/indicolog_rotate /opt/indico/log/ --then=/usr/local/bin/report",
    ],
)
def test_an_argument_that_names_another_place_makes_a_job_uncertain(host: Host, line: str) -> None:
    """O13: thirteen of sixteen such jobs were certain, and remove=all took them."""
    found = host.job(line)
    assert found is None or not found[1]


@pytest.mark.parametrize(
    "line",
    [
        "find /opt/indico/tmp/ /opt/indico/cache -type f -name '*.tmp' -mtime +1 -exec /bin/rm -f {} + >/dev/null 2>&1",
        "find /opt/indico/tmp -type f -delete > /var/log/clean.log 2>&1",
        "find /opt/indico/tmp -type f -delete # clean up",
        "/usr/local/bin/zeopack -d 3 localhost:9675 127.0.0.1:9676",
        "zeopack -t 02:00 localhost:9675",
        "/opt/indico/bin/httpd_logrotate /usr/sbin/httpd 120 /opt/indico/log/",
        "nice repozo -BvzQ --repository=/backup/main --file=/opt/indico/db/Data.fs",
        "tmpwatch -m 24 /opt/indico/tmp",
    ],
)
def test_a_job_of_the_instance_alone_stays_certain(host: Host, line: str) -> None:
    found = host.job(line)
    assert found and found[1]


def test_the_comment_above_a_removed_job_goes_with_it(host: Host) -> None:
    """O14: without its job it misleads. One that says more stays: a heading, a job that is commented out, a comment with other jobs below."""
    content = """# m h  dom mon dow   command
# pack
# every night
0 2 * * * packDB.py

# both
0 3 * * * packDB.py -v
0 4 * * * /usr/bin/other

# two of ours
0 5 * * * indico_scheduler start
0 6 * * * packDB.py
# 0 7 * * * /usr/bin/off
0 8 * * * packDB.py --x
# the last
0 9 * * * packDB.py
"""
    path = host.file(f"{SPOOL}/root", content, 0o600)
    host.remove("all")
    assert path.read_text() == ("# m h  dom mon dow   command\n\n# both\n0 4 * * * /usr/bin/other\n\n# 0 7 * * * /usr/bin/off\n")


def test_comments_and_environment_are_none(host: Host) -> None:
    content = """
# 00 02 * * * python2.6 /opt/indico/bin/maintenance/packDB.py
  # find /opt/indico/cache -delete
PATH=/opt/indico/bin:/usr/bin
  "HOME" = '/opt/indico'
00 02 * * python2.6
packDB.py
"""
    host.file(f"{SPOOL}/root", content, 0o600)
    host.file("/etc/crontab", content)
    assert host.look().findings == []


def test_forms_of_a_line(host: Host) -> None:
    content = (
        "INDICO=/opt/indico\n\t@daily\tfind ${INDICO}/cache -type f -delete\n*/5 8-18 1,15 jan mon-fri\tpackDB.py \\\n@reboot root indico_scheduler start\n"
    )
    host.file(f"{SPOOL}/root", content + '0 1 * * * python -c "x"%packDB.py\r\n0 1 * * * date +\\%F; packDB.py', 0o600)
    found = host.look().findings
    assert [(one.line, one.schedule, one.kind.name, one.certain) for one in found] == [
        (2, "@daily", "cache", True),
        (3, "*/5 8-18 1,15 jan mon-fri", "pack", True),  # for cron the backslash does not continue the line
        (4, "@reboot", "scheduler", False),  # a user's crontab has no column for one, so root would be the command
        (5, "0 1 * * *", "pack", False),
        (6, "0 1 * * *", "pack", False),
    ]
    assert found[0].text == "find ${INDICO}/cache -type f -delete"


def test_anacron(host: Host) -> None:
    content = (
        "SHELL=/bin/sh\n1 5 cron.daily run-parts /etc/cron.daily\n7 10 pack python2.6 \\\n  /opt/indico/bin/maintenance/packDB.py\n@monthly 9 m packDB.py\n"
    )
    path = host.file("/etc/anacrontab", content)
    found = host.remove("all").removed
    assert [(one.line, one.numbers, one.schedule, one.kind.name) for one in found] == [(3, [2, 3], "7", "pack"), (5, [4], "@monthly", "pack")]
    assert path.read_text() == "SHELL=/bin/sh\n1 5 cron.daily run-parts /etc/cron.daily\n"


def test_scripts_go_as_a_whole(host: Host) -> None:
    pack = host.file(
        "/etc/cron.weekly/pack", "#!/bin/sh\n# weekly\nset -e\nINDICO=/opt/indico\ncd $INDICO\npython2.6 $INDICO/bin/maintenance/packDB.py\nexit 0\n", 0o755
    )
    mixed = host.file("/etc/cron.daily/site", "#!/bin/sh\n/usr/local/bin/report\nfind /opt/indico/tmp -type f \\\n  -exec rm {} \\;\n", 0o755)
    disk = host.file("/etc/cron.hourly/disk", "#!/bin/sh\ndf -P > /var/tmp/df\ngrep '9.%' /var/tmp/df && mailx -s full root < /var/tmp/df\n", 0o755)
    host.file("/etc/cron.daily/old.sh", "/opt/indico/bin/indicolog_rotate /opt/indico/log\n", 0o755)
    host.file("/etc/cron.daily/off", "/opt/indico/bin/indicolog_rotate /opt/indico/log\n", 0o644)
    host.file("/etc/cron.daily/logrotate", "#!/bin/sh\n/usr/sbin/logrotate /etc/logrotate.conf\n", 0o755)
    host.file("/etc/cron.daily/comment", "#!/bin/sh\n# not packDB.py \\\n", 0o755)
    host.file("/etc/cron.daily/last", "#!/bin/sh\n# a comment ends with its line \\\npackDB.py\n", 0o755)
    host.file("/etc/cron.daily/binary", b"\x7fELF\0packDB.py\n", 0o755)
    host.file("/etc/cron.daily/.placeholder", "packDB.py\n")
    found = {one.file.rpartition("/")[2]: (one.line, one.kind.name, one.certain, one.schedule, one.note) for one in host.look().findings}
    assert found == {
        "disk": (2, "disk_space", False, "@hourly", ""),
        "last": (3, "pack", True, "@daily", ""),
        "off": (1, "indico_logs", True, "@daily", "not executable, so not run"),
        "old.sh": (1, "indico_logs", True, "@daily", "cron skips files of such names"),
        "site": (3, "tmp", False, "@daily", ""),
        "pack": (6, "pack", True, "@weekly", ""),
    }
    content = pack.read_bytes()
    done = host.remove("/etc/cron.weekly/pack", "/etc/cron.hourly/disk")
    assert not pack.exists() and not disk.exists() and mixed.exists()
    assert content in [Path(copy).read_bytes() for copy in done.copies]


def test_what_the_roles_write_is_left_out(host: Host) -> None:
    """Their own templates, for this instance and another one; and not a file of somebody else's that is called alike."""
    job = {"description": "Job", "command": "/bin/true", "service": "", "schedule": "01:30"}
    made = _job_units.declare({"indico-job": job}, instance="indico", prefix="/opt/indico", backend="cron", crontab="indico-cron", validate=[])
    (content,) = [entry["content"] for entry in made["tree"] if entry["path"].startswith("/etc/cron.d/")]
    header = content.splitlines()[0]
    for name in ("indico-backup", "indico-offsite", "indico-scheduler", "indico-cron", "events-backup"):
        host.file(f"{SYSTEM}/{name}", f"{header}\n30 1 * * * root systemctl start {name}.service\n0 2 * * * root find /opt/indico/tmp -delete\n")
    assert host.look().findings == []
    host.file(f"{SYSTEM}/my-backup", "# by hand\n0 2 * * * root find /opt/indico/tmp -delete\n")
    host.file(f"{SYSTEM}/indico", f"{header}\n0 2 * * * root find /opt/indico/tmp -delete\n")
    assert [one.file for one in host.look().findings] == [f"{SYSTEM}/indico", f"{SYSTEM}/my-backup"]


def test_removal_leaves_every_other_byte(host: Host) -> None:
    odd = "0 0 * * * echo caf\u00e9 \u2028 \x0b\x0c\x85\r\n\n \t\n".encode() + b"# latin: \xe9\xff\n"
    kept = odd + CRONTAB.encode()
    path = host.file(f"{SPOOL}/apache", kept + b"0 5 * * * echo the last line has no end", 0o600)
    if os.geteuid() == 0:
        os.chown(path, 1234, 4321)
    before = path.stat()
    original = path.read_bytes()
    done = host.remove("all")
    assert [(one.line - 4, one.kind.name) for one in done.removed] == [(line, kind) for line, kind, certain in FOUND if certain]
    gone = {line + 4 for line, _kind, certain in FOUND if certain}
    lines = original.split(b"\n")
    gone |= {line + 4 for line in (5, 7, 9, 11, 13, 17, 21)}  # O14: their comments, but for the last one, which a job follows that stays
    assert path.read_bytes() == b"\n".join(line for number, line in enumerate(lines, 1) if number not in gone)
    after = path.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert after.st_mtime_ns > before.st_mtime_ns and path.parent.stat().st_mtime_ns > before.st_mtime_ns  # what cron goes by
    (copy,) = host.copies.iterdir()
    assert str(copy) == done.copies[0]
    assert copy.read_bytes() == original and stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_only_what_is_named_goes(host: Host) -> None:
    mine = host.file(f"{SPOOL}/apache", CRONTAB + "0 5 * * * packDB.py\n0 5 * * * packDB.py\n0 6 * * * packDB.py\n", 0o600)
    other = host.file(f"{SYSTEM}/old", "0 5 * * * root rsync /opt/indico/archive other:\n0 5 * * * root /usr/bin/something\n")
    ids = {(one.file, one.line): one.identity for one in host.look().findings}
    assert ids[f"{SPOOL}/apache", 25] == ids[f"{SPOOL}/apache", 26] != ids[f"{SPOOL}/apache", 27]
    done = host.remove(ids[f"{SPOOL}/apache", 25], ids[f"{SPOOL}/apache", 16], "0123abcd")
    assert [one.line for one in done.removed] == [16, 25, 26]
    assert done.unknown == ["0123abcd"]
    assert (
        mine.read_text() == "".join(line + "\n" for line in CRONTAB.splitlines() if "df |" not in line and "check disk" not in line) + "0 6 * * * packDB.py\n"
    )
    for copy in host.copies.iterdir():
        copy.unlink()
    assert host.remove(f"{SYSTEM}/old").removed[0].kind.name == "other"
    assert other.read_text() == "0 5 * * * root /usr/bin/something\n"


@pytest.mark.parametrize("name", ["everything", "12", "../x", "", "ALL"])
def test_other_words_are_refused(host: Host, name: str) -> None:
    host.file(f"{SPOOL}/apache", CRONTAB, 0o600)
    before = host.state()
    with pytest.raises(CrontabError, match="is not what can be removed; say all, an id of the report"):
        _old_crontabs.remove(host.look(), [name, "all"], str(host.copies))
    assert host.state() == before


def test_links(host: Host, tmp_path: Path) -> None:
    elsewhere = host.file("/srv/repository/crontab", "0 5 * * * root packDB.py\n")
    script = host.file("/srv/repository/script", "packDB.py\n", 0o755)
    (tmp_path / "etc/cron.d").mkdir(parents=True)
    (tmp_path / "etc/cron.d/linked").symlink_to(elsewhere)
    (tmp_path / "etc/cron.d/nowhere").symlink_to("/nowhere/at/all")
    (tmp_path / "etc/cron.daily").mkdir(parents=True)
    (tmp_path / "etc/cron.daily/linked").symlink_to(script)
    (tmp_path / SPOOL[1:]).mkdir(parents=True)
    (tmp_path / SPOOL[1:] / "mallory").symlink_to(elsewhere)
    assert [(one.file, one.certain) for one in host.look().findings] == [(f"{SYSTEM}/linked", False), ("/etc/cron.daily/linked", True)]
    with pytest.raises(CrontabError, match=f"{SYSTEM}/linked is a link to {elsewhere}, .*nothing was removed; edit that file"):
        _old_crontabs.remove(host.look(), [f"{SYSTEM}/linked", "all"], str(host.copies))
    host.remove("all")
    assert script.exists() and elsewhere.exists() and not (tmp_path / "etc/cron.daily/linked").is_symlink()


def test_backups_are_certain_only_where_the_role_makes_them(host: Host) -> None:
    (host.root / "opt/indico/bin/indico-backup").rename(host.root / "opt/indico/bin/indico-manage")
    path = host.file(f"{SPOOL}/root", CRONTAB + "0 5 * * * repozo -BQ -r /b -f /opt/indico/db/Data.fs\n", 0o600)
    found = host.remove("all").findings
    assert {one.kind.name for one in found if one.note == "role backup is not on this host"} == {"pack", "backup", "backup_retention"}
    assert {one.kind.name for one in found if not one.certain} == {"pack", "backup", "backup_retention", "disk_space"}
    left = path.read_text()
    assert "repozo" in left and "packDB.py" in left and "removeOldBackups.py" in left and "find" not in left


def test_what_was_done_before_an_error_is_said(host: Host) -> None:
    first = host.file(f"{SYSTEM}/first", "0 5 * * * root packDB.py\n")
    second = host.file(f"{SPOOL}/apache", CRONTAB, 0o600)
    report = host.look()
    second.write_text("0 5 * * * echo new\n")
    with pytest.raises(CrontabError, match=f"Somebody changed {SPOOL}/apache .* Before that, lines were removed from {SYSTEM}/first.$"):
        _old_crontabs.remove(report, ["all"], str(host.copies))
    assert first.read_text() == "" and second.read_text() == "0 5 * * * echo new\n"


def test_without_a_place_for_the_copy_nothing_goes(host: Host) -> None:
    host.file(f"{SPOOL}/apache", CRONTAB, 0o600)
    before = host.state()
    with pytest.raises(CrontabError, match="There is no directory /nowhere for the copies"):
        _old_crontabs.remove(host.look(), ["all"], "/nowhere")
    assert host.state() == before


def test_somebody_edits_it_meanwhile(host: Host) -> None:
    path = host.file(f"{SPOOL}/apache", CRONTAB, 0o600)
    report = host.look()
    path.write_text(CRONTAB + "0 5 * * * echo new\n")
    with pytest.raises(CrontabError, match=f"Somebody changed {SPOOL}/apache at the same moment, so it was left alone"):
        _old_crontabs.remove(report, ["all"], str(host.copies))
    assert path.read_text() == CRONTAB + "0 5 * * * echo new\n"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("wget -q https://ping:hunter2@example.org/x?token=hunter2&y=1", "wget -q https://ping:***@example.org/x?token=***&y=1"),
        ("redis-cli -a hunter2 flushall", "redis-cli -a *** flushall"),
        ("redis://unused:hunter2@localhost:6379/1", "redis://unused:***@localhost:6379/1"),
        ("curl -u me:hunter2 --user 'me:hunter2' x", "curl -u me:*** --user 'me:***' x"),
        ("curl -H 'Authorization: Bearer hunter2' -H \"X-Api-Key: hunter2\" x", "curl -H 'Authorization: ***' -H \"X-Api-Key: ***\" x"),
        ("mysqldump -u root -phunter2 db; mysqldump --password=hunter2 db", "mysqldump -u root -p*** db; mysqldump --password=*** db"),
        ("MYSQL_PWD='hunter2' x; PASSWORD=\"hunter2 hunter2\" y; ak=hunter2&signature=hunter2", "MYSQL_PWD=*** x; PASSWORD=*** y; ak=***&signature=***"),
        ("sshpass -p hunter2 ssh x; zip --password hunter2 x", "sshpass -p *** ssh x; zip --password *** x"),
        ("ldapsearch -x -w hunter2", "ldapsearch -x -w ***"),
        ("git clone https://ghp_hunter2hunter2hunter2@github.com/x", "git clone https://***@github.com/x"),
        ("find /x -path '*/y' -print -perm 644 -exec rm {} \\;", "find /x -path '*/y' -print -perm 644 -exec rm {} \\;"),
    ],
)
def test_secrets_are_not_shown(host: Host, command: str, shown: str) -> None:
    assert _old_crontabs.mask(command) == shown
    host.file(f"{SPOOL}/root", f"0 1 * * * /opt/indico/x {command}\n", 0o600)
    host.file("/etc/cron.daily/x", f"#!/bin/sh\n/opt/indico/x {command}\n", 0o755)
    report = host.look()
    _old_crontabs.remove(report, [f"{SPOOL}/root", "/etc/cron.daily/x"], "/x", check=True)
    assert [one.text for one in report.findings] == [f"/opt/indico/x {shown}"] * 2
    told = repr((report.diff, _old_crontabs.lines(report), [one.data() for one in report.findings]))
    assert "hunter2" not in told and len(report.diff) == 2


def test_long_lines_and_control_characters(host: Host) -> None:
    host.file(f"{SPOOL}/root", f"0 1 * * * /opt/indico/x\x1b[2J\t{'y' * 500}\n", 0o600)
    (found,) = host.look().findings
    assert len(found.text) == 200 and found.text.endswith("y...")
    assert found.text.startswith("/opt/indico/x [2J y")


@pytest.mark.parametrize("piece", ["rm ", "mysql -p", "://a:", "df ", "'", "find /opt/indico/cache ", "zeopack ", "--pass", "pass=", "x-key", "|", "a=", "@"])
def test_a_line_that_somebody_made_to_take_long_does_not(host: Host, piece: str) -> None:
    """Every user may write a crontab, and root reads it."""
    host.file(f"{SPOOL}/mallory", f"0 1 * * * /opt/indico/x {piece * (60000 // len(piece))}\n", 0o600)
    host.file("/etc/cron.daily/x", f"/opt/indico/x {piece * 200}\n" * (60000 // len(piece * 200)), 0o755)
    start = time.process_time()
    assert len(host.look().findings) == 2
    assert time.process_time() - start < 20


def test_lines_for_people(host: Host) -> None:
    assert _old_crontabs.lines(host.look()) == ["Nothing of the instance is in a crontab that somebody wrote by hand."]
    host.file(f"{SPOOL}/root", "0 1 * * * find /opt/indico/cache -delete\n0 2 * * * rsync /opt/indico/x y:\n", 0o600)
    report = host.look()
    cache, other = (one.identity for one in report.findings)
    kind = report.findings[0].kind
    told = _old_crontabs.lines(report)
    assert told[0] == f"{cache} {SPOOL}/root:1 (user root), cache: 0 1 * * * find /opt/indico/cache -delete -- now: {kind.now}. The trap: {kind.trap}."
    assert told[1].startswith(f"{other} {SPOOL}/root:2 (user root), perhaps other: 0 2 * * * rsync /opt/indico/x y: -- now: nothing that is known")
    _old_crontabs.remove(report, ["all", "0123abcd"], str(host.copies), check=True)
    told = _old_crontabs.lines(report, check=True)
    assert told[0] == f"would be removed: {cache} {SPOOL}/root:1 (user root), cache: 0 1 * * * find /opt/indico/cache -delete"
    assert told[2:] == ["0123abcd names nothing here, or nothing any more."]
    _old_crontabs.remove(report, ["all"], str(host.copies))
    assert _old_crontabs.lines(report)[-1] == f"The file as it was: {report.copies[0]}"


@pytest.mark.parametrize("kind", _old_crontabs.KINDS, ids=lambda kind: kind.name)
def test_what_does_it_now_exists(kind: _old_crontabs.Kind) -> None:
    options = {name for options in SPECS.values() for name in options}
    assert kind.now and kind.trap and not (kind.now + kind.trap).endswith(".")
    for name in re.findall(r"playbooks/\w+\.yml", kind.now):
        assert (REPOSITORY / name).is_file()
    for name in re.findall(r"\b(?:backup|logrotate|scheduler)_\w+", kind.now):
        assert name in options
