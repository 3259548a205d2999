"""What AWX asks of the project: surveys that fit their playbooks, nobody to answer a prompt, no sudo on the controller, and an outcome as data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.confops.indico.plugins.module_utils import _verbs

REPOSITORY = Path(__file__).resolve().parents[2]
PLAYBOOKS = {path.stem: path.read_text() for path in sorted((REPOSITORY / "playbooks").glob("*.yml"))}


def shared(text: str) -> str:
    """Return a playbook, or a part of one, with the plays and the tasks that it takes from others."""
    parts = sorted(set(re.findall(r"\b(?:include|tasks)/[a-z_]+\.yml", text)))
    return text + "".join(shared((REPOSITORY / "playbooks" / part).read_text()) for part in parts)


WHOLE = {name: shared(text) for name, text in PLAYBOOKS.items()}
SURVEYS = {path.stem: json.loads(path.read_text()) for path in sorted((REPOSITORY / "awx/surveys").glob("*.json"))}
QUESTIONS = [(name, question) for name, survey in SURVEYS.items() for question in survey["spec"]]
# Files on the controller: a job's own go with its container, and its outcome is among the artifacts.
ABSENT = {"report_file", "fetch"}
# The type of a question for each kind of extra variable. AWX has no question for true and false.
TYPES = {"text": "text", "integer": "integer", "number": "float", "flag": "multiplechoice", "choice": "multiplechoice", "words": "text"}
KEYS = {"type", "question_name", "question_description", "variable", "required", "default"}
BOUNDED, CHOSEN = {"text": str, "integer": int, "float": float}, {"multiplechoice", "multiselect"}


def variables_of(playbook: str) -> set[str]:
    """Return the extra variables that the playbook's head comment names."""
    lines = [line for line in PLAYBOOKS[playbook].partition("\n- ")[0].splitlines() if line.startswith("#")]
    head = "\n".join(line for line in lines if "playbooks/" not in line or f"playbooks/{playbook}.yml" in line)
    named = set(re.findall(r"\b([a-z][a-z_]*)=", head)) | set(re.findall(r'"([a-z_]+)":', head))
    return {name for name in named if not name.startswith("indico_")}  # one of the inventory's, which an empty answer would replace


def defaults_of(variable: str, text: str) -> list[str]:
    """Return what stands behind each "variable | default" of a template, to the end of the parenthesis and one filter more."""
    found = []
    for match in re.finditer(rf"(?:(?<![\w.']){variable} \| |[.]vars', '{variable}', )default[(=]", text):
        depth, end = 1, match.end()
        while depth and match[0].endswith("("):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        found.append(text[match.end() : end + len(" | string")])
    return found


def tasks_of(tasks: list[dict[str, Any]], **inherited: object) -> Iterator[dict[str, Any]]:
    """Return every task with what it has from the blocks around it."""
    for task in tasks or []:
        whole = {**inherited, **task}
        blocks = [task[part] for part in ("block", "rescue", "always") if part in task]
        if not blocks:
            yield whole
        for block in blocks:
            yield from tasks_of(block, **{key: whole[key] for key in ("become", "delegate_to") if key in whole})


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_what_a_playbook_takes_its_survey_asks(playbook: str) -> None:
    asked = {question["variable"] for question in SURVEYS.get(playbook, {"spec": []})["spec"]}
    assert variables_of(playbook) - ABSENT - asked == set()
    assert not asked & ABSENT
    assert asked == _verbs.variables(playbook).keys() - ABSENT


@pytest.mark.parametrize(("playbook", "question"), QUESTIONS, ids=lambda value: value if isinstance(value, str) else value["variable"])
def test_a_question_takes_what_the_playbook_takes(playbook: str, question: dict[str, Any]) -> None:
    """O2: the surveys and the playbooks have one source."""
    variable = _verbs.VERBS[playbook].variables[question["variable"]]
    assert question["type"] == ("multiselect" if variable.kind == "words" and variable.choices else TYPES[variable.kind])
    assert question.get("choices", []) == (["false", "true"] if variable.kind == "flag" else list(variable.choices))
    if variable.kind in ("integer", "number"):
        assert (question["min"], question["max"]) == (variable.low, variable.high)
    assert question["required"] == bool(variable.need) or question["default"] in question.get("choices", [])
    assert list(_verbs.check_value("x", variable, question["default"])) == []


def test_items_of_assertions_are_named_by_what_they_check() -> None:
    """O10: an item that passes must not read like an error."""
    files = [path for part in ("playbooks", "roles") for path in (REPOSITORY / part).rglob("*.yml")]
    assert [path for path in files if re.search(r"label: .*fail_msg", path.read_text())] == []


@pytest.mark.parametrize(("playbook", "question"), QUESTIONS, ids=lambda value: value if isinstance(value, str) else value["variable"])
def test_a_question_is_well_formed_and_its_answer_is_read(playbook: str, question: dict[str, Any]) -> None:
    kind, default = question["type"], question["default"]
    assert defaults_of(question["variable"], WHOLE[playbook]), "nobody reads it"
    if kind in CHOSEN:
        assert question.keys() == KEYS | {"choices"}
        assert default in ["", *question["choices"]]
        assert all(isinstance(choice, str) and choice for choice in question["choices"])
    else:
        assert question.keys() == KEYS | {"min", "max"}
        assert 0 <= question["min"] < question["max"]
        assert default == "" or isinstance(default, BOUNDED[kind])


@pytest.mark.parametrize("playbook", SURVEYS)
def test_a_survey_is_for_a_playbook(playbook: str) -> None:
    assert SURVEYS[playbook].keys() == {"name", "description", "spec"}
    assert SURVEYS[playbook]["description"] == f"playbooks/{playbook}.yml"
    assert playbook in PLAYBOOKS
    for key in ("variable", "question_name"):
        values = [question[key] for question in SURVEYS[playbook]["spec"]]
        assert len(values) == len(set(values))


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_an_empty_answer_is_none(playbook: str) -> None:
    """AWX gives an empty text where somebody left a field empty. As text a 0 stays what it is, which default(..., true) would replace."""
    for variable in {question["variable"] for question in SURVEYS.get(playbook, {"spec": []})["spec"]} | ABSENT:
        assert not re.search(rf"(?<![\w.']){variable} is (not )?defined", WHOLE[playbook]), variable
        wrong = [text for text in defaults_of(variable, WHOLE[playbook]) if not re.search(r", true\)|^''", text)]
        assert wrong == [], variable


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_verb_ends_with_its_outcome(playbook: str) -> None:
    last = yaml.safe_load(PLAYBOOKS[playbook])[-1]
    if "ansible.builtin.import_playbook" in last:
        last = yaml.safe_load((REPOSITORY / "playbooks" / last["ansible.builtin.import_playbook"]).read_text())[-1]
    names = [task["name"] for task in last.get("post_tasks", last.get("tasks"))]
    assert [name for name in names if name != "Judge"][-1] == "Report as data"


def test_nobody_is_asked_at_a_prompt() -> None:
    texts = {path: path.read_text() for part in ("playbooks", "roles") for path in (REPOSITORY / part).rglob("*.yml")}
    assert [path for path, text in texts.items() if "vars_prompt" in text or re.search(r"ansible\.builtin\.pause:", text)] == []


def test_the_controller_needs_no_sudo() -> None:
    """An execution environment has none."""
    places = ("playbooks", "playbooks/include", "playbooks/tasks", "roles/*/tasks", "roles/*/handlers")
    files = [path for place in places for path in REPOSITORY.glob(f"{place}/*.yml")]
    assert len(files) > 50
    local = 0
    for path in files:
        for entry in yaml.safe_load(path.read_text()):
            if "hosts" in entry:
                assert entry["hosts"] != "localhost" or not entry.get("become"), path
                parts = [task for part in ("pre_tasks", "tasks", "post_tasks", "handlers") for task in entry.get(part, [])]
            else:
                parts = [entry]
            for task in tasks_of(parts):
                if task.get("delegate_to") == "localhost":
                    local += 1
                    assert task.get("become") is False, f"{path}: {task['name']}"
    assert local >= 3
