"""Names resolve, and modules run, from a fresh clone and from the archive that ansible-galaxy builds."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tests.lib.command import REPOSITORY, run

PLAY = """\
---
- name: Use a module and a role's playbook by their full names
  hosts: localhost
  connection: local
  gather_facts: false
  vars:
    ansible_python_interpreter: "{{{{ ansible_playbook_python }}}}"
  tasks:
    - name: Write a file
      confops.indico.tree:
        entries:
          - {{path: "{target}", owner: "{user}", group: "{user}"}}
          - {{path: "{target}/greeting", content: "good morning\\n", owner: "{user}", group: "{user}"}}
"""
ROLES = {"common", "python2", "zeo", "indico", "web", "scheduler"}


def use(checkout: Path, site: str, scratch: Path, **environment: str | None) -> None:
    """Run the module tree, and list the tasks of the landscape's playbook, as a user of that directory does."""
    play = scratch / "play.yml"
    play.write_text(PLAY.format(target=scratch / "target", user=scratch.owner()))
    run("ansible-playbook", "-i", "localhost,", play, cwd=checkout, **environment)
    assert (scratch / "target/greeting").read_text() == "good morning\n"
    tasks = run("ansible-playbook", "-i", REPOSITORY / "inventories/single/hosts.yml", site, "--list-tasks", cwd=checkout, **environment)
    assert [role for role in ROLES if f"{role} : " not in tasks] == [], tasks


def test_clone(tmp_path: Path) -> None:
    run("git", "clone", "--quiet", REPOSITORY, tmp_path / "clone")
    use(tmp_path / "clone", "site.yml", tmp_path, ANSIBLE_CONFIG=None, ANSIBLE_COLLECTIONS_PATH=None)


def test_archive(installed: Path, tmp_path: Path) -> None:
    use(installed, "confops.indico.site", tmp_path, ANSIBLE_CONFIG=None, ANSIBLE_COLLECTIONS_PATH=str(installed))


@pytest.mark.parametrize(
    "kept_out", ["ansible.cfg", "awx", "collections", "execution-environment.yml", "inventories", "lab", "molecule", "requirements", "site.yml", "tests"]
)
def test_archive_leaves_the_project_out(archive: Path, kept_out: str) -> None:
    with tarfile.open(archive) as stream:
        names = stream.getnames()
    assert "roles/zeo/tasks/main.yml" in names
    assert [name for name in names if name.split("/")[0] == kept_out] == []
