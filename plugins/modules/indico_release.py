#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: indico_release
short_description: The steps of a deployment on one host
version_added: 0.1.0
description:
  - What a deployment and a rollback do on a host beside the roles' work, one step at a time; C(playbooks/deploy.yml) puts them in order.
author:
  - confops developers (@confops)
options:
  action:
    description:
      - V(lock) takes the host's lock for a run, or says who has it. V(unlock) gives it back.
      - V(room) fails when the disk has no room for the run's release.
      - V(begin) and V(end) write down what the run does, and how it ended.
      - V(stop) lets the web server end the requests that it has and stops it and the scheduler.
      - V(check) asks for a page until it was well several times in a row, then for the pages that warm the workers up. A failure says what was answered.
      - V(prune) removes releases that nobody needs, and their wheels.
    type: str
    required: true
    choices: [lock, unlock, room, begin, end, stop, check, prune]
  prefix:
    description: Directory that holds everything of the instance.
    type: path
    default: /opt/indico
  run:
    description: What is known of the run. For V(unlock) and V(end) its id is enough.
    type: dict
    default: {}
    suboptions:
      id:
        description: Names the run on every host.
        type: str
      action:
        description: What it is.
        type: str
        choices: [deploy, rollback, migrate]
      who:
        description: Who started it.
        type: str
      where:
        description: Where it runs.
        type: str
      release:
        description: The release that shall run.
        type: str
  take:
    description: For V(lock), whether to take it from a run that is gone.
    type: bool
    default: false
  result:
    description: For V(end), V(ok) or a sentence.
    type: str
    default: ok
  web:
    description: For V(stop), the web server's unit. Empty where there is none.
    type: str
    default: ""
  scheduler:
    description: For V(stop), the scheduler's unit. Empty where there is none.
    type: str
    default: ""
  patience:
    description: For V(stop), seconds that requests have to end.
    type: int
    default: 30
  url:
    description: For V(check), the address of the site as this host reaches it, without a slash at its end.
    type: str
  public_url:
    description: For V(check), the same as browsers see it, which the requests name.
    type: str
  page:
    description: For V(check), the page that must be well.
    type: str
    default: /
  count:
    description: For V(check), how often in a row.
    type: int
    default: 3
  seconds:
    description: For V(check), within how many seconds.
    type: int
    default: 90
  warm:
    description: For V(check), the pages to ask for then.
    type: list
    elements: str
    default: []
  workers:
    description: For V(check), how many workers there are to warm up.
    type: int
    default: 1
  keep:
    description: For V(prune), how many releases stay.
    type: int
    default: 3
  protect:
    description: For V(prune), names of wheels that stay.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Says what it would do.
  diff_mode:
    support: none
    description: RV(removed) and RV(stopped) say it.
  idempotent:
    support: partial
    description: V(begin), V(end), V(stop) and V(check) act each time.
"""

EXAMPLES = r"""
- name: Be alone
  confops.indico.indico_release:
    action: lock
    run: {id: 5a0e3f1c, action: deploy, who: ada, where: control1, release: fix-1234-5a0e3f1c9b77}
"""

RETURN = r"""
taken:
  description: For V(lock), whose lock was taken away, null when there was none.
  type: dict
  returned: when O(action=lock)
  sample: null
refused:
  description:
    - For V(lock), the sentence that says who has it, empty when this run has it now.
    - The module does not fail, so that a playbook can let go the other hosts first.
  type: str
  returned: when O(action=lock)
  sample: ""
removed:
  description: For V(prune), the releases and the wheels that went.
  type: list
  elements: str
  returned: when O(action=prune)
  sample: [fix-1230-0c9d8e7f6a5b]
stopped:
  description: For V(stop), the units.
  type: list
  elements: str
  returned: when O(action=stop)
  sample: [indico-scheduler.service, apache2.service]
asked:
  description: For V(check), how often the page was asked for.
  type: int
  returned: when O(action=check)
  sample: 3
took:
  description: For V(check), seconds until it was well.
  type: float
  returned: when O(action=check)
  sample: 4.2
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _numbers, _release, _repository, _units


def act(options: dict[str, Any], check: bool) -> dict[str, Any]:
    """Do one step and return its result."""
    prefix, run, action = options["prefix"], {key: value for key, value in options["run"].items() if value is not None}, options["action"]
    if action == "lock":
        try:
            taken = _release.lock(prefix, run, take=options["take"], check=check)
        except (_release.ReleaseError, OSError) as error:  # the others are let go when this one cannot be locked, whatever the reason
            return {"changed": False, "taken": None, "refused": _repository.told(error)}
        return {"changed": not check, "taken": taken, "refused": ""}
    if action == "unlock":
        return {"changed": _release.unlock(prefix, run["id"], check=check)}
    if action == "prune":
        removed = _release.prune(prefix, options["keep"], check=check) + _release.prune_wheels(prefix, options["protect"], check=check)
        return {"changed": bool(removed), "removed": removed}
    if action == "check":
        found = {} if check else _release.serve(**{key: options[key] for key in ("url", "public_url", "page", "count", "seconds", "warm", "workers")})
        return {"changed": False, **found}
    if action == "room":
        _release.room(prefix, run["release"])
        return {"changed": False}
    if action == "stop":
        stopped = [unit for unit in (options["scheduler"], options["web"]) if unit]
        if not check:
            _release.stop(options["web"], options["scheduler"], prefix, options["patience"])
        return {"changed": True, "stopped": stopped}
    if not check:
        if action == "begin":
            _release.begin(prefix, run)
        else:
            _release.end(prefix, run["id"], options["result"])
    return {"changed": True}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "action": {"type": "str", "required": True, "choices": ["lock", "unlock", "room", "begin", "end", "stop", "check", "prune"]},
            "prefix": {"type": "path", "default": "/opt/indico"},
            "run": {
                "type": "dict",
                "default": {},
                "options": {
                    "id": {"type": "str"},
                    "action": {"type": "str", "choices": ["deploy", "rollback", "migrate"]},
                    "who": {"type": "str"},
                    "where": {"type": "str"},
                    "release": {"type": "str"},
                },
            },
            "take": {"type": "bool", "default": False},
            "result": {"type": "str", "default": "ok"},
            "web": {"type": "str", "default": ""},
            "scheduler": {"type": "str", "default": ""},
            "patience": {"type": _numbers.WHOLE_SECONDS, "default": 30},
            "url": {"type": "str"},
            "public_url": {"type": "str"},
            "page": {"type": "str", "default": "/"},
            "count": {"type": _numbers.COUNT, "default": 3},
            "seconds": {"type": _numbers.WHOLE_SECONDS, "default": 90},
            "warm": {"type": "list", "elements": "str", "default": []},
            "workers": {"type": _numbers.COUNT, "default": 1},
            "keep": {"type": _numbers.COUNT, "default": 3},
            "protect": {"type": "list", "elements": "str", "default": []},
        },
        required_if=[("action", "check", ["url", "public_url"])],
        supports_check_mode=True,
    )
    try:
        result = act(module.params, module.check_mode)
    except (_release.ReleaseError, _units.UnitError, OSError) as error:
        module.fail_json(msg=_repository.told(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
