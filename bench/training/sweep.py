"""What became of each cell of a command: gathered, shown, and turned into the exit status."""

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

# Of a run of many processes only the leading one speaks; what Hydra writes for the others goes.
OmegaConf.register_new_resolver(
    "leading", lambda folder: tempfile.mkdtemp() if world.rank() else folder, use_cache=True
)

PLUGINS = {  # by the first word of its name: our extra that installs it, and the package
    "joblib": ("joblib", "hydra-joblib-launcher"),
    "slurm": ("slurm", "hydra-submitit-launcher"),
    "submitit": ("slurm", "hydra-submitit-launcher"),
    "ray": ("ray", "hydra-ray-launcher"),
    "optuna": ("optuna", "hydra-optuna-sweeper"),
}

# The outcomes of this process's command. A sweep's jobs may run in other processes, so each leaves
# its outcome in the sweep's folder, from which the parent fills this list.
outcomes: list[Outcome] = []
remembered: dict[int, Outcome] = {}  # of this sweep's jobs in this process: those not written
began_here = False  # whether the sweep whose jobs run in this process was begun in it, too
stopping = False  # whether this process, one that a launcher started for jobs, was told to stop


@contextmanager
def job(told: bool = False) -> Iterator[Outcome]:
    """The outcome of one job, to be filled: {cell, how, error, record}.

    Its failure is noted and never leaves the job, so that a sweep goes on. told: of a sweep's job
    one line tells how it ended.
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
    except OSError as error:  # a disk that is full, a folder that may not be written
        reason = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        outcome |= {"how": "failed", "error": reason}
        if not told:
            say(f"error: {reason}")
    except KeyboardInterrupt:
        if not elsewhere:
            raise
        stop()
        outcome |= {"how": "interrupted"}  # ends the sweep where that was begun
    except Exception as error:  # a fault of ours must not end a sweep, nor go unseen
        outcome |= {"how": "failed", "error": repr(error)}
        print(traceback.format_exc(), file=sys.stderr)
        if world.size() > 1:  # the other processes wait in vain: torchrun ends or restarts all
            raise SystemExit(1) from None
    if elsewhere:
        signal.signal(signal.SIGTERM, stop)
    note(outcome)
    if told:
        telling.end(outcome)


# jobs in processes of their own ---------------------------------------------------------------


def settle_in() -> None:
    """Make a process that a launcher started for jobs one that can be stopped and found again.

    It heeds SIGTERM, from the process that began the sweep or from a scheduler, and not the
    terminal's Ctrl-C, which goes to both.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    foreground.outlive()
    hydra = HydraConfig.get()
    with suppress(OSError):  # a full disk
        launching.Outcomes(Path(hydra.sweep.dir)).begin(hydra.job.num)
    sys.argv[:] = [f"bench/{hydra.job.name}.py", "-m", *hydra.overrides.task]
    os.environ["TTY_COMPATIBLE"] = "0"  # rich: no bars, as processes share the terminal


def stop(*signal_and_frame: object) -> None:
    """Begin no job any more."""
    global stopping
    stopping = True


def check() -> None:
    """Raise KeyboardInterrupt where a job should not begin as its sweep was stopped."""
    if stopping:
        raise KeyboardInterrupt


def stop_workers(number: int, frame: object) -> None:
    """Have the processes of a joblib sweep leave checkpoints; once more ends all at once."""
    stop()
    signal.signal(number, signal.default_int_handler)
    workers = multiprocessing.active_children()
    if not workers:
        raise KeyboardInterrupt
    for worker in workers:
        assert worker.pid is not None  # it was started
        os.kill(worker.pid, signal.SIGTERM)


def refuse_missing_plugin() -> None:
    """End the command in one line where the launcher or sweeper it names is not installed."""
    for word in sys.argv[1:]:
        group, _, name = word.partition("=")
        extra, package = PLUGINS.get(name.split("_")[0], ("", ""))
        if group in ("hydra/launcher", "hydra/sweeper") and extra:
            try:
                version(package)
            except PackageNotFoundError:
                print(f"error: {word}: needs pip install -e '.[{extra}]'", file=sys.stderr)
                sys.exit(1)


# what is noted and said -----------------------------------------------------------------------


def note(outcome: Outcome) -> None:
    """Remember how a cell ended."""
    hydra = HydraConfig.get()
    if not is_sweep() or world.rank():
        outcomes.append(outcome)
        return
    try:
        launching.Outcomes(Path(hydra.sweep.dir)).end(hydra.job.num, outcome)
    except OSError:  # a full disk: this process at least remembers
        remembered[hydra.job.num] = outcome


def say(line: str) -> None:
    """One line for the person at the terminal; in a sweep with the number of the job."""
    label = f"[{HydraConfig.get().job.num + 1}] " if is_sweep() else ""
    world.tell(label + line)


def is_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def overrides() -> str:
    """What a job was asked for, as typed: its name until its cell is known."""
    return " ".join(HydraConfig.get().overrides.task) or "defaults"


def exit_status() -> int:
    return 1 if any(outcome["how"] == "failed" for outcome in outcomes) else 0


class Failures(Callback):
    """Closes a sweep with the list of failed cells; whose jobs have shown their own results."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        global began_here
        began_here, telling.paced = True, False
        remembered.clear()  # a study is many sweeps
        self.handlers = {}
        if ".joblib_launcher." in config.hydra.launcher["_target_"]:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.handlers[number] = signal.signal(number, stop_workers)
        folder = Path(config.hydra.sweep.dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with files.naming(folder):  # Hydra writes the same next
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
        """What all of the sweep's jobs came to."""


def found_best(folder: Path) -> str | None:
    """What the search of a sweep's folder ended with; None where it was none."""
    file = folder / "optimization_results.yaml"
    if not file.exists():
        return None
    best = cast(DictConfig, OmegaConf.load(file))
    if "best_value" not in best:  # a sweeper of somebody else's
        return f"found: {file}"
    words = " ".join(f"{key}={value}" for key, value in best.best_params.items())
    return f"best: {words} (val loss {best.best_value:.4f}); {file}"


def list_failures(found: list[Outcome]) -> None:
    for outcome in found:
        if outcome["how"] == "failed":
            print(f"failed: {outcome['cell']}: {outcome['error']}", file=sys.stderr)
