"""What operators do around Indico's content: a deleted event comes back, categories are repaired, reservations change hands, stored files are looked for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.lib.browser import Browser
from tests.lib.site import Site

RESTORE, INTEGRITY, OWNER, FILES = (f"playbooks/{name}.yml" for name in ("event_restore", "category_integrity", "reservation_owner", "file_check"))
TITLE = "Zürich grid computing days"


# Runs CODE in one transaction, begun again when the scheduler or a worker was faster, and says what it put into answer.
HARNESS = r"""
import json, os, sys, warnings
warnings.simplefilter('ignore')
reply = os.fdopen(os.dup(1), 'w')
os.dup2(2, 1)
import transaction
from indico.core.db import DBMgr
manager = DBMgr.getInstance()
manager.startRequest()
from ZODB.POSException import ConflictError
from indico.core.index import Catalog
from MaKaC.common.indexes import IndexesHolder
from MaKaC.common.info import HelperMaKaCInfo
from MaKaC.conference import CategoryManager, ConferenceHolder
from MaKaC.user import AvatarHolder
def person(name):
    return AvatarHolder().match({'email': name + '@example.org'}, exact=1, searchInAuthenticators=False)[0]
for attempt in range(5):
    names = dict(globals(), answer=None)
    try:
        exec(CODE, names)
        transaction.commit()
        break
    except ConflictError:
        transaction.abort()
        manager.sync()
json.dump(names['answer'], reply)
reply.flush()
os._exit(0 if attempt < 4 else 1)
"""


def indico(site: Site, script: str) -> Any:
    """Run a script inside the release and return what it puts into answer, as data."""
    command = f"PYTHON_EGG_CACHE={site.prefix}/tmp/egg-cache runuser -u {site.user} -- {site.prefix}/current/bin/python -"
    text = f"CODE = {script.encode()!r}\n{HARNESS}"
    return json.loads(site.run(f"{command} 2>/tmp/indico-script.err <<'SCRIPT' || {{ cat /tmp/indico-script.err; exit 1; }}\n{text}\nSCRIPT"))


def result(site: Site, playbook: str, *arguments: str, **extra: object) -> dict[str, Any]:
    """Run a playbook, which may fail, and return what its module found, what it reported (said), what failed (failures), and which tasks changed something."""
    run = site.play(*arguments, playbook=playbook, **extra)
    report = json.JSONDecoder().raw_decode(run.output[run.output.index("{\n") :])[0]
    tasks = {task["task"]["name"]: task["hosts"].get(site.name, {}) for play in report["plays"] for task in play["tasks"]}
    found = next((one for one in tasks.values() if "steps" in one or "orphans" in one), {})
    return {**found, "said": tasks.get("Report", {}).get("msg"), "failures": run.failures, "tasks_changed": list(run.changed)}


# Events

# Gives one event of the seed that is still to come all that a deletion takes away, and deletes a contribution of it, with a file, before.
PREPARE = r"""
from datetime import timedelta
from MaKaC.common.timezoneUtils import nowutc
from MaKaC.common.url import ShortURLMapper
from MaKaC.evaluation import Submission, Textbox
from indico.web.flask.app import make_app
with make_app(True).test_request_context('/'):
    event = [one for one in CategoryManager().getById('2').getConferenceList() if one.getTitle() == TITLE and one.getStartDate() > nowutc()][0]
    evaluation, question = event.getEvaluations()[0], Textbox()
    if not evaluation.getQuestions():
        question.setQuestionValue('Well?')
        evaluation.insertQuestion(question)
        evaluation.setTitle('How it was')
        chloe = person('chloe')
        Submission(evaluation, chloe).addNewAnswer(question, 'Very well')
    alarm = event.newAlarm(event.getStartDate() - timedelta(days=1))
    alarm.addToAddr('all@example.org')
    alarm.setNote('Do come')
    event.setUrlTag('grid')
    ShortURLMapper().remove(event)
    ShortURLMapper().add('grid', event)
    for one in event.getContributionList()[3:]:
        one.delete()
    answer = [event.getId(), event._p_oid.encode('hex')]
"""
# All that the database says of an event outside of its own objects, and what a deletion empties in it.
TELL = r"""
from MaKaC.common.url import ShortURLMapper
event = manager.getDBConnection().get(OID.decode('hex'))
index = IndexesHolder().getIndex
days = lambda name: sorted([one, day] for one, part in index(name)._idxCategItem.items() for day, events in part.getIdxDate().items() if event in events)
answer = {
    'holder': ConferenceHolder().hasKey(EVENT), 'owners': [one.getId() for one in event.getOwnerList()],
    'held': [one.getId() for one in CategoryManager().getList() if event in one.conferences],
    'counters': dict((one.getId(), one.getNumConferences()) for one in CategoryManager().getList()),
    'category': sorted(one for one, events in index('category')._idxCategItem.items() if EVENT in events),
    'days': days('categoryDate'), 'all_days': days('categoryDateAll'),
    'calendar': [[key for key, events in tree.items() if EVENT in events] for tree in (index('calendar')._idxSdate, index('calendar')._idxEdate)],
    'title': [one for one, _score in index('conferenceTitle').search('grid')].count(EVENT),
    'starts': [one for one, part in Catalog.getIdx('categ_conf_sd')._container.items() if part.has_obj(event)],
    'short': ShortURLMapper().hasKey('grid') and ShortURLMapper().getById('grid').getId(),
    'links': sorted([one.getEmail(), kind, role] for one in AvatarHolder().getList() for kind, roles in one.getLinkedTo().items()
                    for role, things in roles.items() for thing in things if thing is event),
    'contributions': sorted(event.contributions), 'sessions': sorted(event.sessions),
    'evaluations': [[one.getTitle(), one.getConference() is event, [question.getQuestionValue() for question in one.getQuestions()],
                    [[sub.getSubmitter().getEmail(), [str(said.getAnswerValue()) for said in sub.getAnswers()]] for sub in one.getSubmissions()]]
                    for one in event.getEvaluations()],
    'answers': sorted(one.getEmail() for one in AvatarHolder().getList() for _sub in one.getLinkTo('evaluation', 'submitter')),
    'alarms': [[str(one.getStartOn()), one.getToAddrList(), one.getNote()] for one in event.getAlarmList()],
}
"""


def listed(browser: Browser, category: str) -> set[str]:
    """Return the ids of the events that a category's page shows."""
    return set(re.findall(r"/event/(\w+)/", browser.get(f"/category/{category}/").text))


def delete(browser: Browser, event: str) -> None:
    answer = browser.post(f"/event/{event}/manage/tools/delete", {"confirm": "1"})
    assert answer.status_code in (302, 303), answer.text[:2000]
    assert browser.get(f"/event/{event}/").status_code == 404


def test_a_deleted_event_comes_back_as_it_was(site: Site, member: Browser, visitor: Browser) -> None:
    event, oid = indico(site, f"TITLE = {TITLE.encode()!r}\n{PREPARE}")
    tell = f"EVENT, OID = {event!r}, {oid!r}\n{TELL}"
    before = indico(site, tell)
    assert before["alarms"] and before["short"] == event and before["answers"] == ["chloe@example.org"] and len(before["contributions"]) == 3
    page = visitor.get(f"/event/{event}/").text
    files = {link: visitor.get(link).content for link in set(re.findall(r'href="([^"]+/material/[^"]+)"', page))}
    assert len(files) >= 4 and any(content.startswith(b"%PDF") for content in files.values())
    assert event in listed(visitor, "2")

    delete(member, event)
    gone = indico(site, tell)
    assert (gone["holder"], gone["held"], gone["days"], gone["evaluations"], gone["answers"]) == (False, [], [], [], [])
    assert event not in listed(visitor, "2")
    (line,) = [one for one in result(site, RESTORE)["events"] if one["event"] == event]
    assert line["title"] == TITLE and line["deleted"] > line["start"][:4]

    check = result(site, RESTORE, "--check", event=event)
    assert check["said"][0].startswith(f"event {event}, {TITLE}: would come back, in category 2 (Workshops), with 3 contributions in 1 sessions and ")
    assert indico(site, tell) == gone
    done = result(site, RESTORE, event=event)
    assert done["steps"] == check["steps"]
    assert (done["title"], done["category"], done["category_title"], done["contributions"], done["files_missing"]) == (TITLE, "2", "Workshops", 3, [])
    assert done["files_found"] == 5  # of three talks, the document and the minutes

    assert indico(site, tell) == before
    assert re.sub(r"\s+", " ", visitor.get(f"/event/{event}/").text) == re.sub(r"\s+", " ", page)
    assert {link: visitor.get(link).content for link in files} == files
    assert event in listed(visitor, "2") and visitor.get("/e/grid").status_code == 200
    assert result(site, INTEGRITY)["failures"] == []
    again = result(site, RESTORE, event=event)
    assert (again["changed"], again["tasks_changed"], again["title"]) == (False, [], TITLE)


def test_an_event_whose_category_is_gone_needs_another_one(site: Site) -> None:
    browser = site.browser()
    assert browser.log_in("admin", site.password("admin")) == "in"
    category = indico(site, "category = CategoryManager().getRoot().newSubCategory(0); category.setName('Closed'); answer = category.getId()")
    event = browser.create_meeting("Homeless «é»", category=category)
    delete(browser, event)
    assert result(site, RESTORE, event=event, category="2")["failures"] == [
        f"Event {event} was in category {category} (Closed), which can have it back; restore it there, without category, and move it in Indico."
    ]
    indico(site, f"CategoryManager().getById({category!r}).delete()")
    sentence = f"The category that event {event} was in is gone; name the one that it is to go to, as category."
    assert result(site, RESTORE, "--check", event=event)["failures"] == [sentence]
    assert result(site, RESTORE, event=event)["failures"] == [sentence]
    assert result(site, RESTORE, event=event, category="4711")["failures"] == ["There is no category 4711."]
    assert result(site, RESTORE, event=event, category="0")["failures"] == ["Category 0 (Home) holds categories, and so no events."]
    assert result(site, RESTORE, event=event, category="2")["category"] == "2"
    assert site.browser().title(f"/event/{event}/").startswith("Homeless «é»")
    assert result(site, INTEGRITY)["failures"] == []
    sentence = "There is no event 4711, and the database holds no deleted one; after a pack, only a backup does."
    assert result(site, RESTORE, event="4711")["failures"] == [sentence]


# Categories

# Damages counters, lists and indexes, each in a way that Indico's own code does not heal.
DAMAGE = r"""
from BTrees.OOBTree import OOSet
from MaKaC.common.indexes import CalendarDayIndex
categories, events = CategoryManager(), ConferenceHolder()
categories.getById('3')._numConferences += 7
listed, lost, unknown = [one for one in categories.getById('2').getConferenceList()][:3]
index = IndexesHolder().getIndex
tree = index('category')._idxCategItem
tree['2'] = [one for one in tree['2'] if one != listed.getId()]
tree['1'] = tree['1'] + [listed.getId()]
calendar = index('categoryDate')._idxCategItem['2'].getIdxDate()
for day in [day for day, there in calendar.items() if listed in there]:
    del calendar[day]
index('categoryDateAll')._idxCategItem['1'].getIdxDate()[1000000000] = OOSet([listed])
index('conferenceTitle').unindex(listed.getId())
Catalog.getIdx('categ_conf_sd').getCategory('2').unindex_obj(listed)
categories.getById('2').conferences.remove(lost)
events.remove(unknown)
answer = [listed.getId(), lost.getId(), unknown.getId()]
"""
# Cuts a new category off the tree, and an event off every category.
CUT = r"""
root = CategoryManager().getRoot()
category = root.newSubCategory(0)
category.setName('Cut off')
del root.subcategories[category.getId()]
root._p_changed = True
event = CategoryManager().getById('2').newConference(person('bruno'))
event.setTitle('Adrift')
CategoryManager().getById('2').removeConference(event)
answer = [category.getId(), event.getId()]
"""


def test_damage_is_reported_then_repaired(site: Site, visitor: Browser, tmp_path: Path) -> None:
    assert result(site, INTEGRITY)["failures"] == []
    listed_, lost, unknown = indico(site, DAMAGE)
    assert visitor.get(f"/event/{unknown}/").status_code == 404
    report = tmp_path / "categories.json"
    found = result(site, INTEGRITY, report_file=str(report))
    problems = [one["problem"] for one in found["problems"]]
    for part in (
        "Category 3 (Conferences) counts 19 events and has 12",
        "is in category 2 (Workshops), which does not hold it",
        f"Category 2 (Workshops) holds event {unknown} (",
        f"In index category, category 2, event {listed_} (",
        f"In index category, category 1, there is event {listed_}",
        "In index categoryDate, category 2, ",
        f"In index categoryDateAll, category 1, 2001-09-09, there is event {listed_}",
        f"In index conferenceTitle, titles, event {listed_} (",
        f"In index categ_conf_sd, category 2, event {listed_} (",
    ):
        assert any(part in one for one in problems), (part, problems)
    (sentence,) = found["failures"]
    assert sentence.startswith(f"{len(problems)} problems are left, such as: ") and f"-e repair=true to repair {len(problems)} of them." in sentence
    assert json.loads(report.read_text())[site.name]["problems"] == found["problems"]
    check = result(site, INTEGRITY, "--check", repair=True)
    assert len(check["steps"]) == len(problems) and check["failures"] == []
    assert result(site, INTEGRITY)["problems"] == found["problems"]

    repaired = result(site, INTEGRITY, repair=True)
    assert (repaired["steps"], repaired["left"], repaired["failures"]) == (check["steps"], [], [])
    assert visitor.get(f"/event/{unknown}/").status_code == visitor.get(f"/event/{lost}/").status_code == 200
    again = result(site, INTEGRITY, repair=True)
    assert (again["changed"], again["problems"], again["failures"]) == (False, [], [])


def test_what_lies_nowhere_is_put_back_only_where_it_is_known(site: Site) -> None:
    category, event = indico(site, CUT)
    problems = {one["problem"]: one["repair"] for one in result(site, INTEGRITY)["problems"]}
    parentless = f"Category {category} (Cut off) cannot be reached: its parent 0 (Home) does not hold it"
    assert problems[parentless] == f"category {category} (Cut off): back in 0 (Home)"
    assert problems[f"Event {event} (Adrift) is in no category"] is None
    repaired = result(site, INTEGRITY, repair=True)
    assert repaired["failures"] == [f"1 problem is left, such as: Event {event} (Adrift) is in no category."]
    assert "Cut off" in site.browser().get("/").text
    indico(site, f"event = ConferenceHolder().getById({event!r}); CategoryManager().getById('2')._addConference(event)")
    indico(site, f"CategoryManager().getById({category!r}).delete(); ConferenceHolder().getById({event!r}).delete()")
    assert result(site, INTEGRITY)["failures"] == []


# Reservations

# A room, two reservations of bruno and one of dana in it, through Indico's own classes.
BOOK = r"""
from datetime import datetime, timedelta
from MaKaC.plugins.RoomBooking.default.dalManager import DALManager
DALManager.connect()
from MaKaC.plugins.RoomBooking.default.factory import Factory
Catalog.updateDB(dbi=manager)
room = Factory.newRoom('Universe')
room.name, room.building, room.floor, room.roomNr, room.isActive, room.isReservable = 'Aula', 4, 'B', '1', True, True
room.capacity, room.site, room.responsibleId = 100, 'Main', person('egon').getId()
room.insert()
answer = []
for number, name in enumerate(('bruno', 'bruno', 'dana')):
    user = person(name)
    one = Factory.newReservation()
    one.room, one.createdBy, one.createdDT = room, user.getId(), datetime.now()
    one.startDT = datetime.now().replace(hour=9, minute=0, second=0, microsecond=0) + timedelta(days=1 + number)
    one.endDT = one.startDT + timedelta(hours=2)
    one.bookedForName, one.contactEmail, one.contactPhone, one.reason = user.getFullName(), user.getEmail(), '', 'Rehearsal'
    one.isConfirmed = True
    one.insert()
    answer.append(one.id)
"""
# Whose reservations Indico finds (Avatar.getReservations of 1.2.2 fails), and what its index holds.
OWNED = r"""
from MaKaC.plugins.RoomBooking.default.dalManager import DALManager
DALManager.connect()
from MaKaC.plugins.RoomBooking.default.reservation import Reservation
from MaKaC.rb_reservation import ReservationBase
answer = {}
for name in ('bruno', 'chloe', 'dana'):
    example = ReservationBase()
    example.createdBy, example.isConfirmed = person(name).getId(), None
    answer[name] = sorted(one.id for one in Reservation.getReservations(resvExample=example))
answer['index'] = dict((key, sorted(one.id for one in found)) for key, found in Reservation.getUserReservationsIndexRoot().items() if found)
"""


def switch_room_booking(site: Site, active: bool) -> None:
    """Have an administrator switch room booking on or off, which makes its database ready."""
    browser = site.browser()
    assert browser.log_in("admin", site.password("admin")) == "in"
    if indico(site, "answer = bool(HelperMaKaCInfo.getMaKaCInfoInstance().getRoomBookingModuleActive())") != active:
        assert browser.get("/admin/rooms/config/toggle").status_code == 200
    assert indico(site, "answer = bool(HelperMaKaCInfo.getMaKaCInfoInstance().getRoomBookingModuleActive())") == active


@pytest.fixture(scope="module")
def booked(site: Site) -> Iterator[list[int]]:
    """Return the numbers of three reservations, two of bruno's and one of dana's, in the rooms' own database."""
    sentence = "Room booking is not active on this site, so there is no reservation to look at; administrators switch it on in Indico."
    switch_room_booking(site, False)
    assert result(site, OWNER, "--check", **{"from": "bruno", "to": "chloe"})["failures"] == [sentence]
    switch_room_booking(site, True)
    yield indico(site, BOOK)
    switch_room_booking(site, False)


def bookings(site: Site, who: str) -> set[str]:
    """Return the numbers of the reservations that somebody's own list shows."""
    browser = site.browser()
    assert browser.log_in(who, site.password("demo")) == "in"
    page = browser.get("/rooms/bookings?onlyMy=on&autoCriteria=True").text.replace(r"\/", "/")
    return set(re.findall(r"/rooms/booking/Universe/(\d+)/", page))


def test_reservations_change_hands(site: Site, booked: list[int]) -> None:
    first, second, other = booked
    before = indico(site, OWNED)
    assert set(booked[:2]) <= set(before["bruno"]) and other in before["dana"]
    assert str(first) in bookings(site, "bruno") and str(first) not in bookings(site, "chloe")
    refused = result(site, OWNER, **{"from": "bruno", "to": "chloe@example.org"})
    assert refused["failures"][0].endswith("to do it, run this again with -e confirm=yes") and indico(site, OWNED) == before

    check = result(site, OWNER, "--check", **{"from": "bruno", "to": "chloe@example.org", "reservations": [first]})
    assert len(check["steps"]) == 1 and check["steps"][0].startswith(f"reservation {first} of ") and indico(site, OWNED) == before
    one = result(site, OWNER, **{"from": "bruno", "to": "chloe@example.org", "reservations": [first], "confirm": "yes"})
    assert (one["steps"], one["reservations"], one["changed"]) == (check["steps"], [first], True)
    after = indico(site, OWNED)
    assert after["chloe"] == sorted([*before["chloe"], first]) and second in after["bruno"] and first not in after["bruno"]
    assert str(first) in bookings(site, "chloe") and str(first) not in bookings(site, "bruno")
    again = result(site, OWNER, **{"from": "bruno", "to": "chloe", "reservations": [first], "confirm": "yes"})
    assert (again["changed"], again["tasks_changed"], again["failures"]) == (False, [], [])

    everything = result(site, OWNER, **{"from": "bruno", "to": "chloe", "confirm": "yes"})
    assert second in everything["reservations"]
    after = indico(site, OWNED)
    assert after["bruno"] == [] and {first, second} <= set(after["chloe"]) and after["dana"] == before["dana"]
    assert sorted(chain(*after["index"].values())) == sorted(chain(*before["index"].values()))
    assert not result(site, OWNER, **{"from": "bruno", "to": "chloe", "confirm": "yes"})["changed"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"from": "nobody"}, "There is no user with the id, login or address nobody."),
        ({"to": "zoe@example.org"}, "There is no user with the id, login or address zoe@example.org."),
        ({"reservations": [4711]}, "There is no reservation 4711."),
    ],
)
def test_what_is_not_there_changes_no_hands(site: Site, booked: list[int], given: dict[str, Any], sentence: str) -> None:
    before = indico(site, OWNED)
    assert result(site, OWNER, **{"from": "bruno", "to": "chloe", "confirm": "yes", **given})["failures"] == [sentence]
    assert indico(site, OWNED) == before


def test_a_reservation_of_a_third_user_stays(site: Site, booked: list[int]) -> None:
    (sentence,) = result(site, OWNER, **{"from": "bruno", "to": "chloe", "confirm": "yes", "reservations": booked})["failures"]
    assert sentence.startswith(f"Of reservation {booked[2]} are neither ")


def test_a_name_that_stands_for_two_users_is_refused(site: Site, booked: list[int]) -> None:
    """A login that is another user's id."""
    script = (
        "from MaKaC.authentication.AuthenticationMgr import AuthenticatorMgr\nfrom MaKaC.user import LoginInfo\n"
        "answer, local = person('dana').getId(), AuthenticatorMgr().getById('Local')\n"
    )
    number = indico(site, script + "local._getIdx()[answer] = AuthenticatorMgr().createIdentity(LoginInfo(answer, 'x'), person('egon'), 'Local')")
    try:
        (sentence,) = result(site, OWNER, **{"from": number, "to": "chloe", "confirm": "yes"})["failures"]
    finally:
        indico(site, script + "del local._getIdx()[answer]")
    assert sentence.startswith(f"{number} stands for several users: ") and "dana@example.org" in sentence and "egon@example.org" in sentence


# Stored files

# Puts among the materials of an event an object whose class no release has, and one that refers to a file which the database does not name.
SPOIL = r"""
import sys, types
from persistent import Persistent
from MaKaC.conference import LocalFile, Material
module = sys.modules['gone'] = types.ModuleType('gone')
module.Lost = type('Lost', (Persistent,), {'__module__': 'gone'})
event = CategoryManager().getById('2').getConferenceList()[0]
event.materials['lost'], event.materials['named'] = module.Lost(), Material()
resource = LocalFile()
resource.setFileName('ghost.txt')
resource.setArchivedId(manager.getDBConnection().root()['local_repositories']['main'], 'nosuchid')
event.materials['named']._Material__resources['0'] = resource
event._p_changed = True
answer = event.getId()
"""
MEND = r"""
event = ConferenceHolder().getById(EVENT)
del event.materials['lost'], event.materials['named']
event._p_changed = True
"""


def test_a_file_that_is_gone_is_named_and_an_orphan_is_listed(site: Site, tmp_path: Path) -> None:
    clean = result(site, FILES)
    assert (clean["failures"], clean["missing"]["count"], clean["broken"]["count"], clean["unnamed"]["count"]) == ([], 0, 0, 0)
    archive = f"{site.prefix}/archive"
    path = site.run(f"find {archive} -name 'résumé.txt' | sort | head -1").removeprefix(f"{archive}/")
    report = tmp_path / "files.json"
    site.run(f"mv '{archive}/{path}' /var/tmp/moved && printf 12345 > {archive}/left.over && printf x > {archive}/$(printf 'caf\\351')")
    try:
        found = result(site, FILES, report_file=str(report))
        short = result(site, FILES, "--check", limit=0)
    finally:
        site.run(f"mv /var/tmp/moved '{archive}/{path}' && rm {archive}/left.over {archive}/$(printf 'caf\\351')")
    assert found["missing"] == {"count": 1, "paths": [path]} and json.loads(report.read_text())[site.name]["missing"] == found["missing"]
    assert found["failures"] == [f"1 of {clean['files']} stored files that the database names are not on disk, such as {path}."]
    assert found["orphans"]["count"] == clean["orphans"]["count"] + 2 and {"left.over", "caf\\xe9"} <= set(found["orphans"]["paths"])
    assert found["orphans"]["bytes"] == clean["orphans"]["bytes"] + 6 and found["stored"] == clean["stored"] + 1
    assert short["missing"] == {"count": 1, "paths": []} and short["failures"] == [
        f"1 of {clean['files']} stored files that the database names are not on disk."
    ]
    again = result(site, FILES)
    assert all(again[key] == clean[key] for key in ("files", "stored", "missing", "orphans", "unnamed", "broken", "failures"))


def test_a_name_as_older_versions_spelt_it_is_no_gap(site: Site) -> None:
    archive = f"{site.prefix}/archive"
    path = site.run(f"find {archive} -name 'résumé.txt' | sort | head -1")
    older = f"\"{Path(path).parent}/$(printf 'r\\351sum\\351.txt')\""
    site.run(f"mv '{path}' {older}")
    try:
        found = result(site, FILES)
    finally:
        site.run(f"mv {older} '{path}'")
    assert (found["failures"], found["missing"]["count"]) == ([], 0)


def test_objects_that_cannot_be_loaded_are_told(site: Site) -> None:
    event = indico(site, SPOIL)
    try:
        found = result(site, FILES)
    finally:
        indico(site, f"EVENT = {event!r}\n{MEND}")
    (broken,) = found["broken"]["objects"]
    assert broken["where"] == f"event {event}, material lost" and "gone.Lost" in broken["problem"]
    assert found["unnamed"] == {"count": 1, "objects": [f"event {event}, material named, resource 0: ghost.txt"]}
    assert found["failures"] == [], "only missing files are a failure"
