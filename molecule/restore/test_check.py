"""Checks of the databases: fstest, and the references that fsrefs of ZODB3 3.10.5 finds, on restored copies. And what made a database grow."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.site import Site

CHECK, COMMAND, PYTHON = "playbooks/check.yml", "/opt/indico/bin/indico-backup", "/opt/indico/zeo/bin/python"
COPY = "/srv/indico-check"  # an instance that has databases and backups, and nothing that runs

# Copies a database without the first object of a class. Prints its oid.
LOSE = r"""
import sys
from ZODB.FileStorage import FileStorage
from ZODB.utils import u64
source, target, head = FileStorage(sys.argv[1], read_only=1), FileStorage(sys.argv[2]), sys.argv[3].replace('/', '\n')
lost = None
for transaction in source.iterator():
    target.tpc_begin(transaction, transaction.tid, transaction.status)
    for record in transaction:
        if lost is None and record.data and record.data.startswith(head):
            lost = record.oid
        if record.oid != lost:
            target.restore(record.oid, record.tid, record.data, '', record.data_txn, transaction)
    target.tpc_vote(transaction)
    target.tpc_finish(transaction)
target.close()
print(hex(u64(lost)))
"""
BACKUP = """
import sys
sys.path.insert(0, '/opt/indico/lib')
from ansible_collections.confops.indico.plugins.module_utils import _backup_set
_backup_set.run(_backup_set.read_settings(sys.argv[1]), who='the test', why='check')
"""


def checked(site: Site, tmp_path: Path, *arguments: str, **extra: object) -> tuple[str | None, dict]:
    """Run the playbook. Return the sentence with which it failed, None when it did not, and the report that it wrote on the controller."""
    report = tmp_path / "check.json"
    run = site.play(*arguments, playbook=CHECK, report_file=str(report), **extra)
    assert (run.returncode != 0) == bool(run.failures), run.output
    assert list(run.changed) == ["Report | Write it to a file on the controller"], run.output
    return (run.failures[-1] if run.failures else None), json.loads(report.read_text())[site.name]


@pytest.fixture(scope="module")
def lost(site: Site) -> Iterator[str]:
    """Yield the oid of an event's registration form that the copy of the site's main database lacks."""
    settings = json.loads(site.run("cat /opt/indico/etc/backup.json"))
    settings.update(prefix=COPY, directory=f"{COPY}/backups", drill_directory=f"{COPY}/scratch", metrics="", storages=["main"])
    site.run(f"rm -rf {COPY} && mkdir -p {COPY}/db/main {COPY}/etc {COPY}/backups && ln -s /opt/indico/zeo {COPY}/zeo")
    site.run(f"echo '{json.dumps(settings)}' > {COPY}/etc/backup.json")
    site.run(f"cp /opt/indico/db/main/Data.fs {COPY}/whole.fs")
    oid = site.run(f'{PYTHON} -c "{LOSE}" {COPY}/whole.fs {COPY}/db/main/Data.fs cMaKaC.registration/RegistrationForm/').strip().rstrip("L")
    site.run(f'python3 -c "{BACKUP}" {COPY}/etc/backup.json')
    yield oid
    site.run(f"rm -rf {COPY}")


@pytest.fixture
def copy(lost: str) -> dict[str, object]:
    """Have the playbook look at the copy, which is an instance of one storage."""
    assert lost
    return {"indico_prefix": COPY, "indico_storages": [{"name": "main", "port": 9675}]}


def test_the_site_is_whole(site: Site, tmp_path: Path) -> None:
    """Transactions and records are as many as fstest prints of the living file. It and a drill wait for each other."""
    site.run(f"{COMMAND} run && systemd-run --quiet --unit check-drill {COMMAND} drill")
    failure, report = checked(site, tmp_path)
    assert failure is None
    site.run("while systemctl is-active --quiet check-drill; do sleep 0.1; done")
    assert json.loads(site.run(f"{COMMAND} status"))["drill"]["ok"]
    assert report["check"]["set"] == site.run("ls /var/backups/indico/sets").split()[-1]
    assert "no problem, no dangling reference" in report["check"]["line"]
    for one in report["check"]["storages"]:
        said = site.run(f"{PYTHON} -m ZODB.scripts.fstest -vv /opt/indico/db/{one['name']}/Data.fs")
        assert (one["transactions"], one["records"]) == (said.count("transaction tid"), said.count("object oid"))
        assert (one["problems"], one["dangling"]) == ([], [])
    assert not site.shell().file("/opt/indico/drill").exists
    assert site.shell().run("pgrep -u nobody").rc == 1


def test_growth_names_what_was_new(site: Site, tmp_path: Path) -> None:
    """A meeting that somebody created through the web form. Indico itself describes no transaction. Check mode restores nothing, and reads all the same."""
    member = site.browser()
    assert member.log_in("bruno", site.password("demo")) == "in"
    before, since = int(site.run("stat -c %s /opt/indico/db/main/Data.fs")), site.run("sleep 1; date -u +%Y-%m-%dT%H:%M:%S.%6NZ").strip()
    member.create_meeting("What made it grow", category="2")
    failure, report = checked(site, tmp_path, "--check", since=since, top=1000)
    assert failure is None and report["check"]["line"].startswith(f"a check would restore set {report['check']['set']} (main to ")
    main = report["growth"]["databases"][0]
    size = int(site.run("stat -c %s /opt/indico/db/main/Data.fs"))
    assert (main["file_bytes"], main["bytes"]) == (size, size - before)
    assert main["transactions"] == len(main["largest"]) == main["requests"][0]["transactions"] >= 1
    assert [(one["user"], one["description"]) for one in main["requests"]] == [("", "")]
    kinds = {one["class"]: one for one in main["classes"]}
    assert kinds["MaKaC.conference.Conference"]["new"] == 1
    assert any(name.startswith("BTrees.") for name in kinds) and "unknown" not in kinds
    assert report["growth"]["summary"][0].startswith("/opt/indico/db/main/Data.fs: ")


def test_a_dangling_reference_is_found(site: Site, copy: dict[str, object], lost: str, tmp_path: Path) -> None:
    """The same references as fsrefs prints, which exits with 0; and the class of what is missing, which it does not know."""
    failure, report = checked(site, tmp_path, **copy)
    (storage,) = report["check"]["storages"]
    said = site.run(f"/opt/indico/zeo/bin/fsrefs {COPY}/db/main/Data.fs")
    printed = set()
    for paragraph in said.strip().split("\n\n"):
        whose = re.match(r"oid (0x[0-9a-f]+)L? ([\w.]+)\n", paragraph)
        assert whose, said
        printed |= {(whose[1], whose[2], int(oid, 16)) for oid in re.findall(r"\toid (0x[0-9a-f]+) missing", paragraph)}
    assert printed == {(one["from_oid"], one["from_class"], int(one["oid"], 16)) for one in storage["dangling"]}
    assert {(one["oid"], one["class"], one["reason"]) for one in storage["dangling"]} == {(lost, "MaKaC.registration.RegistrationForm", "it does not exist")}
    number = storage["dangling_found"]
    assert failure and failure.startswith(f"Set {report['check']['set']}: {number} dangling reference")
    assert f"refers to {lost} (MaKaC.registration.RegistrationForm): it does not exist." in failure
    allowed, report = checked(site, tmp_path, allow_dangling=number, **copy)
    assert allowed is None and "which the site allows" in report["check"]["line"]


def test_damage_is_found_at_its_place(site: Site, copy: dict[str, object], tmp_path: Path) -> None:
    """A byte of the first transaction's first record. repozo backs such a file up without a word."""
    at = 4 + 23 + int(site.run(f"od -An -tu1 -j 22 -N 1 {COPY}/db/main/Data.fs")) + int(site.run(f"od -An -tu1 -j 24 -N 1 {COPY}/db/main/Data.fs"))
    site.run(f"cp -a {COPY}/db/main/Data.fs {COPY}/before.fs && printf X | dd of={COPY}/db/main/Data.fs bs=1 seek={at + 24} conv=notrunc status=none")
    site.run(f'rm -rf {COPY}/backups/* && python3 -c "{BACKUP}" {COPY}/etc/backup.json')
    try:
        failure, report = checked(site, tmp_path, **copy)
    finally:
        site.run(f'mv {COPY}/before.fs {COPY}/db/main/Data.fs && rm -rf {COPY}/backups/* && python3 -c "{BACKUP}" {COPY}/etc/backup.json')
    assert failure == f"{report['check']['msg']}\n{report['growth']['msg']}"
    assert f": 1 problem, the first in main at byte {at}: the file data record exceeds transaction record at {at}" in failure
    assert failure.endswith(f"\n{COPY}/db/main/Data.fs is damaged: the record at {at} is none of the transaction at 4.")
    assert not site.shell().file(f"{COPY}/scratch").exists
