"""What training computes, held against numbers: whoever changes them raises `mathematics`."""

import pytest

from bench.records import mathematics

# Test losses of tiny runs after six steps, fp32 on the CPU. A commit that moves them beyond
# rounding adds a line to bench/records/mathematics.py and puts the new numbers here.
OF = 3
LOSSES = {
    "optimizer=adamw optimizer.lr_scale=4": 7.8121965,
    "optimizer=hybrid optimizer.lr_scale=4": 7.8148977,
    "optimizer=hybrid optimizer.lr_scale=4 qkv=per_head orthogonalizer=polar_express": 7.8151566,
    "optimizer=muon optimizer.lr_scale=2 schedule=cosine": 8.2898381,
    "optimizer=normuon optimizer.lr_scale=4 train.accumulate=2": 7.7354527,
    "optimizer=hybrid model=vit_nano train.batch_size=16 data.final_eval_sequences=64": 2.2844430,
    "optimizer=adamw model=vit_nano train.batch_size=16 train.clip_norm=0.1 "
    "data.final_eval_sequences=64": 2.2276269,
}


@pytest.mark.cpu
@pytest.mark.parametrize("words", LOSSES)
def test_losses_are_those_of_this_mathematics(words, train):
    assert mathematics.MATHEMATICS == OF, "put the losses of the new mathematics here"
    _, record, _ = train(*words.split())
    assert record["mathematics"] == OF
    assert record["test_loss"] == pytest.approx(LOSSES[words], rel=1e-6)


def test_the_changes_are_numbered_and_told():
    assert list(mathematics.CHANGES) == list(range(1, mathematics.MATHEMATICS + 1))
    assert all(mathematics.CHANGES.values())


def test_a_record_from_before_there_was_the_key_is_of_the_first():
    assert mathematics.of({}) == 1 and mathematics.of({"mathematics": 3}) == 3
