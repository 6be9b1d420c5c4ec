"""A sweep's jobs in processes that may be killed: the others continue, and all are listed."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.errors import HydraException
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bench.records import files
from bench.settings.schema import GROUPS

# cell, how, error, record (the part that a sweep's table shows), loss (the value for a search)
Outcome = dict[str, Any]
SILENT = "ended without a record: its process was killed, or the disk is full"


@dataclass(frozen=True)
class Part:
    """A sweep's place in something larger: how many runs ended before it, the total number of runs,
    a name for all of its runs, and the seconds left after each of them."""

    before: int
    total: int
    name: str
    left: list[float]


def short_name(words: Iterable[str]) -> str:
    """A run's name, made of its settings: hybrid lr×2 s0."""
    found = []
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        last = key.rpartition(".")[2]
        short = {"seed": f"s{value}", "optimizer.lr_scale": f"lr×{value}"}
        found.append(value if key in GROUPS else short.get(key, f"{last}={value}"))
    return " ".join(found)


class Outcomes:
    """How the jobs of a sweep ended: one file per job, as jobs may run in other processes."""

    def __init__(self, sweep: Path) -> None:
        self.folder = sweep / "outcomes"

    def plan(self, content: dict[str, Any]) -> None:
        """Write the list of jobs, for the lines that report their ends. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        files.write_text(self.folder / "plan.json", json.dumps(content))

    def planned(self) -> dict[str, Any] | None:
        """None if there is no readable plan."""
        try:
            return files.read_json(self.folder / "plan.json")
        except (OSError, ValueError):
            return None

    def ended(self) -> list[Outcome]:
        """The outcomes of all jobs that have ended so far."""
        numbers = (int(file.stem) for file in self.folder.glob("[0-9]*.json"))
        return [one for number in numbers if (one := self.read(number))]

    def begin(self, number: int) -> None:
        """Note that a job has begun. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{number:06d}.begun").touch()

    def end(self, number: int, outcome: Outcome) -> None:
        """Write a job's outcome. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        files.write_text(self.folder / f"{number:06d}.json", json.dumps(outcome))

    def begun(self, number: int) -> bool:
        return (self.folder / f"{number:06d}.begun").exists()

    def read(self, number: int) -> Outcome | None:
        """None if there is no readable outcome."""
        try:
            found = files.read_json(self.folder / f"{number:06d}.json")
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and {"cell", "how", "error"} <= set(found) else None


class Launches:
    """Until `end`, a sweep's launcher uses `launch` here, which survives killed processes.

    stopped: whether to begin no further job. part: the larger thing that the sweep belongs to; if
    there is none, `say` gets the plan of the sweep.
    """

    def __init__(
        self,
        config: DictConfig,
        outcomes: Outcomes,
        stopped: Callable[[], bool],
        part: Part | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.outcomes, self.stopped, self.part, self.say = outcomes, stopped, part, say
        self.typed: list[str] = list(OmegaConf.select(config, "hydra.overrides.task") or [])
        self.trials: int | None = OmegaConf.select(config, "hydra.sweeper.n_trials")
        self.began = time.time()
        self.jobs: dict[int, str] = {}  # the settings of each job
        self.trouble = SILENT
        self.launcher = cast(Any, get_class(config.hydra.launcher["_target_"]))
        self.original = self.launcher.launch

        def launch(launcher: Any, job_overrides: Sequence, initial_job_idx: int) -> list[Any]:
            for number, words in enumerate(job_overrides, initial_job_idx):
                self.jobs[number] = " ".join(filter_overrides(words)) or "defaults"
            if initial_job_idx and self.stopped():  # a search launches many times
                raise KeyboardInterrupt
            self.plan(job_overrides, initial_job_idx)
            return self.launch(launcher, job_overrides, initial_job_idx)

        self.launcher.launch = launch

    def end(self) -> None:
        self.launcher.launch = self.original

    def plan(self, jobs: Sequence, first: int) -> None:
        """Say what will run, and write it where the jobs in any process can read it."""
        own = [filter_overrides(words) for words in jobs]
        alike = set.intersection(*map(set, own)) if len(own) > 1 else set()
        told = [[w for w in words if w not in alike and w not in self.typed] for words in own]
        total = max(self.trials or 0, first + len(jobs))
        if not first and not self.part:
            keys = {word.partition("=")[0] for words in told for word in words}
            swept = [word for word in self.typed if word.partition("=")[0] in keys]
            runs = f"{total} run{'s' * (total > 1)}"
            self.say(f"plan: {runs}" + f" ({' '.join(swept)})" * bool(swept))
        names = {n: short_name(words) for n, words in enumerate(told, first)}
        part = self.part or Part(0, total, "", [])
        with suppress(OSError):  # a full disk
            self.outcomes.plan(asdict(part) | {"began": self.began, "names": names})

    def ended(self, remembered: dict[int, Outcome]) -> list[Outcome]:
        """The outcome of each job; remembered: outcomes that could not be written."""
        return [
            remembered.get(number)
            or self.outcomes.read(number)
            or {"cell": words, "how": "failed", "error": self.trouble, "record": None}
            for number, words in self.jobs.items()
        ]

    def launch(self, launcher: Any, jobs: Sequence, first: int, alone: bool = False) -> list[Any]:
        """Launch jobs, whose numbers start at `first`.

        If one process of joblib's is killed, joblib ends all others. Each job that had begun is
        then launched alone, so that a job that is killed every time ends no other; then all the
        rest.
        """
        try:
            return list(self.original(launcher, jobs, initial_job_idx=first))
        except (HydraException, OmegaConfBaseException):  # a mistake in the settings
            raise
        except BrokenProcessPool:
            if self.stopped():
                raise KeyboardInterrupt from None
        except Exception as error:  # from another launcher, or a folder that cannot be made
            self.trouble = " ".join(str(error).split())[:300] or repr(error)
            return self.returned(jobs, first)
        if alone:
            return []
        left = [n for n in range(first, first + len(jobs)) if not self.outcomes.read(n)]
        begun = [n for n in left if self.outcomes.begun(n)]
        for n in begun:
            self.launch(launcher, jobs[n - first : n - first + 1], n, alone=True)
        for part in stretches(n for n in left if n not in begun):
            self.launch(launcher, jobs[part.start - first : part.stop - first], part.start)
        return self.returned(jobs, first)

    def returned(self, jobs: Sequence, first: int) -> list[JobReturn]:
        """The noted return values of the jobs, for a sweeper that searches."""
        noted = [self.outcomes.read(first + i) or {} for i in range(len(jobs))]
        return [JobReturn(status=JobStatus.COMPLETED, _return_value=o.get("loss")) for o in noted]


def stretches(numbers: Iterable[int]) -> list[range]:
    """Ascending numbers as ranges without gaps."""
    found: list[range] = []
    for n in numbers:
        if found and found[-1].stop == n:
            found[-1] = range(found[-1].start, n + 1)
        else:
            found.append(range(n, n + 1))
    return found
