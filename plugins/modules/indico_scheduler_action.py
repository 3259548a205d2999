#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: indico_scheduler_action
short_description: Runs, requeues, deletes and forgets tasks of Indico's scheduler
version_added: 0.1.0
description:
  - What administrators did to single tasks in C(indico_shell), each in a transaction.
  - Indico 1.2.2 never forgets a task that finished; O(verb=purge) does.
author:
  - confops developers (@confops)
options:
  verb:
    description:
      - V(run) lets tasks that wait run at once; the daemon looks every ten seconds. A periodic task keeps its rule.
      - V(requeue) lets tasks that failed run again, all of them unless O(numbers) says which, and forgets the failures.
      - V(delete) removes tasks, wherever they are. One that runs comes to its end.
      - V(purge) forgets what finished longer than O(days) days ago.
    type: str
    choices: [run, requeue, delete, purge]
    required: true
  numbers:
    description: Numbers of tasks, as M(confops.indico.indico_scheduler_info) has them.
    type: list
    elements: int
    default: []
  days:
    description: For O(verb=purge), what is younger stays.
    type: float
    default: 30
  failures:
    description: For O(verb=purge), whether to forget what failed as well.
    type: bool
    default: false
extends_documentation_fragment: confops.indico.release
attributes:
  check_mode:
    support: full
    description: Decides with the code that the run uses and writes nothing.
  diff_mode:
    support: full
    description: Lists the steps.
  idempotent:
    support: partial
    description: V(purge), V(delete) and V(requeue) find nothing the second time; V(run) moves the time of the task again.
"""

EXAMPLES = r"""
- name: Let the janitor run now
  confops.indico.indico_scheduler_action:
    verb: run
    numbers: [0]

- name: Give everything that failed another chance
  confops.indico.indico_scheduler_action:
    verb: requeue

- name: Forget what finished before last month
  confops.indico.indico_scheduler_action:
    verb: purge
    days: 30
"""

RETURN = r"""
steps:
  description: What was done, one line each.
  type: list
  elements: str
  returned: success
  sample: ["JanitorTask (0): runs now"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _indico, _numbers, _scheduler


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "verb": {"type": "str", "choices": ["run", "requeue", "delete", "purge"], "required": True},
            "numbers": {"type": "list", "elements": _numbers.COUNT, "default": []},
            "days": {"type": _numbers.DAYS, "default": 30},
            "failures": {"type": "bool", "default": False},
            **_indico.OPTIONS,
        },
        required_if=[("verb", "run", ["numbers"]), ("verb", "delete", ["numbers"])],
        supports_check_mode=True,
    )
    options = module.params
    arguments = _scheduler.action(options["verb"], options["numbers"], days=options["days"], failures=options["failures"])
    steps: list[str] = []
    while True:
        result = _indico.ask(module, _scheduler.ACT, "What the scheduler has", arguments, timeout=600)
        steps += result["steps"]
        if not result.get("left"):
            break
    module.exit_json(changed=bool(steps), steps=steps, diff=_indico.diff(steps, "scheduler"))


if __name__ == "__main__":
    main()
