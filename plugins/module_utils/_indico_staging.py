# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The script of module indico_staging, Python 2.7 inside the release. It decides, then acts unless arguments['check'].

What it looks for is all that a database brings from another site and that reaches beyond its pages. Mail is no affair of the database.
"""

from __future__ import annotations

# These plugins do their work in the site itself, or read what everybody may.
KEPT = ("RoomBooking", "importer")

SCRIPT = r"""
connect()
import shutil
from indico.web.flask.app import make_app  # first: the others import each other in a circle
from indico.core.config import Config
from indico.modules.oauth.db import AccessTokenHolder, ConsumerHolder, RequestTokenHolder, TempRequestTokenHolder
from indico.web.http_api.auth import APIKeyHolder
from MaKaC.common.Announcement import getAnnoucementMgrInstance
from MaKaC.common.info import HelperMaKaCInfo
from MaKaC.conference import ConferenceHolder
from MaKaC.plugins.base import PluginsHolder
from MaKaC.webinterface.rh.JSContent import RHGetVarsJs

conf = Config.getInstance()
act = not arguments['check']

def banner(steps):
    # Indico shows its announcement only by way of a script, and each visitor may close it: this one stays.
    style = '<style>#announcementHeader {display: block !important} #closeAnnouncement {display: none}</style>'
    manager, text = getAnnoucementMgrInstance(), style + (arguments['banner'] or '')
    if arguments['banner'] and manager.getText() != text:
        steps.append('announcement: %s' % arguments['banner'])
        if act:
            manager.setText(text)

def rooms(steps):
    info = HelperMaKaCInfo.getMaKaCInfoInstance()
    if not arguments['rooms'] and getattr(info, '_roomBookingModuleActive', False):
        steps.append('room booking: off, there is no database for it')
        if act:
            info._roomBookingModuleActive = False

def analytics(steps):
    info = HelperMaKaCInfo.getMaKaCInfoInstance()
    if getattr(info, '_analyticsActive', False):
        steps.append('analytics: off')
        if act:
            info.setAnalyticsActive(False)

def agents(steps):
    kind = PluginsHolder().getPluginType('livesync') if PluginsHolder().hasPluginType('livesync', False, False) else None
    manager = kind.getStorage().get('agent_manager') if kind is not None else None
    for name, agent in sorted(manager.getAllAgents().items()) if manager is not None else []:
        if agent.isActive() or agent.isRecording():
            steps.append('LiveSync agent %s: inactive' % name)
            if act:
                agent._active = agent._recording = False

def plugins(steps):
    holder, changed = PluginsHolder(), False
    for kind in sorted(holder.getPluginTypes(includeNonPresent=True), key=lambda one: one.getId()):
        members = kind.getPluginList(includeNonPresent=True, includeTestPlugins=True, includeNonActive=True)
        for part in [kind] + members:
            for name, option in sorted(part.getOptions(includeNonPresent=True).items()):
                if option.getType() == 'password' and option.getValue():
                    steps.append('plugin %s: %s emptied' % (part.getFullId(), name))
                    if act:
                        option.setValue('')
        if kind.getId() in arguments['kept']:
            continue
        # setActive() of a kind loads all plugins anew each time.
        names = [part for part in [kind] + members if part.isActive()]
        steps.extend('plugin %s: off' % part.getFullId() for part in names)
        if act:
            for part in names:
                part.setActive(False) if part is not kind else setattr(kind, '_active', False)
                changed = True
    if changed:
        holder.reloadAllPlugins()

def payments(steps):
    count = 0
    for event in ConferenceHolder().getValuesToList():
        payment = getattr(event, '_modPay', None)
        if payment is not None and getattr(payment, 'activated', False):
            count += 1
            if act:
                payment.activated = False
        for one in (payment, event):
            if one is not None:
                one._p_deactivate()  # as many as there are, they need not all stay in memory; one that was changed stays
    if count:
        steps.append('payment: off in %d events' % count)

def keys(steps):
    holder = APIKeyHolder()
    found = list(holder.getList())
    if found:
        steps.append('API keys: %d removed' % len(found))
    if act:
        for key in found:
            key.remove()
    trusted = [consumer for consumer in ConsumerHolder().getList() if not consumer.isBlocked()]
    steps.extend('OAuth consumer %s: blocked' % consumer.getName() for consumer in trusted)
    if act:
        for consumer in trusted:
            consumer.setBlocked(True)
    for kind, one in (('access', AccessTokenHolder()), ('request', RequestTokenHolder()), ('temporary', TempRequestTokenHolder())):
        tokens = list(one.getList())
        if tokens:
            steps.append('OAuth %s tokens: %d removed' % (kind, len(tokens)))
        if act:
            for token in tokens:
                one.remove(token)

def empty_cache():
    'Sessions are in it, and the numbers of their users are those of other people in another database.'
    RHGetVarsJs.removeTmpVarsFile()
    backend = conf.getCacheBackend()
    if backend == 'files':
        for name in os.listdir(conf.getXMLCacheDir()):
            path = os.path.join(conf.getXMLCacheDir(), name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
    elif backend == 'memcached':
        import memcache
        memcache.Client(conf.getMemcachedServers()).flush_all()
    elif backend == 'redis':
        import redis
        for url in filter(None, (conf.getRedisCacheURL(), conf.getRedisConnectionURL())):
            forget(redis.StrictRedis.from_url(url))

def forget(client):
    'Delete each key, since role redis takes the command away that deletes all of them at once.'
    position = None
    while position != 0:
        position, keys = client.execute_command('SCAN', position or 0, 'COUNT', 1000)
        position = int(position)
        if keys:
            client.delete(*keys)

def work():
    steps = []
    for look in (banner, rooms, analytics, agents, plugins, payments, keys):
        look(steps)
    if steps and arguments['empty_cache']:
        steps.append('cache: emptied, sessions end')
        if act:
            empty_cache()
    return {'steps': steps}

with make_app(True).app_context():
    transact('confops.indico.indico_staging', work)
"""
