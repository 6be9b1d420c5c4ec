"""Read the records, judge the claims, and write tables, pictures and a page to look at.

python bench/report.py                what is in results/, your own runs included
python bench/report.py --published    only what is committed: `make results`
"""

import argparse
import csv
import io
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    from bench.processes import foreground

    foreground.begin()

from importlib.util import find_spec

from bench.records import archive, files, ledger, record
from bench.records.archive import Run
from bench.reporting import content as report_content
from bench.reporting import markdown
from bench.reporting.content import Content
from bench.studies.results import Results
from bench.verdicts import claims
from bench.verdicts.ages import Ages

ROOT = Path(__file__).resolve().parent.parent
DRAWS = {"altair": "altair", "vl_convert": "vl-convert-python"}  # what draws, by its package
WRITTEN = ("README.md", "records.csv", "verdicts.json", "report.html")
COLUMNS = (
    *("experiment", "stage", "condition", "arm", "cell", "status", "model", "optimizer", "qkv"),
    *("data", "seed", "lr_scale", "steps", "precision", "parameters", "tokens_per_step"),
    *("images_per_step", "val_loss", "best_val_loss", "test_loss", "val_accuracy"),
    *("test_accuracy", "train_seconds", "optimizer_share", "peak_memory_bytes"),
)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench/report.py", description="Tables, pictures, verdicts and a page from records."
    )
    parser.add_argument("--results", default=str(ROOT / "results"), help="the results folder")
    parser.add_argument("--published", action="store_true", help="leave out results/runs")
    parser.add_argument("--check", action="store_true", help="write nothing; are they up to date?")
    asked = parser.parse_args()
    if mistake := refused(asked.results):
        print(f"error: --results={asked.results}: {mistake}", file=sys.stderr)
        return 1
    missing = [package for name, package in DRAWS.items() if find_spec(name) is None]
    if missing and (asked.published or asked.check):
        flag = "--check" if asked.check else "--published"
        print(f"error: {flag}: needs pictures: pip install {' '.join(missing)}", file=sys.stderr)
        return 1
    folder = Path(asked.results).resolve()
    rules = ledger.read()
    if asked.published and not asked.check and folder == ROOT / "results":
        rules = grown(rules)
    results = Results(folder, asked.published)
    content = report_content.gather(results, Ages(results, rules))
    pictures = {} if missing else charts_of(content)
    texts = written(content, pictures, asked.published)
    if asked.check:
        return report_differences(texts)
    for file, text in texts.items():
        files.write_text(file, text)
    for file, reason in content.left_out:
        print(f"left out: {file}: {reason}", file=sys.stderr)
    print(f"{len(content.results.archive.runs)} runs, {len(content.verdicts)} claims")
    if missing:
        print(f"no pictures and no page: for these, pip install {' '.join(missing)}")
        print(f"look at {short(folder / 'README.md')}")
        return 0
    draw(content, pictures)
    print(f"look at {short(folder / 'report.html')} or {short(folder / 'README.md')}")
    return 0


def grown(rules: ledger.Entries) -> ledger.Entries:
    """results/rules.json with what is new of claims and experiments; it is never changed else."""
    entries, loose = ledger.grown(rules, [*ledger.studies(), *claims.rules()])
    for file in loose:
        print(f"not in {ledger.FILE.name}: {short(file)}: not committed", file=sys.stderr)
    record.write_json(ledger.FILE, entries)
    return entries


def charts_of(content: Content) -> dict[str, Any]:
    """The charts by their place in results/."""
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


def refused(results: str) -> str | None:
    """Why a report cannot be written there: no folder, or files of somebody else's in its place."""
    if not results or not Path(results).is_dir():
        return "no such folder"
    readme = Path(results) / "README.md"
    if readme.exists() and readme.read_bytes().startswith(markdown.BEGINNING.encode()):
        return None  # a report stands there
    there = [name for name in WRITTEN if (Path(results) / name).exists()]
    return f"{there[0]} is there and no report's; it would be replaced" if there else None


def written(content: Content, pictures: Collection[str], published: bool) -> dict[Path, str]:
    """The files of the report that are the same byte for byte whenever they are made.

    README.md speaks of published records only.
    """
    folder = content.results.folder
    texts = {
        folder / "README.md": markdown.results_page(content, pictures),
        folder / "records.csv": table(content.results.archive.runs),
        folder / "verdicts.json": record.as_json([one.plain() for one in content.verdicts]),
    }
    if published and folder == ROOT / "results":
        readme = ROOT / "README.md"
        texts[readme] = markdown.filled(readme.read_text(encoding="utf-8"), content)
    return texts


def table(runs: list[Run]) -> str:
    """One line a run, as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            *COLUMNS,
            "overhead",
            "optimizer_state_bytes",
            "device",
            "gpu",
            "commit",
            "dirty",
            "file",
            "command",
        ]
    )
    for run in sorted(runs, key=lambda r: (str(r.file), r.experiment or "", r.arm or "")):
        one = run.record | run._asdict()
        writer.writerow(
            [
                *(one.get(column) for column in COLUMNS),
                (one.get("overhead") or {}).get("value"),
                (one.get("optimizer_state_bytes") or {}).get("total"),
                archive.setup(one).device,
                one["environment"].get("gpu"),
                one["environment"].get("commit"),
                one["environment"].get("dirty"),
                run.file.name,
                one["command"],
            ]
        )
    return out.getvalue()


def report_differences(texts: dict[Path, str]) -> int:
    """Name the files that are not what the records say; the exit status."""
    old = [f for f, text in texts.items() if not f.exists() or f.read_bytes() != text.encode()]
    for file in old:
        print(f"{short(file)} is not what the records say: make results", file=sys.stderr)
    return 1 if old else 0


def short(file: Path) -> str:
    return str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else str(file)


if __name__ == "__main__":
    sys.exit(main())
