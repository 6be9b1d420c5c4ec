"""Softmax regression on pixels: a linear classifier, trained to its optimum."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import log_softmax

STRENGTHS = tuple(10.0 ** (-power / 2) for power in range(13))  # 1 to 1e-6, falling
ITERATIONS = 300  # maximum for L-BFGS, per strength
PRECISION = 1e-6  # relative precision of the loss at which it ends
TINY = 1e-6  # added to curvatures: a constant pixel has none

Examples = tuple[np.ndarray, np.ndarray]  # pixels float32 (N, D), labels int64 (N,)


@dataclass(frozen=True)
class Regression:
    """weights (D + 1, classes), the last row is the biases; strength: that of the L2 penalty."""

    weights: np.ndarray
    strength: float

    def tested(self, examples: Examples) -> tuple[float, float]:
        """The mean loss in nats, and the accuracy."""
        pixels, labels = examples
        chosen = log_softmax(_logits(self.weights, pixels), axis=1)
        loss = -chosen[np.arange(len(labels)), labels].mean()
        return float(loss), float((chosen.argmax(1) == labels).mean())


def fit(examples: Examples, classes: int, strength: float, start: np.ndarray | None = None):
    """The regression that minimises the mean loss plus strength / 2 times its squared weights,
    biases excluded. start: the initial weights, by default zeros.

    It uses L-BFGS, in coordinates whose curvature at equal probabilities is about one: pixels are
    so similar that their own coordinates would take hundreds of iterations. Böhning 1992,
    https://doi.org/10.1007/BF00048682, bounds the curvature by that.
    """
    pixels, labels = examples
    count, size = pixels.shape
    rows = np.arange(count)
    decay = np.full((size + 1, 1), strength)
    decay[-1] = 0
    root = cholesky(_moments(pixels) / classes + np.diag(decay[:, 0] + TINY), lower=True)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = _solved(root, flat.reshape(size + 1, classes), trans="T")
        chosen = log_softmax(_logits(weights, pixels), axis=1)
        loss = -chosen[rows, labels].mean(dtype=np.float64) + (decay * weights**2).sum() / 2
        off = np.exp(chosen)
        off[rows, labels] -= 1
        gradient = np.concatenate([pixels.T @ off, off.sum(0, keepdims=True)]) / count
        return float(loss), _solved(root, gradient + decay * weights).ravel()

    if start is None:
        start = np.zeros((size + 1, classes))
    done = minimize(
        *(objective, (root.T @ start).ravel()),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": ITERATIONS, "ftol": PRECISION},
    )
    return Regression(_solved(root, done.x.reshape(size + 1, classes), trans="T"), strength)


def tuned(train: Examples, validation: Examples, classes: int) -> Regression:
    """The regression that is best on validation, from falling strengths. Each starts at the result
    of the one before; the search ends at the first one that is worse than the one before."""
    best = fit(train, classes, STRENGTHS[0])
    least, _ = best.tested(validation)
    for strength in STRENGTHS[1:]:
        one = fit(train, classes, strength, best.weights)
        loss, _ = one.tested(validation)
        if loss >= least:
            break
        best, least = one, loss
    return best


def _logits(weights: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    weights = weights.astype(np.float32)
    return pixels @ weights[:-1] + weights[-1]


def _moments(pixels: np.ndarray) -> np.ndarray:
    """The mean products of all pairs of pixels, with an additional last pixel that is always 1."""
    means = pixels.mean(0, keepdims=True)
    return np.block([[pixels.T @ pixels / len(pixels), means.T], [means, np.ones((1, 1))]])


def _solved(root: np.ndarray, values: np.ndarray, trans: str = "N") -> np.ndarray:
    return solve_triangular(root, values, lower=True, trans=trans, check_finite=False)
