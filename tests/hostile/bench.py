"""Plans the cases, spreads them over the cores, and prints the table.

A case has a name, KIND/TEMPLATE/ACTION/NUMBER, from which with the seed everything follows: `make hostile SEED=1 CASE=fifo/gzip/verify/0` repeats it.
"""

from __future__ import annotations

import contextlib
import fnmatch
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.hostile import actions, injection, judge, process, stock, world
from tests.hostile.corruptions import KINDS, Damage, NotHere
from tests.lib.environments import CACHE, environment


@dataclass
class Result:
    """What became of a case. verdict is one of judge.VERDICTS, or empty when the case does not exist."""

    case: str
    verdict: str
    why: str = ""
    seconds: float = 0.0

    @property
    def kind(self) -> str:
        return self.case.split("/")[0]

    @property
    def action(self) -> str:
        return self.case.split("/")[2]


@dataclass
class Bench:
    """What all cases share: the seed, the templates below root, and the judges."""

    seed: int
    root: Path
    templates: dict[str, world.Template]
    stocks: list[stock.Stock]
    notes: list[str] = field(default_factory=list)
    points: dict[str, list[str]] = field(default_factory=dict)
    leaves: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def run(self, case: str) -> Result:
        """Run one case."""
        began = time.monotonic()
        place = self.root / f"at-{os.getpid()}"
        remove(place)
        place.mkdir(mode=0o755)
        try:
            runner = injection.run if case.split("/")[0] in injection.OPERATIONS else corruption
            verdict = runner(self, case, place)
            return Result(case, verdict.word, verdict.why, time.monotonic() - began)
        except NotHere as error:
            return Result(case, "", str(error))
        finally:
            remove(place)


def corruption(bench: Bench, case: str, place: Path) -> judge.Verdict:
    """Damage a copy of a template, run an action upon it, and judge that."""
    name, of, action, number = case.split("/")
    kind, template = KINDS[name], bench.templates[of]
    if action in kind.undetectable:
        raise NotHere("nobody can know")
    d = Damage(template, place, world.random_of(bench.seed, name, of, number, action))
    shutil.copytree(template.place / "repository", d.repository)
    shutil.copyfile(template.place / "Data.fs", d.live)
    (place / "restored").mkdir()
    if action == "pull":
        shutil.copytree(template.place / "host", place / "host")
    kind.damage(d)
    question = actions.ask(d, action)
    before = judge.Evidence(template, d.repository)
    if d.unprivileged:
        _give_away(place)
    ended = process.run(lambda: actions.perform(d, question), unprivileged=d.unprivileged, during=d.during)
    found = judge.Judge(bench.stocks, place / "stock.fs").judge(d, kind, question, before, ended)
    return judge.Verdict(found.word, f"{question.text} {found.why}".strip())


def _give_away(place: Path) -> None:
    if os.geteuid() == 0:
        for directory, directories, names in os.walk(place):
            for name in [".", *directories, *names]:
                os.chown(Path(directory) / name, process.NOBODY, process.NOBODY, follow_symlinks=False)


def remove(place: Path) -> None:
    """Remove what a case left, also what may not be written to."""
    if place.exists():
        for directory, _directories, _names in os.walk(place):
            Path(directory).chmod(0o700)
        shutil.rmtree(place)


@contextlib.contextmanager
def opened(seed: int) -> Iterator[Bench]:
    """Make the templates, and remove all in the end."""
    memory = Path("/dev/shm")
    fast = memory if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**30 else None
    with tempfile.TemporaryDirectory(prefix="hostile-", dir=fast) as name:
        root = Path(name)
        root.chmod(0o755)  # some cases run as another user
        found = shutil.which
        shutil.which = lambda name, *more, **named: None if name == "igzip" else found(name, *more, **named)  # type: ignore[assignment]  # whose calls are its own
        stocks, notes = stock.all_versions(environment, CACHE)
        bench = Bench(seed, root, world.templates(root / "templates"), stocks, notes)
        injection.prepare(bench)
        try:
            yield bench
        finally:
            shutil.which = found


# Planning


def corruption_cases(bench: Bench, runs: int) -> list[str]:
    """Return a case for each kind, template and action, in each run."""
    return [f"{kind.name}/{of}/{action}/{number}" for number in range(runs) for kind in KINDS.values() for of in bench.templates for action in kind.actions]


def short_cases(bench: Bench, each: int, every: int) -> list[str]:
    """Return some cases of each kind and each operation: as many as each of a kind, and one of every so many injections."""
    random = world.random_of(bench.seed, "short")
    found: list[str] = []
    for kind in KINDS.values():
        mine = [f"{kind.name}/{of}/{action}/0" for of in bench.templates for action in kind.actions]
        found += random.sample(mine, min(len(mine), each))
    injected = injection.cases(bench)
    return found + injected[random.randrange(every) :: every]


def long_cases(bench: Bench, runs: int) -> list[str]:
    return corruption_cases(bench, runs) + injection.cases(bench)


# Running

_bench: Bench | None = None  # that of the processes of a pool


def _one(case: str) -> Result:
    assert _bench
    return _bench.run(case)


def run(bench: Bench, cases: Iterable[str], jobs: int) -> Iterator[Result]:
    """Run the cases in so many processes and yield what becomes of them; those that do not exist are left out."""
    global _bench
    _bench = bench
    # A pool ends its processes by SIGTERM, once: what runs the bench may have a handler of its own for that, which a case could swallow.
    with multiprocessing.get_context("fork").Pool(jobs, signal.signal, (signal.SIGTERM, signal.SIG_DFL)) as pool:
        yield from (result for result in pool.imap_unordered(_one, list(cases), chunksize=4) if result.verdict)


def select(cases: list[str], pattern: str) -> list[str]:
    """Return the cases that a pattern of the shell names; one that names none is the name of a case."""
    return [case for case in cases if fnmatch.fnmatchcase(case, pattern)] or [pattern]


# The table


def table(results: list[Result]) -> str:
    """Return a line for each kind with the number of cases of each verdict, and a line for all."""
    counts: dict[str, Counter[str]] = {}
    for one in results:
        counts.setdefault(one.kind, Counter())[one.verdict] += 1
    rows = [f"{'':36} {'cases':>6} " + " ".join(f"{word:>9}" for word in judge.VERDICTS)]
    rows += [_row(kind, counts[kind]) for kind in [*KINDS, *injection.OPERATIONS] if kind in counts]
    total: Counter[str] = Counter()
    for found in counts.values():
        total += found
    by_action: dict[str, Counter[str]] = {}
    for one in results:
        if one.kind in KINDS:
            by_action.setdefault(one.action, Counter())[one.verdict] += 1
    rows += ["", *(_row(f"upon damage: {action}", found) for action, found in by_action.items()), _row("all", total)]
    return "\n".join(rows)


def _row(name: str, counts: Counter[str]) -> str:
    return f"{name:36} {sum(counts.values()):6} " + " ".join(f"{counts[word] or '.':>9}" for word in judge.VERDICTS)


def goal(results: list[Result]) -> str:
    """Return the line that says whether the goal is met."""
    counts = Counter(one.verdict for one in results)
    said = {
        judge.SILENT: "silently wrong",
        judge.LOST: "lost acknowledged",
        judge.HUNG: "hung",
        judge.TRACEBACK: "traceback",
        judge.ERRNO: "no sentence",
        judge.UNTRUE: "untrue sentence",
        judge.STUCK: "next run stuck",
    }
    return f"Goal: {', '.join(f'{words} {counts[word]}' for word, words in said.items())}; {len(results)} cases."


def bad(results: list[Result]) -> list[Result]:
    return sorted((one for one in results if one.verdict in judge.BAD), key=lambda one: (one.verdict, one.case))
