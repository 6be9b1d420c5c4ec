"""The random state of a run: whatever draws, a resumed run draws what the whole one does."""

import json
import random

import numpy as np
import pytest
import torch

from bench.training import randomness

DRAWS = {
    "torch": lambda: torch.rand(3).tolist(),
    "python": random.random,
    "numpy": lambda: [np.random.random(), np.random.standard_normal()],  # the second keeps one
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_restored_state_draws_the_same_numbers(draw):
    randomness.seed(2**40)
    draw()
    saved = randomness.state("cpu")
    json.dumps(saved["numpy"])  # plain data, which a checkpoint holds
    after = draw()
    draw()
    randomness.restore(saved)
    assert draw() == after


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_seed_gives_the_same_numbers(draw):
    randomness.seed(3)
    first = draw()
    draw()
    randomness.seed(3)
    assert draw() == first


def test_a_state_of_an_earlier_checkpoint_is_restored_without_numpys():
    saved = randomness.state("cpu")
    after = torch.rand(3)
    del saved["numpy"]
    randomness.restore(saved)
    assert torch.equal(torch.rand(3), after)
