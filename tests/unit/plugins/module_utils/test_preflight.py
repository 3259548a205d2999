"""preflight refuses what is wrong with a sentence that names it. The cases for types come from the roles' argument specs, so a new option has its own."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _preflight

from tests.unit import certificates
from tests.unit.roles import SPECS

OPTIONS = {name: option for options in SPECS.values() for name, option in options.items()}
# What the computed defaults come to.
ADMIN = {"login": "ada", "password": "correct horse", "email": "ada@example.org", "first_name": "Ada", "family_name": "Admin"}
GOOD: dict[str, Any] = {
    **{name: option["default"] for name, option in OPTIONS.items() if "default" in option},
    "indico_server_name": "indico.example.org",
    "indico_base_url": "https://indico.example.org",
    "backup_directory": "/var/backups/indico",
    "backup_drill_directory": "/opt/indico/drill",
    "backup_pull_user": "indico-pull",
    "backup_pull_address": "indico.example.org",
    "offsite_user": "indico-offsite",
    "offsite_directory": "/var/backups/indico-offsite",
    "python2_builder": "host1",
    "python2_cache": "/home/operator/.cache/confops/wheelhouse",
    "indico_admins": [ADMIN],
    "loadbalancer_address": "10.0.0.1",
    "loadbalancer_server": "app1",
    "web_address": "10.0.0.2",
    "cron_mail_from": "indico@indico.example.org",
}
FACTS = {"distribution": "Debian", "distribution_major_version": "11", "python_version": "3.9.2"}
CERTIFICATE, PEM = certificates.pair()
OTHER_CERTIFICATE = certificates.pair()[0]


def problems(
    changes: Mapping[str, Any] = MappingProxyType({}), facts: dict[str, Any] = FACTS, roles: list[str] | None = None, unreadable: dict[str, str] | None = None
) -> list[str]:
    """Return what preflight says about a host that has good values except for the changes."""
    variables = {**GOOD, **changes}
    return _preflight.problems(
        SPECS, roles or list(SPECS), {name: variables[name] for name in OPTIONS if name in variables}, unreadable or {}, list(variables), facts, "host1"
    )


# Types

_NO_TEXT: list[Any] = [3, 1.5, True, None, ["a"], {"a": "b"}]
_WRONG: dict[str, list[Any]] = {
    "str": _NO_TEXT,
    "path": [*_NO_TEXT, "", "relative", "./relative", "~/x"],
    "int": ["soon", "", "1.5", "1e3", "0x10", " 1", "\u0663", 1.5, True, None, [1], {"a": 1}],
    "bool": ["maybe", "", "1", 0, 1, 1.5, None, [True], {}],
    "list": ["a", "", 3, True, None, {"a": "b"}],
    "dict": ["a", "", 3, True, None, ["a"]],
}
_MUST_BE = {"str": "a string", "path": "an absolute path", "int": "an integer", "bool": "true or false", "list": "a list", "dict": "a dictionary"}


def _sample(option: dict[str, Any]) -> Any:
    """Return a value of the option's type."""
    if option["type"] == "list":
        return []
    if "choices" in option:
        return option["choices"][0]
    if option["type"] == "dict":
        return {key: _sample(inner) for key, inner in option.get("options", {}).items() if inner.get("required")}
    return {"str": "a", "path": "/a", "int": 1, "bool": True}[option["type"]]


def wrong_values(name: str, option: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Yield (how a sentence calls the place, value of the whole variable, what it must be) for each way to give the option a wrong value."""
    for wrong in _WRONG[option["type"]]:
        yield name, wrong, _MUST_BE[option["type"]]
    if "choices" in option and option["type"] != "list":
        yield name, "no such choice", f"one of {', '.join(option['choices'])}"
    if option["type"] == "list":
        element = {**option, "type": option["elements"]}
        for place, wrong, must_be in wrong_values(f"{name}[1]", element):
            yield place, [_sample(element), wrong], must_be
    if option["type"] == "dict":
        for key, inner in option.get("options", {}).items():
            for place, wrong, must_be in wrong_values(f"{name}.{key}", inner):
                yield place, {**_sample(option), key: wrong}, must_be


CASES = [(name, *case) for name, option in OPTIONS.items() for case in wrong_values(name, option)]


def test_good_values_are_accepted() -> None:
    assert set(GOOD) == set(OPTIONS)
    assert problems() == []
    assert problems(facts={}) == []


@pytest.mark.parametrize(("name", "place", "value", "must_be"), CASES, ids=lambda value: str(value)[:40])
def test_a_wrong_type_is_refused(name: str, place: str, value: Any, must_be: str) -> None:
    (sentence,) = problems({name: value})
    assert sentence.startswith(f"{place} is ")
    assert sentence.endswith(f"; it must be {must_be}.")


def test_every_option_has_a_rejecting_case() -> None:
    assert {case[0] for case in CASES} == set(OPTIONS)
    assert "indico_storages[1].replication_port" in {case[1] for case in CASES}


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option["type"] == "int"])
def test_numbers_may_come_as_digits(name: str) -> None:
    assert problems({name: str(GOOD[name])}) == []


def numbers(name: str, option: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Yield the place of each number of an option, and what makes the value of the whole option from it."""
    if option["type"] == "int":
        yield name, lambda number: number
    elif option["type"] == "list":
        for place, whole in numbers(f"{name}[0]", {**option, "type": option["elements"]}):
            yield place, lambda number, whole=whole: [whole(number)]
    elif option["type"] == "dict":
        for key, inner in option.get("options", {}).items():
            for place, whole in numbers(f"{name}.{key}", inner):
                yield place, lambda number, key=key, whole=whole: {**_sample(dict(option)), key: whole(number)}


NUMBERS = [(name, place, whole) for name, option in OPTIONS.items() for place, whole in numbers(name, option)]


@pytest.mark.parametrize(("name", "place", "whole"), NUMBERS, ids=[place for _name, place, _whole in NUMBERS])
def test_a_number_that_is_none_or_out_of_every_range_is_refused_by_its_name(name: str, place: str, whole: Callable[[Any], Any]) -> None:
    """B17, for the variables of the roles."""
    for number in (math.nan, math.inf, -math.inf, 1e99, -1, -(10**17), 10**17, 10**20, 10**5000, "nan", "inf", "-1", "1e99", "9" * 20):
        found = problems({name: whole(number)})
        assert any(one.startswith(name.partition("[")[0]) for one in found), (place, str(number)[:30] if not isinstance(number, int) else "an integer", found)
    assert len(NUMBERS) > 50


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option["type"] == "bool"])
@pytest.mark.parametrize("value", ["yes", "no", "True", "false", True, False])
def test_truth_may_come_as_words(name: str, value: Any) -> None:
    assert problems({name: value}) == []


def test_a_type_that_preflight_does_not_know_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError, match="uses the type float"):
        list(_preflight.check_value("zeo_patience", {"type": "float"}, 1.5))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"zeo_transaction_timeout": "soon"}, "zeo_transaction_timeout is 'soon'; it must be an integer."),
        ({"zeo_transaction_timeout": True}, "zeo_transaction_timeout is true; it must be an integer."),
        ({"zeo_user": None}, "zeo_user is null; it must be a string."),
        ({"web_packages": [{"name": "apache2"}]}, "web_packages[0] is a dictionary; it must be a string."),
        ({"web_tls": "letsencrypt"}, "web_tls is 'letsencrypt'; it must be one of selfsigned, provided, none."),
        ({"indico_storages": [{"name": "main", "prot": 9675}]}, "indico_storages[0].prot is not known here. Did you mean port?"),
        ({"indico_storages": [{"name": "main"}]}, "indico_storages[0].port is missing."),
        ({"indico_admins": [{**ADMIN, "shoe_size": 42}]}, "indico_admins[0].shoe_size is not known here."),
    ],
)
def test_the_words_of_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    assert sentence in problems(changes)


def test_a_required_option_must_be_there() -> None:
    specs = {"zeo": {"zeo_place": {"type": "str", "required": True}}}
    assert _preflight.problems(specs, ["zeo"], {}, {}, [], {}, "host1") == ["zeo_place is missing."]
    assert _preflight.problems(specs, ["zeo"], {}, {"zeo_place": "'x' is undefined"}, ["zeo_place"], {}, "host1") == [
        "zeo_place cannot be read: 'x' is undefined"
    ]


# Names


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("indico_storage", " Did you mean indico_storages?"),
        ("indico_Prefix", " Did you mean indico_prefix?"),
        ("zeo_transaction_timout", " Did you mean zeo_transaction_timeout?"),
        ("web_proceses", " Did you mean web_processes?"),
        ("scheduler_loglevel", " Did you mean scheduler_log_level?"),
        ("python2_packges", " Did you mean python2_packages?"),
        ("common_package", " Did you mean common_packages?"),
        ("web_qqqqqqqqqqqqqqqqqq", ""),
    ],
)
def test_a_misspelt_name_is_refused(name: str, nearest: str) -> None:
    assert problems({name: 1}) == [f"{name} is not a variable of this collection.{nearest} (A site lists names of its own in indico_site_variables.)"]


def test_other_names_are_nobodys_business() -> None:
    others = dict.fromkeys(("__indico_x", "my_indico_storage", "indico", "zeoserver", "vault_web_tls_key", "ansible_host", "group_names", "lab_address"), 1)
    assert problems(others) == []


def test_a_site_may_have_names_of_its_own() -> None:
    assert problems({"indico_shop": 1, "web_shop": 1, "indico_site_variables": ["indico_shop", "web_shop"]}) == []
    assert len(problems({"indico_shop": 1, "web_shop": 1, "indico_site_variables": ["indico_shop"]})) == 1
    assert [sentence.split(" ")[0] for sentence in problems({"indico_shop": 1, "indico_site_variables": "indico_shop"})] == [
        "indico_shop",
        "indico_site_variables",
    ]


# Contradictions


def storage(name: str, port: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "port": port, **more}


MAIN = storage("main", 9675)
REDIS = {"indico_cache_backend": "redis", "indico_redis_password": "sixteen-letters_~"}
MOUNT = {"path": "archive", "src": "nfs:/archive"}
MAIL = {"mail_relay_host": "mail.example.org", "mail_relay_user": "indico", "mail_relay_password": "p: $#"}
SOURCE = {"indico_source": "/srv/indico.git"}
STANDBY = {
    "zeo_cluster": {"db1": "10.0.0.2", "db2": "10.0.0.3"},
    "zeo_listen_address": "10.0.0.2",
    "zeo_allowed_sources": ["10.0.0.0/24"],
    "indico_zeo_password": "long enough",
}
CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"indico_version": "fix-1234"}, "indico_version is fix-1234, which nobody has published for this collection: the package is 1.2.2."),
    ({"indico_version": "../x", **SOURCE}, "indico_version is '../x'; it must be a branch, a tag or a commit of letters,"),
    ({"indico_version": "-x", **SOURCE}, "indico_version is '-x'; it must be a branch, a tag or a commit of letters,"),
    ({"indico_source": "--upload-pack=x"}, "indico_source is '--upload-pack=x'; it must be the URL of a git repository, or its path on the builder"),
    ({"indico_source": "/srv/my indico"}, "indico_source is '/srv/my indico'; it must be the URL of a git repository, or its path on the builder"),
    ({"indico_source": "https://ada:secret@git.example.org/indico"}, "indico_source holds a password, which would stand in every release;"),
    ({"indico_patches": ["/nowhere/a.patch"]}, "indico_patches has /nowhere/a.patch, which is no file on the controller."),
    ({"indico_patches": [__file__, __file__]}, "indico_patches has two files of the name test_preflight.py; a release lists them by their names."),
    ({"indico_packages": ["plugin"]}, "indico_packages has 'plugin'; each must be a name and a version such as indico-plugin==1.0,"),
    ({"indico_packages": ["-r x"]}, "indico_packages has '-r x'; each must be a name and a version"),
    ({"indico_packages": ["a==1", "b==1 --hash=sha256:" + "0" * 64]}, "indico_packages has lines with --hash and lines without;"),
    ({"indico_keep_releases": 0}, "indico_keep_releases is 0; it must be 1 or more."),
    ({"indico_health_count": 0}, "indico_health_count is 0; it must be 1 or more."),
    ({"indico_health_seconds": 0}, "indico_health_seconds is 0; it must be 1 or more."),
    ({"indico_health_path": "x"}, "indico_health_path has 'x'; a page begins with a slash and follows indico_base_url."),
    ({"indico_warm_paths": ["/", "/a b"]}, "indico_warm_paths has '/a b'; a page begins with a slash and follows indico_base_url."),
    ({"indico_storages": []}, "indico_storages has no storage named main; Indico opens that one."),
    ({"indico_storages": [storage("rooms", 9676)]}, "indico_storages has no storage named main; Indico opens that one."),
    ({"indico_storages": [MAIN, storage("main", 9676)]}, "indico_storages names main more than once."),
    ({"indico_storages": [MAIN, storage("Rooms", 9676)]}, "indico_storages has a storage named 'Rooms'; a name begins with a lower-case letter and holds"),
    ({"indico_storages": [MAIN, storage("../x", 9676)]}, "indico_storages has a storage named '../x'; "),
    ({"indico_storages": [MAIN, storage("a\n", 9676)]}, "indico_storages has a storage named 'a\\n'; "),
    ({"indico_storages": [MAIN, storage("rooms", 9675)]}, "indico_storages, rooms.port is 9675, which indico_storages, main.port has already."),
    ({"indico_storages": [MAIN, storage("rooms", "9675")]}, "indico_storages, rooms.port is 9675, which indico_storages, main.port has already."),
    (
        {"indico_storages": [storage("main", 9675, replication_port=9675)]},
        "indico_storages, main.replication_port is 9675, which indico_storages, main.port has already.",
    ),
    ({"indico_storages": [storage("main", 80)]}, "web_http_port is 80, which indico_storages, main.port has already."),
    ({"indico_storages": [storage("main", 0)]}, "indico_storages, main.port is 0; a port is a number from 1 to 65535."),
    ({"indico_storages": [storage("main", 65536)]}, "indico_storages, main.port is 65536; a port is a number from 1 to 65535."),
    ({"web_https_port": 80}, "web_https_port is 80, which web_http_port has already."),
    ({"web_http_port": -1}, "web_http_port is -1; a port is a number from 1 to 65535."),
    ({"indico_prefix": "/srv/my indico"}, "indico_prefix is '/srv/my indico'; it must hold only letters, digits, dots, hyphens and underscores"),
    ({"indico_prefix": "/srv/in%dico"}, "indico_prefix is '/srv/in%dico'; it must hold only letters"),
    ({"indico_prefix": "/srv/indico\n"}, "indico_prefix is '/srv/indico\\n'; it must hold only letters"),
    *(
        ({"indico_prefix": path}, f"indico_prefix is {path}; it must be a directory of its own")
        for path in ("/", "//", "/home", "/usr", "/etc", "/etc/", "/opt", "/var/lib")
    ),
    *(
        ({"indico_prefix": path}, f"indico_prefix is {path}; nothing below ")
        for path in ("/home/indico", "/run/indico", "/proc/1", "/root/x", "/boot/x", "/sys/x")
    ),
    *(({"indico_prefix": path}, f"indico_prefix is {path}; write it without") for path in ("/opt/indico/", "/opt//indico", "/opt/../etc", "/opt/./indico")),
    ({"indico_instance": "My Indico"}, "indico_instance is 'My Indico'; it must begin with a lower-case letter"),
    ({"indico_instance": "a" * 32}, f"indico_instance is '{'a' * 32}'; it must begin with a lower-case letter and hold at most 31"),
    ({"indico_user": "1ndico"}, "indico_user is '1ndico'; it must begin with a lower-case letter"),
    ({"zeo_user": "zeo\n"}, "zeo_user is 'zeo\\n'; it must begin with a lower-case letter"),
    ({"indico_user": "root"}, "indico_user is root; a service runs as a user of its own"),
    ({"zeo_user": "root"}, "zeo_user is root; a service runs as a user of its own"),
    ({"indico_user": "www-data"}, "indico_user is www-data; a service runs as a user of its own, neither root nor the web server's."),
    ({"indico_user": "zeo"}, "indico_user and zeo_user are both zeo; the workers must not own the databases."),
    ({"indico_server_name": "https://x"}, "indico_server_name is 'https://x'; it must be a host name or an IPv4 address"),
    ({"indico_zeo_host": ""}, "indico_zeo_host is ''; it must be a host name or an IPv4 address"),
    (
        {"zeo_listen_address": "10.0.0.2", "zeo_allowed_sources": ["10.0.0.0/24"]},
        "zeo_listen_address is 10.0.0.2, which others reach, but indico_zeo_password is empty: whoever connects would own the databases.",
    ),
    (
        {"zeo_listen_address": "10.0.0.2", "indico_zeo_password": "long enough"},
        "zeo_listen_address is 10.0.0.2, which others reach, but zeo_allowed_sources names nobody: list the hosts of the cluster or their network.",
    ),
    ({"indico_zeo_password": "short"}, "indico_zeo_password has fewer than 8 characters."),
    (
        {"indico_zeo_password": "long enough", "indico_zeo_user": "a:b"},
        "indico_zeo_user is 'a:b'; it must hold only letters, digits, dots, hyphens and underscores.",
    ),
    (
        {"indico_cache_backend": "redis"},
        "indico_cache_backend is redis, but indico_redis_password is empty: whoever reaches Redis could read and make sessions.",
    ),
    ({"indico_redis_password": "fifteen-letters"}, "indico_redis_password has fewer than 16 characters."),
    ({"indico_redis_password": "sixteen letters/@"}, "indico_redis_password holds other characters than letters, digits"),
    ({"indico_redis_host": "redis://x"}, "indico_redis_host is 'redis://x'; it must be a host name or an IPv4 address, without a port."),
    *(
        ({"redis_listen_address": address}, f"redis_listen_address is {address!r}; it must be one IPv4 address of the host")
        for address in ("0.0.0.0", "localhost", "::1", "10.0.0.1 10.0.0.2", "")  # noqa: S104 (refused)
    ),
    (
        {"redis_listen_address": "10.0.0.2"},
        "redis_listen_address is 10.0.0.2, which others reach, but indico_redis_password is empty: whoever connects would own",
    ),
    *(({name: 15}, f"{name} is 15; it must be 16 or more.") for name in ("redis_memory_mb", "memcached_memory_mb")),
    ({**REDIS, "indico_redis_port": 9675}, "indico_redis_port is 9675, which indico_storages, main.port has already."),
    ({"indico_memcached_servers": ["127.0.0.1:11211", "10.0.0.2"]}, "indico_memcached_servers[1] is '10.0.0.2'; it must be an address and a port such as"),
    ({"indico_memcached_servers": ["127.0.0.1:1", "localhost:2"]}, "indico_memcached_servers has 127.0.0.1:1 and localhost:2; one server runs on a host."),
    ({"indico_memcached_servers": ["127.0.0.2:1"]}, "indico_memcached_servers has 127.0.0.2:1; memcached listens on 127.0.0.1."),
    ({"indico_cache_backend": "memcached", "indico_memcached_servers": []}, "indico_cache_backend is memcached, but indico_memcached_servers names none"),
    (
        {"indico_cache_backend": "memcached", "indico_conf": {"SessionLifetime": 86400 * 31}},
        "indico_conf.SessionLifetime is 2678400, but indico_cache_backend is memcached, which takes more than 2592000 seconds (30 days) for a date in the past",
    ),
    ({"zeo_allowed_sources": ["10.0.0.1", "db2"]}, "zeo_allowed_sources[1] is 'db2'; it must be an IP address or a network such as 10.0.0.0/8."),
    (
        {"zeo_cluster": {"db1": "127.0.0.1", "db2": "127.0.0.1"}},
        "db1 and db2 serve the databases together, but zeo_listen_address is 127.0.0.1, where the others do not reach this host.",
    ),
    ({"scheduler_metrics_file": "/srv/a b.prom"}, "scheduler_metrics_file is '/srv/a b.prom'; it must hold only letters"),
    (
        {"scheduler_tasks": [{"task": "gardener"}]},
        "scheduler_tasks[0] (gardener) is neither one of janitor, category_statistics, suggestions, room_reservations, livesync, outlook nor the dotted path",
    ),
    ({"scheduler_tasks": [{"task": "category_statistics"}]}, "scheduler_tasks[0] (category_statistics) has no category; 0 is the home of all."),
    ({"scheduler_tasks": [{"task": "janitor", "hours": [24]}]}, "scheduler_tasks[0] (janitor) has 24 among its hours; they go from 0 to 23."),
    ({"scheduler_tasks": [{"task": "janitor", "interval": 0}]}, "scheduler_tasks[0] (janitor) has the interval 0; it must be 1 or more."),
    ({"scheduler_tasks": [{"task": "janitor"}, {"task": "janitor", "hours": [3]}]}, "scheduler_tasks[1] (janitor) is named twice"),
    ({"scheduler_keep_days": -1}, "scheduler_keep_days is -1; it must be 0 or more."),
    ({"indico_jobs_backend": "cron", "scheduler_purge_schedule": "monthly"}, "scheduler_purge_schedule: The schedule 'monthly' cannot be given to cron"),
    ({"zeo_metrics_file": "/etc"}, "zeo_metrics_file is /etc; it must be a path of its own, not one of the system's."),
    ({"cron_metrics_file": "jobs.prom"}, "cron_metrics_file is 'jobs.prom'; it must be an absolute path."),
    ({"backup_metrics_file": "/tmp/backup.prom"}, "backup_metrics_file is /tmp/backup.prom; nothing below /tmp serves, since the jobs do not see it"),
    ({"zeo_claim_port": 9675}, "zeo_claim_port is 9675, which indico_storages, main.port has already."),
    ({"zeo_listen_address": "0.0.0.0\n</zeo>"}, "zeo_listen_address is '0.0.0.0\\n</zeo>'; it must be a host name or an IPv4 address"),
    *(
        ({"indico_base_url": url}, f"indico_base_url is {url!r}; it must begin with http:// or https://, name a host, and end without a slash.")
        for url in (
            "indico.example.org",
            "https://",
            "https://x.org/",
            "ftp://x.org",
            "https://x.org/a b",
            "https://x.org/?a",
            "https://u:pw@x.org",
            "https://::1",
            "https://[::1]",
            'https://x"y',
        )
    ),
    ({"indico_base_url": "http://x.org"}, "indico_base_url is http://x.org, but web_tls is selfsigned, which redirects HTTP to HTTPS."),
    ({"web_tls": "none"}, "indico_base_url is https://indico.example.org and web_tls is none, but web_trusted_proxies is empty"),
    ({"indico_server_name": "::1"}, "indico_server_name is '::1'; it must be a host name or an IPv4 address, without a port."),
    ({"web_trusted_proxies": ["10.0.0.1", "proxy.example.org"]}, "web_trusted_proxies[1] is 'proxy.example.org'; it must be an IP address or a network"),
    *(
        ({name: 0}, f"{name} is 0; it must be 1 or more.")
        for name in ("web_processes", "web_threads", "web_request_timeout", "web_upload_limit_mb", "zeo_invalidation_queue_size", "zeo_transaction_timeout")
    ),
    *(({name: 0}, f"{name} is 0; it must be 1 or more.") for name in ("backup_max_incrementals",)),
    # O18: what the run at night would refuse.
    *(
        ({f"{role}_{name}": number}, f"{role}_{name} is {number}; {words}.")
        for role in ("backup", "offsite")
        for name, number, words in [
            ("window_days", 0, "a window has 1 to 36500 days"),
            ("keep_chains_min", 0, "at least 1 chain must remain"),
            *((f"keep_{period}", -1, "it is a number of generations, 0 or more") for period in ("daily", "weekly", "monthly", "yearly")),
        ]
    ),
    # O3: a schedule of either backend, and the spans around it.
    *(
        ({name: "25:99"}, f"{name} is '25:99'; '25:99' is no time of day, from 00:00 to 23:59.")
        for name in OPTIONS
        if name.endswith("_schedule") and name != "logrotate_schedule"
    ),
    ({"backup_schedule": "*-02-30 1:00"}, "backup_schedule is '*-02-30 1:00'; '*-02-30' never comes."),
    ({"backup_schedule": "Mo 1:00"}, "backup_schedule is 'Mo 1:00'; 'Mo' is no day of the week and no range of them, such as Mon..Fri."),
    *(
        ({name: "10mins"}, f"{name} is '10mins'; it must be a time such as 90s, 10min or 1h 30min.")
        for name in OPTIONS
        if re.search("_(jitter|time_limit)$", name)
    ),
    ({"backup_schedule_jitter": ""}, "backup_schedule_jitter is ''; it must be a time such as"),
    ({"backup_time_limit": "0"}, "backup_time_limit is 0; a job needs some time. infinity sets no limit."),
    ({"web_tls": "provided", "web_tls_certificate": OTHER_CERTIFICATE, "web_tls_key": PEM}, "web_tls_key is not the key of web_tls_certificate."),
    (
        {"web_tls": "provided", "web_tls_certificate": "-----BEGIN CERTIFICATE-----\n", "web_tls_key": PEM},
        "web_tls_certificate and web_tls_key are no certificate with its key, without a passphrase, that OpenSSL reads.",
    ),
    # O17: a port that nobody wrote down.
    (
        {"indico_storages": [MAIN, storage("rooms", 10675)], **STANDBY},
        "indico_storages, main: the port of its replication, which is 1000 above its own unless replication_port says otherwise, is 10675, which "
        "indico_storages, rooms.port has already.",
    ),
    (
        {"indico_storages": [storage("main", 8675)], "zeo_claim_port": 9675, **STANDBY},
        "zeo_claim_port is 9675, which indico_storages, main: the port of its replication, which",
    ),
    (
        {"indico_cache_backend": "memcached", "indico_memcached_servers": ["127.0.0.1:9675"]},
        "indico_memcached_servers is 9675, which indico_storages, main.port has already.",
    ),
    # O1: a directory that units name.
    *(
        ({name: path}, f"{name} is {path}; {words}")
        for name in OPTIONS
        if name.endswith("_metrics_file")
        for path, words in [
            ("/home/x/a.prom", "nothing below /home serves, since the jobs do not see it or a reboot empties it."),
            ("/tmp/a.prom", "nothing below /tmp serves"),
            ("/run/a.prom", "nothing below /run serves"),
            ("/var/lib/metrics/", "it must name a file, without trailing"),
            ("/var/lib/../a.prom", "it must name a file, without trailing"),
            ("/a.prom", "a job must not be allowed to write to /. Name a directory below /var/lib."),
            ("/etc/a.prom", "a job must not be allowed to write to /etc."),
        ]
    ),
    *(({name: "a.prom"}, f"{name} is 'a.prom'; it must be an absolute path.") for name in OPTIONS if name.endswith("_metrics_file")),
    ({"zeo_metrics_file": "/srv/m/a.prom", "cron_metrics_file": "/srv/m/a.prom"}, "zeo_metrics_file is /srv/m/a.prom, which cron_metrics_file has already."),
    *(
        ({name: "/home/backups"}, f"{name} is /home/backups; nothing below /home serves, since the jobs do not see it")
        for name in ("backup_directory", "backup_drill_directory")
    ),
    *(
        ({name: "/var/my backups"}, f"{name} is '/var/my backups'; it must hold only letters, digits, dots, hyphens and underscores between its slashes")
        for name in ("backup_directory", "backup_drill_directory", "backup_metrics_file")
    ),
    *(
        ({name: "/srv/my copy"}, f"{name} is '/srv/my copy'; it must hold only letters, digits, dots, hyphens and underscores between its slashes")
        for name in ("offsite_directory", "offsite_metrics_file")
    ),
    ({"offsite_directory": "/srv/"}, "offsite_directory is /srv/; it must be a path of its own, not one of the system's."),
    (
        {"offsite_directory": "/home/copy"},
        "offsite_directory is /home/copy; nothing below /home serves, since the pull does not see it or a reboot empties it.",
    ),
    *(({name: "a" * 32}, f"{name} is '{'a' * 32}'; it must begin with a lower-case letter") for name in ("offsite_user", "backup_pull_user")),
    *(
        ({"backup_pull_keys": ["", key]}, "backup_pull_keys[1] is no public Ed25519 key; it must be one line that begins with ssh-ed25519.")
        for key in ("ssh-rsa AAAA", 'command="sh" ssh-ed25519 AAAA', "ssh-ed25519 AAAA x\nssh-ed25519 BBBB")
    ),
    ({"backup_directory": "/srv"}, "backup_directory is /srv; it must be a path of its own, not one of the system's."),
    (
        {"backup_drill_directory": "/opt/indico"},
        "backup_drill_directory is /opt/indico, which a drill empties, and indico_prefix is /opt/indico; it must be a directory of its own.",
    ),
    (
        {"backup_drill_directory": "/var/backups"},
        "backup_drill_directory is /var/backups, which a drill empties, and backup_directory is /var/backups/indico; it must be a directory of its own.",
    ),
    ({"backup_allowed_hours": "22-6"}, "backup_allowed_hours is '22-6'; it must be two times such as 22:00-06:00, or empty."),
    ({"cron_allowed_hours": "22:00"}, "cron_allowed_hours is '22:00'; it must be two times such as 22:00-06:00, or empty."),
    ({"cron_disk_warning_percent": 96}, "cron_disk_warning_percent is 96 and cron_disk_critical_percent 95; they must be more than 0, at most 100"),
    ({"cron_disk_warning_days": -1}, "cron_disk_warning_days is -1; it must be 0 or more."),
    ({"cron_mirror_target": "/srv/a b"}, "cron_mirror_target is '/srv/a b'; it must hold only letters, digits"),
    ({"cron_mirror_target": "/srv"}, "cron_mirror_target is /srv; it must be a directory of its own below another one, such as /srv/mirror."),
    ({"cron_mirror_target": "/mirror"}, "cron_mirror_target is /mirror; it must be a directory of its own below another one, such as /srv/mirror."),
    ({"cron_mirror_target": "/srv/mirror/"}, "cron_mirror_target is /srv/mirror/; it must be a directory of its own below another one"),
    ({"cron_mirror_target": "/home/x/mirror"}, "cron_mirror_target is /home/x/mirror; nothing below /home serves, since the job does not see it"),
    ({"cron_mirror_days": 0}, "cron_mirror_days is 0; it must be 1 or more."),
    ({"cron_mirror_categories": ["0", "Physics 1"]}, "cron_mirror_categories[1] is 'Physics 1'; it must be the id of a category, such as 0."),
    ({"cron_mirror_categories": []}, "cron_mirror_categories is empty; name the categories to mirror, 0 for all."),
    ({"indico_jobs_backend": "cron", "cron_mirror_schedule": "hourly"}, "cron_mirror_schedule: The schedule 'hourly' cannot be given to cron"),
    ({"cron_mail_to": ["a@example.org, b@example.org"]}, "cron_mail_to has 'a@example.org, b@example.org'; each must be an address"),
    ({"cron_mail_from": "indico"}, "cron_mail_from is 'indico'; it must be an address, such as indico@example.org."),
    ({"cron_smtp_port": 0}, "cron_smtp_port is 0; it must be from 1 to 65535."),
    ({"cron_failure_url": "example.org/hook"}, "cron_failure_url is no URL; it must begin with http:// or https://."),
    ({"indico_jobs_backend": "cron", "cron_disk_schedule": "hourly"}, "cron_disk_schedule: The schedule 'hourly' cannot be given to cron"),
    ({"indico_jobs_backend": "cron", "offsite_schedule": "hourly"}, "offsite_schedule: The schedule 'hourly' cannot be given to cron"),
    ({"backup_ping_failure": "example.org"}, "backup_ping_failure is no URL; it must begin with http:// or https://."),
    ({"backup_after_tasks": "/nowhere/after.yml"}, "backup_after_tasks is /nowhere/after.yml, which is no file on the controller."),
    ({"backup_archive_roots": ["/disk2", "/opt/"]}, "backup_archive_roots[1] is '/opt/'; it must hold stored files"),
    ({"backup_pack_days": -1}, "backup_pack_days is -1; it must be 0 or more."),
    (
        {"indico_jobs_backend": "cron", "backup_pack_schedule": "Sun *-*-1..7 03:30"},
        "backup_pack_schedule: The schedule 'Sun *-*-1..7 03:30' cannot be given to cron",
    ),
    ({"indico_jobs_backend": "cron", "backup_schedule": "hourly"}, "backup_schedule: The schedule 'hourly' cannot be given to cron; write it as 01:30"),
    *(({name: 0}, f"{name} is 0; it must be 1 or more.") for name in ("logrotate_keep", "logrotate_dated_days")),
    ({"logrotate_max_size": "1 GB"}, "logrotate_max_size is '1 GB'; it must be a number of bytes, or one with k, M or G behind it."),
    *(
        ({"logrotate_olddir": name}, f"logrotate_olddir is {name!r}; it must be the name of a directory beside the logs")
        for name in ("/var/log/old", "../old", "a b", ".")
    ),
    ({"logrotate_mail": "a@example.org b"}, "logrotate_mail is 'a@example.org b'; it must be one address."),
    ({"indico_conf": {"CSRFLevel": 9}}, "indico_conf.CSRFLevel is 9; it must be an integer from 0 to 3."),
    ({"indico_conf": {"SmtpServr": "x"}}, "indico_conf.SmtpServr is not a key that Indico 1.2.2 reads. Did you mean SmtpServer?"),
    ({"indico_conf": {"WorkerName": None}}, "indico_conf.WorkerName is null; leave the key out and Indico's own default applies."),
    *(
        ({"indico_conf": {key: "/x"}}, f"indico_conf.{key} is derived; set indico_prefix instead.")
        for key in ("ConfigurationDir", "DocumentationDir", "HtdocsDir", "LogDir", "ArchiveDir", "BinDir", "UploadedFilesTempDir", "XMLCacheDir")
    ),
    ({"loadbalancer_listen_addresses": []}, "loadbalancer_listen_addresses names none; nobody would reach the site."),
    ({"loadbalancer_listen_addresses": ["10.0.0.1", "lb1"]}, "loadbalancer_listen_addresses[1] is 'lb1'; it must be an IP address, or 0.0.0.0 or :: for all."),
    ({"loadbalancer_https_port": 80}, "loadbalancer_https_port is 80, which loadbalancer_http_port has already."),
    ({"loadbalancer_http_port": 0}, "loadbalancer_http_port is 0; a port is a number from 1 to 65535."),
    ({"loadbalancer_address": "10.0.0.1:80"}, "loadbalancer_address is '10.0.0.1:80'; it must be a host name or an IPv4 address, without a port."),
    ({"web_address": "http://app1"}, "web_address is 'http://app1'; it must be a host name or an IPv4 address, without a port."),
    ({"loadbalancer_tls": "provided", "loadbalancer_tls_key": PEM}, "loadbalancer_tls_certificate holds no PEM text; loadbalancer_tls: provided needs it."),
    ({"loadbalancer_tls_key": PEM}, "loadbalancer_tls_key is given, but loadbalancer_tls is selfsigned; set it to provided."),
    *(
        ({f"loadbalancer_{name}": 0}, f"loadbalancer_{name} is 0; it must be 1 or more.")
        for name in ("max_connections", "check_interval", "drain_timeout", "admit_timeout")
    ),
    ({"indico_shared_mounts": [MOUNT, MOUNT]}, "indico_shared_mounts names archive more than once."),
    (
        {**REDIS, "indico_shared_mounts": [{**MOUNT, "path": "cache"}]},
        "indico_shared_mounts has cache, but indico_cache_backend is redis: what remains in that directory each host has for itself.",
    ),
    ({"indico_uid": -1}, "indico_uid is -1; it must be a number below 65534, or 0 to leave it to the host."),
    ({"indico_conf": {"DBConnectionParams": ["x", 1]}}, "indico_conf.DBConnectionParams is derived; set indico_zeo_host and indico_storages instead."),
    ({"indico_conf": {"BaseURL": "https://x"}}, "indico_conf.BaseURL is derived; set indico_base_url instead."),
    ({"indico_conf": {"BaseSecureURL": "https://x"}}, "indico_conf.BaseSecureURL is derived; set indico_base_url instead."),
    ({"indico_conf": {"CacheBackend": "redis"}}, "indico_conf.CacheBackend is derived; set indico_cache_backend instead."),
    ({"indico_conf": {"MemcachedServers": ["x:1"]}}, "indico_conf.MemcachedServers is derived; set indico_memcached_servers instead."),
    *(
        ({"indico_conf": {key: "redis://x"}}, f"indico_conf.{key} is derived; set indico_cache_backend, indico_redis_host and indico_redis_password instead.")
        for key in ("RedisCacheURL", "RedisConnectionURL")
    ),
    ({"indico_admins": []}, "indico_admins names nobody: name one, since Indico 1.2.2 gives the administration"),
    ({"indico_admins": [{**ADMIN, "state": "absent"}]}, "indico_admins names nobody: name one"),
    ({"indico_admins": [{"login": "ada", "password": "correct horse"}]}, "indico_admins, ada has no email, no first_name, no family_name."),
    ({"indico_admins": [{**ADMIN, "password": None}]}, "indico_admins[0].password is null; it must be a string."),
    ({"indico_admins": [{**ADMIN, "password": ""}]}, "indico_admins, ada has no password; there is no default."),
    ({"indico_admins": [{**ADMIN, "password": "1234567"}]}, "indico_admins, ada has a password of fewer than 8 characters."),
    (
        {"indico_admins": [{**ADMIN, "login": "administrator", "password": "Administrator"}]},
        "indico_admins, administrator has a password that is the login or the address.",
    ),
    ({"indico_admins": [{**ADMIN, "password": "ADA@example.org"}]}, "indico_admins, ada has a password that is the login or the address."),
    ({"indico_admins": [ADMIN, {"login": "ada", "state": "absent"}]}, "indico_admins names ada more than once."),
    ({"web_tls": "provided", "web_tls_key": PEM}, "web_tls_certificate holds no PEM text; web_tls: provided needs it."),
    ({"web_tls": "provided", "web_tls_certificate": PEM, "web_tls_key": "/etc/ssl/key.pem"}, "web_tls_key holds no PEM text; web_tls: provided needs it."),
    ({"web_tls_key": PEM}, "web_tls_key is given, but web_tls is selfsigned; set it to provided."),
    *(
        ({"mail_relay_host": host}, f"mail_relay_host is {host!r}; it must be a host name or an IP address, without a port.")
        for host in ("mail.example.org:25", "[::1]", "a b", "-x", "x\n", "fe80::1%eth0", "$myhostname")
    ),
    ({"mail_relay_port": 0}, "mail_relay_port is 0; a port is a number from 1 to 65535."),
    *(
        ({"mail_relay_host": host, "mail_relay_tls": "none"}, f"mail_relay_host is {host} and mail_relay_port is 25, where the local relay itself listens")
        for host in ("127.0.0.1", "::1", "localhost")
    ),
    ({"mail_relay_host": "192.0.2.1"}, "mail_relay_tls is verify, but mail_relay_host is 192.0.2.1: a certificate is compared with a name"),
    ({**MAIL, "mail_relay_port": 465, "mail_relay_tls": "none"}, "mail_relay_port is 465, where nothing is said without TLS, but mail_relay_tls is none"),
    ({"mail_origin": "@example.org"}, "mail_origin is '@example.org'; it must be a domain such as example.org."),
    *(
        ({"mail_root_to": ["ops@example.org", address]}, f"mail_root_to[1] is {address!r}; it must be an address such as")
        for address in ("root", "Ops <ops@example.org>", "a@example.org, b@example.org", "{x}@example.org")
    ),
    ({**MAIL, "mail_relay_password": ""}, "mail_relay_user is given, but mail_relay_password is empty; a relay wants both or neither."),
    ({**MAIL, "mail_relay_user": ""}, "mail_relay_password is given, but mail_relay_user is empty; a relay wants both or neither."),
    *(({**MAIL, "mail_relay_user": user}, f"mail_relay_user is {user!r}; it must hold neither blanks nor colons.") for user in ("a:b", "a b", "a\n")),
    *(({**MAIL, "mail_relay_password": text}, "mail_relay_password begins or ends with a blank, or holds a line break") for text in (" a", "a\nb", "a\x00")),
    *(({**MAIL, "mail_relay_tls": tls}, f"mail_relay_password is given, but mail_relay_tls is {tls}: it could cross the network") for tls in ("none", "may")),
    ({**MAIL, "web_http_port": 25}, "web_http_port is 25, which the local relay (mail_relay_host) has already."),
]


@pytest.mark.parametrize(("changes", "sentence"), CONTRADICTIONS, ids=lambda value: str(value)[:60])
def test_a_contradiction_is_refused(changes: dict[str, Any], sentence: str) -> None:
    found = problems(changes)
    assert len([one for one in found if one.startswith(sentence)]) == 1, found


@pytest.mark.parametrize(
    "changes",
    [
        {"indico_storages": [storage("main", "9675", replication_port="8091"), storage("room-booking2", 9676)]},
        {"web_tls": "none", "web_http_port": 443, "indico_base_url": "https://x.org:8443/indico", "web_trusted_proxies": ["10.0.0.1"]},
        {"web_tls": "none", "indico_base_url": "http://x.org"},
        {"web_tls": "provided", "web_tls_certificate": CERTIFICATE, "web_tls_key": PEM},
        {"indico_storages": [MAIN, storage("rooms", 10675)]},  # no standby
        {"indico_storages": [storage("main", 9675, replication_port=8091), storage("rooms", 10675)], **STANDBY},
        {"backup_schedule": "Mon..Fri 22:15", "backup_drill_schedule": "", "cron_disk_schedule": "*:0/15", "cron_time_limit": "infinity"},
        {"indico_jobs_backend": "none", "backup_schedule": "as AWX has it"},
        {"zeo_metrics_file": "/var/lib/prometheus/node-exporter/zeo.prom"},
        {"indico_prefix": "/srv/indico-1.2_x"},
        {"indico_prefix": "/opt/home"},
        {"backup_pull_keys": ["", "ssh-ed25519 AAAA= who", "ssh-ed25519 AAAA"]},
        {
            "indico_base_url": "https://10.0.0.2/indico/events",
            "indico_server_name": "10.0.0.2",
            "zeo_listen_address": "10.0.0.2",
            "zeo_allowed_sources": ["10.0.0.0/24", "fd00::/8"],
            "indico_zeo_password": "long enough",
        },
        {"web_trusted_proxies": ["10.0.0.1", "10.0.0.0/8", "2001:db8::/32"]},
        {"logrotate_max_size": "500M", "logrotate_olddir": "", "logrotate_mail": "ops+indico@example.org"},
        {**REDIS, "indico_redis_host": "10.0.0.2", "redis_listen_address": "10.0.0.2", "indico_conf": {"SessionLifetime": 86400 * 31}},
        {"indico_cache_backend": "memcached", "indico_memcached_servers": ["localhost:11211", "10.0.0.2:11211"], "indico_conf": {"SessionLifetime": 2592000}},
        {"indico_redis_port": 9675},  # nobody listens there
        MAIL,
        {**MAIL, "mail_relay_host": "2001:db8::1", "mail_relay_port": "465", "mail_relay_tls": "encrypt", "mail_root_to": ["a+b@example.org", "c@x"]},
        {**MAIL, "mail_relay_host": "127.0.0.1", "mail_relay_port": 2525, "mail_relay_tls": "none", "mail_origin": "example.org"},
        {"web_http_port": 25},  # nobody listens there
        {"indico_admins": [ADMIN, {"login": "bruno", "state": "absent"}]},
        {"indico_conf": {"SmtpServer": ["localhost", 25], "SupportEmail": "a@b", "SmtpUseTLS": "yes"}},
    ],
)
def test_what_fits_together_is_accepted(changes: dict[str, Any]) -> None:
    assert problems(changes) == []


def test_every_check_reads_variables_that_exist_and_has_a_case_here() -> None:
    for check in _preflight.CHECKS:
        wanted = set(inspect.signature(check).parameters)
        assert wanted <= set(OPTIONS)
        assert any(list(check(**{name: {**GOOD, **changes}[name] for name in wanted})) for changes, _sentence in CONTRADICTIONS)


# The host


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        (
            {"distribution": "Debian", "distribution_major_version": "12"},
            "host1 runs Debian 12; Indico 1.2.2 needs Python 2.7, which Debian 11 is the last to package.",
        ),
        (
            {"distribution": "Ubuntu", "distribution_major_version": "11"},
            "host1 runs Ubuntu 11; Indico 1.2.2 needs Python 2.7, which Debian 11 is the last to package.",
        ),
        ({"distribution": "Debian"}, "host1 runs Debian None; Indico 1.2.2 needs Python 2.7, which Debian 11 is the last to package."),
        ({**FACTS, "python_version": "3.8.18"}, "host1 runs Ansible's modules with Python 3.8; this collection needs 3.9 or later there."),
    ],
)
def test_a_host_that_cannot_run_it_is_refused(facts: dict[str, Any], sentence: str) -> None:
    assert problems(facts=facts) == [sentence]


@pytest.mark.parametrize("facts", [{}, {"fqdn": "x"}, FACTS, {**FACTS, "python_version": "3.13.1", "distribution_major_version": 11}])
def test_a_host_that_can_or_is_unknown_is_accepted(facts: dict[str, Any]) -> None:
    assert problems(facts=facts) == []


# The whole


def test_all_problems_come_at_once() -> None:
    found = problems(
        {"indico_storage": [], "zeo_transaction_timeout": "soon", "web_https_port": 80, "indico_conf": {"CSRFLevel": 9}},
        facts={**FACTS, "distribution_major_version": "12"},
        unreadable={"web_tls_key": "'vault_web_tls_key' is undefined"},
    )
    assert [sentence.split(" ")[0] for sentence in found] == [
        "indico_storage",
        "web_tls_key",
        "zeo_transaction_timeout",
        "web_https_port",
        "indico_conf.CSRFLevel",
        "host1",
    ]


def test_only_the_named_roles_are_checked_but_all_names_are_known() -> None:
    wrong: dict[str, Any] = {"web_processes": "many", "zeo_transaction_timeout": "soon", "web_proceses": 2}
    assert [sentence.split(" ")[0] for sentence in problems(wrong, roles=["zeo"])] == ["web_proceses", "zeo_transaction_timeout"]
    assert problems(roles=["zeo"], unreadable={"web_tls_key": "'x' is undefined"}) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"web_tls_key": ["hunter2-hunter2"]},
        {"web_tls_key": {"hunter2-hunter2": "hunter2-hunter2"}},
        {"web_tls": "provided", "web_tls_certificate": PEM, "web_tls_key": "hunter2-hunter2"},
        {"indico_admins": "ada:hunter2-hunter2"},
        {"indico_redis_password": "hunter2-hunter2"},
        {"indico_redis_password": ["hunter2-hunter2"]},
        {"indico_admins": ["ada:hunter2-hunter2"]},
        {"indico_admins": {"password": "hunter2-hunter2"}},
        {"indico_admins": [{**ADMIN, "password": ["hunter2-hunter2"]}]},
        {"indico_admins": [{"login": "ada", "pasword": "hunter2-hunter2"}]},
        {"indico_admins": [{"login": "hunter", "password": "hunter2"}]},
        {"indico_conf": "SmtpPassword = hunter2-hunter2"},
        {"indico_conf": ["hunter2-hunter2"]},
        {"indico_conf": {"SmtpPasword": "hunter2-hunter2"}},
        {"indico_conf": {"SmtpPassword": ["hunter2-hunter2"]}},
        {"indico_conf": {"RedisCacheURL": "hunter2-hunter2"}},
        {"indico_conf": {"AuthenticatorList": [["LDAP", "hunter2-hunter2"]]}},
    ],
)
def test_no_secret_is_shown(changes: dict[str, Any]) -> None:
    found = problems(changes)
    assert found
    assert "hunter2" not in "\n".join(found)


@pytest.mark.parametrize("wanted", [False, "no"])
def test_a_host_that_only_keeps_copies_may_have_another_debian(wanted: Any) -> None:
    facts = {**FACTS, "distribution_major_version": "13"}
    assert problems({"python2_wanted": wanted}, facts=facts) == []
    assert problems({"python2_wanted": wanted}, facts={**facts, "python_version": "3.8.1"}) != []
