"""The stock versions of repozo as judges. Each has a server that answers many questions: an interpreter for each would take too long."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.lib.command import REPOSITORY

# Reads a line of JSON, [repository, date or "", output], and answers with the exit code of repozo -R. For Python 2 and 3.
_SERVER = """
import json, os, resource, signal, sys
sys.path[:0] = sys.argv[1:]
from ZODB.scripts import repozo
answers = os.fdopen(os.dup(1), 'w')
null = os.open(os.devnull, os.O_RDWR)
os.dup2(null, 1)
os.dup2(null, 2)
resource.setrlimit(resource.RLIMIT_FSIZE, (2 ** 26, 2 ** 26))
def late(*_):
    raise IOError('late')
signal.signal(signal.SIGALRM, late)
while True:
    line = sys.stdin.readline()
    if not line:
        break
    repository, date, output = [str(word) for word in json.loads(line)]
    code = 1
    try:
        signal.alarm(5)
        repozo.main(['-R', '-r', repository, '-o', output] + (['-D', date] if date else []))
        code = 0
    except SystemExit:
        code = 1 if sys.exc_info()[1].code else 0
    except Exception:
        pass
    signal.alarm(0)
    answers.write('%d\\n' % code)
    answers.flush()
"""
_ZODB3 = "ZODB3==3.10.5"


class Stock:
    """One version of repozo."""

    def __init__(self, name: str, python: str, *paths: Path) -> None:
        self.name, self.command = name, [python, "-c", _SERVER, *map(str, paths)]
        self.process: subprocess.Popen[str] | None = None

    def restore(self, repository: Path, date: str, output: Path) -> bytes | None:
        """Return what it restores, None when it refuses. date is a stamp, or empty for the newest."""
        output.unlink(missing_ok=True)
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([str(repository), date, str(output)]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        return output.read_bytes() if answer == "0\n" and output.exists() else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "process": None}


def all_versions(environment: Callable[[str], Path], cache: Path) -> tuple[list[Stock], list[str]]:
    """Return the versions that can be asked here, and a sentence for each that cannot. cache is a directory that stays."""
    found = [Stock(version, str(environment(name) / "bin/python")) for version, name in (("5.8", "zodb5"), ("6", "zodb6"))]
    python = python2()
    if python is None:
        return found, ["Stock repozo 3.10.5 was not asked: there is no Python 2.7 here (PYTHON2=path names one)."]
    try:
        return [Stock("3.10.5", python, _source(python, cache)), *found], []
    except (OSError, subprocess.SubprocessError) as error:
        return found, [f"Stock repozo 3.10.5 was not asked: its source could not be had ({error})."]


def python2() -> str | None:
    """Return a Python 2.7 that runs."""
    candidates = [os.environ.get("PYTHON2"), shutil.which("python2.7"), *sorted(map(str, Path.home().glob(".pyenv/versions/2.7*/bin/python2.7")))]
    for one in filter(None, candidates):
        if subprocess.run([one, "-c", "import gzip"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return one
    return None


def _source(python: str, cache: Path) -> Path:
    """Return a directory with the repozo of 3.10.5 as the package ZODB.scripts, from the archive that the hosts install.

    Restoring reads no FileStorage: an empty class stands for the one that the module imports, so nothing needs to be compiled.
    """
    pins = (REPOSITORY / "roles/python2/files/wheelhouse/zeo.txt").read_text()
    line = next(line for line in pins.splitlines() if line.startswith(f"{_ZODB3} "))
    place = cache / f"repozo-{hashlib.sha256(line.encode()).hexdigest()[:12]}"
    if (place / ".complete").exists():
        return place
    shutil.rmtree(place, ignore_errors=True)
    package = place / "ZODB/scripts"
    package.mkdir(parents=True)
    (place / "pin.txt").write_text(f"{line}\n")
    download = ["-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--no-deps", "--no-binary", ":all:", "--require-hashes"]
    subprocess.run([python, *download, "-r", place / "pin.txt", "-d", place], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300)
    with tarfile.open(next(place.glob("ZODB3-*.tar.gz"))) as archive:
        source = archive.extractfile("ZODB3-3.10.5/src/ZODB/scripts/repozo.py")
        assert source
        (package / "repozo.py").write_bytes(source.read())
    for path in (place / "ZODB/__init__.py", package / "__init__.py"):
        path.touch()
    (place / "ZODB/FileStorage.py").write_text("class FileStorage(object):\n    pass\n")
    (place / ".complete").touch()
    return place
