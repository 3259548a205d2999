"""indico.conf as data: every key refuses what it cannot be, and what is accepted comes back from the file as it went in."""

from __future__ import annotations

import ast
from typing import Any

import pytest
import yaml
from ansible_collections.confops.indico.plugins.module_utils import _indico_conf
from hypothesis import given
from hypothesis import strategies as st

from tests.lib.command import REPOSITORY

_ADDRESSES = ("DBConnectionParams", "SmtpServer")
_LEVELS = ("SanitizationLevel", "CSRFLevel")
_SIZES = ("MaxUploadFilesTotalSize", "MaxUploadFileSize", "ForceConflicts", "OAuthAccessTokenTTL", "SessionLifetime")
_TRUTHS = (
    *("SmtpUseTLS", "DisplayLoginPage", "Profile", "AuthenticatedEnforceSecure", "PropagateAllExceptions"),
    *("EmbeddedWebserver", "SCSSDebugInfo", "RouteOldUrls", "StrictLatex"),
)
_TEXTS = ("DBUserName", "DBPassword", "DBRealm", "SmtpLogin", "SmtpPassword", "PDFLatexProgram", "WorkerName")
_URLS = ("BaseURL", "BaseSecureURL", "LoginURL", "RegistrationURL", "EmbeddedWebserverBaseURL", "MobileURL", "CheckinURL")
_MAILS = ("SupportEmail", "PublicSupportEmail", "NoReplyEmail")
_REDIS = ("RedisConnectionURL", "RedisCacheURL")
_PATHS = ("ConfigurationDir", "DocumentationDir", "HtdocsDir", "LogDir", "ArchiveDir", "BinDir", "UploadedFilesTempDir", "XMLCacheDir")
_OPTIONAL_PATHS = ("UploadedFilesSharedTempDir", "OfflineStore")
_TEXT_MAPS = ("FileConverter", "CustomCountries")

# For each key, values that are fine, with what Python 2.7 shall see.
_LDAP = {"uri": "ldaps://x", "useTLS": True, "port": 636, "peopleDNQuery": ["uid={0}", "DC=x"]}
GOOD: dict[str, tuple[tuple[Any, Any], ...]] = {
    **dict.fromkeys(_ADDRESSES, ((["localhost", 9675], ("localhost", 9675)), (["db1", "25"], ("db1", 25)), (("::1", 65535), ("::1", 65535)))),
    **dict.fromkeys(_LEVELS, ((0, 0), (3, 3), ("2", 2))),
    **dict.fromkeys(_SIZES, ((0, 0), (2678400, 2678400), ("7", 7))),
    **dict.fromkeys(_TRUTHS, ((True, True), (False, False), ("yes", True), ("no", False))),
    **dict.fromkeys(_TEXTS, (("", ""), ("a'b\"c\\d\n", "a'b\"c\\d\n"), ("Zürich", "Zürich"))),
    **dict.fromkeys(_URLS, (("", ""), ("https://x.org/indico", "https://x.org/indico"))),
    **dict.fromkeys(_MAILS, (("root@localhost", "root@localhost"),)),
    **dict.fromkeys(_REDIS, (("redis://unused:pw@localhost:6379/0", "redis://unused:pw@localhost:6379/0"),)),
    **dict.fromkeys(_PATHS, (("/srv/x y", "/srv/x y"),)),
    **dict.fromkeys(_OPTIONAL_PATHS, (("", ""), ("/srv/x", "/srv/x"))),
    **dict.fromkeys(_TEXT_MAPS, (({}, {}), ({"a": "ü"}, {"a": "ü"}))),
    "MemcachedServers": ((["127.0.0.1:11211"], ("127.0.0.1:11211",)), (["a:1", "b:2"], ("a:1", "b:2")), ([], ())),
    "CacheBackend": (("files", "files"), ("memcached", "memcached"), ("redis", "redis")),
    "AuthenticatorList": (([["Local", {}]], [("Local", {})]), ([["LDAP", _LDAP], ["Local", {}]], [("LDAP", _LDAP), ("Local", {})])),
    "StaticFileMethod": (("xsendfile", "xsendfile"), (["xaccelredirect", {"/a": "/.xsf/a"}], ("xaccelredirect", {"/a": "/.xsf/a"}))),
    "CategoryCleanup": (({}, {}), ({"2": 30}, {"2": 30}), ({2: "30", "1l5": 1}, {"2": 30, "1l5": 1})),
    "ReportNumberSystems": (({"EDMS": {"name": "EDMS", "order": 1}}, {"EDMS": {"name": "EDMS", "order": 1}}),),
}

# For each key, values that are not of its kind. Nothing takes 1.5, a null inside, or half of a surrogate pair.
_NOT_TEXT: tuple[Any, ...] = (3, True, 1.5, ["a"], {"a": "b"}, "\ud800")
_NOT_SIZE: tuple[Any, ...] = (-1, "-1", "soon", "", 1.5, "1.5", True, [1], {}, "\u0663", "9" * 30)
BAD: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(
        _ADDRESSES,
        (
            "localhost:25",
            ["localhost"],
            ["localhost", 0],
            ["localhost", 65536],
            ["localhost", True],
            ["localhost", 25, 1],
            ["", 25],
            [3, 25],
            ["a b", 25],
            {},
            25,
        ),
    ),
    **dict.fromkeys(_LEVELS, (*_NOT_SIZE, 4, "4")),
    **dict.fromkeys(_SIZES, _NOT_SIZE),
    **dict.fromkeys(_TRUTHS, (0, 1, "true", "", "Yes", [], {}, 1.5)),
    **dict.fromkeys(_TEXTS, _NOT_TEXT),
    **dict.fromkeys(_URLS, (*_NOT_TEXT, "x.org", "ftp://x.org", "https://", "https:///x", "https://x y", " https://x")),
    **dict.fromkeys(_MAILS, (*_NOT_TEXT, "", "root", "a@b@c", "a b@c", "a@b\n")),
    **dict.fromkeys(_REDIS, (*_NOT_TEXT, "", "localhost:6379", "redis://", "redis://a b")),
    **dict.fromkeys(_PATHS, (*_NOT_TEXT, "", "srv", "./srv", "/a\nb")),
    **dict.fromkeys(_OPTIONAL_PATHS, (*_NOT_TEXT, "srv", "./srv", "/a\nb")),
    **dict.fromkeys(_TEXT_MAPS, ({"a": None}, {"a": 1}, {1: "a"}, ["a"], "a")),
    "MemcachedServers": ("127.0.0.1:11211", ["127.0.0.1"], ["a b:1"], [11211], [None], {"a": 1}),
    "CacheBackend": ("file", "", "Redis", ["files"], True),
    "AuthenticatorList": (
        *("Local", [], ["Local"], {"Local": {}}, [["Local"]], [["Local", {}, 1]], [["Local", None]], [["", {}]], [[1, {}]]),
        *([["LDAP", {"uri": [None]}]], [["LDAP", {"x": 1.5}]]),
    ),
    "StaticFileMethod": (
        "xaccelredirect",
        "sendfile",
        "",
        ["xsendfile", {"/a": "/b"}],
        ["xaccelredirect", {}],
        ["xaccelredirect"],
        ["xaccelredirect", {"/a": 1}],
        False,
    ),
    "CategoryCleanup": ({"2": 0}, {"2": -1}, {"2": "soon"}, {"2": True}, {"2": None}, {"a b": 1}, ["2"], "2"),
    "ReportNumberSystems": ({"a": None}, {"a": {"b": [1.5]}}, ["a"], "a", 1),
}


def decoded(value: Any) -> Any:
    """Turn what literal_eval makes of a Python 2.7 byte string, one character for each byte, back into text."""
    if isinstance(value, str):
        return value.encode("latin-1").decode("utf-8")
    if isinstance(value, dict):
        return {decoded(key): decoded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(decoded, value))
    return value


def read(text: str) -> dict[str, Any]:
    """Return what the file assigns; fail when it does anything else than assign literals to names."""
    assert text.isascii()
    assert text.startswith("# Ansible managed")
    values = {}
    for statement in ast.parse(text).body:
        assert isinstance(statement, ast.Assign)
        (target,) = statement.targets
        assert isinstance(target, ast.Name)
        values[target.id] = decoded(ast.literal_eval(statement.value))
    return values


def test_the_examples_cover_the_55_keys() -> None:
    assert len(_indico_conf.KEYS) == 55
    assert set(GOOD) == set(BAD) == set(_indico_conf.KEYS)
    assert set(_indico_conf.SECRETS) <= set(_indico_conf.KEYS)


@pytest.mark.parametrize(("key", "value", "seen"), [(key, *example) for key, examples in GOOD.items() for example in examples])
def test_a_good_value_comes_back(key: str, value: Any, seen: Any) -> None:
    assert _indico_conf.problems({key: value}) == []
    found = read(_indico_conf.render({key: value}))
    assert found == {key: seen}
    assert type(found[key]) is type(seen)


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD.items() for value in values])
def test_a_wrong_value_is_refused(key: str, value: Any) -> None:
    (sentence,) = _indico_conf.problems({key: value})
    shown = "a hidden value" if key in _indico_conf.SECRETS else repr(value)
    assert sentence.startswith(f"indico_conf.{key} is {shown}; it must be ")
    assert sentence.endswith(".")


@pytest.mark.parametrize("key", _indico_conf.KEYS)
def test_null_is_refused(key: str) -> None:
    assert _indico_conf.problems({key: None}) == [f"indico_conf.{key} is null; leave the key out and Indico's own default applies."]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("SMTPServer", " Did you mean SmtpServer?"),
        ("BaseUrl", " Did you mean BaseURL?"),
        ("CsrfLevel", " Did you mean CSRFLevel?"),
        ("SessionLifeTme", " Did you mean SessionLifetime?"),
        ("qqq", ""),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(name: str, nearest: str) -> None:
    assert _indico_conf.problems({name: "hunter2"}) == [f"indico_conf.{name} is not a key that Indico 1.2.2 reads.{nearest}"]


def test_a_key_that_is_no_string_is_refused() -> None:
    assert _indico_conf.problems({1: "x"}) == ["indico_conf.1 is not a key that Indico 1.2.2 reads."]  # type: ignore[dict-item]


def test_render_names_every_problem() -> None:
    with pytest.raises(ValueError, match=r"(?s)CSRFLevel is 9.*WorkerName is null.*Nope is not a key"):
        _indico_conf.render({"CSRFLevel": 9, "WorkerName": None, "Nope": 1})


def test_the_order_of_the_input_does_not_matter() -> None:
    one = {"CustomCountries": {"a": "b", "c": "d"}, "BaseURL": "", "ReportNumberSystems": {"x": 1, 2: "y"}}
    other = {"ReportNumberSystems": {2: "y", "x": 1}, "BaseURL": "", "CustomCountries": {"c": "d", "a": "b"}}
    assert _indico_conf.render(one) == _indico_conf.render(other)


def test_the_text_of_a_small_file() -> None:
    conf = {"SmtpServer": ["localhost", 25], "SmtpUseTLS": "no", "MemcachedServers": ["a:1"], "WorkerName": "é\n'"}
    assert _indico_conf.render(conf) == (
        "# Ansible managed: change indico_conf in the inventory instead.\n"
        "MemcachedServers = ('a:1',)\n"
        "SmtpServer = ('localhost', 25)\n"
        "SmtpUseTLS = False\n"
        'WorkerName = "\\xc3\\xa9\\n\'"\n'
    )


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    rendered = _indico_conf.render({"WorkerName": text})
    assert rendered.count("\n") == 2
    assert read(rendered) == {"WorkerName": text}


_PLAIN = st.recursive(
    st.text() | st.integers() | st.booleans(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)


@given(st.dictionaries(st.text(), _PLAIN, max_size=4))
def test_any_authenticator_comes_back(options: dict[str, Any]) -> None:
    assert read(_indico_conf.render({"AuthenticatorList": [["LDAP", options]]})) == {"AuthenticatorList": [("LDAP", options)]}


def test_secrets_are_listed_as_given_and_as_the_file_spells_them() -> None:
    conf = {
        "SmtpPassword": "h'ünter2",
        "DBPassword": "",
        "RedisCacheURL": "redis://unused:pw@localhost:6379/1",
        "SmtpLogin": "seen",
        "AuthenticatorList": [["LDAP", {"uri": "seen", "accessCredentials": ["CN=user", "s3cret"], "nested": {"bindPassword": "deep"}}]],
    }
    found = _indico_conf.secrets(conf)
    assert found == ["h'ünter2", "redis://unused:pw@localhost:6379/1", "CN=user", "s3cret", "deep", "h'\\xc3\\xbcnter2"]
    text = _indico_conf.render(conf)
    for secret in found:
        text = text.replace(secret, "")
    assert not any(word in text for word in ("nter2", "pw@", "s3cret", "deep"))


def test_secrets_of_a_wrong_configuration_are_listed_too() -> None:
    assert _indico_conf.secrets({"SmtpPassword": 3, "AuthenticatorList": "nonsense", "Nope": None}) == []


def test_the_role_hides_the_lines_with_secrets() -> None:
    variables = yaml.safe_load((REPOSITORY / "roles/indico/vars/main.yml").read_text(encoding="utf-8"))
    (lines,) = [one["hidden_lines"] for one in variables["__indico_tree"] if "hidden_lines" in one]
    assert lines == [f"{key} =" for key in _indico_conf.SECRETS]
