"""What is tried upon a damaged copy: our code as the modules and the commands call it. Each function runs in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _history, _offsite, _prune, _repozo, _restore, _verify

from tests.hostile.corruptions import Damage
from tests.hostile.world import START, Clock, pull_settings
from tests.unit.storage import tid_of


@dataclass(frozen=True)
class Question:
    """What is asked of an action. For a restore: what is given as time or transaction, the greatest tid that may be in it, and whether it must be there.

    must_warn: an answer without a warning is a silent error. chains: how many chains a prune must leave.
    """

    action: str
    text: str = ""
    limit: bytes = b"\xff" * 8
    exact: bool = False
    must_warn: bool = False
    chains: int = 1


def ask(d: Damage, action: str) -> Question:
    """Choose what is asked of an action."""
    if action == "time":
        return _some_time(d)
    if action == "transaction":
        tid = d.random.choice(d.random.choice(d.template.generations).tids) if d.random.random() < 0.9 else b"\3" * 8  # which is nowhere
        return Question(action, tid.hex(), tid, exact=True)
    if action == "prune":
        return Question(action, chains=d.random.choice([1, 1, 2]))
    return Question(action)


def _some_time(d: Damage) -> Question:
    ahead = d.ahead
    if ahead and d.random.random() < 0.5:
        return Question("time", f"{d.template.now:%Y-%m-%dT%H:%M:%SZ}", _end_of(d.template.now), must_warn=True)
    what = d.random.choice(["between", "between", "between", "stamp", "day", "early", "late"])
    moment = START + (d.template.now - START) * d.random.random()
    if what == "stamp":
        moment = datetime.strptime(d.random.choice(d.template.backups).stamp, "%Y-%m-%d-%H-%M-%S").replace(tzinfo=timezone.utc)
        return Question("time", f"{moment:%Y-%m-%d-%H-%M-%S}", _end_of(moment))
    if what == "day":
        end = moment.replace(hour=23, minute=59, second=59)
        return Question("time", f"{moment:%Y-%m-%d}", _end_of(end))
    if what == "early":
        moment = START - timedelta(days=1)
    elif what == "late":
        moment = d.template.now + timedelta(minutes=10)
    moment = moment.replace(microsecond=0)
    return Question("time", f"{moment:%Y-%m-%dT%H:%M:%SZ}", _end_of(moment))


def _end_of(second: datetime) -> bytes:
    return tid_of(second.replace(microsecond=999_999))


def perform(d: Damage, question: Question) -> dict[str, Any]:
    """Run the action and return what it says of itself; what was stored or restored is looked at by the judge."""
    Clock.set(d.template.now + d.shift)
    return _ACTIONS[question.action](d, question)


def _back_up(d: Damage, _question: Question) -> dict[str, Any]:
    done = _repozo.backup(str(d.live), str(d.repository), compression=d.template.compression)
    return {
        "kind": done.decision.kind,
        "reason": done.decision.reason,
        "file": done.file,
        "end": done.decision.end,
        "warnings": [*getattr(done, "warnings", [])],
        "repaired": done.repaired,
    }


def _verify_all(d: Damage, _question: Question) -> dict[str, Any]:
    report = _verify.verify(str(d.repository), jobs=1)
    return {"problems": report.problems, "warnings": report.warnings}


def _restored(d: Damage, question: Question) -> dict[str, Any]:
    wanted = None
    if question.action == "time":
        wanted = _history.wanted_time(question.text, "UTC")
    elif question.action == "transaction":
        wanted = _history.wanted_transaction(question.text)
    result = _restore.restore(_restore.Request(repository=str(d.repository), target=str(d.place / "restored/Data.fs"), wanted=wanted))
    return {"files": result.plan.files, "warnings": result.plan.warnings}


def _pruned(d: Damage, question: Question) -> dict[str, Any]:
    done = _prune.prune(str(d.repository), _prune.Policy(keep_daily=1, keep_chains_min=question.chains))
    return {"deleted": done.deleted, "warnings": done.warnings}


def _pull(d: Damage, _question: Question) -> dict[str, Any]:
    done = _offsite.pull(pull_settings(d.place))
    return {"ok": done.ok, "refused": done.refused, "problems": done.problems, "files": done.files, "warnings": done.warnings}


_ACTIONS = {"backup": _back_up, "verify": _verify_all, "newest": _restored, "time": _restored, "transaction": _restored, "prune": _pruned, "pull": _pull}
