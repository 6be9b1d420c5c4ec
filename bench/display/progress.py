"""Progress for the user: a bar on a terminal, occasional lines elsewhere."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich import progress
from rich.console import Console

from bench.display.numbers import short
from bench.settings.schema import Train

PACED = 5  # from this step on, warm-up steps are left out and the run's length is estimated
PLAIN = 15.0  # seconds between two lines of `ticks`
BETWEEN = {True: 0.5, False: 60.0}  # seconds, on a terminal and elsewhere


class Progress:
    """Loss, throughput, optimizer share and the time left; medians, as in the record.

    shown: true in only one process of a run. swept: given for a run of a sweep, which keeps a
    single line: the bar disappears, and outside a terminal there is one line a minute. It is called
    once with the approximate seconds that the run will take.
    """

    def __init__(
        self,
        train: Train,
        unit: str,
        units_per_step: int,
        shown: bool = True,
        swept: Callable[[float], None] | None = None,
    ) -> None:
        self.train, self.unit, self.units_per_step = train, unit, units_per_step
        self.console = Console(stderr=True, quiet=not shown)
        self.swept, self.paced = swept, swept is None
        self.validation = ""
        self.times: list[tuple[float, float]] = []  # ms in forward+backward, in the optimizer
        self.last = time.monotonic()
        self.bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=6),
            progress.TextColumn("{task.fields[facts]}"),
            progress.TimeRemainingColumn(compact=True),
            console=self.console,
            refresh_per_second=2,
            transient=swept is not None,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> "Progress":
        self.bar.start()
        total = self.train.steps or self.train.time_limit
        self.task = self.bar.add_task("starting", total=total, facts="")
        return self

    def __exit__(self, *exception) -> None:
        if self.times:
            self.bar.update(self.task, facts=self.facts())
        self.bar.stop()

    def resume(self, lines: Iterable[dict[str, Any]]) -> None:
        """Add the earlier metrics of a resumed run."""
        for line in lines:
            self._take(line)

    def show(self, line: dict[str, Any]) -> None:
        """Add one line of the metrics."""
        self._take(line)
        if not self.paced and len(self.times) >= PACED and self.swept and self.train.steps:
            self.paced = True
            self.swept(1e-3 * self.train.steps * sum(self.medians()))
        evaluated = "val_loss" in line and self.swept is None
        now, apart = time.monotonic(), BETWEEN[self.console.is_terminal]
        if now - self.last < apart and not evaluated:
            return
        self.last = now
        total = f"/{self.train.steps}" if self.train.steps else ""
        step = f"step {line['step']}{total}"
        if not self.console.is_terminal:
            self.console.print(f"{step}  {self.facts()}", highlight=False, soft_wrap=True)
        done = line["step"] if self.train.steps else line["seconds"]
        self.bar.update(self.task, completed=done, description=step, facts=self.facts())

    def _take(self, line: dict[str, Any]) -> None:
        if "val_loss" in line:
            self.validation = f" val {line['val_loss']:.3f}"
        else:
            self.times.append((line["forward_backward_ms"], line["optimizer_ms"]))
            self.loss = line["train_loss"]

    def medians(self) -> tuple[float, float]:
        """ms of forward+backward and of the optimizer, as the record will have them."""
        from bench.measuring import meter  # imports torch, already loaded by the run

        each = (meter.summary(meter.timed(list(part))) for part in zip(*self.times, strict=True))
        forward_backward, own = (one["median"] for one in each)
        assert forward_backward is not None and own is not None  # of at least one step
        return forward_backward, own

    def facts(self) -> str:
        forward_backward, own = self.medians()
        rate = 1e3 * self.units_per_step / (forward_backward + own)
        share = own / (forward_backward + own)
        said = f"loss {self.loss:.3f}{self.validation} {short(rate)} {self.unit}/s"
        return f"{said} optimizer {share:.0%}"


@contextmanager
def ticks(total: int, shown: bool = True) -> Iterator[Callable[[str], None]]:
    """A bar for work with this many parts; call the result as each part begins.

    It moves only then: no extra thread runs beside timed work. Outside a terminal it prints a line
    when the first part begins, and then one now and then.
    """
    console = Console(stderr=True, quiet=not shown)
    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=24),
        progress.TimeRemainingColumn(),
        progress.TextColumn("left"),
        console=console,
        auto_refresh=False,
        disable=not console.is_terminal or not shown,
    )
    with bar:
        task = bar.add_task("starting", total=total)
        begun, last = 0, -PLAIN

        def tick(description: str) -> None:
            nonlocal begun, last
            now = time.monotonic()
            if not console.is_terminal and now - last >= PLAIN:
                last = now
                console.print(f"{description} ({begun + 1}/{total})", highlight=False, markup=False)
            bar.update(task, description=description, completed=begun, refresh=True)
            begun += 1

        yield tick
