"""The cost of a step on a device that works while the host runs ahead.

A step that is timed alone (`step_ms`) starts on an idle device and is waited for. The two values
here are measured without such waits. `span_ms` is the time between two events around a step in its
stream. `marginal_ms` is the extra time per step of a streak of forward, backward and step over a
streak without steps: (K (forward + backward + step) - K (forward + backward)) / K. That is what a
user pays.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from bench.measuring import meter, turns
from bench.stepping.arms import Arm
from bench.stepping.subject import Subject

STREAK = 10  # K
ROUNDS = 5  # at most

ALONE = "forward and backward"


def measure(
    arms: dict[str, Arm], subject: Subject, rounds: int, by_turns: bool
) -> dict[str, dict[str, Any]]:
    """span_ms and marginal_ms of each arm on the largest batch; leaves no gradients.

    by_turns: memory cannot hold all arms' states, so each state is created anew for every turn.
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
        subject.time(min(subject.batches))  # some optimizers remove gradients
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
    """Milliseconds of one forward, backward and step, from STREAK of them in a row.

    around: makes a step begin in the backward pass, if it does so.
    """
    units, began = max(subject.batches), meter.clock(subject.device)
    for _ in range(STREAK):
        subject.clear()
        with around():
            subject.run(units)
        step()
    return 1e3 * (meter.clock(subject.device) - began) / STREAK


def _failed(name: str, error: Exception) -> None:
    """Raise the error: every arm has been stepped without one before."""
    raise error
