# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The script of module indico_event_restore, Python 2.7 inside the release. It decides, then acts unless arguments['check'].

What Conference.delete and Category.removeConference of 1.2.2 do is undone. They leave the event's parts as they are, so what a part lost before stays
lost. They take away where the event was, its evaluation and its alarms: those are read from the revisions of the objects, which ZODB keeps until a pack.

The event itself should be in the trash, but TrashCanManager.add of 1.2.2 takes every process for a test and adds nothing: what it asks for is a
DummyDict where nothing was set, which is true. So a deleted event is what older revisions of the list of events hold and the newest one does not.
"""

from __future__ import annotations

from ansible_collections.confops.indico.plugins.module_utils import _indico_content

_OWN = r"""
import datetime
from BTrees.OOBTree import OOBTree
from persistent import Persistent
from MaKaC.common.timezoneUtils import nowutc
from MaKaC.common.url import ShortURLMapper
from MaKaC.conference import CategoryManager, Conference, ConferenceHolder
from MaKaC.evaluation import Evaluation, EvaluationAlarm
from MaKaC.trashCan import TrashCanManager
from MaKaC.user import Avatar, AvatarHolder

def moment(value):
    return value.isoformat().replace('+00:00', 'Z')

def revisions(thing):
    'Yield tid and state of an object, the newest first, as far as they are not packed away.'
    connection = manager.getDBConnection()
    try:
        for one in connection.db().history(thing._p_oid, size=1000):
            yield one['tid'], connection.oldstate(thing, one['tid'])
    except POSError:
        return

def ever_listed():
    'Yield id and event of all that the list of events holds in any revision.'
    waiting, seen = [ConferenceHolder()._getIdx()], set()
    while waiting:
        node = waiting.pop()
        if node._p_oid in seen:
            continue
        seen.add(node._p_oid)
        for _tid, state in revisions(node):
            if isinstance(node, OOBTree) and state is not None and len(state) == 1:
                state = state[0][0]  # its only bucket, which has no record of its own
            elif isinstance(node, OOBTree):
                waiting.extend(state[0][::2] if state is not None else [])
                continue
            for pair in zip(state[0][::2], state[0][1::2]):
                yield pair

def deleted():
    'Return the deleted events by their ids: those in the trash, as earlier versions left them, and those that a pack has not reached yet.'
    found = dict((key, one) for key, one in ever_listed() if not ConferenceHolder().hasKey(key))
    trash = [one for one in TrashCanManager()._getIdx().values() if isinstance(one, Conference) and loads(one, 'event', [])]
    found.update((one.getId(), one) for one in trash if not ConferenceHolder().hasKey(one.getId()))
    return found

def listed(broken):
    found = [{
        'event': key, 'title': text(one.getTitle()), 'start': moment(one.getStartDate()),
        'deleted': moment(datetime.datetime.utcfromtimestamp(int(one._p_mtime))) + 'Z',
    } for key, one in deleted().items() if loads(one, 'event %s' % key, broken)]
    return sorted(found, key=lambda one: (one['deleted'], one['event']))

def before_deletion(event):
    'Return the tid of the deletion and the state that the event had before, or twice None when that is packed away.'
    deletion = None
    for tid, state in revisions(event):
        if state.get('_Conference__owners'):
            return deletion, state
        deletion = tid
    return None, None

def decide_category(former):
    'Return the category that the event goes to.'
    event, wanted, known = arguments['event'], arguments['category'], CategoryManager()._getIdx()
    own = None
    if former is None:
        why = 'Which category event %s was in is packed away' % event
    else:
        was = former['_Conference__owners'][0]
        own = known.get(was.getId()) if loads(was, 'category', []) else None
        why = 'The category that event %s was in is gone' % event
        if own is not None and own.subcategories:
            why = 'Category %s, which event %s was in, holds categories now, and so no events' % (called(own), event)
            own = None
    if wanted is None:
        if own is None:
            answer(refused=text('%s; name the one that it is to go to, as category.' % why))
        return own
    if wanted not in known:
        answer(refused=text('There is no category %s.' % wanted))
    if own is not None and own is not known[wanted]:
        answer(refused=text('Event %s was in category %s, which can have it back; restore it there, without category, and move it in Indico.'
                            % (event, called(own))))
    if known[wanted].subcategories:
        answer(refused=text('Category %s holds categories, and so no events.' % called(known[wanted])))
    return known[wanted]

def bring_back(thing, deletion, seen):
    'Give an object of an evaluation, and those of the same kind that it refers to, the state that they had before the deletion.'
    if isinstance(thing, (list, tuple)):
        for one in thing:
            bring_back(one, deletion, seen)
    elif isinstance(thing, dict):
        bring_back(thing.values(), deletion, seen)
    elif isinstance(thing, Persistent) and type(thing).__module__ == 'MaKaC.evaluation' and not isinstance(thing, EvaluationAlarm) and thing._p_oid not in seen:
        seen.add(thing._p_oid)
        state = state_before(thing, deletion)
        if state is not None:
            thing._p_activate()  # or the next line but one would load the present state
            thing.__setstate__(state)
            thing._p_changed = True
            bring_back(state, deletion, seen)
            if isinstance(state.get('_submitter'), Avatar):
                state['_submitter'].linkTo(thing, 'submitter')

def state_before(thing, deletion):
    return next((state for tid, state in revisions(thing) if tid < deletion), None)

def evaluations_before(deletion, former):
    'Return the evaluations that the event had, or None when one of them is packed away.'
    if former is None:
        return None
    found = former.get('_evaluations', [])
    return found if found and all(state_before(one, deletion) is not None for one in found) else None

def restore_evaluations(event, deletion, evaluations):
    if evaluations is None:
        event.setEvaluations([Evaluation(event)])
        return
    bring_back(evaluations, deletion, set())
    event.setEvaluations(list(evaluations))
    for evaluation in evaluations:
        alarms = list(evaluation.getAlarms())
        evaluation.alarms = {}
        if alarms:
            from indico.web.flask.app import make_app
            with make_app(True).app_context():
                for key in alarms:
                    evaluation.setAlarm(key)

def alarms_before(event, former):
    'Return the alarms that went with the event: those that are still to come, and those whose time has passed.'
    lost = [alarm for key, alarm in (former or {}).get('alarmList', {}).items() if key not in event.alarmList and not isinstance(alarm, EvaluationAlarm)]
    lost = [alarm for alarm in lost if loads(alarm, 'alarm', []) and not alarm.getEndedOn()]
    return [one for one in lost if one.getStartOn() > nowutc()], [one for one in lost if one.getStartOn() <= nowutc()]

def restore_alarm(event, alarm):
    'Schedule it anew, as Indico does for a copy of an event: the scheduler has thrown away the task.'
    copy = alarm.clone(event)
    for address in alarm.getCcAddrList():
        copy.addCcAddr(address)
    for user in alarm.getToUserList():
        copy.addToUser(user)

def link_people(event):
    event.linkCreator()
    for role, people in (('manager', event.getManagerList()), ('chair', event.getChairList())):
        for person in people:
            if isinstance(person, Avatar):
                person.linkTo(event, role)
    from indico.util.redis import avatar_links, write_client
    if not write_client:
        return
    # A deletion makes Redis forget every role in the event, of which the accounts still know.
    for avatar in AvatarHolder()._getIdx().values():
        for kind, roles in getattr(avatar, 'linkedTo', {}).items():
            for role, things in roles.items():
                for thing in things:
                    if loads(thing, 'link', []) and of_event(thing) is event:
                        avatar_links.add_link(avatar, event, '%s_%s' % (kind, role))

def of_event(thing):
    from indico.util.redis import avatar_links
    try:
        return avatar_links.event_from_obj(thing)
    except AttributeError:
        return None  # it was itself deleted

def announce(event, category):
    'Tell the plugins, as Indico does of a new event.'
    from indico.core.index import Catalog
    from MaKaC.plugins.base import PluginsHolder
    plugins = PluginsHolder()
    listener = None
    if plugins.hasPluginType('livesync'):
        from indico.ext.livesync.components import RequestListenerContext
        listener = RequestListenerContext()
        listener.__enter__()
    videos = Catalog.getIdx('cs_bookingmanager_conference')
    kept = videos.get(event.getId()) if videos is not None else None
    event._notify('created', category)
    if kept is not None:
        videos.index(event.getId(), kept)  # a new event gets an empty list of video services, which takes the place of its own
    for contribution in event.getContributionList():
        contribution._notify('created', event)
        for part in contribution.getSubContributionList():
            part._notify('created', contribution)
    if listener is not None:
        listener.__exit__(None, None, None)
    if plugins.hasPluginType('calendaring'):
        from indico.ext.calendaring.storage import updateConference
        updateConference(event, 'added')

def report(event, category, steps, notes):
    broken, found, missing = [], 0, []
    for where, holder in parts(event, broken):
        for deep, resource in stored_in(where, holder, broken):
            try:
                path = resource.getFilePath()
            except KeyError:
                path = None
            if path is not None and os.path.isfile(path):
                found += 1
            else:
                missing.append(text('%s: %s' % (deep, path or resource.getFileName())))
    return {
        'steps': steps, 'notes': notes, 'title': text(event.getTitle()), 'category': category.getId() if category else None,
        'category_title': text(category.getTitle()) if category else None, 'contributions': len(event.contributions), 'sessions': len(event.sessions),
        'files_found': found, 'files_missing': missing, 'broken': broken,
    }

def work():
    identifier = arguments['event']
    if ConferenceHolder().hasKey(identifier):
        event = ConferenceHolder()._getIdx()[identifier]
        return report(event, event.getOwner(), [], [])
    event = deleted().get(identifier)
    if event is None or not loads(event, 'event', []):
        answer(refused=text('There is no event %s, and the database holds no deleted one; after a pack, only a backup does.' % identifier))
    deletion, former = before_deletion(event)
    category = decide_category(former)
    evaluations, (coming, passed) = evaluations_before(deletion, former), alarms_before(event, former)
    tag, short = event.getUrlTag(), ShortURLMapper()
    taken = bool(tag) and short.hasKey(tag)

    steps = ['event %s: in the list of events' % identifier, text('category: %s' % called(category))]
    steps.append('evaluation: %s' % ('as it was' if evaluations is not None else 'a new one, since the old one is packed away'))
    steps += ['alarm of %s: scheduled' % moment(one.getStartOn()) for one in coming]
    steps += [text('short address: %s' % tag)] if tag and not taken else []
    notes = ['alarm of %s: not sent, its time has passed' % moment(one.getStartOn()) for one in passed]
    notes += ['alarms: those that were still to come are packed away, if there were any'] if former is None else []
    notes += [text('short address: %s now belongs to event %s' % (tag, short.getById(tag).getId()))] if taken else []
    rooms = len(event.getRoomBookingGuids())
    notes += ['rooms: Indico cancels what an event reserved when it is deleted; this one had %d' % rooms] if rooms else []

    if not arguments['check']:
        TrashCanManager().remove(event)
        ConferenceHolder().add(event)
        category._addConference(event)
        restore_evaluations(event, deletion, evaluations)
        for alarm in coming:
            restore_alarm(event, alarm)
        link_people(event)
        if taken:
            event.setUrlTag('')  # or a later deletion would take the other event's
        elif tag:
            short.add(tag, event)
        announce(event, category)
    return report(event, category, steps, notes)

if arguments['event'] is None:
    broken = []
    answer(steps=[], events=listed(broken), broken=broken)
transact('confops.indico.indico_event_restore %s' % arguments['event'], work)
"""
SCRIPT = "manager = connect()\n" + _indico_content.OBJECTS + _indico_content.FILES + _OWN
