"""No run hangs: children have an end or a watcher, and the code waits for nothing without one."""

from __future__ import annotations

import ast
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _children

PLUGINS = Path(__file__).parents[4] / "plugins"
# What waits for a child by other means, and why that has an end.
WATCHED = {
    "_children.py": "it is the watcher",
    "_drill.py": "servers: _wait_for watches them while they open a database, and their end has a limit",
    "_offsite.py": "rsync gives up a silent source, and the loop looks each second",
    "_pipeline.py": "the compressor: one part of it reads while the other writes, and tests of its own cover its end",
    "_zeo.py": "communicate with a limit",
}
# Threads that work and do not wait: reading files of this host, and requests that have a limit each.
POOLS = {"_verify.py", "_release.py"}


def calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    """Yield each call of a file with the last name of what is called."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node, node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


@pytest.mark.parametrize("path", sorted(PLUGINS.rglob("*.py")), ids=lambda path: path.stem)
def test_nothing_is_waited_for_without_an_end(path: Path) -> None:
    # B1
    for call, name in calls(path):
        where = f"{path.name}:{call.lineno}: {ast.unparse(call)[:80]}"
        limited = any(word.arg in ("timeout", "limit") for word in call.keywords)
        if ast.unparse(call.func) in ("subprocess.run", "subprocess.check_output", "subprocess.check_call", "subprocess.call"):
            assert limited, where
        if ast.unparse(call.func) in ("subprocess.Popen", "os.system", "os.popen", "os.waitpid", "os.wait"):
            assert path.name in WATCHED, where
        if name == "ThreadPoolExecutor":
            assert path.name in POOLS, where
        if name == "communicate":
            assert limited or len(call.args) > 1, where
        if name in ("wait", "join", "get", "acquire") and path.name not in ("_pipeline.py", "_repository.py"):
            assert call.args or call.keywords, where  # str.join and dict.get have arguments, too
        if name in ("create_connection", "HTTPConnection", "HTTPSConnection", "urlopen"):
            assert limited or len(call.args) > 1, where
        if name == "flock":
            assert "LOCK_NB" in ast.unparse(call) or "LOCK_UN" in ast.unparse(call), where


# Programs that run as whoever started the module, on nothing that a service user wrote.
OWN = {
    "_offsite.py": "rsync, as the copy's owner",
    "_pipeline.py": "igzip",
    "_tree.py": "validators",
    "_zeo_standby.py": "systemctl",
    "indico_source_info.py": "git",
}


@pytest.mark.parametrize("path", sorted(PLUGINS.rglob("*.py")), ids=lambda path: path.stem)
def test_what_another_user_s_code_runs_in_has_no_terminal_of_root_s(path: Path) -> None:
    """S7: a process of the caller's session can type into the terminal of root, who started a command by hand."""
    for call, _name in calls(path):
        if ast.unparse(call.func) in ("subprocess.run", "subprocess.Popen") and path.name not in OWN:
            assert any(word.arg == "start_new_session" for word in call.keywords), f"{path.name}:{call.lineno}"


def test_a_command_says_what_it_printed() -> None:
    done = _children.run([sys.executable, "-c", "import sys; print('out'); print('wrong', file=sys.stderr); sys.exit(3)"])
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "wrong\n", 3)
    with pytest.raises(FileNotFoundError):
        _children.run(["/no/such/program"])


def test_a_child_that_does_not_end_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    # B1
    began = time.monotonic()
    with pytest.raises(_children.ChildError, match=r"^sh did not end within 0\.5 seconds, so it was ended\.$"):
        _children.run(["sh", "-c", f"(sleep 60; touch {tmp_path}/late) & echo $! > {tmp_path}/pid; wait"], limit=0.5)
    assert time.monotonic() - began < 10
    status = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/status")
    while status.exists() and "zombie" not in status.read_text():
        assert time.monotonic() - began < 10
        time.sleep(0.02)


def test_a_child_that_does_nothing_any_more_is_ended_and_one_that_works_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    # B1
    monkeypatch.setattr(_children, "_LOOK", 0.1)
    with pytest.raises(_children.ChildError, match=r"^sleep neither computed, read nor wrote for 0\.5 seconds, so it was ended\.$"):
        _children.run(["sleep", "60"], limit=60, still=0.5)
    busy = "import time\nend = time.monotonic() + 1.5\nwhile time.monotonic() < end: open('/proc/self/stat').read(); time.sleep(0.01)"
    assert _children.run([sys.executable, "-c", busy], limit=60, still=0.7).returncode == 0


def test_the_work_of_a_process_that_cannot_be_seen_is_not_known() -> None:
    assert _children._work(2**30) is None
