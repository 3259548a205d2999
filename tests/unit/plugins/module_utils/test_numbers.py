"""Numbers: every numeric option of every module and command refuses what is no number of its range, with a sentence that names the option."""

from __future__ import annotations

import argparse
import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ansible.module_utils.basic
import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.confops.indico.plugins.module_utils import (
    _backup_command,
    _jobs_command,
    _manage_command,
    _numbers,
    _offsite_command,
    _zeo_command,
)

MODULES = Path(__file__).parents[4] / "plugins/modules"
COMMANDS = {
    "backup": _backup_command._parser,
    "jobs": _jobs_command._parser,
    "manage": _manage_command._parser,
    "offsite": _offsite_command._parser,
    "zeo": _zeo_command._parser,
}
WRONG = ("nan", "inf", "-inf", "1e99", "-1", "99999999999999999999")


class Seen(BaseException):
    """Carries the argument_spec out of a module's main."""


def spec_of(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    module = importlib.import_module(f"ansible_collections.confops.indico.plugins.modules.{name}")

    def seen(*_arguments: Any, **options: Any) -> None:
        raise Seen(options["argument_spec"])

    monkeypatch.setattr(module, "AnsibleModule", seen)
    with pytest.raises(Seen) as caught:
        module.main()
    return dict(caught.value.args[0])


def numeric(spec: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any], Any]]:
    """Yield the path of each numeric option, its own specification and its type."""
    for name, one in spec.items():
        kind = one.get("elements", "str") if one.get("type") == "list" else one.get("type", "str")
        if kind in ("int", "float"):
            yield (*above, name), one, kind
        yield from numeric(one.get("options", {}), (*above, name))


# preflight is an action and checks the variables themselves
@pytest.mark.parametrize("name", sorted(path.stem for path in MODULES.glob("*.py") if path.stem not in ("__init__", "preflight")))
def test_every_numeric_option_of_a_module_refuses_what_is_no_number_of_its_range(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # B17
    for path, option, kind in numeric(spec_of(name, monkeypatch)):
        assert isinstance(kind, _numbers.Number), f"{'.'.join(path)} of {name} has no type of _numbers"
        for value in WRONG:
            given = [value] if option.get("type") == "list" else value
            for form in (given, *([float(value)] if option.get("type") != "list" else [])):
                result = ArgumentSpecValidator({path[-1]: {**option, "required": False}}).validate({path[-1]: form})
                assert any(path[-1] in one and "must be" in one for one in result.error_messages), (path, form, result.error_messages)
        if option.get("default") not in (None, []):
            assert kind(option["default"]) == option["default"]


def options_of(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], argparse.Action]]:
    """Yield the words before each option that has a type, and the option."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                yield from options_of(below, (*words, word))
        elif action.type is not None:
            yield words, action


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_numeric_option_of_a_command_refuses_what_is_no_number_of_its_range(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    # B17
    for words, action in options_of(COMMANDS[command]()):
        assert isinstance(action.type, _numbers.Number), f"{action.dest} of {command} {' '.join(words)} has no type of _numbers"
        for value in WRONG:
            with pytest.raises(SystemExit) as caught:
                COMMANDS[command]().parse_args([*words, f"{action.option_strings[0]}={value}"] if action.option_strings else [*words, "--", value])
            said = capsys.readouterr().err
            assert caught.value.code == 2 and "must be" in said and action.dest.replace("_", "-") in said, (words, value, said)


@pytest.mark.parametrize(
    ("kind", "value", "number"),
    [
        (_numbers.COUNT, "7", 7),
        (_numbers.COUNT, 7, 7),
        (_numbers.COUNT, 7.0, 7),
        (_numbers.DAYS, "0.5", 0.5),
        (_numbers.DAYS, 1, 1.0),
        (_numbers.SECONDS, "2e6", 2e6),
    ],
)
def test_a_number_in_range_is_taken(kind: _numbers.Number, value: Any, number: float) -> None:
    assert kind(value) == number and type(kind(value)) is {"int": int, "float": float}[kind]


@pytest.mark.parametrize("value", [math.nan, True, None, "", "seven", "1.5", 1.5, [], {}, "٣" * 5000])
def test_anything_else_is_refused_with_a_short_sentence(value: Any) -> None:
    with pytest.raises(ValueError, match=r"is not allowed; it must be a whole number from 0 to 1000000000\.") as caught:
        _numbers.COUNT(value)
    assert len(str(caught.value)) < 150


def test_a_module_names_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    result = ArgumentSpecValidator(spec_of("indico_cleanup", monkeypatch)).validate({"min_age_hours": "nan"})
    assert result.error_messages[0].endswith("'nan' is not allowed; it must be a number from 0 to 876000.")
    assert "min_age_hours" in result.error_messages[0] and ansible.module_utils.basic
