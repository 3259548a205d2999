"""A release whose code needs another database, and what a site's databases hold before and after."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from tests.lib.site import Site
from tests.lib.source import runs

Found = tuple[list[list[str]], list[str | None]]
MIGRATE, BACK = "playbooks/migrate.yml", "playbooks/migrate_back.yml"
# A mark on every category. Files on the host make it fail everywhere, or in the living database alone, or last long; it has done harm by then.
TASK = """
@since('1.2.3')
def markCategories(dbi, withRBDB, prevVersion):
    '''Marking the categories'''
    import os, time
    def told(what):
        return os.path.exists('/srv/deploy/' + what)
    living = Config.getInstance().getDBConnectionParams()[1] == 9675
    if told('fail') or (living and (told('fail-half-way') or told('linger'))):
        events = ConferenceHolder()._getIdx()
        del events[list(events.keys())[0]]
        dbi.commit()
        if withRBDB:
            DALManager().getRoot()['half'] = 'way'
            DALManager.commit()
        if living and told('linger'):
            time.sleep(600)
        raise ValueError('It failed half way.')
    for category in CategoryManager()._getIdx().itervalues():
        category._mark = 'marked'
    dbi.commit()


"""
PATCH = f"printf %s {shlex.quote(TASK)} > /tmp/task && sed -i '/^def runMigration/e cat /tmp/task' bin/migration/migrate.py"
# What Indico's own code, of the release that runs, finds.
LOOK = """
import json, sys
from indico.core.db import DBMgr
DBMgr.getInstance().startRequest()
from MaKaC.conference import CategoryManager, ConferenceHolder
from MaKaC.plugins.RoomBooking.default.dalManager import DALManager
from MaKaC.user import AvatarHolder
trees = [ConferenceHolder()._getIdx(), CategoryManager()._getIdx(), AvatarHolder()._getIdx()]
if 'rooms' in sys.argv: # Indico waits for ever for a database that is not there
    DALManager.connect()
    trees.append(DALManager().getRoot())
marks = [getattr(category, '_mark', None) for category in trees[1].values()]
print(json.dumps([[sorted(map(str, tree.keys())) for tree in trees], marks]))
"""


def look(site: Site) -> Found:
    """Return the ids of all events, categories and users, what the rooms' database holds where there is one, and the marks of the categories."""
    environment = f"HOME={site.prefix}/tmp PYTHON_EGG_CACHE={site.prefix}/tmp/egg-cache"
    python = f"{site.prefix}/current/bin/python -c {shlex.quote(LOOK)} {' '.join(site.storages)}"
    objects, marks = json.loads(site.run(f"runuser -u {site.user} -- env {environment} {python}").splitlines()[-1])
    assert all(objects[:3])
    return objects, marks


def check_as_it_was(apps: list[Site], others: list[Site], scheduler: Site, before: str, found: Found, door: Site | None = None) -> None:
    """The old release serves every object there was on each host, everybody, and nobody is at it. door is where visitors come in."""
    for one in apps:
        page = one.browser().get("/")
        assert page.status_code == 200
        assert re.search("(Main|Principal) categories", page.text)
        assert look(one) == found
    for one in [*apps, *others]:
        assert runs(one) == before
        check_nobody_is_at_it(one)
    scheduler.wait_for_unit(f"{scheduler.instance}-scheduler.service")
    door = door or apps[0]
    door.browser().wait("/", in_a_row=5)
    assert door.browser().log_in("bruno", door.password("demo")) == "in"


def check_nobody_is_at_it(site: Site) -> None:
    assert site.run(f"find {site.prefix}/etc -path '*/maintenance/*'") == ""
    assert not re.findall(r"\.(?:lock|migration)\b", site.run(f"ls -A {site.prefix}/releases"))


def check_told_as_it_was(message: str, host: str, before: str) -> None:
    assert message.startswith(f"{host} was not migrated to fix-1234-")
    assert "Migrate the databases: migrate.py failed (exit code -1): " in message
    assert "ValueError: It failed half way." in message
    assert re.search(
        rf"The site is as it was: its databases are those of set \d{{4}}(-\d\d){{5}}, {re.escape(before)} serves them, and it is open\.$", message
    ), message


@contextmanager
def told(site: Site, what: str) -> Iterator[None]:
    site.run(f"touch /srv/deploy/{what}")
    yield
    site.run(f"rm /srv/deploy/{what}")
