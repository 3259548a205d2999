# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Checks the databases of the newest backup set: their files by ZODB's fstest, the references between their objects as its fsrefs does.

The living databases are not touched: each storage is restored into a scratch directory, and ZODB reads the copy as nobody.

fsrefs of ZODB3 3.10.5 is not run itself. It exits with 0 whatever it found, ends with a traceback at the first object that cannot be
read, passes over those that nothing refers to, and unpickles what stands in the place of a class. _SCRIPT makes the same comparison
with the same functions of ZODB, says all that it finds, and executes nothing of the database.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ansible_collections.confops.indico.plugins.module_utils import _children, _filestorage, _indico, _repository, _scratch
from ansible_collections.confops.indico.plugins.module_utils._backup_set import Settings
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError

_LISTED = 100  # problems and dangling references of a storage that are listed; the others are counted

# _SCRIPT DATABASE LISTED: answers with what Storage has, as JSON. It runs in every version of ZODB and Python that the tests have.
_SCRIPT = r"""
from __future__ import print_function
import binascii, io, json, logging, pickle, re, resource, struct, sys, time

path, listed = sys.argv[1], int(sys.argv[2])
counts = {'transactions': 0, 'records': 0, 'objects': 0, 'problems_found': 0, 'dangling_found': 0}
problems, dangling = [], []

def problem(position, sentence):
    'Note what is wrong at a position (bytes, None when it is not known).'
    counts['problems_found'] += 1
    if len(problems) < listed:
        problems.append({'position': position, 'problem': sentence})

def text(value):
    'Return a message as Unicode, whatever bytes of the file it quotes.'
    value = str(value)
    return value if isinstance(value, type(u'')) else value.decode('latin-1')

def told(error):
    return u'%s: %s' % (type(error).__name__, text(error))

def place(message):
    'Return the position that a message of ZODB names, None when it names none, and the message without the path.'
    message = text(message).replace(path, 'the file')
    found = re.search(' at ([0-9]+)', message)
    return (int(found.group(1)) if found else None), message

def name(oid):
    return '0x%x' % int(binascii.hexlify(oid), 16)

class Complaints(logging.Handler):
    'The errors at a place in a file that ZODB opens all the same. It warns, too, of what a pack leaves: a record without a pointer to the one before.'
    def emit(self, record):
        position, message = place(record.getMessage())
        if record.levelno >= logging.ERROR and position is not None:
            problem(position, message)

class Stand(object):
    'Stands for an instance of any class, and takes whatever an unpickler does to it.'
    def __new__(cls, *arguments, **more):
        return object.__new__(cls)
    def __init__(self, *arguments, **more):
        pass
    def anything(self, *arguments):
        pass
    append = extend = add = __setitem__ = __setstate__ = anything

class Careful(pickle.Unpickler):
    'Makes nothing but stands. references: what persistent_load was asked for.'
    def __init__(self, data):
        pickle.Unpickler.__init__(self, io.BytesIO(data))
        self.references = []
    def find_class(self, module, name):
        return type(str(name), (Stand,), {'__module__': str(module)})
    def persistent_load(self, reference):
        self.references.append(reference)
        return Stand()

def spelt(kind):
    'Return module.Class of what stands for a class in a pickle.'
    if isinstance(kind, tuple) and kind and not isinstance(kind[0], (str, bytes)):
        kind = kind[0]
    if isinstance(kind, tuple) and len(kind) == 2:
        return u'.'.join(one if isinstance(one, type(u'')) else one.decode('latin-1') for one in kind)
    return u'%s.%s' % (text(kind.__module__), text(kind.__name__)) if isinstance(kind, type) and issubclass(kind, Stand) else 'unknown'

def classes(data):
    'Return the class of an object, and those of the objects that it refers to, by oid.'
    found = {}
    try:
        careful = Careful(data)
        kind = spelt(careful.load())
        careful.load()
    except Exception:
        return 'unknown', found
    for reference in careful.references:
        if isinstance(reference, tuple):
            oid = reference[0]
            found[oid if isinstance(oid, bytes) else oid.encode('latin-1')] = spelt(reference[1])
    return kind, found

def count(_message, level=1):
    counts['transactions' if level == 1 else 'records'] += 1

def answer():
    counts.update(problems=problems, dangling=dangling, memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, seconds=time.time() - began)
    print(json.dumps(counts))
    sys.exit(0)

began = time.time()
from ZODB.scripts import fstest
fstest.chatter, fstest.hexify = count, lambda text: '0x' + binascii.hexlify(text).decode()
try:
    fstest.check(path)
except fstest.FormatError as error:
    problem(*place(error))
except Exception as error:
    problem(None, u'fstest cannot read it (%s)' % told(error))
if problems:
    answer()  # which objects there are is not known then

from BTrees.LLBTree import LLBTree
from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSKeyError
from ZODB.serialize import get_refs
logging.getLogger('ZODB.FileStorage').addHandler(Complaints())
logging.getLogger('ZODB.FileStorage').propagate = False
try:
    storage = FileStorage(path, read_only=True)
except Exception as error:
    problem(None, u'FileStorage cannot open it (%s)' % told(error))
    answer()
index, order, lost = storage._index, LLBTree(), {}
for oid, position in index.iteritems():
    order[position] = struct.unpack('>q', oid)[0]
counts['objects'] = len(order)

def look(oid, position):
    'Return the data of an object and its tid, None for one that does not exist or cannot be read, which is noted then.'
    try:
        return storage.load(oid, '')
    except POSKeyError:
        lost[oid] = 'its creation was undone'
    except Exception as error:
        lost[oid] = 'it cannot be read'
        problem(position, u'object %s cannot be read (%s)' % (name(oid), told(error)))

def compare(first):
    'Go through all objects in the order in which they lie; the second time, for references to what proved to be lost the first time.'
    for position, number in order.iteritems():
        oid = struct.pack('>q', number)
        if oid in lost:
            continue
        loaded = look(oid, position)
        if loaded is None:
            continue
        data, tid = loaded
        try:
            targets = set(target for target, _kind in get_refs(data))
        except Exception as error:
            if first:
                problem(position, u'the data of object %s cannot be unpickled (%s)' % (name(oid), told(error)))
            continue
        wrong = [(target, lost.get(target, 'it does not exist')) for target in targets if (target not in index if first else target in lost)]
        if wrong:
            counts['dangling_found'] += len(wrong)
            kind, kinds = classes(data) if len(dangling) < listed else ('', {})
            for target, reason in sorted(wrong)[:listed - len(dangling)]:
                dangling.append({
                    'oid': name(target), 'class': kinds.get(target, 'unknown'), 'reason': reason,
                    'from_oid': name(oid), 'from_class': kind, 'tid': binascii.hexlify(tid).decode(),
                })

compare(True)
if lost:
    compare(False)
answer()
"""


@dataclass
class Checked(_scratch.Plan):
    """What a check found, or in check mode would need. problem is a sentence when it failed.

    Each of storages has what Plan says, the numbers of transactions, records and objects, problems_found and dangling_found, of both
    the first ones (problems: position in bytes, problem; dangling: oid, class, reason, from_oid, from_class, tid, time), seconds and memory_bytes.
    """

    warnings: list[str] = field(default_factory=list)
    problem: str | None = None
    seconds: float = 0.0

    def line(self) -> str:
        """Return all of it in one line."""
        if self.problem:
            return f"check failed: {self.problem}"
        if not all("objects" in one for one in self.storages):
            return f"a check would restore set {self.set} ({self.databases()}) to {self.needed_bytes} bytes, of {self.free_bytes} that are free"
        found = ", ".join(f"{one['name']} to {one['time']} with {one['objects']} objects in {one['transactions']} transactions" for one in self.storages)
        dangling = sum(one["dangling_found"] for one in self.storages)
        references = f"{_counted(dangling, 'dangling reference')}, which the site allows" if dangling else "no dangling reference"
        return f"check done in {self.seconds:.1f} s: set {self.set} restored: {found}; no problem, {references}"


def run(settings: Settings, *, allow_dangling: int = 0, check: bool = False) -> Checked:
    """Restore the newest set into a scratch directory and check each of its databases. With check, only say what that needs.

    Up to allow_dangling dangling references in all are a warning. What is wrong is in problem; RepositoryError is raised when there is nothing to check.
    """
    checked, began = Checked(), time.monotonic()
    python = os.path.join(settings.prefix, "zeo", "bin", "python")
    try:
        with _scratch.directory(settings.drill_directory, act=not check) as scratch:
            with _repository.lock(settings.directory, _repository.PATIENCE):
                _scratch.newest(settings, checked, "A check")
                if not os.path.exists(python):
                    raise RepositoryError(f"There is no {python}, whose ZODB reads what is restored.")
                if check:
                    return checked
                copies = [_scratch.restore(settings, checked, one, scratch) for one in checked.storages]
            for one, copy in zip(checked.storages, copies):
                one.update(examine(python, copy, user=_scratch.USER))
    except (OSError, _filestorage.FileStorageError) as error:
        raise RepositoryError(str(error)) from error
    checked.seconds = round(time.monotonic() - began, 3)
    _judge(checked, allow_dangling)
    return checked


def examine(python: str, database: str, *, user: str = "", listed: int = _LISTED) -> dict[str, Any]:
    """Have ZODB check a database that nobody writes to, and return what Checked says of a storage. Raises RepositoryError when it gave no answer.

    python: path of an interpreter with ZODB; user: who runs it, by default who runs this.
    """
    command = [*(_indico.as_user(user) if user else []), python, "-c", _SCRIPT, database, str(listed)]
    place = os.path.dirname(database)
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": place, "TMPDIR": place, "PYTHON_EGG_CACHE": place}
    try:
        done = _children.run(command, limit=_children.LONG, still=_children.STILL, env=environment, cwd=place)
    except OSError as error:
        raise RepositoryError(f"The check of {database} gave no answer: {_repository.reason(error)}.") from error
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        last = " ".join(done.stderr.strip().splitlines()[-3:])
        raise RepositoryError(f"The check of {database} gave no answer (exit code {done.returncode}): {last}") from error
    for one in found["dangling"]:
        one["time"] = ""
        with contextlib.suppress(_filestorage.FileStorageError):  # a record may bear another tid than its transaction, which fstest does not see
            one["time"] = _filestorage.Transaction(one["tid"], _filestorage.time_of(bytes.fromhex(one["tid"])), "", "").data()["time"]
    found["seconds"] = round(found["seconds"], 3)
    return found


def _judge(checked: Checked, allow_dangling: int) -> None:
    problems, dangling = (sum(one[kind] for one in checked.storages) for kind in ("problems_found", "dangling_found"))
    sentences = []
    if problems:
        first = next(one for one in checked.storages if one["problems"])
        told = first["problems"][0]
        at = f" at byte {told['position']}" if told["position"] is not None else ""
        sentences.append(f"{_counted(problems, 'problem')}, the first in {first['name']}{at}: {told['problem']}.")
    if dangling:
        first = next(one for one in checked.storages if one["dangling"])
        told = first["dangling"][0]
        found = (
            f"{_counted(dangling, 'dangling reference')}, the first in {first['name']}: object {told['from_oid']} ({told['from_class']}),"
            f" of transaction {told['tid']} ({told['time']}), refers to {told['oid']} ({told['class']}): {told['reason']}."
        )
        if dangling > allow_dangling:
            sentences.append(found + (f" {allow_dangling} are allowed." if allow_dangling else ""))
        else:
            checked.warnings.append(found)
    if sentences:
        checked.problem = f"Set {checked.set}: {' '.join(sentences)}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"


def end_in_order() -> None:
    """Have this process raise when it is asked to end, so that it removes what it restored."""
    signal.signal(signal.SIGTERM, _end)


def _end(_signal: int, _frame: Any) -> NoReturn:
    raise RepositoryError("The check was ended from outside.")
