"""What a host knows of its releases: who is at it, what a rollback goes to, what may go."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.confops.indico.plugins.module_utils import _release
from ansible_collections.confops.indico.plugins.module_utils._release import ReleaseError

ADA = {"id": "aaaa", "action": "deploy", "who": "ada", "where": "control1", "release": "fix-bbbbbbbbbbbb"}
BRUNO = {"id": "bbbb", "action": "rollback", "who": "bruno", "where": "control2", "release": "1.2.2-aaaaaaaaaaaa"}


def make(prefix: Path, name: str, *, age: int = 0, complete: bool = True) -> None:
    """Make a release that was installed age seconds ago."""
    release = prefix / "releases" / name
    release.mkdir(parents=True)
    (release / "manifest.json").write_text(json.dumps({"version": name.split("-")[0], "commit": "c" * 40}))
    if complete:
        (release / ".complete").touch()
        os.utime(release / ".complete", (1_700_000_000 - age,) * 2)


def point(prefix: Path, name: str, link: str = "current") -> None:
    (prefix / link).unlink(missing_ok=True)
    (prefix / link).symlink_to(f"releases/{name}")


def deploy(prefix: Path, name: str, *, run: str, action: str = "deploy", result: str | None = "ok") -> None:
    """Do what a run does on the host, from its beginning to its end; without a result the controller was killed."""
    _release.begin(str(prefix), {**ADA, "id": run, "action": action, "release": name})
    point(prefix, name)
    if result:
        _release.end(str(prefix), run, result)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    for age, name in enumerate(["fix-cccccccccccc", "fix-bbbbbbbbbbbb", "1.2.2-aaaaaaaaaaaa", "zeo-3.10.5-aaaaaaaaaaaa"]):
        make(tmp_path, name, age=age)
    make(tmp_path, "half-dddddddddddd", complete=False)
    point(tmp_path, "1.2.2-aaaaaaaaaaaa")
    point(tmp_path, "zeo-3.10.5-aaaaaaaaaaaa", "zeo")
    return tmp_path


def test_nothing_is_known_of_an_empty_host(tmp_path: Path) -> None:
    seen = _release.look(str(tmp_path / "nothing"))
    assert {name: value for name, value in seen.items() if value} == {}


def test_the_release_that_runs_and_those_that_are_complete(prefix: Path) -> None:
    seen = _release.look(str(prefix))
    assert seen["current"] == "1.2.2-aaaaaaaaaaaa"
    assert seen["releases"] == ["fix-cccccccccccc", "fix-bbbbbbbbbbbb", "1.2.2-aaaaaaaaaaaa"]
    assert seen["manifest"]["version"] == "1.2.2"
    (prefix / "releases/1.2.2-aaaaaaaaaaaa").rename(prefix / "gone")
    assert _release.look(str(prefix))["current"] is None


def test_a_lock_names_whoever_has_it(prefix: Path) -> None:
    assert _release.lock(str(prefix), ADA, take=False, check=False) is None
    with pytest.raises(ReleaseError) as refused:
        _release.lock(str(prefix), BRUNO, take=False, check=True)
    since = _release.look(str(prefix))["lock"]["began"]
    assert f"the releases are locked by ada at control1 since {since}, to deploy fix-bbbbbbbbbbbb" in str(refused.value)
    assert "-e unlock=true" in str(refused.value)
    assert not _release.unlock(str(prefix), BRUNO["id"], check=False)
    assert _release.unlock(str(prefix), ADA["id"], check=False)
    assert _release.look(str(prefix))["lock"] is None
    assert _release.lock(str(prefix), BRUNO, take=False, check=False) is None


def test_a_lock_of_a_run_that_is_gone_is_taken_away(prefix: Path) -> None:
    _release.lock(str(prefix), ADA, take=False, check=False)
    taken = _release.lock(str(prefix), BRUNO, take=True, check=False)
    assert taken and taken["who"] == "ada"
    assert _release.look(str(prefix))["lock"]["who"] == "bruno"
    assert not _release.unlock(str(prefix), ADA["id"], check=False)  # should it wake up


def test_a_check_takes_no_lock(prefix: Path) -> None:
    _release.lock(str(prefix), ADA, take=False, check=True)
    assert _release.look(str(prefix))["lock"] is None


def test_an_end_without_a_beginning_is_no_deployment(prefix: Path) -> None:
    """A migration that was put back before it began on this host."""
    _release.end(str(prefix), "f00dfeed", "failed: It was killed.")
    assert _release.look(str(prefix))["deployments"] == []


@pytest.mark.parametrize("check", [False, True])
def test_a_host_with_nothing_on_it_is_refused(prefix: Path, check: bool) -> None:
    with pytest.raises(ReleaseError, match=r"/no/releases, so nothing is installed here yet; site\.yml does that"):
        _release.lock(f"{prefix}/no", ADA, take=False, check=check)


def test_an_unreadable_lock_is_one(prefix: Path) -> None:
    (prefix / "releases/.lock").write_text("")
    with pytest.raises(ReleaseError, match="nobody knows whom"):
        _release.lock(str(prefix), ADA, take=False, check=False)


def test_what_was_deployed_is_written_down(prefix: Path) -> None:
    deploy(prefix, "fix-bbbbbbbbbbbb", run="1")
    (entry,) = _release.history(str(prefix))
    assert {key: entry[key] for key in ("action", "who", "where", "release", "from", "version", "commit", "result")} == {
        "action": "deploy",
        "who": "ada",
        "where": "control1",
        "release": "fix-bbbbbbbbbbbb",
        "from": "1.2.2-aaaaaaaaaaaa",
        "version": "fix",
        "commit": "c" * 40,
        "result": "ok",
    }
    assert json.loads((prefix / "releases/fix-bbbbbbbbbbbb/deployed.json").read_text()) == entry
    assert _release.look(str(prefix))["deployment"] == entry


def test_a_line_that_was_cut_off_spoils_nothing(prefix: Path) -> None:
    deploy(prefix, "fix-bbbbbbbbbbbb", run="1")
    with (prefix / "releases/.deployments").open("a") as stream:
        stream.write('{"id": "2", "act')
    deploy(prefix, "fix-cccccccccccc", run="3")
    assert [entry["id"] for entry in _release.history(str(prefix))] == ["1", "3"]


def test_a_rollback_goes_back_one_deployment_after_the_other(prefix: Path) -> None:
    assert _release.look(str(prefix))["previous"] is None
    deploy(prefix, "fix-bbbbbbbbbbbb", run="1")
    deploy(prefix, "fix-cccccccccccc", run="2")
    assert _release.look(str(prefix))["previous"] == "fix-bbbbbbbbbbbb"
    deploy(prefix, "fix-bbbbbbbbbbbb", run="3", action="rollback")
    assert _release.look(str(prefix))["previous"] == "1.2.2-aaaaaaaaaaaa"
    deploy(prefix, "1.2.2-aaaaaaaaaaaa", run="4", action="rollback")
    assert _release.look(str(prefix))["previous"] is None


def test_a_rollback_does_not_go_to_what_failed_but_from_where_a_killed_run_left_off(prefix: Path) -> None:
    deploy(prefix, "fix-bbbbbbbbbbbb", run="1", result="failed: 500")
    point(prefix, "1.2.2-aaaaaaaaaaaa")
    deploy(prefix, "fix-cccccccccccc", run="2", result=None)
    seen = _release.look(str(prefix))
    assert seen["previous"] == "1.2.2-aaaaaaaaaaaa"
    assert seen["deployments"][-1]["result"] is None


def test_what_runs_and_what_a_rollback_needs_stay(prefix: Path) -> None:
    deploy(prefix, "1.2.2-aaaaaaaaaaaa", run="0")
    point(prefix, "fix-bbbbbbbbbbbb")
    deploy(prefix, "1.2.2-aaaaaaaaaaaa", run="1")
    for age, name in enumerate(["new-eeeeeeeeeeee", "newer-ffffffffffff"]):
        make(prefix, name, age=-10 - age)
    assert _release.prune(str(prefix), 1, check=True) == ["new-eeeeeeeeeeee", "fix-cccccccccccc"]
    assert (prefix / "releases/new-eeeeeeeeeeee").exists()
    assert _release.prune(str(prefix), 1, check=False) == ["new-eeeeeeeeeeee", "fix-cccccccccccc"]
    left = sorted(path.name for path in (prefix / "releases").iterdir() if path.is_dir())
    assert left == ["1.2.2-aaaaaaaaaaaa", "fix-bbbbbbbbbbbb", "half-dddddddddddd", "newer-ffffffffffff", "zeo-3.10.5-aaaaaaaaaaaa"]


def test_nothing_leads_back_behind_a_migration(prefix: Path) -> None:
    deploy(prefix, "fix-bbbbbbbbbbbb", run="1", action="migrate")
    deploy(prefix, "fix-cccccccccccc", run="2")
    assert _release.look(str(prefix))["previous"] == "fix-bbbbbbbbbbbb"
    deploy(prefix, "fix-bbbbbbbbbbbb", run="3", action="rollback")
    seen = _release.look(str(prefix))
    assert seen["previous"] is None
    # The release that was migrated from stays all the same.
    assert _release.prune(str(prefix), 1, check=False) == []
    assert (prefix / "releases/1.2.2-aaaaaaaaaaaa").exists()
    _release.lock(str(prefix), {**ADA, "action": "migrate"}, take=False, check=False)
    with pytest.raises(ReleaseError, match="to migrate to fix-bbbbbbbbbbbb"):
        _release.lock(str(prefix), BRUNO, take=False, check=False)


def test_wheels_without_a_release_go(prefix: Path) -> None:
    for name in ("aaaaaaaaaaaa", "bbbbbbbbbbbb", "eeeeeeeeeeee", "ffffffffffff", "0123456789ab.new"):
        (prefix / "wheelhouse" / name).mkdir(parents=True)
    assert _release.prune_wheels(str(prefix), ["ffffffffffff"], check=True) == ["eeeeeeeeeeee"]
    assert _release.prune_wheels(str(prefix), ["ffffffffffff"], check=False) == ["eeeeeeeeeeee"]
    assert not (prefix / "wheelhouse/eeeeeeeeeeee").exists()
    assert _release.prune_wheels(str(prefix), ["ffffffffffff"], check=False) == []


def test_a_release_must_have_room(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_release._info, "file_system", lambda _prefix: {"total_bytes": 10_000, "free_bytes": 1_000})
    _release.room(str(prefix), "fix-bbbbbbbbbbbb")  # it is there already
    with pytest.raises(ReleaseError, match=r"new-999999999999 wants .* where 1000 bytes of 9.77 KB are free"):
        _release.room(str(prefix), "new-999999999999")


# A page


def answers(*wanted: tuple[int | None, bytes]) -> Any:
    waiting = iter(wanted)

    def ask() -> tuple[dict[str, Any], bytes]:
        status, content = next(waiting)
        return {"status": status, "error": None if status else "refused"}, content

    return ask


WELL, BROKEN, MASKED = (200, b"<html>"), (500, b"<html>"), (200, b'<html><input name="reportMsg">')


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_release.time, "sleep", lambda _seconds: None)


def test_well_means_several_times_in_a_row() -> None:
    found = _release.healthy(answers((None, b""), BROKEN, WELL, WELL, BROKEN, WELL, WELL, WELL), 3, 60)
    assert (found["ok"], found["asked"]) == (True, 8)


@pytest.mark.parametrize(
    ("answer", "words"), [(BROKEN, "500"), (MASKED, "200 with an error page"), ((None, b""), "refused"), ((200, b"ok"), "200 with an error page")]
)
def test_what_is_not_well_is_named(answer: tuple[int | None, bytes], words: str) -> None:
    found = _release.healthy(answers(answer), 1, -1)
    assert (found["ok"], found["answer"]) == (False, words)


# A source

LISTED = "\n".join(
    f"{commit * 40}\t{name}"
    for commit, name in [
        ("1", "refs/heads/master"),
        ("2", "refs/heads/fix/1234"),
        ("3", "refs/tags/v1.2.2"),
        ("4", "refs/tags/v1.2.2^{}"),
        ("5", "refs/tags/plain"),
        ("6", "refs/heads/both"),
        ("7", "refs/tags/both"),
    ]
)


@pytest.mark.parametrize(("version", "commit"), [("master", "1"), ("fix/1234", "2"), ("v1.2.2", "4"), ("plain", "5")])
def test_a_branch_and_a_tag_mean_a_commit(version: str, commit: str) -> None:
    assert _release.commit_of("/srv/indico.git", version, LISTED) == commit * 40


def test_a_commit_means_itself() -> None:
    assert _release.commit_of("/srv/indico.git", "ab" * 20, LISTED) == "ab" * 20


def test_what_is_not_there_and_what_is_not_clear_is_refused() -> None:
    with pytest.raises(ReleaseError, match=r"has no branch and no tag 1234. Its branches: both, fix/1234, master\."):
        _release.commit_of("/srv/indico.git", "1234", LISTED)
    with pytest.raises(ReleaseError, match="has a branch and a tag both, which are not the same"):
        _release.commit_of("/srv/indico.git", "both", LISTED)


def test_the_sign_of_a_killed_switch_is_no_maintenance(prefix: Path) -> None:
    # O8: a switch closes the site for its seconds, and the next run takes its sign down.
    sign = prefix / "etc/maintenance"
    sign.mkdir(parents=True)
    (sign / "on").write_text("5")
    assert _release.look(str(prefix))["maintenance"]
    (sign / "release").touch()
    assert _release.look(str(prefix))["maintenance"] is None
