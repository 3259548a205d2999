#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_pack
short_description: Pack the databases of an instance between two verified backups
version_added: 0.1.0
description:
  - Does what the weekly job of role P(confops.indico.backup#role) does, with the same code, settings and lock.
  - Makes a backup set that covers the last commit and verifies it, sees that the disks have room, and has each server pack its storage.
  - Then begins a new chain for each storage that was packed. Retention removes nothing before that is verified.
  - Refuses while a backup runs. One storage that fails does not keep the others from being packed, but the module fails.
author:
  - confops developers (@confops)
options:
  settings:
    description: File on the host that the role writes.
    type: path
    default: /opt/indico/etc/backup.json
  days:
    description:
      - Keep every revision of that many days, for undo. With 0 only the current ones stay.
      - By default what the role's variable C(backup_pack_days) says.
    type: float
attributes:
  check_mode:
    support: full
    description: Says for each storage whether there is anything to pack, whether a backup set would be made first, and how much space all that needs.
  diff_mode:
    support: none
    description: The databases themselves change; sizes are in the result.
  idempotent:
    support: partial
    description: Packs what there is to pack.
    details:
      - Without a revision to remove it does nothing, not even a backup. As time passes, there are more of them.
"""

EXAMPLES = r"""
- name: Pack what is older than a week
  confops.indico.backup_pack:
    days: 7
"""

RETURN = r"""
line:
  description: All of it in one line.
  returned: success
  type: str
  sample: "pack done in 8.1 s: main 4021331 to 2311004 bytes, rooms nothing to pack, set 2026-11-24-03-30-09 begins new chains"
days:
  description: Days of which every revision was kept.
  returned: success
  type: float
  sample: 1
storages:
  description:
    - What became of each storage, with RV(ignore:result) packed or nothing, and sizes of its database in bytes.
    - In check mode what is reclaimed is at least as much as it says, since what nothing refers to is not looked for.
  returned: success
  type: list
  elements: dict
  sample:
    - name: main
      result: packed
      bytes_before: 4021331
      bytes_after: 2311004
      reclaimed_bytes: 1710327
      seconds: 2.4
      packed_to: "2026-11-23T03:30:02Z"
      problem:
space:
  description: What each file system must have free (bytes), were no database to shrink, and has. Empty when there is nothing to pack.
  returned: success
  type: list
  elements: dict
  sample: [{directories: [/opt/indico/db/main], needed_bytes: 4021331, free_bytes: 81604378624}]
set_needed:
  description: Whether a backup set had to be made before anything was packed.
  returned: success
  type: bool
  sample: true
set_before:
  description: Stamp (UTC) of that set.
  returned: success
  type: str
  sample: 2026-11-24-03-30-01
set_after:
  description: Stamp of the set whose backups begin new chains.
  returned: success
  type: str
  sample: 2026-11-24-03-30-09
seconds:
  description: How long all of it took.
  returned: success
  type: float
  sample: 8.1
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _backup_set, _numbers, _pack, _repository


def main() -> None:
    module = AnsibleModule(
        argument_spec={"settings": {"type": "path", "default": "/opt/indico/etc/backup.json"}, "days": {"type": _numbers.DAYS}},
        supports_check_mode=True,
    )
    try:
        settings = _backup_set.read_settings(module.params["settings"])
        done = _pack.run(settings, days=module.params["days"], who="Ansible", check=module.check_mode)
    except _repository.RepositoryError as error:
        module.fail_json(msg=str(error))
    result = asdict(done)
    for warning in result.pop("warnings"):
        module.warn(warning)
    changed = bool(done.wanted()) if result.pop("check") else result["changed"]
    del result["problem"], result["changed"]
    module.exit_json(changed=changed, line=done.line(), **result)


if __name__ == "__main__":
    main()
