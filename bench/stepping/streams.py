"""What a step costs on a device that works while the host runs ahead.

A step that is timed alone (`step_ms`) begins on a device that has nothing to do and is waited for.
Beside it stand here, without such waits: `span_ms`, between two events around a step in its stream,
and `marginal_ms`, by which a streak of forward, backward and step is longer than one without steps,
a step: (K (forward + backward + step) - K (forward + backward)) / K. That is what a user pays.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from bench.measuring import meter, turns
from bench.stepping.arms import Arm, Subject

STREAK = 10  # K
ROUNDS = 5  # at most

ALONE = "forward and backward"


def measure(
    arms: dict[str, Arm], subject: Subject, rounds: int, by_turns: bool
) -> dict[str, dict[str, Any]]:
    """span_ms and marginal_ms of each arm, on the largest batch; leaves no gradients.

    by_turns: the states of all arms do not fit, each is made anew for every turn.
    """
    every: dict[str, turns.Turn] = {ALONE: lambda: streak(subject, lambda: None)}
    for label, arm in arms.items():
        every[label] = _turn(arm, by_turns)
    taken = turns.take(every, min(rounds, ROUNDS), lambda _: None, _failed)
    without = taken.pop(ALONE)
    return {
        label: {
            "span_ms": meter.summary([span for span, _ in found]),
            "marginal_ms": meter.summary(
                [whole - bare for (_, whole), bare in zip(found, without, strict=True)]
            ),
        }
        for label, found in taken.items()
        if label in arms
    }


def _turn(arm: Arm, by_turns: bool) -> Callable[[], tuple[float, float]]:
    def turn() -> tuple[float, float]:
        subject = arm.subject
        if arm.routing is None:
            subject.time(min(subject.batches))  # gradients for the first step
            arm.build()
        step = arm.built.step
        whole = streak(subject, step, arm.begun)
        subject.time(min(subject.batches))  # there are optimizers that take gradients away
        span = 1e3 * meter.seconds(subject.device, step)
        if by_turns:
            arm.free()
        return span, whole

    return turn


def streak(
    subject: Subject,
    step: Callable[[], object],
    around: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> float:
    """Milliseconds of one forward, backward and step, of STREAK in a row.

    around: what makes a step begin in the backward pass, where it does.
    """
    units, began = max(subject.batches), meter.clock(subject.device)
    for _ in range(STREAK):
        subject.clear()
        with around():
            subject.run(units)
        step()
    return 1e3 * (meter.clock(subject.device) - began) / STREAK


def _failed(name: str, error: Exception) -> None:
    """What stepped before steps here, too."""
    raise error
