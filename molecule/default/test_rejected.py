"""Bad input: one clear sentence, and the host is as it was."""

from __future__ import annotations

import pytest

from tests.lib.playbook import Run
from tests.lib.site import Site

MAIN = {"name": "main", "port": 9675}
REJECTED = {
    "wrong type": ({"web_threads": "four"}, "web_threads is 'four'; it must be an integer."),
    "unknown key of indico.conf": (
        {"indico_conf": {"SmtpSever": ["localhost", 25]}},
        "indico_conf.SmtpSever is not a key that Indico 1.2.2 reads. Did you mean SmtpServer?",
    ),
    "null in indico.conf": ({"indico_conf": {"SmtpLogin": None}}, "indico_conf.SmtpLogin is null"),
    "misspelt variable": ({"indico_storage": []}, "indico_storage is not a variable of this collection. Did you mean indico_storages?"),
    "duplicate port": (
        {"indico_storages": [MAIN, {"name": "rooms", "port": 9675}]},
        "indico_storages, rooms.port is 9675, which indico_storages, main.port has already.",
    ),
    "no storage named main": ({"indico_storages": [{"name": "rooms", "port": 9676}]}, "indico_storages has no storage named main"),
    "prefix with a blank": ({"indico_prefix": "/opt/in dico"}, "indico_prefix is '/opt/in dico'; it must hold only letters"),
    "no administrator": ({"indico_admins": []}, "indico_admins names nobody: name one, since Indico 1.2.2 gives the administration"),
    "no password": ({"indico_admins": [{"login": "ada"}]}, "indico_admins, ada has no password; there is no default."),
    "certificate missing": ({"web_tls": "provided"}, "web_tls_certificate holds no PEM text"),
    "another distribution": (
        {"ansible_facts": {"distribution": "Debian", "distribution_major_version": "12"}},
        "default1 runs Debian 12; Indico 1.2.2 needs Python 2.7",
    ),
}


@pytest.mark.parametrize("case", REJECTED)
def test_bad_input_is_refused_before_anything_is_changed(site: Site, case: str) -> None:
    extra, sentence = REJECTED[case]
    run = site.play(**extra)
    assert run.returncode != 0
    assert any(sentence in failure for failure in run.failures), run.failures
    assert run.changed == {}


def test_broken_configuration_never_lands(site: Site) -> None:
    """O3: a certificate that is none is refused before another role changes anything, and the site goes on as it was."""
    nonsense = "-----BEGIN NONSENSE-----"
    run = site.play(web_tls="provided", web_tls_certificate=nonsense, web_tls_key=nonsense)
    assert run.returncode != 0
    assert any("are no certificate with its key" in failure for failure in run.failures), run.failures
    assert run.changed == {}
    site.browser().wait("/")
    assert site.shell().run("grep --recursive NONSENSE /opt/indico/etc /etc/apache2").rc == 1


def administrator(login: str, password: str) -> dict[str, str]:
    return {"login": login, "password": password, "email": f"{login}@example.org", "first_name": "Séc", "family_name": "Ond"}


def test_last_administrator_stays(site: Site) -> None:
    """The list is worked off in order: when the old one shall go, the new one does not exist yet."""
    new = administrator("late", "created after")
    run = site.play("--tags", "indico", indico_admins=[{"login": "admin", "state": "absent"}, new])
    assert run.returncode != 0
    assert any("admin is the only administrator" in failure for failure in run.failures), run.failures
    assert site.password("admin") not in run.output and "created after" not in run.output


def test_password_of_an_administrator_is_changed_only_when_it_differs(site: Site) -> None:
    def run(second: dict[str, str]) -> Run:
        first = {**administrator("admin", site.password("admin")), "first_name": "Ada", "family_name": "Admin"}
        done = site.play("--tags", "indico", indico_admins=[first, second])
        assert done.returncode == 0, done.output
        return done

    assert len(run(administrator("second", "first password")).changed) == 1
    assert site.browser().log_in("second", "first password") == "in"
    assert run(administrator("second", "first password")).changed == {}
    assert len(run(administrator("second", "other password")).changed) == 1
    assert site.browser().log_in("second", "other password") == "in"
    assert site.browser().log_in("second", "first password") == "Wrong login or password"
    assert len(run({"login": "second", "state": "absent"}).changed) == 1
    assert run({"login": "second", "state": "absent"}).changed == {}
