"""Every Newton-Schulz coefficient set, by name, with its source.

One triple (a, b, c) stands for the step X <- a X + b (X X^T) X + c (X X^T)^2 X, which maps each
singular value s to a s + b s^3 + c s^5.
"""

Triple = tuple[float, float, float]

# Keller Jordan's official set: found by search for a large slope at zero, so that small singular
# values rise fast; the rest end between about 0.7 and 1.2 instead of at 1.
# Source: https://kellerjordan.github.io/posts/muon/ and github.com/KellerJordan/Muon, muon.py.
KELLER: Triple = (3.4445, -4.7750, 2.0315)

# The second-order Taylor expansion of s / sqrt(s^2) around 1: converges to msign exactly, slowly.
# Source: Su Jianlin, https://kexue.fm/archives/10592 (15/8, -5/4, 3/8).
TAYLOR: Triple = (15 / 8, -5 / 4, 3 / 8)

SETS: dict[str, tuple[Triple, ...]] = {"keller": (KELLER,), "taylor": (TAYLOR,)}


def per_step(name: str, steps: int) -> list[Triple]:
    """The triple of each of `steps` iterations; a set shorter than that repeats its last triple.

    Raises ValueError for an unknown name or fewer than one step.
    """
    if name not in SETS:
        raise ValueError(
            f"orthogonalizer.coefficients={name}: no such set; there is {', '.join(SETS)}"
        )
    if steps < 1:
        raise ValueError(f"orthogonalizer.steps={steps}: must be at least 1")
    triples = SETS[name]
    return [triples[min(step, len(triples) - 1)] for step in range(steps)]
