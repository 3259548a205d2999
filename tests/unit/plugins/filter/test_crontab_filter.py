"""A schedule of systemd's timers as cron has it."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.confops.indico.plugins.filter.crontab import crontab


@pytest.mark.parametrize(
    ("schedule", "fields"),
    [
        ("01:30", "30 1 * * *"),
        ("*-*-* 01:30:00", "30 1 * * *"),
        ("Sun 04:00", "0 4 * * 0"),
        ("Mon..Fri 22:15", "15 22 * * 1,2,3,4,5"),
        ("Sat..Mon 00:05", "5 0 * * 6,0,1"),
        ("Tue,Thu..Sat 9:00", "0 9 * * 2,4,5,6"),
    ],
)
def test_what_both_can_say(schedule: str, fields: str) -> None:
    assert crontab(schedule) == fields


@pytest.mark.parametrize("schedule", ["", "hourly", "*:0/15", "25:00", "1:60", "Sunday 04:00", "Mon, Tue 01:00", "*-*-01 01:00", "01:30:10"])
def test_what_cron_cannot_is_refused(schedule: str) -> None:
    with pytest.raises(AnsibleFilterError, match=r"cannot be given to cron; write it as 01:30, as Sun 04:00 or as Mon\.\.Fri 22:15, or use systemd's timers"):
        crontab(schedule)
