# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Child processes that are never waited for without end.

Each has a limit in seconds. Long work has a watcher, too: it ends a child that neither computes nor reads nor writes any more, as on a dead network disk.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

SHORT = 120.0  # seconds, for what answers at once
LONG = 24 * 3600.0  # for what copies or reads a whole site; still ends it long before, when it hangs
STILL = 900.0  # seconds without any work, after which a child counts as hanging
_LOOK = 2.0  # seconds between two looks


class ChildError(OSError):
    """A child did not end; the message is a sentence for the operator."""


class Watch:
    """Watches a process and its group. limit: seconds that it may take; still: seconds that it may do nothing, 0 for as long as the limit."""

    def __init__(self, pid: int, limit: float, still: float = 0) -> None:
        self._pid, self._limit, self._still = pid, limit, still
        self._began = self._since = time.monotonic()
        self._seen: int | None = None

    def look(self, what: str) -> None:
        """Raise ChildError when it has taken too long, or hangs. what begins the sentence."""
        now = time.monotonic()
        if now - self._began > self._limit:
            raise ChildError(f"{what} did not end within {self._limit:g} seconds, so it was ended.")
        if not self._still:
            return
        seen = _work(self._pid)
        if seen is None or seen != self._seen:  # None: this process may not see what that one does
            self._seen, self._since = seen, now
        elif now - self._since > self._still:
            raise ChildError(f"{what} neither computed, read nor wrote for {self._still:g} seconds, so it was ended.")


def _work(group: int) -> int | None:
    """Return how much the processes of a group have done: clock ticks and bytes together, None when that cannot be seen."""
    done = None
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{name}/stat", "rb") as stream:
                words = stream.read().rpartition(b")")[2].split()  # from the state on: the name before may hold anything
            if group not in (int(name), int(words[2])):
                continue
            done = (done or 0) + int(words[11]) + int(words[12])
            with contextlib.suppress(OSError), open(f"/proc/{name}/io", "rb") as stream:
                done += sum(int(line.split()[1]) for line in stream if line.startswith((b"rchar", b"wchar")))
    return done


def run(
    argv: Sequence[str],
    *,
    limit: float = SHORT,
    still: float = 0,
    stderr: int = subprocess.PIPE,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    pass_fds: tuple[int, ...] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a command and return what it printed, and its exit code. Its whole process group ends with the limit (seconds), or as Watch says of still.

    It reads nothing. Raises ChildError when it was ended, FileNotFoundError without such a program.
    """
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        errors="replace",
        env=env,
        cwd=cwd,
        pass_fds=pass_fds,
        start_new_session=True,
    )
    watch = Watch(process.pid, limit, still)
    try:
        while True:
            try:
                out, complaint = process.communicate(timeout=min(_LOOK, limit))
            except subprocess.TimeoutExpired:
                watch.look(argv[0])
            else:
                return subprocess.CompletedProcess(list(argv), process.returncode, out, complaint or "")
    except BaseException:
        end(process, group=True)
        raise


def end(process: subprocess.Popen[str] | subprocess.Popen[bytes], *, group: bool = False, patience: float = 5) -> None:
    """End a process at once, with group all that it started. One that the kernel does not let go is left after patience (seconds)."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            with contextlib.suppress(OSError):
                stream.close()
