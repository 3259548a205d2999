# Copyright: (c) 2026, confops developers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The jobs that administrators of Indico 1.x wrote into crontabs by hand: found, explained and, where they are named, removed.

A job is certain when each of its commands is one that this collection does now, and each of its arguments belongs to this instance. One argument that
names another place or runs another program makes it "perhaps": somebody has to look. Nothing is removed but what is asked for, and a copy of each file
is kept before it changes.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import itertools
import os
import re
import shlex
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.confops.indico.plugins.module_utils import _repository

_SHOWN = 200  # characters of a command
_LONGEST = 1000  # characters of a line that cron takes, and that a diff shows
_LARGEST = 1 << 16  # bytes; a longer file is no crontab, and no script that somebody wrote
_PERIODIC = ("hourly", "daily", "weekly", "monthly", "yearly")
_RUN = re.compile(r"[A-Za-z0-9_-]+")  # names of files that cron and run-parts do not skip
_ROLES_OWN = re.compile(r"[a-z][a-z0-9_-]*-(backup|offsite|scheduler|cron)")  # files in cron.d that the roles write
_ID = re.compile(r"[0-9a-f]{8}")
_ENVIRONMENT = re.compile(r"""\s*(?:(?P<name>[A-Za-z_]\w*)|"[^"]*"|'[^']*')\s*=\s*(?P<value>.*)""")
_HEADING = re.compile(r"\bdom\s+mon\s+dow\b|^#\s*(?:@\w+|(?:[0-9*/,-]+\s+){4}[\w*/,-]+)\s|ansible", re.IGNORECASE)  # a comment that is more than one
_REMOVES = r"\brm\b|-delete\b|\btmpwatch\b|\btmpreaper\b"

# Commands that are joined by ; && || & or a new line, a pipe being one of them. Quotes, escapes (find's \;) and redirections (2>&1) stay whole.
_COMMAND = re.compile(r"""(?:\\.|"(?:\\.|[^"\\])*"|'[^']*'|[<>]&|&>|(?<!\|)\|(?!\|)|[^;&|\n\\"']|["'])+""", re.DOTALL)
_KEYWORDS = {"if", "then", "else", "elif", "do", "fi", "done", "(", ")", "{", "}", "!"}
_HARMLESS = {"cd", "[", "test", "true", ":", "exit", "echo", "sleep", "mail", "mailx", "logger", "set", "export"}
_FILTERS = {"mail", "mailx", "logger", "tee", "cat", "grep", "egrep", "head", "tail", "sort", "uniq", "wc"}  # none that may run something else
_REMOVERS = {"rm", "gzip", "bzip2", "xz"}  # what find and xargs may run
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_REDIRECTION = re.compile(r"[0-9]?(?:>>?|<)(?:&[0-9]|&-)?")
_WRAPPERS = re.compile(r"sudo|runuser|nice|ionice|timeout|env|exec|time|setsid|chronic|nohup|sh|bash|dash|python[0-9.]*")

_VALUE = r"""(?:"[^"]*"|'[^']*'|[^\s&;|"']+)"""
_SECRETS = [
    (re.compile(r"""(://[^\s/:@"']*:)[^\s"']*@"""), r"\1***@"),
    (re.compile(r"""(https?://)[^\s/:@"']{16,}@"""), r"\1***@"),
    (re.compile(rf"(?i)(--[\w-]{{0,40}}(?:pass|pwd|secret|token|key)[\w-]{{0,40}}(?:=|\s+)){_VALUE}"), r"\1***"),
    (re.compile(rf"(?i)((?<![a-z])(?:ak|\w{{0,40}}(?:pass|pwd|secret|token|key|signature)\w{{0,40}})=){_VALUE}"), r"\1***"),
    (re.compile(r"(?i)(authorization:\s*)[^\"']+"), r"\1***"),
    (re.compile(r"(?i)(\bx-[\w-]{0,40}(?:key|token|secret|auth)[\w-]{0,40}:\s*)[^\s\"']+"), r"\1***"),
    (re.compile(r"(\s(?:-u|--user|--proxy-user|-U)[\s=]*[\"']?[^\s:\"']+:)[^\s\"']+"), r"\1***"),
    (re.compile(rf"((?:mysql|mariadb|sshpass|7za?\b|lftp).*?\s-p){_VALUE}"), r"\1***"),
    (re.compile(rf"(\s-p\s+)(?!-){_VALUE}"), r"\1***"),
    (re.compile(rf"(\b(?:ldap\w+\s.*?\s-w|redis-cli\s.*?-a)\s*){_VALUE}"), r"\1***"),
]


class CrontabError(Exception):
    """What was asked for cannot be done; the message is a sentence for the operator."""


@dataclass(frozen=True)
class Kind:
    """What administrators had a job for. In the expressions PREFIX stands for the instance's.

    A text is of the kind when all of patterns are found in it. (One expression for all of them would take minutes for a line made for that.)
    program is the name of the command that does it, and without one it is never certain. own are those commands that are Indico's without a directory
    before them, so that the prefix need not be there. now says what does it here, trap why the line should not stay.
    """

    name: str
    patterns: list[str]
    now: str
    trap: str
    program: str = ""
    own: str = ""
    backs_up: bool = False  # certain only where role backup does it
    elsewhere: str = ""  # arguments that may name a place outside of the prefix: an option and its value, or a word


KINDS = [
    Kind(
        "apache_logs",
        [r"\bhttpd_logrotate\b"],
        "role logrotate, logrotate_keep",
        "the logs would be rotated twice, and a restart of Apache answers requests with 503",
        program=r"httpd_logrotate(\.sh)?",
        elsewhere=r"/usr/sbin/(?:httpd|apache2)",
    ),
    Kind(
        "indico_logs",
        [r"\bindicolog_rotate\b"],
        "role logrotate, logrotate_keep",
        "the logs would be rotated twice, and lines are lost in between",
        program=r"indicolog_rotate(\.sh)?",
        own=r"indicolog_rotate",
    ),
    Kind(
        "scheduler_logs",
        [r"\b(?:mv|rm|gzip|bzip2|xz|find)\b", r"\bscheduler\.log\b"],
        "role logrotate, logrotate_dated_days",
        "the copies are moved away from what compresses and removes them, and fill the disk",
        program=r"mv|rm|gzip|bzip2|xz|find",
    ),
    Kind(
        "offline_mirror",
        [r"\bofflineMirror(?:\.sh|\.py)?\b"],
        "playbooks/offline_mirror.yml, or role cron with cron_mirror_target",
        "it says nothing of pages that it could not read",
        program=r"offlineMirror(\.sh|\.py)?",
        own=r"offlineMirror(?:\.sh|\.py)?",
    ),
    Kind(
        "pack",
        [r"\bpackDB(?:\.py)?\b|\bzeopack(?:\.py)?\b|\bdbi\.pack\("],
        "role backup, backup_pack_schedule and backup_pack_days",
        "a pack every night makes every backup a full one, is not preceded by a backup, and ends with 0 when nothing was packed",
        program=r"packDB(\.py)?|zeopack(\.py)?",
        own=r"packDB(?:\.py)?|zeopack(?:\.py)?\s(?:.*[\s:])?967[56]\b",
        backs_up=True,
    ),
    Kind(
        "backup_retention",
        [r"\bremoveOldBackups(?:\.py)?\b"],
        "role backup, backup_window_days and backup_keep_daily, _weekly, _monthly, _yearly",
        "it removes by age, a full backup before the incremental ones that need it, and knows nothing of what was verified",
        program=r"removeOldBackups(\.py)?",
        backs_up=True,
    ),
    Kind(
        "backup",
        [r"\brepozo(?:\.py)?\b"],
        "role backup, backup_schedule",
        "it ends with 0 when a backup cannot be restored, and two at once destroy each other's files",
        program=r"repozo(\.py)?",
        backs_up=True,
        elsewhere=r"-\w*r \S+|--repository[= ]\S+",
    ),
    Kind(
        "scheduler",
        [r"\bindico_scheduler\b|\btaskDaemon(?:\.py)?\b"],
        "role scheduler, whose unit starts the daemon and brings it back",
        "it starts one beside the unit, even while a maintenance pauses the scheduler, which nothing watches over; and stop says done when it is not",
        program=r"indico_scheduler|taskDaemon(\.py)?",
        own=r"indico_scheduler|taskDaemon(?:\.py)?",
    ),
    Kind(
        "category_integrity",
        [r"\bcategory_integrity\.py\b"],
        "playbooks/category_integrity.yml",
        "it writes into the database while it checks, and always ends with 0",
        program=r"category_integrity\.py",
    ),
    Kind(
        "cache",
        [r"PREFIX/+cache(?![\w.-])", _REMOVES],
        "playbooks/cleanup.yml, or role cron with cron_clean_schedule",
        "it logs out everybody whose session did not change for two days: sessions lie in the cache and are seldom written",
        program=r"find|rm|tmpwatch|tmpreaper",
    ),
    Kind(
        "tmp",
        [r"PREFIX/+tmp(?![\w.-])", _REMOVES],
        "playbooks/cleanup.yml, or role cron with cron_clean_schedule",
        "it removes the libraries in tmp/egg-cache from under the running workers",
        program=r"find|rm|tmpwatch|tmpreaper",
    ),
    Kind(
        "disk_space",
        [r"(?:^|[\s;&|(])(?:/bin/|/usr/bin/)?df\b", r"\b(?:mailx?|mutt|sendmail)\b"],
        "playbooks/disk_space.yml, or role cron with cron_disk_schedule and cron_mail_to",
        "it warns when it is late, says nothing of the pace and nothing of inodes; but it may watch other disks than the instance's",
    ),
    Kind(
        "other",
        [r"PREFIX(?![\w.-])"],
        "nothing that is known: look what it does",
        "it works on the instance's files beside the roles",
    ),
]


@dataclass
class Finding:
    """One job. numbers are its lines in the file, counted from 0; of a script those are all."""

    identity: str
    file: str
    numbers: list[int]
    line: int
    kind: Kind
    certain: bool
    user: str
    schedule: str
    text: str
    note: str = ""

    def data(self) -> dict[str, Any]:
        return {
            "id": self.identity,
            "file": self.file,
            "line": self.line,
            "kind": self.kind.name,
            "certain": self.certain,
            "user": self.user,
            "schedule": self.schedule,
            "text": self.text,
            "now": self.kind.now,
            "trap": self.kind.trap,
            "note": self.note,
        }


@dataclass
class _Job:
    """One job as a file has it."""

    numbers: list[int]
    schedule: str
    user: str
    command: str  # with what its variables say, to be judged
    written: str
    line: str


@dataclass
class _File:
    """A file that cron reads. path is where it lies, shown how the report calls it; user is whose crontab it is, link where it leads to."""

    path: str
    shown: str
    form: str  # user, system, anacron, script
    content: bytes
    found: os.stat_result
    user: str = ""
    link: str = ""
    note: str = ""
    schedule: str = ""
    findings: list[Finding] = field(default_factory=list)

    @property
    def lines(self) -> list[bytes]:
        return re.findall(rb"[^\n]*\n|[^\n]+", self.content)  # splitlines would divide at more than that


@dataclass
class Report:
    """What was found, what was removed of it or in a check would be, and the copies of the files that changed."""

    files: list[_File]
    removed: list[Finding] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)

    @property
    def findings(self) -> list[Finding]:
        return [finding for file in self.files for finding in file.findings]


def look(prefix: str, *, root: str = "/") -> Report:
    """Read what cron and anacron read below root, and return what concerns the instance at prefix. It changes nothing."""
    judge = _Judge(prefix, backs_up=bool(glob.glob(os.path.join(root, glob.escape(prefix)[1:], "bin/*-backup"))))
    files = list(_files(root))
    for file in files:
        if file.form == "script":
            file.findings = list(_in_script(file, judge))
        else:
            file.findings = [finding for job in _jobs(file) for finding in _in_job(file, job, judge)]
    return Report([file for file in files if file.findings])


def remove(report: Report, wanted: list[str], copies: str, *, check: bool = False) -> None:
    """Remove what wanted names: all (that is certain), ids, or files with all that was found in them. With check, only say what that would be.

    The report then says what was removed, and which of the names mean nothing (any more). copies is the directory that takes the files as they were.
    """
    for name in wanted:
        if name != "all" and not _ID.fullmatch(name) and not name.startswith("/"):
            raise CrontabError(f"{name!r} is not what can be removed; say all, an id of the report (eight digits and letters), or a file of the report.")
    report.unknown = [name for name in wanted if name != "all" and not any(name in (one.identity, one.file) for one in report.findings)]
    plan = []
    for file in report.files:
        chosen = [one for one in file.findings if one.identity in wanted or one.file in wanted or (one.certain and "all" in wanted)]
        if chosen and file.link and file.form != "script":
            raise CrontabError(f"{file.shown} is a link to {file.link}, which something else may own, so nothing was removed; edit that file.")
        if chosen:
            plan.append((file, chosen))
    if plan and not check and not os.path.isdir(copies):
        raise CrontabError(f"There is no directory {copies} for the copies of what changes, so nothing was removed.")
    for file, chosen in plan:
        numbers = {number for one in chosen for number in one.numbers}
        numbers |= _comments(file, numbers)
        report.removed += chosen
        gone = "".join(_printable(_text(line).rstrip("\r\n")) + "\n" for number, line in enumerate(file.lines) if number in numbers)
        report.diff.append({"before_header": file.shown, "after_header": file.shown, "before": gone, "after": ""})
        if check:
            continue
        try:
            report.copies.append(_copy(file, copies))
            _write(file, None if file.form == "script" else b"".join(line for number, line in enumerate(file.lines) if number not in numbers))
        except (CrontabError, OSError) as error:
            done = [earlier.shown for earlier, _chosen in plan[: plan.index((file, chosen))]]
            raise CrontabError(f"{_repository.told(error)}{' Before that, lines were removed from ' + ', '.join(done) + '.' if done else ''}") from error


def _comments(file: _File, numbers: set[int]) -> set[int]:
    """Return the numbers of the comments that belong to removed jobs alone: the block above them, when nothing else follows it.

    A crontab's header (m h dom mon dow) and a job that was commented out stay, since they say more than what the removed line does.
    """
    found: set[int] = set()
    texts = [_text(line).strip() for line in file.lines]
    for first in (number for number in numbers if number - 1 not in numbers):
        after = next(number for number in range(first, len(texts) + 1) if number not in numbers)
        if after < len(texts) and texts[after] and not texts[after].startswith("#"):
            continue  # the block may be about the line that stays
        for number in range(first - 1, -1, -1):
            if not texts[number].startswith("#") or _HEADING.search(texts[number]):
                break
            found.add(number)
    return found


def lines(report: Report, *, check: bool = False) -> list[str]:
    """Return the report for people."""
    told = []
    for one in report.findings:
        place = f"{one.identity} {one.file}:{one.line}" + (f" (user {one.user})" if one.user else "") + (f" ({one.note})" if one.note else "")
        line = f"{place}, {'' if one.certain else 'perhaps '}{one.kind.name}: {one.schedule} {one.text}"
        if one in report.removed:
            told.append(f"{'would be removed' if check else 'removed'}: {line}")
        else:
            told.append(f"{line} -- now: {one.kind.now}. The trap: {one.kind.trap}.")
    told += [f"{name} names nothing here, or nothing any more." for name in report.unknown]
    told += [f"The file as it was: {path}" for path in report.copies]
    return told or ["Nothing of the instance is in a crontab that somebody wrote by hand."]


def mask(text: str) -> str:
    """Return text without the passwords, keys and tokens that a command may hold. Rather more than less: -p of mkdir, too."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


class _Judge:
    """Says what kind a text is, and whether that is certain."""

    def __init__(self, prefix: str, *, backs_up: bool) -> None:
        self.backs_up = backs_up
        place = r"(?<![\w./-])" + re.escape(prefix.rstrip("/"))
        self.named = re.compile(place + r"(?![\w.-])")
        # What this collection itself puts there may be in a crontab: somebody's monitoring, for example.
        self.commands = re.compile(place + r"/bin/[a-z][a-z0-9_-]*-(?:backup|zeo|manage|offsite|jobs)(?![\w.-])")
        self.kinds = [(kind, [re.compile(one.replace("PREFIX", place)) for one in kind.patterns]) for kind in KINDS]

    def kind(self, text: str) -> Kind | None:
        text = self.commands.sub("", text)
        return next((kind for kind, patterns in self.kinds if all(one.search(text) for one in patterns)), None)

    def certain(self, text: str) -> bool:
        """Return whether every command is one that is known, and this instance's; nothing may be lost with others that stand beside it."""
        known = 0
        for command in _COMMAND.findall(text):
            first, *others = _pipe(command)
            one = self._known(" | ".join(map(" ".join, [first, *others])), first)  # without a comment, which names nothing that is worked on
            if not all(self._filter(words) for words in others) or not (one or _harmless(first)):
                return False
            known += one
        return known > 0

    def _filter(self, words: list[str]) -> bool:
        """Return whether a command behind a pipe only reads, shows or sends what comes, or removes files of those names."""
        if words[0] == "xargs":
            run = [word for word in words[1:] if not re.fullmatch(r"-\S*|[0-9]+|{}", word)]
            return bool(run) and run[0].rpartition("/")[2] in _REMOVERS and all(map(self._inside, _operands(_without_redirections(run[1:]))))
        return words[0] in _FILTERS and not any("$(" in word or "`" in word for word in words)

    def note(self, file: _File, kind: Kind) -> str:
        """Return what else is to be known of a job."""
        missing = "role backup is not on this host" if kind.backs_up and not self.backs_up else ""
        return "; ".join(filter(None, [file.note, missing]))

    def _known(self, command: str, words: list[str]) -> bool:
        for kind, patterns in self.kinds:
            run = _run(words, kind.program) if kind.program and all(one.search(command) for one in patterns) else []
            if run:
                # Bare or where packages put it; in another directory it is another instance's.
                own = kind.own and re.match(rf"(?:/usr(?:/local)?/s?bin/)?(?:{kind.own})", " ".join(run))
                mine = bool(own or self.named.search(command)) and self._place(run[0], program=True)
                return mine and self._arguments(kind, run) and (self.backs_up or not kind.backs_up)
        return False

    def _arguments(self, kind: Kind, run: list[str]) -> bool:
        """Return whether every argument of a known program is this instance's, and none runs another program."""
        program = run[0].rpartition("/")[2]
        words = _without_redirections(run[1:])
        if kind.elsewhere:
            words = re.sub(rf"(?<!\S)(?:{kind.elsewhere})(?!\S)", "", " ".join(words)).split()
        if any("$" in word or "`" in word or ".." in word.split("/") for word in words):
            return False
        if program == "find":
            return self._find(words)
        if kind.name == "pack":
            return all(self._server(word) for word in _operands(words, "-d -t -p -S -n --days --time --port --name")) and self._options(words)
        operands = _operands(words, "-m --mtime" if program in ("tmpwatch", "tmpreaper") else "")
        if program in {"mv", *_REMOVERS}:  # their operands are files, so that a word without a directory is one of an unknown place
            return self._options(words) and bool(operands) and all(self._inside(word) for word in operands)
        return self._options(words) and all(self._place(word) for word in operands)

    def _find(self, words: list[str]) -> bool:
        starts = list(itertools.takewhile(lambda word: word[0] not in "-(!", words))
        rest = words[len(starts) :]
        for number, word in enumerate(rest):
            if re.fullmatch(r"-(?:exec|execdir|ok|okdir)", word):
                if not (rest[number + 1 :] and rest[number + 1].rpartition("/")[2] in _REMOVERS):
                    return False
                rest[number + 1] = ""
            elif word.startswith(("-fprint", "-fls", "-files0-from")):
                return False
        return bool(starts) and all(self._inside(word) for word in starts) and all(self._place(word) for word in rest)

    def _options(self, words: list[str]) -> bool:
        return all(self._place(word.partition("=")[2]) for word in words if word.startswith("-"))

    def _inside(self, word: str) -> bool:
        return bool(self.named.match(word))

    def _place(self, word: str, *, program: bool = False) -> bool:
        """Return whether a word names no place, or one of the instance's. The place of a program may be the system's."""
        if program and re.fullmatch(r"/(?:usr/|usr/local/)?s?bin/[^/]+", word):
            return True
        return ("/" not in word and not re.search(r"\w:\S", word)) or self._inside(word)

    def _server(self, word: str) -> bool:
        """Return whether a word of zeopack's names a server of this host."""
        host, _colon, port = word.rpartition(":")
        return self._inside(word) or word in _LOCAL or ((host or "localhost") in _LOCAL and port.isdigit())


def _without_redirections(words: list[str]) -> list[str]:
    """Return the words without those that say where output goes: it ends with the job."""
    kept, skip = [], False
    for word in words:
        match = _REDIRECTION.match(word)
        if skip or match:
            skip = bool(match) and match.end() == len(word) and "&" not in word  # type: ignore[union-attr]
        else:
            kept.append(word)
    return kept


def _operands(words: list[str], with_value: str = "") -> list[str]:
    """Return the words that are no options. with_value names those options whose next word is a number or a name, and no operand."""
    skipped = with_value.split()
    return [word for before, word in zip(["", *words], words) if word and not word.startswith("-") and before not in skipped]


def _pipe(command: str) -> list[list[str]]:
    """Return the words of each command of a pipe, of the first one without keywords of the shell and assignments. What cannot be read is known nowhere."""
    reader = shlex.shlex(command, posix=True, punctuation_chars="|")
    reader.whitespace_split, reader.commenters = True, ""
    commands: list[list[str]] = [[]]
    try:
        for word in reader:
            if word.startswith("#"):
                break
            if word == "|":
                commands.append([])
            else:
                commands[-1].append(word)
    except ValueError:
        return [["?"]]
    first = commands[0]
    while first and (first[0] in _KEYWORDS or re.fullmatch(r"[A-Za-z_]\w*=[^$`]*", first[0])):
        del first[0]
    return [first, *(words or ["?"] for words in commands[1:])]


def _run(words: list[str], program: str) -> list[str]:
    """Return the words from the program on, if that is what is run, be it by sudo, nice or an interpreter with their options."""
    option = False
    for number, word in enumerate(words):
        name = word.rpartition("/")[2]
        if re.fullmatch(program, name):
            return words[number:]
        if word == "-c" or not (option or word.startswith("-") or _WRAPPERS.fullmatch(name) or re.fullmatch(r"[0-9]+\w?|\w+=\S*", word)):
            return []
        option = word.startswith("-")
    return []


def _harmless(words: list[str]) -> bool:
    """Return whether nothing is lost with a command that stands beside a known one."""
    return not words or (words[0] in _HARMLESS and not any("$(" in word or "`" in word or word.startswith(">") for word in words))


def _files(root: str) -> Iterator[_File]:
    """Yield the files that cron and anacron read, but for those that the roles write."""
    for path, form in (("/etc/crontab", "system"), ("/etc/anacrontab", "anacron")):
        yield from _file(root, path, form)
    for name in _names(root, "/etc/cron.d"):
        for file in _file(root, f"/etc/cron.d/{name}", "system"):
            header = file.content.partition(b"\n")[0].lower()
            if not (_ROLES_OWN.fullmatch(name) and header.startswith(b"#") and b"ansible" in header):
                file.note = "" if _RUN.fullmatch(name) else "cron skips files of such names"
                yield file
    for period in _PERIODIC:
        for name in _names(root, f"/etc/cron.{period}"):
            for file in _file(root, f"/etc/cron.{period}/{name}", "script"):
                executable = file.found.st_mode & 0o100
                file.note = "" if _RUN.fullmatch(name) and executable else "cron skips files of such names" if executable else "not executable, so not run"
                file.schedule = f"@{period}"
                yield file
    for name in _names(root, "/var/spool/cron/crontabs"):
        for file in _file(root, f"/var/spool/cron/crontabs/{name}", "user"):
            if not file.link:  # cron does not follow one there, and users of crontab's group might have made it
                file.user = name
                yield file


def _names(root: str, directory: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(os.path.join(root, directory[1:])) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _file(root: str, shown: str, form: str) -> Iterator[_File]:
    """Yield the file, if it is one."""
    path = os.path.join(root, shown[1:])
    link = os.path.realpath(path) if os.path.islink(path) else ""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | (os.O_NOFOLLOW if form == "user" else 0))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError:
        if link:  # in the spool, or leading nowhere
            return
        raise
    with open(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            return
        content = stream.read()
    if b"\0" not in content:
        yield _File(path, _text(os.fsencode(shown)), form, content, found, link=link)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _printable(text: str) -> str:
    """Return a line as it may be shown: without secrets, and without what a terminal would take for a command."""
    text = "".join(letter if letter.isprintable() else " " for letter in text[: 2 * _LONGEST])
    return mask(text)[:_LONGEST]


def _lines(file: _File) -> Iterator[tuple[list[int], str]]:
    """Yield the lines with their numbers. A backslash at the end continues one for anacron and in scripts, but no comment, and for cron it does not."""
    numbers: list[int] = []
    line = ""
    for number, raw in enumerate(file.lines):
        numbers.append(number)
        line += _text(raw).rstrip("\r\n")
        goes_on = line.endswith("\\") and not line.lstrip().startswith("#") and file.form in ("anacron", "script")
        if goes_on and number + 1 < len(file.lines):
            line = line[:-1]
        else:
            yield numbers, line.strip()
            numbers, line = [], ""


def _jobs(file: _File) -> Iterator[_Job]:
    """Yield the jobs of a crontab. Comments and variables are none, nor is what cron could not read."""
    environment: dict[str, str] = {}
    columns = {"user": 0, "system": 1, "anacron": 2}[file.form]  # between the schedule and the command
    for numbers, line in _lines(file):
        assignment = _ENVIRONMENT.fullmatch(line)
        if not line or line.startswith("#"):
            continue
        if assignment:
            environment[assignment["name"] or ""] = assignment["value"].strip().strip("\"'")
            continue
        times = 1 if line.startswith("@") or file.form == "anacron" else 5
        fields = line.split(None, times + columns)
        if len(fields) == times + columns + 1:
            user = fields[times] if file.form == "system" else file.user
            yield _Job(numbers, " ".join(fields[:times]), user, _expand(_standard_input(fields[-1]), environment), fields[-1], line)


def _standard_input(command: str) -> str:
    """Return the command with what cron makes of %: new lines, the first of which begins the standard input."""
    return re.sub(r"\\?%", lambda match: "\n" if match[0] == "%" else "%", command)


def _expand(text: str, environment: dict[str, str]) -> str:
    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda match: environment.get(match[1] or match[2], match[0]), text)


def _in_job(file: _File, job: _Job, judge: _Judge) -> Iterator[Finding]:
    kind = judge.kind(job.command)
    if kind:
        certain = bool(kind.program) and judge.certain(job.command) and not file.link
        identity, number = _identity(file, job.line), job.numbers[0] + 1
        yield Finding(identity, file.shown, job.numbers, number, kind, certain, job.user, job.schedule, _shortened(job.written), judge.note(file, kind))


def _in_script(file: _File, judge: _Judge) -> Iterator[Finding]:
    """Yield the finding for a script, which is removed as a whole or not at all."""
    environment: dict[str, str] = {}
    commands: list[tuple[int, str, str]] = []
    for numbers, line in _lines(file):
        assignment = _ENVIRONMENT.fullmatch(line)
        if assignment and assignment["name"]:
            environment[assignment["name"]] = assignment["value"].strip().strip("\"'")
        if line and not line.startswith("#"):
            commands.append((numbers[0] + 1, line, line if assignment else _expand(line, environment)))
    text = "\n".join(command for _number, _line, command in commands)
    kind = judge.kind(text)
    if kind:
        number, line, _command = next((one for one in commands if judge.kind(one[2]) == kind), commands[0])
        certain = bool(kind.program) and judge.certain(text)
        everything, identity = list(range(len(file.lines))), _identity(file, _text(file.content))
        yield Finding(identity, file.shown, everything, number, kind, certain, "root", file.schedule, _shortened(line), judge.note(file, kind))


def _shortened(text: str) -> str:
    text = _printable(text)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _identity(file: _File, text: str) -> str:
    """Return what the report calls a job. Lines that are equal share it, so that they go together; it is made of what is shown, so it tells no secret."""
    shown = "\n".join(map(_printable, [file.shown, *text.split("\n")]))
    return hashlib.sha256(shown.encode()).hexdigest()[:8]


def _copy(file: _File, directory: str) -> str:
    """Keep the file as it was, for root alone, and return where."""
    name = f"old_crontab{file.shown.replace('/', '-')}.{time.strftime('%Y-%m-%d-%H-%M-%S', time.gmtime())}"
    for number in range(1000):
        path = os.path.join(directory, name + (f".{number}" if number else ""))
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb") as stream:
                stream.write(file.content)
                stream.flush()
                os.fsync(descriptor)
            _repository.sync(directory)
            return path
    raise CrontabError(f"{directory} is full of copies named {name}; nothing was removed from {file.shown}.")


def _write(file: _File, content: bytes | None) -> None:
    """Exchange the file for one with this content, or remove it. Owner and mode stay; the time does not, since cron reads what is newer than it knows."""
    directory = os.path.dirname(file.path)
    if content is None:
        _unchanged(file)
        os.unlink(file.path)
        _repository.sync(directory)
        return
    descriptor, new = tempfile.mkstemp(prefix=".confops-", dir=directory)  # cron reads no such name
    try:
        with open(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchown(descriptor, file.found.st_uid, file.found.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(file.found.st_mode))
            os.fsync(descriptor)
        _unchanged(file)
        os.replace(new, file.path)  # which changes the directory's time, too: that is what cron goes by
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        raise
    _repository.sync(directory)


def _unchanged(file: _File) -> None:
    """Raise CrontabError when somebody has changed the file since it was read."""
    with contextlib.suppress(FileNotFoundError):
        now = os.stat(file.path)
        if (now.st_ino, now.st_mtime_ns, now.st_size) == (file.found.st_ino, file.found.st_mtime_ns, file.found.st_size):
            return
    raise CrontabError(f"Somebody changed {file.shown} at the same moment, so it was left alone; run this again.")
