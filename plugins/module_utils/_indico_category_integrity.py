# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The script of module indico_category_integrity, Python 2.7 inside the release. It looks, then repairs if asked to, unless arguments['check'].

First it decides where each category and each event belongs. From that follow the counters and what every index must hold.
"""

from __future__ import annotations

from ansible_collections.confops.indico.plugins.module_utils import _indico_content

_OWN = r"""
import collections
from datetime import datetime, timedelta
from BTrees.OOBTree import OOSet
from indico.core.index import Catalog
from indico.util.date_time import utc_timestamp
from MaKaC.common.indexes import BTREE_MAX_INT, CalendarDayIndex, IndexesHolder
from MaKaC.common.timezoneUtils import date2utctimestamp, datetimeToUnixTime
from MaKaC.conference import CategoryManager, ConferenceHolder
from MaKaC.trashCan import TrashCanManager

class Look(object):
    'One look at the database: problems, and the acts that repair those that have a repair.'

    def __init__(self):
        self.problems, self.acts = [], []
        self.by_id = dict(CategoryManager()._getIdx().items())
        self.events = ConferenceHolder()._getIdx()
        self.categories, self.parents, self.home = {}, {}, {}
        self.look_at_categories()
        self.look_at_events()
        self.look_at_counters()
        self.look_at_indexes()

    def found(self, kind, problem, repair=None, act=None):
        self.problems.append({'kind': kind, 'problem': text(problem), 'repair': repair and text(repair)})
        if act:
            self.acts.append(act)

    # Where each category belongs

    def look_at_categories(self):
        root = manager.getDBConnection().root()['rootCategory']
        self.categories[root.getId()] = root
        self.descend(root)
        lost = dict((key, one) for key, one in self.by_id.items() if key not in self.categories and self.loadable(one, 'category %s' % key))
        while lost:
            back = [(key, one) for key, one in sorted(lost.items()) if one.owner is not None and self.categories.get(one.owner.getId()) is one.owner]
            back = [(key, one) for key, one in back if not one.owner.conferences]
            if not back:
                break
            for key, one in back:
                if lost.pop(key, None) is not None:
                    self.found('category', 'Category %s cannot be reached: its parent %s does not hold it' % (called(one), called(one.owner)),
                               'category %s: back in %s' % (called(one), called(one.owner)), lambda one=one: self.put_back(one))
                    self.categories[key], self.parents[key] = one, one.owner
                    self.descend(one)
                    for reached in self.categories:
                        lost.pop(reached, None)
        for key, one in sorted(lost.items()):
            why = 'it has no parent' if one.owner is None else 'its parent %s %s' % (
                called(one.owner), 'holds events' if self.categories.get(one.owner.getId()) is one.owner else 'cannot be reached either')
            self.found('category', 'Category %s cannot be reached: %s' % (called(one), why))
            self.categories[key], self.parents[key] = one, one.owner
        for key, one in sorted(self.categories.items()):
            if key not in self.by_id:
                self.found('category', 'Category %s is not found by its id' % called(one), 'category %s: found by its id' % called(one),
                           lambda key=key, one=one: CategoryManager()._getIdx().__setitem__(key, one))
            if one.subcategories and len(one.conferences):
                self.found('category', 'Category %s holds categories and events; Indico shows only the categories' % called(one))

    def descend(self, top):
        'Follow the categories from top downwards.'
        waiting = [top]
        while waiting:
            parent = waiting.pop()
            for key, one in sorted(parent.subcategories.items()):
                if not self.loadable(one, 'category %s in category %s' % (key, parent.getId())):
                    continue
                if one.getId() != key or self.by_id.get(key, one) is not one:
                    self.found('category', 'Category %s holds %s as %s, which is another category' % (called(parent), called(one), key))
                elif key in self.categories:
                    self.found('category', 'Category %s lies in %s and elsewhere' % (called(one), called(parent)))
                else:
                    if one.owner is not parent:
                        self.found('category', 'Category %s lies in %s and takes another one for its parent' % (called(one), called(parent)),
                                   'category %s: its parent is %s' % (called(one), called(parent)),
                                   lambda one=one, parent=parent: setattr(one, 'owner', parent))
                    self.categories[key], self.parents[key] = one, parent
                    waiting.append(one)

    def put_back(self, one):
        one.owner.subcategories[one.getId()] = one
        one.owner._p_changed = True  # it is a plain dictionary

    def loadable(self, thing, where):
        broken = []
        if loads(thing, where, broken):
            return True
        self.problems.append({'kind': 'broken', 'problem': '%(where)s cannot be loaded (%(problem)s)' % broken[0], 'repair': None})
        return False

    # Where each event belongs

    def look_at_events(self):
        held = collections.defaultdict(list)
        every = {}
        for key, category in sorted(self.categories.items()):
            for event in category.conferences:
                if self.loadable(event, 'an event in category %s' % key):
                    held[event._p_oid].append(category)
                    every[event._p_oid] = event
            manager.getDBConnection().cacheGC()
        for key, event in self.events.items():
            if self.loadable(event, 'event %s' % key):
                every[event._p_oid] = event
        for number, event in enumerate(sorted(every.values(), key=lambda one: one.getId())):
            self.look_at_event(event, held[event._p_oid])
            if number % 1000 == 999:
                manager.getDBConnection().cacheGC()

    def look_at_event(self, event, holders):
        name, by_id = event.getId(), self.events.get(event.getId())
        owner = event.getOwner()
        if by_id is not None and by_id is not event:
            self.found('event', 'There are two events %s: category %s holds one that Indico does not find by its id' % (name, called(holders[0])))
            return
        if by_id is None and event._p_oid in TrashCanManager()._getIdx():
            for category in holders:
                self.found('event', 'Event %s is in the trash, and category %s holds it' % (called(event), called(category)),
                           'event %s: only in the trash' % called(event), lambda category=category: self.take_out(event, category))
            return
        if by_id is None:
            self.found('event', 'Category %s holds event %s, which is not found by its id' % (called(holders[0]), called(event)),
                       'event %s: found by its id' % called(event), lambda: self.events.__setitem__(name, event))
        if holders:
            home = owner if any(owner is one for one in holders) else holders[0]
        elif owner is not None and self.categories.get(owner.getId()) is owner and not owner.subcategories:
            home = owner
            self.found('event', 'Event %s is in category %s, which does not hold it' % (called(event), called(home)),
                       'event %s: held by category %s' % (called(event), called(home)), lambda: home.conferences.insert(event))
        else:
            self.found('event', 'Event %s is in no category' % called(event))
            return
        for category in holders:
            if category is not home:
                self.found('event', 'Category %s holds event %s, which is in %s' % (called(category), called(event), called(home)),
                           'event %s: only in category %s' % (called(event), called(home)), lambda category=category: category.conferences.remove(event))
        if not (len(event.getOwnerList()) == 1 and owner is home):
            self.found('event', 'Event %s is held by category %s and does not know it' % (called(event), called(home)),
                       'event %s: in category %s' % (called(event), called(home)), lambda: setattr(event, '_Conference__owners', [home]))
        self.home[name] = (event, home)

    def take_out(self, event, category):
        category.conferences.remove(event)
        event._Conference__owners = [one for one in event.getOwnerList() if one is not category]

    def path(self, category):
        'Return the category and those above it, upwards.'
        found = []
        while category is not None and category not in found:
            found.append(category)
            category = self.parents.get(category.getId())
        return found

    # How many events each category has

    def look_at_counters(self):
        expected = collections.Counter()
        for _event, home in self.home.values():
            expected.update(one.getId() for one in self.path(home))
        for key, category in sorted(self.categories.items()):
            present = getattr(category, '_numConferences', None)
            if present != expected[key]:
                self.found('counter', 'Category %s counts %s events and has %d' % (called(category), present, expected[key]),
                           'category %s: %s events -> %d' % (called(category), present, expected[key]),
                           lambda category=category, number=expected[key]: setattr(category, '_numConferences', number))

    # What the indexes hold

    def look_at_indexes(self):
        visible, days, all_days = collections.defaultdict(set), collections.defaultdict(set), collections.defaultdict(set)
        starts, ends, by_start = collections.defaultdict(set), collections.defaultdict(set), collections.defaultdict(dict)
        for number, (name, (event, home)) in enumerate(sorted(self.home.items())):
            above = [one.getId() for one in self.path(home) if one.getId() != '0'] + ['0']
            reach = max(0, min(event.getVisibility(), self.visibility(home)))
            shown = [one for level, one in enumerate(above) if reach > level]
            for one in shown:
                visible[one].add(name)
            for day in self.days(event):
                for one in above:
                    all_days[one, day].add(name)
                for one in shown:
                    days[one, day].add(name)
            start, end = date2utctimestamp(event.getStartDate()), date2utctimestamp(event.getEndDate())
            if start <= BTREE_MAX_INT and end <= BTREE_MAX_INT:
                starts[start].add(name)
                ends[end].add(name)
            by_start[home.getId()][name] = utc_timestamp(event.getStartDate())
            if number % 1000 == 999:
                manager.getDBConnection().cacheGC()
        indexes = IndexesHolder()
        self.compare_lists('index category', 'category', indexes.getIndex('category')._idxCategItem, visible)
        self.compare_days('index categoryDate', indexes.getIndex('categoryDate')._idxCategItem, days)
        self.compare_days('index categoryDateAll', indexes.getIndex('categoryDateAll')._idxCategItem, all_days)
        calendar = indexes.getIndex('calendar')
        self.compare_lists('index calendar by start', 'time', calendar._idxSdate, starts)
        self.compare_lists('index calendar by end', 'time', calendar._idxEdate, ends)
        self.compare_starts(Catalog.getIdx('categ_conf_sd'), by_start)
        self.compare_titles(indexes.getIndex('conferenceTitle'))

    def visibility(self, category):
        'Return how many levels up the events of a category are shown, as Category.getVisibility does.'
        level = None
        for one in reversed(self.path(category)):
            level = int(one._visibility) if level is None else max(0, min(int(one._visibility), level + 1))
        return level

    def days(self, event):
        'Return the keys of CalendarDayIndex for an event.'
        start, end = event.getStartDate(), event.getEndDate()
        first = datetime(start.year, start.month, start.day)
        keys = [int(datetimeToUnixTime(first + timedelta(number))) for number in range((end.date() - start.date()).days + 1)]
        return [key for key in keys if key <= BTREE_MAX_INT]

    def differences(self, index, place, have, want):
        'Note what a part of an index has too much or too little; return whether that is anything.'
        for name in sorted(want.difference(have)):
            self.found('index', 'In %s, %s, event %s is missing' % (index, place, called(self.home[name][0])), '%s, %s: event %s added' % (index, place, name))
        for name, number in sorted(collections.Counter(have).items()):
            if name not in want or number > 1:
                self.found('index', 'In %s, %s, there is event %s%s' % (index, place, name, '' if name not in want else ' %d times' % number),
                           '%s, %s: event %s removed' % (index, place, name) if name not in want else '%s, %s: event %s once' % (index, place, name))
        return sorted(have) != sorted(want)

    def compare_lists(self, index, what, tree, expected):
        'Compare a tree of lists of ids.'
        for key in sorted(set(tree.keys()) | set(expected)):
            want = expected.get(key, set())
            if self.differences(index, '%s %s' % (what, key), list(tree.get(key, [])), want):
                self.acts.append(lambda key=key, want=want: self.set_list(tree, key, want))

    def set_list(self, tree, key, want):
        names = [name for number, name in enumerate(tree.get(key, [])) if name in want and name not in tree[key][:number]]
        names += sorted(want.difference(names))
        if names:
            tree[key] = names  # a new list: one that is changed in its place may not be written
        elif key in tree:
            del tree[key]

    def compare_days(self, index, tree, expected):
        'Compare a tree of days of each category.'
        present = dict(((one, day), events) for one, calendar in tree.items() for day, events in calendar.getIdxDate().items())
        for one, day in sorted(set(present) | set(expected)):
            place = 'category %s, %s' % (one, datetime.utcfromtimestamp(day).strftime('%Y-%m-%d'))
            events = list(present.get((one, day), []))
            have = [event.getId() for event in events if self.loadable(event, 'an event in %s, %s' % (index, place))]
            want = expected.get((one, day), set())
            if self.differences(index, place, have, want) or len(have) < len(events):
                self.acts.append(lambda one=one, day=day, want=want: self.set_day(tree, one, day, want))

    def set_day(self, tree, one, day, want):
        calendar = tree.get(one)
        if calendar is None:
            calendar = tree[one] = CalendarDayIndex()
        if want:
            calendar.getIdxDate()[day] = OOSet([self.home[name][0] for name in want])
        elif day in calendar.getIdxDate():
            del calendar.getIdxDate()[day]

    def compare_starts(self, catalog, expected):
        'Compare the index of the starts of the events in each category, which Indico keeps both ways.'
        index = 'index categ_conf_sd'
        for one in sorted(set(catalog._container.keys()) | set(self.categories)):
            want, part, place = expected.get(one, {}), catalog._container.get(one), 'category %s' % one
            if one not in self.categories:
                self.found('index', 'In %s there is category %s, which does not exist' % (index, one), '%s: category %s removed' % (index, one),
                           lambda one=one: catalog._container.__delitem__(one))
                continue
            if part is None:
                self.found('index', 'In %s, category %s is missing' % (index, one), '%s: category %s added' % (index, one))
            have, back = collections.defaultdict(set), collections.defaultdict(set)
            for start, event in (part.iteritems() if part else []):
                if self.loadable(event, 'an event in %s, %s' % (index, place)):
                    have[event.getId()].add(start)
            for identifier, starts in (part._rev_index.items() if part else []):
                back[identifier[1:]].update(starts)
            wrong = self.differences(index, place, list(set(have) | set(back).difference(want)), set(want))
            moved = [name for name, start in sorted(want.items()) if name in have and not have[name] == back[name] == set([start])]
            for name in moved:
                self.found('index', 'In %s, %s, event %s has another start' % (index, place, called(self.home[name][0])),
                           '%s, %s: start of event %s' % (index, place, name))
            if part is None or wrong or moved:
                self.acts.append(lambda one=one, want=want: catalog._container.__setitem__(
                    one, catalog._initializeSubIndex([self.home[name][0] for name in sorted(want)])))

    def compare_titles(self, titles):
        index = 'index conferenceTitle'
        have = [name for name in titles._strToIntMap.keys()]
        if self.differences(index, 'titles', have, set(self.home)):
            for name in set(have).difference(self.home):
                self.acts.append(lambda name=name: titles.unindex(name))
            for name in set(self.home).difference(have):
                self.acts.append(lambda name=name: titles.index(name, self.home[name][0].getTitle().decode('utf-8')))

def work():
    look = Look()
    steps = [one['repair'] for one in look.problems if one['repair']] if arguments['repair'] else []
    left = [one for one in look.problems if not (arguments['repair'] and one['repair'])]
    if steps and not arguments['check']:
        for act in look.acts:
            act()
        left = Look().problems
    return {'steps': steps, 'problems': look.problems, 'left': left, 'categories': len(look.categories), 'events': len(look.home)}

transact('confops.indico.indico_category_integrity', work)
"""
SCRIPT = "manager = connect()\n" + _indico_content.OBJECTS + _OWN
