# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Indico's scheduler: what it holds, its periodic tasks as declared state, and what administrators do to single tasks.

All of it lives in the database, whatever host the daemon runs on. Of a task that failed the database keeps no reason; that is in scheduler.log.

What the scripts avoid in 1.2.2: enqueueing a task twice makes two of it, PeriodicUniqueTask too; Client.moveTask raises for a periodic task;
removing a task that is not waiting kills the daemon; and what is finished is never removed.
"""

from __future__ import annotations

import os
import re
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _indico, _numbers

CLASSES = {
    "janitor": "indico.modules.scheduler.tasks.janitor.JanitorTask",
    "category_statistics": "indico.modules.scheduler.tasks.periodic.CategoryStatisticsUpdaterTask",
    "suggestions": "indico.modules.scheduler.tasks.suggestions.CategorySuggestionTask",
    "room_reservations": "MaKaC.plugins.RoomBooking.tasks.RoomReservationTask",
    "livesync": "indico.ext.livesync.tasks.LiveSyncUpdateTask",
    "outlook": "indico.ext.calendaring.outlook.tasks.OutlookUpdateCalendarNotificationTask",
}
FREQUENCIES = ("yearly", "monthly", "weekly", "daily", "hourly", "minutely")  # in the order of dateutil's numbers
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_BATCH = 5000  # entries that one transaction removes
_LOG_BYTES = 8 * 2**20  # how far back the log is read for errors
_LATE = 900  # seconds after its time at which a waiting task shows that nobody looks
_ERROR = re.compile(r"worker/([0-9]+): ERROR\s+\[[^\]]*\] failed with exception '(.*)'\. *$")

# One task of a list, as modules and roles declare it.
TASK_OPTIONS: dict[str, dict[str, Any]] = {
    "task": {"type": "str", "required": True},
    "category": {"type": "str"},
    "frequency": {"type": "str", "choices": list(FREQUENCIES[1:]), "default": "daily"},
    "interval": {"type": _numbers.COUNT, "default": 1},
    "minutes": {"type": "list", "elements": _numbers.COUNT, "default": []},
    "hours": {"type": "list", "elements": _numbers.COUNT, "default": []},
    "weekdays": {"type": "list", "elements": "str", "choices": list(WEEKDAYS), "default": []},
    "month_days": {"type": "list", "elements": _numbers.COUNT, "default": []},
    "arguments": {"type": "dict", "default": {}},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}

_COMMON = r"""
connect()
import pytz
from datetime import timedelta
from dateutil import rrule
from indico.modules.scheduler import Client, SchedulerModule, base
from indico.modules.scheduler.tasks.periodic import PeriodicTask, TaskOccurrence
from indico.util.date_time import int_timestamp, nowutc
from MaKaC.conference import CategoryManager

def iso(moment):
    if moment is None:
        return None
    return (moment.astimezone(pytz.utc) if moment.tzinfo else moment).strftime('%Y-%m-%dT%H:%M:%SZ')

def told(rule):
    'Return a rule of dateutil in words.'
    words = [arguments['frequencies'][rule._freq] if rule._interval == 1 else 'every %d times %s' % (rule._interval, arguments['frequencies'][rule._freq])]
    if rule._byweekday:
        words.append('on ' + ', '.join(arguments['weekdays'][day] for day in rule._byweekday))
    if rule._bymonthday:
        words.append('on day ' + ', '.join(map(str, rule._bymonthday)))
    if rule._byhour and rule._byminute:
        words.append('at ' + ', '.join('%02d:%02d' % (hour, minute) for hour in rule._byhour for minute in rule._byminute) + ' UTC')
    elif rule._byminute:
        words.append('at minute ' + ', '.join(map(str, rule._byminute)))
    return ' '.join(words)

def called(task):
    'Return what a task is called: its class and, where it is for one, its category.'
    category = getattr(task, '_cat', None)
    return type(task).__name__ + (' of category %s' % category.getId() if category is not None else '')

def key(task):
    return id(task)  # one connection has each object once; the comparison of 1.2.2 mistakes tasks without a number

module = SchedulerModule.getDBInstance()

def spooled(operation):
    return [thing[1] if operation == 'change' else thing for name, thing in module.getSpool() if name == operation]

def waiting():
    'Return the tasks that will run: waiting and spooled ones, but for those whose removal is spooled.'
    ended = set(map(key, spooled('del')))
    found = [task for _when, task in module.getWaitingQueue()] + spooled('add')
    return [task for task in found if key(task) not in ended]

def periodic():
    'Return every periodic task that will run again.'
    ended, seen = set(map(key, spooled('del'))), set()
    for task in waiting() + list(module.getRunningList()):
        if isinstance(task, PeriodicTask) and task.shouldComeBack() and key(task) not in ended and key(task) not in seen:
            seen.add(key(task))
            yield task

def numbered(number):
    task = module.getTaskIndex().get(number)
    if task is None:
        answer(refused='There is no task %d.' % number)
    return task

def now(task):
    'Let a task that waits, or that failed, run at the next look of the daemon, which is every ten seconds.'
    queue = module.getWaitingQueue()
    if isinstance(task, PeriodicTask):
        for when, other in list(queue):
            if other is task:
                queue.dequeue(when, task)
        task._nextOccurrence = nowutc()
    else:
        task.setStartOn(nowutc())
    module.addTaskToWaitingQueue(task)

def entries(index):
    'Return (seconds, task or occurrence) of an index, the oldest first.'
    return list(index.iteritems())

def task_of(entry):
    return entry.getTask() if isinstance(entry, TaskOccurrence) else entry
"""

_INFO = (
    _COMMON
    + r"""
import socket
def data(task, state, more=None):
    rule = getattr(task, '_rule', None)
    found = {'number': task.getId(), 'name': called(task), 'class': '%s.%s' % (type(task).__module__, type(task).__name__), 'state': state,
             'rule': told(rule) if rule is not None else None, 'next': None, 'started': None, 'ended': None}
    found.update(more or {})
    return found
def of_index(index, state):
    found = []
    for when, entry in entries(index)[-arguments['limit']:]:
        found.append(data(task_of(entry), state, {'started': iso(entry.getStartedOn()), 'ended': iso(entry.getEndedOn())}))
    return found
status = module.getStatus()
ended = set(map(key, spooled('del')))
tasks = [data(task, 'spooled', {'next': iso(task.getStartOn())}) for task in spooled('add')]
tasks += [data(task, 'removed' if key(task) in ended else 'waiting', {'next': iso(task.getStartOn())}) for _when, task in module.getWaitingQueue()]
tasks += [data(task, 'running', {'started': iso(task.getOnRunningListSince())}) for task in module.getRunningList()]
tasks += of_index(module.getFailedIndex(), 'failed')
if arguments['finished']:
    tasks += of_index(module.getFinishedIndex(), 'finished')
queue = module.getWaitingQueue()
first = queue.peek() if len(queue) else None
answer(tasks=tasks, here=socket.getfqdn(), overdue=max(0, int(time.time()) - first[0]) if first else 0,
       counts=dict((name, status[name]) for name in ('spooled', 'waiting', 'running', 'failed', 'finished')),
       daemon={'running': bool(status['state']), 'host': status['hostname'], 'pid': status['pid']})
"""
)

DECLARE = (
    _COMMON
    + r"""
SHAPE = ('_freq', '_interval', '_bymonthday', '_byweekday', '_byhour', '_byminute')

def load(path):
    place, _dot, name = path.rpartition('.')
    try:
        found = getattr(__import__(place, fromlist=[name]), name)
    except (ImportError, AttributeError, ValueError) as error:
        answer(refused='Indico has no task %s (%s).' % (path, error))
    if not (isinstance(found, type) and issubclass(found, PeriodicTask)):
        answer(refused='%s is no periodic task of the scheduler.' % path)
    return found

def category(declared):
    if declared['category'] is None:
        return None
    try:
        return CategoryManager().getById(declared['category'])
    except KeyError:
        answer(refused='There is no category %s, which the task %s is for.' % (declared['category'], declared['task']))

def words(declared):
    given = {'interval': declared['interval']}
    for name, word in (('minutes', 'byminute'), ('hours', 'byhour'), ('month_days', 'bymonthday')):
        if declared[name]:
            given[word] = tuple(declared[name])
    if declared['weekdays']:
        given['byweekday'] = tuple(arguments['weekdays'].index(day) for day in declared['weekdays'])
    return given

def fits(task, declared):
    'Whether a task has the declared rule and arguments. What a rule takes from its beginning, such as the seconds, does not matter.'
    wanted = rrule.rrule(arguments['frequencies'].index(declared['frequency']), dtstart=task._rule._dtstart, **words(declared))
    same = all(sorted(getattr(task._rule, name) or ()) == sorted(getattr(wanted, name) or ()) if name.startswith('_by')
               else getattr(task._rule, name) == getattr(wanted, name) for name in SHAPE)
    return same and getattr(task, '_confops_arguments', {}) == declared['arguments']

def make(kind, place, declared):
    given = dict(declared['arguments'], **words(declared))
    # From the beginning of an hour, so that an interval counts from there.
    given['dtstart'] = nowutc().replace(minute=0, second=0, microsecond=0)
    first = [] if place is None else [place]
    try:
        task = kind(*(first + [arguments['frequencies'].index(declared['frequency'])]), **given)
    except TypeError as error:
        answer(refused='The task %s does not take these arguments: %s.' % (declared['task'], error))
    if declared['arguments']:
        task._confops_arguments = declared['arguments']
    task._nextOccurrence = task._rule.after(nowutc(), inc=True)
    return task

def work():
    steps = []
    for declared in arguments['tasks']:
        kind = load(declared['class'])
        place = category(declared) if declared['state'] == 'present' else None
        mine = [task for task in periodic() if type(task) is kind and (
            declared['category'] is None or getattr(task, '_cat', None) is not None and task._cat.getId() == declared['category'])]
        good = [task for task in mine if fits(task, declared)] if declared['state'] == 'present' else []
        for task in mine:
            if task in good[:1]:
                continue
            Client().dequeue(task)
            if declared['state'] == 'absent':
                steps.append('%s: %s -> absent' % (called(task), told(task._rule)))
            elif good:
                steps.append('%s: one too many (number %s) -> absent' % (called(task), task.getId()))
        if declared['state'] == 'present' and not good:
            task = make(kind, place, declared)
            Client().enqueue(task)
            before = told(mine[0]._rule) if mine else 'absent'
            after = told(task._rule)
            steps.append('%s: %s -> %s' % (called(task), before, after if after != before else after + ', with other arguments'))
    return {'steps': steps}

transact('confops.indico.indico_scheduler_task', work)
"""
)

ACT = (
    _COMMON
    + r"""
def run():
    steps = []
    for number in arguments['numbers']:
        task = numbered(number)
        if task in list(module.getRunningList()):
            answer(refused='Task %d (%s) is running already.' % (number, called(task)))
        if not [one for one in waiting() if one is task]:
            answer(refused='Task %d (%s) does not wait; requeue starts one that failed.' % (number, called(task)))
        now(task)
        steps.append('%s (%d): runs now' % (called(task), number))
    return {'steps': steps}

def forget(index, entry):
    'As unindex_obj(), which raises when the index misses one of the times at which something ended.'
    for when in list(index._rev_index.get(entry.getUniqueId(), ())):
        there = index._fwd_index.get(when)
        if there is not None and entry in there:
            there.remove(entry)
            index._fwd_index[when] = there
            index._gc_entry(when)
    del index._rev_index[entry.getUniqueId()]
    index._num_objs.change(-1)

def requeue():
    steps, found = [], set()
    running, ready = set(map(key, module.getRunningList())), set(map(key, waiting()))
    for _when, entry in entries(module.getFailedIndex()):
        task = task_of(entry)
        if arguments['numbers'] and task.getId() not in arguments['numbers']:
            continue
        forget(module.getFailedIndex(), entry)
        if task.getId() in found:
            continue
        found.add(task.getId())
        if isinstance(task, PeriodicTask) and key(task) not in ready and not task.shouldComeBack():
            steps.append('%s (%d): was removed, its failure is forgotten' % (called(task), task.getId()))
        elif key(task) not in running:
            now(task)
            steps.append('%s (%d): runs again' % (called(task), task.getId()))
        else:
            steps.append('%s (%d): runs again already' % (called(task), task.getId()))
    missing = sorted(set(arguments['numbers']) - found)
    if missing:
        answer(refused='No failed task has the number %s.' % ', '.join(map(str, missing)))
    return {'steps': steps}

def delete():
    steps = []
    for number in arguments['numbers']:
        task = numbered(number)
        indexes = (module.getFailedIndex(), module.getFinishedIndex())
        indexed = [(index, entry) for index in indexes for _when, entry in entries(index) if task_of(entry) is task]
        for index, entry in indexed:
            if index.has_obj(entry):
                forget(index, entry)
        if [one for one in waiting() + list(module.getRunningList()) if one is task] and not [one for one in spooled('del') if one is task]:
            Client().dequeue(task)
        elif indexed:
            del module.getTaskIndex()[number]
        else:
            continue
        steps.append('%s (%d): deleted' % (called(task), number))
    return {'steps': steps}

def purge():
    'Forget what finished, or failed, longer than so many days ago; of one batch in a transaction.'
    limit, removed, left = int(time.time() - arguments['days'] * 86400), 0, 0
    alive = set(map(key, waiting() + list(module.getRunningList())))
    for index in [module.getFinishedIndex()] + ([module.getFailedIndex()] if arguments['failures'] else []):
        for when, entry in list(index.iteritems(None, limit)):
            if not index.has_obj(entry) or max(index._rev_index[entry.getUniqueId()]) > limit:
                continue  # it ended again later
            if removed == arguments['batch'] and not arguments['check']:
                left += 1
                continue
            forget(index, entry)
            removed += 1
            task = task_of(entry)
            if task is not entry:
                task._occurrences.pop(entry.getId(), None)
            elif key(task) not in alive and task.getId() in module.getTaskIndex():
                del module.getTaskIndex()[task.getId()]
    return {'steps': ['%d entries older than %s days: deleted' % (removed, arguments['days'])] if removed else [], 'removed': removed, 'left': left}

transact('confops.indico.scheduler %s' % arguments['verb'], {'run': run, 'requeue': requeue, 'delete': delete, 'purge': purge}[arguments['verb']])
"""
)
_WORDS = {"frequencies": list(FREQUENCIES), "weekdays": list(WEEKDAYS)}


def problems(tasks: list[dict[str, Any]]) -> list[str]:
    """Return a sentence for each thing in declared tasks that cannot be, each task named by its place in the list."""
    found, seen = [], set()
    for number, one in enumerate(tasks):
        who = f"[{number}] ({one['task']})"
        if one["task"] not in CLASSES and not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", one["task"]):
            found.append(f"{who} is neither one of {', '.join(CLASSES)} nor the dotted path of a class.")
        if one["task"] == "category_statistics" and not one.get("category"):
            found.append(f"{who} has no category; 0 is the home of all.")
        if int(one.get("interval", 1)) < 1:
            found.append(f"{who} has the interval {one['interval']}; it must be 1 or more.")
        for key, first, last in (("minutes", 0, 59), ("hours", 0, 23), ("month_days", 1, 31)):
            found += [f"{who} has {value} among its {key}; they go from {first} to {last}." for value in one.get(key) or [] if not first <= int(value) <= last]
        identity = (CLASSES.get(one["task"], one["task"]), str(one.get("category")))
        if identity in seen:
            found.append(f"{who} is named twice; one task of a class, or of a class and a category, is all that there can be.")
        seen.add(identity)
    return found


def declaration(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the arguments of DECLARE. Times that a task leaves open become the first ones, not those of the moment at which it happens to be made."""
    complete = []
    for one in tasks:
        task = dict(one, **{"class": CLASSES.get(one["task"], one["task"])})
        frequency = FREQUENCIES.index(task["frequency"])
        if frequency <= FREQUENCIES.index("hourly"):
            task["minutes"] = task["minutes"] or [0]
        if frequency <= FREQUENCIES.index("daily"):
            task["hours"] = task["hours"] or [0]
        if task["frequency"] == "weekly":
            task["weekdays"] = task["weekdays"] or ["mon"]
        if task["frequency"] == "monthly" and not task["weekdays"]:
            task["month_days"] = task["month_days"] or [1]
        complete.append(task)
    return {"tasks": complete, **_WORDS}


def action(verb: str, numbers: list[int], *, days: float = 0, failures: bool = False) -> dict[str, Any]:
    """Return the arguments of ACT for run, requeue, delete (numbers of tasks) or purge (days, and whether failures go too)."""
    return {"verb": verb, "numbers": numbers, "days": days, "failures": failures, "batch": _BATCH, **_WORDS}


def info(current: str, user: str, log: str, *, finished: bool = False, limit: int = 1000, patience: float = 30, expected: bool = True) -> dict[str, Any]:
    """Return daemon (running, host, pid as the database has them, here, alive), counts, tasks, overdue (seconds) and problems.

    current, user: the release and who runs it; log: path of scheduler.log; finished: whether to list what is finished, too; limit: entries of the failed and
    of the finished that are listed, the newest; expected: whether the daemon is to run on this host. Raises IndicoError.
    """
    found = _indico.run(_INFO, {"finished": finished, "limit": limit, **_WORDS}, current=current, user=user, patience=patience)
    errors = logged_errors(log)
    for task in found["tasks"]:
        task["error"] = errors.get(task["number"]) if task["state"] == "failed" else None
    daemon = found["daemon"]
    daemon["here"] = daemon["host"] == found["here"]
    daemon["alive"] = _alive(daemon["pid"]) if daemon["running"] and daemon["here"] else None
    found["problems"] = judge(found, expected=expected)
    return found


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return b"indico_scheduler" in stream.read()
    except OSError:
        return False


def judge(found: dict[str, Any], *, expected: bool = True) -> list[str]:
    """Return a sentence for each thing that is wrong with what info() found. expected: see there."""
    daemon, sentences = found["daemon"], []
    if not daemon["running"]:
        sentences.append("No scheduler runs, as the database has it.")
    elif daemon["here"] and not daemon["alive"]:
        sentences.append(f"The database says that the scheduler runs here as process {daemon['pid']}, but there is no such process.")
    elif expected and not daemon["here"]:
        sentences.append(f"The database says that the scheduler runs on {daemon['host']}, and this is {found['here']}.")
    if found["overdue"] > _LATE:
        sentences.append(f"A task waits since {found['overdue']} seconds after its time: no scheduler looks at the database.")
    failed = [f"{task['name']} ({task['number']}): {task['error'] or 'the log has no reason'}" for task in found["tasks"] if task["state"] == "failed"]
    if failed:
        sentences.append(f"{found['counts']['failed']} tasks failed, such as {failed[-1]}.")
    return sentences


def logged_errors(log: str) -> dict[int, str]:
    """Return why tasks failed, by their number and the newest of each, from the end of scheduler.log and the copies that its daemon makes each day."""
    directory, name = os.path.split(log)
    try:
        names = sorted(one for one in os.listdir(directory) if one.startswith(f"{name}.") and one[len(name) + 1 :].replace("-", "").isdigit())[-7:]
    except OSError:
        return {}
    found: dict[int, str] = {}
    for one in [*names, name]:
        try:
            descriptor = os.open(os.path.join(directory, one), os.O_RDONLY | os.O_NOFOLLOW)  # the directory is the workers'
        except OSError:
            continue
        with open(descriptor, "rb") as stream:
            stream.seek(max(0, os.fstat(descriptor).st_size - _LOG_BYTES))
            for line in stream.read().decode("utf-8", "replace").splitlines():
                match = _ERROR.search(line)
                if match:
                    found[int(match[1])] = match[2]
    return found


def summary(found: dict[str, Any]) -> list[str]:
    """Return what info() found for people, a line for each thing."""
    daemon, counts = found["daemon"], found["counts"]
    where = f"runs on {daemon['host']} as process {daemon['pid']}" if daemon["running"] else "does not run"
    if daemon["running"] and daemon["alive"] is False:  # it was stopped, as in maintenance, and left its note in the database
        where = "does not run here"
    lines = [f"the scheduler {where}; " + ", ".join(f"{counts[name]} {name}" for name in ("spooled", "waiting", "running", "failed", "finished"))]
    for task in found["tasks"]:
        when = f"next {task['next']}" if task["next"] else f"ended {task['ended']}" if task["ended"] else f"since {task['started']}"
        more = [task["rule"]] if task["rule"] else []
        more += [task["error"]] if task["error"] else []
        lines.append(f"{'-' if task['number'] is None else task['number']:>6}  {task['state']:<8}  {task['name']}  {when}  {', '.join(more)}".rstrip())
    return lines


def metrics(instance: str, found: dict[str, Any], now: float) -> str:
    """Return what info() found in Prometheus' text format. now: seconds since the epoch."""
    label = f'{{instance_name="{instance}"}}'
    lines = []
    for name, kind, text, value in (
        ("up", "gauge", "Whether the scheduler runs, by the database and, where it runs here, by its process.", int(bool(_up(found)))),
        ("overdue_seconds", "gauge", "How long the first waiting task is past its time.", found["overdue"]),
        ("info_time_seconds", "gauge", "When this was written.", int(now)),
    ):
        lines += [f"# HELP indico_scheduler_{name} {text}", f"# TYPE indico_scheduler_{name} {kind}", f"indico_scheduler_{name}{label} {value}"]
    lines += ["# HELP indico_scheduler_tasks Tasks of each state.", "# TYPE indico_scheduler_tasks gauge"]
    lines += [f'indico_scheduler_tasks{{instance_name="{instance}",state="{state}"}} {number}' for state, number in found["counts"].items()]
    return "\n".join(lines) + "\n"


def _up(found: dict[str, Any]) -> bool:
    daemon = found["daemon"]
    return daemon["running"] and daemon["alive"] is not False and found["overdue"] <= _LATE
