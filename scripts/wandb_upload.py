"""Log finished records in Weights & Biases, for runs made with tracker=none.

python scripts/wandb_upload.py [results_dir=results] [--records FOLDER] [--mode offline|online]
                               [--project muonbench] [--entity NAME]

Each finished or diverged record becomes the W&B run that it would have been live: with every line
of its metrics.jsonl or, if it is missing, of the record's curve. Only W&B's own clock shows the
upload. wandb/logged.jsonl there lists what W&B has, including live runs; these are not logged
again.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from omegaconf import OmegaConf

from bench.records import archive, record
from bench.settings import command
from bench.settings.errors import UserError
from bench.settings.schema import CONF
from bench.tracking import tracker as tracking
from bench.tracking import weights_and_biases


def lines(file: Path, one: dict) -> list[dict]:
    """All lines of the run's metrics if they are beside the record, otherwise its curve."""
    found = record.lines(file.with_name("metrics.jsonl"))
    return found if found and found[-1]["step"] == one["steps"] else one["curve"]


def upload(file: Path, one: dict, block: dict, results: Path) -> None:
    """Make one W&B run of a record. Raises UserError if W&B does not accept it completely."""
    trouble: list[str] = []
    tracker = tracking.start(block, one, results, trouble.append)
    for line in lines(file, one):
        tracker.log(line)
    tracker.finish(one)
    if trouble:
        raise UserError(f"{one['cell']}: {trouble[0]}")


def upload_all(files: list[Path], block: dict, results: Path) -> Counter:
    """Upload what W&B does not have yet and say what happens to each; returns counts by kind."""
    count: Counter = Counter()
    done = weights_and_biases.logged(results, block["project"], block["entity"])
    for file in files:
        one = archive.load(file)
        if isinstance(one, str):
            print(f"left out: {file}: {one}", file=sys.stderr)
            count["left out"] += 1
        elif note := done.get(weights_and_biases.identity(one)):
            count[f"logged before ({note['mode']})"] += 1
        else:
            upload(file, one, block, results)
            done[weights_and_biases.identity(one)] = block
            print(f"{one['cell']}: logged")
            count["logged"] += 1
    return count


def main() -> int:
    block = OmegaConf.to_container(OmegaConf.load(CONF / "tracker" / "wandb.yaml"))
    assert isinstance(block, dict)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("settings", nargs="*", metavar="results_dir=FOLDER", help="has runs/ and wandb/")
    add("--results", default="results", help=argparse.SUPPRESS)  # the former name of results_dir=
    add("--records", type=Path, metavar="FOLDER", help="take its *.json in the place of runs/")
    add("--mode", choices=("offline", "online"), default=block["mode"])
    add("--project", default=block["project"])
    add("--entity", help="a user or team; the account's own where left out")
    asked = parser.parse_intermixed_args()
    block |= {"mode": asked.mode, "project": asked.project, "entity": asked.entity}
    try:
        given = command.given(asked.settings, {"results_dir": asked.results})
        results = Path(given["results_dir"])
        folder, pattern = results / "runs", "*/record.json"
        if asked.records:
            folder, pattern = asked.records, "**/*.json"
        files = sorted(folder.glob(pattern))
        if not files:
            raise UserError(f"{folder}: no record there ({pattern})")
        count = upload_all(files, block, results)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(", ".join(f"{n} {kind}" for kind, n in sorted(count.items())))
    if any("offline" in kind for kind in count) or asked.mode == "offline":
        print(f"send what is offline: wandb sync {results}/wandb/offline-run-*")
    return 0


if __name__ == "__main__":
    sys.exit(main())
