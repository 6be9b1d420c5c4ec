"""n-gram models against a slow obvious reference, and as what they are: distributions."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data import batches, ngrams, seen
from bench.settings.schema import CONF


class Slow:
    """Interpolated Kneser-Ney with modified discounts, from dictionaries, as Chen and Goodman
    write it; runs: lists of tokens between which no n-gram lies."""

    def __init__(self, runs, vocab_size):
        self.runs, self.vocab_size = runs, vocab_size

    def seen(self, order):
        return Counter(
            tuple(run[i : i + order]) for run in self.runs for i in range(len(run) - order + 1)
        )

    def preceded(self, order):
        return Counter(gram[1:] for gram in self.seen(order + 1))

    def probability(self, context, token, counts=None):
        order = len(context) + 1
        counts = self.seen(order) if counts is None else counts
        if context:
            lower = self.probability(context[1:], token, self.preceded(order - 1))
        else:
            lower = 1 / self.vocab_size
        after = {gram: count for gram, count in counts.items() if gram[:-1] == context}
        total = sum(after.values())
        if not total:
            return lower
        off = self.discounts(counts)
        count = after.get((*context, token), 0)
        taken = sum(off[min(c, 3)] for c in after.values())
        return (count - off[min(count, 3)] + taken * lower) / total

    @staticmethod
    def discounts(counts):
        n = [sum(c == wanted for c in counts.values()) for wanted in range(5)]
        if n[1] and n[2] and n[3]:
            y = n[1] / (n[1] + 2 * n[2])
            own = [k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3)]
            if all(0 < d <= k for k, d in zip((1, 2, 3), own, strict=True)):
                return [0, *own]
        return [0, 0.5, 1, 1.5]


def joined(runs):
    ids = np.array([token for run in runs for token in run], dtype=np.uint16)
    follows = np.array([i > 0 for run in runs for i in range(len(run))])
    return ids, follows


def text(seed, tokens, vocab_size):
    """Tokens of which few are frequent, and some of the vocabulary never come."""
    draw = np.random.default_rng(seed)
    return np.minimum(draw.geometric(0.3, tokens) - 1, vocab_size - 2).tolist()


@pytest.mark.parametrize("cuts", [(), (7, 8, 60)])
def test_as_the_slow_reference(cuts):
    vocab_size, whole = 9, text(1, 120, 9)
    ends = (0, *cuts, len(whole))
    runs = [whole[a:b] for a, b in pairwise(ends)]
    slow, window = Slow(runs, vocab_size), [*text(2, 12, 9), 8]
    found = ngrams.tables(*joined(runs), vocab_size, 4)
    fast = ngrams.probabilities(found, np.array([window]), vocab_size)
    for order, model in enumerate(fast, start=1):
        for at, token in enumerate(window):
            context = tuple(window[max(0, at - order + 1) : at])
            assert model[0, at] == pytest.approx(slow.probability(context, token)), (order, at)


def test_the_discounts_of_a_long_text_come_from_its_counts():
    ids = np.array(text(3, 3000, 60))
    follows = np.arange(len(ids)) > 0
    pairs = ngrams.tables(ids, follows, 60, 2)[1]
    found = ngrams.discounts(pairs.seen)
    assert found.tolist() == pytest.approx(
        Slow([ids.tolist()], 60).discounts(Slow([ids.tolist()], 60).seen(2))
    )
    assert found[1:].tolist() != list(ngrams.DISCOUNTS)


@settings(max_examples=40, deadline=None)
@given(
    runs=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=30), min_size=1, max_size=6),
    context=st.lists(st.integers(0, 5), max_size=4),
)
def test_the_probabilities_of_all_tokens_sum_to_one_after_any_context(runs, context):
    vocab_size = 6
    found = ngrams.tables(*joined(runs), vocab_size, 4)
    windows = np.array([[*context, token] for token in range(vocab_size)])
    for model in ngrams.probabilities(found, windows, vocab_size):
        assert model[:, -1].sum() == pytest.approx(1) and (model > 0).all()


def test_no_ngram_lies_across_positions_that_were_not_seen():
    ids = np.array([1, 2, 3, 1, 2, 4, 1, 2])
    whole = np.ones(8, dtype=bool)
    gap = whole.copy()
    gap[4] = False
    for seen_of, runs in ((gap, [[1, 2, 3, 1], [4, 1, 2]]), (whole, [ids.tolist()])):
        for token in (2, 4):
            ((_, loss),) = ngrams.losses(ids, seen_of, [np.array([[1, token]])], 5, 2)
            assert math.exp(-loss) == pytest.approx(Slow(runs, 5).probability((1,), token))


def test_the_first_token_of_a_window_is_not_predicted():
    ids = np.array([0, 1] * 20)
    seen_all = np.ones(40, dtype=bool)
    one, other = (np.array([[first, 1, 0, 1]]) for first in (0, 4))
    (a,), (b,) = (ngrams.losses(ids, seen_all, [w], 5, 1) for w in (one, other))
    assert a == b


@pytest.fixture(scope="module")
def tokens():
    from omegaconf import OmegaConf

    block = OmegaConf.to_container(OmegaConf.load(CONF / "data" / "sotu.yaml"))
    return batches.load(block, seed=3, sequence_length=128, tokenizer="sotu4096")


def test_a_run_sees_the_positions_of_its_batches_and_no_others(tokens):
    found = seen.positions(tokens, 3, 4)
    ids = np.concatenate([tokens.batch(step, 4)["input_ids"].numpy().ravel() for step in range(3)])
    assert 1200 < found.sum() <= 12 * 128
    assert set(tokens.parts["train"][found]) == set(ids)
    assert not (seen.positions(tokens, 2, 4) & ~found).any()


def test_the_bigram_of_the_shipped_text_is_where_the_design_has_it(tokens):
    """DESIGN, section 7: 4.78 after 0.3 M tokens, on other windows of the same part."""
    found = seen.positions(tokens, 300, 8)
    windows = [seen.windows(tokens, "test")]
    ((unigram, bigram, trigram, four),) = ngrams.losses(
        *(tokens.parts["train"], found, windows, tokens.vocab_size, 4)
    )
    assert 4.5 < bigram < 5.1 and unigram - bigram > 1
    assert bigram > trigram > four > math.log(20)
