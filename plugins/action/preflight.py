# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible import context
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars
from ansible_collections.confops.indico.plugins.module_utils import _preflight, _verbs

_ROLES = Path(__file__).resolve().parents[2] / "roles"


class ActionModule(ActionBase):
    """Gathers the specs and the host's values, which _preflight judges, or the command line, which _verbs judges."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        given = task_vars or {}
        arguments = self.validate_argument_spec(
            {
                "roles": {"type": "list", "elements": "str"},
                "values": {"type": "list", "elements": "str", "default": []},
                "verb": {"type": "str"},
            }
        )[1]
        specs = {path.parents[1].name: _options(path) for path in sorted(_ROLES.glob("*/meta/argument_specs.yml"))}
        if arguments["verb"] is not None:
            return {**result, **self._check_command(arguments["verb"], specs, given)}
        defaults: dict[str, Any] = {}
        for role in specs:
            defaults.update(self._read(_ROLES / role / "defaults" / "main.yml"))
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
        result.update(_outcome("Preflight", found), values={name: values[name] for name in arguments["values"] if name in values})
        return result

    def _check_command(self, verb: str, specs: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]) -> dict[str, Any]:
        """Judge what ansible-playbook was called with. Nothing else tells extra variables from those of the inventory."""
        if verb not in _verbs.VERBS:
            raise AnsibleActionFail(f"verb is {verb}; this collection has {', '.join(_verbs.VERBS)}.")
        extra = dict(load_extra_vars(self._loader))
        found = []
        for name in set(_verbs.variables(verb)) & set(extra):
            try:
                extra[name] = self._templar.template(extra[name])
            except AnsibleError as error:
                found.append(f"{name} cannot be read: {error.message}")
                extra.pop(name)
        # A site's own playbook may import this one beside others, which have tags of their own.
        called = any(Path(name).name.removesuffix(".yml").split(".")[-1] == verb for name in context.CLIARGS.get("args") or ())
        tags = [tag for option in ("tags", "skip_tags") for tag in context.CLIARGS.get(option) or ()] if called else []
        groups = given.get("groups", {})
        options = {name: option for role in specs.values() for name, option in role.items()}
        found += _verbs.problems(verb, extra, options, self._declared(groups, given, extra), groups, tags)
        return _outcome("The check of the command", found)

    def _declared(self, groups: Mapping[str, list[str]], given: Mapping[str, Any], extra: Mapping[str, Any]) -> set[str]:
        """Return the names in indico_site_variables. This host may be outside of the instance, so one host of each of its groups is read."""
        hosts = dict.fromkeys(groups[name][0] for name in _verbs.GROUPS if groups.get(name))
        lists = [extra.get("indico_site_variables"), *(given["hostvars"].raw_get(host).get("indico_site_variables") for host in hosts)]
        return {name for names in lists if isinstance(names, list) for name in names if isinstance(name, str)}

    def _read(self, path: Path) -> dict[str, Any]:
        return (self._loader.load_from_file(str(path), trusted_as_template=True) or {}) if path.exists() else {}


def _options(path: Path) -> dict[str, Any]:
    """Return the public variables of a role. They are no templates, so the fast parser serves."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with path.open(encoding="utf-8") as stream:
        specs: dict[str, Any] = yaml.load(stream, Loader=loader)["argument_specs"]["main"].get("options", {})  # noqa: S506 (it is a safe one)
    return specs


def _outcome(who: str, found: list[str]) -> dict[str, Any]:
    """Return what a task with these problems returns."""
    if not found:
        return {"changed": False, "problems": []}
    title = f"{who} found {len(found)} problems:" if len(found) > 1 else f"{who} found a problem:"
    return {"changed": False, "problems": found, "failed": True, "msg": "\n".join([title, *(f"- {sentence}" for sentence in found)])}
