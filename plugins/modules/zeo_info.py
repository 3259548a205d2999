#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: zeo_info
short_description: What ZEO servers do
version_added: 0.1.0
description:
  - Asks each server for the figures that the monitor port (C(monitor-address)) of older servers gave, and for the newest transaction.
  - Works with servers of ZODB 3.10 (ZODB3), ZEO 5 and ZEO 6. O(python) must have a ZEO that speaks the server's protocol.
  - A server that does not answer is a result, not a failure. Its error says why.
author:
  - confops developers (@confops)
options:
  python:
    description: An interpreter on the host that has ZEO. It runs as C(nobody), or as the owner of the socket, when the module runs as root.
    type: path
    default: /opt/indico/zeo/bin/python
  settings:
    description: A file on the host that names the servers, with their logins, in the place of O(servers). Role C(zeo) writes C(etc/zeo.json).
    type: path
  servers:
    description: Whom to ask.
    type: list
    elements: dict
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
  time_limit:
    description: Seconds for each server.
    type: float
    default: 10
  lock_seconds:
    description: From how many seconds on it is a problem that one transaction holds the commit lock. 0 asks nothing.
    type: float
    default: 30
  waiting:
    description: From how many transactions on it is a problem that they wait for the commit lock. 0 asks nothing.
    type: float
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
- name: Ask both servers of a site
  confops.indico.zeo_info:
    servers:
      - name: main
        address: 127.0.0.1:9675
      - name: rooms
        address: 127.0.0.1:9676
  register: zeo

- name: Stop here when one has a problem
  ansible.builtin.assert:
    that: not zeo.problems
    fail_msg: "{{ zeo.problems | join(' ') }}"
"""

RETURN = r"""
servers:
  description:
    - Each server. C(error) is a sentence when it does not answer, and nothing else is known of it then.
    - C(clients) does not count the connection that asks. C(lock_held_seconds) is 0 when no transaction holds the commit lock.
    - C(started) is right when the server's host is in this one's time zone. C(timeout_thread_alive) is null where transactions have no time limit.
    - C(verifying_clients) is null from ZEO 5 on. The numbers from C(commits) to C(stores) count since the start.
  returned: success
  type: list
  elements: dict
  sample:
    - name: main
      address: 127.0.0.1:9675
      storage: "1"
      error:
      protocol: Z3101
      read_only: false
      started: "2026-11-26T03:00:00Z"
      clients: 3
      verifying_clients: 0
      active_transactions: 0
      waiting_transactions: 0
      lock_held_seconds: 0.0
      timeout_thread_alive: true
      commits: 1204
      aborts: 3
      conflicts: 7
      conflicts_resolved: 2
      loads: 88211
      stores: 10423
      bytes: 94371840
      objects: 40213
      last_transaction: {tid: 03f9d0a41c3b5d55, time: "2026-11-26T03:12:05Z"}
problems:
  description: A sentence for each thing that is wrong, the worst first.
  returned: success
  type: list
  elements: str
  sample: ["rooms: The ZEO server at 127.0.0.1:9676 refuses connections: it does not run, or listens elsewhere."]
summary:
  description: All of it in one line.
  returned: success
  type: str
  sample: main 3 clients, 94371840 bytes, to 2026-11-26T03:12:05Z; rooms does not answer
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _numbers, _zeo, _zeo_info

SERVER = {
    "name": {"type": "str"},
    "address": {"type": "str", "required": True},
    "storage": {"type": "str", "default": "1"},
    "username": {"type": "str", "default": ""},
    "password": {"type": "str", "default": "", "no_log": True},
    "realm": {"type": "str", "default": ""},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "python": {"type": "path", "default": "/opt/indico/zeo/bin/python"},
            "settings": {"type": "path"},
            "servers": {"type": "list", "elements": "dict", "options": SERVER},
            "time_limit": {"type": _numbers.SECONDS, "default": 10.0},
            "lock_seconds": {"type": _numbers.SECONDS, "default": 30.0},
            "waiting": {"type": _numbers.real(), "default": 10.0},
        },
        required_one_of=[("settings", "servers")],
        mutually_exclusive=[("settings", "servers")],
        supports_check_mode=True,
    )
    options = module.params
    given = options["servers"] or []
    servers = {one["name"] or one["address"]: _zeo.Server(one["address"], one["storage"], one["username"], one["password"], one["realm"]) for one in given}
    if len(servers) < len(given):
        module.fail_json(msg="Each of `servers` must have a name of its own.")
    if options["settings"]:
        try:
            settings = _zeo.read_settings(options["settings"])
        except _zeo.ZeoError as error:
            module.exit_json(changed=False, servers=[], problems=[str(error)], summary=_zeo_info.summary([]))
        options["python"], servers = settings.python, settings.servers
    found = _zeo_info.info(options["python"], servers, time_limit=options["time_limit"])
    limits = _zeo_info.Limits(lock_warning_seconds=options["lock_seconds"], lock_critical_seconds=0, waiting=options["waiting"])
    module.exit_json(changed=False, servers=found, problems=_zeo_info.problems(found, limits), summary=_zeo_info.summary(found))


if __name__ == "__main__":
    main()
