"""Copy an experiment's finished cells to results/records/, where results are committed.

python scripts/publish.py EXPERIMENT [results_dir=results]

A cell that has ended (finished or diverged) and is part of EXPERIMENT is copied to
results/records/EXPERIMENT/<cell>.json, with its stage, condition and arm. Records from uncommitted
code or an unknown commit are refused. Older records of the same kind of device are replaced. The
age of the experiment's declaration is added to results/rules.json. The reference lines of these
runs are copied to results/lines/.
"""

import argparse
import functools
import sys
from pathlib import Path

from bench.records import archive, ledger, record
from bench.settings import command
from bench.settings.errors import UserError
from bench.studies import lines, study

ROOT = Path(__file__).resolve().parent.parent
POINTS = 40  # training points per curve: hundreds of records are committed


def parts(results: Path, one: dict, experiment: str | None = None) -> list[dict]:
    """The experiment parts that a cell belongs to, whichever it was first trained for.

    Of an experiment only those that are still declared: a condition or an arm can have been taken
    out since.
    """
    known = record.parts(results / "runs" / one["cell"])
    if experiment is None:
        return known
    now = as_declared(experiment)
    return [
        part
        for part in known
        if part["experiment"] == experiment
        and (now is None or (part["condition"] in now.conditions and part["arm"] in now.arms))
    ]


@functools.cache
def as_declared(experiment: str) -> study.Study | None:
    """The experiment's declaration, read once for all runs; None if no file declares it."""
    return study.load(experiment) if experiment in study.declared() else None


def committed(one: dict) -> bool:
    """Whether a record names the code that made it; for a tree without .git that is the commit
    given to it (bench/records/origin.py)."""
    return bool(one["environment"]["commit"]) and not one["environment"]["dirty"]


def put(ended: list[dict], results: Path, experiment: str) -> Path:
    """Write an experiment's records from its runs in `results`; returns the folder.

    Older records of the same kinds of device that are not among them are removed; others stay.
    """
    target = ROOT / "results" / "records" / experiment
    target.mkdir(parents=True, exist_ok=True)
    for one in ended:
        one["part_of"] = parts(results, one, experiment)
        one["curve"] = record.curve(one["curve"], POINTS)
        record.write_json(target / f"{one['cell']}.json", one | one["part_of"][0], indent=None)
    kept = {f"{one['cell']}.json" for one in ended}
    devices = {archive.setup(one).device for one in ended}
    for old in target.glob("*.json"):  # after writing the new ones: a full disk loses none
        found = archive.load(old) if old.name not in kept else None
        if isinstance(found, str) or (found and archive.setup(found).device in devices):
            old.unlink()
    return target


def note_age(experiment: str) -> None:
    """Add the experiment's declaration to results/rules.json, or say why it cannot be added."""
    rules = ROOT / "results" / ledger.FILE.name
    entries, loose = ledger.grown(ledger.read(rules), [ledger.study(experiment)])
    record.write_json(rules, entries)
    for file in loose:
        print(f"not in {rules.name}: {file.name}: not committed", file=sys.stderr)


def put_lines(ended: list[dict], results: Path) -> list[str]:
    """Write the reference lines of published runs to results/lines/; returns the names of those
    left out because they come from uncommitted code."""
    known, _ = lines.read(results)
    found = [one for one in known if any(lines.of_run(r, [one]) for r in ended)]
    target = ROOT / "results" / "lines"
    for one in (one for one in found if committed(one.content)):
        target.mkdir(parents=True, exist_ok=True)
        record.write_json(target / one.file.name, one.content)
    return [one.file.stem for one in found if not committed(one.content)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment")
    parser.add_argument("settings", nargs="*", metavar="results_dir=FOLDER", help="where runs/ is")
    parser.add_argument("--results", default=str(ROOT / "results"), help=argparse.SUPPRESS)
    asked = parser.parse_intermixed_args()
    try:
        given = command.given(asked.settings, {"results_dir": asked.results})
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    results = Path(given["results_dir"])
    read = [(f, archive.ended(f.parent)) for f in results.glob("runs/*/record.json")]
    odd = [(f, why) for f, why in read if isinstance(why, str) and not why.startswith("not ended")]
    for file, why in odd:
        print(f"left out: {file}: {why}", file=sys.stderr)
    found = [one for _, one in read if isinstance(one, dict)]
    ended = [r for r in found if parts(results, r, asked.experiment)]
    if not ended:
        known = sorted({p["experiment"] for r in found for p in parts(results, r)})
        print(f"{asked.experiment}: no ended run of it in {results}/runs; found: {known}")
        return 1
    clean = [r for r in ended if committed(r)]
    dirty = [r["cell"] for r in ended if not committed(r)] + put_lines(clean, results)
    if dirty:
        print(f"made from uncommitted code, not published: {', '.join(dirty)}", file=sys.stderr)
    target = put(clean, results, asked.experiment)
    note_age(asked.experiment)
    not_ended = len(read) - len(found) - len(odd)
    print(f"{len(clean)} records in {target.relative_to(ROOT)}; {not_ended} runs have not ended")
    return 1 if dirty else 0


if __name__ == "__main__":
    sys.exit(main())
