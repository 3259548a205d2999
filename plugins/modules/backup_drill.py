#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_drill
short_description: Prove that the newest backup set restores to the site that it was made of
version_added: 0.1.0
description:
  - Does what the weekly job of role P(confops.indico.backup#role) does, with the same code and settings.
  - Verifies every backup, restores each storage of the newest set into a scratch directory and serves it there, read-only, on a free port of loopback.
  - Indico's own code opens it, counts events, categories, users, rooms and stored files, and opens a sample of each.
  - The same is counted in the living databases as of the set's newest transactions, and must be equal. Every stored file that the restored database names
    must be in the set.
  - Measures the time, leaves its report in C(drill.json) beside the sets and in the metrics, and removes the scratch directory.
author:
  - confops developers (@confops)
options:
  settings:
    description: File on the host that the role writes.
    type: path
    default: /opt/indico/etc/backup.json
attributes:
  check_mode:
    support: full
    description: Says which set would be restored, how much space that needs and how much there is.
  diff_mode:
    support: none
    description: Changes nothing but its report.
  idempotent:
    support: full
    description: It never reports a change.
"""

EXAMPLES = r"""
- name: Prove the newest backup
  confops.indico.backup_drill:
"""

RETURN = r"""
line:
  description: All of it in one line.
  returned: success
  type: str
  sample: "drill done in 6.1 s: set 2026-11-24-01-30-00 (main to 2026-11-23T22:11:02Z) restored and opened by Indico: 26 events"
set:
  description: Stamp (UTC) of the set.
  returned: success
  type: str
  sample: 2026-11-24-01-30-00
storages:
  description: >-
    What was restored of each storage, with its size (bytes), its newest transaction, the chain that it comes from, and the seconds that verification and
    restore took.
  returned: success
  type: list
  elements: dict
  sample: [{name: main, bytes: 4021331, tid: 03f1a2b3c4d5e6f7, time: "2026-11-23T22:11:02Z", chain: 2026-11-22-01-30-00, seconds: 1.2}]
needed_bytes:
  description: Bytes that the scratch directory takes.
  returned: success
  type: int
  sample: 5069907
free_bytes:
  description: Bytes that its file system has free.
  returned: success
  type: int
  sample: 81604378624
counts:
  description: How many objects of each kind the restored databases hold. Empty in check mode.
  returned: success
  type: dict
  sample: {events: 26, categories: 4, users: 7, rooms: 3, files: 120}
live:
  description: The same of the living databases as of the same transactions. Empty in check mode, and when those were packed away.
  returned: success
  type: dict
  sample: {events: 26, categories: 4, users: 7, rooms: 3, files: 120}
opened:
  description: How many of each kind were opened.
  returned: success
  type: dict
  sample: {events: 26, categories: 4, users: 7, rooms: 3}
files_compared:
  description: How many stored files were looked for in the set, which is all that the database names. 0 when they lie on another host.
  returned: success
  type: int
  sample: 120
verified_bytes:
  description: Bytes of backups that were read and compared with their checksums.
  returned: success
  type: int
  sample: 1204331
seconds:
  description: How long the drill took.
  returned: success
  type: float
  sample: 6.1
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _backup_set, _drill, _repository


def main() -> None:
    module = AnsibleModule(argument_spec={"settings": {"type": "path", "default": "/opt/indico/etc/backup.json"}}, supports_check_mode=True)
    try:
        done = _drill.run(_backup_set.read_settings(module.params["settings"]), check=module.check_mode)
    except _repository.RepositoryError as error:
        module.fail_json(msg=str(error))
    result = asdict(done)
    for warning in result.pop("warnings"):
        module.warn(warning)
    del result["problem"]
    module.exit_json(changed=False, line=done.line(), **result)


if __name__ == "__main__":
    main()
