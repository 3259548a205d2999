"""Mitogen's strategy, wherever the Python environment has it: ansible wants the directory of a strategy, not its import name."""

from __future__ import annotations

from importlib import machinery
from pathlib import Path

import mitogen.master
from ansible_mitogen import affinity, planner
from ansible_mitogen.plugins.strategy.mitogen_linear import StrategyModule

__all__ = ["StrategyModule"]

# Mitogen ties its processes to processors, and what they start keeps to those: on two cores every run, and every host of the lab, to one of them.
affinity.policy = affinity.Policy()


def _load_collection(invocation: planner.Invocation) -> None:
    """Name the collection of a module. Mitogen's own function reads the metadata of all that are installed, for each task once more."""
    head, _slash, tail = invocation.module_path.partition("/ansible_collections/")
    invocation._extra_sys_paths.add("/".join([head, "ansible_collections", *tail.split("/")[:2]]))


def _compile(source: bytes, path: str, mode: str) -> object:
    """Compile a module as Mitogen does to find what it imports, but once: Python keeps the result beside it."""
    if Path(path).is_file():
        return machinery.SourceFileLoader("module", path).get_code("module")
    return compile(source, path, mode)


planner._load_collections = _load_collection
mitogen.master.compile = _compile
