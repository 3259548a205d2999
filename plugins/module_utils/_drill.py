# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A drill: the newest set is restored into a scratch directory, served by ZEO servers of its own and opened by Indico's code.

What is found there is compared with the living site as it was at the set's newest transactions: ZODB opens a database as of any
transaction that was not packed away, so the figures must be equal, however much the site has changed since.

Servers and Indico's code run as nobody, who owns the scratch directory and nothing else. The servers are read-only and listen on
loopback, the living databases are only read.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import (
    _backup_set,
    _backup_status,
    _children,
    _indico,
    _repository,
    _scratch,
    _stored_files,
    _verify,
    _zeo,
)
from ansible_collections.confops.indico.plugins.module_utils._backup_set import Settings
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError

_SAMPLE = 200  # objects of each kind that are opened
_KINDS = ("events", "categories", "users", "rooms", "files")
_DIRECTORIES = ("ArchiveDir", "ConfigurationDir", "LogDir", "UploadedFilesTempDir", "XMLCacheDir")  # which Indico would write to
_SCRIPT = r"""
import functools
from ZEO.ClientStorage import ClientStorage
import indico.core.db.manager
ClientStorage = indico.core.db.manager.ClientStorage = functools.partial(ClientStorage, read_only=1)
manager = connect()
def at(tid):
    return {'at': tid.decode('hex')} if tid else {}
manager.abort()
manager.getDBConnection().close()
manager._setConnObject(manager._db.open(**at(arguments['tid'])))
import random, threading
from ZODB.DB import DB
from ZODB.POSException import POSKeyError, ReadConflictError
from MaKaC.conference import CategoryManager, ConferenceHolder
from MaKaC.fileRepository import MaterialLocalRepository
from MaKaC.plugins.RoomBooking.default import dalManager
from MaKaC.user import AvatarHolder

class Rooms(dalManager.DBConnection):
    'The connection that Indico makes, to the server that is meant here and as of the transaction that is meant.'
    def __init__(self, address, tid, login):
        self.db = DB(ClientStorage(tuple(address), wait_timeout=30, **login))
        self.connection = self.db.open(**at(tid))
        self.root = self.connection.root()

def event(one):
    return one.getTitle(), one.getStartDate(), [contribution.getTitle() for contribution in one.getContributionList()]

opened, broken, chance = {}, [], random.Random(arguments['seed'])
def look(kind, tree, read):
    'Count a tree of objects and open some of them.'
    keys = list(tree.keys())
    counts[kind], opened[kind] = len(keys), 0
    for key in chance.sample(keys, min(len(keys), arguments['sample'])):
        try:
            read(tree[key])
            opened[kind] += 1
        except Exception as error:
            broken.append('%s %s cannot be opened (%s: %s).' % (kind, key, type(error).__name__, error))

counts = {}
try:
    look('events', ConferenceHolder()._getIdx(), event)
    look('categories', CategoryManager()._getIdx(), lambda one: (one.getName(), one.getSubCategoryList()))
    look('users', AvatarHolder()._getIdx(), lambda one: (one.getFullName(), one.getEmail()))
    if arguments['rooms']:
        dalManager.DALManager._instances[threading._get_ident()] = Rooms(*arguments['rooms'])
        look('rooms', dalManager.DALManager.getRoot('Rooms'), lambda one: (one.name, one.building))
    files = MaterialLocalRepository.getRepositoryFromDB().getFiles()
    counts['files'] = len(files)
    paths = sorted(files.values()) if arguments['paths'] else []
except (POSKeyError, ReadConflictError) as error:
    answer(packed=type(error).__name__)
answer(counts=counts, opened=opened, broken=broken, paths=[path.decode('latin-1') for path in paths])
"""


@dataclass
class Drill(_scratch.Plan):
    """What a drill found, or in check mode would need. Bytes are those of the databases; problem is a sentence when it failed.

    counts are those of the restored set, live those of the living site at the same transactions (empty when they were packed away).
    """

    counts: dict[str, int] = field(default_factory=dict)
    opened: dict[str, int] = field(default_factory=dict)
    live: dict[str, int] = field(default_factory=dict)
    files_compared: int = 0
    verified_bytes: int = 0
    warnings: list[str] = field(default_factory=list)
    problem: str | None = None
    seconds: float = 0.0

    def line(self) -> str:
        """Return all of it in one line."""
        if self.problem:
            return f"drill failed: {self.problem}"
        if not self.counts:
            return f"a drill would restore set {self.set} ({self.databases()}) to {self.needed_bytes} bytes, of {self.free_bytes} that are free"
        found = ", ".join(f"{self.counts[kind]} {kind}" for kind in _KINDS if kind in self.counts)
        compared = "as the living site had at that moment" if self.live else "not compared with the living site"
        return f"drill done in {self.seconds:.1f} s: set {self.set} ({self.databases()}) restored and opened by Indico: {found}, {compared}"


def run(settings: Settings, *, check: bool = False) -> Drill:
    """Restore the newest set into a scratch directory, open it and compare. With check, only say what that needs.

    Raises RepositoryError; what went wrong is in the status and the metrics too.
    """
    drill = Drill()
    with _backup_status.announced(settings, drill, _backup_status.DRILL, act=not check), _scratch.directory(settings.drill_directory, act=not check) as scratch:
        with _repository.lock(settings.directory, _repository.PATIENCE):
            _plan(settings, drill)
            _backup_set.refuse_replaced(settings)
            if check:
                return drill
            _restore_set(settings, drill, scratch)
        with serve(settings, drill, scratch) as ports:
            found = look(settings, drill, scratch, {name: _zeo.Server(f"127.0.0.1:{port}") for name, port in ports.items()}, restored=True)
        drill.counts, drill.opened = found["counts"], found["opened"]
        if found["broken"]:
            raise RepositoryError(f"Set {drill.set} is restored, but Indico cannot open all of it: {' '.join(found['broken'][:3])}")
        _compare_files(settings, drill, found["paths"])
        _compare_live(settings, drill, scratch)
    return drill


def _plan(settings: Settings, drill: Drill) -> None:
    _scratch.newest(settings, drill, "A drill")
    if "main" not in [one["name"] for one in drill.storages]:
        raise RepositoryError(f"Set {drill.set} holds no transaction of the storage main.")
    if not os.path.exists(os.path.join(settings.release, "bin", "python")):
        raise RepositoryError(f"{settings.release} holds no release of Indico, whose code opens what is restored.")


def _restore_set(settings: Settings, drill: Drill, scratch: str) -> None:
    """Verify all that there is of each storage, then restore it to the set's newest transaction."""
    for one in drill.storages:
        began, repository = time.monotonic(), settings.repository(one["name"])
        report = _verify.verify(repository)
        if report.problems:
            raise RepositoryError(_verify.summary(repository, report.problems))
        drill.verified_bytes += report.verified_bytes
        _scratch.restore(settings, drill, one, scratch)
        one["seconds"] = round(time.monotonic() - began, 3)


@contextlib.contextmanager
def serve(settings: Settings, drill: Drill, scratch: str, *, writable: bool = False) -> Iterator[dict[str, int]]:
    """Serve the restored databases; yield the port of each."""
    processes: list[subprocess.Popen[bytes]] = []
    ports: dict[str, int] = {}
    try:
        for one in drill.storages:
            ports[one["name"]] = port = _free_port()
            place = os.path.join(scratch, one["name"])
            configuration, log = os.path.join(place, "zeo.conf"), os.path.join(place, "zeo.log")
            with open(configuration, "x", encoding="ascii") as stream:  # new: whoever owns the directory may have put a link there
                storage = f"<filestorage 1>\n  path {place}/Data.fs\n  read-only {str(not writable).lower()}\n</filestorage>\n"
                stream.write(f"<zeo>\n  address 127.0.0.1:{port}\n</zeo>\n{storage}")
            # As the living servers: it loads only classes that it knows (lib/runzeo), whatever a record says.
            server = [os.path.join(settings.prefix, path) for path in ("zeo/bin/python", "lib/runzeo")]
            if not os.path.exists(server[-1]):
                raise RepositoryError(f"There is no {server[-1]}, which serves what is restored. Run site.yml first, which brings it.")
            command = [*_indico.as_user(_scratch.USER), *server, "-C", configuration]
            with open(log, "xb") as output:
                os.fchmod(output.fileno(), 0o600)
                environment = {"PATH": "/usr/bin:/bin", "HOME": place, "TMPDIR": place, "PYTHON_EGG_CACHE": place, "INSTANCE_HOME": place}
                processes.append(
                    subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=place, env=environment, start_new_session=True
                    )  # without this terminal, into which it could type
                )
            os.chmod(configuration, 0o644)
            _wait_for(processes[-1], port, one["name"], log)
        yield ports
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            _children.end(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(process: subprocess.Popen[bytes], port: int, storage: str, log: str) -> None:
    """Wait until the server answers. It reads the whole database first, so that may take long; a server that does nothing is given up."""
    watch = _children.Watch(process.pid, _children.LONG, _children.STILL)
    while process.poll() is None:
        watch.look(f"The ZEO server of the restored storage {storage}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    with _repository.open_regular(log) as stream:
        last = " ".join(stream.read().decode(errors="replace").strip().splitlines()[-3:])
    raise RepositoryError(f"The ZEO server cannot open the restored storage {storage} (exit code {process.returncode}): {last}")


def conf(main: _zeo.Server, scratch: str) -> dict[str, Any]:
    """Return a configuration with which Indico opens the databases of a server and writes to the scratch directory only."""
    login = {"DBUserName": main.username, "DBPassword": main.password, "DBRealm": main.realm} if main.username else {}
    return {"DBConnectionParams": main.place(), **login, **dict.fromkeys(_DIRECTORIES, scratch)}


def look(settings: Settings, drill: Drill, scratch: str, servers: dict[str, _zeo.Server], *, restored: bool) -> dict[str, Any]:
    """Have Indico's code count, and open a sample of what it counts. The living databases are opened as of the set's transactions, unless restored."""
    tids = {one["name"]: None if restored else one["tid"] for one in drill.storages}
    main, rooms = servers["main"], servers.get("rooms")
    arguments = {
        "conf": conf(main, scratch),
        "tid": tids["main"],
        "rooms": [rooms.place(), tids["rooms"], _login(rooms)] if rooms and "rooms" in tids else None,
        "seed": drill.set,
        "sample": _SAMPLE if restored else 0,
        "paths": restored,
    }
    try:
        return _indico.run(_SCRIPT, arguments, current=settings.release, user=_scratch.USER, temporary=scratch, timeout=3600)
    except _indico.IndicoError as error:
        raise RepositoryError(str(error)) from error


def _login(server: _zeo.Server) -> dict[str, str]:
    return {"username": server.username, "password": server.password, "realm": server.realm} if server.username else {}


def _compare_files(settings: Settings, drill: Drill, paths: list[str]) -> None:
    """Look whether the stored files that the database names are in the set."""
    archive = os.path.join(settings.sets, drill.set, "archive")
    if paths and not os.path.isdir(archive):
        drill.warnings.append(f"Set {drill.set} holds no stored files: they lie on another host than the databases.")
        return
    home = os.path.join(settings.prefix, "archive")
    present = _stored_files.listing(archive, home) if paths else set()
    drill.files_compared = len(paths)
    missing = _stored_files.missing((path.encode("latin-1") for path in paths), archive, present, home)
    if missing:
        first = missing[0].decode(errors="backslashreplace")
        raise RepositoryError(f"Set {drill.set} lacks {len(missing)} of {len(paths)} stored files that its database names, such as {first}.")


def _compare_live(settings: Settings, drill: Drill, scratch: str) -> None:
    try:
        found = look(settings, drill, scratch, _zeo.read_settings(settings.zeo_settings).servers, restored=False)
    except _zeo.ZeoError as error:
        raise RepositoryError(str(error)) from error
    if "packed" in found:
        drill.warnings.append(f"The living databases were packed since set {drill.set}, so what they held then cannot be counted ({found['packed']}).")
        return
    drill.live = found["counts"]
    different = [f"{drill.counts[kind]} {kind} where the living site had {number}" for kind, number in drill.live.items() if drill.counts[kind] != number]
    if different:
        raise RepositoryError(f"Set {drill.set} restored holds {', '.join(different)} at that moment.")
