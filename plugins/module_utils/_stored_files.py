# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the files that Indico's database names lie in a directory: its archive, or a backup set's copy of it.

The directory is listed once, as a set of paths, so that every name can be looked up. Paths are bytes, relative to the directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable


def listing(directory: str) -> set[bytes]:
    """Return the paths of all files below directory. Links to directories are not followed. Raises OSError."""
    root = os.fsencode(directory)
    found, waiting = set(), [b""]
    while waiting:
        below = waiting.pop()
        with os.scandir(os.path.join(root, below)) as entries:
            for entry in entries:
                path = os.path.join(below, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                elif entry.is_file():
                    found.add(path)
    return found


def spellings(path: bytes, home: str) -> tuple[bytes, bytes]:
    """Return a path of the database as it is, and as Indico spelt it in older times (MaKaC/fileRepository.py); it takes a file under either.

    home is where Indico keeps its files: in even older times it noted whole paths.
    """
    path = path.removeprefix(os.fsencode(home) + b"/")
    return path, path.decode(errors="replace").encode("latin-1", "replace")


def missing(paths: Iterable[bytes], directory: str, present: set[bytes], home: str) -> list[bytes]:
    """Return those of the database's paths that are no file in directory, of which present is a listing."""
    root = os.fsencode(directory)
    return [
        path
        for path in paths
        # Asked again, as it may lie behind a link, or have come since the listing.
        if not any(one in present or os.path.isfile(os.path.join(root, one)) for one in spellings(path, home))
    ]
