"""How long a study will take, from a few steps of each of its arms."""

import contextlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace

from bench.display.numbers import duration
from bench.processes import parallel
from bench.records import cell
from bench.settings.errors import UserError
from bench.settings.schema import Settings
from bench.studies.study import Sweep

STEPS = 4  # the first two warm up
FORWARD = 1 / 3  # of forward + backward: an evaluation's share, by FLOPs


class Forecast:
    """Predicted seconds of the runs that are left, by sweep.

    Raises UserError where an arm cannot even start, so that it is known before the hours are spent.
    """

    def __init__(self, left: dict[Sweep, list[Settings]], say: Callable[[str], None]) -> None:
        self.say = say
        self.left = {sweep: len(cells) for sweep, cells in left.items()}
        self.seconds: dict[tuple[str, str], float] = {}
        for sweep, cells in left.items():
            self._time(sweep, cells)

    def _time(self, sweep: Sweep, cells: list[Settings]) -> None:
        key = sweep.condition, sweep.arm
        if cells and key not in self.seconds:
            self.say(f"timing {STEPS} steps of {', '.join(key)}")
            self.seconds[key] = seconds(cells[0])

    def summary(self) -> str:
        runs = sum(self.left.values())
        return f"{runs} runs are left, about {duration(self._of(self.left))} on this machine"

    def line(self, sweep: Sweep, cells: list[Settings]) -> str:
        """What comes now and how much of the study is left, this sweep included."""
        part = (sweep.stage, sweep.condition, sweep.arm)
        self._time(sweep, cells)
        for known in list(self.left):  # at another rate: that of final runs was not known before
            if (known.stage, known.condition, known.arm) == part:
                del self.left[known]
        now = self.seconds[sweep.condition, sweep.arm] * len(cells)
        rest = now + self._of(self.left)
        return (
            f"{', '.join(part)}: {len(cells)} runs, about {duration(now)} of "
            f"{duration(rest)} that are left"
        )

    def _of(self, left: dict[Sweep, int]) -> float:
        return sum(
            count * self.seconds[sweep.condition, sweep.arm]
            for sweep, count in left.items()
            if count
        )


def seconds(settings: Settings) -> float:
    """Of one run with these settings, its evaluations included."""
    from bench.records import record  # imports torch
    from bench.training import run

    train = settings.train
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        short = replace(
            settings,
            experiment=None,
            rerun=False,
            results_dir=folder,
            tracker={"name": "none"},
            train=replace(
                train,
                steps=STEPS,
                eval_every=STEPS,
                checkpoint_every=None,
                reference_steps=0,
                save_momentum_every=None,
            ),
        )
        name = cell.name(short)
        null = stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(contextlib.redirect_stdout(null))
        stack.enter_context(contextlib.redirect_stderr(null))
        outcome = run.run(short, name, lambda line: None)
        world = parallel.start(settings)
        one = world.agreed(lambda: record.read(run.run_folder(short, name)))
    if outcome["how"] == "failed":
        raise UserError(f"{settings.condition}, {settings.arm}: {outcome['error']}")
    assert one is not None  # a run that has not failed has a record
    if one["status"] == "diverged":
        return 0.0
    forward_backward = one["forward_backward_ms"]["median"] / 1e3
    step = forward_backward + one["optimizer_ms"]["median"] / 1e3
    batches = one["evaluated"]["validation"] / train.batch_size / train.accumulate
    evaluations = (train.steps or 0) // train.eval_every + 1
    limits = [train.steps and train.steps * step, train.time_limit]
    training = min(limit for limit in limits if limit)
    return training + evaluations * batches * FORWARD * forward_backward
