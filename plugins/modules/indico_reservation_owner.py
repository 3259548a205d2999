#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: indico_reservation_owner
short_description: Room reservations of one user become those of another
version_added: 0.1.0
description:
  - The creator of a reservation may change and cancel it, and gets Indico's mails about it. When that person leaves, another one takes over.
  - Indico 1.2.2 finds the reservations of a user by an index in the rooms' database, which follows, in the same transaction.
  - For whom a room is booked, whom to contact and the history of a reservation stay as they are.
  - It runs Indico's own code as the service user.
author:
  - confops developers (@confops)
options:
  from:
    description: Login, address or id of the user who is the creator now.
    type: str
    required: true
  to:
    description: Login, address or id of the user who will be.
    type: str
    required: true
  reservations:
    description: Numbers of the reservations. Left out or empty, all that the user made.
    type: list
    elements: int
    default: []
extends_documentation_fragment: confops.indico.release
attributes:
  check_mode:
    support: full
    description: Decides with the code that the run uses and writes nothing. On a host without a release, or with its database stopped, it says so.
  diff_mode:
    support: full
    description: Lists the reservations.
  idempotent:
    support: full
    description: A second run writes no transaction.
"""

EXAMPLES = r"""
- name: Bruno has left, Chloe takes over his reservations
  confops.indico.indico_reservation_owner:
    from: bruno
    to: chloe@example.org

- name: Only one of them
  confops.indico.indico_reservation_owner:
    from: bruno
    to: chloe@example.org
    reservations: [17]
"""

RETURN = r"""
steps:
  description: The reservations that changed hands, one line each.
  type: list
  elements: str
  returned: success
  sample: ["reservation 17 of 2026-12-01 09:00 in Main auditorium: bruno@example.org -> chloe@example.org"]
reservations:
  description: Their numbers.
  type: list
  elements: int
  returned: when they could be looked at
  sample: [17]
giver:
  description: Id, name and address of the user whose reservations they were.
  type: str
  returned: when they could be looked at
  sample: 1 (Bruno Buehler, bruno@example.org)
taker:
  description: Id, name and address of the other one.
  type: str
  returned: when they could be looked at
  sample: 2 (Chloe Carron, chloe@example.org)
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _indico, _indico_reservation_owner, _numbers


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "from": {"type": "str", "required": True},
            "to": {"type": "str", "required": True},
            "reservations": {"type": "list", "elements": _numbers.COUNT, "default": []},
            **_indico.OPTIONS,
        },
        supports_check_mode=True,
    )
    options = {name: value for name, value in module.params.items() if name not in _indico.OPTIONS}
    what = f"Which reservations are {options['from']}'s"
    result = _indico.ask(module, _indico_reservation_owner.SCRIPT, what, options, timeout=600)
    module.exit_json(changed=bool(result["steps"]), diff=_indico.diff(result["steps"], "reservations"), **result)


if __name__ == "__main__":
    main()
