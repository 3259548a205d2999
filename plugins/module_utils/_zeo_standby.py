# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which of two hosts is the primary, and how far the other one is behind it.

Each host keeps a claim: who is the primary, and the generation of that decision. A failover writes the next generation. A host whose
claim names it the primary asks the other one before its servers start, and each minute: where a newer claim is known, it does not serve.
So a primary that was lost and comes back cannot take in transactions that nobody else has.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _filestorage

CLAIM = "zeo-primary.json"  # beside zeo.json
_LARGEST = 4096  # bytes of a claim
_PATIENCE = 60.0  # seconds that a host which has just booted waits for the other one
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
    """What role zeo says of a host: its name, the addresses of the others by name, the port at which they tell their claims, and where its own lies."""

    instance: str
    host: str
    peers: dict[str, str]
    claim_port: int
    claim: str


@dataclass
class Judgement:
    """Whether the servers of this host may run. refusal is a sentence when they may not; silent names the hosts that did not answer."""

    refusal: str = ""
    silent: list[str] = field(default_factory=list)


def parse(text: str, whose: str) -> Claim:
    """Return the claim that a text spells. Raises StandbyError naming whose it is."""
    try:
        data = json.loads(text)
        return Claim(int(data["generation"]), str(data["primary"]), str(data.get("since", "")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StandbyError(f"{whose} is no claim of a primary ({error!r}): {text[:80]!r}.") from error


def read_claim(path: str) -> Claim:
    """Return the claim that lies at path, the empty one when none does. Raises StandbyError."""
    try:
        with open(path, encoding="utf-8") as stream:
            return parse(stream.read(_LARGEST), path)
    except FileNotFoundError:
        return Claim()
    except (OSError, UnicodeDecodeError) as error:
        raise StandbyError(f"The claim {path} cannot be read: {error}.") from error


def read_settings(path: str) -> Settings:
    """Return the settings in zeo.json. Raises StandbyError."""
    try:
        with open(path, encoding="utf-8") as stream:
            data = json.load(stream)
        claim = os.path.join(os.path.dirname(path), CLAIM)
        return Settings(data["instance"], data["host"], dict(data["peers"]), int(data["claim_port"]), claim)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StandbyError(f"The settings {path} cannot be read: {error!r}.") from error


def ask(address: str, port: int, timeout: float = 2) -> Claim | None:
    """Return the claim of the host at address, None when it does not answer within timeout (seconds). Raises StandbyError for an answer that is none."""
    answer = b""
    try:
        with socket.create_connection((address, port), timeout) as connection:
            while len(answer) < _LARGEST and (piece := connection.recv(_LARGEST)):
                answer += piece
    except OSError:
        return None
    return parse(answer.decode(errors="replace"), f"What {address}:{port} says") if answer else None


def judge(host: str, own: Claim, others: Mapping[str, Claim | None]) -> Judgement:
    """Return whether this host's servers may run, given its own claim and those of the others (None for a host that is silent)."""
    silent = [name for name, claim in others.items() if claim is None]
    if own.primary != host:
        return Judgement(silent=silent)  # a standby takes nothing in
    for name, claim in others.items():
        if claim and claim.primary != host and claim.generation >= own.generation:
            since = f" since {claim.since}" if claim.since else ""
            return Judgement(
                f"{name} says that {claim.primary} is the primary (generation {claim.generation}{since}), and {host} is of generation {own.generation}:"
                f" it does not serve. What it holds may lack transactions of {claim.primary}, and have some that {claim.primary} lacks; playbooks/failback.yml"
                " brings it back.",
                silent,
            )
    return Judgement(silent=silent)


def may_start(settings: Settings) -> Judgement:
    """Ask the other hosts and judge. A host that has just booted waits for them a while, since both may have lost their power.

    systemd asks again one second after a refusal, so that is given slowly.
    """
    own = read_claim(settings.claim)
    deadline = time.monotonic() + (_PATIENCE if time.clock_gettime(time.CLOCK_BOOTTIME) < _BOOT else 0)
    while True:
        judgement = judge(settings.host, own, {name: ask(address, settings.claim_port) for name, address in settings.peers.items()})
        if judgement.refusal:
            time.sleep(_SLOWLY)
            return judgement
        if not judgement.silent or own.primary != settings.host or time.monotonic() >= deadline:
            return judgement
        time.sleep(1)


def fence(settings: Settings) -> str:
    """Stop the servers of this host when they must not run. Return why, or nothing when all is well."""
    own = read_claim(settings.claim)
    judgement = judge(settings.host, own, {name: ask(address, settings.claim_port) for name, address in settings.peers.items()})
    if judgement.refusal:
        subprocess.run(["systemctl", "stop", f"{settings.instance}-zeo@*.service"], check=True)
    return judgement.refusal


def databases(prefix: str, names: list[str], contains: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return, for each storage below prefix: name, path, bytes, last_transaction (None without one), and error (None when it could be read).

    contains maps storages to a tid (16 hexadecimal digits); known then says whether the file has that transaction, None when it was not asked for.
    A server may be writing. Reads only.
    """
    found = []
    for name in names:
        path = os.path.join(prefix, "db", name, "Data.fs")
        one: dict[str, Any] = {"name": name, "path": path, "bytes": 0, "last_transaction": None, "known": None, "error": None}
        try:
            one["bytes"] = os.stat(path).st_size
            last = _filestorage.last_transaction(path)
            one["last_transaction"] = last and last.data()
            if contains.get(name):
                one["known"] = has(path, contains[name])
        except (OSError, _filestorage.FileStorageError) as error:
            one["error"] = str(error)
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
