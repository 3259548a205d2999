# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What runs on a host of an instance, in which versions, and how large it is. Reads only."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import ssl
import stat
import time
import urllib.error
import urllib.request
from datetime import datetime, timezone
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _children, _filestorage, _repository, _units

_DEBIAN = ("python2.7", "apache2", "libapache2-mod-xsendfile")
_RELEASES = {"current": "indico", "zeo": "ZODB3"}  # link below the prefix -> the package that it is there for
_REPLACED = re.compile(r"\.(?:replaced|failed)-([0-9]{4}(?:-[0-9][0-9]){5})")
_AHEAD = 300.0  # seconds that a transaction may be ahead of this host's clock
_DIRECTORIES = ("archive", "cache", "db", "log", "releases", "tmp", "wheelhouse")


def look(
    prefix: str, *, units: list[str], storages: list[dict[str, Any]], url: str | None, public_url: str | None = None, timeout: float = 30, measure: bool = True
) -> dict[str, Any]:
    """Return all that the functions below find. Raises UnitError or OSError.

    units: names; storages: name and port of each; url: of the home page, None asks for none; measure: whether to add up what lies on disk.
    """
    found = releases(prefix)
    return {
        "releases": found,
        "deployment": read_json(os.path.join(prefix, "releases", ".lock")) or None,
        "packages": packages(found.get("current", found.get("zeo", {"path": prefix}))["path"]),
        "debian_packages": debian_packages(),
        "units": states(units),
        "storages": databases(prefix, storages),
        "page": page(url, public_url or url, timeout) if url else None,
        "maintenance": maintenance(prefix),
        "sizes": sizes(prefix) if measure else {},
        "replaced": replaced(prefix),
        "file_system": file_system(prefix),
    }


def packages(release: str) -> dict[str, str]:
    """Return the Python packages of a release (path of a virtualenv) and their versions, sorted by name; none when it does not exist."""
    directory = os.path.join(release, "lib/python2.7/site-packages")
    found = [re.fullmatch(r"(.+)-([^-]+)\.dist-info", name) for name in (os.listdir(directory) if os.path.isdir(directory) else [])]
    return {match[1].replace("_", "-"): match[2] for match in sorted(filter(None, found), key=lambda match: match[1].lower())}


def releases(prefix: str) -> dict[str, Any]:
    """Return, for the links current (the application) and zeo (the servers): the release's name, path and main package's version.

    Of one that says where it came from, also that (source, commit, patches, extra_packages, built), and who deployed it and when, if somebody did.
    """
    found = {}
    for link, package in _RELEASES.items():
        path = os.path.realpath(os.path.join(prefix, link))
        if os.path.isdir(path):
            manifest, deployed = read_json(os.path.join(path, "manifest.json")), read_json(os.path.join(path, "deployed.json"))
            known: dict[str, Any] = {key: manifest[key] for key in ("source", "commit", "patches", "extra_packages", "built") if key in manifest}
            if deployed:
                known["deployed"] = {key: deployed.get(key) for key in ("action", "who", "where", "ended", "from")}
            found[link] = {"name": os.path.basename(path), "path": path, "version": packages(path).get(package), **known}
    return found


def read_json(path: str) -> dict[str, Any]:
    """Return what a file holds, empty when there is none that can be read."""
    try:
        found = _repository.load_json(path, follow=True)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def origin(release: dict[str, Any]) -> str:
    """Return where a release came from and who brought it, for people; empty for one that does not say so."""
    parts = [f"commit {release['commit'][:12]} of {release['source']}"] if release.get("commit") else []
    parts += [f"with {', '.join(patch['name'] for patch in release['patches'])}"] if release.get("patches") else []
    parts += [f"and {', '.join(release['extra_packages'])}"] if release.get("extra_packages") else []
    if "deployed" in release:
        did = release["deployed"]
        parts.append(f"{'rolled back to' if did['action'] == 'rollback' else 'deployed'} by {did['who']} at {did['where']} {did['ended']}")
    return ", ".join(parts)


def debian_packages() -> dict[str, str]:
    """Return the versions of the Debian packages that an instance runs on, those that are installed."""
    # It exits with 1 when it does not know one of them.
    done = _children.run(["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status} ${Version}\n", *_DEBIAN])
    rows = (line.split(" ") for line in done.stdout.splitlines())
    return {name: version for name, status, version in rows if status == "installed"}


def states(names: list[str]) -> list[dict[str, Any]]:
    """Return the state of each unit: active, sub, enabled (bool), since (ISO 8601, UTC), pid, restarts, memory_bytes (None where systemd does not count it)."""
    properties = ("ActiveState", "SubState", "UnitFileState", "MainPID", "NRestarts", "MemoryCurrent", "ActiveEnterTimestampMonotonic")
    boot = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
    found = []
    for name, state in zip(names, _units.show(names, properties) if names else []):
        entered = int(state["ActiveEnterTimestampMonotonic"]) / 1e6
        found.append(
            {
                "name": name,
                "active": state["ActiveState"],
                "sub": state["SubState"],
                "enabled": state["UnitFileState"] == "enabled",
                "since": _iso(datetime.fromtimestamp(boot + entered, timezone.utc)) if state["ActiveState"] == "active" and entered else None,
                "pid": int(state["MainPID"]),
                "restarts": int(state["NRestarts"]),
                "memory_bytes": int(state["MemoryCurrent"]) if state["MemoryCurrent"].isdigit() else None,
            }
        )
    return found


def databases(prefix: str, declared: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each storage that lies on this host: name, port, path, bytes, and its last transaction (tid, time, user, description), or error in its place.

    ahead_seconds is how far that transaction is ahead of this host's clock.
    """
    found = []
    for storage in declared:
        path = os.path.join(prefix, "db", storage["name"], "Data.fs")
        one = {"name": storage["name"], "port": int(storage["port"]), "path": path, "bytes": 0, "last_transaction": None, "error": None}
        try:
            one["bytes"] = os.stat(path).st_size
            last = _filestorage.last_transaction(path)
        except (OSError, _filestorage.FileStorageError) as error:
            one["error"] = _repository.told(error)
        else:
            one["last_transaction"] = last and last.data()
            one["ahead_seconds"] = _filestorage.ahead_seconds(last.tid, time.time()) if last else 0.0
        found.append(one)
    return found


def sizes(prefix: str) -> dict[str, int]:
    """Return the bytes on disk below each directory of the instance that exists."""
    present = [os.path.join(prefix, name) for name in _DIRECTORIES if os.path.isdir(os.path.join(prefix, name))]
    if not present:
        return {}
    # Files come and go while du reads, and it complains of those: what it printed still counts.
    done = _children.run(["du", "--summarize", "--block-size=1", *present], limit=_children.LONG, still=_children.STILL)
    return {os.path.basename(path): int(size) for size, path in (line.split("\t") for line in done.stdout.splitlines())}


def replaced(prefix: str) -> list[dict[str, Any]]:
    """Return what restores and migrations put aside and nobody has removed: path, bytes, moment (ISO 8601, UTC) of that and age_days, the oldest first."""
    found = []
    for directory in (prefix, *(os.path.join(prefix, "db", name) for name in _names(os.path.join(prefix, "db")))):
        for name in _names(directory):
            match = _REPLACED.search(name)
            if match:
                with contextlib.suppress(ValueError):
                    moment = datetime.strptime(match[1], "%Y-%m-%d-%H-%M-%S").replace(tzinfo=timezone.utc)
                    age = (time.time() - moment.timestamp()) / 86400
                    path = os.path.join(directory, name)
                    found.append({"path": path, "bytes": _bytes(path), "moment": _iso(moment), "age_days": round(age, 2)})
    return sorted(found, key=lambda one: (one["moment"], one["path"]))


def _names(directory: str) -> list[str]:
    with contextlib.suppress(OSError):
        return sorted(os.listdir(directory))
    return []


def _bytes(path: str) -> int:
    """Return the bytes of a file, or of the files below a directory."""
    places = [path, *(os.path.join(place, name) for place, _directories, names in os.walk(path) for name in names)]
    total = 0
    for place in places:
        with contextlib.suppress(OSError):
            found = os.lstat(place)
            total += 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    return total


def maintenance(prefix: str) -> dict[str, Any] | None:
    """Return since when (ISO 8601, UTC) maintenance is on, and after how many seconds visitors are asked to come back; None when it is off."""
    try:
        with open(os.path.join(prefix, "etc", "maintenance", "on"), encoding="ascii") as stream:
            since = datetime.fromtimestamp(os.fstat(stream.fileno()).st_mtime, timezone.utc)
            seconds = stream.read()
            return {"since": _iso(since), "retry_after": int(seconds) if seconds.isdigit() else None}
    except FileNotFoundError:
        return None


def file_system(prefix: str) -> dict[str, int]:
    """Return the bytes of the file system that holds prefix, or would hold it: total and free (for other users than root)."""
    while not os.path.isdir(prefix):
        prefix = os.path.dirname(prefix)
    usage = shutil.disk_usage(prefix)
    return {"total_bytes": usage.total, "free_bytes": usage.free}


class _Stay(urllib.request.HTTPRedirectHandler):
    """Gives a redirection back as the answer that it is."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


def page(url: str, public_url: str, timeout: float) -> dict[str, Any]:
    """Ask for a page on this host under the name that browsers use. Return url, status (None without an answer), seconds, and error."""
    return fetch(url, public_url, timeout)[0]


def fetch(url: str, public_url: str, timeout: float) -> tuple[dict[str, Any], bytes]:
    """Ask for a page as page() does, and return its content, too."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is this very host, under an address that no certificate names
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _Stay)
    scheme, _slashes, host = public_url.partition("://")
    request = urllib.request.Request(url, headers={"Host": host.split("/")[0], "X-Forwarded-Proto": scheme})  # noqa: S310 (the caller's own)
    start = time.monotonic()
    status, error, content = None, None, b""
    try:
        with opener.open(request, timeout=timeout) as answer:
            content = answer.read()
            status = answer.status
    except urllib.error.HTTPError as answer:
        status = answer.code
    except OSError as problem:
        error = str(problem)
    return {"url": url, "status": status, "seconds": round(time.monotonic() - start, 3), "error": error}, content


def problems(info: dict[str, Any]) -> list[str]:
    """Return a sentence for each thing that is not as it should be on a host that serves. In maintenance the scheduler pauses and the page says so."""
    found = []
    for unit in info["units"]:
        paused = info["maintenance"] and unit["name"].endswith("-scheduler.service") and unit["active"] == "inactive"
        if unit["active"] != "active" and not paused:
            found.append(f"{unit['name']} is {unit['active']} ({unit['sub']}).")
        elif not unit["enabled"]:
            found.append(f"{unit['name']} would not start at boot.")
    for storage in info["storages"]:
        if storage["error"]:
            found.append(f"The storage {storage['name']} cannot be read: {storage['error']}")
        if storage.get("ahead_seconds", 0) > _AHEAD:
            found.append(f"The storage {storage['name']}: {_filestorage.ahead_sentence(storage['last_transaction']['time'], storage['ahead_seconds'])}.")
    if info["page"] and info["page"]["status"] not in ((200, 503) if info["maintenance"] else (200,)):
        answer = f"with {info['page']['status']}" if info["page"]["status"] else f"nothing: {info['page']['error']}"
        found.append(f"The home page at {info['page']['url']} answered {answer}.")
    return found


def summary(info: dict[str, Any]) -> list[str]:
    """Return the same for people, a line for each thing."""
    lines = [", ".join(filter(None, [f"{_RELEASES[link]} {one['version']} in {one['path']}", origin(one)])) for link, one in info["releases"].items()] or [
        "nothing is installed here"
    ]
    if info.get("deployment"):
        began = info["deployment"]
        lines.append(f"{began.get('who')} at {began.get('where')} is at the releases since {began.get('began')} ({began.get('action')} {began.get('release')})")
    lines += [", ".join(f"{name} {version}" for name, version in info["debian_packages"].items())] if info["debian_packages"] else []
    if info["maintenance"]:
        lines.append(f"maintenance is on since {info['maintenance']['since']}: visitors get 503 and the scheduler pauses")
    for unit in info["units"]:
        more = [f"since {unit['since']}"] if unit["since"] else []
        more += [human(unit["memory_bytes"])] if unit["memory_bytes"] else []
        more += [f"restarted {unit['restarts']} times"] if unit["restarts"] else []
        lines.append(", ".join([f"{unit['name']}: {unit['active']}", *more]))
    for storage in info["storages"]:
        last = storage["last_transaction"]
        newest = f"last transaction {last['time']}" if last else storage["error"] or "no transaction yet"
        lines.append(f"storage {storage['name']}: {human(storage['bytes'])}, port {storage['port']}, {newest}")
    if info["page"]:
        page_found = info["page"]
        lines.append(f"home page: {page_found['status'] or page_found['error']} in {page_found['seconds']:.2f} s from {page_found['url']}")
    if info["sizes"]:
        lines.append("on disk: " + ", ".join(f"{name} {human(size)}" for name, size in info["sizes"].items()))
    if info.get("replaced"):
        lines.append("put aside by restores (playbooks/cleanup.yml -e what=replaced removes them):")
        lines += [f"  {one['path']}, {human(one['bytes'])}, {one['age_days']:.0f} days old" for one in info["replaced"]]
    space = info["file_system"]
    lines.append(f"free: {human(space['free_bytes'])} of {human(space['total_bytes'])}")
    return lines


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def human(size: float) -> str:
    """Return a number of bytes as people read it, such as 25.70 MB."""
    for unit, factor in (("TB", 2**40), ("GB", 2**30), ("MB", 2**20), ("KB", 2**10)):
        if size >= factor:
            return f"{size / factor:.2f} {unit}"
    return f"{size:.0f} bytes"
