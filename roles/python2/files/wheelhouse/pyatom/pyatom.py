"""Indico 1.2.2 imports pyatom; the index now gives that name to another project. Werkzeug carries the same code."""
from werkzeug.contrib.atom import *  # noqa: F403  (the module is the other one's names, nothing else)
