# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How the commands on a host begin: with the words that a shell completes, or with the command itself."""

from __future__ import annotations

import argparse
import sys
from typing import Protocol

WORDS = "--words"  # what the shell's completion asks a command, with the words before the one that is being typed


class Command(Protocol):
    """A module that is a command of a host. main takes the path of its settings and the arguments, and returns an exit code."""

    def parser(self) -> argparse.ArgumentParser: ...

    def main(self, settings_path: str, arguments: list[str]) -> int: ...


def main(command: Command, settings_path: str, arguments: list[str]) -> int:
    """Run the command, or print the words that may come next, one a line. Return the exit code."""
    if arguments[:1] != [WORDS]:
        return command.main(settings_path, arguments)
    sys.stdout.write("".join(f"{word}\n" for word in words(command.parser(), arguments[1:])))
    return 0


def words(parser: argparse.ArgumentParser, given: list[str]) -> list[str]:
    """Return the verbs and options that may follow the words that are given."""
    for word in given:
        for action in _verbs(parser):
            parser = (action.choices or {}).get(word, parser)
    found = [name for action in _verbs(parser) for name in action.choices or {}]
    return sorted(found) + sorted(name for action in parser._actions for name in action.option_strings if name.startswith("--"))


def _verbs(parser: argparse.ArgumentParser) -> list[argparse._SubParsersAction[argparse.ArgumentParser]]:
    # argparse has no public way to ask a parser what it takes.
    return [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
