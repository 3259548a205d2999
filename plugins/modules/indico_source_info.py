#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: indico_source_info
short_description: The commit that a branch or a tag of a git repository means now
version_added: 0.1.0
description:
  - Asks a repository without fetching it. What is built is named after the commit, so it is asked first.
author:
  - confops developers (@confops)
options:
  source:
    description: The repository, as this host reaches it. It must ask for no password.
    type: str
    required: true
  version:
    description: A branch, a tag, or the 40 digits of a commit, which are taken as they are.
    type: str
    required: true
attributes:
  check_mode:
    support: full
    description: Reads only, and finds the same.
  diff_mode:
    support: none
    description: Changes nothing.
  idempotent:
    support: full
    description: Changes nothing.
"""

EXAMPLES = r"""
- name: The newest commit of a branch
  confops.indico.indico_source_info:
    source: https://github.com/indico/indico
    version: v1.2-maintenance
  register: source
"""

RETURN = r"""
commit:
  description: The commit.
  type: str
  returned: success
  sample: 7c2a3f0b1f7f0f0a0c0d9b8a7f6e5d4c3b2a1908
"""

import os
import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _release


def main() -> None:
    module = AnsibleModule(
        argument_spec={"source": {"type": "str", "required": True}, "version": {"type": "str", "required": True}},
        supports_check_mode=True,
    )
    source, version = module.params["source"], module.params["version"]
    try:
        done = subprocess.run(
            ["git", "ls-remote", "--heads", "--tags", "--", source],
            capture_output=True,
            text=True,
            env=dict(os.environ, GIT_TERMINAL_PROMPT="0", GIT_SSH_COMMAND="ssh -o BatchMode=yes"),
            stdin=subprocess.DEVNULL,
            timeout=120,
            check=False,
        )
    except FileNotFoundError:
        module.fail_json(msg="This host has no git yet, so it cannot say which commit is meant. A run without --check installs it.")
    except subprocess.TimeoutExpired:
        module.fail_json(msg=f"{source} gave no answer within 120 s.")
    if done.returncode:
        module.fail_json(msg=f"{source} cannot be read from this host: {done.stderr.strip()}")
    try:
        module.exit_json(changed=False, commit=_release.commit_of(source, version, done.stdout))
    except _release.ReleaseError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
