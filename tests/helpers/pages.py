"""The Markdown pages: their commands, examples, headings and links."""

import re
import shlex
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import hydra._internal.utils as hydra_internals

from bench.settings import command
from bench.training import sweep
from tests.helpers.commands import ROOT

DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
EVERY = [*sorted(ROOT.glob("*.md")), *DOCS, *sorted(ROOT.glob("results/*.md"))]
EVERY += sorted(ROOT.glob("bench/**/*.md"))
GENERATED = "architectures.md"  # by scripts/architectures.py

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.S | re.M)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
TYPED = re.compile(r"bench/(train|step|ortho|report|advise)\.py\b(.*)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", flags=re.M)


class Typed(NamedTuple):
    """A command of a page: bench/ENTRY.py and the words after it."""

    page: str
    entry: str
    words: tuple[str, ...]


def code(page: Path) -> Iterator[str]:
    """What a page gives to type, line by line: of its blocks, then of its text."""
    text = page.read_text(encoding="utf-8")
    for language, block in FENCED.findall(text):
        if language == "sh":
            yield from block.replace("\\\n", " ").splitlines()
    for span in INLINE.findall(FENCED.sub("", text)):
        yield " ".join(span.split())


def commands(page: Path) -> list[Typed]:
    found = (TYPED.search(line) for line in code(page))
    return [Typed(page.name, m[1], tuple(shlex.split(m[2], comments=True))) for m in found if m]


def examples(group: str) -> dict[str, str]:
    """The files of conf/GROUP/ that pages write out, by their name."""
    file = re.compile(rf"^# conf/{group}/(?:\w+/)?(\w+)\.yaml", flags=re.M)
    texts = (page.read_text(encoding="utf-8") for page in PAGES)
    blocks = [block for text in texts for language, block in FENCED.findall(text)]
    return {m[1]: block for block in blocks if (m := file.search(block))}


def jobs(words: Sequence[str]) -> list[list[str]]:
    """The overrides of a few jobs of a command, which have each of its values in them.

    Options are checked and left out, and so is what needs a plugin of Hydra that is not installed.
    """
    words = command.in_full(list(words))
    command.check(words)
    asked, _ = hydra_internals.get_args_parser().parse_known_args(words)
    values = []
    for one in command.parse([word for word in asked.overrides if installed(word)]):
        key = one.get_key_element()
        if one.is_interval_sweep():
            values.append([f"{key}=1.0"])
        elif one.is_sweep_override():
            values.append([f"{key}={value}" for value in one.sweep_string_iterator()])
        else:
            values.append([one.input_line])
    number = max(map(len, values), default=1)
    return [[each[job % len(each)] for each in values] for job in range(number)]


def installed(word: str) -> bool:
    if not word.startswith("hydra"):
        return True
    name = word.partition("=")[2].split("_")[0]
    plugins = ["optuna"] if word.startswith("hydra.sweeper.") else [name]
    try:
        return all(bool(version(sweep.PLUGINS[one][1])) for one in plugins if one in sweep.PLUGINS)
    except PackageNotFoundError:
        return False


def anchors(page: Path) -> set[str]:
    """The names by which headings can be linked, as the usual hosts make them."""
    found: list[str] = []
    for heading in HEADING.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")
        again = sum(one == slug or re.fullmatch(rf"{re.escape(slug)}-\d+", one) is not None
                    for one in found)  # fmt: skip
        found.append(f"{slug}-{again}" if again else slug)
    return set(found)


def links(page: Path) -> list[str]:
    """What a page links to within the checkout."""
    text = INLINE.sub("", FENCED.sub("", page.read_text(encoding="utf-8")))
    return [target for target in LINK.findall(text) if "://" not in target]
