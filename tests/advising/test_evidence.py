"""The share of AdamW's steps that others needed, by the records of studies and of one's own."""

import pytest

from bench.advising import evidence
from bench.studies.results import Results
from tests.helpers import fake_results
from tests.helpers.advice import own_run


def run(*curve: tuple[int, float], status: str = "finished", seed: int = 0) -> dict:
    lines = [{"step": step, "val_loss": loss} for step, loss in curve]
    last = curve[-1]
    return dict(curve=lines, steps=last[0], val_loss=last[1], status=status, seed=seed)


ADAMW = run((50, 4.0), (100, 3.0))


def test_between_two_evaluations_it_is_interpolated():
    assert evidence.share(run((20, 4.0), (40, 2.0), (100, 1.0)), ADAMW) == pytest.approx(0.3)


def test_at_the_first_evaluation_it_is_no_less_than_that():
    assert evidence.share(run((20, 2.0), (100, 1.0)), ADAMW) == 0.2


def test_training_points_between_evaluations_do_not_count():
    one = run((20, 4.0), (100, 3.0))
    one["curve"].insert(1, {"step": 30, "train_loss": 1.0})
    assert evidence.share(one, ADAMW) == 1.0


def test_a_loss_that_is_not_reached_is_none_and_leaves_no_mean():
    shares = evidence.paired(
        [run((100, 3.5)), run((100, 2.0), seed=1), run((100, 1.0), seed=2)],
        [ADAMW, ADAMW | {"seed": 1}, ADAMW | {"seed": 7}],
    )
    assert shares == {0: None, 1: 1.0}
    assert evidence.Evidence("", "hybrid", None, shares, []).share is None


def test_a_run_that_diverged_never_got_there_and_an_adamw_that_did_is_no_measure():
    ours = [run((100, 1.0), status="diverged"), run((100, 1.0), seed=1)]
    assert evidence.paired(ours, [ADAMW, ADAMW | {"seed": 1, "status": "diverged"}]) == {0: None}


@pytest.fixture
def studies(tmp_path):
    """The records of two studies, one of them with searches."""
    fake_results.fill(tmp_path, "optimizers", ["language"])
    fake_results.fill(tmp_path, "language", ["short"])
    return evidence.gather(Results(tmp_path))


def test_studies_give_an_arm_with_its_seeds_and_what_it_was_trained_on(studies):
    found = {(e.source, e.arm): e for e in studies}
    assert set(found) == {
        (source, arm)
        for source in ("optimizers/language", "language/short")
        for arm in ("hybrid", "muon")
    }
    one = found["optimizers/language", "hybrid"]
    assert list(one.shares) == [0, 1, 2, 3, 4] and one.setting.units == 1024
    assert (one.setting.task, one.setting.steps, one.setting.device) == ("text", 600, "cpu")


@pytest.mark.parametrize(
    ("bigram", "said"), [(9.0, ""), (1.0, "early training"), (None, "no reference line")]
)
def test_a_study_is_doubted_unless_adamw_is_known_to_end_below_its_reference_line(
    bigram, said, tmp_path
):
    declared = fake_results.fill(tmp_path, "optimizers", ["language"])
    if bigram:
        fake_results.lines(tmp_path, declared, "language", bigram=bigram)
    for one in evidence.gather(Results(tmp_path)):
        doubts = [doubt for doubt in one.doubts if "edge" not in doubt]
        assert [doubt[: len(said)] for doubt in doubts] == ([said] if said else [])


def test_a_study_without_tuning_is_doubted(tmp_path):
    fake_results.fill(tmp_path, "cost", ["gpt2"])
    (one, _) = evidence.gather(Results(tmp_path))
    assert any("was not tuned" in doubt for doubt in one.doubts)
    assert any("fewer than 3 seeds" in doubt for doubt in one.doubts)


def own(folder, rates=(0.5, 1.0, 2.0), seeds=(0, 1, 2), best=1.0):
    for optimizer, gain in (("adamw", 0.0), ("hybrid", 0.5)):
        for rate in rates:
            for seed in seeds:
                loss = 3.0 - gain + 0.2 * (rate != best) + 0.01 * seed
                own_run(folder, optimizer, seed, rate, loss)
    return evidence.gather(Results(folder))


def test_a_sweep_of_ones_own_counts_at_each_optimizers_best_rate(tmp_path):
    (one,) = own(tmp_path)
    assert one.source.startswith("your runs") and one.doubts == []
    assert list(one.shares) == [0, 1, 2]
    assert all(share == pytest.approx(0.75) for share in one.shares.values())


def test_a_best_rate_at_the_edge_is_doubted(tmp_path):
    (one,) = own(tmp_path, best=2.0)
    assert any("adamw lies at the edge" in doubt for doubt in one.doubts)


def test_two_seeds_or_one_rate_are_doubted(tmp_path):
    (one,) = own(tmp_path, rates=(1.0,), seeds=(0, 1))
    assert [doubt.split(":")[0] for doubt in one.doubts] == [
        "fewer than 3 seeds",
        "not tuned alike",
    ]


def test_runs_on_other_data_or_of_other_length_are_not_paired(tmp_path):
    own_run(tmp_path, "adamw", 0, 1.0, 3.0)
    own_run(tmp_path, "hybrid", 0, 1.0, 2.0, config={"optimizer": {}, "data": {"name": "other"}})
    assert evidence.gather(Results(tmp_path)) == []
