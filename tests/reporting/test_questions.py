"""docs/questions.md: one sentence a question, that claims no more than its tests show."""

import json

import pytest

from bench.reporting import questions
from bench.reporting.content import gather
from bench.studies import study
from bench.studies.results import Results
from bench.studies.study import FINAL
from bench.verdicts import waiting
from tests.helpers import fake_results
from tests.verdicts import test_attention, test_rates


def asked(folder, gains, noise=0.002):
    """aux_lr, whose arms end so far from the baseline's test loss of 4, noise apart."""
    fake_results.fill(folder, "aux_lr", arms=["equal", *gains])
    for file in (folder / "records" / "aux_lr").glob("*.json"):
        one = json.loads(file.read_text())
        if one["stage"] == FINAL:
            apart = noise * (-1) ** one["seed"] * (one["arm"] != "equal")
            one["test_loss"] = 4 + gains.get(one["arm"], 0) + apart
            file.write_text(json.dumps(one))
    return gather(Results(folder))


@pytest.mark.usefixtures("judged")
def test_the_sentence_says_which_arms_differ_by_more_than_the_margin_and_by_how_much(tmp_path):
    content = asked(tmp_path, {"half": -0.1, "double": 0.001, "fourfold": 0.2})
    said = questions.sentence(content.comparisons["aux_lr"])
    assert said.startswith(
        "Against equal, half ends more than 0.02 nats lower, fourfold ends more than 0.02 nats "
        "higher: half −0.1"
    )
    assert "n=5), double +0.001" in said and "; equal within that)" in said
    assert said.count("95 %") == 3 and said.endswith(").")


@pytest.mark.usefixtures("judged")
def test_what_is_not_shown_is_not_said(tmp_path):
    content = asked(tmp_path, {"half": -0.05}, noise=0.2)
    said = questions.sentence(content.comparisons["aux_lr"])
    lead = "Against equal, no arm is shown to end more than 0.02 nats lower or higher: half −0.0"
    assert said.startswith(lead)
    assert "; open)" in said


@pytest.mark.usefixtures("judged")
def test_an_answer_has_its_limits_and_the_way_to_its_numbers(tmp_path):
    text = questions.text(asked(tmp_path, {"half": -0.1}))
    assert f"## {study.load('aux_lr').question}" in text
    assert (
        "Limits: language only, 300 steps of small batches, early training, three rates; " in text
        and "of its rate alone" in text
    )
    assert "runs of aux_lr missing" in text  # of the other arms
    assert "[aux_lr](../results/README.md#aux_lr)" in text


def test_claims_that_an_experiment_measures_stand_below_its_answer(tmp_path):
    fake_results.fill(tmp_path, "qkv", ["long"])
    content = gather(Results(tmp_path))
    text = questions.text(content)
    claims = [one.claim for one in content.verdicts if "qkv" in waiting.named(one)]
    assert f"<summary>{len(claims)} claims on it</summary>" in text and len(claims) > 1
    for claim in claims:
        assert f"| {claim.statement} | **" in text
    assert text.count("All numbers: ") == 1


def test_early_training_is_not_judged(tmp_path):
    declared = fake_results.fill(tmp_path, "batch_size", ["256_tokens"])
    fake_results.lines(tmp_path, declared, "256_tokens", bigram=2.0)
    said = questions.sentence(gather(Results(tmp_path)).comparisons["batch_size"])
    assert "nothing is judged: " in said and "; not judged, early training" in said
    assert "95 %" in said and "equal within" not in said and "open" not in said


def test_a_question_without_records_is_listed_with_its_command_and_what_it_takes(tmp_path):
    text = questions.text(gather(Results(tmp_path)))
    for name in questions.ASKED:
        if name in study.declared():
            runs = sum(study.load(name).counts().values())
            assert f"`bench/train.py experiment={name}` answers it: {runs:,} runs" in text
    assert "Limits" not in text


def test_the_older_questions_that_have_experiments_are_asked():
    assert {"qkv", "orthogonalizer", "batch_size", "aux_lr"} <= set(questions.ASKED)
    assert set(questions.ASKED) & set(study.declared())


def test_what_claims_measure_besides_the_loss_is_said(tmp_path):
    test_attention.write(tmp_path, "clip_all", 0, [[1.0, 9.0]])
    test_attention.write(tmp_path, "clip_all", 1, [[2.0, 11.0]])
    text = questions.text(gather(Results(tmp_path)))
    assert "Largest attention logit of a run under long: clip_all 10.0 (95 % " in text


def test_a_study_without_a_margin_is_answered_by_what_its_claims_measure(tmp_path):
    fake_results.fill(tmp_path, "width", ["width_64", "width_256"])
    for file in (tmp_path / "records" / "width").glob("*-tune.json"):
        file.unlink()
    test_rates.fill(tmp_path, {"width_64": [4.0, 4.0], "width_256": [2.0, 2.0]})
    text = questions.text(gather(Results(tmp_path)))
    assert "over seeds): spectral_rule, width_256 against width_64 0.5" in text
    assert "Refuted: With Muon's update scaled by sqrt(out/in)" in text
    assert "Against match_rms_adamw" not in text


def test_what_was_gained_and_forgotten_is_said(tmp_path):
    fake_results.fill(tmp_path, "finetune", ["after_adamw"])
    for file in (tmp_path / "records" / "finetune").glob("*.json"):
        one = json.loads(file.read_text())
        one["test_loss_start"] = one["test_loss"] + 1
        one["forgotten"] = {"adamw": 0.5, "hybrid": 0.25}[one["arm"]] + 0.001 * one["seed"]
        file.write_text(json.dumps(one))
    text = questions.text(gather(Results(tmp_path)))
    said = "gained on the new text and lost on the first: adamw 1.000 and 0.502; hybrid 1.000 and"
    assert f"Under after_adamw, test loss {said} 0.252 (lost, against adamw: −0.25" in text


def test_states_and_peaks_are_said_where_arms_differ_in_them(tmp_path):
    asked(tmp_path, {"half": -0.1})
    for file in (tmp_path / "records" / "aux_lr").glob("*.json"):
        one = json.loads(file.read_text())
        share = {"equal": 100, "half": 75}[one["arm"]]
        one["optimizer_state_bytes"]["total"] = share * 1000
        one["peak_memory_bytes"] = share * 10**6
        file.write_text(json.dumps(one))
    text = questions.text(gather(Results(tmp_path)))
    assert "Optimizer state against equal's: half −25.0 %." in text
    assert "Peak memory of a run: equal 100.0 MB, half 75.0 MB." in text
