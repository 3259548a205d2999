#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: indico_migration
short_description: The steps of a migration of the databases to another release
version_added: 0.1.0
description:
  - Runs C(bin/migration/migrate.py) of a release that is installed beside the one that runs, on the host that holds the databases;
    C(playbooks/migrate.yml) puts the steps in order and goes back when one fails.
author:
  - confops developers (@confops)
options:
  action:
    description:
      - V(rehearse) makes a backup set, restores it into the scratch directory of the drills and migrates that copy as the user C(nobody). Before and after
        it is opened by Indico's code, of the old release and of the new one, and counted. The site is not touched.
      - V(begin) notes on a host that a migration begins, before the site is closed.
      - V(pin) makes the set that a way back goes to, when nobody writes any more, pins its chains and notes it.
      - V(run) migrates the living databases, and counts before and after. When it fails they must be restored.
      - V(back) returns what was noted of a migration that has not ended, and fails while C(migrate.py) is at it. After it V(pin) and V(run) refuse, for
        a run that was killed may have left one that still waits for its turn.
      - V(end) forgets it, when all is well or everything is back.
    type: str
    required: true
    choices: [rehearse, begin, pin, run, back, end]
  prefix:
    description: Directory of the instance, for V(begin) and V(end), which every host of the site does.
    type: path
    default: /opt/indico
  settings:
    description: File on the host with the databases that role P(confops.indico.backup#role) writes, for the other steps, which that host alone does.
    type: path
    default: /opt/indico/etc/backup.json
  release:
    description: Name of the new release. For all but V(back) and V(end).
    type: str
  user:
    description: User that runs Indico.
    type: str
    default: indico
  run:
    description: Id of the run, for V(begin).
    type: str
    default: ""
  who:
    description: Person or job that goes into the manifests of the sets.
    type: str
    default: Ansible
  patience:
    description: Seconds for which V(back) waits for a backup or a drill that is at work.
    type: float
    default: 0
attributes:
  check_mode:
    support: none
    description: A prediction of what C(migrate.py) does is its rehearsal.
  diff_mode:
    support: none
    description: RV(tasks), RV(before) and RV(after) say what was done.
  idempotent:
    support: none
    description: Each step acts, but for V(back) and V(end).
"""

EXAMPLES = r"""
- name: Migrate a copy
  confops.indico.indico_migration:
    action: rehearse
    release: v1.3-5a0e3f1c9b77
"""

RETURN = r"""
set:
  description: Stamp (UTC) of the set that was restored, for V(pin) of the one that a way back goes to, and for V(back) of that or null.
  type: str
  returned: for O(action=rehearse), O(action=pin) and O(action=back)
  sample: 2026-11-24-20-00-00
pinned:
  description: Of each storage the chain that retention leaves alone from now on.
  type: dict
  returned: for O(action=pin)
  sample: {main: 2026-11-22-01-30-00, rooms: 2026-11-22-01-30-00}
tasks:
  description: What C(migrate.py) says that it did.
  type: list
  elements: str
  returned: for O(action=rehearse) and O(action=run)
  sample: [Reloading all plugins (0.97)]
before:
  description: How many objects of each kind there were.
  type: dict
  returned: for O(action=rehearse) and O(action=run)
  sample: {events: 26, categories: 4, users: 7, rooms: 3, files: 120}
after:
  description: How many there are.
  type: dict
  returned: for O(action=rehearse) and O(action=run)
  sample: {events: 26, categories: 4, users: 7, rooms: 3, files: 120}
seconds:
  description: How long it took.
  type: float
  returned: for O(action=rehearse), O(action=pin) and O(action=run)
  sample: 14.2
noted:
  description: What was noted (id of the run, who, release, from, set, began), nothing when no migration was begun.
  type: dict
  returned: for O(action=back)
  sample: {id: 5a0e3f1c, who: ada, release: v1.3-5a0e3f1c9b77, from: 1.2.2-069b0b698e20, set: 2026-11-24-20-00-00, began: "2026-11-24T20:00:00Z"}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _backup_set, _migration, _numbers, _repository

_ACTIONS = ["rehearse", "begin", "pin", "run", "back", "end"]


def act(options: dict[str, Any]) -> dict[str, Any]:
    """Do one step and return its result."""
    prefix, release, action = options["prefix"], options["release"], options["action"]
    if action == "begin":
        _migration.begin(prefix, release, {"id": options["run"], "who": options["who"]})
        return {"changed": True}
    if action == "end":
        return {"changed": _migration.end(prefix)}
    settings = _backup_set.read_settings(options["settings"])
    if action == "rehearse":
        return {"changed": True, **_migration.rehearse(settings, release, who=options["who"])}
    if action == "pin":
        return {"changed": True, **_migration.pin(settings, release, who=options["who"])}
    if action == "run":
        return {"changed": True, **_migration.migrate(settings, release, user=options["user"])}
    noted = _migration.back(settings, options["patience"])
    return {"changed": False, "noted": noted, "set": noted.get("set")}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "action": {"type": "str", "required": True, "choices": _ACTIONS},
            "prefix": {"type": "path", "default": "/opt/indico"},
            "settings": {"type": "path", "default": "/opt/indico/etc/backup.json"},
            "release": {"type": "str"},
            "user": {"type": "str", "default": "indico"},
            "run": {"type": "str", "default": ""},
            "who": {"type": "str", "default": "Ansible"},
            "patience": {"type": _numbers.SECONDS, "default": 0},
        },
        required_if=[("action", action, ["release"]) for action in _ACTIONS[:4]],
    )
    try:
        result = act(module.params)
    except (_repository.RepositoryError, OSError) as error:
        module.fail_json(msg=_repository.told(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
