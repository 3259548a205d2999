"""What a cleanup removes and what it spares, in an instance made of files."""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _cleanup
from ansible_collections.confops.indico.plugins.module_utils._cleanup import CleanupError, Rules

HOUR, DAY = 3600, 86400
NOW = int(time.time())


class Instance:
    """A prefix with the directories that the roles make."""

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        for name in ("cache/generic_cache/flask-session", "tmp/egg-cache", "log/indico", "log/apache2", "etc"):
            (prefix / name).mkdir(parents=True)

    def file(self, name: str, age: float = 0, content: bytes = b"x" * 100) -> Path:
        path = self.prefix / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (NOW - age, NOW - age))
        return path

    def entry(self, namespace: str, key: str, ends: int | None, age: float = 0, value: Any = "value") -> Path:
        """Make a file as Indico's cache does, whose protocol is 0."""
        return self.file(f"cache/generic_cache/{namespace}/{key[:4]}/{key[:8]}/{key}", age, pickle.dumps((ends, value), 0))

    def directory(self, name: str, age: float) -> Path:
        path = self.prefix / name
        path.mkdir(parents=True, exist_ok=True)
        os.utime(path, (NOW - age, NOW - age))
        return path

    def files(self) -> set[str]:
        return {str(path.relative_to(self.prefix)) for path in self.prefix.rglob("*") if path.is_file() or path.is_symlink()}

    def clean(self, *what: str, **ages: float) -> dict[str, dict[str, Any]]:
        """Clean after a check that foretold the same and did nothing; a second run then finds nothing."""
        rules, kinds = Rules(**ages), list(what or _cleanup.KINDS)
        before = {str(path) for path in self.prefix.rglob("*")}
        predicted = _cleanup.run(str(self.prefix), kinds, rules, check=True)
        assert {str(path) for path in self.prefix.rglob("*")} == before
        size = sum(path.stat().st_size for path in self.prefix.rglob("*") if path.is_file() and not path.is_symlink())
        done = _cleanup.run(str(self.prefix), kinds, rules)
        assert done == predicted
        left = sum(path.stat().st_size for path in self.prefix.rglob("*") if path.is_file() and not path.is_symlink())
        assert sum(one.size for one in done.values()) == size - left
        again = _cleanup.run(str(self.prefix), kinds, rules)
        assert [(one.files, one.size, one.directories) for one in again.values()] == [(0, 0, 0)] * len(kinds)
        assert [one.kept for one in again.values()] == [one.kept for one in done.values()]
        return {name: one.data() for name, one in done.items()}


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    return Instance(tmp_path / "indico")


class Anything:
    """Must not be made by reading a file: doing so ends the test."""

    def __reduce__(self) -> tuple[Callable[[int], Any], tuple[int]]:
        return os._exit, (3,)


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("value", ["text", {"key": [1, 2]}, Anything()], ids=["text", "data", "an object"])
def test_expiry_is_read_without_the_value(protocol: int, value: Any) -> None:
    for number in (1480000000, 2**31 + 5, 2**40):
        assert _cleanup.expiry(pickle.dumps((number, value), protocol)[:128]) == number
    assert _cleanup.expiry(pickle.dumps((None, value), protocol)[:128]) == float("inf")


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"(",
        b"(I",
        b"(I12",
        b"garbage",
        b"\x80\x02",
        pickle.dumps("text", 0),
        pickle.dumps([1], 2),
        pickle.dumps(Anything(), 0),
        b"(I01\nI5\nt.",
        b"(Inan\n",
    ],
)
def test_what_is_no_entry_says_nothing(head: bytes) -> None:
    assert _cleanup.expiry(head) is None


def test_expiry_of_a_real_entry() -> None:
    """The first bytes of files that Indico 1.2.2 wrote."""
    assert _cleanup.expiry(b"(I1483228800\nS\"(dp1\\nS'_expires'\\np2\\ncdatetime\\ndatetime\\n") == 1483228800
    assert _cleanup.expiry(b"(NI1\ntp1\n.") == float("inf")


def test_sessions_go_by_what_they_say_and_not_by_their_age(instance: Instance) -> None:
    live = instance.entry("flask-session", "a" * 64, NOW + 5 * DAY, age=26 * DAY)
    ended = instance.entry("flask-session", "b" * 64, NOW - 10, age=1)
    damaged_young = instance.file("cache/generic_cache/flask-session/cccc/cccccccc/" + "c" * 64, 30 * DAY, b"")
    damaged_old = instance.file("cache/generic_cache/flask-session/dddd/dddddddd/" + "d" * 64, 32 * DAY, b"")
    found = instance.clean("sessions", "cache")
    assert (live.exists(), ended.exists(), damaged_young.exists(), damaged_old.exists()) == (True, False, True, False)
    assert found["sessions"]["files"] == 2
    assert found["sessions"]["kept"] == {"live": 2}
    assert found["cache"] == {"files": 0, "bytes": 0, "directories": 0, "kept": {}}


def test_session_that_says_nothing_lives_as_long_as_the_site_says(instance: Instance) -> None:
    for age in (6, 8, 20):
        instance.file(f"cache/generic_cache/flask-session/{age:04}/{age:08}/{age:064}", age * DAY, b"")
    assert instance.clean("sessions")["sessions"]["kept"] == {"live": 3}
    (instance.prefix / "etc/indico.conf").write_text("# SessionLifetime = 1\nSessionLifetime = 864000\n")
    assert instance.clean("sessions")["sessions"]["kept"] == {"live": 2}
    (instance.prefix / "etc/indico.conf").write_text("SessionLifetime = 0\n")
    assert instance.clean("sessions")["sessions"]["kept"] == {"live": 1}


def test_cache_goes_by_expiry_or_by_age(instance: Instance) -> None:
    stay = [
        instance.entry("resetpass", "a" * 64, NOW + HOUR, age=5 * DAY),
        instance.entry("ConfTT", "b" * 64, None, age=HOUR),
        instance.file("cache/abstract_books/7.pdf", HOUR),
        instance.entry("flask-session", "d" * 64, NOW - DAY),  # of another kind
    ]
    go = [
        instance.entry("UpcomingEvents", "e" * 64, NOW - 1, value=Anything()),
        instance.entry("ConfTT", "f" * 64, None, age=2 * DAY),
        instance.file("cache/generic_cache/ConfTT/0000/00000000/" + "0" * 64, 2 * DAY, b"garbage"),
        instance.file("cache/abstract_books/8.pdf", 2 * DAY),
        instance.file("cache/categOverview", 2 * DAY, pickle.dumps((NOW + DAY, "only entries of the generic cache say when they end"), 0)),
    ]
    size = sum(path.stat().st_size for path in go)
    found = instance.clean("cache")["cache"]
    assert [path.exists() for path in stay] == [True] * 4
    assert [path.exists() for path in go] == [False] * 5
    assert found == {"files": 5, "bytes": size, "directories": 0, "kept": {"valid": 1, "too young": 2}}
    assert instance.clean("cache", cache_days=0)["cache"]["files"] == 2


def test_temporary_files_go_by_name_and_age(instance: Instance) -> None:
    stay = [
        instance.file("tmp/IndicoYoung", 2 * HOUR),
        instance.file("tmp/indico.pdf", 90 * DAY),
        instance.file("tmp/notes", 90 * DAY),
        instance.file("tmp/vars.js.tpl.tmp", 90 * DAY),
        instance.file("tmp/egg-cache/MarkupSafe.egg-tmp/Indico.so.tmp", 900 * DAY),
        instance.file("tmp/mako_modules/IndicoPage.tmp", 90 * DAY),
    ]
    go = [instance.file("tmp/shared/IndicoUpload", 4 * HOUR), instance.file("tmp/IndicoOld", 4 * HOUR), instance.file("tmp/tmpAbcIndico.tmp", 4 * HOUR)]
    found = instance.clean("tmp")["tmp"]
    assert [path.exists() for path in stay] == [True] * 6
    assert [path.exists() for path in go] == [False] * 3
    assert found == {"files": 3, "bytes": 300, "directories": 0, "kept": {"too young": 1, "other name": 3}}
    assert instance.clean("tmp", min_age_hours=1)["tmp"]["files"] == 1


def test_what_restores_put_aside_goes_when_it_is_named_and_old(instance: Instance) -> None:
    """O21: never by itself."""

    def stamp(days: float) -> str:
        return time.strftime("%Y-%m-%d-%H-%M-%S", time.gmtime(NOW - days * DAY))

    old, failed = f"db/main/Data.fs.replaced-{stamp(9)}", f"db/main/Data.fs.failed-{stamp(8)}"
    young, opened = f"db/main/Data.fs.replaced-{stamp(3)}", f"db/main/Data.fs.replaced-{stamp(20)}"
    for name in ("db/main/Data.fs", old, failed, young, opened, f"archive.replaced-{stamp(9)}/2026/a/file"):
        instance.file(name)
    instance.clean()
    assert {old, failed, young, opened, "db/main/Data.fs"} <= instance.files()
    with process("stream = open(sys.argv[1])", instance.prefix / opened):
        done = instance.clean("replaced")["replaced"]
    assert (done["files"], done["directories"], done["kept"]) == (3, 1, {"in use": 1, "too young": 1})
    assert {name for name in instance.files() if name.startswith(("db", "archive"))} == {"db/main/Data.fs", young, opened}
    assert instance.clean("replaced", replaced_days=1)["replaced"]["files"] == 2


def test_logs_go_when_they_were_rotated_long_ago(instance: Instance) -> None:
    old = 121 * DAY
    stay = [
        instance.file("log/indico/indico.log", old),
        instance.file("log/indico/scheduler.log", old),
        instance.file("log/indico/scheduler.log.2026-01-01", 119 * DAY),
        instance.file("log/indico/deeper/other.log.1", old),
        instance.file("log/indico/release-1.2.2", old),
        instance.file("log/access.log.1", 100 * DAY),
    ]
    go = [
        instance.file("log/indico/scheduler.log.2025-01-01", old),
        instance.file("log/indico/indico.log.1", old),
        instance.file("log/apache2/apache2-access.log.2.gz", old),
    ]
    found = instance.clean("logs")["logs"]
    assert [path.exists() for path in stay] == [True] * 6
    assert [path.exists() for path in go] == [False] * 3
    assert found == {"files": 3, "bytes": 300, "directories": 0, "kept": {"too young": 2, "not rotated": 3}}
    assert instance.clean("logs", log_days=110)["logs"]["files"] == 1


def test_empty_directories_go_when_they_are_old_and_nobody_declares_them(instance: Instance) -> None:
    instance.directory("cache/generic_cache/flask-session/aaaa/aaaaaaaa", 2 * DAY)
    instance.directory("cache/generic_cache/flask-session/bbbb/bbbbbbbb", HOUR)
    instance.directory("cache/generic_cache/flask-session", 9 * DAY)
    instance.directory("cache/generic_cache/ConfTT", 9 * DAY)
    instance.directory("cache/generic_cache/Other/cccc/cccccccc", 9 * DAY)
    instance.directory("cache/xml/a", 9 * DAY)
    instance.directory("tmp/egg-cache", 9 * DAY)
    instance.directory("log/apache2", 900 * DAY)
    found = instance.clean()
    assert {name: one["directories"] for name, one in found.items()} == {"cache": 2, "tmp": 0, "sessions": 1, "logs": 0}
    left = {str(path.relative_to(instance.prefix)) for path in instance.prefix.rglob("*")}
    assert left == {
        "cache", "cache/generic_cache", "cache/generic_cache/ConfTT", "cache/generic_cache/Other", "cache/generic_cache/Other/cccc", "cache/xml",
        "cache/generic_cache/flask-session", "cache/generic_cache/flask-session/aaaa",
        "cache/generic_cache/flask-session/bbbb", "cache/generic_cache/flask-session/bbbb/bbbbbbbb",
        "tmp", "tmp/egg-cache", "log", "log/apache2", "log/indico", "etc",
    }  # fmt: skip


@contextmanager
def process(code: str, path: Path) -> Iterator[None]:
    """Run Python code that has path in sys.argv[1], in a process that ends with the block."""
    running = subprocess.Popen(
        [sys.executable, "-c", f"import mmap, os, sys\n{code}\nprint('ready', flush=True)\nsys.stdin.read()", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n"
        yield
    finally:
        running.communicate()


USES = {
    "read": "held = open(sys.argv[1], 'rb')",
    "written": "held = open(sys.argv[1], 'ab')",
    "mapped": "file = open(sys.argv[1], 'rb'); held = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ); file.close()",
}


@pytest.fixture(params=["leases", "no leases"])
def leases(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the test on a file system that has leases, and as on one that has none, where /proc says it."""
    real = fcntl.fcntl

    def without(descriptor: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETLEASE:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, command, argument)

    def visible(place: Any) -> list[str]:
        # Where the tests run in a sandbox, its first process may hide from them.
        return [name for name in listdir(place) if (place, name) != ("/proc", "1")]

    listdir = os.listdir
    if request.param == "no leases":
        monkeypatch.setattr(fcntl, "fcntl", without)
        monkeypatch.setattr(os, "listdir", visible)


@pytest.mark.usefixtures("leases")
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("cache", ["cache/generic_cache/ConfTT/aaaa/aaaaaaaa/aaaaaaaaa", "cache/generic_cache/ConfTT/aaaa/aaaaaaaa/bbbbbbbbb"]),
        ("sessions", ["cache/generic_cache/flask-session/aaaa/aaaaaaaa/a", "cache/generic_cache/flask-session/aaaa/aaaaaaaa/b"]),
        ("tmp", ["tmp/IndicoUsed", "tmp/IndicoFree"]),
        ("logs", ["log/indico/scheduler.log.2020-01-01", "log/indico/scheduler.log.2020-01-02"]),
    ],
    ids=["cache", "sessions", "tmp", "logs"],
)
def test_file_in_use_stays(instance: Instance, kind: str, names: list[str], use: str) -> None:
    used, free = (instance.file(name, 900 * DAY, pickle.dumps((1, name), 0)) for name in names)
    size = free.stat().st_size
    if os.geteuid() == 0:
        for path in (used, free):
            os.chown(path, 65534, 65534)  # as those of the service user are not root's
    with process(USES[use], used):
        assert instance.clean(kind)[kind] == {"files": 1, "bytes": size, "directories": 0, "kept": {"in use": 1}}
    assert used.exists() and not free.exists()
    assert instance.clean(kind)[kind]["files"] == 1


def test_process_that_shows_nothing_may_use_anything(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    path = instance.file("tmp/IndicoOld", DAY)

    def refused(*_arguments: Any) -> Any:
        raise OSError(errno.EINVAL, "Invalid argument")

    def hidden(place: Any) -> list[str]:
        if str(place).endswith("/fd"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(place)

    real = os.listdir
    monkeypatch.setattr(fcntl, "fcntl", lambda _descriptor, command, *_more: refused() if command == fcntl.F_SETLEASE else 0)
    monkeypatch.setattr(os, "listdir", hidden)
    assert _cleanup.run(str(instance.prefix), ["tmp"], Rules())["tmp"].kept == {"in use": 1}
    assert path.exists()


def test_session_written_meanwhile_stays(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had ended when it was looked at, and was written anew before it would have gone."""
    path = instance.entry("flask-session", "a" * 64, NOW - DAY)
    real = _cleanup._Sweep._alone

    def slow(sweep: Any, descriptor: int) -> bool:
        path.write_bytes(pickle.dumps((NOW + DAY, "value"), 0))
        return real(sweep, descriptor)

    monkeypatch.setattr(_cleanup._Sweep, "_alone", slow)
    assert _cleanup.run(str(instance.prefix), ["sessions"], Rules())["sessions"].kept == {"live": 1}
    assert path.exists()


def test_links_are_not_followed(instance: Instance, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    victims = [outside / name for name in ("IndicoVictim", "victim.tmp", "scheduler.log.2020-01-01", "a" * 64)]
    for victim in victims:
        victim.write_bytes(pickle.dumps((1, "value"), 0))
        os.utime(victim, (1, 1))
    for place in ("cache", "cache/generic_cache", "cache/generic_cache/flask-session", "tmp", "log/indico"):
        (instance.prefix / place / "IndicoDirectory.tmp").symlink_to(outside)
        for victim in victims:
            (instance.prefix / place / victim.name).symlink_to(victim)
    os.mkfifo(instance.prefix / "tmp/IndicoPipe")
    os.utime(instance.prefix / "tmp/IndicoPipe", (1, 1))
    before = instance.files()
    found = instance.clean()
    assert all(victim.exists() for victim in victims)
    assert instance.files() == before
    assert {name: (one["files"], one["kept"]) for name, one in found.items()} == {
        "cache": (0, {"no plain file": 10}),
        "tmp": (0, {"no plain file": 6}),
        "sessions": (0, {"no plain file": 5}),
        "logs": (0, {"no plain file": 5}),
    }


@pytest.mark.parametrize("place", ["cache/generic_cache", "cache", "tmp", "log"])
def test_a_directory_that_is_a_link_is_said(instance: Instance, tmp_path: Path, place: str) -> None:
    (instance.prefix / place).rename(tmp_path / "elsewhere")
    (instance.prefix / place).symlink_to(tmp_path / "elsewhere")
    kind = {"cache/generic_cache": "sessions", "log": "logs"}.get(place, place)
    with pytest.raises(CleanupError, match=f"{place} is no directory, or a symbolic link, which is not followed."):
        _cleanup.run(str(instance.prefix), [kind], Rules())


@pytest.mark.parametrize("moment", ["stat", "open", "unlink"])
@pytest.mark.parametrize("level", [1, 2, 3], ids=["its directory", "the one above", "the namespace"])
def test_directory_exchanged_for_a_link_at_the_worst_moment(
    instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: int, moment: str
) -> None:
    """A worker does that just before one of root's steps; root then removes what lay in the directory that it had opened, or nothing."""
    name = "a" * 64
    mine = instance.entry("ConfTT", name, NOW - DAY)
    exchanged = mine.parents[level - 1]
    victim = tmp_path / "outside" / mine.relative_to(exchanged)
    victim.parent.mkdir(parents=True)
    victim.write_bytes(pickle.dumps((1, "precious"), 0))
    real, done = getattr(os, moment), []

    def late(path: Any, *arguments: Any, **options: Any) -> Any:
        if not done and str(path) == (name if moment == "unlink" else exchanged.name) and "dir_fd" in options:
            done.append(path)
            exchanged.rename(tmp_path / "moved")
            exchanged.symlink_to(tmp_path / "outside")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, moment, late)
    _cleanup.run(str(instance.prefix), ["cache"], Rules())
    assert done
    assert victim.exists()


def test_directories_below_each_other_without_end(instance: Instance) -> None:
    path = instance.prefix / "cache"
    descriptor = os.open(path, os.O_RDONLY)
    for _number in range(1500):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    found = _cleanup.run(str(instance.prefix), ["cache"], Rules())["cache"]
    assert found.kept == {"no plain file": 1}
    subprocess.run(["rm", "-r", path / "d"], check=True)


def test_names_in_other_encodings(instance: Instance) -> None:
    instance.file("tmp/" + os.fsdecode(b"Indico\xe9\xff"), DAY, b"xyz")
    found = _cleanup.run(str(instance.prefix), ["tmp"], Rules())["tmp"]
    assert found.data() == {"files": 1, "bytes": 3, "directories": 0, "kept": {}}
    assert found.listing().endswith("tmp/Indico\\udce9\\udcff\n")


def test_what_is_not_there_is_clean_but_an_instance_must_be(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = _cleanup.run(str(tmp_path / "empty"), list(_cleanup.KINDS), Rules())
    assert [one.data() for one in found.values()] == [{"files": 0, "bytes": 0, "directories": 0, "kept": {}}] * 4
    with pytest.raises(CleanupError, match=f"There is no instance at {tmp_path}/nowhere."):
        _cleanup.run(str(tmp_path / "nowhere"), ["tmp"], Rules())


def test_lines_for_people(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cleanup, "_LISTED", 1)
    instance.file("tmp/Indico1", DAY)
    instance.file("tmp/Indico2", DAY)
    instance.file("tmp/Indico3", HOUR)
    instance.entry("flask-session", "a" * 64, NOW + DAY)
    found = _cleanup.run(str(instance.prefix), ["sessions", "tmp"], Rules(), check=True)
    assert _cleanup.lines(found, check=True) == [
        "tmp: 2 files (200 bytes) would go; kept: 1 too young",
        "sessions: 0 files (0 bytes) would go; kept: 1 live",
    ]
    assert found["tmp"].listing() == f"{instance.prefix}/tmp/Indico1\nand 1 more\n"
    assert _cleanup.lines(_cleanup.run(str(instance.prefix), ["tmp"], Rules())) == ["tmp: 2 files (200 bytes) removed; kept: 1 too young"]


def test_two_at_once_are_one(instance: Instance) -> None:
    descriptor = os.open(instance.prefix, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _cleanup.run(str(instance.prefix), ["cache"], Rules(), check=True)
        with pytest.raises(_cleanup.CleanupError, match=rf"^{instance.prefix} is being cleaned already by process {os.getpid()}; nothing was done\.$"):
            _cleanup.run(str(instance.prefix), ["cache"], Rules())
    finally:
        os.close(descriptor)
    assert _cleanup.run(str(instance.prefix), ["cache"], Rules())["cache"].files == 0
