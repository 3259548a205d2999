#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: indico_admin
short_description: An administrator of Indico with a local account
version_added: 0.1.0
description:
  - Creates the account, its local login and its rights, in one transaction and without a mail. What exists is brought into line.
  - While the list of administrators is empty, Indico 1.2.2 opens its administration to every visitor who makes an account.
    So this module runs before a web server opens, and never removes the last one.
  - It runs Indico's own code as the service user. The password goes there on standard input.
author:
  - confops developers (@confops)
options:
  login:
    description: Name to log in with. Left out, the account that O(email) names keeps the logins that it has, which may be those of another authenticator.
    type: str
  password:
    description: Password of the login. It is written only when the present one differs. Needed to create the account.
    type: str
  email:
    description: Mail address. An account that has it already gets the login. Needed to create the account.
    type: str
  first_name:
    description: First name. Needed to create the account.
    type: str
  family_name:
    description: Family name. Needed to create the account.
    type: str
  state:
    description: V(absent) takes the rights away and leaves the account, which may own events.
    type: str
    choices: [present, absent]
    default: present
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
- name: An administrator
  confops.indico.indico_admin:
    login: ada
    password: "{{ vault_ada_password }}"
    email: ada@example.org
    first_name: Ada
    family_name: Admin

- name: An account that logs in elsewhere
  confops.indico.indico_admin:
    email: chloe@example.org

- name: One who left
  confops.indico.indico_admin:
    login: bruno
    state: absent
"""

RETURN = r"""
steps:
  description: What differed, one line each.
  type: list
  elements: str
  returned: success
  sample: ["account: created", "login: added", "administrator: granted"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _indico, _indico_admin


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "login": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "email": {"type": "str"},
            "first_name": {"type": "str"},
            "family_name": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            **_indico.OPTIONS,
        },
        required_one_of=[("login", "email")],
        supports_check_mode=True,
    )
    options = {name: value for name, value in module.params.items() if name not in _indico.OPTIONS}
    who = options["login"] or options["email"]
    steps = _indico.ask(module, _indico_admin.SCRIPT, f"Whether {who} is as declared", options)["steps"]
    module.exit_json(changed=bool(steps), steps=steps, diff=_indico.diff(steps, who))


if __name__ == "__main__":
    main()
