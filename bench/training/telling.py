"""The lines of a running sweep: one per run, and how long all runs take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from bench.display.numbers import duration
from bench.processes import world
from bench.training import launching
from bench.training.launching import Outcome

part: launching.Part | None = None  # what the sweeps begun here belong to
paced = True  # whether the sweep's expected time has been printed; True outside sweeps


@contextmanager
def within(whole: launching.Part) -> Iterator[None]:
    """Inside, sweeps begin as parts of something larger."""
    global part
    part = whole
    try:
        yield
    finally:
        part = None


def end(outcome: Outcome) -> None:
    """Print one line on a job that has ended: its number, its result, the time left."""
    if world.rank():
        return
    from bench.display import terminal
    from bench.training import tables

    hydra = HydraConfig.get()
    number, noted = hydra.job.num, launching.Outcomes(Path(hydra.sweep.dir))
    plan = noted.planned() or {"before": 0, "total": "?", "name": "", "names": {}, "left": []}
    place = f"{plan['before'] + number + 1:>{len(str(plan['total']))}}/{plan['total']}"
    name = " ".join(filter(None, (plan["name"], plan["names"].get(str(number)))))
    longest = max(map(len, plan["names"].values()), default=0) + len(plan["name"])
    left = seconds_left(plan, number, noted.ended())
    shown = f"  {duration(left)} left" if left else ""
    world.tell(tables.line(place, name.ljust(longest), outcome, shown, terminal.width()))


def seconds_left(plan: dict[str, Any], number: int, ended: list[Outcome]) -> float | None:
    """The seconds as forecast, or else from the average time of ended jobs, if any was trained."""
    if plan["left"]:
        return plan["left"][number]
    trained = sum(one["how"] not in ("skipped", "running") for one in ended)
    if not trained or "began" not in plan:
        return None
    return (time.time() - plan["began"]) / trained * (plan["total"] - len(ended))


def pace(seconds: float) -> None:
    """Say about how long all runs of a sweep take, from the first steps of its first run."""
    global paced
    if not paced and not part:
        plan = launching.Outcomes(Path(HydraConfig.get().sweep.dir)).planned()
        runs = plan["total"] if plan else 1
        world.tell(f"about {duration(seconds * runs)} for {runs} runs, by the first steps")
    paced = True
