from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible.module_utils import _internal
from ansible.module_utils.common import warnings as _warnings
from ansible_collections.confops.indico.plugins.module_utils import _repository
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

from tests.lib import environments

# Beside the project's other caches, since a directory in the checkout would get into the archive; no deadline, since a scenario may keep the machine busy.
set_hypothesis_home_dir(environments.CACHE / "hypothesis")
settings.register_profile("confops", deadline=None)
settings.load_profile("confops")


@pytest.fixture(autouse=True)
def modules_are_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Here they share one: ansible keeps warnings for all of it and, once a test has loaded its controller side, prints them instead; and one umask."""
    monkeypatch.setattr(_internal, "is_controller", False)
    monkeypatch.setattr(_repository, "_LONG", 1e9)  # this process, which holds locks in tests, may be hours old
    _warnings._global_warnings.clear()
    umask = os.umask(0o022)
    os.umask(umask)
    ended = signal.getsignal(signal.SIGTERM)  # a command sets a handler, and the processes of later tests would have it
    yield
    signal.signal(signal.SIGTERM, ended)
    os.umask(umask)


@pytest.fixture(scope="session")
def environment() -> Callable[[str], Path]:
    """Return a function that gives the Python environment of a lock file."""
    return environments.environment
