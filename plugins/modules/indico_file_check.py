#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: indico_file_check
short_description: Whether Indico's stored files are on disk, and all that are there are named
version_added: 0.1.0
description:
  - Compares the files that Indico's database names with those in its archive, the directory C(archive) beside O(current), both ways. It changes nothing.
  - A file that no name leads to is an orphan. Indico 1.2.2 leaves the file of a material on disk when somebody deletes that, and with an event that is deleted
    its names stay, so orphans are no damage. This module never removes any.
  - Looks at the material of every event and category too, for objects that cannot be loaded or that refer to a file which the database does not name.
  - The database of 1.2.2 notes names only, so what size or content a file should have cannot be compared.
  - It runs Indico's own code as the service user, and lists the archive as root.
author:
  - confops developers (@confops)
options:
  limit:
    description: How many entries each list has at most. The counts are always of all.
    type: int
    default: 20
extends_documentation_fragment: confops.indico.release
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
- name: Look for stored files that are not there
  confops.indico.indico_file_check:
  register: file_check

- name: Insist
  ansible.builtin.assert:
    that: file_check.missing.count == 0
"""

RETURN = r"""
files:
  description: How many stored files the database names.
  type: int
  returned: success
  sample: 120
stored:
  description: How many files the archive holds.
  type: int
  returned: success
  sample: 122
missing:
  description: Named files that are not there, how many (C(count)) and the first C(paths), below the archive.
  type: dict
  returned: success
  sample: {count: 1, paths: [2026/C42/c0/0/8237462/talk.pdf]}
orphans:
  description: Files that nothing names, how many (C(count)), their C(bytes) and the first C(paths).
  type: dict
  returned: success
  sample: {count: 3, bytes: 40213, paths: [2026/C40/1/7236451/draft.pdf]}
unnamed:
  description: Materials that refer to a file which the database does not name, how many (C(count)) and the first C(objects).
  type: dict
  returned: success
  sample: {count: 0, objects: []}
broken:
  description: Events, categories and materials that cannot be loaded, how many (C(count)) and the first C(objects), each with C(where) and C(problem).
  type: dict
  returned: success
  sample: {count: 0, objects: []}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _indico, _indico_file_check, _numbers, _repository


def main() -> None:
    module = AnsibleModule(argument_spec={"limit": {"type": _numbers.COUNT, "default": 20}, **_indico.OPTIONS}, supports_check_mode=True)
    given = module.params
    if given["limit"] < 0:
        module.fail_json(msg=f"limit is {given['limit']}; it must be 0 or more.")
    try:
        found = _indico_file_check.check(current=given["current"], user=given["user"], limit=given["limit"])
    except (_indico.IndicoError, OSError) as error:
        module.fail_json(msg=_repository.told(error))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
