"""results/rules.json: how old every rule is by which results are judged.

A rule is what a claim measures and where the value has to lie, or the declaration of an
experiment. By the hash of its content the file knows the commit in which that content first
stood; entries are added, never changed or removed. A result is evidence for a rule that stood
before it: one that was written with the result at hand could have been made to fit.
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
NOT_A_RULE = ("question", "limits")  # of a study: words for readers
SHORT = 12  # hex digits of a commit

Entries = dict[str, dict[str, str]]  # hash: what, name, commit, date


class Rule(NamedTuple):
    """what: claim or study; digest: of a text of the file, None where that is none."""

    what: str
    file: Path
    digest: Callable[[str], str | None]

    @property
    def now(self) -> str | None:
        """The hash of what the file says now."""
        return self.digest(self.file.read_text(encoding="utf-8"))


def digest(content: Any) -> str:
    """The hash of plain values, whatever their layout in a file."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def block(text: str) -> dict[str, Any] | None:
    """What a YAML file says, without interpolation; None where it holds no keys."""
    try:
        found: Any = OmegaConf.to_container(OmegaConf.create(text))
    except (YAMLError, OmegaConfBaseException):
        return None
    return found if isinstance(found, dict) else None


# declarations of experiments ----------------------------------------------------------------------


def study_digest(text: str) -> str | None:
    """Of an experiment's file, whole: it says what all its runs have in common, too."""
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
    """The hash of an experiment's declaration as it stands; None where there is none."""
    there = name is not None and study(name).file.is_file()
    return study(name).now if name is not None and there else None


# the file -----------------------------------------------------------------------------------------


def read(file: Path = FILE) -> Entries:
    """Raises ValueError where the file is no JSON."""
    return files.read_json(file) if file.exists() else {}


def grown(known: Entries, rules: Iterable[Rule]) -> tuple[Entries, list[Path]]:
    """The entries with those of rules that are new, and the files of rules not committed yet."""
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
    """The first commit since which the file has said the same; None where the last does not."""
    place = rule.file.relative_to(CONF.parent).as_posix()
    lines = origin.git("log", "--follow", "--name-only", "--format=%x00%H %cI", "--", place) or ""
    found = None
    for entry in lines.split("\0")[1:]:  # the newest first, by the name it had then
        commit, date, *names = entry.split()
        if not names:  # a merge, which changed nothing of it
            continue
        text = origin.git("show", f"{commit}:{names[0]}")
        if text is None or rule.digest(text) != wanted:
            break
        found = {"commit": commit[:SHORT], "date": date}
    return found


# ages ---------------------------------------------------------------------------------------------


class History:
    """The commits that lead to the code at hand: dates, parents, and which record came with which.

    lines: of each commit the hash, the date and the parents; added: what git says of the files
    that commits added, the newest first, each after a zero byte: its hash and the files.
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
        """The commit's full hash, where it is known."""
        return self.by_short.get((commit or "")[:SHORT])

    def leads_to(self, old: str, new: str) -> bool:
        """Whether `new` is `old` or comes after it; both are known."""
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
        """Whether a cell's record, by the name of its file, was there before a rule: one that is
        made again later, of the same seed, tells nothing new."""
        added, commit = self.added.get(name), self.whole(rule["commit"])
        return bool(added and commit and added != commit and self.leads_to(added, commit))

    def stood(self, rule: dict[str, str], environment: dict[str, Any]) -> bool:
        """Whether a rule stood when a result was made: its commit leads to that of the result.

        Where one of them is not known here, by their dates; without these it is not shown.
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
