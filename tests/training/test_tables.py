"""The table that a run ends with."""

import statistics

import pytest

from bench.display import terminal
from bench.records import cell
from bench.training import run, tables
from tests.helpers.commands import TINY, settle


@pytest.fixture
def rows(train, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")

    def go(*overrides: str) -> tuple[dict[str, str], dict]:
        _, record, _ = train(*overrides)
        capsys.readouterr()
        terminal.show(tables.run(record))
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        return {line[:19].strip(): line[19:].strip() for line in lines}, record

    return go


def test_adamw_is_the_reference_and_others_are_over_it(rows):
    assert rows("optimizer=adamw")[0]["overhead"] == "none: this is AdamW, the reference"
    assert " over AdamW at 64 tokens a step (n=2)" in rows()[0]["overhead"]


def test_the_last_training_loss_stands_beside_the_first(rows):
    shown, record = rows()
    trained = [line["train_loss"] for line in record["curve"] if "train_loss" in line]
    assert shown["training loss"] == f"{trained[-1]:.4f}  ({trained[0]:.4f} at the start)"


def test_of_a_long_run_it_is_a_mean_as_one_batch_is_noise():
    curve = [{"step": n, "train_loss": float(n)} for n in range(1, 201)]
    curve.insert(7, {"step": 7, "val_loss": 3.0})
    assert tables.last_training_loss({"curve": curve}) == statistics.mean(range(191, 201))
    assert tables.last_training_loss({"curve": []}) is None
    lost = [{"step": 1, "train_loss": 9.0}, {"step": 2, "train_loss": None}]
    assert tables.last_training_loss({"curve": lost}) == 9.0


def test_a_run_says_where_its_view_is_at_the_start_and_at_the_end(train):
    _, _, said = train("tracker=csv")
    places = [at for at, line in enumerate(said) if line.startswith("CSV: ")]
    assert len(places) == 2 and places[-1] == len(said) - 1
    assert places[0] < next(n for n, line in enumerate(said) if line.startswith("finished"))


def test_a_run_of_a_sweep_says_nothing_by_itself(train, capsys):
    _, record, _ = train()
    told: list[float] = []
    said: list[str] = []
    settings = settle(
        *TINY, "tracker=csv", "rerun=true", f"results_dir={record['config']['results_dir']}"
    )
    capsys.readouterr()
    outcome = run.run(settings, cell.name(settings), said.append, told.append)
    assert outcome["how"] == "finished" and said == [] and len(told) == 1
    assert outcome["record"]["train_loss"] == tables.last_training_loss(record)
    assert capsys.readouterr().out == ""
