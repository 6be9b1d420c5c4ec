"""The attention logits of an arm, from its records."""

import pytest

from bench.studies import study
from bench.studies.results import Results
from bench.verdicts import attention
from tests.helpers import fake_results

ASKED = {"experiment": "clip", "arm": "unclipped"}


def write(folder, arm: str, seed: int, logits: list) -> None:
    fake = fake_results.one(study.load("clip"), "final", "long", arm, seed, 1.0)
    for line, of in zip(fake["curve"], logits, strict=False):
        line["attention_max_logit"] = of
    fake_results.write(folder, fake)


def test_the_largest_is_over_layers_and_evaluations_and_the_mean_over_seeds(tmp_path):
    write(tmp_path, "unclipped", 0, [[1.0, 9.0], None, [3.0, None]])
    write(tmp_path, "unclipped", 1, [[2.0, 4.0], [7.0, 1.0]])
    write(tmp_path, "clip_all", 0, [[50.0]])
    (found,) = attention.largest_logit(Results(tmp_path), **ASKED)
    assert (found.value, found.n) == (8.0, 2) and found.low < 7 and found.high > 9
    assert len(found.records) == 2 and all("-unclipped-" in file for file in found.records)


def test_older_records_without_logits_are_missing_not_zero(tmp_path):
    write(tmp_path, "unclipped", 0, [])
    write(tmp_path, "unclipped", 1, [[1.0]])
    (found,) = attention.largest_logit(Results(tmp_path), **ASKED)
    assert found.value is None and "1 so far" in found.missing


@pytest.mark.parametrize("arm", ["clip_all", "clip_auxiliary_tenth"])
def test_without_records_it_names_the_experiment(arm, tmp_path):
    (found,) = attention.largest_logit(Results(tmp_path), experiment="clip", arm=arm)
    assert "experiment=clip" in found.missing
