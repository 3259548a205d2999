# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The script of module indico_room_booking, Python 2.7 inside the release. It decides, then acts unless arguments['check']."""

from __future__ import annotations

SCRIPT = r"""
connect()
from MaKaC.common.info import HelperMaKaCInfo

# A getter of 1.2.2 writes its default where nothing was set, so the attributes are read.
FIELDS = [('address', '_roomBookingStorageParams', 'DBConnectionParams', ('localhost', 9676)), ('username', '_roomBookingDBUserName', 'DBUserName', ''),
          ('password', '_roomBookingDBPassword', 'DBPassword', ''), ('realm', '_roomBookingDBRealm', 'DBRealm', '')]
from indico.core.config import Config
conf = Config.getInstance()
declared = {'username': conf.getDBUserName(), 'password': conf.getDBPassword(), 'realm': conf.getDBRealm(), 'host': conf.getDBConnectionParams()[0]}
declared.update((name, value) for name, value in arguments.items() if value is not None)
declared['address'] = (declared['host'], declared['port'])

def work():
    info = HelperMaKaCInfo.getMaKaCInfoInstance()
    present = dict((name, getattr(info, attribute, default)) for name, attribute, _method, default in FIELDS)
    differing = [(name, method) for name, _attribute, method, _default in FIELDS if present[name] != declared[name]]
    steps = ['%s: %s' % (name, 'differs' if name == 'password' else '%s -> %s' % tuple(
        '%s:%s' % value if isinstance(value, tuple) else value or 'none' for value in (present[name], declared[name]))) for name, _method in differing]
    if not arguments['check']:
        for name, method in differing:
            getattr(info, 'setRoomBooking' + method)(declared[name])
    return {'steps': steps, 'active': bool(getattr(info, '_roomBookingModuleActive', False))}

transact('confops.indico.indico_room_booking', work)
"""
