"""A role's argument spec and its defaults say the same: names, types and values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _preflight

from tests.unit.roles import DEFAULTS, ROLES, SPECS


def nested(name: str, option: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the option and all below it."""
    yield name, option
    for key, inner in option.get("options", {}).items():
        yield from nested(f"{name}.{key}", inner)


EVERY = [pytest.param(option, id=path) for options in SPECS.values() for name, top in options.items() for path, option in nested(name, top)]


def is_template(value: Any) -> bool:
    return isinstance(value, str) and "{{" in value


def test_every_role_has_a_spec() -> None:
    assert set(SPECS) == {path.name for path in ROLES.iterdir() if path.is_dir()}


@pytest.mark.parametrize("option", EVERY)
def test_an_option_has_a_type_and_a_description(option: dict[str, Any]) -> None:
    assert option["type"] in ("str", "path", "int", "bool", "list", "dict")
    assert option["description"]
    assert ("elements" in option) == (option["type"] == "list")
    assert "options" not in option or "dict" in (option["type"], option.get("elements"))


@pytest.mark.parametrize("role", SPECS)
def test_spec_and_defaults_have_the_same_names(role: str) -> None:
    assert set(DEFAULTS[role]) == {name for name, option in SPECS[role].items() if not option.get("required")}


@pytest.mark.parametrize("role", SPECS)
def test_spec_and_defaults_have_the_same_values(role: str) -> None:
    # A default that is computed cannot be stated in the spec, and one that is not must be.
    assert {name: option["default"] for name, option in SPECS[role].items() if "default" in option} == {
        name: value for name, value in DEFAULTS[role].items() if not is_template(value)
    }


@pytest.mark.parametrize("role", SPECS)
def test_defaults_have_their_types(role: str) -> None:
    found = [
        sentence for name, value in DEFAULTS[role].items() if not is_template(value) for sentence in _preflight.check_value(name, SPECS[role][name], value)
    ]
    assert found == []


@pytest.mark.parametrize("role", SPECS)
def test_names_carry_their_role(role: str) -> None:
    prefixes = (f"{role}_", "indico_") if role == "common" else (f"{role}_",)
    assert [name for name in SPECS[role] if not name.startswith(prefixes)] == []


def test_no_name_belongs_to_two_roles() -> None:
    names = [name for options in SPECS.values() for name in options]
    assert sorted(names) == sorted(set(names))
