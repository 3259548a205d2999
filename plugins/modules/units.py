#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: units
short_description: systemd units that run with the configuration on disk
version_added: 0.1.0
description:
  - Enables and starts the units, and restarts one that started before its configuration changed. Stops those that are no longer declared.
  - The question is asked of the host, not of the run. A run that dies between a change and the restart leaves it to the next run,
    where a handler would be forgotten.
  - A unit that does not stay up is a failure, with the last lines of its journal.
author:
  - confops developers (@confops)
options:
  units:
    description: The units, in the order in which they start.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Full name of the unit.
        type: str
        required: true
      configuration:
        description: Files and links that the unit reads when it starts. The unit file itself need not be named.
        type: list
        elements: str
        default: []
      run:
        description: Whether it shall run. Of a unit that another one starts, such as the service of a timer, systemd only reads the file.
        type: bool
        default: true
      absent:
        description:
          - Whether it shall be gone. The module stops it and has systemd forget it; its file and the link that starts it at boot are for
            M(confops.indico.tree).
          - With it, O(units[].run) and O(units[].configuration) say nothing.
        type: bool
        default: false
      reload:
        description:
          - Whether it reads its O(units[].configuration) on a reload too, and so is reloaded where another one is restarted.
          - A change of its unit file restarts it all the same.
        type: bool
        default: false
  pending:
    description:
      - Paths that earlier tasks of this run changed, as RV(confops.indico.tree#module:changed_paths) lists them.
        In check mode those tasks only say so, and a restart that they will cause can be predicted from this alone.
    type: list
    elements: str
    default: []
  settle:
    description: Seconds after which a unit that was started must still be up.
    type: float
    default: 0.5
attributes:
  check_mode:
    support: full
    description: A unit that an earlier task would create counts as one that would be started.
  diff_mode:
    support: full
    description: Says for each unit what is not as declared.
  idempotent:
    support: full
    description: A second run changes nothing.
"""

EXAMPLES = r"""
- name: One ZEO server, restarted when its configuration is newer
  confops.indico.units:
    units:
      - name: indico-zeo@main.service
        configuration:
          - /opt/indico/etc/zeo-main.conf
          - /opt/indico/zeo
    pending: "{{ zeo_tree.changed_paths }}"
"""

RETURN = r"""
started:
  description: Units that were not running.
  type: list
  elements: str
  returned: success
  sample: []
restarted:
  description: Units that ran with an older configuration.
  type: list
  elements: str
  returned: success
  sample: [indico-zeo@main.service]
reloaded:
  description: Units that had read an older configuration, and go on with the new one.
  type: list
  elements: str
  returned: success
  sample: [indico-loadbalancer.service]
stopped:
  description: Units that ran though they are no longer declared.
  type: list
  elements: str
  returned: success
  sample: []
enabled:
  description: Units that would not have started at boot.
  type: list
  elements: str
  returned: success
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _numbers, _repository, _units


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "units": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "configuration": {"type": "list", "elements": "str", "default": []},
                    "run": {"type": "bool", "default": True},
                    "absent": {"type": "bool", "default": False},
                    "reload": {"type": "bool", "default": False},
                },
            },
            "pending": {"type": "list", "elements": "str", "default": []},
            "settle": {"type": _numbers.SECONDS, "default": 0.5},
        },
        supports_check_mode=True,
    )
    try:
        decisions = _units.plan([_units.Unit(**unit) for unit in module.params["units"]], module.params["pending"])
        if not module.check_mode:
            _units.apply(decisions, module.params["settle"])
    except (_units.UnitError, OSError) as error:
        module.fail_json(msg=_repository.told(error))
    module.exit_json(
        changed=any(decision.changed for decision in decisions),
        started=[decision.unit.name for decision in decisions if decision.start],
        restarted=[decision.unit.name for decision in decisions if decision.restart],
        reloaded=[decision.unit.name for decision in decisions if decision.renew],
        stopped=[decision.unit.name for decision in decisions if decision.stop],
        enabled=[decision.unit.name for decision in decisions if decision.enable],
        diff=[decision.diff() for decision in decisions if decision.changed],
    )


if __name__ == "__main__":
    main()
