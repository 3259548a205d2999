# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The catalogue of a repozo repository as data: what there is, since when, how large, and what of it was verified. Reads no data file."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _repository, _verify
from ansible_collections.confops.indico.plugins.module_utils._repository import Chain, DataFile, Repository, RepositoryError


def catalogue(path: str, *, max_gap: int = 0, now: datetime | None = None) -> dict[str, Any]:
    """Return the catalogue. max_gap is in seconds, 0 to look for no gaps; now is the present moment (UTC).

    Raises RepositoryError, OSError.
    """
    if max_gap < 0:
        raise RepositoryError(f"max_gap is {max_gap}; it is a number of seconds, 0 or more.")
    state = _repository.read_state(path)
    repository = _verify.look(path)
    pins = state.get("pins")
    memory = _repository.section(state, "verified")
    pinned = set(pins) if isinstance(pins, list) else set()  # texts, as read_state found
    chains = [_chain(chain, memory, chain.stamp in pinned) for chain in repository.chains]
    files = sorted((one for chain in repository.chains for one in chain.files), key=lambda one: one.stamp)
    newest = max(filter(None, map(_moment, files)), default=None)
    return {
        "chains": chains,
        "problems": repository.all_problems(),
        "unfinished": repository.unfinished,
        "leftovers": repository.leftovers,
        "totals": {
            "chains": len(chains),
            "files": len(files),
            "raw_bytes": sum(chain["raw_bytes"] for chain in chains),
            "stored_bytes": sum(chain["stored_bytes"] for chain in chains),
        },
        "recoverable": _recoverable(repository),
        "gaps": _gaps(files, max_gap) if max_gap > 0 else [],
        "last_full": _time(max((one for one in files if one.full and _moment(one)), key=lambda one: one.stamp, default=None)),
        "last_incremental": _time(max((one for one in files if not one.full and _moment(one)), key=lambda one: one.stamp, default=None)),
        "age_seconds": int(((now or datetime.now(timezone.utc)) - newest).total_seconds()) if newest else None,
    }


def _chain(chain: Chain, memory: dict[str, dict[str, Any]], pinned: bool) -> dict[str, Any]:
    entries = {entry.name: entry for entry in reversed(chain.entries)}
    files = []
    for one in chain.files:
        entry = entries.get(one.name)
        known = _verify.recall(memory, one, entry) if entry else None
        files.append(
            {
                "name": one.name,
                "kind": "full" if one.full else "incremental",
                "time": _time(one),
                "start": entry.start if entry else None,
                "end": entry.end if entry else None,
                "raw_bytes": entry.end - entry.start if entry else None,
                "stored_bytes": one.bytes,
                "compressed": one.compressed,
                "md5": entry.md5 if entry else None,
                "verified_at": known.get("at") if known else None,
            }
        )
    verified = [str(file["verified_at"] or "") for file in files]
    return {
        "stamp": chain.stamp,
        "files": files,
        "first_backup": files[0]["time"],
        "last_backup": files[-1]["time"],
        "raw_bytes": sum(int(file["raw_bytes"] or 0) for file in files),
        "stored_bytes": sum(one.bytes for one in chain.files),
        "problems": chain.problems,
        "pinned": pinned,
        "verified": min(verified) or None,
    }


def _recoverable(repository: Repository) -> dict[str, Any] | None:
    """Return the first and the last moment that a chain without problems restores, None when there is none."""
    sound = [one for chain in repository.chains if not chain.problems for one in chain.files]
    return {"earliest": _time(sound[0]), "latest": _time(sound[-1])} if sound else None


def _gaps(files: list[DataFile], max_gap: int) -> list[dict[str, Any]]:
    """Return the pairs of consecutive backups that are more than max_gap seconds apart."""
    gaps = []
    dated = [one for one in files if _moment(one)]
    for one, next_one in zip(dated, dated[1:]):
        seconds = int((next_one.time - one.time).total_seconds())
        if seconds > max_gap:
            gaps.append({"after": _time(one), "before": _time(next_one), "seconds": seconds})
    return gaps


def _moment(one: DataFile) -> datetime | None:
    """Return when a backup was made, None when its name is no date."""
    return _repository.moment_of(one.stamp)


def _time(one: DataFile | None) -> str | None:
    moment = _moment(one) if one else None
    return moment.strftime(_verify.TIME) if moment else None
