#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: stored_files_info
short_description: Whether the stored files of a backup set can replace the archive
version_added: 0.1.0
description:
  - Says where a restore copies the files of a set, how many bytes that needs and how many are free.
  - Says whether the archive is a mount point, and whether the run may write there.
  - M(confops.indico.stored_files_exchange) then puts the copy in place.
author:
  - confops developers (@confops)
options:
  source:
    description: Directory of the set's stored files.
    type: path
    required: true
  archive:
    description: Directory where Indico keeps its files.
    type: path
    default: /opt/indico/archive
  stamp:
    description: End of the name of the directory that keeps the replaced files.
    type: str
    default: STAMP
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
- name: Plan the exchange of the stored files
  confops.indico.stored_files_info:
    source: /var/backups/indico/sets/2026-11-24-20-00-00/archive
    stamp: 2026-11-25-08-00-00
  register: files
"""

RETURN = r"""
target:
  description: The archive's real path.
  returned: success
  type: str
  sample: /opt/indico/archive
copy:
  description: Directory to which the set's files are copied first. It is inside the archive when that is a mount point.
  returned: success
  type: str
  sample: /opt/indico/archive.restored
kept:
  description: Directory that keeps the replaced files.
  returned: success
  type: str
  sample: /opt/indico/archive.replaced-2026-11-25-08-00-00
mount_point:
  description: Whether the archive is a mount point. Its contents are exchanged then, since nothing can rename it.
  returned: success
  type: bool
  sample: false
same_file_system:
  description: Whether the archive is on the file system of its parent directory.
  returned: success
  type: bool
  sample: true
writable:
  description: Whether the run may write where the copy goes.
  returned: success
  type: bool
  sample: true
needed_bytes:
  description: Bytes that the copy still needs.
  returned: success
  type: int
  sample: 40213
free_bytes:
  description: Bytes that are free there.
  returned: success
  type: int
  sample: 81604378624
problems:
  description: Sentences. A restore must not begin while there are any.
  returned: success
  type: list
  elements: str
  sample: []
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _repository, _stored_files


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "path", "required": True},
            "archive": {"type": "path", "default": "/opt/indico/archive"},
            "stamp": {"type": "str", "default": "STAMP"},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        module.exit_json(changed=False, **asdict(_stored_files.plan(given["source"], given["archive"], given["stamp"])))
    except OSError as error:
        module.fail_json(msg=f"The stored files in {given['source']} cannot be read: {_repository.reason(error)}.")


if __name__ == "__main__":
    main()
