from __future__ import annotations

import os
from pathlib import Path

from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

# Beside the project's other caches, since a directory in the checkout would get into the archive; no deadline, since a scenario may keep the machine busy.
set_hypothesis_home_dir(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "confops" / "hypothesis")
settings.register_profile("confops", deadline=None)
settings.load_profile("confops")
