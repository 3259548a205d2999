# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: scheduled_jobs
short_description: Units, timers and crontab lines of scheduled jobs
version_added: 0.1.0
author:
  - confops developers (@confops)
description:
  - Turns a table of jobs into what the modules M(confops.indico.tree) and M(confops.indico.units) want.
  - Each job is a service of systemd with the lowest priority, a time limit, a note of how it ended, and word when it failed.
    A timer, cron or nothing starts it.
options:
  _input:
    description:
      - Name of the unit, without its suffix, and what it does. C(description), C(command) and C(service), the text of that section with the sandbox,
        are required.
      - C(unit), the text of that section; C(schedule), as C(OnCalendar) has it, empty for never; C(every), a span, for a timer in any case; C(jitter);
        C(time_limit); C(hours), between which it may begin, such as V(22:00-06:00); C(wanted), whether it is there at all.
    type: dict
    required: true
  instance_name:
    description: Name of the instance.
    type: str
    required: true
  prefix:
    description: Directory of the instance.
    type: path
    required: true
  backend:
    description: What starts the jobs that have a schedule.
    type: str
    choices: [systemd, cron, none]
    required: true
  crontab:
    description: Name of the file in C(/etc/cron.d).
    type: str
    required: true
  validate:
    description: Command that validates a unit, as M(confops.indico.tree) has it.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: A job each night
  confops.indico.tree:
    entries: "{{ (jobs | confops.indico.scheduled_jobs(instance_name='indico', prefix='/opt/indico', backend='systemd', crontab='indico-site')).tree }}"
  vars:
    jobs:
      indico-report:
        description: Report of indico
        command: /usr/local/bin/report
        service: ProtectSystem=strict
        schedule: "05:00"
"""

RETURN = r"""
_value:
  description: C(tree), entries of files, and C(units).
  type: dict
"""

from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.confops.indico.plugins.module_utils import _job_units


def scheduled_jobs(jobs: dict[str, Any], instance_name: str, prefix: str, backend: str, crontab: str, validate: list[str] | None = None) -> dict[str, Any]:
    try:
        return _job_units.declare(jobs, instance=instance_name, prefix=prefix, backend=backend, crontab=crontab, validate=validate or [])
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"scheduled_jobs": scheduled_jobs}
