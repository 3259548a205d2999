#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: database_check
short_description: Find damage and dangling references in the databases of the newest backup set
version_added: 0.1.0
description:
  - Restores each storage of the newest backup set into a scratch directory, has ZODB check the copies as the user C(nobody), and removes them.
  - ZODB's C(fstest) reads the structure of the whole file.
  - Then every object's newest revision is read, and each object that it refers to must exist and be readable, as C(fsrefs) asks.
  - The references of its C(fsrefs) are ZODB's own, but the module does not run that program, which exits with 0 whatever it finds and ends at the first
    object that it cannot read.
  - Weak references, and those into other databases, may lead nowhere, as in ZODB. Older revisions and the content of objects are not judged.
  - The living databases are not read. Copies need as much space as M(confops.indico.backup_drill), and never lie in the scratch directory together with its.
  - Fails when there is a problem, or more dangling references than are allowed; all that was found is returned then, too.
author:
  - confops developers (@confops)
options:
  settings:
    description: File on the host that role P(confops.indico.backup#role) writes.
    type: path
    default: /opt/indico/etc/backup.json
  allow_dangling:
    description: So many dangling references, in all storages together, are a warning and no failure. A database that lived long may have some.
    type: int
    default: 0
attributes:
  check_mode:
    support: full
    description: Says which set would be restored, how much space that needs and how much there is.
  diff_mode:
    support: none
    description: Changes nothing.
  idempotent:
    support: full
    description: It never reports a change.
"""

EXAMPLES = r"""
- name: Check what the newest backup holds, where three dangling references are known
  confops.indico.database_check:
    allow_dangling: 3
"""

RETURN = r"""
line:
  description: All of it in one line.
  returned: always
  type: str
  sample: "check done in 3.1 s: set 2026-11-24-01-30-00 restored: main to 2026-11-23T22:11:02Z with 4021 objects in 211 transactions; no problem"
set:
  description: Stamp (UTC) of the set.
  returned: always
  type: str
  sample: 2026-11-24-01-30-00
storages:
  description:
    - Of each storage its C(name), C(bytes), and C(tid) and C(time) of its newest transaction.
    - Not in check mode the numbers of C(transactions), C(records) and C(objects), of the C(problems_found) and the C(dangling_found),
      the first 100 of both, the C(seconds) that the check took without the restore, and C(memory_bytes), the most that it used.
    - "Of C(problems) the C(position) in the file (bytes, null when it is not known) and the C(problem).
      After one of C(fstest), which ends there, objects are not read."
    - "Of C(dangling) references the C(oid) and C(class) of the object that is not there, the C(reason), who refers to it (C(from_oid), C(from_class)),
      and C(tid) and C(time) of the transaction that wrote that. A class that is not told is C(unknown)."
  returned: always
  type: list
  elements: dict
  sample:
    - name: main
      bytes: 4021331
      tid: 03f1a2b3c4d5e6f7
      time: "2026-11-23T22:11:02Z"
      transactions: 211
      records: 9120
      objects: 4021
      problems_found: 0
      problems: []
      dangling_found: 1
      dangling:
        - oid: "0x1f2"
          class: MaKaC.user.Group
          reason: it does not exist
          from_oid: "0x11"
          from_class: BTrees.OOBTree.OOBTree
          tid: 03f1a2b3c4d5e6f7
          time: "2026-11-23T22:11:02Z"
      seconds: 1.9
      memory_bytes: 31457280
needed_bytes:
  description: Bytes that the scratch directory takes.
  returned: always
  type: int
  sample: 5069907
free_bytes:
  description: Bytes that its file system has free.
  returned: always
  type: int
  sample: 81604378624
seconds:
  description: How long all of it took.
  returned: always
  type: float
  sample: 3.1
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _backup_set, _database_check, _numbers, _repository


def main() -> None:
    module = AnsibleModule(
        argument_spec={"settings": {"type": "path", "default": "/opt/indico/etc/backup.json"}, "allow_dangling": {"type": _numbers.COUNT, "default": 0}},
        supports_check_mode=True,
    )
    _database_check.end_in_order()
    try:
        settings = _backup_set.read_settings(module.params["settings"])
        done = _database_check.run(settings, allow_dangling=module.params["allow_dangling"], check=module.check_mode)
    except _repository.RepositoryError as error:
        module.fail_json(msg=str(error))
    result = asdict(done)
    for warning in result.pop("warnings"):
        module.warn(warning)
    problem = result.pop("problem")
    if problem:
        module.fail_json(msg=problem, line=done.line(), **result)
    module.exit_json(changed=False, line=done.line(), **result)


if __name__ == "__main__":
    main()
