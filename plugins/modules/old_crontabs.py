#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: old_crontabs
short_description: Jobs of an instance that somebody once wrote into crontabs by hand
version_added: 0.1.0
description:
  - Finds the jobs that administrators of Indico 1.x have in their crontabs, such as packs, backups, the rotation of logs and the removal of old files,
    and whatever else names the instance's directory. Says which role does the same now, and what goes wrong when both do.
  - Reads C(/etc/crontab), C(/etc/cron.d), C(/etc/anacrontab), the scripts in C(/etc/cron.hourly) to C(/etc/cron.yearly), and the crontabs of all users.
    The files that the roles write are left out, and so are commands of this collection in other ones.
  - Reports only, unless O(state=absent) and O(remove) say otherwise. A file is replaced in one step and keeps its owner and its mode;
    a copy of it as it was goes to O(copies) first. All other bytes of it stay.
author:
  - confops developers (@confops)
options:
  prefix:
    description: Directory that holds everything of the instance.
    type: path
    default: /opt/indico
  state:
    description: V(reported) changes nothing. V(absent) removes what O(remove) names.
    type: str
    choices: [reported, absent]
    default: reported
  remove:
    description:
      - Ids that the report gave, files with all that was found in them, or V(all), which is everything that is certain.
      - A job that is not certain goes only when its id or its file is named. A script goes as a whole.
      - What is not there, or not any more, is listed in RV(unknown).
    type: list
    elements: str
    default: []
  copies:
    description: Directory that takes the files as they were, readable for root alone.
    type: path
    default: /var/backups
attributes:
  check_mode:
    support: full
    description: Finds and chooses as the run does.
  diff_mode:
    support: full
    description: Shows the lines that go, passwords masked.
  idempotent:
    support: full
    description: A second run finds nothing to remove.
"""

EXAMPLES = r"""
- name: See what somebody left in crontabs
  confops.indico.old_crontabs:
  register: old

- name: Remove all that the roles do now
  confops.indico.old_crontabs:
    state: absent
    remove: [all]

- name: Remove one that the report was not sure of, and a file with all that was found in it
  confops.indico.old_crontabs:
    state: absent
    remove: [3f9a01c2, /etc/cron.d/indico-old]
"""

RETURN = r"""
findings:
  description:
    - Each job with its C(id), C(file) and C(line), the C(user) that runs it, C(schedule) and C(text), where passwords are masked and what is long is shortened.
    - C(kind) is what it does, and V(other) for what is only known to name the instance's directory. C(now) is what does it today,
      C(trap) why it should not stay.
    - It is C(certain) when each of its commands is known and is this instance's, and for packs and backups when role C(backup) is on this host.
    - C(note) says that it is not, or why cron does not run the job.
  returned: success
  type: list
  elements: dict
  sample:
    - id: 3f9a01c2
      file: /var/spool/cron/crontabs/root
      line: 12
      kind: pack
      certain: true
      user: root
      schedule: 00 02 * * *
      text: python2.6 /opt/indico/bin/maintenance/packDB.py
      now: role backup, backup_pack_schedule and backup_pack_days
      trap: a pack every night makes every backup a full one
      note: ""
removed:
  description: Ids of the jobs that were removed, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: [3f9a01c2]
unknown:
  description: What O(remove) names and is not there.
  returned: success
  type: list
  elements: str
  sample: []
copies:
  description: The files as they were.
  returned: success
  type: list
  elements: str
  sample: [/var/backups/old_crontab-var-spool-cron-crontabs-root.2026-11-28-01-30-00]
lines:
  description: The same for people, a line for each job.
  returned: success
  type: list
  elements: str
  sample: ["removed: 3f9a01c2 /var/spool/cron/crontabs/root:12 (user root), pack: 00 02 * * * python2.6 /opt/indico/bin/maintenance/packDB.py"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _old_crontabs, _repository


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "default": "/opt/indico"},
            "state": {"type": "str", "choices": ["reported", "absent"], "default": "reported"},
            "remove": {"type": "list", "elements": "str", "default": []},
            "copies": {"type": "path", "default": "/var/backups"},
        },
        supports_check_mode=True,
    )
    given = module.params
    if bool(given["remove"]) != (given["state"] == "absent"):
        module.fail_json(msg="state: absent and remove go together: say what to remove (all, ids or files of the report), or neither.")
    try:
        report = _old_crontabs.look(given["prefix"])
        _old_crontabs.remove(report, given["remove"], given["copies"], check=module.check_mode)
    except (_old_crontabs.CrontabError, OSError) as error:
        module.fail_json(msg=_repository.told(error))
    module.exit_json(
        changed=bool(report.removed),
        findings=[one.data() for one in report.findings],
        removed=[one.identity for one in report.removed],
        unknown=report.unknown,
        copies=report.copies,
        lines=_old_crontabs.lines(report, check=module.check_mode),
        diff=report.diff,
    )


if __name__ == "__main__":
    main()
