#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: indico_scheduler_info
short_description: Whether Indico's scheduler runs, its tasks, and why some failed
version_added: 0.1.0
description:
  - Reads the scheduler's state, which lives in the database, and looks whether the process that it names is there.
  - Why a task failed only C(scheduler.log) says; its end is searched for that.
  - What is not as it should be is listed in RV(problems). The module itself fails only when it cannot look.
author:
  - confops developers (@confops)
options:
  log:
    description: Path of C(scheduler.log).
    type: path
    default: /opt/indico/log/indico/scheduler.log
  finished:
    description: Whether to list what has finished, too. It is counted in any case.
    type: bool
    default: false
  limit:
    description: How many entries of what failed, and of what finished, are listed; the newest.
    type: int
    default: 1000
extends_documentation_fragment: confops.indico.release
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
- name: Look at the scheduler
  confops.indico.indico_scheduler_info:
  register: scheduler

- name: Say what failed
  ansible.builtin.debug:
    msg: "{{ scheduler.tasks | selectattr('state', 'eq', 'failed') | map(attribute='error') }}"
"""

RETURN = r"""
daemon:
  description: >-
    What the database says of the daemon (C(running), C(host), C(pid)), whether that is this host (C(here)), and whether its process is there
    (C(alive), null where this host cannot tell).
  returned: success
  type: dict
  sample: {running: true, host: conf1.example.org, pid: 812, here: true, alive: true}
counts:
  description: How many tasks there are of each state.
  returned: success
  type: dict
  sample: {spooled: 0, waiting: 2, running: 0, failed: 0, finished: 87622}
overdue:
  description: How many seconds the first waiting task is past its time.
  returned: success
  type: int
  sample: 0
tasks:
  description: >-
    Each task, with its number (null while it is spooled), C(state), rule, and moments in UTC; of one that failed, why (C(error), null when the log
    has it no more).
  returned: success
  type: list
  elements: dict
  sample:
    - number: 0
      name: JanitorTask
      class: indico.modules.scheduler.tasks.janitor.JanitorTask
      state: waiting
      rule: daily at 02:00 UTC
      next: "2026-11-28T02:00:00Z"
      started: null
      ended: null
      error: null
here:
  description: The full name by which Indico knows this host.
  returned: success
  type: str
  sample: conf1.example.org
problems:
  description: A sentence for each thing that is not as it should be. Empty when all is well.
  returned: success
  type: list
  elements: str
  sample: ["No scheduler runs, as the database has it."]
summary:
  description: The same for people, a line for each thing.
  returned: success
  type: list
  elements: str
  sample: ["the scheduler runs on conf1.example.org as process 812; 0 spooled, 2 waiting, 0 running, 0 failed, 87622 finished"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _indico, _numbers, _scheduler


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "log": {"type": "path", "default": "/opt/indico/log/indico/scheduler.log"},
            "finished": {"type": "bool", "default": False},
            "limit": {"type": _numbers.COUNT, "default": 1000},
            **_indico.OPTIONS,
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        found = _scheduler.info(options["current"], options["user"], options["log"], finished=options["finished"], limit=options["limit"])
    except _indico.IndicoError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, summary=_scheduler.summary(found), **found)


if __name__ == "__main__":
    main()
