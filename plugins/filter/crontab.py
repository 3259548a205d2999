# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: crontab
short_description: The five fields of a crontab for a schedule that a timer of systemd understands too
version_added: 0.1.0
author:
  - confops developers (@confops)
description:
  - Turns the forms of C(OnCalendar) that cron can express into cron's fields, so that one variable serves both.
  - These are a time of day and, before it, days of the week, one by one or as a range.
options:
  _input:
    description: Such as V(01:30), V(Sun 04:00), V(Mon..Fri 22:15) or V(Tue,Sat 03:00).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show when it runs
  ansible.builtin.debug:
    msg: "{{ 'Mon..Fri 22:15' | confops.indico.crontab }}" # 15 22 * * 1,2,3,4,5
"""

RETURN = r"""
_value:
  description: Minute, hour, day of the month, month and day of the week.
  type: str
  sample: 15 22 * * 1,2,3,4,5
"""

from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.confops.indico.plugins.module_utils import _crontab


def crontab(schedule: str) -> str:
    try:
        return _crontab.fields(str(schedule))
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"crontab": crontab}
