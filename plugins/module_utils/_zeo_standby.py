# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which of two hosts is the primary, and how far the other one is behind it.

Each host keeps a claim: who is the primary, and the generation of that decision. A failover writes the next generation. A host whose
claim names it the primary asks the other one before its servers start, and each minute: where a newer claim is known, it does not serve.
So a primary that was lost and comes back cannot take in transactions that nobody else has. Before they start it also compares what both
hold: a primary that ends before its standby was set back to an older state, and does not serve either.

The standby notes each minute whether it holds all that the primary has, so that nobody takes one that is still being filled for a whole one.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _filestorage, _repository

CLAIM = "zeo-primary.json"  # beside zeo.json
FOLLOWING = "following.json"  # beside the directories of the databases
LEVEL = 5.0  # seconds behind the primary at which a standby counts as level with it: one transaction is always on its way
_TOLERANCE = 180.0  # seconds for which a standby may have been behind while its primary answered
_LARGEST = 4096  # bytes of a claim
_PATIENCE = 60.0  # seconds that a host which has just booted waits for the other one
_STOP_SECONDS = 600.0
_SLOWLY = 9.0  # seconds
_BOOT = 300.0  # seconds since the boot within which both may be booting


class StandbyError(Exception):
    """The claim or the settings cannot be read; the message is a sentence for the operator."""


@dataclass(frozen=True)
class Claim:
    """Who is the primary: its name in the inventory; since is ISO 8601 (UTC), empty for the first one. Generation 0 is no claim at all."""

    generation: int = 0
    primary: str = ""
    since: str = ""

    def data(self) -> dict[str, Any]:
        """Return it as results and the file have it."""
        return {"generation": self.generation, "primary": self.primary, **({"since": self.since} if self.since else {})}


@dataclass(frozen=True)
class Settings:
    """What role zeo says of a host: its name, the addresses of the others by name, the port at which they tell their claims, and where its own lies.

    databases are the paths of the Data.fs by storage, following is where a standby notes how it follows.
    """

    instance: str
    host: str
    peers: dict[str, str]
    claim_port: int
    claim: str
    following: str
    databases: dict[str, str]


@dataclass(frozen=True)
class Standing:
    """What a host tells of itself: its claim, and the newest tid (16 hexadecimal digits) of each storage that has one."""

    claim: Claim
    newest: dict[str, str] = field(default_factory=dict)


@dataclass
class Judgement:
    """Whether the servers of this host may run. refusal is a sentence when they may not; silent names the hosts that did not answer."""

    refusal: str = ""
    silent: list[str] = field(default_factory=list)


def parse(text: str, whose: str) -> Standing:
    """Return what a text says of a host: a claim, with the newest tids of its storages or without. Raises StandbyError naming whose it is."""
    try:
        data = _repository.parse_json(text)
        claim = Claim(int(data["generation"]), str(data["primary"]), str(data.get("since", "")))
        return Standing(claim, {str(name): str(tid) for name, tid in data.get("newest", {}).items()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StandbyError(f"{whose} is no claim of a primary ({_repository.reason(error)}): {text[:80]!r}.") from error


def read_claim(path: str) -> Claim:
    """Return the claim that lies at path, the empty one when none does. Raises StandbyError."""
    try:
        with open(path, encoding="utf-8") as stream:
            return parse(stream.read(_LARGEST), path).claim
    except FileNotFoundError:
        return Claim()
    except (OSError, UnicodeDecodeError) as error:
        raise StandbyError(f"The claim {path} cannot be read: {_repository.reason(error)}.") from error


def read_settings(path: str) -> Settings:
    """Return the settings in zeo.json. Raises StandbyError."""
    try:
        data = _repository.load_json(path, follow=True)
        claim = os.path.join(os.path.dirname(path), CLAIM)
        databases = {one["name"]: one["database"] for one in data["servers"]}
        return Settings(data["instance"], data["host"], dict(data["peers"]), int(data["claim_port"]), claim, data["following"], databases)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StandbyError(f"The settings {path} cannot be read: {_repository.reason(error)}.") from error


def tell(settings: Settings) -> dict[str, Any]:
    """Return what this host tells the others, as parse reads it. Raises StandbyError."""
    return {**read_claim(settings.claim).data(), "newest": newest(settings.databases)}


def newest(paths: Mapping[str, str]) -> dict[str, str]:
    """Return the newest tid of each database, by storage. One that is not there, holds nothing or is damaged is left out.

    One that this process may not read is no such case: StandbyError is raised, since a host that seems to be empty stops no primary.
    """
    found = {}
    for name, path in paths.items():
        try:
            with contextlib.suppress(FileNotFoundError, _filestorage.FileStorageError):
                last = _filestorage.last_transaction(path, strict=False)  # what it holds counts, whatever lies behind
                if last:
                    found[name] = last.tid
        except OSError as error:
            raise StandbyError(f"The database {path} cannot be read: {_repository.reason(error)}.") from error
    return found


def ask(address: str, port: int, timeout: float = 5) -> Standing | None:
    """Return what the host at address tells, None when it does not answer within timeout (seconds). Raises StandbyError for an answer that is none."""
    answer = b""
    try:
        with socket.create_connection((address, port), timeout) as connection:
            while len(answer) < _LARGEST and (piece := connection.recv(_LARGEST)):
                answer += piece
    except OSError:
        return None
    return parse(answer.decode(errors="replace"), f"What {address}:{port} says") if answer else None


def judge(host: str, own: Standing, others: Mapping[str, Standing | None]) -> Judgement:
    """Return whether this host's servers may run, given its own standing and those of the others (None for a host that is silent)."""
    silent = [name for name, other in others.items() if other is None]
    if own.claim.primary != host:
        return Judgement(silent=silent)  # a standby takes nothing in
    for name, other in others.items():
        claim = other.claim if other else Claim()
        if other and claim.primary != host and claim.generation >= own.claim.generation:
            since = f" since {claim.since}" if claim.since else ""
            return Judgement(
                f"{name} says that {claim.primary} is the primary (generation {claim.generation}{since}), and {host} is of generation"
                f" {own.claim.generation}: it does not serve. What it holds may lack transactions of {claim.primary}, and have some that {claim.primary} lacks;"
                " playbooks/failback.yml brings it back.",
                silent,
            )
    return Judgement(silent=silent)


def compare(host: str, own: Standing, others: Mapping[str, Standing | None]) -> str:
    """Return why a primary must not start: a host that follows it ends later. Nothing when none does.

    What own holds has to be read after the others told theirs, or what was committed in between looks like something that this host lacks.
    A host of an older generation was left behind by a failover, and what only that one has was given up then.
    """
    for name, other in others.items():
        follows = other and other.claim.generation >= own.claim.generation
        later = {storage: tid for storage, tid in (other.newest if other and follows else {}).items() if tid > own.newest.get(storage, "")}
        if later:
            shown = ", ".join(f"{storage}: {_moment(tid)}, here {_moment(own.newest.get(storage, ''))}" for storage, tid in later.items())
            return (
                f"{name} holds newer transactions than {host}, which is the primary ({shown}). The databases here were set back to an older state, so they are"
                f" not served. If {name} is right, playbooks/failover.yml -e to={name} -e unplanned=true makes it the primary. If {host} is right,"
                f" playbooks/failback.yml -e host={name} -e discard={name} sets aside what {name} holds."
            )
    return ""


def _moment(tid: str) -> str:
    return _filestorage.time_of(bytes.fromhex(tid)).strftime("%Y-%m-%dT%H:%M:%SZ") if tid else "nothing"


def may_start(settings: Settings) -> Judgement:
    """Ask the other hosts and judge. A host that has just booted waits for them a while, since both may have lost their power.

    systemd asks again one second after a refusal, so that is given slowly.
    """
    deadline = time.monotonic() + (_PATIENCE if time.clock_gettime(time.CLOCK_BOOTTIME) < _BOOT else 0)
    while True:
        others, own = _ask_all(settings), Standing(read_claim(settings.claim))
        judgement = judge(settings.host, own, others)
        if not judgement.refusal and own.claim.primary == settings.host:
            judgement.refusal = compare(settings.host, Standing(own.claim, newest(settings.databases)), others)
        if judgement.refusal:
            time.sleep(_SLOWLY)
            return judgement
        if not judgement.silent or own.claim.primary != settings.host or time.monotonic() >= deadline:
            return judgement
        time.sleep(1)


def _ask_all(settings: Settings) -> dict[str, Standing | None]:
    return {name: ask(address, settings.claim_port) for name, address in settings.peers.items()}


def fence(settings: Settings) -> str:
    """Stop the servers of this host when they must not run. Return why, or nothing when all is well.

    The own claim is read after the others told theirs. A failover gives the new primary its claim first and this host the same one a moment later;
    who reads this host's earlier would stop the servers that the failover has just started as a standby.
    """
    others = _ask_all(settings)
    judgement = judge(settings.host, Standing(read_claim(settings.claim)), others)
    if judgement.refusal:
        try:
            subprocess.run(["systemctl", "stop", f"{settings.instance}-zeo@*.service"], check=True, timeout=_STOP_SECONDS)
        except subprocess.SubprocessError as error:
            raise StandbyError(f"{judgement.refusal} But the servers of this host could not be stopped: {error}.") from error
    return judgement.refusal


def read_following(path: str) -> dict[str, dict[str, float]]:
    """Return, by storage, when the primary last answered this standby, and when the two were level (seconds since the epoch). Nothing noted is no storage."""
    try:
        data = _repository.load_json(path, follow=True)
        return {str(name): {str(key): float(moment) for key, moment in one.items()} for name, one in data.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StandbyError(f"What this host noted of its primary in {path} cannot be read: {_repository.reason(error)}.") from error


def note_following(path: str, lags: Mapping[str, float], now: float) -> None:
    """Note how far this standby is behind each storage that the primary answered for: lags in seconds, now in seconds since the epoch. Atomic."""
    noted = read_following(path)
    for name, behind in lags.items():
        noted[name] = {**noted.get(name, {}), "answered": now, **({"level": now} if behind <= LEVEL else {})}
    if lags:
        _repository.replace(path, json.dumps(noted, sort_keys=True).encode())


def incomplete(found: list[dict[str, Any]], following: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the storages of a standby that may lack more than the last moments: empty, unreadable, being filled, or left behind.

    found is what databases returned, following what read_following did.
    """
    return [
        one["name"]
        for one in found
        if not one["last_transaction"]
        or one["error"]
        or "level" not in following.get(one["name"], {})
        or following[one["name"]]["answered"] - following[one["name"]]["level"] > _TOLERANCE
    ]


def databases(prefix: str, names: list[str], contains: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return, for each storage below prefix: name, path, bytes, last_transaction (None without one), and error (None when it could be read).

    contains maps storages to a tid (16 hexadecimal digits); known then says whether the file has that transaction, and behind whether it ends before it.
    Both are None when it was not asked for.
    A server may be writing. Reads only.
    """
    found = []
    for name in names:
        path = os.path.join(prefix, "db", name, "Data.fs")
        one: dict[str, Any] = {"name": name, "path": path, "bytes": 0, "last_transaction": None, "known": None, "behind": None, "error": None}
        wanted = contains.get(name)
        if wanted:
            one["behind"] = True
        try:
            one["bytes"] = os.stat(path).st_size
            last = _filestorage.last_transaction(path)
            one["last_transaction"] = last and last.data()
            if wanted:
                one["behind"] = last is None or last.tid < wanted
                one["known"] = has(path, wanted)
        except (OSError, _filestorage.FileStorageError) as error:
            one["error"] = _repository.reason(error)
        found.append(one)
    return found


def has(path: str, tid: str) -> bool:
    """Return whether the FileStorage holds the transaction. It is looked for from the end, as it is mostly a new one. Raises FileStorageError, OSError."""
    with open(path, "rb") as stream:
        end = _filestorage.committed_end(stream, path)
        while end > _filestorage.HEAD:
            one = _filestorage.ending_at(stream, end)
            if one is None:
                raise _filestorage.FileStorageError(f"{path} is damaged: no transaction ends at {end}.")
            if one.tid <= tid:
                return one.tid == tid
            end = _filestorage.begin_of(stream, end)
    return False
