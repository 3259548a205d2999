"""Who may do what on the host."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.lib.browser import Browser
from tests.lib.site import Site


def test_service_users_can_write_only_their_data(site: Site) -> None:
    """Asked of the file system as each user, not of the modes."""
    writable = "find {prefix} -xdev -type d -writable ! -path '{prefix}/current/*' -print | sed 's#releases/[^/]*/#releases/R/#'"
    worker = site.run(f'runuser -u {site.user} -- sh -c "{writable.format(prefix=site.prefix)}" 2>/dev/null').splitlines()
    allowed = ("archive", "cache", "tmp", "log/indico", "releases/R/lib/python2.7/site-packages/htdocs/static/assets")
    assert worker
    assert [path for path in worker if not path.removeprefix(site.prefix + "/").startswith(allowed)] == []
    zeo = site.variables.get("zeo_user", "zeo")
    theirs = site.run(f'runuser -u {zeo} -- sh -c "{writable.format(prefix=site.prefix)}" 2>/dev/null').splitlines()
    assert sorted({*theirs} - {f"{site.prefix}/log/zeo/backups"}) == sorted([f"{site.prefix}/db/{name}" for name in site.storages] + [f"{site.prefix}/log/zeo"])


def test_no_code_or_configuration_belongs_to_a_service(site: Site) -> None:
    owned = site.run(f"find {site.prefix}/releases {site.prefix}/wheelhouse {site.prefix}/etc ! -user root ! -path '*/htdocs/static/assets*' | head")
    assert owned == ""


def test_databases_and_secrets_are_closed_to_others(site: Site) -> None:
    for path in [f"{site.prefix}/db/main/Data.fs", f"{site.prefix}/etc/indico.conf"]:
        assert site.shell().run(f"runuser -u nobody -- cat {path}").rc != 0
    assert site.shell().run(f"runuser -u {site.user} -- cat {site.prefix}/db/main/Data.fs").rc != 0
    assert site.shell().run(f"runuser -u www-data -- cat {site.prefix}/etc/indico.conf").rc != 0


def test_databases_listen_on_the_loopback_only(site: Site) -> None:
    listening = site.run("ss --listening --tcp --numeric --no-header").splitlines()
    open_ports = {int(line.split()[3].rsplit(":", 1)[1]) for line in listening if not line.split()[3].startswith(("127.", "[::1]"))}
    web = {int(site.variables.get("web_http_port", 80))} | ({443} if site.variables.get("web_tls") != "none" else set())
    assert open_ports == web | {22}


@pytest.mark.parametrize("number", range(3))
def test_sandbox(site: Site, number: int) -> None:
    unit = [f"{site.instance}-zeo@main.service", f"{site.instance}-scheduler.service", "apache2.service"][number]
    figure = re.search(r"exposure level for \S+: ([\d.]+)", site.run(f"systemd-analyze security --no-pager {unit}"))
    assert figure is not None
    print(unit, figure.group(1))
    assert float(figure.group(1)) <= 4.0


def test_apache_shows_nothing_of_itself(site: Site) -> None:
    """S12: behind a proxy on the same host, its status page answered every visitor."""
    scheme, port = ("http", site.variables.get("web_http_port", 80)) if site.variables.get("web_tls") == "none" else ("https", 443)
    ask = "import ssl, sys, urllib.error, urllib.request as r;context = ssl._create_unverified_context()"
    script = f"{ask}\ntry: print(r.urlopen(sys.argv[1], context=context).status)\nexcept urllib.error.HTTPError as error: print(error.code)"
    for path in ("server-status", "icons/apache_pb.png"):
        assert site.run(f"python3 -I -c '{script}' {scheme}://127.0.0.1:{port}/{path}") != "200"


def test_tls_without_forward_secrecy_is_refused(site: Site) -> None:
    """S13."""
    if site.variables.get("web_tls") == "none":
        assert site.shell().run("ss --listening --tcp --numeric --no-header | grep -q ':443 '").rc == 1
        return
    host = f"{site.variables['lab_address']}:443"
    for weak in ("kRSA:@SECLEVEL=0", "SHA1:!kPSK:!kSRP:@SECLEVEL=0", "CAMELLIA:@SECLEVEL=0"):
        assert "handshake failure" in _handshake(host, weak)
    assert "New, TLSv1.2, Cipher is ECDHE-RSA-" in _handshake(host, "DEFAULT")


def _handshake(host: str, ciphers: str) -> str:
    command = ["openssl", "s_client", "-connect", host, "-tls1_2", "-cipher", ciphers]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=30)
    return done.stdout


def test_answers_carry_what_protects_visitors(visitor: Browser) -> None:
    """S14."""
    headers = visitor.get("/").headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "frame-ancestors 'self'"
    assert headers["Referrer-Policy"] == "strict-origin-when-cross-origin"


def test_no_password_in_logs_or_process_list(site: Site) -> None:
    for who in ("admin", "demo"):
        password = site.password(who)
        assert site.shell().run(f"grep --recursive --fixed-strings --quiet '{password}' {site.prefix}/log /var/log").rc == 1
        assert password not in site.run("ps -eo args | grep -v grep")
