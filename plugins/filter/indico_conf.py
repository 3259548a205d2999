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
  - Turns a dictionary into the Python file that Indico 1.2.2 reads. Each of the 55 keys has a type; what does not fit is an error that names the key.
options:
  _input:
    description: Keys and values. A list stands for a tuple where Indico wants one.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show a configuration
  ansible.builtin.debug:
    msg: "{{ {'SmtpServer': ['localhost', 25], 'SessionLifetime': 86400} | confops.indico.indico_conf }}"
"""

RETURN = r"""
_value:
  description: The text of the file.
  type: str
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
