"""The project as AWX runs it: ansible-runner, a user with nothing but a checkout and a key, no sudo, a home that nobody can write to, answers of surveys."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lib.playbook import REPOSITORY
from tests.lib.site import CACHE, Site

NOBODY = 65534
# Python and the packages may lie in a home that is closed to others, so in this namespace of mounts that home holds nothing but them, and is read-only.
KEPT = [path for path in dict.fromkeys((sys.prefix, sys.base_prefix)) if Path(path).is_relative_to(Path.home())]
SCRIPT = """
set -e
for kept in $KEPT; do
    mkdir -p "$MOUNTS$kept" && mount --bind "$kept" "$MOUNTS$kept"
done
mount -t tmpfs -o mode=0755 tmpfs "$HOME"
for kept in $KEPT; do
    mkdir -p "$kept" && mount --bind "$MOUNTS$kept" "$kept"
done
mount -o remount,ro "$HOME"
exec setpriv --reuid "$NOBODY" --regid "$NOBODY" --clear-groups --no-new-privs --bounding-set=-all env -i PATH="$RUN_PATH" HOME="$HOME" LC_ALL=C.UTF-8 "$@"
"""


def as_nobody(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a command as a user who may do nothing on this machine."""
    with tempfile.TemporaryDirectory(prefix="mounts-", ignore_cleanup_errors=True) as mounts:
        environment = {"MOUNTS": mounts, "KEPT": " ".join(KEPT), "HOME": str(Path.home()), "NOBODY": str(NOBODY), "RUN_PATH": f"{sys.prefix}/bin:/usr/bin:/bin"}
        argv = ["unshare", "--mount", "sh", "-c", SCRIPT, "nobody", *map(str, command)]
        return subprocess.run(argv, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=400)


class Jobs:
    """A private_data_dir of ansible-runner that belongs to nobody."""

    def __init__(self, site: Site, directory: Path) -> None:
        self.directory = directory
        self.count = 0
        subprocess.run(["git", "clone", "--quiet", REPOSITORY, directory / "project"], check=True)
        for name in ("env", "inventory"):
            (directory / name).mkdir()
        # Ansible itself wants a place for its temporary files and its sockets.
        (directory / "env/envvars").write_text(json.dumps({"ANSIBLE_HOME": str(directory / "ansible"), "ANSIBLE_SSH_CONTROL_PATH_DIR": str(directory / "cp")}))
        shutil.copyfile(CACHE / "lab/id_ed25519", directory / "env/ssh_key")
        # The lab's own variables read files of a home; a site's inventory has what it needs.
        variables = {
            key: value
            for key, value in site.variables.items()
            if key.startswith(("indico_", "lab_address", "web_")) and key != "indico_admins" and "lookup" not in str(value)
        }
        connection = {
            "ansible_host": site.variables["lab_address"],
            "ansible_user": "root",
            "ansible_host_key_checking": False,
            "ansible_ssh_common_args": "-o UserKnownHostsFile=/dev/null -o PreferredAuthentications=publickey",
            "indico_server_name": site.variables["lab_address"],
            "indico_admins": [{**admin, "password": site.password("admin")} for admin in site.variables["indico_admins"]],
        }
        groups: dict[str, Any] = {group: {"hosts": {site.name: {}}} for group in ("indico_zeo", "indico_app", "indico_scheduler")}
        (directory / "inventory/hosts.json").write_text(
            json.dumps({"indico": {"children": {group: {} for group in groups}, "hosts": {site.name: {**variables, **connection}}}, **groups})
        )
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", directory], check=True)

    def run(self, playbook: str, arguments: str = "", **extra: object) -> tuple[str, Any]:
        """Run a job. Return its status, and its outcome for the only host."""
        self.count += 1
        (self.directory / "env/extravars").write_text(json.dumps({"awx_job_id": 4711, "awx_user_name": "chloe", **extra}))
        (self.directory / "env/cmdline").write_text(arguments)
        done = as_nobody("ansible-runner", "run", self.directory, "--playbook", playbook, "--ident", self.count)
        artifacts = self.directory / "artifacts" / str(self.count)
        assert (artifacts / "rc").exists(), done.stdout + done.stderr
        status = (artifacts / "status").read_text()
        assert (status == "successful") == ((artifacts / "rc").read_text() == "0") == (done.returncode == 0)
        self.output = (artifacts / "stdout").read_text()
        events = [json.loads(path.read_text()) for path in (artifacts / "job_events").glob("*.json")]
        data = [event["event_data"].get("artifact_data", {}) for event in events if event["event"] == "playbook_on_stats"]
        return status, next(iter(data[0]["outcome"].values())) if data and "outcome" in data[0] else None


@pytest.fixture(scope="module")
def jobs(site: Site) -> Iterator[Jobs]:
    # Below a directory that others may enter, which those of pytest are not.
    with tempfile.TemporaryDirectory(prefix="jobs-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o755)
        yield Jobs(site, Path(directory))


def survey(playbook: str, **answers: object) -> dict[str, Any]:
    """Return what AWX passes on when only these questions were answered: the defaults, and empty texts."""
    questions = json.loads((REPOSITORY / f"awx/surveys/{playbook}.json").read_text())["spec"]
    assert answers.keys() <= {question["variable"] for question in questions}
    return {question["variable"]: answers.get(question["variable"], question["default"]) for question in questions}


def test_the_user_can_do_nothing_on_the_controller() -> None:
    script = 'id -u; sudo -n true 2>&1 || echo no sudo; touch "$HOME/x" 2>&1 || echo read-only'
    done = as_nobody("sh", "-c", script)
    assert done.stdout.splitlines()[0] == str(NOBODY) and "no sudo" in done.stdout and "read-only" in done.stdout, done


def test_status(site: Site, jobs: Jobs) -> None:
    status, outcome = jobs.run("playbooks/status.yml")
    assert status == "successful", jobs.output
    assert outcome["problems"] == []
    assert [server["name"] for server in outcome["servers"]] == site.storages


def test_backup_says_which_job_made_it(site: Site, jobs: Jobs) -> None:
    status, outcome = jobs.run("playbooks/backup.yml", **survey("backup"))
    assert status == "successful", jobs.output
    newest = json.loads(site.run(f"{site.prefix}/bin/{site.instance}-backup status"))
    assert outcome["line"]
    assert "chloe, AWX job 4711" in json.dumps(newest) + site.run(f"grep -h '\"who\"' /var/backups/{site.instance}/sets/*/*.json | tail -1")


@pytest.mark.parametrize("playbook", ["cleanup", "event_restore", "old_crontabs", "pack", "disk_space", "restore"])
def test_a_survey_without_answers_means_nothing_was_given(jobs: Jobs, playbook: str) -> None:
    status, outcome = jobs.run(f"playbooks/{playbook}.yml", "--check", **survey(playbook))
    assert status == "successful", jobs.output
    assert outcome is not None


def test_numbers_as_texts_and_refusals(jobs: Jobs) -> None:
    status, outcome = jobs.run("playbooks/maintenance.yml", "--check", **survey("maintenance", state="on", retry_after="1800"))
    assert (status, outcome["maintenance"]) == ("successful", True), jobs.output
    status, _outcome = jobs.run("playbooks/maintenance.yml", **survey("maintenance", state=""))
    assert status == "failed" and "Say what is wanted" in jobs.output
    status, _outcome = jobs.run("playbooks/restore.yml", **survey("restore"))
    assert status == "failed" and "run this again with -e confirm=indico" in jobs.output
    status, _outcome = jobs.run("playbooks/pack.yml", "--check", **survey("pack", days="7"))
    assert status == "successful", jobs.output
    status, outcome = jobs.run("playbooks/event_restore.yml", "--check", **survey("event_restore", event="999999"))
    assert status == "failed" and "999999" in jobs.output


def test_site(jobs: Jobs) -> None:
    status, outcome = jobs.run("site.yml", "--check")
    assert status == "successful", jobs.output
    assert outcome["release"] == "1.2.2"
