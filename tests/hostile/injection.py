"""Makes one system call of a run fail, or ends the run at it, and looks at what is left.

A first run counts the calls that change something: create, write, fsync, rename, link, unlink, mkdir, rmdir, chmod, chown. Then each of them
fails once with each error, writes less than it should, and is the last thing that the run does. Whatever happened, afterwards

- the run ended, with a sentence that is true, and holds no lock;
- each backup that was acknowledged before restores as before, and one that was acknowledged now, too;
- nothing is reported as damaged, and the same run works at the next try.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import json
import os
import re
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.confops.indico.plugins.module_utils import _backup_set, _history, _offsite, _pack, _prune, _repozo, _restore, _verify, _zeo, _zeo_info

from tests.hostile import judge, process
from tests.hostile.corruptions import NotHere
from tests.hostile.judge import Verdict
from tests.hostile.world import DATA, START, Clock, Template, pull_settings
from tests.unit.storage import record, tid_of

if TYPE_CHECKING:
    from tests.hostile.bench import Bench

ERRORS = ("ENOSPC", "EIO", "EROFS", "EDQUOT")
KILLS = ("kill-before", "kill-after")
SHORT = "short"
_NOW = START + timedelta(days=30)  # when the runs begin
_WANTED = START + timedelta(hours=2, minutes=1)  # what a restore to a time asks for: behind the first transaction of a backup
_CALLS = ("fsync", "rename", "replace", "link", "unlink", "remove", "mkdir", "rmdir", "chmod", "fchmod", "chown", "fchown", "ftruncate", "symlink")
_NO_DELETION = re.compile(r"[Nn]othing was deleted")
_NOTHING = re.compile(r"[Nn]othing (?:that was there )?has changed|[Nn]othing was (?:done|stored|packed|restored)|No backup was made|is as it was")


class Injector:
    """Counts the calls, and spoils the one of the number at. points are the names of those that were made."""

    def __init__(self, at: int | None, fault: str) -> None:
        self.at, self.fault, self.points, self.lock = at, fault, [], threading.Lock()
        self.points: list[str] = []

    def hit(self, name: str, path: object = None) -> str:
        """Count a call. Raise the error when its turn has come, or return what else is to be done to it."""
        with self.lock:
            number = len(self.points)
            self.points.append(name)
        if number != self.at:
            return ""
        if self.fault == "kill-before":
            os._exit(process.KILLED)
        if self.fault in ERRORS:
            code = getattr(errno, self.fault)
            raise OSError(code, os.strerror(code), *([str(path)] if isinstance(path, (str, Path)) else []))
        return self.fault

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Have all calls of this process pass by here."""
        usual = {name: getattr(os, name) for name in (*_CALLS, "write", "open")}
        usual_open = builtins.open
        for name in _CALLS:
            setattr(os, name, self._wrapped(name, usual[name]))
        os.write, os.open = self._os_write(usual["write"]), self._os_open(usual["open"])
        builtins.open = io.open = self._open(usual_open)  # type: ignore[assignment]
        try:
            yield
        finally:
            for name, function in usual.items():
                setattr(os, name, function)
            builtins.open = io.open = usual_open

    def _wrapped(self, name: str, usual: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            what = self.hit(name, arguments[0])
            result = usual(*arguments, **more)
            if what == "kill-after":
                os._exit(process.KILLED)
            return result

        return call

    def _os_write(self, usual: Callable[[int, Any], int]) -> Callable[[int, Any], int]:
        def write(descriptor: int, data: Any) -> int:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return usual(descriptor, data)
            return self.write(data, lambda piece: usual(descriptor, piece))

        return write

    def write(self, data: Any, usual: Callable[[Any], int]) -> int:
        what = self.hit("write")
        if what not in (SHORT, "kill-after"):
            return usual(data)
        done = usual(memoryview(data)[: max(1, len(data) // 2)])
        if what == "kill-after":
            os._exit(process.KILLED)
        return done

    def _os_open(self, usual: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *arguments: Any, **more: Any) -> int:
            what = self.hit("create", path) if flags & os.O_CREAT else ""
            descriptor = usual(path, flags, *arguments, **more)
            if what == "kill-after":
                os._exit(process.KILLED)
            return descriptor

        return call

    def _open(self, usual: Callable[..., Any]) -> Callable[..., Any]:
        injector = self

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:  # type: ignore[override]
                return injector.write(data, super().write)

        def call(file: Any, mode: str = "r", buffering: int = -1, *more: Any, **named: Any) -> Any:
            if not set(mode) & set("wxa+") or not isinstance(file, (str, bytes, Path)):
                return usual(file, mode, buffering, *more, **named)
            opener = named.pop("opener", None)
            what = injector.hit("create", file) if opener is None and set(mode) & set("wxa") else ""
            raw = Raw(os.fspath(file), mode.replace("b", "").replace("t", ""), opener=opener)
            if what == "kill-after":
                os._exit(process.KILLED)
            if buffering == 0:
                return raw
            buffered: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, *more, **{"encoding": "utf-8", **named})

        return call


# What is run


@dataclass
class Operation:
    """Something that is run with a spoiled call.

    build makes a place to run it in, act runs it there and returns data for JSON; both get the variant. repositories: each repository that
    it writes, with the database that the newest backup in it must be once it is done. target: the file that it replaces.
    """

    variants: tuple[str, ...]
    build: Callable[[Bench, Path, str], None]
    act: Callable[[Path, str], object]
    repositories: Callable[[Path], list[tuple[Path, Path | None]]]
    target: Callable[[Path], Path | None] = lambda _place: None


def _copy(template: Template, place: Path) -> None:
    shutil.copytree(template.place / "repository", place / "repository")
    shutil.copyfile(template.place / "Data.fs", place / "Data.fs")


def _one_repository(place: Path) -> list[tuple[Path, Path | None]]:
    return [(place / "repository", place / "Data.fs")]


def _build_backup(bench: Bench, place: Path, variant: str) -> None:
    of, what = variant.split("-")
    _copy(bench.templates[of], place)
    repository = place / "repository"
    if what == "first":
        shutil.rmtree(repository)
        repository.mkdir()
    elif what == "repair":
        (repository / ".confops-1.deltafs").write_bytes(b"half")
        _repozo.backup(str(place / "Data.fs"), str(repository), compression="none")
        dat = max(repository.glob("*.dat"))
        os.truncate(dat, dat.stat().st_size - 20)
        (repository / "confops.json").unlink(missing_ok=True)
        with (place / "Data.fs").open("ab") as stream:
            stream.write(record(tid_of(START + timedelta(days=20)), b"x" * 500))


def _act_backup(place: Path, variant: str) -> object:
    of, what = variant.split("-")
    compression = "none" if of == "plain" else "gzip"
    done = _repozo.backup(str(place / "Data.fs"), str(place / "repository"), compression=compression, full="asked" if what == "full" else "")
    return [done.decision.kind, done.repaired]


def _build_restore(bench: Bench, place: Path, variant: str) -> None:
    _copy(bench.templates[variant.split("-")[0]], place)
    (place / "target").mkdir()
    if "replace" in variant:
        (place / "target/Data.fs").write_bytes(b"FS21" + record(tid_of(START), b"old" * 50))
        (place / "target/Data.fs.index").write_bytes(b"old index")
        (place / "target/Data.fs.tmp").write_bytes(b"")


def _act_restore(place: Path, variant: str) -> object:
    target = str(place / "target/Data.fs")
    wanted = _history.wanted_time(f"{_WANTED:%Y-%m-%dT%H:%M:%SZ}", "UTC") if "time" in variant else None
    result = _restore.restore(_restore.Request(repository=str(place / "repository"), target=target, confirm=target, wanted=wanted))
    return result.plan.bytes


def _build_prune(bench: Bench, place: Path, _variant: str) -> None:
    _copy(bench.templates["chains"], place)


def _act_prune(place: Path, _variant: str) -> object:
    return _prune.prune(str(place / "repository"), _prune.Policy(keep_daily=1, keep_chains_min=1)).deleted


def _act_verify(place: Path, _variant: str) -> object:
    return _verify.verify(str(place / "repository"), jobs=1).problems


def _build_verify(bench: Bench, place: Path, variant: str) -> None:
    _copy(bench.templates[variant], place)


def _settings(place: Path) -> _backup_set.Settings:
    return _backup_set.Settings(
        "indico",
        str(place / "indico"),
        str(place / "backups"),
        ["main"],
        metrics=str(place / "metrics.prom"),
        zeo_settings=str(place / "zeo.json"),
        window_days=None,
        keep_daily=1,
        keep_chains_min=1,
    )


def _build_set(bench: Bench, place: Path, variant: str) -> None:
    """An instance with one storage, stored files and a configuration; with another variant than first, sets have been made of it."""
    settings, template = _settings(place), bench.templates["gzip"]
    for path in ("indico/db/main", "indico/archive/2026", "indico/etc", "backups"):
        (place / path).mkdir(parents=True)
    (place / "indico/archive/2026/one.pdf").write_bytes(b"1" * 3000)
    (place / "indico/etc/indico.conf").write_text("BaseURL = 'x'\n")
    database = Path(settings.database("main"))
    servers = [{"name": "main", "address": "127.0.0.1:1", "storage": "1", "database": str(database)}]
    (place / "zeo.json").write_text(json.dumps({"instance": "indico", "python": "/python", "metrics": "", "time_limit": 10, "servers": servers}))
    ends = [one.end for one in template.backups]
    for hour, end in enumerate(ends[-3:] if variant != "first" else []):
        Clock.set(template.now + timedelta(hours=hour - 3))
        database.write_bytes(template.live[:end])
        _backup_set.run(settings, who="root", why="test", full=hour == 1)
    database.write_bytes(template.live)


def _act_set(place: Path, variant: str) -> object:
    done = _backup_set.run(_settings(place), who="root", why="test", full=variant == "full")
    return [done.set, done.deleted]


def _set_repositories(place: Path) -> list[tuple[Path, Path | None]]:
    return [(place / "backups/main", place / "indico/db/main/Data.fs")]


_REAL = {name: getattr(os, name) for name in ("link", "unlink", "replace", "open", "write", "close")}


def _serve(_python: str, _server: object, script: str, request: dict[str, Any] | None = None, **_more: object) -> _zeo.Reply:
    """Pack as a server does; its calls are not spoiled. It tells no figures, which a pack can do without."""
    if script is _zeo_info._INFO:
        return _zeo.Reply(failure=("", "Unknown", "this server tells no figures"))
    database = _serve.database  # type: ignore[attr-defined]
    if not request or request.get("time") is None:
        return _zeo.Reply(connected=True, answer={"before": {"bytes": 0}, "after": {"bytes": 0}})
    before = Path(database).stat().st_size
    with io.FileIO(database) as stream:
        content = stream.readall()
    descriptor = _REAL["open"](f"{database}.pack", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    length = int.from_bytes(content[12:20], "big") + 8
    _REAL["write"](descriptor, content[:4] + content[4 + length :])
    _REAL["close"](descriptor)
    if os.path.exists(f"{database}.old"):  # noqa: PTH110
        _REAL["unlink"](f"{database}.old")
    _REAL["link"](database, f"{database}.old")
    _REAL["replace"](f"{database}.pack", database)
    return _zeo.Reply(connected=True, answer={"before": {"bytes": before}, "after": {"bytes": before - length}})


def _foresee(_python: str, _script: str, request: dict[str, Any], **_more: object) -> _zeo.Reply:
    return _zeo.Reply(answer={"any": request["end"] > 4, "bytes": 100})


def _act_pack(place: Path, _variant: str) -> object:
    settings = _settings(place)
    _serve.database = settings.database("main")  # type: ignore[attr-defined]
    _zeo.ask, _zeo.run = _serve, _foresee  # type: ignore[assignment]
    settings.pack_keep_old = False
    done = _pack.run(settings, who="root")
    return [one["result"] for one in done.storages]


def _build_offsite(bench: Bench, place: Path, variant: str) -> None:
    _build_set(bench, place, "more")
    (place / "host").mkdir()
    Clock.set(_NOW - timedelta(days=1))
    shutil.move(place / "backups", place / "source")
    if variant == "second":
        assert _offsite.pull(pull_settings(place)).ok
        shutil.move(place / "source", place / "backups")
        _backup_set.run(_settings(place), who="root", why="test")
        shutil.move(place / "backups", place / "source")


def _act_offsite(place: Path, _variant: str) -> object:
    done = _offsite.pull(pull_settings(place))
    if not done.ok:
        raise _offsite.RepositoryError(" ".join(done.refused + done.problems))
    return [done.files, done.sets]


def _offsite_repositories(place: Path) -> list[tuple[Path, Path | None]]:
    return [(place / "host/copy/main", None)]


_OPERATIONS: dict[str, Operation] = {
    "backup": Operation(
        ("plain-first", "gzip-first", "plain-more", "gzip-more", "bare-more", "chains-full", "plain-repair"), _build_backup, _act_backup, _one_repository
    ),
    "restore": Operation(
        ("gzip-new", "plain-replace", "gzip-time-replace"),
        _build_restore,
        _act_restore,
        lambda place: [(place / "repository", None)],
        lambda place: place / "target/Data.fs",
    ),
    "prune": Operation(("chains",), _build_prune, _act_prune, lambda place: [(place / "repository", None)]),
    "verify": Operation(("single",), _build_verify, _act_verify, lambda place: [(place / "repository", None)]),
    "set": Operation(("first", "more", "full"), _build_set, _act_set, _set_repositories),
    "pack": Operation(("pack",), _build_set, _act_pack, _set_repositories),
    "offsite": Operation(("first", "second"), _build_offsite, _act_offsite, _offsite_repositories),
}
_LONG = ("set", "pack", "offsite")
# The rows of the table: errors and kills apart.
OPERATIONS = [f"{how}-{name}" for how in ("fail", "kill") for name in _OPERATIONS]


# Cases


def prepare(bench: Bench) -> None:
    """Make a place for each operation, and count its calls and what it leaves when nothing fails."""
    for name, operation in _OPERATIONS.items():
        for variant in operation.variants:
            place = _place(bench, name, variant)
            place.mkdir(parents=True)
            Clock.set(_NOW - timedelta(days=1))
            operation.build(bench, place, variant)
            trial = bench.root / "trial"
            shutil.copytree(place, trial, symlinks=True)
            _relocate(place, trial)
            ended = process.run(lambda operation=operation, variant=variant, trial=trial: _injected(operation, trial, variant, None, ""))  # type: ignore[misc]
            assert ended.how == "done", f"{name}/{variant} does not even work when nothing fails: {ended}"
            bench.points[f"{name}/{variant}"] = ended.value["points"]
            bench.leaves[f"{name}/{variant}"] = {str(path.relative_to(trial)): _names(path) for path, _database in operation.repositories(trial)}
            shutil.rmtree(trial)


def _place(bench: Bench, name: str, variant: str) -> Path:
    return bench.root / "injection" / name / variant


def _relocate(old: Path, new: Path) -> None:
    """Have settings files name the directory that they were copied to."""
    if (new / "zeo.json").exists():
        (new / "zeo.json").write_text((new / "zeo.json").read_text().replace(str(old), str(new)))


def cases(bench: Bench) -> list[str]:
    """Return a case for each call and each fault."""
    found = []
    for key, points in bench.points.items():
        name, variant = key.split("/")
        for number, point in enumerate(points):
            # The long operations consist of the short ones, which meet all errors.
            errors = ERRORS if name not in _LONG else (*ERRORS[:2], ERRORS[2 + (number + bench.seed) % 2])
            faults = [*errors, *([SHORT] if point == "write" else [])]
            found += [f"fail-{name}/{variant}/{fault}/{number}" for fault in faults]
            found += [f"kill-{name}/{variant}/{fault}/{number}" for fault in KILLS]
    return found


def run(bench: Bench, case: str, place: Path) -> Verdict:
    """Run an operation with a spoiled call, and judge what is left."""
    kind, variant, fault, number = case.split("/")
    name = kind.split("-", 1)[1]
    operation, key = _OPERATIONS[name], f"{name}/{variant}"
    if key not in bench.points or int(number) >= len(bench.points[key]):
        raise NotHere("there is no such call")
    point = f"{fault} at {bench.points[key][int(number)]} {number}"
    shutil.rmtree(place)
    shutil.copytree(_place(bench, name, variant), place, symlinks=True)
    _relocate(_place(bench, name, variant), place)
    look = _Look(operation, place, bench.leaves[key])
    first = process.run(lambda: _injected(operation, place, variant, int(number), fault))
    found = look.after(first, bench)
    if found is None and first.how != "hung":
        found = look.again(lambda: _again(operation, place, variant), bench)
    verdict = found or Verdict(judge.REFUSED if first.how == "raised" else judge.EXACT, first.text)
    return Verdict(verdict.word, f"{point}: {verdict.why}")


def _injected(operation: Operation, place: Path, variant: str, at: int | None, fault: str) -> dict[str, Any]:
    Clock.set(_NOW)
    injector = Injector(at, fault)
    try:
        with injector.installed():
            told = operation.act(place, variant)
    except BaseException:
        held = [str(path) for path, _database in operation.repositories(place) if path.exists() and _held(path)]
        if held:
            raise AssertionError(f"the lock on {held[0]} is still held") from None
        raise
    return {"told": told, "points": injector.points}


def _held(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _again(operation: Operation, place: Path, variant: str) -> dict[str, Any]:
    """Verify what is there, and do it once more, an hour later."""
    Clock.set(_NOW + timedelta(hours=1))
    problems = []
    for path, _database in operation.repositories(place):
        if path.exists() and any(path.glob("[0-9]*.dat")):  # before the first line nothing is acknowledged, and verify says that it is empty
            problems += _verify.verify(str(path), jobs=1, check=True).problems
    told = operation.act(place, variant)
    return {"told": told, "problems": problems}


# What is left


def _names(repository: Path) -> list[str]:
    return sorted(path.name for path in repository.iterdir() if DATA.fullmatch(path.name)) if repository.is_dir() else []


def recover(repository: Path, stamp: str = "~") -> bytes | None:
    """Return what repozo -R restores as of a stamp: the newest full backup up to it, and the incremental ones behind. None when there is nothing."""
    needed: list[Path] = []
    for name in reversed(_names(repository)):
        if name.split(".")[0] <= stamp:
            needed.append(repository / name)
            if ".fs" in name:
                break
    parts = [judge.content_of(path) for path in reversed(needed)]
    return b"".join(part or b"" for part in parts) if parts and ".fs" in needed[-1].name else None


class _Look:
    """What was there before a run, and what must still be there after it."""

    def __init__(self, operation: Operation, place: Path, leaves: dict[str, list[str]]) -> None:
        self.operation, self.place = operation, place
        self.before: dict[Path, dict[str, bytes | None]] = {}
        for path, _database in operation.repositories(place):
            stays = set(leaves[str(path.relative_to(place))])
            self.before[path] = {name: recover(path, name.split(".")[0]) for name in self._acknowledged(path) if name in stays}
        self.target = operation.target(place)
        self.old = self._target()
        self.names = {path: _names(path) for path in self.before}
        self.view = self._view()

    def _acknowledged(self, path: Path) -> list[str]:
        lines = "".join(dat.read_text() for dat in path.glob("*.dat"))
        return [name for name in _names(path) if re.search(rf"{re.escape(name)} \d+ \d+ [0-9a-f]{{32}}\n", lines)]

    def _target(self) -> bytes | None:
        return self.target.read_bytes() if self.target and self.target.exists() else None

    def _view(self) -> list[object]:
        """Return what a person sees of it who restores now."""
        return [self._target(), *(recover(path) for path in self.before)]

    def _lost(self) -> Verdict | None:
        for path, states in self.before.items():
            for name, state in states.items():
                if recover(path, name.split(".")[0]) != state:
                    return Verdict(judge.LOST, f"{name} restores something else than before")
        return None

    def after(self, ended: process.Ended, bench: Bench) -> Verdict | None:
        """Judge how the run with the spoiled call ended."""
        if ended.how == "raised" and "is still held" in ended.text:
            return Verdict(judge.HUNG, ended.text)
        found = self._lost() or judge.failure(ended)
        if found:
            return found
        if ended.how == "raised" and self._untrue(ended.text):
            return Verdict(judge.UNTRUE, ended.text)
        now = self._target()
        if self.target and now != self.old and now not in self._new(bench):
            return Verdict(judge.SILENT, "the target is neither the old database nor the new one")
        return self._done(bench) if ended.how == "done" else None

    def _untrue(self, text: str) -> bool:
        """Whether a sentence says that nothing happened, although something did. A pack that tells of the pack itself means what follows it."""
        if _NO_DELETION.search(text) and any(set(names) - set(_names(path)) for path, names in self.names.items()):
            return True
        return bool(_NOTHING.search(text)) and "packed, but" not in text and self._view() != self.view

    def _new(self, bench: Bench) -> list[bytes]:
        """Return what the target may become: the newest state, or the one that the variant with a time asks for."""
        plain = not any(name.endswith("z") for name in _names(self.place / "repository"))
        template = bench.templates["plain" if plain else "gzip"]
        known = [one.name for one in template.backups]
        return [template.state(template.backups[-1]), *template.states_at(tid_of(_WANTED), exact=False, known=known)]

    def _done(self, bench: Bench) -> Verdict | None:
        """Judge what is there once a run says that it is done."""
        for path, database in self.operation.repositories(self.place):
            expected = database.read_bytes() if database else None
            if expected is not None and (recover(path) != expected or bench.stocks[0].restore(path, "", self.place / "stock.fs") != expected):
                return Verdict(judge.SILENT, "it says that it is done, but the newest backup is not the database")
        if self.target and self._target() not in self._new(bench):
            return Verdict(judge.SILENT, "it says that it is done, but the target is not what was asked for")
        return None

    def again(self, act: Callable[[], dict[str, Any]], bench: Bench) -> Verdict | None:
        """Judge the same run without a spoiled call."""
        ended = process.run(act)
        if ended.how != "done":
            return judge.failure(ended) or Verdict(judge.STUCK, f"the next run refuses: {ended.text}")
        found = self._lost() or self._done(bench)
        if not found and ended.value["problems"]:
            return Verdict(judge.ALARM, f"nothing is lost, but verify says: {ended.value['problems'][0]}")
        return found
