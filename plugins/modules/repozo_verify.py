#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: repozo_verify
short_description: Verify the backups in a repozo repository, to the last byte
version_added: 0.1.0
description:
  - Checks that every chain of backups is complete and would restore, whether this collection or stock repozo wrote it, and wherever it was moved to.
  - Of each chain, every file is listed once, in order and without a hole; its uncompressed size and md5 are those of the C(.dat) file;
    the full backup is a FileStorage, and each range of it ends with a committed transaction and begins with a newer one.
  - Files that this collection wrote are compared as they lie on disk as well, so damage in the header of a compressed file is found that changes no content.
  - Everything is checked before the module fails. It then fails with a sentence for each thing that is wrong.
  - Needs no ZODB, takes no lock while it reads, and lets backups go on meanwhile.
author:
  - confops developers (@confops)
options:
  repository:
    description: Directory that holds the backups.
    type: path
    required: true
  scope:
    description:
      - V(all) reads every file.
      - V(new) does not read again what is remembered as verified, as long as its size and its line in the C(.dat) file are the same.
        The structure of all chains is checked in any case.
    type: str
    choices: [all, new]
    default: all
  jobs:
    description: How many cores to keep busy. Default is all that the process may use.
    type: int
attributes:
  check_mode:
    support: full
    description: Verifies just the same, and remembers nothing.
  diff_mode:
    support: none
    description: Changes no backup.
  idempotent:
    support: full
    description:
      - Changes no backup, so C(changed) is always false.
      - What was verified is remembered in C(confops.json) beside the backups. That is a cache, which may be lost; writing it is not counted as a change.
      - A damaged C(confops.json) is kept under another name, since it may say which chains are pinned. A warning then says so.
"""

EXAMPLES = r"""
- name: Verify all backups of the main database
  confops.indico.repozo_verify:
    repository: /opt/indico/backup/main

- name: Verify what was added since, on one core
  confops.indico.repozo_verify:
    repository: /opt/indico/backup/main
    scope: new
    jobs: 1
"""

RETURN = r"""
chains:
  description: Each chain, named after its full backup, how many files and bytes on disk it has, and what is wrong with it.
  returned: when the repository can be read
  type: list
  elements: dict
  sample: [{stamp: 2026-11-24-02-00-00, ok: true, problems: [], files: 8, bytes: 184549376}]
problems:
  description: A sentence for each thing that is wrong, naming the file. Those of the chains and those that belong to none.
  returned: when the repository can be read
  type: list
  elements: str
  sample: ["2026-11-24-03-00-00.deltafsz is cut off."]
verified_files:
  description: How many files were read.
  returned: when the repository can be read
  type: int
  sample: 8
verified_bytes:
  description: How many bytes they have on disk.
  returned: when the repository can be read
  type: int
  sample: 184549376
skipped_files:
  description: How many files were remembered as verified and not read.
  returned: when the repository can be read
  type: int
  sample: 0
remembered:
  description:
    - Whether what was verified is remembered. It is not in check mode, nor when the repository cannot be written or a backup holds it.
      A warning then says why.
  returned: when the repository can be read
  type: bool
  sample: true
seconds:
  description: How long it took.
  returned: when the repository can be read
  type: float
  sample: 1.873
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _numbers, _repository, _verify


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "repository": {"type": "path", "required": True},
            "scope": {"type": "str", "choices": ["all", "new"], "default": "all"},
            "jobs": {"type": _numbers.whole(1, 1024)},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        report = _verify.verify(options["repository"], scope=options["scope"], jobs=options["jobs"], check=module.check_mode)
    except (_repository.RepositoryError, OSError) as error:
        module.fail_json(msg=_repository.told(error))
    result = asdict(report)
    for warning in result.pop("warnings"):
        module.warn(warning)
    if report.problems:
        module.fail_json(msg=_verify.summary(options["repository"], report.problems), **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
