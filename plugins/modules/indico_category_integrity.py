#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: indico_category_integrity
short_description: Whether Indico's categories, events and indexes agree
version_added: 0.1.0
description:
  - Looks where each category and each event belongs, and compares with that the counters of the categories, the list of events by id, and the indexes
    by category, day, start and title.
  - It only reports, unless O(repair) is given. Then all that has a repair is repaired in one transaction, and looked at again before that is committed.
  - Nothing is erased. An event that is in no category, and a category whose parent is gone, are reported and left alone, since it is not known where they
    belong.
  - It runs Indico's own code as the service user, and loads every event, so it takes its time on a large site.
author:
  - confops developers (@confops)
options:
  repair:
    description: Whether to repair what is wrong.
    type: bool
    default: false
extends_documentation_fragment: confops.indico.release
attributes:
  check_mode:
    support: full
    description: Says with the code of the run what it would repair, and writes nothing. On a host without a release, or with its database stopped, it says so.
  diff_mode:
    support: full
    description: Lists the repairs.
  idempotent:
    support: full
    description: A second run finds nothing to repair and writes no transaction.
"""

EXAMPLES = r"""
- name: Report what is wrong
  confops.indico.indico_category_integrity:

- name: Repair it
  confops.indico.indico_category_integrity:
    repair: true
"""

RETURN = r"""
problems:
  description: >-
    What was wrong: its C(kind) (C(category), C(event), C(counter), C(index), or C(broken) for an object that cannot be loaded), the C(problem) as a sentence,
    and its C(repair), null when there is none.
  type: list
  elements: dict
  returned: when the database could be looked at
  sample: [{kind: counter, problem: "Category 3 (Seminars) counts 7 events and has 5", repair: "category 3 (Seminars): 7 events -> 5"}]
left:
  description: Those that are not repaired, or in check mode would not be.
  type: list
  elements: dict
  returned: when the database could be looked at
  sample: []
steps:
  description: The repairs, one line each.
  type: list
  elements: str
  returned: success
  sample: ["category 3 (Seminars): 7 events -> 5"]
categories:
  description: How many categories there are.
  type: int
  returned: when the database could be looked at
  sample: 4
events:
  description: How many events are in them.
  type: int
  returned: when the database could be looked at
  sample: 44
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _indico, _indico_category_integrity


def main() -> None:
    module = AnsibleModule(argument_spec={"repair": {"type": "bool", "default": False}, **_indico.OPTIONS}, supports_check_mode=True)
    what, script = "What is wrong with the categories", _indico_category_integrity.SCRIPT
    result = _indico.ask(module, script, what, {"repair": module.params["repair"]}, timeout=7200)
    module.exit_json(changed=bool(result["steps"]), diff=_indico.diff(result["steps"], "categories"), **result)


if __name__ == "__main__":
    main()
