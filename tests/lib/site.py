"""A scenario's hosts: where they are, who may log in, and a shell on each."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

import testinfra
from testinfra.host import Host

from tests.lib.browser import Browser
from tests.lib.playbook import REPOSITORY, Run, play

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "confops"

SSH_OPTIONS = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"


@dataclass
class Site:
    """One host of a scenario's inventory and what the inventory says of it. variables holds the raw host variables."""

    inventory: Path
    name: str
    variables: dict

    @classmethod
    def read_all(cls, inventory: Path) -> dict[str, Site]:
        """Return every host of the inventory by its name."""
        environment = dict(os.environ, ANSIBLE_CONFIG=str(REPOSITORY / "ansible.cfg"))
        command = ["ansible-inventory", "-i", str(inventory), "--list"]
        done = subprocess.run(command, env=environment, cwd=REPOSITORY, check=True, capture_output=True, text=True)
        hosts = json.loads(done.stdout)["_meta"]["hostvars"]
        return {name: cls(inventory, name, variables) for name, variables in hosts.items()}

    @classmethod
    def read(cls, inventory: Path) -> Site:
        """Return the only host of the inventory."""
        (site,) = cls.read_all(inventory).values()
        return site

    @property
    def prefix(self) -> str:
        return self.variables.get("indico_prefix", "/opt/indico")

    @property
    def instance(self) -> str:
        return self.variables.get("indico_instance", "indico")

    @property
    def user(self) -> str:
        return self.variables.get("indico_user", "indico")

    @property
    def storages(self) -> list[str]:
        return [storage["name"] for storage in self.variables.get("indico_storages", [{"name": "main"}])]

    @property
    def units(self) -> list[str]:
        cache = self.variables.get("indico_cache_backend", "files")
        servers = [f"{self.instance}-zeo@{name}.service" for name in self.storages] + ([] if cache == "files" else [f"{self.instance}-{cache}.service"])
        return [*servers, f"{self.instance}-scheduler.service", "apache2.service"]

    @cached_property
    def certificate(self) -> Path:
        """Return a file with the certificate that the host made for itself."""
        copy = CACHE / "lab" / f"{self.name}.crt"
        copy.write_text(self.run(f"cat {self.prefix}/etc/selfsigned-{self.variables['lab_address']}-v2.crt"))
        return copy

    def browser(self) -> Browser:
        """Return a new visitor, who comes through a proxy where the site expects one."""
        address = self.variables["lab_address"]
        if self.variables.get("web_tls") == "none":
            public = self.variables.get("indico_base_url") or f"https://{self.variables['indico_server_name']}"
            headers = {"Host": urlsplit(public).netloc, "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
            base_url = f"http://{address}:{self.variables.get('web_http_port', 80)}{urlsplit(public).path}"
            return Browser(base_url, headers=headers, public_url=public)
        return Browser(f"https://{address}", str(self.certificate))

    def password(self, who: str) -> str:
        """Return the password of the administrator ('admin') or of the sample users ('demo')."""
        return (CACHE / "lab" / f"{who}_password").read_text().strip()

    def copy(self, files: list[Path], directory: str) -> None:
        """Copy files into a directory of the host."""
        options = ["-i", CACHE / "lab/id_ed25519", *SSH_OPTIONS.split()]
        subprocess.run(["scp", "-q", *options, *files, f"root@{self.variables['lab_address']}:{directory}"], check=True)

    def shell(self) -> Host:
        """Return a root shell on the host, over SSH."""
        return testinfra.get_host(
            f"ssh://root@{self.variables['lab_address']}", ssh_identity_file=str(CACHE / "lab/id_ed25519"), ssh_extra_args=SSH_OPTIONS, controlpersist=60
        )

    def run(self, command: str) -> str:
        """Run a command on the host and return what it prints; it must exit with 0."""
        return self.shell().check_output(command)

    def main_pid(self, unit: str) -> int:
        return int(self.run(f"systemctl show --property MainPID --value {unit}"))

    def workers(self) -> list[int]:
        """Return the process ids of the web workers."""
        return [int(pid) for pid in self.shell().run(f"pgrep -u {self.user} -f '^\\(wsgi:'").stdout.split()]

    def wait_for_unit(self, unit: str, not_pid: int = 0, seconds: float = 30) -> float:
        """Wait until the unit runs with a process other than not_pid. Return the seconds that took."""
        start = time.monotonic()
        while time.monotonic() - start < seconds:
            state = self.run(f"systemctl show --property ActiveState --property MainPID --value {unit}").split()
            if "active" in state and int(state[0] if state[0].isdigit() else state[1]) not in (0, not_pid):
                return time.monotonic() - start
            time.sleep(0.2)
        raise AssertionError(f"{unit} did not come back within {seconds} s: {self.run(f'systemctl status --no-pager {unit} || :')}")

    def run_job(self, unit: str) -> str:
        """Start a service that runs once, wait for its end, and return what this run wrote to the journal."""
        since = self.run("journalctl --sync; journalctl --lines 0 --show-cursor --quiet").partition("cursor: ")[2]
        self.run(f"systemctl start {unit}")
        # Without the sync the journal may not have read yet what the job wrote last.
        return self.run(f"journalctl --sync; journalctl --unit {unit} --after-cursor '{since}' --output cat --no-pager")

    def power_cycle(self, *, warn: bool) -> None:
        """Switch the host off and on; with warn it shuts down in order, without it the power is cut."""
        self.power_off(warn=warn)
        self.power_on()

    def power_off(self, *, warn: bool = False) -> None:
        self._podman(*(["stop", "--time", "60"] if warn else ["kill"]))

    def power_on(self) -> None:
        """Switch the host on and wait until it lets somebody in."""
        self._podman("start")
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection((self.variables["lab_address"], 22), 2).close()
                return
            except OSError:
                assert time.monotonic() < deadline, f"{self.name} does not let anybody in"
                time.sleep(0.5)

    def _podman(self, *verb: str) -> None:
        environment = dict(os.environ, CONTAINERS_CONF=str(CACHE / "lab/containers.conf"))
        subprocess.run(["podman", *verb, f"confops-{self.name}"], env=environment, check=True, capture_output=True)

    def play(self, *arguments: str, playbook: str = "site.yml", cwd: Path = REPOSITORY, **extra: object) -> Run:
        """Run a playbook on this site; see tests.lib.playbook.play."""
        return play(self.inventory, *arguments, playbook=playbook, cwd=cwd, **extra)
