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
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _backup_status, _prune, _repository, _repozo, _verify
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError

VERSION = 1  # of the manifest
_STAMP = re.compile(r"\d{4}(?:-\d\d){5}")


@dataclass
class Settings:
    """What is backed up, where to, and how long it stays. Paths are absolute; storages are the names below PREFIX/db.

    pings: URLs by moment (start, success, failure). zeo_settings: what role zeo says of the living servers; release: path of
    the Indico whose code opens what a drill restores in drill_directory. pack_days: days that a pack keeps every revision of.
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
    pack_days: int = 1
    pack_keep_old: bool = True

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


def read_settings(path: str) -> Settings:
    """Read the settings from a JSON file. Raises RepositoryError."""
    try:
        with open(path, encoding="utf-8") as stream:
            given = json.load(stream)
        return Settings(**given)
    except (OSError, ValueError, TypeError) as error:
        raise RepositoryError(f"The settings {path} cannot be used: {error}.") from error


def manifests(settings: Settings) -> list[dict[str, Any]]:
    """Return the manifest of each set, from the oldest to the newest. Raises RepositoryError for one that cannot be read."""
    found = []
    for stamp in _stamps(settings):
        path = os.path.join(settings.sets, stamp, "manifest.json")
        try:
            with open(path, encoding="utf-8") as stream:
                found.append({**json.load(stream), "stamp": stamp})
        except (OSError, ValueError) as error:
            raise RepositoryError(f"{path} cannot be read: {error}.") from error
    return found


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


def _run(settings: Settings, outcome: Outcome, *, who: str, why: str, full: Collection[str], check: bool) -> None:
    unfinished = _unfinished(settings)
    if not check:
        for name in unfinished:
            shutil.rmtree(os.path.join(settings.sets, name))
        for storage in settings.storages:
            os.makedirs(settings.repository(storage), 0o700, exist_ok=True)
        os.makedirs(settings.sets, 0o700, exist_ok=True)
    for storage in settings.storages:
        outcome.storages.append(_back_up(settings, storage, "a full backup was asked for" if storage in full else "", check))
    # Stored files come after the databases: what a transaction names is there before it is committed.
    if any(one["kind"] != "nothing" for one in outcome.storages) or not _told(settings, outcome) or _etc_differs(settings):
        outcome.changed = True
        if not check:
            outcome.set = _repository.fresh_stamp(max(_stamps(settings), default=None), settings.sets)
            _make_set(settings, outcome.set, {"who": who, "why": why, "storages": outcome.storages})
    outcome.changed = outcome.changed or bool(unfinished)
    _tidy(settings, outcome, check)


def _back_up(settings: Settings, storage: str, full: str, check: bool) -> dict[str, Any]:
    """Back up one storage and verify what is new. Return what the manifest says of it."""
    repository = settings.repository(storage)
    if check and not os.path.isdir(repository):
        return {"name": storage, "kind": "full", "reason": "there is no repository yet", "file": None, "stored_bytes": 0, "end": 0, "last_transaction": None}
    done = _repozo.backup(
        settings.database(storage), repository, compression=settings.compression, full=full, max_incrementals=settings.max_incrementals, check=check
    )
    if not check and done.decision.end:
        report = _verify.verify(repository, scope="new")
        if report.problems:
            raise RepositoryError(_verify.summary(repository, report.problems))
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


def _sums(directory: str) -> dict[str, str]:
    """Return the sha256 of each file below the directory by its path there."""
    found = {}
    for path in _files(directory):
        with open(path, "rb") as stream:
            found[os.path.relpath(path, directory)] = hashlib.sha256(stream.read()).hexdigest()
    return found


def _files(directory: str) -> Iterator[str]:
    for place, _directories, names in sorted(os.walk(directory)):
        for name in sorted(names):
            path = os.path.join(place, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path


def _make_set(settings: Settings, stamp: str, told: dict[str, Any]) -> None:
    last = _stamps(settings)[-1:]
    place = os.path.join(settings.sets, f"{_repository.TEMPORARY}{stamp}")
    os.mkdir(place, 0o700)
    archive, etc = os.path.join(settings.prefix, "archive"), os.path.join(settings.prefix, "etc")
    if os.path.isdir(archive):
        unchanged = [f"--link-dest={os.path.join(settings.sets, last[0], 'archive')}"] if last else []
        _command(["rsync", "--archive", "--numeric-ids", *unchanged, f"{archive}/", os.path.join(place, "archive")])
    if os.path.isdir(etc):
        _command(["rsync", "--archive", "--numeric-ids", f"{etc}/", os.path.join(place, "etc")])
    _command(["sync", "--file-system", place])
    stored = list(_files(os.path.join(place, "archive")))
    manifest = {
        "version": VERSION,
        "instance": settings.instance,
        "host": socket.getfqdn(),
        **told,
        "releases": _releases(settings.prefix),
        "archive": {"files": len(stored), "bytes": sum(os.stat(path).st_size for path in stored)},
        "etc": _sums(os.path.join(place, "etc")),
    }
    _repository.replace(os.path.join(place, "manifest.json"), json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n")
    os.rename(place, os.path.join(settings.sets, stamp))
    _repository.sync(settings.sets)


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


def _command(argv: list[str]) -> None:
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except FileNotFoundError as error:
        raise RepositoryError(f"There is no {argv[0]} on this host.") from error
    # 24: files vanished while they were read; Indico removes some, and the database that is stored does not name those.
    if done.returncode not in (0, 24):
        raise RepositoryError(f"{argv[0]} failed (exit code {done.returncode}): {done.stdout.strip()[-500:]}")


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
    with open(os.path.join(settings.sets, stamp, "manifest.json"), encoding="utf-8") as stream:
        told = json.load(stream)
    for one in told["storages"]:
        repository = _repository.read(settings.repository(one["name"])) if os.path.isdir(settings.repository(one["name"])) else None
        chains = repository.chains if repository else []
        # It was made at the stamp or, when nothing was new, before: the chain of then must still be there.
        if one["end"] and not any(chain.stamp <= (one["file"] or stamp).split(".")[0] and chain.end >= one["end"] for chain in chains):
            return False
    return True
