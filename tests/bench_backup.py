"""Backups, verification and restores beside stock repozo 3.10.5, on one file in one run. `make bench-backup SIZE_MB=512` prints ratios.

The host is the one of the scenario `default`, made anew and removed at the end. The database is made by ZODB3 there:
objects of text and numbers, 64 in a transaction.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.lib.playbook import play
from tests.lib.site import Site

REPOSITORY = Path(__file__).resolve().parents[1]
INVENTORY = REPOSITORY / "molecule/default/inventory"
PLACE = "/var/tmp/bench"

FILL = """
import random, sys, transaction
from persistent.mapping import PersistentMapping
from ZODB import DB
from ZODB.FileStorage import FileStorage
path, megabytes, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
random.seed(seed)
words = [''.join(random.choice('abcdefghijklmnopqrstuvwxyz') for _ in range(random.randint(2, 11))) for _ in range(20000)]
storage = FileStorage(path)
root = DB(storage).open().root()
end, number = storage.getSize() + megabytes * 2 ** 20, 0
while storage.getSize() < end:
    for _ in range(64):
        number += 1
        root['%d-%d' % (seed, number % 512)] = PersistentMapping(
            title=' '.join(random.sample(words, 9)), text=' '.join(random.sample(words, 400)), id=random.getrandbits(64), when=random.random())
    transaction.commit()
storage.close()
"""
OURS = """
import sys, time
sys.path.insert(0, '/opt/indico/lib')
from ansible_collections.confops.indico.plugins.module_utils import _repozo, _restore, _verify
verb, compression = sys.argv[1:3]
repository, place = '{place}/ours-' + compression, '{place}'
began = time.monotonic()
if verb == 'backup':
    kind = _repozo.backup(place + '/Data.fs', repository, compression=compression).decision.kind
elif verb == 'verify':
    kind = '%d problems' % len(_verify.verify(repository, check=True).problems)
else:
    kind = '%d bytes' % _restore.restore(_restore.Request(repository=repository, target=place + '/restored.fs')).plan.bytes
print('%.2f %s' % (time.monotonic() - began, kind))
"""


def main() -> None:
    megabytes = int(os.environ.get("SIZE_MB", "512"))
    host = Site.read(INVENTORY)
    for playbook in ("lab/down.yml", "lab/up.yml", "site.yml"):
        if play(INVENTORY, playbook=playbook).returncode:
            sys.exit(f"{playbook} failed: run it by hand with -i {INVENTORY}")
    python, repozo = "/opt/indico/zeo/bin/python", "/opt/indico/zeo/bin/repozo"
    host.run(f"mkdir -p {PLACE} /opt/indico/lib && cd {PLACE} && mkdir -p ours-gzip ours-none stock-z stock")
    host.copy(sorted((REPOSITORY / "plugins/module_utils").glob("_*.py")), "/opt/indico/lib/ansible_collections/confops/indico/plugins/module_utils/")
    with tempfile.TemporaryDirectory() as scratch:
        for name, text in (("fill.py", FILL), ("ours.py", OURS.replace("{place}", PLACE))):
            (Path(scratch) / name).write_text(text)
        host.copy(sorted(Path(scratch).iterdir()), f"{PLACE}/")

    def seconds(command: str) -> float:
        host.run(f"sync; cat {PLACE}/Data.fs >/dev/null")  # both find it in memory
        timed = host.shell().run(f'bash -c "TIMEFORMAT=%R; time {{ {command} >/dev/null 2>&1; }}"')
        return float(timed.stderr.strip().splitlines()[-1])

    def ours(verb: str, compression: str) -> float:
        host.run(f"sync; cat {PLACE}/Data.fs >/dev/null; rm -f {PLACE}/restored.fs*")
        took, what = host.run(f"python3 {PLACE}/ours.py {verb} {compression}").split(" ", 1)
        print(f"    ours, {verb} {compression}: {took} s, {what}", flush=True)
        return float(took)

    def compare(what: str, mine: float, theirs: float, other: str) -> None:
        print(f"{what:46} {mine:8.2f} s   {other:28} {theirs:8.2f} s   ratio {theirs / mine:6.1f}", flush=True)

    print(f"a database of {megabytes} MB", flush=True)
    host.run(f"{python} {PLACE}/fill.py {PLACE}/Data.fs {megabytes} 1")
    read = seconds(f"cat {PLACE}/Data.fs")
    md5 = seconds(f"md5sum {PLACE}/Data.fs")
    copy = seconds(f"cp {PLACE}/Data.fs {PLACE}/copy.fs && sync -f {PLACE}/copy.fs; rm {PLACE}/copy.fs")
    print(f"read {read:.2f} s, md5sum {md5:.2f} s, copy to disk {copy:.2f} s", flush=True)
    stock_z, stock = f"{repozo} -Bz -Q -r {PLACE}/stock-z -f {PLACE}/Data.fs", f"{repozo} -B -Q -r {PLACE}/stock -f {PLACE}/Data.fs"
    compare("full, gzip", ours("backup", "gzip"), seconds(stock_z), "repozo -BzQ")
    compare("full, plain", ours("backup", "none"), seconds(stock), "repozo -BQ")
    host.run(f"{python} {PLACE}/fill.py {PLACE}/Data.fs 5 2")
    gzip, plain = ours("backup", "gzip"), ours("backup", "none")
    compare("incremental of 5 MB, gzip", gzip, seconds(stock_z), "repozo -BzQ")
    compare("incremental of 5 MB, plain", plain, seconds(stock), "repozo -BQ")
    compare("verify, gzip", ours("verify", "gzip"), md5, "md5sum of the database")
    compare("verify, plain", ours("verify", "none"), md5, "md5sum of the database")
    from_plain = seconds(f"{repozo} -R -r {PLACE}/stock -o {PLACE}/stock.fs")
    compare("verified restore from gzip", ours("restore", "gzip"), from_plain, "repozo -R, plain, unverified")
    host.run(f"cmp {PLACE}/restored.fs {PLACE}/stock.fs")
    compare("verified restore from plain", ours("restore", "none"), from_plain, "repozo -R, plain, unverified")
    play(INVENTORY, playbook="lab/down.yml")


if __name__ == "__main__":
    main()
