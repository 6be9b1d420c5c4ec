"""Copy the output of scripts/gpu.sh run into results/, where results are committed.

python scripts/gpu_unpack.py FOLDER --commit COMMIT

FOLDER has run.jsonl and run.tar, which may be truncated. Ended runs go to results/records as with
scripts/publish.py, step benchmarks to results/steps, and so on; a run outside experiments stays
where it is. Results of another commit or of a rehearsal are refused. If another GPU's step
benchmark has the same name, it stays, and the new one gets its GPU's name. Exit status 1 if
anything was refused.
"""

import argparse
import json
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import publish

from bench.records import archive, files, record
from bench.records.origin import slug

PICTURES = (".svg", "-timeline.svg")  # of a record, after its name
ALONE = ("steps", "ortho", "ceilings")  # folders of files that are complete in themselves


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--commit", required=True, help="of the checkout that was copied")
    asked = parser.parse_args()
    if mistake := unfit(asked.folder):
        print(f"error: {asked.folder}: {mistake}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as temporary:
        unpacked = Path(temporary)
        extract(asked.folder / "run.tar", unpacked)
        placed, refused = place(unpacked, asked.commit)
        runs, others = publish_runs(unpacked, asked.commit)
    for name, why in refused + others:
        print(f"refused: {name}: {why}", file=sys.stderr)
    for name in placed + runs:
        print(name)
    return 1 if refused + others else 0


def unfit(folder: Path) -> str | None:
    """Why nothing in a folder can be published."""
    try:
        first = (folder / "run.jsonl").read_text(encoding="utf-8").splitlines()[0]
        rehearsal = json.loads(first)["rehearsal"]
    except (OSError, ValueError, LookupError):
        return "no run.jsonl of scripts/gpu.sh"
    if rehearsal:
        return "a rehearsal, nothing to publish"
    return None if (folder / "run.tar").exists() else "no run.tar: nothing was measured"


def extract(file: Path, target: Path) -> None:
    """Extract all complete members; the later one if a name occurs twice."""
    try:
        with tarfile.open(file) as tar:
            tar.extraction_filter = getattr(tarfile, "data_filter", None)  # from 3.11.4 on
            for member in tar:
                tar.extract(member, target)
    except tarfile.ReadError as error:
        print(f"{file.name} was cut off: {error}", file=sys.stderr)


def place(unpacked: Path, commit: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Move files and pictures to results/; returns their places, and refusals with reasons."""
    results, placed, refused = publish.ROOT / "results", [], []
    for file in sorted(f for folder in ALONE for f in unpacked.glob(f"{folder}/**/*.json")):
        name = file.relative_to(unpacked)
        found = whole(file)
        if why := fault(found, commit):
            refused.append((str(name), why))
            continue
        target = beside(results / name, found)
        target.parent.mkdir(parents=True, exist_ok=True)
        record.write_json(target, found)
        for end in PICTURES:
            if (picture := file.with_name(file.stem + end)).exists():
                text = picture.read_text(encoding="utf-8")
                files.write_text(target.with_name(target.stem + end), text)
        placed.append(str(target.relative_to(results)))
    return placed, refused


def beside(target: Path, found: dict[str, Any]) -> Path:
    """The path of a record, beside one that another GPU left there."""
    gpu = found["environment"].get("gpu")
    there = whole(target)
    other = there and (there.get("environment") or {}).get("gpu")
    return (
        target.with_stem(f"{target.stem}-{slug(gpu)}") if gpu and other != gpu and there else target
    )


def whole(file: Path) -> dict[str, Any]:
    """A JSON object; an empty one if there is none."""
    try:
        found = files.read_json(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def fault(found: dict[str, Any], commit: str) -> str | None:
    """Why a record cannot be published."""
    made = found.get("environment")
    if not isinstance(made, dict):
        return "broken"
    if made.get("commit") != commit:
        return f"of commit {made.get('commit')}"
    return "made from uncommitted code" if made.get("dirty") else None


def publish_runs(unpacked: Path, commit: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Publish ended runs in their experiments; returns how many in which, and what was refused."""
    by_experiment: dict[str, list[dict[str, Any]]] = {}
    refused = []
    for folder in sorted(unpacked.glob("runs/*/")):
        found = archive.ended(folder)
        why = found if isinstance(found, str) else fault(found, commit)
        experiments = {part["experiment"] for part in record.parts(folder)}
        if why or isinstance(found, str):
            refused.append((folder.name, why or "without a record"))
            continue
        for experiment in experiments:
            by_experiment.setdefault(experiment, []).append(dict(found))
    placed = []
    for experiment, ended in sorted(by_experiment.items()):
        target = publish.put(ended, unpacked, experiment)
        placed.append(f"{target.relative_to(publish.ROOT / 'results')}: {len(ended)} records")
    return placed, refused


if __name__ == "__main__":
    sys.exit(main())
