# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""systemd units that shall run, with the configuration that is on disk now, or that shall be gone."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field

from ansible_collections.confops.indico.plugins.module_utils import _children

_SYSTEMCTL_SECONDS = 7 * 3600.0  # a job that is started may take its whole time limit
_SYSTEM = "/etc/systemd/system"
_PROPERTIES = (
    "LoadState",
    "UnitFileState",
    "ActiveState",
    "NeedDaemonReload",
    "InactiveExitTimestampMonotonic",
    "StateChangeTimestampMonotonic",
    "NRestarts",
)


class UnitError(Exception):
    """A unit does not do what is declared; the message is a sentence for the operator."""


@dataclass
class Unit:
    """A declared unit. configuration holds the paths that it reads when it starts; one that another unit starts has run false; an absent one is to go.

    With reload it reads them on a reload too, so only its own file makes a restart necessary.
    """

    name: str
    configuration: list[str] = field(default_factory=list)
    run: bool = True
    absent: bool = False
    reload: bool = False


@dataclass
class Decision:
    """What has to be done with one unit, and why."""

    unit: Unit
    present: bool
    reload: bool = False  # systemd reads its files
    enable: bool = False
    start: bool = False
    restart: bool = False
    renew: bool = False  # it reads its configuration, and goes on
    stop: bool = False
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return self.enable or self.start or self.restart or self.renew or self.stop or self.reload

    def diff(self) -> dict[str, str]:
        return {
            "before_header": self.unit.name,
            "after_header": self.unit.name,
            "before": "".join(line + "\n" for line in self.before),
            "after": "".join(line + "\n" for line in self.after),
        }


def _systemctl(*arguments: str) -> str:
    environment = dict(os.environ, LC_ALL="C")
    try:
        done = _children.run(["systemctl", *arguments], limit=_SYSTEMCTL_SECONDS, env=environment)
    except _children.ChildError as error:
        raise UnitError(f"systemctl {' '.join(arguments)}: {error}") from error
    if done.returncode != 0:
        raise UnitError(f"systemctl {' '.join(arguments)} failed (exit code {done.returncode}): {(done.stdout + done.stderr).strip()}")
    return done.stdout


def act(verb: str, name: str) -> None:
    """Start, stop, restart or reload a unit. Raises UnitError."""
    _systemctl(verb, name)


def stop(name: str) -> None:
    """Stop a unit. Raises UnitError."""
    act("stop", name)


def show(names: list[str], properties: tuple[str, ...] = _PROPERTIES) -> list[dict[str, str]]:
    """Return systemd's properties of each unit, in the order of names."""
    blocks = _systemctl("show", "--property", ",".join(properties), "--", *names).strip("\n").split("\n\n")
    return [dict(line.split("=", 1) for line in block.splitlines()) for block in blocks]


def newer(paths: list[str], started: float, now: float) -> list[str]:
    """Return the paths that were modified after started (both seconds since the epoch). A time in the future counts for nothing: the clock was wrong."""
    found = []
    for path in paths:
        try:
            modified = os.lstat(path).st_mtime
        except FileNotFoundError:
            continue
        if started < modified <= now:
            found.append(path)
    return found


def own_files(name: str) -> tuple[str, str]:
    """Return the unit's own file and the directory of its additions, as they are called when a role makes them. An instance uses its template's."""
    template = re.sub("@[^.]*", "@", name)
    return f"{_SYSTEM}/{template}", f"{_SYSTEM}/{template}.d/"


def decide(unit: Unit, state: dict[str, str], now: float, monotonic: float, pending: list[str] | None = None) -> Decision:
    """Compare one unit with its declaration.

    state holds the properties that show() returns; now and monotonic are the two clocks, in seconds; pending are paths that
    this run changes, which in check mode do not show on the host.
    """
    file, additions = own_files(unit.name)
    announced = [path for path in pending or [] if path in unit.configuration or path == file or path.startswith(additions)]
    if unit.absent:
        # Its file may be gone while it runs on: systemd stops nothing for that, and a timer would go on to fire.
        decision = Decision(unit, present=True, stop=state["ActiveState"] not in ("inactive", "failed"))
        decision.reload = decision.stop or bool(announced) or (state["LoadState"] == "loaded" and state["NeedDaemonReload"] == "yes")
        if decision.changed:
            decision.before, decision.after = [f"state: {state['ActiveState']}"], ["state: gone"]
        return decision
    if state["LoadState"] != "loaded":
        before, after = [f"state: {state['LoadState']}"], ["state: active" if unit.run else "state: loaded"]
        return Decision(unit, present=False, enable=unit.run, start=unit.run, reload=not unit.run, before=before, after=after)
    decision = Decision(unit, present=True, reload=state["NeedDaemonReload"] == "yes" or any(path.startswith(_SYSTEM) for path in announced))
    if decision.reload:
        decision.before.append("unit file: changed since systemd read it")
        decision.after.append("unit file: read")
    if not unit.run:
        return decision
    if state["UnitFileState"] != "enabled":
        decision.enable = True
        decision.before.append(f"at boot: {state['UnitFileState'] or 'not enabled'}")
        decision.after.append("at boot: enabled")
    if state["ActiveState"] not in ("active", "reloading"):
        decision.start = True
        decision.before.append(f"state: {state['ActiveState']}")
        decision.after.append("state: active")
        return decision
    # When it began to start, which is before it read anything, or ended its last reload.
    since = state["StateChangeTimestampMonotonic" if unit.reload else "InactiveExitTimestampMonotonic"]
    stale = list(dict.fromkeys(newer(unit.configuration, now - monotonic + int(since) / 1e6, now) + announced))
    if stale and unit.reload and not decision.reload:
        decision.renew = True
        decision.before.append(f"state: read its configuration before {', '.join(stale)} changed")
        decision.after.append("state: reloaded")
    elif stale or decision.reload:
        decision.restart = True
        decision.before.append(f"state: started before {', '.join(stale) or 'its unit file'} changed")
        decision.after.append("state: restarted")
    return decision


def plan(units: list[Unit], pending: list[str] | None = None) -> list[Decision]:
    """Return one decision for each unit. pending: see decide."""
    now, monotonic = time.time(), time.clock_gettime(time.CLOCK_MONOTONIC)
    states = show([unit.name for unit in units])
    for unit, state in zip(units, states):
        if state["NeedDaemonReload"] == "yes":  # then systemd also says of the links what it read before
            state["UnitFileState"] = _on_disk(unit.name)
    return [decide(unit, state, now, monotonic, pending) for unit, state in zip(units, states)]


def _on_disk(name: str) -> str:
    """Return whether the unit is enabled by what is on disk now, empty when its file is gone."""
    return _children.run(["systemctl", "is-enabled", name], env=dict(os.environ, LC_ALL="C")).stdout.strip()


def apply(decisions: list[Decision], settle: float) -> None:
    """Act, then see that each unit that was touched still runs after settle seconds. Raises UnitError with its journal otherwise."""
    stop = [decision.unit.name for decision in decisions if decision.stop]
    if stop:  # before systemd reads its files anew: it does not stop a unit whose file it no longer finds
        _systemctl("stop", *stop)
    missing = [decision.unit.name for decision in decisions if not decision.present]
    if missing:
        _systemctl("daemon-reload")
        missing = [f"{name} ({state['LoadState']})" for name, state in zip(missing, show(missing)) if state["LoadState"] != "loaded"]
        if missing:
            raise UnitError(f"There is no unit {' and no unit '.join(missing)} on this host.")
    elif any(decision.reload for decision in decisions):
        _systemctl("daemon-reload")
    enable = [decision.unit.name for decision in decisions if decision.enable]
    if enable:
        _systemctl("enable", *enable)
    renewed = [decision.unit.name for decision in decisions if decision.renew]
    touched = [decision.unit.name for decision in decisions if decision.start or decision.restart] + renewed
    if not touched:
        return
    try:
        for verb, names in (("restart", touched[: len(touched) - len(renewed)]), ("reload", renewed)):
            if names:
                _systemctl(verb, *names)
    except UnitError as error:
        raise UnitError(f"{error}\n{_journal(touched)}") from error
    restarts = [_restarts(state) for state in show(touched)]  # not earlier: a restart sets the counter to 0
    time.sleep(settle)
    for name, before, state in zip(touched, restarts, show(touched)):
        if state["ActiveState"] != "active" or _restarts(state) > before:
            raise UnitError(f"{name} does not stay up (it is {state['ActiveState']}):\n{_journal([name])}")


def _restarts(state: dict[str, str]) -> int:
    return int(state.get("NRestarts", 0))  # only services count


def _journal(names: list[str]) -> str:
    selected = [word for name in names for word in ("--unit", name)]
    return _children.run(["journalctl", *selected, "--no-pager", "--lines", "20"]).stdout
