"""--help: the settings as a command line takes them, each with its comment from its file."""

import itertools
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from bench.settings.schema import CONF

WIDTH, COLUMN = 80, 32  # screen width; column of the comments
LINE = re.compile(r"(?P<indent> *)(?P<key>\w+):(?: (?P<value>[^#]*?))?(?: *# ?(?P<comment>.*))?")
GLOBAL = "# @package _global_"
COMMENT = re.compile(r"(?P<indent> *)# ?(?P<comment>.*)")


@dataclass
class Entry:
    """A setting by its full name, the comment beside it, and the paragraph above it."""

    name: str
    comment: str
    above: str


def settings(file: str, *groups: str, _root_: DictConfig) -> str:
    """The settings of conf/FILE.yaml and of each group's chosen file, as they are composed.

    Hydra substitutes names after a dollar, so every dollar is doubled.
    """
    shown = list(block(entries(CONF / f"{file}.yaml", ""), _root_))
    for group in groups:
        choice = OmegaConf.select(_root_, f"hydra.runtime.choices.{group}")
        one = CONF / group / f"{choice}.yaml"
        if choice is None or not one.exists():
            continue
        whole = one.read_text(encoding="utf-8").startswith(GLOBAL)
        every = list(entries(one, "" if whole else f"{group}."))
        named = [e.comment for e in every if e.name == f"{group}.name"]
        about = filter(None, (f"{group}={choice}", intro(one) or " ".join(named)))
        shown += ["", *textwrap.wrap(": ".join(about), WIDTH)]
        own = (e for e in every if e.name.startswith(f"{group}.") and e.name != f"{group}.name")
        shown += block(own, _root_)
    return "\n".join(shown).strip("\n").replace("$", "$$")


def intro(file: Path) -> str:
    """The comment at the start of a file."""
    lines = itertools.takewhile(COMMENT.fullmatch, file.read_text(encoding="utf-8").splitlines())
    return " ".join(line[2:] for line in lines if line != GLOBAL)


def entries(file: Path, prefix: str) -> Iterator[Entry]:
    """The settings of a file in order, without those for Hydra itself."""
    above: list[str] = []
    path: list[tuple[int, str]] = []  # the open blocks by their indentation
    last: Entry | None = None
    for text in file.read_text(encoding="utf-8").splitlines():
        said, line = COMMENT.fullmatch(text), LINE.fullmatch(text)
        if said and said["indent"] and last:
            last.comment = f"{last.comment} {said['comment']}".strip()
        elif said:
            above.append(said["comment"])
        elif line:
            indent = len(line["indent"])
            path = [(at, key) for at, key in path if at < indent] + [(indent, line["key"])]
            if last:
                yield last
            name = prefix + ".".join(key for _, key in path)
            last = Entry(name, line["comment"] or "", " ".join(above))
            above = []
        elif not text.strip():
            above = []
        if path and path[0][1] in ("defaults", "hydra"):
            last = None
    if last:
        yield last


def block(found: Iterable[Entry], root: DictConfig) -> Iterator[str]:
    """Lines of settings; a block's own comment comes before its settings."""
    for entry in found:
        value = OmegaConf.select(root, entry.name, throw_on_resolution_failure=False)
        heads = OmegaConf.is_dict(value) and len(value) > 0
        if entry.above and not heads:
            yield from ["", *textwrap.wrap(entry.above, WIDTH)]
        if heads and "." not in entry.name:
            yield from ["", *textwrap.wrap(entry.comment, WIDTH)]
        elif not heads:
            yield from beside(f"{entry.name}={typed(value)}", entry.comment)


def beside(setting: str, comment: str) -> list[str]:
    """A setting with its comment in the column beside it, or below it if the setting is long."""
    gap = " " * COLUMN
    lines = textwrap.wrap(comment, WIDTH - COLUMN, break_on_hyphens=False)
    head = f"  {setting}"
    if lines and len(head) < COLUMN:
        head, lines = f"{head:<{COLUMN}}{lines[0]}", lines[1:]
    return [head, *(gap + line for line in lines)]


def typed(value: Any) -> str:
    """A value as it is typed on a command line."""
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(typed, value))}]"
    return str(value) if not isinstance(value, dict) else "{}"


def register() -> None:
    """Let the --help text in conf/*.yaml include settings."""
    OmegaConf.register_new_resolver("settings", settings, replace=True)
