# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.confops.indico.plugins.module_utils import _preflight

_ROLES = Path(__file__).resolve().parents[2] / "roles"


def _read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}


class ActionModule(ActionBase):
    """Gathers the values; _preflight judges them."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        options: dict[str, Any] = {}
        defaults: dict[str, Any] = {}
        for role in sorted(_ROLES.iterdir()):
            specs = _read(role / "meta" / "argument_specs.yml").get("argument_specs", {})
            options.update(specs.get("main", {}).get("options", {}))
            defaults.update(_read(role / "defaults" / "main.yml"))
        values, unreadable = {}, []
        for name in options:
            if name not in variables and name not in defaults:
                continue
            try:
                values[name] = self._templar.template(variables.get(name, defaults.get(name)))
            except AnsibleError as error:
                unreadable.append(f"{name} cannot be read: {error.message}")
        found = unreadable or _preflight.problems(options, values, list(variables), variables.get("ansible_facts", {}), variables["inventory_hostname"])
        result["changed"] = False
        if found:
            result.update(failed=True, msg="\n".join(found))
        return result
