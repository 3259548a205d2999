# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong with a host's variables, as sentences that name them.

Ansible's own check coerces what it can and ignores a variable that nobody knows; this one does neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _indico_conf

Options = Mapping[str, Any]
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}\Z")
_SYSTEM = ("/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var")
# Keys of indico.conf that the roles derive, and the variable to set instead.
_DERIVED = {
    "DBConnectionParams": "indico_zeo_host and indico_storages",
    "BaseURL": "indico_base_url",
    "BaseSecureURL": "indico_base_url",
    **dict.fromkeys(("ConfigurationDir", "DocumentationDir", "HtdocsDir", "LogDir", "ArchiveDir", "BinDir", "UploadedFilesTempDir", "XMLCacheDir"), "indico_prefix"),
}


def _shown(name: str, value: Any) -> str:
    return "a hidden value" if re.search("password|_key|secret", name) else repr(value)


def _scalar(kind: str, value: Any) -> str | None:
    """Return what a scalar must be when value is not of this kind."""
    if kind == "str":
        return None if isinstance(value, str) else "a string"
    if kind == "path":
        return None if isinstance(value, str) and value.startswith("/") else "an absolute path"
    if kind == "int":  # surveys of AWX pass numbers as strings
        good = isinstance(value, int) and not isinstance(value, bool) or isinstance(value, str) and re.match(r"-?\d+\Z", value)
        return None if good else "an integer"
    if kind == "bool":
        good = isinstance(value, bool) or isinstance(value, str) and value.lower() in ("yes", "no", "true", "false")
        return None if good else "true or false"
    raise AssertionError(f"an argument spec uses the type {kind}, which preflight does not know")


def check_value(name: str, option: Options, value: Any) -> Iterator[str]:
    """Yield what is wrong with one value. option is its entry of an argument spec; name is how a sentence calls it."""
    kind = option["type"]
    if kind == "list":
        if not isinstance(value, list):
            yield f"{name} is {_shown(name, value)}; it must be a list."
            return
        for number, item in enumerate(value):
            yield from check_value(f"{name}[{number}]", {**option, "type": option["elements"]}, item)
        return
    if kind == "dict":
        if not isinstance(value, Mapping):
            yield f"{name} is {_shown(name, value)}; it must be a dictionary."
        elif "options" in option:
            yield from _check_members(name, option["options"], value)
        return
    wanted = _scalar(kind, value)
    if wanted:
        yield f"{name} is {_shown(name, value)}; it must be {wanted}."
    elif "choices" in option and str(value) not in map(str, option["choices"]):
        yield f"{name} is {_shown(name, value)}; it must be one of {', '.join(map(str, option['choices']))}."


def _check_members(name: str, options: Options, value: Mapping[str, Any]) -> Iterator[str]:
    for key, item in value.items():
        if key in options:
            yield from check_value(f"{name}.{key}", options[key], item)
        else:
            yield f"{name}.{key} is not known here.{_indico_conf.nearest(str(key), list(options))}"
    for key, option in options.items():
        if option.get("required") and key not in value:
            yield f"{name}.{key} is missing."


def check_names(options: Options, given: list[str], own: list[str]) -> Iterator[str]:
    """Yield a sentence for each variable that begins like the collection's and is none of them. own: names that a site declared as its own."""
    prefixes = {name.split("_")[0] + "_" for name in options}
    for name in sorted(given):
        if name not in options and name not in own and any(name.startswith(prefix) for prefix in prefixes):
            yield f"{name} is not a variable of this collection.{_indico_conf.nearest(name, list(options))} (A site lists names of its own in indico_site_variables.)"


def _storages(variables: Mapping[str, Any]) -> Iterator[str]:
    storages = variables["indico_storages"]
    names = [storage["name"] for storage in storages]
    if "main" not in names:
        yield "indico_storages has no storage named main; Indico opens that one."
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"indico_storages names {name} more than once."
    for name in names:
        if not re.match(r"[a-z][a-z0-9-]*\Z", name):
            yield f"indico_storages has a storage named {name!r}; a name begins with a lower-case letter and holds lower-case letters, digits and hyphens."


def _ports(variables: Mapping[str, Any]) -> Iterator[str]:
    used: dict[int, str] = {}
    wanted = [(f"indico_storages, {storage['name']}.{key}", storage[key]) for storage in variables["indico_storages"] for key in ("port", "monitor_port") if key in storage]
    wanted.append(("web_http_port", variables["web_http_port"]))
    if variables["web_tls"] != "none":
        wanted.append(("web_https_port", variables["web_https_port"]))
    for who, value in wanted:
        port = int(value)
        if not 0 < port < 65536:
            yield f"{who} is {port}; a port is a number from 1 to 65535."
        elif port in used:
            yield f"{who} is {port}, which {used[port]} has already."
        used.setdefault(port, who)


def _places(variables: Mapping[str, Any]) -> Iterator[str]:
    prefix = variables["indico_prefix"]
    if re.search(r"\s", prefix):
        yield f"indico_prefix is {prefix!r}; it must hold no blank, since repozo splits its lists on them."
    if prefix.rstrip("/") + "/" != prefix + "/" or "//" in prefix or "/./" in prefix or ".." in prefix.split("/"):
        yield f"indico_prefix is {prefix!r}; write it without trailing or doubled slashes and without dots."
    if (prefix.rstrip("/") or "/") in _SYSTEM:
        yield f"indico_prefix is {prefix}; it must be a directory of its own, not one of the system's."
    for name in ("indico_instance", "indico_user", "zeo_user"):
        if not _NAME.match(variables[name]):
            yield f"{name} is {variables[name]!r}; it must begin with a lower-case letter and hold at most 31 lower-case letters, digits, hyphens and underscores."
        elif variables[name] == "root" and name != "indico_instance":
            yield f"{name} is root; a service runs as a user of its own."
    if variables["indico_user"] == variables["zeo_user"]:
        yield f"indico_user and zeo_user are both {variables['zeo_user']}; the workers must not own the databases."


def _configuration(variables: Mapping[str, Any]) -> Iterator[str]:
    conf = variables["indico_conf"]
    for key in conf:
        if key in _DERIVED:
            yield f"indico_conf.{key} is derived; set {_DERIVED[key]} instead."
    yield from _indico_conf.problems({key: value for key, value in conf.items() if key not in _DERIVED})
    if not re.match(r"https?://[^\s/]+(/\S*[^\s/])?\Z", variables["indico_base_url"]):
        yield f"indico_base_url is {variables['indico_base_url']!r}; it must begin with http:// or https:// and end without a slash."


def _administrators(variables: Mapping[str, Any]) -> Iterator[str]:
    for admin in variables["indico_admins"]:
        if admin.get("state", "present") == "absent":
            continue
        who, password = f"indico_admins, {admin['login']}", admin.get("password")
        if not password:
            yield f"{who} has no password; there is no default."
        elif len(password) < 8:
            yield f"{who} has a password of fewer than 8 characters."
        elif password.lower() in (admin["login"].lower(), str(admin.get("email", "")).lower()):
            yield f"{who} has a password that is the login or the address."


def _certificate(variables: Mapping[str, Any]) -> Iterator[str]:
    if variables["web_tls"] == "provided":
        for name in ("web_tls_certificate", "web_tls_key"):
            if "-----BEGIN" not in variables[name]:
                yield f"{name} holds no PEM text; web_tls: provided needs it."
    elif variables["web_tls_key"]:
        yield f"web_tls_key is given, but web_tls is {variables['web_tls']}; set it to provided."
    scheme = variables["indico_base_url"].split(":")[0]
    if variables["web_tls"] != "none" and scheme == "http":
        yield f"indico_base_url is {variables['indico_base_url']}, but web_tls is {variables['web_tls']}, which redirects HTTP to HTTPS."


def check_host(facts: Mapping[str, Any], host: str) -> Iterator[str]:
    """Yield why this host cannot run Indico 1.2.2. facts are Ansible's; without them nothing is said."""
    distribution, release = facts.get("distribution"), str(facts.get("distribution_major_version"))
    if distribution and (distribution, release) != ("Debian", "11"):
        yield f"{host} runs {distribution} {release}; Indico 1.2.2 needs Python 2.7, which Debian 11 is the last to package."


def problems(options: Options, variables: Mapping[str, Any], given: list[str], facts: Mapping[str, Any], host: str) -> list[str]:
    """Return every problem, as sentences.

    options: the argument specs of all roles, merged; variables: the values of those that are set, without undefined ones;
    given: all variable names of the host; facts: Ansible's; host: its name in the inventory.
    """
    found = list(check_names(options, given, variables.get("indico_site_variables") or []))
    for name, option in options.items():
        if name in variables:
            found += check_value(name, option, variables[name])
        elif option.get("required"):
            found.append(f"{name} is missing.")
    found += check_host(facts, host)
    if not found:  # the rest compares values, so it needs good ones
        for check in (_storages, _ports, _places, _configuration, _administrators, _certificate):
            found += check(variables)
    elif isinstance(variables.get("indico_conf"), Mapping):
        found += _indico_conf.problems(dict(variables["indico_conf"]))
    return found
