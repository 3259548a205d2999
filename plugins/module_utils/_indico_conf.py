# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""indico.conf as typed data: the 55 keys that Indico 1.2.2 reads (its indico/core/config.py), and no other."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Value = Any


@dataclass(frozen=True)
class Kind:
    """What a value may be. expected completes the sentence "it must be ..."; python turns an accepted value into the one that the file holds."""

    expected: str
    accepts: Callable[[Value], bool]
    python: Callable[[Value], Value] = lambda value: value


def _is_text(value: Value, pattern: str = r"(?s).*") -> bool:
    """Whether value is a string that fits the pattern and that UTF-8 can carry; Indico keeps text as UTF-8 bytes."""
    if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
        return False
    return True


def _is_int(value: Value, least: int, most: int | None = None) -> bool:
    """Whether value is an integer within the bounds, or its digits: surveys of AWX pass numbers as strings."""
    if isinstance(value, bool) or not (isinstance(value, int) or _is_text(value, "[0-9]{1,18}")):
        return False
    return least <= int(value) and (most is None or int(value) <= most)


def _is_list(value: Value) -> bool:
    return isinstance(value, (list, tuple))


def _is_plain(value: Value) -> bool:
    """Whether value is made of literals only: no null anywhere, which Indico's own upgrade_indico_conf refuses to read back."""
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    if _is_list(value):
        return all(map(_is_plain, value))
    return isinstance(value, int) or _is_text(value)


def _is_texts(value: Value) -> bool:
    return isinstance(value, dict) and all(_is_text(one) for pair in value.items() for one in pair)


def _is_address(value: Value) -> bool:
    return _is_list(value) and len(value) == 2 and _is_text(value[0], r"\S+") and _is_int(value[1], 1, 65535)


def _is_category_days(value: Value) -> bool:
    return isinstance(value, dict) and all(_is_text(str(category), r"\w+") and _is_int(days, 1) for category, days in value.items())


def _is_authenticators(value: Value) -> bool:
    if not _is_list(value) or not value:
        return False
    return all(_is_list(one) and len(one) == 2 and _is_text(one[0], r"\w+") and isinstance(one[1], dict) and _is_plain(one[1]) for one in value)


def _is_static_file_method(value: Value) -> bool:
    return value == "xsendfile" or (_is_list(value) and len(value) == 2 and value[0] == "xaccelredirect" and bool(value[1]) and _is_texts(value[1]))


def _text(expected: str, pattern: str) -> Kind:
    return Kind(expected, lambda value: _is_text(value, pattern))


_TEXT = Kind("a string", _is_text)
# The sample file spells some of them 'yes' and 'no'; others are read as plain truth, where 'no' would be true.
_BOOL = Kind(
    "true or false",
    lambda value: isinstance(value, bool) or (isinstance(value, str) and value in ("yes", "no")),
    lambda value: value == "yes" if isinstance(value, str) else bool(value),
)
_SIZE = Kind("an integer, 0 or more", lambda value: _is_int(value, 0), int)
_LEVEL = Kind("an integer from 0 to 3", lambda value: _is_int(value, 0, 3), int)
_URL = _text("an address that begins with http:// or https://, or an empty string", r"(https?://[^\s/]+\S*)?")
_MAIL = _text("a mail address", r"[^@\s]+@[^@\s]+")
_PATH = _text("an absolute path", r"/[^\0\n]*")
_OPTIONAL_PATH = _text("an absolute path or an empty string", r"(/[^\0\n]*)?")
_REDIS = _text("an address like redis://unused:password@host:6379/1", r"redis://\S+")
_CACHE = _text("one of files, memcached, redis; with any other word Indico has no sessions", "files|memcached|redis")
_ADDRESS = Kind("a list of a host and a port", _is_address, lambda value: (value[0], int(value[1])))
_SERVERS = Kind(
    "a list of host:port strings",
    lambda value: _is_list(value) and all(_is_text(one, r"\S+:[0-9]+") for one in value),
    tuple,
)
_MAPPING = Kind("a dictionary of plain values, none of them null", lambda value: isinstance(value, dict) and _is_plain(value))
_TEXTS = Kind("a dictionary of strings", _is_texts)
# The janitor deletes events older than this, so 0 would delete all of a category.
_DAYS = Kind(
    "a dictionary of category ids and days, 1 or more",
    _is_category_days,
    lambda value: {str(category): int(days) for category, days in value.items()},
)
_AUTHENTICATORS = Kind(
    "a list of pairs, each of a name and a dictionary of plain values, none of them null",
    _is_authenticators,
    lambda value: [tuple(one) for one in value],
)
_STATIC = Kind(
    "xsendfile, or a list of xaccelredirect and a dictionary of strings",
    _is_static_file_method,
    lambda value: value if isinstance(value, str) else tuple(value),
)

KEYS: dict[str, Kind] = {
    "DBConnectionParams": _ADDRESS,
    "DBUserName": _TEXT,
    "DBPassword": _TEXT,
    "DBRealm": _TEXT,
    "RedisConnectionURL": _REDIS,
    "SanitizationLevel": _LEVEL,
    "CSRFLevel": _LEVEL,
    "BaseURL": _URL,
    "BaseSecureURL": _URL,
    "LoginURL": _URL,
    "RegistrationURL": _URL,
    "ConfigurationDir": _PATH,
    "DocumentationDir": _PATH,
    "HtdocsDir": _PATH,
    "LogDir": _PATH,
    "ArchiveDir": _PATH,
    "BinDir": _PATH,
    "UploadedFilesTempDir": _PATH,
    "UploadedFilesSharedTempDir": _OPTIONAL_PATH,
    "XMLCacheDir": _PATH,
    "OfflineStore": _OPTIONAL_PATH,
    "CacheBackend": _CACHE,
    "MemcachedServers": _SERVERS,
    "RedisCacheURL": _REDIS,
    "SmtpServer": _ADDRESS,
    "SmtpLogin": _TEXT,
    "SmtpPassword": _TEXT,
    "SmtpUseTLS": _BOOL,
    "SupportEmail": _MAIL,
    "PublicSupportEmail": _MAIL,
    "NoReplyEmail": _MAIL,
    "FileConverter": _TEXTS,
    "DisplayLoginPage": _BOOL,
    "AuthenticatorList": _AUTHENTICATORS,
    "ReportNumberSystems": _MAPPING,
    "Profile": _BOOL,
    "StaticFileMethod": _STATIC,
    "AuthenticatedEnforceSecure": _BOOL,
    "MaxUploadFilesTotalSize": _SIZE,
    "MaxUploadFileSize": _SIZE,
    "ForceConflicts": _SIZE,
    "PropagateAllExceptions": _BOOL,
    "EmbeddedWebserver": _BOOL,
    "EmbeddedWebserverBaseURL": _URL,
    "OAuthAccessTokenTTL": _SIZE,
    "MobileURL": _URL,
    "CheckinURL": _URL,
    "SCSSDebugInfo": _BOOL,
    "SessionLifetime": _SIZE,
    "RouteOldUrls": _BOOL,
    "CustomCountries": _TEXTS,
    "PDFLatexProgram": _TEXT,
    "StrictLatex": _BOOL,
    "WorkerName": _TEXT,
    "CategoryCleanup": _DAYS,
}

SECRETS = ("DBPassword", "SmtpPassword", "RedisConnectionURL", "RedisCacheURL", "AuthenticatorList")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean ...?" with the nearest known name, or nothing when none is near. Case does not count."""
    lower = {one.lower(): one for one in known}
    match = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.6)
    return f" Did you mean {lower[match[0]]}?" if match else ""


def problems(conf: Mapping[str, Value]) -> list[str]:
    """Return one sentence for each value that Indico 1.2.2 would not understand, naming the key; none when all is well."""
    found = []
    for key, value in conf.items():
        kind = KEYS.get(key)
        if kind is None:
            found.append(f"indico_conf.{key} is not a key that Indico 1.2.2 reads.{nearest(str(key), KEYS)}")
        elif value is None:
            found.append(f"indico_conf.{key} is null; leave the key out and Indico's own default applies.")
        elif not kind.accepts(value):
            shown = "a hidden value" if key in SECRETS else repr(value)
            found.append(f"indico_conf.{key} is {shown}; it must be {kind.expected}.")
    return found


def _literal(value: Value) -> str:
    """Return value as a literal of Python 2.7, in ASCII: text as an escaped UTF-8 byte string, the form that Indico keeps."""
    if isinstance(value, str):
        return repr(str(value).encode())[1:]  # b'...' without the b
    if isinstance(value, bool):
        return str(bool(value))
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_literal, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return "{" + ", ".join(sorted(f"{_literal(key)}: {_literal(item)}" for key, item in value.items())) + "}"


def render(conf: Mapping[str, Value]) -> str:
    """Return the text of indico.conf. Raises ValueError with every problem when there is one."""
    found = problems(conf)
    if found:
        raise ValueError("\n".join(found))
    lines = ["# Ansible managed: change indico_conf in the inventory instead."]
    lines += [f"{key} = {_literal(kind.python(conf[key]))}" for key, kind in KEYS.items() if key in conf]
    return "\n".join(lines) + "\n"


def secrets(conf: Mapping[str, Value]) -> list[str]:
    """Return the strings of conf that no output may show, as they are and as the file spells them when that differs.

    They are the values of secret keys, and what authenticators keep under a name like password.
    """

    def inside(value: Value, hidden: bool) -> list[str]:
        if isinstance(value, dict):
            return [one for key, item in value.items() for one in inside(item, hidden or re.search("pass|secret|credential", str(key), re.I) is not None)]
        if _is_list(value):
            return [one for item in value for one in inside(item, hidden)]
        return [str(value)] if hidden and value and _is_text(value) else []

    plain = [one for key, value in conf.items() if key in SECRETS for one in inside(value, key != "AuthenticatorList")]
    return list(dict.fromkeys(plain + [_literal(one)[1:-1] for one in plain]))
