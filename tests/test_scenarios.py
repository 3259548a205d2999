"""Every molecule scenario, from an empty host to its tests. `make scenario S=default` runs one and shows all it prints."""

from __future__ import annotations

import re

import pytest

from tests.lib.command import REPOSITORY, run

SCENARIOS = sorted(path.parent.name for path in REPOSITORY.glob("molecule/*/molecule.yml"))
assert SCENARIOS


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    log = tmp_path_factory.mktemp("molecule") / f"{name}.log"
    output = run("molecule", "test", "--scenario-name", name, log=log, NO_COLOR="1", ANSIBLE_FORCE_COLOR="0")
    passed = re.findall(r"(\d+) passed", output)
    assert passed and int(passed[-1]) > 0, f"the verify step of {name} ran no test: see {log}"
