#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: indico_event_restore
short_description: A deleted event comes back
version_added: 0.1.0
description:
  - Undoes the deletion of an event, in one transaction. The event comes back with its id, contributions, sessions, materials and stored files, for its
    managers, and with its short address when no other event has taken it.
  - Indico 1.2.2 means to keep what somebody deletes in a trash, but puts nothing there. A deleted event stays in the database until it is packed to a later
    time than that of the deletion. Until then this module finds it, and what the trash holds from versions before. After that only a backup has it.
  - Which category it was in, its evaluation and its reminders are read from the database's old revisions. Where those are gone, as for an old event in the
    trash, O(category) is needed, and the event gets a new evaluation.
  - What somebody had deleted in the event before the event itself was deleted stays deleted. Room reservations, and video services of the event, are
    cancelled by Indico when the event is deleted and do not come back.
  - It runs Indico's own code as the service user.
author:
  - confops developers (@confops)
options:
  event:
    description: Id of the event. Left out, the module lists the deleted events that the database still holds.
    type: str
  category:
    description: Id of the category that it goes to, when its own is gone or not known any more. Where its own can have it back, another one is refused.
    type: str
extends_documentation_fragment: confops.indico.release
attributes:
  check_mode:
    support: full
    description: Decides with the code that the run uses and writes nothing. On a host without a release, or with its database stopped, it says so.
  diff_mode:
    support: full
    description: Lists the steps.
  idempotent:
    support: full
    description: An event that is not deleted is left as it is.
"""

EXAMPLES = r"""
- name: Which events can come back
  confops.indico.indico_event_restore:

- name: One of them comes back
  confops.indico.indico_event_restore:
    event: "42"
"""

RETURN = r"""
steps:
  description: What was done, one line each. Empty for an event that is not deleted.
  type: list
  elements: str
  returned: success
  sample: ["event 42: in the list of events", "category: 3 (Seminars)", "evaluation: as it was"]
notes:
  description: What went with the event and does not come back, one line each.
  type: list
  elements: str
  returned: with an event
  sample: ["alarm of 2026-11-20T08:00:00Z: not sent, its time has passed"]
title:
  description: Its title.
  type: str
  returned: with an event
  sample: Dark matter
category:
  description: Id of its category.
  type: str
  returned: with an event
  sample: "3"
category_title:
  description: Title of its category.
  type: str
  returned: with an event
  sample: Seminars
contributions:
  description: How many it has.
  type: int
  returned: with an event
  sample: 4
sessions:
  description: How many it has.
  type: int
  returned: with an event
  sample: 1
files_found:
  description: How many of its stored files are on disk.
  type: int
  returned: with an event
  sample: 6
files_missing:
  description: Those that are not, where they belong and the path that the database names.
  type: list
  elements: str
  returned: with an event
  sample: []
broken:
  description: Objects that cannot be loaded, each with C(where) it is and its C(problem).
  type: list
  elements: dict
  returned: success
  sample: []
events:
  description: The deleted events by the time at which that happened, with id, title, start and the time of the deletion (C(deleted)).
  type: list
  elements: dict
  returned: without an event
  sample: [{event: "42", title: Dark matter, start: "2026-11-23T08:00:00Z", deleted: "2026-11-26T15:04:11Z"}]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _indico, _indico_event_restore


def main() -> None:
    module = AnsibleModule(argument_spec={"event": {"type": "str"}, "category": {"type": "str"}, **_indico.OPTIONS}, supports_check_mode=True)
    event, category = module.params["event"], module.params["category"]
    if category is not None and event is None:
        module.fail_json(msg="category says where an event goes; name the event, too.")
    what = "Which events are deleted" if event is None else f"Whether event {event} is deleted"
    result = _indico.ask(module, _indico_event_restore.SCRIPT, what, {"event": event, "category": category}, timeout=1800)
    module.exit_json(changed=bool(result["steps"]), diff=_indico.diff(result["steps"], f"event {event}"), **result)


if __name__ == "__main__":
    main()
