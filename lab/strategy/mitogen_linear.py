"""Mitogen's strategy, wherever the Python environment has it: ansible wants the directory of a strategy, not its import name."""

from __future__ import annotations

from ansible_mitogen.plugins.strategy.mitogen_linear import StrategyModule

__all__ = ["StrategyModule"]
