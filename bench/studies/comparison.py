"""One experiment under one condition, from its records: tuned rates, then paired seeds."""

import math
import statistics
from dataclasses import dataclass
from typing import Any

from bench.records import archive
from bench.records.archive import Archive, Run, Setup
from bench.studies import axes, stats, study
from bench.studies import difference as of_arms
from bench.studies import lines as reference
from bench.studies.curves import by_seed, steps_to
from bench.studies.difference import Difference
from bench.studies.lines import Lines
from bench.studies.stats import Estimate
from bench.studies.study import FINAL, TUNE, Best, Study
from bench.studies.trials import Found, Trial


@dataclass(frozen=True)
class Arm:
    """The results and costs of an arm's final runs.

    rate: the median over runs, which share one rate unless each has its own search; tuned,
    searched: the result of a grid of rates or of search studies, for the arm or for the arm whose
    settings it takes; None without; steps_to_target: by seed, None if the target was not reached;
    relative_time: of a step, relative to AdamW's; noise: the arm repeats another one with perturbed
    initial weights or other seeds.
    """

    name: str
    runs: list[Run]
    diverged: int
    rate: float
    tuned: Best | None
    searched: Found | None
    test_loss: Estimate
    test_accuracy: Estimate | None
    difference: Difference | None
    steps_to_target: list[int | None]
    relative_time: float | None
    noise: bool

    @property
    def at_edge(self) -> bool:
        """Whether the best rates lie at an end of the tried range: a better one may lie beyond."""
        crowded = self.searched is not None and self.searched.crowded() is not None
        return crowded or (self.tuned is not None and self.tuned.at_edge)

    def median(self, *keys: str) -> float | None:
        """The median of a value of the records; keys lead to nested values."""
        found = [value for run in self.runs if (value := _at(run.record, keys)) is not None]
        return statistics.median(found) if found else None


@dataclass(frozen=True)
class Comparison:
    """All arms of an experiment under one condition.

    declared_as: the condition's name in the study; device: the kind of device of all these runs if
    there are runs on other kinds too, else None;
    target: the validation loss that the baseline reached in tuning (the median over seeds);
    noise_floor: difference in test loss between runs that should be alike; None without an A/A arm;
    runs: all runs read, including tuning; they share one setup, because otherwise they could not be
    compared; left_out: text on the runs with other setups; missing: declared runs of the study
    without a record; lines: the results of trivial models, None if unknown.
    """

    study: Study
    declared_as: str
    device: str | None
    arms: list[Arm]
    target: float | None
    noise_floor: float | None
    runs: list[Run]
    left_out: list[str]
    missing: int
    lines: Lines | None = None

    @property
    def early(self) -> bool | None:
        """Whether AdamW ends above the bigram (softmax regression) line; None if unknown."""
        return reference.early(self)

    @property
    def on_device(self) -> str:
        """The text "on cuda", needed if other kinds of device have runs too."""
        return f" on {self.device}" if self.device else ""

    @property
    def condition(self) -> str:
        """The condition in words for readers."""
        return self.declared_as + self.on_device

    def arm(self, name: str) -> Arm | None:
        return next((arm for arm in self.arms if arm.name == name), None)


def compare(
    records: Archive,
    declared: Study,
    condition: str,
    setup: Setup | None = None,
    device: str | None = None,
) -> Comparison:
    """Arms without a final run are left out; their runs count as missing.

    setup: the setup of the runs to compare (default: that of most runs); device: only runs on this
    kind of device are read, and it is named beside the condition.
    """
    there = records.of(declared.name, condition=condition)
    if device is not None:
        there = [run for run in there if str(archive.setup(run.record).device) == device]
    runs, left_out = archive.alike(there, setup)
    finals = archive.by_arm(run for run in runs if run.stage == FINAL)
    tuned, searched = tuning(runs, declared), searches(runs, declared)
    target = _target(declared, tuned, searched)
    names = [name for name in declared.arms if name in finals]
    noisy = declared.again()
    losses = {
        name: {
            seed - declared.offset(name): loss
            for seed, loss in by_seed(finals[name], "test_loss").items()
        }
        for name in names
    }
    differences = of_arms.between(losses, declared, [n for n in names if n not in noisy])
    times = archive.relative_times(run for run in runs if run.stage == FINAL)
    arms = [
        _arm(
            name,
            finals[name],
            tuned=tuned.get(declared.rates_of.get(name, name)),
            searched=searched.get(declared.rates_of.get(name, name)),
            difference=differences.get(name),
            target=target,
            relative_time=times.get(name),
            noise=name in noisy,
        )
        for name in names
    ]
    again = [
        d
        for name, source in noisy.items()
        if name in losses and source in losses
        for d in stats.paired(losses[name], losses[source])
    ]
    return Comparison(
        declared,
        condition,
        device,
        arms,
        target,
        stats.noise_floor(again) if again else None,
        runs,
        left_out,
        _missing(runs, declared, condition),
    )


def tuning(runs: list[Run], declared: Study) -> dict[str | None, Best]:
    """The best rates of the arms whose tuning is complete."""
    found = {}
    for name, own in archive.by_arm(run for run in runs if run.stage == TUNE).items():
        losses: dict[float, list[float | None]] = {}
        for run in own:
            losses.setdefault(run.record["lr_scale"], []).append(study.loss(run.record))
        trials = {rate: len(of) for rate, of in losses.items()}
        if trials == dict.fromkeys(declared.grid, len(declared.tune_seeds)):
            found[name] = study.best(losses)
    return found


def searches(runs: list[Run], declared: Study) -> dict[str | None, Found]:
    """The results of the arms' searches, if every study is complete."""
    if declared.search is None:
        return {}
    found = {}
    for name, own in archive.by_arm(run for run in runs if run.stage == TUNE).items():
        names = list(declared.search.centres.get(str(name), ("rate",)))
        studies: dict[int, list[Trial]] = {seed: [] for seed in declared.tune_seeds}
        for run in own:
            loss = study.loss(run.record)
            point = axes.read(names, run.record["config"])
            trial = Trial(point, math.inf if loss is None else loss)
            studies.setdefault(run.record["seed"], []).append(trial)
        if names and len({len(trials) for trials in studies.values()}) == 1:
            found[name] = Found(studies)
    return found


def _target(
    declared: Study, tuned: dict[str | None, Best], searched: dict[str | None, Found]
) -> float | None:
    """The baseline's loss in tuning: at its best rate, or the median over its search studies."""
    source = declared.rates_of.get(declared.baseline, declared.baseline)
    if source in searched:
        return statistics.median(t.loss for t in searched[source].winners().values())
    return tuned[source].losses[tuned[source].rate] if source in tuned else None


def _missing(runs: list[Run], declared: Study, condition: str) -> int:
    wanted = (count for (_, under, _), count in declared.counts().items() if under == condition)
    return sum(wanted) - len(runs)


def _arm(
    name: str,
    runs: list[Run],
    *,
    tuned: Best | None,
    searched: Found | None,
    difference: Difference | None,
    target: float | None,
    relative_time: float | None,
    noise: bool,
) -> Arm:
    accuracies = by_seed(runs, "test_accuracy")
    finished = [run for run in runs if run.record["status"] == "finished"]
    return Arm(
        name,
        runs,
        len(runs) - len(finished),
        statistics.median(run.record["lr_scale"] for run in runs),
        tuned,
        searched,
        stats.mean_interval(list(by_seed(runs, "test_loss").values())),
        stats.mean_interval(list(accuracies.values())) if accuracies else None,
        difference,
        [] if target is None else [steps_to(run.record, target) for run in finished],
        relative_time,
        noise,
    )


def step_seconds(comparison: Comparison) -> dict[str, float]:
    """Seconds per step of each arm, relative to AdamW timed in turn, so that all share one clock.

    The clock is the median step of the experiment's runs, with AdamW's optimizer step instead of
    their own; an arm's step is this time multiplied by its relative time.
    """
    clocks = [
        (run.record["forward_backward_ms"]["median"] + run.record["optimizer_ms"]["median"])
        / arm.relative_time
        for arm in comparison.arms
        if arm.relative_time
        for run in arm.runs
        if run.record.get("forward_backward_ms") and run.record.get("optimizer_ms")
    ]
    if not clocks:
        return {}
    second = statistics.median(clocks) / 1e3
    return {arm.name: second * arm.relative_time for arm in comparison.arms if arm.relative_time}


def _at(value: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        if value is None:
            return None
        value = value.get(key)
    return value if value is None or math.isfinite(value) else None
