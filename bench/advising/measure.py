"""Measures an optimizer's step on the model here, in turns; thin, since other modules decide."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.advising import plan
from bench.advising.settings import Case
from bench.display import progress
from bench.display.numbers import duration
from bench.measuring import load, meter, turns
from bench.settings.errors import UserError
from bench.stepping.arms import Arm
from bench.stepping.communication import one_line
from bench.stepping.settings import REFERENCE
from bench.stepping.subject import Subject
from bench.stepping.summary import AGAIN
from bench.training import prepare
from optimizers.state import state_bytes

Say = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """parameters: number in the model; gradients: their bytes; times: ms of every round, for
    forward and backward by units and for each optimizer's step by label; state, temporary: bytes by
    label; held: bytes of a forward and backward at the smallest and the largest batch; tables: the
    routing by label; errors: why an optimizer could not be measured."""

    parameters: int
    gradients: int
    times: dict[Any, list[float]]
    state: dict[str, int]
    temporary: dict[str, int]
    held: dict[int, int]
    tables: dict[str, list[dict[str, Any]]]
    errors: dict[str, str]

    @property
    def units(self) -> list[int]:
        """Units of the measured batches, ascending."""
        return sorted(key for key in self.times if isinstance(key, int))


def measure(case: Case, say: Say) -> tuple[Measured, Subject]:
    """All measurements, and the model that they were made on."""
    if said := load.warning():
        say(f"{case.name}: {said}")
    say(f"{case.name}: building the model, one forward and backward")
    with prepare.mistakes():
        subject = Subject(case.settings, [1, 2])
    prepare.remark_fit(subject.settings, subject.model, say)
    batches(case, subject, say)
    held = {units: subject.peak(units) for units in (min(subject.batches), max(subject.batches))}
    parameters = sum(p.numel() for p in subject.parameters)
    labels = [*case.arms, AGAIN]
    keeps = plan.keeps_states(parameters, len(labels), meter.available(subject.device))
    arms = {label: Arm(label, case.arms.get(label, case.settings), subject) for label in labels}
    tables: dict[str, list[dict[str, Any]]] = {}
    found = Measured(
        parameters,
        sum(p.numel() * p.element_size() for p in subject.parameters),
        *({}, {}, {}, held, tables, {}),
    )

    def failed(label: Any, error: Exception) -> None:
        if label not in case.arms or label == REFERENCE:
            raise error
        found.errors[label] = one_line(error)
        arms.pop(label).free()
        subject.restore()

    subject.time(min(subject.batches))  # gradients for the code below
    say(f"{case.name}: a step of each of {', '.join(case.arms)}: state and memory")
    seconds: dict[Any, float] = {
        label: first(label, arms, found, keeps, failed) for label in labels
    }
    seconds |= {units: 1e-3 * subject.time(units) for units in subject.batches}
    rounds = plan.rounds(sum(seconds.values()))
    lasts = duration((rounds + 1) * sum(seconds.values()))
    say(f"{case.name}: {rounds} interleaved rounds of all, about {lasts}")
    each: dict[Any, turns.Turn] = {u: partial(subject.time, u) for u in subject.batches}
    each |= {label: partial(step, arm, keeps) for label, arm in arms.items()}
    with progress.ticks((rounds + 1) * len(each)) as tick:
        found.times.update(turns.take(each, rounds, tick, failed))
    return found, subject


def batches(case: Case, subject: Subject, say: Say) -> None:
    """Give the subject the batches to measure."""
    one, two = subject.batches
    subject.time(one)
    second = min(subject.time(two) for _ in range(2)) / 2e3
    asked, most = case.settings.train.batch_size, None
    while True:
        chosen = plan.sizes(asked, second, most)
        try:
            subject.take(chosen)
            break
        except UserError:  # no room for the largest
            if chosen[-1] <= plan.SIZES:
                raise
            most = chosen[-1] // 2
    if asked not in chosen:
        sizes = ", ".join(map(str, chosen))
        why = "memory" if most else f"{duration(plan.SECONDS)} of measuring"
        say(
            f"a batch of {asked} is too large for {why}: {sizes} are measured, and a line is fitted"
        )


def first(label: str, arms: dict[str, Arm], found: Measured, keeps: bool, failed) -> float:
    """Seconds of a step after the one that creates the state; notes its state and temporaries."""
    try:
        arm = arms[label]
        arm.build()
        found.tables[label] = arm.built.table
        found.state[label] = state_bytes(arm.built.optimizers)["total"]
        arm.subject.lend_gradients()
        found.temporary[label] = meter.held(arm.subject.device, arm.built.step).peak
        began = time.perf_counter()
        arm.step()
        seconds = time.perf_counter() - began
        if not keeps:
            arm.free()
        return seconds
    except Exception as error:
        failed(label, error)
        return 0.0


def step(arm: Arm, keeps: bool) -> float:
    """Milliseconds of a step."""
    return (arm.turn() if keeps else arm.turn_alone()).total
