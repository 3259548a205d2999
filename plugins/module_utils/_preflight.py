# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong with a host's variables, as sentences that name them.

Ansible's own check coerces what it can and ignores a variable that nobody knows; this one does neither.

Names in all functions: an option is one entry of an argument spec (a mapping with type, elements, choices, options, required),
options maps names to them, and specs maps the name of each role to its options.
"""

from __future__ import annotations

import inspect
import ipaddress
import os
import re
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _calendar, _crontab, _indico_conf, _prune, _repository, _scheduler

_SECRET = re.compile(r"passw|secret|token|_key\b")
# Directories of the system; those of them that no job may write to; and those below which nothing of an instance can live, since
# the units' sandbox hides them, or a reboot empties them.
_SYSTEM = ("/", "/bin", "/etc", "/home", "/lib", "/media", "/mnt", "/opt", "/sbin", "/srv", "/usr", "/usr/local", "/var", "/var/lib", "/var/log", "/var/www")
_NO_METRICS = ("/", "/bin", "/etc", "/lib", "/sbin", "/usr", "/usr/local")
_HIDDEN = ("/boot", "/dev", "/home", "/proc", "/root", "/run", "/sys", "/tmp", "/var/run", "/var/tmp")  # noqa: S108 (names to refuse)
# Keys of indico.conf that the roles derive, and the variable to set instead.
_DERIVED = {
    "DBConnectionParams": "indico_zeo_host and indico_storages",
    "DBUserName": "indico_zeo_user",
    "DBPassword": "indico_zeo_password",
    "DBRealm": "indico_zeo_password",
    "CacheBackend": "indico_cache_backend",
    "MemcachedServers": "indico_memcached_servers",
    **dict.fromkeys(("RedisCacheURL", "RedisConnectionURL"), "indico_cache_backend, indico_redis_host and indico_redis_password"),
    "BaseURL": "indico_base_url",
    "BaseSecureURL": "indico_base_url",
    **dict.fromkeys(
        (
            "ConfigurationDir",
            "DocumentationDir",
            "HtdocsDir",
            "LogDir",
            "ArchiveDir",
            "BinDir",
            "UploadedFilesTempDir",
            "UploadedFilesSharedTempDir",
            "XMLCacheDir",
        ),
        "indico_prefix",
    ),
}
_HOST_NAME = "[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
# What an integer may be, by the end of its name; the first that fits counts. Less than these is said by the checks below.
_RANGES: tuple[tuple[str, int, int], ...] = (
    ("(^|_)port", 1, 65535),
    ("_days", 0, 36500),
    ("_percent", 0, 100),
    ("web_processes|web_threads|indico_keep_releases|indico_health_count", 0, 1000),
    ("", 0, 1_000_000),
)
_HUGE = 10**18
_MEMCACHED_SECONDS = 30 * 86400  # the longest time that memcached does not take for a date


def _holds_secret(name: str, option: Mapping[str, Any]) -> bool:
    return bool(option.get("no_log")) or _SECRET.search(name) is not None


def _shown(name: str, option: Mapping[str, Any], value: Any) -> str:
    """Return value as a sentence may show it. A whole list or dictionary is never shown, nor what stands in the place of one: it may hold a secret."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "a dictionary"
    if isinstance(value, (list, tuple)):
        return "a list"
    if _holds_secret(name, option):
        return "a hidden value"
    if option["type"] == "dict":
        return "not one"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= _HUGE:  # Python refuses to write what is longer still
        return "a number of more than 18 digits"
    return repr(value)


def _wanted(kind: str, value: Any) -> str | None:
    """Return what a scalar must be when value is not of this kind."""
    if kind == "str":
        return None if isinstance(value, str) else "a string"
    if kind == "path":
        return None if isinstance(value, str) and value.startswith("/") else "an absolute path"
    if kind == "int":  # surveys of AWX pass numbers as strings; YAML would read 010 as 8
        good = (
            re.fullmatch("-?(0|[1-9][0-9]{0,17})", value)
            if isinstance(value, str)
            else isinstance(value, int) and not isinstance(value, bool) and abs(value) < _HUGE
        )
        return None if good else "an integer"
    if kind == "bool":
        good = value.lower() in ("yes", "no", "true", "false") if isinstance(value, str) else isinstance(value, bool)
        return None if good else "true or false"
    raise AssertionError(f"an argument spec uses the type {kind}, which preflight does not know")


def check_value(name: str, option: Mapping[str, Any], value: Any) -> Iterator[str]:
    """Yield what is wrong with one value. name is how the sentences call it."""
    kind = option["type"]
    if kind == "list":
        if not isinstance(value, list):
            yield f"{name} is {_shown(name, {**option, 'type': option['elements']}, value)}; it must be a list."
            return
        for number, item in enumerate(value):
            yield from check_value(f"{name}[{number}]", {**option, "type": option["elements"]}, item)
        return
    if kind == "dict":
        if not isinstance(value, Mapping):
            yield f"{name} is {_shown(name, option, value)}; it must be a dictionary."
        elif "options" in option:
            yield from _check_members(name, option["options"], value)
        return
    wanted = _wanted(kind, value)
    if wanted:
        yield f"{name} is {_shown(name, option, value)}; it must be {wanted}."
    elif "choices" in option and str(value) not in map(str, option["choices"]):
        yield f"{name} is {_shown(name, option, value)}; it must be one of {', '.join(map(str, option['choices']))}."


def _check_members(name: str, options: Mapping[str, Any], value: Mapping[str, Any]) -> Iterator[str]:
    for key, item in value.items():
        if key in options:
            yield from check_value(f"{name}.{key}", options[key], item)
        else:
            yield f"{name}.{key} is not known here.{_indico_conf.nearest(str(key), options)}"
    for key, option in options.items():
        if option.get("required") and key not in value:
            yield f"{name}.{key} is missing."


def check_ranges(name: str, option: Mapping[str, Any], value: Any, key: str = "") -> Iterator[str]:
    """Yield a sentence for each integer of a value, whose types are right, that is beyond what anything here can use. key: its own name in a list."""
    kind, key = option["type"], key or name
    if kind == "list":
        for number, item in enumerate(value):
            yield from check_ranges(f"{name}[{number}]", {**option, "type": option["elements"]}, item, key)
    elif kind == "dict":
        for inner, item in value.items() if "options" in option else ():
            yield from check_ranges(f"{name}.{inner}", option["options"][inner], item, inner)
    elif kind == "int":
        low, high = next(((low, high) for end, low, high in _RANGES if re.search(f"({end})$", key)), (0, 2**31 - 1))
        if not low <= int(value) <= high:
            yield f"{name} is {value}; it must be a number from {low} to {high}."


def check_names(options: Mapping[str, Any], given: Iterable[str], own: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each name in given that begins like an option and is none. own: names that a site declared as its own."""
    prefixes = tuple({name.split("_")[0] + "_" for name in options})
    for name in sorted(set(given) - set(options) - set(own)):
        if name.startswith(prefixes):
            yield unknown_variable(name, options)


def unknown_variable(name: str, options: Iterable[str]) -> str:
    """Return the sentence about a variable that looks like one of the collection and is none."""
    return f"{name} is not a variable of this collection.{_indico_conf.nearest(name, options)} (A site lists names of its own in indico_site_variables.)"


# The checks below compare values. Each one's parameters are the variables that it reads; it runs when all of them have their types.


def _storage_names(indico_storages: list[Any]) -> Iterator[str]:
    names = [storage["name"] for storage in indico_storages]
    if "main" not in names:
        yield "indico_storages has no storage named main; Indico opens that one."
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"indico_storages names {name} more than once."
    for name in names:
        if not re.fullmatch("[a-z][a-z0-9-]*", name):
            yield f"indico_storages has a storage named {name!r}; a name begins with a lower-case letter and holds lower-case letters, digits and hyphens."


def _ports(
    indico_storages: list[Any],
    zeo_claim_port: Any,
    zeo_cluster: Mapping[str, Any],
    indico_cache_backend: str,
    indico_redis_port: Any,
    indico_memcached_servers: list[str],
    web_tls: str,
    web_http_port: Any,
    web_https_port: Any,
    mail_relay_host: str,
) -> Iterator[str]:
    used: dict[int, str] = {25: "the local relay (mail_relay_host)"} if mail_relay_host else {}
    keys = ("port", "replication_port")
    wanted = [(f"indico_storages, {storage['name']}.{key}", storage[key]) for storage in indico_storages for key in keys if key in storage]
    if len(zeo_cluster) > 1:
        wanted += [_derived_port(storage) for storage in indico_storages if "replication_port" not in storage]
    wanted += [("zeo_claim_port", zeo_claim_port), ("web_http_port", web_http_port)]
    if indico_cache_backend == "redis":
        wanted.append(("indico_redis_port", indico_redis_port))
    if indico_cache_backend == "memcached":
        own = [server for server in indico_memcached_servers if re.fullmatch("(127[.][0-9.]+|localhost):[0-9]{1,5}", server)]
        wanted += [("indico_memcached_servers", server.rpartition(":")[2]) for server in own]
    if web_tls != "none":
        wanted.append(("web_https_port", web_https_port))
    for who, value in wanted:
        port = int(value)
        if not 0 < port < 65536:
            yield f"{who} is {port}; a port is a number from 1 to 65535."
        elif port in used:
            yield f"{who} is {port}, which {used[port]} has already."
        used.setdefault(port, who)


def _derived_port(storage: Mapping[str, Any]) -> tuple[str, int]:
    """Return how to call the port at which a storage with a standby is replicated, and the port, where it is not given."""
    return f"indico_storages, {storage['name']}: the port of its replication, which is 1000 above its own unless replication_port says otherwise,", (
        int(storage["port"]) + 1000
    )


def _prefix(indico_prefix: str) -> Iterator[str]:
    prefix = indico_prefix.rstrip("/") or "/"
    hidden = next((one for one in _HIDDEN if f"{prefix}/".startswith(f"{one}/")), None)
    if not re.fullmatch("[A-Za-z0-9._/-]+", indico_prefix):
        yield (
            f"indico_prefix is {indico_prefix!r}; it must hold only letters, digits, dots, hyphens and underscores between its slashes:"
            " repozo splits its lists on blanks, and units and configuration files give other characters a meaning."
        )
    elif prefix in _SYSTEM:
        yield f"indico_prefix is {indico_prefix}; it must be a directory of its own, not one of the system's."
    elif hidden:
        yield f"indico_prefix is {indico_prefix}; nothing below {hidden} serves, since the services do not see it or a reboot empties it."
    elif prefix != indico_prefix or "//" in prefix or {".", ".."} & set(prefix.split("/")):
        yield f"indico_prefix is {indico_prefix}; write it without trailing or doubled slashes and without dots for a directory."


def _name(variable: str, value: str) -> Iterator[str]:
    if not re.fullmatch("[a-z][a-z0-9_-]{0,30}", value):
        yield f"{variable} is {value!r}; it must begin with a lower-case letter and hold at most 31 lower-case letters, digits, hyphens and underscores."


def _instance(indico_instance: str) -> Iterator[str]:
    yield from _name("indico_instance", indico_instance)


def _users(indico_user: str, zeo_user: str) -> Iterator[str]:
    for variable, value in (("indico_user", indico_user), ("zeo_user", zeo_user)):
        yield from _name(variable, value)
        if value in ("root", "www-data"):
            yield f"{variable} is {value}; a service runs as a user of its own, neither root nor the web server's."
    if indico_user == zeo_user:
        yield f"indico_user and zeo_user are both {zeo_user}; the workers must not own the databases."


def _addresses(indico_server_name: str, indico_zeo_host: str, zeo_listen_address: str) -> Iterator[str]:
    values = {"indico_server_name": indico_server_name, "indico_zeo_host": indico_zeo_host, "zeo_listen_address": zeo_listen_address}
    for variable, value in values.items():
        if not re.fullmatch("[A-Za-z0-9._-]+", value):
            yield f"{variable} is {value!r}; it must be a host name or an IPv4 address, without a port."


def _listening(zeo_listen_address: str, zeo_allowed_sources: list[str], indico_zeo_user: str, indico_zeo_password: str) -> Iterator[str]:
    for number, source in enumerate(zeo_allowed_sources):
        try:
            ipaddress.ip_network(source, strict=False)
        except ValueError:
            yield f"zeo_allowed_sources[{number}] is {source!r}; it must be an IP address or a network such as 10.0.0.0/8."
    if not re.fullmatch("[A-Za-z0-9._-]+", indico_zeo_user):
        yield f"indico_zeo_user is {indico_zeo_user!r}; it must hold only letters, digits, dots, hyphens and underscores."
    if indico_zeo_password and len(indico_zeo_password) < 8:
        yield "indico_zeo_password has fewer than 8 characters."
    if zeo_listen_address in ("127.0.0.1", "localhost"):
        return
    if not indico_zeo_password:
        yield f"zeo_listen_address is {zeo_listen_address}, which others reach, but indico_zeo_password is empty: whoever connects would own the databases."
    if not zeo_allowed_sources:
        yield (
            f"zeo_listen_address is {zeo_listen_address}, which others reach, but zeo_allowed_sources names nobody:"
            " list the hosts of the cluster or their network."
        )


def _redis(indico_cache_backend: str, indico_redis_host: str, indico_redis_password: str, redis_listen_address: str) -> Iterator[str]:
    if not re.fullmatch("[A-Za-z0-9._-]+", indico_redis_host):
        yield f"indico_redis_host is {indico_redis_host!r}; it must be a host name or an IPv4 address, without a port."
    try:
        loopback = ipaddress.IPv4Address(redis_listen_address).is_loopback
        anywhere = ipaddress.IPv4Address(redis_listen_address).is_unspecified
    except ValueError:
        loopback, anywhere = False, True
    if anywhere:
        yield f"redis_listen_address is {redis_listen_address!r}; it must be one IPv4 address of the host, that of the cluster's own network."
    if indico_redis_password:
        if len(indico_redis_password) < 16:
            yield "indico_redis_password has fewer than 16 characters."
        if not re.fullmatch("[A-Za-z0-9._~-]+", indico_redis_password):
            yield "indico_redis_password holds other characters than letters, digits, dots, hyphens, underscores and tildes; Indico reads it from an address."
    elif indico_cache_backend == "redis":
        yield "indico_cache_backend is redis, but indico_redis_password is empty: whoever reaches Redis could read and make sessions. There is no default."
    elif not loopback:
        yield (
            f"redis_listen_address is {redis_listen_address}, which others reach, but indico_redis_password is empty: whoever connects would own the sessions."
        )


def _memory(redis_memory_mb: Any, memcached_memory_mb: Any) -> Iterator[str]:
    for variable, value in dict(locals()).items():
        if int(value) < 16:
            yield f"{variable} is {value}; it must be 16 or more."


def _memcached(indico_cache_backend: str, indico_memcached_servers: list[str], indico_conf: Mapping[str, Any]) -> Iterator[str]:
    for number, server in enumerate(indico_memcached_servers):
        if not re.fullmatch("[A-Za-z0-9._-]+:[0-9]{1,5}", server):
            yield f"indico_memcached_servers[{number}] is {server!r}; it must be an address and a port such as 127.0.0.1:11211."
    own = [server for server in indico_memcached_servers if server.startswith(("127.", "localhost:"))]
    if len(own) > 1:
        yield f"indico_memcached_servers has {' and '.join(own)}; one server runs on a host."
    if any(not server.startswith(("127.0.0.1:", "localhost:")) for server in own):
        yield f"indico_memcached_servers has {own[0]}; memcached listens on 127.0.0.1."
    if indico_cache_backend != "memcached":
        return
    if not indico_memcached_servers:
        yield "indico_cache_backend is memcached, but indico_memcached_servers names none: Indico would have no sessions."
    lifetime = indico_conf.get("SessionLifetime")
    if isinstance(lifetime, int) and lifetime > _MEMCACHED_SECONDS:
        yield (
            f"indico_conf.SessionLifetime is {lifetime}, but indico_cache_backend is memcached, which takes more than {_MEMCACHED_SECONDS} seconds (30 days)"
            " for a date in the past: nobody could log in."
        )


def _cluster(zeo_cluster: Mapping[str, Any], zeo_listen_address: str) -> Iterator[str]:
    if len(zeo_cluster) > 1 and zeo_listen_address in ("127.0.0.1", "localhost"):
        yield (
            f"{' and '.join(zeo_cluster)} serve the databases together, but zeo_listen_address is {zeo_listen_address},"
            " where the others do not reach this host."
        )


def _mail(mail_relay_host: str, mail_relay_port: Any, mail_relay_tls: str, mail_origin: str, mail_root_to: list[str]) -> Iterator[str]:
    port, address = int(mail_relay_port), _address(mail_relay_host)
    if mail_relay_host and not address and not re.fullmatch(_HOST_NAME, mail_relay_host):
        yield f"mail_relay_host is {mail_relay_host!r}; it must be a host name or an IP address, without a port."
    if not 0 < port < 65536:
        yield f"mail_relay_port is {port}; a port is a number from 1 to 65535."
    if _is_loopback(mail_relay_host) and port == 25:
        yield f"mail_relay_host is {mail_relay_host} and mail_relay_port is 25, where the local relay itself listens; name another one."
    if address and mail_relay_tls == "verify":
        yield f"mail_relay_tls is verify, but mail_relay_host is {mail_relay_host}: a certificate is compared with a name, so give that, or choose encrypt."
    if mail_relay_host and port == 465 and mail_relay_tls in ("none", "may"):
        yield f"mail_relay_port is 465, where nothing is said without TLS, but mail_relay_tls is {mail_relay_tls}; choose verify or encrypt."
    if mail_origin and not re.fullmatch(_HOST_NAME, mail_origin):
        yield f"mail_origin is {mail_origin!r}; it must be a domain such as example.org."
    for number, recipient in enumerate(mail_root_to):
        if not re.fullmatch(f"[A-Za-z0-9._+=~-]+@{_HOST_NAME}", recipient):
            yield f"mail_root_to[{number}] is {recipient!r}; it must be an address such as operations@example.org."


def _mail_login(mail_relay_host: str, mail_relay_user: str, mail_relay_password: str, mail_relay_tls: str) -> Iterator[str]:
    if bool(mail_relay_user) != bool(mail_relay_password):
        given, lacking = ("mail_relay_user", "mail_relay_password") if mail_relay_user else ("mail_relay_password", "mail_relay_user")
        yield f"{given} is given, but {lacking} is empty; a relay wants both or neither."
    if not re.fullmatch(r"[^\s:]*", mail_relay_user) or not mail_relay_user.isprintable():
        yield f"mail_relay_user is {mail_relay_user!r}; it must hold neither blanks nor colons."
    if not mail_relay_password.isprintable() or mail_relay_password.strip() != mail_relay_password:
        yield "mail_relay_password begins or ends with a blank, or holds a line break or another control character, which Postfix does not read."
    if mail_relay_host and mail_relay_password and mail_relay_tls in ("none", "may") and not _is_loopback(mail_relay_host):
        yield f"mail_relay_password is given, but mail_relay_tls is {mail_relay_tls}: it could cross the network unencrypted. Choose verify or encrypt."


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return None if "%" in host else ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _base_url(indico_base_url: str, web_tls: str, web_trusted_proxies: list[str]) -> Iterator[str]:
    if not re.fullmatch(r"https?://[A-Za-z0-9._-]+(:[0-9]+)?(/[A-Za-z0-9._~%-]+)*", indico_base_url):
        yield f"indico_base_url is {indico_base_url!r}; it must begin with http:// or https://, name a host, and end without a slash."
    elif web_tls != "none" and indico_base_url.startswith("http:"):
        yield f"indico_base_url is {indico_base_url}, but web_tls is {web_tls}, which redirects HTTP to HTTPS."
    elif web_tls == "none" and indico_base_url.startswith("https:") and not web_trusted_proxies:
        yield (
            f"indico_base_url is {indico_base_url} and web_tls is none, but web_trusted_proxies is empty:"
            " name the proxy that speaks HTTPS, or Indico sends logged-in users round in circles."
        )


def _proxies(web_trusted_proxies: list[str]) -> Iterator[str]:
    for number, proxy in enumerate(web_trusted_proxies):
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError:
            yield f"web_trusted_proxies[{number}] is {proxy!r}; it must be an IP address or a network such as 10.0.0.0/8."


def _amounts(
    web_processes: Any, web_threads: Any, web_request_timeout: Any, web_upload_limit_mb: Any, zeo_invalidation_queue_size: Any, zeo_transaction_timeout: Any
) -> Iterator[str]:
    for variable, value in dict(locals()).items():
        if int(value) < 1:
            yield f"{variable} is {value}; it must be 1 or more."


def _configuration(indico_conf: Mapping[str, Any]) -> Iterator[str]:
    for key in indico_conf:
        if key in _DERIVED:
            yield f"indico_conf.{key} is derived; set {_DERIVED[key]} instead."
    yield from _indico_conf.problems({key: value for key, value in indico_conf.items() if key not in _DERIVED})


def _administrators(indico_admins: list[Any]) -> Iterator[str]:
    logins = [admin["login"] for admin in indico_admins]
    for login in sorted({login for login in logins if logins.count(login) > 1}):
        yield f"indico_admins names {login} more than once."
    if all(admin.get("state", "present") == "absent" for admin in indico_admins):
        yield "indico_admins names nobody: name one, since Indico 1.2.2 gives the administration of a new site to the first visitor who makes an account."
    for admin in indico_admins:
        who, password = f"indico_admins, {admin['login']}", admin.get("password")
        if admin.get("state", "present") == "absent":
            continue
        missing = [key for key in ("email", "first_name", "family_name") if not admin.get(key)]
        if missing:
            yield f"{who} has no {', no '.join(missing)}."
        if not password:
            yield f"{who} has no password; there is no default."
        elif len(password) < 8:
            yield f"{who} has a password of fewer than 8 characters."
        elif password.lower() in (admin["login"].lower(), admin.get("email", "").lower()):
            yield f"{who} has a password that is the login or the address."


def _pair(variable: str, tls: str, certificate: str, key: str) -> Iterator[str]:
    if tls == "provided":
        for name, text in ((f"{variable}_certificate", certificate), (f"{variable}_key", key)):
            if "-----BEGIN" not in text:
                yield f"{name} holds no PEM text; {variable}: provided needs it."
                return
        yield from _pem_problem(variable, certificate, key)
    elif key:
        yield f"{variable}_key is given, but {variable} is {tls}; set it to provided."


def _pem_problem(variable: str, certificate: str, key: str) -> Iterator[str]:
    """Yield why OpenSSL would not serve the pair. It lies in memory only; where the controller cannot do that, the host's own check says it."""
    if not hasattr(os, "memfd_create"):
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # how strong it must be, the host decides
    with os.fdopen(os.memfd_create("pair"), "wb") as stream:
        stream.write(f"{certificate}\n{key}\n".encode())
        stream.flush()
        try:
            context.load_cert_chain(f"/proc/self/fd/{stream.fileno()}", password=lambda: "")  # nobody can be asked for one
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                yield f"{variable}_key is not the key of {variable}_certificate."
            else:
                yield f"{variable}_certificate and {variable}_key are no certificate with its key, without a passphrase, that OpenSSL reads."


def _certificate(web_tls: str, web_tls_certificate: str, web_tls_key: str) -> Iterator[str]:
    yield from _pair("web_tls", web_tls, web_tls_certificate, web_tls_key)


def _balancer_certificate(loadbalancer_tls: str, loadbalancer_tls_certificate: str, loadbalancer_tls_key: str) -> Iterator[str]:
    yield from _pair("loadbalancer_tls", loadbalancer_tls, loadbalancer_tls_certificate, loadbalancer_tls_key)


def _balancer(
    loadbalancer_listen_addresses: list[str], loadbalancer_http_port: Any, loadbalancer_https_port: Any, loadbalancer_address: str, web_address: str
) -> Iterator[str]:
    if not loadbalancer_listen_addresses:
        yield "loadbalancer_listen_addresses names none; nobody would reach the site."
    for number, address in enumerate(loadbalancer_listen_addresses):
        if not _address(address):
            yield f"loadbalancer_listen_addresses[{number}] is {address!r}; it must be an IP address, or 0.0.0.0 or :: for all."
    for variable, port in (("loadbalancer_http_port", loadbalancer_http_port), ("loadbalancer_https_port", loadbalancer_https_port)):
        if not 0 < int(port) < 65536:
            yield f"{variable} is {port}; a port is a number from 1 to 65535."
    if int(loadbalancer_http_port) == int(loadbalancer_https_port):
        yield f"loadbalancer_https_port is {loadbalancer_https_port}, which loadbalancer_http_port has already."
    for variable, host in (("loadbalancer_address", loadbalancer_address), ("web_address", web_address)):
        if not re.fullmatch("[A-Za-z0-9._-]+", host):
            yield f"{variable} is {host!r}; it must be a host name or an IPv4 address, without a port."


def _balancer_amounts(
    loadbalancer_max_connections: Any, loadbalancer_check_interval: Any, loadbalancer_drain_timeout: Any, loadbalancer_admit_timeout: Any
) -> Iterator[str]:
    for variable, value in dict(locals()).items():
        if int(value) < 1:
            yield f"{variable} is {value}; it must be 1 or more."


def _sharing(indico_shared_mounts: list[Any], indico_cache_backend: str, indico_uid: Any) -> Iterator[str]:
    paths = [mount["path"] for mount in indico_shared_mounts]
    for path in sorted({path for path in paths if paths.count(path) > 1}):
        yield f"indico_shared_mounts names {path} more than once."
    if "cache" in paths and indico_cache_backend != "files":
        yield f"indico_shared_mounts has cache, but indico_cache_backend is {indico_cache_backend}: what remains in that directory each host has for itself."
    if not 0 <= int(indico_uid) < 65534:
        yield f"indico_uid is {indico_uid}; it must be a number below 65534, or 0 to leave it to the host."


def _plain_path(variable: str, path: str) -> Iterator[str]:
    if path and not re.fullmatch("/[A-Za-z0-9._/-]+", path):
        yield f"{variable} is {path!r}; it must hold only letters, digits, dots, hyphens and underscores between its slashes: units give others a meaning."


def _below_hidden(variable: str, path: str) -> Iterator[str]:
    hidden = next((one for one in _HIDDEN if f"{path}/".startswith(f"{one}/")), None)
    if hidden:
        yield f"{variable} is {path}; nothing below {hidden} serves, since the jobs do not see it or a reboot empties it."


def _backups(backup_directory: str, backup_drill_directory: str) -> Iterator[str]:
    for variable, path in dict(locals()).items():
        yield from _plain_path(variable, path)
        yield from _below_hidden(variable, path)
        if path.rstrip("/") in _SYSTEM:
            yield f"{variable} is {path}; it must be a path of its own, not one of the system's."


def _metrics(
    backup_metrics_file: str,
    cron_disk_metrics_file: str,
    cron_metrics_file: str,
    offsite_metrics_file: str,
    scheduler_metrics_file: str,
    zeo_metrics_file: str,
) -> Iterator[str]:
    """Units name the directory of each as one that they may write to."""
    used: dict[str, str] = {}
    for variable, path in ((variable, path) for variable, path in dict(locals()).items() if variable.endswith("_file") and path):
        directory = os.path.dirname(path)
        if not path.startswith("/"):
            yield f"{variable} is {path!r}; it must be an absolute path."
            continue
        yield from _plain_path(variable, path)
        yield from _below_hidden(variable, path)
        if path.rstrip("/") in _SYSTEM:
            yield f"{variable} is {path}; it must be a path of its own, not one of the system's."
        elif path.endswith("/") or os.path.normpath(path) != path:
            yield f"{variable} is {path}; it must name a file, without trailing or doubled slashes and without dots for a directory."
        elif directory in _NO_METRICS:
            yield f"{variable} is {path}; a job must not be allowed to write to {directory}. Name a directory below /var/lib."
        if path in used:
            yield f"{variable} is {path}, which {used[path]} has already."
        used.setdefault(path, variable)


def _tasks(scheduler_tasks: list[Any], scheduler_keep_days: Any) -> Iterator[str]:
    for sentence in _scheduler.problems(scheduler_tasks):
        yield f"scheduler_tasks{sentence}"
    if int(scheduler_keep_days) < 0:
        yield f"scheduler_keep_days is {scheduler_keep_days}; it must be 0 or more."


def _drill(backup_drill_directory: str, backup_directory: str, indico_prefix: str) -> Iterator[str]:
    # The directory is removed after each drill.
    for variable, path in (("backup_directory", backup_directory), ("indico_prefix", indico_prefix)):
        if f"{path}/".startswith(f"{backup_drill_directory.rstrip('/')}/"):
            yield f"backup_drill_directory is {backup_drill_directory}, which a drill empties, and {variable} is {path}; it must be a directory of its own."


def _hours(backup_allowed_hours: str, cron_allowed_hours: str) -> Iterator[str]:
    for variable, hours in dict(locals()).items():
        if hours and not _crontab.HOURS.fullmatch(hours):
            yield f"{variable} is {hours!r}; it must be two times such as 22:00-06:00, or empty."


def _disks(cron_disk_warning_percent: Any, cron_disk_critical_percent: Any, cron_disk_warning_days: Any) -> Iterator[str]:
    if not 0 < int(cron_disk_warning_percent) <= int(cron_disk_critical_percent) <= 100:
        yield (
            f"cron_disk_warning_percent is {cron_disk_warning_percent} and cron_disk_critical_percent {cron_disk_critical_percent};"
            " they must be more than 0, at most 100, and the second not less than the first."
        )
    if int(cron_disk_warning_days) < 0:
        yield f"cron_disk_warning_days is {cron_disk_warning_days}; it must be 0 or more."


def _mirror(cron_mirror_target: str, cron_mirror_days: Any, cron_mirror_categories: list[str]) -> Iterator[str]:
    parent = os.path.dirname(cron_mirror_target)
    hidden = next((one for one in _HIDDEN if f"{parent}/".startswith(f"{one}/")), None)
    yield from _plain_path("cron_mirror_target", cron_mirror_target)
    if cron_mirror_target in _SYSTEM or (cron_mirror_target and (parent == "/" or os.path.normpath(cron_mirror_target) != cron_mirror_target)):
        yield f"cron_mirror_target is {cron_mirror_target}; it must be a directory of its own below another one, such as /srv/mirror."
    elif hidden:
        yield f"cron_mirror_target is {cron_mirror_target}; nothing below {hidden} serves, since the job does not see it or a reboot empties it."
    if int(cron_mirror_days) < 1:
        yield f"cron_mirror_days is {cron_mirror_days}; it must be 1 or more."
    for number, category in enumerate(cron_mirror_categories):
        if not re.fullmatch("[A-Za-z0-9]+", category):
            yield f"cron_mirror_categories[{number}] is {category!r}; it must be the id of a category, such as 0."
    if not cron_mirror_categories:
        yield "cron_mirror_categories is empty; name the categories to mirror, 0 for all."


def _mails(cron_mail_to: list[str], cron_mail_from: str, cron_smtp_port: Any) -> Iterator[str]:
    for address in cron_mail_to:
        if not re.fullmatch(r"[^\s@<>,;]+(@[^\s@<>,;]+)?", address):
            yield f"cron_mail_to has {address!r}; each must be an address, such as admins@example.org."
    if not re.fullmatch(r"[^\s@<>,;]+@[^\s@<>,;]+", cron_mail_from):
        yield f"cron_mail_from is {cron_mail_from!r}; it must be an address, such as indico@example.org."
    if not 0 < int(cron_smtp_port) < 65536:
        yield f"cron_smtp_port is {cron_smtp_port}; it must be from 1 to 65535."


def _pings(backup_ping_start: str, backup_ping_success: str, backup_ping_failure: str, cron_failure_url: str) -> Iterator[str]:
    for variable, url in dict(locals()).items():
        if url and not re.fullmatch(r"https?://\S+", url):
            yield f"{variable} is no URL; it must begin with http:// or https://."


def _task_files(backup_before_tasks: str, backup_after_tasks: str, backup_failure_tasks: str) -> Iterator[str]:
    for variable, path in dict(locals()).items():
        if path and not os.path.isfile(path):
            yield f"{variable} is {path}, which is no file on the controller."


def _schedules(
    indico_jobs_backend: str,
    backup_schedule: str,
    backup_drill_schedule: str,
    backup_pack_schedule: str,
    cron_clean_schedule: str,
    cron_disk_schedule: str,
    cron_mirror_schedule: str,
    offsite_schedule: str,
    scheduler_purge_schedule: str,
) -> Iterator[str]:
    for variable, schedule in list(locals().items())[1:]:
        if indico_jobs_backend == "cron" and schedule:
            try:
                _crontab.fields(schedule)
            except ValueError as error:
                yield f"{variable}: {error}"
        elif indico_jobs_backend == "systemd" and schedule:
            wrong = _calendar.problem(schedule, date.today())
            if wrong:
                yield f"{variable} is {schedule!r}; {wrong}."


def _spans(
    backup_schedule_jitter: str,
    cron_schedule_jitter: str,
    offsite_schedule_jitter: str,
    backup_time_limit: str,
    cron_time_limit: str,
    offsite_time_limit: str,
) -> Iterator[str]:
    """systemd would leave out what it does not understand, and a job would run without its limit."""
    for variable, text in dict(locals()).items():
        limit = variable.endswith("_limit")
        if not (_calendar.span(text) or (limit and text == "infinity")):
            yield f"{variable} is {text!r}; it must be a time such as 90s, 10min or 1h 30min."
        elif limit and not re.search("[1-9]|infinity", text):
            yield f"{variable} is {text}; a job needs some time. infinity sets no limit."


def _retention(
    backup_window_days: Any,
    backup_keep_chains_min: Any,
    backup_keep_daily: Any,
    backup_keep_weekly: Any,
    backup_keep_monthly: Any,
    backup_keep_yearly: Any,
) -> Iterator[str]:
    yield from _policy("backup", dict(locals()))


def _copy_retention(
    offsite_window_days: Any,
    offsite_keep_chains_min: Any,
    offsite_keep_daily: Any,
    offsite_keep_weekly: Any,
    offsite_keep_monthly: Any,
    offsite_keep_yearly: Any,
) -> Iterator[str]:
    yield from _policy("offsite", dict(locals()))


def _policy(role: str, values: Mapping[str, Any]) -> Iterator[str]:
    """What a retention may be, the run at night says, so it is asked here."""
    options: dict[str, Any] = {name.removeprefix(f"{role}_"): int(value) for name, value in values.items()}
    try:
        _prune.Policy(**options)
    except _repository.RepositoryError as error:
        yield f"{role}_{str(error).partition('. ')[0].rstrip('.')}."


def _chains(backup_max_incrementals: Any) -> Iterator[str]:
    if int(backup_max_incrementals) < 1:
        yield f"backup_max_incrementals is {backup_max_incrementals}; it must be 1 or more."


def _archive_roots(backup_archive_roots: list[str], indico_prefix: str) -> Iterator[str]:
    for number, path in enumerate(backup_archive_roots):
        if path.rstrip("/") in _SYSTEM or f"{indico_prefix}/".startswith(f"{path.rstrip('/')}/"):
            yield (
                f"backup_archive_roots[{number}] is {path!r}; it must hold stored files,"
                f" so it is neither one of the system's directories nor above {indico_prefix}."
            )


def _packs(backup_pack_days: Any) -> Iterator[str]:
    if int(backup_pack_days) < 0:
        yield f"backup_pack_days is {backup_pack_days}; it must be 0 or more."


def _copy(offsite_directory: str, offsite_user: str, backup_pull_user: str) -> Iterator[str]:
    yield from _plain_path("offsite_directory", offsite_directory)
    hidden = next((one for one in _HIDDEN if f"{offsite_directory}/".startswith(f"{one}/")), None)
    if offsite_directory.rstrip("/") in _SYSTEM:
        yield f"offsite_directory is {offsite_directory}; it must be a path of its own, not one of the system's."
    elif hidden:
        yield f"offsite_directory is {offsite_directory}; nothing below {hidden} serves, since the pull does not see it or a reboot empties it."
    for variable, value in (("offsite_user", offsite_user), ("backup_pull_user", backup_pull_user)):
        yield from _name(variable, value)


def _pull_keys(backup_pull_keys: list[str]) -> Iterator[str]:
    for number, key in enumerate(backup_pull_keys):
        if key and not re.fullmatch("ssh-ed25519 [A-Za-z0-9+/=]+( [^\n]*)?", key):
            yield f"backup_pull_keys[{number}] is no public Ed25519 key; it must be one line that begins with ssh-ed25519."


def _rotation(logrotate_keep: Any, logrotate_dated_days: Any, logrotate_max_size: str, logrotate_olddir: str, logrotate_mail: str) -> Iterator[str]:
    for variable, value in (("logrotate_keep", logrotate_keep), ("logrotate_dated_days", logrotate_dated_days)):
        if int(value) < 1:
            yield f"{variable} is {value}; it must be 1 or more."
    if logrotate_max_size and not re.fullmatch("[1-9][0-9]*[kMG]?", logrotate_max_size):
        yield f"logrotate_max_size is {logrotate_max_size!r}; it must be a number of bytes, or one with k, M or G behind it."
    if logrotate_olddir and not re.fullmatch("[A-Za-z0-9_-][A-Za-z0-9._-]*", logrotate_olddir):
        yield f"logrotate_olddir is {logrotate_olddir!r}; it must be the name of a directory beside the logs, which belongs to whoever writes them."
    if logrotate_mail and not re.fullmatch("[A-Za-z0-9._+@-]+", logrotate_mail):
        yield f"logrotate_mail is {logrotate_mail!r}; it must be one address."


def _build(indico_version: str, indico_source: str, indico_patches: list[str], indico_packages: list[str]) -> Iterator[str]:
    if not indico_source and indico_version != "1.2.2":
        yield (
            f"indico_version is {indico_version}, which nobody has published for this collection: the package is 1.2.2."
            " A branch, a tag or a commit needs indico_source, the git repository that has it."
        )
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*", indico_version) or ".." in indico_version:
        yield f"indico_version is {indico_version!r}; it must be a branch, a tag or a commit of letters, digits, dots, hyphens, underscores and slashes."
    if re.match("-|.*\\s", indico_source):
        yield f"indico_source is {indico_source!r}; it must be the URL of a git repository, or its path on the builder, without blanks."
    elif re.match("[a-z+]+://[^/@]*:[^/@]*@", indico_source):
        yield "indico_source holds a password, which would stand in every release; let the builder have a key or a credential helper, and leave it out."
    names = [os.path.basename(path) for path in indico_patches]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"indico_patches has two files of the name {name}; a release lists them by their names."
    for path in indico_patches:
        if not os.path.isfile(path):
            yield f"indico_patches has {path}, which is no file on the controller."
    for line in indico_packages:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9._+!-]*( +--hash=sha256:[0-9a-f]{64})*", line):
            yield f"indico_packages has {line!r}; each must be a name and a version such as indico-plugin==1.0, with --hash=sha256:... behind it or not."
    if len({"--hash" in line for line in indico_packages}) > 1:
        yield "indico_packages has lines with --hash and lines without; give it for all of them or for none."


def _deployments(indico_keep_releases: Any, indico_health_count: Any, indico_health_seconds: Any) -> Iterator[str]:
    for variable, value in dict(locals()).items():
        if int(value) < 1:
            yield f"{variable} is {value}; it must be 1 or more."


def _pages(indico_health_path: str, indico_warm_paths: list[str]) -> Iterator[str]:
    for variable, path in [("indico_health_path", indico_health_path), *(("indico_warm_paths", path) for path in indico_warm_paths)]:
        if not re.fullmatch(r"/[!-~]*", path):
            yield f"{variable} has {path!r}; a page begins with a slash and follows indico_base_url."


CHECKS: tuple[Callable[..., Iterator[str]], ...] = (
    _storage_names,
    _ports,
    _prefix,
    _instance,
    _users,
    _addresses,
    _listening,
    _redis,
    _memory,
    _memcached,
    _mail,
    _mail_login,
    _cluster,
    _base_url,
    _proxies,
    _amounts,
    _configuration,
    _administrators,
    _certificate,
    _balancer_certificate,
    _balancer,
    _balancer_amounts,
    _sharing,
    _backups,
    _metrics,
    _tasks,
    _drill,
    _hours,
    _disks,
    _mirror,
    _mails,
    _pings,
    _task_files,
    _schedules,
    _spans,
    _retention,
    _archive_roots,
    _copy_retention,
    _chains,
    _packs,
    _copy,
    _pull_keys,
    _rotation,
    _build,
    _deployments,
    _pages,
)


def check_host(facts: Mapping[str, Any], host: str, python2: bool) -> Iterator[str]:
    """Yield why this host cannot serve. facts are Ansible's; about one that is absent nothing is said. python2: whether it is to run Indico 1.2.2."""
    distribution, release = facts.get("distribution"), str(facts.get("distribution_major_version"))
    if python2 and distribution and (distribution, release) != ("Debian", "11"):
        yield f"{host} runs {distribution} {release}; Indico 1.2.2 needs Python 2.7, which Debian 11 is the last to package."
    version = re.match(r"([0-9]+)\.([0-9]+)", str(facts.get("python_version")))
    if version and (int(version[1]), int(version[2])) < (3, 9):
        yield f"{host} runs Ansible's modules with Python {version[0]}; this collection needs 3.9 or later there."


def _is_said(sentence: str, found: Iterable[str]) -> bool:
    """Return whether one of the sentences already tells that this value is wrong. They may call rooms what this calls indico_storages[1]."""
    name, _is, rest = sentence.partition(" is ")
    value = rest.partition(";")[0]
    variable, last = name.partition("[")[0], re.split("[.]", name)[-1]
    return any(one.startswith(variable) and (f"{last} is {value};" in one or f"{name} is {value}" in one) for one in found)


def problems(
    specs: Mapping[str, Mapping[str, Any]],
    roles: Iterable[str],
    variables: Mapping[str, Any],
    unreadable: Mapping[str, str],
    given: Iterable[str],
    facts: Mapping[str, Any],
    host: str,
) -> list[str]:
    """Return every problem of one host, as sentences.

    specs: all roles of the collection; roles: those whose values are checked (names are always compared with all);
    variables: the templated values, without undefined ones; unreadable: why some have no value, by name;
    given: all variable names of the host; facts: Ansible's; host: its name in the inventory.
    """
    own = variables.get("indico_site_variables")
    own = [name for name in own if isinstance(name, str)] if isinstance(own, list) else []
    found = list(check_names({name: option for options in specs.values() for name, option in options.items()}, given, own))
    good = {}
    for name, option in ((name, option) for role in roles for name, option in specs[role].items()):
        if name in unreadable:
            found.append(f"{name} cannot be read: {unreadable[name]}")
        elif name in variables:
            wrong = list(check_value(name, option, variables[name]))
            found += wrong
            if not wrong:
                good[name] = variables[name]
        elif option.get("required"):
            found.append(f"{name} is missing.")
    for check in CHECKS:
        wanted = inspect.signature(check).parameters
        if all(name in good for name in wanted):
            found += check(**{name: good[name] for name in wanted})
    ranges = [sentence for role in roles for name in specs[role] if name in good for sentence in check_ranges(name, specs[role][name], good[name])]
    found += [sentence for sentence in ranges if not _is_said(sentence, found)]
    python2 = str(good.get("python2_wanted", True)).lower() in ("true", "yes")
    return found + list(check_host(facts, host, python2))
