"""Every molecule scenario, from an empty host to its tests. `make scenario S=default` runs one and shows all it prints."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.lib.command import REPOSITORY, run

# Two run at once, but for these. The first one brings the images that the others begin with; the last one measures how long a site is away.
FIRST, LAST = ["hosts"], ["standby"]
SCENARIOS = FIRST + sorted({path.parent.name for path in REPOSITORY.glob("molecule/*/molecule.yml")} - {*FIRST, *LAST}) + LAST


@pytest.fixture(scope="module")
def end(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], None]]:
    """Return a function that waits for the end of a scenario; it starts the scenario, and those that may run beside it."""
    wanted = [item.callspec.params["name"] for item in request.session.items if item.path == request.path]
    running: dict[str, Future[None]] = {}

    def scenario(name: str) -> None:
        log = tmp_path_factory.mktemp("molecule") / f"{name}.log"
        output = run("molecule", "test", "--scenario-name", name, log=log, NO_COLOR="1", ANSIBLE_FORCE_COLOR="0")
        passed = re.findall(r"(\d+) passed", output)
        assert passed and int(passed[-1]) > 0, f"the verify step of {name} ran no test: see {log}"

    def wait_for(name: str) -> None:
        alone = name in FIRST + LAST
        for one in [name] if alone else [one for one in wanted if one not in FIRST + LAST]:
            if one not in running:
                running[one] = pool.submit(scenario, one)
        running[name].result()

    with ThreadPoolExecutor(2) as pool:
        yield wait_for


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str, end: Callable[[str], None]) -> None:
    end(name)
