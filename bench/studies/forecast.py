"""How long a study will take, and how much disk it needs, from a few steps of each arm."""

import contextlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace

from bench.data.batches import final_eval_sequences
from bench.display import progress
from bench.display.numbers import duration, short
from bench.measuring import load
from bench.processes import parallel
from bench.records import cell, files
from bench.settings.errors import UserError
from bench.settings.schema import Settings

STEPS = 4  # the first two warm up
EVALUATED = ("eval_sequences", "final_eval_sequences")
FORWARD = 1 / 3  # share of forward + backward that an evaluation takes, by FLOPs


Key = tuple[str, str, str]  # stage, condition, arm


@dataclass(frozen=True)
class Cost:
    """The cost of one run: its seconds, including evaluations; the bytes that it keeps, without a
    tracker's; the most bytes of its checkpoints while it trains."""

    seconds: float
    kept: float
    beside: float


class Forecast:
    """The cost of the remaining runs; each arm is timed under each condition.

    left: the number of runs by stage, condition and arm; sample: settings of one of them.
    Raises UserError if an arm cannot even start, which is then known before hours are spent.
    """

    def __init__(
        self, left: dict[Key, int], sample: Callable[[str, str, str], Settings], leads: bool = True
    ) -> None:
        """leads: whether this process prints progress."""
        self.left = {key: count for key, count in left.items() if count}
        self.beside = load.beside()
        self.costs: dict[tuple[str, str], Cost] = {}
        first = {(condition, arm): stage for stage, condition, arm in reversed(self.left)}
        with progress.ticks(len(first), shown=leads) as tick:
            for condition, arm in dict.fromkeys(key[1:] for key in self.left):
                tick(f"timing {STEPS} steps of {condition}, {arm}")
                self.costs[condition, arm] = cost(sample(first[condition, arm], condition, arm))

    def summary(self) -> list[str]:
        """The number of runs, the time and the disk space, in lines."""
        runs = sum(self.left.values())
        said = f"plan: {runs} runs are left, about {duration(self._of(self.left))} on this machine"
        if not runs:
            return [said]
        if self.beside:
            said += f", or much less: it was timed {self.beside}"
        kept = sum(n * self.costs[key[1:]].kept for key, n in self.left.items())
        beside = max(one.beside for one in self.costs.values())
        disk = f"disk: they leave {short(kept)}B, and take {short(beside)}B more on their way"
        return [said, disk]

    def after(self, key: Key, trained: list[bool]) -> list[float]:
        """The seconds that the study still needs after each run of a sweep.

        trained: for each run, whether it is trained now or had ended before.
        """
        each, whole = self.costs[key[1:]].seconds if key[1:] in self.costs else 0.0, self.left
        done = [sum(trained[: at + 1]) for at in range(len(trained))]
        left = [max(0.0, self._of(whole) - each * n) for n in done]
        self.left[key] = max(0, self.left.get(key, 0) - sum(trained))
        return left

    def _of(self, left: dict[Key, int]) -> float:
        return sum(n * self.costs[key[1:]].seconds for key, n in left.items() if n)


def cost(settings: Settings) -> Cost:
    """The cost of one run with these settings."""
    from bench.records import record  # imports torch
    from bench.training import prepare, run

    train = settings.train
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        brief = replace(
            settings,
            experiment=None,
            rerun=False,
            results_dir=folder,
            tracker={"name": "none"},
            data=settings.data | dict.fromkeys(EVALUATED, train.batch_size),
            other_data={},
            train=replace(
                train,
                steps=STEPS,
                eval_every=STEPS,
                checkpoint_every=None,
                reference_steps=0,
                save_momentum_every=None,
            ),
        )
        name = cell.name(brief)
        null = stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(contextlib.redirect_stdout(null))
        stack.enter_context(contextlib.redirect_stderr(null))
        outcome = run.run(brief, name, lambda line: None)
        world = parallel.start(settings)
        left = world.agreed(lambda: files.folder(brief.results_dir, "runs", name))
        one = world.agreed(lambda: record.read(left))
        size = world.agreed(lambda: sum(f.stat().st_size for f in left.iterdir() if f.is_file()))
    if outcome["how"] == "failed":
        raise UserError(f"{settings.condition}, {settings.arm}: {outcome['error']}")
    assert one is not None  # a run that has not failed has a record
    if one["status"] == "diverged":
        return Cost(0.0, 0.0, 0.0)
    seconds = lasts(
        settings,
        one["forward_backward_ms"]["median"] / 1e3,
        one["optimizer_ms"]["median"] / 1e3,
    )
    line = len(record.as_json(one["curve"][0], indent=None))
    more = (train.steps or STEPS) + min(train.steps or STEPS, record.CURVE_POINTS)  # lines
    state = one["optimizer_state_bytes"]["total"] + 4 * one["parameters"]
    return Cost(seconds, size + line * more, prepare.checkpoints(train) * state)


def lasts(settings: Settings, forward_backward: float, optimizer: float) -> float:
    """Seconds of one run with these step times, including its evaluations."""
    train = settings.train
    step = forward_backward + optimizer
    before_end = ((train.steps or 1) - 1) // train.eval_every
    data = settings.data
    final = 5 if settings.other_data else 2  # three more tests
    examples = before_end * data["eval_sequences"] + final * final_eval_sequences(data)
    batches = examples / train.batch_size / train.accumulate
    limits = [train.steps and train.steps * step, train.time_limit]
    training = min(limit for limit in limits if limit)
    return training + batches * FORWARD * forward_backward
