#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: database_growth
short_description: What made a database grow
version_added: 0.1.0
description:
  - Adds up the newest transactions of a FileStorage (C(Data.fs)) by class, by request, by day, and names the largest ones.
  - Reads the file only, of a server that runs or a copy, and stops at the last transaction that is whole when it begins. ZODB and Indico are not needed.
  - Indico 1.2.2 gives its transactions neither a user nor a description, so all that the site's pages did is one request; the modules of this collection
    and scripts name theirs. The time of a large transaction leads to the page, in the web server's log.
  - Bytes are those of the file. A pack frees those of older revisions and of objects that nothing refers to any more.
author:
  - confops developers (@confops)
options:
  paths:
    description: The databases.
    type: list
    elements: path
    required: true
  since:
    description: Where the window begins, as ISO 8601 with a zone, or a day, which begins at midnight UTC.
    type: str
  days:
    description: How many days before now the window begins, unless O(since) says it.
    type: float
    default: 7
  top:
    description: How many entries the lists have at most.
    type: int
    default: 10
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
- name: Ask what the main database grew by since Monday
  confops.indico.database_growth:
    paths: [/opt/indico/db/main/Data.fs]
    since: "2026-11-23"
"""

RETURN = r"""
summary:
  description: All of it for people, a line for each thing.
  returned: success
  type: list
  elements: str
  sample: ["/opt/indico/db/main/Data.fs: 2.11 MB in 103 transactions since 2026-11-17T02:00:00Z, 12.4 % of 17.00 MB"]
databases:
  description:
    - "Of each file its C(path), how large it is (C(file_bytes)), and what the window since C(since) holds: C(bytes), C(transactions), C(records) of objects.
      Records are C(new) objects, objects C(revised), changes C(undone), or C(packed), which a pack has rewritten, so that it is not known what they were."
    - "C(days), all of them (UTC), with C(transactions), C(records) and C(bytes)."
    - "C(classes), the largest first: C(class), C(bytes), and the same kinds of records."
    - "C(requests), the largest first: the transactions of one C(user) and C(description), their number, C(records) and C(bytes)."
    - "C(largest) transactions: C(tid), C(time), C(user), C(description), C(records), C(bytes)."
    - "C(revised_most) objects: C(oid), C(class), C(revisions) that replaced an earlier one, and their C(bytes)."
    - "C(distinct) numbers of C(classes), C(requests) and C(revised_objects), of which the lists hold the first O(top). And the C(seconds) that reading took."
  returned: success
  type: list
  elements: dict
  sample:
    - path: /opt/indico/db/main/Data.fs
      file_bytes: 17000000
      since: "2026-11-17T02:00:00Z"
      bytes: 2110000
      transactions: 103
      records: 2410
      new: 610
      revised: 1800
      undone: 0
      packed: 0
      days: [{day: "2026-11-18", transactions: 103, records: 2410, bytes: 2110000}]
      classes: [{class: BTrees.OOBTree.OOBucket, bytes: 900000, records: 700, new: 20, revised: 680, undone: 0, packed: 0}]
      requests: [{user: "", description: "", transactions: 102, records: 2357, bytes: 2096700}]
      largest: [{tid: 03f1a2b3c4d5e6f7, time: "2026-11-18T09:11:02Z", user: "", description: "", records: 90, bytes: 120000}]
      revised_most: [{oid: "0x12", class: BTrees.OOBTree.OOBucket, revisions: 100, bytes: 300000}]
      distinct: {classes: 31, requests: 2, revised_objects: 500}
      seconds: 0.1
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _filestorage, _growth, _history, _numbers, _repository


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "required": True},
            "since": {"type": "str"},
            "days": {"type": _numbers.DAYS, "default": 7},
            "top": {"type": _numbers.COUNT, "default": 10},
        },
        supports_check_mode=True,
    )
    given = module.params
    if given["top"] < 1 or not given["days"] > 0:
        module.fail_json(msg=f"top is {given['top']} and days is {given['days']:g}; top must be at least 1, and days more than 0.")
    try:
        since = _history.moment_of(given["since"], end=False) if given["since"] else _growth.since_days(given["days"], time.time())
        found = [_growth.growth(path, since, top=given["top"]) for path in given["paths"]]
    except OSError as error:
        module.fail_json(msg=f"{error.filename} cannot be read: {error.strerror}.")
    except (_filestorage.FileStorageError, _repository.RepositoryError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, summary=[line for one in found for line in _growth.summary(one)], databases=found)


if __name__ == "__main__":
    main()
