"""A host that pulls the backups of another, and keeps them whatever happens there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.lib.site import Site

SITES = Site.read_all(Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "inventory")
SOURCE, VAULT = SITES["source1"], SITES["vault1"]
BACKUP, PULL = "/opt/indico/bin/indico-backup", "/opt/indico/bin/indico-offsite"
BACKUPS, COPY = "/var/backups/indico", "/var/backups/indico-offsite/copy"
SSH = (
    "runuser -u indico-offsite -- ssh -F /dev/null -i /var/lib/indico-offsite/.ssh/id_ed25519 -o BatchMode=yes -o HostKeyAlias=source1"
    " -o UserKnownHostsFile=/var/lib/indico-offsite/.ssh/known_hosts -o LogLevel=ERROR"
)
ACCOUNT = f"indico-pull@{SOURCE.variables['lab_address']}"


def data_files(site: Site, place: str) -> str:
    """Return the checksums of all backups and stored files there."""
    return site.run(f"cd {place} && find . -type f ! -name '*.json' ! -name '*.index' ! -name '*.prom' -exec md5sum {{}} + | sort -k 2")


def another_set(title: str) -> str:
    """Make an event and a set that holds it; return the set's stamp."""
    member = SOURCE.browser()
    assert member.log_in("bruno", SOURCE.password("demo")) == "in"
    member.create_meeting(title, category="2")
    SOURCE.run(f"{BACKUP} run")
    return SOURCE.run(f"ls {BACKUPS}/sets").split()[-1]


def pulled() -> dict:
    """Pull as the timer does and return how it ended."""
    VAULT.run("systemctl start indico-offsite.service")
    return json.loads(VAULT.run(f"{PULL} status"))


@pytest.fixture(scope="module", autouse=True)
def sets() -> list[str]:
    return [another_set("Kept elsewhere"), another_set("Kept elsewhere too")]


def test_a_pull_brings_all_of_it_and_verifies_it_there(sets: list[str]) -> None:
    status = pulled()
    assert status["ok"], status
    assert status["sets"] == sets and status["newest_set"] == sets[-1]
    assert data_files(VAULT, COPY) == data_files(SOURCE, BACKUPS)
    assert VAULT.run(f"{PULL} check").startswith("OK: the newest set here is 0 hours old")
    assert VAULT.run("stat --format '%U %a' /var/backups/indico-offsite") == "indico-offsite 700"
    assert [line.split()[0] for line in VAULT.run(f"{PULL} list").splitlines()][-2:] == sets
    # What did not change between two sets is on disk once here too.
    first = VAULT.run(f"find {COPY}/sets/{sets[-1]}/archive -type f | head -1")
    assert int(VAULT.run(f"stat --format %h '{first}'")) == 2


def test_a_later_pull_brings_what_is_new() -> None:
    newest = another_set("One more")
    status = pulled()
    assert status["ok"] and status["sets"] == [newest] and status["files"] > 0
    status = pulled()
    assert status["ok"] and (status["sets"], status["files"]) == ([], 0)
    run = SOURCE.play(playbook="playbooks/pull.yml")
    assert run.returncode == 0 and run.changed == {}, run.output


def test_timer_is_there() -> None:
    assert "indico-offsite.timer" in VAULT.run("systemctl list-timers --no-pager")
    assert "indico-pull.socket" in SOURCE.run("systemctl list-sockets --no-pager")


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (f"{SSH} {ACCOUNT} id", ""),
        (f"timeout 10 {SSH} -N -o ExitOnForwardFailure=yes -R 9999:127.0.0.1:22 {ACCOUNT}", "remote port forwarding failed"),
        (f"rsync -e '{SSH}' /etc/hostname {ACCOUNT}::backups/main/", ""),
        (f"rsync -e '{SSH}' -r {ACCOUNT}::backups/../../../etc/ /tmp/etc/", ""),
        (f"rsync -e '{SSH}' -r {ACCOUNT}::etc /tmp/etc/", "Unknown module 'etc'"),
        (f"rsync -e '{SSH}' -r {ACCOUNT}:/etc/ /tmp/etc/", ""),
    ],
    ids=["shell", "forwarding", "write", "path", "module", "rsync over the shell"],
)
def test_the_key_can_do_nothing_else(command: str, complaint: str) -> None:
    done = VAULT.shell().run(f"{{ {command} </dev/null; }} || false")
    assert done.rc == 1 or done.stdout == "@RSYNCD: 31.0\n", done.stdout  # whatever is asked for, rsync's daemon answers
    assert complaint in done.stderr, done.stderr
    assert not VAULT.shell().file("/tmp/etc/passwd").exists
    assert not SOURCE.shell().file(f"{BACKUPS}/main/hostname").exists


def test_root_at_the_source_cannot_take_away_what_was_pulled() -> None:
    before = data_files(VAULT, COPY)
    SOURCE.run(f"cp --archive {BACKUPS} /var/backups/saved")
    newest = SOURCE.run(f"ls {BACKUPS}/sets").split()[-1]
    victim = SOURCE.run(f"cd {BACKUPS}/main && ls *.deltafsz | tail -1")
    SOURCE.run(f"rm {BACKUPS}/main/{victim}; rm -r {BACKUPS}/sets/{newest}")
    SOURCE.run(f"cd {BACKUPS}/main && for dat in *.dat; do sed -i 's/ [0-9a-f]*$/ 00000000000000000000000000000000/' $dat; done")
    SOURCE.run(
        f"cd {BACKUPS}/main && full=$(ls *.fsz | head -1) && cp $full 2001-01-01-00-00-00.fsz && printf X | dd of=$full bs=1 seek=100 conv=notrunc status=none"
    )
    failed = VAULT.shell().run("systemctl start indico-offsite.service")
    status = json.loads(VAULT.run(f"{PULL} status"))
    SOURCE.run(f"rm -r {BACKUPS} && mv /var/backups/saved {BACKUPS}")
    assert failed.rc != 0 and not status["ok"]
    refused = " ".join(status["refused"])
    assert f"main/{victim} is the newest backup here and no longer at the source" in refused
    assert f"sets/{newest} is the newest set here and no longer at the source" in refused
    assert ".dat was rewritten at the source" in refused
    assert data_files(VAULT, COPY) == before
    check = VAULT.shell().run(f"{PULL} check")
    assert check.rc == 2 and check.stdout.startswith("CRITICAL: ")
    assert pulled()["ok"]


def test_playbooks_that_look_at_every_host_look_at_this_one_too(tmp_path: Path) -> None:
    """It has no Python 2.7, and Debian 12 has none to install."""
    for playbook in ("status", "disk_space", "old_crontabs"):
        report = tmp_path / f"{playbook}.json"
        run = SOURCE.play(playbook=f"playbooks/{playbook}.yml", report_file=str(report))
        assert run.returncode == 0, run.output
        assert set(json.loads(report.read_text())) == {"source1", "vault1"}
    file_systems = json.loads((tmp_path / "disk_space.json").read_text())["vault1"]["file_systems"]
    assert "copies of backups" in [name for one in file_systems for name in one["holds"]]


def test_a_source_that_is_away_or_another_is_named() -> None:
    SOURCE.run("systemctl stop ssh.socket 2>/dev/null; mv /etc/ssh/ssh_host_ed25519_key /tmp/key && mv /etc/ssh/ssh_host_ed25519_key.pub /tmp/key.pub")
    SOURCE.run("ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key && systemctl restart ssh")
    failed = VAULT.shell().run(f"runuser -u indico-offsite -- {PULL} pull")
    SOURCE.run("mv /tmp/key /etc/ssh/ssh_host_ed25519_key && mv /tmp/key.pub /etc/ssh/ssh_host_ed25519_key.pub && systemctl restart ssh")
    assert failed.rc == 1
    assert "source1 shows an SSH key that is not the one known here." in failed.stderr, failed.stderr
    SOURCE.run("systemctl stop indico-pull.socket")
    failed = VAULT.shell().run(f"runuser -u indico-offsite -- {PULL} pull")
    SOURCE.run("systemctl start indico-pull.socket")
    assert failed.rc == 1 and "source1 does not offer its backups: nobody listens on its socket" in failed.stderr, failed.stderr
    assert pulled()["ok"]


def test_the_copy_restores_the_site_byte_for_byte() -> None:
    """The databases' host is gone; the copy is brought to a new one."""
    archive = VAULT.run(f"tar --create --gzip --directory {COPY} main | base64 --wrap 0")
    (Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "copy.b64").write_text(archive)
    SOURCE.copy([Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "copy.b64"], "/var/tmp")
    SOURCE.run("mkdir -p /var/tmp/copy && base64 --decode /var/tmp/copy.b64 | tar --extract --gzip --directory /var/tmp/copy")
    SOURCE.run("/opt/indico/zeo/bin/repozo -R -r /var/tmp/copy/main -o /var/tmp/copy/Data.fs")
    size = SOURCE.run("stat --format %s /var/tmp/copy/Data.fs")
    SOURCE.run(f"cmp --bytes {size} /var/tmp/copy/Data.fs /opt/indico/db/main/Data.fs")


def test_a_run_for_one_host_leaves_the_other_ones_key() -> None:
    run = SOURCE.play("--limit", "source1")
    assert run.returncode == 0 and run.changed == {}, run.output
    assert pulled()["ok"]
