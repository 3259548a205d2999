"""prune keeps what the policy says, never less, and can be killed at any moment. Repositories are made of files with made-up names; no clock is asked."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.confops.indico.plugins.module_utils import _catalogue, _history, _prune, _repository, _repozo, _restore, _verify
from ansible_collections.confops.indico.plugins.module_utils._prune import Policy, Verdict, decide
from ansible_collections.confops.indico.plugins.module_utils._repository import Chain, DataFile, Entry, Repository, RepositoryError
from ansible_collections.confops.indico.plugins.modules import repozo_prune
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.storage import Storage

NOW = "2026-03-20 12:00"


def stamp(text: str) -> str:
    """Return the stamp of a date, at two o'clock if it names no time. Seconds may be left out."""
    parts = re.findall(r"\d+", text)
    return "-".join(parts + ["02", "00", "00"][len(parts) - 3 :])


def moment(text: str) -> datetime:
    return _repository.time_of(stamp(text))


class Made:
    """A repository that is made by hand. Each file holds its own name, so that two never look alike."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ends: dict[str, int] = {}

    def chain(self, full: str, *deltas: str, verified: bool = True, compressed: bool = False, index: bool = False) -> str:
        position, lines, known = 0, "", {}
        for number, text in enumerate([full, *deltas]):
            name = f"{stamp(text)}.{'deltafs' if number else 'fs'}{'z' if compressed else ''}"
            content = f"[{name}]".encode()
            (self.path / name).write_bytes(content)
            if index:
                (self.path / f"{stamp(text)}.index").write_bytes(b"index")
            md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
            lines += f"/elsewhere/{name} {position} {position + len(content)} {md5}\n"
            position += len(content)
            known[name] = {"bytes": len(content), "md5": md5}
        (self.path / f"{stamp(full)}.dat").write_text(lines)
        if verified:
            self.remember("verified", known)
        self.remember("stored", known)
        return stamp(full)

    @property
    def state(self) -> dict[str, Any]:
        return _repository.read_state(str(self.path))

    def remember(self, key: str, value: Any) -> None:
        state = self.state
        state[key] = {**state.get(key, {}), **value} if isinstance(value, dict) else value
        _repository.write_state(str(self.path), state)

    def damage(self, full: str) -> str:
        with (self.path / f"{stamp(full)}.fs").open("ab") as stream:
            stream.write(b"more")
        return stamp(full)

    def stamps(self) -> list[str]:
        return [chain.stamp for chain in _repository.read(str(self.path)).chains]

    def seen(self) -> dict[str, bytes]:
        """Return all files, without what a killed run left unfinished."""
        return {one.name: one.read_bytes() for one in self.path.iterdir() if not one.name.startswith(_repository.TEMPORARY)}

    def prune(self, *, pin: Sequence[str] = (), unpin: Sequence[str] = (), **options: Any) -> _prune.Result:
        """Check, run, and run again: the check tells what the run does, and the second run has nothing to do. Return what the first one did."""
        policy, path, before = Policy(**options), str(self.path), self.seen()
        checked = _prune.prune(path, policy, pin=pin, unpin=unpin, check=True)
        assert self.seen() == before
        result = _prune.prune(path, policy, pin=pin, unpin=unpin)
        assert checked == result
        assert result.changed == (self.seen() != before)
        after = self.seen()
        assert result.freed_bytes == sum(len(content) for name, content in before.items() if name not in after)
        again = _prune.prune(path, policy, pin=pin, unpin=unpin)
        assert self.seen() == after
        assert (again.changed, again.deleted, again.freed_bytes) == (False, [], 0)
        return result

    def kept(self, **options: Any) -> list[str]:
        """Prune and return the dates of the chains that are left."""
        self.prune(**options)
        return [one[:10] for one in self.stamps()]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    set_clock(monkeypatch, NOW)
    (tmp_path / "repository").mkdir()
    return Made(tmp_path / "repository")


def set_clock(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(_prune, "now", lambda: moment(text))


def reasons(result: _prune.Result) -> dict[str, list[str]]:
    return {one["stamp"]: one["reasons"] for one in result.chains}


def refusal(made: Made, **options: Any) -> str:
    """Return the sentence with which both check mode and the run refuse. Nothing has changed then."""
    before = made.seen()
    pins = {key: options.pop(key) for key in ("pin", "unpin") if key in options}
    sentences = []
    for check in (True, False):
        with pytest.raises(RepositoryError) as caught:
            _prune.prune(str(made.path), Policy(**options), check=check, **pins)
        sentences.append(str(caught.value))
    assert sentences[0] == sentences[1]
    assert made.seen() == before
    return sentences[0]


# The window


def test_the_window_keeps_what_ends_in_it_and_the_chain_that_it_begins_with(made: Made) -> None:
    for day in ("2026-03-01", "2026-03-08", "2026-03-15"):
        made.chain(day, f"{day} 03:00", f"{day[:-2]}{int(day[-2:]) + 4:02} 02:00", index=True)
    made.chain("2026-03-20")
    result = made.prune(window_days=7)
    assert result.deleted == [stamp("2026-03-01")]
    assert reasons(result) == {
        stamp("2026-03-01"): ["no rule keeps it"],
        stamp("2026-03-08"): ["what the recovery window begins with"],
        stamp("2026-03-15"): ["in the recovery window", "one of the newest 2 verified chains"],
        stamp("2026-03-20"): ["in the recovery window", "one of the newest 2 verified chains"],
    }
    assert result.remaining_window == {"earliest": "2026-03-08T02:00:00Z", "latest": "2026-03-20T02:00:00Z"}
    assert (result.chains[0]["files"], result.chains[0]["stored_bytes"]) == (3, result.freed_bytes)
    assert not [name for name in made.seen() if name.startswith("2026-03-01") or name.startswith("2026-03-05")]
    assert all(name[:10] > "2026-03-07" for key in ("verified", "stored") for name in made.state[key])


def test_a_chain_that_ended_long_before_the_window_is_what_the_window_begins_with(made: Made) -> None:
    for day in ("2025-06-01", "2025-09-01", "2026-03-19", "2026-03-20"):
        made.chain(day)
    result = made.prune(window_days=7)
    assert reasons(result)[stamp("2025-09-01")] == ["what the recovery window begins with"]
    assert result.deleted == [stamp("2025-06-01")]


@pytest.mark.parametrize(
    ("second", "kept"),
    [
        # The newest backup is of 2026-03-20 02:00:00, so a window of 7 days begins on 2026-03-13 at 02:00:00.
        ("2026-03-13 01:59:59", ["second", "third", "fourth"]),
        ("2026-03-13 02:00:00", ["second", "third", "fourth"]),
        ("2026-03-13 02:00:01", ["first", "second", "third", "fourth"]),
    ],
)
def test_the_second_at_which_the_window_begins(made: Made, second: str, kept: list[str]) -> None:
    names = {made.chain("2026-03-01"): "first", made.chain(second): "second", made.chain("2026-03-18"): "third", made.chain("2026-03-20"): "fourth"}
    made.prune(window_days=7)
    assert [names[one] for one in made.stamps()] == kept


@pytest.mark.parametrize(("last", "kept"), [("2026-03-13 01:59:59", False), ("2026-03-13 02:00:01", True)])
def test_a_chain_that_spans_weeks_counts_by_its_end(made: Made, last: str, kept: bool) -> None:
    long = made.chain("2026-01-01", "2026-01-20", "2026-02-20", last)
    made.chain("2026-03-13 02:00:00" if not kept else "2026-03-13 02:00:02")
    made.chain("2026-03-19")
    made.chain("2026-03-20")
    made.prune(window_days=7)
    assert (long in made.stamps()) is kept


@pytest.mark.parametrize("year", ["0050", "0150"])
def test_a_window_longer_than_the_calendar_keeps_all(made: Made, year: str) -> None:
    for day in range(1, 5):
        made.chain(f"{year}-02-0{day}")
    result = made.prune(window_days=36500)
    assert result.deleted == []
    assert result.remaining_window == {"earliest": f"{year}-02-01T02:00:00Z", "latest": f"{year}-02-04T02:00:00Z"}


def test_files_of_others_stay_and_all_others_are_counted(made: Made) -> None:
    for day in ("2026-03-01", "2026-03-02", "2026-03-03"):
        made.chain(day, f"{day} 03:00", index=True)
    others = [f"{stamp('2026-03-01')}.{suffix}" for suffix in ("datz", "indexz", "fs.part", "txt")] + ["README", "2026-03-01.fs", "tmp.tmp"]
    for name in others:
        (made.path / name).write_bytes(b"other")
    before = made.seen()
    result = made.prune(keep_daily=1)
    assert result.deleted == [stamp("2026-03-01")]
    assert [name for name in others if name not in made.seen()] == []
    sizes = [sum(len(before[name]) for name in names if name not in others) for names in owned_by(before, [one["stamp"] for one in result.chains]).values()]
    assert [one["stored_bytes"] for one in result.chains] == sizes
    assert result.freed_bytes == sizes[0]


# The clock


def test_a_clock_set_back_deletes_nothing_that_either_clock_would_keep(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    for month in range(1, 13):
        made.chain(f"2026-{month:02}-01")
    set_clock(monkeypatch, "2026-03-20 12:00")
    result = made.prune(window_days=30)
    assert made.stamps()[0] == stamp("2026-01-01")  # the window is measured from 2026-03-01, the newest that is not of the future
    assert result.warnings == [
        "2026-12-01-02-00-00.fs is of the future: it is 2026-03-20-12-00-00 by this host's clock. The clock was set back, or it was wrong before."
        " It stays, and no other chain goes because of it."
    ]
    assert len(made.prune(keep_monthly=11).warnings) == 1


def test_one_backup_from_the_far_future_does_not_make_all_others_old(made: Made) -> None:
    for day in range(1, 20):
        made.chain(f"2026-03-{day:02}")
    made.chain("2099-01-01")
    made.prune(window_days=7)
    assert [one[:10] for one in made.stamps()] == [f"2026-03-{day:02}" for day in range(12, 20)] + ["2099-01-01"]


def test_backups_of_the_future_never_replace_the_last_good_ones(made: Made) -> None:
    """B9: they fill no generation and count for no floor, whatever the policy."""
    for day in ("2026-03-01", "2026-03-10", "2026-03-19", "2099-01-01", "2099-01-02"):
        made.chain(day)
    result = made.prune(keep_daily=1, keep_chains_min=1)
    assert made.stamps() == [stamp("2026-03-19"), stamp("2099-01-01"), stamp("2099-01-02")]
    assert reasons(result)[stamp("2099-01-01")] == ["its name is of the future", "fewer than 1 verified chains are newer"]


def test_a_chain_that_goes_on_into_the_future_counts_up_to_now(made: Made) -> None:
    """B9: the clock went wrong between two incremental backups."""
    made.chain("2026-03-01")
    made.chain("2026-03-10")
    made.chain("2026-03-19", "2099-01-01")
    made.prune(window_days=7, keep_chains_min=1)
    assert [one[:10] for one in made.stamps()] == ["2026-03-10", "2026-03-19"]


def test_a_clock_that_jumped_or_backups_that_stopped_delete_nothing(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(1, 20):
        made.chain(f"2026-03-{day:02}")
    made.prune(window_days=7)
    before = made.stamps()
    for later in ("2026-03-26 02:00", "2026-04-20", "2031-01-01", "9999-12-31"):
        set_clock(monkeypatch, later)
        result = made.prune(window_days=7)
        assert made.stamps() == before
        assert bool(result.warnings) is (later != "2026-03-26 02:00")
    assert len(before) == 8
    assert result.warnings == [
        f"The newest sound backup, 2026-03-19-02-00-00.fs, is {(moment('9999-12-31') - moment('2026-03-19')).days} days old: backups have stopped,"
        " or the clock has jumped. The recovery window is measured from that backup."
    ]


def test_the_zone_of_the_host_and_the_times_of_files_do_not_matter(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    # Around the last hour before and the first after both changes of the clock in New York and in Berlin.
    for day in ("2026-03-07", "2026-03-08", "2026-03-09", "2026-03-28", "2026-03-29", "2026-03-30", "2026-10-25", "2026-11-01", "2026-11-02"):
        for hour in ("00:30", "01:30", "02:30", "06:30", "23:59:59"):
            made.chain(f"{day} {hour}")
    set_clock(monkeypatch, "2026-11-02 23:59:59")
    found = []
    for zone in ("UTC", "America/New_York", "Europe/Berlin", "Pacific/Kiritimati"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        for number, one in enumerate(made.path.iterdir()):
            os.utime(one, (number * 1e7, number * 1e7))
        found.append(_prune.prune(str(made.path), Policy(window_days=1, keep_daily=5), check=True))
    monkeypatch.undo()
    time.tzset()
    assert found[0].deleted
    assert all(one == found[0] for one in found)
    assert [one["stamp"][:10] for one in found[0].chains if "23-59-59" in one["stamp"] and one["keep"]] == [
        *("2026-03-29", "2026-03-30", "2026-10-25", "2026-11-01", "2026-11-02")
    ]


# Generations


@pytest.mark.parametrize(
    ("option", "chains", "kept"),
    [
        ("keep_daily", ["2026-03-10 23:59:59", "2026-03-11 00:00:00", "2026-03-11 23:59:59", "2026-03-12 00:00:00"], [0, 2, 3]),
        ("keep_daily", ["2024-02-27", "2024-02-28", "2024-02-29", "2024-03-01"], [1, 2, 3]),
        ("keep_daily", ["2025-10-01", "2025-11-05", "2025-12-31", "2026-01-01"], [1, 2, 3]),
        # The last days of December may be of week 1 of the next year, the first of January of week 52 or 53 of the one before.
        ("keep_weekly", ["2020-12-27 23:59:59", "2020-12-28", "2021-01-03 23:59:59", "2021-01-04 00:00:00"], [0, 2, 3]),
        ("keep_weekly", ["2019-12-23", "2019-12-29 23:59:59", "2019-12-30 00:00:00", "2020-01-05", "2020-01-06"], [1, 3, 4]),
        ("keep_weekly", ["2015-06-01", "2020-12-20", "2020-12-31", "2021-01-01", "2021-12-31"], [1, 3, 4]),
        ("keep_monthly", ["2023-12-31 23:59:59", "2024-01-31", "2024-02-29 23:59:59", "2024-03-01 00:00:00"], [1, 2, 3]),
        ("keep_monthly", ["2024-03-01", "2025-03-01", "2026-03-01", "2026-03-02"], [0, 1, 3]),
        ("keep_yearly", ["1999-12-31 23:59:59", "2000-01-01 00:00:00", "2000-12-31", "2001-01-01", "2004-02-29"], [2, 3, 4]),
    ],
)
def test_generations_keep_the_newest_of_each_of_the_newest_periods(made: Made, option: str, chains: list[str], kept: list[int]) -> None:
    stamps = [made.chain(one) for one in chains]
    options: dict[str, Any] = {option: 3}
    made.prune(**options, keep_chains_min=1)
    assert made.stamps() == [stamps[number] for number in kept]


def test_a_chain_is_of_the_day_of_its_full_backup(made: Made) -> None:
    first = made.chain("2026-03-10 01:00", "2026-03-10 12:00", "2026-03-11 12:00")
    second = made.chain("2026-03-12 01:00")
    result = made.prune(keep_daily=2, keep_chains_min=1)
    assert reasons(result)[first] == ["the newest of the day 2026-03-10"]
    assert made.stamps() == [first, second]


def test_two_chains_on_one_day(made: Made) -> None:
    made.chain("2026-03-10 01:00")
    second = made.chain("2026-03-10 12:00")
    made.chain("2026-03-11 01:00")
    fourth = made.chain("2026-03-11 12:00")
    made.prune(keep_daily=7, keep_chains_min=1)
    assert made.stamps() == [second, fourth]


def test_reasons_name_all_generations(made: Made) -> None:
    only = made.chain("2021-01-01")
    result = made.prune(window_days=1, keep_daily=1, keep_weekly=1, keep_monthly=1, keep_yearly=1, keep_chains_min=1)
    assert reasons(result)[only] == [
        "in the recovery window",
        *("the newest of the day 2021-01-01", "the newest of the week 2020-W53", "the newest of the month 2021-01", "the newest of the year 2021"),
        "one of the newest 1 verified chains",
    ]


def test_months_without_backups_are_not_counted(made: Made) -> None:
    for day in ("2024-01-15", "2024-06-15", "2025-06-15", "2026-01-15", "2026-01-20"):
        made.chain(day)
    assert made.kept(keep_monthly=3, keep_chains_min=1) == ["2024-06-15", "2025-06-15", "2026-01-20"]


# The floor


def test_the_floor_holds_when_no_rule_keeps_anything_more(made: Made) -> None:
    for day in range(1, 10):
        made.chain(f"2026-03-{day:02}")
    assert made.kept(keep_daily=1, keep_chains_min=3) == ["2026-03-07", "2026-03-08", "2026-03-09"]
    assert made.kept(keep_daily=1) == ["2026-03-08", "2026-03-09"]
    assert made.kept(keep_daily=1, keep_chains_min=1) == ["2026-03-09"]


def test_chains_that_nobody_verified_do_not_count_for_the_floor(made: Made) -> None:
    for day in range(1, 7):
        made.chain(f"2026-03-{day:02}", verified=day in (3, 4))
    result = made.prune(keep_daily=1)
    assert result.deleted == [stamp("2026-03-01"), stamp("2026-03-02")]
    assert reasons(result)[stamp("2026-03-05")] == ["fewer than 2 verified chains are newer"]
    assert result.warnings == []
    assert made.kept(keep_daily=1, require_verified=False) == ["2026-03-05", "2026-03-06"]


def test_without_enough_verified_chains_nothing_goes_and_it_says_why(made: Made) -> None:
    for day in range(1, 7):
        made.chain(f"2026-03-{day:02}", verified=day == 6)
    result = made.prune(keep_daily=1)
    assert (result.deleted, result.changed) == ([], False)
    assert result.warnings == ["No chain may go yet: 2 verified chains must be newer than one that goes; verified here: 1."]
    assert reasons(result)[stamp("2026-03-01")] == ["fewer than 2 verified chains are newer"]


@pytest.mark.parametrize(
    "memory",
    [
        None,
        "yes",
        {},
        {"bytes": 1, "md5": "same"},
        {"bytes": "same", "md5": "0" * 32},
        {"md5": "same"},
        {"bytes": "same"},
    ],
)
def test_verified_means_each_file_as_it_is_now(made: Made, memory: Any) -> None:
    chain = made.chain("2026-03-01", "2026-03-02", "2026-03-03")
    found = _repository.read(str(made.path)).chains[0]
    assert _prune.verified(found, made.state)
    name = f"{stamp('2026-03-02')}.deltafs"
    same = made.state["verified"][name]
    made.remember("verified", {name: {key: same[key] if value == "same" else value for key, value in memory.items()} if isinstance(memory, dict) else memory})
    assert not _prune.verified(found, made.state)
    assert chain in made.stamps()


# Damage


def test_a_damaged_chain_between_good_ones_is_kept_and_counts_for_nothing(made: Made) -> None:
    for day in range(1, 7):
        made.chain(f"2026-03-{day:02}")
    damaged = made.damage("2026-03-05")
    result = made.prune(keep_daily=2)
    assert [one[:10] for one in made.stamps()] == ["2026-03-04", "2026-03-05", "2026-03-06"]
    problem = "2026-03-05-02-00-00.fs has 28 bytes; 2026-03-05-02-00-00.dat says 24."
    assert reasons(result)[damaged] == [f"damaged, and such chains are kept: {problem}", "fewer than 2 verified chains are newer"]
    assert result.warnings == [f"The chain {damaged} is damaged and counts for nothing; it is kept: {problem}"]


def test_damaged_chains_go_when_asked_for_once_they_are_old_and_not_needed(made: Made) -> None:
    for day in ("2026-02-01", "2026-02-10", "2026-03-12", "2026-03-13", "2026-03-15", "2026-03-18", "2026-03-19", "2026-03-20"):
        made.chain(day)
    old, begin, inside, newer = (made.damage(day) for day in ("2026-02-01", "2026-03-13", "2026-03-15", "2026-03-19"))
    result = made.prune(window_days=7, damaged="delete")
    assert result.deleted == [old, stamp("2026-02-10"), begin]
    assert reasons(result)[old][0].startswith("damaged: ")
    assert reasons(result)[inside] == ["in the recovery window, though damaged"]
    # The chain of 2026-03-12 is what the window begins with, since the one of the 13th is damaged.
    assert [one[:10] for one in made.stamps()] == ["2026-03-12", "2026-03-15", "2026-03-18", "2026-03-19", "2026-03-20"]
    assert "is kept" in next(sentence for sentence in result.warnings if newer in sentence)
    assert "is deleted" in next(sentence for sentence in result.warnings if old in sentence)
    assert made.kept(keep_daily=1, damaged="delete") == ["2026-03-18", "2026-03-19", "2026-03-20"]


def test_the_newest_chain_stays_even_when_it_is_damaged(made: Made) -> None:
    for day in ("2026-03-18", "2026-03-19", "2026-03-20"):
        made.chain(day)
    made.damage("2026-03-20")
    assert made.kept(keep_daily=1, keep_chains_min=1, damaged="delete") == ["2026-03-19", "2026-03-20"]


def test_when_all_are_damaged_all_stay(made: Made) -> None:
    for day in ("2026-03-18", "2026-03-19", "2026-03-20"):
        made.chain(day)
        made.damage(day)
    result = made.prune(window_days=1, damaged="delete")
    assert (result.deleted, result.remaining_window) == ([], None)


def test_incremental_backups_without_a_full_one_are_treated_as_damaged(made: Made) -> None:
    stray = made.chain("2026-01-01", "2026-01-02", "2026-01-03", index=True)
    (made.path / f"{stray}.fs").unlink()
    made.chain("2026-03-19")
    made.chain("2026-03-20")
    result = made.prune(window_days=7)
    first = stamp("2026-01-02")
    assert (result.deleted, result.chains[0]["stamp"], result.chains[0]["files"]) == ([], first, 2)
    assert result.warnings == [
        f"The chain {first} is damaged and counts for nothing; it is kept: its incremental backups continue a full one that is not here."
    ]
    result = made.prune(window_days=7, damaged="delete")
    assert result.deleted == [first]
    assert not [name for name in made.seen() if name.startswith("2026-01")]


def test_files_of_the_same_second_are_damage_since_stock_repozo_restores_one_of_them(made: Made) -> None:
    twin = made.chain("2026-03-10", "2026-03-10")
    for day in ("2026-03-18", "2026-03-19", "2026-03-20"):
        made.chain(day)
    result = made.prune(keep_daily=4, keep_chains_min=1)
    assert reasons(result)[twin] == [
        f"damaged, and such chains are kept: {twin}.fs and {twin}.deltafs are of the same second; stock repozo restores only one of them."
    ]
    assert made.kept(keep_daily=4, keep_chains_min=1, damaged="delete") == ["2026-03-18", "2026-03-19", "2026-03-20"]


def test_two_full_backups_of_one_name_are_left_to_the_operator(made: Made) -> None:
    twin = made.chain("2026-03-10")
    (made.path / f"{twin}.fsz").write_bytes(b"packed")
    for day in ("2026-03-18", "2026-03-19", "2026-03-20"):
        made.chain(day)
    result = made.prune(keep_daily=1, damaged="delete")
    assert [one["reasons"] for one in result.chains[:2]] == [["another full backup has the same name"]] * 2
    assert made.stamps()[:2] == [twin, twin]


@pytest.mark.parametrize("break_it", [lambda path: path.unlink(), lambda path: path.write_text("nonsense"), lambda path: path.write_text("")])
def test_a_chain_without_its_dat_file_is_damaged(made: Made, break_it: Callable[[Path], Any]) -> None:
    lost = made.chain("2026-03-01", "2026-03-02")
    break_it(made.path / f"{lost}.dat")
    for day in ("2026-03-18", "2026-03-19", "2026-03-20"):
        made.chain(day)
    assert made.kept(keep_daily=1) == ["2026-03-01", "2026-03-19", "2026-03-20"]


def test_a_name_that_no_calendar_has_is_damage(made: Made) -> None:
    made.chain("2026-02-31")
    for day in ("2026-03-18", "2026-03-19", "2026-03-20"):
        made.chain(day)
    assert made.kept(window_days=7, keep_yearly=3) == ["2026-02-31", "2026-03-18", "2026-03-19", "2026-03-20"]
    assert made.kept(window_days=7, keep_yearly=3, damaged="delete") == ["2026-03-18", "2026-03-19", "2026-03-20"]


# Pins


def test_a_pinned_chain_stays_until_it_is_unpinned(made: Made) -> None:
    stamps = [made.chain(f"2026-03-{day:02}") for day in range(1, 7)]
    result = made.prune(keep_daily=1, pin=[stamps[1]])
    assert made.stamps() == [stamps[1], *stamps[4:]]
    assert (result.pins, made.state["pins"], reasons(result)[stamps[1]]) == ([stamps[1]], [stamps[1]], ["pinned"])
    assert result.diff["before"] == "".join(f"{one}\n" for one in stamps)
    assert result.diff["after"] == "".join(f"{one}\n" for one in (f"{stamps[1]} (pinned)", *stamps[4:]))
    assert made.prune(keep_daily=1).pins == [stamps[1]]
    result = made.prune(keep_daily=1, unpin=[stamps[1]])
    assert (result.pins, result.deleted, "pins" in made.state) == ([], [stamps[1]], False)


def test_pinning_alone_is_a_change_and_pinning_again_is_none(made: Made) -> None:
    only = made.chain("2026-03-20")
    assert made.prune(keep_daily=1, pin=[only]).changed
    assert not made.prune(keep_daily=1, pin=[only]).changed
    assert made.prune(keep_daily=1, unpin=[only]).changed
    assert not made.prune(keep_daily=1, unpin=[only]).changed


def test_damaged_and_stray_backups_can_be_pinned(made: Made) -> None:
    lost = made.chain("2026-01-01", "2026-01-02")
    (made.path / f"{lost}.fs").unlink()
    pins = [stamp("2026-01-02"), made.chain("2026-02-01")]
    made.damage("2026-02-01")
    made.chain("2026-03-19")
    made.chain("2026-03-20")
    assert made.prune(keep_daily=1, damaged="delete", pin=pins).deleted == []


def test_a_pin_of_what_is_not_here(made: Made) -> None:
    made.chain("2026-03-19", "2026-03-19 03:00")
    assert refusal(made, keep_daily=1, pin=[stamp("2026-03-19 03:00")]) == (
        f"There is no chain 2026-03-19-03-00-00 in {made.path} to pin; a chain is named after its full backup, like 2026-11-24-02-00-00."
    )
    made.remember("pins", [stamp("2026-01-01")])
    assert made.prune(keep_daily=1).warnings == ["The chain 2026-01-01-02-00-00 is pinned, but it is not here."]


def test_a_chain_cannot_be_pinned_and_unpinned(made: Made) -> None:
    only = made.chain("2026-03-19")
    assert refusal(made, keep_daily=1, pin=[only], unpin=[only]) == f"The chain {only} is both in pin and in unpin."


@pytest.mark.parametrize("content", ["{", "[]", '{"pins": {}}', "\0"])
def test_when_the_memory_of_pins_is_damaged_nothing_is_deleted(made: Made, content: str) -> None:
    for day in range(1, 7):
        made.chain(f"2026-03-{day:02}")
    (made.path / _repository.STATE).write_text(content)
    sentence = (
        f"confops.json in {made.path} is damaged, so it is not known which chains are pinned; nothing was deleted."
        " Pin them again, or remove that file if there were none."
    )
    assert refusal(made, keep_daily=1, require_verified=False) == sentence
    aside = _repository.set_aside(str(made.path))  # as whoever writes there does
    assert aside
    assert refusal(made, keep_daily=1, require_verified=False) == sentence.replace("confops.json", aside)
    (made.path / aside).unlink()
    assert made.kept(keep_daily=1, require_verified=False) == ["2026-03-05", "2026-03-06"]


def test_pins_that_were_lost_are_named_anew(made: Made) -> None:
    first, options = made.chain("2026-03-01"), {"keep_daily": 1, "require_verified": False}
    for day in range(2, 6):
        made.chain(f"2026-03-{day:02}")
    for number in (1, 2):
        (made.path / _repository.STATE).write_text("{")
        assert "it is not known which chains are pinned" in refusal(made, **options)
        result = made.prune(**options, pin=[first])
        assert result.warnings == [f"confops.json was damaged and is kept as confops.json.damaged-{number}: it may name other pins."]
        assert (made.path / f"confops.json.damaged-{number}").read_text() == "{"
        assert made.kept(**options) == ["2026-03-01", "2026-03-04", "2026-03-05"]
    assert "it is not known which chains are pinned" in refusal(made, **options, unpin=[first])


def test_other_memories_may_be_damaged(made: Made) -> None:
    for day in range(1, 4):
        made.chain(f"2026-03-{day:02}")
    for key, value in (("verified", [1]), ("stored", 1), ("pruning", {"a": 1})):
        made.remember(key, [])
        state = made.state
        state[key] = value
        _repository.write_state(str(made.path), state)
    assert made.prune(keep_daily=1).deleted == []
    assert made.kept(keep_daily=1, require_verified=False) == ["2026-03-02", "2026-03-03"]


# Refusals


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {},
            "Neither window_days nor any of keep_daily, keep_weekly, keep_monthly, keep_yearly is given: that would be a policy to delete everything.",
        ),
        (
            {"keep_chains_min": 5},
            "Neither window_days nor any of keep_daily, keep_weekly, keep_monthly, keep_yearly is given: that would be a policy to delete everything.",
        ),
        ({"window_days": 0}, "window_days is 0; a window has 1 to 36500 days. Leave it out to have none."),
        ({"window_days": -3, "keep_daily": 3}, "window_days is -3; a window has 1 to 36500 days. Leave it out to have none."),
        ({"window_days": 36501}, "window_days is 36501; a window has 1 to 36500 days. Leave it out to have none."),
        ({"keep_monthly": -1, "keep_daily": 3}, "keep_monthly is -1; it is a number of generations, 0 or more."),
        ({"keep_daily": 10**20}, "keep_daily is 100000000000000000000; more than 36500 make no sense."),
        ({"keep_daily": 1, "keep_chains_min": 10**20}, "keep_chains_min is 100000000000000000000; more than 36500 make no sense."),
        ({"keep_daily": float("nan")}, "keep_daily is nan; a whole number is needed."),
        ({"window_days": float("inf")}, "window_days is inf; a whole number is needed."),
        ({"window_days": 1e99}, "window_days is 1e+99; a whole number is needed."),
        ({"window_days": True}, "window_days is True; a whole number is needed."),
        ({"keep_yearly": "3"}, "keep_yearly is 3; a whole number is needed."),
        ({"keep_daily": 1, "keep_chains_min": 0}, "keep_chains_min is 0; at least 1 chain must remain."),
    ],
)
def test_policies_that_make_no_sense_are_refused(made: Made, options: dict[str, Any], sentence: str) -> None:
    made.chain("2026-03-19")
    assert refusal(made, **options) == sentence


def test_numbers_are_judged_without_a_repository() -> None:
    """O18: preflight asks the same function, with the names of its variables."""
    assert _prune.refusal({"keep_daily": -1}, "backup_") == "backup_keep_daily is -1; it is a number of generations, 0 or more."
    assert (_prune.refusal({}, "backup_") or "").startswith("Neither backup_window_days nor any of backup_keep_daily, backup_keep_weekly, ")
    assert _prune.refusal({"window_days": 3}) is None
    assert _prune.refusal({"window_days": None, "keep_yearly": 3, "keep_chains_min": 1, "other": "x"}) is None


def test_a_repository_that_is_in_use_is_left_alone(made: Made) -> None:
    for day in range(1, 7):
        made.chain(f"2026-03-{day:02}")
    with _repository.lock(str(made.path)):
        assert re.fullmatch(
            rf"The repository {made.path} is in use by (process {os.getpid()}|another process); nothing was done\.", refusal(made, keep_daily=1)
        )
    assert len(made.prune(keep_daily=1).deleted) == 4


def test_a_directory_that_is_not_there(made: Made) -> None:
    made.path.rmdir()
    with pytest.raises(RepositoryError, match=rf"^The repository {made.path} cannot be opened: No such file or directory\.$"):
        _prune.prune(str(made.path), Policy(keep_daily=1))


def test_an_empty_repository_has_nothing_to_delete(made: Made) -> None:
    result = made.prune(window_days=7)
    assert (result.chains, result.changed, result.remaining_window, result.warnings) == ([], False, None, [])


# Properties


class Drawn(NamedTuple):
    """A repository in memory, what is remembered of it, a policy and a clock."""

    repository: Repository
    state: dict[str, Any]
    policy: Policy
    now: datetime

    def verdicts(self) -> list[Verdict]:
        return decide(self.repository, self.state, self.policy, self.now)

    def kept(self) -> list[Chain]:
        return [verdict.chain for verdict in self.verdicts() if verdict.keep]

    def sound(self) -> list[Chain]:
        return [chain for chain in self.repository.chains if not chain.problems]


BASE = datetime(2019, 11, 1, tzinfo=timezone.utc)
HOUR = 3600
counts = st.integers(0, 4)


def in_memory(times: Iterable[tuple[int, bool]], damaged: set[int]) -> Repository:
    """Return a repository of backups, each given by its second and whether it is a full one."""
    repository = Repository("/nowhere", [], [], [], [])
    for seconds, full in times:
        name = (BASE + timedelta(seconds=seconds)).strftime(_repository.STAMP)
        one = DataFile(f"{name}.{'fs' if full else 'deltafs'}", name, full, False, 10)
        if full:
            repository.chains.append(Chain(name, []))
        if not repository.chains:
            repository.strays.append(one)
            continue
        chain = repository.chains[-1]
        chain.entries.append(Entry(one.name, 10 * len(chain.files), 10 * len(chain.files) + 10, "0" * 32))
        chain.files.append(one)
    for number in damaged:
        if number < len(repository.chains):
            repository.chains[number].problems.append("it is damaged.")
    return repository


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    window = draw(st.none() | st.integers(1, 400))
    daily, weekly, monthly, yearly = draw(counts), draw(counts), draw(counts), draw(counts)
    if window is None and not daily + weekly + monthly + yearly:
        daily = 1
    damaged = draw(st.sampled_from(["keep", "delete"]))
    return Policy(window, daily, weekly, monthly, yearly, draw(st.integers(1, 4)), draw(st.booleans()), damaged)


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    # Gaps from a second to months, many of them whole days, so that backups fall on one second of the day.
    gaps = draw(st.lists(st.sampled_from([1, HOUR, 24 * HOUR, 7 * 24 * HOUR]) | st.integers(1, 90 * 24 * HOUR), min_size=0, max_size=25))
    times, second = [], 0
    for gap in gaps:
        second += gap
        times.append((second, draw(st.booleans())))
    repository = in_memory(times, draw(st.sets(st.integers(0, 24), max_size=4)))
    names = [one.name for chain in repository.chains for one in chain.files]
    doubted = draw(st.sets(st.sampled_from(names), max_size=3)) if names else set()
    state: dict[str, Any] = {"verified": {name: {"bytes": 10, "md5": "0" * 32} for name in names if name not in doubted}}
    stamps = [chain.stamp for chain in repository.chains]
    if stamps:
        state["pins"] = sorted(draw(st.sets(st.sampled_from(stamps), max_size=2)))
    clock = second + draw(st.integers(-400, 400)) * 24 * HOUR + draw(st.integers(-HOUR, HOUR))
    return Drawn(repository, state, draw(policies()), BASE + timedelta(seconds=clock))


def restored(chains: Iterable[Chain], when: str) -> list[str]:
    """Return the files that a moment is restored from."""
    chain = max((chain for chain in chains if chain.stamp <= when), key=lambda one: one.stamp, default=None)
    return [one.name for one in chain.files if one.stamp <= when] if chain else []


def moments(repository: Repository) -> list[datetime]:
    """Return each moment at which something may change, and the seconds beside it."""
    files = [one for chain in repository.chains for one in chain.files]
    return [one.time + timedelta(seconds=offset) for one in files for offset in (-1, 0, 1)]


@given(drawn())
def test_every_chain_gets_a_verdict_with_a_reason(case: Drawn) -> None:
    verdicts = case.verdicts()
    chains = [verdict.chain for verdict in verdicts]
    assert chains[len(chains) - len(case.repository.chains) :] == case.repository.chains
    assert [one for chain in chains for one in chain.files] == case.repository.strays + [one for chain in case.repository.chains for one in chain.files]
    assert all(verdict.reasons and all(verdict.reasons) for verdict in verdicts)


@given(drawn())
def test_the_newest_sound_chain_and_the_floor_stay(case: Drawn) -> None:
    kept = case.kept()
    newest = case.sound()[-case.policy.keep_chains_min :]
    assert [chain for chain in newest if chain not in kept] == []
    counted = [chain for chain in case.sound() if not case.policy.require_verified or _prune.verified(chain, case.state)]
    gone = [verdict.chain for verdict in case.verdicts() if not verdict.keep]
    for chain in gone:
        assert len([other for other in counted if other.stamp > chain.stamp and other in kept]) >= case.policy.keep_chains_min


@given(drawn())
def test_pinned_chains_stay(case: Drawn) -> None:
    kept = [chain.stamp for chain in case.kept()]
    assert [one for one in case.state.get("pins", []) if one not in kept] == []


@given(drawn())
def test_damaged_chains_stay_unless_asked_for(case: Drawn) -> None:
    gone = [verdict.chain for verdict in case.verdicts() if not verdict.keep]
    if case.policy.damaged == "keep":
        assert all(chain.files[0].full and not chain.problems for chain in gone)


@given(drawn())
def test_what_the_window_held_is_restored_from_the_same_files(case: Drawn) -> None:
    if case.policy.window_days is None or not case.sound():
        return
    sound, kept = case.sound(), [chain for chain in case.kept() if chain in case.sound()]
    length = timedelta(days=case.policy.window_days)
    # By the clock, and as if it were the moment of the newest backup.
    for end in (case.now, sound[-1].files[-1].time):
        for when in [one for one in moments(case.repository) if end - length <= one <= end] + [end - length, end]:
            text = when.strftime(_repository.STAMP)
            assert restored(kept, text) == restored(sound, text)


@given(drawn())
def test_generations_are_what_they_are_defined_to_be(case: Drawn) -> None:
    kept, sound = case.kept(), [chain for chain in case.sound() if _repository.time_of(chain.stamp) <= case.now]
    periods: list[tuple[int, Callable[[datetime], Any]]] = [
        (case.policy.keep_daily, lambda when: when.date()),
        (case.policy.keep_weekly, lambda when: tuple(when.isocalendar())[:2]),
        (case.policy.keep_monthly, lambda when: (when.year, when.month)),
        (case.policy.keep_yearly, lambda when: when.year),
    ]
    expected: list[Chain] = []
    for number, of in periods:
        newest = sorted({of(_repository.time_of(chain.stamp)) for chain in sound}, reverse=True)[:number]
        expected += [[chain for chain in sound if of(_repository.time_of(chain.stamp)) == period][-1] for period in newest]
    assert [chain for chain in expected if chain not in kept] == []
    told = [verdict.chain for verdict in case.verdicts() if any(reason.startswith("the newest of the") for reason in verdict.reasons)]
    assert sorted(chain.stamp for chain in told) == sorted({chain.stamp for chain in expected})


@given(drawn(), st.integers(0, 500))
def test_a_second_run_deletes_nothing_and_neither_does_waiting(case: Drawn, days: int) -> None:
    kept = case.kept()
    left = Repository(
        case.repository.path,
        [chain for chain in case.repository.chains if chain in kept],
        case.repository.strays if any(not chain.files[0].full for chain in kept) else [],
        [],
        [],
    )
    assert [verdict.keep for verdict in case._replace(repository=left).verdicts()] == [True] * len(kept)
    newest = max((chain.files[-1].time for chain in case.sound()), default=case.now)
    if case.now >= newest:
        assert case._replace(repository=left, now=case.now + timedelta(days=days)).kept() == kept


@given(drawn(), st.integers(1, 800), st.integers(0, 800))
@example(
    Drawn(in_memory([(day * 24 * HOUR, True) for day in range(0, 100, 3)], set()), {}, Policy(1, require_verified=False), BASE + timedelta(days=140)), 39, 41
)
def test_a_longer_window_deletes_no_more(case: Drawn, window: int, more: int) -> None:
    def kept(days: int | None) -> set[str]:
        options = {**case.policy.__dict__, "window_days": days, "keep_daily": max(case.policy.keep_daily, 1)}
        return {chain.stamp for chain in case._replace(policy=Policy(**options)).kept()}

    assert kept(window) <= kept(window + more)
    assert kept(None) <= kept(window)


@given(drawn())
def test_deciding_changes_nothing(case: Drawn) -> None:
    before = json.dumps([case.state, repr(case.repository)])
    assert case.verdicts() == case.verdicts()
    assert json.dumps([case.state, repr(case.repository)]) == before


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3), st.booleans(), st.booleans()), max_size=8), policies())
def test_the_directory_holds_afterwards_what_was_decided(chains: list[tuple[int, int, bool, bool]], policy: Policy) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as monkeypatch:
        made, when = Made(Path(directory)), BASE
        for days, deltas, compressed, verified in chains:
            when += timedelta(days=days)
            files = [(when + timedelta(hours=number)).strftime(_repository.STAMP) for number in range(deltas + 1)]
            made.chain(*files, compressed=compressed, verified=verified, index=verified)
        monkeypatch.setattr(_prune, "now", lambda: when + timedelta(days=1))
        before = made.seen()
        result = made.prune(**policy.__dict__)
        assert made.stamps() == [one["stamp"] for one in result.chains if one["keep"]]
        assert {name: content for name, content in made.seen().items() if name != _repository.STATE} == {
            name: content for name, content in before.items() if any(name in owned for owned in owned_by(before, made.stamps()).values())
        }
        assert _repository.read(directory).all_problems() == []


def owned_by(files: Iterable[str], stamps: Iterable[str]) -> dict[str, set[str]]:
    """Return the names that belong to each of the chains."""
    fulls = sorted({name[:19] for name in files if name.endswith((".fs", ".fsz"))})
    spans = dict(zip(fulls, [*fulls[1:], "~"]))
    return {one: {name for name in files if name[0] == "2" and one <= name[:19] < spans[one]} for one in stamps}


# Killed at any moment


def stock(files: dict[str, bytes], when: str) -> bytes | None:
    """Restore as stock repozo does: from the names alone, the newest first, down to a full backup."""
    needed = []
    for name in sorted((name for name in files if re.match(r"\d{4}(?:-\d\d){5}\.(?:delta)?fsz?$", name)), reverse=True):
        root, _dot, extension = name.partition(".")
        if root <= when:
            needed.append(name)
            if extension in ("fs", "fsz"):
                break
    return b"".join(files[name] for name in reversed(needed)) or None


def populate(path: Path) -> tuple[Made, dict[str, Any]]:
    """Make a repository, and return it with options by which chains at its beginning and in its middle go."""
    path.mkdir()
    made = Made(path)
    made.chain("2026-01-01", "2026-01-02", "2026-01-03", index=True)
    made.chain("2026-01-10", "2026-01-11", compressed=True)
    made.chain("2026-01-31")
    made.chain("2026-02-01", "2026-02-02", "2026-02-03", "2026-02-04", index=True)
    made.chain("2026-02-20", "2026-02-21", index=True)
    made.damage("2026-02-01")
    made.chain("2026-03-18", "2026-03-19", index=True)
    made.chain("2026-03-20", "2026-03-20 03:00", compressed=True, index=True)
    (path / f"{stamp('2026-01-11 02:00:01')}.index").write_bytes(b"as ZODB3 3.10.5 names it when the second is over")
    return made, {"keep_monthly": 3, "damaged": "delete", "pin": [stamp("2026-01-10")]}


def killed_at(step: int, act: Callable[[], object], calls: Sequence[str]) -> bool:
    """Run act in a child that dies before it makes a change of the given number. Return whether it came to that."""
    child = os.fork()
    if not child:
        left = step

        def dying(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os._exit(9)
                return original(*arguments, **options)

            return call

        for name in calls:
            setattr(os, name, dying(getattr(os, name)))
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9


@pytest.mark.parametrize("calls", [["unlink"], ["unlink", "replace", "fsync"]], ids=["unlink", "all"])
@pytest.mark.parametrize("next_run", ["prune", "backup"])
def test_a_run_that_is_killed_at_any_moment_leaves_whole_what_stays_and_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str], next_run: str
) -> None:
    set_clock(monkeypatch, NOW)
    reference, options = populate(tmp_path / "reference")
    before, pin = reference.seen(), options.pop("pin")
    kept = owned_by(before, [one["stamp"] for one in reference.prune(**options, pin=pin).chains if one["keep"]])
    assert sorted(kept) == [stamp(one) for one in ("2026-01-10", "2026-01-31", "2026-02-20", "2026-03-18", "2026-03-20")]
    after = reference.seen()
    whens = sorted({name[:19] for name in before if name[0] == "2"} | {"2026-01-05-00-00-00", "2026-02-10-00-00-00", "2026-12-31-00-00-00"})
    chains = owned_by(before, {name[:19] for name in before if name.endswith((".fs", ".fsz"))})
    states = {stock({name: before[name] for name in names}, when) for names in chains.values() for when in whens} | {None}
    step = 0
    while True:
        made, _options = populate(tmp_path / f"step{step}")
        path = str(made.path)
        alive = not killed_at(step, partial(_prune.prune, path, Policy(**options), pin=pin), calls)
        seen = made.seen()
        for names in kept.values():
            assert {name: seen.get(name) for name in names} == {name: before[name] for name in names}
        for when in whens:
            found = stock(seen, when)
            assert found in states
            # What is kept restores as before, what goes as an older state.
            if max((one for one in chains if one <= when), default="") in kept:
                assert found == stock(before, when)
        marked = made.state.get("pruning", [])
        repository = _repository.read(path)
        untouched = seen == before
        if not untouched:
            assert {chain.stamp for chain in repository.chains if chain.problems} <= {*marked}
            assert repository.problems == []
        if next_run == "prune":
            assert _prune.prune(path, Policy(**options), pin=pin).deleted == [one for one in sorted(chains) if one not in kept and f"{one}.fs" in seen]
            assert made.seen() == after
        else:
            sentences = _prune.finish(path, act=False)
            assert made.seen() == seen
            assert _prune.finish(path) == sentences
            assert made.seen() == (before if untouched else after)
        assert _prune.finish(path) == []
        if alive:
            break
        step += 1
    assert step == (16 if calls == ["unlink"] else 16 + 9 + 2 * 3)  # a sync after all but the 7 index files, and two states to write


@pytest.mark.parametrize("calls", [["unlink"], ["unlink", "replace", "fsync"]], ids=["unlink", "all"])
def test_what_a_killed_run_left_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> None:
    """Whoever reads the repository finds what will be there when a run has finished it, and says that it is not finished."""
    storage, reference = Storage(tmp_path / "Data.fs"), tmp_path / "reference"
    reference.mkdir()
    contents = {}
    for number in range(8):
        name = f"2026-03-0{1 + number // 2}-0{number % 2}-00-00"
        monkeypatch.setattr(_repozo, "_stamp", lambda _repository, name=name: name)
        storage.add(2)
        _repozo.backup(str(storage.path), str(reference), full="" if number % 2 else "another day")
        (reference / f"{name}.index").write_bytes(b"index")
        contents[name] = storage.path.read_bytes()
    (reference / "2026-02-28-00-00-00.deltafs").write_bytes(b"the full one before it is lost")
    policy = Policy(keep_weekly=1, keep_chains_min=1, require_verified=False, damaged="delete")
    going = ["2026-02-28-00-00-00", "2026-03-01-00-00-00", "2026-03-03-00-00-00"]
    step = 0
    while True:
        path = str(shutil.copytree(reference, tmp_path / f"step{step}"))
        alive = not killed_at(step, partial(_prune.prune, path, policy, pin=["2026-03-02-00-00-00"]), calls)
        before = {one.name: one.read_bytes() for one in Path(path).iterdir()}
        marked = _repository.read_state(path).get("pruning", [])
        report, found = _verify.verify(path, check=True), _catalogue.catalogue(path)
        repository, told = _history.open_repository(path)
        left = [one for one in marked if f"{one}.fsz" in before or f"{one}.deltafs" in before]
        assert found["unfinished"] == [
            f"The chain {one} counts as gone: its deletion has begun. The next backup or prune removes what is left of it." for one in left
        ]
        unfinished = [f"{one} is unfinished: the run that wrote it was interrupted. The next backup removes it." for one in found["leftovers"]]
        assert report.warnings == found["unfinished"] + unfinished
        if marked or f"{going[0]}.deltafs" not in before:
            assert report.problems == found["problems"] == []
            assert told == found["unfinished"]
            stamps = ["2026-03-02-00-00-00", "2026-03-04-00-00-00"]
            assert [one["stamp"] for one in report.chains] == [one["stamp"] for one in found["chains"]] == [one.stamp for one in repository.chains] == stamps
            assert found["recoverable"] == {"earliest": "2026-03-02T00:00:00Z", "latest": "2026-03-04T01:00:00Z"}
        else:
            assert report.problems == found["problems"] == ["2026-02-28-00-00-00.deltafs is an incremental backup without the full one that it continues."]
        for number, name in ((1, "2026-03-02-01-00-00"), (2, "2026-03-04-01-00-00")):
            target = tmp_path / f"step{step}-{number}.fs"
            wanted = _history.wanted_transaction(storage.tids[4 * int(name[8:10]) - 1])
            result = _restore.restore(_restore.Request(path, str(target), wanted))
            assert target.read_bytes() == contents[name]
            assert result.plan.warnings == told
        assert {one.name: one.read_bytes() for one in Path(path).iterdir()} == before
        finished = _prune.finish(path)
        assert finished == [f"removed the chain {one}, whose deletion had begun" for one in left]
        assert _catalogue.catalogue(path)["unfinished"] == []
        if alive:
            assert _prune.prune(path, policy).deleted == []
            break
        assert set(left) <= set(going)
        step += 1
    assert step == (11 if calls == ["unlink"] else 11 + 7 + 2 * 3)  # no sync after the 4 index files, and two states to write


def half_deleted(made: Made) -> str:
    """Return a chain that a killed run left a part of. Newer ones are sound."""
    going = made.chain("2026-01-01", "2026-01-02")
    made.chain("2026-03-19")
    made.chain("2026-03-20")
    (made.path / f"{stamp('2026-01-02')}.deltafs").unlink()
    made.remember("pruning", [going])
    return going


def test_the_next_run_finishes_even_what_it_would_keep(made: Made) -> None:
    going = half_deleted(made)
    result = made.prune(keep_daily=9)
    assert (result.deleted, reasons(result)[going], result.warnings) == ([going], ["its deletion has begun"], [])
    assert "pruning" not in made.state


def test_a_half_deleted_chain_cannot_be_pinned(made: Made) -> None:
    going = half_deleted(made)
    assert refusal(made, keep_daily=9, pin=[going]) == f"The chain {going} can no longer be pinned: its deletion has begun."


def test_a_chain_whose_deletion_did_not_get_far_can_be_pinned(made: Made) -> None:
    going = made.chain("2026-01-01", "2026-01-02")
    made.chain("2026-03-20")
    made.remember("pruning", [going])
    assert made.prune(keep_daily=1, pin=[going]).deleted == []
    assert "pruning" not in made.state


def test_a_half_deleted_chain_stays_when_the_newer_ones_are_gone(made: Made) -> None:
    going = half_deleted(made)
    for day in ("2026-03-19", "2026-03-20"):
        for suffix in ("fs", "dat"):
            (made.path / f"{stamp(day)}.{suffix}").unlink()
    before = made.seen()
    assert _prune.finish(str(made.path)) == []
    assert made.seen().keys() == before.keys()
    assert made.prune(keep_daily=1, damaged="delete").deleted == []
    made.chain("2026-04-01")
    assert _prune.finish(str(made.path)) == [f"removed the chain {going}, whose deletion had begun"]


def test_a_whole_chain_loses_its_mark_when_it_is_the_last(made: Made) -> None:
    only = made.chain("2026-03-20")
    made.remember("pruning", [only])
    assert made.prune(keep_daily=1).deleted == []
    assert "pruning" not in made.state


@pytest.mark.parametrize("mark", ["../../etc/passwd", "", "2026-01-01-02-00-00", 7])
def test_a_mark_of_what_is_not_here_is_dropped(made: Made, mark: Any) -> None:
    made.chain("2026-03-19")
    made.chain("2026-03-20")
    made.remember("pruning", ["2026-01-02-02-00-00", mark])
    before = made.seen()
    assert _prune.finish(str(made.path)) == []
    assert made.seen().keys() == before.keys()
    assert "pruning" not in made.state


def test_a_mark_that_two_full_backups_bear_is_not_acted_upon(made: Made) -> None:
    twin = made.chain("2026-03-10")
    (made.path / f"{twin}.fsz").write_bytes(b"packed")
    made.chain("2026-03-20")
    made.remember("pruning", [twin])
    before = made.seen()
    assert _prune.finish(str(made.path)) == []
    assert made.seen() == before


def test_the_backup_finishes_it_first(made: Made, tmp_path: Path) -> None:
    going = half_deleted(made)
    database = Storage(tmp_path / "Data.fs")
    database.add(3)
    before = made.seen()
    checked = _repozo.backup(str(database.path), str(made.path), check=True)
    assert made.seen() == before
    result = _repozo.backup(str(database.path), str(made.path))
    assert checked.repaired == result.repaired == [f"removed the chain {going}, whose deletion had begun"]
    assert made.stamps()[:2] == [stamp("2026-03-19"), stamp("2026-03-20")]
    assert "pruning" not in made.state


def test_a_file_that_cannot_be_removed_is_named_and_the_next_run_goes_on(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(1, 4):
        made.chain(f"2026-03-{day:02}", index=True)

    def refuse(path: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as context, pytest.raises(RepositoryError) as caught:
        context.setattr(os, "unlink", refuse)
        _prune.prune(str(made.path), Policy(keep_daily=1))
    assert str(caught.value) == f"2026-03-01-02-00-00.index in {made.path} cannot be removed: Operation not permitted. The next run goes on with it."
    assert made.prune(keep_daily=9).deleted == [stamp("2026-03-01")]


def test_when_the_intention_cannot_be_written_nothing_is_deleted(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in range(1, 4):
        made.chain(f"2026-03-{day:02}")

    def full(path: str, state: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    before = made.seen()
    with monkeypatch.context() as context, pytest.raises(RepositoryError) as caught:
        context.setattr(_repository, "write_state", full)
        _prune.prune(str(made.path), Policy(keep_daily=1))
    assert str(caught.value) == f"confops.json in {made.path} cannot be written: No space left on device. Nothing was deleted."
    assert made.seen() == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
def test_an_error_at_any_step_says_what_is_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """B20: each fsync, rename and unlink fails once. What the sentence says is true, and the next run ends as one without errors."""
    set_clock(monkeypatch, NOW)
    reference, options = populate(tmp_path / "reference")
    pin = options.pop("pin")
    reference.prune(**options, pin=pin)
    after, step = reference.seen(), 0
    calls = {name: getattr(os, name) for name in ("fsync", "replace", "unlink")}
    while True:
        made, _options = populate(tmp_path / f"step{step}")
        before, left, sentence = made.seen(), step, ""

        def failing(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if left == -1:
                    raise OSError(number, os.strerror(number))
                return original(*arguments, **options)

            return call

        with monkeypatch.context() as context:
            for name, original in calls.items():
                context.setattr(os, name, failing(original))
            try:
                _prune.prune(str(made.path), Policy(**options), pin=pin)
            except RepositoryError as error:
                sentence = str(error)
        if not sentence:
            break
        seen, reason = made.seen(), os.strerror(number)
        gone = before.keys() - seen.keys()
        assert reason in sentence
        if "Nothing was deleted." in sentence:
            assert not gone
            assert ("The next run goes on with it." in sentence) == ("pruning" in made.state)
        elif " cannot be removed: " in sentence:
            assert sentence.split()[0] in seen
        elif " was removed, but " in sentence:
            assert sentence.split()[0] in gone
        else:
            assert sentence == f"2 chains were deleted from {made.path}, but confops.json there cannot be written: {reason}. The next run does that."
            assert after.keys() == seen.keys()
        _prune.prune(str(made.path), Policy(**options), pin=pin)
        assert made.seen() == after
        step += 1
    assert step == 16 + 9 + 2 * 3  # as many as a killed run has


# What is no file


@pytest.mark.parametrize("kind", ["FIFO", "directory", "dangling link"])
def test_what_is_no_file_stops_no_prune(made: Made, kind: str) -> None:
    """B4: it is damage, and kept. When it may go, it goes; a directory stays where it is."""
    for day in range(1, 7):
        made.chain(f"2026-03-{day:02}", f"2026-03-{day:02} 03:00")
    path = made.path / f"{stamp('2026-03-01 03:00:00')}.deltafs"
    path.unlink()
    {"FIFO": os.mkfifo, "directory": os.mkdir, "dangling link": lambda path: Path(path).symlink_to("nowhere")}[kind](path)
    policy = {"keep_daily": 1}
    kept = _prune.prune(str(made.path), Policy(**policy), check=True)
    assert kept.chains[0]["reasons"][0].startswith(f"damaged, and such chains are kept: {path.name} is a ")
    for _each in range(2):
        result = _prune.prune(str(made.path), Policy(**policy, damaged="delete"))
    assert os.path.lexists(path) is (kind == "directory")
    assert not (made.path / f"{stamp('2026-03-01')}.fs").exists()
    assert result.deleted == []
    assert _prune.finish(str(made.path)) == []


def test_a_link_goes_and_what_it_leads_to_stays(made: Made, tmp_path: Path) -> None:
    """B16: and it says so, since the room is not freed."""
    for day in range(1, 4):
        made.chain(f"2026-03-{day:02}")
    path = made.path / f"{stamp('2026-03-01')}.fs"
    path.rename(tmp_path / path.name)
    path.symlink_to(tmp_path / path.name)
    dat = (made.path / f"{stamp('2026-03-01')}.dat").stat().st_size
    for check in (True, False):
        result = _prune.prune(str(made.path), Policy(keep_daily=1), check=check)
        assert (result.deleted, result.freed_bytes) == ([stamp("2026-03-01")], dat)
        assert result.warnings == [f"{path.name} was a symbolic link: the link goes, the file that it leads to stays."]
    assert (tmp_path / path.name).exists()
    assert not path.is_symlink()


def test_many_chains_take_a_moment(made: Made) -> None:
    """B14: each chain's files are found without going through all others' again."""
    known = {}
    for number in range(3000):
        name = f"{_repository.stamp_of(moment('2010-01-01') + timedelta(hours=number))}"
        (made.path / f"{name}.fs").write_bytes(b"x")
        md5 = hashlib.md5(b"x", usedforsecurity=False).hexdigest()
        (made.path / f"{name}.dat").write_text(f"/r/{name}.fs 0 1 {md5}\n")
        known[f"{name}.fs"] = {"bytes": 1, "md5": md5}
    made.remember("verified", known)
    began = time.process_time()
    result = _prune.prune(str(made.path), Policy(keep_daily=1), check=True, pin=sorted(name[:19] for name in known)[::2])
    assert time.process_time() - began < 20  # quadratic, it took minutes
    assert len(result.deleted) == 1500 - 1


# The module


def module(capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    """Run the module and return its answer."""
    with patch_module_args(options), pytest.raises(SystemExit):
        repozo_prune.main()
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    answer.pop("invocation")
    answer["warnings"] = [one["event"]["msg"] for one in answer.pop("warnings", [])]
    return answer


def test_the_module_checks_runs_and_then_has_nothing_to_do(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    stamps = [made.chain(f"2026-03-{day:02}") for day in range(1, 4)]
    damaged = made.chain("2026-02-01")
    made.damage("2026-02-01")
    options = {"repository": str(made.path), "window_days": "1", "keep_weekly": "1", "floor": "1", "pin": stamps[0]}
    checked = module(capsys, **options, _ansible_check_mode=True)
    ran = module(capsys, **options)
    assert checked == ran
    assert ran == {
        "changed": True,
        "chains": ran["chains"],
        "deleted": [],
        "freed_bytes": 0,
        "remaining_window": {"earliest": "2026-03-01T02:00:00Z", "latest": "2026-03-03T02:00:00Z"},
        "pins": [stamps[0]],
        "warnings": [
            f"The newest sound backup, {stamps[2]}.fs, is 17 days old: backups have stopped, or the clock has jumped."
            " The recovery window is measured from that backup.",
            f"The chain {damaged} is damaged and counts for nothing; it is kept: {damaged}.fs has 28 bytes; {damaged}.dat says 24.",
        ],
        "diff": {
            "before_header": str(made.path),
            "after_header": str(made.path),
            "before": "".join(f"{one}\n" for one in [damaged, *stamps]),
            "after": "".join(f"{one}\n" for one in [damaged, f"{stamps[0]} (pinned)", *stamps[1:]]),
        },
    }
    assert ran["chains"][1] == {"stamp": stamps[0], "keep": True, "reasons": ["pinned"], "files": 1, "stored_bytes": ran["chains"][1]["stored_bytes"]}
    assert not module(capsys, **options)["changed"]
    options.update(unpin=options.pop("pin"), damaged="delete")
    ran = module(capsys, **options)
    assert (ran["changed"], ran["deleted"]) == (True, [damaged, stamps[0]])
    assert ran["freed_bytes"] > 0


def test_the_module_fails_with_the_sentence(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    failed = module(capsys, repository=str(made.path))
    assert failed["failed"] is True
    assert failed["msg"].endswith("that would be a policy to delete everything.")


def test_the_documentation_has_the_options_and_defaults_of_the_policy() -> None:
    documented = {name: option for name, option in yaml.safe_load(repozo_prune.DOCUMENTATION)["options"].items() if name not in ("repository", "pin", "unpin")}
    policy = Policy(window_days=1)
    assert set(documented) == set(policy.__dict__)
    assert {name: option.get("default") for name, option in documented.items()} == {**policy.__dict__, "window_days": None}
