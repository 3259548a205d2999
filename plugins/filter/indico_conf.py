# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: indico_conf
short_description: The text of indico.conf
version_added: 0.1.0
author:
  - confops developers (@confops)
description:
  - Turns a dictionary into the Python file that Indico 1.2.2 reads, with literals only.
  - Each of the 55 keys has a type. All that does not fit is one error that names the keys.
  - Text becomes a byte string in UTF-8, the form that Indico keeps, written in ASCII. The order is always the same, so equal values make equal files.
options:
  _input:
    description:
      - Keys and values. A list stands for a tuple where Indico wants one. C(yes) and C(no) become true and false where Indico wants a truth value.
      - A null is refused, since Indico's own tools do not read one back. Leave the key out and Indico's default applies.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show a configuration
  ansible.builtin.debug:
    msg: "{{ conf | confops.indico.indico_conf }}"
  vars:
    conf:
      SmtpServer: [localhost, 25]
      CacheBackend: redis
      RedisCacheURL: redis://localhost:6379/1
      AuthenticatorList:
        - [Local, {}]
        - [LDAP, {uri: ldaps://ldap.example.org, peopleDNQuery: ["uid={0}", "DC=example,DC=org"]}]
      CategoryCleanup: {"2": 30}
"""

RETURN = r"""
_value:
  description: The text of the file.
  type: str
  sample: |
    # Ansible managed: change indico_conf in the inventory instead.
    CacheBackend = 'redis'
    SmtpServer = ('localhost', 25)
"""

from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.confops.indico.plugins.module_utils import _indico_conf


def indico_conf(conf: dict[str, Any]) -> str:
    try:
        return _indico_conf.render(conf)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"indico_conf": indico_conf}
