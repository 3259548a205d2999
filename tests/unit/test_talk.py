"""docs/talk.md leaves out nothing of the talk, and whatever it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.roles import ROLES, SPECS

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENT = REPOSITORY / "docs/talk.md"
TEXT = DOCUMENT.read_text()
CODES = re.findall(r"`([^`\n]+)`", TEXT)

ITEMS = {
    "logs": ["/opt/indico/log", "indico.log", "scheduler.log", "apache2-access.log", "apache2-error.log", "indico.requestHandler: INFO - Request"],
    "rotation": ["rotate 5", "mail youruser", "daily", "olddir", "compress", "delaycompress", "notifempty", "sharedscripts", "postrotate", "httpd restart"],
    "scheduler": ["indico_scheduler start", "indico_scheduler stop", "indico_scheduler show status", "indico_scheduler -h", "Task Manager"],
    "queue": ["alarms", "LiveSync", "category statistics", "room synchronisation", "Exchange", "spooled", "waiting", "running", "failed", "finished"],
    "janitor": ["JanitorTask(DAILY, byhour=2, byminute=0)", "old web sessions", "test category", "LiveSync queue", "indico_shell"],
    "statistics": ["CategoryManager().getById(0)", "CategoryStatisticsUpdaterTask(home, DAILY, byhour=6, byminute=0)", "Client().enqueue", "dbi.commit()"],
    "packing": ["zeopack localhost:9675", "dbi.pack()", "/opt/indico/bin/maintenance/packDB.py"],
    "backup": ["repozo -BvzQ -r /foo/backup -f /foo/Data.fs", "repozo -Rv -r /foo/backup -D YYYY-MM-DD-HH-MM-SS -o my_copy.fs"],
    "crontab": [
        "crontab -l",
        "crontab -e",
        "30 1 * * * /opt/indico/bin/httpd_logrotate /usr/sbin/httpd 120 /opt/indico/log/",
        "30 2 * * * /opt/indico/bin/indicolog_rotate /opt/indico/log/",
        "40 3 * * * mv /opt/indico/log/scheduler.log.* /opt/indico/log/backup/.",
        "0 4 * * * /opt/indico/bin/offlineMirror.sh",
        "00 02 * * * python2.6 /opt/indico/bin/maintenance/packDB.py",
        "0 8 * * * df \\| gawk '...' \\| mailx -s \"Disk space warning on HOST\" admins",
        "85 %",
        "00 01 * * * python2.6 .../removeOldBackups.py .../db_backups/indico",
        "indico2",
        "room_booking",
        "0 2 * * * find /opt/indico/cache/ -type f -mtime +1 -exec rm -rf {} \\;",
        "0 1 * * * find /opt/indico/tmp -type f -mtime +1 -exec rm {} \\;",
    ],
    "cached": ["HTTP API", "upcoming events", "room booking calendar", "timetable", "dashboard"],
    "cache": [
        "CacheBackend = 'memcached'",
        "MemcachedServers = ('127.0.0.1:11211',)",
        "CacheBackend = 'files'",
        "CacheBackend = 'redis'",
        "RedisCacheURL = 'redis://unused:password@localhost:6379/1'",
    ],
    "deployment": ["fab prod deploy", "fab dev:server=yourserver,branch=fix-1234 deploy"],
    "scripts": ["maintenance/category_integrity.py", "recovery/restore_meeting.py", "utils/offlineMirror.py", "utils/changeCreatorToReservation.py"],
    "future": ["clean up cache", "temporary files", "scheduler's tasks", "repository of their own", "virtualenv"],
}
# Programs of Indico itself whose names look like variables.
INDICO_S_OWN = {"indico_shell", "indico_scheduler"}
# Two roles and a command of one of them, which the text may name before they are there; their variables are looked for when they are.


def called(kind: str) -> set[str]:
    """Return the names that stand behind the word role or module."""
    return set(re.findall(rf"(?i)\b{kind} `(\w+)`", TEXT))


@pytest.mark.parametrize(("part", "item"), [(part, item) for part, items in ITEMS.items() for item in items])
def test_each_item_is_there(part: str, item: str) -> None:
    assert item in TEXT


def test_a_row_says_what_does_it_here() -> None:
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| then")]
    assert len(rows) > 40
    assert [row[0] for row in rows if not row[1].strip() or len(row) not in (2, 3)] == []


def test_roles_exist() -> None:
    roles = called("role")
    assert len(roles) > 8
    assert sorted(name for name in roles if not (ROLES / name).is_dir()) == []


def test_modules_exist() -> None:
    modules = called("module")
    assert len(modules) > 8
    assert sorted(name for name in modules if not (REPOSITORY / f"plugins/modules/{name}.py").is_file()) == []


def test_variables_exist() -> None:
    """Whatever begins like a variable of a role is one, with the value behind it or without."""
    known = {name for options in SPECS.values() for name in options}
    prefixes = tuple({f"{name.split('_')[0]}_" for name in known})
    modules = {path.stem for path in (REPOSITORY / "plugins/modules").glob("*.py")}
    named = {match[1] for code in CODES if (match := re.fullmatch(r"(\w+)(?:: .*)?", code)) and match[1].startswith(prefixes)}
    assert len(named) > 30
    assert sorted(named - known - modules - INDICO_S_OWN) == []


def test_playbooks_take_what_they_are_given() -> None:
    calls = [code for code in CODES if re.search(r"\bplaybooks/\w+\.yml", code) and "NAME" not in code]
    assert len(calls) > 10
    for call in calls:
        playbook = REPOSITORY / re.findall(r"playbooks/\w+\.yml", call)[0]
        assert playbook.is_file(), call
    # An option stands in the same cell or sentence as its playbook.
    for name, options in re.findall(r"`playbooks/(\w+\.yml)((?:[^|\n;]|\\\|)*)", TEXT):
        for option in re.findall(r"-e (\w+)=", options):
            assert re.search(rf"\b{option}\b", (REPOSITORY / "playbooks" / name).read_text()), (name, option)


def test_commands_have_their_verbs() -> None:
    calls = [match for code in CODES if (match := re.fullmatch(r"indico-(manage|backup|jobs|zeo|offsite) (\w+)(?: (\w+))?(?: --[\w-]+)?", code))]
    assert len(calls) > 8
    for call in calls:
        code = (REPOSITORY / f"plugins/module_utils/_{call[1]}_command.py").read_text()
        for verb in filter(None, call.groups()[1:]):
            assert f'"{verb}"' in code, call[0]


def test_keys_of_indico_conf_exist() -> None:
    source = (REPOSITORY / "plugins/module_utils/_indico_conf.py").read_text()
    keys = {match[1] for code in CODES if (match := re.fullmatch(r"([A-Z][A-Za-z]+)(?: = .*)?", code))}
    assert "CacheBackend" in keys and "CategoryCleanup" in keys
    assert sorted(key for key in keys if f'"{key}"' not in source) == []


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", TEXT)
    assert len(links) > 8
    for file, anchor in links:
        target = DOCUMENT.parent / file if file else DOCUMENT
        headings = re.findall(r"^#+ (.*)", target.read_text(), re.MULTILINE)
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, (file, anchor)


def test_what_is_not_done_is_said() -> None:
    """In plain words, which somebody who looks for them finds."""
    assert len(re.findall(r"\bnot done\b", TEXT)) >= 4
