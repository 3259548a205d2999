"""tree plans alike in check mode and in the run, refuses or validates all before it touches anything, and shows no reader half of a change."""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.confops.indico.plugins.module_utils import _tree
from ansible_collections.confops.indico.plugins.modules import tree
from hypothesis import given, settings
from hypothesis import strategies as st

ME, MY_GROUP = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
OTHER = next(user for user in pwd.getpwall() if user.pw_uid != os.getuid())
OTHER_GROUP = next(group for group in grp.getgrall() if group.gr_gid != os.getgid())
MISSING = "confops-no-such-program"


def mine(*declared: dict[str, Any]) -> list[_tree.Entry]:
    """Return entries that belong to whoever runs the tests."""
    return [_tree.entry({"owner": ME, "group": MY_GROUP, **one, "path": str(one["path"])}) for one in declared]


def make(*declared: dict[str, Any]) -> list[str]:
    """Plan and apply; return the names of the changed paths. A second plan is always empty."""
    changes = _tree.plan(mine(*declared))
    _tree.apply(changes)
    assert _tree.plan(mine(*declared)) == []
    return [Path(change.entry.path).name for change in changes]


def diffs(*declared: dict[str, Any]) -> list[tuple[str, str]]:
    """Return before and after of each change, which check mode sees as the run does."""
    changes = _tree.plan(mine(*declared))
    assert _tree.plan(mine(*declared), check_mode=True) == changes
    return [(change.before, change.after) for change in changes]


def refusal(*declared: dict[str, Any], check_mode: bool = False) -> str:
    with pytest.raises(_tree.TreeError) as caught:
        _tree.plan(mine(*declared), check_mode)
    return str(caught.value)


def seen(root: Path) -> dict[str, Any]:
    """Return all that a reader sees below root."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else path.read_text() if stat.S_ISREG(status.st_mode) else ""
        found[str(path.relative_to(root))] = (stat.filemode(status.st_mode), content)
    return found


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.lstat().st_mode):04o}"


# What is declared


@pytest.mark.parametrize(
    ("declared", "state", "permissions"),
    [
        ({}, "directory", 0o755),
        ({"content": ""}, "file", 0o644),
        ({"content": "ü", "mode": "0600"}, "file", 0o600),
        ({"mode": "2750"}, "directory", 0o2750),
        ({"mode": "01777"}, "directory", 0o1777),
        ({"target": "a"}, "link", None),
        ({"target": "a", "mode": "0644"}, "link", None),
        ({"state": "absent"}, "absent", None),
        ({"state": "directory", "content": None, "target": None, "mode": None}, "directory", 0o755),
    ],
)
def test_the_state_follows_from_the_other_options(declared: dict[str, Any], state: str, permissions: int | None) -> None:
    one = _tree.entry({"path": "/srv/x", **declared})
    assert (one.state, one.mode, one.owner, one.group) == (state, permissions, "root", "root")
    assert one.content == (declared.get("content") or "").encode()


_PATH = "a path must be absolute and without '.', '..', doubled or trailing slashes."
_KIND = "a file needs content, a link needs target, and nothing else takes them."


@pytest.mark.parametrize(
    ("declared", "sentence"),
    [
        *(({"path": path}, _PATH) for path in ("", "etc/x", "./x", "~/x", "/etc/../x", "/etc/./x", "/etc/..", "/etc/", "/etc//x", "//etc/x")),
        ({"content": "a", "target": "b"}, "content makes a file and target makes a link; it cannot be both."),
        *(({"state": state}, _KIND) for state in ("file", "link")),
        *(({"state": state, "content": ""}, _KIND) for state in ("directory", "link", "absent")),
        *(({"state": state, "target": "a"}, _KIND) for state in ("directory", "file", "absent")),
        ({"target": ""}, _KIND),
        *(
            ({"mode": wrong}, f"the mode is {wrong!r}; write it in octal digits between quotes, like '0640'.")
            for wrong in ("416", "640", "0o640", "0689", "u=rw", "-640", " 0640", "0640\n", "000640", "\u0660640")
        ),
    ],
)
def test_what_makes_no_sense_is_refused(declared: dict[str, Any], sentence: str) -> None:
    declared = {"path": "/srv/x", **declared}
    with pytest.raises(_tree.TreeError) as caught:
        _tree.entry(declared)
    assert str(caught.value) == f"{declared['path']}: {sentence}"


# What differs


def test_nothing_differs_when_all_is_as_declared(tmp_path: Path) -> None:
    declared: list[dict[str, Any]] = [
        {"path": tmp_path / "d", "mode": "2750"},
        {"path": tmp_path / "d/f", "content": "text\n", "mode": "0640"},
        {"path": tmp_path / "d/l", "target": "../nowhere"},
        {"path": tmp_path / "d/gone", "state": "absent"},
    ]
    assert make(*declared) == ["d", "f", "l"]
    before = {path: path.lstat() for path in tmp_path.rglob("*")}
    assert make(*declared) == []
    assert {path: path.lstat() for path in tmp_path.rglob("*")} == before
    assert _tree.plan([]) == []


def test_a_path_below_a_file_is_absent(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    assert diffs({"path": tmp_path / "f/below", "state": "absent"}) == []


def test_new_paths_are_shown_whole(tmp_path: Path) -> None:
    owned = f"owner: {ME}\ngroup: {MY_GROUP}\n"
    assert diffs({"path": tmp_path / "d"}, {"path": tmp_path / "d/f", "content": "text\n", "mode": "0600"}, {"path": tmp_path / "l", "target": "d"}) == [
        ("kind: absent\n", f"kind: directory\n{owned}mode: 0755\n"),
        ("kind: absent\n", f"text\nkind: file\n{owned}mode: 0600\n"),
        ("kind: absent\n", "d\nkind: link\n"),
    ]


def test_only_what_differs_is_shown(tmp_path: Path) -> None:
    f, link = tmp_path / "f", tmp_path / "l"
    f.write_text("old\n")
    f.chmod(0o4600)
    link.symlink_to("old")
    assert diffs({"path": f, "content": "new\n", "mode": "4600"}) == [("old\n", "new\n")]
    assert diffs({"path": f, "content": "old\n", "mode": "0640"}) == [("mode: 4600\n", "mode: 0640\n")]
    assert diffs({"path": f, "content": "new\n", "mode": "0640"}) == [("old\nmode: 4600\n", "new\nmode: 0640\n")]
    assert diffs({"path": f, "content": "old\n", "mode": "4600", "owner": OTHER.pw_name}) == [(f"owner: {ME}\n", f"owner: {OTHER.pw_name}\n")]
    assert diffs({"path": f, "content": "old\n", "mode": "4600", "group": OTHER_GROUP.gr_name}) == [(f"group: {MY_GROUP}\n", f"group: {OTHER_GROUP.gr_name}\n")]
    assert diffs({"path": link, "target": "new"}) == [("old\n", "new\n")]
    assert diffs({"path": f, "state": "absent"}) == [("old\nkind: file\n", "kind: absent\n")]
    assert diffs({"path": link, "state": "absent"}) == [("old\nkind: link\n", "kind: absent\n")]


def test_another_kind_is_shown(tmp_path: Path) -> None:
    directory, f, link = tmp_path / "d", tmp_path / "f", tmp_path / "l"
    directory.mkdir(0o755)
    directory.chmod(0o755)
    f.write_text("text\n")
    f.chmod(0o644)
    link.symlink_to("f")
    owned = f"owner: {ME}\ngroup: {MY_GROUP}\n"
    assert diffs({"path": link, "content": "text\n"}) == [("f\nkind: link\n", f"text\nkind: file\n{owned}mode: 0644\n")]
    assert diffs({"path": f, "target": "f"}) == [(f"text\nkind: file\n{owned}mode: 0644\n", "f\nkind: link\n")]
    assert diffs({"path": directory, "content": "text\n"}) == [("kind: directory\nmode: 0755\n", "text\nkind: file\nmode: 0644\n")]


def test_bytes_and_owners_without_a_name_can_be_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(b"\xff\n")
    (tmp_path / "f").chmod(0o644)
    declared = mine({"path": tmp_path / "f", "content": "ÿ\n"})

    def nameless(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", nameless)
    monkeypatch.setattr(grp, "getgrgid", nameless)
    (change,) = _tree.plan(declared)
    assert change.diff() == {
        "before_header": f"{tmp_path}/f",
        "after_header": f"{tmp_path}/f",
        "before": f"\\xff\nowner: {os.getuid()}\ngroup: {os.getgid()}\n",
        "after": f"ÿ\nowner: {ME}\ngroup: {MY_GROUP}\n",
    }


def test_only_new_paths_count_as_created(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("")
    (tmp_path / "link").symlink_to("old")
    changes = _tree.plan(mine(*({"path": tmp_path / name, "content": "x"} for name in ("old", "link", "new"))))
    assert [change.created for change in changes] == [False, False, True]


# What cannot be had


@pytest.mark.parametrize("check_mode", [False, True])
def test_what_is_in_the_way_is_refused_in_both_modes(tmp_path: Path, check_mode: bool) -> None:
    full, pipe, f, link = (tmp_path / name for name in ("full", "pipe", "f", "link"))
    (full / "inside").mkdir(parents=True)
    os.mkfifo(pipe)
    f.touch()
    link.symlink_to("full")
    before = seen(tmp_path)
    for declared in ({}, {"content": ""}, {"target": "a"}, {"state": "absent"}):
        assert refusal({"path": pipe, **declared}, check_mode=check_mode) == f"{pipe}: it is a special file; remove it by hand."
    for declared, what in (({"content": ""}, "a file"), ({"target": "a"}, "a link"), ({"state": "absent"}, "nothing")):
        sentence = f"{full}: it is a directory with something in it, where {what} is declared; empty it by hand."
        assert refusal({"path": full, **declared}, check_mode=check_mode) == sentence
    assert refusal({"path": f}, check_mode=check_mode) == f"{f}: it is a file, where a directory is declared; remove it by hand."
    assert refusal({"path": link}, check_mode=check_mode) == f"{link}: it is a link, where a directory is declared; remove it by hand."
    assert refusal({"path": full, "mode": "0700"}, {"path": f}, check_mode=check_mode).startswith(f"{f}: ")
    assert seen(tmp_path) == before


@pytest.mark.parametrize("check_mode", [False, True])
def test_contradictions_are_refused_in_both_modes(check_mode: bool) -> None:
    twice = refusal({"path": "/srv/a"}, {"path": "/srv/b"}, {"path": "/srv/a", "content": ""}, check_mode=check_mode)
    assert twice == "/srv/a: it is declared twice."
    for above in ({"content": ""}, {"target": "/etc"}, {"state": "absent"}):
        one, other = {"path": "/srv/a", **above}, {"path": "/srv/a/b/c", "content": ""}
        for declared in ([one, other], [other, one]):
            sentence = refusal(*declared, check_mode=check_mode)
            assert sentence == f"/srv/a/b/c: it lies below /srv/a, which is declared as {mine(one)[0].state}."


def test_a_directory_and_what_is_below_it_may_both_be_absent(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    assert make({"path": tmp_path / "d/f", "state": "absent"}, {"path": tmp_path / "d", "state": "absent"}) == ["d"]


def test_a_missing_parent_is_refused_except_in_check_mode(tmp_path: Path) -> None:
    child, parent = {"path": tmp_path / "d/f", "content": ""}, {"path": tmp_path / "d"}
    for declared in ([child], [child, parent]):
        assert refusal(*declared) == f"{tmp_path}/d/f: its parent {tmp_path}/d does not exist and is not declared before it."
        assert len(_tree.plan(mine(*declared), check_mode=True)) == len(declared)
    assert make(parent, child) == ["d", "f"]


@pytest.mark.parametrize(("option", "word"), [("owner", "user"), ("group", "group")])
def test_an_unknown_owner_is_refused_except_in_check_mode(tmp_path: Path, option: str, word: str) -> None:
    for declared in ({}, {"content": ""}):
        one = {"path": tmp_path / "x", option: "no-such-name", **declared}
        assert refusal(one) == f"{tmp_path}/x: there is no {word} no-such-name on this host."
        (change,) = _tree.plan(mine(one), check_mode=True)
        assert f"{option}: no-such-name\n" in change.after
    assert make({"path": tmp_path / "l", "target": "a", option: "no-such-name"}) == ["l"]


# Validation of one file


def test_a_file_is_validated_as_a_copy_of_the_same_name(tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    command = ["sh", "-c", f'cp "$1" {copies} && echo "$1" > {copies}/path', "sh", "{}"]
    changes = _tree.plan(mine({"path": tmp_path / "indico.conf", "content": "ü\n", "validate": command}))
    assert _tree.validate(changes, None, []) == []
    copy = Path((copies / "path").read_text().strip())
    assert copy.name == "indico.conf"
    assert not copy.parent.parent.exists()
    assert (copies / "indico.conf").read_text() == "ü\n"
    assert not (tmp_path / "indico.conf").exists()


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_refused_file_leaves_all_as_it_was(tmp_path: Path, check_mode: bool) -> None:
    command = ["sh", "-c", 'grep -q good "$1" || { echo line 1 is bad; echo no >&2; exit 3; }', "sh", "{}"]
    (tmp_path / "one").write_text("old")
    before = seen(tmp_path)
    changes = _tree.plan(mine(*({"path": tmp_path / name, "content": content, "validate": command} for name, content in (("one", "good"), ("two", "evil")))))
    with pytest.raises(_tree.TreeError) as caught:
        _tree.validate(changes, None, [], check_mode)
    assert str(caught.value) == f"{tmp_path}/two: sh refused it (exit code 3), nothing was changed: line 1 is bad\nno"
    assert seen(tmp_path) == before


def test_only_new_content_is_validated(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("text")
    (tmp_path / "f").chmod(0o600)
    changes = _tree.plan(mine({"path": tmp_path / "f", "content": "text", "mode": "0640", "validate": ["false"]}))
    assert len(changes) == 1
    assert _tree.validate(changes, None, []) == []


def test_a_missing_program_fails_the_run_and_is_reported_in_check_mode(tmp_path: Path) -> None:
    stage = tmp_path / "etc"
    stage.mkdir()
    alone = _tree.plan(mine({"path": stage / "f", "content": "", "validate": [MISSING, "{}"]}))
    staged = _tree.plan(mine({"path": stage / "f", "content": ""}))
    for changes, command, subject in ((alone, [], f"{stage}/f"), (staged, [MISSING, "{}"], str(stage))):
        with pytest.raises(_tree.TreeError) as caught:
            _tree.validate(changes, str(stage), command)
        assert str(caught.value) == f"{subject}: it cannot be validated, since there is no {MISSING} on this host."
        assert _tree.validate(changes, str(stage), command, check_mode=True) == [subject]


# Validation of a staged directory


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_staged_copy_holds_the_new_state_and_the_directory_is_untouched(tmp_path: Path, check_mode: bool) -> None:
    stage, copy = tmp_path / "etc", tmp_path / "copy"
    for name in ("sites", "empty", "emptied"):
        (stage / name).mkdir(parents=True)
    for name in ("kept", "replaced", "removed", "sites/default", "turned"):
        (stage / name).write_text("old")
    (stage / "link").symlink_to("kept")
    (stage / "removed-link").symlink_to("kept")
    (tmp_path / "outside").write_text("old")
    declared: list[dict[str, Any]] = [
        {"path": stage / "replaced", "content": "new"},
        {"path": stage / "removed", "state": "absent"},
        {"path": stage / "removed-link", "state": "absent"},
        {"path": stage / "link", "target": "sites/default"},
        {"path": stage / "turned", "target": "kept"},
        {"path": stage / "empty", "content": "new"},
        {"path": stage / "emptied", "state": "absent"},
        {"path": stage / "new", "mode": "0700"},
        {"path": stage / "new/deep"},
        {"path": stage / "new/deep/f", "content": "new"},
        {"path": tmp_path / "outside", "content": "new"},
    ]
    before = seen(tmp_path)
    changes = _tree.plan(mine(*declared), check_mode)
    assert _tree.validate(changes, str(stage), ["cp", "-a", "{}", str(copy)], check_mode) == []
    staged = {name: content for name, (_mode, content) in seen(copy).items()}
    assert {name: found for name, found in seen(tmp_path).items() if name.split("/")[0] != "copy"} == before
    _tree.apply(changes)
    assert staged == {name: content for name, (_mode, content) in seen(stage).items()}
    assert staged == {
        **{"kept": "old", "replaced": "new", "link": "sites/default", "turned": "kept", "empty": "new", "sites": "", "sites/default": "old"},
        **{"new": "", "new/deep": "", "new/deep/f": "new"},
    }


def test_a_refused_stage_leaves_all_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    before = seen(tmp_path)
    changes = _tree.plan(mine({"path": tmp_path / "etc/f", "content": "evil"}))
    with pytest.raises(_tree.TreeError) as caught:
        _tree.validate(changes, f"{tmp_path}/etc", ["grep", "-rL", "good", "{}", "no-such-file"])
    assert str(caught.value).startswith(f"{tmp_path}/etc: grep refused it (exit code 2), nothing was changed: ")
    assert "/stage/f\n" in str(caught.value)
    assert seen(tmp_path) == before


def test_a_stage_is_validated_only_when_something_in_it_changes(tmp_path: Path) -> None:
    for name in ("etc", "etc2"):
        (tmp_path / name).mkdir()
    changes = _tree.plan(mine({"path": tmp_path / "etc2/f", "content": ""}, {"path": tmp_path / "etc", "mode": "0711"}))
    assert len(changes) == 2
    assert _tree.validate(changes, f"{tmp_path}/etc", ["false"]) == []


def test_a_stage_that_could_never_match_is_refused(tmp_path: Path) -> None:
    for stage in (f"{tmp_path}/", "etc/apache2", "/etc/../etc"):
        with pytest.raises(_tree.TreeError) as caught:
            _tree.validate([], stage, ["false"])
        assert str(caught.value) == f"{stage}: {_PATH}"


def test_a_missing_stage_fails_the_run_and_is_reported_in_check_mode(tmp_path: Path) -> None:
    changes = _tree.plan(mine({"path": tmp_path / "etc/f", "content": ""}), check_mode=True)
    with pytest.raises(_tree.TreeError, match="etc: it does not exist, so nothing can be staged from it"):
        _tree.validate(changes, f"{tmp_path}/etc", ["true"])
    assert _tree.validate(changes, f"{tmp_path}/etc", ["false"], check_mode=True) == [f"{tmp_path}/etc"]


def test_a_stage_whose_needs_are_announced_only_is_not_validated_in_check_mode(tmp_path: Path) -> None:
    stage, needed = tmp_path / "etc", tmp_path / "key"
    stage.mkdir()
    changes = _tree.plan(mine({"path": stage / "f", "content": ""}))
    assert _tree.validate(changes, str(stage), ["false"], True, [str(needed)]) == [str(stage)]
    with pytest.raises(_tree.TreeError, match="false refused it"):
        _tree.validate(changes, str(stage), ["false"], False, [str(needed)])
    needed.touch()
    with pytest.raises(_tree.TreeError, match="false refused it"):
        _tree.validate(changes, str(stage), ["false"], True, [str(needed)])


def test_what_an_earlier_task_would_bring_into_the_stage_may_be_missing_in_check_mode(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    before = seen(tmp_path)
    changes = _tree.plan(mine({"path": tmp_path / "etc/sites/deep/f", "content": ""}, {"path": tmp_path / "etc/mods/l", "target": "a"}), check_mode=True)
    assert _tree.validate(changes, f"{tmp_path}/etc", ["ls", "{}/sites/deep/f"], check_mode=True) == []
    assert seen(tmp_path) == before


@pytest.mark.parametrize("target", ["/outside", "../outside"])
def test_a_link_that_leads_out_of_the_stage_is_refused_before_it_is_followed(tmp_path: Path, target: str) -> None:
    outside, stage = tmp_path / "outside", tmp_path / "etc"
    outside.mkdir()
    stage.mkdir()
    (outside / "f").write_text("old")
    (stage / "sites").symlink_to(target if target.startswith(".") else outside)
    (stage / "inner").symlink_to("real")
    (stage / "real").mkdir()
    for declared in ({"content": "new"}, {"state": "absent"}):
        changes = _tree.plan(mine({"path": stage / "sites/f", **declared}))
        with pytest.raises(_tree.TreeError) as caught:
            _tree.validate(changes, str(stage), ["true"])
        assert str(caught.value) == f"{stage}/sites/f: a link leads out of {stage}, so it cannot be staged."
        assert (outside / "f").read_text() == "old"
    changes = _tree.plan(mine({"path": stage / "inner/f", "content": "new"}))
    assert _tree.validate(changes, str(stage), ["ls", "{}/real/f"]) == []


# Effects


def test_a_file_is_replaced_and_never_rewritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    f = tmp_path / "f"
    f.write_text("old")
    f.chmod(0o666)
    at_the_moment: list[Any] = []
    replace = os.replace

    def watched(source: str, target: str) -> None:
        at_the_moment.append((f.read_text(), mode(f), Path(source).read_text(), mode(Path(source)), mode(Path(source).parent)))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    with f.open() as reader:
        assert make({"path": f, "content": "new", "mode": "0640"}) == ["f"]
        assert reader.read() == "old"
    assert at_the_moment == [("old", "0666", "new", "0640", "0700")]
    assert seen(tmp_path) == {"f": ("-rw-r-----", "new")}


def test_each_change_is_on_disk_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("replace"), replace(*paths)))
    for declared, expected in (
        ({"content": "new"}, ["file", "replace", "directory"]),
        ({"content": "new", "mode": "0600"}, ["directory"]),
        ({"target": "new"}, ["replace", "directory"]),
        ({"state": "absent"}, ["directory"]),
        ({}, ["directory"]),
    ):
        make({"path": tmp_path / "x", **declared})
        assert calls == expected
        calls.clear()


def test_kinds_replace_each_other_and_leave_nothing_behind(tmp_path: Path) -> None:
    x, victim = tmp_path / "x", tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o600)
    for declared, result in (
        ({"target": "victim"}, ("lrwxrwxrwx", "victim")),
        ({"target": "elsewhere"}, ("lrwxrwxrwx", "elsewhere")),
        ({"target": "victim"}, ("lrwxrwxrwx", "victim")),
        ({"content": "text"}, ("-rw-r--r--", "text")),
        ({"target": "victim"}, ("lrwxrwxrwx", "victim")),
        ({"state": "absent"}, None),
        ({"mode": "1777"}, ("drwxrwxrwt", "")),
        ({"mode": "2750"}, ("drwxr-s---", "")),
        ({"target": "victim"}, ("lrwxrwxrwx", "victim")),
        ({"state": "absent"}, None),
        ({}, ("drwxr-xr-x", "")),
        ({"content": ""}, ("-rw-r--r--", "")),
        ({"state": "absent"}, None),
        ({}, ("drwxr-xr-x", "")),
        ({"state": "absent"}, None),
    ):
        assert make({"path": x, **declared}) == ["x"]
        assert seen(tmp_path) == {"victim": ("-rw-------", "precious"), **({"x": result} if result else {})}


def test_attributes_change_in_place(tmp_path: Path) -> None:
    f = tmp_path / "f"
    f.write_text("text")
    before = f.stat()
    assert make({"path": f, "content": "text", "mode": "4711"}) == ["f"]
    after = f.stat()
    assert (after.st_ino, after.st_mtime_ns, mode(f)) == (before.st_ino, before.st_mtime_ns, "4711")


@pytest.mark.parametrize("declared", [{"mode": "2750"}, {"content": "new", "mode": "4750"}])
def test_the_owner_is_set_before_the_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, declared: dict[str, Any]) -> None:
    calls: list[Any] = []
    for name in ("fchown", "fchmod"):
        monkeypatch.setattr(os, name, lambda _descriptor, *numbers, name=name: calls.append((name, *numbers)))
    one = {"path": tmp_path / "x", "owner": OTHER.pw_name, "group": OTHER_GROUP.gr_name, **declared}
    _tree.apply(_tree.plan(mine(one)))
    assert calls == [("fchown", OTHER.pw_uid, OTHER_GROUP.gr_gid), ("fchmod", int(declared["mode"], 8))]


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_attributes_never_go_through_a_link_that_appears_after_the_plan(tmp_path: Path, kind: str) -> None:
    x, victim = tmp_path / "x", tmp_path / "victim"
    for path in (x, victim):
        if kind == "file":
            path.write_text("text")
        else:
            path.mkdir()
        path.chmod(0o700)
    changes = _tree.plan(mine({"path": x, "mode": "0777", **({"content": "text"} if kind == "file" else {})}))
    x.rename(tmp_path / "moved")
    x.symlink_to("victim")
    with pytest.raises(OSError, match=str(x)):
        _tree.apply(changes)
    assert mode(victim) == "0700"


@pytest.mark.parametrize("declared", [{"content": "new"}, {"target": "new"}])
def test_a_failure_before_the_replacement_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, declared: dict[str, Any]) -> None:
    (tmp_path / "x").write_text("old")
    (tmp_path / "x").chmod(0o644)
    changes = _tree.plan(mine({"path": tmp_path / "x", **declared}))

    def failing(*_arguments: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="no space left"):
        _tree.apply(changes)
    assert seen(tmp_path) == {"x": ("-rw-r--r--", "old")}


@pytest.mark.parametrize("moment", ["fsync", "fchown", "fchmod", "replace"])
def test_a_run_that_is_killed_leaves_the_old_file_whole_and_the_next_one_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    f = tmp_path / "f"
    f.write_text("old")
    declared = {"path": f, "content": "new" * 5000, "mode": "0600"}
    changes = _tree.plan(mine(declared))
    with monkeypatch.context() as patch:
        patch.setattr(os, moment, lambda *_arguments: os._exit(9))
        child = os.fork()
        if child == 0:
            try:
                _tree.apply(changes)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert f.read_text() == "old"
    (left,) = (path for path in tmp_path.iterdir() if path != f)
    assert left.name.startswith(".confops-")
    assert mode(left) == "0700"
    assert make(declared) == ["f"]
    assert f.read_text() == "new" * 5000


# Any tree

# What has something below it is a directory or nothing more often than chance would have it: most plans would be refused otherwise.
_NAMES = {"a": True, "a/b": True, "a/b/c": False, "d": True, "d/e": False}
_KINDS = ["nothing", "directory", "file", "link"]
_STATES: list[Any] = [{"mode": "2750"}, {"content": "text"}, {"content": "other"}, {"target": "nowhere"}, {"target": "d"}, {"state": "absent"}]
_PRESENT = {name: st.sampled_from(_KINDS[:2] * 3 * inner + _KINDS) for name, inner in _NAMES.items()}
_DECLARED = {name: st.sampled_from([None, {}] * (6 * inner + 1) + _STATES) for name, inner in _NAMES.items()}


@settings(max_examples=300)
@given(present=st.fixed_dictionaries(_PRESENT), declared=st.fixed_dictionaries(_DECLARED), downwards=st.booleans())
def test_any_plan_is_refused_untouched_or_comes_true(present: dict[str, str], declared: dict[str, Any], downwards: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for name, kind in present.items():
            if kind != "nothing" and (root / name).parent.is_dir():
                if kind == "directory":
                    (root / name).mkdir()
                elif kind == "file":
                    (root / name).write_text("text")
                else:
                    (root / name).symlink_to("nowhere")
        before = seen(root)
        entries = mine(*({"path": root / name, **one} for name, one in sorted(declared.items(), reverse=not downwards) if one is not None))
        try:
            changes = _tree.plan(entries)
        except _tree.TreeError:
            assert seen(root) == before
            return
        assert _tree.plan(entries, check_mode=True) == changes
        assert _tree.validate(changes, directory, ["true"]) == []
        assert seen(root) == before
        _tree.apply(changes)
        assert _tree.plan(entries) == []
        after = seen(root)
        changed = {str(Path(change.entry.path).relative_to(root)) for change in changes}
        assert {name for name in {**before, **after} if before.get(name) != after.get(name)} == changed


# The module


def module(capsys: pytest.CaptureFixture[str], *entries: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Run the module and return its answer."""
    mine_too = [{"owner": ME, "group": MY_GROUP, **one, "path": str(one["path"])} for one in entries]
    with patch_module_args({"entries": mine_too, **options}), pytest.raises(SystemExit):
        tree.main()
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_the_module_checks_runs_and_then_has_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    f = tmp_path / "d/f"
    entries: list[dict[str, Any]] = [{"path": tmp_path / "d"}, {"path": f, "content": "user: hunter2\n", "validate": ["grep", "user", "{}"]}]
    checked = module(capsys, *entries, secrets=["hunter2"], _ansible_check_mode=True)
    assert list(tmp_path.iterdir()) == []
    ran = module(capsys, *entries, secrets=["hunter2"])
    assert f.read_text() == "user: hunter2\n"
    again = module(capsys, *entries, secrets=["hunter2"])
    for answer in (checked, ran, again):
        answer.pop("invocation")
    assert checked == ran
    assert ran["changed"] is True
    assert ran["changed_paths"] == ran["created_paths"] == [f"{tmp_path}/d", str(f)]
    assert ran["diff"][1]["after"].startswith("user: ********\nkind: file\n")
    assert again == {"changed": False, "changed_paths": [], "created_paths": [], "not_validated": [], "diff": []}


def test_a_hidden_file_is_in_no_diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    f = tmp_path / "f"
    for content in ("hunter2\n", "hunter3\n", None):
        one = {"path": f, "hidden": True, **({"content": content} if content else {"state": "absent"})}
        (difference,) = module(capsys, one, secrets=[content.strip()] if content else [])["diff"]
        assert "hunter" not in str(difference)
        assert "content: hidden\n" in difference["before"] + difference["after"]
        assert f.exists() is bool(content)


def test_of_a_hidden_line_the_diff_has_the_beginning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    f = tmp_path / "f"
    f.write_text("Password = 'hunter2'\nPort = 1\n")
    f.chmod(0o644)
    (difference,) = module(capsys, {"path": f, "content": "Password = 'hunter3'\nPort = 2\n", "hidden_lines": ["Password ="]})["diff"]
    assert difference["before"] == "Password =hidden\nPort = 1\n"
    assert difference["after"] == "Password =hidden\nPort = 2\n"
    assert f.read_text() == "Password = 'hunter3'\nPort = 2\n"


def test_the_module_reports_what_it_could_not_validate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = {"path": tmp_path / "f", "content": "", "validate": [MISSING, "{}"]}
    assert module(capsys, one, _ansible_check_mode=True)["not_validated"] == [f"{tmp_path}/f"]
    failed = module(capsys, one)
    assert failed["failed"] is True
    assert failed["msg"] == f"{tmp_path}/f: it cannot be validated, since there is no {MISSING} on this host."


def test_the_module_changes_nothing_when_the_stage_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed = module(capsys, {"path": tmp_path / "f", "content": "x"}, stage=str(tmp_path), validate=["grep", "-q", "y", "{}/f"])
    assert failed["msg"] == f"{tmp_path}: grep refused it (exit code 1), nothing was changed: "
    assert list(tmp_path.iterdir()) == []


def test_the_module_refuses_a_mode_that_yaml_made_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert module(capsys, {"path": "/srv/x", "mode": 0o640})["msg"].startswith("/srv/x: the mode is '416'; write it in octal digits")


def test_the_module_turns_an_error_of_the_system_into_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loop").symlink_to("loop")
    failed = module(capsys, {"path": tmp_path / "loop/x", "content": ""})
    assert failed["failed"] is True
    assert f"{tmp_path}/loop/x" in failed["msg"]


# What this user may not do (B13)


def as_another(path: Path, *declared: dict[str, Any]) -> set[str]:
    """Return what check mode and the run say to a user who owns nothing."""
    reading, writing = os.pipe()
    entries = [_tree.entry({**one, "path": str(one["path"])}) for one in declared]
    child = os.fork()
    if child == 0:
        said = []
        os.setgroups([])
        os.setresgid(OTHER_GROUP.gr_gid, OTHER_GROUP.gr_gid, OTHER_GROUP.gr_gid)
        os.setresuid(OTHER.pw_uid, OTHER.pw_uid, OTHER.pw_uid)
        for check_mode in (True, False):
            try:
                changes = _tree.plan(entries, check_mode)
                if not check_mode:
                    _tree.apply(changes)
                said.append("nothing")
            except BaseException as error:
                said.append(f"{type(error).__name__}: {error}")
        os.write(writing, json.dumps(said).encode())
        os._exit(0)
    os.close(writing)
    said = json.loads(os.read(reading, 10000))
    os.close(reading)
    os.waitpid(child, 0)
    return {one.replace(str(path), "PATH") for one in said}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_check_mode_refuses_what_this_user_may_not_do(tmp_path: Path) -> None:
    """B13: the run's sentence, before anything is touched."""
    for path in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        path.chmod(0o755)
    theirs = {"owner": OTHER.pw_name, "group": OTHER_GROUP.gr_name}
    (tmp_path / "f").write_text("x")
    (tmp_path / "f").chmod(0o644)
    (tmp_path / "d").mkdir()
    denied = f"PATH is not writable for user {OTHER.pw_name}."
    for name, declared in {
        "new": {"content": "y"},
        "f": {"content": "y"},
        "gone/deep": {"state": "directory"},
        "link": {"target": "f"},
    }.items():
        said = as_another(tmp_path, {"path": tmp_path / name, **theirs, **declared})
        assert f"TreeError: PATH/{name}: {denied}" in said
        assert all(one.startswith(f"TreeError: PATH/{name}: ") for one in said)
    assert as_another(tmp_path, {"path": tmp_path / "f", "state": "absent"}) == {f"TreeError: PATH/f: {denied}"}
    sentence = {"TreeError: PATH/d: only its owner root or root can change it."}
    assert as_another(tmp_path, {"path": tmp_path / "d", "mode": "0700", **theirs}) == sentence
    assert as_another(tmp_path, {"path": tmp_path / "f", "content": "x", "mode": "0600", **theirs}) == {
        "TreeError: PATH/f: only its owner root or root can change it."
    }
    os.chown(tmp_path, OTHER.pw_uid, OTHER_GROUP.gr_gid)
    assert as_another(tmp_path, {"path": tmp_path / "new", "content": "y"}) == {"TreeError: PATH/new: only root can give it to owner root and group root."}
    assert as_another(
        tmp_path, {"path": tmp_path / "new", "content": "y", **theirs}, {"path": tmp_path / "a", **theirs}, {"path": tmp_path / "a/b", **theirs}
    ) == {"nothing"}
    assert (tmp_path / "new").read_text() == "y"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_check_mode_refuses_a_read_only_file_system(tmp_path: Path) -> None:
    """B13: root is stopped by that alone."""
    (tmp_path / "f").write_text("x")
    if subprocess.run(["mount", "--bind", tmp_path, tmp_path], check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("this host lets nobody mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", tmp_path], check=True)
        for check_mode in (True, False):
            assert refusal({"path": tmp_path / "new", "content": "y"}, check_mode=check_mode) == f"{tmp_path}/new: {tmp_path} is on a read-only file system."
            assert refusal({"path": tmp_path / "f", "content": "y"}, check_mode=check_mode) == f"{tmp_path}/f: {tmp_path} is on a read-only file system."
            sentence = f"{tmp_path}/f: it cannot be changed, since it is immutable or its file system is read-only."
            assert refusal({"path": tmp_path / "f", "content": "x", "mode": "0600"}, check_mode=check_mode) == sentence
        assert _tree.plan(mine({"path": tmp_path / "f", "content": "x", "mode": f"{stat.S_IMODE((tmp_path / 'f').stat().st_mode):04o}"})) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)
