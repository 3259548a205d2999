"""A second instance on the same host, with an inventory of its own: refused while it would take something of the first, and then beside it."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from tests.lib.playbook import Run
from tests.lib.site import Site

GROUPS = ("indico_zeo", "indico_app", "indico_scheduler")
USERS = {"indico_user": "summer", "zeo_user": "summer-zeo"}


@pytest.fixture(scope="module")
def summer(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The second instance, not installed yet: behind a proxy, with everything as its own but the users."""
    inventory = tmp_path_factory.mktemp("summer")
    shutil.copytree(site.inventory / "group_vars", inventory / "group_vars")
    variables = {
        "lab_address": site.variables["lab_address"],
        "indico_instance": "summer",
        "indico_prefix": "/opt/summer",
        "indico_storages": [{"name": "main", "port": 9685}],
        "indico_server_name": "summer.example.org",
        "indico_base_url": "https://summer.example.org",
        "web_tls": "none",
        "web_http_port": 8080,
        "web_trusted_proxies": [site.variables["lab_address"].rpartition(".")[0] + ".1"],
    }
    hosts: dict[str, Any] = {group: {"hosts": {"summer": {}}} for group in GROUPS}
    (inventory / "hosts.yml").write_text(json.dumps({"indico": {"children": {group: {} for group in GROUPS}, "hosts": {"summer": variables}}, **hosts}))
    return Site.read(inventory)


def refused(run: Run, *sentences: str) -> None:
    assert run.returncode != 0 and run.changed == {}, run.output
    assert [sentence for sentence in sentences if sentence not in "\n".join(run.failures)] == [], run.failures


def test_users_of_another_instance_are_refused(site: Site, summer: Site) -> None:
    users = site.run("getent passwd indico zeo")
    run = summer.play()
    refused(
        run,
        "indico_user: user indico is in use by the instance indico of this host (indico_user). If indico is gone, remove /etc/confops/indico.",
        "zeo_user: user zeo is in use by the instance indico of this host (zeo_user).",
    )
    assert site.run("getent passwd indico zeo") == users
    assert not site.shell().file("/opt/summer").exists


def test_the_name_of_another_instance_is_refused(site: Site, summer: Site) -> None:
    refused(
        summer.play(**USERS, indico_instance=site.instance),
        "indico_instance: indico is already the name of an instance of this host, in directory /opt/indico. If it is gone, remove /etc/confops/indico.",
    )


def test_both_run_beside_each_other(site: Site, summer: Site) -> None:
    hosts = summer.inventory / "hosts.yml"
    declared = json.loads(hosts.read_text())
    declared["indico"]["hosts"]["summer"].update(USERS)
    hosts.write_text(json.dumps(declared))
    installed = summer.play()
    assert installed.returncode == 0, installed.output

    for one in (site, summer):
        again = one.play()
        assert (again.returncode, again.changed) == (0, {}), again.output

    # Each has events, users and sessions of its own.
    admin = summer.browser()
    assert admin.log_in("bruno", site.password("demo")) == "Wrong login or password"
    assert admin.log_in("admin", site.password("admin")) == "in"
    event = f"/event/{admin.create_meeting('Summer school')}/"
    assert summer.browser().title(event).startswith("Summer school")
    assert "Summer school" not in site.browser().get(event).text
    assert "Log out" in admin.get("/").text or "Logout" in admin.get("/").text
    stranger = site.browser()
    stranger.session.cookies.update(admin.session.cookies)
    assert "Login" in stranger.get("/").text

    # Each writes logs of its own, and none to those of the other.
    for one, other in ((site, summer), (summer, site)):
        mark = f"/{one.instance}-was-here"
        one.browser().get(mark)
        assert one.run(f"grep --count '{mark} ' {one.prefix}/log/apache2/apache2-access.log").strip() == "1"
        assert one.shell().run(f"grep '{mark} ' {other.prefix}/log/apache2/apache2-access.log").rc == 1
    assert sorted({process.split()[0] for process in site.run("ps -eo user:20,args | grep '(wsgi:[a-z]'").splitlines()}) == ["indico", "summer"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"web_http_port": 80}, "web_http_port: port 80 is in use by the instance indico of this host (web_http_port)."),
        ({"indico_storages": [{"name": "main", "port": 9676}]}, "indico_storages: port 9676 is in use by the instance indico of this host (indico_storages)."),
    ],
)
def test_a_port_of_another_instance_is_refused(summer: Site, changes: dict[str, object], sentence: str) -> None:
    refused(summer.play("--tags", "zeo,web", **changes), sentence)
    assert summer.browser().get("/").status_code == 200


def test_a_host_name_of_another_instance_is_refused(site: Site, summer: Site) -> None:
    """A browser sends the cookies of a name to each of its ports."""
    name = site.variables["lab_address"]
    refused(
        summer.play("--tags", "web", indico_base_url=f"https://{name}:8443"),
        f"indico_base_url: host name {name} with its cookies is in use by the instance indico of this host",
    )


def test_one_stops_and_the_other_goes_on(site: Site, summer: Site) -> None:
    closed = summer.play(playbook="playbooks/maintenance.yml", state="on")
    assert closed.returncode == 0, closed.output
    assert summer.browser().get("/").status_code == 503
    site.run("systemctl stop summer-zeo@main.service && systemctl restart apache2.service")
    site.browser().wait()
    assert site.run("systemctl is-active indico-scheduler.service indico-zeo@main.service").split() == ["active"] * 2
    status = site.play(playbook="playbooks/status.yml")
    assert status.returncode == 0, status.output

    opened = summer.play("--tags", "zeo")
    assert opened.returncode == 0, opened.output
    opened = summer.play(playbook="playbooks/maintenance.yml", state="off")
    assert opened.returncode == 0, opened.output
    assert site.browser().get("/").status_code == summer.browser().get("/").status_code == 200
