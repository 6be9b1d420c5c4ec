"""README's first lines: what the tests show in words, and no more, with what weakens it."""

from dataclasses import replace

import pytest

from bench.reporting import brief
from bench.studies import study
from bench.studies.results import Results
from tests.helpers import fake_results
from tests.reporting.test_answer import compared

pytestmark = pytest.mark.usefixtures("judged")


def said(folder, *experiments: str) -> str:
    results = Results(folder)
    every = {name: results.comparisons(name, None) for name in experiments}
    return brief.brief({name: [o for o in of if o.arms] for name, of in every.items()})


@pytest.mark.parametrize(
    ("gain", "noise", "words"),
    [
        (-0.5, 0.002, "hybrid reaches a lower test loss than AdamW on text."),
        (0.5, 0.002, "hybrid reaches a higher test loss than AdamW on text."),
        (0.0001, 0.002, "hybrid reaches the same test loss as AdamW, within 0.02 nats, on text."),
        (-0.022, 0.01, "hybrid reaches a lower test loss than AdamW, by an unknown amount,"),
        (-0.02, 0.05, "hybrid reaches a test loss with no shown difference from AdamW's on text."),
    ],
)
def test_each_outcome_has_its_words(tmp_path, gain, noise, words):
    compared(tmp_path, "optimizers", "language", noise=noise, hybrid=gain)
    found = said(tmp_path, "optimizers")
    assert f"With the same number of steps, {words}" in found
    assert "In the same time, nothing has been compared yet." in found


def test_what_several_optimizers_and_tasks_share_is_said_once(tmp_path):
    compared(tmp_path, "optimizers", "language", hybrid=-0.5, muon=-0.4)
    compared(tmp_path, "optimizers", "vision", hybrid=-0.2, muon=-0.2)
    found = said(tmp_path, "optimizers")
    assert "hybrid and muon reach a lower test loss than AdamW on text and on images." in found
    assert "other tasks" in found


def test_limits_and_weak_points_are_listed(tmp_path):
    compared(tmp_path, "optimizers", "language", hybrid=-0.5)
    found = said(tmp_path, "optimizers")
    assert found.startswith("**Not settled.** ")
    assert "- **Tested**: models of 1.6 M parameters and runs of up to 614,400 tokens" in found
    assert "- **Not tested**: larger models, longer training, image models, GPUs" in found
    assert "- **Weak points**: one tuning search per optimizer" in found


def test_what_weakens_one_task_alone_is_said_of_it(tmp_path):
    compared(tmp_path, "optimizers", "language", hybrid=-0.5)
    compared(tmp_path, "optimizers", "vision", hybrid=-0.2)
    fake_results.lines(tmp_path, study.load("optimizers"), "language", bigram=4.5)
    results = Results(tmp_path)
    text, images = (
        replace(one, missing=0) for one in results.comparisons("optimizers", ["language", "vision"])
    )
    found = brief.brief({"optimizers": [text, images]})
    weak = next(line for line in found.splitlines() if "Weak points" in line)
    assert weak == (
        "- **Weak points**: one tuning search per optimizer, of its rate alone; "
        "on images: early training not ruled out"
    )


def test_early_training_is_not_judged(tmp_path):
    compared(tmp_path, "optimizers", "language", hybrid=-0.5)
    fake_results.lines(tmp_path, study.load("optimizers"), "language", bigram=3.5)
    found = said(tmp_path, "optimizers")
    assert "which optimizer is better is not judged (early training) on text" in found
    assert "lower" not in found


def test_comparisons_that_disagree_are_a_weak_point(tmp_path):
    compared(tmp_path, "optimizers", "language", hybrid=-0.5)
    compared(tmp_path, "batch_size", "256_tokens", hybrid=0.5)
    assert "other comparisons disagree" in said(tmp_path, "optimizers", "batch_size")


def test_it_is_settled_only_without_a_weak_point_at_equal_steps_and_in_equal_time(tmp_path):
    compared(tmp_path, "language", "long", hybrid=-0.1, muon=-0.1, torch_muon=-0.1)
    fake_results.lines(tmp_path, study.load("language"), "long", bigram=4.5)
    (steps,) = Results(tmp_path).comparisons("language", ["long"])
    steps = replace(steps, missing=0)
    timed = replace(steps, study=replace(steps.study, equal_time_of={"long": "gpt2_pico-cpu"}))
    assert brief.brief({"language": [steps]}).startswith("**Not settled.**")
    found = brief.brief({"language": [steps], "equal_time": [timed]})
    assert found.startswith("With the same number of steps, ") and "Weak points" not in found


def test_without_comparisons_nothing_is_answered(tmp_path):
    assert said(tmp_path, "optimizers").startswith("**Not answered yet.**")
