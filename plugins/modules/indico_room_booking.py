#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: indico_room_booking
short_description: Where Indico finds the rooms' database
version_added: 0.1.0
description:
  - Indico 1.2.2 keeps the address of the rooms' database, and the login there, in its main database and not in C(indico.conf).
    This module brings them into line, in one transaction. Whether room booking is switched on stays the administrators' choice.
  - Workers that have opened the rooms' database stay with the old address until they start again.
  - It runs Indico's own code as the service user. The password goes there on standard input.
author:
  - confops developers (@confops)
options:
  host:
    description: Address of the ZEO server. Left out, that of the main database in C(indico.conf), as for each of the login's options.
    type: str
  port:
    description: Its port.
    type: int
    required: true
  username:
    description: Name to log in with, empty for a server that asks for none.
    type: str
  password:
    description: Password of the login.
    type: str
  realm:
    description: Realm of the login.
    type: str
extends_documentation_fragment: confops.indico.release
attributes:
  check_mode:
    support: full
    description: Decides with the code that the run uses and writes nothing. On a host without a release, or with its database stopped, it says so.
  diff_mode:
    support: full
    description: Lists the steps; a password only as differing.
  idempotent:
    support: full
    description: A second run writes no transaction.
"""

EXAMPLES = r"""
- name: The rooms lie in a database of their own, on the host of the main one
  confops.indico.indico_room_booking:
    port: 9676
"""

RETURN = r"""
steps:
  description: What differed, one line each.
  type: list
  elements: str
  returned: success
  sample: ["address: localhost:9676 -> 127.0.0.1:9676"]
active:
  description: Whether room booking is switched on; null when that could not be seen.
  type: bool
  returned: success
  sample: true
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _indico, _indico_room_booking, _numbers


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str"},
            "port": {"type": _numbers.PORT, "required": True},
            "username": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "realm": {"type": "str"},
            **_indico.OPTIONS,
        },
        supports_check_mode=True,
    )
    options = {name: value for name, value in module.params.items() if name not in _indico.OPTIONS}
    result = _indico.ask(module, _indico_room_booking.SCRIPT, "Where Indico looks for the rooms' database", options)
    steps = result["steps"]
    module.exit_json(changed=bool(steps), steps=steps, active=result.get("active"), diff=_indico.diff(steps, "rooms"))


if __name__ == "__main__":
    main()
