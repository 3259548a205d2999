"""B18: what lies in a file of a host may be damaged in any way, so only _repository reads JSON of files."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[3] / "plugins"
ALLOWED = {
    ("_repository.py", "parse_json"): "the one place that takes all kinds of damage",
    ("_zeo.py", "run"): "lines that a process of ours says, not a file",
    ("_indico.py", "run"): "what a process of ours says, not a file",
    ("_database_check.py", "examine"): "what a process of ours says, not a file",
}


def _readers(path: Path) -> list[str]:
    """Return the names of the functions in a file that call json.load or json.loads."""
    found = []

    def look(node: ast.AST, function: str) -> None:
        for child in ast.iter_child_nodes(node):
            inside = child.name if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) else function
            if isinstance(child, ast.Attribute) and child.attr in ("load", "loads", "JSONDecoder") and getattr(child.value, "id", "") == "json":
                found.append(inside)
            look(child, inside)

    look(ast.parse(path.read_text()), "")
    return found


@pytest.mark.parametrize("path", sorted(PLUGINS.rglob("*.py")), ids=lambda path: path.name)
def test_no_plugin_reads_json_of_a_host_without_minding_damage(path: Path) -> None:
    for function in _readers(path):
        assert (path.name, function) in ALLOWED, f"{path.name}: {function} calls json.load or json.loads; use _repository.load_json or parse_json."


def test_the_exceptions_are_needed() -> None:
    readers = {(path.name, function) for path in PLUGINS.rglob("*.py") for function in _readers(path)}
    assert set(ALLOWED) == readers
