"""The local relay: what root, Indico and its scheduler send arrives at a mail server that keeps what it got, and nobody else is let in."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lib.browser import Browser
from tests.lib.playbook import Run
from tests.lib.site import Site

UNIT, HEARD, NAME = "indico-mail.service", "/run/sink/heard", "relay.example.org"
PASSWORDS = ["first: $ecret #1", "second: $ecret #2"]
RELAY: dict[str, Any] = {
    "mail_relay_host": "127.0.0.1",
    "mail_relay_port": 2525,
    "mail_relay_tls": "none",
    "mail_root_to": ["ops@example.org", "boss@example.org"],
}
# Takes mail as RFC 5321 has it and writes it down. With a certificate it offers STARTTLS, or begins with TLS; with a password it takes nothing without.
SINK = r"""
import base64, json, socket, socketserver, ssl, sys

options = json.load(open(sys.argv[1]))
context = None
if options.get("certificate"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options["certificate"])


class Session(socketserver.StreamRequestHandler):
    secured = authenticated = False

    def secure(self):
        self.secured = True
        self.request = context.wrap_socket(self.request, server_side=True)
        self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)

    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")

    def handle(self):
        if options.get("wrapped"):
            self.secure()
        self.say("220 sink ESMTP")
        for line in iter(lambda: self.rfile.readline(), b""):  # which is another one after STARTTLS
            verb, _, rest = line.decode().strip().partition(" ")
            verb = verb.upper()
            if verb == "EHLO":
                self.say("250-sink")
                if context and not self.secured:
                    self.say("250-STARTTLS")
                elif options.get("password"):
                    self.say("250-AUTH PLAIN LOGIN")
                self.say("250 8BITMIME")
            elif verb == "STARTTLS":
                self.say("220 go on")
                self.secure()
            elif verb == "AUTH":
                given = base64.b64decode(rest.split()[1]).decode().split("\0")[1:]
                self.authenticated = self.secured and given == [options["user"], options["password"]]
                self.say("235 welcome" if self.authenticated else "535 no")
            elif verb == "MAIL" and options.get("password") and not self.authenticated:
                self.say("530 who are you?")
            elif verb == "MAIL":
                sender, recipients = rest[5:].split()[0].strip("<>"), []
                self.say("250 ok")
            elif verb == "RCPT":
                recipients.append(rest[3:].split()[0].strip("<>"))
                self.say("250 ok")
            elif verb == "DATA":
                self.say("354 go on")
                data = b"".join(iter(self.rfile.readline, b".\r\n")).decode()
                heard = {"from": sender, "to": sorted(recipients), "data": data, "secured": self.secured, "authenticated": self.authenticated}
                print(json.dumps(heard), file=open("/run/sink/heard", "a"), flush=True)
                self.say("250 ok")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 ok")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    address_family = socket.AF_INET6 if ":" in options["address"] else socket.AF_INET


Server((options["address"], options["port"]), Session).serve_forever()
"""
# A reminder that is due now, of an event that is still to come: the daemon sends it.
REMIND = """
import transaction
from indico.core.db import DBMgr
DBMgr.getInstance().startRequest()
from MaKaC.common.timezoneUtils import nowutc
from MaKaC.conference import CategoryManager
event = [one for one in CategoryManager().getById('2').getConferenceList() if one.getStartDate() > nowutc()][0]
alarm = event.newAlarm(nowutc())
alarm.setFromAddr('organiser@example.org')
alarm.addToAddr('all@example.org')
alarm.setNote('Do come to the event')
transaction.commit()
"""


class Sink:
    """The mail server behind the relay, on the same host."""

    def __init__(self, site: Site) -> None:
        self.site = site
        site.run(f"rm -rf /run/sink; mkdir -m 700 /run/sink; touch {HEARD}; cat > /run/sink/sink.py <<'SINK'\n{SINK}\nSINK")

    def start(self, address: str = "127.0.0.1", port: int = 2525, **options: object) -> None:
        self.stop()
        self.site.run(f"cat > /run/sink/options.json <<'EOF'\n{json.dumps({'address': address, 'port': port, **options})}\nEOF")
        self.site.run("systemd-run --quiet --collect --unit sink python3 /run/sink/sink.py /run/sink/options.json")

    def stop(self) -> None:
        self.site.run("systemctl stop sink 2>/dev/null || :")

    def heard(self, words: str) -> list[dict[str, Any]]:
        return [message for message in map(json.loads, self.site.run(f"cat {HEARD}").splitlines()) if words in message["data"]]

    def wait(self, words: str, seconds: float = 20) -> dict[str, Any]:
        """Wait for a message that holds the words and return it; there must be one."""
        deadline = time.monotonic() + seconds
        while not self.heard(words):
            assert time.monotonic() < deadline, f"no message with {words}: {self.site.run(f'postqueue -p; journalctl --no-pager --lines 30 --unit {UNIT}')}"
            time.sleep(0.5)
        (message,) = self.heard(words)
        return message


def play(site: Site, *arguments: str, **extra: object) -> Run:
    run = site.play("--tags", "mail", *arguments, **extra)
    assert run.returncode == 0, run.output
    return run


def configure(site: Site, **extra: object) -> Run:
    """Run the role with these variables and return what that did."""
    return play(site, **{**RELAY, **extra})


def send(site: Site, words: str, to: str = "root", who: str = "root") -> None:
    """Send a mail as cron does."""
    site.run(f"printf 'Subject: A job\\n\\n{words}\\n' | runuser -u {who} -- /usr/sbin/sendmail -FCronDaemon -i -B8BITMIME -oem {to}")


def waiting(site: Site) -> int:
    """Return how many messages the relay holds."""
    return len(
        site.run("find /var/spool/postfix/maildrop /var/spool/postfix/incoming /var/spool/postfix/active /var/spool/postfix/deferred -type f").splitlines()
    )


def wait_until(site: Site, number: int, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while waiting(site) != number:
        assert time.monotonic() < deadline, f"{waiting(site)} and not {number} messages wait: {site.run('postqueue -p')}"
        time.sleep(0.5)


def packages(site: Site) -> set[str]:
    return set(site.run("dpkg-query --show --showformat '${Package} ${db:Status-Status}\\n'").splitlines())


def listening(site: Site) -> set[str]:
    """Return the addresses that somebody listens on at port 25."""
    return {line.split()[3] for line in site.run("ss --listening --tcp --numeric --no-header").splitlines() if line.split()[3].endswith(":25")}


@pytest.fixture(scope="module")
def origin(site: Site) -> str:
    return site.run("python3 -c 'import socket; print(socket.getfqdn())'")


@pytest.fixture(scope="module", autouse=True)
def sink(site: Site) -> Iterator[Sink]:
    """At the end there is no relay any more, and no Postfix: such a host is left alone."""
    before = packages(site)
    kept = site.run("cat /etc/hosts")
    assert not site.shell().file("/etc/postfix").exists and not listening(site)
    server = Sink(site)
    yield server
    server.stop()
    play(site)
    added = " ".join(line.split()[0] for line in packages(site) - before)
    site.run(f"DEBIAN_FRONTEND=noninteractive apt-get purge --yes {added} && rm -rf /var/spool/postfix /var/lib/postfix /etc/postfix /run/sink {AUTHORITY}")
    site.run(f"update-ca-certificates --fresh && cat > /etc/hosts <<'EOF'\n{kept}\nEOF")
    assert packages(site) == before
    assert play(site).changed == {}
    assert not site.shell().file("/etc/postfix").exists and not listening(site)


AUTHORITY = "/usr/local/share/ca-certificates/sink.crt"


def test_check_mode_predicts_and_changes_nothing(site: Site) -> None:
    before = packages(site)
    predicted = play(site, "--check", **RELAY)
    assert {"/etc/postfix/main.cf", UNIT} <= set(predicted.touched())
    assert packages(site) == before and not site.shell().file("/etc/postfix").exists


def test_a_mail_to_root_arrives(site: Site, sink: Sink, origin: str) -> None:
    sink.start()
    configure(site)
    assert configure(site).changed == {}
    site.run(f"systemctl is-enabled {UNIT}")
    send(site, "from cron")
    message = sink.wait("from cron")
    assert (message["from"], message["to"]) == (f"root@{origin}", ["boss@example.org", "ops@example.org"])
    assert f"From: CronDaemon <root@{origin}>" in message["data"]
    for number, to in enumerate(("postmaster", "root@localhost")):
        send(site, f"for one in charge {number}", to)
        assert sink.wait(f"for one in charge {number}")["to"] == ["boss@example.org", "ops@example.org"]
    send(site, "from a service", "somebody@example.org", who=site.user)
    message = sink.wait("from a service")
    assert (message["from"], message["to"]) == (f"{site.user}@{origin}", ["somebody@example.org"])


def test_the_mail_with_a_new_password_arrives(sink: Sink, visitor: Browser) -> None:
    """Indico's own default for SmtpServer, the page for people who forgot their password, and the link that it mails."""
    assert visitor.post("/user/reset-password", {"email": "bruno@example.org"}).status_code == 303
    message = sink.wait("reset your password")
    assert message["to"] == ["bruno@example.org"]
    text = message["data"].replace("=\r\n", "").replace("=3D", "=")
    link = re.search(r"https://\S+/user/reset-password/[\w-]+", text)
    assert link, text
    page = visitor.get(link.group(0))
    assert page.status_code == 200 and "password" in page.text.lower()


def test_what_the_scheduler_sends_arrives(site: Site, sink: Sink) -> None:
    site.run(f"cat > {site.prefix}/tmp/remind.py <<'EOF'\n{REMIND}\nEOF")
    site.run(f"runuser -u {site.user} -- {site.prefix}/current/bin/python -W ignore {site.prefix}/tmp/remind.py; rm {site.prefix}/tmp/remind.py")
    message = sink.wait("Do come to the event", seconds=60)
    assert (message["from"], message["to"]) == ("organiser@example.org", ["all@example.org"])


def test_it_is_there_for_this_host_alone(site: Site, sink: Sink) -> None:
    assert listening(site) == {"127.0.0.1:25", "[::1]:25"}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((site.variables["lab_address"], 25), 5)
    script = "import smtplib, sys; smtplib.SMTP(sys.argv[1]).sendmail('a@example.org', [sys.argv[2]], 'Subject: over ' + sys.argv[1])"
    for address in ("127.0.0.1", "::1"):
        site.run(f'python3 -c "{script}" {address} b@example.org')
        assert sink.wait(f"over {address}")["to"] == ["b@example.org"]
    # Nothing is delivered here; who sends it hears of it.
    send(site, "to a mailbox of this host", "'indico@[127.0.0.1]'")
    assert "nothing is delivered on this host" in sink.wait("to a mailbox of this host")["data"]
    assert site.run("ls /var/mail") == ""
    figure = re.search(r"exposure level for \S+: ([\d.]+)", site.run(f"systemd-analyze security --no-pager {UNIT}"))
    assert figure and float(figure.group(1)) <= 4.0, figure
    status = site.play(playbook="playbooks/status.yml", **RELAY)
    assert status.returncode == 0 and UNIT in status.output, status.output


def test_messages_wait_for_a_relay_that_is_away(site: Site, sink: Sink, visitor: Browser) -> None:
    configure(site, mail_relay_host="::1")
    sink.stop()
    for number in range(3):
        send(site, f"patience {number}")
    assert visitor.post("/user/reset-password", {"email": "chloe@example.org"}).status_code == 303
    wait_until(site, 4)
    assert "Connection refused" in site.run("postqueue -p")
    killed = site.main_pid(UNIT)
    site.run(f"kill -9 {killed}")
    site.wait_for_unit(UNIT, not_pid=killed)
    sink.start("::1")
    site.run("postqueue -f")  # or it would be minutes
    for number in range(3):
        assert sink.wait(f"patience {number}", seconds=150)["to"] == ["boss@example.org", "ops@example.org"]
    assert [message["to"] for message in sink.heard("reset your password")][-1:] == [["chloe@example.org"]]
    wait_until(site, 0)


@pytest.fixture(scope="module")
def certificate(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for the sink, which it shows when it is told so. Return a file on this side."""
    site.run(
        f"cd /run/sink && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=sink -addext subjectAltName=DNS:{NAME}"
        " -keyout sink.key -out sink.crt 2>&1"
        f" && cat sink.key sink.crt > sink.pem && echo 127.0.0.1 {NAME} >> /etc/hosts"
    )
    copy = tmp_path_factory.mktemp("authority") / "sink.crt"
    copy.write_text(site.run("cat /run/sink/sink.crt") + "\n")
    return copy


def test_a_password_goes_over_tls_and_is_nowhere_else(site: Site, sink: Sink, certificate: Path) -> None:
    login = {"mail_relay_host": NAME, "mail_relay_user": "indico@example.org", "mail_relay_tls": "verify"}
    sink.start(certificate="/run/sink/sink.pem", user="indico@example.org", password=PASSWORDS[1])
    shown = configure(site, **login, mail_relay_password=PASSWORDS[0]).output
    send(site, "with a password")
    wait_until(site, 1)
    assert "not trusted" in site.run(f"journalctl --sync; journalctl --no-pager --unit {UNIT} --lines 20"), "a certificate of nobody's was taken"
    # Now it is trusted, but the password is the wrong one; then it is changed.
    login["common_ca_certificates"] = [str(certificate)]
    shown += configure(site, **login, mail_relay_password=PASSWORDS[0]).output
    site.run("postqueue -f")
    wait_for_journal(site, "535 no")
    changed = configure(site, **login, mail_relay_password=PASSWORDS[1])
    assert changed.touched() == ["/etc/postfix/indico-relay", UNIT]
    site.run("postqueue -f")
    message = sink.wait("with a password", seconds=90)
    assert message["secured"] and message["authenticated"]
    # Another port, where TLS comes first.
    sink.start(port=465, wrapped=True, certificate="/run/sink/sink.pem", user="indico@example.org", password=PASSWORDS[1])
    shown += configure(site, **login, mail_relay_password=PASSWORDS[1], mail_relay_port=465).output
    send(site, "inside of TLS")
    assert sink.wait("inside of TLS")["authenticated"]
    assert site.run("stat --format '%a %U' /etc/postfix/indico-relay") == "600 root"
    shown += changed.output + configure(site).output  # which removes the password
    assert not [password for password in PASSWORDS if password in shown]
    words = " ".join(f"--regexp '{password}'" for password in PASSWORDS)
    assert site.shell().run(f"journalctl --sync; journalctl --no-pager | grep --fixed-strings --quiet {words}").rc == 1
    assert site.shell().run(f"runuser -u nobody -- grep --recursive --no-messages --fixed-strings --quiet {words} /etc /var /opt /tmp /run/sink").rc != 0
    assert not [password for password in PASSWORDS if password in site.run("ps -eo args | grep -v grep")]


def wait_for_journal(site: Site, words: str) -> None:
    deadline = time.monotonic() + 20
    while words not in site.run(f"journalctl --sync; journalctl --no-pager --unit {UNIT} --lines 50"):
        assert time.monotonic() < deadline, f"the journal has no {words}"
        time.sleep(0.5)


def test_switched_off_it_goes_and_messages_stay(site: Site, sink: Sink) -> None:
    sink.stop()
    send(site, "for later")
    wait_until(site, 1)
    predicted = play(site, "--check")
    assert listening(site) == {"127.0.0.1:25", "[::1]:25"}
    off = play(site)
    assert predicted.touched() == off.touched() and off.touched()[-1] == f"/etc/systemd/system/{UNIT}"
    assert "until mail_relay_host names one again: 1." in off.output
    assert not listening(site)
    assert site.shell().run(f"systemctl cat {UNIT}").rc != 0
    assert not [path for path in ("main.cf", "master.cf", "indico-relay") if site.shell().file(f"/etc/postfix/{path}").exists]


def test_what_somebody_else_has_set_up_stays(site: Site) -> None:
    """By now the relay is off, and Postfix is installed."""
    with contextlib.ExitStack() as after:
        site.run("mv /usr/sbin/postfix /usr/sbin/postfix.away")
        after.callback(site.run, "mv /usr/sbin/postfix.away /usr/sbin/postfix")
        refuse(site, "/usr/sbin/sendmail")
        site.run("echo relayhost = elsewhere > /etc/postfix/main.cf")
        after.callback(site.run, "rm /etc/postfix/main.cf")
        refuse(site, "/etc/postfix/main.cf")
        assert play(site).changed == {}
        assert site.run("cat /etc/postfix/main.cf") == "relayhost = elsewhere" and site.shell().file("/usr/sbin/sendmail").exists


def refuse(site: Site, path: str) -> None:
    refused = site.play("--tags", "mail", **RELAY)
    assert refused.returncode != 0 and refused.changed == {}
    assert [one for one in refused.failures if f"somebody else has set up mail on {site.name}: there is {path}. Nothing was done." in one], refused.failures


def test_switched_on_again_it_sends_what_waited_and_an_upgrade_restarts_it(site: Site, sink: Sink) -> None:
    sink.start()
    configure(site)
    site.run("postqueue -f")
    assert sink.wait("for later", seconds=90)
    wait_until(site, 0)
    pid = site.main_pid(UNIT)
    site.run("DEBIAN_FRONTEND=noninteractive apt-get install --reinstall --yes postfix")
    assert configure(site).touched() == [UNIT]
    assert site.main_pid(UNIT) != pid
