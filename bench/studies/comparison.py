"""One experiment under one condition, as its records show it: tuned rates, then paired seeds."""

import math
import statistics
from dataclasses import dataclass
from typing import Any

from bench.records import archive
from bench.records.archive import Archive, Run, Setup
from bench.studies import stats, study
from bench.studies.curves import by_seed, steps_to
from bench.studies.stats import Equivalence, Estimate
from bench.studies.study import FINAL, TUNE, Best, Study

LEVEL = 0.05  # of the tests, over all arms of a condition together


@dataclass(frozen=True)
class Difference:
    """An arm minus the baseline, paired by seed, in the test loss.

    p: of `test`, corrected by Holm over the arms; equivalence: None without a margin; seeds: with
    which a difference of this size would be found four times in five.
    """

    estimate: Estimate
    test: str
    p: float
    equivalence: Equivalence | None
    seeds: int | None

    @property
    def small(self) -> bool:
        """Whether it is shown to lie within the margin."""
        return self.equivalence is not None and self.equivalence.equal

    def verdict(self) -> str:
        """In words, for tables."""
        within = f"within ±{self.equivalence.margin:g}" if self.equivalence else ""
        if self.p < LEVEL:
            side = "lower" if self.estimate.mean < 0 else "higher"
            return f"{side}, but {within}" if self.small else side
        if self.small:
            return f"equal {within}"
        needed = f"; {self.seeds:,} seeds would show one of this size" if self.seeds else ""
        return f"no difference shown{needed}"


@dataclass(frozen=True)
class Arm:
    """What the final runs of an arm reached and cost.

    tuned: of the arm itself or of the one whose rate it takes, None without tuning;
    steps_to_target: by seed, None where the target was not reached; relative_time: of a step, in
    AdamW's; noise: the arm is another one again, with perturbed initial weights.
    """

    name: str
    runs: list[Run]
    diverged: int
    rate: float
    tuned: Best | None
    test_loss: Estimate
    test_accuracy: Estimate | None
    difference: Difference | None
    steps_to_target: list[int | None]
    relative_time: float | None
    noise: bool

    @property
    def at_edge(self) -> bool:
        """Whether the best rate is the first or last of the grid: a better one may lie beyond."""
        return self.tuned is not None and self.tuned.at_edge

    def median(self, *keys: str) -> float | None:
        """Of a value of the records, nested keys one after the other."""
        found = [value for run in self.runs if (value := _at(run.record, keys)) is not None]
        return statistics.median(found) if found else None


@dataclass(frozen=True)
class Comparison:
    """All arms of an experiment under one condition.

    target: the validation loss that the baseline reached in tuning (the median over seeds);
    noise_floor: of a test loss, between runs that should be alike; None without an A/A arm;
    runs: all that were read, the tuning too; they share one setup, as otherwise nothing could be
    compared; left_out: in words, the runs of other setups; missing: runs that the study declares
    and that have no record.
    """

    study: Study
    condition: str
    arms: list[Arm]
    target: float | None
    noise_floor: float | None
    runs: list[Run]
    left_out: list[str]
    missing: int

    def arm(self, name: str) -> Arm | None:
        return next((arm for arm in self.arms if arm.name == name), None)


def compare(
    records: Archive, declared: Study, condition: str, setup: Setup | None = None
) -> Comparison:
    """Arms without a final run are left out; their runs count as missing.

    setup: which runs are compared (default: that of most).
    """
    runs, left_out = archive.alike(records.of(declared.name, condition=condition), setup)
    finals = archive.by_arm(run for run in runs if run.stage == FINAL)
    tuned = tuning(runs, declared)
    base = tuned.get(declared.rates_of.get(declared.baseline, declared.baseline))
    target = base.losses[base.rate] if base else None
    names = [name for name in declared.arms if name in finals]
    noisy = declared.again()
    losses = {name: by_seed(finals[name], "test_loss") for name in names}
    differences = _differences(losses, declared, [n for n in names if n not in noisy])
    times = archive.relative_times(run for run in runs if run.stage == FINAL)
    arms = [
        _arm(
            name,
            finals[name],
            tuned=tuned.get(declared.rates_of.get(name, name)),
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
        arms,
        target,
        stats.noise_floor(again) if again else None,
        runs,
        left_out,
        _missing(runs, declared),
    )


def tuning(runs: list[Run], declared: Study) -> dict[str | None, Best]:
    """The rates of the arms whose tuning is whole."""
    found = {}
    for name, own in archive.by_arm(run for run in runs if run.stage == TUNE).items():
        losses: dict[float, list[float | None]] = {}
        for run in own:
            losses.setdefault(run.record["lr_scale"], []).append(study.loss(run.record))
        trials = {rate: len(of) for rate, of in losses.items()}
        if trials == dict.fromkeys(declared.grid, len(declared.tune_seeds)):
            found[name] = study.best(losses)
    return found


def _missing(runs: list[Run], declared: Study) -> int:
    tunes = len(declared.tuned()) * len(declared.grid) * len(declared.tune_seeds)
    wanted = tunes + len(declared.arms) * len(declared.final_seeds)
    return wanted - len(runs)


def _differences(
    losses: dict[str, dict[int, float]], declared: Study, names: list[str]
) -> dict[str, Difference]:
    """Of all arms but the baseline, corrected together."""
    base = losses.get(declared.baseline)
    others = [name for name in names if name != declared.baseline]
    if not base:
        return {}
    paired = {name: stats.paired(losses[name], base) for name in others}
    paired = {name: values for name, values in paired.items() if len(values)}
    tests = {name: stats.p_value(values) for name, values in paired.items()}
    adjusted = stats.holm([p for p, _ in tests.values()])
    return {
        name: Difference(
            stats.mean_interval(values),
            tests[name][1],
            p,
            stats.equivalence(values, declared.margin) if declared.margin else None,
            stats.seeds_needed(values),
        )
        for (name, values), p in zip(paired.items(), adjusted, strict=True)
    }


def _arm(
    name: str,
    runs: list[Run],
    *,
    tuned: Best | None,
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
        runs[0].record["lr_scale"],
        tuned,
        stats.mean_interval(list(by_seed(runs, "test_loss").values())),
        stats.mean_interval(list(accuracies.values())) if accuracies else None,
        difference,
        [] if target is None else [steps_to(run.record, target) for run in finished],
        relative_time,
        noise,
    )


def step_seconds(comparison: Comparison) -> dict[str, float]:
    """Seconds of an arm's step: AdamW's in turn with it, so that all share one clock.

    The clock is the median step of the experiment's runs with AdamW's optimizer step in the place
    of their own; an arm's step is that times its relative time.
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
