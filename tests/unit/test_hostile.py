"""A short run of the hostile bench with a fixed seed. `make hostile` runs all of it; docs/hostile.md tells what it is."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.hostile import bench, judge
from tests.hostile.corruptions import KINDS


@pytest.fixture(scope="module")
def results() -> list[bench.Result]:
    with bench.opened(seed=1) as opened:
        return list(bench.run(opened, bench.short_cases(opened, each=3, every=25), jobs=2))


def test_nothing_is_lost_silently_wrong_hung_or_without_a_sentence(results: list[bench.Result]) -> None:
    """The faults B1 to B22; the long run counts over 5,000 cases."""
    wrong = [f"{one.verdict}: make hostile SEED=1 CASE={one.case}: {one.why[:300]}" for one in bench.bad(results)]
    assert not wrong, "\n".join([bench.goal(results), *wrong])


def test_what_is_sound_is_no_alarm(results: list[bench.Result]) -> None:
    alarms = [f"{one.case}: {one.why[:300]}" for one in results if one.verdict == judge.ALARM and one.kind == "nothing"]
    assert not alarms


def test_the_bench_sees_what_it_should(results: list[bench.Result]) -> None:
    """A bench that refuses or accepts everything would prove nothing."""
    counts = Counter(one.verdict for one in results)
    assert counts[judge.EXACT] > 50
    assert counts[judge.REFUSED] > 50
    assert len(KINDS) >= 50
    assert len({one.kind for one in results} & set(KINDS)) > 0.9 * len(KINDS)  # some do not fit to the templates that were drawn
