"""bench/ortho.py map=true: the stability map of single triples, and the steepest stable ones.

dynamics.py says what stable means, and why two numbers suffice.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from bench.display import terminal
from bench.display.numbers import number
from bench.laboratory import dynamics, recursion, search, spectra, stability_chart
from bench.laboratory.dynamics import KINDS, LongRun, Place
from bench.laboratory.settings import Settings
from bench.records import origin, record
from optimizers.coefficients import BASELINE, CUBIC, KELLER, SU, TAYLOR, Triple

PUBLISHED = {"taylor": TAYLOR, "cubic": CUBIC, "baseline": BASELINE, "keller": KELLER, "su": SU}
SLOPES = np.linspace(1.1, 5.2, 411)  # of the map: slopes at zero
MULTIPLIERS = np.linspace(-5.5, 1.0, 326)  # slopes at the smallest fixed point
EPSILONS = (0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 0.9)
STEPS = 5  # for the condition after finitely many steps
LOWS = (1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 2e-2, 5e-2)
FITTED_STEPS = (3, 5, 8)  # steps of the fitted triples that are marked
FITTED_SHAPE, FITTED_SAMPLES, FITTED_STARTS = (1024, 1024), 32, 12


class Map(NamedTuple):
    """A long run for every slope (columns) and multiplier (rows)."""

    slopes: NDArray[np.float64]
    multipliers: NDArray[np.float64]
    long_run: LongRun


class Steepest(NamedTuple):
    """For one e: the steepest triple in the reading `stay`, and the steepest place in `limit`."""

    epsilon: float
    stay: Triple
    limit: Place


def run(settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    """Map, tables, picture; the record goes to results_dir/ortho/stability.json."""
    say("a fitted triple, and the map of slopes and multipliers")
    sets = PUBLISHED | fitted(settings.seed)
    plane = survey(SLOPES, MULTIPLIERS)
    say("the steepest triples, and the tightest")
    solutions = [steepest(plane, epsilon) for epsilon in EPSILONS]
    frontier = [(low, *dynamics.tightest(low, STEPS)) for low in LOWS]
    official = official_compared(plane)
    terminal.show(sets_table(sets))
    terminal.show(steepest_table(solutions))
    terminal.show(frontier_table(frontier, sets))
    for line in (*bounded_lines(), *official_lines(official)):
        say(line)
    folder = Path(settings.results_dir) / "ortho"
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        "sets": {name: described(triple) for name, triple in sets.items()},
        "bounded": described(dynamics.steepest_bounded(both_signs=True)),
        "bounded_without_change_of_sign": described(dynamics.steepest_bounded(both_signs=False)),
        "steepest": [
            {"epsilon": one.epsilon, "stay": one.stay, "limit": one.limit._asdict()}
            for one in solutions
        ],
        "tightest": [
            {"low": low, "steps": STEPS, "epsilon": epsilon, "triple": triple}
            for low, epsilon, triple in frontier
        ],
        "official": official,
        "seed": settings.seed,
        **origin.made(),
    }
    record.write_json(folder / "stability.json", found)
    if settings.pictures:
        stability_chart.draw(folder / "stability.svg", plane, sets, solutions, frontier, STEPS)
    say(f"stability.json{' and stability.svg' * settings.pictures} in {folder}")
    return found


def fitted(seed: int) -> dict[str, Triple]:
    """Triples fitted to Gaussian matrices for several numbers of steps."""
    rows = spectra.gaussian(*FITTED_SHAPE, FITTED_SAMPLES, seed)
    return {
        f"fitted T={steps}": search.single(
            rows, steps, FITTED_STARTS, seed, search.CEILING
        ).triples[0]
        for steps in FITTED_STEPS
    }


def survey(slopes: NDArray[np.float64], multipliers: NDArray[np.float64]) -> Map:
    a, mu = np.meshgrid(slopes, multipliers)
    return Map(slopes, multipliers, dynamics.long_run(*dynamics.triple_at(a, mu)))


def steepest(plane: Map, epsilon: float) -> Steepest:
    """`limit` is the steepest place on the map's grid, or that of `stay`: a lower bound."""
    fine = plane.long_run.epsilon <= epsilon  # false for nan
    column = int(np.flatnonzero(fine.any(axis=0)).max())
    row = int(np.flatnonzero(fine[:, column])[0])
    stay = dynamics.steepest_staying(epsilon)
    if stay[0] > plane.slopes[column]:
        where = dynamics.place(stay)
        assert where is not None  # values that stay near 1 have a fixed point there
        return Steepest(epsilon, stay, where)
    slope, multiplier = float(plane.slopes[column]), float(plane.multipliers[row])
    long_run = dynamics.long_run(*dynamics.triple_at(slope, multiplier))
    scale = float(2 / (long_run.low + long_run.high))  # centres the values at 1
    return Steepest(epsilon, stay, Place(slope, multiplier, scale))


def official_compared(plane: Map) -> dict[str, Any]:
    """How far Keller's triple is from the steepest for its own e, and the e it is steepest for."""
    long_run = dynamics.long_run(*KELLER)
    own = float(max(long_run.high - 1, 1 - long_run.low))
    after = dynamics.epsilon_after(KELLER, 0.1, STEPS)
    low = recursion.threshold([KELLER] * STEPS, 1 - after - 1e-9, 1 + after + 1e-9)
    assert low is not None  # 1 ends in its own range
    best, triple = dynamics.tightest(low, STEPS)
    same_slope = dynamics.epsilon_of_slope(KELLER[0])
    fine = (plane.slopes >= KELLER[0]) & (plane.long_run.kind >= dynamics.ONE)
    return {
        "slope": KELLER[0],
        "epsilon": own,
        "epsilon_rescaled": float(long_run.epsilon),
        "steepest_staying_at_its_epsilon": dynamics.steepest_staying(own),
        "steepest_limit_at_its_epsilon": steepest(plane, own).limit.slope,
        "epsilon_of_its_slope_staying": same_slope,
        "steepest_staying_with_its_slope": dynamics.steepest_staying(same_slope),
        "epsilon_of_its_slope_limit": float(plane.long_run.epsilon[fine].min()),
        "steps": STEPS,
        "epsilon_after_steps": after,
        "low_after_steps": low,
        "tightest_from_its_low": {"epsilon": best, "triple": triple},
    }


def bounded_lines() -> list[str]:
    """What boundedness alone allows, in words."""
    lines = []
    for both_signs, name in ((True, "[-1, 1]"), (False, "[0, 1]")):
        triple = dynamics.steepest_bounded(both_signs)
        coefficients = ", ".join(f"{k:.3f}" for k in triple)
        kind = described(triple)["kind"]
        lines.append(f"bounded, [0, 1] into {name}: steepest is ({coefficients}); later: {kind}")
    return lines


def official_lines(official: dict[str, Any]) -> list[str]:
    """The result of the comparison, in words."""
    o = official
    with_its_slope = ", ".join(f"{k:.4f}" for k in o["steepest_staying_with_its_slope"])
    tightest = o["tightest_from_its_low"]
    return [
        f"keller: slope {o['slope']}, ends within e = {o['epsilon']:.3f} of 1 "
        f"({o['epsilon_rescaled']:.3f} if rescaled); the same e would allow a slope of "
        f"{o['steepest_staying_at_its_epsilon'][0]:.3f} (stay) or "
        f"{o['steepest_limit_at_its_epsilon']:.2f} (limit)",
        f"its slope is the steepest for e = {o['epsilon_of_its_slope_staying']:.3f} (stay), by "
        f"({with_its_slope}), or {o['epsilon_of_its_slope_limit']:.2f} (limit)",
        f"after {o['steps']} steps all inputs from {o['low_after_steps']:.2g} up end within "
        f"e = {o['epsilon_after_steps']:.3f}; another triple, of slope "
        f"{tightest['triple'][0]:.3f}, reaches e = {tightest['epsilon']:.3f} from there",
    ]


def described(triple: Triple) -> dict[str, Any]:
    """A set's place on the map, and the fate of small inputs under it."""
    where, long_run = dynamics.place(triple), dynamics.long_run(*triple)
    points = search.fixed_points(triple)
    return {
        "triple": triple,
        "place": where._asdict() if where else None,
        "escapes_beyond": points[1] if len(points) == 2 else None,
        "kind": KINDS[int(long_run.kind)],
        "low": float(long_run.low),
        "high": float(long_run.high),
        "epsilon_rescaled": float(long_run.epsilon) if long_run.kind >= dynamics.ONE else None,
        "range_of_unit_interval": recursion.image(0.0, 1.0, [triple] * STEPS),
    }


# tables ----------------------------------------------------------------------------------------


def sets_table(sets: dict[str, Triple]) -> Table:
    table = Table(title="one triple, applied again and again", title_justify="left")
    headings = ["set", "a, b, c", "slope at 0", "slope at fixed point", "fixed point"]
    headings += ("escapes beyond", "in the long run", "values", "e", "e if rescaled")
    for heading in headings:
        table.add_column(heading)
    for name, triple in sets.items():
        one = described(triple)
        where = one["place"] or {}
        table.add_row(
            name,
            ", ".join(f"{k:.4g}" for k in triple),
            *(number(where.get(k), ".3f") for k in Place._fields),
            number(one["escapes_beyond"], ".3f"),
            one["kind"],
            *values_text(one["low"], one["high"]),
            number(one["epsilon_rescaled"], ".3f"),
        )
    return table


def values_text(low: float, high: float) -> tuple[str, str]:
    """The long-run range, and its e."""
    if not np.isfinite(high):
        return "–", "–"
    return f"{low:.3f} to {high:.3f}", f"{max(high - 1, 1 - low):.3f}"


def steepest_table(solutions: list[Steepest]) -> Table:
    title = "the largest slope at 0 for which (0, 1] ends within e of 1"
    table = Table(title=title, title_justify="left")
    for heading in ("e", "stay: slope", "by a, b, c", "limit: slope at least", "by a, b, c"):
        table.add_column(heading, justify="right")
    for one in solutions:
        limit = dynamics.triple_at(*one.limit)
        table.add_row(
            f"{one.epsilon:g}",
            f"{one.stay[0]:.4f}",
            ", ".join(f"{k:.4f}" for k in one.stay),
            f"{one.limit.slope:.2f}",
            ", ".join(f"{k:.3f}" for k in limit),
        )
    return table


def frontier_table(frontier: list[tuple[float, float, Triple]], sets: dict[str, Triple]) -> Table:
    title = f"the least e within which all inputs from low up end after {STEPS} steps"
    table = Table(title=title, title_justify="left")
    names = ["keller", "su", f"fitted T={STEPS}", "taylor"]
    for heading in ("low", "least e", "by a, b, c", *names):
        table.add_column(heading, justify="right")
    for low, epsilon, triple in frontier:
        others = [dynamics.epsilon_after(sets[name], low, STEPS) for name in names]
        table.add_row(
            f"{low:g}",
            f"{epsilon:.4f}",
            ", ".join(f"{k:.4f}" for k in triple),
            *(f"{e:.3f}" for e in others),
        )
    return table
