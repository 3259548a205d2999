# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""indico.conf as typed data: the 55 keys that Indico 1.2.2 reads (its indico/core/config.py), and no other."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Value = Any


@dataclass(frozen=True)
class Kind:
    """What a value may be. expected completes the sentence "it must be ..."; python turns an accepted value into the literal's value."""

    expected: str
    accepts: Callable[[Value], bool]
    python: Callable[[Value], Value] = lambda value: value


def _is_text(value: Value) -> bool:
    return isinstance(value, str)


def _is_int(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_url(value: Value) -> bool:
    return _is_text(value) and (value == "" or re.match(r"https?://[^\s/]+", value) is not None)


def _is_port(value: Value) -> bool:
    return _is_int(value) and 0 < value < 65536


def _is_plain(value: Value) -> bool:
    """Whether the value is made of literals only: no null anywhere, which Indico's own upgrade refuses to read back."""
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return isinstance(value, (str, int, bool))


def _is_authenticators(value: Value) -> bool:
    return isinstance(value, list) and all(isinstance(one, list) and len(one) == 2 and _is_text(one[0]) and isinstance(one[1], dict) and _is_plain(one[1]) for one in value)


def _is_static_file_method(value: Value) -> bool:
    if value == "xsendfile":
        return True
    return isinstance(value, list) and len(value) == 2 and value[0] == "xaccelredirect" and isinstance(value[1], dict) and bool(value[1]) and _is_plain(value[1])


_TEXT = Kind("a string", _is_text)
_BOOL = Kind("true or false", lambda value: isinstance(value, bool))
_SIZE = Kind("an integer, 0 or more", lambda value: _is_int(value) and value >= 0)
_LEVEL = Kind("an integer from 0 to 3", lambda value: _is_int(value) and value in range(4))
_URL = Kind("an address that begins with http:// or https://, or an empty string", _is_url)
_MAIL = Kind("a mail address", lambda value: _is_text(value) and re.match(r"[^@\s]+@[^@\s]+\Z", value) is not None)
_PATH = Kind("an absolute path", lambda value: _is_text(value) and value.startswith("/"))
_OPTIONAL_PATH = Kind("an absolute path or an empty string", lambda value: _is_text(value) and (value == "" or value.startswith("/")))
_ADDRESS = Kind("a list of a host and a port", lambda value: isinstance(value, list) and len(value) == 2 and _is_text(value[0]) and _is_port(value[1]), tuple)
_SERVERS = Kind(
    "a list of host:port strings",
    lambda value: isinstance(value, list) and all(_is_text(one) and re.match(r"\S+:\d+\Z", one) for one in value),
    tuple,
)
_REDIS = Kind("an address like redis://unused:password@host:6379/1", lambda value: _is_text(value) and re.match(r"redis://\S+", value) is not None)
_MAPPING = Kind("a dictionary of plain values", lambda value: isinstance(value, dict) and _is_plain(value))
_DAYS = Kind(
    "a dictionary of category ids and days",
    lambda value: isinstance(value, dict) and all(_is_int(item) for item in value.values()),
    lambda value: {str(key): item for key, item in value.items()},
)
_CACHE = Kind("one of files, memcached, redis; with any other word Indico has no sessions", lambda value: value in ("files", "memcached", "redis"))
_AUTHENTICATORS = Kind("a list of pairs of a name and a dictionary", _is_authenticators, lambda value: [tuple(one) for one in value])
_STATIC = Kind(
    "xsendfile, or a list of xaccelredirect and a dictionary",
    _is_static_file_method,
    lambda value: tuple(value) if isinstance(value, list) else value,
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
    "FileConverter": _MAPPING,
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
    "CustomCountries": _MAPPING,
    "PDFLatexProgram": _TEXT,
    "StrictLatex": _BOOL,
    "WorkerName": _TEXT,
    "CategoryCleanup": _DAYS,
}

SECRETS = ("DBPassword", "SmtpPassword", "RedisConnectionURL", "RedisCacheURL", "AuthenticatorList")


def nearest(name: str, known: list[str]) -> str:
    """Return " Did you mean ...?" with the nearest known name, or nothing when none is near."""
    lower = {one.lower(): one for one in known}
    match = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.6)
    return f" Did you mean {lower[match[0]]}?" if match else ""


def problems(conf: dict[str, Value]) -> list[str]:
    """Return one sentence for each value that Indico 1.2.2 would not understand, naming the key; none when all is well."""
    found = []
    for key, value in conf.items():
        kind = KEYS.get(key)
        if kind is None:
            found.append(f"indico_conf.{key} is not a key that Indico 1.2.2 reads.{nearest(str(key), list(KEYS))}")
        elif value is None:
            found.append(f"indico_conf.{key} is null; leave the key out and Indico's own default applies.")
        elif not kind.accepts(value):
            shown = "a hidden value" if key in SECRETS else repr(value)
            found.append(f"indico_conf.{key} is {shown}; it must be {kind.expected}.")
    return found


def _literal(value: Value) -> str:
    """Return value as a literal of Python 2.7: text as an escaped UTF-8 byte string, the form that Indico keeps."""
    if isinstance(value, str):
        return repr(str(value).encode())[1:]  # b'...' without the b
    if isinstance(value, bool):
        return repr(value is True or value == 1)
    if isinstance(value, int):
        return repr(int(value))
    if isinstance(value, tuple):
        return "(" + "".join(_literal(item) + ", " for item in value).rstrip(" ") + ")"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return "{" + ", ".join(f"{_literal(key)}: {_literal(item)}" for key, item in sorted(value.items())) + "}"


def render(conf: dict[str, Value]) -> str:
    """Return the text of indico.conf. Raises ValueError with every problem when there is one."""
    found = problems(conf)
    if found:
        raise ValueError("\n".join(found))
    lines = ["# Ansible managed: change indico_conf in the inventory instead."]
    lines += [f"{key} = {_literal(KEYS[key].python(conf[key]))}" for key in KEYS if key in conf]
    return "\n".join(lines) + "\n"


def secrets(conf: dict[str, Value]) -> list[str]:
    """Return the strings of conf that no output may show: secret keys, and what authenticators keep under a name like password."""

    def inside(value: Value, hidden: bool) -> list[str]:
        if isinstance(value, dict):
            return [one for key, item in value.items() for one in inside(item, hidden or re.search("pass|secret|credential", str(key), re.I) is not None)]
        if isinstance(value, list):
            return [one for item in value for one in inside(item, hidden)]
        return [value] if hidden and isinstance(value, str) and value else []

    return [one for key, value in conf.items() if key in SECRETS for one in inside(value, key != "AuthenticatorList")]
