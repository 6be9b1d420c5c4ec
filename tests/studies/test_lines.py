"""Reference lines: made once for what a run sees, found again by its records, and what is early."""

import json
import math
from dataclasses import replace

import pytest

from bench.processes import world
from bench.records import layouts, shape
from bench.studies import lines, standing, study, words
from bench.studies.results import Results
from tests.helpers import fake_results
from tests.helpers.commands import TINY, settle

TEXT = dict(uniform=8.0, unigram=6.5, bigram=3.5, trigram=3.4)


def made(folder, *overrides):
    """What was said of them in the end, and the files that are there."""
    said: list[str] = []
    one = settle(*TINY, "tracker=none", f"results_dir={folder}", *overrides)
    lines.make(one, "here", said.append)
    return said[-1:], sorted((folder / "lines").glob("*.json"))


def test_the_lines_of_a_text_are_written_once_and_said_in_one_line(tmp_path):
    (said,), (file,) = made(tmp_path)
    assert "here: reference lines" in said and "bigram" in said
    one = json.loads(file.read_text())
    assert layouts.lines(one) is None
    assert [line["name"] for line in one["lines"]] == list(layouts.LINES[:5])
    assert one["seen"] <= 6 * 2 * 32 < one["there"]
    for line in one["lines"]:
        nats = line["bits_per_byte"] * one["bytes_per_token"] * math.log(2)
        assert line["loss"] == pytest.approx(nats)
    assert one["lines"][0]["loss"] == pytest.approx(math.log(4096))
    before = file.stat().st_mtime_ns
    assert made(tmp_path) == ([], [file]) and file.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("override", "another"),
    [
        ("seed=1", True),
        ("train.steps=5", True),
        ("train.batch_size=4", True),
        ("train.accumulate=2", True),
        ("train.sequence_length=16", True),
        ("data.final_eval_sequences=5", True),
        ("optimizer=adamw", False),
        ("model.width=64", False),
        ("train.eval_every=2", False),
    ],
)
def test_what_moves_them_gets_a_file_of_its_own(override, another, tmp_path):
    made(tmp_path)
    _, files = made(tmp_path, override)
    assert len(files) == 1 + another


def test_a_damaged_file_is_made_again(tmp_path):
    _, (file,) = made(tmp_path)
    file.write_text("{")
    assert made(tmp_path)[0] and isinstance(shape.read(file, layouts.lines), dict)


def test_what_would_take_minutes_or_is_not_known_is_said_and_not_made(tmp_path, monkeypatch):
    (said,), files = made(tmp_path, "train.steps=null", "train.time_limit=1")
    assert "not made" in said and "train.steps=null" in said and not files
    monkeypatch.setitem(lines.LARGEST, "tokens", 100)
    (said,), files = made(tmp_path)
    assert "not made: a run draws 384 tokens; more than 100" in said and not files


@pytest.mark.parametrize(("limit", "value"), [("PIXELS", 783), ("OF_ALL", 5 * 784)])
def test_images_that_would_take_minutes_are_left_alone(limit, value, tmp_path, monkeypatch):
    monkeypatch.setattr(lines, limit, value)
    (said,), files = made(tmp_path, "model=vit_nano", "train.steps=3")
    assert "not made: a run sees 6 images of 784 values" in said and not files


def test_of_many_processes_one_makes_them(tmp_path, monkeypatch):
    monkeypatch.setattr(world, "rank", lambda: 1)
    assert made(tmp_path) == ([], [])


def test_the_lines_of_images_are_those_of_softmax_regression(tmp_path):
    words = ["model=vit_nano", "train.steps=4", "train.batch_size=32", "data.eval_sequences=100"]
    (said,), (file,) = made(tmp_path, *words)
    one = json.loads(file.read_text())
    uniform, regression = one["lines"]
    assert uniform["accuracy"] == 0.1 and regression["accuracy"] > 0.3
    assert one["seen"] == 128 and regression["loss"] < uniform["loss"] and "nan" not in said


def test_a_users_text_counts_by_its_content(tmp_path):
    own = tmp_path / "own.txt"
    words = ["data=text_files", f"data.path={own}"]
    for number in range(2):
        own.write_text(f"Word {number} after word, and so on and so on.\n" * 400)
        made(tmp_path, *words)
    assert len(list((tmp_path / "lines").glob("*.json"))) == 2


def test_a_run_finds_the_lines_of_its_own_settings(tmp_path, train):
    made(tmp_path)
    _, one, _ = train()
    (known,), _ = lines.read(tmp_path)
    assert lines.of_run(one, [known]) is known
    for change in ({"mathematics": 1}, {"config": one["config"] | {"seed": 9}}, {"config": {}}):
        assert lines.of_run(one | change, [known]) is None


# a condition --------------------------------------------------------------------------------------


def compared(folder, experiment="optimizers", condition="language", **losses):
    declared = study.load(experiment)
    fake_results.fill(folder, experiment, [condition], seeds=declared.final_seeds[:2])
    if losses:
        fake_results.lines(folder, declared, condition, **losses)
    return Results(folder).compare(experiment, condition, None, None)


def test_training_is_early_while_adamw_ends_above_the_bigram(tmp_path):
    one = compared(tmp_path, **TEXT)
    loss = one.arm("adamw").test_loss.mean
    assert one.early and loss > 3.5
    assert f"early training: adamw ends above the bigram ({loss:.3f} against 3.500)" == (
        standing.early(one)
    )
    assert "Early training: adamw ends above the bigram" in words.answer(one)


def test_it_is_not_once_adamw_is_below_it_and_the_best_line_is_told(tmp_path):
    one = compared(tmp_path, **TEXT | {"bigram": 4.5})
    assert one.early is False and standing.early(one) is None
    assert any(
        "adamw ends above the best reference line (trigram, 3.400" in n for n in words.notes(one)
    )
    below = replace(
        one,
        lines=replace(
            one.lines,
            content=one.lines.content
            | {"lines": [{"name": "bigram", "loss": 4.5, "validation_loss": 4.5}]},
        ),
    )
    assert "adamw ends below the best reference line" in words.notes(below)[-1]


def test_without_a_file_nothing_is_known_but_what_the_experiment_says_of_itself(tmp_path):
    one = compared(tmp_path, "finetune", "after_adamw")
    assert one.lines is None and one.early is None and standing.early(one) is None
    assert words.notes(one)[-1] == standing.UNKNOWN
    assert "arly training" not in words.answer(one)
    said = compared(tmp_path)
    assert said.early is None and "as the experiment's limits say" in standing.early(said)
    assert words.notes(said)[-2] == standing.UNKNOWN and "not judged" in words.notes(said)[-1]


def test_images_are_held_against_softmax_regression(tmp_path):
    one = compared(tmp_path, condition="vision", uniform=2.3, softmax_regression=0.5)
    assert one.early and "above the softmax regression" in standing.early(one)
    assert one.lines.bits(1.0) is None


def test_adamw_is_held_against_the_lines_wherever_it_stands_among_the_arms(tmp_path):
    """Against another arm, too; where no arm is AdamW, the baseline is."""
    compared(tmp_path, **TEXT)
    one = Results(tmp_path).compare("optimizers", "language", "hybrid", None)
    assert lines.judged(one.arms, one.study.baseline).name == "adamw" and one.early
    qkv = compared(tmp_path, "qkv", "long", **TEXT)
    assert lines.judged(qkv.arms, qkv.study.baseline).name == qkv.study.baseline
    assert qkv.early
