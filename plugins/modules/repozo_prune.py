#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: repozo_prune
short_description: Delete the chains of a repozo repository that a retention policy does not keep
version_added: 0.1.0
description:
  - A chain is a full backup with its incremental ones. It stays or goes as a whole.
  - A chain stays when any of the options says so. Without O(window_days) and generations the module refuses.
  - Decides by the names of the files (UTC), the .dat files and C(confops.json), never by times of files.
  - What a run that was killed left half deleted, the next run finishes, and so does the next backup.
  - When C(confops.json) is damaged, or was and is kept as C(confops.json.damaged-1), pins may be lost. Nothing is deleted then until O(pin) names some
    or that file is removed.
author:
  - confops developers (@confops)
options:
  repository:
    description: Directory that holds the repository.
    type: path
    required: true
  window_days:
    description:
      - Every moment of so many days must stay restorable. The chain that the first of these moments is restored from stays too.
      - The days are counted back from the newest sound backup that is not of the future. So nothing is deleted because backups stopped or the
        clock is wrong, and RV(warnings) says when that is so.
      - Chains named after a future moment stay, and no other chain goes because of them.
    type: int
  keep_daily:
    description: Of so many of the newest days with a full backup, keep the newest chain.
    type: int
    default: 0
  keep_weekly:
    description: The same for ISO weeks.
    type: int
    default: 0
  keep_monthly:
    description: The same for months.
    type: int
    default: 0
  keep_yearly:
    description: The same for years.
    type: int
    default: 0
  keep_chains_min:
    description: A chain may go only when so many newer ones remain. At least 1.
    type: int
    default: 2
    aliases: [floor]
  require_verified:
    description: Whether O(keep_chains_min) counts only chains that were verified, every file of them, as they are now.
    type: bool
    default: true
  damaged:
    description:
      - What to do with damaged chains and with incremental backups before the first full one. They count for nothing in either case.
      - V(delete) deletes those that ended before the window and have O(keep_chains_min) newer chains.
    type: str
    choices: [keep, delete]
    default: keep
  pin:
    description: Chains that are never deleted, from now on, named after their full backup. The repository remembers them.
    type: list
    elements: str
    default: []
  unpin:
    description: Chains that the policy may delete again.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Predicts with the function that the run uses.
  diff_mode:
    support: full
    description: The chains before and after.
  idempotent:
    support: full
    description: A second run deletes nothing.
"""

EXAMPLES = r"""
- name: Two weeks to the minute, then a chain a month for a year
  confops.indico.repozo_prune:
    repository: /var/backups/indico/main
    window_days: 14
    keep_monthly: 12

- name: Keep the state before an upgrade
  confops.indico.repozo_prune:
    repository: /var/backups/indico/main
    window_days: 14
    pin: [2026-11-24-02-00-00]
"""

RETURN = r"""
chains:
  description: Each chain that was there, from the oldest to the newest, whether it stays and why. C(files) is how many backups it consists of.
  returned: success
  type: list
  elements: dict
  sample: [{stamp: 2026-11-24-02-00-00, keep: true, reasons: [in the recovery window], files: 24, stored_bytes: 536870912}]
deleted:
  description: The chains that are gone, in check mode those that would be.
  returned: success
  type: list
  elements: str
  sample: [2026-10-24-02-00-00]
freed_bytes:
  description: Bytes that the deleted files had.
  returned: success
  type: int
  sample: 536870912
remaining_window:
  description: First and last moment (UTC) that the sound chains that stay hold. Null when there are none.
  returned: success
  type: dict
  sample: {earliest: "2026-11-10T02:00:00Z", latest: "2026-11-24T19:00:00Z"}
pins:
  description: The chains that are pinned.
  returned: success
  type: list
  elements: str
  sample: []
warnings:
  description: A sentence for each thing that the operator should look at.
  returned: when there are any
  type: list
  elements: str
  sample: ["No chain may go yet: 2 verified chains must be newer than one that goes; verified here: 1."]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _numbers, _prune, _repository
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "repository": {"type": "path", "required": True},
            "window_days": {"type": _numbers.WHOLE_DAYS},
            "keep_daily": {"type": _numbers.COUNT, "default": 0},
            "keep_weekly": {"type": _numbers.COUNT, "default": 0},
            "keep_monthly": {"type": _numbers.COUNT, "default": 0},
            "keep_yearly": {"type": _numbers.COUNT, "default": 0},
            "keep_chains_min": {"type": _numbers.COUNT, "default": 2, "aliases": ["floor"]},
            "require_verified": {"type": "bool", "default": True},
            "damaged": {"type": "str", "choices": ["keep", "delete"], "default": "keep"},
            "pin": {"type": "list", "elements": "str", "default": []},
            "unpin": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        policy = _prune.Policy(
            window_days=options["window_days"],
            keep_daily=options["keep_daily"],
            keep_weekly=options["keep_weekly"],
            keep_monthly=options["keep_monthly"],
            keep_yearly=options["keep_yearly"],
            keep_chains_min=options["keep_chains_min"],
            require_verified=options["require_verified"],
            damaged=options["damaged"],
        )
        result = _prune.prune(options["repository"], policy, pin=options["pin"], unpin=options["unpin"], check=module.check_mode)
    except (RepositoryError, OSError) as error:
        module.fail_json(msg=_repository.told(error))
    for sentence in result.warnings:
        module.warn(sentence)
    module.exit_json(
        changed=result.changed,
        chains=result.chains,
        deleted=result.deleted,
        freed_bytes=result.freed_bytes,
        remaining_window=result.remaining_window,
        pins=result.pins,
        diff=result.diff,
    )


if __name__ == "__main__":
    main()
