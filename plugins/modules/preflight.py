#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Check every variable of the collection before a host is touched
version_added: 0.1.0
description:
  - Compares the host's variables with the argument specs of all roles, strictly. A string is not a number, and a list of dictionaries is not a list of strings.
  - Refuses a misspelt name. Any variable that begins like the collection's (C(indico_), C(zeo_), C(web_), ...) must be one of its own, or be listed in C(indico_site_variables).
  - Finds contradictions. Two services on one port, no storage named main, a prefix with a blank, an administrator without a password, a key of C(indico.conf) that Indico 1.2.2 does not read.
  - Refuses a host that is not Debian 11, when its facts are known.
  - It runs on the controller, makes no connection and reports all problems at once, one sentence each. It never shows a password.
author:
  - confops developers (@confops)
options: {}
attributes:
  check_mode:
    support: full
    description: Reads only.
  diff_mode:
    support: none
    description: Changes nothing.
  idempotent:
    support: full
    description: Changes nothing.
"""

EXAMPLES = r"""
- name: Check every variable before anything is changed
  confops.indico.preflight:
"""

RETURN = r"""#"""
