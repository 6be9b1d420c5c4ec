"""The outcome of each cell of a command: collected, shown, and turned into the exit status."""

import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from bench.processes import foreground, world
from bench.records import files
from bench.settings.errors import UserError
from bench.training import launching, telling
from bench.training.launching import Outcome

# In a run of many processes only the leading one keeps Hydra's files; the others' are temporary.
OmegaConf.register_new_resolver(
    "leading", lambda folder: tempfile.mkdtemp() if world.rank() else folder, use_cache=True
)

PLUGINS = {  # by the first word of the name: our extra and the package that it installs
    "joblib": ("joblib", "hydra-joblib-launcher"),
    "slurm": ("slurm", "hydra-submitit-launcher"),
    "submitit": ("slurm", "hydra-submitit-launcher"),
    "ray": ("ray", "hydra-ray-launcher"),
    "optuna": ("optuna", "hydra-optuna-sweeper"),
}

# The outcomes of this process's command. A sweep's jobs may run in other processes; each writes
# its outcome to the sweep's folder, and the parent fills this list from there.
outcomes: list[Outcome] = []
remembered: dict[int, Outcome] = {}  # outcomes of this process's jobs that could not be written
began_here = False  # whether this process began the sweep whose jobs it runs
stopping = False  # whether this process, started by a launcher for jobs, was told to stop


@contextmanager
def job(told: bool = False) -> Iterator[Outcome]:
    """The outcome of one job, to be filled in: {cell, how, error, record}.

    Its failure is noted and never raised, so that a sweep continues. told: print one line on how a
    sweep's job ended.
    """
    told = told and is_sweep()
    outcome = {"cell": overrides(), "how": "failed", "error": None, "record": None}
    elsewhere = is_sweep() and not began_here
    try:
        if elsewhere:
            settle_in()
        yield outcome
    except UserError as error:
        outcome |= {"how": "failed", "error": str(error)}
        if not told:
            say(f"error: {error}")
    except OSError as error:  # a full disk, or a folder that may not be written
        reason = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        outcome |= {"how": "failed", "error": reason}
        if not told:
            say(f"error: {reason}")
    except KeyboardInterrupt:
        if not elsewhere:
            raise
        stop()
        outcome |= {"how": "interrupted"}  # ends the sweep in the process that began it
    except Exception as error:  # our own bug must not end a sweep, nor be hidden
        outcome |= {"how": "failed", "error": repr(error)}
        print(traceback.format_exc(), file=sys.stderr)
        if world.size() > 1:  # the others would wait forever: torchrun ends or restarts all
            raise SystemExit(1) from None
    if elsewhere:
        signal.signal(signal.SIGTERM, stop)
    note(outcome)
    if told:
        telling.end(outcome)


# jobs in separate processes -------------------------------------------------------------------


def settle_in() -> None:
    """Prepare a process that a launcher started for jobs to be stopped and found again.

    It reacts to SIGTERM, from the sweep's own process or from a scheduler, but not to the
    terminal's Ctrl-C, which reaches both processes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    foreground.outlive()
    hydra = HydraConfig.get()
    with suppress(OSError):  # a full disk
        launching.Outcomes(Path(hydra.sweep.dir)).begin(hydra.job.num)
    sys.argv[:] = [f"bench/{hydra.job.name}.py", "-m", *hydra.overrides.task]
    os.environ["TTY_COMPATIBLE"] = "0"  # no progress bars by rich, as processes share the terminal


def stop(*signal_and_frame: object) -> None:
    """Begin no further job."""
    global stopping
    stopping = True


def check() -> None:
    """Raise KeyboardInterrupt if the sweep was stopped, so that no further job begins."""
    if stopping:
        raise KeyboardInterrupt


def stop_workers(number: int, frame: object) -> None:
    """Make the processes of a joblib sweep write checkpoints and stop; a second signal ends all."""
    stop()
    signal.signal(number, signal.default_int_handler)
    workers = multiprocessing.active_children()
    if not workers:
        raise KeyboardInterrupt
    for worker in workers:
        assert worker.pid is not None  # it has been started
        os.kill(worker.pid, signal.SIGTERM)


def refuse_missing_plugin() -> None:
    """End the command with one line if its launcher or sweeper is not installed."""
    for word in sys.argv[1:]:
        group, _, name = word.partition("=")
        extra, package = PLUGINS.get(name.split("_")[0], ("", ""))
        if group in ("hydra/launcher", "hydra/sweeper") and extra:
            try:
                version(package)
            except PackageNotFoundError:
                print(f"error: {word}: needs pip install -e '.[{extra}]'", file=sys.stderr)
                sys.exit(1)


# notes and messages ---------------------------------------------------------------------------


def note(outcome: Outcome) -> None:
    """Record how a cell ended."""
    hydra = HydraConfig.get()
    if not is_sweep() or world.rank():
        outcomes.append(outcome)
        return
    try:
        launching.Outcomes(Path(hydra.sweep.dir)).end(hydra.job.num, outcome)
    except OSError:  # a full disk: at least this process keeps it
        remembered[hydra.job.num] = outcome


def say(line: str) -> None:
    """Print one line for the user; in a sweep it starts with the number of the job."""
    label = f"[{HydraConfig.get().job.num + 1}] " if is_sweep() else ""
    world.tell(label + line)


def is_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def overrides() -> str:
    """The settings of a job as typed: its name until its cell is known."""
    return " ".join(HydraConfig.get().overrides.task) or "defaults"


def exit_status() -> int:
    return 1 if any(outcome["how"] == "failed" for outcome in outcomes) else 0


class Failures(Callback):
    """Ends a sweep with the list of failed cells; the jobs have shown their own results."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        global began_here
        began_here, telling.paced = True, False
        remembered.clear()  # a study runs many sweeps
        self.handlers = {}
        if ".joblib_launcher." in config.hydra.launcher["_target_"]:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.handlers[number] = signal.signal(number, stop_workers)
        folder = Path(config.hydra.sweep.dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with files.naming(folder):  # Hydra then writes the same file
                OmegaConf.save(config, folder / "multirun.yaml")
        except OSError as error:
            reason = f"{error.strerror}: {error.filename}"
            if isinstance(error, FileExistsError | NotADirectoryError):
                reason = "is a file; a folder is needed"
            world.tell(f"error: results_dir={config.results_dir}: {reason}")
            sys.exit(1)
        self.launches = launching.Launches(
            config, launching.Outcomes(folder), lambda: stopping, telling.part, world.tell
        )

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        self.launches.end()
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        if world.rank():
            return
        found = self.launches.ended(remembered)
        outcomes.extend(found)
        self.show(found, config)
        if best := found_best(self.launches.outcomes.folder.parent):
            print(best)
        list_failures(found)
        if any(outcome["how"] == "interrupted" for outcome in found):
            raise KeyboardInterrupt

    def show(self, found: list[Outcome], config: DictConfig) -> None:
        """Show the results of all of the sweep's jobs."""


def found_best(folder: Path) -> str | None:
    """The result of the search in a sweep's folder; None if it was no search."""
    file = folder / "optimization_results.yaml"
    if not file.exists():
        return None
    best = cast(DictConfig, OmegaConf.load(file))
    if "best_value" not in best:  # from another sweeper
        return f"found: {file}"
    words = " ".join(f"{key}={value}" for key, value in best.best_params.items())
    return f"best: {words} (val loss {best.best_value:.4f}); {file}"


def list_failures(found: list[Outcome]) -> None:
    for outcome in found:
        if outcome["how"] == "failed":
            print(f"failed: {outcome['cell']}: {outcome['error']}", file=sys.stderr)
