"""bench/ortho.py spectra=true: the singular values of runs' momenta, by kind of layer and step.

These are the buffers after each saved step (before Nesterov's mixture with the gradient), read as
Muon reads them and divided by their Frobenius norms, as Newton-Schulz gets them. Gaussian matrices
of the same shape are shown for comparison. A LayerNorm after a layer makes its gradient lose a
rank: the condition number of such momenta is rounding.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bench.display import terminal
from bench.display.progress import ticks
from bench.laboratory import momentum, momentum_chart, recursion, spectra, tables
from bench.laboratory.momentum import Member
from bench.laboratory.settings import Settings
from bench.records import files, origin, record
from bench.settings.errors import UserError
from bench.settings.schema import CONF
from optimizers.coefficients import SETS, per_step

NAME = "momentum_spectra"
LEVELS = (0, 0.01, 0.02, 0.05, *(i / 10 for i in range(1, 10)), 0.95, 0.98, 0.99, 1)  # of quantiles
NAMES = (*SETS, "polar_express")
STEPS = (3, 5)  # of the sets whose errors are shown with the spectra
SAMPLES = 32  # Gaussian spectra per shape
DIGITS = 4  # significant digits in the record

Array = NDArray[np.float64]


class Spectrum(NamedTuple):
    """A matrix's singular values, descending, with 2-norm 1; `layer` is its number or None."""

    run: str
    step: int
    kind: str
    layer: int | None
    shape: tuple[int, int]
    values: Array


def run(settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    """All matrices of all saved steps; the record goes to results_dir/ortho/ with a picture."""
    runs = named(folders(settings))
    saved = [(name, file) for name, run in runs.items() for file in momentum.steps(run)]
    found: list[Spectrum] = []
    begun = time.perf_counter()
    with ticks(len(saved)) as tick:
        for name, file in saved:
            tick(f"{name} step {file.stem}")
            members = momentum.members(file, settings.roles, settings.layers)
            found += [spectrum(name, int(file.stem), one) for one in members]
            if file == saved[0][1]:
                seconds = (time.perf_counter() - begun) * len(saved)
                say(f"momenta of {len(saved)} steps, about {seconds:.0f} s")
    shapes = sorted({one.shape for one in found})
    whole = {
        "runs": [described(name, run) for name, run in runs.items()],
        "levels": LEVELS,
        "groups": summaries(found),
        "all": [
            {
                "run": name,
                "step": step,
                **mean_errors([one.values for one in found if (one.run, one.step) == (name, step)]),
            }
            for name, step in dict.fromkeys((one.run, one.step) for one in found)
        ],
        "gaussian": [gaussian(shape, settings.seed) for shape in shapes],
        "spectra": [written(one) for one in representative(found)],
        "seed": settings.seed,
        **origin.made(),
    }
    folder = Path(settings.results_dir) / "ortho"
    folder.mkdir(parents=True, exist_ok=True)
    record.write_json(folder / f"{NAME}.json", whole, indent=None)
    terminal.show(tables.of_momenta(whole))
    if settings.pictures:
        momentum_chart.draw(folder / f"{NAME}.svg", whole)
    say(f"{NAME}.json{f' and {NAME}.svg' * settings.pictures} in {folder}")
    return whole


def folders(settings: Settings) -> list[Path]:
    """The run that `momentum` names; null: every run of results_dir with saved momenta."""
    if settings.momentum is not None:
        run = Path(settings.momentum).expanduser()
        run = run.parent if run.name == "momentum" else run
        there = [run] if momentum.steps(run) else []
    else:
        runs = sorted(Path(settings.results_dir).glob("runs/*/momentum"))
        there = [folder.parent for folder in runs if momentum.steps(folder)]
    if not there:
        where = settings.momentum or f"{settings.results_dir}/runs"
        raise UserError(
            f"spectra=true momentum={settings.momentum}: no run's momentum/STEP.safetensors in "
            f"{where}; train with train.save_momentum_every=N first"
        )
    return there


def named(runs: list[Path]) -> dict[str, Path]:
    """Runs by their model; by their folder if the model is unknown or used by several runs."""
    models = [(record.read(run) or {}).get("model") or run.name for run in runs]
    return {
        run.name if models.count(model) > 1 else model: run
        for model, run in zip(models, runs, strict=True)
    }


def described(name: str, run: Path) -> dict[str, Any]:
    known = record.read(run) or {}
    keys = ("model", "optimizer", "qkv", "seed", "steps", "lr_scale", "precision", "val_loss")
    train = known.get("config", {}).get("train", {})
    keys_of_train = ("batch_size", "sequence_length", "accumulate", "save_momentum_every")
    return {
        "name": name,
        "cell": run.name,
        **{key: known.get(key) for key in keys},
        **{key: train.get(key) for key in keys_of_train},
    }


def spectrum(name: str, step: int, one: Member) -> Spectrum:
    n, m = one.matrix.shape
    values = torch.linalg.svdvals(one.matrix.double()).numpy()
    return Spectrum(name, step, one.kind, one.layer, (n, m), values / np.linalg.norm(values))


# summaries -------------------------------------------------------------------------------------


def summaries(found: list[Spectrum]) -> list[dict[str, Any]]:
    """One summary per run, kind, shape and step."""
    groups: dict[tuple[str, str, tuple[int, int], int], list[Array]] = {}
    for one in found:
        groups.setdefault((one.run, one.kind, one.shape, one.step), []).append(one.values)
    return [
        {"run": run, "kind": kind, "step": step, "shape": list(shape), **summary(np.array(rows))}
        for (run, kind, shape, step), rows in groups.items()
    ]


def gaussian(shape: tuple[int, int], seed: int) -> dict[str, Any]:
    return {"shape": list(shape), **summary(spectra.gaussian(*shape, SAMPLES, seed))}


def summary(rows: Array) -> dict[str, Any]:
    """For spectra (rows, each descending, with norm 1): medians over the rows, and extremes.

    quantiles: of a matrix's values; effective_rank: the exponential of the entropy of s / sum(s)
    (Roy and Vetterli, EUSIPCO 2007); stable_rank: 1 / s_max^2; mse: mean (s - 1)^2 after each of
    STEPS steps of each set.
    """
    shares = rows / rows.sum(axis=1, keepdims=True)
    logs = np.log(np.where(shares > 0, shares, 1))
    return {
        "matrices": len(rows),
        "quantiles": short(np.median(np.quantile(rows, LEVELS, axis=1), axis=1)),
        "condition": spread(rows[:, 0] / np.maximum(rows[:, -1], np.finfo(float).tiny)),
        "effective_rank": spread(np.exp(-(shares * logs).sum(axis=1))),
        "stable_rank": spread(rows[:, 0] ** -2.0),
        **mean_errors(list(rows)),
    }


def mean_errors(rows: list[Array]) -> dict[str, Any]:
    """The mean (s - 1)^2 of every set over matrices of all given shapes, with equal weights."""
    whole = spectra.padded(rows)
    return {
        "mse": {
            str(steps): {
                name: short(recursion.mse(whole, per_step(name, steps)).mean) for name in NAMES
            }
            for steps in STEPS
        }
    }


def spread(values: Array) -> dict[str, Any]:
    return {
        "median": short(np.median(values)),
        "low": short(values.min()),
        "high": short(values.max()),
    }


def short(values: Any) -> Any:
    """Numbers with the digits that are written."""
    if np.ndim(values):
        return [short(value) for value in values]
    return float(f"{values:.{DIGITS}g}")


def representative(found: list[Spectrum]) -> list[Spectrum]:
    """For each run and kind, a matrix of the first, middle and last layer at three such steps."""
    kept: dict[tuple, Spectrum] = {}
    for run in {one.run: None for one in found}:
        mine = [one for one in found if one.run == run]
        steps = ends_and_middle({one.step for one in mine})
        for kind in {one.kind: None for one in mine}:
            layers = ends_and_middle({one.layer for one in mine if one.kind == kind})
            for one in mine:
                if one.kind == kind and one.step in steps and one.layer in layers:
                    kept.setdefault((run, kind, one.step, one.layer), one)
    return list(kept.values())


def ends_and_middle(numbers: set) -> set:
    ordered = sorted(numbers, key=lambda number: -1 if number is None else number)
    return {ordered[0], ordered[len(ordered) // 2], ordered[-1]}


def written(one: Spectrum) -> dict[str, Any]:
    return {**one._asdict(), "shape": list(one.shape), "values": short(one.values)}


def load(results_dir: str) -> list[Spectrum]:
    """The representative spectra of results_dir's record; else those of the shipped one.

    Raises UserError if neither can be read.
    """
    file = Path(results_dir) / "ortho" / f"{NAME}.json"
    file = file if file.exists() else CONF.parent / "results" / "ortho" / f"{NAME}.json"
    try:
        found = files.read_json(file)["spectra"]
        return [
            Spectrum(**{**one, "shape": tuple(one["shape"]), "values": np.array(one["values"])})
            for one in found
        ]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{file}: cannot be read ({error}); spectra=true writes it") from None
