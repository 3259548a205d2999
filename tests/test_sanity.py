"""What Galaxy asks of a collection, asked of the installed archive: ansible-test sanity and ansible-doc. No test is switched off by a file."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
from pathlib import Path

from tests.lib.command import run

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "confops/ansible-test"


def test_sanity(installed: Path, tmp_path: Path) -> None:
    """ansible-test makes environments of its own below HOME and bootstraps pip there with a script that it downloads; Python has one built in."""
    bootstrap = CACHE / ".ansible/test/cache/get_pip_24_2.py"
    bootstrap.parent.mkdir(parents=True, exist_ok=True)
    bootstrap.write_text("import ensurepip\n\nensurepip.bootstrap(default_pip=True)\n")
    shutil.copytree(installed / "ansible_collections", tmp_path / "ansible_collections", symlinks=True)
    collection = tmp_path / "ansible_collections/confops/indico"
    run("git", "init", "--quiet", cwd=collection)  # by which ansible-test lists the files
    run("git", "add", "--all", cwd=collection)
    python = ".".join(platform.python_version_tuple()[:2])
    output = run(
        *["ansible-test", "sanity", "--color", "no", "--python", python, "--skip-test", "pslint"],  # no PowerShell here
        cwd=collection,
        HOME=str(CACHE),
        XDG_CONFIG_HOME=os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config"),  # pip's settings stay the user's
        ANSIBLE_CONFIG=None,
    )
    ran = set(re.findall(r'Running sanity test "([\w-]+)"', output))
    assert {"validate-modules", "import", "pylint", "runtime-metadata"} <= ran, f"only these tests ran: {sorted(ran)}"


def test_every_plugin_is_documented(installed: Path) -> None:
    collection = installed / "ansible_collections/confops/indico"
    for kind, directory in (("module", "modules"), ("filter", "filter")):
        names = sorted(f"confops.indico.{path.stem}" for path in (collection / "plugins" / directory).glob("*.py") if path.stem != "__init__")
        assert names
        documents = json.loads(
            run("ansible-doc", "--json", "--type", kind, *names, cwd=installed, ANSIBLE_CONFIG=None, ANSIBLE_COLLECTIONS_PATH=str(installed))
        )
        assert sorted(documents) == names
        for name, document in documents.items():
            assert document["doc"]["short_description"] and document["examples"], f"{name} has no description or no example"
