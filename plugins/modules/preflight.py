#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Check every variable of the collection before a host is touched
version_added: 0.1.0
description:
  - Compares the host's variables with the argument specs of the collection's roles, strictly.
    A string is not a number, and a list of dictionaries is not a list of strings. Numbers may come as strings of digits, as surveys of AWX pass them.
  - Refuses a misspelt name. Any variable that begins like the collection's (C(indico_), C(zeo_), C(web_), ...) must be one of its own,
    or be listed in C(indico_site_variables).
  - Finds contradictions. Two services on one port, no storage named main, a prefix with a blank, an administrator without a password,
    a key of C(indico.conf) that Indico 1.2.2 does not read.
  - Refuses a host that is not Debian 11, or whose Python is older than 3.9, when its facts are known.
  - With O(verb) it checks the command line of a playbook instead. It refuses extra variables, groups and tags that the playbook does not know,
    names the nearest one, and checks types. Variables of the roles are known to every playbook, and names that begin with C(ansible_), C(awx_)
    or C(tower_) are not looked at.
  - It runs on the controller, makes no connection and reports all problems at once, one sentence each. It never shows a password.
author:
  - confops developers (@confops)
options:
  roles:
    description:
      - Roles of this collection whose variables are checked. All of them when left out.
      - Names are compared with those of all roles in any case.
    type: list
    elements: str
  values:
    description:
      - Names of variables to return, for a playbook that uses no role and so would not know their defaults. Ask for no secret, since the output shows them.
    type: list
    elements: str
    default: []
  verb:
    description:
      - Name of a playbook of this collection, such as V(restore). The command line is checked for it, and the other options are not used.
    type: str
notes:
  - Values come from the inventory and the play, then from the defaults of roles that the play does not have.
  - A value that needs facts, such as the default of C(indico_server_name), can be read only after they are gathered.
attributes:
  action:
    support: full
    description: Runs on the controller only.
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
- name: Check every variable before anything is changed
  confops.indico.preflight:

- name: Check what a host needs that only serves databases
  confops.indico.preflight:
    roles: [common, python2, zeo]

- name: Refuse extra variables that restore.yml does not know
  confops.indico.preflight:
    verb: restore
  run_once: true

- name: Read where the instance lies
  confops.indico.preflight:
    values: [indico_prefix, indico_user]
  register: site
"""

RETURN = r"""
msg:
  description: All problems, a line for each.
  returned: failure
  type: str
  sample: |-
    Preflight found 2 problems:
    - indico_storage is not a variable of this collection. Did you mean indico_storages? (A site lists names of its own in indico_site_variables.)
    - zeo_transaction_timeout is 'soon'; it must be an integer.
problems:
  description: The same, a sentence for each. Empty when all is well.
  returned: always
  type: list
  elements: str
  sample:
    - web_https_port is 80, which web_http_port has already.
values:
  description: The variables that O(values) names.
  returned: without O(verb)
  type: dict
  sample: {indico_prefix: /opt/indico, indico_user: indico}
"""
