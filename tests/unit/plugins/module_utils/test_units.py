"""units asks systemd what runs and the disk what is newer. A shell script stands in for systemctl: it records its calls and gives prepared answers."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.confops.indico.plugins.module_utils import _units
from ansible_collections.confops.indico.plugins.modules import units

# systemctl show prints the answer that is next in turn; another verb says nothing, or fails with what is in the file of its name.
_SYSTEMCTL = """#!/bin/sh
cd "${0%/*}" || exit 1
echo "$LC_ALL $*" >> calls
if [ -e "failing/$1" ]; then cat "failing/$1" >&2; exit 4; fi
if [ "$1" = show ]; then set -- answers/*; cat "$1" && rm "$1"; fi
if [ "$1" = is-enabled ]; then cat on-disk 2>/dev/null || echo enabled; fi
"""
_JOURNALCTL = """#!/bin/sh
echo "journal of $*"
"""
_SHOW = f"C show --property {','.join(_units._PROPERTIES)} --"
GOOD = {
    "LoadState": "loaded",
    "UnitFileState": "enabled",
    "ActiveState": "active",
    "NeedDaemonReload": "no",
    "InactiveExitTimestampMonotonic": "5000000",
    "StateChangeTimestampMonotonic": "5000000",
    "NRestarts": "0",
}
NOT_FOUND = {"LoadState": "not-found", "UnitFileState": "", "ActiveState": "inactive", "NeedDaemonReload": "no", "InactiveExitTimestampMonotonic": "0"}
# The clocks of a host that booted at 1000: a unit as in GOOD started at 1005.
NOW, MONOTONIC, STARTED = 1100.0, 100.0, 1005.0


@dataclass
class Systemd:
    """The stand-in's directory."""

    path: Path

    def answer(self, *units_at_each_call: list[dict[str, str]]) -> None:
        for number, states in enumerate(units_at_each_call):
            blocks = ["".join(f"{key}={value}\n" for key, value in state.items()) for state in states]
            (self.path / f"answers/{number}").write_text("\n".join(blocks))

    def fail(self, verb: str, text: str) -> None:
        (self.path / "failing" / verb).write_text(text)

    def calls(self) -> list[str]:
        """Return the calls since the last question, without the properties that each show names. No answer may be left over."""
        assert not list((self.path / "answers").iterdir())
        calls = self.path / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        assert all(line.startswith("C ") for line in lines)
        return [line.replace(_SHOW, "show").removeprefix("C ") for line in lines]


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    for name, script in (("systemctl", _SYSTEMCTL), ("journalctl", _JOURNALCTL)):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    for name in ("answers", "failing"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    return Systemd(tmp_path)


def touch(path: Path, modified: float) -> str:
    path.touch()
    os.utime(path, (modified, modified))
    return str(path)


def decide(configuration: list[str] | None = None, **state: str) -> _units.Decision:
    return _units.decide(_units.Unit("a.service", configuration or []), {**GOOD, **state}, NOW, MONOTONIC)


def acts(decision: _units.Decision) -> set[str]:
    return {name for name in ("reload", "enable", "start", "restart", "renew", "stop") if getattr(decision, name)}


# One decision


def test_a_unit_that_is_as_declared_needs_nothing(tmp_path: Path) -> None:
    decision = decide([touch(tmp_path / "a", STARTED - 1), str(tmp_path / "missing")])
    assert decision == _units.Decision(decision.unit, present=True)
    assert not decision.changed


@pytest.mark.parametrize(
    ("state", "actions", "before", "after"),
    [
        ({"LoadState": "not-found"}, {"enable", "start"}, "state: not-found\n", "state: active\n"),
        ({"LoadState": "masked"}, {"enable", "start"}, "state: masked\n", "state: active\n"),
        ({"UnitFileState": "disabled"}, {"enable"}, "at boot: disabled\n", "at boot: enabled\n"),
        ({"UnitFileState": "enabled-runtime"}, {"enable"}, "at boot: enabled-runtime\n", "at boot: enabled\n"),
        ({"UnitFileState": ""}, {"enable"}, "at boot: not enabled\n", "at boot: enabled\n"),
        *(({"ActiveState": found}, {"start"}, f"state: {found}\n", "state: active\n") for found in ("inactive", "failed", "activating", "deactivating")),
        ({"ActiveState": "reloading"}, set(), "", ""),
        (
            {"NeedDaemonReload": "yes"},
            {"reload", "restart"},
            "unit file: changed since systemd read it\nstate: started before its unit file changed\n",
            "unit file: read\nstate: restarted\n",
        ),
        (
            {"NeedDaemonReload": "yes", "UnitFileState": "disabled", "ActiveState": "failed", "InactiveExitTimestampMonotonic": "0"},
            {"reload", "enable", "start"},
            "unit file: changed since systemd read it\nat boot: disabled\nstate: failed\n",
            "unit file: read\nat boot: enabled\nstate: active\n",
        ),
    ],
)
def test_what_systemd_says_decides(state: dict[str, str], actions: set[str], before: str, after: str) -> None:
    decision = decide(**state)
    assert acts(decision) == actions
    assert decision.changed is bool(actions)
    assert decision.present is ("LoadState" not in state)
    assert decision.diff() == {"before_header": "a.service", "after_header": "a.service", "before": before, "after": after}


def test_a_unit_that_started_before_its_configuration_changed_is_restarted(tmp_path: Path) -> None:
    paths = [touch(tmp_path / name, STARTED + offset) for name, offset in (("old", -1), ("new", 1), ("newer", 2))]
    decision = decide(paths)
    assert acts(decision) == {"restart"}
    assert decision.before == [f"state: started before {tmp_path}/new, {tmp_path}/newer changed"]
    assert decision.after == ["state: restarted"]
    assert acts(decide(paths, ActiveState="reloading")) == {"restart"}
    assert acts(decide(paths, ActiveState="inactive")) == {"start"}
    assert acts(decide(paths, InactiveExitTimestampMonotonic="8000000")) == set()
    assert acts(decide(paths, NeedDaemonReload="yes", UnitFileState="disabled")) == {"reload", "enable", "restart"}


@pytest.mark.parametrize(
    ("state", "pending", "actions"),
    [
        ({}, [], {"stop", "reload"}),
        ({"ActiveState": "activating"}, [], {"stop", "reload"}),
        ({"LoadState": "not-found"}, [], {"stop", "reload"}),  # a run died after its file went
        (NOT_FOUND, [], set()),
        ({"ActiveState": "inactive"}, [], set()),  # such as one that only its file's removal would end
        ({"ActiveState": "failed", "NeedDaemonReload": "yes"}, [], {"reload"}),
        (NOT_FOUND, ["/etc/systemd/system/a.service"], {"reload"}),
        (NOT_FOUND, ["/etc/systemd/system/b.service"], set()),
    ],
)
def test_what_is_no_longer_declared_is_stopped(state: dict[str, str], pending: list[str], actions: set[str]) -> None:
    decision = _units.decide(_units.Unit("a.service", absent=True), {**GOOD, **state}, NOW, MONOTONIC, pending)
    assert acts(decision) == actions
    assert (decision.diff()["after"] == "state: gone\n") is bool(actions)


def test_what_goes_is_stopped_before_systemd_forgets_it(systemd: Systemd) -> None:
    systemd.answer([GOOD, NOT_FOUND], [GOOD], [GOOD], [GOOD])
    decisions = _units.plan([_units.Unit("old.timer", absent=True), _units.Unit("new.timer")])
    _units.apply(decisions, 0)
    assert [call.partition(" ")[0] + " " + call.split()[-1] for call in systemd.calls()][1:5] == [
        "stop old.timer", "daemon-reload daemon-reload", "show new.timer", "enable new.timer",
    ]  # fmt: skip


def test_a_configuration_from_the_future_says_nothing(tmp_path: Path) -> None:
    assert acts(decide([touch(tmp_path / "a", NOW + 1)])) == set()


@pytest.mark.parametrize(("modified", "found"), [(9.5, False), (10, False), (10.25, True), (20, True), (20.25, False)])
def test_newer_means_after_the_start_and_not_after_now(tmp_path: Path, modified: float, found: bool) -> None:
    path = touch(tmp_path / "a", modified)
    assert _units.newer([path], started=10, now=20) == ([path] if found else [])


def test_a_link_counts_and_not_what_it_points_at(tmp_path: Path) -> None:
    target, link = touch(tmp_path / "target", 15), tmp_path / "link"
    link.symlink_to(target)
    os.utime(link, (5, 5), follow_symlinks=False)
    assert _units.newer([str(link)], started=10, now=20) == []
    os.utime(link, (15, 15), follow_symlinks=False)
    Path(target).unlink()
    assert _units.newer([target, str(link)], started=10, now=20) == [str(link)]


# What systemd says


def test_show_reads_one_block_for_each_unit(systemd: Systemd) -> None:
    odd = {"LoadState": "not-found", "UnitFileState": "", "ExecStart": "{ path=/bin/a ; argv[]=/bin/a -o b=c }"}
    systemd.answer([GOOD, odd])
    assert _units.show(["a@main.service", "b.service"]) == [GOOD, odd]
    assert systemd.calls() == ["show a@main.service b.service"]


def test_show_asks_for_other_properties_too(systemd: Systemd) -> None:
    systemd.answer([{"SubState": "running"}])
    assert _units.show(["a.service"], ("SubState", "MemoryCurrent")) == [{"SubState": "running"}]
    assert systemd.calls() == ["show --property SubState,MemoryCurrent -- a.service"]


def test_a_failing_systemctl_is_quoted(systemd: Systemd) -> None:
    systemd.fail("show", "Unit name a b is not valid.\n")
    with pytest.raises(_units.UnitError) as caught:
        _units.show(["a b"], ("LoadState",))
    assert str(caught.value) == "systemctl show --property LoadState -- a b failed (exit code 4): Unit name a b is not valid."


def test_plan_compares_with_the_clocks_of_the_host(systemd: Systemd, tmp_path: Path) -> None:
    now, started = time.time(), (time.clock_gettime(time.CLOCK_MONOTONIC) - 60) * 1e6
    old, new = touch(tmp_path / "old", now - 70), touch(tmp_path / "new", now - 50)
    running = {**GOOD, "InactiveExitTimestampMonotonic": str(int(started))}
    systemd.answer([running, running, NOT_FOUND])
    decisions = _units.plan([_units.Unit("a.service", [old]), _units.Unit("b.service", [old, new]), _units.Unit("c.service")])
    assert [(decision.unit.name, acts(decision)) for decision in decisions] == [
        ("a.service", set()),
        ("b.service", {"restart"}),
        ("c.service", {"enable", "start"}),
    ]
    assert systemd.calls() == ["show a.service b.service c.service"]


# Acting


def plan(systemd: Systemd, *states: dict[str, str]) -> list[_units.Decision]:
    """Return decisions on the units a.service, b.service, ... in these states."""
    systemd.answer([{**GOOD, **state} for state in states])
    decisions = _units.plan([_units.Unit(f"{letter}.service") for letter, _state in zip("abcdef", states)])
    systemd.calls()
    return decisions


@pytest.mark.parametrize(
    ("states", "shown", "calls"),
    [
        ([{}, {"ActiveState": "reloading"}], [], []),
        ([{"UnitFileState": "disabled"}], [], ["enable a.service"]),
        ([{"ActiveState": "failed"}], [[GOOD], [GOOD]], ["restart a.service", "show a.service", "show a.service"]),
        ([{"NeedDaemonReload": "yes"}], [[GOOD], [GOOD]], ["daemon-reload", "restart a.service", "show a.service", "show a.service"]),
        (
            [{"LoadState": "not-found"}],
            [[GOOD], [GOOD], [GOOD]],
            ["daemon-reload", "show a.service", "enable a.service", "restart a.service", "show a.service", "show a.service"],
        ),
        (
            [{}, {"UnitFileState": "disabled"}, {"ActiveState": "inactive"}, {"NeedDaemonReload": "yes"}, {"LoadState": "not-found"}],
            [[GOOD], [GOOD] * 3, [GOOD] * 3],
            [
                "daemon-reload",
                "show e.service",
                "enable b.service e.service",
                "restart c.service d.service e.service",
                "show c.service d.service e.service",
                "show c.service d.service e.service",
            ],
        ),
    ],
    ids=["nothing", "enable", "start", "changed unit file", "new unit", "all at once"],
)
def test_each_decision_has_its_calls(systemd: Systemd, states: list[dict[str, str]], shown: list[list[dict[str, str]]], calls: list[str]) -> None:
    decisions = plan(systemd, *states)
    systemd.answer(*shown)
    _units.apply(decisions, 0)
    assert systemd.calls() == calls


def test_links_that_systemd_has_not_read_again_are_read_from_the_disk(systemd: Systemd) -> None:
    """A unit whose file went and came back is enabled for systemd's memory, and not for the next boot."""
    (systemd.path / "on-disk").write_text("disabled\n")
    systemd.answer([{**GOOD, "NeedDaemonReload": "yes"}], [GOOD], [GOOD])
    (decision,) = _units.plan([_units.Unit("a.timer")])
    assert acts(decision) == {"reload", "enable", "restart"}
    assert "at boot: disabled" in decision.before
    _units.apply([decision], 0)
    assert systemd.calls() == ["show a.timer", "is-enabled a.timer", "daemon-reload", "enable a.timer", "restart a.timer", "show a.timer", "show a.timer"]


def test_units_that_are_missing_after_a_reload_are_named_and_nothing_is_enabled(systemd: Systemd) -> None:
    decisions = plan(systemd, NOT_FOUND, {"UnitFileState": "disabled"}, NOT_FOUND, NOT_FOUND)
    systemd.answer([NOT_FOUND, GOOD, {**NOT_FOUND, "LoadState": "masked"}])
    with pytest.raises(_units.UnitError) as caught:
        _units.apply(decisions, 0)
    assert str(caught.value) == "There is no unit a.service (not-found) and no unit d.service (masked) on this host."
    assert systemd.calls() == ["daemon-reload", "show a.service c.service d.service"]


@pytest.mark.parametrize(
    ("started", "settled", "is_now"),
    [
        ({}, {"ActiveState": "failed"}, "failed"),
        ({}, {"ActiveState": "activating", "NRestarts": "1"}, "activating"),
        ({}, {"NRestarts": "1"}, "active"),
        ({"NRestarts": "9"}, {"NRestarts": "10"}, "active"),
    ],
)
def test_a_unit_that_does_not_stay_up_fails_with_its_journal(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch, started: dict[str, str], settled: dict[str, str], is_now: str
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    decisions = plan(systemd, {"ActiveState": "inactive"}, {"ActiveState": "inactive"})
    systemd.answer([GOOD, {**GOOD, **started}], [GOOD, {**GOOD, **settled}])
    with pytest.raises(_units.UnitError) as caught:
        _units.apply(decisions, 1.5)
    assert str(caught.value) == f"b.service does not stay up (it is {is_now}):\njournal of --unit b.service --no-pager --lines 20\n"
    assert 1.5 in slept


def test_a_unit_that_keeps_an_old_count_is_up(systemd: Systemd) -> None:
    decisions = plan(systemd, {"ActiveState": "activating", "NRestarts": "7"})
    systemd.answer([{**GOOD, "NRestarts": "7"}], [{**GOOD, "NRestarts": "7"}])
    _units.apply(decisions, 0)


def test_a_unit_that_counts_no_restarts_can_be_started(systemd: Systemd) -> None:
    timer = {key: value for key, value in GOOD.items() if key != "NRestarts"}
    systemd.answer([{**timer, "ActiveState": "inactive"}])
    decisions = _units.plan([_units.Unit("a.timer")])
    systemd.answer([timer], [timer])
    _units.apply(decisions, 0)
    assert systemd.calls()[1:] == ["restart a.timer", "show a.timer", "show a.timer"]


def test_a_restart_that_systemd_refuses_fails_with_the_journal_of_all(systemd: Systemd) -> None:
    decisions = plan(systemd, {"ActiveState": "inactive"}, {}, {"ActiveState": "failed"})
    systemd.fail("restart", "Job for c.service failed.\n")
    with pytest.raises(_units.UnitError) as caught:
        _units.apply(decisions, 0)
    assert str(caught.value) == (
        "systemctl restart a.service c.service failed (exit code 4): Job for c.service failed.\n"
        "journal of --unit a.service --unit c.service --no-pager --lines 20\n"
    )


@pytest.mark.parametrize(("verb", "state"), [("enable", {"UnitFileState": "disabled"}), ("daemon-reload", {"NeedDaemonReload": "yes"})])
def test_another_verb_that_fails_is_quoted_and_nothing_is_restarted(systemd: Systemd, verb: str, state: dict[str, str]) -> None:
    decisions = plan(systemd, {"ActiveState": "inactive", **state})
    systemd.fail(verb, "No.\n")
    with pytest.raises(_units.UnitError, match=rf"^systemctl {verb}.* failed \(exit code 4\): No\.$"):
        _units.apply(decisions, 0)
    assert not [call for call in systemd.calls() if call.startswith("restart")]


# The module


def module(capsys: pytest.CaptureFixture[str], *declared: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Run the module and return its answer."""
    with patch_module_args({"units": list(declared), "settle": 0, **options}), pytest.raises(SystemExit):
        units.main()
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    answer.pop("invocation")
    return answer


def test_the_module_checks_runs_and_then_has_nothing_to_do(systemd: Systemd, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = int((time.clock_gettime(time.CLOCK_MONOTONIC) - 60) * 1e6)
    running = {**GOOD, "InactiveExitTimestampMonotonic": str(started)}
    restarted = {**GOOD, "InactiveExitTimestampMonotonic": str(started + 60 * 10**6)}
    stale = touch(tmp_path / "conf", time.time() - 30)
    declared: list[dict[str, Any]] = [{"name": "a.service"}, {"name": "b.service", "configuration": [stale]}, {"name": "c.service"}]
    first = [running, running, NOT_FOUND]
    names = "a.service b.service c.service"

    systemd.answer(first)
    checked = module(capsys, *declared, _ansible_check_mode=True)
    assert systemd.calls() == [f"show {names}"]
    systemd.answer(first, [GOOD], [GOOD] * 2, [GOOD] * 2)
    ran = module(capsys, *declared)
    assert systemd.calls() == [
        f"show {names}",
        *("daemon-reload", "show c.service", "enable c.service", "restart b.service c.service"),
        *["show b.service c.service"] * 2,
    ]
    systemd.answer([running, restarted, restarted])
    again = module(capsys, *declared)

    assert checked == ran
    assert [diff.pop("before_header") for diff in ran["diff"]] == [diff.pop("after_header") for diff in ran["diff"]] == ["b.service", "c.service"]
    assert ran == {
        "changed": True,
        "started": ["c.service"],
        "restarted": ["b.service"],
        "reloaded": [],
        "stopped": [],
        "enabled": ["c.service"],
        "diff": [
            {"before": f"state: started before {stale} changed\n", "after": "state: restarted\n"},
            {"before": "state: not-found\n", "after": "state: active\n"},
        ],
    }
    assert again == {"changed": False, "started": [], "restarted": [], "reloaded": [], "stopped": [], "enabled": [], "diff": []}


def test_what_reads_on_a_reload_is_reloaded(systemd: Systemd, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    started = int((time.clock_gettime(time.CLOCK_MONOTONIC) - 60) * 1e6)
    running = {**GOOD, "InactiveExitTimestampMonotonic": str(started), "StateChangeTimestampMonotonic": str(started)}
    reloaded = {**running, "StateChangeTimestampMonotonic": str(started + 60 * 10**6)}
    stale = touch(tmp_path / "conf", time.time() - 30)
    declared = {"name": "a.service", "configuration": [stale], "reload": True}

    systemd.answer([running], [running], [running])
    ran = module(capsys, declared)
    assert systemd.calls() == ["show a.service", "reload a.service", *["show a.service"] * 2]
    assert (ran["changed"], ran["reloaded"], ran["restarted"]) == (True, ["a.service"], [])
    assert ran["diff"][0]["before"] == f"state: read its configuration before {stale} changed\n"
    assert ran["diff"][0]["after"] == "state: reloaded\n"
    systemd.answer([reloaded])
    assert module(capsys, declared)["changed"] is False
    systemd.calls()

    # Its own file is systemd's affair.
    systemd.answer([{**running, "NeedDaemonReload": "yes"}], [running], [running])
    ran = module(capsys, declared)
    assert (ran["reloaded"], ran["restarted"]) == ([], ["a.service"])
    assert "restart a.service" in systemd.calls()


def test_the_module_fails_with_the_sentence_and_the_journal(systemd: Systemd, capsys: pytest.CaptureFixture[str]) -> None:
    systemd.answer([{**GOOD, "ActiveState": "inactive"}], [GOOD], [{**GOOD, "ActiveState": "failed"}])
    failed = module(capsys, {"name": "a.service"})
    assert failed["failed"] is True
    assert failed["msg"] == "a.service does not stay up (it is failed):\njournal of --unit a.service --no-pager --lines 20\n"


def test_the_module_says_when_there_is_no_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    failed = module(capsys, {"name": "a.service"})
    assert failed["failed"] is True
    assert "systemctl" in failed["msg"]


@pytest.mark.parametrize(
    ("pending", "name", "expected"),
    [
        ("/etc/app.conf", "app.service", {"restart"}),
        ("/etc/other.conf", "app.service", set()),
        ("/etc/systemd/system/app.service", "app.service", {"restart", "reload"}),
        ("/etc/systemd/system/app.service.d/more.conf", "app.service", {"restart", "reload"}),
        ("/etc/systemd/system/app@.service", "app@one.service", {"restart", "reload"}),
        ("/etc/systemd/system/app@.service", "app.service", set()),
    ],
)
def test_what_this_run_changes_is_counted_before_it_shows(pending: str, name: str, expected: set[str]) -> None:
    """In check mode an earlier task only announces its changes."""
    decision = _units.decide(_units.Unit(name, ["/etc/app.conf"]), GOOD, NOW, MONOTONIC, [pending])
    assert {step for step in ("enable", "start", "restart", "reload") if getattr(decision, step)} == expected
    assert (pending in decision.diff()["before"]) == bool(expected)


def test_a_unit_that_does_not_run_is_started_whatever_is_pending() -> None:
    decision = _units.decide(_units.Unit("app.service", ["/etc/app.conf"]), {**GOOD, "ActiveState": "inactive"}, NOW, MONOTONIC, ["/etc/app.conf"])
    assert (decision.start, decision.restart) == (True, False)
