# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.confops.indico.plugins.module_utils import _preflight

_ROLES = Path(__file__).resolve().parents[2] / "roles"


class ActionModule(ActionBase):
    """Gathers the specs and the host's values; _preflight judges them."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        given = task_vars or {}
        specs, defaults = {}, {}
        for path in sorted(_ROLES.glob("*/meta/argument_specs.yml")):
            role = path.parents[1]
            specs[role.name] = self._read(path)["argument_specs"]["main"].get("options", {})
            defaults.update(self._read(role / "defaults" / "main.yml"))
        arguments = self.validate_argument_spec({"roles": {"type": "list", "elements": "str"}, "values": {"type": "list", "elements": "str", "default": []}})[1]
        roles = list(specs) if arguments["roles"] is None else arguments["roles"]
        unknown = [role for role in roles if role not in specs]
        if unknown:
            raise AnsibleActionFail(f"roles names {', '.join(unknown)}; this collection has {', '.join(specs)}.")
        unknown = [name for name in arguments["values"] if not any(name in specs[role] for role in roles)]
        if unknown:
            raise AnsibleActionFail(f"values names {', '.join(unknown)}, which no checked role has.")

        # The defaults of a role that is not in the play, or not yet, are not among the host's variables.
        variables = {**defaults, **given}
        templar = self._templar.copy_with_new_env(available_variables=variables)
        values, unreadable = {}, {}
        for name in (name for role in roles for name in specs[role] if name in variables):
            try:
                values[name] = templar.template(variables[name])
            except AnsibleError as error:
                unreadable[name] = str(error.message)
        found = _preflight.problems(specs, roles, values, unreadable, list(given), given.get("ansible_facts", {}), given["inventory_hostname"])
        result.update(changed=False, problems=found, values={name: values[name] for name in arguments["values"] if name in values})
        if found:
            title = f"Preflight found {len(found)} problems:" if len(found) > 1 else "Preflight found a problem:"
            result.update(failed=True, msg="\n".join([title, *(f"- {sentence}" for sentence in found)]))
        return result

    def _read(self, path: Path) -> dict[str, Any]:
        return (self._loader.load_from_file(str(path), trusted_as_template=True) or {}) if path.exists() else {}
