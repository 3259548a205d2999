#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: repozo_info
short_description: The catalogue of a repozo repository
version_added: 0.1.0
description:
  - Lists the chains of backups in a repository, their files, sizes and times, and since when each file is known to be whole.
  - Reads the directory and the C(.dat) files only, none of the data, so it takes a moment whatever the size. M(confops.indico.repozo_verify) reads the data.
  - What is wrong with the structure is listed in RV(problems). The module itself fails only when there is no repository to read.
author:
  - confops developers (@confops)
options:
  repository:
    description: Directory that holds the backups.
    type: path
    required: true
  max_gap:
    description: Seconds that may pass between one backup and the next. Longer pauses are listed in RV(gaps). With V(0) none are.
    type: int
    default: 0
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
- name: Look at the backups of the main database, which are made every hour
  confops.indico.repozo_info:
    repository: /opt/indico/backup/main
    max_gap: 4000
  register: backups

- name: Complain when the newest backup is older than that
  ansible.builtin.assert:
    that: backups.age_seconds is not none and backups.age_seconds < 4000
"""

RETURN = r"""
chains:
  description:
    - Each chain, named after its full backup (C(stamp)). All times are UTC.
    - Of each of its C(files) the name, C(kind) (C(full) or C(incremental)), C(time), the range of the database that it holds (C(start), C(end), C(raw_bytes)),
      its size on disk (C(stored_bytes)), C(compressed), the C(md5) of the range, and C(verified_at), null when it was not verified or has changed since.
      Range and md5 are null for a file that the C(.dat) file does not list.
    - Of the chain C(first_backup) and C(last_backup), C(raw_bytes) and C(stored_bytes), C(problems), C(pinned),
      and C(verified), the oldest C(verified_at) of its files, null when one of them has none.
  returned: success
  type: list
  elements: dict
  sample:
    - stamp: 2026-11-24-02-00-00
      files:
        - name: 2026-11-24-02-00-00.fsz
          kind: full
          time: "2026-11-24T02:00:00Z"
          start: 0
          end: 6606028
          raw_bytes: 6606028
          stored_bytes: 1843200
          compressed: true
          md5: 1078f06f0d5b0b0c2a6d4b5d5d2c6a11
          verified_at: "2026-11-24T03:10:00Z"
      first_backup: "2026-11-24T02:00:00Z"
      last_backup: "2026-11-24T02:00:00Z"
      raw_bytes: 6606028
      stored_bytes: 1843200
      problems: []
      pinned: false
      verified: "2026-11-24T03:10:00Z"
problems:
  description: A sentence for each thing that is wrong with the structure, naming the file. Empty when all is well.
  returned: success
  type: list
  elements: str
  sample: ["2026-11-24-02-00-00.dat is missing."]
unfinished:
  description: A sentence for each chain that an interrupted prune has begun to delete. It counts as gone and is not in the rest.
  returned: success
  type: list
  elements: str
  sample: []
leftovers:
  description: Unfinished files of interrupted runs, which the next backup removes.
  returned: success
  type: list
  elements: str
  sample: []
totals:
  description: Numbers of C(chains) and C(files), and their C(raw_bytes) and C(stored_bytes).
  returned: success
  type: dict
  sample: {chains: 4, files: 32, raw_bytes: 26424112, stored_bytes: 7372800}
recoverable:
  description: The first and the last moment (C(earliest), C(latest)) that chains without problems restore. Null when there is none.
  returned: success
  type: dict
  sample: {earliest: "2026-11-03T02:00:00Z", latest: "2026-11-24T09:00:00Z"}
gaps:
  description: The pairs of consecutive backups that are more than O(max_gap) apart, with the times of both (C(after), C(before)) and the C(seconds) between.
  returned: success
  type: list
  elements: dict
  sample: [{after: "2026-11-10T09:00:00Z", before: "2026-11-10T14:00:00Z", seconds: 18000}]
last_full:
  description: When the newest full backup was made, null when there is none.
  returned: success
  type: str
  sample: "2026-11-24T02:00:00Z"
last_incremental:
  description: When the newest incremental backup was made, null when there is none.
  returned: success
  type: str
  sample: "2026-11-24T09:00:00Z"
age_seconds:
  description: How old the newest backup is, null when there is none.
  returned: success
  type: int
  sample: 1260
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _catalogue, _numbers, _repository


def main() -> None:
    module = AnsibleModule(
        argument_spec={"repository": {"type": "path", "required": True}, "max_gap": {"type": _numbers.COUNT, "default": 0}},
        supports_check_mode=True,
    )
    try:
        found = _catalogue.catalogue(module.params["repository"], max_gap=module.params["max_gap"])
    except (_repository.RepositoryError, OSError) as error:
        module.fail_json(msg=_repository.told(error))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
