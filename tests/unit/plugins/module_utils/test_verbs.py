"""O2, O4, O5: a command line with a misspelt word is refused before any host is asked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.confops.indico.plugins.module_utils import _verbs

from tests.unit.roles import SPECS

REPOSITORY = Path(__file__).resolve().parents[4]
PLAYBOOKS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((REPOSITORY / "playbooks").glob("*.yml"))}
OPTIONS = {name: option for options in SPECS.values() for name, option in options.items()}
GROUPS = {name: ["db1", "db2"] for name in ("all", "ungrouped", *_verbs.GROUPS)}
NEEDED = {"to": "db2", "host": "db1", "state": "on", "target": "/srv/mirror", "from": "/srv/production"}
VARIABLES = [(verb, name) for verb in _verbs.VERBS for name in _verbs.variables(verb)]
NO_NUMBERS = (math.nan, math.inf, -math.inf, 1e99, -1, 10**20, 10**5000, "nan", "inf", "-1", "1e99", "soon", True, [1], {})


def problems(verb: str, extra: dict[str, Any] | None = None, groups: dict[str, list[str]] = GROUPS, tags: tuple[str, ...] = ("all",)) -> list[str]:
    """Return what is wrong with a command line that is good except for extra, groups and tags."""
    needed = {name: value for name, value in NEEDED.items() if name in _verbs.variables(verb)}
    return _verbs.problems(verb, {**needed, **(extra or {})}, OPTIONS, {"my_site"}, groups, tags)


def test_every_playbook_begins_with_the_check() -> None:
    assert list(PLAYBOOKS) == sorted(_verbs.VERBS)
    for verb, plays in PLAYBOOKS.items():
        assert plays[0]["ansible.builtin.import_playbook"] == "include/check_command.yml", verb
        assert plays[0]["vars"] == {"command_verb": verb}
    (check,) = yaml.safe_load((REPOSITORY / "playbooks/include/check_command.yml").read_text())
    assert (check["hosts"], check["gather_facts"]) == ("all:localhost", False)
    (task,) = check["tasks"]
    assert (task["confops.indico.preflight"], task["run_once"], task["tags"]) == ({"verb": "{{ command_verb }}"}, True, "always")


def test_a_playbook_that_imports_another_one_is_checked_by_its_own_name() -> None:
    """restore.yml, which refresh.yml imports, does not know from."""
    for verb, (_check, *plays) in PLAYBOOKS.items():
        for play in plays:
            if play.get("ansible.builtin.import_playbook", "").removesuffix(".yml") in _verbs.VERBS:
                assert play["vars"]["command_verb"] == verb  # Ansible lets the outer one win


def test_the_groups_of_a_verb_are_those_of_its_plays() -> None:
    for verb, (_check, play, *_more) in PLAYBOOKS.items():
        imported = play.get("ansible.builtin.import_playbook")
        first = yaml.safe_load((REPOSITORY / "playbooks" / imported).read_text())[0] if imported else play
        assert set(_verbs.VERBS[verb].groups) == {name.removesuffix("[0]") for name in first["hosts"].split(":")} - set(
            ("indico_app", "indico_scheduler") if verb == "failover" else ()
        )


def test_the_tags_of_site_are_those_of_its_roles() -> None:
    roles = PLAYBOOKS["site"][1]["roles"]
    tags = {tag for role in roles for tag in ([role["tags"]] if isinstance(role["tags"], str) else role["tags"])}
    assert set(_verbs.VERBS["site"].tags) == tags - {"always"}


@pytest.mark.parametrize("verb", _verbs.VERBS)
def test_a_good_command_line_passes(verb: str) -> None:
    assert problems(verb) == []
    foreign = {"ansible_facts": {}, "awx_job_id": 7, "tower_user_name": "x", "outcome": {}, "my_site": "x"}
    assert problems(verb, foreign) == []
    assert problems(verb, {"backup_keep_monthly": "3", "indico_prefix": "{{ place }}", "report_file": "x.json"}) == []


@pytest.mark.parametrize(("verb", "name"), VARIABLES)
def test_a_misspelt_extra_variable_is_refused_with_the_nearest_name(verb: str, name: str) -> None:
    """O2, for each variable of each playbook."""
    misspelt = name[:-2] + name[-1] + name[-2] if len(name) > 3 and name[-1] != name[-2] else name + "x"
    (sentence,) = problems(verb, {misspelt: "x"})
    assert sentence.startswith(f"{verb}.yml does not know the extra variable {misspelt}. ")
    assert f"Did you mean {name}?" in sentence or len(name) < 3 or "Did you mean" in sentence


@pytest.mark.parametrize(
    ("verb", "extra", "sentence"),
    [
        ("restore", {"tiem": "2026-11-20"}, "restore.yml does not know the extra variable tiem. Did you mean time?"),
        ("pack", {"day": 7}, "pack.yml does not know the extra variable day. Did you mean days?"),
        ("status", {"x": 7}, "status.yml does not know the extra variable x. It knows report_file."),
        ("pack", {"xyz": 7}, "pack.yml does not know the extra variable xyz. It knows days and report_file."),
        (
            "pack",
            {"indico_storage": []},
            "indico_storage is not a variable of this collection. Did you mean indico_storages? (A site lists names of its own in indico_site_variables.)",
        ),
        ("pack", {"__python2_release": "x"}, "pack.yml does not know the extra variable __python2_release. Did you mean"),
        ("restore", {"days": 7}, "restore.yml does not know the extra variable days."),
        ("backup", {"backup_keep_monthly": "many"}, "backup_keep_monthly is 'many'; it must be an integer."),
        ("backup", {"indico_storages": {}}, "indico_storages is a dictionary; it must be a list."),
        ("maintenance", {"text": "We", "_raw_params": "are back"}, "An extra variable was cut at a blank before 'are back'. Write it as JSON: -e '{"),
        ("failover", {"to": ""}, "Name the host that is to be the primary: -e to=, one of db1, db2."),
        ("failback", {"host": None}, "Name the host to bring back: -e host=, one of db1, db2."),
        ("maintenance", {"state": ""}, "Say what is wanted: -e state=on or -e state=off."),
        ("maintenance", {"state": "of"}, "state is 'of'; it must be one of on, off."),
        ("offline_mirror", {"target": ""}, "Say where the mirror goes: -e target=/srv/mirror."),
        ("refresh", {"from": ""}, "Say where the sets are"),
        ("reservation_owner", {"to": ""}, "Say whose reservations they are and whose they become"),
        ("restore", {"time": ["2026"]}, "time is a list; it must be a text."),
        ("restore", {"confirm": True}, "confirm is true; it must be a text."),
        ("backup", {"full": "maybe"}, "full is 'maybe'; it must be true or false."),
        (
            "cleanup",
            {"what": "cache,everything"},
            "what is 'cache,everything'; it must be a list of cache, tmp, sessions, logs, replaced, or a text with commas",
        ),
        ("old_crontabs", {"remove": [{"id": 1}]}, "remove is a list; it must be a list of texts, or a text with commas between them."),
        ("verify", {"scope": "newest"}, "scope is 'newest'; it must be one of all, new."),
        ("pack", {"days": -1}, "days is -1; it must be a number from 0 to 100000."),
        ("check", {"top": 0}, "top is 0; it must be an integer from 1 to 100000."),
        ("check", {"top": 1.5}, "top is 1.5; it must be an integer from 1 to 100000."),
    ],
)
def test_a_wrong_extra_variable_is_refused(verb: str, extra: dict[str, Any], sentence: str) -> None:
    (found,) = problems(verb, extra)
    assert found.startswith(sentence)


@pytest.mark.parametrize(("verb", "name"), [pair for pair in VARIABLES if _verbs.variables(pair[0])[pair[1]].kind in ("integer", "number")])
def test_no_number_of_a_verb_takes_what_is_none(verb: str, name: str) -> None:
    """B17."""
    for value in NO_NUMBERS:
        (found,) = problems(verb, {name: value})
        assert found.startswith(f"{name} is ")


@pytest.mark.parametrize(
    ("verb", "extra"),
    [
        ("maintenance", {"state": True, "allow": ["192.0.2.7"], "retry_after": "1800"}),
        ("maintenance", {"state": False}),
        ("reservation_owner", {"to": 7, "confirm": True, "reservations": [17, 18]}),
        ("reservation_owner", {"to": "a", "confirm": "true", "reservations": "17, 18"}),
        ("cleanup", {"what": "", "cache_days": "1.5", "min_age_hours": 3}),
        ("cleanup", {"what": ["cache", "tmp"]}),
        ("event_restore", {"event": 42, "category": "3"}),
        ("backup", {"full": "yes", "why": None}),
        ("file_check", {"limit": "0"}),
    ],
)
def test_what_surveys_and_people_write_is_accepted(verb: str, extra: dict[str, Any]) -> None:
    assert problems(verb, extra) == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("indico_schedular", "indico_scheduler"),
        ("indico_zoe", "indico_zeo"),
        ("indico_apps", "indico_app"),
        ("indico_loadbalancers", "indico_loadbalancer"),
        ("indico_backups", "indico_backup"),
        ("indico_cach", "indico_cache"),
        ("Indico_app", "indico_app"),
        ("indico-scheduler", "indico_scheduler"),
        ("indcio_scheduler", "indico_scheduler"),
        ("indcio", "indico"),
    ],
)
def test_a_misspelt_group_is_refused_with_the_nearest_name(name: str, meant: str) -> None:
    """O4."""
    (sentence,) = problems("status", groups={**GROUPS, name: ["db1"]})
    assert sentence == f"The inventory has a group {name}, which nothing reads. Did you mean {meant}? If not, give it a name that is less like it."


@pytest.mark.parametrize(
    "name", ["webservers", "indico_prod", "indico_summer", "indico_web", "indico_db", "debian11", "zeo", "failover_hosts", "all", "ungrouped"]
)
def test_a_group_of_the_site_is_accepted(name: str) -> None:
    assert problems("site", groups={**GROUPS, name: ["db1"]}) == []


@pytest.mark.parametrize("name", ["indico_zeo", "indico_app", "indico_scheduler"])
def test_a_site_without_a_part_that_every_site_needs_must_say_so(name: str) -> None:
    """O4."""
    (sentence,) = problems("site", groups={group: hosts for group, hosts in GROUPS.items() if group != name})
    assert sentence.startswith(f"The inventory has no group {name}, so no host ")
    assert problems("site", groups={**GROUPS, name: []}) == []


def test_a_verb_without_hosts_says_so() -> None:
    assert problems("pull", groups={**GROUPS, "indico_backup": []}) == ["pull.yml works on the hosts of indico_backup, and the inventory has none there."]
    assert problems("cleanup", groups={**GROUPS, "indico_app": []}) == []
    assert problems("site", groups={"all": []}) == ["site.yml works on the hosts of indico, and the inventory has none there."]


def test_a_misspelt_tag_is_refused() -> None:
    assert problems("site", tags=("zeo", "always", "notest", "molecule-notest")) == []
    assert problems("site", tags=("zoe",)) == ["site.yml has no tag zoe. Did you mean zeo?"]
    assert problems("pack", tags=("zeo",)) == ["pack.yml has no tag zeo. It has none: run all of it."]
