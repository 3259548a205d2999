#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: indico_cleanup
short_description: Removes what an instance leaves behind in cache, temporary files, sessions and logs
version_added: 0.1.0
description:
  - Removes entries of the cache that have expired, temporary files that Indico forgot, sessions that have ended, and logs that were rotated long ago.
  - Spares sessions that live, however old their files are, files that a process has open or mapped, the extracted libraries in C(tmp/egg-cache),
    logs that are being written, and the directories that the roles make.
  - It follows no symbolic link, and nothing that the service user does meanwhile in its directories makes it remove something elsewhere.
author:
  - confops developers (@confops)
options:
  prefix:
    description: Directory that holds everything of the instance.
    type: path
    default: /opt/indico
  what:
    description:
      - V(cache) is everything below C(cache) but sessions. V(sessions) are those of the cache's backend C(files).
      - V(tmp) are files right in C(tmp) whose names begin with C(Indico) or end with C(.tmp), as Indico's own cleanup has it.
        C(vars.js.tpl.tmp) stays, since every page loads it.
      - V(logs) are files in the directories of C(log) whose names end with C(log) and a date or a number, or with C(.gz).
      - V(replaced) is what restores and migrations put aside, C(*.replaced-STAMP) and C(*.failed-STAMP) beside the databases and the stored files.
        It goes only when it is named here.
    type: list
    elements: str
    choices: [cache, tmp, sessions, logs, replaced]
    default: [cache, tmp, sessions, logs]
  cache_days:
    description: Age in days from which a file of the cache goes that does not say itself when it expires.
    type: float
    default: 1
  min_age_hours:
    description: Age in hours from which a temporary file goes.
    type: float
    default: 3
  session_lifetime:
    description: Age in seconds, a week at least, from which a session goes that does not say when it ends. Default is C(SessionLifetime) of C(indico.conf).
    type: float
  log_days:
    description: Age in days from which a rotated log goes.
    type: float
    default: 120
  replaced_days:
    description: Age in days from which that goes which a restore put aside.
    type: float
    default: 7
attributes:
  check_mode:
    support: full
    description: Looks at every file as the run does, and says the same numbers.
  diff_mode:
    support: partial
    description: Lists the first 1000 files of each kind.
  idempotent:
    support: full
    description: A second run finds nothing, as long as nothing has expired in between.
"""

EXAMPLES = r"""
- name: See what a cleanup would remove
  confops.indico.indico_cleanup:
  check_mode: true
  register: cleanup

- name: Only temporary files that are older than a day
  confops.indico.indico_cleanup:
    what: [tmp]
    min_age_hours: 24
"""

RETURN = r"""
cleaned:
  description:
    - For each kind the number of files that were removed, their bytes, and the directories that had been empty for a day.
    - C(kept) counts by reason the files that stay, V(live) sessions and files V(in use) among them.
  returned: success
  type: dict
  sample: {sessions: {files: 12, bytes: 4020, directories: 3, kept: {live: 240}}}
lines:
  description: The same for people, a line for each kind.
  returned: success
  type: list
  elements: str
  sample: ["sessions: 12 files (3.93 KB) removed, 3 empty directories; kept: 240 live"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _cleanup, _numbers, _repository


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "default": "/opt/indico"},
            "what": {"type": "list", "elements": "str", "choices": list(_cleanup.KINDS + _cleanup.ON_REQUEST), "default": list(_cleanup.KINDS)},
            "cache_days": {"type": _numbers.DAYS, "default": 1},
            "min_age_hours": {"type": _numbers.HOURS, "default": 3},
            "session_lifetime": {"type": _numbers.real(0, 36500 * 86400)},
            "log_days": {"type": _numbers.DAYS, "default": 120},
            "replaced_days": {"type": _numbers.DAYS, "default": 7},
        },
        supports_check_mode=True,
    )
    rules = {name: value for name, value in module.params.items() if name not in ("prefix", "what")}
    for name, value in rules.items():
        if value is not None and value < 0:
            module.fail_json(msg=f"{name} is {value:g}; an age is not negative.")
    try:
        found = _cleanup.run(module.params["prefix"], module.params["what"], _cleanup.Rules(**rules), check=module.check_mode)
    except (_cleanup.CleanupError, OSError) as error:
        module.fail_json(msg=_repository.told(error))
    module.exit_json(
        changed=any(one.files or one.directories for one in found.values()),
        cleaned={name: one.data() for name, one in found.items()},
        lines=_cleanup.lines(found, check=module.check_mode),
        diff=[{"before_header": name, "after_header": name, "before": one.listing(), "after": ""} for name, one in found.items() if one.paths],
    )


if __name__ == "__main__":
    main()
