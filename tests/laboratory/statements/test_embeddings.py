"""What a step reaches of an embedding: rows of the batch's tokens, unless the table is the head."""

import numpy as np
import pytest

from bench.data.batches import Tokens
from bench.laboratory.statements import embeddings
from bench.laboratory.statements.embeddings import SEQUENCE, STEPS, reached


@pytest.fixture
def text():
    tokens = np.random.default_rng(0).integers(0, 50, size=2000).astype(np.uint16)
    return Tokens("random", 0, SEQUENCE, 200, 1, 1, {"train": tokens})


def seen(text, steps) -> float:
    batches = [text.batch(step, 1)["input_ids"].unique() for step in steps]
    return len(np.unique(np.concatenate(batches))) / text.vocab_size


def test_an_untied_tables_rows_are_those_of_its_tokens(text):
    gradient, update = reached(text, tied=False, examples=1, seed=0)
    # The last token of a sequence has no next one to predict: its gradient is zero.
    assert seen(text, [STEPS - 1]) - 1 / text.vocab_size <= gradient <= seen(text, [STEPS - 1])
    assert gradient < update <= seen(text, range(STEPS)) <= 50 / 200


def test_a_tied_table_moves_everywhere(text):
    assert reached(text, tied=True, examples=1, seed=0) == (1, 1)


def test_the_verdict_follows_the_shares(monkeypatch):
    monkeypatch.setattr(embeddings, "SEQUENCES", (1,))
    for half, verdict in ((2.0, "confirmed"), (0.5, "depends"), (0.0, "refuted")):
        monkeypatch.setattr(embeddings, "HALF", half)
        assert embeddings.embedding_updates_sparse(0).verdict == verdict
