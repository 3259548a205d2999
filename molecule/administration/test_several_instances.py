"""A second instance on the same host, with an inventory of its own: refused while it would take something of the first, then beside it, then a copy of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from typing import Any

import pytest

from tests.lib.playbook import Run
from tests.lib.site import Site
from tests.lib.source import appears, start

GROUPS = ("indico_zeo", "indico_app", "indico_scheduler")
USERS = {"indico_user": "summer", "zeo_user": "summer-zeo"}
KEY = "3f0c1e6a-0b52-4c6e-9d0f-2a1b7c8d9e0f"
# What reaches beyond a site, or opens it: an API key, a consumer and a token of OAuth, an active agent of LiveSync, a plugin, an event that takes payments,
# and rooms on another host.
HARM = f"""
import time, transaction
from indico.core.db import DBMgr
from indico.web.flask.app import make_app
DBMgr.getInstance().startRequest()
with make_app(True).app_context():
    from indico.ext.livesync.agent import PushSyncAgent, SyncManager
    from indico.modules.oauth.db import AccessTokenHolder, Consumer, ConsumerHolder, Token
    from indico.web.http_api.auth import APIKey
    from MaKaC.common.info import HelperMaKaCInfo
    from MaKaC.conference import ConferenceHolder
    from MaKaC.plugins.base import PluginsHolder
    from MaKaC.user import AvatarHolder
    user = AvatarHolder().match({{'email': 'bruno@example.org'}})[0]
    APIKey(user, '{KEY}').create()
    ConsumerHolder().add(Consumer('phone', 'secret', 'Telephone'))
    AccessTokenHolder().add(Token('token', 'secret', time.time(), ConsumerHolder().getById('phone'), user, True))
    plugins = PluginsHolder()
    plugins.getPluginType('calendaring').getPlugin('outlook').getOption('password').setValue('hunter2')
    plugins.getPluginType('livesync').setActive(True)
    SyncManager.getDBInstance()
    agent = PushSyncAgent('library', 'Library', 'records', 60)
    SyncManager.getDBInstance().registerNewAgent(agent)
    agent.setActive(True)
    ConferenceHolder().getList()[0].getModPay().activated = True
    HelperMaKaCInfo.getMaKaCInfoInstance().setRoomBookingDBConnectionParams(('192.0.2.9', 9676))
    transaction.commit()
"""
REFRESH: dict[str, Any] = {"playbook": "playbooks/refresh.yml", "from": "/var/backups/indico"}


@pytest.fixture(scope="module")
def summer(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The second instance, not installed yet: behind a proxy, with everything as its own but the users."""
    inventory = tmp_path_factory.mktemp("summer")
    shutil.copytree(site.inventory / "group_vars", inventory / "group_vars")
    variables = {
        "lab_address": site.variables["lab_address"],
        "indico_instance": "summer",
        "indico_prefix": "/opt/summer",
        "indico_storages": [{"name": "main", "port": 9685}, {"name": "rooms", "port": 9686}],
        "indico_server_name": "summer.example.org",
        "indico_base_url": "https://summer.example.org",
        "web_tls": "none",
        "web_http_port": 8080,
        "web_trusted_proxies": [site.variables["lab_address"].rpartition(".")[0] + ".1"],
    }
    hosts: dict[str, Any] = {group: {"hosts": {"summer": {}}} for group in GROUPS}
    (inventory / "hosts.yml").write_text(json.dumps({"indico": {"children": {group: {} for group in GROUPS}, "hosts": {"summer": variables}}, **hosts}))
    return Site.read(inventory)


def declare(summer: Site, **variables: object) -> None:
    hosts = summer.inventory / "hosts.yml"
    declared = json.loads(hosts.read_text())
    declared["indico"]["hosts"]["summer"].update(variables)
    hosts.write_text(json.dumps(declared))


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
    declare(summer, **USERS)
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


def test_nothing_but_a_copy_for_tests_is_refreshed(site: Site, summer: Site) -> None:
    refused(summer.play(**REFRESH, confirm="summer"), "https://summer.example.org is no copy for tests: indico_staging is false. Nothing was done.")
    refused(summer.play(**REFRESH, confirm="summer", indico_staging=True), "The inventory says indico_staging, and summer still runs as a site that people use")
    refused(site.play(**REFRESH, confirm="indico", indico_staging=True), "which is this host: is it the one to be copied?")
    assert site.run("systemctl is-active summer-scheduler.service indico-scheduler.service").split() == ["active"] * 2


def test_a_copy_runs_no_scheduler(site: Site, summer: Site) -> None:
    declare(summer, indico_staging=True, indico_cache_backend="redis", indico_redis_password="b2f6d0c4a1e8937f")
    silenced = summer.play("--tags", "cache,indico,web,scheduler")
    assert silenced.returncode == 0 and "summer-scheduler.service" in silenced.touched(), silenced.output
    assert site.shell().run("systemctl start summer-scheduler.service").rc == 5  # there is no such unit
    assert site.run("systemctl list-units --all --plain --no-legend --state=loaded 'summer-scheduler*'") == ""
    status = summer.play(playbook="playbooks/status.yml")
    assert status.returncode == 0, status.output


def killed_refresh(site: Site, summer: Site) -> None:
    """Kill a refresh when the copy has the other one's databases, with all the harm in them: nothing opens that but a refresh that ends."""
    extra = {**REFRESH, "confirm": "summer"}
    process = start(summer, extra.pop("playbook"), extra)
    appears(site, '"$(ls -d /opt/summer/db/main/Data.fs.replaced-* | head -n 1)"', process)
    os.killpg(process.pid, 9)
    process.communicate()
    site.run("timeout 60 sh -c \"while pgrep -f '[a]nsible|[m]itogen'; do sleep 0.5; done\"")  # what it had begun on the host ends by itself
    sentence = "A refresh of this copy was begun and has not ended, so it may still do production harm. playbooks/refresh.yml, run again, ends it."
    refused(summer.play(playbook="playbooks/maintenance.yml", state="off"), sentence)
    site.run("systemctl start apache2.service")  # as somebody does whose other site is away
    assert site.browser().get("/").status_code == 200
    assert summer.browser().get("/").status_code == 503


def test_a_copy_shows_what_the_site_had_and_does_no_harm(site: Site, summer: Site) -> None:
    member = site.browser()
    assert member.log_in("bruno", site.password("demo")) == "in"
    event = f"/event/{member.create_meeting('Seen in both', category='2')}/"
    python = f"env PYTHON_EGG_CACHE={site.prefix}/tmp/egg-cache {site.prefix}/current/bin/python -W ignore"
    site.run(f"cd / && runuser -u {site.user} -- {python} - <<'EOF'\n{HARM}\nEOF")
    asked = f"/export/categ/2.json?ak={KEY}"
    assert site.browser().get(asked).status_code == 200
    site.run("/opt/indico/bin/indico-backup run")
    before = summer.browser()
    assert before.log_in("admin", site.password("admin")) == "in"

    unconfirmed = summer.play(**REFRESH, confirm="indico")
    assert unconfirmed.failures == ["This stops summer and replaces its data by what the plan above says. To do it, run this again with -e confirm=summer"], (
        unconfirmed.output
    )
    assert "Summer school" in summer.browser().get("/").text
    killed_refresh(site, summer)
    run = summer.play(**REFRESH, confirm="summer")
    assert not site.shell().file("/opt/summer/etc/maintenance/on").exists
    assert run.returncode == 0, run.output
    for step in (
        "rooms: address: 192.0.2.9:9676 -> 127.0.0.1:9686",
        "LiveSync agent library: inactive",
        "plugin livesync: off",
        "plugin calendaring.outlook: password emptied",
        "payment: off in 1 events",
        "API keys: 1 removed",
        "OAuth consumer Telephone: blocked",
        "OAuth access tokens: 1 removed",
        "cache: emptied, sessions end",
    ):
        assert step in " ".join(run.output.split()), run.output
    again = summer.play("--tags", "indico,scheduler")
    assert (again.returncode, again.changed) == (0, {}), again.output

    # Who could log in there logs in here; who was logged in before is somebody else now, or nobody.
    assert "Log out" not in before.get("/").text
    visitor, admin = summer.browser(), summer.browser()
    assert admin.log_in("admin", site.password("admin")) == "in"
    assert visitor.title(event).startswith("Seen in both")
    name = site.variables["lab_address"]
    for browser in (visitor, admin):
        for path in ("/", "/category/2/", event, f"{event}manage/", "/user/login", "/admin/", "/rooms/"):
            page = browser.get(path)
            assert page.status_code == 200
            assert re.search(r"This is a copy for tests, from \d{4}-\d\d-\d\d \d\d:\d\d UTC\. It sends no mail\.", page.text), path
            assert name not in page.text, path
    assert summer.browser().get(asked).status_code == 403
    assert "Seen in both" in site.browser().get(event).text and "This is a copy" not in site.browser().get(event).text


def test_a_copy_sends_no_mail(site: Site, summer: Site) -> None:
    """Both ask for a mail to be sent; the server at which Indico looks by default gets that of the site."""
    heard = "/run/heard"
    with contextlib.ExitStack() as after:
        relay = site.shell().run("systemctl is-active indico-mail.service").stdout.strip() == "active"
        if relay:
            site.run("systemctl stop indico-mail.service")
            after.callback(site.run, "systemctl start indico-mail.service")
        server = "python3 -u -W ignore -m smtpd -n -c DebuggingServer 127.0.0.1:25"
        site.run(f"rm -f {heard}; systemd-run --quiet --collect --unit heard --property StandardOutput=file:{heard} {server}")
        after.callback(site.run, "systemctl stop heard.service")
        site.run("until ss -ltn | grep -q 127.0.0.1:25; do sleep 0.2; done")
        begun = time.monotonic()
        assert summer.browser().post("/user/reset-password", {"email": "chloe@example.org"}).status_code == 303
        assert time.monotonic() - begun < 5
        assert site.browser().post("/user/reset-password", {"email": "dana@example.org"}).status_code == 303
        site.run(f"timeout 20 sh -c 'until grep -q dana@example.org {heard}; do sleep 0.2; done'")
        assert "chloe@example.org" not in site.run(f"cat {heard}")
    assert "Not sent: to ['chloe@example.org']" in site.run("cat /opt/summer/log/indico/indico.log")
    # What else might try, such as Indico's own programs, finds nobody.
    assert "SmtpServer = ('127.0.0.1', 1)" in site.run("cat /opt/summer/etc/indico.conf")
    assert site.run("ss -ltnH 'sport = :1'") == ""
