# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A closed site at rest: Apache goes on to answer 503, and nobody is connected to the databases any more.

Apache answers a closed site by itself, so no request reaches mod_wsgi's workers. A worker that has loaded Indico keeps its connection to ZEO,
and what it remembers of the old database, until it ends. Apache starts another one in its place, which loads Indico with its first request only.
So the workers that have loaded Indico are told to end, and nothing of Apache has to stop.

This order is kept: see that the site is closed, stop the scheduler, end the workers, wait until nobody is connected to the databases.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ansible_collections.confops.indico.plugins.module_utils import _info, _units

_PAUSE = 0.1  # seconds between two looks
_CALM = 1.0  # seconds without a loaded worker: a request that Apache let in just before the site closed has loaded one by then
_TERM = 7.0  # mod_wsgi gives requests 5 seconds when it is told to stop
_KILL = 5.0
_OPEN = 10.0
_AHEAD = 1.0  # Apache may start new workers before systemd notes that the reload has ended
_ESTABLISHED = "01"
_PROC = "/proc"


class QuietError(Exception):
    """Somebody is still at the databases; the message is a sentence for the operator."""


@dataclass(frozen=True)
class Worker:
    """A process of mod_wsgi. started is in clock ticks since boot: with the pid it names the process, since pids are used again."""

    pid: int
    started: int
    loaded: bool = field(compare=False, default=False)


@dataclass
class Quiet:
    """What was done: pids of the workers that ended, those of them that had to be killed, and the seconds it took."""

    ended: list[int] = field(default_factory=list)
    killed: list[int] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    seconds: float = 0.0


def workers(user: str, instance: str) -> list[Worker]:
    """Return the instance's workers. Raises QuietError when the host does not know the user."""
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise QuietError(f"This host does not know the user {user}.") from error
    found = []
    for name in os.listdir(_PROC):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):  # it ended meanwhile
                worker = _worker(os.path.join(_PROC, name), uid, f"(wsgi:{instance})")
                found += [worker] if worker else []
    return found


def _worker(path: str, uid: int, title: str) -> Worker | None:
    """Return the worker of one directory below /proc, None for another process."""
    if os.stat(path).st_uid != uid or _read(os.path.join(path, "cmdline")).split("\0")[0].split(" ")[0] != title:
        return None
    # Behind the name, which may hold blanks and brackets, begins field 3.
    fields = _read(os.path.join(path, "stat")).rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    return Worker(int(os.path.basename(path)), int(fields[19]), _loaded(_read(os.path.join(path, "maps"))))


def _loaded(maps: str) -> bool:
    """Whether a process has begun to load the application: it maps a library of Python's packages that is not mod_wsgi's own."""
    return any("/site-packages/" in line and "/site-packages/mod_wsgi/" not in line for line in maps.splitlines())


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()


def clients(ports: list[int]) -> list[str]:
    """Return who is connected to these TCP ports of this host, in words, each once."""
    names = {f"{port:04X}" for port in ports}
    connected = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in _read(os.path.join(_PROC, "net", table)).splitlines()[1:]:
                parts = line.split()
                if parts[3] == _ESTABLISHED and parts[2].rpartition(":")[2] in names:
                    connected.add(parts[9])  # the client's end, of a process of this host
                elif parts[3] == _ESTABLISHED and parts[1].rpartition(":")[2] in names:
                    connected.add(parts[2])  # the server's end, which tells the client's address
    inodes = {one for one in connected if ":" not in one}
    if not connected:
        return []
    return sorted(_holders(inodes)) or [f"{len(connected)} connection(s) of another host or of a process that has ended"]


def _holders(inodes: set[str]) -> set[str]:
    """Return the processes that hold these sockets, in words."""
    wanted, found = {f"socket:[{inode}]" for inode in inodes}, set()
    for name in os.listdir(_PROC) if wanted else []:
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            directory = os.path.join(_PROC, name, "fd")
            for one in os.listdir(directory):
                with contextlib.suppress(OSError):
                    if os.readlink(os.path.join(directory, one)) in wanted:
                        command = _read(os.path.join(_PROC, name, "cmdline")).replace("\0", " ").strip()
                        found.add(f"process {name} ({command[:80]})")
                        break
    return found


def closed(url: str, public_url: str) -> None:
    """Raise QuietError when Apache lets visitors in, who could reach a worker at any time. An Apache that does not run lets nobody in."""
    deadline = time.monotonic() + _OPEN
    while True:
        page = _info.page(url, public_url, 30)
        if page["status"] == 503 or (page["status"] is None and _is_refused(page["error"])):
            return
        if time.monotonic() > deadline:
            raise QuietError(
                f"The home page answers {page['status'] or page['error']} although the site is closed. Run site.yml, which brings Apache's configuration"
                " for it, then this again. No database was touched."
            )
        time.sleep(0.5)


def _is_refused(error: str | None) -> bool:
    return "refused" in (error or "").lower()


def end(user: str, instance: str, patience: float) -> Quiet:
    """End every worker that has loaded the application: requests may end within patience seconds, then they are cut off. Raises QuietError."""
    done, begun = Quiet(), time.monotonic()
    signals = [(0.0, signal.SIGUSR1), (patience, signal.SIGTERM), (patience + _TERM, signal.SIGKILL)]
    told: dict[Worker, int] = {}
    calm = begun
    while time.monotonic() - calm < _CALM:
        loaded, now = [worker for worker in workers(user, instance) if worker.loaded], time.monotonic()
        if loaded:
            calm = now
        if loaded and now - begun > patience + _TERM + _KILL:
            raise QuietError(f"The workers {', '.join(str(one.pid) for one in loaded)} of {instance} do not end. Nothing else was stopped.")
        for worker in loaded:
            due = max(number for number, (after, _signal) in enumerate(signals) if now - begun >= after)
            if told.get(worker, -1) < due:
                told[worker] = due
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signals[due][1])
        time.sleep(_PAUSE)
    done.ended = sorted(worker.pid for worker in told)
    done.killed = sorted(worker.pid for worker, last in told.items() if last)
    done.seconds = round(time.monotonic() - begun, 1)
    return done


def alone(ports: list[int], patience: float) -> None:
    """Wait until nobody is connected to the databases' ports. Raises QuietError, which names who still is after patience seconds."""
    deadline = time.monotonic() + patience
    while True:
        found = clients(ports)
        if not found:
            return
        if time.monotonic() > deadline:
            raise QuietError(f"The databases are still in use by {', '.join(found)}. End it, then run this again. No database was touched.")
        time.sleep(_PAUSE)


def calm(user: str, instance: str, scheduler: str, url: str, public_url: str, ports: list[int], patience: float) -> Quiet:
    """Bring a closed site to rest, as this module's first lines say. Raises QuietError and UnitError."""
    if url:
        closed(url, public_url)
    stopped = running(scheduler)
    for unit in stopped:
        _units.stop(unit)
    done = end(user, instance, patience)
    alone(ports, patience)
    done.stopped = stopped
    return done


def running(unit: str) -> list[str]:
    """Return the unit when it is there and does not rest; a name that is empty is no unit."""
    return [unit] if unit and _units.show([unit], ("ActiveState",))[0]["ActiveState"] not in ("inactive", "failed") else []


def renew(unit: str, user: str, instance: str, patience: float) -> list[int]:
    """Have Apache read its configuration and load its modules anew, and return the pids of its new workers.

    It keeps its ports open meanwhile. One that does not run is started. Raises QuietError and UnitError.
    """
    old = set(workers(user, instance))
    running = _units.show([unit], ("ActiveState",))[0]["ActiveState"] in ("active", "reloading")
    _units.act("reload" if running else "start", unit)
    return _wait_for_new(unit, user, instance, patience, lambda worker: worker not in old)


def fresh(unit: str, user: str, instance: str, patience: float) -> list[int]:
    """Wait until all workers are younger than the last reload of Apache, and return their pids. Raises QuietError and UnitError."""
    changed = int(_units.show([unit], ("StateChangeTimestampMonotonic",))[0]["StateChangeTimestampMonotonic"]) / 1e6
    asleep = time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)  # processes are dated by the clock that goes on meanwhile
    since = (changed + asleep - _AHEAD) * os.sysconf("SC_CLK_TCK")
    return _wait_for_new(unit, user, instance, patience, lambda worker: worker.started >= since)


def _wait_for_new(unit: str, user: str, instance: str, patience: float, is_new: Callable[[Worker], bool]) -> list[int]:
    deadline = time.monotonic() + patience
    while True:
        now = workers(user, instance)
        if now and all(is_new(worker) for worker in now):
            return sorted(worker.pid for worker in now)
        if time.monotonic() > deadline:
            raise QuietError(f"{unit} has not started new workers of {instance} {patience:.0f} s after it was told to. Its log says why.")
        time.sleep(_PAUSE)
