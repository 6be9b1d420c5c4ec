"""Whatever became of the files in results/, the report comes, and names what it leaves out."""

import functools
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.records import layouts, shape
from bench.reporting import charts, page
from bench.studies import study
from bench.verdicts import claims
from tests.helpers import fake_results

HOSTILE = "<script>alert(1)</script>|\n## title\n[x](javascript:alert(1))\r\x1b[2J"
HUGE = "1" + 400 * "0"  # an int that no float can hold
ODD = {  # what stands in the place of a value, as JSON text
    "null": "null",
    "NaN": "NaN",
    "infinity": "1e999",
    "large": "1e300",
    "huge": HUGE,
    "negative": "-1",
    "zero": "0",
    "half": "0.5",
    "flag": "true",
    "text": '"much"',
    "empty text": '""',
    "hostile": json.dumps(HOSTILE),
    "surrogate": '"\\ud800"',
    "list": "[]",
    "lists": "[[[null]]]",
    "object": "{}",
    "deep": 500 * "[" + 500 * "]",
    "many": "9007199254740993",
}
MARK = "the place of the odd value"
TORN = ("", "{", "null", "[1]", "7", '"text"', 100_000 * "[", 2000 * '{"a":', "\ud800", "[NaN]")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A results folder in which every file is whole."""
    folder = tmp_path_factory.mktemp("whole")
    declared = fake_results.fill(folder, "optimizers", ["language"], seeds=[0, 1])
    fake_results.lines(folder, declared, "language", uniform=8.3, bigram=4.0, trigram=3.9)
    fake_results.step(folder, "alone", ("hybrid",))
    fake_results.shared(folder, "shared", ("hybrid",))
    fake_results.checks(folder, *fitting_checks())
    for optimizer in ("adamw", "hybrid"):
        fake_results.own(folder, optimizer, 0, 4.0)
    for seed in range(4):
        arm = list(declared.arms)[seed % len(declared.arms)]
        one = fake_results.one(declared, study.FINAL, "language", arm, seed, 1.0)
        run = folder / "runs" / one["cell"] / "record.json"
        run.parent.mkdir(parents=True)
        run.write_text(json.dumps(one))
        part = {key: one[key] for key in ("experiment", "stage", "condition", "arm")}
        run.with_name("part_of.json").write_text(json.dumps([part]))
    return folder


def fitting_checks() -> list[str]:
    """The names that claims ask for."""
    return [
        name for claim in claims.load() for one in claim.measure for name in one.get("names", ())
    ]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No pictures, no scripts in the page, and every declaration read once."""
    monkeypatch.setattr(charts, "static", lambda chart, path: chart.to_dict(validate=False))
    monkeypatch.setattr(page.vl_convert, "javascript_bundle", lambda **options: "")
    monkeypatch.setattr(study, "load", functools.cache(study.load))
    found = claims.load()
    monkeypatch.setattr(claims, "load", lambda: found)


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Every place in a file; of a list its first item stands for all."""
    if path:
        yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


def with_odd(whole: Any, path: tuple, odd: str | None) -> str:
    """The file's text once that place holds another value, or its key is gone."""
    inside = functools.reduce(lambda value, key: value[key], path[:-1], whole)
    if odd is None:
        del inside[path[-1]]
        return json.dumps(whole)
    inside[path[-1]] = MARK
    return json.dumps(whole).replace(json.dumps(MARK), odd)


def mutated(file: Path, draw: random.Random) -> str:
    """One of all the texts that a whole file can be turned into here."""
    text = file.read_text()
    if draw.random() < 0.05:
        return draw.choice([*TORN, text[:-40]])
    one = json.loads(text)
    return with_odd(one, draw.choice(list(places(one))), draw.choice([*ODD.values(), None]))


def some(folder: Path) -> list[Path]:
    """Some files of every kind; others of their kind stay whole."""
    return [
        *sorted(folder.glob("records/*/*-final.json"))[:8],
        *sorted(folder.glob("records/*/*-tune.json"))[:4],
        *sorted(folder.glob("runs/*/record.json"))[:4],
        *sorted(folder.glob("runs/*/part_of.json"))[2:],
        *sorted(folder.glob("steps/*.json")),
        *sorted(folder.glob("lines/*.json")),
        folder / "ortho" / "checks.json",
    ]


def refused(file: Path) -> bool:
    """Whether the file cannot be used, by the shape of its kind."""
    if file.name == "part_of.json":
        return isinstance(shape.read(file, layouts.part_of), str)
    kinds = {"steps": layouts.step, "ortho": layouts.checks, "lines": layouts.lines}
    return isinstance(shape.read(file, kinds.get(file.parent.name, layouts.record)), str)


def reported(folder: Path, capsys) -> tuple[str, str, str]:
    """Make the report: what was said, README.md and the page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["report.py", f"results_dir={folder}"])
        assert report.main() == 0
    readme, html = ((folder / name).read_text() for name in ("README.md", "report.html"))
    return capsys.readouterr().err, readme, html


def try_all(whole: Path, folder: Path, rounds: int, capsys) -> int:
    """Reports of folders in which some files of every kind are odd; how many files were."""
    draw, count = random.Random(0), 0
    for number in range(rounds):
        made = folder / str(number)
        shutil.copytree(whole, made)
        odd = {}
        for path in some(whole):
            there = made / path.relative_to(whole)
            odd[there] = mutated(path, draw)
            there.write_bytes(odd[there].encode("utf-8", "surrogatepass"))
        said, readme, html = reported(made, capsys)
        for there, text in odd.items():
            assert not refused(there) or there.relative_to(made).as_posix() in said, text
        assert "<script>alert(1)" not in readme + html
        assert "\n## title" not in readme and "](javascript" not in readme
        count += len(odd)
        shutil.rmtree(made)
    return count


@pytest.mark.more
def test_a_few_hundred_odd_files_end_no_report(whole, tmp_path, capsys):
    assert try_all(whole, tmp_path, 16, capsys) >= 300


@pytest.mark.long
def test_thousands_of_odd_files_end_no_report(whole, tmp_path, capsys):
    assert try_all(whole, tmp_path, 400, capsys) >= 7000
