# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command for people on a host that runs Indico. It does what the modules do, with the same code; with --json it prints what they return.

Its settings are a JSON file that role indico writes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from datetime import date
from typing import Any, TextIO

from ansible_collections.confops.indico.plugins.module_utils import (
    _cleanup,
    _indico,
    _indico_admin,
    _indico_event_restore,
    _indico_mirror,
    _info,
    _numbers,
    _repository,
    _scheduler,
    _units,
)

_PATIENCE = 30  # seconds to wait for the database server


class Settings:
    """What the command is told. current, user: the release and who runs it; log: scheduler.log.

    host: what _info.look wants, for a host that does everything; what is not on this one is left out.
    """

    def __init__(self, path: str) -> None:
        try:
            values = dict(_repository.load_json(path, follow=True))
            self.instance, self.prefix, self.user = (str(values[name]) for name in ("instance", "prefix", "user"))
            self.host: dict[str, Any] = dict(values["host"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _indico.IndicoError(f"The settings {path} cannot be used: {_repository.reason(error)}.") from error
        self.current = os.path.join(self.prefix, "current")
        # Another host may be the one that runs it.
        self.scheduler = os.path.exists(f"/etc/systemd/system/{self.instance}-scheduler.service")
        self.log = os.path.join(self.prefix, "log/indico/scheduler.log")


def main(settings_path: str, arguments: list[str]) -> int:
    """Run the command and return its exit code: 0 when all is well, 1 when something is wrong or was refused, 2 for words that it does not know."""
    options = parser().parse_args(arguments)
    try:
        result: dict[str, Any] = options.run(Settings(settings_path), options)
    except (_indico.IndicoError, _indico_mirror.MirrorError, _cleanup.CleanupError, _units.UnitError, OSError) as error:
        if options.json:
            _say(json.dumps({"error": _repository.told(error)}))
        else:
            _say(_repository.told(error), sys.stderr)
        return 1
    if options.json:
        _say(json.dumps(result, indent=1, sort_keys=True))
    else:
        for line in result.get("summary", result.get("steps", [])):
            _say(line)
        for sentence in result.get("problems", []):
            _say(sentence, sys.stderr)
    return 1 if result.get("problems") else 0


def parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="as data")
    writes = argparse.ArgumentParser(add_help=False, parents=[common])
    writes.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser = argparse.ArgumentParser(description="An Indico instance on this host.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(where: Any, name: str, run: _Verb, text: str, parent: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = where.add_parser(name, help=text, description=text, parents=[parent])
        made.set_defaults(run=run)
        return made

    verb(verbs, "status", _status, "what runs here, and what is wrong", common)
    cleaned = verb(verbs, "clean", _clean, "remove what is left behind; sessions that live, and files in use, stay", writes)
    cleaned.add_argument(
        "what",
        nargs="*",
        default=[],
        metavar="WHAT",
        help=f"of {', '.join(_cleanup.KINDS)}, all of them without; {', '.join(_cleanup.ON_REQUEST)}, what restores put aside, only when it is named",
    )
    cleaned.add_argument("--cache-days", type=_numbers.DAYS, default=_cleanup.Rules.cache_days, help="what has no expiry of its own goes after so many days")
    cleaned.add_argument("--min-age-hours", type=_numbers.HOURS, default=_cleanup.Rules.min_age_hours, help="temporary files go after so many hours")
    cleaned.add_argument("--log-days", type=_numbers.DAYS, default=_cleanup.Rules.log_days, help="rotated logs go after so many days")
    cleaned.add_argument("--replaced-days", type=_numbers.DAYS, default=_cleanup.Rules.replaced_days, help="what restores put aside goes after so many days")
    mirrored = verb(verbs, "mirror", _mirror, "write events as a static site, as a visitor sees them; the events of today without more", writes)
    mirrored.add_argument("target", help="a directory that does not exist yet, or a mirror")
    mirrored.add_argument("--day", default="", help="the last day whose events are mirrored, such as 2013-05-28 (default: today)")
    mirrored.add_argument("--days", type=_numbers.WHOLE_DAYS, default=1, help="how many days (default: 1)")
    mirrored.add_argument("--categories", nargs="+", default=["0"], metavar="ID", help="only events of these categories and of those below them")
    verb(verbs, "metrics", _metrics, "write the scheduler's metrics for Prometheus", common).add_argument("path")
    admins = verbs.add_parser("admins", help="the administrators").add_subparsers(required=True, metavar="VERB")
    verb(admins, "list", _admins_list, "who administers the site", common)
    for name, state, text in (("grant", "present", "make an account's owner an administrator"), ("revoke", "absent", "take an administrator's rights away")):
        changed = verb(admins, name, _admins_change, text, writes)
        changed.add_argument("email", help="address of the account")
        changed.set_defaults(state=state)
    events = verbs.add_parser("events", help="deleted events").add_subparsers(required=True, metavar="VERB")
    verb(events, "deleted", _events_deleted, "which events can come back", common)
    restored = verb(events, "restore", _events_restore, "bring a deleted event back, with all that belongs to it", writes)
    restored.add_argument("event", help="id of the event")
    restored.add_argument("--category", help="id of the category it goes to, when its own is gone")
    tasks = verbs.add_parser("tasks", help="the scheduler's tasks").add_subparsers(required=True, metavar="VERB")
    listed = verb(tasks, "list", _tasks_list, "every task, and what is wrong with the scheduler", common)
    listed.add_argument("--finished", action="store_true", help="those that have finished, too")
    verb(tasks, "show", _tasks_show, "one task", common).add_argument("number", type=_numbers.COUNT)
    added = verb(tasks, "add", _tasks_declare, "see to it that a periodic task is there once, with this rule", writes)
    added.add_argument("task", help=f"{', '.join(_scheduler.CLASSES)}, or the dotted path of a class")
    added.add_argument("--category", help="id of the category that the task is for")
    added.add_argument("--frequency", choices=_scheduler.FREQUENCIES[1:], default="daily")
    added.add_argument("--interval", type=_numbers.COUNT, default=1, help="only every so many times")
    for name, text in (("minutes", "of the hour"), ("hours", "of the day, UTC"), ("month-days", "days of the month")):
        added.add_argument(f"--{name}", type=_numbers.COUNT, nargs="+", default=[], help=text)
    added.add_argument("--weekdays", nargs="+", choices=_scheduler.WEEKDAYS, default=[])
    added.set_defaults(state="present")
    removed = verb(tasks, "remove", _tasks_declare, "see to it that a periodic task is not there", writes)
    removed.add_argument("task", help="as for add")
    removed.add_argument("--category", help="only the one for this category")
    removed.set_defaults(state="absent", frequency="daily", interval=1, minutes=[], hours=[], month_days=[], weekdays=[])
    verb(tasks, "run", _tasks_act("run"), "let tasks that wait run now", writes).add_argument("numbers", type=_numbers.COUNT, nargs="+")
    verb(tasks, "requeue", _tasks_act("requeue"), "let tasks that failed run again, all of them without numbers", writes).add_argument(
        "numbers", type=_numbers.COUNT, nargs="*"
    )
    deleted = verb(tasks, "delete", _tasks_act("delete"), "remove tasks, wherever they are", writes)
    deleted.add_argument("numbers", type=_numbers.COUNT, nargs="+")
    deleted.add_argument("--yes", action="store_true", help="without it nothing is deleted")
    purged = verb(tasks, "purge", _tasks_act("purge"), "forget what finished long ago", writes)
    purged.add_argument("--days", type=_numbers.DAYS, default=30, help="what is younger stays (default: 30)")
    purged.add_argument("--failures", action="store_true", help="forget what failed, too")
    return parser


def _status(settings: Settings, _options: argparse.Namespace) -> dict[str, Any]:
    host = dict(settings.host)
    host["units"] = [name for name, state in zip(host["units"], _units.show(host["units"], ("LoadState",))) if state["LoadState"] == "loaded"]
    host["storages"] = [one for one in host["storages"] if os.path.isdir(os.path.join(settings.prefix, "db", one["name"]))]
    host["url"] = host["url"] if "apache2.service" in host["units"] else None
    found = _info.look(settings.prefix, **host)
    found["scheduler"] = _scheduler_info(settings)
    found["summary"] = _info.summary(found) + _scheduler.summary(found["scheduler"])[:1]
    found["problems"] = _info.problems(found) + ([] if found["maintenance"] else found["scheduler"]["problems"])
    return found


def _clean(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    unknown = sorted(set(options.what) - set(_cleanup.KINDS + _cleanup.ON_REQUEST))
    if unknown:
        raise _cleanup.CleanupError(f"{', '.join(unknown)} cannot be cleaned; {', '.join(_cleanup.KINDS + _cleanup.ON_REQUEST)} can.")
    given = {name: getattr(options, name) for name in ("cache_days", "min_age_hours", "log_days", "replaced_days")}
    rules = _cleanup.Rules(**given)
    found = _cleanup.run(settings.prefix, options.what or list(_cleanup.KINDS), rules, check=options.dry_run)
    return {"cleaned": {name: one.data() for name, one in found.items()}, "summary": _cleanup.lines(found, check=options.dry_run)}


def _mirror(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    asked = {
        "target": options.target,
        "day": options.day or date.today().isoformat(),
        "days": options.days,
        "categories": options.categories,
        "events": [],
        "protected": False,
        "url": settings.host["url"],
        "public_url": settings.host["public_url"],
        "current": settings.current,
        "user": settings.user,
    }
    found = _indico_mirror.mirror(asked, check=options.dry_run)
    left_out = [f"left out, since it is protected: {one['id']} {one['title']}" for one in found["left_out"]]
    elsewhere = [f"leads to the site: {one['url']} ({one['why']})" for one in found.get("elsewhere", [])]
    return {**found, "summary": [found["line"], *left_out, *elsewhere]}


def _metrics(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    found = _scheduler_info(settings)
    _repository.replace(options.path, _scheduler.metrics(settings.instance, found, time.time()).encode())
    os.chmod(options.path, 0o644)
    return {"summary": []}


def _admins_list(settings: Settings, _options: argparse.Namespace) -> dict[str, Any]:
    found = _indico.run(_indico_admin.LIST, {}, current=settings.current, user=settings.user, patience=_PATIENCE)
    return {**found, "summary": _indico_admin.summary(found["administrators"])}


def _admins_change(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    nothing = dict.fromkeys(("login", "password", "first_name", "family_name"))
    return _write(settings, options, _indico_admin.SCRIPT, {**nothing, "email": options.email, "state": options.state})


def _events_deleted(settings: Settings, _options: argparse.Namespace) -> dict[str, Any]:
    arguments = {"event": None, "category": None, "check": True}
    found = _indico.run(_indico_event_restore.SCRIPT, arguments, current=settings.current, user=settings.user, patience=_PATIENCE, timeout=600)
    lines = [f"event {one['event']}, {one['title']}, of {one['start']}: deleted {one['deleted']}" for one in found["events"]]
    return {**found, "summary": lines or ["The database holds no deleted event."]}


def _events_restore(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    done = _write(settings, options, _indico_event_restore.SCRIPT, {"event": options.event, "category": options.category})
    missing = [f"not on disk: {line}" for line in done["files_missing"]]
    return {**done, "summary": (done["steps"] or [f"Event {options.event} ({done['title']}) is not deleted."]) + done["notes"] + missing}


def _scheduler_info(settings: Settings, *, finished: bool = False) -> dict[str, Any]:
    where = (settings.current, settings.user, settings.log)
    return _scheduler.info(*where, finished=finished, patience=_PATIENCE, expected=settings.scheduler)


def _tasks_list(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    found = _scheduler_info(settings, finished=options.finished)
    return {**found, "summary": _scheduler.summary(found)}


def _tasks_show(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    found = _scheduler_info(settings, finished=True)
    mine = [task for task in found["tasks"] if task["number"] == options.number]
    if not mine:
        raise _indico.IndicoError(f"There is no task {options.number}.")
    return {"tasks": mine, "summary": [f"{name}: {value}" for task in mine for name, value in task.items() if value is not None]}


def _tasks_declare(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    names = ("task", "category", "frequency", "interval", "minutes", "hours", "weekdays", "month_days", "state")
    tasks = [{**{name: getattr(options, name) for name in names}, "arguments": {}}]
    wrong = _scheduler.problems(tasks) if options.state == "present" else []
    if wrong:
        raise _indico.IndicoError("\n".join(wrong))
    return _write(settings, options, _scheduler.DECLARE, _scheduler.declaration(tasks))


def _tasks_act(verb: str) -> _Verb:
    def act(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
        if verb == "delete" and not (options.yes or options.dry_run):
            raise _indico.IndicoError(f"This deletes {', '.join(map(str, options.numbers))} for good; add --yes.")
        more = {"days": options.days, "failures": options.failures} if verb == "purge" else {}
        arguments = _scheduler.action(verb, getattr(options, "numbers", []), **more)
        steps: list[str] = []
        while True:
            result = _write(settings, options, _scheduler.ACT, arguments)
            steps += result["steps"]
            if not result.get("left"):
                return {"steps": steps}

    return act


def _write(settings: Settings, options: argparse.Namespace, script: str, arguments: dict[str, Any]) -> dict[str, Any]:
    given = dict(arguments, check=options.dry_run)
    return _indico.run(script, given, current=settings.current, user=settings.user, patience=_PATIENCE, timeout=600)


_Verb = Callable[[Settings, argparse.Namespace], "dict[str, Any]"]


def _say(line: str, stream: TextIO | None = None) -> None:
    """Write a line for the person or the timer that runs the command; this is no module, whose output would be its result."""
    (stream or sys.stdout).write(line + "\n")
    (stream or sys.stdout).flush()
