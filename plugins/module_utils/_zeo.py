# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Asks a ZEO server something, and says why when it does not answer.

A short script, valid for Python 2.7 and 3, runs in an interpreter that has ZEO, within a time limit. Its request, passwords among it,
comes on standard input. ZEO's own client keeps quiet about the reason when it cannot connect, and tries for ever: so the port is tried
first, and what the client found wrong with the server is taken from it before it begins again.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import signal
import socket
import struct
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _repository

UNPRIVILEGED = "nobody"  # who runs the scripts when the caller is root
_CONNECT_SECONDS = 30.0  # to connect, whatever longer time the rest may take
_LONGEST_GREETING = 16  # bytes
_REST_SECONDS = 5.0  # that the kernel has to end a process that was killed
_PREAMBLE = r"""
import json, os, signal, sys, time, warnings
warnings.simplefilter('ignore')
_reply = os.fdopen(os.dup(1), 'w')
os.dup2(2, 1)
def _native(value):
    if isinstance(value, list):
        return [_native(one) for one in value]
    if isinstance(value, dict):
        return dict((_native(key), _native(one)) for key, one in value.items())
    return value.encode('utf-8') if sys.version_info[0] == 2 and isinstance(value, type(u'')) else value
request = _native(json.loads(sys.stdin.read()))
def say(**line):
    _reply.write(json.dumps(line) + '\n')
    _reply.flush()
def answer(**result):
    say(answer=result)
    os._exit(0)
def fail(stage, error):
    said = str(error)
    say(failure=[stage, type(error).__name__, said if isinstance(said, type(u'')) else said.decode('latin-1')])
    os._exit(0)
"""
_CLIENT = r"""
try:
    from ZEO.ClientStorage import ClientStorage
    from ZODB.POSException import ReadOnlyError
except ImportError as error:
    fail('import', error)
try:
    import ZEO.asyncio.client as asynchronous
except ImportError:
    asynchronous = None  # before ZEO 5
trouble = []
class Storage(ClientStorage):
    def testConnection(self, connection):
        'Before ZEO 5: say what is wrong with the server.'
        try:
            return ClientStorage.testConnection(self, connection)
        except Exception as error:
            trouble.append(error)
            raise
if asynchronous:
    def _listen(client, usual):
        def register_failed(self, protocol, error):
            trouble.append(error)
            return usual(self, protocol, error)
        client.register_failed = register_failed
    _listen(asynchronous.ClientIO, asynchronous.ClientIO.register_failed)
def connect(read_only):
    'Return the storage, or raise what the server says. One that says nothing ends this process.'
    del trouble[:]
    signal.alarm(request['patience'])
    address = request['address']
    login = dict((key, request[key]) for key in ('username', 'password', 'realm') if request[key])
    storage = Storage(
        address if isinstance(address, str) else tuple(address), request['storage'], cache_size=2**20, wait=False, min_disconnect_poll=0.1,
        read_only=read_only, client_label='confops', **login)
    while not storage.is_connected() and not trouble:
        time.sleep(0.01)
    signal.alarm(0)
    if not trouble:
        return storage
    error = trouble[0]
    storage.close()
    raise error
def connected(read_only):
    'Return the storage; the script ends when there is none.'
    try:
        storage = connect(read_only)
        say(connected=True)
        return storage
    except Exception as error:
        fail('connect', error)
def call(storage, name, *arguments):
    return storage._call(name, *arguments) if asynchronous else storage._server.rpc.call(name, *arguments)
def figures(storage):
    'Return size (bytes), number of objects, and the newest transaction (hexadecimal).'
    import binascii
    info = call(storage, 'get_info')
    tid = call(storage, 'lastTransaction') or b''
    return {'bytes': info['size'], 'objects': info['length'], 'tid': binascii.hexlify(tid).decode('ascii')}
"""


class ZeoError(Exception):
    """The server does not do what it was asked for; the message is a sentence for the operator."""


@dataclass(frozen=True)
class Server:
    """Whom to ask: address is host:port or the absolute path of a socket, storage the storage's name in the server. No authentication without a username."""

    address: str
    storage: str = "1"
    username: str = ""
    password: str = field(default="", repr=False)
    realm: str = ""

    def __str__(self) -> str:
        """Return what sentences call it."""
        return f"the ZEO server at {self.address}"

    def place(self) -> str | tuple[str, int]:
        """Return the path of its socket, or its host and port. Raises ZeoError."""
        if self.address.startswith("/"):
            return self.address
        match = re.fullmatch(r"\[?([^\[\]]+)\]?:([0-9]{1,5})", self.address)
        if not match or not 0 < int(match[2]) < 2**16:
            raise ZeoError(f"{self.address!r} is no address of a ZEO server: it must be host:port, or the absolute path of a socket.")
        return match[1], int(match[2])


@dataclass
class Settings:
    """What role zeo writes into zeo.json.

    python is an interpreter that has ZEO, metrics a file for Prometheus or empty, time_limit in seconds; servers and databases (paths of
    Data.fs) go by the storage's name; peers is whether another host has the same databases.
    """

    instance: str
    python: str
    metrics: str
    time_limit: float
    servers: dict[str, Server]
    databases: dict[str, str]
    peers: bool = False
    pack_gc: bool = True


def read_settings(path: str) -> Settings:
    """Return the settings in the file. Raises ZeoError."""
    try:
        data = _repository.load_json(path, follow=True)
        servers, databases = {}, {}
        for one in data["servers"]:
            login = {key: str(one.get(key) or "") for key in ("username", "password", "realm")}
            servers[str(one["name"])] = Server(str(one["address"]), str(one.get("storage") or "1"), **login)
            databases[str(one["name"])] = str(one.get("database") or "")
        limit = float(data.get("time_limit") or 10)
        more = {"peers": bool(data.get("peers")), "pack_gc": bool(data.get("pack_gc", True))}
        return Settings(str(data["instance"]), str(data["python"]), str(data.get("metrics") or ""), limit, servers, databases, **more)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ZeoError(f"The settings {path} cannot be used: {_repository.reason(error)}.") from error


@dataclass
class Reply:
    """What a script said. failure holds the stage, the class and the text of an exception; late is whether the time limit ended it."""

    connected: bool = False
    answer: dict[str, Any] | None = None
    failure: tuple[str, str, str] | None = None
    late: bool = False
    code: int = 0
    complaint: str = ""
    protocol: str = ""


def ask(python: str, server: Server, script: str, request: dict[str, Any] | None = None, *, time_limit: float) -> Reply:
    """Run a script that may connect to the server, and return its reply. time_limit: seconds, for all of it.

    The script finds connected(), call() and figures(), and ends with answer() or fail(). Raises ZeoError when it did not connect.
    """
    until = time.monotonic() + time_limit
    greeting = greet(server, min(time_limit, _CONNECT_SECONDS))
    place = server.place()
    patience = max(1, int(min(until - time.monotonic(), _CONNECT_SECONDS)))
    login = {"username": server.username, "password": server.password, "realm": server.realm}
    whole = {**(request or {}), **login, "address": place, "storage": server.storage, "patience": patience}
    reply = run(python, _CLIENT + script, whole, owner=os.stat(place) if isinstance(place, str) else None, time_limit=until - time.monotonic())
    if not reply.connected and (reply.late or reply.code == -signal.SIGALRM):
        raise ZeoError(f"{_capital(server)} accepts connections, but does not answer within {min(patience, time_limit):.0f} s: it hangs.")
    if reply.failure and reply.failure[0] == "import":
        raise ZeoError(f"{python} has no ZEO ({reply.failure[2]}).")
    if reply.failure and reply.failure[0] == "connect":
        raise ZeoError(_why(python, server, greeting, *reply.failure[1:]))
    reply.protocol = greeting
    return reply


def run(python: str, script: str, request: dict[str, Any], *, owner: os.stat_result | None = None, time_limit: float) -> Reply:
    """Run a script with its request and return its reply. Its whole process group ends with the time limit (seconds).

    When the caller is root, it runs as the owner of something, or else as nobody. Raises ZeoError when it broke down.
    """
    command = [*_words(owner), python, "-B", "-s", "-c", _PREAMBLE + script]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent", "PYTHON_EGG_CACHE": "/nonexistent"}
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, cwd="/", start_new_session=True)
    except OSError as error:
        raise ZeoError(f"{python} cannot be run: {error.strerror}.") from error
    reply = Reply()
    try:
        said, complaint = process.communicate(json.dumps(request).encode(), max(time_limit, 0.1))
    except subprocess.TimeoutExpired:
        _kill(process)
        said, complaint = _rest(process)
        reply.late = True
    except BaseException:
        _kill(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_REST_SECONDS)
        raise
    reply.code, reply.complaint = process.returncode or 0, "\n".join(complaint.decode(errors="replace").strip().splitlines()[-15:])
    for line in said.decode(errors="replace").splitlines():
        with contextlib.suppress(ValueError):  # it was ended while it said something
            told = json.loads(line)
            reply.connected = reply.connected or "connected" in told
            reply.answer, reply.failure = told.get("answer"), told.get("failure")
    if not (reply.answer is not None or reply.failure or reply.late or reply.code == -signal.SIGALRM):
        raise ZeoError(f"{python} failed (exit code {reply.code}):\n{reply.complaint}")
    return reply


def _rest(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Return what a process had said that was ended, nothing when the kernel does not let it go."""
    try:
        return process.communicate(timeout=_REST_SECONDS)
    except subprocess.TimeoutExpired:
        return b"", b""


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _words(owner: os.stat_result | None) -> list[str]:
    """Return the words of a command that give up root's rights."""
    if os.geteuid() != 0:
        return []
    uid, gid = (owner.st_uid, owner.st_gid) if owner else pwd.getpwnam(UNPRIVILEGED)[2:4]
    return ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs", "--pdeathsig=KILL", "--"]


def greet(server: Server, patience: float) -> str:
    """Return the protocol that the server offers, such as Z3101 (ZODB 3.10) or Z5, within patience (seconds). Raises ZeoError."""
    place = server.place()
    until = time.monotonic() + patience
    try:
        connection = _connect(place, patience)
    except socket.gaierror as error:
        raise ZeoError(f"{_capital(server)} cannot be found: its name has no address ({error.strerror}).") from error
    except FileNotFoundError as error:
        raise ZeoError(f"There is no socket {server.address}: the ZEO server does not run.") from error
    except ConnectionRefusedError as error:
        raise ZeoError(f"{_capital(server)} refuses connections: it does not run, or listens elsewhere.") from error
    except (socket.timeout, TimeoutError) as error:
        raise ZeoError(f"Nothing answers at {server.address} within {patience:.0f} s: the host is down, or a firewall is between.") from error
    except OSError as error:
        raise ZeoError(f"{_capital(server)} cannot be reached: {error.strerror}.") from error
    said = b""
    with connection:
        try:
            while len(said) < 4 or (_sane(said) and len(said) < 4 + _length(said)):
                connection.settimeout(max(until - time.monotonic(), 0.01))
                piece = connection.recv(_LONGEST_GREETING)
                if not piece:
                    break
                said += piece
        except OSError:
            if not said:
                message = f"{_capital(server)} accepts connections, but does not answer within {patience:.0f} s: it hangs, or is no ZEO server."
                raise ZeoError(message) from None
    if len(said) < 4 or not _sane(said) or not re.fullmatch(rb"[A-Z][0-9]+", said[4:]):
        raise ZeoError(f"What answers at {server.address} is no ZEO server.")
    return said[4:].decode()


def _connect(place: str | tuple[str, int], patience: float) -> socket.socket:
    if not isinstance(place, str):
        return socket.create_connection(place, patience)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(patience)
        connection.connect(place)
    except BaseException:
        connection.close()
        raise
    return connection


def _length(said: bytes) -> int:
    return int(struct.unpack(">L", said[:4])[0])


def _sane(said: bytes) -> bool:
    return 2 <= _length(said) <= _LONGEST_GREETING


def _why(python: str, server: Server, greeting: str, name: str, text: str) -> str:
    """Return a sentence about an exception that ended the attempt to connect."""
    whose = _capital(server)
    if "unknown storage" in text:
        return f"{whose} has no storage named {server.storage}."
    realm = re.search(r"expected realm (.+), got realm", text)
    if "empty username or password" in text:
        return f"{whose} asks for a user and a password, and {'no password' if server.username else 'none'} was given."
    if realm:
        return f"{whose} has the realm {realm[1].strip(chr(39))}, not {server.realm or 'none'}: its users and passwords belong to that."
    if name == "AuthError" or "No such user" in text:
        return f"{whose} refuses the user {server.username} with this password."
    if name in ("ProtocolError", "DisconnectedError", "ClientDisconnected"):
        return f"{whose} offers the protocol {greeting}, and {python} did not get on with it ({name}: {text}): it must have a ZEO that speaks that."
    return f"{whose} refuses the connection: {name}: {text}."


def _capital(server: Server) -> str:
    text = str(server)
    return text[0].upper() + text[1:]
