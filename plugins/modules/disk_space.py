#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: disk_space
short_description: How full the file systems of an instance are, and when they will be full
version_added: 0.1.0
description:
  - Measures each file system that holds one of the given paths, once, whatever number of them it holds.
  - Remembers how much was in use, at most once in six hours and for eight weeks, and derives from it the pace and the day on which a file system is full.
    The pace is a robust one (Theil and Sen), without the one step of somebody who made room. With less than three days of the past there is none.
  - What is wrong is listed in RV(problems). The module itself fails only when it cannot look.
author:
  - confops developers (@confops)
options:
  paths:
    description: Directories, by what people call them. For one that does not exist its file system is the one that would hold it.
    type: dict
    required: true
  state_file:
    description: File that remembers. One that is damaged is put aside, and that it cannot be written is a warning.
    type: path
    required: true
  warning_percent:
    description: From which use of space or inodes on it is a warning.
    type: float
    default: 85
  critical_percent:
    description: From which use of space or inodes on it is critical.
    type: float
    default: 95
  warning_days:
    description: It is also a warning when a file system is full within so many days at the present pace. V(0) asks nothing.
    type: float
    default: 14
  window_days:
    description: How many days back the pace is looked for.
    type: float
    default: 28
attributes:
  check_mode:
    support: full
    description: Measures and judges in the same way, and remembers nothing.
  diff_mode:
    support: none
    description: Only the file that remembers changes.
  idempotent:
    support: partial
    description: A run more than six hours after the last remembered one remembers it.
"""

EXAMPLES = r"""
- name: Look at the disks
  confops.indico.disk_space:
    paths:
      the instance: /opt/indico
      the database: /opt/indico/db/main
      backups: /var/backups/indico
    state_file: /var/lib/indico-disk_space.json
"""

RETURN = r"""
problems:
  description: A sentence for each thing that is wrong, the worst first.
  returned: success
  type: list
  elements: str
  sample: ["/ is 91.2 % full, 12.30 GB free; at the pace of the last 21 days it is full in 9 days."]
summary:
  description: All of it for people, a line for each file system.
  returned: success
  type: list
  elements: str
  sample: ["/ is 40.2 % full, 112.30 GB free; at the pace of the last 21 days it is not full within a year (the instance, backups)"]
code:
  description: Exit code for monitoring, V(0) when all is well, V(1) for a warning, V(2) for what is critical.
  returned: success
  type: int
  sample: 0
line:
  description: Line for monitoring.
  returned: success
  type: str
  sample: "OK: / is 40.2 % full, 112.30 GB free"
file_systems:
  description:
    - "Of each file system its C(mountpoint), the names of the paths that it C(holds), C(total_bytes), C(used_bytes), C(free_bytes) for other users than root,
      C(used_percent) as C(df) has it, C(inodes_total), C(inodes_free), C(inodes_percent), which are null where it has no such limit."
    - "C(pace_bytes) a day in the last C(pace_days), and C(full_in_days). They are null when too little is known, the last one also when it does not grow."
  returned: success
  type: list
  elements: dict
  sample:
    - mountpoint: /
      holds: [the instance, backups]
      total_bytes: 200000000000
      used_bytes: 80400000000
      free_bytes: 119600000000
      used_percent: 40.2
      inodes_total: 12000000
      inodes_free: 11000000
      inodes_percent: 8.3
      pace_bytes: 1000000
      pace_days: 21.0
      full_in_days: 119600.0
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _disk_space, _numbers


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "dict", "required": True},
            "state_file": {"type": "path", "required": True},
            "warning_percent": {"type": _numbers.PERCENT, "default": 85},
            "critical_percent": {"type": _numbers.PERCENT, "default": 95},
            "warning_days": {"type": _numbers.DAYS, "default": 14},
            "window_days": {"type": _numbers.DAYS, "default": 28},
        },
        supports_check_mode=True,
    )
    given = module.params
    limits = _disk_space.Limits(given["warning_percent"], given["critical_percent"], given["warning_days"])
    try:
        _disk_space.refuse(given["paths"], limits, given["window_days"])
        seen = _disk_space.look(given["paths"], given["state_file"], window_days=given["window_days"], act=not module.check_mode)
    except ValueError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename} cannot be looked at: {error.strerror}.")
    for warning in seen["warnings"]:
        module.warn(warning)
    found = seen["file_systems"]
    code, line = _disk_space.judge(found, limits)
    module.exit_json(
        changed=seen["recorded"],
        file_systems=found,
        problems=_disk_space.problems(found, limits),
        summary=_disk_space.summary(found),
        code=code,
        line=line,
    )


if __name__ == "__main__":
    main()
