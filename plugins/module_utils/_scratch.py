# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The newest backup set, restored into a scratch directory: what drills and checks of the databases begin with.

The directory belongs to nobody, as whom everything runs that opens what is restored. It goes at the end; what a run that was killed
left in it goes when the next one begins. Two runs never share it, and a backup that is being made is waited for.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _backup_set, _history, _prune, _repository, _restore
from ansible_collections.confops.indico.plugins.module_utils._backup_set import Settings
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError

USER = "nobody"
_RESERVE = 2**20  # bytes for what is written beside the databases


@dataclass
class Plan:
    """What is restored: the set's stamp, of each storage its name, bytes, newest transaction (tid and time) and chain; what that needs and there is (bytes)."""

    set: str = ""
    storages: list[dict[str, Any]] = field(default_factory=list)
    needed_bytes: int = 0
    free_bytes: int = 0

    def databases(self) -> str:
        """Return the storages and their moments, for a line."""
        return ", ".join(f"{one['name']} to {one['time']}" for one in self.storages)


def newest(settings: Settings, plan: Plan, what: str) -> None:
    """Fill the plan from the newest set. what begins the sentences, as "A drill". Raises RepositoryError, also when it does not fit."""
    sets = _backup_set.manifests(settings)
    if not sets:
        raise RepositoryError(f"There is no set in {settings.sets}; make a backup first.")
    plan.set = sets[-1]["stamp"]
    for one in sets[-1]["storages"]:
        if one["last_transaction"]:  # nobody has ever opened the others
            last = {key: one["last_transaction"][key] for key in ("tid", "time")}
            plan.storages.append({"name": one["name"], "bytes": one["end"], **last, "chain": _chain(settings, one, plan.set)})
    if not plan.storages:
        raise RepositoryError(f"Set {plan.set} holds no transaction of any storage.")
    _need_place(settings.drill_directory)
    plan.needed_bytes = sum(one["bytes"] for one in plan.storages) + _RESERVE
    plan.free_bytes = _repository.need_room(f"{what} of set {plan.set}", plan.needed_bytes, os.path.dirname(settings.drill_directory))


def _chain(settings: Settings, told: dict[str, Any], stamp: str) -> str:
    """Return the chain that the set's manifest means. After a pack an older one may hold the same transactions, and what was packed away, too."""
    chains = _prune.read(settings.repository(told["name"])).chains
    # Without a backup of its own the set tells of one that was made before it.
    before = [chain for chain in chains if (chain.stamp <= told["file"].split(".")[0] if told["file"] else chain.stamp < stamp)]
    if not before or before[-1].end < told["end"]:
        raise RepositoryError(f"The chains of {told['name']} hold less of the database than they should: the manifest of set {stamp} says {told['end']}.")
    return before[-1].stamp


def _need_place(path: str) -> None:
    """Raise RepositoryError when the scratch directory cannot be made, in check mode too."""
    if os.path.islink(path) or (os.path.lexists(path) and not os.path.isdir(path)):
        raise RepositoryError(f"{path} is no directory, so nothing can be restored in it.")
    _repository.need_writable(os.path.dirname(path))


@contextlib.contextmanager
def directory(path: str, *, act: bool) -> Iterator[str]:
    """Make the scratch directory, empty, and remove it at the end; with act false only yield its path. Raises RepositoryError when another run keeps it."""
    if not act:
        parent = path if os.path.isdir(path) else os.path.dirname(path)
        if not os.access(parent, os.W_OK | os.X_OK):
            raise RepositoryError(f"{parent} cannot be written to, so nothing can be restored in {path}.")
        yield path
        return
    descriptor = _own(path)
    try:
        _empty(path)
        os.chown(path, pwd.getpwnam(USER).pw_uid, -1)
        os.chmod(path, 0o700)
        yield path
    finally:
        try:
            shutil.rmtree(path)
        finally:
            os.close(descriptor)


def _own(path: str) -> int:
    """Return a descriptor that holds the lock on the directory, which is made when it is not there. The lock ends with the process, whatever ends that."""
    until = time.monotonic() + _repository.PATIENCE
    while True:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue  # another run has just removed it
        except NotADirectoryError as error:  # of a link, too
            raise RepositoryError(f"{path} is no directory, so nothing can be restored in it.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError as error:
            if time.monotonic() > until:
                who = _repository.holder(descriptor)
                os.close(descriptor)
                raise RepositoryError(f"{path} is in use{who}, by a drill or a check that has not ended.") from error
            time.sleep(1)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _empty(path: str) -> None:
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


def restore(settings: Settings, plan: Plan, one: dict[str, Any], scratch: str) -> str:
    """Restore one of the plan's storages to its newest transaction and return the path of the copy, alone in a directory of its own. Raises RepositoryError."""
    place = os.path.join(scratch, one["name"])
    os.mkdir(place, 0o700)
    os.chown(place, pwd.getpwnam(USER).pw_uid, -1)
    target = os.path.join(place, "Data.fs")
    wanted = _history.wanted_transaction(one["tid"])
    request = _restore.Request(repository=settings.repository(one["name"]), target=target, wanted=wanted, chain=one["chain"], owner=USER, mode="0600")
    restored = _restore.restore(request)
    if restored.plan.bytes != one["bytes"]:
        raise RepositoryError(f"{one['name']} has {restored.plan.bytes} bytes when it is restored; the manifest of set {plan.set} says {one['bytes']}.")
    return target
