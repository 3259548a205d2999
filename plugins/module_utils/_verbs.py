# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The extra variables, groups and tags of every playbook, and what is wrong with a command line.

This table is the only source: the playbooks check against it, and a test compares the surveys of AWX with it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _indico_conf, _preflight

_LONGEST = 10**18
LARGEST = 100_000  # of the numbers that have no other limit


@dataclass(frozen=True)
class Variable:
    """One extra variable of a playbook.

    kind: text; number and integer, both from low to high; flag (true or false); choice, one of choices;
    words, a list of texts or a text with commas between them, each one of choices if there are any.
    need: what to say when it is missing; empty when the playbook can do without. {GROUP} in it stands for the hosts of that group.
    """

    kind: str = "text"
    low: float = 0
    high: float = LARGEST
    choices: tuple[str, ...] = ()
    need: str = ""


@dataclass(frozen=True)
class Verb:
    """One playbook: the groups that it works on (at least one of them must have a host), its extra variables, and its tags."""

    groups: tuple[str, ...]
    variables: Mapping[str, Variable] = field(default_factory=dict)
    tags: tuple[str, ...] = ()


_TEXT, _FLAG, _WORDS = Variable(), Variable("flag"), Variable("words")
_ON_CONTROLLER = {"report_file": _TEXT}  # every verb takes it
_DATABASES, _APPLICATION = ("indico_zeo",), ("indico_app",)
_RELEASES = ("indico_app", "indico_scheduler", "indico_zeo")
# The groups that the roles go by, and what happens without a host in those that every site needs.
GROUPS = ("indico", "indico_zeo", "indico_app", "indico_scheduler", "indico_backup", "indico_cache", "indico_loadbalancer")
_NEEDED = {"indico_zeo": "serves the databases", "indico_app": "serves the pages", "indico_scheduler": "runs the scheduler"}
_OWNERS = "Say whose reservations they are and whose they become, with -e from=... -e to=..."

VERBS: dict[str, Verb] = {
    "backup": Verb(_DATABASES, {"why": _TEXT, "full": _FLAG}),
    "category_integrity": Verb(_APPLICATION, {"repair": _FLAG}),
    "check": Verb(
        _DATABASES,
        {"days": Variable("integer", 1), "since": _TEXT, "top": Variable("integer", 1), "allow_dangling": Variable("integer")},
    ),
    "cleanup": Verb(
        ("indico_app", "indico_scheduler", "indico_zeo"),
        {
            "what": Variable("words", choices=("cache", "tmp", "sessions", "logs", "replaced")),
            "cache_days": Variable("number"),
            "min_age_hours": Variable("number"),
            "log_days": Variable("number"),
            "replaced_days": Variable("number"),
        },
    ),
    "deploy": Verb(_RELEASES, {"unlock": _FLAG}),
    "disk_space": Verb(
        ("indico",),
        {
            "warning_percent": Variable("integer", 1, 100),
            "critical_percent": Variable("integer", 1, 100),
            "warning_days": Variable("integer"),
        },
    ),
    "drill": Verb(_DATABASES),
    "event_restore": Verb(_APPLICATION, {"event": _TEXT, "category": _TEXT}),
    "failback": Verb(
        _DATABASES,
        {
            "host": Variable(need="Name the host to bring back: -e host=, one of {indico_zeo}."),
            "discard": _TEXT,
            "confirm": _TEXT,
        },
    ),
    "failover": Verb(
        _DATABASES,
        {
            "to": Variable(need="Name the host that is to be the primary: -e to=, one of {indico_zeo}."),
            "unplanned": _FLAG,
            "incomplete": _FLAG,
            "confirm": _TEXT,
        },
    ),
    "file_check": Verb(_APPLICATION, {"limit": Variable("integer")}),
    "maintenance": Verb(
        ("indico_app", "indico_scheduler"),
        {
            "state": Variable("choice", choices=("on", "off"), need="Say what is wanted: -e state=on or -e state=off."),
            "text": _TEXT,
            "retry_after": Variable("integer", 1, 9_999_999),
            "allow": _WORDS,
        },
    ),
    "migrate": Verb(_RELEASES, {"rehearse": _FLAG, "unlock": _FLAG}),
    "migrate_back": Verb(_RELEASES, {"unlock": _FLAG}),
    "offline_mirror": Verb(
        _APPLICATION,
        {
            "day": _TEXT,
            "days": Variable("integer", 1, 366),
            "categories": _WORDS,
            "events": _WORDS,
            "target": Variable(need="Say where the mirror goes: -e target=/srv/mirror."),
            "protected": _FLAG,
            "fetch": _TEXT,
        },
    ),
    "old_crontabs": Verb(("indico",), {"remove": _WORDS}),
    "pack": Verb(_DATABASES, {"days": Variable("number")}),
    "pull": Verb(("indico_backup",)),
    "refresh": Verb(
        _DATABASES,
        {
            "from": Variable(need="Say where the sets are, as the absolute path of a directory on the copy's host: -e from=/srv/production."),
            "set": _TEXT,
            "confirm": _TEXT,
        },
    ),
    "reservation_owner": Verb(
        _APPLICATION,
        {
            "from": Variable(need=_OWNERS),
            "to": Variable(need=_OWNERS),
            "reservations": _WORDS,
            "confirm": Variable("choice", choices=("no", "yes")),
        },
    ),
    "restore": Verb(_DATABASES, {"set": _TEXT, "time": _TEXT, "storage": _TEXT, "confirm": _TEXT}),
    "rollback": Verb(_RELEASES, {"release": _TEXT, "unlock": _FLAG}),
    "site": Verb(
        ("indico",),
        tags=(
            "backup",
            "cache",
            "cron",
            "indico",
            "loadbalancer",
            "logrotate",
            "mail",
            "memcached",
            "offsite",
            "redis",
            "scheduler",
            "web",
            "zeo",
        ),
    ),
    "status": Verb(("indico",)),
    "verify": Verb(_DATABASES, {"scope": Variable("choice", choices=("all", "new"))}),
}
_SPECIAL_TAGS = ("all", "always", "never", "tagged", "untagged")
# Ansible's own, those of AWX, and the outcome of the job before in a workflow of AWX.
_FOREIGN = ("ansible_", "awx_", "tower_")
_ARTIFACT = "outcome"
_CUT = "_raw_params"  # where Ansible puts the words of -e 'key=value' that have no equals sign
_WORDS_FOR_TRUE, _WORDS_FOR_FALSE = ("yes", "true", "on"), ("no", "false", "off")


def variables(verb: str) -> dict[str, Variable]:
    """Return the extra variables of a playbook."""
    return {**VERBS[verb].variables, **_ON_CONTROLLER}


def check_value(name: str, variable: Variable, value: Any) -> Iterator[str]:
    """Yield what is wrong with the value of an extra variable. An empty one was not given, as AWX has it, and is right."""
    if value is None or value == "":
        return
    wanted = _wanted(variable, value)
    if wanted:
        yield f"{name} is {_shown(value)}; it must be {wanted}."


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a dictionary"
    if isinstance(value, int) and abs(value) > _LONGEST:  # Python refuses to write what is longer still
        return "a number of more than 18 digits"
    return "a list" if isinstance(value, (list, tuple)) else repr(value)


def _wanted(variable: Variable, value: Any) -> str | None:
    """Return what a value must be when it is not."""
    if variable.kind == "words":
        items = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
        good = all(_is_text(item) and (not variable.choices or str(item).strip() in variable.choices) for item in items)
        return None if good else f"a list of {', '.join(variable.choices) or 'texts'}, or a text with commas between them"
    if variable.kind == "text":
        return None if _is_text(value) or isinstance(value, date) else "a text"
    if variable.kind == "flag":
        good = isinstance(value, bool) or str(value).lower() in ("yes", "no", "true", "false")
        return None if good else "true or false"
    if variable.kind == "choice":  # YAML makes true and false of some words
        words = [str(value).lower()] if not isinstance(value, bool) else _WORDS_FOR_TRUE if value else _WORDS_FOR_FALSE
        alike = next((group for group in (_WORDS_FOR_TRUE, _WORDS_FOR_FALSE) if words[0] in group), words)
        good = any(word in variable.choices for word in alike)
        return None if good else f"one of {', '.join(variable.choices)}"
    return _wanted_number(variable, value)


def _is_text(value: Any) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def _wanted_number(variable: Variable, value: Any) -> str | None:
    word = "an integer" if variable.kind == "integer" else "a number"
    wanted = f"{word} from {variable.low:g} to {variable.high:.0f}"
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return wanted
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return wanted
    if not math.isfinite(number) or not variable.low <= number <= variable.high:
        return wanted
    if variable.kind == "integer" and not (isinstance(value, int) or (isinstance(value, str) and value.isascii() and value.isdigit())):
        return wanted
    return None


def check_names(verb: str, extra: Iterable[str], options: Collection[str], own: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each extra variable that nobody reads. options: public variables of the roles; own: names that a site declared as its own."""
    known = variables(verb)
    prefixes = tuple({f"{name.split('_')[0]}_" for name in options})
    for name in sorted(set(extra) - set(known) - set(options) - set(own) - {_ARTIFACT, _CUT}):
        if name.startswith(_FOREIGN):
            continue
        near = _indico_conf.nearest(name, known)
        if not near and name.startswith(prefixes):
            yield _preflight.unknown_variable(name, options)
        else:
            yield f"{verb}.yml does not know the extra variable {name}.{near or _indico_conf.nearest(name, options) or f' It knows {_listed(known)}.'}"


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def check_groups(verb: str, groups: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Yield what is wrong with the inventory's groups, all of them with their hosts. Several inventories for several instances each have their own."""
    for name in sorted(set(groups) - set(GROUPS)):
        near = _near_group(name)
        if near:
            yield f"The inventory has a group {name}, which nothing reads. Did you mean {near}? If not, give it a name that is less like it."
    wanted = VERBS[verb].groups
    if not any(groups.get(name) for name in wanted):
        yield f"{verb}.yml works on the hosts of {' or '.join(wanted)}, and the inventory has none there."
    elif verb == "site":
        for name, what in _NEEDED.items():
            if name not in groups:
                yield f"The inventory has no group {name}, so no host {what}. Add the group, without hosts if that is meant."


def _near_group(name: str) -> str | None:
    """Return the group that a misspelt name means. All begin alike, so the rest is compared, unless the beginning is what is misspelt."""
    beginning, _underscore, rest = name.lower().partition("_")
    if beginning == "indico" and rest:
        rests = [group.partition("_")[2] for group in GROUPS[1:]]
        match = difflib.get_close_matches(rest, rests, n=1, cutoff=0.65)
        return f"indico_{match[0]}" if match else None
    match = difflib.get_close_matches(name.lower(), GROUPS, n=1, cutoff=0.8)
    return match[0] if match else None


def check_tags(verb: str, tags: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each tag of --tags or --skip-tags that no task has."""
    known = VERBS[verb].tags
    for tag in sorted(set(tags) - set(known) - set(_SPECIAL_TAGS)):
        if tag.endswith("notest"):  # Molecule skips those
            continue
        yield f"{verb}.yml has no tag {tag}.{_indico_conf.nearest(tag, known) or (f' It has {_listed(known)}.' if known else ' It has none: run all of it.')}"


def problems(
    verb: str,
    extra: Mapping[str, Any],
    options: Mapping[str, Mapping[str, Any]],
    own: Collection[str],
    groups: Mapping[str, Collection[str]],
    tags: Iterable[str],
) -> list[str]:
    """Return every problem of a command line, as sentences.

    verb: name of the playbook; extra: the extra variables, templated where they are the verb's; options: the public variables of all roles;
    own: names that the site declared in indico_site_variables; groups: of the inventory, with their hosts; tags: from --tags and --skip-tags.
    """
    found = []
    if _CUT in extra:
        found.append(f'An extra variable was cut at a blank before {str(extra[_CUT])!r}. Write it as JSON: -e \'{{"text": "We are back"}}\'.')
    found += check_names(verb, extra, options, own)
    for name, variable in variables(verb).items():
        found += check_value(name, variable, extra.get(name))
        if variable.need and extra.get(name) in (None, "", []):
            found.append(variable.need.format(**{group: ", ".join(groups.get(group, ())) for group in GROUPS}))
    for name in sorted(set(extra) & set(options)):
        if not _is_template(extra[name]):  # what it comes to, the hosts' own check sees
            found += _preflight.check_value(name, options[name], extra[name])
    return list(dict.fromkeys([*found, *check_groups(verb, groups), *check_tags(verb, tags)]))


def _is_template(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_is_template, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_is_template, value))
    return isinstance(value, str) and ("{{" in value or "{%" in value)
