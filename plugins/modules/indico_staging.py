#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: indico_staging
short_description: Makes the database of a copy for tests harmless
version_added: 0.1.0
description:
  - A database that comes from another site knows how to reach others, and what opens that site. This takes it away, in one transaction,
    while the databases are served and before a web server or a scheduler is.
  - LiveSync's agents become inactive. Plugins are switched off, but for those of the kinds RoomBooking and importer, and their passwords are emptied.
    Events take no payments, analytics are off. API keys and OAuth's tokens are removed, its consumers are blocked.
  - Accounts, their rights and the hashes of their local passwords stay, so that people log in as they do at the other site.
  - That no mail leaves is an affair of the configuration, see O(confops.indico.common#role:main:indico_staging).
author:
  - confops developers (@confops)
options:
  banner:
    description: Announcement that every page shows, as HTML. Left out, the present one stays.
    type: str
  rooms:
    description: Whether there is a database for the rooms. Where it is, M(confops.indico.indico_room_booking) says. Without one, room booking is switched off.
    type: bool
    default: false
  empty_cache:
    description: Whether the cache, with the sessions in it, is emptied when there is anything to do. Nobody may use it meanwhile.
    type: bool
    default: false
extends_documentation_fragment:
  - confops.indico.release
attributes:
  check_mode:
    support: full
    description: Says what it would do.
  diff_mode:
    support: full
    description: Shows the steps.
  idempotent:
    support: full
    description: A second run changes nothing.
"""

EXAMPLES = r"""
- name: Make the copy harmless before it is served
  confops.indico.indico_staging:
    banner: This is a copy for tests, from 2026-11-24 01:30 UTC.
    rooms: true
    empty_cache: true
"""

RETURN = r"""
steps:
  description: What was not harmless, one line each.
  type: list
  elements: str
  returned: success
  sample: ["LiveSync agent invenio: inactive", "API keys: 12 removed"]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _indico, _indico_staging


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "banner": {"type": "str"},
            "rooms": {"type": "bool", "default": False},
            "empty_cache": {"type": "bool", "default": False},
            **_indico.OPTIONS,
        },
        supports_check_mode=True,
    )
    arguments = {name: module.params[name] for name in ("banner", "rooms", "empty_cache")}
    steps = _indico.ask(module, _indico_staging.SCRIPT, "The database", {**arguments, "kept": list(_indico_staging.KEPT)}, timeout=3600)["steps"]
    module.exit_json(changed=bool(steps), steps=steps, diff=_indico.diff(steps, "what reaches beyond the site"))


if __name__ == "__main__":
    main()
