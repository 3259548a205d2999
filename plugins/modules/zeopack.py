#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: zeopack
short_description: Pack storages through their ZEO servers, and say what came of it
version_added: 0.1.0
description:
  - A pack removes what no longer counts - superseded revisions of objects, and objects that nothing refers to - from before a moment.
  - Works with servers of ZODB 3.10 (ZODB3), ZEO 5 and ZEO 6. O(python) must have a ZEO that speaks the server's protocol.
  - ZODB's own C(zeopack) ends well whatever happens. Here a server that does not answer, a storage that it does not have, a user or password that it refuses,
    a full disk and a pack that runs already are failures with a sentence each, within O(time_limit).
  - Passwords reach ZEO on its standard input. No process list shows them.
author:
  - confops developers (@confops)
options:
  python:
    description: An interpreter on the host that has ZEO. It runs as C(nobody), or as the owner of the socket or the database, when the module runs as root.
    type: path
    default: /opt/indico/zeo/bin/python
  servers:
    description: What to pack, one after the other. When one fails, the others are packed all the same, and the module fails at the end.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What results call it. The address when it is not set.
        type: str
      address:
        description: C(host:port), or the absolute path of a socket.
        type: str
        required: true
      storage:
        description: The storage's name in the server.
        type: str
        default: "1"
      username:
        description: A user, when the server asks for one (C(authentication-protocol digest), before ZEO 5).
        type: str
        default: ""
      password:
        description: The user's password.
        type: str
        default: ""
      realm:
        description: The realm of the server's users (C(authentication-realm)).
        type: str
        default: ""
      database:
        description:
          - Path of the Data.fs, when it lies on this host. What a pack did is seen from the file then, and what it would do can be predicted.
          - Without it the sizes are those that the server tells. Where more was written during the pack than it gave back, it looks like nothing then.
        type: path
  days:
    description: Pack up to so many days ago. What was valid then stays, so that everything since can be undone. 0 keeps only what is valid now.
    type: float
    default: 0
  time_limit:
    description: Seconds for each storage. A server that packs when they have passed goes on by itself.
    type: float
    default: 3600
  keep_old:
    description:
      - Whether the former file stays as C(Data.fs.old), which takes as much room as it had. Only where O(servers[].database) is set.
      - A server with C(pack-keep-old false) never keeps it. A server on another host does as its own configuration says.
      - When there is nothing to pack, a C(Data.fs.old) of an earlier pack stays in either case.
    type: bool
    default: true
attributes:
  check_mode:
    support: partial
    description: Connects to each server, then asks ZODB's own code, which reads the file, whether a pack would do anything. So does the run.
    details:
      - Fails for a server without O(servers[].database).
      - Bytes are a lower bound. Garbage, objects that nothing refers to, is looked for only when there is nothing else to pack.
  diff_mode:
    support: none
    description: A pack changes nothing that can be read.
  idempotent:
    support: partial
    description: A second run finds nothing to pack and changes nothing.
    details: O(days) are counted from now, so what was superseded between the two runs is packed.
"""

EXAMPLES = r"""
- name: Pack both databases of a site, and keep what was valid a week ago
  confops.indico.zeopack:
    servers:
      - name: main
        address: 127.0.0.1:9675
        database: /opt/indico/db/main/Data.fs
      - name: rooms
        address: 127.0.0.1:9676
        database: /opt/indico/db/rooms/Data.fs
    days: 7

- name: Pack a storage of another host, with a password
  confops.indico.zeopack:
    python: /opt/zeo5/bin/python
    servers:
      - address: db1.example.org:9675
        username: indico
        password: "{{ vault_zeo_password }}"
        realm: indico
    time_limit: 600
"""

RETURN = r"""
storages:
  description:
    - Each server with its RV(storages[].result), V(packed), V(nothing) or V(failed), and RV(storages[].error), a sentence when it failed.
    - In check mode C(reclaimed_bytes) is what a pack would give back at least.
  returned: always
  type: list
  elements: dict
  sample:
    - name: main
      address: 127.0.0.1:9675
      storage: "1"
      result: packed
      bytes_before: 536870912
      bytes_after: 94371840
      reclaimed_bytes: 442499072
      seconds: 31.207
      packed_to: "2026-11-19T03:00:00Z"
      error:
  contains:
    name:
      description: What the task calls it.
      type: str
    address:
      description: Where the server was asked.
      type: str
    storage:
      description: The storage's name in the server.
      type: str
    result:
      description: What came of it.
      type: str
    bytes_before:
      description: Size of the file when the packed one took its place.
      type: int
    bytes_after:
      description: Size of the packed file.
      type: int
    reclaimed_bytes:
      description: The difference.
      type: int
    seconds:
      description: How long it took.
      type: float
    packed_to:
      description: The moment (UTC) before which nothing superseded is left.
      type: str
    error:
      description: Why it failed.
      type: str
"""

import dataclasses
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _numbers, _zeo, _zeopack

SERVER = {
    "name": {"type": "str"},
    "address": {"type": "str", "required": True},
    "storage": {"type": "str", "default": "1"},
    "username": {"type": "str", "default": ""},
    "password": {"type": "str", "default": "", "no_log": True},
    "realm": {"type": "str", "default": ""},
    "database": {"type": "path"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "python": {"type": "path", "default": "/opt/indico/zeo/bin/python"},
            "servers": {"type": "list", "elements": "dict", "required": True, "options": SERVER},
            "days": {"type": _numbers.DAYS, "default": 0.0},
            "time_limit": {"type": _numbers.SECONDS, "default": 3600.0},
            "keep_old": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    if module.params["days"] < 0 or module.params["time_limit"] <= 0:
        module.fail_json(msg="`days` must not be negative, and `time_limit` must be more than 0.", storages=[])
    storages = [_pack(module, one) for one in module.params["servers"]]
    failed = [one["error"] for one in storages if one["error"]]
    changed = any(one["result"] == "packed" for one in storages)
    if failed:
        module.fail_json(msg=" ".join(failed), storages=storages, changed=changed)
    module.exit_json(changed=changed, storages=storages)


def _pack(module: AnsibleModule, one: dict[str, Any]) -> dict[str, Any]:
    """Pack one of the servers, and return what results show of it."""
    options, began = module.params, time.monotonic()
    server = _zeo.Server(one["address"], one["storage"], one["username"], one["password"], one["realm"])
    found: dict[str, Any] = {"name": one["name"] or one["address"], "address": one["address"], "storage": one["storage"], "error": None}
    try:
        done = _zeopack.pack(
            options["python"],
            server,
            database=one["database"],
            days=options["days"],
            time_limit=options["time_limit"],
            keep_old=options["keep_old"],
            check=module.check_mode,
        )
    except _zeo.ZeoError as error:
        return {**found, "result": "failed", "error": str(error), "seconds": round(time.monotonic() - began, 3)}
    told = dataclasses.asdict(done)
    del told["predicted"]
    return {**found, **told}


if __name__ == "__main__":
    main()
