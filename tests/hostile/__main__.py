"""`make hostile SEED=1 RUNS=1 [CASE='fifo/*/verify/0'] [JOBS=2]`."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence

from tests.hostile import bench, judge

_EXPLAINED = 3  # cases of one verdict and kind that are explained; the others are only named


def main() -> int:
    seed, runs = int(os.environ.get("SEED") or 1), int(os.environ.get("RUNS") or 1)
    jobs, pattern = int(os.environ.get("JOBS") or len(os.sched_getaffinity(0))), os.environ.get("CASE") or ""
    began = time.monotonic()
    with bench.opened(seed) as opened:
        for note in opened.notes:
            print(note)
        cases = bench.long_cases(opened, runs)
        if pattern:
            cases = bench.select(cases, pattern)
        results = []
        for one in bench.run(opened, cases, jobs):
            results.append(one)
            if not len(results) % 500:
                print(f"{len(results)} of at most {len(cases)} cases after {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(bench.table(results))
    print()
    for word in judge.VERDICTS:
        print(f"{word:>9}  {judge.MEANING[word]}")
    explain(results, seed, judge.VERDICTS if pattern and len(results) < 40 else judge.BAD)
    print(f"\n{bench.goal(results)} Seed {seed}, {time.monotonic() - began:.0f} s.")
    return 1 if bench.bad(results) else 0


def explain(results: list[bench.Result], seed: int, words: Sequence[str]) -> None:
    """Print how to repeat each case with one of these verdicts, and of some why."""
    seen: Counter[tuple[str, str]] = Counter()
    print()
    for one in sorted(results, key=lambda one: (words.index(one.verdict) if one.verdict in words else -1, one.kind, one.case)):
        if one.verdict in words:
            seen[(one.verdict, one.kind)] += 1
            print(f"{one.verdict:>9}  make hostile SEED={seed} CASE={one.case}")
            if seen[(one.verdict, one.kind)] <= _EXPLAINED and one.why:
                print("           " + (one.why if len(results) < 5 else one.why[:400].replace("\n", " ")))


if __name__ == "__main__":
    sys.exit(main())
