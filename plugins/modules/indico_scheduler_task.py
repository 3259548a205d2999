#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: indico_scheduler_task
short_description: Periodic tasks of Indico's scheduler as declared state
version_added: 0.1.0
description:
  - Sees to it that each declared task is there once with the declared rule, or not at all, in one transaction. Others are left alone.
  - A task is known by its class and, where it is for one, its category. Of several that are alike one stays.
  - One with another rule or other arguments is replaced.
  - Indico 1.2.2 reckons in UTC. What a rule leaves open begins at the first minute, hour, weekday or day of the month.
  - The daemon need not run; it finds what was declared when it starts.
author:
  - confops developers (@confops)
options:
  tasks:
    description: The tasks.
    type: list
    elements: dict
    required: true
    suboptions:
      task:
        description:
          - V(janitor) removes old offline sites and what C(CategoryCleanup) names, V(category_statistics) counts, V(suggestions) wants Redis,
            V(room_reservations) sends reminders, V(livesync) feeds all active agents, V(outlook) tells calendars.
          - Or the dotted path of any other periodic class.
        type: str
        required: true
      category:
        description: Id of the category that the task is for; V(0) is the home of all. Only V(category_statistics) of Indico's own takes one.
        type: str
      frequency:
        description: How often.
        type: str
        choices: [monthly, weekly, daily, hourly, minutely]
        default: daily
      interval:
        description: Only every so many times.
        type: int
        default: 1
      minutes:
        description: Minutes of the hour.
        type: list
        elements: int
        default: []
      hours:
        description: Hours of the day, UTC.
        type: list
        elements: int
        default: []
      weekdays:
        description: Days of the week.
        type: list
        elements: str
        choices: [mon, tue, wed, thu, fri, sat, sun]
        default: []
      month_days:
        description: Days of the month.
        type: list
        elements: int
        default: []
      arguments:
        description: What else the class takes, by name.
        type: dict
        default: {}
      state:
        description: Whether the task shall be there.
        type: str
        choices: [present, absent]
        default: present
extends_documentation_fragment: confops.indico.release
attributes:
  check_mode:
    support: full
    description: Decides with the code that the run uses and writes nothing. On a host without a release, or with its database stopped, it says so.
  diff_mode:
    support: full
    description: Each rule before and after.
  idempotent:
    support: full
    description: A second run writes no transaction.
"""

EXAMPLES = r"""
- name: What every site wants
  confops.indico.indico_scheduler_task:
    tasks:
      - task: janitor
        hours: [2]
      - task: category_statistics
        category: "0"
        hours: [6]

- name: A task of one's own every quarter of an hour, and none of the suggestions
  confops.indico.indico_scheduler_task:
    tasks:
      - task: example.tasks.MirrorTask
        frequency: minutely
        interval: 15
        arguments:
          target: archive
      - task: suggestions
        state: absent
"""

RETURN = r"""
steps:
  description: What differed, one line each.
  type: list
  elements: str
  returned: success
  sample: ["JanitorTask: absent -> daily at 02:00 UTC"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _indico, _scheduler


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "tasks": {"type": "list", "elements": "dict", "required": True, "options": _scheduler.TASK_OPTIONS},
            **_indico.OPTIONS,
        },
        supports_check_mode=True,
    )
    tasks = module.params["tasks"]
    wrong = _scheduler.problems(tasks)
    if wrong:
        module.fail_json(msg="\n".join(f"tasks{sentence}" for sentence in wrong))
    steps = _indico.ask(module, _scheduler.DECLARE, "Which tasks the scheduler has", _scheduler.declaration(tasks))["steps"]
    module.exit_json(changed=bool(steps), steps=steps, diff=_indico.diff(steps, "scheduler"))


if __name__ == "__main__":
    main()
