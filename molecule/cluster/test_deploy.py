"""Releases from a git repository reach the application hosts, and leave them again. The tests build on each other: one artifact serves most of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.lib.playbook import REPOSITORY
from tests.lib.site import Site

DEPLOY, ROLLBACK = "playbooks/deploy.yml", "playbooks/rollback.yml"
TEMPLATE, WELCOME = "indico/MaKaC/webinterface/tpls/CategoryDisplay.tpl", "indico/MaKaC/webinterface/rh/welcome.py"

# As Indico's own repository is: without what is only made for the published archive. Branch fix-1234 has another word on the home page.
MAKE = r"""set -e
rm -rf /srv/deploy && mkdir -p /srv/deploy/tree && cd /srv/deploy
wheels=$(ls -d {prefix}/wheelhouse/*/wheels | head -1)
pip=$(echo $wheels/../pip-*.whl)/pip
apt-get install -y -qq git > /dev/null
virtualenv -q -p python2.7 --no-pip --no-setuptools --no-wheel venv
venv/bin/python $pip install -q --no-index --no-deps --find-links $wheels setuptools 2>/dev/null
echo '{pin}' > pin.txt
export PIP_CERT=/etc/ssl/certs/ca-certificates.crt
venv/bin/python $pip download -q --no-deps --no-build-isolation --no-binary indico --require-hashes -r pin.txt 2>/dev/null
tar -xzf indico-*.tar.gz --strip-components 1 --no-same-owner -C tree
cd tree
rm -rf PKG-INFO *.egg-info
find . -name '*.mo' -delete
export GIT_AUTHOR_DATE=2026-01-02T03:04:05Z GIT_COMMITTER_DATE=2026-01-02T03:04:05Z # so that the commits are the same ones each time
export GIT_AUTHOR_NAME=ada GIT_AUTHOR_EMAIL=ada@example.org GIT_COMMITTER_NAME=ada GIT_COMMITTER_EMAIL=ada@example.org
git init -q .
git add -Af . && git commit -qm 'Indico 1.2.2' && git tag v1.2.2
git checkout -qb fix-1234
sed -i 's/Main categories/Principal categories/' {template} && git commit -qam 'Another word'
git clone -q --bare . ../indico.git
"""
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
def wanted(app: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the extra variables say of a branch with a patch and one more package."""
    pin = re.search(r"^indico==.*$", (REPOSITORY / "roles/python2/files/wheelhouse/indico.txt").read_text(), re.M)
    assert pin
    app.run(MAKE.format(prefix=app.prefix, pin=pin[0], template=TEMPLATE))
    directory = tmp_path_factory.mktemp("patches")
    for name, change in PATCHES.items():
        (directory / name).write_text(app.run(f"cd /srv/deploy/tree && {change} && git diff && git checkout -q .") + "\n")
    return {
        "python2_builder": app.name,
        "indico_source": "/srv/deploy/indico.git",
        "indico_version": "fix-1234",
        "indico_patches": [str(directory / "word.patch")],
        "indico_packages": ["iso8601==0.1.16"],
    }


def runs(app: Site) -> str:
    return app.run(f"basename $(readlink -f {app.prefix}/current)")


def locked(app: Site, process: subprocess.Popen[str]) -> None:
    """Wait until a run holds the lock of the host."""
    while not app.shell().run(f"test -e {app.prefix}/releases/.lock").succeeded:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)


def start(app: Site, playbook: str, extra: dict[str, Any]) -> subprocess.Popen[str]:
    """Start a playbook beside the test, in a session of its own."""
    command = ["ansible-playbook", "-i", str(app.inventory), playbook, "--extra-vars", json.dumps(extra)]
    environment = dict(os.environ, ANSIBLE_CONFIG=str(REPOSITORY / "ansible.cfg"), ANSIBLE_COLLECTIONS_PATH=str(REPOSITORY / "collections"))
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


@pytest.fixture(scope="module")
def before(app: Site) -> str:
    """The release that site.yml installed."""
    return runs(app)


@pytest.fixture(scope="module")
def release(app: Site, apps: list[Site], before: str, wanted: dict[str, Any]) -> str:
    """The release of the branch, deployed, while somebody else tries the same."""
    process = start(app, DEPLOY, wanted)
    locked(app, process)
    other = app.play(playbook=ROLLBACK, release=before)
    output = process.communicate()[0]
    assert process.returncode == 0, output
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
        assert re.search(rf"{one.name} runs {before} and would get fix-1234-[0-9a-f]{{12}}, which is not installed there yet\.", run.output)
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
    (addresses,) = {tuple(sorted(re.findall(r'/static/assets/[^"]+', one.browser().get("/").text))) for one in apps}
    assert len(addresses) > 5
    for one in apps:
        assert {one.browser().get(address).status_code for address in addresses[:3]} == {200}


def test_site_yml_leaves_a_deployed_release_alone(app: Site, release: str) -> None:
    """Run by cron it would otherwise undo a deployment or a rollback."""
    run = app.play("--tags", "indico,web")
    assert run.returncode == 0, run.output
    assert run.changed == {}
    assert f"{app.name} keeps {release}. The variables name another release (indico_version 1.2.2); playbooks/deploy.yml brings it." in run.output


def test_a_release_that_does_not_serve_is_put_back_by_itself(apps: list[Site], app: Site, release: str, wanted: dict[str, Any]) -> None:
    """The patch makes the home page an error that Indico answers with 200."""
    broken = {**wanted, "indico_patches": [str(wanted["indico_patches"][0]).replace("word", "broken")], "indico_health_seconds": 10}
    run = app.play(playbook=DEPLOY, **broken)
    assert run.returncode == 2
    message = run.failures[-1]
    assert re.match(r"\w+ does not run fix-1234-[0-9a-f]{12}: https?://127.0.0.1.* did not answer well 3 times in a row within 10 s: asked \d+ times,", message)
    assert "the last answer was 200 with an error page." in message
    assert f"{release} was put back and serves. The roll-out ends here; no host has it." in message
    for one in apps:
        assert runs(one) == release
        assert "Patched and powered by" in one.browser().get("/").text
        assert not one.shell().run(f"test -e {one.prefix}/releases/.lock").succeeded
    failed = [json.loads(line) for one in apps for line in one.run(f"tail -n 1 {one.prefix}/releases/.deployments").splitlines()]
    assert [line["result"][:7] for line in failed].count("failed:") == 1


def test_a_killed_run_leaves_a_lock_that_says_how_to_go_on(apps: list[Site], app: Site, before: str, release: str) -> None:
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
    run = app.play(playbook=ROLLBACK, unlock=True)
    print(f"the whole rollback of {len(apps)} hosts took {time.monotonic() - began:.0f} s")
    assert run.returncode == 0, run.output
    for one in apps:
        assert runs(one) == before
        text = one.browser().get("/").text
        assert "Main categories" in text
        assert "Patched" not in text
        print(re.findall(rf"{one.name} runs {before} \([0-9.]+ s[^)]*\)", run.output))
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


def test_releases_that_nobody_needs_go(apps: list[Site], release: str, before: str) -> None:
    run = apps[0].play(playbook=DEPLOY, indico_keep_releases=1)
    assert run.returncode == 0, run.output
    for one in apps:
        left = [name for name in one.run(f"ls {one.prefix}/releases").split() if not name.startswith("zeo-")]
        assert runs(one) in left
        assert len(left) <= 2
        assert len([name for name in left if name.startswith("fix-1234-")]) <= 1
        assert one.browser().get("/").status_code == 200
