#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: indico_release_info
short_description: The releases of a host, which one runs, and how it came there
version_added: 0.1.0
description:
  - Reads the releases below a prefix, what they say of where they came from, the deployments of this host and who is at it.
author:
  - confops developers (@confops)
options:
  prefix:
    description: Directory that holds everything of the instance.
    type: path
    default: /opt/indico
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
- name: What runs, and what a rollback would go to
  confops.indico.indico_release_info:
  register: releases
"""

RETURN = r"""
current:
  description: The release that runs, null when there is none.
  type: str
  returned: success
  sample: fix-1234-5a0e3f1c9b77
previous:
  description: The one that ran before it was deployed, null when that is not known or a migration lies between.
  type: str
  returned: success
  sample: 1.2.2-069b0b698e20
manifest:
  description: Where the current release came from (version, source, commit, patches with their sha256, packages, builder, time). Empty when it does not say so.
  type: dict
  returned: success
  sample: {version: fix-1234, source: /srv/indico.git, commit: 7c2a3f0b1f7f0f0a0c0d9b8a7f6e5d4c3b2a1908, patches: [], builder: app1}
releases:
  description: The complete releases of the application, the newest first.
  type: list
  elements: str
  returned: success
  sample: [fix-1234-5a0e3f1c9b77, 1.2.2-069b0b698e20]
deployments:
  description: >-
    Each deployment, rollback and migration, the oldest first (id, action, who, where, release, from, version, commit, began, ended, result).
    The result is C(ok), a sentence, or null while it is not known.
  type: list
  elements: dict
  returned: success
  sample: []
deployment:
  description: The one that brought the current release, null when nobody deployed it.
  type: dict
  returned: success
  sample: null
lock:
  description: Who is at it (id, action, who, where, release, began), null when nobody is.
  type: dict
  returned: success
  sample: null
maintenance:
  description: Since when maintenance is on, null when it is off.
  type: dict
  returned: success
  sample: null
migration:
  description: A migration that was begun and has not ended (id, who, release, from, set, began), null when there is none.
  type: dict
  returned: success
  sample: null
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _release, _repository


def main() -> None:
    module = AnsibleModule(argument_spec={"prefix": {"type": "path", "default": "/opt/indico"}}, supports_check_mode=True)
    try:
        module.exit_json(changed=False, **_release.look(module.params["prefix"]))
    except OSError as error:
        module.fail_json(msg=f"The releases cannot be read: {_repository.reason(error)}.")


if __name__ == "__main__":
    main()
