"""Indico 1.2.2 imports pyatom; the index now gives that name to another project. Werkzeug carries the same code."""
from werkzeug.contrib.atom import AtomFeed, FeedEntry

__all__ = ["AtomFeed", "FeedEntry"]
