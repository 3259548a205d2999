#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: stored_files_exchange
short_description: Put a copy of stored files in the place of the archive
version_added: 0.1.0
description:
  - Renames the archive and the copy. When the archive is a mount point, moves their entries instead.
  - M(confops.indico.stored_files_info) names the directories.
  - To go back, exchange again with the former O(outgoing) as O(incoming).
author:
  - confops developers (@confops)
options:
  archive:
    description: Directory where Indico keeps its files.
    type: path
    default: /opt/indico/archive
  incoming:
    description: Directory of the files that come into the archive. Without it nothing is done.
    type: path
    required: true
  outgoing:
    description: Directory, not there yet, that takes the files which are in the archive now.
    type: path
    required: true
attributes:
  check_mode:
    support: full
    description: Says whether there is anything to exchange. M(confops.indico.stored_files_info) says whether that can succeed.
  diff_mode:
    support: none
    description: Shows no contents of files.
  idempotent:
    support: full
    description: A second run finds no O(incoming) and changes nothing.
"""

EXAMPLES = r"""
- name: Exchange the stored files
  confops.indico.stored_files_exchange:
    incoming: "{{ files.copy }}"
    outgoing: "{{ files.kept }}"
"""

RETURN = r""" # """

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _repository, _stored_files


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "archive": {"type": "path", "default": "/opt/indico/archive"},
            "incoming": {"type": "path", "required": True},
            "outgoing": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    if module.check_mode:
        module.exit_json(changed=os.path.isdir(given["incoming"]))
    try:
        module.exit_json(changed=_stored_files.exchange(given["archive"], given["incoming"], given["outgoing"]))
    except OSError as error:
        module.fail_json(msg=f"{given['archive']} and {given['incoming']} cannot be exchanged: {_repository.reason(error)}. What was moved was moved back.")


if __name__ == "__main__":
    main()
