"""`bench/train.py experiment=…`: tune every arm, then train all at their best rates.

A study is sweeps of the trainer, one for an arm under a condition, so that Hydra's launchers, the
skipping of finished cells and the going on from checkpoints serve it as they serve any sweep.
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from bench.display import terminal
from bench.records import archive, cell, owner, record
from bench.settings import config, mistakes
from bench.settings.errors import UserError
from bench.settings.schema import CONF, Settings
from bench.studies import comparison, study, tables
from bench.studies.forecast import Forecast
from bench.studies.request import PARTS, Request, read
from bench.studies.study import FINAL, TUNE, Best, Sweep
from bench.studies.words import answer

Key = tuple[str, str]  # condition, arm


@dataclass(frozen=True)
class Planned:
    """A sweep with the user's own overrides, and the settings of each of its cells by name."""

    sweep: Sweep
    cells: dict[str, Settings]

    @property
    def setup(self) -> archive.Setup:
        return archive.planned(next(iter(self.cells.values())))


def run(arguments: list[str], job: Callable[[], None], say: Callable[[str], None]) -> None:
    """The whole study, or the part that stage, condition and arm choose.

    job: trains what sys.argv asks for; it is called once a sweep.
    Raises UserError before anything is trained.
    """
    request = read(arguments)
    campaign = Campaign(request)
    tunings = [campaign.plan(s) for s in study.tuning(campaign.study) if campaign.tunes(s)]
    finals = [campaign.plan(s) for s in campaign.finals(campaign.best(asked=False))]
    say(f"experiment={request.experiment}: {campaign.study.question}")
    clock = Forecast({p.sweep: campaign.left(p) for p in (*tunings, *finals)}, say)
    say(clock.summary())
    if campaign.settings.inspect:
        return
    for planned in tunings:
        campaign.train(planned, job, clock, say)
    best = campaign.best(asked=request.stage != TUNE)
    if best:
        terminal.show(tables.tuning(best))
    finals = [campaign.plan(sweep) for sweep in campaign.finals(best)]
    for planned in finals:
        campaign.train(planned, job, clock, say)
    records = archive.read(campaign.runs.parent)
    setups = {p.sweep.condition: p.setup for p in (*tunings, *finals)}
    for condition in campaign.study.conditions:
        found = comparison.compare(records, campaign.study, condition, setups.get(condition))
        if found.arms:
            say(f"{condition}: {answer(found)}")
    running = sum(map(campaign.running, (*tunings, *finals)))
    ended = f"{running} runs are running elsewhere" if running else "all runs asked for have ended"
    say(f"experiment={request.experiment}: {ended}; next: bench/report.py")


class Campaign:
    """A study under way: what was asked of it, and what its runs have left."""

    def __init__(self, request: Request) -> None:
        self.request = request
        whole = _composed([f"experiment={request.experiment}", *request.overrides])
        declared = cast(dict[str, Any], OmegaConf.to_container(whole.study, resolve=True))
        self.study = study.parse(request.experiment, declared)
        self.settings = config.settle(whole)
        self.runs = Path(self.settings.results_dir) / "runs"
        self.plan = functools.cache(self._plan)
        self.refuse_what_arms_set()
        known = (study.STAGES, self.study.conditions, self.study.arms)
        for part, accepted in zip(PARTS, known, strict=True):
            value = getattr(request, part)
            if value is not None and value not in accepted:
                raise UserError(f"{part}={value}: must be one of {', '.join(accepted)}")

    def refuse_what_arms_set(self) -> None:
        """An override of the same key would make all arms alike."""
        own = {word.split("=", 1)[0] for words in self.study.arms.values() for word in words}
        for word in self.request.overrides:
            if word.split("=", 1)[0] in own:
                arms = ", ".join(self.study.arms)
                raise UserError(
                    f"{word}: the arms of this study set it; choose one by arm= ({arms})"
                )

    # what there is to do ----------------------------------------------------------------------

    def tunes(self, sweep: Sweep) -> bool:
        """Whether this sweep over rates was asked for."""
        r = self.request
        arm = r.arm and self.study.rates_of.get(r.arm, r.arm)
        wanted = r.stage in (None, TUNE) and r.rate is None
        return wanted and r.condition in (None, sweep.condition) and arm in (None, sweep.arm)

    def finals(self, best: dict[Key, Best]) -> list[Sweep]:
        """The sweeps over seeds that were asked for, at the best rates."""
        r = self.request
        rates = {key: found.rate for key, found in best.items()}
        return [
            sweep if r.rate is None else replace(sweep, rates=(r.rate,))
            for sweep in study.final(self.study, rates)
            if r.stage in (None, FINAL)
            and r.condition in (None, sweep.condition)
            and r.arm in (None, sweep.arm)
        ]

    def _plan(self, sweep: Sweep) -> Planned:
        sweep = replace(sweep, overrides=(*sweep.overrides, *self.request.overrides))
        settings = self._settle(sweep)
        if self.study.equal_time_of:
            if settings.train.steps is None:
                raise UserError("train.steps=null: an experiment of equal time shares out steps")
            steps = round(settings.train.steps / self.relative_time(sweep, settings))
            sweep = replace(sweep, overrides=(*sweep.overrides, f"train.steps={steps}"))
            settings = self._settle(sweep)
        cells = {}
        for rate in sweep.rates:
            for seed in sweep.seeds:
                optimizer = settings.optimizer | {"lr_scale": rate}
                one = replace(settings, seed=seed, optimizer=optimizer)
                cells[cell.name(one)] = one
        return Planned(sweep, cells)

    def _settle(self, sweep: Sweep) -> Settings:
        part = [f"{key}={getattr(sweep, key)}" for key in PARTS]
        return config.settle(
            _composed([f"experiment={self.request.experiment}", *part, *sweep.overrides])
        )

    @functools.cached_property
    def records(self) -> archive.Archive:
        """What there was when the study began."""
        return archive.read(self.runs.parent)

    def relative_time(self, sweep: Sweep, settings: Settings) -> float:
        """The time of an arm's step in steps of the baseline, as another experiment measured."""
        other, condition, arm = self.study.equal_time_of, sweep.condition, sweep.arm
        assert other is not None  # or nobody would ask
        timed = self.records.of(other, FINAL, condition)
        times = archive.relative_times(archive.alike(timed, archive.planned(settings))[0])
        for needed in (arm, self.study.baseline):
            if needed not in times:
                raise UserError(
                    f"experiment={self.study.name}: needs the overhead of {condition}, {needed}: "
                    f"run experiment={other} first"
                )
        return times[arm] / times[self.study.baseline]

    # doing it ---------------------------------------------------------------------------------

    def ended(self, name: str) -> dict[str, Any] | None:
        """The record of a cell that has ended."""
        found = archive.ended(self.runs / name)
        return found if isinstance(found, dict) else None

    def left(self, planned: Planned) -> list[Settings]:
        """The cells that are to be trained."""
        again = self.settings.rerun
        return [s for name, s in planned.cells.items() if again or not self.ended(name)]

    def running(self, planned: Planned) -> int:
        """How many of the cells another process trains now."""
        return sum(owner.holder(self.runs / name) is not None for name in planned.cells)

    def train(self, planned: Planned, job: Callable, clock: Forecast, say: Callable) -> None:
        """Train what is left of a sweep; of the rest note that it belongs to this study."""
        left = self.left(planned)
        for name, settings in planned.cells.items():
            if settings not in left:
                record.join(self.runs / name, settings)
        if left:
            say(clock.line(planned.sweep, left))
            sys.argv[1:] = planned.sweep.arguments(self.study.name)
            GlobalHydra.instance().clear()
            job()

    def best(self, asked: bool) -> dict[Key, Best]:
        """The best rate of each tuned arm that the final runs take theirs from.

        All arms get the same trials: where one is missing there is no best rate, which raises
        UserError if the final runs are asked for.
        """
        r = self.request
        found: dict[Key, Best] = {}
        if r.rate is not None:
            return found
        wanted = [r.arm] if r.arm else list(self.study.arms)
        sources = {self.study.rates_of.get(arm, arm) for arm in wanted}
        for sweep in study.tuning(self.study):
            if sweep.arm not in sources or r.condition not in (None, sweep.condition):
                continue
            losses: dict[float, list[float | None]] = {}
            cells = self.plan(sweep).cells
            missing = [name for name in cells if not self.ended(name)]
            running = [name for name in missing if owner.holder(self.runs / name)]
            if running and asked:
                raise UserError(
                    f"{sweep.condition}, {sweep.arm}: {len(running)} of {len(cells)} tuning runs "
                    f"are running elsewhere; the same command goes on when they have ended"
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


def _composed(overrides: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with mistakes.in_words(), initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=overrides)
