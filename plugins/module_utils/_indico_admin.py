# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The scripts of the administrators' modules, Python 2.7 inside the release. SCRIPT decides, then acts unless arguments['check']; LIST reads."""

from __future__ import annotations

from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _indico_content

_OWN = r"""
from MaKaC.common.info import HelperMaKaCInfo
from MaKaC.user import Avatar, LoginInfo

FIELDS = [('email', 'Email'), ('first_name', 'FirstName'), ('family_name', 'FamilyName')]

def find():
    'Return the account with this login or, failing that, with this address, and its local identity.'
    for identity in identities(arguments['login'], ['Local']) if arguments['login'] else []:
        return identity.getUser(), identity
    if arguments['email']:
        for avatar in accounts_at(arguments['email']):
            return avatar, None
    return None, None

def decide(avatar, identity, administrators):
    if arguments['state'] == 'absent':
        if avatar is None or avatar not in administrators:
            return []
        if len(administrators) == 1:
            answer(refused='%s is the only administrator. Without one, Indico lets any visitor with an account appoint the next; '
                           'create another administrator first.' % (arguments['login'] or arguments['email']))
        return ['administrator: no longer']
    missing = [name for name in ('login', 'password', 'email', 'first_name', 'family_name') if not arguments[name]]
    if avatar is None and missing:
        answer(refused='There is no account %s yet; to create it, give %s.' % (arguments['login'] or arguments['email'], ', '.join(missing)))
    if avatar is not None and arguments['login'] and identity is None and not arguments['password']:
        answer(refused='The account %s has no login %s yet; to add it, give a password.' % (arguments['email'], arguments['login']))
    steps = []
    if avatar is None:
        steps.append('account: created')
    else:
        for name, attribute in FIELDS:
            present = getattr(avatar, 'get' + attribute)()
            if arguments[name] and present != (arguments[name].lower() if name == 'email' else arguments[name]):
                steps.append('%s: %s -> %s' % (name, present, arguments[name]))
        if not avatar.isActivated():
            steps.append('account: activated')
    if identity is None and arguments['login']:
        steps.append('login: added')
    elif identity is not None and arguments['password'] and identity.authenticate(LoginInfo(arguments['login'], arguments['password'])) is None:
        steps.append('password: differs')
    if avatar is None or avatar not in administrators:
        steps.append('administrator: granted')
    return steps

def act(avatar, identity, info):
    if arguments['state'] == 'absent':
        info.getAdminList().revoke(avatar)
        return
    if avatar is None:
        avatar = Avatar()
        avatar.setOrganisation(info.getOrganisation())
        avatar.setLang(info.getLang())
        avatar.setTimezone(info.getTimezone())
        for name, attribute in FIELDS:
            getattr(avatar, 'set' + attribute.replace('FirstName', 'Name').replace('FamilyName', 'SurName'))(arguments[name])
        AvatarHolder().add(avatar)
    else:
        for name, attribute in FIELDS:
            if arguments[name] and getattr(avatar, 'get' + attribute)() != arguments[name]:
                getattr(avatar, 'set' + attribute.replace('FirstName', 'Name').replace('FamilyName', 'SurName'))(arguments[name])
    if identity is None and arguments['login']:
        authenticators = AuthenticatorMgr()
        authenticators.add(authenticators.createIdentity(LoginInfo(arguments['login'], arguments['password']), avatar, 'Local'))
    elif identity is not None and arguments['password'] and identity.authenticate(LoginInfo(arguments['login'], arguments['password'])) is None:
        identity.setPassword(arguments['password'])
    if not avatar.isActivated():
        avatar.activateAccount(checkPending=False)
    info.getAdminList().grant(avatar)

def work():
    info = HelperMaKaCInfo.getMaKaCInfoInstance()
    avatar, identity = find()
    steps = decide(avatar, identity, info.getAdminList().getList())
    if steps and not arguments['check']:
        act(avatar, identity, info)
    return {'steps': steps}

transact('confops.indico.indico_admin %s' % (arguments['login'] or arguments['email']), work)
"""
SCRIPT = "connect()\n" + _indico_content.ACCOUNTS + _OWN

LIST = r"""
connect()
from MaKaC.common.info import HelperMaKaCInfo
def data(avatar):
    return {'id': avatar.getId(), 'name': '%s %s' % (avatar.getFirstName(), avatar.getFamilyName()), 'email': avatar.getEmail(),
            'activated': bool(avatar.isActivated()),
            'logins': sorted('%s: %s' % (identity.getAuthenticatorTag(), identity.getLogin()) for identity in avatar.getIdentityList())}
answer(administrators=sorted(map(data, HelperMaKaCInfo.getMaKaCInfoInstance().getAdminList().getList()), key=lambda one: one['email']))
"""


def summary(administrators: list[dict[str, Any]]) -> list[str]:
    """Return the answer of LIST for people, a line for each."""
    return [
        f"{one['name']} <{one['email']}>, {', '.join(one['logins']) or 'no login'}{'' if one['activated'] else ', not activated'}" for one in administrators
    ]
