# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Retention: which chains of a repozo repository stay, and how the others go.

A chain goes so that at any moment what is left of it is the beginning of a chain. confops.json names it first; then go its
index files, its incremental backups from the newest to the oldest, its .dat file, and its full backup last. Stock repozo
restores by the directory alone: while a chain goes it restores an older state than asked for, as after a missed backup.
With the full backup gone first, it would join the incremental ones to the chain before.

All that is decided follows from names, .dat files and confops.json, never from times of files. The calendar is UTC.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from ansible_collections.confops.indico.plugins.module_utils import _repository
from ansible_collections.confops.indico.plugins.module_utils._repository import Chain, Repository, RepositoryError

_LONGEST = 36500  # days that a window may have, and the most of anything else
_OPTION_PERIOD = (("keep_daily", "day", "%Y-%m-%d"), ("keep_weekly", "week", "%G-W%V"), ("keep_monthly", "month", "%Y-%m"), ("keep_yearly", "year", "%Y"))
_NAME = re.compile(r"([0-9]{4}(?:-[0-9][0-9]){5})\.(dat|index|deltafs|fs)(?:(?<=fs)z)?")
_PINS, _PRUNING = "pins", "pruning"  # keys of confops.json: lists of stamps


@dataclass(frozen=True)
class Policy:
    """What stays. damaged is keep or delete. Raises RepositoryError for a policy that makes no sense."""

    window_days: int | None = None
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    keep_chains_min: int = 2
    require_verified: bool = True
    damaged: str = "keep"

    def __post_init__(self) -> None:
        why_not = refusal({name: getattr(self, name) for name in NUMBERS})
        if why_not:
            raise RepositoryError(why_not)

    @property
    def counted(self) -> str:
        """What keep_chains_min is a number of."""
        return "verified" if self.require_verified else "sound"


NUMBERS = ("window_days", *(option for option, _word, _form in _OPTION_PERIOD), "keep_chains_min")


def refusal(options: dict[str, Any], prefix: str = "") -> str | None:
    """Return why numbers make no policy, a sentence that names the first wrong one, None for a policy that makes sense.

    options holds any of NUMBERS, as they were given; what is left out has its default. prefix stands before their names in the sentence.
    """
    for option in NUMBERS:
        given = options.get(option)
        if given is None and option not in ("keep_chains_min",):
            continue
        if option == "keep_chains_min" and option not in options:
            continue
        if not isinstance(given, int) or isinstance(given, bool):
            return f"{prefix}{option} is {str(given)[:40]}; a whole number is needed."
        if option == "window_days" and not 1 <= given <= _LONGEST:
            return f"{prefix}{option} is {given}; a window has 1 to {_LONGEST} days. Leave it out to have none."
        if option == "keep_chains_min" and given < 1:
            return f"{prefix}{option} is {given}; at least 1 chain must remain."
        if given < 0:
            return f"{prefix}{option} is {given}; it is a number of generations, 0 or more."
        if given > _LONGEST:
            return f"{prefix}{option} is {given}; more than {_LONGEST} make no sense."
    if options.get("window_days") is None and not any(options.get(option) for option, _word, _form in _OPTION_PERIOD):
        names = ", ".join(f"{prefix}{option}" for option, _word, _form in _OPTION_PERIOD)
        return f"Neither {prefix}window_days nor any of {names} is given: that would be a policy to delete everything."
    return None


class Verdict(NamedTuple):
    """Whether a chain stays, and why. The incremental backups before the first full one are judged like a chain, named after the first of them."""

    chain: Chain
    keep: bool
    reasons: list[str]


@dataclass
class Result:
    """What a run did, or in check mode would do. chains are as the module returns them; sizes are bytes."""

    chains: list[dict[str, Any]]
    deleted: list[str]
    freed_bytes: int
    remaining_window: dict[str, str] | None
    pins: list[str]
    changed: bool
    diff: dict[str, str]
    warnings: list[str] = field(default_factory=list)


def now() -> datetime:
    """Return what the clock says."""
    return datetime.now(timezone.utc)


# What is decided


def decide(repository: Repository, state: dict[str, Any], policy: Policy, now: datetime) -> list[Verdict]:
    """Judge each chain, from the oldest to the newest. state is what confops.json holds.

    A chain that is named after a moment of the future stays, and no other one goes because of it: the clock was wrong once.
    """
    groups = _groups(repository)
    doomed = {chain.stamp for chain in _doomed(groups, state)}
    present = _repository.stamp_of(now)
    sound = [chain for chain in _sound(groups, doomed) if chain.stamp <= present]
    begin = _window_begin(sound, policy, now)
    rules = _rules(sound, policy, begin)
    pins, known, same = set(_stamps(state, _PINS)), _repository.section(state, "verified"), Counter(chain.stamp for chain, _problems in groups)
    verdicts, newer = [], 0
    for chain, problems in reversed(groups):
        if chain.stamp in doomed:
            verdicts.append(Verdict(chain, False, ["its deletion has begun"]))
            continue
        counts = not problems and chain.stamp <= present and (not policy.require_verified or _remembered(chain, known))
        reasons = ["pinned"] if chain.stamp in pins else []
        if problems:
            if policy.damaged == "keep":
                reasons.append(f"damaged, and such chains are kept: {problems[0]}")
            elif same[chain.stamp] > 1:
                reasons.append("another full backup has the same name")
            elif begin is not None and chain.files[-1].stamp > begin:
                reasons.append("in the recovery window, though damaged")
        elif chain.stamp > present:
            reasons.append("its name is of the future")
        reasons += rules.get(chain.stamp, [])
        if newer < policy.keep_chains_min:
            many = policy.keep_chains_min
            reasons.append(f"one of the newest {many} {policy.counted} chains" if counts else f"fewer than {many} {policy.counted} chains are newer")
        newer += counts
        verdicts.append(Verdict(chain, bool(reasons), reasons or ([f"damaged: {problems[0]}"] if problems else ["no rule keeps it"])))
    return verdicts[::-1]


def verified(chain: Chain, state: dict[str, Any]) -> bool:
    """Whether each file of a sound chain is remembered as verified, with the size that it has and the md5 that the .dat file says."""
    return _remembered(chain, _repository.section(state, "verified"))


def _remembered(chain: Chain, known: dict[str, dict[str, Any]]) -> bool:
    md5 = {entry.name: entry.md5 for entry in chain.entries}
    memories = [(known.get(one.name, {}), one) for one in chain.files]
    return all(memory.get("bytes") == one.bytes and memory.get("md5") == md5[one.name] for memory, one in memories)


def warnings(repository: Repository, state: dict[str, Any], policy: Policy, now: datetime, verdicts: Sequence[Verdict]) -> list[str]:
    """Say what the operator should know beside the verdicts."""
    found = []
    groups = _groups(repository)
    sound = _sound(groups, {chain.stamp for chain in _doomed(groups, state)})
    if sound:
        newest = sound[-1].files[-1]
        age = now - newest.time
        if age < timedelta(0):
            found.append(
                f"{newest.name} is of the future: it is {_repository.stamp_of(now)} by this host's clock. The clock was set back, or it was wrong before."
                " It stays, and no other chain goes because of it."
            )
        elif policy.window_days and age > timedelta(days=policy.window_days):
            found.append(
                f"The newest sound backup, {newest.name}, is {age.days} days old: backups have stopped, or the clock has jumped."
                " The recovery window is measured from that backup."
            )
    pruning = set(_stamps(state, _PRUNING))
    for (chain, problems), verdict in zip(groups, verdicts):
        if problems and chain.stamp not in pruning:
            fate = "kept" if verdict.keep else "deleted"
            found.append(f"The chain {chain.stamp} is damaged and counts for nothing; it is {fate}: {problems[0]}")
    known, present = _repository.section(state, "verified"), _repository.stamp_of(now)
    counted = sum(chain.stamp <= present and (not policy.require_verified or _remembered(chain, known)) for chain in sound)
    held = [verdict for verdict in verdicts if verdict.keep and all(reason.startswith("fewer than") for reason in verdict.reasons)]
    if held and counted < policy.keep_chains_min:
        kind = policy.counted
        found.append(f"No chain may go yet: {policy.keep_chains_min} {kind} chains must be newer than one that goes; {kind} here: {counted}.")
    here = {chain.stamp for chain, _problems in groups}
    found += [f"The chain {stamp} is pinned, but it is not here." for stamp in _stamps(state, _PINS) if stamp not in here]
    return found


def _groups(repository: Repository) -> list[tuple[Chain, list[str]]]:
    """Return each chain with what is wrong with it."""
    groups = [(chain, chain.problems) for chain in repository.chains]
    if not repository.strays:
        return groups
    return [(Chain(repository.strays[0].stamp, repository.strays), ["its incremental backups continue a full one that is not here."]), *groups]


def _sound(groups: Sequence[tuple[Chain, list[str]]], without: Iterable[str]) -> list[Chain]:
    return [chain for chain, problems in groups if not problems and chain.stamp not in without]


def _window_begin(sound: Sequence[Chain], policy: Policy, now: datetime) -> str | None:
    """Return the stamp of the first moment of the window, None without one. The chains begin no later than now.

    It is measured from the newest backup that is not of the future. So no chain grows old by the clock alone, whether the clock
    is wrong or backups have stopped, nor by a backup that was made while the clock was ahead.
    """
    if policy.window_days is None or not sound:
        return None
    present = _repository.stamp_of(now)
    newest = max(one for chain in sound[-1:] for one in (file.stamp for file in chain.files) if one <= present)
    try:
        return _repository.stamp_of(_repository.time_of(newest) - timedelta(days=policy.window_days))
    except OverflowError:
        return ""


def _rules(sound: Sequence[Chain], policy: Policy, begin: str | None) -> dict[str, list[str]]:
    """Return the reasons that the window and the generations give, by stamp."""
    reasons: dict[str, list[str]] = {chain.stamp: [] for chain in sound}
    if begin is not None:
        for chain in sound:
            if chain.files[-1].stamp > begin:
                reasons[chain.stamp].append("in the recovery window")
        before = [chain.stamp for chain in sound if chain.stamp <= begin]
        if before and not reasons[before[-1]]:
            reasons[before[-1]].append("what the recovery window begins with")
    for option, word, form in _OPTION_PERIOD:
        seen: set[str] = set()
        for chain in reversed(sound):
            period = _repository.time_of(chain.stamp).strftime(form)
            if period not in seen and len(seen) < getattr(policy, option):
                seen.add(period)
                reasons[chain.stamp].append(f"the newest of the {word} {period}")
    return reasons


# What confops.json says


def _stamps(state: dict[str, Any], key: str) -> list[str]:
    found = state.get(key)
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def _refuse_lost_pins(path: str, state: dict[str, Any]) -> None:
    """Raise RepositoryError when pins may have been lost with a damaged confops.json and none have been named since."""
    lost = ([_repository.STATE] if _repository.damaged(path) else []) + _repository.aside(path)
    if lost and not _stamps(state, _PINS):
        raise RepositoryError(
            f"{lost[0]} in {path} is damaged, so it is not known which chains are pinned; nothing was deleted."
            " Pin them again, or remove that file if there were none."
        )


def _repin(groups: Sequence[tuple[Chain, list[str]]], state: dict[str, Any], path: str, pin: Sequence[str], unpin: Sequence[str]) -> list[str]:
    """Return the pins as they shall be. Raises RepositoryError for a chain that cannot be pinned."""
    named = {chain.stamp: problems for chain, problems in reversed(groups)}
    for stamp in pin:
        if stamp in unpin:
            raise RepositoryError(f"The chain {stamp} is both in pin and in unpin.")
        if stamp not in named:
            raise RepositoryError(f"There is no chain {stamp} in {path} to pin; a chain is named after its full backup, like 2026-11-24-02-00-00.")
        if stamp in _stamps(state, _PRUNING) and named[stamp]:
            raise RepositoryError(f"The chain {stamp} can no longer be pinned: its deletion has begun.")
    return sorted({*_stamps(state, _PINS), *pin} - set(unpin))


# What is done


def prune(path: str, policy: Policy, *, pin: Sequence[str] = (), unpin: Sequence[str] = (), check: bool = False) -> Result:
    """Delete the chains that the policy does not keep, or with check say which.

    Raises RepositoryError, whose message is for the operator.
    """
    moment = now()
    with _repository.lock(path):
        try:
            repository, state, here = _repository.read(path), _repository.read_state(path), _repository.listing(path)
        except OSError as error:
            raise RepositoryError(f"The repository {path} cannot be read: {_repository.reason(error, path)}. Nothing was deleted.") from error
        _repository.compare(repository, state, here)
        sizes = {name: 0 if one.link else one.bytes for name, one in here.items()}  # what a link leads to stays
        groups = _groups(repository)
        pinned = _with(state, _PINS, _repin(groups, state, path, pin, unpin))
        _refuse_lost_pins(path, pinned)
        damaged = _repository.set_aside(path, act=False)
        told = [f"{_repository.STATE} was damaged and is kept as {damaged}: it may name other pins."] if damaged else []
        verdicts = decide(repository, pinned, policy, moment)
        gone = [verdict.chain for verdict in verdicts if not verdict.keep]
        marked = _with(pinned, _PRUNING, list(dict.fromkeys(_stamps(state, _PRUNING) + [chain.stamp for chain in gone])))
        names = _names(repository, [verdict.chain for verdict in verdicts], here)
        freed = {name for verdict, going in zip(verdicts, names) if not verdict.keep for name in going}
        deleted = [chain.stamp for chain in gone]
        if not check:
            if marked != state:
                _intend(path, marked)
            finish(path)
            # What counts is what is there.
            freed -= set(os.listdir(path))
            left = {chain.stamp for chain, _problems in _groups(_repository.read(path))}
            deleted = [chain.stamp for chain, _problems in groups if chain.stamp not in left]
    return Result(
        chains=[
            {
                "stamp": verdict.chain.stamp,
                "keep": verdict.keep,
                "reasons": verdict.reasons,
                "files": len(verdict.chain.files),
                "stored_bytes": sum(sizes[name] for name in going),
            }
            for verdict, going in zip(verdicts, names)
        ],
        deleted=deleted,
        freed_bytes=sum(sizes[name] for name in freed),
        remaining_window=_remaining(_sound(groups, {chain.stamp for chain in gone})),
        pins=_stamps(pinned, _PINS),
        changed=bool(deleted) or _with(pinned, _PRUNING, _stay_marked(groups, pinned)) != state,
        diff=_diff(path, groups, state, pinned, deleted),
        warnings=warnings(repository, pinned, policy, moment, verdicts) + told + _links(here, deleted, freed),
    )


def _links(here: dict[str, _repository.Found], deleted: Sequence[str], freed: Collection[str]) -> list[str]:
    """Say which deleted names were symbolic links, since what they lead to stays."""
    links = sorted(name for name in freed if here[name].link) if deleted else []
    return [f"{name} was a symbolic link: the link goes, the file that it leads to stays." for name in links]


def _intend(path: str, state: dict[str, Any]) -> None:
    """Write which chains go before any does. Raises RepositoryError, which says what the next run finds."""
    try:
        _repository.set_aside(path)
        _repository.write_state(path, state)
    except OSError as error:
        begun = ""
        with contextlib.suppress(OSError):
            if _stamps(state, _PRUNING) and _stamps(_repository.read_state(path), _PRUNING) == _stamps(state, _PRUNING):
                begun = " The next run goes on with it."  # the file is there, but perhaps not on disk
        raise RepositoryError(f"{_repository.STATE} in {path} cannot be written: {error.strerror}. Nothing was deleted.{begun}") from error


def read(path: str, *, acknowledged: bool = True, without: Collection[str] = ()) -> Repository:
    """Read a repository as it will be when the deletions that were begun in it are finished. Raises RepositoryError.

    With acknowledged, a file that an interrupted backup left without its line does not count either; a backup itself has to mend that.
    What confops.json remembers counts among the problems. The files named in without count as not there.
    """
    repository, state = _repository.read(path, without), {}
    with contextlib.suppress(OSError):  # whoever needs more of it says so
        state = _repository.read_state(path)
    doomed = _doomed(_groups(repository), state)
    gone = {name for names in _names(repository, doomed, _repository.listing(path)) for name in names} if doomed else set()
    left = _repository.unacknowledged(repository, state) if acknowledged else None
    if left:
        stamp = left.split(".")[0]
        gone |= {left, f"{stamp}.index"} | ({f"{stamp}.dat"} if left == repository.chains[-1].files[0].name else set())
    if gone:
        repository = _repository.read(path, without={*gone, *without})
    _repository.compare(repository, state, os.listdir(path))
    repository.unacknowledged = left
    repository.unfinished = [
        f"The chain {chain.stamp} counts as gone: its deletion has begun. The next backup or prune removes what is left of it." for chain in doomed
    ]
    if left:
        repository.unfinished.append(unacknowledged(left))
    return repository


def unacknowledged(name: str) -> str:
    """Return the sentence about a data file that an interrupted run did not acknowledge."""
    return f"{name} does not count: the run that wrote it was interrupted. The next backup completes it, or stores the same again."


def finish(path: str, act: bool = True) -> list[str]:
    """Finish the deletions that an interrupted run began, when act, and say which. The lock must be held.

    Where a chain so marked is the newest sound one after all, it stays: others were removed by hand.
    """
    state = _repository.read_state(path)
    if not _stamps(state, _PRUNING):
        return []
    repository = _repository.read(path)
    _repository.compare(repository, state, os.listdir(path))
    groups = _groups(repository)
    doomed = _doomed(groups, state)
    if act:
        for names in _names(repository, doomed, _repository.listing(path)):
            _remove(path, names)
        _forget(path, _with(state, _PRUNING, _stay_marked(groups, state)), len(doomed))
    return [f"removed the chain {chain.stamp}, whose deletion had begun" for chain in doomed]


def _forget(path: str, state: dict[str, Any], removed: int) -> None:
    """Write what is remembered without the files that are gone. Raises RepositoryError, which says what was deleted."""
    try:
        here = set(os.listdir(path))
        for key in ("verified", "stored"):
            if isinstance(state.get(key), dict):
                state[key] = {name: memory for name, memory in state[key].items() if name in here or not _NAME.fullmatch(name)}
        _repository.write_state(path, state)
    except OSError as error:
        raise RepositoryError(
            f"{removed} chains were deleted from {path}, but {_repository.STATE} there cannot be written: {error.strerror}. The next run does that."
        ) from error


def _doomed(groups: Sequence[tuple[Chain, list[str]]], state: dict[str, Any]) -> list[Chain]:
    """Return the chains that are marked as being deleted, except where that cannot be meant: a pinned one, or the last."""
    marked, pins = set(_stamps(state, _PRUNING)), set(_stamps(state, _PINS))
    newest = max((chain.stamp for chain in _sound(groups, marked)), default="")
    same = Counter(chain.stamp for chain, _problems in groups)
    return [chain for chain, _problems in groups if chain.stamp in marked and chain.stamp not in pins and chain.stamp < newest and same[chain.stamp] == 1]


def _stay_marked(groups: Sequence[tuple[Chain, list[str]]], state: dict[str, Any]) -> list[str]:
    """Return the stamps of what was begun to be deleted and cannot go now. What is whole loses its mark instead."""
    doomed = {chain.stamp for chain in _doomed(groups, state)}
    stay = {chain.stamp for chain, problems in groups if problems and chain.stamp not in doomed}
    return [stamp for stamp in _stamps(state, _PRUNING) if stamp in stay]


def _with(state: dict[str, Any], key: str, stamps: list[str]) -> dict[str, Any]:
    """Return a copy with these stamps under a key, without the key when there are none."""
    changed = {name: value for name, value in state.items() if name != key}
    return {**changed, key: stamps} if stamps else changed


def _names(repository: Repository, chains: Sequence[Chain], here: dict[str, _repository.Found]) -> list[list[str]]:
    """Return for each of the chains the files that go with it, in the order in which they go. No directory is among them.

    They are all that is named after its full backup and before the next one: an index may be a second later than its data.
    """
    fulls = sorted({chain.stamp for chain in repository.chains})
    parts: dict[int, list[tuple[str, str, str]]] = {}  # by the number of full backups that are no newer
    for name, one in here.items():
        match = _NAME.fullmatch(name)
        if match and not stat.S_ISDIR(one.mode):
            parts.setdefault(bisect.bisect_right(fulls, match[1]), []).append((match[1], match[2], name))
    found = []
    for chain in chains:
        stray = not chain.files[0].full
        turn = {"index": 0, "deltafs": 1, "dat": 0 if stray else 2, "fs": 3}
        mine = sorted(parts.get(0 if stray else bisect.bisect_right(fulls, chain.stamp), []), reverse=True)
        found.append([name for _stamp, _suffix, name in sorted(mine, key=lambda one: turn[one[1]])])
    return found


def _remove(path: str, names: Sequence[str]) -> None:
    for name in names:
        what = f"{name} in {path} cannot be removed"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(path, name))
            if not name.endswith(".index"):
                what = f"{name} was removed, but {path} cannot be put on disk"
                _repository.sync(path)  # or a power failure might bring back a newer one alone
        except OSError as error:
            raise RepositoryError(f"{what}: {error.strerror}. The next run goes on with it.") from error


def _remaining(sound: Sequence[Chain]) -> dict[str, str] | None:
    if not sound:
        return None
    earliest, latest = sound[0].files[0].time, sound[-1].files[-1].time
    return {"earliest": earliest.isoformat().replace("+00:00", "Z"), "latest": latest.isoformat().replace("+00:00", "Z")}


def _diff(path: str, groups: Sequence[tuple[Chain, list[str]]], before: dict[str, Any], after: dict[str, Any], deleted: Sequence[str]) -> dict[str, str]:
    def shown(stamps: Iterable[str], state: dict[str, Any]) -> str:
        pins = set(_stamps(state, _PINS))
        return "".join(f"{stamp} (pinned)\n" if stamp in pins else f"{stamp}\n" for stamp in stamps)

    stamps, gone = [chain.stamp for chain, _problems in groups], set(deleted)
    return {
        "before_header": path,
        "after_header": path,
        "before": shown(stamps, before),
        "after": shown((stamp for stamp in stamps if stamp not in gone), after),
    }
