"""Every molecule scenario, from an empty host to its tests. `make scenario S=default` runs one and shows all it prints."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.lib.scenarios import SCENARIOS


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str, end_of_scenario: Callable[[str], None]) -> None:
    end_of_scenario(name)
