"""bench/ortho.py fit=true: fits coefficients to a source of matrices and tests them on others.

It fits all kinds of set (search.py), compares them with the published ones on new spectra and on
other shapes, and writes the requested kind as a file of conf/orthogonalizer/: into that folder only
if `fitting.replace` asks for it, otherwise beside the record.
"""

import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bench.display import terminal
from bench.laboratory import fitting_shown as shown
from bench.laboratory import iteration, matrices, recursion, search, spectra
from bench.laboratory import settings as ortho_config
from bench.laboratory.matrices import Matrices, Problem
from bench.laboratory.recursion import Estimate
from bench.laboratory.search import Fit
from bench.laboratory.settings import Settings, Source
from bench.records import files, origin, record
from bench.settings.errors import UserError
from bench.settings.schema import CONF
from optimizers.coefficients import Triple, per_step
from optimizers.orthogonalize.iteration import DTYPES

FITTED = CONF / "orthogonalizer" / "fitted.yaml"
KINDS = ("single", "bounded", "minimax")
SHAPE = (1024, 1024)  # the default
PUBLISHED = (shown.OFFICIAL, "su", "you5", "cans", "polar_express")
TRAVEL = [(n, ratio * n) for n in (64, 256, 1024, 2048) for ratio in (1, 2, 4, 8)]
LOOSE = 1.1  # tolerance of a bounded fit, since the ceiling is only a penalty
SAFETY = {"minimax": 1.0, "minimax_safe": 1.01}  # the second as in Polar Express, against rounding

Sets = dict[str, list[Triple]]


class Asked(NamedTuple):
    """The block `fitting` of conf/ortho.yaml after reading."""

    kind: str
    shape: tuple[int, int] | None  # None: momenta of all shapes
    steps: int
    dtype: str
    source: Source
    samples: int
    starts: int
    replace: bool


def run(settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    """Fit, compare, write; returns the record, also written to results_dir/ortho/fitting-….json."""
    asked = check(settings)
    seen, unseen = samples(asked, settings)
    on = "x".join(map(str, asked.shape)) if asked.shape else "all"
    case = re.sub(r"[^\w.+-]", "_", f"{on}-T{asked.steps}-{asked.dtype}-{seen.source}")
    file = Path(settings.results_dir) / "ortho" / f"fitting-{case}.json"
    say(f"fitting {asked.steps} steps to {len(seen.spectra)} spectra of {on} {seen.source}")
    fits = fitted(asked, seen, settings.seed, earlier(file))
    sets = {name: per_step(fit.triples, asked.steps) for name, fit in fits.items()}
    sets |= {name: per_step(name, asked.steps) for name in PUBLISHED}
    errors = recursion_errors(sets, unseen)
    ranked = errors if asked.dtype == "fp64" else matrix_errors(sets, unseen, asked, settings.seed)
    chosen = min((name for name in fits if name.startswith(asked.kind)), key=lambda k: ranked[k])
    terminal.show(shown.fits_table(fits, errors))
    terminal.show(shown.ranking_table(ranked, f"{on} {seen.source}", asked.steps, asked.dtype))
    travelled = travel(sets, settings.seed)
    terminal.show(shown.travel_table(travelled, sets))
    found = {
        "asked": {**asked._asdict(), "source": seen.source},
        "seed": settings.seed,
        "samples": len(seen.spectra),
        "held_out": unseen is not seen,
        "fits": {name: asdict(fit) for name, fit in fits.items()},
        "errors": {name: error._asdict() for name, error in ranked.items()},
        "travel": [
            {"shape": list(shape), "mse": {k: e._asdict() for k, e in row.items()}}
            for shape, row in travelled.items()
        ],
        "chosen": chosen,
        **origin.made(),
    }
    write(
        file, asked.replace, found, shown.as_yaml(f"{on} {seen.source}", fits[chosen], found), say
    )
    if (top := fits[chosen].top) > LOOSE * search.CEILING:
        say(
            f"{chosen} serves such spectra only: inputs of [0, 1] end as far as {top:.3g}; "
            f"fitting.kind=bounded keeps them below {search.CEILING}"
        )
    return found


def fitted(asked: Asked, seen: Problem, seed: int, known: list[Triple]) -> dict[str, Fit]:
    """A set of each kind; known: single triples as additional starting points."""
    single = (seen.spectra, asked.steps, asked.starts, seed)
    return {
        "single": search.single(*single, known=known),
        "bounded": search.single(*single, search.CEILING, known),
        **{
            name: search.minimax(seen.spectra, asked.steps, asked.starts, safety)
            for name, safety in SAFETY.items()
        },
    }


# files: existing ones are replaced only on request ----------------------------------------------


def write(
    file: Path, replace: bool, found: dict[str, Any], block: str, say: Callable[[str], None]
) -> None:
    """Write the record, and the chosen set as a block of conf/orthogonalizer."""
    target = record_file(file, replace)
    target.parent.mkdir(parents=True, exist_ok=True)
    record.write_json(target, found)
    chosen = FITTED if replace else target.with_suffix(".yaml")
    files.write_text(chosen, block)
    use = f"train with orthogonalizer={FITTED.stem}"
    if not replace:
        use = f"fitting.replace=true puts it into conf/orthogonalizer/{FITTED.name}, for training"
    say(f"{target} written, and {found['chosen']} to {chosen}: {use}")


def record_file(file: Path, replace: bool) -> Path:
    """The file itself if it is new or may be replaced, otherwise one beside it."""
    return file if replace or not file.exists() else file.with_suffix(".new.json")


def earlier(file: Path) -> list[Triple]:
    """Single triples from earlier records of this case; no refit may be worse than these."""
    found = []
    for one in (file, record_file(file, replace=False)):
        try:
            fits = files.read_json(one)["fits"]
            triples = [fits[name]["triples"] for name in fits if name in ("single", "bounded")]
            found += [(float(a), float(b), float(c)) for ((a, b, c),) in triples]
        except (OSError, ValueError, LookupError, TypeError):  # missing or incomplete
            continue
    return found


def check(settings: Settings) -> Asked:
    """The block `fitting`, with its default shape and source filled in.

    Raises UserError naming the setting, its value and what is accepted.
    """
    block = settings.fitting
    accepted = {"kind": KINDS, "dtype": tuple(DTYPES), "replace": (False, True)}
    for key, values in accepted.items():
        if block[key] not in values:
            raise UserError(
                f"fitting.{key}={block[key]}: must be one of {', '.join(map(str, values))}"
            )
    for key, least in (("steps", 1), ("samples", 2), ("starts", 3)):
        ortho_config.whole(f"fitting.{key}", block[key], least)
    try:
        source = ortho_config.source(block["source"]) if block["source"] else only(settings.sources)
        shape = ortho_config.shape(block["shape"]) if block["shape"] else None
    except UserError as error:
        raise UserError(f"fitting: {error}") from None
    if source.kind != "momentum":
        shape = shape or SHAPE
    if block["dtype"] != "fp64" and (shape is None or min(shape) > matrices.LARGEST):
        raise UserError(
            f"fitting.dtype={block['dtype']}: matrices are iterated in one shape, of up to "
            f"{matrices.LARGEST} rows or columns; fitting.shape={block['shape']} needs "
            "fitting.dtype=fp64"
        )
    return Asked(**{**block, "shape": shape, "source": source})


def only(sources: list[Source]) -> Source:
    if len(sources) != 1:
        raise UserError(f"sources={','.join(map(str, sources))}: a fit takes one of them")
    return sources[0]


def samples(asked: Asked, settings: Settings) -> tuple[Problem, Problem]:
    """The problem to fit to and the one to measure on: different samples, but the same momenta."""
    if asked.source.kind == "momentum":
        pooled = momenta(asked.shape, settings)
        return pooled, pooled
    assert asked.shape is not None  # only momenta can have many shapes
    seen, unseen = (
        matrices.random(asked.source, asked.shape, asked.samples, settings.seed + shift)
        for shift in (0, 1)
    )
    return seen, unseen


def momenta(shape: tuple[int, int] | None, settings: Settings) -> Problem:
    """All momentum matrices of one shape, from all layers; None: of all shapes, with shorter
    spectra padded by zeros, which do not count."""
    there = list(matrices.momentum(settings))
    same = [problem for problem in there if shape in (None, problem.shape)]
    if shape and not same:
        n, m = shape
        shapes = ", ".join(sorted({"x".join(map(str, problem.shape)) for problem in there}))
        raise UserError(f"fitting.shape={n}x{m}: no momentum matrix has it; accepted: {shapes}")

    def form() -> Matrices:
        X, Q, s = zip(*(problem.matrices() for problem in same), strict=True)
        return Matrices(torch.cat(X), torch.cat(Q), np.concatenate(s))

    rows = spectra.padded([row for problem in same for row in problem.spectra])
    names = {problem.source.partition("_layer")[0] for problem in same}
    source = names.pop() if len(names) == 1 else "momenta"
    return Problem(source, shape or same[0].shape, rows, form)


def recursion_errors(sets: Sets, problem: Problem) -> dict[str, Estimate]:
    return {name: recursion.mse(problem.spectra, triples) for name, triples in sets.items()}


def matrix_errors(sets: Sets, problem: Problem, asked: Asked, seed: int) -> dict[str, Estimate]:
    """Mean (s-1)^2 of each set from iterating fewer matrices in the requested dtype."""
    if asked.source.kind != "momentum":
        assert asked.shape is not None  # only momenta can have many shapes
        problem = matrices.random(asked.source, asked.shape, None, seed + 1)
    few = problem.matrices()
    return {name: matrix_error(few, triples, asked.dtype) for name, triples in sets.items()}


def matrix_error(few: Matrices, triples: list[Triple], dtype: str) -> Estimate:
    outcome = iteration.on_matrices(few, triples, "newton_schulz", dtype)
    if isinstance(outcome, int):  # the step at which it diverged
        return Estimate(np.inf, np.nan, np.nan)
    return recursion.estimate(np.mean((outcome.s_bk - 1) ** 2, axis=1, where=few.s_bk > 0))


def travel(sets: Sets, seed: int) -> dict[tuple[int, int], dict[str, Estimate]]:
    """Every set on Gaussian matrices of other shapes."""
    gaussian = Source("gaussian")
    return {
        shape: recursion_errors(sets, matrices.random(gaussian, shape, None, seed + 2))
        for shape in TRAVEL
    }
