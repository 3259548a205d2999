"""Which scenarios a change asks for: `make scenarios SINCE=main`. A complete run asks all of them, whatever changed.

A path asks for all scenarios, unless one of these rules says less:

- documents, changelog and unit tests ask for none
- what lies in a scenario's directory asks for that one, and for those that run its tests
- a playbook asks for those that name it
- a role that a host has only when it is asked for, for those that name the role
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.lib.command import REPOSITORY, run
from tests.lib.scenarios import SCENARIOS

CHOSEN = ["loadbalancer", "mail", "memcached", "offsite", "redis"]  # roles that not every scenario's hosts have
_NONE = re.compile(r"docs/|changelogs/|tests/unit/|tests/hostile/|[^/]*\.md$|SECURITY|LICENSES/")


def wanted(path: str) -> set[str]:
    """Return the scenarios that a changed path, relative to the checkout, asks for."""
    place = Path(path)
    if _NONE.match(path):
        return set()
    if place.parts[0] == "molecule" and len(place.parts) > 2 and place.parts[1] in SCENARIOS:
        return {place.parts[1], *_naming(rf"\.\./{place.parts[1]}/")}
    if place.parts[0] == "playbooks" and len(place.parts) == 2 and place.name != "site.yml":
        return _naming(rf"\b{place.stem}\b")
    if place.parts[0] == "roles" and place.parts[1] in CHOSEN:
        return _naming(rf"\b{place.parts[1]}")
    return set(SCENARIOS)


def _naming(pattern: str) -> set[str]:
    """Return the scenarios with a file in which the pattern is found, of their own or of tests/lib, when they import it."""
    return {name for name in SCENARIOS if re.search(pattern, _text(name))}


def _text(scenario: str) -> str:
    """Return all that a scenario says."""
    own = "\n".join(path.read_text() for path in (REPOSITORY / "molecule" / scenario).rglob("*") if path.suffix in (".py", ".yml"))
    libraries = [REPOSITORY / f"tests/lib/{name}.py" for name in set(re.findall(r"tests\.lib\.(\w+)", own)) - {"site", "playbook"}]
    return "\n".join([own, *(path.read_text() for path in libraries if path.exists())])


def main(since: str) -> int:
    """Print an expression for pytest's -k: the scenarios that the changes since a commit ask for, those not committed yet included."""
    changed = [*run("git", "diff", "--name-only", since).split(), *run("git", "ls-files", "--others", "--exclude-standard").split()]
    names = {name for path in changed for name in wanted(path)}
    sys.stdout.write(" or ".join(f"[{name}]" for name in SCENARIOS if name in names) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
