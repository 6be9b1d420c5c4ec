"""bench/ortho.py checks=true: what is said of Muon and its coefficients, put to the test."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from bench.display import tables
from bench.laboratory import matrices, search, spectra
from bench.laboratory.settings import Settings, Source
from bench.laboratory.statements import basis as basis_checks
from bench.laboratory.statements import coefficients as statements
from bench.laboratory.statements import compiling as compile_checks
from bench.laboratory.statements import convergence
from bench.laboratory.statements import cost as cost_checks
from bench.laboratory.statements import embeddings as embedding_checks
from bench.laboratory.statements import msign as msign_checks
from bench.laboratory.statements import official as official_checks
from bench.laboratory.statements import output as output_checks
from bench.laboratory.statements import shards as shard_checks
from bench.laboratory.statements.coefficients import SAMPLES, SIDE, STARTS, STEPS, Check
from bench.records import record

SHAPES = [(n, ratio * n) for n in (64, 256, 1024, 4096) for ratio in (1, 2, 4, 8)]
MATRIX_SHAPES = [(64, 64), (256, 256), (256, 1024), (1024, 1024)]
TRIPLES = 300  # random ones


def run(settings: Settings, say: Callable[[str], None]) -> list[Check]:
    """All checks, shown as a table and written to results_dir/ortho/checks.json."""
    found = []
    for check in checks(settings.samples or SAMPLES, settings.seed):
        say(f"{check.name}: {check.verdict}")
        found.append(check)
    tables.show(table(found))
    folder = Path(settings.results_dir) / "ortho"
    folder.mkdir(parents=True, exist_ok=True)
    whole = {
        "checks": [asdict(check) for check in found],
        "seed": settings.seed,
        **record.made(),
    }
    record.write_json(folder / "checks.json", whole)
    say(f"checks.json in {folder}")
    return found


def checks(samples: int, seed: int) -> Iterator[Check]:
    """samples: spectra of the seed's own figures; the other checks take fewer."""
    yield statements.products_a_step()
    yield statements.products_in_five_steps()
    rows, unseen = (spectra.gaussian(SIDE, SIDE, samples, s) for s in (seed, seed + 1))
    yield statements.official_mse(rows)
    fit = search.single(rows, STEPS, STARTS, seed=0)
    yield statements.fitted_mse(fit, unseen)
    yield statements.taylor_mse(rows)
    yield convergence.taylor_converges(rows)
    steep = spectra.prescribed("condition", SIDE, 1e6, 1, seed)
    for tolerance in (1e-2, 1e-6):
        yield convergence.taylor_steps(rows, tolerance, "Gaussian")
        yield convergence.taylor_steps(steep, tolerance, "condition 1e6")
    yield convergence.slope_of_named_sets()
    yield convergence.slope_of_random_triples(TRIPLES, seed)
    yield convergence.slope_and_error(rows, TRIPLES, seed)
    gaussian = Source("gaussian")
    by_shape = {shape: matrices.random(gaussian, shape, None, seed).spectra for shape in SHAPES}
    yield statements.uniform(by_shape)
    yield statements.stable_over_shapes(by_shape)
    yield from official_checks.checks(rows, unseen, by_shape, fit)
    yield from output_checks.checks(by_shape, seed)
    for source in (gaussian, Source("condition", 1e6)):
        forms = [matrices.random(source, shape, None, seed).form for shape in MATRIX_SHAPES]
        yield statements.precision([form() for form in forms], str(source))
    yield from msign_checks.checks(seed)
    yield from basis_checks.checks(seed)
    yield from cost_checks.checks(seed)
    yield from embedding_checks.checks(seed)
    yield from shard_checks.checks(seed)
    yield from compile_checks.checks(seed)
    yield statements.exactness()


def table(found: list[Check]) -> Table:
    shown = Table(title="what is said of Muon and its coefficients", title_justify="left")
    for heading in ("statement", "measured", "range", "n", "verdict", "condition"):
        shown.add_column(heading)
    for check in found:
        shown.add_row(
            check.statement,
            f"{tables.number(check.value, '.5g')} {check.unit}",
            "–" if check.low is None else f"{check.low:.5g} to {check.high:.5g}",
            str(check.n or "–"),
            check.verdict,
            check.condition,
        )
    return shown
