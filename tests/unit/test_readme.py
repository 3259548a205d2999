"""The commands of README.md that need no host do what it says, in the order in which it says it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.lib.command import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_the_vault_s_commands_work_as_they_are_written(tmp_path: Path) -> None:
    """O7: after `ansible-vault encrypt` every command said "no vault secrets found"."""
    block = README.partition("encrypt `vault.yml`:\n")[2].partition("\n\n   Set both")[0]
    commands = [line.strip() for line in block.splitlines() if line.startswith("       ")]
    assert len(commands) == 3
    inventory = tmp_path / "inventories/mysite"
    shutil.copytree(REPOSITORY / "inventories/single", inventory)
    variables = inventory / "group_vars/indico"
    (variables / "vault.yml.example").rename(variables / "vault.yml")
    read = "ansible-inventory --host $(ansible-inventory --list | grep -om1 '\"[a-z0-9.-]*example.org\"' | tr -d '\"')"
    environment = {**os.environ, "HOME": str(tmp_path), "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg")}
    done = subprocess.run(["bash", "-ec", "\n".join([*commands, read])], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (variables / "vault.yml").read_text().startswith("$ANSIBLE_VAULT")
    assert '"vault_indico_admin_password": ""' in done.stdout
    assert (tmp_path / ".indico-vault").stat().st_mode & 0o777 == 0o600


def test_a_playbook_runs_from_another_directory(tmp_path: Path) -> None:
    """O9: from cron the modules were not found."""
    (command,) = re.findall(r"^    (ANSIBLE_CONFIG=.*)$", README, re.MULTILINE)
    command = command.replace("/srv/confops/inventories/mysite", str(REPOSITORY / "inventories/single")).replace("/srv/confops", str(REPOSITORY))
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["sh", "-c", f"{command} --list-tasks"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Configure |" in done.stdout
