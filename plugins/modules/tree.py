#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: tree
short_description: Directories, files and links of a role in one task
version_added: 0.1.0
description:
  - Makes the host hold the declared directories, files and symbolic links, all in one round trip.
  - Every new file is validated before any of them lands, alone or as part of a staged copy of its directory. When one is refused, nothing has changed.
  - A file or link is replaced atomically. A directory with something in it is never removed.
author:
  - confops developers (@confops)
options:
  entries:
    description: The declared paths, in the order in which they are made.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path, normalised.
        type: str
        required: true
      state:
        description: Follows from the other options when left out. O(entries[].content) makes a file, O(entries[].target) a link, neither a directory.
        type: str
        choices: [directory, file, link, absent]
      content:
        description: Text of the file, written as UTF-8 exactly as given.
        type: str
      target:
        description: What the link points at.
        type: str
      owner:
        description: Name of the user.
        type: str
        default: root
      group:
        description: Name of the group.
        type: str
        default: root
      mode:
        description: Four octal digits between quotes. Default is V('0755') for a directory and V('0644') for a file.
        type: str
      validate:
        description: Command that accepts the new file. V({}) stands for a copy under the same base name.
        type: list
        elements: str
        default: []
      hidden:
        description: Whether the diff leaves out what the file holds and held. O(secrets) hides the new password of a file, not the one that it replaces.
        type: bool
        default: false
      hidden_lines:
        description: How lines begin of which the diff shows no more than that. As O(entries[].hidden), for a file whose other lines are worth a look.
        type: list
        elements: str
        default: []
  stage:
    description: Directory of which a copy is made, with the new state applied, for O(validate).
    type: str
  validate:
    description: Command that accepts the staged copy, for which V({}) stands. It runs when an entry below O(stage) changes.
    type: list
    elements: str
    default: []
  needs:
    description:
      - Paths outside O(stage) that O(validate) reads.
      - Without one of them check mode does not validate the staged copy, since an earlier task may only have announced it.
    type: list
    elements: str
    default: []
  secrets:
    description: Strings inside the contents that no output may show.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Predicts with the function that the run uses. A validation whose program an earlier task would install is reported in RV(not_validated).
  diff_mode:
    support: full
    description: One diff for each path, with its content and attributes.
  idempotent:
    support: full
    description: A second run changes nothing.
"""

EXAMPLES = r"""
- name: The configuration of one program, its directory and its log directory
  confops.indico.tree:
    entries:
      - path: /opt/indico/etc
      - path: /opt/indico/etc/indico.conf
        content: "{{ lookup('ansible.builtin.template', 'indico.conf.j2') }}"
        group: indico
        mode: "0640"
        validate: [python2.7, -m, py_compile, "{}"]
      - path: /opt/indico/log/indico
        owner: indico
        group: indico
        mode: "0750"

- name: A site of Apache, tested as a whole before it lands
  confops.indico.tree:
    entries:
      - path: /etc/apache2/sites-available/indico.conf
        content: "{{ lookup('ansible.builtin.template', 'site.conf.j2') }}"
      - path: /etc/apache2/sites-enabled/indico.conf
        target: ../sites-available/indico.conf
      - path: /etc/apache2/sites-enabled/000-default.conf
        state: absent
    stage: /etc/apache2
    validate: [apache2ctl, -t, -d, "{}"]
"""

RETURN = r"""
changed_paths:
  description: The paths that differed, in the declared order.
  type: list
  elements: str
  returned: success
  sample: [/opt/indico/etc/indico.conf]
created_paths:
  description: Those of RV(changed_paths) that did not exist.
  type: list
  elements: str
  returned: success
  sample: []
not_validated:
  description: Paths whose validation has to wait for a program that is not installed yet. Only check mode leaves any.
  type: list
  elements: str
  returned: success
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _repository, _tree


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "entries": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "str", "required": True},
                    "state": {"type": "str", "choices": ["directory", "file", "link", "absent"]},
                    "content": {"type": "str"},
                    "target": {"type": "str"},
                    "owner": {"type": "str", "default": "root"},
                    "group": {"type": "str", "default": "root"},
                    "mode": {"type": "str"},
                    "validate": {"type": "list", "elements": "str", "default": []},
                    "hidden": {"type": "bool", "default": False},
                    "hidden_lines": {"type": "list", "elements": "str", "default": []},
                },
            },
            "stage": {"type": "str"},
            "validate": {"type": "list", "elements": "str", "default": []},
            "needs": {"type": "list", "elements": "str", "default": []},
            "secrets": {"type": "list", "elements": "str", "default": [], "no_log": True},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        changes = _tree.plan([_tree.entry(one) for one in options["entries"]], module.check_mode)
        not_validated = _tree.validate(changes, options["stage"], options["validate"], module.check_mode, options["needs"])
        if not module.check_mode:
            _tree.apply(changes)
    except (_tree.TreeError, OSError) as error:
        module.fail_json(msg=_repository.told(error))
    module.exit_json(
        changed=bool(changes),
        changed_paths=[change.entry.path for change in changes],
        created_paths=[change.entry.path for change in changes if change.created],
        not_validated=not_validated,
        diff=[change.diff() for change in changes],
    )


if __name__ == "__main__":
    main()
