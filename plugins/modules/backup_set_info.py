#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_set_info
short_description: The backup sets of an instance
version_added: 0.1.0
description:
  - Reads the manifests of the sets that M(confops.indico.backup_set) made.
author:
  - confops developers (@confops)
options:
  settings:
    description: File on the host that role P(confops.indico.backup#role) writes.
    type: path
    default: /opt/indico/etc/backup.json
  directory:
    description: Directory of the sets and repositories, instead of the one that O(settings) names. It may be a copy of another instance's.
    type: path
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
- name: Read what there is to restore
  confops.indico.backup_set_info:
  register: backups
"""

RETURN = r"""
directory:
  description: Directory that holds the sets and the repositories.
  returned: success
  type: str
  sample: /var/backups/indico
sets:
  description: The manifest of each set and its stamp (UTC), from the oldest to the newest.
  returned: success
  type: list
  elements: dict
  sample: [{stamp: 2026-11-24-20-00-00, instance: indico, who: root, why: timer, storages: [], archive: {files: 120, bytes: 40213}}]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _backup_set, _repository


def main() -> None:
    options = {"settings": {"type": "path", "default": "/opt/indico/etc/backup.json"}, "directory": {"type": "path"}}
    module = AnsibleModule(argument_spec=options, supports_check_mode=True)
    try:
        settings = _backup_set.read_settings(module.params["settings"])
        settings.directory = module.params["directory"] or settings.directory
        module.exit_json(changed=False, directory=settings.directory, sets=_backup_set.manifests(settings))
    except _repository.RepositoryError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
