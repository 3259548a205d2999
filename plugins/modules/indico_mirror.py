#!/usr/bin/python
# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: indico_mirror
short_description: Events as a static site that needs no Indico
version_added: 0.1.0
description:
  - Writes the events of a day, or those that are named, into a directory that a browser opens from disk, with an index of the events by time.
  - Event, timetable, sessions, contributions, authors, own pages and minutes are Indico's own pages, with their style sheets and pictures.
    Stored files keep their names and bytes. Links within the mirror are relative, others lead to the public site or to where they led before.
  - The site is read as a visitor reads it, and the database tells what has to be there. A file or page that the site does not give fails the run,
    as does any link in the new mirror that leads nowhere. The old mirror stays as it was then.
  - Indico 1.2.2 can make a static site of one event itself. That generator is not used. It packs stored files without asking who may see them,
    needs LaTeX for a conference, keeps its result in the archive and the database, makes no page for the contributions of a meeting, and checks no link.
  - The pages have no scripts, since those would ask the site. The timetable of a conference is the one that Indico makes without them;
    formulas stay as written in TeX.
  - The mirror is made beside O(target) and exchanged with it in one step, so a run that is killed leaves the old mirror or the new one.
author:
  - confops developers (@confops)
options:
  target:
    description:
      - Directory of the mirror, on this host. Its parent exists and nobody but root and the user of the run may write there.
      - What exists there and is no mirror is refused.
    type: path
    required: true
  day:
    description: The day whose events are mirrored, as C(2013-05-28), by the time zone of each event. Protected events are left out.
    type: str
  days:
    description: How many days are mirrored, O(day) the last of them.
    type: int
    default: 1
  categories:
    description: Ids of the categories whose events are mirrored, with those of their subcategories. An unknown one is refused. V(0) is the home of all.
    type: list
    elements: str
    default: ["0"]
  events:
    description: Ids of the events to mirror, whatever their day and category. An unknown or protected one is refused.
    type: list
    elements: str
  protected:
    description:
      - Whether the mirror may hold what is protected. Indico must then give 127.0.0.1 full access (its administration, Protection, IP-based access).
      - Without it, a host that has that access is refused. With it, only the mirror's owner may read it.
    type: bool
    default: false
  url:
    description: Address of the home page as this host reaches it, at 127.0.0.1.
    type: str
    required: true
  public_url:
    description: Address of the home page as browsers see it.
    type: str
    required: true
extends_documentation_fragment: confops.indico.release
attributes:
  check_mode:
    support: partial
    description: Says which events would be mirrored, and whether the mirror has others.
    details:
      - The pages are not read, so it does not know whether they differ.
  diff_mode:
    support: none
    description: Says how many files there are, not how they differ.
  idempotent:
    support: full
    description: A mirror that would be the same, byte for byte, is not touched.
"""

EXAMPLES = r"""
- name: The events of a day
  confops.indico.indico_mirror:
    target: /srv/mirror
    day: "2013-05-28"
    url: https://127.0.0.1/
    public_url: https://indico.example.org/

- name: Two conferences
  confops.indico.indico_mirror:
    target: /srv/conferences
    events: ["1", "2"]
    url: https://127.0.0.1/
    public_url: https://indico.example.org/
"""

RETURN = r"""
target:
  description: Directory of the mirror.
  type: str
  returned: success
  sample: /srv/mirror
events:
  description: The events by time, each with its pages and files in number and bytes. In check mode only C(id), C(title) and C(start).
  type: list
  elements: dict
  returned: success
  sample: [{id: "16", title: Open software for conferences, start: "2013-05-28 09:00", files: 21, bytes: 312000}]
files:
  description: How many files the mirror has.
  type: int
  returned: success, not in check mode
  sample: 180
bytes:
  description: Their bytes.
  type: int
  returned: success, not in check mode
  sample: 2306867
left_out:
  description: The events of the days that are protected, with C(id) and C(title).
  type: list
  elements: dict
  returned: success
  sample: []
elsewhere:
  description: What pages of the mirror link to on the site and a visitor does not get, C(url) and C(why). These links lead to the site.
  type: list
  elements: dict
  returned: success, not in check mode
  sample: [{url: "https://indico.example.org/event/16/contribution/7", why: the site answered 404}]
broken:
  description: The links that lead nowhere, with C(page), C(link) and C(why). Empty when the mirror was made.
  type: list
  elements: dict
  returned: always, not in check mode
  sample: []
seconds:
  description: How long it took.
  type: float
  returned: success, not in check mode
  sample: 12.4
line:
  description: The same for people.
  type: str
  returned: success
  sample: "1 event, 180 files, 2.20 MB in /srv/mirror, no broken link, 12.4 s: 16 Open software for conferences"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.confops.indico.plugins.module_utils import _indico, _indico_mirror, _numbers, _repository


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "target": {"type": "path", "required": True},
            "day": {"type": "str"},
            "days": {"type": _numbers.WHOLE_DAYS, "default": 1},
            "categories": {"type": "list", "elements": "str", "default": ["0"]},
            "events": {"type": "list", "elements": "str"},
            "protected": {"type": "bool", "default": False},
            "url": {"type": "str", "required": True},
            "public_url": {"type": "str", "required": True},
            **_indico.OPTIONS,
        },
        mutually_exclusive=[("day", "events")],
        required_one_of=[("day", "events")],
        supports_check_mode=True,
    )
    try:
        result = _indico_mirror.mirror(module.params, check=module.check_mode)
    except _indico_mirror.MirrorError as error:
        module.fail_json(msg=str(error), broken=error.broken)
    except (_indico.IndicoError, OSError) as error:
        module.fail_json(msg=_repository.told(error), broken=[])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
