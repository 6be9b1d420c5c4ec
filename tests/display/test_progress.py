"""The bar's figures are the record's; piped there is a line now and then."""

import pytest

from bench.display import progress
from bench.display.progress import Progress
from bench.settings.schema import Train
from bench.training import tables

SLOW = {1: 900.0, 2: 700.0}  # ms of the steps that warm up


def lines(steps: int) -> list[dict]:
    return [
        {
            **{"step": n, "seconds": 0.1 * n, "train_loss": 9.0 - 0.1 * n},
            **{"forward_backward_ms": SLOW.get(n, 90.0), "optimizer_ms": 10.0},
        }
        for n in range(1, steps + 1)
    ]


def bar(steps: int = 20, **options) -> Progress:
    return Progress(Train(steps=steps, time_limit=None), "tokens", 1000, **options)


def test_rate_and_share_are_medians_without_the_warm_up_as_the_record_has_them(train):
    _, record, _ = train("train.steps=8")
    own = Progress(Train(steps=8, time_limit=None), "tokens", record["tokens_per_step"])
    own.resume(line for line in record["curve"])
    forward_backward, optimizer = own.medians()
    assert forward_backward == pytest.approx(record["forward_backward_ms"]["median"])
    assert optimizer == pytest.approx(record["optimizer_ms"]["median"])
    assert f"optimizer {record['optimizer_share']:.0%}" in own.facts()
    cells = [str(cell) for column in tables.run(record).columns for cell in column.cells]
    assert f"{record['throughput']:,.0f} tokens/s" in cells
    one = bar()
    one.resume(lines(20))
    assert "10k tokens/s optimizer 10%" in one.facts()  # means would say 6.1k and 6 %


def test_a_run_by_itself_has_a_line_an_evaluation_where_there_is_no_terminal(capsys):
    with bar() as one:
        for line in lines(20):
            one.show(line)
        one.show({"step": 20, "seconds": 2.0, "val_loss": 7.1234})
    (said,) = capsys.readouterr().err.splitlines()
    assert said == "step 20/20  loss 7.000 val 7.123 10k tokens/s optimizer 10%"


def test_a_run_of_a_sweep_says_nothing_but_how_long_it_takes(capsys):
    told: list[float] = []
    with bar(steps=100, swept=told.append) as one:
        for line in lines(20):
            one.show(line)
        one.show({"step": 20, "seconds": 2.0, "val_loss": 7.1234})
    assert told == [pytest.approx(100 * 0.1)]
    assert capsys.readouterr().err == ""


def test_piped_work_in_parts_says_what_it_is_at_now_and_then(capsys, monkeypatch):
    now = iter(range(0, 1000, 4))  # a part every four seconds
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.ticks(9) as tick:
        for number in range(9):
            tick(f"round {number}")
    said = capsys.readouterr().err.splitlines()
    assert said == ["round 0 (1/9)", "round 4 (5/9)", "round 8 (9/9)"]
    with progress.ticks(9, shown=False) as tick:
        tick("round 0")
    assert capsys.readouterr().err == ""
