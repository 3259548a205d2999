# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs a short Python 2.7 script inside an Indico release, as the service user.

A script finds the dictionary arguments and gives its result to answer(). It calls connect() to open the database, and transact() to write.
Its input, secrets among it, comes on standard input; Indico's own output goes to standard error.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

# What every module says of the release whose code it runs; doc fragment release describes it.
OPTIONS: dict[str, dict[str, Any]] = {"current": {"type": "path", "default": "/opt/indico/current"}, "user": {"type": "str", "default": "indico"}}

_PREAMBLE = r"""
# -*- coding: utf-8 -*-
import json, os, socket, sys, time, warnings
warnings.simplefilter('ignore')
_reply = os.fdopen(os.dup(1), 'w')
os.dup2(2, 1)
def _bytes(value):
    if isinstance(value, unicode):
        return value.encode('utf-8')
    if isinstance(value, list):
        return map(_bytes, value)
    if isinstance(value, dict):
        return dict((_bytes(key), _bytes(item)) for key, item in value.iteritems())
    return value
arguments = _bytes(json.load(sys.stdin))
class _Conf(object):
    'Stands for the configuration file where none is meant to be read: what a script is given as conf takes its place.'
    def find_module(self, name, path=None):
        return self if name == 'MaKaC.common.MaKaCConfig' else None
    def load_module(self, name):
        import types
        module = sys.modules[name] = types.ModuleType(name)
        vars(module).update(arguments['conf'])
        return module
if 'conf' in arguments:
    sys.meta_path.insert(0, _Conf())
def answer(**result):
    json.dump(result, _reply)
    _reply.flush()
    os._exit(0)
def unanswered(host, port):
    'Return why a server does not answer, None for one that does. A client of ZEO waits for ever, so its port is tried first.'
    deadline = time.time() + arguments['patience']
    while True:
        try:
            socket.create_connection((host, port), 2).close()
            return None
        except socket.error as error:
            if time.time() > deadline:
                return str(error)
            time.sleep(0.5)
def connect():
    'Open the database for one request.'
    from indico.core.config import Config
    host, port = Config.getInstance().getDBConnectionParams()
    error = unanswered(host, port)
    if error:
        answer(unreachable='ZEO at %s:%s does not answer (%s)' % (host, port, error))
    from indico.core.db import DBMgr
    manager = DBMgr.getInstance()
    manager.startRequest()
    return manager
def transact(note, work):
    'Answer with what work() returns, in one transaction, begun again when another writer was faster. Nothing is written in a check, or without steps.'
    import transaction
    from indico.core.db import DBMgr
    from ZODB.POSException import ConflictError
    for _attempt in range(5):
        result = work()
        if arguments['check'] or not result['steps']:
            transaction.abort()
            answer(**result)
        transaction.get().note(note)
        try:
            transaction.commit()
            answer(**result)
        except ConflictError:
            transaction.abort()
            DBMgr.getInstance().sync()
    answer(refused='The database was too busy: five attempts to write met other writers.')
"""


class IndicoError(Exception):
    """The script did not give its answer, or answered refused; the message is a sentence for the operator."""


class Unreachable(IndicoError):
    """The database server does not answer."""


def installed(current: str) -> bool:
    """Return whether current (path of a release) holds an interpreter, and its instance a configuration."""
    return os.path.exists(os.path.join(current, "bin", "python")) and os.path.exists(os.path.join(os.path.dirname(current), "etc", "indico.conf"))


def as_user(user: str) -> list[str]:
    """Return the words that run what follows them as the user, without privileges, for as long as the caller lives. Raises KeyError for an unknown one."""
    return ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--init-groups", "--no-new-privs", "--pdeathsig=KILL", "--"]


def run(script: str, arguments: dict[str, Any], *, current: str, user: str, temporary: str = "", patience: float = 30, timeout: float = 120) -> dict[str, Any]:
    """Run script with the release's interpreter and return what it gave to answer().

    arguments: for the script; with conf, a dictionary, Indico takes that for its configuration. current: path of the release;
    user: who runs it; temporary: a directory of his, by default tmp beside the release; patience: seconds to wait for the
    database server; timeout: seconds for the whole script. Raises Unreachable or IndicoError, which says what the script refused.
    """
    temporary = temporary or os.path.join(os.path.dirname(current), "tmp")
    command = [*as_user(user), os.path.join(current, "bin", "python"), "-c", _PREAMBLE + script]
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": temporary,
        "TMPDIR": temporary,
        "PYTHON_EGG_CACHE": os.path.join(temporary, "egg-cache"),
    }
    given = json.dumps(dict(arguments, patience=patience))
    try:
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            text=True,
            env=environment,
            cwd="/",
            timeout=timeout,
            check=False,
            start_new_session=True,  # it loads what is in the database, and must not type into root's terminal
        )
    except subprocess.TimeoutExpired as error:
        raise IndicoError(f"Indico's own code in {current} gave no answer within {timeout:.0f} s.") from error
    try:
        result: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        last = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise IndicoError(f"Indico's own code in {current} failed (exit code {done.returncode}):\n{last}") from error
    if "unreachable" in result:
        raise Unreachable(f"{result['unreachable']}. Is the unit of the storage main running?")
    if "refused" in result:
        raise IndicoError(result["refused"])
    return result


def ask(module: AnsibleModule, script: str, what: str, arguments: dict[str, Any], timeout: float = 120) -> dict[str, Any]:
    """Run a script for a module that writes and return its answer, which has steps: what differs, a line each.

    The script gets arguments and check, whether it must not write. what names what it looks at, for a sentence. In check mode a host without a release
    has one step, and of a database that is stopped a warning says that nothing can be seen. Anything else that goes wrong fails the module.
    """
    current, user = module.params["current"], module.params["user"]
    if module.check_mode and not installed(current):
        return {"steps": [f"all of it: there is no configured release at {current} yet"]}
    patience = 3 if module.check_mode else 60
    try:
        result = run(script, dict(arguments, check=module.check_mode), current=current, user=user, patience=patience, timeout=timeout)
    except Unreachable as error:
        if not module.check_mode:
            module.fail_json(msg=str(error))
        module.warn(f"{what} cannot be seen now: {error}")
        return {"steps": []}
    except IndicoError as error:
        module.fail_json(msg=str(error))
    return result


def diff(steps: list[str], what: str) -> dict[str, str]:
    """Return the steps as Ansible shows a difference."""
    return {"before": "", "after": "".join(step + "\n" for step in steps), "before_header": what, "after_header": what}
