"""Indico's scheduler: tasks as declared, tasks that run, fail and are killed, seen in the database, over HTTP and by the command for people."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lib.browser import Browser
from tests.lib.site import Site

DECLARED = {
    "JanitorTask": "daily at 03:30 UTC",
    "CategoryStatisticsUpdaterTask of category 0": "weekly on sat at 00:00 UTC",
    "RoomReservationTask": "every 30 times minutely",
}
# Tasks of a site's own. What the slow one leaves in the database shows that it came to its end.
PROBES = """
import time
from indico.core.db import DBMgr
from indico.modules.scheduler.tasks.periodic import PeriodicTask

class SlowTask(PeriodicTask):
    def __init__(self, frequency, note='', **rule):
        super(SlowTask, self).__init__(frequency, **rule)
        self.note = note
    def run(self):
        time.sleep(8)
        DBMgr.getInstance().getDBConnection().root()['probe_task'] = self.note

class BrokenTask(PeriodicTask):
    def run(self):
        raise Exception('no luck today')
"""


def inside(site: Site, script: str) -> str:
    """Run Python 2.7 in the release as the workers' user, in a request on the database, and return what it prints."""
    begin = "from indico.core.db import DBMgr\nmanager = DBMgr.getInstance()\nmanager.startRequest()\n"
    site.run(f"cat > {site.prefix}/tmp/script.py <<'EOF'\n{begin}{script}\nmanager.endRequest()\nEOF")
    return site.run(f"runuser -u {site.user} -- {site.prefix}/current/bin/python -W ignore {site.prefix}/tmp/script.py 2>/dev/null")


def manage(site: Site, words: str) -> Any:
    """Run the command for people and return its data; it must end well."""
    return json.loads(site.run(f"{site.prefix}/bin/{site.instance}-manage {words} --json"))


def listing(site: Site) -> dict[str, Any]:
    """Return all that there is of the scheduler, whether or not something is wrong with it."""
    return dict(json.loads(site.shell().run(f"{site.prefix}/bin/{site.instance}-manage tasks list --finished --json").stdout))


def tasks(site: Site, name: str, state: str) -> list[dict[str, Any]]:
    """Return the tasks of this name and state."""
    return [task for task in listing(site)["tasks"] if (task["name"], task["state"]) == (name, state)]


def wait_for(site: Site, name: str, state: str, number: int = 1, seconds: float = 120) -> dict[str, Any]:
    """Wait until so many tasks of this name have the state, and return the last of them."""
    deadline = time.monotonic() + seconds
    while True:
        found = tasks(site, name, state)
        if len(found) >= number:
            return found[-1]
        assert time.monotonic() < deadline, f"{name} is not {state} {number} times: {listing(site)['summary']}"
        time.sleep(2)  # a look costs a second of Indico's start


@pytest.fixture(scope="module", autouse=True)
def probes(site: Site) -> Iterator[None]:
    """Tasks of the site's own, of which one has begun to fail: it is tried five times, which takes 100 seconds."""
    module = f"{site.prefix}/current/lib/python2.7/site-packages/probes.py"
    site.run(f"cat > {module} <<'EOF'\n{PROBES}EOF\nsystemctl restart {site.instance}-scheduler")
    manage(site, "tasks add probes.BrokenTask --frequency monthly")
    manage(site, f"tasks run {wait_for(site, 'BrokenTask', 'waiting')['number']}")
    yield
    manage(site, "tasks remove probes.BrokenTask")  # the module stays: the daemon may be at it


def test_declared_tasks_wait(site: Site) -> None:
    listed = manage(site, "tasks list")
    assert listed["problems"] == []
    assert listed["daemon"]["alive"] is True
    waiting = {task["name"]: task["rule"] for task in listed["tasks"] if task["state"] == "waiting"}
    assert {name: waiting.get(name) for name in DECLARED} == DECLARED


def test_a_task_enqueued_twice_is_one_again(site: Site) -> None:
    """As people do it in indico_shell, after which there are two."""
    inside(
        site,
        "from indico.modules.scheduler import Client\nfrom indico.modules.scheduler.tasks.janitor import JanitorTask\nfrom dateutil.rrule import DAILY\n"
        "Client().enqueue(JanitorTask(DAILY, byhour=3, byminute=30))",
    )
    predicted = site.play("--tags", "scheduler", "--check")
    assert predicted.returncode == 0, predicted.output
    assert len(tasks(site, "JanitorTask", "waiting")) + len(tasks(site, "JanitorTask", "spooled")) == 2
    done = site.play("--tags", "scheduler")
    assert done.returncode == 0, done.output
    (steps,) = ([step for result in results for step in result.get("steps", [])] for results in done.changed.values())
    assert len(steps) == 1 and re.fullmatch(r"JanitorTask: one too many \(number (None|\d+)\) -> absent", steps[0])
    assert done.diff() == predicted.diff()
    deadline = time.monotonic() + 40
    while len(tasks(site, "JanitorTask", "waiting")) != 1 or tasks(site, "JanitorTask", "removed"):
        assert time.monotonic() < deadline, "the second one is still there"
        time.sleep(1)


def test_a_changed_rule_replaces_the_task(site: Site) -> None:
    changed = [{"task": "janitor", "frequency": "weekly", "weekdays": ["mon", "thu"], "hours": [4]}]
    run = site.play("--tags", "scheduler", scheduler_tasks=changed)
    assert run.returncode == 0, run.output
    assert "JanitorTask: daily at 03:30 UTC -> weekly on mon, thu at 04:00 UTC" in run.diff()
    wait_for(site, "JanitorTask", "waiting")
    assert "-> daily at 03:30 UTC" in site.play("--tags", "scheduler").diff()
    wait_for(site, "JanitorTask", "waiting")


def test_what_is_no_task_is_refused(site: Site) -> None:
    run = site.play("--tags", "scheduler", scheduler_tasks=[{"task": "indico.modules.scheduler.tasks.janitor.GardenerTask"}])
    assert [failure for failure in run.failures if failure.startswith("Indico has no task indico.modules.scheduler.tasks.janitor.GardenerTask")], run.failures
    run = site.play("--tags", "scheduler", scheduler_tasks=[{"task": "category_statistics", "category": "none"}])
    assert "There is no category none, which the task category_statistics is for." in run.failures
    run = site.play("--tags", "scheduler", scheduler_tasks=[{"task": "janitor", "arguments": {"colour": "green"}}])
    assert [failure for failure in run.failures if failure.startswith("The task janitor does not take these arguments:")], run.failures


def test_every_class_that_has_a_name_is_there(site: Site) -> None:
    """In check mode, which loads the class and makes the task."""
    names = ["suggestions", "livesync", "outlook", "room_reservations"]
    run = site.play("--tags", "scheduler", "--check", scheduler_tasks=[{"task": name, "hours": [5]} for name in names])
    assert run.returncode == 0, run.output
    for name in ("CategorySuggestionTask", "LiveSyncUpdateTask", "OutlookUpdateCalendarNotificationTask"):
        assert f"{name}: absent -> daily at 05:00 UTC" in run.diff()


def test_statistics_run_now_and_show_on_the_page(site: Site, visitor: Browser) -> None:
    assert "No statistics for the events" in visitor.get("/category/0/statistics").text
    number = wait_for(site, "CategoryStatisticsUpdaterTask of category 0", "waiting")["number"]
    assert manage(site, f"tasks run {number}")["steps"] == [f"CategoryStatisticsUpdaterTask of category 0 ({number}): runs now"]
    wait_for(site, "CategoryStatisticsUpdaterTask of category 0", "finished")
    page = re.sub("<[^>]*>", " ", visitor.get("/category/0/statistics").text)
    assert "Number of events" in page
    assert wait_for(site, "CategoryStatisticsUpdaterTask of category 0", "waiting")["rule"] == DECLARED["CategoryStatisticsUpdaterTask of category 0"]


def test_the_janitor_runs_now_and_old_events_are_gone(site: Site, member: Browser, visitor: Browser) -> None:
    """Ten years and more in a category that indico.conf names."""
    old, young = (member.create_meeting(title, category="1") for title in ("Too old", "Not old"))
    begin = "from datetime import timedelta\nfrom MaKaC.conference import ConferenceHolder\n"
    inside(site, f"{begin}ConferenceHolder().getById('{old}')._creationDS -= timedelta(4000)")
    assert visitor.title(f"/event/{old}/").startswith("Too old")
    before = len(tasks(site, "JanitorTask", "finished"))
    manage(site, f"tasks run {wait_for(site, 'JanitorTask', 'waiting')['number']}")
    wait_for(site, "JanitorTask", "finished", before + 1)
    assert "Too old" not in visitor.get(f"/event/{old}/").text
    assert visitor.title(f"/event/{young}/").startswith("Not old")


def test_scheduler_killed_while_a_task_runs(site: Site) -> None:
    """The task runs again and comes to its end."""
    add = {"task": "probes.SlowTask", "frequency": "monthly", "arguments": {"note": "done «é»"}}
    run = site.play("--tags", "scheduler", scheduler_tasks=[add])
    assert "SlowTask: absent -> monthly on day 1 at 00:00 UTC" in run.diff()
    manage(site, f"tasks run {wait_for(site, 'SlowTask', 'waiting')['number']}")
    wait_for(site, "SlowTask", "running")
    site.run(f"kill -9 {site.main_pid(f'{site.instance}-scheduler')}")
    wait_for(site, "SlowTask", "finished")
    assert inside(site, "print manager.getDBConnection().root().get('probe_task')") == "done «é»"
    other = site.play("--tags", "scheduler", scheduler_tasks=[{**add, "arguments": {"note": "other"}}])
    assert "SlowTask: monthly on day 1 at 00:00 UTC -> monthly on day 1 at 00:00 UTC, with other arguments" in other.diff()
    wait_for(site, "SlowTask", "waiting")
    assert manage(site, "tasks remove probes.SlowTask")["steps"] == ["SlowTask: monthly on day 1 at 00:00 UTC -> absent"]


def test_a_stopped_scheduler_is_a_problem_and_what_is_declared_meanwhile_runs_later(site: Site) -> None:
    unit = f"{site.instance}-scheduler.service"
    site.run(f"kill -9 {site.main_pid(unit)} && systemctl stop {unit}")
    listed = site.shell().run(f"{site.prefix}/bin/{site.instance}-manage tasks list")
    assert listed.rc == 1
    assert re.search(r"The database says that the scheduler runs here as process \d+, but there is no such process\.|No scheduler runs", listed.stderr)
    assert manage(site, "tasks add suggestions --hours 5")["steps"] == ["CategorySuggestionTask: absent -> daily at 05:00 UTC"]
    assert manage(site, "tasks add suggestions --hours 5")["steps"] == []
    site.run(f"systemctl start {unit}")
    wait_for(site, "CategorySuggestionTask", "waiting")
    assert manage(site, "tasks remove suggestions --dry-run")["steps"] == ["CategorySuggestionTask: daily at 05:00 UTC -> absent"]
    assert manage(site, "tasks remove suggestions")["steps"] == ["CategorySuggestionTask: daily at 05:00 UTC -> absent"]


def test_what_finished_long_ago_is_forgotten(site: Site) -> None:
    wait_for(site, "JanitorTask", "finished")
    assert manage(site, "tasks purge --days 1")["steps"] == []
    count = listing(site)["counts"]["finished"]
    predicted = manage(site, "tasks purge --days 0 --dry-run")["steps"]
    assert predicted == [f"{count} entries older than 0.0 days: deleted"]
    assert manage(site, "tasks purge --days 0")["steps"] == predicted
    assert manage(site, "tasks purge --days 0")["steps"] == []
    assert not tasks(site, "JanitorTask", "finished")
    assert wait_for(site, "JanitorTask", "waiting")["rule"] == DECLARED["JanitorTask"]


def test_metrics(site: Site) -> None:
    site.run(f"systemctl start {site.instance}-scheduler-metrics.service")
    written = site.run(f"cat {site.variables['scheduler_metrics_file']}")
    assert f'indico_scheduler_up{{instance_name="{site.instance}"}} 1' in written
    assert f'indico_scheduler_tasks{{instance_name="{site.instance}",state="waiting"}}' in written
    assert site.run(f"stat -c %a {site.variables['scheduler_metrics_file']}") == "644"


def test_a_failed_task_tells_why_and_is_requeued(site: Site, tmp_path: Path) -> None:
    failed = wait_for(site, "BrokenTask", "failed", seconds=150)
    assert failed["error"] == "no luck today"
    status = site.play(playbook="playbooks/status.yml", report_file=str(tmp_path / "status.json"))
    assert status.failures == [f"1 tasks failed, such as BrokenTask ({failed['number']}): no luck today."]
    assert json.loads((tmp_path / "status.json").read_text())[site.name]["scheduler"]["counts"]["failed"] == 1
    assert manage(site, "tasks requeue --dry-run")["steps"] == [f"BrokenTask ({failed['number']}): runs again"]
    assert manage(site, "tasks requeue")["steps"] == [f"BrokenTask ({failed['number']}): runs again"]
    wait_for(site, "BrokenTask", "running")
    assert manage(site, "tasks requeue")["steps"] == []


def test_deleting_wants_a_yes_and_a_number_that_is_there(site: Site) -> None:
    command = f"{site.prefix}/bin/{site.instance}-manage tasks delete"
    number = wait_for(site, "RoomReservationTask", "waiting")["number"]
    refused = site.shell().run(f"{command} {number}")
    assert (refused.rc, refused.stderr.strip()) == (1, f"This deletes {number} for good; add --yes.")
    assert site.shell().run(f"{command} 99999 --yes").stderr.strip() == "There is no task 99999."
    assert manage(site, f"tasks delete {number} --yes")["steps"] == [f"RoomReservationTask ({number}): deleted"]
    assert "RoomReservationTask: absent -> every 30 times minutely" in site.play("--tags", "scheduler").diff()
