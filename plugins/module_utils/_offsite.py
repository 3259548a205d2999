# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A copy of the backup sets on another host, which that host pulls and keeps by itself.

    DIRECTORY/copy/        the repositories and sets as the source has them; what is here is never replaced, whatever the source has
    DIRECTORY/incoming/    what was fetched and is not judged yet
    DIRECTORY/state.json   how far was pulled (Memory, by part)
    DIRECTORY/status.json  how the last pull ended

The source may be in the hands of somebody who wants the backups gone. So what it offers is judged by its names and its .dat files
(choose), fetched beside the copy, verified there, and only then moved into it. The time of a backup is its name: one of the past
that was not there before, or one of the future, could displace what the retention keeps, and is refused. Index files are not
pulled: ZODB makes new ones, and it would run what a forged one says. Neither is what the source remembers in confops.json.

A part is a storage or "sets". Stamps are as in _repository; sizes are bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import resource
import shutil
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _backup_status, _children, _prune, _repository, _verify
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError

SETS = "sets"
_STATE, _STATUS = "state.json", "status.json"
_STAMP = re.compile(r"[0-9]{4}(?:-[0-9][0-9]){5}")
_DAT = re.compile(r"([0-9]{4}(?:-[0-9][0-9]){5})\.dat")
_LINE = re.compile(r"(\S)\S{9,}\s+([0-9]+) \S+ \S+ (.+)")  # of rsync --list-only: the kind and the mode, size, date, time, name
_KINDS = {"d": "a directory", "l": "a symbolic link", "-": "a file"}
_AHEAD = timedelta(hours=1)  # that the source's clock may be before this one
_DAT_LIMIT = 64 * 2**20  # bytes of a .dat file; one has about 100 for each backup of a chain
_FEW = 1000  # inodes that must be free
_SILENCE = 300  # seconds after which rsync gives up


@dataclass
class Settings:
    """Where from, where to, and how long it stays.

    source is what rsync calls the directory of the sets, with a slash at its end, shell the remote shell that it is reached with
    (empty for a directory of this host), and name what sentences call it. reserve_mb are MiB that must stay free.
    """

    instance: str
    directory: str
    storages: list[str]
    source: str
    shell: str = ""
    name: str = "the source"
    window_days: int | None = 30
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 12
    keep_yearly: int = 0
    keep_chains_min: int = 2
    reserve_mb: int = 1024
    metrics: str = ""

    def copy(self, part: str, *names: str) -> str:
        return os.path.join(self.directory, "copy", part, *names)

    def incoming(self, part: str, *names: str) -> str:
        return os.path.join(self.directory, "incoming", part, *names)

    def policy(self) -> _prune.Policy:
        names = ("window_days", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly", "keep_chains_min")
        return _prune.Policy(**{name: getattr(self, name) for name in names})


@dataclass
class Memory:
    """How far one part was pulled: the newest stamp ever accepted, what was accepted and has not landed, and the chains or sets that were removed here."""

    newest: str = ""
    pending: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Listed:
    """What the source shows of one name. kind is the first letter of rsync's listing."""

    kind: str
    bytes: int


@dataclass
class Choice:
    """What is taken over of one storage. chains maps a chain's stamp to the names of its files that are missing here, in order."""

    chains: dict[str, list[str]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """What a pull did.

    refused are sentences about what the source offers and is not taken, problems about what is here and not sound; problem is a
    sentence when the pull itself failed. Both lists and a problem make it a failure; what was pulled meanwhile stays.
    """

    files: int = 0
    bytes: int = 0
    sets: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problem: str | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not (self.problem or self.problems or self.refused)

    def line(self) -> str:
        """Return all of it in one line."""
        if self.problem:
            return f"pull failed: {self.problem}"
        parts = [f"{self.files} files and {len(self.sets)} sets, {self.bytes} bytes"] + ([f"{len(self.deleted)} old ones removed"] if self.deleted else [])
        done = f"pull done in {self.seconds:.1f} s: {', '.join(parts)}"
        wrong = self.problems + self.refused
        more = f" And {len(wrong) - 3} more." if len(wrong) > 3 else ""
        return f"{done}; but {len(self.problems)} problems and {len(self.refused)} refused: {' '.join(wrong[:3])}{more}" if wrong else done


def read_settings(path: str) -> Settings:
    """Read the settings from a JSON file. Raises RepositoryError."""
    try:
        return Settings(**_repository.load_json(path, follow=True))
    except (OSError, ValueError, TypeError) as error:
        raise RepositoryError(f"The settings {path} cannot be used: {_repository.reason(error)}.") from error


# What is decided


def choose(
    part: str, offered: Mapping[str, Listed], dats: Mapping[str, bytes], here: Mapping[str, int], dats_here: Mapping[str, bytes], memory: Memory, now: datetime
) -> Choice:
    """Say what is taken over of a storage.

    offered and here map the names in the repository at the source and here; dats and dats_here map the stamps of chains to what their .dat files hold.
    """
    choice = Choice()
    for name, one in sorted(offered.items()):
        if not (_repository.data_file(name, 0) or _DAT.fullmatch(name)):
            continue
        if one.kind != "-":
            choice.refused.append(f"{part}/{name} at the source is {_KINDS.get(one.kind, 'a special file')}, not a file.")
        elif not name.endswith(".dat") and here.get(name, one.bytes) != one.bytes:
            choice.refused.append(f"{part}/{name} has {one.bytes} bytes at the source and {here[name]} here; what is here stays.")
    newest = max((name for name in here if _repository.data_file(name, 0)), default=None)
    if newest and newest not in offered:
        choice.refused.append(f"{part}/{newest} is the newest backup here and no longer at the source, which never removes its newest.")
    chains = {data.stamp for name in here if (data := _repository.data_file(name, 0)) and data.full}
    for stamp, text in sorted(dats.items()):
        before = dats_here.get(stamp, b"")
        if stamp in memory.removed:
            continue
        if not text.startswith(before):
            choice.refused.append(f"{part}/{stamp}.dat was rewritten at the source: it no longer begins with what is here, which stays.")
            continue
        entries, wrong = _repository.parse_dat(text.decode("utf-8", "replace"))
        new = [entry.name for entry in entries if entry.name not in here]
        if text == before and not new:
            continue
        listed = {entry.name for entry in _repository.parse_dat(before.decode("utf-8", "replace"))[0]}  # their md5 are known here
        unfit = wrong + list(_unfit(stamp, [entry.name for entry in entries]))
        unfit += [f"it lists {name}, which is not there" for name in new if offered.get(name, Listed("", 0)).kind != "-"]
        unfit += [f"{name} {why}" for name in new if name not in listed for why in _untimely(name, memory, now)]
        if unfit:
            choice.refused.append(f"{part}/{stamp}.dat is not taken over: {unfit[0]}.")
        else:
            choice.chains[stamp] = new
    for stamp, new in list(choice.chains.items()):
        behind = min((other for other in chains | set(choice.chains) if other > stamp), default="~")
        if any(name[: len(stamp)] >= behind for name in new):
            choice.refused.append(f"{part}/{stamp}.dat is not taken over: it goes on behind the chain {behind}.")
            del choice.chains[stamp]
    return choice


def _unfit(stamp: str, names: list[str]) -> Iterator[str]:
    """Yield why the files that a .dat file lists are no chain of this stamp."""
    files = [_repository.data_file(name, 0) for name in names]
    stamps = [one.stamp for one in files if one]
    if not all(files):
        yield f"it lists {names[files.index(None)]}, which no backup is called"
    elif [one.full for one in files if one] != [True] + [False] * (len(files) - 1) or stamps[0] != stamp:
        yield "it does not list its full backup first and no other"
    elif stamps != sorted(set(stamps)):
        yield "it lists its files out of order"


def _untimely(name: str, memory: Memory, now: datetime) -> Iterator[str]:
    """Yield why a name that begins with a stamp is not taken over, as the end of a sentence."""
    stamp = name[: len("2026-11-24-02-00-00")]
    try:
        moment = _repository.time_of(stamp)
    except ValueError:
        yield "is named after a moment that no calendar has"
        return
    if moment > now + _AHEAD:
        yield f"is of the future: it is {now:{_repository.STAMP}} by this host's clock"
    elif stamp <= memory.newest and name not in memory.pending:
        yield f"was not there before, and is not newer than {memory.newest}, up to which everything was pulled"


def choose_sets(offered: Mapping[str, Listed], here: Iterable[str], memory: Memory, now: datetime) -> tuple[list[str], list[str]]:
    """Return the stamps of the sets to take over, from the oldest to the newest, and sentences about those that are refused."""
    chosen, refused = [], []
    newest = max(here, default=None)
    if newest and newest not in offered:
        refused.append(f"{SETS}/{newest} is the newest set here and no longer at the source, which never removes its newest.")
    for stamp, one in sorted(offered.items()):
        if not _STAMP.fullmatch(stamp) or stamp in memory.removed:
            continue
        if one.kind != "d":
            refused.append(f"{SETS}/{stamp} at the source is {_KINDS.get(one.kind, 'a special file')}, not a directory.")
        elif stamp not in here:
            why = list(_untimely(stamp, memory, now))
            refused += [f"{SETS}/{stamp} {sentence}." for sentence in why]
            chosen += [] if why else [stamp]
    return chosen, refused


# What is done


def pull(settings: Settings) -> Outcome:
    """Pull what is new at the source, verify it, and remove what the policy does not keep. How it ended is in the status file too.

    Raises RepositoryError when it failed as a whole. Look at ok of what is returned.
    """
    outcome, began = Outcome(), time.monotonic()
    with _repository.lock(settings.directory):
        try:
            _pull(settings, outcome)
        except (RepositoryError, OSError) as error:
            outcome.problem = _repository.told(error, settings.directory)
            raise RepositoryError(outcome.line()) from error
        except BaseException as error:
            outcome.problem = f"it was ended ({type(error).__name__})."
            raise
        finally:
            outcome.seconds = round(time.monotonic() - began, 3)
            _leave_word(settings, outcome)
    return outcome


def _pull(settings: Settings, outcome: Outcome) -> None:
    for part in [*settings.storages, SETS]:
        os.makedirs(settings.copy(part), 0o700, exist_ok=True)
    _sweep(settings.directory)
    for storage in settings.storages:
        with _repository.lock(settings.copy(storage)):
            _sweep(settings.copy(storage))
            _prune.finish(settings.copy(storage))
    memories = _memories(settings)
    dats = _fetch_dats(settings)  # first: what they list is there when the list is made
    offered = _list(settings)
    choices = {}
    for storage in settings.storages:
        mine, here = {stamp: text for stamp, text in dats[storage].items() if f"{stamp}.dat" in offered[storage]}, _sizes(settings.copy(storage))
        choices[storage] = choose(storage, offered[storage], mine, here, _dats(settings.copy(storage)), memories[storage], _prune.now())
        outcome.refused += choices[storage].refused
        _accept(memories[storage], (name for new in choices[storage].chains.values() for name in new), offered[storage])
    sets, refused = choose_sets(offered[SETS], _sets(settings), memories[SETS], _prune.now())
    outcome.refused += refused
    _accept(memories[SETS], sets, offered[SETS])
    # What is accepted is written down before any of it arrives: a pull that the source makes fail does not leave the past open.
    _remember(settings, memories)
    _fetch_chains(settings, choices, offered, outcome)
    for storage, choice in choices.items():
        _land_chains(settings, storage, choice, dats[storage], outcome)
    for stamp in sets:
        _fetch_set(settings, stamp, outcome)
    for part, memory in memories.items():
        landed = _sizes(settings.copy(part))
        memory.pending = [name for name in memory.pending if name not in landed]
    for storage in settings.storages:
        if any(_repository.data_file(name, 0) for name in _sizes(settings.copy(storage))):
            outcome.problems += [f"{storage}: {sentence}" for sentence in _verify.verify(settings.copy(storage), scope="new").problems]
    newest = max(_sets(settings), default=None)
    if newest and not _whole(settings, newest):
        outcome.problems.append(f"{SETS}/{newest} names backups that are not here; nothing newer than the set before it is sure to be restored.")
    if outcome.ok:  # otherwise nobody knows yet what will be needed
        _tidy(settings, memories, outcome)
    _remember(settings, memories)


def _sweep(directory: str) -> None:
    """Remove what a pull that was killed was about to write."""
    for name in _sizes(directory):
        if name.startswith(_repository.TEMPORARY):
            _discard(os.path.join(directory, name))


def _accept(memory: Memory, names: Iterable[str], offered: Mapping[str, Listed]) -> None:
    memory.pending = sorted(names)
    memory.newest = max([memory.newest, *(name[: len("2026-11-24-02-00-00")] for name in memory.pending)])
    memory.removed = [stamp for stamp in memory.removed if any(name.startswith(stamp) for name in offered)]


def _memories(settings: Settings) -> dict[str, Memory]:
    """Return what is remembered of each part. Where nothing is, what is here counts as all that ever was."""
    state: dict[str, Any] = {}
    path = os.path.join(settings.directory, _STATE)
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
        state = dict(_repository.load_json(path))
    found = {}
    for part in [*settings.storages, SETS]:
        stamps = [name[: len("2026-11-24-02-00-00")] for name in _sizes(settings.copy(part)) if _STAMP.match(name)]
        try:
            found[part] = Memory(**state[part])
        except (KeyError, TypeError):
            found[part] = Memory(max(stamps, default=""))
    return found


def _remember(settings: Settings, memories: Mapping[str, Memory]) -> None:
    text = json.dumps({part: dataclasses.asdict(memory) for part, memory in memories.items()}, indent=1, sort_keys=True)
    _repository.replace(os.path.join(settings.directory, _STATE), text.encode() + b"\n")


def _sizes(directory: str) -> dict[str, int]:
    with contextlib.suppress(FileNotFoundError):
        return {entry.name: entry.stat(follow_symlinks=False).st_size for entry in os.scandir(directory)}
    return {}


def _dats(directory: str) -> dict[str, bytes]:
    """Return the content of each .dat file in a repository by its chain's stamp."""
    found = {}
    for name in _sizes(directory):
        path, match = os.path.join(directory, name), _DAT.fullmatch(name)
        if match and stat.S_ISREG(os.lstat(path).st_mode):
            with _repository.open_regular(path) as stream:
                found[match[1]] = stream.read()
    return found


def _sets(settings: Settings) -> list[str]:
    return sorted(name for name in _sizes(settings.copy(SETS)) if _STAMP.fullmatch(name))


# From the source


def _fetch_dats(settings: Settings) -> dict[str, dict[str, bytes]]:
    """Return what the .dat files of each storage hold at the source, by the stamps of their chains."""
    place = settings.incoming("dats")
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place, 0o700)
    wanted = [f"--include={pattern}" for storage in settings.storages for pattern in (f"/{storage}/", f"/{storage}/*.dat")]
    _rsync(settings, ["--recursive", *wanted, "--exclude=*", settings.source, f"{place}/"], limit=_DAT_LIMIT)
    return {storage: _dats(os.path.join(place, storage)) for storage in settings.storages}


def _list(settings: Settings) -> dict[str, dict[str, Listed]]:
    """Return what the source shows of each part, by name, without what is below that."""
    shown = _rsync(settings, ["--list-only", "--recursive", "--links", "--devices", "--specials", "--exclude=/*/*/*", settings.source])
    found: dict[str, dict[str, Listed]] = {part: {} for part in [*settings.storages, SETS]}
    for line in shown.splitlines():
        match = _LINE.fullmatch(line)
        if match:
            part, _slash, name = match[3].split(" -> ")[0].partition("/")
            if name and part in found:
                found[part][name] = Listed(match[1], int(match[2]))
    return found


def _fetch_chains(settings: Settings, choices: Mapping[str, Choice], offered: Mapping[str, Mapping[str, Listed]], outcome: Outcome) -> None:
    """Bring the data files that were chosen. What a pull that was interrupted brought of them is gone on with."""
    wanted = {f"{storage}/{name}": offered[storage][name].bytes for storage, choice in choices.items() for new in choice.chains.values() for name in new}
    staged = {}
    for storage in settings.storages:
        os.makedirs(settings.incoming(storage), 0o700, exist_ok=True)
        for name, size in _sizes(settings.incoming(storage)).items():
            if f"{storage}/{name}" in wanted:
                staged[f"{storage}/{name}"] = size
            else:
                _discard(settings.incoming(storage, name))
    if not wanted:
        return
    _need_room(settings, sum(wanted.values()) - sum(staged.values()))
    options = ["--times", "--partial", "--files-from=-", "--from0", "--ignore-missing-args", settings.source, settings.incoming("")]
    _rsync(settings, options, names="\0".join(sorted(wanted)), limit=max(wanted.values()))
    for path, size in wanted.items():
        place = settings.incoming(path)
        if not os.path.lexists(place):
            outcome.warnings.append(f"{path} vanished from the source while it was pulled.")
        elif not stat.S_ISREG(os.lstat(place).st_mode) or os.lstat(place).st_size != size:
            outcome.refused.append(f"{path} arrived with another size than the {size} bytes that the source had shown.")
            _discard(place)


def _land_chains(settings: Settings, storage: str, choice: Choice, dats: Mapping[str, bytes], outcome: Outcome) -> None:
    """Verify each chain as it would be, beside the copy, and move what is sound into it: the data first, the .dat file last."""
    place, copy = settings.incoming(storage), settings.copy(storage)
    chains = {stamp: new for stamp, new in choice.chains.items() if all(os.path.lexists(os.path.join(place, name)) for name in new)}
    if not chains:
        return
    for stamp, new in chains.items():
        for entry in _repository.parse_dat(dats[stamp].decode("utf-8", "replace"))[0]:
            if entry.name not in new:
                os.link(os.path.join(copy, entry.name), os.path.join(place, entry.name), follow_symlinks=False)
        _repository.replace(os.path.join(place, f"{stamp}.dat"), dats[stamp])
    _repository.write_state(place, {"verified": _repository.section(_repository.read_state(copy), "verified")})
    # What did not arrive whole belongs to no chain that is about to land.
    for name in set(_sizes(place)) - {entry for stamp in chains for entry in _names(dats[stamp])} - {f"{stamp}.dat" for stamp in chains} - {_repository.STATE}:
        _discard(os.path.join(place, name))
    report = _verify.verify(place, scope="new")
    verified = _repository.section(_repository.read_state(place), "verified")
    for chain in report.chains:
        new = chains[chain["stamp"]]
        if not chain["ok"]:
            outcome.refused.append(f"{storage}/{chain['stamp']}.dat is not taken over, since what came with it is not sound: {chain['problems'][0]}")
            continue
        with _repository.lock(copy):
            _land(place, copy, f"{chain['stamp']}.dat", dats[chain["stamp"]], new)
            state = {key: value for key, value in _repository.read_state(copy).items() if key != "writing"}
            known = {**_repository.section(state, "verified"), **{name: verified[name] for name in new if name in verified}}
            _repository.write_state(copy, {**state, "verified": known})
        outcome.files += len(new)
        outcome.bytes += sum(os.lstat(os.path.join(place, name)).st_size for name in new)
    shutil.rmtree(place)


def _land(place: str, copy: str, dat: str, text: bytes, new: list[str]) -> None:
    """Move a chain's new files from place into the copy, one after the other. text: what the .dat file of that name shall hold.

    Killed at any moment, only the newest file has no line yet, and what is remembered says so: the chain restores up to the one before.
    """
    path, lines = os.path.join(copy, dat), text.split(b"\n")
    listed = _dats(copy).get(dat.split(".")[0], b"").count(b"\n")  # what is there begins as text does, and no line of it may go
    for number, name in enumerate(_names(text)):
        if name not in new:
            continue
        if number > listed:
            _repository.replace(path, b"\n".join([*lines[:number], b""]))
            listed = number
        if number >= listed:
            _repository.write_state(copy, {**_repository.read_state(copy), "writing": name})
        with open(os.path.join(place, name), "rb") as stream:
            os.fsync(stream.fileno())
        os.link(os.path.join(place, name), os.path.join(copy, name), follow_symlinks=False)  # which never replaces
        _repository.sync(copy)
    _repository.replace(path, text)


def _names(dat: bytes) -> list[str]:
    return [entry.name for entry in _repository.parse_dat(dat.decode("utf-8", "replace"))[0]]


def _fetch_set(settings: Settings, stamp: str, outcome: Outcome) -> None:
    """Bring a set, compare it with its manifest, and give it its name. What did not change is a hard link to the set before."""
    place, before = settings.incoming(SETS, stamp), [one for one in _sets(settings) if one < stamp][-1:]
    for other in set(_sizes(settings.incoming(SETS))) - {stamp}:
        _discard(settings.incoming(SETS, other))
    os.makedirs(place, 0o700, exist_ok=True)
    options = ["--recursive", "--times", "--partial", "--delete", *(f"--link-dest={settings.copy(SETS, one)}" for one in before)]
    options += [f"{settings.source}{SETS}/{stamp}/", f"{place}/"]
    told = re.search(r"^Total transferred file size: ([0-9]+)", _rsync(settings, ["--dry-run", "--stats", *options]), re.MULTILINE)
    size = int(told[1]) if told else 0
    _need_room(settings, size)
    _rsync(settings, options, limit=max(size, 1))
    wrong = next(_wrong_set(place), None)
    if wrong:
        outcome.refused.append(f"{SETS}/{stamp} is not taken over: {wrong}")
        _discard(place)
        return
    _command(["sync", "--file-system", place])
    os.rename(place, settings.copy(SETS, stamp))
    _repository.sync(settings.copy(SETS))
    outcome.sets.append(stamp)
    outcome.warnings += _lacking(f"{SETS}/{stamp}", _manifest(settings.copy(SETS, stamp))["archive"])
    outcome.bytes += size


def _wrong_set(place: str) -> Iterator[str]:
    """Yield why a directory is not the set that its manifest describes."""
    try:
        told = _manifest(place)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"its manifest.json cannot be used: {_repository.reason(error)}."
        return
    stored = [os.lstat(path) for path in _files(os.path.join(place, "archive"))]
    found = {"files": len(stored), "bytes": sum(one.st_size for one in stored)}
    if found != {key: told["archive"][key] for key in found}:
        yield f"it has {found['files']} stored files of {found['bytes']} bytes; its manifest says {told['archive']['files']} of {told['archive']['bytes']}."
    if {os.path.relpath(path, os.path.join(place, "etc")): _sha256(path) for path in _files(os.path.join(place, "etc"))} != told["etc"]:
        yield "the files of its configuration are not those of its manifest."


def _manifest(place: str) -> dict[str, Any]:
    """Return what is needed of a set's manifest. Raises ValueError, KeyError, TypeError or AttributeError for one that was not made by backup_set."""
    told = _repository.load_json(os.path.join(place, "manifest.json"))
    storages: list[dict[str, Any]] = [
        {"name": str(one["name"]), "end": int(one["end"]), "file": one["file"] and str(one["file"]), "newest": (one["last_transaction"] or {}).get("time")}
        for one in told["storages"]
    ]
    if any(not re.fullmatch("[a-z][a-z0-9-]*", one["name"]) for one in storages):
        raise ValueError("a storage has no good name")
    archive = {"files": int(told["archive"]["files"]), "bytes": int(told["archive"]["bytes"])}
    archive |= {"link_count": int(told["archive"].get("link_count", 0)), "left_out": len(told["archive"].get("left_out", []))}
    return {"storages": storages, "archive": archive, "etc": dict(told["etc"]), "why": str(told["why"]), "who": str(told["who"])}


def _lacking(name: str, archive: Mapping[str, int]) -> Iterator[str]:
    """Yield sentences about stored files of a set that are not here though nothing is wrong with the pull."""
    if archive["link_count"]:
        yield f"{name}: {archive['link_count']} symbolic links between its stored files are not copied; its manifest.json lists them."
    if archive["left_out"]:
        yield f"{name} is incomplete at the source: {archive['left_out']} links lead out of its archive, and their files are in no set."


def _files(directory: str) -> Iterator[str]:
    for place, _directories, names in os.walk(directory):
        for name in names:
            if stat.S_ISREG(os.lstat(os.path.join(place, name)).st_mode):
                yield os.path.join(place, name)


def _sha256(path: str) -> str:
    with _repository.open_regular(path) as stream:
        return hashlib.sha256(stream.read()).hexdigest()


def _discard(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


# rsync


def _free(settings: Settings) -> int:
    """Return how many bytes may still be written, 0 when inodes are about to run out."""
    found = os.statvfs(settings.directory)
    if found.f_files and found.f_favail < _FEW:
        return 0
    return max(0, found.f_bavail * found.f_frsize - settings.reserve_mb * 2**20)


def _need_room(settings: Settings, size: int) -> None:
    if size > _free(settings):
        raise RepositoryError(
            f"{settings.name} has {size} bytes that are not here, and {settings.directory} has room for {_free(settings)},"
            f" when {settings.reserve_mb} MiB stay free. What is here stays."
        )


def _rsync(settings: Settings, options: list[str], *, names: str = "", limit: int | None = None) -> str:
    """Run rsync and return what it prints. No file that it writes may be larger than limit, and it is ended when the room runs out.

    Raises RepositoryError with a sentence that says why it failed.
    """
    argv = ["rsync", "--no-human-readable", "--perms", "--chmod=D700,F600", f"--timeout={_SILENCE}", *(["--rsh", settings.shell] if settings.shell else [])]
    environment = {**os.environ, "LC_ALL": "C"}
    environment.pop("RSYNC_RSH", None)

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    try:
        process = subprocess.Popen(
            argv + options,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            preexec_fn=limited,
        )
    except FileNotFoundError as error:
        raise RepositoryError("There is no rsync on this host.") from error
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                out, err = process.communicate(names, timeout=1)  # a silent source is given up by rsync itself
                break
            if limit is not None and not _free(settings):
                raise RepositoryError(f"{settings.directory} was about to be full, of which {settings.reserve_mb} MiB stay free. What is here stays.")
    except BaseException:
        _children.end(process)
        raise
    if process.returncode not in (0, 24):  # 24: files vanished while they were read
        raise RepositoryError(_why(settings, process.returncode, err))
    return out


def _why(settings: Settings, code: int, said: str) -> str:
    """Return a sentence that says why rsync failed, from what it and ssh wrote."""
    last = " ".join(line for line in said.strip().splitlines() if not line.startswith("rsync error:"))[-500:]
    known = {
        "unix connect failed": "does not offer its backups: nobody listens on its socket",
        "Host key verification failed": "shows an SSH key that is not the one known here. Run site.yml for both hosts, if it was set up anew",
        "Permission denied (": "refuses the SSH key of this host. Run site.yml for both hosts",
        "No space left on device": "has more than there is room for here. What is here stays",
        "Could not resolve hostname": "has a name that cannot be resolved here",
        "Connection refused": "refuses connections to its SSH server",
        "Connection timed out": "cannot be reached: the connection timed out",
        "No route to host": "cannot be reached: there is no route to it",
        "Unknown module": "does not offer its backups",
    }
    for words, meaning in known.items():
        if words in said:
            return f"{settings.name} {meaning} ({last})."
    if code in (30, 35):
        return f"{settings.name} was silent for {_SILENCE} seconds ({last})."
    return f"Reading from {settings.name} failed (rsync's exit code {code}): {last}"


def _command(argv: list[str]) -> None:
    done = _children.run(argv, limit=_children.LONG, stderr=subprocess.STDOUT)
    if done.returncode:
        raise RepositoryError(f"{argv[0]} failed (exit code {done.returncode}): {done.stdout.strip()[-500:]}")


# What is here


def _whole(settings: Settings, stamp: str) -> bool:
    """Whether every storage can be restored from here to what the set of this stamp says of it, and was verified here."""
    for one in _manifest(settings.copy(SETS, stamp))["storages"]:
        path = settings.copy(one["name"])
        chains = _repository.read(path).chains if os.path.isdir(path) else []
        state = _repository.read_state(path) if chains else {}
        # It was made at the stamp or, when nothing was new, before: the chain of then must be here.
        made = (one["file"] or stamp).split(".")[0]
        if one["end"] and not any(chain.stamp <= made and chain.end >= one["end"] and not chain.problems and _prune.verified(chain, state) for chain in chains):
            return False
    return True


def _tidy(settings: Settings, memories: dict[str, Memory], outcome: Outcome) -> None:
    """Prune the repositories, then remove the sets that can no longer be restored; the newest always stays."""
    oldest = ""
    for storage in settings.storages:
        copy = settings.copy(storage)
        planned = _prune.prune(copy, settings.policy(), check=True)
        outcome.warnings += [f"{storage}: {sentence}" for sentence in planned.warnings]
        if planned.deleted:
            memories[storage].removed += planned.deleted
            _remember(settings, memories)  # before, or the source would offer them as if they had never been here
            outcome.deleted += [f"{storage}/{stamp}" for stamp in _prune.prune(copy, settings.policy()).deleted]
        kept = [chain["stamp"] for chain in planned.chains if chain["stamp"] not in planned.deleted]
        oldest = max(oldest, kept[0]) if kept else oldest
    for stamp in [one for one in _sets(settings)[:-1] if one < oldest and not _whole(settings, one)]:
        memories[SETS].removed.append(stamp)
        _remember(settings, memories)
        outcome.deleted.append(f"{SETS}/{stamp}")
        going = settings.incoming(SETS, stamp)
        os.makedirs(settings.incoming(SETS), 0o700, exist_ok=True)
        os.rename(settings.copy(SETS, stamp), going)
        shutil.rmtree(going)


def _leave_word(settings: Settings, outcome: Outcome) -> None:
    """Write down how the pull ended, for people and for monitoring, also when it failed."""
    last: dict[str, Any] = {}
    with contextlib.suppress(RepositoryError):
        last = status(settings)
    now, newest = int(time.time()), None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, RepositoryError):
        newest = next((stamp for stamp in reversed(_sets(settings)) if _whole(settings, stamp)), None)
    moment = int(_repository.time_of(newest).timestamp()) if newest else None
    found = {
        **dataclasses.asdict(outcome),
        "ok": outcome.ok,
        "line": outcome.line(),
        "ended": datetime.fromtimestamp(now, timezone.utc).strftime(_verify.TIME),
        "ended_seconds": now,
        "success_seconds": now if outcome.ok else last.get("success_seconds", 0),
        "verified_seconds": now if not outcome.problem and not outcome.problems else last.get("verified_seconds", 0),
        "newest_set": newest,
        "newest_set_seconds": moment,
        "lag_seconds": None if moment is None else now - moment,
    }
    with contextlib.suppress(OSError):  # a full disk must not hide the first error
        _repository.replace(os.path.join(settings.directory, _STATUS), json.dumps(found, indent=1, sort_keys=True).encode() + b"\n")
        if settings.metrics:
            _repository.replace(settings.metrics, _metrics(settings, found).encode())
            os.chmod(settings.metrics, 0o644)


def _metrics(settings: Settings, found: Mapping[str, Any]) -> str:
    grade = 0 if found["problem"] else 2 if found["ok"] else 1
    rows: list[_backup_status.Row] = [
        ("offsite_status", "2 after a success, 1 when something was refused or is not sound, 0 after a failure", [({}, grade)]),
        ("offsite_time_seconds", "When the last pull ended", [({}, found["ended_seconds"])]),
        ("offsite_success_time_seconds", "When the last good pull ended", [({}, found["success_seconds"])]),
        ("offsite_verified_time_seconds", "When all that is here was last found sound", [({}, found["verified_seconds"])]),
        ("offsite_bytes", "What the last pull brought", [({}, found["bytes"])]),
        ("offsite_refused", "What the source offered and was refused", [({}, len(found["refused"]))]),
    ]
    if found["lag_seconds"] is not None:
        rows.append(("offsite_lag_seconds", "Age of the newest set that can be restored from here, when the last pull ended", [({}, found["lag_seconds"])]))
    return _backup_status.prometheus(settings.instance, rows)


def status(settings: Settings) -> dict[str, Any]:
    """Return the word that the last pull left. Raises RepositoryError when none did or it is damaged."""
    path = os.path.join(settings.directory, _STATUS)
    try:
        return dict(_repository.load_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise RepositoryError(f"No pull has left word in {path}: {_repository.reason(error)}.") from error


def lines(settings: Settings) -> list[str]:
    """Return a line for each set that is here, from the oldest to the newest."""
    found = []
    for stamp in _sets(settings):
        told = _manifest(settings.copy(SETS, stamp))
        newest = ", ".join(f"{one['name']} to {one['newest'] or 'nothing'}" for one in told["storages"])
        found.append(
            f"{stamp}  {newest}, {told['archive']['files']} stored files  ({told['why']}, {told['who']}){'' if _whole(settings, stamp) else '  NOT WHOLE'}"
        )
    return found


def judge(found: Mapping[str, Any], now: float, warning_hours: float, critical_hours: float) -> tuple[int, str]:
    """Return the exit code for monitoring and the line that says why, the worst first. found is what status() returns; now is in seconds."""
    said = sorted(_findings(found, now, warning_hours, critical_hours), key=lambda one: -one[0])
    if said:
        word = "CRITICAL" if said[0][0] == _backup_status.CRITICAL else "WARNING"
        return said[0][0], f"{word}: {'; '.join(text for _code, text in said)}"
    return _backup_status.OK, f"OK: the newest set here is {(now - found['newest_set_seconds']) / 3600:.0f} hours old"


def _findings(found: Mapping[str, Any], now: float, warning_hours: float, critical_hours: float) -> Iterator[tuple[int, str]]:
    for kind, sentences in (("not sound", found["problems"]), ("refused", found["refused"])):
        if sentences:
            yield _backup_status.CRITICAL, f"{len(sentences)} {kind}: {sentences[0]}"
    if found["newest_set_seconds"] is None:
        yield _backup_status.CRITICAL, "there is no set here that can be restored"
    else:
        hours = (now - found["newest_set_seconds"]) / 3600
        if hours > warning_hours:
            yield (_backup_status.CRITICAL if hours > critical_hours else _backup_status.WARNING), f"the newest set here is {hours:.0f} hours old"
    if found["problem"]:
        yield _backup_status.WARNING, f"the last pull failed: {found['problem']}"
