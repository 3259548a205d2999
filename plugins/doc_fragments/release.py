# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations


class ModuleDocFragment:
    """The options of modules that run Indico's own code."""

    DOCUMENTATION = r"""
options:
  current:
    description: Path of the release that runs.
    type: path
    default: /opt/indico/current
  user:
    description: User that runs Indico.
    type: str
    default: indico
"""
