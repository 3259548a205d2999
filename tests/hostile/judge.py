"""Compares how an action ended with the known history, without our code, and asks stock repozo where ours says that all is well."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.actions import Question
from tests.hostile.corruptions import Damage, Kind
from tests.hostile.process import Ended
from tests.hostile.stock import Stock
from tests.hostile.world import Backup, Template

EXACT, REFUSED, WARNED, LATE, ALARM = "exact", "refused", "warned", "late", "alarm"
ERRNO, UNTRUE, STUCK, SILENT, LOST, HUNG, TRACEBACK = "errno", "untrue", "STUCK", "SILENT", "LOST", "HUNG", "TRACEBACK"
VERDICTS = (EXACT, REFUSED, WARNED, LATE, ALARM, ERRNO, UNTRUE, STUCK, SILENT, LOST, HUNG, TRACEBACK)
BAD = (ERRNO, UNTRUE, STUCK, SILENT, LOST, HUNG, TRACEBACK)  # what the goal allows none of
MEANING = {
    EXACT: "the result is what the history says, and stock repozo agrees",
    REFUSED: "a sentence says what is wrong; nothing was lost",
    WARNED: "an older true state, and a warning that names the damage",
    LATE: "not noticed by this action, which need not read all bytes, but by the next verification",
    ALARM: "refused, although stock repozo restores what was asked for",
    ERRNO: "an error without a sentence",
    UNTRUE: "a sentence that says something untrue",
    STUCK: "after a failure or a kill, the next run does not work",
    SILENT: "success with a wrong result, or without the warning that is due",
    LOST: "an acknowledged backup is gone",
    HUNG: "no end in time",
    TRACEBACK: "an exception that is no sentence, or a process that died",
}
_LARGEST = 2 * 2**20  # bytes that a file of a sound copy never has
_LINE = re.compile(r"^(?:.*[/\\])?([^/\\\n]+) (\d+) (\d+) [0-9a-f]{32}$", re.MULTILINE)
_DAMAGE = re.compile(r"damaged|missing|not here|is here, but|lists|not whole|cannot be read|unfinished|lost|not a file|differ|remember", re.I)
_REMEDY = re.compile(r"adopt|rebuil|mend|Remove |Take it out|Set it right|Pin them", re.I)


@dataclass
class Verdict:
    """What became of a case, and the words that tell why."""

    word: str
    why: str = ""


class Evidence:
    """What a damaged copy still shows, before our code runs: which data files are whole, and which backups are acknowledged in it."""

    def __init__(self, template: Template, repository: Path) -> None:
        self.template = template
        self.whole = whole_files(template, repository)
        told = _text(repository / "confops.json")
        lines = "".join(_text(path) for path in sorted(repository.glob("*.dat")) if re.fullmatch(r"\d{4}(?:-\d\d){5}\.dat", path.name))
        listed = {match[1] for match in _LINE.finditer(lines)}
        self.remembered = {one.name for one in template.backups if f'"{one.name}": {{' in told}
        self.acknowledged = [one for one in template.backups if one.name in listed or one.name in self.remembered]
        try:
            self.pins = json.loads(told or "{}").get("pins", [])
        except (ValueError, AttributeError, RecursionError):
            self.pins = []  # a prune must refuse, but that is for its sentence to say
        self.pins = self.pins if isinstance(self.pins, list) else []
        self.sizes = {path.name: path.lstat().st_size for path in repository.iterdir()}

    @property
    def known(self) -> list[str]:
        return [one.name for one in self.acknowledged or self.template.backups]

    def hidden(self) -> bool:
        """Whether only who reads whole data files can see the damage: no size differs, but for sizes that nothing here remembers."""
        if set(self.sizes) != set(self.template.files):
            return False
        other = [name for name, content in self.template.files.items() if self.sizes[name] != len(content)]
        return all(name.endswith("z") and self.sizes[name] and name not in self.remembered for name in other)

    def restorable(self) -> list[Backup]:
        """Return the backups whose chains are whole up to them."""
        found = []
        for chain in self.template.chains():
            for number, one in enumerate(chain):
                if all(other.name in self.whole for other in chain[: number + 1]):
                    found.append(one)
        return found


def whole_files(template: Template, repository: Path) -> set[str]:
    """Return the names of the data files that hold what the history says, also behind a link."""
    found, start = set(), 0
    for chain in template.chains():
        start = 0
        for one in chain:
            if content_of(repository / one.name) == template.state(one)[start:]:
                found.add(one.name)
            start = one.end
    return found


def content_of(path: Path) -> bytes | None:
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return None
        content = path.read_bytes()
        return _unpacked(content) if path.name.endswith("z") else content
    except (OSError, EOFError, zlib.error):
        return None


def _unpacked(content: bytes) -> bytes:
    """Return what gzip members hold; zeros may follow them. Raises EOFError for what is cut off or larger than anything in a sound copy."""
    found = b""
    while content.strip(b"\0") or (content and not found):
        unpack = zlib.decompressobj(wbits=31)
        found += unpack.decompress(content, _LARGEST)
        if not unpack.eof or len(found) > _LARGEST:
            raise EOFError
        content = unpack.unused_data
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace") if path.is_file() and path.stat().st_size < _LARGEST else ""
    except OSError:
        return ""


def failure(ended: Ended) -> Verdict | None:
    """Return the verdict on what did not end as it should: hung, died, or said something that is no sentence."""
    if ended.how == "hung":
        return Verdict(HUNG, ended.text)
    if ended.how == "raised" and ended.error == "OSError":
        return Verdict(ERRNO, ended.text)
    if ended.how == "raised" and ended.error not in ("RepositoryError", "FileStorageError"):
        return Verdict(TRACEBACK, f"{ended.error}: {ended.text}\n{ended.trace}")
    if ended.how == "raised" and not sentence(ended.text):
        return Verdict(ERRNO, ended.text)
    return None


def sentence(text: str) -> bool:
    """Whether a person can read it: words with an end, no number of an error, no name of an exception."""
    return bool(re.search(r"[.)]\s*$", text)) and len(text.split()) > 2 and not re.search(r"\[Errno|Error\(|Traceback|\bObject of type\b", text)


class Judge:
    """Judges one case. stocks are the versions of repozo to ask; scratch is a file that they may write."""

    def __init__(self, stocks: list[Stock], scratch: Path) -> None:
        self.stocks, self.scratch = stocks, scratch

    def judge(self, d: Damage, kind: Kind, question: Question, before: Evidence, ended: Ended) -> Verdict:
        failed = failure(ended)
        gone = self._lost(d, question, before, ended)
        if gone:
            return gone
        if failed:
            return failed
        if ended.how == "raised":
            return self._refused(d, kind, question, before, ended)
        return getattr(self, f"_{question.action}")(d, question, before, ended)

    # What must be true whatever happened

    def _lost(self, d: Damage, question: Question, before: Evidence, ended: Ended) -> Verdict | None:
        left = whole_files(d.template, d.repository)
        gone = [one.name for one in before.acknowledged if one.name in before.whole and one.name not in left]
        if question.action == "prune":
            return self._pruned_too_much(d, question, before, left)
        return Verdict(LOST, f"gone: {', '.join(gone)}; {ended.value or ended.text}") if gone else None

    def _pruned_too_much(self, d: Damage, question: Question, before: Evidence, left: set[str]) -> Verdict | None:
        after = [one for one in before.restorable() if one.name in left]
        sound = [chain for chain in d.template.chains() if all(one.name in before.whole for one in chain)]
        deleted = [chain for chain in sound if not all(one.name in left for one in chain)]
        for chain in deleted:
            newer = [other for other in sound if other[0].stamp > chain[0].stamp and other not in deleted]
            if len(newer) < question.chains:
                word = LATE if before.hidden() and after else LOST
                return Verdict(word, f"the chain {chain[0].stamp} was removed, with {len(newer)} sound ones that are newer")
            if chain[0].stamp in before.pins:
                return Verdict(LOST, f"the chain {chain[0].stamp} was pinned")
        newest = before.restorable()[-1:]
        if newest and newest[0].name not in left:
            return Verdict(LOST, f"{newest[0].name}, the newest that could be restored, is gone")
        return None

    def _refused(self, d: Damage, kind: Kind, question: Question, before: Evidence, ended: Ended) -> Verdict:
        if kind.refusable or _REMEDY.search(ended.text):
            return Verdict(REFUSED, ended.text)
        if question.action in ("newest", "time", "transaction"):
            return Verdict(ALARM if self._all_there(d, question, before) else REFUSED, ended.text)
        return Verdict(ALARM if kind.harmless else REFUSED, ended.text)

    def _all_there(self, d: Damage, question: Question, before: Evidence) -> bool:
        """Whether stock repozo restores what was asked for, of files that are whole, and those that could say more are whole, too."""
        for state in _wanted(d.template, question, before.known):
            for chain in d.template.chains():
                needed = []
                for one in chain:
                    needed.append(one)
                    if one.end > len(state):
                        break
                last = needed[-1]
                if d.template.state(last)[: len(state)] != state or not all(one.name in before.whole for one in needed):
                    continue
                restored = self.stocks[0].restore(d.repository, last.stamp, self.scratch)
                if restored is not None and restored[: len(state)] == state:
                    return True
        return False

    # What each action says

    def _backup(self, d: Damage, question: Question, before: Evidence, ended: Ended) -> Verdict:
        told = ended.value
        must_warn = d.must_warn or d.ahead
        if must_warn and not told["warnings"]:
            if d.during and not d.ahead and not self._stock_differs(d.repository, "", d.template.live):
                return Verdict(EXACT, "it had ended before anything happened to the database")
            return Verdict(SILENT, f"no warning: {told['kind']}, {told['reason']}")
        if d.must_warn:
            return Verdict(EXACT, "; ".join(told["warnings"]))
        expected = d.template.live if d.database is None else d.database
        if d.during and d.live.is_file() and d.live.stat().st_size > len(expected):
            expected = d.live.read_bytes()[: told["end"]]
        wrong = self._stock_differs(d.repository, "", expected)
        if not wrong:
            return Verdict(EXACT)
        damaged = [one.name for one in d.template.chains()[-1] if one.name not in before.whole]
        if before.hidden() and not (d.template.backups[-1].name in damaged and d.state.exists()):
            return Verdict(LATE, wrong)
        if any("stock repozo takes it for a backup" in text for text in told["warnings"]):
            return Verdict(WARNED, wrong)
        return Verdict(SILENT, f"{told['kind']} ({told['reason']}): {wrong}")

    def _verify(self, d: Damage, question: Question, before: Evidence, ended: Ended) -> Verdict:
        told = ended.value
        restorable = {one.name for one in before.restorable()}
        missing = [name for name in before.known if name not in restorable]
        if told["problems"]:
            odd = [text for text in told["problems"] if not sentence(text)]
            return Verdict(ERRNO, odd[0]) if odd else Verdict(REFUSED, " ".join(told["problems"][:3]))
        if missing:
            warned = any(_DAMAGE.search(text) for text in told["warnings"])
            return Verdict(WARNED if warned else SILENT, f"verify finds nothing, but {missing[-1]} is not whole")
        for one in (d.template.backups[-1], d.random.choice(d.template.backups)):
            wrong = self._stock_differs(d.repository, one.stamp, d.template.state(one)) if one.name in before.known else ""
            if wrong:
                return Verdict(WARNED if told["warnings"] else SILENT, f"verify finds nothing, but {wrong}")
        return Verdict(EXACT)

    def _restore(self, d: Damage, question: Question, before: Evidence, ended: Ended) -> Verdict:
        told = ended.value
        target = d.place / "restored/Data.fs"
        content = target.read_bytes() if target.is_file() else b""
        acceptable = _wanted(d.template, question, before.known) + _wanted(d.template, question, [one.name for one in d.template.backups])
        if content in acceptable:
            if question.must_warn and not told["warnings"]:
                return Verdict(SILENT, "no warning: transactions of the future were left out")
            return Verdict(EXACT)
        older = any(generation.content.startswith(content) and len(content) in generation.ends for generation in d.template.generations)
        why = f"{len(content)} bytes of {told['files'][-1:]}, where {len(acceptable[0]) if acceptable else 'nothing'} are right; warnings: {told['warnings']}"
        return Verdict(WARNED if older and acceptable and any(_DAMAGE.search(text) for text in told["warnings"]) else SILENT, why)

    _newest = _time = _transaction = _restore

    def _prune(self, d: Damage, question: Question, before: Evidence, ended: Ended) -> Verdict:
        return Verdict(EXACT, f"deleted: {ended.value['deleted']}")

    def _pull(self, d: Damage, question: Question, before: Evidence, ended: Ended) -> Verdict:
        told, copy = ended.value, d.place / "host/copy/main"
        whole = whole_files(d.template, copy)
        ours = {one.name for one in d.template.backups}
        for chain in d.template.chains():
            for match in _LINE.finditer(_text(copy / f"{chain[0].stamp}.dat")):
                if match[1] in ours and match[1] not in whole:
                    return Verdict(SILENT, f"{match[1]} was taken over and is not what was backed up")
                if match[1] not in ours:
                    return Verdict(SILENT, f"{match[1]} was taken over and is of another database")
        was = whole_files(d.template, d.template.place / "host/copy/main")
        if was - whole:
            return Verdict(LOST, f"the copy lost {', '.join(sorted(was - whole))}")
        if not told["ok"]:
            odd = [text for text in told["refused"] + told["problems"] if not sentence(text)]
            return Verdict(ERRNO, odd[0]) if odd else Verdict(REFUSED, " ".join((told["refused"] + told["problems"])[:2]))
        if set(before.known) - whole:
            return Verdict(LATE, f"all is said to be well, but {max(set(before.known) - whole)} was not taken over")
        return Verdict(EXACT)

    def _stock_differs(self, repository: Path, stamp: str, expected: bytes | None) -> str:
        """Return what a stock version restores that differs from what is expected, empty when all agree."""
        for stock in self.stocks:
            restored = stock.restore(repository, stamp, self.scratch)
            if restored != expected:
                size = "nothing" if restored is None else f"{len(restored)} bytes"
                return f"repozo {stock.name} restores {size} where {len(expected or b'')} bytes are right{f' (as of {stamp})' if stamp else ''}"
        return ""


def _wanted(template: Template, question: Question, known: Iterable[str]) -> list[bytes]:
    """Return the states that may be restored."""
    known = list(known)
    if question.action == "newest":
        return [template.state(one) for one in template.backups if one.name in known][-1:]
    return template.states_at(question.limit, exact=question.exact, known=known)
