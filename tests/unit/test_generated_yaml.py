"""O16: names go through YAML that templates write, and stay names. Jinja alone renders them here; to_json quotes in Ansible as it does here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from tests.unit.roles import DEFAULTS, ROLES

NAMES = ["main", "no", "on", "null", "yes", "off"]  # 1e3, ~ and the like are refused as names of storages
FILES = [*sorted(ROLES.glob("*/vars/main.yml")), *sorted((ROLES.parent / "playbooks").rglob("*.yml")), *sorted(ROLES.glob("*/tasks/*.yml"))]
# What a site names. A bare one at the end of a line of YAML is read as YAML reads it.
BARE = re.compile(r"^ *(?:- )?(?:[a-z_]+: )?\{\{ [^{}']*(?:\.name|_user|address|\bhost)\b[^{}']*\}\} *$")


def rendered(role: str, name: str) -> Any:
    """Return what a template of a role's vars comes to, as from_yaml reads it."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False)  # noqa: S701 (no HTML)
    environment.filters["to_json"] = json.dumps
    values = {
        **DEFAULTS[role],
        "indico_prefix": "/opt/indico",
        "indico_instance": "on",
        "zeo_user": "no",
        "offsite_user": "null",
        "indico_zeo_password": "",
        "indico_storages": [{"name": one, "port": 9675 + number} for number, one in enumerate(NAMES)],
        "lookup": lambda *_words, **_options: "text",
        "__zeo_release": "/opt/zeo",
        "__zeo_check": "",
        "__zeo_guarded": False,
        "__zeo_standby": False,
        "__zeo_watched": False,
        "__offsite_home": "/var/lib/x",
        "__offsite_source": {},
        "__offsite_settings": "/opt/indico/etc/offsite.json",
        "__offsite_values": {},
    }
    environment.filters["to_nice_json"] = json.dumps
    return yaml.safe_load(environment.from_string(yaml.safe_load((ROLES / role / "vars/main.yml").read_text())[name]).render(values))


@pytest.mark.parametrize("variable", ["__zeo_servers", "__zeo_storages", "__zeo_units"])
def test_a_storage_named_like_a_word_of_yaml_keeps_its_name(variable: str) -> None:
    entries = rendered("zeo", variable)
    assert all(isinstance(entry[key], str) for entry in entries for key in ("name", "owner", "group", "address", "path") if key in entry), entries
    if variable == "__zeo_servers":
        assert [entry["name"] for entry in entries] == NAMES


def test_a_user_named_like_a_word_of_yaml_keeps_its_name() -> None:
    assert {rendered("offsite", "__offsite_tree")[0][key] for key in ("owner", "group")} == {"null"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROLES.parent)))
def test_no_name_stands_bare_in_yaml_that_a_template_writes(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    bare = [line.strip() for line in lines if BARE.match(line) and not re.search(r"\| (to_json|int)\b", line)]
    assert bare == []
