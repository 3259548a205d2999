"""What one of two database hosts sends is no code for the other one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.lib.site import Site

HERE = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
SITES = Site.read_all(HERE / "inventory")


@pytest.mark.parametrize("host", ["db1", "db2"])
def test_a_message_of_the_other_host_runs_no_function(host: str) -> None:
    """S2: zc.zrs loads whatever a message names; lib/runzeo loads nothing by name, neither as a primary nor as a standby."""
    site = SITES[host]
    site.copy([HERE / "message.py2"], "/usr/local/lib")
    said = site.run("cd /; /opt/indico/zeo/bin/python -W ignore /usr/local/lib/message.py2 /var/tmp/taken-over /opt/indico/lib/runzeo").splitlines()
    assert said[:2] == ["True loaded"] * 2, "the attack works"
    assert said[2:] == ["False UnpicklingError"] * 2
