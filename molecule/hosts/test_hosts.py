"""The lab's own hosts, and a run that must leave them as they are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.lib.playbook import play
from tests.lib.site import Site

SITES = Site.read_all(Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "inventory")
VERSIONS = {"bullseye1": "11", "bookworm1": "12", "trixie1": "13"}


@pytest.fixture(params=VERSIONS)
def host(request: pytest.FixtureRequest) -> Site:
    return SITES[request.param]


def test_it_boots_as_a_whole_system(host: Site) -> None:
    assert host.run("systemctl is-system-running --wait") == "running"
    assert host.run(". /etc/os-release && echo $VERSION_ID") == VERSIONS[host.name]


def test_it_finds_the_others_by_name(host: Site) -> None:
    for other in SITES.values():
        assert host.run(f"getent hosts {other.name}").split()[0] == other.variables["lab_address"]


def test_only_the_key_lets_root_in(host: Site) -> None:
    assert "permitrootlogin without-password" in host.run("sshd -T").lower()
    assert host.run("passwd --status root").split()[1] == "L"


def files(host: Site) -> set[str]:
    """Return each path of the host's disk with its mode and owner, and for files the size and the time of change.

    Left out are what the system itself writes all the time and the cache that apt makes of its lists when it reads them.
    """
    own = ("/dev", "/proc", "/run", "/sys", "/tmp", "/var/tmp", "/var/log", "/var/lib/systemd", "/var/cache/apt", "/root/.ansible")
    pruned = " -o ".join(f"-path {path}" for path in own)
    shown = r"-type d -printf '%p %m %U:%G\n' -o -printf '%p %m %U:%G %s %T@ %l\n'"
    return set(host.run(rf"find / -xdev \( {pruned} \) -prune -o \( {shown} \)").splitlines())


@pytest.mark.parametrize("name", ["bookworm1", "trixie1"])
def test_another_release_is_refused_before_anything_is_changed(name: str, tmp_path: Path) -> None:
    host = SITES[name]
    before = files(host)
    (tmp_path / "group_vars").symlink_to((host.inventory / "group_vars").resolve())
    databases = {"indico_zeo": {"hosts": {name: {"lab_address": host.variables["lab_address"]}}}}
    (tmp_path / "hosts.yml").write_text(json.dumps({"indico": {"children": {**databases, "indico_app": {}, "indico_scheduler": {}}}}))
    run = play(tmp_path)
    assert run.returncode != 0
    sentence = f"{name} runs Debian {VERSIONS[name]}; Indico 1.2.2 needs Python 2.7, which Debian 11 is the last to package."
    assert [failure for failure in run.failures if sentence in failure], run.failures
    assert run.changed == {}
    assert files(host) ^ before == set()


def test_check_of_an_empty_host_predicts_all_and_changes_nothing() -> None:
    host = SITES["bullseye1"]
    before = files(host)
    run = host.play("--check", "--limit", "bullseye1")
    assert run.returncode == 0, run.output
    assert "/opt/indico/etc/indico.conf" in run.touched()
    assert "indico-zeo@main.service" in run.touched()
    assert files(host) ^ before == set()
