"""Read the records, judge the claims, and write tables, pictures and a page.

python bench/report.py                    everything in results/, your own runs first
python bench/report.py compare=[A,B]      compare two runs or groups of runs; writes nothing
python bench/report.py merge=FOLDER       copy the runs of another machine's results folder here
python bench/report.py --published        only what is committed: `make results`

A and B are names of runs (folders of results/runs), beginnings of such names, patterns such as
'gpt2_nano-hybrid*', or experiment/arm. results_dir=FOLDER selects another results folder.
"""

import argparse
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    from bench.processes import foreground

    foreground.begin()

from importlib.util import find_spec

from bench.display import terminal
from bench.records import archive, files, ledger, record
from bench.records import merge as merging
from bench.reporting import content as report_content
from bench.reporting import (
    leaderboard,
    markdown,
    marked,
    own_next,
    questions,
    screen,
    spreadsheet,
)
from bench.reporting.content import Content
from bench.settings import command
from bench.settings.errors import UserError
from bench.studies import versus
from bench.studies.results import Results
from bench.verdicts import claims, waiting
from bench.verdicts.ages import Ages

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ("results_dir", "compare", "merge")
DRAWS = {"altair": "altair", "vl_convert": "vl-convert-python"}  # packages that charts need
WRITTEN = ("README.md", "records.csv", "verdicts.json", "report.html")


def main() -> int:
    try:
        return obey(asked(sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
    return 1


def asked(arguments: list[str]) -> argparse.Namespace:
    """The typed flags, and each setting by its name. Raises UserError."""
    parser = argparse.ArgumentParser(
        prog="bench/report.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--published", action="store_true", help="leave out results/runs")
    parser.add_argument("--check", action="store_true", help="write nothing; are they up to date?")
    parser.add_argument("--results", help=argparse.SUPPRESS)  # the former name of results_dir=
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help=", ".join(SETTINGS))
    setattr(parser, "error", command.refuse_option)  # noqa: B010, argparse's prints its usage
    found = parser.parse_intermixed_args(arguments)
    results = str(ROOT / "results") if found.results is None else found.results
    known = dict.fromkeys(SETTINGS) | {"results_dir": results}
    given = command.given(found.settings, known)
    if given["compare"] is not None and given["merge"] is not None:
        raise UserError("compare= and merge=: one at a time")
    return argparse.Namespace(**vars(found) | given)


def obey(given: argparse.Namespace) -> int:
    """Compare, merge or report; returns the exit status. Raises UserError."""
    if given.merge is not None:
        return merge(Path(given.merge), Path(given.results_dir))
    if not given.results_dir or not Path(given.results_dir).is_dir():
        raise UserError(f"results_dir={given.results_dir}: no such folder")
    folder = Path(given.results_dir).resolve()
    if given.compare is not None:
        return compare(folder, given)
    return report(folder, given)


def merge(source: Path, results: Path) -> int:
    """Copy another machine's runs here; returns 1 if one of them could not be copied."""
    outcomes = []
    for one in merging.merge(source, results):
        outcomes.append(one)
        if one.why or one.how == merging.COPIED:
            print(f"{one.how}: {one.cell}" + f": {one.why}" * bool(one.why), flush=True)
    print(f"{merging.counted(outcomes)}; next: bench/report.py")
    return int(any(one.how in (merging.DIFFERENT, merging.REFUSED) for one in outcomes))


def compare(folder: Path, given: argparse.Namespace) -> int:
    """Print the comparison of two groups of runs."""
    found = versus.compare(archive.read(folder, given.published).runs, given.compare)
    for letter, name, runs in zip("AB", found.names, (found.ours, found.theirs), strict=True):
        terminal.show(screen.group(letter, name, runs))
    if found.losses:
        terminal.show(screen.losses(found))
    terminal.show(*screen.notes(found))
    terminal.show(screen.settings(found) or "They differ in no setting but the seed.")
    return 0


def report(folder: Path, given: argparse.Namespace) -> int:
    """Write the report, or check it; returns the exit status. Raises UserError."""
    if mistake := refused(folder):
        raise UserError(f"results_dir={given.results_dir}: {mistake}")
    missing = [package for name, package in DRAWS.items() if find_spec(name) is None]
    if missing and (given.published or given.check):
        flag = "--check" if given.check else "--published"
        raise UserError(f"{flag}: needs pictures: pip install {' '.join(missing)}")
    rules = ledger.read()
    if given.published and not given.check and folder == ROOT / "results":
        rules = grown(rules)
    results = Results(folder, given.published)
    content = report_content.gather(results, Ages(results, rules))
    pictures = {} if missing else charts_of(content)
    texts = written(content, pictures, given.published)
    if given.check:
        return report_differences(texts)
    for file, text in texts.items():
        files.write_text(file, text)
    if not missing:
        draw(content, pictures)
    tell(content, missing)
    return 0


def tell(content: Content, missing: list[str]) -> None:
    """Print the user's own runs, the number of others, what to type next, and where to look."""
    folder = content.results.folder
    for file, reason in content.left_out:
        print(f"left out: {file}: {reason}", file=sys.stderr)
    tables = screen.own(content.own)
    terminal.show(*tables)
    if more := screen.left(content.own, len(tables)):
        print(more)
    print(f"{len(content.results.archive.runs)} runs, {len(content.verdicts)} claims")
    if said := waiting.line(waiting.split(content.verdicts)[1]):
        print(said)
    if advice := own_next.advice(content.own):
        print(f"next ({advice[0]}):\n  {advice[1]}")
    if missing:
        print(f"no pictures and no page: for these, pip install {' '.join(missing)}")
    page = [] if missing else [short(folder / "report.html")]
    print(f"look at {' or '.join([*page, short(folder / 'README.md')])}")


def grown(rules: ledger.Entries) -> ledger.Entries:
    """results/rules.json with the new claims and experiments; nothing else ever changes in it."""
    entries, loose = ledger.grown(rules, [*ledger.studies(), *claims.rules()])
    for file in loose:
        print(f"not in {ledger.FILE.name}: {short(file)}: not committed", file=sys.stderr)
    record.write_json(ledger.FILE, entries)
    return entries


def charts_of(content: Content) -> dict[str, Any]:
    """The charts by their path in results/."""
    from bench.reporting import pictures

    return pictures.every(content)


def draw(content: Content, pictures: dict[str, Any]) -> None:
    """Write the page and the pictures."""
    from bench.reporting import charts, page

    folder = content.results.folder
    files.write_text(folder / "report.html", page.page(content))
    (folder / "pictures").mkdir(exist_ok=True)
    for name, chart in pictures.items():
        charts.static(chart, folder / name)


def refused(folder: Path) -> str | None:
    """Why a report cannot be written there: other people's files have its names."""
    readme = folder / "README.md"
    if readme.exists() and readme.read_bytes().startswith(markdown.BEGINNING.encode()):
        return None  # a report exists there
    there = [name for name in WRITTEN if (folder / name).exists()]
    return f"{there[0]} is there and no report's; it would be replaced" if there else None


def written(content: Content, pictures: Collection[str], published: bool) -> dict[Path, str]:
    """The files of the report that are byte for byte the same each time they are made.

    README.md covers published records only.
    """
    folder = content.results.folder
    texts = {
        folder / "README.md": markdown.results_page(content, pictures),
        folder / "records.csv": spreadsheet.table(content.results.archive.runs),
        folder / "verdicts.json": record.as_json([one.plain() for one in content.verdicts]),
    }
    if published and folder == ROOT / "results":
        readme = ROOT / "README.md"
        texts[readme] = markdown.filled(readme.read_text(encoding="utf-8"), content, pictures)
        for name, page in {"leaderboard": leaderboard, "questions": questions}.items():
            file = ROOT / "docs" / f"{name}.md"
            old = file.read_text(encoding="utf-8")
            texts[file] = marked.filled(old, name, page.text(content))
    return texts


def report_differences(texts: dict[Path, str]) -> int:
    """Name the files that do not match the records; returns the exit status."""
    old = [f for f, text in texts.items() if not f.exists() or f.read_bytes() != text.encode()]
    for file in old:
        print(f"{short(file)} is not what the records say: make results", file=sys.stderr)
    return 1 if old else 0


def short(file: Path) -> str:
    return str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else str(file)


if __name__ == "__main__":
    sys.exit(main())
