"""Every Newton-Schulz coefficient set, by name, with its source.

One triple (a, b, c) stands for the step X <- a X + b (X X^T) X + c (X X^T)^2 X, which maps each
singular value s to a s + b s^3 + c s^5. A set is one triple for all steps or one triple per step.
If there are more steps than triples, the last triple repeats. A set need not have a name here: a
list of triples works as well.
"""

import functools
import math
from collections.abc import Sequence

Triple = tuple[float, float, float]

# Keller Jordan's official set: found by search for a large slope at zero, so that small singular
# values rise fast; the rest end between about 0.7 and 1.2 instead of at 1.
# Source: https://kellerjordan.github.io/posts/muon/ and github.com/KellerJordan/Muon, muon.py.
KELLER: Triple = (3.4445, -4.7750, 2.0315)

# The second-order Taylor expansion of 1 / sqrt(s^2) around 1: converges to msign, slowly.
# Source: Su Jianlin, https://kexue.fm/archives/10592.
TAYLOR: Triple = (15 / 8, -5 / 4, 3 / 8)

# The first-order one, the classical Newton-Schulz step.
# Source: Higham, Functions of Matrices (2008), section 8.3.
CUBIC: Triple = (3 / 2, -1 / 2, 0.0)

# Keller Jordan's baseline before the search; modded-nanogpt's optimizer benchmark takes 12 steps
# of it. Source: https://kellerjordan.github.io/posts/muon/.
BASELINE: Triple = (2.0, -1.5, 0.5)

# One triple for five steps: it minimises the mean of the 50 largest |s - 1| on a grid of 10,001
# inputs. Source: Su Jianlin, https://kexue.fm/archives/10922.
SU: Triple = (3.3748, -4.6969, 2.1433)

# Jiacheng You's sets: five steps (modded-nanogpt track 2, record of 2025-02-14), and six steps,
# published as multiples of 1/1024 (https://kexue.fm/archives/10922).
YOU5: tuple[Triple, ...] = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
YOU6: tuple[Triple, ...] = tuple(
    (a / 1024, b / 1024, c / 1024)
    for a, b, c in (
        (3955, -8306, 5008),
        (3735, -6681, 3463),
        (3799, -6499, 3211),
        (4019, -6385, 2906),
        (2677, -3029, 1162),
        (2172, -1833, 682),
    )
)

# Chebyshev-type polynomials from Remez's algorithm on an adapted interval.
# Source: CANS, arXiv 2506.10935.
CANS: tuple[Triple, ...] = (
    (8.4703, -25.1081, 18.6293),
    (4.1828, -3.1087, 0.5806),
    (3.9619, -2.9541, 0.5630),
    (3.2866, -2.4647, 0.5074),
    (2.2737, -1.6447, 0.4162),
)

# Cubics: two products per step instead of three, fitted for inputs from 7e-3 up.
# Source: arXiv 2606.00371.
CUBIC5: tuple[Triple, ...] = (
    (3.3656576, -3.3420992, 0.0),
    (2.5744352, -1.4957376, 0.0),
    (2.5368962, -1.4312570, 0.0),
    (2.4418906, -1.2764040, 0.0),
    (2.2230472, -0.9630650, 0.0),
)


def best_quintic(low: float, high: float) -> Triple:
    """The odd quintic closest to 1 on [low, high] in the maximum norm, by Remez's algorithm.

    Source: Polar Express, arXiv 2505.16932, section 3. As low approaches high, the quintic
    approaches the Taylor quintic, which is returned if the equations are no longer solvable in
    fp64.
    """
    if low / high >= 1 - 2e-5:
        a, b, c = TAYLOR
        return a / high, b / high**3, c / high**5
    inner = [(3 * low + high) / 4, (low + 3 * high) / 4]
    error = math.inf
    while True:
        points = [low, *inner, high]
        a, b, c, new_error = _equioscillate(points)
        if abs(error - new_error) < 1e-15:
            return a, b, c
        error = new_error
        root = math.sqrt(9 * b * b - 20 * a * c)  # where the derivative is zero
        inner = sorted(math.sqrt((-3 * b + sign * root) / (10 * c)) for sign in (-1, 1))


def _equioscillate(points: list[float]) -> tuple[float, float, float, float]:
    """(a, b, c, E) with a x + b x^3 + c x^5 = 1 -+ E, the sign changing from point to point."""
    import numpy as np

    rows = [[x, x**3, x**5, (-1) ** i] for i, x in enumerate(points)]
    a, b, c, error = np.linalg.solve(np.array(rows), np.ones(4)).tolist()
    return a, b, c, error


@functools.cache
def polar_express(
    steps: int, low: float = 1e-3, cushion: float = 0.02407327424182761, safety: float = 1.01
) -> tuple[Triple, ...]:
    """Polar Express: each step takes the best quintic for the present range of singular values.

    low: the smallest singular value to serve; cushion: the interval's lower end is at least this
    share of its top, so that no step becomes too steep; safety: all steps but the last apply the
    polynomial to s / safety, so that rounding above 1 does not blow up.
    Source: arXiv 2505.16932, its code's defaults.
    """
    triples, high = [], 1.0
    for _ in range(steps):
        triple = best_quintic(max(low, cushion * high), high)
        centre = 2 / (_apply(triple, low) + _apply(triple, high))
        a, b, c = (centre * k for k in triple)
        low = _apply((a, b, c), low)
        high = 2 - low
        triples.append((a, b, c))
    safe = [(a / safety, b / safety**3, c / safety**5) for a, b, c in triples[:-1]]
    return (*safe, triples[-1])


def _apply(triple: Triple, s: float) -> float:
    a, b, c = triple
    return a * s + b * s**3 + c * s**5


SETS: dict[str, tuple[Triple, ...]] = {
    "keller": (KELLER,),
    "taylor": (TAYLOR,),
    "cubic": (CUBIC,),
    "baseline": (BASELINE,),
    "su": (SU,),
    "you5": YOU5,
    "you6": YOU6,
    "cans": CANS,
    "cubic5": CUBIC5,
}


def per_step(coefficients: str | Sequence[Triple], steps: int) -> list[Triple]:
    """The triple of each of `steps` iterations.

    coefficients: the name of a set, or the triples themselves.
    Raises ValueError for an unknown name, a malformed triple or fewer than one step.
    """
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"orthogonalizer.steps={steps}: must be a whole number and at least 1")
    if coefficients == "polar_express":
        return list(polar_express(steps))
    if not isinstance(coefficients, str):
        triples: Sequence[Triple] = _checked(coefficients)
    elif coefficients in SETS:
        triples = SETS[coefficients]
    else:
        names = ", ".join([*SETS, "polar_express"])
        raise ValueError(
            f"orthogonalizer.coefficients={coefficients}: no such set; accepted: {names}"
        )
    return [triples[min(step, len(triples) - 1)] for step in range(steps)]


def _checked(triples: Sequence[Triple]) -> list[Triple]:
    try:
        checked = [(a, b, c) for a, b, c in triples]
    except (TypeError, ValueError):
        checked = []
    numbers = [k for triple in checked for k in triple]
    if not numbers or not all(isinstance(k, int | float) and math.isfinite(k) for k in numbers):
        raise ValueError(
            f"orthogonalizer.coefficients={triples}: must be the name of a set, or a list of "
            "triples of numbers such as [[2, -1.5, 0.5]], one for all steps or one a step"
        )
    return checked
