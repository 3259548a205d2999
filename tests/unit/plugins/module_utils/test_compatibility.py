"""The modules beside stock repozo of ZODB 5.8 and 6: each restores, verifies and continues what the other wrote. The databases are made by ZODB.

3.10.5, which Indico uses, is compared on a host, by the scenarios.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _catalogue, _history, _repository, _repozo, _restore, _verify
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError

from tests.unit.storage import START

# Runs in the environment of that ZODB: a line of JSON in, a line out. The clock is the one that it is told, for ZODB and for repozo.
DRIVER = r"""
import contextlib, importlib, io, json, os, sys, time
import transaction
from persistent.mapping import PersistentMapping
from ZODB import DB
from ZODB.FileStorage import FileStorage
from ZODB.scripts import repozo

def commit(path, objects):
    "One transaction for each object."
    db = DB(FileStorage(path))
    root = db.open().root()
    for name, value in objects.items():
        root[name] = PersistentMapping(value=value)
        transaction.commit()
    db.close()

def pack(path):
    db = DB(FileStorage(path))
    db.pack()
    db.close()

def objects(path):
    db = DB(FileStorage(path, read_only=True))
    found = {name: one["value"] for name, one in db.open().root().items()}
    db.close()
    return found

def stock(*arguments):
    "Return the exit code and what repozo said of errors."
    said, code = io.StringIO(), 0
    with contextlib.redirect_stderr(said):
        try:
            repozo.main(list(arguments))
        except SystemExit as error:
            code = error.code
    return [code, said.getvalue()]

def recipe(module, function, **options):
    return getattr(importlib.import_module("collective.recipe.backup." + module), function)(**options)

os.environ["NOW"] = "0"
time.time = lambda: float(os.environ["NOW"])
repozo.gen_filedate = lambda options: time.gmtime(time.time())[:6]
if sys.argv[1:]:
    # collective.recipe.backup runs it as a program.
    os.environ["NOW"], *arguments = sys.argv[1:]
    sys.exit(repozo.main(arguments))
for line in sys.stdin:
    name, os.environ["NOW"], arguments, options = json.loads(line)
    print(json.dumps(globals()[name](*arguments, **options)), flush=True)
"""


class Zodb:
    """A ZODB in a process of its own."""

    def __init__(self, environment: Path, directory: Path) -> None:
        self.python, self.driver = environment / "bin/python", directory / "driver.py"
        self.driver.write_text(DRIVER)
        self.process = subprocess.Popen([self.python, self.driver], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def call(self, name: str, now: float, *arguments: Any, **options: Any) -> Any:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([name, str(now), arguments, options], default=str) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"{name} failed; its traceback is on standard error"
        return json.loads(answer)


class Site:
    """A database of a ZODB and a repository. A minute passes with each thing that happens. contents holds what each backup saw, by its stamp."""

    def __init__(self, zodb: Zodb, directory: Path) -> None:
        self.zodb, self.directory, self.minutes = zodb, directory, 0
        self.database, self.repository, self.out = directory / "Data.fs", directory / "backups", directory / "out.fs"
        self.repository.mkdir()
        self.expected: dict[str, str] = {}
        self.contents: dict[str, tuple[bytes, dict[str, str]]] = {}

    def tick(self) -> float:
        self.minutes += 1
        return (START + timedelta(minutes=self.minutes)).timestamp()

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        return self.zodb.call(name, self.tick(), *arguments, **options)

    def commit(self, number: int) -> None:
        new = {f"{self.minutes}-{one}": f"value {one} " * (one * 50) for one in range(1, number + 1)}
        new["counter"] = str(self.minutes)  # what changes again is what a pack drops
        self.call("commit", self.database, new)
        self.expected.update(new)

    def pack(self) -> None:
        before = self.database.stat().st_size
        self.call("pack", self.database)
        assert self.database.stat().st_size < before

    def names(self) -> set[str]:
        return {path.name for path in self.repository.iterdir() if _repository.data_file(path.name, 0)}

    def seen(self, before: set[str]) -> str:
        """Note what the backup that was just made saw. Return its kind."""
        made = sorted(self.names() - before)
        if not made:
            return "nothing"
        assert len(made) == 1, made
        self.contents[made[0].split(".")[0]] = (self.database.read_bytes(), dict(self.expected))
        return made[0].split(".")[1]

    def ours(self, compression: str) -> str:
        """Make a backup with the modules, and return the ending of the new file's name."""
        before, stamp = self.names(), f"{START + timedelta(minutes=self.minutes + 1):{_repository.STAMP}}"
        self.minutes += 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_repozo, "_stamp", lambda _repository: stamp)
            result = _repozo.backup(str(self.database), str(self.repository), compression=compression)
        assert result.repaired == []
        return self.seen(before)

    def stock(self, *flags: str) -> str:
        """Make a backup with stock repozo, and return the ending of the new file's name."""
        before = self.names()
        assert self.call("stock", "-B", *flags, "-r", self.repository, "-f", self.database) == [0, ""]
        return self.seen(before)

    def compare(self) -> None:
        """Both sides find the repository sound and restore all that it holds, byte for byte, and ZODB finds its objects there."""
        found = _catalogue.catalogue(str(self.repository))
        assert (found["problems"], found["leftovers"]) == ([], [])
        report = _verify.verify(str(self.repository))
        assert (report.problems, report.warnings, report.verified_files) == ([], [], len(self.names()))
        assert self.call("stock", "-V", "-r", self.repository) == [0, ""]
        here = {name.split(".")[0] for name in self.names()}
        for stamp, (content, expected) in self.contents.items():
            if stamp in here:
                self.clear()
                assert self.call("stock", "-R", "-w", "-D", stamp, "-r", self.repository, "-o", self.out) == [0, ""]
                assert self.out.read_bytes() == content
                assert self.call("objects", self.out) == expected
                assert self.restored(stamp) == content

    def clear(self) -> None:
        for path in self.directory.glob("out.fs*"):
            path.unlink()

    def restored(self, moment: str | None) -> bytes:
        self.clear()
        wanted = _history.wanted_time(moment, "UTC") if moment else None
        result = _restore.restore(_restore.Request(str(self.repository), str(self.out), wanted))
        assert result.plan.warnings == []
        assert not self.out.with_name("out.fs.index").exists()
        return self.out.read_bytes()


@pytest.fixture(scope="session")
def zodbs(environment: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Zodb]]:
    started: dict[str, Zodb] = {}

    def zodb(name: str) -> Zodb:
        if name not in started:
            started[name] = Zodb(environment(name), tmp_path_factory.mktemp(name))
        return started[name]

    yield zodb
    for one in started.values():
        one.process.kill()
        one.process.communicate()


@pytest.fixture(params=["zodb5", "zodb6"])
def site(request: pytest.FixtureRequest, zodbs: Callable[[str], Zodb], tmp_path: Path) -> Site:
    return Site(zodbs(cast("str", request.param)), tmp_path)


def test_the_versions_are_those_that_are_meant(zodbs: Callable[[str], Zodb]) -> None:
    for name, version in (("zodb5", "5.8."), ("zodb6", "6.")):
        command = [zodbs(name).python, "-c", "from importlib.metadata import version; print(version('ZODB'))"]
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.startswith(version)


@pytest.mark.parametrize(("compression", "z"), [("gzip", "z"), ("none", "")])
def test_stock_repozo_restores_what_the_modules_wrote(site: Site, compression: str, z: str) -> None:
    kinds = []
    for number in (3, 2, 0, 1):
        if number:
            site.commit(number)
        kinds.append(site.ours(compression))
    site.pack()
    kinds.append(site.ours(compression))
    site.commit(2)
    kinds.append(site.ours(compression))
    assert kinds == [f"fs{z}", f"deltafs{z}", "nothing", f"deltafs{z}", f"fs{z}", f"deltafs{z}"]
    site.compare()


@pytest.mark.parametrize("flags", [["-z"], ["-Q"], ["-z", "-Q"], []], ids=["gzip", "quick", "gzip quick", "plain"])
def test_the_modules_continue_what_stock_repozo_wrote(site: Site, flags: list[str]) -> None:
    z = "z" if "-z" in flags else ""
    kinds = []
    for number in (3, 2, 1):
        site.commit(number)
        kinds.append(site.stock(*flags))
    site.pack()
    kinds.append(site.stock(*flags))
    site.commit(2)
    kinds.append(site.stock(*flags))
    assert kinds == [f"fs{z}", f"deltafs{z}", f"deltafs{z}", f"fs{z}", f"deltafs{z}"]
    site.compare()
    assert site.ours("gzip") == "nothing"
    site.commit(1)
    assert site.ours("none" if z else "gzip") == ("deltafs" if z else "deltafsz")
    site.compare()
    assert site.stock(*flags) == "nothing"
    site.commit(1)
    assert site.stock(*flags) == f"deltafs{z}"
    site.compare()


@pytest.mark.parametrize("quick", [["-Q"], []], ids=["quick", "all"])
def test_both_in_turn(site: Site, quick: list[str]) -> None:
    """Every transaction of a chain that both wrote is there, and what repozo deletes of it is no damage."""
    kinds = []
    for number in range(6):
        site.commit(2)
        kinds.append(site.stock(*quick, *["-z"][: number % 3]) if number % 2 else site.ours(("gzip", "none")[number // 2 % 2]))
    assert kinds == ["fsz", "deltafsz", "deltafs", "deltafs", "deltafsz", "deltafsz"]
    site.compare()
    repository, _warnings = _history.open_repository(str(site.repository))
    records = _history.listed(repository, None, None, 1000, None).records
    assert len(records) == 1 + 6 * 3
    for record in records:
        site.clear()
        wanted = _history.wanted_transaction(record.tid.hex())
        _restore.restore(_restore.Request(str(site.repository), str(site.out), wanted))
        assert site.out.read_bytes() == site.database.read_bytes()[: record.end]
    assert site.stock("-F", "-z", "-k") == "fsz"
    site.commit(1)
    assert site.ours("gzip") == "deltafsz"
    assert len(site.names()) == 2
    site.compare()


def test_a_repository_of_collective_recipe_backup(zodbs: Callable[[str], Zodb], tmp_path: Path) -> None:
    """Its own code makes the backups and removes the old ones, with keep = 2; then the directory is copied to another machine."""
    zodb, plone = zodbs("zodb5"), tmp_path / "plone"
    (plone / "var/filestorage").mkdir(parents=True)
    site = Site(zodb, tmp_path)
    site.database, site.repository = plone / "var/filestorage/Data.fs", plone / "var/backups"
    storage = {
        "storage": "1",
        "datafs": str(site.database),
        "blobdir": "",
        "backup_location": str(site.repository),
        "snapshot_location": str(plone / "var/snapshotbackups"),
        "zip_location": str(plone / "var/zipbackups"),
    }

    def recipe(module: str, function: str, **options: Any) -> None:
        now = site.tick()
        program = tmp_path / "repozo"
        program.write_text(f'#!/bin/sh\nexec "{zodb.python}" "{zodb.driver}" {now} "$@"\n')
        program.chmod(0o755)
        zodb.call("recipe", now, module, function, bin_dir=tmp_path, storage=storage, verbose=False, **options)

    def back_up() -> str:
        before = site.names() if site.repository.exists() else set()
        recipe("main", "backup_main", keep=2, full=False, backup_blobs=False, only_blobs=False, use_rsync=True)
        return site.seen(before)

    kinds = []
    for chain in range(3):
        if chain:
            site.pack()
        for number in (2, 1):
            site.commit(number)
            kinds.append(back_up())
    assert kinds == ["fsz", "deltafsz"] * 3
    first, second, third = (sorted(site.contents)[number] for number in (0, 2, 4))
    # It goes by the times of files, so the index of the oldest full backup goes, if it is older than its data.
    assert {path.name[:19] for path in site.repository.iterdir()} == set(sorted(site.contents)[2:])
    assert sorted(path.suffix for path in site.repository.iterdir() if path.suffix != ".index") == sorted([".dat", ".fsz", ".deltafsz"] * 2)

    shutil.move(plone, tmp_path / "gone")
    site.database = tmp_path / "gone/var/filestorage/Data.fs"
    site.repository = Path(shutil.copytree(tmp_path / "gone/var/backups", tmp_path / "imported"))
    found = _catalogue.catalogue(str(site.repository))
    assert ([chain["stamp"] for chain in found["chains"]], found["problems"]) == ([second, third], [])
    assert str(plone / "var/backups") in (site.repository / f"{second}.dat").read_text()
    site.compare()
    with pytest.raises(RepositoryError, match=r"^The time .* (is before everything that the repository holds whole|was rewritten by a pack)"):
        site.restored(first)

    site.commit(1)
    assert site.ours("gzip") == "deltafsz"
    site.compare()
    storage.update(datafs=str(site.database), backup_location=str(site.repository))
    content = site.database.read_bytes()
    site.database.write_bytes(b"lost")
    recipe("repozorunner", "restore_main")
    assert site.database.read_bytes() == content
    site.commit(1)
    assert back_up() == "deltafsz"
    site.compare()
