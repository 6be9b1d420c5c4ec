"""The share of AdamW's steps that other optimizers needed, from the existing records.

For each seed: the first step at which an arm's validation loss is no higher than AdamW's final one,
interpolated between the evaluations around it, divided by AdamW's steps. All other settings of the
two runs are equal. The arm's rate has not decayed by then; a run planned to end there would need
fewer steps, so the share is an upper bound.
"""

import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.records import archive
from bench.records.archive import Run
from bench.studies import curves, lines, stats, study
from bench.studies.comparison import Arm, Comparison
from bench.studies.results import Results
from bench.studies.stats import Estimate

BASELINE, OURS = "adamw", ("hybrid", "muon")
SEEDS = 3  # pairs; with fewer nothing is judged
TRIED = 3  # rates of each; with fewer a user's own run counts as not tuned
# Training settings that do not affect a comparison of two runs that share all others.
ASIDE = ("eval_every", "checkpoint_every", "keep_checkpoint", "target_loss", "reference_steps")

Record = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What was or will be trained: units: per step, tokens or images; steps: None if not given;
    device: its kind; on: its name."""

    task: str
    model: str
    parameters: int
    units: int
    steps: int | None
    device: str
    on: str

    @property
    def each(self) -> float | None:
        """Units per parameter, over all steps."""
        return None if self.steps is None else self.units * self.steps / self.parameters


@dataclass(frozen=True)
class Evidence:
    """One arm under one condition; shares: by seed, None if AdamW's loss was not reached.

    doubts: the reasons, in words, why it is not used for a judgement; empty if it is.
    """

    source: str
    arm: str
    setting: Setting
    shares: dict[int, float | None]
    doubts: list[str]

    @property
    def never(self) -> int:
        return sum(share is None for share in self.shares.values())

    @property
    def share(self) -> Estimate | None:
        """The geometric mean with its interval; None if a seed did not reach the loss."""
        reached = [share for share in self.shares.values() if share is not None]
        if self.never or not reached:
            return None
        one = stats.mean_interval([math.log(share) for share in reached])
        most = math.inf if one.n < 2 else math.exp(one.high)
        return Estimate(math.exp(one.mean), math.exp(one.low), most, one.n)


def gather(results: Results) -> list[Evidence]:
    """Evidence from all studies comparing ours with AdamW at equal steps, and from own runs."""
    return [*_studies(results), *_own(results)]


def share(ours: Record, adamw: Record) -> float | None:
    """The share of AdamW's steps until its final validation loss; None if it is not reached."""
    step = curves.step_at(ours, adamw["val_loss"])
    return None if step is None else step / adamw["steps"]


def paired(ours: list[Record], adamw: list[Record]) -> dict[int, float | None]:
    """The shares by common seed; runs that diverged never reached the loss."""
    base = {one["seed"]: one for one in adamw if one["status"] == "finished"}
    found: dict[int, float | None] = {}
    for one in sorted(ours, key=lambda one: one["seed"]):
        if one["seed"] in base:
            ended = one["status"] == "finished"
            found[one["seed"]] = share(one, base[one["seed"]]) if ended else None
    return found


def setting(one: Record) -> Setting:
    """The setting of a record."""
    images = "images_per_step" in one and one.get("tokens_per_step") is None
    units = one["images_per_step"] if images else one["tokens_per_step"]
    device = archive.setup(one).device or "cpu"
    on = one["environment"].get("gpu") or one["environment"].get("cpu") or "an unknown device"
    task = "images" if images else "text"
    return Setting(task, one["model"], one["parameters"], units, one["steps"], device, on)


# studies -----------------------------------------------------------------------------------------


def _studies(results: Results) -> Iterator[Evidence]:
    for name in study.declared():
        declared = study.load(name)
        compares = declared.arms.get(declared.baseline) == [f"optimizer={BASELINE}"]
        if compares and not declared.equal_time_of and not declared.continues:
            for one in results.comparisons(name, None):
                yield from _of_comparison(one)


def _of_comparison(one: Comparison) -> Iterator[Evidence]:
    base = one.arm(one.study.baseline)
    for arm in one.arms:
        optimizer = _plain(one, arm)
        if base is None or optimizer is None:
            continue
        shares = paired([r.record for r in arm.runs], [r.record for r in base.runs])
        if shares:
            source = f"{one.study.name}/{one.condition}"
            doubts = _doubts(one, base, arm) + _few(shares)
            yield Evidence(source, optimizer, setting(base.runs[0].record), shares, doubts)


def _plain(one: Comparison, arm: Arm) -> str | None:
    """Our optimizer, if it is the arm's only difference."""
    words = one.study.arms[arm.name]
    named = words[0].removeprefix("optimizer=") if len(words) == 1 else ""
    return named if named in OURS and not arm.noise else None


def _doubts(one: Comparison, base: Arm, arm: Arm) -> list[str]:
    found = ["early training: AdamW ends above the reference line"] if one.early else []
    found += ["no reference line says whether training was early"] if one.early is None else []
    for this in (base, arm):
        if this.tuned is None and this.searched is None:
            found.append(f"the rate of {this.name} was not tuned")
        elif this.at_edge:
            found.append(f"the best rate of {this.name} lies at the edge of what was tried")
    return found


def _few(shares: dict[int, float | None]) -> list[str]:
    return [f"fewer than {SEEDS} seeds"] if len(shares) < SEEDS else []


# the user's own runs -----------------------------------------------------------------------------


def _own(results: Results) -> Iterator[Evidence]:
    groups: dict[str, dict[str, list[Run]]] = {}
    for run in results.archive.runs:
        if run.experiment is None and "optimizer" in run.record["config"]:
            every = groups.setdefault(_alike(run.record), {})
            every.setdefault(run.record["optimizer"], []).append(run)
    for every in groups.values():
        variants = {name: _variants(runs) for name, runs in every.items()}
        if BASELINE not in variants:
            continue
        base, tried = _best(variants[BASELINE]), len(variants[BASELINE])
        known = lines.of_run(base[0], results.lines)
        for name in OURS:
            if name not in variants:
                continue
            best = _best(variants[name])
            shares = paired(best, base)
            doubts = _few(shares) + _early(base, known)
            if tried < TRIED or len(variants[name]) != tried:
                counts = f"{tried} of adamw, {len(variants[name])} of {name}"
                doubts.append(f"not tuned alike: settings tried: {counts}")
            else:
                for of in (BASELINE, name):
                    doubts += _edge(of, variants[of])
            if shares:
                source = f"your runs, {base[0]['model']} on {base[0].get('data')}"
                yield Evidence(source, name, setting(base[0]), shares, doubts)


def _alike(one: Record) -> str:
    """What comparable runs share: all settings but the optimizer's and the seed."""
    config = one["config"]
    train = {k: v for k, v in (config.get("train") or {}).items() if k not in ASIDE}
    keys = (
        *("data", "model", "schedule", "structure", "perturb", "parallel"),
        *("init_from", "lora_rank"),
    )
    return json.dumps([archive.setup(one), train, [config.get(key) for key in keys]], default=str)


def _variants(runs: list[Run]) -> list[list[Record]]:
    """The runs of each setting of an optimizer, over seeds."""
    found: dict[str, list[Record]] = {}
    for run in runs:
        found.setdefault(json.dumps(run.record["config"]["optimizer"]), []).append(run.record)
    return list(found.values())


def _mean(runs: list[Record]) -> float:
    losses = [study.loss(one) for one in runs]
    return statistics.fmean(math.inf if loss is None else loss for loss in losses)


def _best(variants: list[list[Record]]) -> list[Record]:
    """Among the settings with most seeds, the one with the lowest validation loss."""
    most = max(map(len, variants))
    return min((runs for runs in variants if len(runs) == most), key=_mean)


def _edge(name: str, variants: list[list[Record]]) -> list[str]:
    rates = [runs[0]["lr_scale"] for runs in variants]
    at = _best(variants)[0]["lr_scale"] in (min(rates), max(rates))
    return [f"the best rate of {name} lies at the edge of what was tried"] if at else []


def _early(base: list[Record], known: lines.Lines | None) -> list[str]:
    if known is None or known.limit is None:
        return []
    ends = [one["test_loss"] for one in base if one["status"] == "finished"]
    above = bool(ends) and statistics.fmean(ends) > known.limit["loss"]
    return ["early training: AdamW ends above the reference line"] if above else []
