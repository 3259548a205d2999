# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What ZEO servers do: the figures that they count, what is wrong with them, and both as Prometheus metrics.

A server keeps its database open, whatever happens to the name. When somebody replaces the file at the path, the server goes on to write the old one,
and everything that reads the path (backups, drills) sees a dead copy. So both are compared (file_problem).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Collection, Mapping
from datetime import datetime, timezone
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _backup_status, _filestorage, _repository, _zeo
from ansible_collections.confops.indico.plugins.module_utils._backup_status import CRITICAL, OK, WARNING
from ansible_collections.confops.indico.plugins.module_utils._zeo import Server, ZeoError

_TIME = "%Y-%m-%dT%H:%M:%SZ"
_INFO = r"""
try:
    storage, read_only = connect(False), False
    say(connected=True)
except ReadOnlyError:
    storage, read_only = connected(True), True
except Exception as error:
    fail('connect', error)
try:
    status = call(storage, 'server_status')
    answer(status=status, figures=figures(storage), read_only=read_only, now=time.time())
except Exception as error:
    fail('ask', error)
"""
_LAG = r"""
import binascii
storage = connected(True)
try:
    newest, transactions = figures(storage)['tid'], 0
    own = int(request['tid'] or '0', 16)
    if own < int(newest or '0', 16):
        start = binascii.unhexlify('%016x' % (own + 1))
        for transaction in storage.iterator(start):
            transactions += 1
            if transactions == request['most']:
                break
    answer(tid=newest, transactions=transactions)
except Exception as error:
    fail('ask', error)
"""
_AHEAD = 300.0  # seconds that a transaction may be ahead of this host's clock
_WRITING = 0o3  # of the flags in /proc/PID/fdinfo, for those that open(2) calls O_ACCMODE
_OTHER = "Backups read that file. Stop the server, put the file that it wrote at the path, and start it."
_LOOKS = 3  # a pack exchanges the file in two steps, so what looks wrong once is looked at again
_MOST = 1000  # transactions that are counted one by one
# What is counted by the server, its name in server_status(), and what it is
_COUNTERS = (
    ("commits", "commits", "Transactions committed"),
    ("aborts", "aborts", "Transactions aborted"),
    ("conflicts", "conflicts", "Conflicts, each of which a client has to begin anew"),
    ("conflicts_resolved", "conflicts_resolved", "Conflicts that were resolved"),
    ("loads", "loads", "Objects read"),
    ("stores", "stores", "Objects written"),
)


@dataclasses.dataclass
class Limits:
    """From where on something is wrong: seconds that the commit lock is held, and transactions that wait for it. 0 asks nothing."""

    lock_warning_seconds: float = 30
    lock_critical_seconds: float = 300
    waiting: float = 10


def info(python: str, servers: Mapping[str, Server], *, databases: Mapping[str, str] | None = None, time_limit: float = 10) -> list[dict[str, Any]]:
    """Ask each server, which go by names for people, within time_limit (seconds, each). Reads only.

    databases: path of the file on this host, by name, as far as it is known. Each result has name, address, storage and error, a sentence or None;
    without an error, also what _figures() returns, and file_problem, what the function of that name says.
    """
    found = []
    paths = databases or {}
    for name, server in servers.items():
        one: dict[str, Any] = {"name": name, "address": server.address, "storage": server.storage, "error": None}
        try:
            reply = _zeo.ask(python, server, _INFO, time_limit=time_limit)
            if reply.answer is None:
                raise ZeoError(_silent(server, reply, time_limit))
            one.update(_figures(reply.answer), protocol=reply.protocol)
            one["file_problem"] = file_problem(python, server, paths[name], one["last_transaction"], time_limit=time_limit) if paths.get(name) else None
        except ZeoError as error:
            one["error"] = str(error)
        found.append(one)
    return found


def replaced(settings_path: str, names: Collection[str]) -> list[str]:
    """Return a sentence for each of these storages whose server works on another file than the one at its path.

    settings_path: what role zeo writes. A server that does not answer has nothing to say here, and a file that is missing or unreadable is for the
    caller, who reads it, to name. Raises ZeoError when the settings cannot be used.
    """
    settings = _zeo.read_settings(settings_path)
    servers = {name: server for name, server in settings.servers.items() if name in names}
    return other_files(settings.python, servers, settings.databases, time_limit=settings.time_limit)


def other_files(python: str, servers: Mapping[str, Server], databases: Mapping[str, str], *, time_limit: float = 10) -> list[str]:
    """Return what replaced() does, for servers and paths of their databases by name."""
    found = info(python, servers, databases=databases, time_limit=time_limit)
    return [one["file_problem"] for one in found if str(one.get("file_problem")).endswith(_OTHER)]


def file_problem(python: str, server: Server, path: str, newest: dict[str, str] | None, *, time_limit: float = 10) -> str | None:
    """Return a sentence when the server works on another file than the one at path, None when both are the same as far as can be seen.

    newest: the server's newest transaction, asked before this call. What the file holds was committed before, or is not yet told by the server.
    """
    for look in range(_LOOKS):
        sentence = _other_file(path) or _other_history(python, server, path, newest, time_limit)
        if sentence is None or look == _LOOKS - 1:
            return sentence
        time.sleep(0.5)
    return None


def _other_history(python: str, server: Server, path: str, newest: dict[str, str] | None, time_limit: float) -> str | None:
    """Compare the newest transactions of server and file."""
    told = newest["tid"] if newest else ""
    try:
        last = _filestorage.last_transaction(path)
    except FileNotFoundError:
        return f"{server} answers, but there is no {path}."
    except PermissionError:  # who may not read it, such as a person, is told nothing wrong
        return None
    except (OSError, _filestorage.FileStorageError) as error:
        return f"{server} answers, but {path} cannot be read: {_repository.reason(error)}."
    held = last.tid if last else ""
    if held < told:
        return f"{server} has committed transaction {told}, and the newest in {path} is {held or 'none'}. {_OTHER}"
    if held > told:
        with contextlib.suppress(ZeoError):
            reply = _zeo.ask(python, server, _INFO, time_limit=time_limit)
            now = _transaction(reply.answer["figures"]["tid"]) if reply.answer else None
            if reply.answer and held > (now["tid"] if now else ""):
                return f"{path} holds transaction {held}, and the newest of {server} is {now['tid'] if now else 'none'}. {_OTHER}"
    return None


def _other_file(path: str) -> str | None:
    """Ask /proc which file the server has open: the process that holds the lock beside path, or writes what is or was called path."""
    try:
        present = os.stat(path)
    except OSError:
        return None  # _other_history says so
    # /proc shows names without links: db may be a link to another disk.
    paths = {path, os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))}
    locks = {f"{one}.lock" for one in paths}
    for process in filter(str.isdigit, os.listdir("/proc")):
        if int(process) == os.getpid():
            continue
        opened = _opened(process)
        serves = any(name in locks for _number, name, _file, _writes in opened)
        written = {
            number: (file.st_dev, file.st_ino)
            for number, name, file, writes in opened
            if writes and (name in paths or (serves and _is_storage(process, number)))
        }
        # Only what it writes counts: to read, it opens the path anew, so it may have both files open.
        if written and (present.st_dev, present.st_ino) not in written.values():
            return (
                f"Process {process} serves another file than the one at {path}, which was replaced: what is committed now is not in that file. "
                f"Before that process ends, copy /proc/{process}/fd/{min(written, key=int)} to a safe place. {_OTHER}"
            )
    return None


def _is_storage(process: str, number: str) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{process}/fd/{number}", "rb") as stream:
        return stream.read(_filestorage.HEAD) in _filestorage.MAGIC
    return False


def _opened(process: str) -> list[tuple[str, str, os.stat_result, bool]]:
    """Return what a process has open, as far as this one may see: number, name (of a removed file too), the file, and whether it may be written to."""
    found = []
    with contextlib.suppress(OSError):  # it has ended, or is another user's
        for number in os.listdir(f"/proc/{process}/fd"):
            with contextlib.suppress(OSError, ValueError):
                name = os.readlink(f"/proc/{process}/fd/{number}").removesuffix(" (deleted)")
                if not name.startswith("/") or name.startswith(("/dev/", "/proc/", "/sys/")):
                    continue
                with open(f"/proc/{process}/fdinfo/{number}", encoding="ascii") as stream:
                    flags = int(next(line.split()[1] for line in stream if line.startswith("flags:")), 8)
                found.append((number, name, os.stat(f"/proc/{process}/fd/{number}"), bool(flags & _WRITING)))
    return found


def _silent(server: Server, reply: _zeo.Reply, time_limit: float) -> str:
    if reply.failure:
        return f"Storage {server.storage} of {server} does not tell its figures: {': '.join(reply.failure[1:])}."
    return f"Storage {server.storage} of {server} does not tell its figures within {time_limit:.0f} s."


def _figures(told: dict[str, Any]) -> dict[str, Any]:
    """Return what a server counts, without the connection that asked.

    started is a time (UTC) if the server's host is in this one's time zone; timeout_thread_alive is None where no transaction has a time limit,
    verifying_clients from ZEO 5 on.
    """
    status, size = told["status"], told["figures"]
    alive = status["timeout-thread-is-alive"]
    since = status["lock_time"]
    started = None
    with contextlib.suppress(ValueError, OverflowError):
        started = datetime.fromtimestamp(time.mktime(time.strptime(status["start"])), timezone.utc).strftime(_TIME)
    return {
        "read_only": told["read_only"],
        "started": started,
        "clients": max(status["connections"] - 1, 0),
        "verifying_clients": status.get("verifying_clients"),
        "active_transactions": status["active_txns"],
        "waiting_transactions": status["waiting"],
        "lock_held_seconds": round(max(told["now"] - since, 0), 3) if since else 0.0,
        "timeout_thread_alive": None if alive == "stub" else bool(alive),
        **{name: status[key] for name, key, _words in _COUNTERS},
        "bytes": size["bytes"],
        "objects": size["objects"],
        "last_transaction": _transaction(size["tid"]),
        "ahead_seconds": _filestorage.ahead_seconds(size["tid"], told["now"]),
    }


def _transaction(tid: str) -> dict[str, str] | None:
    """Return tid and time (UTC), None for a database without any transaction."""
    if not tid.strip("0"):
        return None
    with contextlib.suppress(_filestorage.FileStorageError):
        return {"tid": tid, "time": _filestorage.time_of(bytes.fromhex(tid)).strftime(_TIME)}
    return {"tid": tid, "time": ""}


def lag(python: str, primary: Server, tid: str, *, time_limit: float = 10) -> tuple[int, float]:
    """Return how far a copy whose newest transaction is tid (hexadecimal, empty for none) is behind its primary: transactions and seconds.

    No more than 1000 transactions are counted. The seconds lie between the two newest transactions. Raises ZeoError.
    """
    reply = _zeo.ask(python, primary, _LAG, {"tid": tid, "most": _MOST}, time_limit=time_limit)
    if reply.answer is None:
        raise ZeoError(_silent(primary, reply, time_limit))
    newest, transactions = reply.answer["tid"], int(reply.answer["transactions"])
    if not transactions:
        return 0, 0.0
    own = _filestorage.time_of(bytes.fromhex(tid)).timestamp() if tid.strip("0") else 0.0
    return transactions, max(_filestorage.time_of(bytes.fromhex(newest)).timestamp() - own, 0.0)


def findings(found: list[dict[str, Any]], limits: Limits) -> list[tuple[int, str]]:
    """Return what is wrong, each with its exit code for monitoring, the worst first."""
    wrong = []
    for one in found:
        name = one["name"]
        if one["error"]:
            wrong.append((CRITICAL, f"{name}: {one['error'].rstrip('.')}"))
            continue
        if one.get("file_problem"):
            wrong.append((CRITICAL, f"{name}: {one['file_problem'].rstrip('.')}"))
        if one.get("ahead_seconds", 0) > _AHEAD:
            wrong.append((WARNING, f"{name}: {_filestorage.ahead_sentence(one['last_transaction']['time'], one['ahead_seconds'])}"))
        held = one["lock_held_seconds"]
        if limits.lock_critical_seconds and held > limits.lock_critical_seconds:
            wrong.append((CRITICAL, f"{name}: one transaction has held the commit lock for {held:.0f} s, and nobody else can commit"))
        elif limits.lock_warning_seconds and held > limits.lock_warning_seconds:
            wrong.append((WARNING, f"{name}: one transaction has held the commit lock for {held:.0f} s"))
        if limits.waiting and one["waiting_transactions"] >= limits.waiting:
            wrong.append((WARNING, f"{name}: {one['waiting_transactions']} transactions wait for the commit lock"))
        if one["timeout_thread_alive"] is False:
            wrong.append((CRITICAL, f"{name}: the thread that ends transactions which take too long is dead; the server must be started anew"))
    return sorted(wrong, key=lambda each: -each[0])


def problems(found: list[dict[str, Any]], limits: Limits | None = None) -> list[str]:
    """Return a sentence for each thing that is wrong, the worst first."""
    return [f"{text}." for _code, text in findings(found, limits or Limits())]


def summary(found: list[dict[str, Any]]) -> str:
    """Return in one line what there is."""
    shown = [f"{one['name']} {'does not answer' if one['error'] else _brief(one)}" for one in found]
    return "; ".join(shown) or "no servers"


def _brief(one: dict[str, Any]) -> str:
    newest = f"to {one['last_transaction']['time']}" if one["last_transaction"] else "no transaction yet"
    return f"{one['clients']} clients, {one['bytes']} bytes, {newest}{', read-only' if one['read_only'] else ''}"


def judge(found: list[dict[str, Any]], limits: Limits) -> tuple[int, str]:
    """Return the exit code for monitoring and the line that says why."""
    wrong = findings(found, limits)
    if wrong:
        return wrong[0][0], f"{_backup_status.WORDS[wrong[0][0]]}: {'; '.join(text for _code, text in wrong)}"
    return OK, f"OK: {summary(found)}"


def metrics(instance: str, found: list[dict[str, Any]], lags: Mapping[str, tuple[int, float]] | None = None) -> str:
    """Return all of it in Prometheus' text format. lags: what lag() returned, by name, on a host that follows another one."""
    good = [one for one in found if not one["error"]]

    def each(value: Any) -> list[tuple[dict[str, str], float]]:
        return [({"storage": one["name"]}, number) for one in good if (number := value(one)) is not None]

    rows: list[_backup_status.Row] = [
        ("zeo_up", "1 when the server answers and has the storage", [({"storage": one["name"]}, 0 if one["error"] else 1) for one in found]),
        ("zeo_read_only", "1 when the server takes nothing in", each(lambda one: int(one["read_only"]))),
        ("zeo_clients", "Connected clients", each(lambda one: one["clients"])),
        ("zeo_active_transactions", "Transactions that clients have begun", each(lambda one: one["active_transactions"])),
        ("zeo_waiting_transactions", "Transactions that wait for the commit lock", each(lambda one: one["waiting_transactions"])),
        ("zeo_lock_held_seconds", "How long one transaction has held the commit lock, 0 when none does", each(lambda one: one["lock_held_seconds"])),
        ("zeo_timeout_thread_alive", "0 when the thread that ends transactions which take too long is dead", each(_alive)),
        *[(f"zeo_{name}_total", words, each(lambda one, name=name: one[name])) for name, _key, words in _COUNTERS],
        ("zeo_database_bytes", "Size of the database", each(lambda one: one["bytes"])),
        ("zeo_database_objects", "Objects in the database", each(lambda one: one["objects"])),
        ("zeo_last_transaction_time_seconds", "When the newest transaction was committed", each(_newest)),
        ("zeo_ahead_seconds", "How far the newest transaction is ahead of the clock", each(lambda one: one.get("ahead_seconds"))),
        ("zeo_file_replaced", "1 when the server works on another file than the one at the path", each(lambda one: int(bool(one.get("file_problem"))))),
        ("zeo_start_time_seconds", "When the server was started", each(lambda one: _seconds(one["started"]))),
    ]
    if lags:
        transactions = [({"storage": name}, float(one[0])) for name, one in lags.items()]
        seconds = [({"storage": name}, one[1]) for name, one in lags.items()]
        rows += [
            ("zeo_replication_lag_transactions", "Transactions of the primary that are not here yet, at most 1000", transactions),
            ("zeo_replication_lag_seconds", "Time between the newest transaction here and that of the primary", seconds),
        ]
    return _backup_status.prometheus(instance, [row for row in rows if row[2]])


def _alive(one: dict[str, Any]) -> int | None:
    return None if one["timeout_thread_alive"] is None else int(one["timeout_thread_alive"])


def _newest(one: dict[str, Any]) -> float | None:
    return _seconds((one["last_transaction"] or {}).get("time"))


def _seconds(moment: str | None) -> float | None:
    return datetime.strptime(moment, _TIME).replace(tzinfo=timezone.utc).timestamp() if moment else None
