"""Releases from a git repository reach the application hosts through the balancer, and leave them again, while visitors ask.

The tests build on each other: one artifact serves most of them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.lib.load import Visitors
from tests.lib.playbook import REPOSITORY
from tests.lib.site import Site
from tests.lib.source import appears, make, runs, start

DEPLOY, ROLLBACK = "playbooks/deploy.yml", "playbooks/rollback.yml"
WELCOME = "indico/MaKaC/webinterface/rh/welcome.py"
PATCHES = {
    "word.patch": "sed -i 's/Powered by /Patched and powered by /' indico/MaKaC/webinterface/tpls/Footer.tpl",
    "broken.patch": f"sed -i 's/wfReg = .*/raise ValueError(\"broken\")/' {WELCOME}",
}


@pytest.fixture(scope="module")
def inventory() -> Path:
    return Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "inventory"


@pytest.fixture(scope="module")
def apps(inventory: Path) -> list[Site]:
    """The application hosts, as a run takes them."""
    sites = Site.read_all(inventory)
    command = ["ansible-inventory", "-i", str(inventory), "--list"]
    done = subprocess.run(command, env=dict(os.environ, ANSIBLE_CONFIG=str(REPOSITORY / "ansible.cfg")), cwd=REPOSITORY, check=True, capture_output=True)
    return [sites[name] for name in json.loads(done.stdout)["indico_app"]["hosts"]]


@pytest.fixture(scope="module")
def app(apps: list[Site]) -> Site:
    return apps[0]


@pytest.fixture(scope="module")
def balancer(inventory: Path) -> Site:
    return Site.read_all(inventory)["lb1"]


@pytest.fixture(scope="module")
def wanted(app: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the extra variables say of a branch with a patch and one more package."""
    directory = tmp_path_factory.mktemp("patches")
    return {
        **make(app, PATCHES, directory),
        "indico_patches": [str(directory / "word.patch")],
        "indico_packages": ["iso8601==0.1.16"],
    }


def locked(app: Site, process: subprocess.Popen[str]) -> None:
    """Wait until a run holds the lock of the host."""
    appears(app, f"{app.prefix}/releases/.lock", process)


def drained(balancer: Site) -> set[str]:
    """Return who gets nobody from the balancer, though it is up."""
    rows = balancer.run("echo show stat | socat STDIO UNIX-CONNECT:/run/indico-loadbalancer/admin.sock").splitlines()
    return {row.split(",")[1] for row in rows if ",DRAIN," in row}


def at_ease(visitors: Visitors, output: str) -> None:
    """See that every request was answered, and say how long the hosts took."""
    print(dict(visitors.answers), f"the slowest after {visitors.slowest:.2f} s;", *re.findall(r"\w+ runs \S+ \([0-9.]+ s[^)]*\)", output))
    assert set(visitors.answers) == {"200"}, visitors.answers
    assert visitors.answers["200"] > 100


@pytest.fixture(scope="module")
def before(app: Site) -> str:
    """The release that site.yml installed."""
    return runs(app)


@pytest.fixture(scope="module")
def release(app: Site, apps: list[Site], balancer: Site, before: str, wanted: dict[str, Any]) -> str:
    """The release of the branch, deployed, while somebody else tries the same and visitors ask."""
    with Visitors(balancer.browser(), "/category/2/") as visitors:
        process = start(app, DEPLOY, wanted)
        locked(app, process)
        other = app.play(playbook=ROLLBACK, release=before)
        output = process.communicate()[0]
    assert process.returncode == 0, output
    at_ease(visitors, output)
    turns = [json.loads(one.run(f"cat {one.prefix}/current/deployed.json")) for one in apps]
    print([(turn["began"], turn["ended"]) for turn in turns])
    assert all(first["ended"] <= second["began"] for first, second in zip(turns, turns[1:])), turns
    assert other.returncode != 0
    who = subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout.strip()
    where = subprocess.run(["hostname"], check=True, capture_output=True, text=True).stdout.strip()
    assert re.search(rf"the releases are locked by {who} at {where} since \S+Z, to deploy fix-1234-[0-9a-f]{{12}}\. ", other.failures[-1])
    assert "Nothing was done." in other.failures[-1]
    (name,) = {runs(one) for one in apps}
    return name


def test_a_check_says_what_would_be_done(app: Site, apps: list[Site], before: str, wanted: dict[str, Any]) -> None:
    run = app.play("--check", playbook=DEPLOY, **wanted)
    assert run.returncode == 0, run.output
    assert run.changed == {}
    for one in apps:
        assert re.search(rf"{one.name} runs {before} and would get fix-1234-[0-9a-f]{{12}}, which is not installed there yet \(commit \w+\)\.", run.output)
        assert runs(one) == before
    assert app.run(f"ls -A {app.prefix}/releases").split().count(".lock") == 0


def test_a_branch_that_is_not_there_is_refused(app: Site, wanted: dict[str, Any]) -> None:
    run = app.play(playbook=DEPLOY, **{**wanted, "indico_version": "fix-999"})
    assert run.returncode != 0
    assert run.failures == ["/srv/deploy/indico.git has no branch and no tag fix-999. Its branches: fix-1234, master. A commit is named by its 40 digits."]


def test_a_branch_with_a_patch_is_served(apps: list[Site], app: Site, before: str, release: str) -> None:
    assert re.fullmatch("fix-1234-[0-9a-f]{12}", release)
    commit = app.run("git -C /srv/deploy/indico.git rev-parse fix-1234")
    for one in apps:
        text = one.browser().get("/").text
        assert "Principal categories" in text
        assert "Patched and powered by" in text
        manifest = json.loads(one.run(f"cat {one.prefix}/current/manifest.json"))
        assert (manifest["version"], manifest["commit"], manifest["source"]) == ("fix-1234", commit, "/srv/deploy/indico.git")
        assert [patch["name"] for patch in manifest["patches"]] == ["word.patch"]
        assert manifest["extra_packages"] == ["iso8601==0.1.16"]
        deployed = json.loads(one.run(f"cat {one.prefix}/current/deployed.json"))
        assert (deployed["from"], deployed["commit"], deployed["result"]) == (before, commit, "ok")
        assert (
            one.run(f"{one.prefix}/current/bin/python -c 'import iso8601, pkg_resources; print(pkg_resources.get_distribution(\"iso8601\").version)'")
            == "0.1.16"
        )
        # Made from what the repository has: the published archive brings it.
        assert one.run(f"ls {one.prefix}/current/lib/python2.7/site-packages/indico/locale/fr_FR/LC_MESSAGES/messages.mo")
    status = app.play(playbook="playbooks/status.yml")
    assert f"commit {commit[:12]} of /srv/deploy/indico.git, with word.patch, and iso8601==0.1.16, deployed by " in status.output


def files(site: Site, directory: str) -> str:
    """Return the files of a release with their times, without those that a run makes."""
    apart = "! -name .complete ! -name deployed.json ! -name 'MaKaCConfig.py*' ! -path '*/static/assets/*'"
    return site.run(f"cd {directory} && find . -type f {apart} -printf '%P %T@\\n' | LC_ALL=C sort")


def test_each_host_names_its_files_alike(apps: list[Site], app: Site, release: str) -> None:
    """Times and addresses are those of every other host, and of the same artifact installed once more."""
    wheels, artifact = f"{app.prefix}/wheelhouse", release.rpartition("-")[2]
    install = app.run(f"ls -t {wheels}/*/install | head -1")
    app.run(f"{install} /srv/deploy/{release} indico {wheels}/{artifact}")
    (listing,) = {*(files(one, f"{one.prefix}/releases/{release}") for one in apps), files(app, f"/srv/deploy/{release}")}
    assert len(listing.splitlines()) > 5000


def test_whichever_host_makes_a_page_each_has_what_it_names(apps: list[Site], balancer: Site, release: str) -> None:
    """All scripts and styles are compiled when a release is made, so that no page has to."""
    member = balancer.browser()
    assert member.log_in("bruno", balancer.password("demo")) == "in"
    event = member.create_meeting("Scripts and styles", category="2")
    pages = [member.get(path) for path in ("/", f"/event/{event}/", f"/event/{event}/manage/", f"/event/{event}/manage/timetable/")]
    assert [page.status_code for page in pages] == [200] * 4
    named = {address for page in pages for address in re.findall(r"""<(?:script|link)[^>]* (?:src|href)=["']([^"']+\.(?:js|css)[^"']*)""", page.text)}
    compiled = {address for address in named if "/static/assets/" in address}
    print(f"{len(named)} scripts and styles, {len(compiled)} of them compiled")
    assert {"indico_management", "indico_timetable", "screen_sass"} <= {re.sub("_[0-9a-f]{8}[.].*", "", Path(address).name) for address in compiled}
    for address in sorted(named):
        answers = [one.browser().get(address) for one in apps]
        assert [answer.status_code for answer in answers] == [200] * len(apps), address
        assert len({answer.content for answer in answers}) == 1, address
        # Each host writes vars.js itself.
        assert len({answer.headers["ETag"] for answer in answers}) == 1 or address.endswith("/vars.js"), address
    for one in apps:
        packages = f"{one.prefix}/current/lib/python2.7/site-packages"
        assert one.run(f"find {packages}/htdocs/static/assets/ -type f -newer {packages}/indico/web/assets.py") == ""


def test_site_yml_leaves_a_deployed_release_alone(app: Site, release: str) -> None:
    """Run by cron it would otherwise undo a deployment or a rollback."""
    run = app.play("--tags", "indico,web", "--limit", app.name)
    assert run.returncode == 0, run.output
    assert run.changed == {}
    assert f"{app.name} keeps {release}. The variables name another release (indico_version 1.2.2); playbooks/deploy.yml brings it." in run.output


def test_a_release_that_does_not_serve_is_put_back_by_itself(apps: list[Site], app: Site, balancer: Site, release: str, wanted: dict[str, Any]) -> None:
    """The patch makes the home page an error that Indico answers with 200."""
    broken = {**wanted, "indico_patches": [str(wanted["indico_patches"][0]).replace("word", "broken")], "indico_health_seconds": 30}
    with Visitors(balancer.browser(), "/category/2/") as visitors:
        run = app.play(playbook=DEPLOY, **broken)
    assert run.returncode == 2
    at_ease(visitors, run.output)
    message = run.failures[-1]
    assert re.match(r"\w+ does not run fix-1234-[0-9a-f]{12}: https?://127.0.0.1.* did not answer well 3 times in a row within 30 s: asked \d+ times,", message)
    assert "the last answer was 200 with an error page." in message
    assert f"{release} was put back and serves. The roll-out ends here; no host has it." in message
    for one in apps:
        assert runs(one) == release
        assert "Patched and powered by" in one.browser().get("/").text
        assert not one.shell().run(f"test -e {one.prefix}/releases/.lock").succeeded
    last = [json.loads(one.run(f"tail -n 1 {one.prefix}/releases/.deployments"))["result"][:7] for one in apps]
    assert last == ["failed:"] + ["ok"] * (len(apps) - 1)  # it was never begun on the others
    assert drained(balancer) == set()


def test_a_killed_run_leaves_a_lock_that_says_how_to_go_on(apps: list[Site], app: Site, balancer: Site, before: str, release: str) -> None:
    """And a rollback takes seconds."""
    process = start(app, ROLLBACK, {})
    locked(app, process)
    os.killpg(process.pid, 9)
    process.communicate()
    time.sleep(5)  # what it had begun on a host ends by itself
    refused = app.play(playbook=ROLLBACK)
    assert refused.returncode != 0
    assert "-e unlock=true" in refused.failures[-1]
    began = time.monotonic()
    with Visitors(balancer.browser(), "/category/2/") as visitors:
        run = app.play(playbook=ROLLBACK, unlock=True)
    print(f"the whole rollback of {len(apps)} hosts took {time.monotonic() - began:.0f} s")
    assert run.returncode == 0, run.output
    at_ease(visitors, run.output)
    for one in apps:
        assert runs(one) == before
        text = one.browser().get("/").text
        assert "Main categories" in text
        assert "Patched" not in text
    # Nobody knows of one before that.
    again = app.play(playbook=ROLLBACK)
    assert again.returncode != 0
    assert f"No deployment brought {before}, so nobody knows what ran before it; name a release with -e release=." in again.failures[0]
    assert release in again.failures[0]


def test_maintenance_refuses_a_deployment(app: Site, before: str) -> None:
    app.run(f"mkdir -p {app.prefix}/etc/maintenance && echo 60 > {app.prefix}/etc/maintenance/on")
    run = app.play(playbook=DEPLOY)
    app.run(f"rm -r {app.prefix}/etc/maintenance")
    assert run.returncode != 0
    assert run.failures[0].startswith(f"Maintenance is on at {app.name} since ")
    assert runs(app) == before


def test_a_host_that_dies_in_its_turn_is_done_again_later(
    apps: list[Site], app: Site, balancer: Site, before: str, release: str, wanted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hosts that are left say so, with Ansible's own strategy. The run that finishes it removes releases that nobody needs."""
    monkeypatch.delenv("ANSIBLE_STRATEGY", raising=False)
    with Visitors(balancer.browser(), "/category/2/") as visitors:
        process = start(app, DEPLOY, wanted)
        while drained(balancer) != {app.name}:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.2)
        app.power_off()
        output = process.communicate(timeout=200)[0]
        app.power_on()
        assert process.returncode != 0
        sentence = f"{app.name} could not be reached any more, or a load balancer for it (see above), so the roll-out of {release} ends here; no host has it."
        assert sentence in " ".join(output.split()), output
        assert [runs(one) for one in apps[1:]] == [before] * (len(apps) - 1)
        assert [one.shell().run(f"test -e {one.prefix}/releases/.lock").succeeded for one in apps] == [True] + [False] * (len(apps) - 1)
        assert drained(balancer) <= {app.name}
        for one in apps:
            one.run(f"mkdir {one.prefix}/releases/old-0123456789ab && touch -d 2020-01-01 {one.prefix}/releases/old-0123456789ab/.complete")
        run = app.play(playbook=DEPLOY, unlock=True, indico_keep_releases=1, **wanted)
    assert run.returncode == 0, run.output
    at_ease(visitors, run.output)
    for one in apps:
        assert runs(one) == release
        left = set(one.run(f"ls {one.prefix}/releases").split())
        assert {before, release} <= left and "old-0123456789ab" not in left
        assert "Patched and powered by" in one.browser().get("/").text
    assert drained(balancer) == set()
