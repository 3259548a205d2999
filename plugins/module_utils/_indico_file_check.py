# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the stored files that Indico's database names are on disk, and whether it names all that are there.

The directory is listed first and the database read after it, so that a file which comes meanwhile is taken neither for missing nor for an orphan.
Indico 1.2.2 notes names only: what size a file should have is written nowhere.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _indico, _indico_content, _stored_files

_OWN = r"""
from MaKaC.conference import CategoryManager, ConferenceHolder
connection = manager.getDBConnection()
repositories = connection.root().get('local_repositories', {})
named = set((one._p_oid, key) for one in repositories.values() for key in one.getFiles().keys())
broken, unnamed = [], []

def look(where, holder):
    for deep, resource in stored_in(where, holder, broken):
        repository = resource.getRepository()
        if repository is None or (repository._p_oid, resource.getRepositoryId()) not in named:
            unnamed.append(text('%s: %s' % (deep, resource.getFileName())))

for key, category in CategoryManager()._getIdx().items():
    if loads(category, 'category %s' % key, broken):
        look('category %s' % key, category)
for number, event in enumerate(ConferenceHolder()._getIdx().values()):
    for where, holder in parts(event, broken):
        look(where, holder)
    if number % 100 == 99:
        connection.cacheGC()
# Packages for offline use are thrown away after a month, their names are not.
packages = [(one.getRepositoryPath(), list(one.getFiles().values())) for name, one in repositories.items() if name != 'main']
packages = [os.path.join(directory, path) for directory, paths in packages if directory for path in paths]
paths = list(repositories['main'].getFiles().values()) if 'main' in repositories else []
answer(paths=[one.decode('latin-1') for one in paths], packages=[one.decode('latin-1') for one in packages], broken=broken, unnamed=unnamed)
"""
SCRIPT = "manager = connect()\n" + _indico_content.OBJECTS + _indico_content.FILES + _OWN


def check(*, current: str, user: str, limit: int, patience: float = 30) -> dict[str, Any]:
    """Compare and return what module indico_file_check says. limit: how many entries its lists have at most. Raises IndicoError and OSError."""
    archive = os.path.join(os.path.dirname(current), "archive")
    present = _stored_files.listing(archive)
    found = _indico.run(SCRIPT, {}, current=current, user=user, patience=patience, timeout=7200)
    return compare(found, archive, present, limit)


def compare(found: dict[str, Any], archive: str, present: set[bytes], limit: int) -> dict[str, Any]:
    """Compare what SCRIPT answers with a listing of the archive."""
    paths = [path.encode("latin-1") for path in found["paths"]]
    missing = sorted(_stored_files.missing(paths, archive, present, archive))
    known = {one for path in paths + [path.encode("latin-1") for path in found["packages"]] for one in _stored_files.spellings(path, archive)}
    orphans = sorted(present - known)
    return {
        "files": len(paths),
        "stored": len(present),
        "missing": {"count": len(missing), "paths": _readable(missing[:limit])},
        "orphans": {"count": len(orphans), "bytes": sum(_size(archive, path) for path in orphans), "paths": _readable(orphans[:limit])},
        "unnamed": {"count": len(found["unnamed"]), "objects": found["unnamed"][:limit]},
        "broken": {"count": len(found["broken"]), "objects": found["broken"][:limit]},
    }


def _size(archive: str, path: bytes) -> int:
    with contextlib.suppress(FileNotFoundError):
        return os.stat(os.path.join(os.fsencode(archive), path)).st_size
    return 0


def _readable(paths: list[bytes]) -> list[str]:
    """Return paths as text; what is not UTF-8 in one is escaped."""
    return [path.decode(errors="backslashreplace") for path in paths]
