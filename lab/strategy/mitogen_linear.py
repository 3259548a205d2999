"""Mitogen's strategy, wherever the Python environment has it: ansible wants the directory of a strategy, not its import name."""

from __future__ import annotations

from ansible_mitogen import affinity
from ansible_mitogen.plugins.strategy.mitogen_linear import StrategyModule

__all__ = ["StrategyModule"]

# Mitogen ties its processes to processors, and what they start keeps to those: on two cores every run, and every host of the lab, to one of them.
affinity.policy = affinity.Policy()
