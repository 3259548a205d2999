"""What a client sends is no code for the database server."""

from __future__ import annotations

from pathlib import Path

from tests.lib.site import Site

STOCK = """
set -e
place=$(mktemp -d)
trap 'kill %1; rm -rf "$place"' EXIT
{prefix}/zeo/bin/runzeo -a 127.0.0.1:19675 -f "$place/Data.fs" >/dev/null 2>&1 &
for _ in $(seq 100); do ss --listening --tcp --numeric | grep -q ':19675 ' && break; sleep 0.1; done
{prefix}/zeo/bin/python -W ignore /usr/local/lib/conflict.py2 19675 "$place/taken-over"
ls "$place"
"""


def test_a_record_that_a_client_made_is_not_run_at_a_conflict(site: Site) -> None:
    """S2: where two clients change one object, the server loads their records. ZODB 3.10.5's own calls whatever function a record names."""
    site.copy([Path(__file__).with_name("conflict.py2")], "/usr/local/lib")
    assert "taken-over" in site.run(f"bash -c '{STOCK.format(prefix=site.prefix).replace(chr(39), chr(39) + chr(92) + chr(39) + chr(39))}'"), "the attack works"
    mark = f"{site.prefix}/log/zeo/taken-over"  # a place where the server may write
    port = site.variables.get("indico_storages", [{"port": 9675}])[0]["port"]
    said = site.run(f"{site.prefix}/zeo/bin/python -W ignore /usr/local/lib/conflict.py2 {port} {mark}").split()
    assert said == ["7", "conflict"]
    assert not site.shell().file(mark).exists
