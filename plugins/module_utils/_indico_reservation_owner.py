# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The script of module indico_reservation_owner, Python 2.7 inside the release. It decides, then acts unless arguments['check'].

Indico finds the reservations of a user by an index of its own, which 1.2.2 keeps only when a reservation is made or removed.
"""

from __future__ import annotations

from ansible_collections.confops.indico.plugins.module_utils import _indico_content

_OWN = r"""
from MaKaC.common.info import HelperMaKaCInfo
info = HelperMaKaCInfo.getMaKaCInfoInstance()
if not getattr(info, '_roomBookingModuleActive', False):
    answer(refused='Room booking is not active on this site, so there is no reservation to look at; administrators switch it on in Indico.')
from MaKaC.plugins.RoomBooking.default.dalManager import DALManager
if not DALManager.usesMainIndicoDB():
    host, port = info.getRoomBookingDBConnectionParams()
    error = unanswered(host, port)
    if error:
        answer(refused="The rooms' database at %s:%s does not answer (%s)." % (host, port, error))
DALManager.connect()
from MaKaC.plugins.RoomBooking.default.reservation import Reservation

def named(one):
    return u'%s (%s, %s)' % tuple(text(part) for part in (one.getId(), one.getFullName(), one.getEmail()))

def account(word):
    found = accounts(word)
    if not found:
        answer(refused=text('There is no user with the id, login or address %s.' % word))
    if len(found) > 1:
        answer(refused=u'%s stands for several users: %s; give another id, login or address.' % (text(word), ', '.join(sorted(named(one) for one in found))))
    return found[0]

def chosen(giver, taker, by_id, by_user):
    'Return the reservations that change hands.'
    if not arguments['reservations']:
        return [one for one in by_user.get(giver.getId(), []) if one.createdBy == giver.getId()]
    unknown = [str(number) for number in arguments['reservations'] if number not in by_id]
    if unknown:
        answer(refused='There is no reservation %s.' % ', '.join(unknown))
    asked = [by_id[number] for number in sorted(set(arguments['reservations']))]
    others = [one for one in asked if one.createdBy not in (giver.getId(), taker.getId())]
    if others:
        answer(refused=text('Of %s are neither %s nor %s the creator.' % (', '.join('reservation %s' % one.id for one in others), named(giver), named(taker))))
    return [one for one in asked if one.createdBy == giver.getId()]

def told(one, giver, taker):
    when, where = one.startDT.strftime('%Y-%m-%d %H:%M'), text(one.room.name or 'a room')
    return u'reservation %s of %s in %s: %s -> %s' % (one.id, when, where, text(giver.getEmail()), text(taker.getEmail()))

def work():
    giver, taker = account(arguments['from']), account(arguments['to'])
    by_id, by_user = Reservation.getReservationsRoot(), Reservation.getUserReservationsIndexRoot()
    moved = chosen(giver, taker, by_id, by_user) if giver is not taker else []
    steps, numbers = [told(one, giver, taker) for one in moved], [one.id for one in moved]
    if moved and not arguments['check']:
        for one in moved:
            one.createdBy = taker.getId()
            one.clearCalendarCache()
        # New lists: one that is changed in its place may not be written.
        by_user[taker.getId()] = [one for one in by_user.get(taker.getId(), []) if one.id not in numbers] + moved
        left = [one for one in by_user.get(giver.getId(), []) if one.id not in numbers]
        if left:
            by_user[giver.getId()] = left
        elif giver.getId() in by_user:
            del by_user[giver.getId()]
    return {'steps': steps, 'reservations': numbers, 'giver': named(giver), 'taker': named(taker)}

transact('confops.indico.indico_reservation_owner %s %s' % (arguments['from'], arguments['to']), work)
"""
SCRIPT = "connect()\n" + _indico_content.OBJECTS + _indico_content.ACCOUNTS + _OWN
