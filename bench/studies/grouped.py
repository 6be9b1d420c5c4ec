"""The end of a sweep: its runs by model and data, grouped over seeds, compared with AdamW."""

from pathlib import Path

from omegaconf import DictConfig

from bench.display import terminal
from bench.records import archive
from bench.records.archive import Run
from bench.studies import groups, pairs
from bench.training import sweep, telling
from bench.training.launching import Outcome

ENDED = ("finished", "diverged", "skipped")


class Summary(sweep.Failures):
    """Ends a sweep of the trainer with a table and the list of failed cells."""

    def show(self, found: list[Outcome], config: DictConfig) -> None:
        if telling.part is not None:
            return  # the study around this sweep shows its results
        for bench in pairs.benches(runs(found, Path(config.results_dir))):
            terminal.show(groups.table(bench))
            if bench.baseline is None:
                terminal.show("No finished AdamW run among these: nothing to compare with.")
        if config.tracker.name == "wandb":
            print(f"W&B: {config.results_dir}/wandb")  # a path stays whole
        counts: dict[str, int] = {}
        for outcome in found:
            counts[outcome["how"]] = counts.get(outcome["how"], 0) + 1
        print(", ".join(f"{n} {how}" for how, n in counts.items()))


def runs(found: list[Outcome], results: Path) -> list[Run]:
    """The ended runs of a sweep, each once."""
    cells = dict.fromkeys(one["cell"] for one in found if one["how"] in ENDED)
    files = [results / "runs" / cell / "record.json" for cell in cells]
    read = [(file, archive.ended(file.parent)) for file in files]
    return [Run(None, None, None, None, one, f) for f, one in read if isinstance(one, dict)]
