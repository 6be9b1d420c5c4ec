"""results/rules.json: the age of every rule that results are judged by.

A rule is a claim's measure with the range that its value must lie in, or the declaration of an
experiment. By the hash of a rule's content, the file lists the commit that introduced that content;
entries are added, never changed or removed. A result is evidence only for a rule that is older than
it: a rule written with the result at hand could have been made to fit.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from bench.records import files, origin
from bench.settings.schema import CONF

FILE = CONF.parent / "results" / "rules.json"
NOT_A_RULE = ("question", "limits")  # keys of a study: words for readers
SHORT = 12  # hex digits of a short commit

Entries = dict[str, dict[str, str]]  # hash: what, name, commit, date


class Rule(NamedTuple):
    """what: claim or study; digest: hash of a text of the file; None if the text is no rule."""

    what: str
    file: Path
    digest: Callable[[str], str | None]

    @property
    def now(self) -> str | None:
        """The hash of the file's current content."""
        return self.digest(self.file.read_text(encoding="utf-8"))


def digest(content: Any) -> str:
    """The hash of plain values, independent of their layout in a file."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def block(text: str) -> dict[str, Any] | None:
    """The content of a YAML file, without interpolation; None if it has no keys."""
    try:
        found: Any = OmegaConf.to_container(OmegaConf.create(text))
    except (YAMLError, OmegaConfBaseException):
        return None
    return found if isinstance(found, dict) else None


# declarations of experiments ----------------------------------------------------------------------


def study_digest(text: str) -> str | None:
    """The hash of an experiment's whole file, because it also holds what all its runs share."""
    whole = block(text)
    if whole is None or not isinstance(whole.get("study"), dict):
        return None
    study = {key: value for key, value in whole["study"].items() if key not in NOT_A_RULE}
    return digest(whole | {"study": study})


def study(name: str) -> Rule:
    return Rule("study", CONF / "experiment" / f"{name}.yaml", study_digest)


def studies() -> list[Rule]:
    return [study(file.stem) for file in sorted((CONF / "experiment").glob("*.yaml"))]


def of_experiment(name: str | None) -> str | None:
    """The hash of an experiment's current declaration; None if there is none."""
    there = name is not None and study(name).file.is_file()
    return study(name).now if name is not None and there else None


# the file -----------------------------------------------------------------------------------------


def read(file: Path = FILE) -> Entries:
    """Raises ValueError if the file is no JSON."""
    return files.read_json(file) if file.exists() else {}


def grown(known: Entries, rules: Iterable[Rule]) -> tuple[Entries, list[Path]]:
    """The entries including those of new rules, and the files of rules not committed yet."""
    entries, loose = dict(known), []
    for rule in rules:
        now = rule.now
        if now is None or now in entries:
            continue
        commit = first(rule, now)
        if commit is None:
            loose.append(rule.file)
        else:
            entries[now] = {"what": rule.what, "name": rule.file.stem} | commit
    return entries, loose


def first(rule: Rule, wanted: str) -> dict[str, str] | None:
    """The first commit since which the file's rule is unchanged; None if the last one differs."""
    place = rule.file.relative_to(CONF.parent).as_posix()
    lines = origin.git("log", "--follow", "--name-only", "--format=%x00%H %cI", "--", place) or ""
    found = None
    for entry in lines.split("\0")[1:]:  # newest first, by its name at that time
        commit, date, *names = entry.split()
        if not names:  # a merge that did not change it
            continue
        text = origin.git("show", f"{commit}:{names[0]}")
        if text is None or rule.digest(text) != wanted:
            break
        found = {"commit": commit[:SHORT], "date": date}
    return found


# ages ---------------------------------------------------------------------------------------------


class History:
    """The commits that lead to the current code: dates, parents, and the records each one added.

    lines: the hash, date and parents of each commit; added: git's list of the files that commits
    added, the newest first, each after a zero byte: hash and files.
    """

    def __init__(self, lines: str, added: str = "") -> None:
        split = [line.split() for line in lines.splitlines()]
        self.dates = {commit: date for commit, date, *_ in split}
        self.parents = {commit: parents for commit, _, *parents in split}
        self.by_short = {commit[:SHORT]: commit for commit in self.parents}
        self.added = {
            name.rpartition("/")[2]: commit
            for commit, *names in (entry.split() for entry in added.split("\0")[1:])
            for name in names
        }
        self.answers: dict[tuple[str, str], bool] = {}

    @classmethod
    def here(cls) -> "History":
        files = ("--name-only", "--no-renames", "--diff-filter=A", "--", "results/records")
        added = origin.git("log", "--format=%x00%H", *files)
        return cls(origin.git("log", "--format=%H %cI %P") or "", added or "")

    def whole(self, commit: str | None) -> str | None:
        """The commit's full hash, if it is known."""
        return self.by_short.get((commit or "")[:SHORT])

    def leads_to(self, old: str, new: str) -> bool:
        """Whether `new` equals `old` or is a descendant of it; both are known."""
        if (old, new) not in self.answers:
            self.answers[old, new] = self._leads_to(old, new)
        return self.answers[old, new]

    def _leads_to(self, old: str, new: str) -> bool:
        seen, ahead = set(), [new]
        while ahead:
            commit = ahead.pop()
            if commit == old:
                return True
            if commit not in seen:
                seen.add(commit)
                ahead += self.parents.get(commit, [])
        return False

    def published_before(self, rule: dict[str, str], name: str) -> bool:
        """Whether a cell's record, by its file name, is older than a rule. A record that is made
        again later from the same seed is no new evidence."""
        added, commit = self.added.get(name), self.whole(rule["commit"])
        return bool(added and commit and added != commit and self.leads_to(added, commit))

    def stood(self, rule: dict[str, str], environment: dict[str, Any]) -> bool:
        """Whether a rule existed when a result was made: its commit is an ancestor of the result's.

        If one of the commits is not known here, their dates decide; without dates it is not shown.
        """
        known = {key: text for key, text in environment.items() if isinstance(text, str)}
        old, new = self.whole(rule["commit"]), self.whole(known.get("commit"))
        if old and new:
            return self.leads_to(old, new)
        made = _time(self.dates.get(new or "") or known.get("commit_date"))
        stands = _time(rule["date"])
        return made is not None and stands is not None and stands <= made


def _time(date: str | None) -> datetime | None:
    """None where a record has no date, or what is none; without an offset it is UTC."""
    try:
        found = datetime.fromisoformat(date or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
