#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: repozo
short_description: A backup of one storage, in a repository that stock repozo restores
version_added: 0.1.0
description:
  - Compares the database with the repository and stores a full backup, what was added since the last one, or nothing.
  - Works while ZEO serves the database, with transactions that are committed at the start of the run. It needs no ZODB.
  - What is acknowledged is on disk. Killed at any moment, a run leaves what was there. The next one completes or removes the rest and says so.
  - Before it adds to a chain, it compares sizes and remembered checksums. A chain that is not as it was stored is left alone.
    A full backup then begins a new one, with a warning.
  - Fails when the database ends before the newest backup does, or with bytes that are no transaction. Such a database lost something.
    O(full=true) stores it all the same.
  - Warns of transactions that are later than the clock.
  - Goes on with repositories that stock repozo or collective.recipe.backup wrote; every version of repozo restores what this one writes.
author:
  - confops developers (@confops)
options:
  database:
    description: Path of the C(Data.fs).
    type: path
    required: true
  repository:
    description: Directory of the repository. It must exist, and its path must hold no blanks, since stock repozo splits its lists on them.
    type: path
    required: true
  compression:
    description:
      - V(gzip) makes ordinary gzip, by C(igzip) of Debian's C(isal) where it is installed and otherwise by zlib's fastest level.
      - Both kinds may follow each other in one chain.
    type: str
    choices: [gzip, none]
    default: gzip
  full:
    description: Make a full backup even where an incremental one would do. It is also made of a database that lost transactions or is damaged at its end.
    type: bool
    default: false
  max_incrementals:
    description: Make a full backup when the chain holds this many incremental ones. Left out, only a pack or a replaced database begins a new chain.
    type: int
attributes:
  check_mode:
    support: full
    description: Decides with the function that the run uses, and writes nothing.
  diff_mode:
    support: full
    description: The ranges of the database that are covered before and after.
  idempotent:
    support: full
    description: Without a new transaction a second run stores nothing, unless O(full=true).
notes:
  - It runs on the host that holds the database, as a user who reads it and owns the repository.
  - A pack begins a new chain, since it writes another database. While one runs, this module refuses.
seealso:
  - module: confops.indico.repozo_verify
  - module: confops.indico.repozo_restore
  - module: confops.indico.repozo_prune
"""

EXAMPLES = r"""
- name: Back up the main storage
  confops.indico.repozo:
    database: /opt/indico/db/main/Data.fs
    repository: /var/backups/indico/main

- name: Begin a new chain
  confops.indico.repozo:
    database: /opt/indico/db/main/Data.fs
    repository: /var/backups/indico/main
    full: true
"""

RETURN = r"""
kind:
  description: What was stored, V(full), V(incremental) or V(nothing).
  returned: success
  type: str
  sample: incremental
reason:
  description: Why that.
  returned: success
  type: str
  sample: 5242880 bytes since the last backup
repaired:
  description: What an interrupted run had left and this one removed or completed, and lines of a C(.dat) file that were written again.
    A damaged C(confops.json) is not removed but renamed, since it may hold pins.
  returned: success
  type: list
  elements: str
  sample: []
file:
  description: Path of the new file. Null when there is none, and in check mode.
  returned: success
  type: str
  sample: /var/backups/indico/main/2026-11-24-20-00-00.deltafsz
start:
  description: Offset in the database (bytes) where what is stored begins.
  returned: success
  type: int
  sample: 536870912
end:
  description: Offset where it ends, which is also how much of the database the chain covers now.
  returned: success
  type: int
  sample: 542113792
raw_bytes:
  description: Bytes of the database that are stored, uncompressed.
  returned: success
  type: int
  sample: 5242880
stored_bytes:
  description: Bytes of the new file, 0 in check mode.
  returned: success
  type: int
  sample: 1203344
md5:
  description: Sum of the uncompressed bytes, as the C(.dat) file has it.
  returned: success
  type: str
  sample: 1078f06f5b4f5c1e3b2a8f6d7a9c0e12
last_transaction:
  description: The newest transaction that is covered (C(tid), C(time) in UTC, C(user), C(description)), null for an empty database.
  returned: success
  type: dict
  sample: {tid: 040746901111111a, time: "2026-11-24T19:59:58Z", user: "", description: ""}
seconds:
  description: Time that it took.
  returned: success
  type: float
  sample: 0.42
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _filestorage, _numbers, _repository, _repozo


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "database": {"type": "path", "required": True},
            "repository": {"type": "path", "required": True},
            "compression": {"type": "str", "choices": ["gzip", "none"], "default": "gzip"},
            "full": {"type": "bool", "default": False},
            "max_incrementals": {"type": _numbers.COUNT},
        },
        supports_check_mode=True,
    )
    options = module.params
    if options["max_incrementals"] is not None and options["max_incrementals"] < 1:
        module.fail_json(msg=f"max_incrementals is {options['max_incrementals']}; it must be 1 or more.")
    try:
        result = _repozo.backup(
            options["database"],
            options["repository"],
            compression=options["compression"],
            full="a full backup was asked for" if options["full"] else "",
            max_incrementals=options["max_incrementals"],
            check=module.check_mode,
        )
    except (_repository.RepositoryError, _filestorage.FileStorageError, OSError) as error:
        module.fail_json(msg=_repository.told(error))
    for warning in result.warnings:
        module.warn(warning)
    decision = result.decision
    stores = decision.kind != "nothing"
    covered = [f"{decision.chain.stamp if decision.chain else 'no chain'}: {decision.start if decision.kind == 'incremental' else 0} bytes"]
    module.exit_json(
        changed=stores or bool(result.repaired),
        kind=decision.kind,
        reason=decision.reason,
        repaired=result.repaired,
        file=result.file,
        start=decision.start,
        end=decision.end,
        raw_bytes=decision.end - decision.start,
        stored_bytes=result.stored_bytes,
        md5=result.md5,
        last_transaction=result.last_transaction and result.last_transaction.data(),
        seconds=round(result.seconds, 3),
        diff={
            "before": "".join(f"{line}\n" for line in (covered if decision.kind == "incremental" else [])),
            "after": f"{decision.kind}: {decision.start} to {decision.end}, {decision.reason}\n" if stores else "",
            "before_header": options["repository"],
            "after_header": options["repository"],
        },
    )


if __name__ == "__main__":
    main()
