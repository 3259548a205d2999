"""A table of jobs becomes units, timers and lines of a crontab."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.confops.indico.plugins.filter.scheduled_jobs import FilterModule

SYSTEM, DECLARED = "/etc/systemd/system", "/opt/indico/etc/jobs.d/indico-cron.json"
CLEAN = {"description": "Clean-up", "command": "/bin/clean", "service": "ProtectSystem=strict\n", "schedule": "Sun 04:30", "jitter": "0", "time_limit": "1h"}
WATCH = {"description": "Watch", "command": "/bin/watch", "service": "", "every": "5min", "unit": "After=a.service\n"}


def scheduled(backend: str = "systemd", **jobs: dict[str, Any]) -> dict[str, Any]:
    given = {f"indico-{name}": job for name, job in jobs.items()}
    made: dict[str, Any] = FilterModule().filters()["scheduled_jobs"](given, "indico", "/opt/indico", backend, "indico-cron", ["verify", "{}"])
    return made


def contents(made: dict[str, Any]) -> dict[str, str | None]:
    return {entry["path"]: entry.get("content") for entry in made["tree"]}


def test_a_job_is_a_service_and_what_starts_it() -> None:
    made = scheduled(clean=CLEAN)
    files = contents(made)
    service = str(files[f"{SYSTEM}/indico-clean.service"])
    assert "\nOnFailure=indico-failure@%N.service\n\n[Service]\nType=oneshot\nExecStart=/bin/clean\n" in service
    assert "\nExecStopPost=-+/opt/indico/bin/indico-jobs ended %N\nTimeoutStartSec=1h\n" in service and service.endswith("\nProtectSystem=strict\n")
    timer = "\n[Timer]\nOnCalendar=Sun 04:30\nRandomizedDelaySec=0\nPersistent=true\n\n[Install]\nWantedBy=timers.target\n"
    assert str(files[f"{SYSTEM}/indico-clean.timer"]).endswith(timer)
    assert files["/etc/cron.d/indico-cron"] is None
    assert made["units"] == [{"name": "indico-clean.service", "run": False, "absent": False}, {"name": "indico-clean.timer", "absent": False}]
    assert {tuple(entry["validate"]) for entry in made["tree"] if entry.get("content") and "/etc/systemd/" in entry["path"]} == {("verify", "{}")}


def test_cron_starts_what_has_a_schedule_and_a_timer_the_rest() -> None:
    made = scheduled("cron", clean=CLEAN, watch=WATCH)
    files = contents(made)
    assert str(files["/etc/cron.d/indico-cron"]).splitlines()[-1] == "30 4 * * 0 root systemctl start indico-clean.service"
    assert files[f"{SYSTEM}/indico-clean.timer"] is files[f"{SYSTEM}/timers.target.wants/indico-clean.timer"] is None
    assert "\nOnBootSec=1min\nOnUnitActiveSec=5min\n" in str(files[f"{SYSTEM}/indico-watch.timer"])
    assert "%N.service\nAfter=a.service\n\n[Service]" in str(files[f"{SYSTEM}/indico-watch.service"])
    assert [unit["name"] for unit in made["units"] if unit["absent"]] == ["indico-clean.timer"]


@pytest.mark.parametrize(("backend", "schedule"), [("none", "04:30"), ("systemd", ""), ("cron", "")])
def test_nothing_starts_what_has_no_schedule(backend: str, schedule: str) -> None:
    made = scheduled(backend, clean={**CLEAN, "schedule": schedule})
    assert {path for path, content in contents(made).items() if content} == {f"{SYSTEM}/indico-clean.service", DECLARED}
    assert json.loads(str(contents(made)[DECLARED])) == {"indico-clean": {}}


def test_what_starts_a_job_is_declared_beside_its_unit() -> None:
    """O1: a job whose unit is gone, or whose timer is off, can only be missed by what says that it should be there."""
    clean = {"started_by": "timer", "schedule": "Sun 04:30", "jitter": "0"}
    assert json.loads(str(contents(scheduled(clean=CLEAN, watch=WATCH))[DECLARED])) == {
        "indico-clean": clean,
        "indico-watch": {"started_by": "timer", "every": "5min"},
    }
    by_cron = json.loads(str(contents(scheduled("cron", clean=CLEAN, watch=WATCH))[DECLARED]))
    assert by_cron["indico-clean"] == {"started_by": "cron", "schedule": "Sun 04:30", "jitter": ""}
    assert by_cron["indico-watch"]["started_by"] == "timer"


def test_what_is_not_wanted_goes() -> None:
    made = scheduled(clean={**CLEAN, "wanted": False}, watch={**WATCH, "wanted": False})
    assert set(contents(made).values()) == {None}
    assert all(unit["absent"] for unit in made["units"])


def test_hours_are_asked_for_before() -> None:
    made = scheduled(clean={**CLEAN, "hours": "22:00-06:00"})
    assert "\nExecCondition=+/opt/indico/bin/indico-jobs allowed 22:00-06:00\nExecStart=/bin/clean\n" in str(contents(made)[f"{SYSTEM}/indico-clean.service"])


def test_what_cannot_be_is_a_sentence() -> None:
    with pytest.raises(AnsibleFilterError, match=r"^The schedule 'hourly' cannot be given to cron; write it as"):
        scheduled("cron", clean={**CLEAN, "schedule": "hourly"})
    with pytest.raises(AnsibleFilterError, match=r"^The job indico-clean has no command\.$"):
        scheduled(clean={"description": "Clean-up", "service": ""})
