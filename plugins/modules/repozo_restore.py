#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: repozo_restore
short_description: Restores a database from its backups, as it was at any transaction
version_added: 0.1.0
description:
  - Writes the Data.fs that a repozo repository holds, as of the newest backup, of a moment, or of one transaction.
  - Every file is compared with its checksum while it is read. Nothing is replaced unless all of it is right.
  - Where a damaged file may hold what is wanted, the module refuses. It names the last good transaction, to which a restore is possible.
  - The new database takes the place of the old one in one step, and the old one is kept beside it. A run that is killed leaves either of them whole.
  - The server of the database must be stopped. While the module runs, none can start on it.
  - The state before a pack comes from the backups before that pack, never from the packed file, which is not whole there.
author:
  - confops developers (@confops)
options:
  repository:
    description: Directory with the backups, as repozo or M(confops.indico.repozo) made them.
    type: path
    required: true
  state:
    description:
      - V(restored) writes the database.
      - V(listed) returns the transactions that can be restored, so that one can be chosen.
    type: str
    choices: [restored, listed]
    default: restored
  target:
    description: Path of the Data.fs to write, which must not be a symbolic link. Needed for O(state=restored).
    type: path
  time:
    description:
      - The database is restored as it was at this moment. Left out with O(transaction), it is the newest there is.
      - A day (V(2026-03-01)) means the end of that day in O(timezone).
      - "ISO 8601 must name its zone: V(2026-03-01T12:00:00Z), V(2026-03-01T13:00:00+01:00)."
      - A stamp of repozo (V(2026-03-01-12-00-00)) is UTC.
      - A time without a fraction means the end of its second.
      - A warning tells when transactions are left out because a clock was wrong and dated them in the future.
    type: str
  transaction:
    description: The database is restored up to and with the transaction of this id, 16 hexadecimal digits between quotes.
    type: str
  timezone:
    description: Zone of a day in O(time), O(since) and O(until), such as V(Europe/Zurich).
    type: str
    default: UTC
  live:
    description:
      - Path of the Data.fs that the backups are of, while it still can be read. What it holds beyond the newest backup is used, too.
      - It is refused when it is needed and is not the continuation of the newest backup, since it was packed or replaced.
    type: path
  confirm:
    description: The path in O(target) once more. Needed to replace a file that exists.
    type: str
  served:
    description: Whether the caller stops the server of the database before the run. Check mode then does not warn that the database is in use.
    type: bool
    default: false
  owner:
    description: Name of the user who owns the database. Default is the owner of the replaced file, or the user who runs the module.
    type: str
  group:
    description: Name of the group. Default is as for O(owner).
    type: str
  mode:
    description: Four octal digits between quotes. Default is the mode of the replaced file, or V('0600').
    type: str
  since:
    description: With O(state=listed), where the window begins, written as O(time). A day means its beginning.
    type: str
  until:
    description: With O(state=listed), where the window ends, written as O(time). A day means its end.
    type: str
  limit:
    description: With O(state=listed), the greatest number of transactions to return. The newest of the window are. At most 1000000.
    type: int
    default: 1000
attributes:
  check_mode:
    support: full
    description:
      - Predicts with the function that the run uses. It reads and compares all files that the run would need, and asks whether this user may write
        to the target's directory. RV(md5) and RV(replaced) are null.
      - A database in use is a warning, since its server need not be stopped for a plan; the run refuses it.
  diff_mode:
    support: full
    description: Size, newest transaction, owner and mode before and after.
  idempotent:
    support: full
    description: A target that already is the result is found by comparing it, and left alone.
seealso:
  - module: confops.indico.repozo
  - module: confops.indico.repozo_info
  - module: confops.indico.repozo_verify
"""

EXAMPLES = r"""
- name: The newest backup into a new file, to look into
  confops.indico.repozo_restore:
    repository: /var/backups/indico/main
    target: /var/tmp/look/Data.fs

- name: Which transactions were there around the accident?
  confops.indico.repozo_restore:
    repository: /var/backups/indico/main
    live: /opt/indico/db/main/Data.fs
    state: listed
    since: "2026-03-01T11:00:00+01:00"
    until: "2026-03-01T12:00:00+01:00"
  register: candidates

- name: Undo what came after the last good one; the server is stopped
  confops.indico.repozo_restore:
    repository: /var/backups/indico/main
    live: /opt/indico/db/main/Data.fs
    target: /opt/indico/db/main/Data.fs
    confirm: /opt/indico/db/main/Data.fs
    transaction: "{{ candidates.transactions[-2].tid }}"
"""

RETURN = r"""
file:
  description: The target.
  returned: state is restored
  type: str
  sample: /opt/indico/db/main/Data.fs
bytes:
  description: Size of the restored database.
  returned: state is restored
  type: int
  sample: 6606028
last_transaction:
  description: The newest transaction in it (C(time) is UTC). Null in check mode when only a large file would tell.
  returned: state is restored
  type: dict
  sample: {tid: 03f8d4c333333333, time: "2026-03-01T10:59:12.000000Z", user: /admin, description: ""}
md5:
  description: MD5 of the restored database, null when nothing was written.
  returned: state is restored
  type: str
  sample: 3858f62230ac3c915f300c664312c63f
chain:
  description: Stamp of the full backup that the restored database begins with.
  returned: state is restored
  type: str
  sample: 2026-03-01-02-00-00
files:
  description: The data files that it is made of, in order.
  returned: state is restored
  type: list
  elements: str
  sample: [2026-03-01-02-00-00.fsz, 2026-03-01-11-00-00.deltafsz]
live_bytes:
  description: Bytes of it that come from O(live).
  returned: state is restored
  type: int
  sample: 4127
replaces:
  description: The file that is replaced, its size and its newest transaction. Null when there is none.
  returned: state is restored
  type: dict
  sample: {bytes: 6705001, last_transaction: null}
replaced:
  description: Path under which the replaced file was kept. Null when nothing was replaced.
  returned: state is restored
  type: str
  sample: /opt/indico/db/main/Data.fs.replaced-2026-03-01-11-20-40
needed_bytes:
  description: Bytes that the run writes.
  returned: state is restored
  type: int
  sample: 6606028
free_bytes:
  description: Bytes that are free for it on the target's file system. Zero when nothing needs to be written.
  returned: state is restored
  type: int
  sample: 85899345920
seconds:
  description: Time that it took.
  returned: state is restored
  type: float
  sample: 2.7
transactions:
  description: The transactions of the window that can be restored, the oldest first.
  returned: state is listed
  type: list
  elements: dict
  contains:
    tid:
      description: Id, for O(transaction).
      type: str
    time:
      description: When it was committed (UTC), in a form that O(time) takes.
      type: str
    user:
      description: Who committed it.
      type: str
    description:
      description: What for.
      type: str
    bytes:
      description: Size of its record.
      type: int
  sample: [{tid: 03f8d4c333333333, time: "2026-03-01T10:59:12.000000Z", user: /admin, description: "", bytes: 4127}]
more:
  description: Whether the window holds older transactions that O(limit) kept back.
  returned: state is listed
  type: bool
  sample: false
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _history, _numbers, _repository, _restore
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError

_MOST = 1_000_000  # transactions that one answer can hold


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "repository": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["restored", "listed"], "default": "restored"},
            "target": {"type": "path"},
            "time": {"type": "str"},
            "transaction": {"type": "str"},
            "timezone": {"type": "str", "default": "UTC"},
            "live": {"type": "path"},
            "confirm": {"type": "str"},
            "served": {"type": "bool", "default": False},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "mode": {"type": "str"},
            "since": {"type": "str"},
            "until": {"type": "str"},
            "limit": {"type": _numbers.whole(1, _MOST), "default": 1000},
        },
        mutually_exclusive=[("time", "transaction")],
        required_if=[("state", "restored", ["target"])],
        supports_check_mode=True,
    )
    for name, value in module.params.items():
        if isinstance(value, str) and "\0" in value:
            module.fail_json(msg=f"{name} holds a zero byte, which no name and no time has.")
    try:
        answer, warnings = (_listed if module.params["state"] == "listed" else _restored)(module)
    except (RepositoryError, OSError) as error:
        module.fail_json(msg=_repository.told(error))
    for sentence in warnings:
        module.warn(sentence)
    module.exit_json(**answer)


def _listed(module: AnsibleModule) -> tuple[dict[str, object], list[str]]:
    options = module.params
    since, until = (
        _history.moment_of(options[name], options["timezone"], end=name == "until") if options[name] is not None else None for name in ("since", "until")
    )
    repository, warnings = _history.open_repository(options["repository"])
    found = _history.listed(repository, since, until, options["limit"], options["live"])
    answer = {"changed": False, "transactions": [_restore.record_dict(one) for one in found.records], "more": found.more}
    return answer, warnings + found.warnings


def _restored(module: AnsibleModule) -> tuple[dict[str, object], list[str]]:
    options = module.params
    wanted = None
    if options["time"] is not None:
        wanted = _history.wanted_time(options["time"], options["timezone"])
    if options["transaction"] is not None:
        wanted = _history.wanted_transaction(options["transaction"])
    others = {name: options[name] for name in ("repository", "target", "live", "confirm", "owner", "group", "mode", "served")}
    result = _restore.restore(_restore.Request(wanted=wanted, **others), check=module.check_mode)
    return result.answer(), result.plan.warnings


if __name__ == "__main__":
    main()
