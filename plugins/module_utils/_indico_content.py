# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Python 2.7 that several scripts inside a release have in common; each names what it uses in front of its own text."""

from __future__ import annotations

# What the database holds, for answer(), which takes UTF-8 only.
OBJECTS = r"""
from ZODB.broken import Broken
from ZODB.POSException import POSError

def text(value):
    try:
        return value.decode('utf-8') if isinstance(value, str) else unicode(value)
    except UnicodeDecodeError:
        return value.decode('latin-1')

def called(thing):
    'Return id and title of an event or a category.'
    return u'%s (%s)' % (text(thing.getId()), text(thing.getTitle()))

def loads(thing, where, broken):
    'Whether an object can be loaded; one that cannot is noted in broken.'
    try:
        if isinstance(thing, Broken):
            raise TypeError('its class is %s.%s, which this release does not have' % (thing.__class__.__module__, thing.__class__.__name__))
        getattr(thing, '_p_activate', lambda: None)()
        return True
    except (POSError, AttributeError, ImportError, TypeError) as error:
        broken.append({'where': text(where), 'problem': text('%s: %s' % (type(error).__name__, error))})
        return False
"""

# People, after connect().
ACCOUNTS = r"""
from MaKaC.authentication.AuthenticationMgr import AuthenticatorMgr
from MaKaC.common.indexes import IndexesHolder
from MaKaC.user import AvatarHolder

def identities(login, authenticators=None):
    'Return the identities with this login, of these authenticators or, left out, of all that the site uses.'
    asked = [AuthenticatorMgr().getById(one) for one in authenticators] if authenticators else AuthenticatorMgr().getList()
    return [one.getById(login) for one in asked if one.hasKey(login)]

def accounts_at(address):
    'Return the accounts with this address, activated or not.'
    ids = IndexesHolder().getById('email').matchUser(address.strip(), exact=1) or []
    return [AvatarHolder().getById(one) for one in sorted(set(ids)) if AvatarHolder().hasKey(one)]

def accounts(word):
    'Return the accounts of which this is the id, a login or an address.'
    found = [AvatarHolder().getById(word)] if AvatarHolder().hasKey(word) else []
    found += [one.getUser() for one in identities(word)] + accounts_at(word)
    return dict((one.getId(), one) for one in found if one is not None).values()
"""

# Stored files, after connect() and OBJECTS. Nothing of it changes what it looks at.
FILES = r"""
from MaKaC.conference import LocalFile

def parts(event, broken):
    'Yield an event and all in it that may have material, each with words for where it is.'
    name = 'event %s' % event.getId()
    if not loads(event, name, broken):
        return
    yield name, event
    for key, session in event.sessions.items():
        where = '%s, session %s' % (name, key)
        if loads(session, where, broken):
            yield where, session
    for key, contribution in event.contributions.items():
        where = '%s, contribution %s' % (name, key)
        if loads(contribution, where, broken):
            yield where, contribution
            for part in getattr(contribution, '_subConts', []):
                if loads(part, '%s, a subcontribution' % where, broken):
                    yield '%s, subcontribution %s' % (where, part.getId()), part

def stored_in(where, holder, broken):
    'Yield the stored files of what may have material, each with words for where it is.'
    for attribute in ('_logo', '_icon'):
        picture = getattr(holder, attribute, None)
        if picture is not None and loads(picture, '%s, its picture' % where, broken) and isinstance(picture, LocalFile):
            yield '%s, its picture' % where, picture
    materials = list((getattr(holder, 'materials', None) or {}).items())
    materials += [(name, getattr(holder, name, None)) for name in ('paper', 'slides', 'video', 'poster', 'minutes', 'reviewing')]
    for key, material in materials:
        inside = '%s, material %s' % (where, key)
        if material is None or not loads(material, inside, broken):
            continue
        resources = list((getattr(material, '_Material__resources', None) or {}).items())
        if getattr(material, 'file', None) is not None:
            resources.append(('minutes', material.file))
        for number, resource in resources:
            deep = '%s, resource %s' % (inside, number)
            if loads(resource, deep, broken) and isinstance(resource, LocalFile):
                yield deep, resource
"""
