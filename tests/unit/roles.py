"""The roles' argument specs and defaults as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parents[2] / "roles"


def _read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


# role -> option -> its entry, and role -> variable -> its value or template.
SPECS: dict[str, dict[str, Any]] = {
    path.parents[1].name: _read(path)["argument_specs"]["main"].get("options", {}) for path in sorted(ROLES.glob("*/meta/argument_specs.yml"))
}
DEFAULTS: dict[str, dict[str, Any]] = {role: _read(ROLES / role / "defaults" / "main.yml") for role in SPECS}
