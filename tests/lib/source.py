"""A git repository of Indico on a host, from which releases are built. It has what Indico's own has, made from the published archive."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.lib.playbook import REPOSITORY
from tests.lib.site import Site

TEMPLATE = "indico/MaKaC/webinterface/tpls/CategoryDisplay.tpl"

# Without what is only made for the published archive. Branch fix-1234 has another word on the home page.
_MAKE = r"""set -e
rm -rf /srv/deploy && mkdir -p /srv/deploy/tree && cd /srv/deploy
pip=$(ls {prefix}/wheelhouse/*/pip-*.whl | head -1)/pip
wheels=$(dirname $(dirname $pip))/wheels
apt-get install -y -qq git > /dev/null
virtualenv -q -p python2.7 --no-pip --no-setuptools --no-wheel venv
venv/bin/python $pip install -q --no-index --no-deps --find-links $wheels setuptools 2>/dev/null
echo '{pin}' > pin.txt
export PIP_CERT=/etc/ssl/certs/ca-certificates.crt
venv/bin/python $pip download -q --no-deps --no-build-isolation --no-binary indico --require-hashes -r pin.txt 2>/dev/null
tar -xzf indico-*.tar.gz --strip-components 1 --no-same-owner -C tree
cd tree
rm -rf PKG-INFO *.egg-info
find . -name '*.mo' -delete
export GIT_AUTHOR_DATE=2026-01-02T03:04:05Z GIT_COMMITTER_DATE=2026-01-02T03:04:05Z # so that the commits are the same ones each time
export GIT_AUTHOR_NAME=ada GIT_AUTHOR_EMAIL=ada@example.org GIT_COMMITTER_NAME=ada GIT_COMMITTER_EMAIL=ada@example.org
git init -q .
git add -Af . && git commit -qm 'Indico 1.2.2' && git tag v1.2.2
git checkout -qb fix-1234
sed -i 's/Main categories/Principal categories/' {template} && git commit -qam 'Another word'
git clone -q --bare . ../indico.git
"""


def make(site: Site, patches: dict[str, str], directory: Path) -> dict[str, Any]:
    """Make the repository on the site's host, and patches in a directory here: what each command changes in the branch.

    Return what the extra variables say of the branch, without patches.
    """
    pin = re.search(r"^indico==.*$", (REPOSITORY / "roles/python2/files/wheelhouse/indico.txt").read_text(), re.M)
    assert pin
    site.run(_MAKE.format(prefix=site.prefix, pin=pin[0], template=TEMPLATE))
    for name, change in patches.items():
        (directory / name).write_text(site.run(f"cd /srv/deploy/tree && {change} && git diff && git checkout -q .") + "\n")
    return {"python2_builder": site.name, "indico_source": "/srv/deploy/indico.git", "indico_version": "fix-1234"}


def runs(site: Site) -> str:
    """Return the release that runs."""
    return site.run(f"basename $(readlink -f {site.prefix}/current)")


def start(site: Site, playbook: str, extra: dict[str, Any]) -> subprocess.Popen[str]:
    """Start a playbook beside the test, in a session of its own."""
    command = ["ansible-playbook", "-i", str(site.inventory), playbook, "--extra-vars", json.dumps(extra)]
    environment = dict(os.environ, ANSIBLE_CONFIG=str(REPOSITORY / "ansible.cfg"), ANSIBLE_COLLECTIONS_PATH=str(REPOSITORY / "collections"))
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


def appears(site: Site, path: str, process: subprocess.Popen[str]) -> None:
    """Wait until a run that was started has made a file on the host."""
    while not site.shell().run(f"test -e {path}").succeeded:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)
