"""A study in progress: which of its runs can be trained now, and how far it is."""

import functools
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from bench.records import archive, owner, record
from bench.settings import config
from bench.settings.errors import UserError
from bench.settings.schema import Settings
from bench.studies import plan, planner, study
from bench.studies.forecast import Forecast
from bench.studies.plan import Sweep
from bench.studies.planner import Planned
from bench.studies.request import PARTS, Request
from bench.studies.study import FINAL, Best
from bench.training import telling
from bench.training.launching import Part

Key = tuple[str, str]  # condition, arm


class Campaign:
    """A study in progress: the user's request, and the results of its runs."""

    def __init__(self, request: Request) -> None:
        self.request = request
        whole = planner.composed([f"experiment={request.experiment}", *request.overrides])
        declared = cast(dict[str, Any], OmegaConf.to_container(whole.study, resolve=True))
        self.study = study.parse(request.experiment, declared)
        self.settings = config.settle(whole)
        self.runs = Path(self.settings.results_dir) / "runs"
        own = planner.Planner(request, self.study, self.runs.parent)
        self.plan, self.sample = own.plan, own.sample
        self.other = functools.cache(self._other)
        self.refuse_what_arms_set()
        known = (study.STAGES, self.study.conditions, self.study.arms)
        for part, accepted in zip(PARTS, known, strict=True):
            value = getattr(request, part)
            if value is not None and value not in accepted:
                raise UserError(f"{part}={value}: must be one of {', '.join(accepted)}")

    def refuse_what_arms_set(self) -> None:
        """Raise UserError for an override of a key that arms set: it would make all arms alike."""
        own = {word.split("=", 1)[0] for words in self.study.arms.values() for word in words}
        for word in self.request.overrides:
            if word.split("=", 1)[0] in own:
                arms = ", ".join(self.study.arms)
                raise UserError(
                    f"{word}: the arms of this study set it; choose one by arm= ({arms})"
                )

    # planning ---------------------------------------------------------------------------------

    def ready(self) -> list[Planned]:
        """The requested sweeps that can be trained now; some depend on the results of others."""
        if self.study.search is not None:
            known = self.borrowed()
            sweeps = [s for s in plan.searching(self.study, self.loss, known) if self.wants(*s.key)]
        else:
            sweeps = [s for s in plan.tuning(self.study) if self.wants(*s.key)]
            sweeps += self.finals(self.best(asked=False))
        return [self.plan(sweep) for sweep in sweeps]

    def wants(self, stage: str, condition: str, arm: str) -> bool:
        """Whether runs were requested: an arm's own, or those that it takes its settings from."""
        r, study = self.request, self.study
        if r.rate is not None and stage != FINAL:
            return False
        source = r.arm if stage == FINAL else r.arm and study.rates_of.get(r.arm, r.arm)
        return (
            r.stage in (None, stage) and r.condition in (None, condition) and source in (None, arm)
        )

    def borrowed(self) -> plan.Rankings:
        """The trials of the experiments that this one borrows from; the ended ones are ranked."""
        assert self.study.search is not None
        found: plan.Rankings = {}
        sources = {one.source for one in self.study.search.carry.values()}
        for name in sorted({source.split("/")[0] for source in sources if "/" in source}):
            other = self.other(name)
            own: plan.Rankings = {}
            if other.study.search is None:
                raise UserError(f"study.search.carry: experiment={name} searches nothing")
            for _ in plan.searching(other.study, other.loss, own):
                pass  # it adds rankings on the way
            found |= {(f"{name}/{c}", arm, at): points for (c, arm, at), points in own.items()}
        return found

    def _other(self, name: str) -> "Campaign":
        """An experiment that this one borrows from, with the same overrides; composed once."""
        return Campaign(Request(name, None, None, None, None, self.request.overrides))

    def loss(self, sweep: Sweep) -> float | None:
        """The loss that a run of a search is judged by; None if it has not ended."""
        (name,) = self.plan(sweep).cells
        one = self.ended(name)
        if one is None:
            return None
        found = study.loss(one)
        return math.inf if found is None else found

    def to_come(self, ready: list[Planned]) -> dict[tuple[str, str, str], int]:
        """How many of the requested runs have not ended, by stage, condition and arm."""
        there: Counter[tuple[str, str, str]] = Counter()
        for one in ready:
            there[one.sweep.key] += len(one.cells) - len(self.left(one))
        counts = {key: n for key, n in self.study.counts().items() if self.wants(*key)}
        return {key: count - there[key] for key, count in counts.items()}

    def finals(self, best: dict[Key, Best]) -> list[Sweep]:
        """The requested sweeps over seeds, for the arms whose best rate is known, at that rate."""
        rate, rates_of = self.request.rate, self.study.rates_of
        rates = {key: found.rate for key, found in best.items()}
        return [
            sweep if rate is None else replace(sweep, rates=(rate,))
            for sweep in plan.final(self.study, rates)
            if self.wants(*sweep.key)
            and (
                rate is not None
                or (source := rates_of.get(sweep.arm, sweep.arm)) not in self.study.tuned()
                or (sweep.condition, source) in best
            )
        ]

    def baselines(self) -> Iterator[tuple[str, Settings]]:
        """Each requested condition, with its baseline's run for the first final seed."""
        for condition in self.study.conditions:
            if self.request.condition in (None, condition):
                one = self.sample(FINAL, condition, self.study.baseline)
                yield condition, replace(one, seed=self.study.final_seeds[0])

    def waits(self) -> str:
        """The experiments whose trials this one borrows, in words; "" if it borrows none."""
        search = self.study.search
        if search is None or not search.takes:
            return ""
        names = {carried.source.split("/")[0] for carried in search.carry.values()}
        return f"; they borrow the trials of experiment={', '.join(sorted(names))}"

    def costs_missing(self) -> list[str]:
        """The step benchmarks that the study ranks by and that are not there."""
        steps = self.runs.parent / "steps"
        return [n for n in self.study.cost_of.values() if not (steps / f"{n}.json").exists()]

    # training ---------------------------------------------------------------------------------

    def ended(self, name: str) -> dict[str, Any] | None:
        """The record of an ended cell, made here or published with the study."""
        found = archive.ended(self.runs / name)
        if not isinstance(found, dict):
            file = self.runs.parent / "records" / self.study.name / f"{name}.json"
            found = archive.load(file) if file.exists() else ""
        return found if isinstance(found, dict) else None

    def left(self, planned: Planned) -> list[Settings]:
        """The cells still to be trained."""
        again = self.settings.rerun
        final = planned.sweep.stage == FINAL
        found = []
        for name, settings in planned.cells.items():
            done = self.ended(name) or ""
            lacks = final and archive.lacks_weights(settings, self.runs / name, done)
            if again or lacks or not done:
                found.append(settings)
        return found

    def running(self, planned: Planned) -> int:
        """How many of the cells other processes train now."""
        return sum(owner.holder(self.runs / name) is not None for name in planned.cells)

    def begin(self, clock: Forecast) -> None:
        """Start counting the runs."""
        asked = [count for key, count in self.study.counts().items() if self.wants(*key)]
        self.total = sum(asked)
        self.done = self.total - sum(clock.left.values())

    def train(self, planned: Planned, job: Callable, clock: Forecast) -> None:
        """Train a sweep's remaining cells; note that the others belong to this study, too."""
        left = self.left(planned)
        for name, settings in planned.cells.items():
            if settings not in left and (self.runs / name).exists():
                record.join(self.runs / name, settings)
        if planned.sweep.point and self.running(planned):
            return  # no line for each: a search has many sweeps of one run
        if left:
            trained = [settings in left for settings in planned.cells.values()]
            before, key = self.done - trained.count(False), planned.sweep.key
            widths = (max(map(len, names)) for names in zip(*self.study.counts(), strict=True))
            called = " ".join(map(str.ljust, key, widths))
            clocked = clock.after(key, trained)
            self.done += len(left)
            sys.argv[1:] = planned.sweep.arguments(self.study.name, planned.values)
            GlobalHydra.instance().clear()
            with telling.within(Part(before, self.total, called, clocked)):
                job()

    def best(self, asked: bool) -> dict[Key, Best]:
        """The best rate of each tuned arm that final runs take their rate from.

        All arms get the same trials. If a trial is missing there is no best rate, and requesting
        the final runs then raises UserError.
        """
        r = self.request
        found: dict[Key, Best] = {}
        if r.rate is not None or self.study.search is not None:
            return found
        wanted = [r.arm] if r.arm else list(self.study.arms)
        sources = {self.study.rates_of.get(arm, arm) for arm in wanted}
        for sweep in plan.tuning(self.study):
            if sweep.arm not in sources or r.condition not in (None, sweep.condition):
                continue
            losses: dict[float, list[float | None]] = {}
            cells = self.plan(sweep).cells
            missing = [name for name in cells if not self.ended(name)]
            running = [name for name in missing if owner.holder(self.runs / name)]
            if running and asked:
                raise UserError(
                    f"{sweep.condition}, {sweep.arm}: {len(running)} of {len(cells)} tuning runs "
                    f"are running elsewhere; run the same command again when they have ended"
                )
            if missing and asked:
                raise UserError(
                    f"{sweep.condition}, {sweep.arm}: {len(missing)} of {len(cells)} tuning runs "
                    f"have not ended; the same command with stage=tune trains them"
                )
            if not missing:
                for name, settings in cells.items():
                    rate = settings.optimizer["lr_scale"]
                    one = self.ended(name)
                    assert one is not None  # none is missing
                    losses.setdefault(rate, []).append(study.loss(one))
                found[sweep.condition, sweep.arm] = study.best(losses)
        return found
