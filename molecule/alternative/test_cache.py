"""The cache is Redis here, and with it the sessions; then memcached, files, and Redis again, each time with one run of site.yml."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

import pytest

from tests.lib.browser import Browser
from tests.lib.playbook import Run
from tests.lib.site import CACHE, Site

SESSIONS = "cache/gen/flask-session."


@pytest.fixture
def redis(site: Site) -> Redis:
    return Redis(site)


class Redis:
    """Asks the site's Redis, as somebody on the host who knows the password. That comes on standard input and goes by the environment."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.password = (CACHE / "lab/redis_password").read_text().strip()

    def ask(self, command: str, password: str | None = None) -> str:
        word = base64.b64encode((self.password if password is None else password).encode()).decode()
        port = self.site.variables["indico_redis_port"]
        return self.site.run(f"export REDISCLI_AUTH=$(echo {word} | base64 -d); redis-cli --no-auth-warning -p {port} {command} 2>&1 || :")

    def sessions(self) -> set[str]:
        return {key.removeprefix(SESSIONS) for key in self.ask(f"-n 0 --scan --pattern '{SESSIONS}*'").splitlines()}


def logged_in(browser: Browser) -> bool:
    page = browser.get("/")
    assert page.status_code == 200
    return "Logout" in page.text


def session_of(browser: Browser) -> str:
    (value,) = {cookie.value for cookie in browser.session.cookies if "session" in cookie.name}
    return value or ""


def open_ports(site: Site) -> dict[int, str]:
    """Return which ports of Redis and memcached, Debian's too, are listened on by TCP or UDP, and where."""
    lines = [line.split() for line in site.run("ss --listening --tcp --udp --numeric --no-header").splitlines()]
    found = {int(port): address for address, port in (line[4].rsplit(":", 1) for line in lines)}
    return {port: found[port] for port in (6379, 11211, site.variables["indico_redis_port"]) if port in found}


def test_a_session_lies_in_redis_and_ends_with_its_lifetime(site: Site, redis: Redis, member: Browser) -> None:
    assert session_of(member) in redis.sessions()
    lifetime = site.variables.get("indico_conf", {}).get("SessionLifetime", 31 * 86400)
    assert lifetime - 600 < int(redis.ask(f"-n 0 TTL {SESSIONS}{session_of(member)}")) <= lifetime
    assert not site.shell().file(f"{site.prefix}/cache/generic_cache/flask-session/{session_of(member)[:4]}").exists
    admin = site.browser()
    assert admin.log_in("admin", site.password("admin")) == "in"
    admin.get("/user/logout")
    assert not logged_in(admin)


def test_a_session_survives_apache_and_all_workers(site: Site, member: Browser) -> None:
    site.run("systemctl restart apache2")
    member.wait("/", in_a_row=3)
    assert logged_in(member)
    site.run(f"pkill -9 -u {site.user} -f '^\\(wsgi:'")
    member.wait("/", in_a_row=3)
    assert logged_in(member)


def test_a_killed_redis_comes_back_with_its_sessions(site: Site, redis: Redis, member: Browser) -> None:
    unit = f"{site.instance}-redis.service"
    assert session_of(member) in redis.sessions()
    site.run("sleep 1.5")  # the second that the file may be behind
    pid = site.main_pid(unit)
    site.run(f"kill -9 {pid}")
    site.wait_for_unit(unit, not_pid=pid)
    assert logged_in(member)
    site.run(f"systemctl restart {unit}")
    assert logged_in(member)


def test_pages_answer_while_redis_is_away(site: Site, member: Browser, visitor: Browser) -> None:
    """Nobody is logged in then, and Indico's log says why."""
    unit = f"{site.instance}-redis.service"
    site.run(f"systemctl stop {unit}")
    try:
        assert visitor.get("/").status_code == 200
        assert not logged_in(site.browser())
    finally:
        site.run(f"systemctl start {unit}")
    assert "ConnectionError" in site.run(f"tail --lines 400 {site.prefix}/log/indico/*.log")
    assert logged_in(member)


def test_links_are_kept_apart_from_the_cache(site: Site, redis: Redis, member: Browser) -> None:
    """Indico's scripts run in Redis, whose database 1 they fill."""
    event = member.create_meeting("Linked in Redis", category="2")
    assert f"avatar-event-links/event_avatars:{event}" in redis.ask("-n 1 --scan --pattern 'avatar-event-links/*'").splitlines()
    assert redis.ask("-n 0 --scan --pattern 'avatar-event-links/*'") == ""


def test_redis_refuses_strangers_and_what_nobody_needs(redis: Redis) -> None:
    wrong = redis.ask("PING", password="not the password")
    assert "AUTH failed" in wrong and "NOAUTH" in wrong
    assert "NOAUTH" in redis.ask("GET x", password="")
    assert redis.ask("PING") == "PONG"
    for command in ("FLUSHALL", "FLUSHDB", "CONFIG GET requirepass", "DEBUG SLEEP 0", "SHUTDOWN NOSAVE", "KEYS x", "ACL LIST", "REPLICAOF NO ONE"):
        assert "unknown command" in redis.ask(command), command


def test_a_full_redis_keeps_every_session(site: Site, redis: Redis, member: Browser) -> None:
    """What is new is refused instead."""
    megabytes = site.variables["redis_memory_mb"] + 10
    try:
        # A script that has begun may end.
        redis.ask(f"-n 0 EVAL \"for i = 1, {megabytes} do redis.call('SETEX', 'filler' .. i, 300, string.rep('x', 1048576)) end\" 0")
        assert "OOM" in redis.ask("-n 0 SETEX one 300 more")
        assert session_of(member) in redis.sessions()
        assert logged_in(member)
    finally:
        redis.ask(f"-n 0 EVAL \"for i = 1, {megabytes} do redis.call('DEL', 'filler' .. i) end\" 0")
    assert redis.ask("-n 0 SETEX one 1 more") == "OK"
    assert site.browser().log_in("bruno", site.password("demo")) == "in"


def test_redis_listens_on_the_loopback_only_and_debians_is_off(site: Site) -> None:
    assert open_ports(site) == {site.variables["indico_redis_port"]: "127.0.0.1"}
    assert site.shell().run("systemctl is-enabled redis-server.service").stdout.strip() == "disabled"
    assert site.shell().run("systemctl is-active redis-server.service").stdout.strip() == "inactive"


def test_the_port_of_another_instance_is_refused(site: Site) -> None:
    claims = "/etc/confops"
    site.run(f"mkdir {claims}/other && mv {claims}/{site.instance}/redis.json {claims}/other/")
    refused = site.play("--check", "--tags", "cache")
    site.run(f"mv {claims}/other/redis.json {claims}/{site.instance}/ && rmdir {claims}/other")
    assert refused.returncode != 0
    port = site.variables["indico_redis_port"]
    sentence = f"indico_redis_port: port {port} is in use by the instance other of this host (indico_redis_port). If other is gone, remove /etc/confops/other."
    assert sentence in "\n".join(refused.failures)


def test_the_password_is_in_two_files_and_nowhere_else(site: Site, redis: Redis) -> None:
    files = site.run(f"ls -l {site.prefix}/etc/indico.conf /etc/redis/{site.instance}.conf")
    assert [line.split()[0] for line in files.splitlines()] == ["-rw-r-----"] * 2
    assert redis.password not in site.run("ps -eo args")
    script = (
        f'read -r word; grep --recursive --fixed-strings --files-with-matches "$word" {site.prefix}/log {site.prefix}/etc /var/log /etc; journalctl --no-pager'
    )
    word = base64.b64encode(redis.password.encode()).decode()
    found = site.run(f"echo {word} | base64 -d | {{ {script} | grep -e '^/etc' -e '^{site.prefix}' -e \"$word\" || :; }} | sort -u")
    assert found.splitlines() == sorted([f"/etc/redis/{site.instance}.conf", f"{site.prefix}/etc/indico.conf"])


def security(site: Site, unit: str) -> float:
    figure = re.search(r"exposure level for \S+: ([\d.]+)", site.run(f"systemd-analyze security --no-pager {unit}"))
    assert figure
    print(unit, figure[1])
    return float(figure[1])


def test_sandbox_of_redis(site: Site) -> None:
    assert security(site, f"{site.instance}-redis.service") < 3


@pytest.fixture(scope="module")
def home(site: Site) -> Iterator[None]:
    """Back to what the inventory says, at the end."""
    yield
    assert site.play("--tags", "cache,indico,web,scheduler").returncode == 0


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("backend", ["memcached", "files", "redis"])
def test_one_run_goes_to_another_backend(site: Site, backend: str) -> None:
    before = site.browser()
    assert before.log_in("bruno", site.password("demo")) == "in" and logged_in(before)
    units = {one: f"{site.instance}-{one}.service" for one in ("memcached", "redis")}
    was = [one for one, unit in units.items() if site.shell().run(f"systemctl is-active {unit}").rc == 0]

    tags = [] if backend == "memcached" else ["--tags", "cache,indico,web,scheduler"]  # the whole run once
    run = site.play(*tags, indico_cache_backend=backend)
    assert run.returncode == 0, run.failures
    assert "whoever was logged in has to log in anew" in run.output
    assert Redis(site).password not in run.output

    after = site.browser()
    assert after.log_in("bruno", site.password("demo")) == "in"
    for _ in range(8):  # whichever worker answers
        assert logged_in(after)
    assert not logged_in(before)
    for one, unit in units.items():
        state = site.run(f"systemctl show --property LoadState --property ActiveState --value {unit}").split()
        assert state == (["loaded", "active"] if one == backend else ["not-found", "inactive"]), (was, one, state)
    port = {"memcached": 11211, "redis": site.variables["indico_redis_port"]}
    assert open_ports(site) == ({} if backend == "files" else {port[backend]: "127.0.0.1"})
    if backend == "memcached":
        assert security(site, units["memcached"]) < 3
        assert site.shell().run("systemctl is-enabled memcached.service").stdout.strip() == "disabled"

    if backend != "memcached":  # once is enough of what follows
        return
    status = site.play(playbook="playbooks/status.yml", indico_cache_backend=backend)
    assert status.failures == []
    assert [one for one in units if units[one] + ": active" in status.output] == [backend]
    again: Run = site.play("--tags", "cache,indico,web,scheduler", indico_cache_backend=backend)
    assert again.changed == {}, again.diff()


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(("persistence", "restarted", "killed"), [("rdb", True, False), ("none", False, False)])
def test_what_outlives_a_restart(site: Site, persistence: str, restarted: bool, killed: bool) -> None:
    """As the variable's description has it."""
    run = site.play("--tags", "cache", redis_persistence=persistence)
    assert run.returncode == 0 and run.changed, run.failures
    unit = f"{site.instance}-redis.service"
    member = site.browser()
    assert member.log_in("bruno", site.password("demo")) == "in" and logged_in(member)
    site.run(f"systemctl restart {unit}")
    assert logged_in(member) is restarted
    member = site.browser()
    assert member.log_in("bruno", site.password("demo")) == "in" and logged_in(member)
    pid = site.main_pid(unit)
    site.run(f"kill -9 {pid}")
    site.wait_for_unit(unit, not_pid=pid)
    assert logged_in(member) is killed


@pytest.mark.usefixtures("home")
def test_a_new_password_and_the_old_one_are_in_no_diff(site: Site, redis: Redis) -> None:
    new = "another-password-of-redis"
    run = site.play("--tags", "cache,indico,web,scheduler", indico_redis_password=new)
    assert run.returncode == 0, run.failures
    assert f"/etc/redis/{site.instance}.conf" in run.touched()
    assert new not in run.output and redis.password not in run.output
    assert "AUTH failed" in redis.ask("PING") and redis.ask("PING", password=new) == "PONG"


@pytest.mark.usefixtures("home")
def test_sessions_lie_on_several_memcached_servers(site: Site) -> None:
    """The second one is a server of somebody's, which another address stands for. The package is there by now."""
    other = site.variables["lab_address"]
    servers = {"127.0.0.1": 11211, other: 11212}
    site.run(f"systemd-run --quiet --collect --unit other-memcached --uid nobody memcached -l {other} -p 11212")
    try:
        given = {"indico_cache_backend": "memcached", "indico_memcached_servers": [f"{address}:{port}" for address, port in servers.items()]}
        run = site.play("--tags", "cache,indico,web,scheduler", **given)
        assert run.returncode == 0, run.failures
        members = [site.browser() for _ in range(8)]
        assert {member.log_in("bruno", site.password("demo")) for member in members} == {"in"}
        assert all(logged_in(member) for member in members for _ in range(4))  # whichever worker answers
        ask = "import socket; s = socket.create_connection({}); s.sendall(b'stats\\r\\nquit\\r\\n'); print(s.makefile().read())"
        held = [re.search(r"STAT curr_items (\d+)", site.run(f'python3 -c "{ask.format(server)}"')) for server in servers.items()]
        assert all(one and int(one[1]) > 0 for one in held), held
        # When one is away its sessions are gone, and the others are there.
        site.run("systemctl stop other-memcached")
        left = [logged_in(member) for member in members]
        assert any(left) and not all(left), left
    finally:
        site.run("systemctl stop other-memcached 2>/dev/null || :")
