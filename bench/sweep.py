"""What became of each cell of a command: gathered, shown, and turned into the exit status."""

import json
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from bench import parallel
from bench.errors import UserError

# Of a run of many processes only the leading one speaks; what Hydra writes for the others goes.
OmegaConf.register_new_resolver(
    "leading", lambda folder: tempfile.mkdtemp() if parallel.rank() else folder, use_cache=True
)

# The outcomes of this process's command. A sweep's jobs may run in other processes, so each also
# leaves its outcome in the sweep's folder, from which the parent fills this list.
outcomes: list[dict[str, Any]] = []


@contextmanager
def job() -> Iterator[dict[str, Any]]:
    """The outcome of one job, to be filled: {cell, how, error, record}.

    Its failure is noted and never leaves the job, so that a sweep goes on.
    """
    outcome = {"cell": overrides(), "how": "failed", "error": None, "record": None}
    try:
        yield outcome
    except UserError as error:
        outcome |= {"how": "failed", "error": str(error)}
        say(f"error: {error}")
    except OSError as error:  # a disk that is full, a folder that may not be written
        reason = f"{error.strerror or error}: {error.filename or ''}"
        outcome |= {"how": "failed", "error": reason}
        say(f"error: {reason}")
    except Exception as error:  # a fault of ours must not end a sweep, nor go unseen
        outcome |= {"how": "failed", "error": repr(error)}
        print(traceback.format_exc(), file=sys.stderr)
        if parallel.size() > 1:  # the other processes wait in vain: torchrun ends or restarts all
            raise SystemExit(1) from None
    note(outcome)


def note(outcome: dict[str, Any]) -> None:
    """Remember how a cell ended: {cell, how, error, record}."""
    hydra = HydraConfig.get()
    if is_sweep() and not parallel.rank():
        folder = Path(hydra.sweep.dir) / "outcomes"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{hydra.job.num:06d}.json").write_text(json.dumps(outcome))
            return
        except OSError:  # a full disk: this process at least remembers
            pass
    outcomes.append(outcome)


def say(line: str) -> None:
    """One line for the person at the terminal; in a sweep with the number of the job."""
    label = f"[{HydraConfig.get().job.num + 1}] " if is_sweep() else ""
    parallel.tell(label + line)


def is_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def overrides() -> str:
    """What a job was asked for, as typed: its name until its cell is known."""
    return " ".join(HydraConfig.get().overrides.task) or "defaults"


def exit_status() -> int:
    return 1 if any(outcome["how"] == "failed" for outcome in outcomes) else 0


class Summary(Callback):
    """Closes a sweep with a table and the list of failed cells."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self.first = len(outcomes)  # a study is many sweeps
        folder = Path(config.hydra.sweep.dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = (
                "is a file" if isinstance(error, FileExistsError | NotADirectoryError) else error
            )
            print(
                f"results_dir={config.results_dir}: {reason}; a folder is needed", file=sys.stderr
            )
            sys.exit(1)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if parallel.rank():
            return
        from bench import tables

        found = self.outcomes(config)
        tables.show(tables.sweep(found))
        counts: dict[str, int] = {}
        for outcome in found:
            counts[outcome["how"]] = counts.get(outcome["how"], 0) + 1
        print(", ".join(f"{n} {how}" for how, n in counts.items()))
        list_failures(found)

    def outcomes(self, config: DictConfig) -> list[dict[str, Any]]:
        """Of this sweep's jobs, from its folder where they left them."""
        for file in sorted((Path(config.hydra.sweep.dir) / "outcomes").glob("*.json")):
            outcomes.append(json.loads(file.read_text()))
        return outcomes[self.first :]


class Failures(Summary):
    """Closes a sweep whose jobs have shown their own results."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if not parallel.rank():
            list_failures(self.outcomes(config))


def list_failures(found: list[dict[str, Any]]) -> None:
    for outcome in found:
        if outcome["how"] == "failed":
            print(f"failed: {outcome['cell']}: {outcome['error']}", file=sys.stderr)
