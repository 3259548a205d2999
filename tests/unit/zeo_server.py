"""ZEO servers for tests: real ones of ZEO 5 and 6, each with a database of its own on a free port of loopback."""

from __future__ import annotations

import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ansible_collections.confops.indico.plugins.module_utils._zeo import Server

_MAKE = """
import os, sys, transaction, ZODB, ZODB.FileStorage
from persistent.mapping import PersistentMapping
from ZODB.Connection import TransactionMetaData
from ZODB.utils import p64, z64
database = ZODB.DB(ZODB.FileStorage.FileStorage(sys.argv[1]))
storage, connection = database.storage, database.open()
root = connection.root()
def commit(key, size):
    root.setdefault('parts', PersistentMapping())
    root['parts'][key] = os.urandom(size)
    transaction.commit()
def orphan():
    'An object that nothing refers to, in a transaction that supersedes nothing.'
    meta = TransactionMetaData()
    storage.tpc_begin(meta)
    storage.store(p64(2**20), z64, storage.load(z64)[0], '', meta)
    storage.tpc_vote(meta)
    storage.tpc_finish(meta)
{statements}
database.close()
"""
# A server that packs only when it may: it waits in the middle of a pack for as long as a file named hold lies beside its configuration.
_SLOW = """
import os, sys, time
from ZEO.runzeo import main
from ZODB.FileStorage.fspack import GC
usual, hold = GC.findReachable, os.path.join(os.path.dirname(sys.argv[2]), 'hold')
def findReachable(self):
    while os.path.exists(hold):
        time.sleep(0.02)
    return usual(self)
GC.findReachable = findReachable
main(sys.argv[1:])
"""


class Live:
    """A database, and a server for it that may run. address is where it listens then."""

    def __init__(self, directory: Path, environment: Path) -> None:
        self.directory, self.environment = directory, environment
        self.database, self.hold = directory / "Data.fs", directory / "hold"
        self.python = str(environment / "bin/python")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.process: subprocess.Popen[bytes]

    @property
    def server(self) -> Server:
        return Server(self.address)

    def make(self, statements: str) -> None:
        """Open the database, a new one if there is none, and run statements, which find commit(), orphan(), database, storage, root and transaction."""
        subprocess.run([self.python, "-c", _MAKE.replace("{statements}", statements), self.database], check=True)

    @contextmanager
    def running(self, *, read_only: bool = False, largest: int | None = None, collect: bool = True) -> Iterator[Live]:
        """Serve the database. largest: bytes that no file of the server's may exceed, as on a full disk. collect: whether its packs remove garbage."""
        configuration = self.directory / "zeo.conf"
        server = f"<zeo>\n  address {self.address}\n  read-only {str(read_only).lower()}\n</zeo>\n"
        configuration.write_text(f"{server}<filestorage 1>\n  path {self.database}\n  pack-gc {str(collect).lower()}\n</filestorage>\n")
        command = [self.python, "-c", _SLOW, "-C", configuration]
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            if largest is not None:
                resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (largest, largest))
        try:
            self._wait()
            yield self
        finally:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()

    def _wait(self) -> None:
        host, port = self.address.split(":")
        while self.process.poll() is None:
            try:
                socket.create_connection((host, int(port)), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise AssertionError((self.directory / "server.log").read_text())


@contextmanager
def answering(said: bytes) -> Iterator[Server]:
    """Serve something that is no ZEO server: it says these bytes to whoever connects, and hangs up."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        threading.Thread(target=_answer, args=(listener, said), daemon=True).start()
        yield Server(address)
        listener.shutdown(socket.SHUT_RDWR)


def _answer(listener: socket.socket, said: bytes) -> None:
    with suppress(OSError):  # it was shut
        while True:
            connection = listener.accept()[0]
            connection.sendall(said)
            connection.close()
