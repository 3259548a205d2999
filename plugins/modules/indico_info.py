#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: indico_info
short_description: What runs on a host of an instance, in which versions, and how large it is
version_added: 0.1.0
description:
  - Looks at the releases, units, databases, directories and the home page of an instance, on the host itself and without ZODB.
  - What is not as it should be on a host that serves is listed in RV(problems). The module itself fails only when it cannot look.
author:
  - confops developers (@confops)
options:
  prefix:
    description: Directory that holds everything of the instance.
    type: path
    default: /opt/indico
  units:
    description: The units that this host shall run.
    type: list
    elements: str
    default: []
  storages:
    description: The storages whose databases lie on this host.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the storage.
        type: str
        required: true
      port:
        description: TCP port that its ZEO server listens on.
        type: int
        required: true
      replication_port:
        description: TCP port that the standby follows the primary at; it is not asked.
        type: int
  url:
    description: Address of the home page as this host reaches it. Left out, no page is asked for.
    type: str
  public_url:
    description: Address of the home page as browsers see it, which the request names. Default is O(url).
    type: str
  timeout:
    description: Seconds to wait for the page.
    type: float
    default: 30
  measure:
    description: Whether to add up what lies on disk. That walks through every stored file.
    type: bool
    default: true
  jobs:
    description: The settings of the scheduled jobs on the host, which role C(cron) writes to C(etc/jobs.json). Left out, no job is asked for.
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
- name: Look at a host that does everything
  confops.indico.indico_info:
    units: [indico-zeo@main.service, indico-scheduler.service, apache2.service]
    storages:
      - name: main
        port: 9675
    url: https://127.0.0.1
    public_url: https://indico.example.org
  register: site
"""

RETURN = r"""
summary:
  description: The same for people, a line for each thing.
  returned: success
  type: list
  elements: str
  sample:
    - indico 1.2.2 in /opt/indico/releases/1.2.2-069b0b698e20
    - "indico-zeo@main.service: active, since 2026-11-24T19:19:15Z, 25.70 MB"
    - "storage main: 6.30 MB, port 9675, last transaction 2026-11-24T19:19:53Z"
problems:
  description: A sentence for each thing that is not as it should be. Empty when all is well.
  returned: success
  type: list
  elements: str
  sample: [apache2.service is failed (failed).]
releases:
  description: >-
    The application's release (C(current)) and the servers' (C(zeo)), those that exist here, with name, path and version. The application's also tells where it
    came from (C(source), C(commit), C(patches), C(extra_packages), C(built)) and, when a deployment brought it, who did that and when (C(deployed)).
  returned: success
  type: dict
  sample: {current: {name: 1.2.2-069b0b698e20, path: /opt/indico/releases/1.2.2-069b0b698e20, version: 1.2.2}}
deployment:
  description: Who is deploying or rolling back (who, where, began, action, release), null when nobody is.
  returned: success
  type: dict
  sample: null
packages:
  description: The Python packages of the application's release, or of the servers' where there is no other, and their versions.
  returned: success
  type: dict
  sample: {indico: 1.2.2, ZODB3: 3.10.5}
debian_packages:
  description: The Debian packages that the instance runs on, and their versions.
  returned: success
  type: dict
  sample: {python2.7: 2.7.18-8+deb11u1}
units:
  description: State of each unit. C(since) is UTC; C(memory_bytes) is null where systemd does not count it.
  returned: success
  type: list
  elements: dict
  sample: [{name: apache2.service, active: active, sub: running, enabled: true, since: "2026-11-24T19:19:28Z", pid: 812, restarts: 0, memory_bytes: null}]
storages:
  description: Each database, its size and its newest transaction (C(tid) in hexadecimal, C(time) in UTC), or why it cannot be read (C(error)).
  returned: success
  type: list
  elements: dict
  sample: [{name: main, port: 9675, path: /opt/indico/db/main/Data.fs, bytes: 6606028, last_transaction: null, error: null}]
page:
  description: What the home page answered, null when none was asked for.
  returned: success
  type: dict
  sample: {url: "https://127.0.0.1", status: 200, seconds: 0.112, error: null}
maintenance:
  description: Since when maintenance is on (UTC) and after how many seconds visitors are asked to come back, null when it is off.
  returned: success
  type: dict
  sample: null
jobs:
  description:
    - Each scheduled job of the host, how it ran last and when it runs next, as C(<instance>-jobs status --json) tells it.
    - What is wrong with one is in RV(problems), such as a unit that cannot start, a timer that is off, or a job that was due and did not run.
  returned: success
  type: list
  elements: dict
  sample: [{name: indico-backup, result: success, failures: 0, expected: timer, started_by: timer, load_state: loaded, idle: null}]
replaced:
  description: What restores and migrations put aside and nobody has removed, the oldest first. C(moment) is when that was (UTC).
  returned: success
  type: list
  elements: dict
  sample: [{path: /opt/indico/db/main/Data.fs.replaced-2026-11-24-19-20-11, bytes: 6606028, moment: "2026-11-24T19:20:11Z", age_days: 3.4}]
sizes:
  description: Bytes on disk below each directory of the instance.
  returned: success
  type: dict
  sample: {archive: 2306867, cache: 2726297, db: 6606028}
file_system:
  description: Bytes of the file system that holds the instance.
  returned: success
  type: dict
  sample: {total_bytes: 270582939648, free_bytes: 85899345920}
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _info, _jobs, _numbers, _repository, _units


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "default": "/opt/indico"},
            "units": {"type": "list", "elements": "str", "default": []},
            "storages": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "port": {"type": _numbers.PORT, "required": True},
                    "replication_port": {"type": _numbers.PORT},
                },
            },
            "url": {"type": "str"},
            "public_url": {"type": "str"},
            "timeout": {"type": _numbers.SECONDS, "default": 30},
            "measure": {"type": "bool", "default": True},
            "jobs": {"type": "path"},
        },
        supports_check_mode=True,
    )
    settings = module.params.pop("jobs")
    try:
        info = _info.look(**module.params)
    except (_units.UnitError, OSError) as error:
        module.fail_json(msg=_repository.told(error))
    jobs, problems = _jobs_of(settings) if settings else ([], [])
    module.exit_json(changed=False, summary=_info.summary(info), problems=_info.problems(info) + problems, jobs=jobs, **info)


def _jobs_of(path: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the host's jobs, and a sentence for each thing that is wrong with them."""
    now = time.time()
    try:
        jobs = _jobs.table(_jobs.read_settings(path), now)
    except (_jobs.JobError, _units.UnitError, OSError) as error:
        return [], [f"Nobody knows whether the scheduled jobs run: {_repository.told(error)}"]
    return jobs, [text for _code, _name, text in _jobs.judge(jobs, now)]


if __name__ == "__main__":
    main()
