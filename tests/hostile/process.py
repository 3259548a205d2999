"""Runs a function in a process of its own: with an end in time, with a limit for memory, and with what it said, whatever became of it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

SECONDS = 8.0  # an ordinary case takes 0.05
MEMORY = 1536 * 2**20  # bytes of address space beyond what the bench has itself
KILLED = 137  # the exit code of a process that injection.py ends
NOBODY = 65534
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


@dataclass
class Ended:
    """How it ended: done (value is what it returned), raised (error, text, trace), killed or hung. seconds is how long it ran."""

    how: str
    value: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    text: str = ""
    trace: str = ""
    seconds: float = 0.0


def run(function: Callable[[], dict[str, Any]], *, seconds: float = SECONDS, unprivileged: bool = False, during: Callable[[], None] | None = None) -> Ended:
    """Run a function, whose result must be data for JSON. during is called again and again until it ends."""
    began = time.monotonic()
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        _child(function, reader, writer, unprivileged)
    os.close(writer)
    said = _listen(reader, began + seconds, during)
    os.close(reader)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # what it started, too
    _pid, status = os.waitpid(child, 0)
    took = time.monotonic() - began
    if said is None:
        return Ended("hung", text=f"no end within {seconds:g} s", seconds=took)
    if not said:
        code = os.waitstatus_to_exitcode(status)
        return Ended("killed" if code == KILLED else "raised", error=f"exit code {code}", text="it died", seconds=took)
    return Ended(**json.loads(said), seconds=took)


def _listen(reader: int, until: float, during: Callable[[], None] | None) -> bytes | None:
    """Return all that the child says until it ends, None when it does not end in time."""
    said = b""
    while (left := until - time.monotonic()) > 0:
        if select.select([reader], [], [], min(left, 0.001 if during else left))[0]:
            piece = os.read(reader, 65536)
            if not piece:
                return said
            said += piece
        elif during:
            during()
    return None


def _short(text: str) -> str:
    return text if len(text) < 2000 else f"{text[:1000]} ... {text[-900:]}"


def _child(function: Callable[[], dict[str, Any]], reader: int, writer: int, unprivileged: bool) -> None:
    """Run the function, tell how it ended, and end. Never returns."""
    try:
        os.close(reader)
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)  # somebody may end the bench
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: PTH123, SIM115
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        if unprivileged and os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        try:
            said = {"how": "done", "value": function()}
        except BaseException as error:  # all that it can raise is judged
            names = [one.__name__ for one in type(error).__mro__]
            kind = next((name for name in ("RepositoryError", "FileStorageError", "OSError") if name in names), type(error).__name__)
            said = {"how": "raised", "error": kind, "text": _short(str(error)), "trace": traceback.format_exc()[-3000:]}
        os.write(writer, json.dumps(said).encode())
    finally:
        os._exit(0)
