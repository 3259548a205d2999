"""A certificate that the site brings, in place of the one that the host made, and back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import requests

from tests.lib.browser import Browser
from tests.lib.site import Site


def test_a_certificate_of_the_host_s_own_is_one_that_openssl_3_takes(site: Site) -> None:
    """O19: Debian 11 added a second Basic Constraints, that of an authority, and Apache of Debian 12 did not start with it."""
    shown = subprocess.run(["openssl", "x509", "-noout", "-text", "-in", site.certificate], capture_output=True, text=True, check=True).stdout
    assert shown.count("X509v3 Basic Constraints") == 1 and "CA:FALSE" in shown


def test_given_certificate_is_served_and_its_key_stays_hidden(site: Site, tmp_path: Path) -> None:
    address = site.variables["lab_address"]
    certificate, key = tmp_path / "site.crt", tmp_path / "site.key"
    subject = ["-subj", "/CN=conferences", "-addext", f"subjectAltName=IP:{address}", "-addext", "basicConstraints=critical,CA:FALSE"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, "-keyout", key, "-out", certificate]
    subprocess.run(made, check=True, capture_output=True)

    given = {"web_tls": "provided", "web_tls_certificate": certificate.read_text(), "web_tls_key": key.read_text()}
    run = site.play("--tags", "web", **given)
    assert run.returncode == 0, run.output
    assert "PRIVATE KEY" not in run.output
    assert key.read_text().splitlines()[5] not in run.output
    assert "Workshops" in Browser(f"https://{address}", str(certificate)).get("/").text
    assert site.run(f"stat --format '%U %a' {site.prefix}/etc/provided.key") == "root 600"
    assert site.play("--tags", "web", **given).changed == {}

    other = tmp_path / "other.key"
    subprocess.run(["openssl", "genpkey", "-algorithm", "RSA", "-out", other], check=True, capture_output=True)
    wrong = site.play("--tags", "web", **{**given, "web_tls_key": other.read_text()})
    assert wrong.returncode != 0
    assert any("web_tls_key is not the key of web_tls_certificate" in failure for failure in wrong.failures), wrong.failures
    assert "Workshops" in Browser(f"https://{address}", str(certificate)).get("/").text

    back = site.play("--tags", "web")
    assert back.returncode == 0, back.output
    assert "Workshops" in site.browser().get("/").text


def test_http_leads_to_https(site: Site) -> None:
    address = site.variables["lab_address"]
    answer = requests.get(f"http://{address}/event/0/?a=b", allow_redirects=False, timeout=30)
    assert (answer.status_code, answer.headers["Location"]) == (301, f"https://{address}/event/0/?a=b")
    assert site.browser().get("/event/0/?a=b").headers["Strict-Transport-Security"]
