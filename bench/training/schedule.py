"""The factor on every rate: pure functions of the step and of the share of the run that is done.

step: optimizer steps taken before this one; progress: in [0, 1), by steps or by time.
"""

import math


def warmup(step: int, warmup_steps: int) -> float:
    """A linear rise that reaches 1 at step `warmup_steps`."""
    return min(1.0, (step + 1) / (warmup_steps + 1))


def constant(step: int, progress: float, *, warmup_steps: int) -> float:
    return warmup(step, warmup_steps)


def cosine(step: int, progress: float, *, warmup_steps: int, final_fraction: float) -> float:
    """Half a cosine from 1 to `final_fraction` (SGDR, arXiv 1608.03983, without restarts)."""
    fall = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return warmup(step, warmup_steps) * (final_fraction + (1 - final_fraction) * fall)


def wsd(step: int, progress: float, *, warmup_steps: int, decay_fraction: float) -> float:
    """Warm-up, stable, linear decay to 0 (MiniCPM, arXiv 2404.06395)."""
    left = max(0.0, 1.0 - progress)
    decay = min(1.0, left / decay_fraction) if decay_fraction > 0 else 1.0
    return warmup(step, warmup_steps) * decay
