"""The code that a role brings to a host is all that its command imports, and no more."""

from __future__ import annotations

import ast
import re

import pytest
import yaml

from tests.lib.command import REPOSITORY

CODE = REPOSITORY / "plugins/module_utils"
PACKAGE = "ansible_collections.confops.indico.plugins.module_utils"


def imported(name: str) -> set[str]:
    """Return the module and all of the collection's that it imports, directly or not."""
    found, waiting = set(), [name]
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        found.add(one)
        tree = ast.parse((CODE / f"{one}.py").read_text(encoding="utf-8"))
        tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
                waiting.append((node.module or "").removeprefix(f"{PACKAGE}."))
            elif isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("ansible."), f"{one} imports {node.module}, which is not on the hosts"
    return found


@pytest.mark.parametrize(
    ("role", "command"),
    [
        ("backup", "_backup_command"),
        ("cron", "_jobs_command"),
        ("indico", "_manage_command"),
        ("offsite", "_offsite_command"),
        ("zeo", "_zeo_command"),
    ],
)
def test_the_code_is_all_that_the_command_imports(role: str, command: str) -> None:
    variables = yaml.safe_load((REPOSITORY / f"roles/{role}/vars/main.yml").read_text(encoding="utf-8"))
    assert variables[f"__{role}_code"] == sorted(imported(command) | imported("_completion"))


def test_python_on_a_host_takes_no_code_from_the_current_directory() -> None:
    """S1: without -I the current directory comes first on sys.path, and a service user may have put a module there for root to import.

    build runs in a directory that it has just made.
    """
    calls = re.compile(r"python3(?:, *\"?|\s+)(?!-I\b)-")
    places = [path for path in (REPOSITORY / "roles").rglob("*") if path.is_file() and path.name != "build"]
    places += (REPOSITORY / "playbooks").rglob("*.yml")
    found = [
        f"{path.relative_to(REPOSITORY)}:{number}"
        for path in places
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if calls.search(line)
    ]
    assert not found
