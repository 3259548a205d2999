"""What the lab says on a machine that cannot boot its hosts: one sentence, before anything is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PREPARE = Path(__file__).resolve().parents[2] / "lab/prepare"


def prepare(tmp_path: Path, **programs: str) -> subprocess.CompletedProcess[str]:
    """Run lab/prepare where only these programs exist; each value is the shell script that stands for one."""
    for name, script in programs.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    environment = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    return subprocess.run([shutil.which("sh") or "sh", PREPARE], env=environment, capture_output=True, text=True, check=False)


ROOT = {"id": "echo 0"}
DEBIAN = {**ROOT, "dpkg-query": "exit 1", "grep": "exit 1", "wc": "echo 1"}


@pytest.mark.parametrize(
    ("programs", "sentence"),
    [
        ({"id": "echo 1000"}, "lab: booting systemd hosts needs root: run this with sudo."),
        (ROOT, "lab: this machine has no apt-get: the lab runs on Debian."),
        ({**DEBIAN, "apt-get": "exit 100"}, "lab: apt-get update failed: see the message above."),
        ({**DEBIAN, "apt-get": '[ "$1" = update ]'}, "lab: installing aardvark-dns crun"),
    ],
    ids=["not root", "not Debian", "no mirror", "no package"],
)
def test_what_is_missing_is_one_sentence(tmp_path: Path, programs: dict[str, str], sentence: str) -> None:
    done = prepare(tmp_path, **programs)
    assert done.returncode == 1
    assert done.stderr.startswith(sentence)
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "home").exists()
