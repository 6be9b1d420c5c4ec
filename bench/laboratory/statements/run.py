"""bench/ortho.py checks=true: tests statements on Muon and its coefficients."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from bench.display import terminal
from bench.display.numbers import number
from bench.laboratory import matrices, momentum_spectra, search, spectra
from bench.laboratory.momentum_spectra import Spectrum
from bench.laboratory.settings import Settings, Source
from bench.laboratory.statements import (
    basis,
    coefficients,
    compiling,
    convergence,
    cost,
    embeddings,
    momenta,
    msign,
    official,
    output,
    shards,
)
from bench.laboratory.statements.check import STEPS, Check
from bench.laboratory.statements.coefficients import SAMPLES, SIDE, STARTS
from bench.records import origin, record
from bench.settings.schema import CONF

SHAPES = [(n, ratio * n) for n in (64, 256, 1024, 4096) for ratio in (1, 2, 4, 8)]
MATRIX_SHAPES = [(64, 64), (256, 256), (256, 1024), (1024, 1024)]
TRIPLES = 300  # number of random triples
SHIPPED = CONF.parent / "results" / "ortho" / "momenta"


def run(settings: Settings, say: Callable[[str], None]) -> list[Check]:
    """All checks, shown as a table and written to results_dir/ortho/checks.json; with source
    momentum those on spectra of momenta, written to checks-momentum.json."""
    kinds = {source.kind for source in settings.sources}
    real = momentum_spectra.load(settings.results_dir) if "momentum" in kinds else []
    parts: dict[str, Iterator[Check]] = {}
    if kinds != {"momentum"}:
        parts["checks.json"] = checks(settings.samples or SAMPLES, settings.seed)
    if real:
        parts["checks-momentum.json"] = of_momenta(real, settings)
    folder = Path(settings.results_dir) / "ortho"
    folder.mkdir(parents=True, exist_ok=True)
    every = []
    for name, part in parts.items():
        say(f"{name}: each statement is measured, which takes some seconds to a minute")
        found = []
        for check in part:
            say(f"{check.name}: {check.verdict}")
            found.append(check)
        terminal.show(table(found))
        whole = {
            "checks": [asdict(check) for check in found],
            "seed": settings.seed,
            **origin.made(),
        }
        record.write_json(folder / name, whole)
        say(f"{name} in {folder}")
        every += found
    return every


def of_momenta(real: list[Spectrum], settings: Settings) -> Iterator[Check]:
    """On spectra of momenta, then on matrices: those of `momentum`, else the shipped ones."""
    yield from momenta.checks(real, TRIPLES, settings.seed)
    yield from momenta.of_matrices(momenta.sampled(settings.momentum or str(SHIPPED)))


def checks(samples: int, seed: int) -> Iterator[Check]:
    """samples: number of spectra for the figures in Notes B; the other checks take fewer."""
    yield coefficients.products_a_step()
    yield coefficients.products_in_five_steps()
    rows, unseen = (spectra.gaussian(SIDE, SIDE, samples, s) for s in (seed, seed + 1))
    yield coefficients.official_mse(rows)
    fit = search.single(rows, STEPS, STARTS, seed=0)
    yield coefficients.fitted_mse(fit, unseen)
    yield coefficients.taylor_mse(rows)
    yield convergence.taylor_converges(rows)
    steep = spectra.prescribed("condition", SIDE, 1e6, 1, seed)
    for tolerance in (1e-2, 1e-6):
        yield convergence.taylor_steps(rows, tolerance, "Gaussian")
        yield convergence.taylor_steps(steep, tolerance, "condition 1e6")
    yield convergence.slope_of_named_sets()
    yield convergence.slope_of_random_triples(TRIPLES, seed)
    yield from convergence.slope_and_error(rows, TRIPLES, seed)
    gaussian = Source("gaussian")
    by_shape = {shape: matrices.random(gaussian, shape, None, seed).spectra for shape in SHAPES}
    yield coefficients.uniform(by_shape)
    yield coefficients.stable_over_shapes(by_shape)
    yield from official.checks(rows, unseen, by_shape, fit)
    yield from output.checks(by_shape, seed)
    for source in (gaussian, Source("condition", 1e6)):
        posed = [matrices.random(source, shape, None, seed) for shape in MATRIX_SHAPES]
        yield coefficients.precision([problem.matrices() for problem in posed], str(source))
    yield from msign.checks(seed)
    yield from basis.checks(seed)
    yield from cost.checks(seed)
    yield from embeddings.checks(seed)
    yield from shards.checks(seed)
    yield from compiling.checks(seed)
    yield coefficients.exactness()


def table(found: list[Check]) -> Table:
    shown = Table(title="what is said of Muon and its coefficients", title_justify="left")
    for heading in ("statement", "measured", "range", "n", "verdict", "condition"):
        shown.add_column(heading)
    for check in found:
        shown.add_row(
            check.statement,
            f"{number(check.value, '.5g')} {check.unit}",
            "–" if check.low is None else f"{check.low:.5g} to {check.high:.5g}",
            str(check.n or "–"),
            check.verdict,
            check.condition,
        )
    return shown
