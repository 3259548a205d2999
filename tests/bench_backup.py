"""Backups, verification and restores beside stock repozo 3.10.5, on one file in one run.

`make bench-backup SIZE_MB=512` does it for one size, `make bench-backup SIZES_MB=256,1024,4096` shows what grows with the database.
The host is made for it and removed at the end. The database holds what Indico itself stored for the lab's sample events, over and
over under new ids. A figure is of a whole process, interpreter included, with the database in the page cache: the median of three,
but for the one slow command. Ours end when all is on disk; stock repozo leaves that to the system.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lib.playbook import play
from tests.lib.site import Site

REPOSITORY = Path(__file__).resolve().parents[1]
GROUPS = ("indico_zeo", "indico_app", "indico_scheduler")
HOST = {"bench1": {"lab_address": "10.213.0.91"}}
PLACE = "/var/tmp/bench"
PACKAGE = "lib/ansible_collections/confops/indico/plugins/module_utils"
BIN = "/opt/indico/zeo/bin"

# grow.py SEED DATABASE MEGABYTES: append that much. The transactions hold ten objects each, of which a copy keeps the order and, under
# new ids, the references to each other. A copy is longer than what gzip looks back, so it packs as well as the seed does.
GROW = r"""
import re, struct, sys
seed, path, size = open(sys.argv[1], 'rb').read(), sys.argv[2], int(sys.argv[3]) * 2 ** 20
objects, at = {}, 4  # each object's newest state
while at < len(seed):
    last, length, *texts = struct.unpack('>QQxHHH', seed[at:at + 23])
    record, end = at + 23 + sum(texts), at + length
    while record < end:
        data = record + 42
        after = data + int.from_bytes(seed[data - 8:data], 'big')
        objects[seed[record:record + 8]] = seed[data:after]
        record = after
    at = end + 8
number = lambda value: struct.pack('>Q', value)
rows = [list(objects.items())[first:first + 10] for first in range(0, len(objects), 10)]
more_ids, more_time, tick = number(int.from_bytes(max(objects), 'big') + 1), number(1000 * len(rows)), 1000  # a tick is 14 microseconds
copy, ids, places = bytearray(), bytearray(), bytearray()  # one copy; what its ids grow by in the next one; which of its numbers are offsets
for index, row in enumerate(rows):
    begin, tid, length = len(copy), number(last + (index + 1) * tick), 23 + 10 + sum(42 + len(data) for _oid, data in row)
    copy += tid + struct.pack('>QcHHH', length, b' ', 0, 10, 0) + b'/event/all'
    ids += more_time + bytes(25)
    places += bytes(33)
    for oid, data in row:
        copy += oid + tid + struct.pack('>QQHQ', 0, 4 + begin, 0, len(data)) + data
        references = bytearray(len(data))
        for found in re.finditer(rb'U\x08(\0{4}.{4})', data, re.DOTALL):
            references[found.start(1):found.end(1)] = more_ids if found[1] in objects else bytes(8)
        ids += more_ids + more_time + bytes(26) + references
        places += bytes(24) + number(1) + bytes(10 + len(data))
    copy += number(length)
    ids += bytes(8)
    places += bytes(8)
first, ids, places = (int.from_bytes(text, 'big') for text in (copy, ids, places))  # a copy is an addition
with open(path, 'ab') as stream:
    stream.write(b'' if stream.tell() else b'FS21')
    there, wanted = ((stream.tell() - 4) // len(copy), -(-size // len(copy)))
    for one in range(there, there + wanted):
        stream.write((first + one * ids + (stream.tell() - 4) * places).to_bytes(len(copy), 'big'))
"""
# Opens a database as a server does and writes its index, which a server has too; no word of complaint.
OPEN = """
import logging, sys
from ZODB.FileStorage import FileStorage
logging.basicConfig(level=logging.WARNING, filename=sys.argv[1] + '.log')
FileStorage(sys.argv[1]).close()
sys.exit(open(sys.argv[1] + '.log').read() or 0)
"""
OURS = f"""
import sys
sys.path.insert(0, '{PLACE}/lib')
from ansible_collections.confops.indico.plugins.module_utils import _repozo, _restore, _verify
verb, compression = sys.argv[1:]
repository = '{PLACE}/' + compression + '.d'
if verb == 'backup':
    _repozo.backup('{PLACE}/Data.fs', repository, compression=compression)
elif verb == 'verify':
    sys.exit(' '.join(_verify.verify(repository, check=True).problems) or 0)
else:
    _restore.restore(_restore.Request(repository=repository, target='{PLACE}/restored.fs'))
"""
MEASURE = """
import json, resource, subprocess, sys, time
def read():
    return int(open('/proc/self/io').read().split()[1])  # that of children too, once they have ended
before, began = read(), time.monotonic()
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
took = time.monotonic() - began
print(json.dumps([took, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, (read() - before) / 2 ** 20]))
sys.exit(code)
"""


@dataclass
class Cost:
    """What a command took: seconds, MiB of memory in its largest process, MiB that its processes read (from pipes too)."""

    seconds: float
    memory: float
    read: float


class Bench:
    """The host, with the programs and the seed on it."""

    def __init__(self, host: Site) -> None:
        self.host = host
        host.run(f"mkdir -p {PLACE}/{PACKAGE} && systemctl stop {' '.join(host.units)} && cp {host.prefix}/db/main/Data.fs {PLACE}/seed.fs")
        host.copy(sorted((REPOSITORY / "plugins/module_utils").glob("_*.py")), f"{PLACE}/{PACKAGE}")
        with tempfile.TemporaryDirectory() as scratch:
            for name, text in (("grow", GROW), ("open", OPEN), ("ours", OURS), ("measure", MEASURE)):
                (Path(scratch) / f"{name}.py").write_text(text)
            host.copy(sorted(Path(scratch).iterdir()), PLACE)

    def run(self, command: str) -> str:
        return self.host.run(f"cd {PLACE} && {command}")

    def cost(self, command: str, before: str = ":", times: int = 3) -> Cost:
        """Measure a command. The commands in before precede each of the times."""
        costs = []
        for _time in range(times):
            self.run(f"{before} && sync && cat Data.fs >/dev/null")
            costs.append(Cost(*json.loads(self.run(f"python3 measure.py {command}"))))
        return middle(costs)

    def compare(self, megabytes: int) -> None:
        """Print what everything costs with a database of that size."""
        self.run(f"rm -rf Data.fs* *.d && mkdir gzip.d none.d stock-gzip.d stock-none.d && python3 grow.py seed.fs Data.fs {megabytes}")
        self.run(f"{BIN}/python open.py Data.fs")
        print(f"\n{megabytes} MB: seconds, MiB of memory, MiB read{'':13} ours{'':21} stock{'':16} ratio", flush=True)
        show("the limit: read", self.cost("cat Data.fs"))
        md5 = self.cost("md5sum Data.fs")
        show("the limit: md5sum", md5)
        show("the limit: write to disk", self.cost("dd if=Data.fs of=copy.fs bs=4M conv=fsync status=none", "rm -f copy.fs"))
        stock = {kind: f"{BIN}/repozo -BvQ{flag} -r stock-{kind}.d -f Data.fs" for kind, flag in (("gzip", "z"), ("none", ""))}
        for kind, times in (("gzip", 1), ("none", 3)):
            mine = self.cost(f"python3 ours.py backup {kind}", f"find {kind}.d -type f -delete")
            show(f"full, {kind}", mine, self.cost(stock[kind], f"find stock-{kind}.d -type f -delete", times))
        changes = []
        for _change in range(3):
            self.run("python3 grow.py seed.fs Data.fs 5")
            changes.append([self.cost(command, times=1) for kind in stock for command in (f"python3 ours.py backup {kind}", stock[kind])])
        costs = [middle(column) for column in zip(*changes, strict=True)]
        show("incremental, gzip", *costs[:2])
        show("incremental, none", *costs[2:])
        for kind in stock:
            show(f"verify, {kind} (beside md5sum)", self.cost(f"python3 ours.py verify {kind}"), md5)
        theirs = self.cost(f"{BIN}/repozo -R -r stock-none.d -o copy.fs", "rm -f copy.fs")
        for kind in stock:
            show(f"restore, {kind} (beside repozo -R of none)", self.cost(f"python3 ours.py restore {kind}", "rm -f restored.fs*"), theirs)
            self.run("cmp restored.fs Data.fs && cmp copy.fs Data.fs")
        self.run("rm -rf copy.fs restored.fs* *.d")


def middle(costs: Sequence[Cost]) -> Cost:
    """Return the median of the seconds and the most of the others."""
    return Cost(statistics.median(one.seconds for one in costs), max(one.memory for one in costs), max(one.read for one in costs))


def show(what: str, *costs: Cost) -> None:
    columns = "   ".join(f"{cost.seconds:7.2f} {cost.memory:7.0f} {cost.read:7.0f}" for cost in costs)
    print(f"{what:40} {columns}{f'   {costs[1].seconds / costs[0].seconds:6.1f}' if costs[1:] else ''}", flush=True)


def main() -> None:
    sizes = os.environ.get("SIZES_MB") or os.environ.get("SIZE_MB") or "512"
    with tempfile.TemporaryDirectory() as inventory:
        (Path(inventory) / "group_vars").symlink_to(REPOSITORY / "inventories/lab/group_vars")
        (Path(inventory) / "hosts.yml").write_text(json.dumps({"indico": {"children": {group: {"hosts": HOST} for group in GROUPS}}}))
        try:
            for playbook in ("lab/down.yml", "lab/up.yml", "site.yml", "lab/seed.yml"):
                if (run := play(Path(inventory), playbook=playbook)).returncode:
                    sys.exit(f"{playbook} failed: {run.failures}")
            bench = Bench(Site.read(Path(inventory)))
            for megabytes in map(int, sizes.split(",")):
                bench.compare(megabytes)
        finally:
            play(Path(inventory), playbook="lab/down.yml")


if __name__ == "__main__":
    main()
