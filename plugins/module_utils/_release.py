# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The releases of a host: which one runs, how it came there, who is at it, and which ones may go.

Below PREFIX/releases lie the releases, one directory each, and two files: .deployments, a line of JSON for each beginning and each end,
and .lock while somebody is at it. A deployment is known by the id of its run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _children, _info, _repository, _units

_KEPT = 200  # deployments that the file remembers
_ERROR = b'name="reportMsg"'  # Indico 1.2.2 answers many errors with 200; the form of its error page is on no other


class ReleaseError(Exception):
    """The message is a sentence for the operator."""


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _directory(prefix: str) -> str:
    return os.path.join(prefix, "releases")


def linked(prefix: str, link: str = "current") -> str | None:
    """Return the name of the release that a link below prefix points at, None when there is none."""
    path = os.path.realpath(os.path.join(prefix, link))
    return os.path.basename(path) if os.path.isdir(path) and os.path.dirname(path) == os.path.realpath(_directory(prefix)) else None


def names(prefix: str) -> list[str]:
    """Return the complete releases of the application, the newest first."""
    directory = _directory(prefix)
    found = []
    for name in os.listdir(directory) if os.path.isdir(directory) else []:
        mark = os.path.join(directory, name, ".complete")
        if not name.startswith("zeo-") and os.path.exists(mark):
            found.append((os.stat(mark).st_mtime, name))
    return [name for _time, name in sorted(found, reverse=True)]


def manifest(prefix: str, name: str | None) -> dict[str, Any]:
    """Return what a release says of where it came from; empty for one that says nothing."""
    return _info.read_json(os.path.join(_directory(prefix), name, "manifest.json")) if name else {}


def history(prefix: str) -> list[dict[str, Any]]:
    """Return the deployments, the oldest first: id, action, who, where, release, from, version, commit, began, ended, result (None while it is not known)."""
    found: dict[str, dict[str, Any]] = {}
    try:
        with open(os.path.join(_directory(prefix), ".deployments"), encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except FileNotFoundError:
        return []
    for line in lines:
        try:
            entry = _repository.parse_json(line)
            found.setdefault(entry["id"], {"ended": None, "result": None}).update(entry)
        except (ValueError, KeyError, TypeError):
            continue  # a line that was cut off when the power went
    return [one for one in found.values() if "release" in one]  # of one that was put back before it began here, there is the end alone


def previous(entries: list[dict[str, Any]], current: str | None) -> str | None:
    """Return the release that ran before the current one was deployed, to which a rollback goes. A rollback deploys nothing, so two go back two steps.

    Nothing leads back behind a migration: the older release does not know what that made of the databases.
    """
    came = _came(entries, current)
    return str(came["from"]) if came and came["action"] == "deploy" and came["from"] else None


def _came(entries: list[dict[str, Any]], current: str | None) -> dict[str, Any] | None:
    """Return the deployment or the migration that brought the current release."""
    for entry in reversed(entries):
        if entry["release"] == current and entry["action"] in ("deploy", "migrate") and entry["from"] != current and entry["result"] in ("ok", None):
            return dict(entry)
    return None


def look(prefix: str) -> dict[str, Any]:
    """Return all that a host knows of its releases."""
    current, entries = linked(prefix), history(prefix)
    return {
        "current": current,
        "previous": previous(entries, current),
        "manifest": manifest(prefix, current),
        "releases": names(prefix),
        "deployments": entries,
        "deployment": next((entry for entry in reversed(entries) if entry["release"] == current and entry["result"] == "ok"), None),
        "lock": _info.read_json(os.path.join(_directory(prefix), ".lock")) or None,
        # A switch that was killed leaves its own sign, which the next one takes down.
        "maintenance": None if os.path.exists(os.path.join(prefix, "etc", "maintenance", "release")) else _info.maintenance(prefix),
        "migration": _info.read_json(os.path.join(_directory(prefix), ".migration")) or None,
    }


def told(entry: dict[str, Any]) -> str:
    """Return a deployment, or the holder of a lock, as people read it."""
    return f"{entry['who']} at {entry['where']} since {entry['began']}"


def lock(prefix: str, holder: dict[str, Any], *, take: bool, check: bool) -> dict[str, Any] | None:
    """Take the lock of a host for a run and return whose it was until now. holder: id, action, who, where, release.

    take removes the one that a run which is gone left behind. Raises ReleaseError, which names whoever has it.
    """
    path = os.path.join(_directory(prefix), ".lock")
    if not os.path.isdir(_directory(prefix)):
        raise ReleaseError(f"There is no {_directory(prefix)}, so nothing is installed here yet; site.yml does that. Nothing was done.")
    there = _info.read_json(path)
    if there.get("id") == holder["id"]:
        return None
    if os.path.exists(path) and not take:
        known = {"who", "where", "began", "action", "release"} <= set(there)
        does = {"deploy": "deploy", "migrate": "migrate to"}.get(there.get("action", ""), "roll back to")
        who = f"{told(there)}, to {does} {there['release']}" if known else f"nobody knows whom, see {path}"
        raise ReleaseError(
            f"Somebody is at it: the releases are locked by {who}. If that run is over, which it is when its process was killed,"
            " run this again with -e unlock=true. Nothing was done."
        )
    if check:
        return there or None
    staged = f"{path}.{holder['id']}"
    with open(staged, "w", encoding="utf-8") as stream:
        stream.write(json.dumps(dict(holder, began=_now())) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    try:
        if take:
            os.replace(staged, path)
        else:
            os.link(staged, path)  # fails when another run was faster
    except FileExistsError:
        return lock(prefix, holder, take=False, check=check)
    finally:
        if os.path.lexists(staged):
            os.unlink(staged)
    return there or None


def unlock(prefix: str, run: str, *, check: bool) -> bool:
    """Give the lock back and return whether this run had it."""
    path = os.path.join(_directory(prefix), ".lock")
    held = _info.read_json(path).get("id") == run
    if held and not check:
        os.unlink(path)
    return held


def begin(prefix: str, entry: dict[str, Any]) -> None:
    """Write down that a deployment begins. entry: id, action, who, where, release; the rest is found here."""
    told_by = manifest(prefix, entry["release"])
    known = {"from": linked(prefix), "version": told_by.get("version", ""), "commit": told_by.get("commit", "")}
    _append(prefix, {**entry, **known, "began": _now()})


def end(prefix: str, run: str, result: str) -> None:
    """Write down how it ended: ok, or a sentence. One that went well is written into the release, too."""
    _append(prefix, {"id": run, "ended": _now(), "result": result})
    entry: dict[str, Any] = next((entry for entry in reversed(history(prefix)) if entry["id"] == run), {})
    if result == "ok" and "release" in entry:
        path = os.path.join(_directory(prefix), entry["release"], "deployed.json")
        with open(path + ".new", "w", encoding="utf-8") as stream:
            stream.write(json.dumps(entry, indent=1) + "\n")
        os.replace(path + ".new", path)


def _append(prefix: str, entry: dict[str, Any]) -> None:
    path = os.path.join(_directory(prefix), ".deployments")
    line = json.dumps(entry) + "\n"
    lines: list[str] = []
    if os.path.exists(path):
        with open(path, encoding="utf-8") as stream:
            lines = stream.read().splitlines(keepends=True)
    with open(path + ".new", "w", encoding="utf-8") as stream:
        stream.writelines(one for one in [*lines[-2 * _KEPT :], line] if one.endswith("\n"))
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(path + ".new", path)


def room(prefix: str, release: str) -> None:
    """Raise ReleaseError when a release does not fit on the disk. It takes as much as the one that runs, and half as much for its wheels."""
    current = linked(prefix)
    if current is None or release in names(prefix):
        return
    needed, space = 2 * _size(os.path.join(_directory(prefix), current)), _info.file_system(prefix)
    if space["free_bytes"] < needed:
        raise ReleaseError(
            f"{release} wants {_info.human(needed)} below {prefix}, where {_info.human(space['free_bytes'])} of {_info.human(space['total_bytes'])} are free."
        )


def _size(path: str) -> int:
    done = _children.run(["du", "--summarize", "--block-size=1", path], limit=_children.LONG, still=_children.STILL)
    if done.returncode:
        raise ReleaseError(f"du cannot measure {path} (exit code {done.returncode}): {done.stderr.strip()}")
    return int(done.stdout.split("\t")[0])


def stop(web: str, scheduler: str | None, prefix: str, patience: float) -> None:
    """Let the web server end the requests that it has, then stop it and the scheduler, and forget what both compiled of the release's templates.

    web, scheduler: units, empty where a host has none. Raises UnitError.
    """
    if scheduler:
        _units.stop(scheduler)
    if web:
        # Debian's unit kills it right after it asked it to end, so it is asked here. systemd would start it again a second after its end.
        pid = int(_units.show([web], ("MainPID",))[0]["MainPID"])
        if pid:
            _children.run(["/usr/sbin/apachectl", "graceful-stop"])
            deadline = time.monotonic() + patience
            while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
                time.sleep(0.05)
        _units.stop(web)
    # Mako compares times only, and another release may have the older template.
    compiled = os.path.join(prefix, "tmp", "mako_modules")
    if os.path.islink(compiled):
        os.unlink(compiled)
    elif os.path.isdir(compiled):
        shutil.rmtree(compiled)


def healthy(ask: Callable[[], tuple[dict[str, Any], bytes]], count: int, seconds: float) -> dict[str, Any]:
    """Ask for a page until it was well count times in a row. Return ok, asked, seconds, and answer: the last one in words."""
    start, row, asked, answer = time.monotonic(), 0, 0, "nothing yet"
    while row < count:
        page, content = ask()
        asked += 1
        well = page["status"] == 200 and b"<html" in content and _ERROR not in content
        row = row + 1 if well else 0
        answer = "200"
        if not well:
            answer = "200 with an error page" if page["status"] == 200 else str(page["status"] or page["error"])
        if row < count and time.monotonic() - start > seconds:
            break
        if not well:
            time.sleep(0.5)
    return {"ok": row >= count, "asked": asked, "seconds": round(time.monotonic() - start, 1), "answer": answer}


def serve(url: str, public_url: str, page: str, count: int, seconds: float, warm: list[str], workers: int) -> dict[str, Any]:
    """See that the site serves page, then ask for the others often enough for each worker to have met them. Raises ReleaseError with what was answered."""
    found = healthy(lambda: _info.fetch(url + page, public_url, max(seconds, 5)), count, seconds)
    if not found["ok"]:
        raise ReleaseError(
            f"{url}{page} did not answer well {count} times in a row within {seconds:.0f} s: asked {found['asked']} times,"
            f" the last answer was {found['answer']}."
        )
    asked = [path for path in warm for _time in range(3 * workers)]
    with ThreadPoolExecutor(max(2 * workers, 1)) as pool:
        list(pool.map(lambda path: _info.page(url + path, public_url, 60), asked))
    return {"asked": found["asked"], "took": found["seconds"]}


def prune(prefix: str, keep: int, *, check: bool) -> list[str]:
    """Remove all but the newest releases and return their names, with the wheels that nobody installs from any more.

    What runs, what ran before it, and what is not complete (somebody may be at it) stays, however old.
    """
    current = linked(prefix)
    stay = {current, linked(prefix, "zeo"), (_came(history(prefix), current) or {}).get("from"), *names(prefix)[:keep]}
    gone = [name for name in names(prefix) if name not in stay]
    for name in [] if check else gone:
        path = os.path.join(_directory(prefix), name)
        os.unlink(os.path.join(path, ".complete"))  # first, so that what an interrupted removal leaves counts for nothing
        shutil.rmtree(path)
    return gone


def prune_wheels(prefix: str, protect: list[str], *, check: bool) -> list[str]:
    """Remove wheels that belong to no release and return their names. protect: those of a run that goes on."""
    directory = os.path.join(prefix, "wheelhouse")
    releases = os.listdir(_directory(prefix)) if os.path.isdir(_directory(prefix)) else []
    found = [name for name in (os.listdir(directory) if os.path.isdir(directory) else []) if re.fullmatch("[0-9a-f]{12}", name)]
    gone = [name for name in found if name not in protect and not any(release.endswith(f"-{name}") for release in releases)]
    for name in [] if check else gone:
        shutil.rmtree(os.path.join(directory, name))
    return sorted(gone)


def commit_of(source: str, version: str, listed: str) -> str:
    """Return the commit that a branch or a tag means. listed: what git ls-remote says of the source. Raises ReleaseError."""
    if re.fullmatch("[0-9a-f]{40}", version):
        return version
    refs = {name: commit for commit, _tab, name in (line.partition("\t") for line in listed.splitlines())}
    tag = refs.get(f"refs/tags/{version}^{{}}") or refs.get(f"refs/tags/{version}")
    branch = refs.get(f"refs/heads/{version}")
    if tag and branch and tag != branch:
        raise ReleaseError(f"{source} has a branch and a tag {version}, which are not the same; name the commit: {branch} or {tag}.")
    if not tag and not branch:
        known = sorted(name.split("/", 2)[2] for name in refs if name.startswith("refs/heads/"))
        raise ReleaseError(f"{source} has no branch and no tag {version}. Its branches: {', '.join(known[:20]) or 'none'}. A commit is named by its 40 digits.")
    return str(tag or branch)
