"""The answer in two sentences: it says what the tests show, what weakens it, and no more."""

import json
from dataclasses import replace

import pytest

from bench.reporting import answer
from bench.reporting.answer import Answer
from bench.studies import study
from bench.studies.results import Results
from tests.helpers import fake_results

pytestmark = pytest.mark.usefixtures("judged")

NOTHING = "in equal time nothing has been compared yet"


def compared(folder, experiment: str, condition: str, noise: float = 0.002, **gains: float) -> None:
    """Records of an experiment whose arms end so far from AdamW's test loss of 4, noise apart."""
    arms = None if study.load(experiment).search else ["adamw", *gains]
    fake_results.fill(folder, experiment, [condition], arms)
    for file in (folder / "records" / experiment).glob("*.json"):
        one = json.loads(file.read_text())
        if one["condition"] == condition and one["stage"] == study.FINAL:
            apart = noise * (-1) ** one["seed"] * (one["arm"] != "adamw")
            one["test_loss"] = 4 + gains.get(one["arm"], 0) + apart
            file.write_text(json.dumps(one))


def said(folder, *experiments: str) -> Answer:
    results = Results(folder)
    every = {name: results.comparisons(name, None) for name in experiments}
    return answer.answer({name: [o for o in of if o.arms] for name, of in every.items()})


def test_a_clear_win_is_said_with_its_interval_its_model_and_what_was_not_tested(tmp_path):
    compared(tmp_path, "optimizers", "language", hybrid=-0.5, muon=0.3)
    found = said(tmp_path, "optimizers")
    assert "At equal steps on text (gpt2_nano, 1.57 M parameters, 600 steps" in found.finding
    assert "hybrid ends 0.500 nats lower than AdamW (95 % −0.5" in found.finding
    assert "muon ends 0.300 nats higher than AdamW" in found.finding
    assert "n=5)" in found.finding and found.finding.endswith(f"; {NOTHING}.")
    assert "models of 1.6 M parameters and runs of up to 614,400 tokens" in found.limits
    assert "not tested: larger models, longer training, image models, GPUs." in found.limits


def test_one_that_straddles_the_margin_is_no_win(tmp_path):
    compared(tmp_path, "optimizers", "language", noise=0.05, hybrid=-0.02)
    found = said(tmp_path, "optimizers").finding
    assert "no difference between hybrid and AdamW is shown (95 %" in found
    assert "lower than" not in found and "equal, within" not in found


def test_a_difference_that_may_be_smaller_than_the_margin_says_so(tmp_path):
    compared(tmp_path, "optimizers", "language", noise=0.01, hybrid=-0.022)
    found = said(tmp_path, "optimizers").finding
    assert "hybrid ends lower than AdamW, but whether by more than 0.02 nats is open" in found


def test_equal_is_said_where_it_is_shown(tmp_path):
    compared(tmp_path, "optimizers", "language", hybrid=0.0001)
    found = said(tmp_path, "optimizers").finding
    assert "hybrid and AdamW end equal, within 0.02 nats" in found


def test_without_comparisons_nothing_is_answered(tmp_path):
    assert "is not answered yet" in said(tmp_path, "optimizers").finding
    fake_results.fill(tmp_path, "optimizers", ["language"], ["adamw"])
    assert "is not answered yet" in said(tmp_path, "optimizers").finding
    fake_results.fill(tmp_path, "pilot", ["long"], optimizer="adamw")  # with itself
    assert "is not answered yet" in said(tmp_path, "optimizers", "pilot").finding


@pytest.mark.parametrize(("bigram", "judged"), [(3.5, False), (4.5, True)])
def test_early_training_is_not_judged(tmp_path, bigram, judged):
    compared(tmp_path, "optimizers", "language", hybrid=-0.5)
    declared = study.load("optimizers")
    fake_results.lines(tmp_path, declared, "language", bigram=bigram)
    found = said(tmp_path, "optimizers").finding
    assert ("nats lower than AdamW" in found) == judged
    assert ("which one is better is not judged: early training" in found) != judged
    assert "by design" not in found


def test_what_weakens_a_comparison_stands_beside_it(tmp_path):
    compared(tmp_path, "optimizers", "language", hybrid=-0.5)
    for file in (tmp_path / "records" / "optimizers").glob("*-s[234]-*"):
        file.unlink()
    found = said(tmp_path, "optimizers").finding
    for words in (
        "one tuning search per optimizer, of its rate alone",
        "2 seeds only",
        "runs of optimizers missing",
    ):
        assert words in found, words
    assert "early training not ruled out" in found


def test_without_reference_lines_the_experiments_word_counts(tmp_path, monkeypatch):
    monkeypatch.undo()
    compared(tmp_path, "optimizers", "language", hybrid=-0.5)  # its limits say "early training"
    found = said(tmp_path, "optimizers").finding
    assert "not judged: early training, as the experiment's limits say" in found
    assert "not ruled out" not in found


def test_what_weakens_all_is_said_once(tmp_path):
    compared(tmp_path, "optimizers", "language", hybrid=-0.5)
    compared(tmp_path, "optimizers", "vision", hybrid=-0.2)
    found = said(tmp_path, "optimizers")
    assert found.finding.count("of its rate alone") == 1
    assert "on text (" in found.finding and "on images (" in found.finding
    assert "tokens or " in found.limits and "image models" not in found.limits


def test_the_present_protocol_goes_before_an_earlier_one_and_the_long_horizon_first(tmp_path):
    compared(tmp_path, "optimizers", "language", hybrid=-0.5)
    for condition in ("short", "long"):
        compared(tmp_path, "language", condition, hybrid=-0.1, muon=-0.1, torch_muon=-0.1)
    found = said(tmp_path, "optimizers", "language").finding
    assert "gpt2_pico" in found and "2,000 steps" in found and "gpt2_nano" not in found
    assert "hybrid ends 0.1" in found and "of its rate alone" not in found


def test_an_earlier_protocol_is_shown_beside_the_present_one_for_other_tasks_only(tmp_path):
    for condition in ("language", "vision"):
        compared(tmp_path, "optimizers", condition, hybrid=-0.5)
    earlier = Results(tmp_path).comparisons("optimizers", None)
    assert answer.present({"optimizers": earlier}) == earlier
    compared(tmp_path, "language", "long", hybrid=-0.1)
    later = Results(tmp_path).comparisons("language", ["long"])
    assert answer.present({"optimizers": earlier, "language": later}) == [earlier[1], *later]


def test_a_comparison_that_finds_the_contrary_is_named(tmp_path):
    compared(tmp_path, "optimizers", "language", hybrid=-0.5)
    compared(tmp_path, "batch_size", "256_tokens", hybrid=0.5)
    found = said(tmp_path, "optimizers", "batch_size").finding
    assert "batch_size (256_tokens) finds the contrary" in found


def test_equal_time_is_a_clause_of_its_own(tmp_path):
    compared(tmp_path, "optimizers", "language", hybrid=-0.5)
    results = Results(tmp_path)
    (one,) = results.comparisons("optimizers", ["language"])
    timed = replace(one, study=replace(one.study, equal_time_of={"language": "gpt2_nano-cpu"}))
    found = answer.answer({"equal_time": [timed]}).finding
    assert found.startswith("At equal steps nothing has been compared yet; in equal time on text")


def test_on_a_gpu_it_is_cpus_that_were_not_tested(tmp_path):
    compared(tmp_path, "optimizers", "language", hybrid=-0.5)
    for file in (tmp_path / "records" / "optimizers").glob("*.json"):
        one = json.loads(file.read_text())
        one["config"]["train"]["device"] = "cuda"
        file.write_text(json.dumps(one))
    found = said(tmp_path, "optimizers")
    assert "on cuda)" in found.finding and "GPUs" not in found.limits and "CPUs" in found.limits


def test_runs_that_are_made_for_their_weights_are_no_answer(tmp_path):
    assert study.starts() == {"pretrain"}
    fake_results.fill(tmp_path, "pretrain")
    every = Results(tmp_path).comparisons("pretrain", None)
    assert every[0].arms and not answer.of_optimizers({"pretrain": every})
