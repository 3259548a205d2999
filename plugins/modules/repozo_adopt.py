#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: repozo_adopt
short_description: Make the .dat file of a chain of backups anew from its data files
version_added: 0.1.0
description:
  - A chain whose C(.dat) file is lost or damaged is not lost, since stock repozo restores by the names of the data files alone.
    This module reads every data file of the chain and writes the C(.dat) file that belongs to them.
  - It refuses unless the files hold whole transactions, each newer than the one before and each at the offset that it names.
    So it notices a file that is missing, foreign or in the wrong place.
  - It refuses a file that differs from what C(confops.json) remembers of it, or from a line that the old C(.dat) file has of it.
  - The old C(.dat) file is kept beside the new one, as C(2026-11-24-02-00-00.dat.replaced-1).
author:
  - confops developers (@confops)
options:
  repository:
    description: Directory that holds the backups. Its path contains no blanks.
    type: path
    required: true
  chain:
    description:
      - The chain, named after its full backup, like V(2026-11-24-02-00-00).
      - By default each chain whose C(.dat) file is missing or disagrees with the directory.
    type: str
attributes:
  check_mode:
    support: full
    description: Reads the same files and predicts with the function that the run uses.
  diff_mode:
    support: none
    description: RV(chains) says which C(.dat) files change.
  idempotent:
    support: full
    description: A second run finds that the C(.dat) files agree.
"""

EXAMPLES = r"""
- name: Make the lost .dat files of the main database's backups anew
  confops.indico.repozo_adopt:
    repository: /opt/indico/backup/main
"""

RETURN = r"""
chains:
  description:
    - The chains that were read, named after their full backup (C(stamp)), and whether their C(.dat) file C(changed).
    - C(files) is how many data files the chain has, C(end) how many bytes of the database it covers,
      C(kept_as) the name under which the old C(.dat) file is kept, null when there was none.
  returned: success
  type: list
  elements: dict
  sample: [{stamp: 2026-11-24-02-00-00, changed: true, files: 8, end: 184549376, kept_as: 2026-11-24-02-00-00.dat.replaced-1}]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _adopt, _repository


def main() -> None:
    module = AnsibleModule(
        argument_spec={"repository": {"type": "path", "required": True}, "chain": {"type": "str"}},
        supports_check_mode=True,
    )
    try:
        result = _adopt.adopt(module.params["repository"], module.params["chain"], check=module.check_mode)
    except (_repository.RepositoryError, OSError) as error:
        module.fail_json(msg=_repository.told(error))
    module.exit_json(changed=result.changed, chains=result.chains)


if __name__ == "__main__":
    main()
