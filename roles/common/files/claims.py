"""Compares what an instance is about to use of a host with what the other instances there use; no inventory knows of the others.

Arguments: a file that holds {what: the variable that says so}, and its path to be, DIRECTORY/INSTANCE/ROLE.json.
"""

import glob
import json
import os
import sys

new, path = sys.argv[1:]
directory, instance = os.path.split(os.path.dirname(path))


def read(name: str) -> dict:
    with open(name, encoding="utf-8") as stream:
        return json.load(stream)


mine, problems = read(new), []
for other in sorted(glob.glob(f"{directory}/*/*.json")):
    owner, theirs = os.path.basename(os.path.dirname(other)), read(other)
    shared = sorted(mine.keys() & theirs.keys()) if owner != instance else []
    gone = f"If {owner} is gone, remove {directory}/{owner}."
    problems += [f"{mine[what]}: {what} is in use by the instance {owner} of this host ({theirs[what]}). {gone}" for what in shared]
    moved = [what for what in theirs if other == path and theirs[what] == "indico_prefix" and what not in mine]
    gone = f"If it is gone, remove {directory}/{instance}."
    problems += [f"indico_instance: {instance} is already the name of an instance of this host, in {what}. {gone}" for what in moved]
sys.exit("\n".join(problems) or 0)
