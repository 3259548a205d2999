# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Packs the databases with a seat belt: what a pack takes away is in a verified backup before, and what it leaves is in one after.

One lock is held from the first step to the last, the one that backup sets hold, so no backup runs meanwhile. In order:

- ask of each storage whether there is anything to pack, and whether its server can be talked to;
- make a backup set, which covers the last commit, and verify it;
- see that the disks have room for the packed copies and for the full backups that follow;
- pack one storage after the other; one that fails does not keep the others from it;
- begin a new chain for each storage that was packed. It is verified before retention may remove anything.

Killed between any two of them, everything that was backed up stays: a backup recognises a database that was packed and makes a full one
by itself, and no chain is removed unless newer ones were verified.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _backup_set, _backup_status, _filestorage, _prune, _repository, _repozo, _zeo, _zeopack
from ansible_collections.confops.indico.plugins.module_utils._backup_set import Settings
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError

_TIME_LIMIT = 6 * 3600.0  # seconds for one storage; the job that runs it has a limit of its own


@dataclass
class Pack:
    """What a pack did, or with check would do. problem is a sentence when it failed.

    storages: name, result (packed, nothing or failed), bytes_before, bytes_after and reclaimed_bytes of the database (None when they are not
    known; in a prediction what is reclaimed is at least that much), seconds, packed_to (ISO 8601, UTC) and problem (a sentence or None).
    space: for each file system its directories, needed_bytes and free_bytes. sets: the stamps of those made before and after, None for one
    that was not needed; set_needed says whether one is, before anything is packed.
    """

    days: float
    check: bool = False
    changed: bool = False
    storages: list[dict[str, Any]] = field(default_factory=list)
    space: list[dict[str, Any]] = field(default_factory=list)
    set_needed: bool = False
    set_before: str | None = None
    set_after: str | None = None
    warnings: list[str] = field(default_factory=list)
    problem: str | None = None
    seconds: float = 0.0

    def line(self) -> str:
        """Return all of it in one line."""
        if self.problem:
            return f"pack failed: {self.problem}"
        if self.check:
            return f"a pack would do this: {', '.join([self._backup(), *map(_predicted, self.storages)])}"
        made = f", set {self.set_after} begins new chains" if self.set_after else ""
        return f"pack done in {self.seconds:.1f} s: {', '.join(map(_told, self.storages))}{made}"

    def _backup(self) -> str:
        return "a new backup set first" if self.set_needed else "no new backup set first"

    def wanted(self) -> list[dict[str, Any]]:
        """Return the storages that a pack changes."""
        return [one for one in self.storages if one["result"] == "packed"]


def _predicted(one: dict[str, Any]) -> str:
    if one["result"] != "packed":
        return f"{one['name']} nothing to pack"
    return f"{one['name']} {one['bytes_before']} bytes, of which at least {one['reclaimed_bytes'] or 0} would be given back"


def _told(one: dict[str, Any]) -> str:
    if one["result"] != "packed":
        return f"{one['name']} nothing to pack"
    return f"{one['name']} {one['bytes_before']} to {one['bytes_after']} bytes"


def run(settings: Settings, *, days: float | None = None, who: str = "root", patience: float = 0.0, check: bool = False) -> Pack:
    """Pack every storage to that many days ago, by default as the settings say; with check only say what that would do and need.

    who goes into the manifests; patience: seconds to wait for a backup that runs, before it is a reason to refuse.
    Raises RepositoryError, also when one storage of several failed; what went wrong is in the status and the metrics too.
    """
    pack = Pack(settings.pack_days if days is None else days, check=check)
    with _backup_status.announced(settings, pack, _backup_status.PACK, act=not check):
        if pack.days < 0:
            raise RepositoryError(f"days is {pack.days:g}; a pack keeps the revisions of 0 days or more.")
        zeo = _living(settings)
        with _repository.lock(settings.directory, patience):
            pack.storages = [_ask(settings, zeo, pack, name, check=True) for name in settings.storages]
            _back_up(settings, pack, who)  # even without anything to pack: a pack that was killed may have left no full backup
            _room(settings, pack)
            failed = [] if check else _begin_anew(settings, pack, who, _pack_each(settings, zeo, pack))
        problems = [f"{one['name']}: {one['problem']}" for one in pack.storages if one["problem"]] + failed
        if problems:
            raise RepositoryError(" ".join(problems))
    return pack


def _living(settings: Settings) -> _zeo.Settings:
    try:
        return _zeo.read_settings(settings.zeo_settings)
    except _zeo.ZeoError as error:
        raise RepositoryError(str(error)) from error


def _ask(settings: Settings, zeo: _zeo.Settings, pack: Pack, name: str, *, check: bool) -> dict[str, Any]:
    """Have a storage packed, or with check ask whether there is anything to pack. Return what Pack.storages holds of it; it raises nothing of its own."""
    told = {"name": name, "result": "failed", "bytes_before": None, "bytes_after": None, "reclaimed_bytes": None, "seconds": 0.0, "packed_to": ""}
    try:
        if name not in zeo.servers:
            raise _zeo.ZeoError(f"{settings.zeo_settings} names no server of this storage.")
        done = _zeopack.pack(
            zeo.python,
            zeo.servers[name],
            database=settings.database(name),
            days=pack.days,
            time_limit=_TIME_LIMIT,
            keep_old=settings.pack_keep_old,
            gc=zeo.pack_gc,
            check=check,
        )
    except (_zeo.ZeoError, _filestorage.FileStorageError, OSError) as error:
        return {**told, "problem": _repository.told(error, settings.database(name))}
    return {**told, **{key: getattr(done, key) for key in told if key != "name"}, "problem": None}


def _back_up(settings: Settings, pack: Pack, who: str) -> None:
    """Have a verified set that covers the last commit. Raises RepositoryError: then nothing is packed."""
    try:
        done = _backup_set.run_databases(settings, who=who, why="before a pack", check=pack.check)
    except RepositoryError as error:
        raise RepositoryError(f"Nothing was packed, since the backup before it failed: {error}") from error
    pack.set_needed = done.set is not None or (pack.check and any(one["kind"] != "nothing" for one in done.storages))
    pack.set_before = done.set
    pack.warnings += done.warnings
    pack.changed = done.changed


def _room(settings: Settings, pack: Pack) -> None:
    """See how many bytes are taken at most, were no database to shrink. Raises RepositoryError when a file system has not that many free.

    The packed copy grows beside the database, whose old state then stays if it is to be kept; that of the pack before goes first.
    """
    taken: dict[int, int] = {}
    needed: dict[int, int] = {}
    places: dict[int, list[str]] = {}

    def take(directory: str, number: int) -> int:
        device = os.stat(directory).st_dev
        taken[device] = taken.get(device, 0) + number
        needed[device] = max(needed.get(device, 0), taken[device])
        if directory not in places.setdefault(device, []):
            places[device].append(directory)
        return device

    if not pack.wanted():
        return
    stored = 0
    for one in pack.wanted():
        database = settings.database(one["name"])
        size = os.stat(database).st_size
        device = take(os.path.dirname(database), size - _size(f"{database}.old"))
        taken[device] -= 0 if settings.pack_keep_old else size
        path = settings.repository(one["name"])
        stored += _repozo.stored_bytes(_repository.read(path), size, settings.compression, unknown=size) if os.path.isdir(path) else size
    take(settings.directory, stored)
    for device, directories in sorted(places.items()):
        free = shutil.disk_usage(directories[0]).free
        if needed[device] > free:  # the set before the pack may have been made already, and retention may have removed older ones
            raise RepositoryError(
                f"A pack with the full backup after it needs up to {needed[device]} bytes on the file system of {' and '.join(directories)},"
                f" which has {free} free; nothing was packed."
            )
        pack.space.append({"directories": directories, "needed_bytes": needed[device], "free_bytes": free})


def _size(path: str) -> int:
    with contextlib.suppress(FileNotFoundError):
        return os.stat(path).st_size
    return 0


def _pack_each(settings: Settings, zeo: _zeo.Settings, pack: Pack) -> list[str]:
    """Pack one storage after the other and return the names of those whose file is another one now, whatever their server said of it."""
    anew = []
    for number, one in enumerate(pack.storages):
        if one["result"] == "packed":
            database = settings.database(one["name"])
            before = _inode(database)
            pack.storages[number] = done = _ask(settings, zeo, pack, one["name"], check=False)
            if done["result"] == "packed" or _inode(database) != before:
                anew.append(one["name"])
                pack.changed = True
    return anew


def _inode(path: str) -> int:
    """Return the file's number, 0 when there is none: a server that dies between its two renames leaves no Data.fs."""
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0


def _begin_anew(settings: Settings, pack: Pack, who: str, anew: list[str]) -> list[str]:
    """Make a set with a full backup of what was packed, verified before retention may remove anything. Return what went wrong."""
    if not anew:
        return []
    # What was packed comes first: should another storage fail, that one has its new chain.
    before = {name: _verified_chain(settings, name) for name in anew}
    ordered = dataclasses.replace(settings, storages=sorted(settings.storages, key=lambda name: name not in anew))
    try:
        pack.set_after = _backup_set.run_databases(ordered, who=who, why="after a pack", full=anew).set
    except RepositoryError as error:
        lacking = [name for name in anew if _verified_chain(settings, name) in ("", before[name])]
        if lacking:
            return [f"{' and '.join(lacking)} packed, but without a full backup after it: {error} Older chains stay, and the next backup makes a full one."]
        return [f"{' and '.join(anew)} packed and stored in full, but the backup did not end: {error} The next backup goes on from there."]
    return []


def _verified_chain(settings: Settings, name: str) -> str:
    """Return the stamp of the newest chain of a storage, empty when there is none or it was not verified."""
    path = settings.repository(name)
    chains = _repository.read(path).chains if os.path.isdir(path) else []
    return chains[-1].stamp if chains and _prune.verified(chains[-1], _repository.read_state(path)) else ""
