"""A .dat file is made anew from the data files (B16), and only when these surely are what it would say."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import struct
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.confops.indico.plugins.module_utils import _adopt, _filestorage, _repository, _repozo, _verify
from ansible_collections.confops.indico.plugins.module_utils._repository import RepositoryError
from ansible_collections.confops.indico.plugins.modules import repozo_adopt

from tests.unit.storage import START, record, tid_of

KINDS = ("fs", "deltafsz", "deltafs", "deltafsz")
NAMES = [f"2026-03-01-12-00-0{number}.{kind}" for number, kind in enumerate(KINDS)]
STAMP, DAT = NAMES[0][:19], f"{NAMES[0][:19]}.dat"


def transaction(number: int, position: int) -> bytes:
    """Return a transaction with one object's record, which names the offset at which it lies."""
    tid, data = tid_of(START + timedelta(seconds=number)), b"object" * number
    return record(tid, _filestorage.RECORD.pack(struct.pack(">Q", number), tid, 0, position, 0, len(data)) + data)


class Site:
    """A database and its repository of one chain, which mixes compressed files and others."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.database, self.path, self.number = path / "Data.fs", path / "repository", 0
        self.database.write_bytes(b"FS21")
        self.path.mkdir()
        names = iter([*NAMES, "2026-03-01-12-00-09.deltafs"])
        monkeypatch.setattr(_repozo, "_stamp", lambda _repository: next(names)[:19])
        for kind in KINDS:
            self.add()
            self.backup("gzip" if kind.endswith("z") else "none")

    def add(self) -> None:
        for _each in range(3):
            self.number += 1
            with self.database.open("ab") as stream:
                stream.write(transaction(self.number, stream.tell()))

    def backup(self, compression: str = "none") -> str:
        return _repozo.backup(str(self.database), str(self.path), compression=compression).decision.kind

    def adopt(self, stamp: str | None = None) -> _adopt.Result:
        """Check, run, and run again: the check tells what the run does, and the second run changes nothing."""
        before = self.seen()
        checked = _adopt.adopt(str(self.path), stamp, check=True)
        assert self.seen() == before
        result = _adopt.adopt(str(self.path), stamp)
        assert checked == result
        after = self.seen()
        assert not _adopt.adopt(str(self.path), stamp).changed
        assert self.seen() == after
        return result

    def refusal(self) -> str:
        before = self.seen()
        with pytest.raises(RepositoryError) as caught:
            _adopt.adopt(str(self.path))
        assert self.seen() == before
        return str(caught.value)

    def seen(self) -> dict[str, bytes]:
        return {one.name: one.read_bytes() for one in self.path.iterdir()}

    def forget(self) -> None:
        (self.path / "confops.json").unlink()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def lose(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def scramble(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b" 4 ", b" 5 ").replace(b"/", b"\xff"))


def lose_a_line(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[::2]))


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("damage", [lose, empty, cut, scramble, lose_a_line])
def test_a_dat_file_is_made_anew_and_backups_go_on(site: Site, damage: Callable[[Path], None], memory: bool) -> None:
    whole = (site.path / DAT).read_bytes()
    damage(site.path / DAT)
    damaged = site.seen().get(DAT)
    if not memory:
        site.forget()
    if damage is not scramble:
        assert _verify.verify(str(site.path), check=True).problems
    result = site.adopt(STAMP)
    kept = f"{DAT}.replaced-1" if damaged is not None else None
    assert result.chains == [{"stamp": STAMP, "changed": True, "files": 4, "end": site.database.stat().st_size, "kept_as": kept}]
    entries = _repository.parse_dat(whole.decode())[0]
    assert _repository.parse_dat((site.path / DAT).read_text("utf-8", "replace"))[0] == entries
    assert kept is None or (site.path / kept).read_bytes() == damaged
    assert _verify.verify(str(site.path)).problems == []
    site.add()
    assert site.backup() == "incremental"
    assert _verify.verify(str(site.path)).problems == []


def test_a_dat_file_that_agrees_stays(site: Site) -> None:
    before = site.seen()
    assert site.adopt().chains == []
    assert site.adopt(STAMP).chains == [{"stamp": STAMP, "changed": False, "files": 4, "end": site.database.stat().st_size, "kept_as": None}]
    assert site.seen() == before


def test_lines_that_are_right_stay_as_they_are(site: Site) -> None:
    dat = site.path / DAT
    lines = dat.read_text().replace(str(site.path), "/before/it/moved").splitlines(keepends=True)
    dat.write_text("".join(lines[:-1]))
    site.forget()
    site.adopt()
    assert dat.read_text() == "".join(lines[:-1]) + f"{site.path}/{lines[-1].split('/')[-1]}"


def test_what_an_interrupted_backup_left_is_not_adopted(site: Site) -> None:
    left = "2026-03-01-12-00-08.deltafs"
    (site.path / left).write_bytes(b"x")
    _repository.write_state(str(site.path), {**_repository.read_state(str(site.path)), "writing": left})
    assert site.adopt(STAMP).chains[0]["files"] == 4


# What is refused


def changed(path: Path, change: Callable[[bytes], bytes]) -> None:
    packed = path.name.endswith("z")
    content = change(b"".join(_repository.blocks(str(path), packed)))
    path.write_bytes(gzip.compress(content) if packed else content)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_was_changed_is_refused(site: Site, name: str) -> None:
    changed(site.path / name, lambda content: content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    (site.path / DAT).write_bytes((site.path / DAT).read_bytes() + b"x")
    sentence = site.refusal()
    assert sentence.startswith(f"{name} has the md5 ")
    site.forget()
    assert re.fullmatch(rf"{name} has the md5 \w+; {DAT} says \w+\. Perhaps the file is damaged, so its line stays\.", site.refusal())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "change",
    [lambda content: content[:-1], lambda content: content + b"\0", lambda content: content + bytes(40), lambda content: content[:-70]],
    ids=["cut", "a byte more", "zeros behind", "cut deeply"],
)
def test_a_file_that_does_not_end_with_a_transaction_is_refused(site: Site, name: str, change: Callable[[bytes], bytes]) -> None:
    site.forget()
    (site.path / DAT).unlink()
    changed(site.path / name, change)
    assert site.refusal().startswith(f"{name} holds no whole, committed transaction at byte ")


def test_a_transaction_that_was_not_committed_is_refused(site: Site) -> None:
    site.forget()
    (site.path / DAT).unlink()
    changed(site.path / NAMES[1], lambda content: content[:16] + b"c" + content[17:])
    assert site.refusal() == f"{NAMES[1]} holds no whole, committed transaction at byte 0 of what it holds."


def test_a_file_that_is_missing_is_noticed(site: Site) -> None:
    (site.path / NAMES[2]).unlink()
    assert site.refusal() == f"{DAT} lists {NAMES[2]}, which is not here. Bring it back; if it is lost, move {DAT} away."
    site.forget()
    (site.path / DAT).unlink()
    assert re.fullmatch(
        rf"{NAMES[3]} holds a transaction of byte \d+ of the database where byte \d+ belongs: a file is missing\.",
        site.refusal(),
    )


def test_files_in_another_order_are_refused(site: Site) -> None:
    site.forget()
    (site.path / DAT).unlink()
    one, other = site.path / NAMES[1], site.path / NAMES[3]
    before = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(before)
    assert site.refusal().startswith(f"{NAMES[1]} holds a transaction of byte ")
    one.write_bytes(before)
    assert re.search(r" holds a transaction of byte | after ", site.refusal())


@pytest.mark.parametrize(("content", "sentence"), [(b"", "does not begin with FS21 or FS30: it holds no FileStorage."), (b"FS21", None)])
def test_a_full_backup_without_transactions(site: Site, content: bytes, sentence: str | None) -> None:
    for path in site.path.iterdir():
        path.unlink()
    (site.path / NAMES[0]).write_bytes(content)
    if sentence:
        assert site.refusal() == f"{NAMES[0]} {sentence}"
    else:
        assert site.adopt().chains[0]["end"] == 4


def test_a_data_file_that_is_no_file_is_refused(site: Site) -> None:
    """B4"""
    (site.path / NAMES[2]).unlink()
    os.mkfifo(site.path / NAMES[2])
    with pytest.raises(RepositoryError, match=rf"^{NAMES[2]} is a FIFO, not a file\.$"):
        _adopt.adopt(str(site.path))


def test_other_refusals(site: Site, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"^There is no chain 2020-01-01-00-00-00 in "):
        _adopt.adopt(str(site.path), "2020-01-01-00-00-00")
    with pytest.raises(RepositoryError, match="its path must hold none"):
        _adopt.adopt(f"{tmp_path}/a b")
    (site.path / f"{STAMP}.deltafs").write_bytes(b"x")
    assert site.refusal() == f"{NAMES[0]} and {STAMP}.deltafs are of the same second: which of them is meant nobody can tell. Move one away first."


# Killed, or refused by the system


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "replace", "fchmod"])
def test_an_error_at_any_step_leaves_the_old_file_or_the_new_one(site: Site, monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    cut(site.path / DAT)
    old, really, steps = (site.path / DAT).read_bytes(), getattr(os, call), 0
    while True:
        left = steps

        def fail(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(number, os.strerror(number))
            return really(*arguments, **options)

        monkeypatch.setattr(os, call, fail)
        sentence = ""
        try:
            _adopt.adopt(str(site.path))
        except RepositoryError as error:
            sentence = str(error)
        monkeypatch.setattr(os, call, really)
        if not sentence:
            break
        is_new = (site.path / DAT).read_bytes() != old
        assert sentence.endswith(f"The {'new .dat file is there' if is_new else 'old .dat file is as it was'}. Run it again.")
        assert not is_new or not _repository.read(str(site.path)).all_problems()
        steps += 1
        (site.path / DAT).write_bytes(old)
        state = _repository.read_state(str(site.path))
        _repository.write_state(str(site.path), {**state, "stored": {**state["stored"], DAT: {"bytes": len(old), "md5": "0" * 32}}})
    assert steps >= 3 or call == "fchmod"
    assert _verify.verify(str(site.path)).problems == []


# The module


def test_the_module_checks_runs_and_then_has_nothing_to_do(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    def module(**options: Any) -> dict[str, Any]:
        with patch_module_args({"repository": str(site.path), **options}), pytest.raises(SystemExit):
            repozo_adopt.main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        answer.pop("invocation")
        return answer

    (site.path / DAT).unlink()
    checked = module(_ansible_check_mode=True)
    assert checked == module()
    assert (checked["changed"], checked["chains"][0]["stamp"]) == (True, STAMP)
    assert module() == {"changed": False, "chains": []}
    assert module(chain="x")["msg"].startswith("There is no chain x in ")


def test_what_a_person_reads() -> None:
    one = {"stamp": STAMP, "changed": True, "files": 4, "end": 9, "kept_as": f"{DAT}.replaced-1"}
    assert _adopt.Result([one], True).lines(check=True) == [f"{DAT} would be made anew from 4 files; the old one would be kept as {DAT}.replaced-1."]
    assert _adopt.Result([{**one, "kept_as": None}], True).lines(check=False) == [f"{DAT} was made anew from 4 files."]
    assert _adopt.Result([{**one, "changed": False}]).lines(check=False)[0].startswith(f"{DAT} agrees with its 4 files")
    assert _adopt.Result().lines(check=False) == ["Every .dat file agrees with its data files as far as the directory tells; nothing was done."]
