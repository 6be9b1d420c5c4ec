"""From the sweeps of a study to their cells: the settings of each run."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from bench.records import archive, cell, initial, layouts, shape
from bench.settings import config, mistakes
from bench.settings.errors import UserError
from bench.settings.schema import CONF, Settings
from bench.studies import axes, step_cost
from bench.studies.axes import Values
from bench.studies.plan import Sweep
from bench.studies.request import PARTS, Request
from bench.studies.study import Study


@dataclass(frozen=True)
class Planned:
    """A sweep with the user's overrides, and the settings of each of its cells by name.

    values: in a search, the settings of the sweep's point.
    """

    sweep: Sweep
    cells: dict[str, Settings]
    values: Values = ()

    @property
    def setup(self) -> archive.Setup:
        return archive.planned(next(iter(self.cells.values())))


class Planner:
    """Composes the settings of a study's runs, with the user's overrides.

    results: the folder with the step benchmarks that experiments of equal time need.
    """

    def __init__(self, request: Request, study: Study, results: Path) -> None:
        self.request, self.study, self.results = request, study, results
        self.plan = functools.cache(self._plan)
        self.settings = functools.cache(self._settings)

    def _plan(self, sweep: Sweep) -> Planned:
        sweep = replace(sweep, overrides=(*sweep.overrides, *self.request.overrides))
        settings = self.settings(sweep.key, sweep.overrides)
        if self.study.equal_time_of:
            if settings.train.steps is None:
                raise UserError("train.steps=null: an experiment of equal time shares out steps")
            steps = round(settings.train.steps / self.relative_time(sweep, settings))
            sweep = replace(sweep, overrides=(*sweep.overrides, f"train.steps={steps}"))
            settings = self.settings(sweep.key, sweep.overrides)
        if sweep.point:
            values = axes.values(dict(sweep.point), settings)
            one = replace(axes.with_values(settings, values), seed=sweep.seeds[0])
            one = initial.settled(one)
            return Planned(sweep, {cell.name(one): one}, values)
        cells = {}
        for rate in sweep.rates:
            for seed in sweep.seeds:
                optimizer = settings.optimizer | {"lr_scale": rate}
                one = initial.settled(replace(settings, seed=seed, optimizer=optimizer))
                cells[cell.name(one)] = one
        return Planned(sweep, cells)

    def sample(self, stage: str, condition: str, arm: str) -> Settings:
        """Settings of a run to time: the rate and the varied settings do not change its cost."""
        words = (*self.study.conditions[condition], *self.study.arms[arm])
        return next(
            iter(self.plan(Sweep(stage, condition, arm, words, (1.0,), (0,))).cells.values())
        )

    def _settings(self, key: tuple[str, str, str], overrides: tuple[str, ...]) -> Settings:
        """The settings that all trials of an arm start from; composed once, as it is slow."""
        part = [f"{name}={value}" for name, value in zip(PARTS, key, strict=True)]
        words = [f"experiment={self.request.experiment}", *part, *overrides]
        return config.settle(composed(words))

    def relative_time(self, sweep: Sweep, settings: Settings) -> float:
        """The time of an arm's step relative to the baseline's, as measured by a step benchmark."""
        name = self.study.equal_time_of[sweep.condition]
        labels = [step_cost.label(self.study, arm) for arm in self.study.arms]
        listed = ",".join(f'"{one}"' if " " in one else one for one in labels)
        command = f"bench/step.py name={name} model={settings.model['name']}"
        command += f" 'optimizers=[{listed}]'"
        found = shape.read(self.results / "steps" / f"{name}.json", layouts.step)
        if isinstance(found, str):
            raise UserError(f"experiment={self.study.name}: needs {command} first: {found}")
        units = found["units_per_example"] * settings.train.batch_size
        times = []
        for arm in (sweep.arm, self.study.baseline):
            cost = step_cost.relative(found, self.study, arm, units)
            if cost is None:
                label = step_cost.label(self.study, arm)
                raise UserError(
                    f'experiment={self.study.name}: needs {command} with a time of "{label}" at '
                    f"{units} {found['unit']} a step first"
                )
            times.append(cost)
        if unlike := step_cost.other(found, self.study, sweep.arm, settings):
            raise UserError(f"experiment={self.study.name}: needs {command} with {unlike}")
        return times[0] / times[1]


def composed(overrides: list[str]) -> DictConfig:
    """The settings of conf/train.yaml with these overrides; UserError names a mistake in them."""
    GlobalHydra.instance().clear()
    with mistakes.in_words(), initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=overrides)
