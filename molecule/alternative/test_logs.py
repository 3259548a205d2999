"""Every log is rotated while people visit: no request fails, no line is lost or doubled, nothing is restarted, and no link of a service is followed."""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

from tests.lib.site import Site

STATE = "/var/lib/logrotate/status"


class Visitors:
    """Four people who ask for pages all the time, each with an address of its own, and what became of it."""

    def __init__(self, site: Site) -> None:
        self.asked: dict[str, object] = {}
        self._site, self._over = site, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number % 2 == 0,)) for number in range(4)]

    def _ask(self, keep_alive: bool) -> None:
        browser = self._site.browser()
        if not keep_alive:
            browser.session.headers["Connection"] = "close"
        while not self._over.is_set():
            mark = uuid.uuid4().hex
            try:
                self.asked[mark] = browser.get(f"/contact?mark={mark}").status_code
            except OSError as error:
                self.asked[mark] = error

    def __enter__(self) -> Visitors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def force(site: Site) -> None:
    site.run(f"logrotate --force /etc/logrotate.d/{site.instance}")


def next_day(site: Site) -> None:
    """Let Debian's unit do what it does each day, as if the last time had been long ago."""
    site.run(f"sed -i -E 's/ [0-9]{{4}}-[0-9]+-[0-9]+-[0-9:]+$/ 2020-1-1-0:0:0/' {STATE} && systemctl start logrotate.service")


def names(site: Site, directory: str, log: str) -> list[str]:
    """Return what is there of a log, in a directory below log/."""
    return site.run(f"cd {site.prefix}/log/{directory} && ls -d {log}* 2>/dev/null || :").split()


def text(site: Site, log: str, *, copies: bool) -> str:
    """Return a log's text, with that of all its copies or alone."""
    directory, name = log.split("/")
    place = f"{site.prefix}/log/{directory}"
    return site.run(f"zcat -f {place}/backups/{name}.* {place}/{name}" if copies else f"cat {place}/{name}")


def marks(lines: str, asked: Iterable[str]) -> dict[str, int]:
    """Return how often each of the requests is in the lines."""
    found = Counter(re.findall("mark=([0-9a-f]{32})", lines))
    return {mark: found[mark] for mark in asked}


def processes(site: Site) -> list[object]:
    return [*(site.main_pid(unit) for unit in site.units), site.workers()]


@pytest.fixture(scope="module", autouse=True)
def as_declared(site: Site) -> Iterator[None]:
    """Whatever a test declares, the next modules find the inventory's own."""
    yield
    run = site.play("--tags", "logrotate")
    assert run.returncode == 0, run.output


def test_debians_timer_starts_it(site: Site) -> None:
    assert site.run("systemctl is-enabled logrotate.timer; systemctl is-active logrotate.timer").split() == ["enabled", "active"]
    for arguments in ([], ["--check"]):
        run = site.play("--tags", "logrotate", *arguments)
        assert (run.returncode, run.changed) == (0, {}), run.output


def test_no_request_fails_and_each_line_is_there_once(site: Site) -> None:
    before = processes(site)
    with Visitors(site) as visitors:
        time.sleep(2)
        for rotate in (force, next_day, force):
            rotate(site)
            time.sleep(3)
    assert len(visitors.asked) > 100
    assert {mark: result for mark, result in visitors.asked.items() if result != 200} == {}
    assert processes(site) == before
    assert marks(text(site, "apache2/apache2-access.log", copies=True), visitors.asked) == dict.fromkeys(visitors.asked, 1)
    # Where it begins and where it ends.
    assert marks(text(site, "indico/indico.log", copies=True), visitors.asked) == dict.fromkeys(visitors.asked, 2)


def test_each_writer_goes_on_in_a_new_file(site: Site) -> None:
    force(site)
    mark = uuid.uuid4().hex
    assert site.browser().get(f"/contact?mark={mark}").status_code == 200
    assert marks(text(site, "apache2/apache2-access.log", copies=False), [mark]) == {mark: 1}
    assert marks(text(site, "indico/indico.log", copies=False), [mark]) == {mark: 2}
    for storage in site.variables["indico_storages"]:
        site.run(f"python3 -c \"import socket; socket.create_connection(('127.0.0.1', {storage['port']}))\"; sleep 1")
        lines = text(site, f"zeo/{storage['name']}.log", copies=False)
        assert "Log files reopened successfully" in lines
        assert "StorageServer" in lines


def test_copies_lie_beside_and_belong_to_the_writer(site: Site) -> None:
    force(site)
    zeo = site.variables.get("zeo_user", "zeo")
    main = site.storages[0]
    for directory, log, owner in (("indico", "indico.log", site.user), ("zeo", f"{main}.log", zeo), ("apache2", "apache2-access.log", "root")):
        copies = names(site, f"{directory}/backups", log)
        assert {f"{log}.1", f"{log}.2.gz", f"{log}.3.gz"} <= set(copies), copies
        place = f"{site.prefix}/log/{directory}/backups"
        assert site.run(f"stat -c %U {place} {place}/{log}.1 {place}/{log}.2.gz").split() == [owner] * 3
        assert site.run(f"stat -c %a {place}") == "750"


def test_dated_copies_of_the_scheduler_are_compressed_and_removed(site: Site) -> None:
    """Its own log, which the daemon holds open and renames itself, is left alone."""
    log = f"{site.prefix}/log/indico/scheduler.log"
    site.run(f"rm -f {log}.2* {site.prefix}/log/indico/backups/scheduler.log.*")  # where midnight passed since the host was made
    inode = site.run(f"stat -c %i {log}")
    for name, age in (("2026-01-03", "20 days ago"), ("2026-01-18", "5 days ago"), ("2026-01-22", "2 hours ago")):
        site.run(f"runuser -u {site.user} -- sh -c 'echo {name} > {log}.{name} && touch -d \"{age}\" {log}.{name}'")
    # The first day sees them, the second one compresses and removes.
    for _day in range(2):
        next_day(site)
    assert names(site, "indico", "scheduler.log") == ["scheduler.log", "scheduler.log.2026-01-22"]
    assert names(site, "indico/backups", "scheduler.log") == ["scheduler.log.2026-01-18.1.gz"]
    assert site.run(f"zcat {site.prefix}/log/indico/backups/scheduler.log.2026-01-18.1.gz") == "2026-01-18"
    assert site.run(f"stat -c %i {log}") == inode
    # Whoever cannot wait loses nothing that is younger.
    force(site)
    assert names(site, "indico/backups", "scheduler.log") == ["scheduler.log.2026-01-18.1.gz", "scheduler.log.2026-01-22.1.gz"]
    assert names(site, "indico", "scheduler.log") == ["scheduler.log"]
    site.run(f"rm {site.prefix}/log/indico/backups/scheduler.log.*")


def test_links_of_a_service_are_not_followed(site: Site) -> None:
    """One for a log, one for a dated copy, one for the directory of the copies: root's files stay as they are, and where they are."""
    place, secret = f"{site.prefix}/log/indico", "/etc/confops-secret"
    site.run(f"echo secret > {secret} && chmod 600 {secret} && mkdir -p /etc/confops-place && stat -c '%i %U %a %Y' {secret} /etc/confops-place > /root/before")
    site.run(f"runuser -u {site.user} -- sh -c 'cd {place} && ln -sf {secret} other.log && ln -s {secret} scheduler.log.2026-01-03'")
    site.run(f"runuser -u {site.user} -- sh -c 'cd {place} && touch -h -d \"20 days ago\" scheduler.log.2026-01-03'")
    site.shell().run(f"logrotate --force /etc/logrotate.d/{site.instance}")
    for _day in range(2):
        site.shell().run(f"sed -i -E 's/ [0-9]{{4}}-[0-9]+-[0-9]+-[0-9:]+$/ 2020-1-1-0:0:0/' {STATE}; systemctl start logrotate.service")
    assert "secret" not in site.run(f"zcat -f {place}/backups/* | grep -x secret || :")
    site.run(f"runuser -u {site.user} -- sh -c 'cd {place} && mv backups kept && ln -s /etc/confops-place backups'")
    assert site.browser().get("/contact").status_code == 200
    refused = site.shell().run(f"logrotate --force /etc/logrotate.d/{site.instance}")
    assert refused.rc != 0
    assert site.run("ls -A /etc/confops-place") == ""
    assert site.run(f"cat {secret}; stat -c '%i %U %a %Y' {secret} /etc/confops-place | diff - /root/before") == "secret"
    site.run(f"cd {place} && rm -f backups other.log scheduler.log.2026-01-03 && mv kept backups")
    site.run(f"rm -r {secret} /etc/confops-place /root/before; systemctl reset-failed logrotate.service || :")
    force(site)


def test_another_declaration(site: Site) -> None:
    """Fewer copies, beside the logs and as they are, at most so large."""
    declared = {"logrotate_keep": 2, "logrotate_olddir": "", "logrotate_compress": False, "logrotate_max_size": "100k", "logrotate_schedule": "monthly"}
    run = site.play("--tags", "logrotate", **declared)
    assert run.touched() == [f"/etc/logrotate.d/{site.instance}"], run.output
    assert site.play("--tags", "logrotate", **declared).changed == {}
    for _time in range(4):
        assert site.browser().get("/contact").status_code == 200
        force(site)
    assert site.browser().get("/contact").status_code == 200
    for directory, log in (("indico", "indico.log"), ("apache2", "apache2-access.log")):
        assert names(site, directory, log) == [log, f"{log}.1", f"{log}.2"]
        site.run(f"rm {site.prefix}/log/{directory}/{log}.?")
        # A size makes it be rotated before its month is over.
        site.run(f"systemctl start logrotate.service && head -c 120000 /dev/zero | tr '\\0' x >> {site.prefix}/log/{directory}/{log}")
        site.run("systemctl start logrotate.service")
        assert names(site, directory, log) == [f"{log}.1"]
        assert site.browser().get("/contact").status_code == 200


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"logrotate_olddir": "/var/log/old"}, "logrotate_olddir is '/var/log/old'; it must be the name"),
        ({"logrotate_keep": 0}, "logrotate_keep is 0; it must be 1"),
    ],
)
def test_what_makes_no_sense_is_refused(site: Site, changes: dict[str, object], sentence: str) -> None:
    run = site.play("--tags", "logrotate", **changes)
    assert [failure for failure in run.failures if sentence in failure], run.failures
