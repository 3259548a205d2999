# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: indico_conf_secrets
short_description: The secrets inside the values of indico.conf
version_added: 0.1.0
author:
  - confops developers (@confops)
description:
  - Lists the strings that no output may show, for the option O(confops.indico.tree#module:secrets).
options:
  _input:
    description: Keys and values as for P(confops.indico.indico_conf#filter).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Write indico.conf without showing its passwords
  confops.indico.tree:
    entries:
      - path: /opt/indico/etc/indico.conf
        content: "{{ conf | confops.indico.indico_conf }}"
    secrets: "{{ conf | confops.indico.indico_conf_secrets }}"
"""

RETURN = r"""
_value:
  description: The secret strings.
  type: list
  elements: str
"""

from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _indico_conf


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"indico_conf_secrets": _indico_conf.secrets}
