from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.confops.indico.plugins.filter.indico_conf import FilterModule


def test_it_renders() -> None:
    assert FilterModule().filters()["indico_conf"]({"SessionLifetime": 60}).endswith("\nSessionLifetime = 60\n")


def test_it_fails_with_every_problem() -> None:
    with pytest.raises(AnsibleFilterError, match=r"(?s)indico_conf\.CSRFLevel is 9; .*indico_conf\.Nope is not a key"):
        FilterModule().filters()["indico_conf"]({"CSRFLevel": 9, "Nope": 1})
