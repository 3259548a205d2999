# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The units, timers and crontab lines of scheduled jobs, from a role's table of them. All jobs get the same priority, limits and end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _crontab

_SYSTEM = "/etc/systemd/system"
_HEADER = "# Ansible managed"
_SERVICE = """{header}
[Unit]
Description={description}
OnFailure={instance}-failure@%N.service
{unit}
[Service]
Type=oneshot
{condition}ExecStart={command}
# Whatever ends it, how it ended is noted. That this may fail is no reason to call the job a failure.
ExecStopPost=-+{prefix}/bin/{instance}-jobs ended %N
TimeoutStartSec={time_limit}
# The command alone is told to end: it ends its programs, clears up and leaves word.
KillMode=mixed
Nice=19
IOSchedulingClass=best-effort
IOSchedulingPriority=7
Restart=no

{service}
"""
_CONDITION = """# Outside of the allowed hours nothing is done, and that is no failure.
ExecCondition=+{prefix}/bin/{instance}-jobs allowed {hours}
"""
_TIMER = """{header}
[Unit]
Description={description}, from time to time

[Timer]
{when}

[Install]
WantedBy=timers.target
"""
_CRONTAB = """{header}
# The units are the same that timers would start, with their sandbox, priority and time limit. Without a word when all is well.
{lines}
"""


def declare(jobs: Mapping[str, Mapping[str, Any]], *, instance: str, prefix: str, backend: str, crontab: str, validate: list[str]) -> dict[str, Any]:
    """Return tree, entries for the module of that name, and units, for the other one.

    jobs: name of the unit, without suffix -> description, command, service (text of that section), and as wanted: unit (text of that section),
    schedule (as OnCalendar has it; empty for never), every (a span, by a timer whatever the backend), jitter, time_limit, hours (between which it
    may begin), wanted (whether it is there at all). backend: systemd, cron or none. crontab: name of the file in cron.d. validate: command for
    units. Raises ValueError, with a sentence, for a job that lacks something and for a schedule that cron cannot take.
    """
    tree: list[dict[str, Any]] = []
    units: list[dict[str, Any]] = []
    lines = []
    declared: dict[str, dict[str, Any]] = {}
    for name, job in jobs.items():
        missing = [key for key in ("description", "command", "service") if key not in job]
        if missing:
            raise ValueError(f"The job {name} has no {' and no '.join(missing)}.")
        wanted, schedule = job.get("wanted", True), job.get("schedule") or ""
        timer = wanted and bool(job.get("every") or (schedule and backend == "systemd"))
        tree.append(_file(f"{name}.service", _service(job, instance, prefix) if wanted else None, validate))
        if not timer:
            tree.append({"path": f"{_SYSTEM}/timers.target.wants/{name}.timer", "state": "absent"})
        tree.append(_file(f"{name}.timer", _timer(job) if timer else None, validate))
        units += [{"name": f"{name}.service", "run": False, "absent": not wanted}, {"name": f"{name}.timer", "absent": not timer}]
        by_cron = wanted and schedule and backend == "cron" and not timer
        if wanted:
            starts = (
                {"schedule": schedule, "jitter": str(job.get("jitter", "10min")) if timer else ""} if not job.get("every") else {"every": str(job["every"])}
            )
            declared[name] = {"started_by": "timer", **starts} if timer else {"started_by": "cron", **starts} if by_cron else {}
        if by_cron:
            lines.append(f"{_crontab.fields(schedule)} root systemctl start {name}.service")
    path = f"/etc/cron.d/{crontab}"
    tree.append({"path": path, "content": _CRONTAB.format(header=_HEADER, lines="\n".join(lines))} if lines else {"path": path, "state": "absent"})
    return {"tree": tree + _declaration(f"{prefix}/etc/jobs.d", crontab, declared), "units": units}


def _declaration(directory: str, name: str, declared: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return entries for the file that says which jobs there are: one whose unit is gone, or whose timer is off, is missed by it alone."""
    path = f"{directory}/{name}.json"
    if not declared:
        return [{"path": directory}, {"path": path, "state": "absent"}]
    return [{"path": directory}, {"path": path, "content": json.dumps(declared, indent=1, sort_keys=True) + "\n"}]


def _file(name: str, content: str | None, validate: list[str]) -> dict[str, Any]:
    path = f"{_SYSTEM}/{name}"
    return {"path": path, "state": "absent"} if content is None else {"path": path, "content": content, "validate": validate}


def _service(job: Mapping[str, Any], instance: str, prefix: str) -> str:
    hours = job.get("hours") or ""
    unit = str(job.get("unit") or "").strip()
    return _SERVICE.format(
        header=_HEADER,
        description=job["description"],
        instance=instance,
        prefix=prefix,
        unit=f"{unit}\n" if unit else "",
        condition=_CONDITION.format(prefix=prefix, instance=instance, hours=hours) if hours else "",
        command=job["command"],
        time_limit=job.get("time_limit") or "10min",
        service=str(job["service"]).strip(),
    )


def _timer(job: Mapping[str, Any]) -> str:
    if job.get("every"):
        when = f"OnBootSec=1min\nOnUnitActiveSec={job['every']}"
    else:
        when = f"OnCalendar={job['schedule']}\nRandomizedDelaySec={job.get('jitter', '10min')}\nPersistent=true"
    return _TIMER.format(header=_HEADER, description=job["description"], when=when)
