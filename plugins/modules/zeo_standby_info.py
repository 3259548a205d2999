#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: zeo_standby_info
short_description: Which host is the primary, and what this one holds
version_added: 0.1.0
description:
  - Reads the claim that a failover left on a database host, and the newest transaction of each of its databases, from the files, whether servers run or not.
  - C(site.yml) follows the newest claim of both hosts; the playbooks C(failover.yml) and C(failback.yml) compare what they hold.
author:
  - confops developers (@confops)
options:
  prefix:
    description: Directory of the instance.
    type: path
    default: /opt/indico
  storages:
    description: Names of the storages to look at.
    type: list
    elements: str
    default: []
  contains:
    description: Ids of transactions (16 hexadecimal digits) by storage, each looked for in the file of that storage, unless it is empty.
    type: dict
    default: {}
  wait:
    description: Seconds to wait until the files hold what O(contains) names.
    type: float
    default: 0
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It changes nothing.
  idempotent:
    support: full
    description: It changes nothing.
"""

EXAMPLES = r"""
- name: What this host holds
  confops.indico.zeo_standby_info:
    storages: [main, rooms]
  register: here

- name: Whether it has the other one's newest transaction
  confops.indico.zeo_standby_info:
    storages: [main]
    contains:
      main: 03f9d0a41c3b5d55
"""

RETURN = r"""
claim:
  description: Who is the primary, as this host knows it. Generation 0 when no one was ever declared.
  type: dict
  returned: success
  sample: {generation: 2, primary: db2, since: "2026-11-26T03:12:09Z"}
databases:
  description: Each storage, with its newest transaction, or null in its place when it has none; known and behind are null when nothing was looked for.
  type: list
  elements: dict
  returned: success
  sample:
    - name: main
      path: /opt/indico/db/main/Data.fs
      bytes: 1048576
      last_transaction: {tid: 03f9d0a41c3b5d55, time: "2026-11-26T03:12:05Z", user: "", description: /event/create}
      known: true
      behind: false
      error:
behind:
  description: The storages that end before what O(contains) names, or that cannot be read.
  type: list
  elements: str
  returned: success
  sample: []
incomplete:
  description:
    - The storages of a standby that may lack more than the last moments, as one that is being filled.
    - A host notes each minute whether it is level with its primary; a primary notes nothing, so this says nothing of one.
  type: list
  elements: str
  returned: success
  sample: []
missing:
  description: The storages that lack what O(contains) names, when O(wait) had passed.
  type: list
  elements: str
  returned: success
  sample: []
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _numbers, _zeo_standby


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "default": "/opt/indico"},
            "storages": {"type": "list", "elements": "str", "default": []},
            "contains": {"type": "dict", "default": {}},
            "wait": {"type": _numbers.SECONDS, "default": 0.0},
        },
        supports_check_mode=True,
    )
    prefix, contains = module.params["prefix"], module.params["contains"]
    deadline = time.monotonic() + module.params["wait"]
    try:
        claim = _zeo_standby.read_claim(os.path.join(prefix, "etc", _zeo_standby.CLAIM))
        following = _zeo_standby.read_following(os.path.join(prefix, "db", _zeo_standby.FOLLOWING))
    except _zeo_standby.StandbyError as error:
        module.fail_json(msg=str(error))
    while True:
        found = _zeo_standby.databases(prefix, sorted({*module.params["storages"], *contains}), contains)
        missing = [one["name"] for one in found if one["known"] is False or (one["error"] and contains.get(one["name"]))]
        if not missing or time.monotonic() >= deadline:
            break
        time.sleep(0.2)
    behind = [one["name"] for one in found if one["behind"]]
    module.exit_json(changed=False, claim=claim.data(), databases=found, missing=missing, behind=behind, incomplete=_zeo_standby.incomplete(found, following))


if __name__ == "__main__":
    main()
