"""What a person sees while a run goes on: a bar on a terminal, a line an evaluation elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress
from rich.console import Console

from bench.settings.schema import Train


class Progress:
    """Loss, throughput, optimizer share and the time left.

    shown: not by every process of a run.
    """

    def __init__(self, train: Train, unit: str, units_per_step: int, shown: bool = True) -> None:
        self.train, self.unit, self.units_per_step = train, unit, units_per_step
        self.console = Console(stderr=True, quiet=not shown)
        self.validation = ""
        self.spent = [0.0, 0.0]  # ms in forward+backward, in the optimizer
        self.steps = 0
        self.bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=24),
            progress.TextColumn("{task.fields[facts]}"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("left"),
            console=self.console,
            refresh_per_second=2,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> "Progress":
        self.bar.start()
        self.task = self.bar.add_task(
            "starting", total=self.train.steps or self.train.time_limit, facts=""
        )
        return self

    def __exit__(self, *exception) -> None:
        self.bar.stop()

    def show(self, line: dict) -> None:
        """Take in one line of the metrics."""
        if "val_loss" in line:
            self.validation = f"  val {line['val_loss']:.4f}"
            if not self.console.is_terminal:
                self.console.print(f"step {line['step']}{self.facts()}", highlight=False)
        else:
            self.steps += 1
            self.spent[0] += line["forward_backward_ms"]
            self.spent[1] += line["optimizer_ms"]
            self.loss = line["train_loss"]
        done = line["step"] if self.train.steps else line["seconds"]
        total = f"/{self.train.steps}" if self.train.steps else ""
        self.bar.update(
            self.task,
            completed=done,
            description=f"step {line['step']}{total}",
            facts=self.facts(),
        )

    def facts(self) -> str:
        total = sum(self.spent)
        rate = self.steps * self.units_per_step / total * 1e3 if total else 0.0
        share = self.spent[1] / total if total else 0.0
        return (
            f"  loss {self.loss:.4f}{self.validation}  {rate:,.0f} {self.unit}/s"
            f"  optimizer {share:.0%}"
        )


@contextmanager
def ticks(total: int, shown: bool = True) -> Iterator[Callable[[str], None]]:
    """A bar for work of so many parts: tell it of each part as it begins.

    It moves only then: no thread of its own runs beside what is timed.
    """
    console = Console(stderr=True)
    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=24),
        progress.TimeRemainingColumn(),
        progress.TextColumn("left"),
        console=console,
        auto_refresh=False,
        disable=not (shown and console.is_terminal),
    )
    with bar:
        task = bar.add_task("starting", total=total)
        begun = 0

        def tick(description: str) -> None:
            nonlocal begun
            bar.update(task, description=description, completed=begun, refresh=True)
            begun += 1

        yield tick
