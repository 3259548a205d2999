"""Python environments of other versions of ZODB, for tests and benches: made once for each state of their lock files, as make does."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from functools import cache
from pathlib import Path

from tests.lib.command import REPOSITORY

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "confops"


@cache
def environment(name: str) -> Path:
    """Return the environment of requirements/NAME.txt."""
    lock = REPOSITORY / "requirements" / f"{name}.txt"
    place = CACHE / f"venv-{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"venv-{name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # another run may be at it
        if not (place / ".complete").exists():
            subprocess.run(["sh", REPOSITORY / "lab/venv", place, lock], check=True)
    return place
