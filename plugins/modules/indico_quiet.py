#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: indico_quiet
short_description: A closed site at rest, while Apache answers 503
version_added: 0.1.0
description:
  - Sees that the site is closed, stops the scheduler, ends the workers, and waits until nobody is connected to the databases.
  - Apache goes on to run, so visitors get the maintenance page and no refused connection.
  - Apache starts new workers in the place of the old ones. They load Indico with their first request, which none reaches while the site is closed.
  - With O(state=renewed) Apache reads its configuration and loads its modules anew, with its ports open.
  - With O(state=fresh) the module waits until a reload that another task began has replaced every worker.
author:
  - confops developers (@confops)
options:
  state:
    description: What to bring about.
    type: str
    choices: [calm, renewed, fresh]
    default: calm
  instance:
    description: Name of the instance, which is also the name of its group of workers.
    type: str
    default: indico
  user:
    description: The user that the workers run as.
    type: str
    default: indico
  scheduler:
    description: For V(calm), the scheduler's unit, empty where the host has none.
    type: str
    default: ""
  web:
    description: For V(renewed) and V(fresh), the web server's unit.
    type: str
    default: apache2.service
  url:
    description: For V(calm), the home page as this host reaches it. Without it, nobody looks whether the site is closed.
    type: str
    default: ""
  public_url:
    description: For V(calm), the address that browsers use.
    type: str
    default: ""
  ports:
    description: For V(calm), the databases' ports on this host. Nobody may be connected to them at the end.
    type: list
    elements: int
    default: []
  patience:
    description:
      - Seconds for requests that are being answered, then as many for other clients of the databases.
      - Requests that take longer are cut off. A client that stays is a failure.
    type: int
    default: 30
attributes:
  check_mode:
    support: full
    description: Says what it would do.
  diff_mode:
    support: none
    description: RV(stopped), RV(ended) and RV(workers) say it.
  idempotent:
    support: partial
    description: A site that is at rest stays unchanged with V(calm). V(renewed) acts each time, V(fresh) never.
"""

EXAMPLES = r"""
- name: Let nobody be at the databases
  confops.indico.indico_quiet:
    scheduler: indico-scheduler.service
    url: https://127.0.0.1:443/
    public_url: https://indico.example.org
    ports: [9675]
"""

RETURN = r"""
stopped:
  description: For V(calm), the scheduler's unit.
  type: list
  elements: str
  returned: when O(state=calm)
  sample: [indico-scheduler.service]
ended:
  description: For V(calm), process ids of the workers that ended.
  type: list
  elements: int
  returned: when O(state=calm)
  sample: [812, 813]
killed:
  description: For V(calm), those of RV(ended) whose requests took too long.
  type: list
  elements: int
  returned: when O(state=calm)
  sample: []
seconds:
  description: For V(calm), how long the workers took.
  type: float
  returned: when O(state=calm)
  sample: 1.4
workers:
  description: For V(renewed) and V(fresh), process ids of the new workers.
  type: list
  elements: int
  returned: when O(state=renewed) or O(state=fresh)
  sample: [902, 903]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _numbers, _quiet, _repository, _units


def act(options: dict[str, Any], check: bool) -> dict[str, Any]:
    """Do what is asked for, or say what that would do."""
    user, instance, patience = options["user"], options["instance"], options["patience"]
    if options["state"] == "renewed":
        return {"changed": True, "workers": [] if check else _quiet.renew(options["web"], user, instance, patience)}
    if options["state"] == "fresh":
        return {"changed": False, "workers": [] if check else _quiet.fresh(options["web"], user, instance, patience)}
    if check:
        ended = [worker.pid for worker in _quiet.workers(user, instance) if worker.loaded]
        stopped = _quiet.running(options["scheduler"])
        return {"changed": bool(stopped or ended), "stopped": stopped, "ended": ended, "killed": [], "seconds": 0.0}
    done = _quiet.calm(user, instance, options["scheduler"], options["url"], options["public_url"], options["ports"], patience)
    return {"changed": bool(done.stopped or done.ended), "stopped": done.stopped, "ended": done.ended, "killed": done.killed, "seconds": done.seconds}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["calm", "renewed", "fresh"], "default": "calm"},
            "instance": {"type": "str", "default": "indico"},
            "user": {"type": "str", "default": "indico"},
            "scheduler": {"type": "str", "default": ""},
            "web": {"type": "str", "default": "apache2.service"},
            "url": {"type": "str", "default": ""},
            "public_url": {"type": "str", "default": ""},
            "ports": {"type": "list", "elements": _numbers.PORT, "default": []},
            "patience": {"type": _numbers.WHOLE_SECONDS, "default": 30},
        },
        supports_check_mode=True,
    )
    try:
        result = act(module.params, module.check_mode)
    except (_quiet.QuietError, _units.UnitError, OSError) as error:
        module.fail_json(msg=_repository.told(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
