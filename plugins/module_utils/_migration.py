# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Migrates the databases to another release with that release's own bin/migration/migrate.py, first a copy of them, then themselves.

migrate.py commits whatever it likes, so the only way back is the backup set that is made when nobody writes any more. PREFIX/releases/.migration
lies on each host of the site from before it is closed until all is well or everything is back, and names that set where the databases are: what a run
that was killed leaves is found there.
"""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import re
import time
from datetime import datetime, timezone
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _backup_set, _drill, _indico, _info, _prune, _repository, _scratch, _zeo
from ansible_collections.confops.indico.plugins.module_utils._backup_set import Settings
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError

_PATIENCE = 24 * 3600.0  # seconds that migrate.py may take
_SCRIPT = r"""
import re, runpy, traceback
from StringIO import StringIO
log = open(arguments['log'], 'a+', 0)
log.seek(0, 2)
begins = log.tell()
os.dup2(log.fileno(), 1)
os.dup2(log.fileno(), 2)
os.environ['TERM'] = 'dumb'
if 'servers' in arguments:
    # Indico finds the rooms by what the main database says, and the copy names the living server.
    from ZEO.ClientStorage import ClientStorage
    usual = ClientStorage.__init__
    def only(self, address, *more, **options):
        if list(address) not in arguments['servers'].values():
            raise RuntimeError('The rehearsal wants the database server %s, which serves no copy.' % (address,))
        usual(self, address, *more, **options)
    ClientStorage.__init__ = only
    manager = connect()
    from MaKaC.common.info import HelperMaKaCInfo
    known = HelperMaKaCInfo.getMaKaCInfoInstance()
    known._roomBookingStorageParams = tuple(arguments['servers'].get('rooms', ('127.0.0.1', 1)))
    known._roomBookingDBUserName = known._roomBookingDBPassword = known._roomBookingDBRealm = ''
    manager.endRequest(True)
else:
    from indico.core.config import Config
    place = Config.getInstance().getDBConnectionParams()
    error = unanswered(*place)
    if error:
        answer(unreachable='ZEO at %s:%s does not answer (%s)' % (place[0], place[1], error))
sys.path.insert(0, os.path.dirname(arguments['program']))
sys.argv = [arguments['program']] + arguments['words']
sys.stdin = StringIO('y\n') # it asks once whether it is meant; whatever it asks beyond that ends it
code = 0
try:
    runpy.run_path(arguments['program'], run_name='__main__')
except SystemExit as end:
    code = end.code or 0
except BaseException:
    traceback.print_exc()
    code = 1
sys.stdout.flush()
log.seek(begins)
said = re.sub(r'\x1b\[[0-9;]*m', '', log.read().decode('utf-8', 'replace')).replace('\r', '\n')
lines = [line.rstrip() for line in said.splitlines() if line.strip()]
answer(code=code, tasks=[line[1:].strip() for line in lines if line.startswith('#')], said=lines[-15:])
"""


def pending(prefix: str) -> str:
    return os.path.join(prefix, "releases", ".migration")


def rehearse(settings: Settings, release: str, *, who: str) -> dict[str, Any]:
    """Make a backup set, restore it beside the site and migrate that. Return set, tasks (what migrate.py did), before and after (counts), seconds.

    Raises RepositoryError; the site is not touched.
    """
    began = time.monotonic()
    new = _at(settings, release)
    program = os.path.join(new.release, "bin/migration/migrate.py")
    if not os.path.exists(program):
        raise RepositoryError(f"{release} has no bin/migration/migrate.py, so nothing in it migrates a database.")
    with _repository.lock(settings.directory):
        _backup_set.run_databases(settings, who=who, why=f"before the rehearsal of a migration to {release}")
    plan = _drill.Drill()
    with _scratch.directory(settings.drill_directory, act=True) as scratch:
        with _repository.lock(settings.directory, _repository.PATIENCE):
            _scratch.newest(settings, plan, "A rehearsal")
            copies = [_scratch.restore(settings, plan, one, scratch) for one in plan.storages]
        with _drill.serve(settings, plan, scratch, writable=True) as ports:
            servers = {name: _zeo.Server(f"127.0.0.1:{port}") for name, port in ports.items()}
            before = _count(settings, plan, scratch, servers)
            arguments = {**_harmless(servers["main"], scratch), "servers": {name: server.place() for name, server in servers.items()}}
            done = _migrate(settings, plan, program, arguments, user=_scratch.USER, temporary=scratch)
            after = _count(new, plan, scratch, servers)
        _compare(before, after)
        needed = sum(os.stat(copy).st_size for copy in copies)  # what the real one adds to the databases, and what a way back writes beside them
    _repository.need_room("The migration, with a way back,", needed, os.path.join(settings.prefix, "db"))
    return {"set": plan.set, "tasks": done["tasks"], "before": before, "after": after, "seconds": round(time.monotonic() - began, 1)}


def begin(prefix: str, release: str, run: dict[str, Any]) -> None:
    """Note on a host of the site what begins. run: id, who."""
    told = {**run, "from": os.path.basename(os.path.realpath(os.path.join(prefix, "current"))), "release": release, "set": None}
    _note(prefix, {**told, "began": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")})


def pin(settings: Settings, release: str, *, who: str) -> dict[str, Any]:
    """Make the set that a way back goes to, now that nobody writes, pin the chains that it needs, and note it. Return set, pinned, seconds."""
    began = time.monotonic()
    with _repository.lock(settings.directory, _repository.PATIENCE):
        told = _going_on(settings.prefix)
        _backup_set.run_databases(settings, who=who, why=f"before the migration to {release}")
        plan = _drill.Drill()
        _scratch.newest(settings, plan, "A way back")
        for one in plan.storages:
            _prune.prune(settings.repository(one["name"]), settings.policy(), pin=[one["chain"]])
        _note(settings.prefix, {**told, "set": plan.set})
    return {"set": plan.set, "pinned": {one["name"]: one["chain"] for one in plan.storages}, "seconds": round(time.monotonic() - began, 1)}


def migrate(settings: Settings, release: str, *, user: str) -> dict[str, Any]:
    """Migrate the living databases, which nobody else may use now. Return tasks, before, after, seconds. Raises RepositoryError: then they must be restored."""
    began = time.monotonic()
    new = _at(settings, release)
    plan = _drill.Drill()
    # The lock keeps backups and packs away, and tells that this goes on.
    with _scratch.directory(settings.drill_directory, act=True) as scratch, _repository.lock(settings.directory, _repository.PATIENCE):
        if not _going_on(settings.prefix).get("set"):
            raise RepositoryError("No set was made to go back to, so the databases are not migrated.")
        _scratch.newest(settings, plan, "A look at what is migrated")
        try:
            servers = _zeo.read_settings(settings.zeo_settings).servers
        except _zeo.ZeoError as error:
            raise RepositoryError(str(error)) from error
        before = _count(settings, plan, scratch, servers)
        program = os.path.join(new.release, "bin/migration/migrate.py")
        temporary = os.path.join(settings.prefix, "tmp")
        arguments: dict[str, Any] = {"log": os.path.join(settings.prefix, "log/indico/migration.log")}
        if not os.path.exists(os.path.join(settings.prefix, "etc/indico.conf")):  # a host that has the databases and no Indico
            user, temporary, arguments = _scratch.USER, scratch, _harmless(servers["main"], scratch)
        done = _migrate(settings, plan, program, arguments, user=user, temporary=temporary)
        after = _count(new, plan, scratch, servers)
        _compare(before, after)
    return {"tasks": done["tasks"], "before": before, "after": after, "seconds": round(time.monotonic() - began, 1)}


def back(settings: Settings, patience: float = 0.0) -> dict[str, Any]:
    """Return what was noted of a migration that has not ended, nothing when there is none. Raises RepositoryError while it goes on.

    From then on it does not go on: a step of a run that was killed may still wait on the host for its turn. patience: seconds to wait for a backup or
    a drill that came in between.
    """
    with _repository.lock(settings.directory, patience):
        told = _noted(settings.prefix)
        if told:
            _note(settings.prefix, {**told, "back": True})
        return told


def end(prefix: str) -> bool:
    """Forget what was noted on a host, and return whether there was anything."""
    path = pending(prefix)
    if not os.path.exists(path):
        return False
    os.unlink(path)
    _repository.sync(os.path.dirname(path))
    return True


def _at(settings: Settings, release: str) -> Settings:
    return dataclasses.replace(settings, release=os.path.join(settings.prefix, "releases", release))


def _noted(prefix: str) -> dict[str, Any]:
    return _info.read_json(pending(prefix))


def _going_on(prefix: str) -> dict[str, Any]:
    told = _noted(prefix)
    if not told or told.get("back"):
        raise RepositoryError("This migration was put back meanwhile, so nothing was done.")
    return told


def _note(prefix: str, told: dict[str, Any]) -> None:
    _repository.replace(pending(prefix), json.dumps(told).encode() + b"\n")


def _harmless(main: _zeo.Server, scratch: str) -> dict[str, Any]:
    """Return what migrate.py gets where it has no configuration of the site: it writes to nobody, and its output stays in the scratch directory."""
    return {"conf": {**_drill.conf(main, scratch), "SmtpServer": ["127.0.0.1", 9]}, "log": os.path.join(scratch, "migration.log")}


def _version(release: str) -> str:
    """Return the version of Indico in a release (a path)."""
    found = glob.glob(os.path.join(os.path.realpath(release), "lib/python2.7/site-packages/indico-*.dist-info"))
    match = re.fullmatch(r"indico-(.+)\.dist-info", os.path.basename(found[0])) if found else None
    if not match:
        raise RepositoryError(f"{release} does not say which version of Indico it is.")
    return match[1]


def _migrate(settings: Settings, plan: _drill.Drill, program: str, arguments: dict[str, Any], *, user: str, temporary: str) -> dict[str, Any]:
    """Run migrate.py for what lies between the version that runs and that of the program's release."""
    words = ["--prev-version", _version(settings.release)] + (["--with-rb"] if "rooms" in [one["name"] for one in plan.storages] else [])
    release = os.path.dirname(os.path.dirname(os.path.dirname(program)))
    given = {**arguments, "program": program, "words": words}
    try:
        done = _indico.run(_SCRIPT, given, current=release, user=user, temporary=temporary, timeout=_PATIENCE)
    except _indico.IndicoError as error:
        raise RepositoryError(f"migrate.py did not end: {error}") from error
    if done["code"] != 0:
        raise RepositoryError(f"migrate.py failed (exit code {done['code']}): {' / '.join(done['said'])}")
    return done


def _count(settings: Settings, plan: _drill.Drill, scratch: str, servers: dict[str, _zeo.Server]) -> dict[str, int]:
    """Count what the databases hold with the code of settings.release, and open a sample of it."""
    found = _drill.look(settings, plan, scratch, servers, restored=True)
    if found.get("broken"):
        raise RepositoryError(f"{os.path.basename(os.path.realpath(settings.release))} cannot open all of it: {' '.join(found['broken'][:3])}")
    counts: dict[str, int] = found["counts"]
    return counts


def _compare(before: dict[str, int], after: dict[str, int]) -> None:
    fewer = [f"{after.get(kind, 0)} {kind} of {number}" for kind, number in before.items() if after.get(kind, 0) < number]
    if fewer:
        raise RepositoryError(f"After the migration there are {', '.join(fewer)}.")
