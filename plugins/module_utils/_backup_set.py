# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Backup sets of an instance: every storage, the stored files, the configuration, and a manifest that holds them together.

    DIRECTORY/STORAGE/      a repozo repository for each storage
    DIRECTORY/sets/STAMP/   archive/ (files that did not change are hard links to those of the set before), etc/, manifest.json
    DIRECTORY/status.json   how the last run ended, drill.json the last drill, pack.json the last pack

The module backup_set and the command that timers run share this code, and the lock on DIRECTORY.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import (
    _backup_status,
    _children,
    _filestorage,
    _prune,
    _repository,
    _repozo,
    _stored_files,
    _verify,
    _zeo,
    _zeo_info,
)
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError

VERSION = 1  # of the manifest
# FIFOs, sockets and devices are no stored files.
_RSYNC = ("rsync", "--archive", "--no-devices", "--no-specials", "--numeric-ids")
_LISTED = 1000  # links that a manifest lists
_STAMP = re.compile(r"[0-9]{4}(?:-[0-9][0-9]){5}")


@dataclass
class Settings:
    """What is backed up, where to, and how long it stays. Paths are absolute; storages are the names below PREFIX/db.

    pings: URLs by moment (start, success, failure). zeo_settings: what role zeo says of the living servers; jobs_settings: what role cron says of
    the jobs; release: path of the Indico whose code opens what a drill restores in drill_directory. pack_days: days that a pack keeps every
    revision of. archive_roots: directories outside of the archive that its links may lead to; what they lead to there is part of each set.
    """

    instance: str
    prefix: str
    directory: str
    storages: list[str]
    compression: str = "gzip"
    max_incrementals: int | None = None
    window_days: int | None = 30
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    keep_chains_min: int = 2
    metrics: str = ""
    allowed_hours: str = ""
    pings: dict[str, str] = field(default_factory=dict)
    zeo_settings: str = ""
    release: str = ""
    drill_directory: str = ""
    jobs_settings: str = ""
    pack_days: int = 1
    pack_keep_old: bool = True
    archive_roots: list[str] = field(default_factory=list)

    def repository(self, storage: str) -> str:
        return os.path.join(self.directory, storage)

    def database(self, storage: str) -> str:
        return os.path.join(self.prefix, "db", storage, "Data.fs")

    @property
    def sets(self) -> str:
        return os.path.join(self.directory, "sets")

    def policy(self) -> _prune.Policy:
        names = ("window_days", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly", "keep_chains_min")
        return _prune.Policy(**{name: getattr(self, name) for name in names})


@dataclass
class Outcome:
    """What a run did, or in check mode would do. problem is a sentence when it failed."""

    changed: bool = False
    set: str | None = None
    storages: list[dict[str, Any]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problem: str | None = None
    seconds: float = 0.0
    check: bool = False

    def line(self) -> str:
        """Return all of it in one line."""
        if self.problem:
            return f"backup failed: {self.problem}"
        parts = [f"{one['name']} {one['kind']} {one['stored_bytes']} bytes" for one in self.storages]
        parts += [f"set {self.set}" if self.set else "a new set" if self.check and self.changed else "no new set"] + (
            [f"{len(self.deleted)} old ones removed"] if self.deleted else []
        )
        if self.check:
            return f"a backup would do this: {', '.join(parts)}"
        return f"backup done in {self.seconds:.1f} s: {', '.join(parts)}"


class IncompleteError(RepositoryError):
    """All databases are stored and verified, but not all stored files. outcome: what the run did."""

    def __init__(self, sentence: str, outcome: Outcome) -> None:
        super().__init__(sentence)
        self.outcome = outcome


def read_settings(path: str) -> Settings:
    """Read the settings from a JSON file. Raises RepositoryError."""
    try:
        return Settings(**_repository.load_json(path, follow=True))
    except (OSError, ValueError, TypeError) as error:
        raise RepositoryError(f"The settings {path} cannot be used: {_repository.reason(error)}.") from error


def manifests(settings: Settings) -> list[dict[str, Any]]:
    """Return the manifest of each set, from the oldest to the newest. Raises RepositoryError for one that cannot be read."""
    found = []
    for stamp in _stamps(settings):
        path = os.path.join(settings.sets, stamp, "manifest.json")
        try:
            found.append({**_manifest(path), "stamp": stamp})
        except (OSError, ValueError, TypeError) as error:
            raise RepositoryError(f"{path} cannot be read: {_repository.reason(error)}.") from error
    return found


def _manifest(path: str) -> dict[str, Any]:
    return dict(_repository.load_json(path))


def _stamps(settings: Settings) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return sorted(name for name in os.listdir(settings.sets) if _STAMP.fullmatch(name))
    return []


def run(settings: Settings, *, who: str, why: str, full: bool = False, check: bool = False, patience: float = 0.0) -> Outcome:
    """Make a backup set, unless nothing was committed since the last one, and remove what the policy does not keep.

    who and why go into the manifest; patience: seconds to wait for another run. Raises RepositoryError; what went wrong is in the status file too.
    """
    with _repository.lock(settings.directory, patience):
        return run_locked(settings, who=who, why=why, full=settings.storages if full else (), check=check)


def run_locked(settings: Settings, *, who: str, why: str, full: Collection[str] = (), check: bool = False) -> Outcome:
    """Do what run does, for a caller that holds the lock. full names the storages whose chains begin anew.

    Nothing is removed before all that is new was verified.
    """
    outcome = Outcome(check=check)
    with _backup_status.announced(settings, outcome, _backup_status.BACKUP, act=not check):
        _run(settings, outcome, who=who, why=why, full=full, check=check)
    return outcome


def run_databases(settings: Settings, **options: Any) -> Outcome:
    """Do what run_locked does, for a caller that needs the databases only: stored files that are not in the set are a warning. The status tells of them."""
    try:
        return run_locked(settings, **options)
    except RepositoryError as error:
        if not isinstance(error.__cause__, IncompleteError):
            raise
        error.__cause__.outcome.warnings.append(str(error))
        return error.__cause__.outcome


def _run(settings: Settings, outcome: Outcome, *, who: str, why: str, full: Collection[str], check: bool) -> None:
    unfinished = _unfinished(settings)
    _may_run(settings)
    if not check:
        for name in unfinished:
            shutil.rmtree(os.path.join(settings.sets, name))
        for storage in settings.storages:
            os.makedirs(settings.repository(storage), 0o700, exist_ok=True)
        os.makedirs(settings.sets, 0o700, exist_ok=True)
    refused = []
    for storage in settings.storages:
        try:
            refuse_replaced(settings, [storage])
            outcome.storages.append(_back_up(settings, outcome, storage, "a full backup was asked for" if storage in full else "", check))
        except _repository.EndedError:
            raise
        except (RepositoryError, _filestorage.FileStorageError) as error:  # what is wrong with one storage must not keep the others from being backed up
            refused.append(str(error))
    if refused:
        stored = [one["name"] for one in outcome.storages if one["kind"] != "nothing" and not check]
        others = f" {' and '.join(stored)} was backed up, but no set was made." if stored else ""
        raise RepositoryError(" ".join(refused) + others)
    # Stored files come after the databases: what a transaction names is there before it is committed.
    if any(one["kind"] != "nothing" for one in outcome.storages) or not _told(settings, outcome) or _etc_differs(settings) or _links_differ(settings):
        outcome.changed = True
        _room(settings, check)
        if not check:
            outcome.set = _repository.fresh_stamp(max(_stamps(settings), default=None), settings.sets)
            _make_set(settings, outcome.set, {"who": who, "why": why, "storages": outcome.storages})
    outcome.changed = outcome.changed or bool(unfinished)
    _tidy(settings, outcome, check)
    left_out = _left_out_now(settings) if check else _left_out(settings)
    if left_out:
        raise IncompleteError(_incomplete(settings, left_out), outcome)


def _may_run(settings: Settings) -> None:
    """Raise RepositoryError, before anything is done, when this process may not write the sets or has no rsync."""
    for place in (settings.directory, settings.sets, *map(settings.repository, settings.storages)):
        if os.path.isdir(place) and not os.access(place, os.W_OK | os.X_OK):
            reason = os.strerror(errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES)
            raise RepositoryError(f"{place} cannot be written to ({reason}), so no backup can be made.")
    if not shutil.which("rsync"):
        raise RepositoryError("There is no rsync on this host, which copies the stored files. No backup was made.")


def _room(settings: Settings, check: bool) -> None:
    """Raise RepositoryError when the stored files that are new do not fit. What declared links lead to is not asked for."""
    archive = os.path.join(settings.prefix, "archive")
    if not os.path.isdir(archive):
        return
    copy = os.path.join(settings.directory, f"{_repository.TEMPORARY}room")  # nothing is written there
    said = _command([*_RSYNC, "--dry-run", "--stats", "--no-human-readable", *_copied(settings), f"{archive}/", copy])
    told = re.search(r"^Total transferred file size: ([0-9]+)", said, re.MULTILINE)
    needed, free = int(told[1]) if told else 0, shutil.disk_usage(settings.directory).free
    if needed > free:
        stored = "" if check else "The databases are stored, but no set was made: "
        raise RepositoryError(f"{stored}the new stored files need {needed} bytes on the file system of {settings.directory}, which has {free} free.")


def _copied(settings: Settings) -> list[str]:
    """Return the options of rsync that say which stored files are copied: not what an exchange left, and only what the last set has not."""
    last = _stamps(settings)[-1:]
    return [*(f"--exclude=/{name}*" for name in _stored_files.OWN), *_link_dest(os.path.join(settings.sets, last[0], "archive") if last else "")]


def refuse_replaced(settings: Settings, storages: Collection[str] | None = None) -> None:
    """Raise RepositoryError when a server works on another file than the one at its path, which a backup would read. storages: all of them without."""
    for sentence in replaced(settings, storages):
        raise RepositoryError(sentence)


def replaced(settings: Settings, storages: Collection[str] | None = None) -> list[str]:
    """Return a sentence for each storage whose server works on another file than the one at its path. Without zeo_settings nothing is asked."""
    if not settings.zeo_settings or not os.path.exists(settings.zeo_settings):
        return []
    try:
        return _zeo_info.replaced(settings.zeo_settings, settings.storages if storages is None else storages)
    except _zeo.ZeoError as error:
        raise RepositoryError(str(error)) from error


def _back_up(settings: Settings, outcome: Outcome, storage: str, full: str, check: bool) -> dict[str, Any]:
    """Back up one storage and verify what is new. Return what the manifest says of it.

    When the newest chain proves to be damaged, a full backup begins another one at once. What is wrong with older chains is a warning.
    """
    repository = settings.repository(storage)
    if check and not os.path.isdir(repository):
        return {"name": storage, "kind": "full", "reason": "there is no repository yet", "file": None, "stored_bytes": 0, "end": 0, "last_transaction": None}

    def back_up(full: str) -> tuple[_repozo.Result, list[str]]:
        """Return what was done, and what is wrong with the newest chain."""
        done = _repozo.backup(
            settings.database(storage), repository, compression=settings.compression, full=full, max_incrementals=settings.max_incrementals, check=check
        )
        outcome.warnings += [f"{storage}: {sentence}" for sentence in done.warnings]
        if check or not done.decision.end:
            return done, []
        report = _verify.verify(repository, scope="new")
        newest: list[str] = report.chains[-1]["problems"] if report.chains else report.problems
        told = [f"{storage}: {sentence}" for sentence in report.problems if sentence not in newest]
        outcome.warnings += [sentence for sentence in told if sentence not in outcome.warnings]
        return done, newest

    done, problems = back_up(full)
    if problems and done.decision.kind != "full":
        outcome.warnings.append(f"{storage}: the newest chain is damaged, so a full backup begins another one: {problems[0]}")
        done, problems = back_up(f"the newest chain is damaged: {problems[0]}")
    if problems:
        raise RepositoryError(_verify.summary(repository, problems))
    return {
        "name": storage,
        "kind": done.decision.kind,
        "reason": done.decision.reason,
        "file": done.file and os.path.basename(done.file),
        "stored_bytes": done.stored_bytes,
        "end": done.decision.end,
        "last_transaction": done.last_transaction and done.last_transaction.data(),
    }


def _unfinished(settings: Settings) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return sorted(name for name in os.listdir(settings.sets) if name.startswith(_repository.TEMPORARY))
    return []


def _told(settings: Settings, outcome: Outcome) -> bool:
    """Whether the newest set tells of what the repositories end with. It does not when the run that backed that up was killed before it made its set."""
    last = manifests(settings)[-1:]
    ends = [{one["name"]: one["end"] for one in storages} for storages in (outcome.storages, *(manifest["storages"] for manifest in last))]
    return ends[:1] == ends[1:]


def _etc_differs(settings: Settings) -> bool:
    last = os.path.join(settings.sets, _stamps(settings)[-1], "etc")
    return _sums(last) != _sums(os.path.join(settings.prefix, "etc"))


def _left_out(settings: Settings) -> list[dict[str, str]]:
    """Return what the newest set lacks of the archive: the path of each link there, and its target."""
    last: list[dict[str, Any]] = manifests(settings)[-1:]
    return list(last[0].get("archive", {}).get("left_out", [])) if last else []


def _left_out_now(settings: Settings) -> list[dict[str, str]]:
    """Return what a set would lack of the archive."""
    archive = os.path.join(settings.prefix, "archive")
    found = _stored_files.leaving(archive, archive) if os.path.isdir(archive) else ()
    return [_link(path, target) for path, target in found if not _stored_files.declared(target, settings.archive_roots) or not os.path.exists(target)]


def _links_differ(settings: Settings) -> bool:
    """Whether a new set would hold something that the newest one had to leave out."""
    archive = os.path.join(settings.prefix, "archive")
    for one in _left_out(settings):
        path = os.path.join(archive, one["path"])
        target = os.path.realpath(path)
        if target != one["target"] or not os.path.islink(path) or (_stored_files.declared(target, settings.archive_roots) and os.path.exists(target)):
            return True
    return False


def _link(path: bytes, target: str) -> dict[str, str]:
    return {"path": os.fsdecode(path), "target": target}


def _incomplete(settings: Settings, left_out: list[dict[str, str]]) -> str:
    """Return the sentences about links that lead out of the archive."""
    first = ", ".join(f"{one['path']} -> {one['target']}" for one in left_out[:3])
    more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
    place = os.path.join(settings.prefix, "archive")
    return (
        (
            f"The databases are stored, but stored files are not: links in {place} lead out of it ({first}{more})."
            " If the site needs them, name their directory in `backup_archive_roots`. Otherwise remove the links."
        )
        .encode(errors="backslashreplace")
        .decode()
    )


def _sums(directory: str) -> dict[str, str]:
    """Return the sha256 of each file below the directory by its path there."""
    found = {}
    for path in _files(directory):
        with _repository.open_regular(path) as stream:
            found[os.path.relpath(path, directory)] = hashlib.sha256(stream.read()).hexdigest()
    return found


def _files(directory: str) -> Iterator[str]:
    for place, _directories, names in sorted(os.walk(directory)):
        for name in sorted(names):
            path = os.path.join(place, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path


def _make_set(settings: Settings, stamp: str, told: dict[str, Any]) -> None:
    """Make a set, or leave nothing of it. Raises RepositoryError: the databases are stored then, and the next run makes the set."""
    place = os.path.join(settings.sets, f"{_repository.TEMPORARY}{stamp}")
    try:
        os.mkdir(place, 0o700)
        _fill_set(settings, place, told)
        os.rename(place, os.path.join(settings.sets, stamp))
    except (RepositoryError, OSError) as error:
        shutil.rmtree(place, ignore_errors=True)  # it would take the room that the next run needs
        why = str(error) if isinstance(error, RepositoryError) else f"{_repository.reason(error, place)}."
        raise RepositoryError(f"The databases are stored, but no set was made: {why}") from error
    _repository.sync(settings.sets)


def _fill_set(settings: Settings, place: str, told: dict[str, Any]) -> None:
    last = _stamps(settings)[-1:]
    archive, etc = os.path.join(settings.prefix, "archive"), os.path.join(settings.prefix, "etc")
    before = os.path.join(settings.sets, last[0], "archive") if last else ""
    left_out = _copy_archive(settings, archive, os.path.join(place, "archive"), before) if os.path.isdir(archive) else []
    if os.path.isdir(etc):
        _command([*_RSYNC, f"{etc}/", os.path.join(place, "etc")])
    _command(["sync", "--file-system", place])
    stored = list(_files(os.path.join(place, "archive")))
    manifest = {
        "version": VERSION,
        "instance": settings.instance,
        "host": socket.getfqdn(),
        **told,
        "releases": _releases(settings.prefix),
        "archive": {
            "files": len(stored),
            "bytes": sum(os.stat(path).st_size for path in stored),
            "left_out": left_out,
            **_links(os.path.join(place, "archive")),
        },
        "etc": _sums(os.path.join(place, "etc")),
    }
    _repository.replace(os.path.join(place, "manifest.json"), json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n")


def _copy_archive(settings: Settings, archive: str, copy: str, before: str) -> list[dict[str, str]]:
    """Copy the stored files. before: the last set's copy, "" for none; what did not change is a hard link to it. Return the links whose targets are left out.

    A link that stays in the archive is copied as a link. What one leads to elsewhere is copied in its place, as a directory or file, if the settings
    declare it. Anything else is not followed: a process of the site may have made the link, and this runs as root.
    """
    _command([*_RSYNC, *_copied(settings), f"{archive}/", copy])
    brought: dict[bytes, str] = {}
    left_out, waiting = [], [b""]
    while waiting:
        for path, target in list(_stored_files.leaving(copy, archive, waiting.pop())):
            above = [one for place, one in brought.items() if path.startswith(place + b"/")]
            loop = any(f"{one}/".startswith(f"{target.rstrip('/')}/") for one in above)
            if not loop and _stored_files.declared(target, settings.archive_roots) and _bring(target, os.fsdecode(path), copy, before):
                brought[path] = target
                waiting += [path] if os.path.isdir(os.path.join(os.fsencode(copy), path)) else []
            else:
                left_out.append(_link(path, target))
    return left_out


def _links(copy: str) -> dict[str, Any]:
    """Return the number of links in the copy, and the first of them with their texts: a copy on another host holds no links."""
    found = [os.fsdecode(path) for path in _stored_files.links(copy)] if os.path.isdir(copy) else []
    return {"link_count": len(found), "links": [{"path": path, "link": os.readlink(os.path.join(copy, path))} for path in found[:_LISTED]]}


def _bring(target: str, path: str, copy: str, before: str) -> bool:
    """Put what a link leads to in the link's place in the copy, and return whether that was possible."""
    place, earlier = os.path.join(copy, path), os.path.join(before, path) if before else ""
    try:
        with _stored_files.opened(target) as descriptor:
            found = os.fstat(descriptor)
            if stat.S_ISDIR(found.st_mode):
                os.unlink(place)
                _command([*_RSYNC, *_link_dest(earlier), f"/proc/self/fd/{descriptor}/", place], descriptor)
            elif stat.S_ISREG(found.st_mode):
                os.unlink(place)
                _copy_file(descriptor, found, place, earlier)
            else:
                return False
    except FileNotFoundError:
        return False
    except OSError as error:
        raise RepositoryError(f"{target}, to which {path} in the archive leads, cannot be copied: {_repository.reason(error, place)}.") from error
    return True


def _copy_file(descriptor: int, found: os.stat_result, place: str, earlier: str) -> None:
    with contextlib.suppress(OSError):
        known = os.lstat(earlier)
        if stat.S_ISREG(known.st_mode) and (known.st_size, known.st_mtime_ns) == (found.st_size, found.st_mtime_ns):
            os.link(earlier, place, follow_symlinks=False)
            return
    with open(descriptor, "rb", closefd=False) as source, open(place, "xb") as stream:
        shutil.copyfileobj(source, stream, _repository.CHUNK)
        os.fchown(stream.fileno(), found.st_uid, found.st_gid)
        os.fchmod(stream.fileno(), stat.S_IMODE(found.st_mode))
    os.utime(place, ns=(found.st_atime_ns, found.st_mtime_ns))


def _link_dest(before: str) -> list[str]:
    return [f"--link-dest={before}"] if before and os.path.isdir(before) and not os.path.islink(before) else []


def _releases(prefix: str) -> dict[str, Any]:
    """Return the name of each release that runs and the versions of its Python packages."""
    found = {}
    for link in ("current", "zeo"):
        path = os.path.realpath(os.path.join(prefix, link))
        directory = os.path.join(path, "lib/python2.7/site-packages")
        if os.path.isdir(directory):
            installed = (re.fullmatch(r"(.+)-([^-]+)\.dist-info", name) for name in sorted(os.listdir(directory)))
            found[link] = {"name": os.path.basename(path), "packages": {match[1]: match[2] for match in installed if match}}
    return found


def _command(argv: list[str], *descriptors: int) -> str:
    try:
        done = _children.run(argv, limit=_children.LONG, still=_children.STILL, stderr=subprocess.STDOUT, pass_fds=descriptors)
    except FileNotFoundError as error:
        raise RepositoryError(f"There is no {argv[0]} on this host.") from error
    # 24: files vanished while they were read; Indico removes some, and the database that is stored does not name those.
    if done.returncode not in (0, 24):
        raise RepositoryError(f"{argv[0]} failed (exit code {done.returncode}): {done.stdout.strip()[-500:]}")
    return done.stdout


def _tidy(settings: Settings, outcome: Outcome, check: bool) -> None:
    """Prune the repositories, then remove the sets that name a chain which is gone."""
    oldest = ""
    for storage in settings.storages:
        repository = settings.repository(storage)
        if check and not os.path.isdir(repository):
            continue
        pruned = _prune.prune(repository, settings.policy(), check=check)
        outcome.warnings += [f"{storage}: {sentence}" for sentence in pruned.warnings]
        outcome.deleted += [f"{storage}/{stamp}" for stamp in pruned.deleted]
        kept = [chain["stamp"] for chain in pruned.chains if chain["stamp"] not in pruned.deleted]
        oldest = max(oldest, kept[0]) if kept else oldest
    # The set of a moment before every chain of some storage restores nothing whole; the newest always stays.
    for stamp in [one for one in _stamps(settings)[:-1] if one < oldest and not _whole(settings, one)]:
        outcome.deleted.append(f"sets/{stamp}")
        if not check:
            place = os.path.join(settings.sets, f"{_repository.TEMPORARY}{stamp}")
            os.rename(os.path.join(settings.sets, stamp), place)
            shutil.rmtree(place)
    outcome.changed = outcome.changed or bool(outcome.deleted)


def _whole(settings: Settings, stamp: str) -> bool:
    """Whether every storage can still be restored to what the set of this stamp says of it."""
    told = _manifest(os.path.join(settings.sets, stamp, "manifest.json"))
    for one in told["storages"]:
        repository = _repository.read(settings.repository(one["name"])) if os.path.isdir(settings.repository(one["name"])) else None
        chains = repository.chains if repository else []
        # It was made at the stamp or, when nothing was new, before: the chain of then must still be there.
        if one["end"] and not any(chain.stamp <= (one["file"] or stamp).split(".")[0] and chain.end >= one["end"] for chain in chains):
            return False
    return True
