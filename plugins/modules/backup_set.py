#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_set
short_description: A backup set of an instance, of every storage, the stored files and the configuration
version_added: 0.1.0
description:
  - Does what the timer of role P(confops.indico.backup#role) does, with the same code, settings and lock.
  - Backs up each storage as M(confops.indico.repozo) does and verifies what is new, then copies the stored files (those that did not change are hard links
    to the set before) and the configuration, and writes a manifest with the newest transaction of each storage.
  - Removes what the retention does not keep, as M(confops.indico.repozo_prune) does, and the sets that name nothing restorable any more.
author:
  - confops developers (@confops)
options:
  settings:
    description: File on the host that the role writes.
    type: path
    default: /opt/indico/etc/backup.json
  why:
    description: Reason that goes into the manifest.
    type: str
    default: by Ansible
  who:
    description: Person or job that goes into the manifest.
    type: str
    default: Ansible
  full:
    description: Begin a new chain for each storage.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Decides with the functions that the run uses, and writes nothing.
  diff_mode:
    support: none
    description: RV(storages) says what is stored.
  idempotent:
    support: full
    description: Without a new transaction and without a change of the configuration a second run makes no set.
"""

EXAMPLES = r"""
- name: Back up before an upgrade
  confops.indico.backup_set:
    why: before the upgrade
"""

RETURN = r"""
line:
  description: All of it in one line.
  returned: success
  type: str
  sample: "backup done in 2.1 s: main incremental 48213 bytes, set 2026-11-24-20-00-00"
set:
  description: Stamp (UTC) of the new set, null when there is none and in check mode.
  returned: success
  type: str
  sample: 2026-11-24-20-00-00
storages:
  description: What was stored of each storage, as the manifest has it.
  returned: success
  type: list
  elements: dict
  sample: [{name: main, kind: incremental, reason: 48213 bytes since the last backup, file: 2026-11-24-20-00-00.deltafsz, stored_bytes: 12044, end: 3313664}]
deleted:
  description: Chains and sets that were removed.
  returned: success
  type: list
  elements: str
  sample: [main/2026-10-01-01-30-00, sets/2026-10-01-01-30-00]
seconds:
  description: Time that it took.
  returned: success
  type: float
  sample: 2.1
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _backup_set, _repository


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "settings": {"type": "path", "default": "/opt/indico/etc/backup.json"},
            "why": {"type": "str", "default": "by Ansible"},
            "who": {"type": "str", "default": "Ansible"},
            "full": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        settings = _backup_set.read_settings(options["settings"])
        outcome = _backup_set.run(settings, who=options["who"], why=options["why"], full=options["full"], check=module.check_mode)
    except (_repository.RepositoryError, OSError) as error:
        module.fail_json(msg=_repository.told(error))
    for warning in outcome.warnings:
        module.warn(warning)
    module.exit_json(
        changed=outcome.changed,
        line=outcome.line(),
        set=outcome.set,
        storages=outcome.storages,
        deleted=outcome.deleted,
        seconds=outcome.seconds,
    )


if __name__ == "__main__":
    main()
