"""How long a study will take, from a few steps of each of its arms."""

import contextlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace

from bench.data.batches import final_eval_sequences
from bench.display.numbers import duration
from bench.processes import parallel
from bench.records import cell
from bench.settings.errors import UserError
from bench.settings.schema import Settings

STEPS = 4  # the first two warm up
EVALUATED = ("eval_sequences", "final_eval_sequences")
FORWARD = 1 / 3  # of forward + backward: an evaluation's share, by FLOPs


Key = tuple[str, str, str]  # stage, condition, arm


class Forecast:
    """Predicted seconds of the runs that are left; each arm's are timed under each condition.

    left: how many, by stage, condition and arm; sample: settings of one of them.
    Raises UserError where an arm cannot even start, so that it is known before the hours are spent.
    """

    def __init__(
        self,
        left: dict[Key, int],
        sample: Callable[[str, str, str], Settings],
        say: Callable[[str], None],
    ) -> None:
        self.left = {key: count for key, count in left.items() if count}
        self.seconds: dict[tuple[str, str], float] = {}
        for stage, condition, arm in self.left:
            if (condition, arm) not in self.seconds:
                say(f"timing {STEPS} steps of {condition}, {arm}")
                self.seconds[condition, arm] = seconds(sample(stage, condition, arm))

    def summary(self) -> str:
        runs = sum(self.left.values())
        return f"{runs} runs are left, about {duration(self._of(self.left))} on this machine"

    def line(self, key: Key, runs: int) -> str:
        """What comes now and how much of the study is left, these runs included."""
        now = self._of({key: runs})
        said = (
            f"{', '.join(key)}: {runs} run{'s' * (runs > 1)}, about {duration(now)} of "
            f"{duration(max(now, self._of(self.left)))} that are left"
        )
        self.left[key] = max(0, self.left.get(key, 0) - runs)
        return said

    def _of(self, left: dict[Key, int]) -> float:
        return sum(
            count * self.seconds.get((condition, arm), 0.0)
            for (_, condition, arm), count in left.items()
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
            data=settings.data | dict.fromkeys(EVALUATED, train.batch_size),
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
    return lasts(
        settings,
        one["forward_backward_ms"]["median"] / 1e3,
        one["optimizer_ms"]["median"] / 1e3,
    )


def lasts(settings: Settings, forward_backward: float, optimizer: float) -> float:
    """Seconds of one run whose steps take so many, its evaluations included."""
    train = settings.train
    step = forward_backward + optimizer
    before_end = ((train.steps or 1) - 1) // train.eval_every
    data = settings.data
    examples = before_end * data["eval_sequences"] + 2 * final_eval_sequences(data)
    batches = examples / train.batch_size / train.accumulate
    limits = [train.steps and train.steps * step, train.time_limit]
    training = min(limit for limit in limits if limit)
    return training + batches * FORWARD * forward_backward
