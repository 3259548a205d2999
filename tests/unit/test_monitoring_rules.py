"""The alerting rules ask for metrics that the code writes, and say what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.confops.indico.plugins.module_utils import _backup_set, _backup_status, _disk_space, _jobs, _offsite, _scheduler, _zeo_info

REPOSITORY = Path(__file__).resolve().parents[2]
GROUPS = yaml.safe_load((REPOSITORY / "monitoring/indico.rules.yml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return every metric that is written, and its labels."""
    run = {"ok": True, "warnings": [], "ended_seconds": 1, "success_seconds": 1, "seconds": 1.0}
    storages = [{"name": "main", "stored_bytes": 1, "reclaimed_bytes": 1}]
    repository = {"verified": None, "bytes": 1, "chain_length": 1, "recoverable": None}
    known = {"run": {**run, "storages": storages}, "drill": run, "pack": {**run, "storages": storages}, "repositories": {"main": repository}}
    monkeypatch.setattr(_backup_status, "whole", lambda _settings: known)
    pulled = {**run, "problem": None, "verified_seconds": 1, "bytes": 1, "refused": [], "lag_seconds": 1}
    settings = _backup_set.Settings(instance="indico", prefix="/p", directory="/b", storages=["main"])
    offsite = _offsite.Settings(instance="indico", directory="/o", storages=["main"], source="/b/")
    figures: dict[str, Any] = {"read_only": False, "figures": {"bytes": 1, "objects": 1, "tid": "03f9d0a41c3b5d55"}, "now": 2.0}
    status = dict.fromkeys(("connections", "active_txns", "waiting", "commits", "aborts", "conflicts", "conflicts_resolved", "loads", "stores"), 1)
    status.update({"timeout-thread-is-alive": True, "lock_time": 1.0, "start": "Thu Nov 26 03:00:00 2026"})
    zeo = {"name": "main", "error": None, **_zeo_info._figures({**figures, "status": status})}
    text = _backup_status._metrics(settings) + _offsite._metrics(offsite, pulled) + _zeo_info.metrics("indico", [zeo], {"main": (1, 1.0)})
    tasks = {"daemon": {"running": True, "alive": True}, "overdue": 0, "counts": {"failed": 0}}
    text += _scheduler.metrics("indico", tasks, 1.0)
    text += _jobs.metrics("indico", [{"name": "indico-clean", "ended": 1, "succeeded": 1, "seconds": 1, "failures": 0, "running": False}], 1.0)
    keys = ("total_bytes", "free_bytes", "used_percent", "inodes_total", "inodes_free", "pace_bytes", "full_in_days")
    text += _disk_space.metrics("indico", [{"mountpoint": "/", **dict.fromkeys(keys, 1)}])
    return dict(re.findall(r"^(\w+)\{(.*)\} ", text, re.MULTILINE))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_asks_for_what_is_written(rule: dict[str, Any], written: dict[str, str]) -> None:
    asked = re.findall(r"\bindico_\w+", rule["expr"])
    assert asked
    assert set(asked) <= set(written)
    labels = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))) - {"instance"}
    for metric in asked:
        assert labels <= set(re.findall(r"(\w+)=", written[metric]))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_says_how_bad_and_what_to_do(rule: dict[str, Any]) -> None:
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"\d+[mhd]", rule["for"])
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert set(rule["annotations"]) == {"summary", "description"}
    assert rule["annotations"]["description"].endswith(".")


def test_each_alert_has_a_name_of_its_own() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    assert {group["name"] for group in GROUPS} == {
        "indico-zeo",
        "indico-jobs",
        "indico-scheduler",
        "indico-backup",
        "indico-drill",
        "indico-pack",
        "indico-offsite",
    }
