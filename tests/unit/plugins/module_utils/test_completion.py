"""What a command on a host answers to the shell, and that nobody can slip code under it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest
from ansible_collections.confops.indico.plugins.module_utils import (
    _backup_command,
    _completion,
    _jobs_command,
    _manage_command,
    _offsite_command,
    _zeo_command,
)

from tests.lib.command import REPOSITORY

COMMANDS = [_backup_command, _jobs_command, _manage_command, _offsite_command, _zeo_command]


@pytest.mark.parametrize(
    ("given", "some"),
    [([], ["admins", "status", "tasks", "--help"]), (["tasks"], ["delete", "run"]), (["tasks", "delete"], ["--dry-run", "--yes"]), (["typo"], ["status"])],
)
def test_words_that_may_come_next(given: list[str], some: list[str]) -> None:
    assert set(some) <= set(_completion.words(_manage_command.parser(), given))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_answers_the_shell_without_settings(command: _completion.Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert _completion.main(command, "/nowhere", ["--words"]) == 0
    assert {"status", "--help"} <= set(capsys.readouterr().out.split())


@pytest.fixture
def wrapper(tmp_path: Path) -> Path:
    """Return a command as role common writes it, with this checkout's code behind it."""
    library = tmp_path / "prefix/lib"
    library.mkdir(parents=True)
    (library / "ansible_collections").symlink_to(REPOSITORY / "collections/ansible_collections")
    template = jinja2.Template((REPOSITORY / "roles/common/templates/command.sh.j2").read_text(), undefined=jinja2.StrictUndefined)
    command = SimpleNamespace(name="conf-backup", about="Backup sets of conf", module="_backup_command", settings="/nowhere/backup.json", user="")
    path = tmp_path / "conf-backup"
    path.write_text(template.render(ansible_managed="Ansible", indico_prefix=str(tmp_path / "prefix"), __common_command=command) + "\n")
    path.chmod(0o755)
    return path


def test_code_in_the_current_directory_is_not_run(wrapper: Path, tmp_path: Path) -> None:
    """S1: a service user plants modules where root's command is started, or where PYTHONPATH leads."""
    planted = tmp_path / "db"
    planted.mkdir()
    for name in ("argparse", "json", "ansible_collections", "sitecustomize", "os", "signal"):
        (planted / f"{name}.py").write_text(f"open({str(tmp_path / 'taken-over')!r}, 'w')\n")
    done = subprocess.run(
        [wrapper, "--help"], cwd=planted, env={**os.environ, "PYTHONPATH": str(planted), "HOME": str(planted)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "taken-over").exists()


def test_help_tells_the_name_that_people_type(wrapper: Path) -> None:
    """O6: it said "usage: backup"."""
    assert subprocess.run([wrapper, "--help"], capture_output=True, text=True, check=True).stdout.startswith("usage: conf-backup ")
    assert subprocess.run([wrapper, "run", "--help"], capture_output=True, text=True, check=True).stdout.startswith("usage: conf-backup run ")


def test_bash_completes_verbs_and_options(wrapper: Path, tmp_path: Path) -> None:
    script = (REPOSITORY / "roles/common/templates/completion.bash.j2").read_text().replace("{{ __common_command.name }}", "conf-backup")
    (tmp_path / "completion").write_text(script)
    ask = f'. {tmp_path}/completion; COMP_WORDS=({wrapper} dr) COMP_CWORD=1; _confops_complete {wrapper} dr; echo "${{COMPREPLY[@]}}"'
    assert subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True).stdout == "drill\n"
    ask = f'. {tmp_path}/completion; COMP_WORDS=({wrapper} run --f) COMP_CWORD=2; _confops_complete {wrapper} --f; echo "${{COMPREPLY[@]}}"'
    assert subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True).stdout == "--full\n"
