"""Two applications behind a balancer: one site for its visitors, whatever happens to one of them."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.load import Visitors
from tests.lib.playbook import Run, play
from tests.lib.site import Site

SITES = Site.read_all(Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "inventory")
BALANCER, APPLICATIONS, DATABASE = SITES["lb1"], [SITES["app1"], SITES["app2"]], SITES["db1"]
ASK = "echo show stat | socat STDIO UNIX-CONNECT:/run/indico-loadbalancer/admin.sock"
SERVICE = {"hosts": "app1", "gather_facts": False, "become": True}


def say(*commands: str) -> None:
    """Tell the balancer something by its admin socket."""
    for command in commands:
        BALANCER.run(f"echo {command} | socat STDIO UNIX-CONNECT:/run/indico-loadbalancer/admin.sock")


def only(name: str) -> None:
    """Have the balancer send visitors to this application alone."""
    for application in APPLICATIONS:
        say(f"set server indico/{application.name} state {'ready' if application.name == name else 'drain'}")


def states() -> dict[str, str]:
    """Return how the balancer sees each application."""
    rows = [line.split(",") for line in BALANCER.run(ASK).splitlines()]
    status = rows[0].index("status")
    return {row[1]: row[status] for row in rows if row[0] == "indico" and row[1] != "BACKEND"}


def served() -> dict[str, int]:
    """Return how many requests each application has had from the balancer."""
    rows = [line.split(",") for line in BALANCER.run(ASK).splitlines()]
    total = rows[0].index("stot")
    return {row[1]: int(row[total]) for row in rows if row[0] == "indico" and row[1] != "BACKEND"}


def wait_until(name: str, state: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while states()[name] != state:
        assert time.monotonic() < deadline, f"{name} is {states()[name]} and not {state}"
        time.sleep(0.5)


def move(tmp_path: Path, *verbs: str, server: str = "app1", **extra: object) -> Run:
    """Run tasks/drain.yml or tasks/admit.yml as the play of an application host does."""
    role = {"name": "confops.indico.loadbalancer"}
    variables = {"loadbalancer_hosts": ["lb1"], "common_wanted": False}
    tasks = [{"name": verb.capitalize(), "ansible.builtin.include_role": {**role, "tasks_from": verb}, "vars": variables} for verb in verbs]
    (tmp_path / "move.yml").write_text(json.dumps([{**SERVICE, "name": "Move", "hosts": server, "tasks": tasks}]), encoding="utf-8")
    return play(BALANCER.inventory, playbook=str(tmp_path / "move.yml"), **extra)


@pytest.fixture
def all_up() -> Iterator[None]:
    """Whatever a test does to the balancer's view, the next one begins with both applications in service."""
    for application in APPLICATIONS:
        wait_until(application.name, "UP")
    yield
    say(*(f"set server indico/{application.name} state ready" for application in APPLICATIONS))


def test_each_host_has_its_own_part() -> None:
    units = "systemctl list-units --plain --no-legend --state=active 'indico-*.service' 'apache2*' 'haproxy*' | cut -d ' ' -f 1"
    assert BALANCER.run(units).split() == ["indico-loadbalancer.service"]
    for application in APPLICATIONS:
        assert application.run(units).split() == ["apache2.service"]
    assert {"indico-redis.service", "indico-scheduler.service", "indico-zeo@main.service", "indico-zeo@rooms.service"} <= set(DATABASE.run(units).split())
    assert BALANCER.run("stat --format '%U %a' /run/indico-loadbalancer /run/indico-loadbalancer/admin.sock").splitlines() == ["root 700", "root 600"]
    assert BALANCER.run("ps -o user= -C haproxy | sort -u").split() == ["haproxy", "root"]


def test_pages_come_through_the_balancer_from_both() -> None:
    before = served()
    visitor = BALANCER.browser()
    for _number in range(6):
        visitor.session.get(visitor.base_url + "/", headers={"Connection": "close"}, timeout=60).raise_for_status()
    assert all(served()[name] > before[name] for name in before)
    answer = visitor.session.get(f"http://{BALANCER.variables['lab_address']}/category/2/?x=1", timeout=10, allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (301, f"{visitor.base_url}/category/2/?x=1")
    assert visitor.get("/").headers["Strict-Transport-Security"] == "max-age=31536000"


def test_what_a_visitor_says_of_proxies_counts_for_nothing() -> None:
    visitor = BALANCER.browser()
    visitor.session.headers.update({"X-Forwarded-Proto": "http", "X-Forwarded-For": "192.0.2.99"})
    assert visitor.log_in("bruno", BALANCER.password("demo")) == "in"
    assert "Logout" in visitor.get("/").text


def test_whoever_logs_in_at_one_is_logged_in_at_the_other(all_up: None) -> None:
    member = BALANCER.browser()
    only("app1")
    assert member.log_in("bruno", BALANCER.password("demo")) == "in"
    only("app2")
    page = member.get("/").text
    assert "Logout" in page and "<!-- worker: app2 -->" in page


def test_what_one_stores_the_other_serves(all_up: None) -> None:
    member, visitor = BALANCER.browser(), BALANCER.browser()
    only("app2")
    assert member.log_in("bruno", BALANCER.password("demo")) == "in"
    event = member.create_meeting("Shared «é»", category="2")
    only("app1")
    assert visitor.title(f"/event/{event}/").startswith("Shared «é»")
    # A file that the sample content stored by way of app1.
    category = visitor.get("/category/2/").text + visitor.get("/category/2/overview?period=week").text
    pages = [visitor.get(number).text for number in sorted(set(re.findall(r"/event/\d+/", category)))]
    stored = next(found[1] for found in (re.search(r'href="([^"]+/material/[^"]+\.pdf)"', page) for page in pages) if found)
    files = [visitor.get(stored).content]
    only("app2")
    files.append(visitor.get(stored).content)
    assert files[0] == files[1] and files[1].startswith(b"%PDF")


def test_temporary_files_that_two_requests_need_are_shared() -> None:
    """Such as the picture behind a badge, which one request uploads and the next one shows."""
    configuration = [application.run("grep ^UploadedFilesSharedTempDir /opt/indico/etc/indico.conf") for application in APPLICATIONS]
    assert configuration == ["UploadedFilesSharedTempDir = '/opt/indico/tmp/shared'"] * 2
    APPLICATIONS[0].run("runuser -u indico -- sh -c 'echo here > /opt/indico/tmp/shared/Indico-seen'")
    assert APPLICATIONS[1].run("runuser -u indico -- cat /opt/indico/tmp/shared/Indico-seen") == "here"
    APPLICATIONS[1].run("rm /opt/indico/tmp/shared/Indico-seen")


def test_a_host_is_drained_and_admitted_while_visitors_ask(tmp_path: Path, all_up: None) -> None:
    member = BALANCER.browser()
    assert member.log_in("bruno", BALANCER.password("demo")) == "in"
    with Visitors(BALANCER.browser(), "/category/2/") as visitors:
        drained = move(tmp_path, "drain")
        assert drained.returncode == 0, drained.output
        assert states() == {"app1": "DRAIN", "app2": "UP"}
        before = served()
        assert "Logout" in member.get("/").text
        BALANCER.run("systemctl reload indico-loadbalancer.service")  # which forgets nobody
        assert states() == {"app1": "DRAIN", "app2": "UP"}
        time.sleep(2)
        assert served()["app1"] == 0 and before["app2"] > 0  # the new process counts anew
        assert move(tmp_path, "drain").changed == {}
        admitted = move(tmp_path, "admit")
        assert admitted.returncode == 0, admitted.output
        time.sleep(2)
    assert set(visitors.answers) == {"200"}, visitors.answers
    assert states() == {"app1": "UP", "app2": "UP"} and served()["app1"] > 0
    assert drained.changed.keys() == {"confops.indico.loadbalancer : Drain | Send nobody new to the host"}
    assert admitted.changed.keys() == {"confops.indico.loadbalancer : Admit | Send requests to the host again"}


def test_the_last_one_is_not_drained(tmp_path: Path, all_up: None) -> None:
    APPLICATIONS[1].run("systemctl stop apache2.service")
    wait_until("app2", "DOWN")
    refused = move(tmp_path, "drain")
    APPLICATIONS[1].run("systemctl start apache2.service")
    assert refused.returncode != 0
    assert [one for one in refused.failures if one.startswith("app1 stays in service: lb1 has no other server that is up (app1 is UP, app2 is DOWN).")]
    assert states()["app1"] == "UP"


def test_who_does_not_exist_is_refused(tmp_path: Path, all_up: None) -> None:
    refused = move(tmp_path, "drain", loadbalancer_server="app9")
    assert refused.returncode != 0
    assert "app9" in refused.output


def test_no_visitor_notices_that_a_host_dies_and_comes_back(all_up: None) -> None:
    member = BALANCER.browser()
    assert member.log_in("bruno", BALANCER.password("demo")) == "in"
    with Visitors(BALANCER.browser(), "/category/2/") as visitors:
        time.sleep(2)
        APPLICATIONS[0].power_off()
        wait_until("app1", "DOWN")
        assert "Logout" in member.get("/").text
        before = served()["app1"]
        APPLICATIONS[0].power_on()
        wait_until("app1", "UP", 90)
        time.sleep(3)
    print(f"{visitors.answers} answers, the slowest after {visitors.slowest:.1f} s")
    assert set(visitors.answers) == {"200"}, visitors.answers
    assert served()["app1"] > before


def test_maintenance_is_seen_through_the_balancer(all_up: None) -> None:
    closed = BALANCER.play(playbook="playbooks/maintenance.yml", state="on", text="We are back at 14:00.")
    assert closed.returncode == 0, closed.output
    time.sleep(6)  # in which the balancer looks at each of them more than twice
    answers = [BALANCER.browser().get("/") for _number in range(4)]
    seen = states()
    status = BALANCER.play(playbook="playbooks/status.yml")
    refused = BALANCER.play(playbook="playbooks/maintenance.yml", state="on", allow="192.0.2.7")
    opened = BALANCER.play(playbook="playbooks/maintenance.yml", state="off")
    assert opened.returncode == 0, opened.output
    assert all(answer.status_code == 503 and answer.headers["Retry-After"] == "3600" and "We are back at 14:00." in answer.text for answer in answers)
    assert seen == {"app1": "UP", "app2": "UP"}
    assert status.returncode == 0, status.failures
    assert "applications: app1 is UP, app2 is UP" in status.output
    assert [one for one in refused.failures if one.startswith("allow cannot work behind a proxy")]
    assert BALANCER.browser().get("/").status_code == 200


def test_hosts_that_do_not_share_are_refused(all_up: None) -> None:
    APPLICATIONS[1].run("umount /opt/indico/archive")
    run = BALANCER.play("--tags", "indico", "--limit", "app2", indico_shared_mounts=[])
    again = BALANCER.play("--tags", "indico", "--limit", "app2")
    assert run.returncode != 0
    sentence = "/opt/indico/archive of app2 is not the one of app1, and what is written there would not be found here: mount the same on both"
    assert [one for one in run.failures if one.startswith(sentence)], run.failures
    assert APPLICATIONS[0].run("find /opt/indico/archive /opt/indico/tmp/shared -name '.shared-*'") == ""
    assert again.returncode == 0, again.output


def test_a_user_of_another_number_is_refused() -> None:
    run = BALANCER.play("--tags", "never", "--limit", "app1", indico_uid=5002)
    assert run.returncode != 0
    sentence = "indico of app1 has the number 5001, and indico_uid is 5002; what it wrote belongs to the old number."
    assert [one for one in run.failures if one.startswith(sentence)], run.failures


def test_a_change_reloads_and_does_not_restart(all_up: None) -> None:
    pid = BALANCER.main_pid("indico-loadbalancer.service")
    with Visitors(BALANCER.browser(), "/category/2/") as visitors:
        changed = BALANCER.play("--tags", "loadbalancer", "--limit", "lb1", loadbalancer_check_interval=3)
        back = BALANCER.play("--tags", "loadbalancer", "--limit", "lb1")
    assert changed.touched() == back.touched() == ["/etc/haproxy/indico.cfg", "indico-loadbalancer.service"], changed.failures
    assert BALANCER.main_pid("indico-loadbalancer.service") == pid
    assert set(visitors.answers) == {"200"}, visitors.answers
