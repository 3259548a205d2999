#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: indico_admin_info
short_description: Who administers an Indico
version_added: 0.1.0
description:
  - Lists the administrators that the database has, whoever made them.
author:
  - confops developers (@confops)
extends_documentation_fragment: confops.indico.release
attributes:
  check_mode:
    support: full
    description: Reads only, and finds the same.
  diff_mode:
    support: none
    description: Changes nothing.
  idempotent:
    support: full
    description: Changes nothing.
"""

EXAMPLES = r"""
- name: Read who administers the site
  confops.indico.indico_admin_info:
  register: site

- name: Say who that is
  ansible.builtin.debug:
    var: site.summary
"""

RETURN = r"""
administrators:
  description: Each administrator, by address.
  returned: success
  type: list
  elements: dict
  sample: [{id: "0", name: Ada Admin, email: ada@example.org, activated: true, logins: ["Local: ada"]}]
summary:
  description: The same for people, a line for each.
  returned: success
  type: list
  elements: str
  sample: ["Ada Admin <ada@example.org>, Local: ada"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _indico, _indico_admin


def main() -> None:
    module = AnsibleModule(argument_spec=_indico.OPTIONS, supports_check_mode=True)
    try:
        found = _indico.run(_indico_admin.LIST, {}, **module.params)["administrators"]
    except _indico.IndicoError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, administrators=found, summary=_indico_admin.summary(found))


if __name__ == "__main__":
    main()
