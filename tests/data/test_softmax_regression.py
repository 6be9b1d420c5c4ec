"""Softmax regression: at its optimum, tuned on validation, on pixels as the model sees them."""

import numpy as np
import pytest
from omegaconf import OmegaConf

from bench.data import batches, seen, softmax_regression
from bench.settings.schema import CONF


def blobs(seed, count):
    """Three classes whose pictures overlap a little."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, count)
    centers = np.eye(3, 8, dtype=np.float32) * 2
    return centers[labels] + draw.standard_normal((count, 8)).astype(np.float32), labels


def test_no_small_change_of_the_weights_makes_it_better():
    train = blobs(0, 300)
    found = softmax_regression.fit(train, 3, 0.01)

    def objective(weights):
        loss, _ = softmax_regression.Regression(weights, 0.01).tested(train)
        return loss + 0.005 * (weights[:-1] ** 2).sum()

    least = objective(found.weights)
    for number in range(20):
        change = np.random.default_rng(number).standard_normal(found.weights.shape)
        assert objective(found.weights + 0.1 * change) > least


def test_loss_and_accuracy_are_those_of_its_probabilities():
    weights = np.zeros((9, 3))
    weights[-1] = np.log([0.7, 0.2, 0.1])
    examples = np.zeros((4, 8), dtype=np.float32), np.array([0, 0, 1, 2])
    loss, accuracy = softmax_regression.Regression(weights, 1).tested(examples)
    assert loss == pytest.approx(-np.log([0.7, 0.7, 0.2, 0.1]).mean()) and accuracy == 0.5


def test_the_strength_is_the_best_on_validation():
    """Few examples: with hardly a penalty it would learn them by heart."""
    train, validation = blobs(1, 30), blobs(2, 500)
    found = softmax_regression.tuned(train, validation, 3)
    loss, _ = found.tested(validation)
    for strength in (softmax_regression.STRENGTHS[0], softmax_regression.STRENGTHS[-1]):
        one = softmax_regression.fit(train, 3, strength)
        assert one.tested(validation)[0] > loss
    assert found.strength in softmax_regression.STRENGTHS[1:-1]


def test_images_are_counted_once_and_shown_as_the_model_sees_them():
    block = OmegaConf.to_container(OmegaConf.load(CONF / "data" / "fashion_mnist.yaml"))
    data = batches.load(block, seed=0, sequence_length=0, tokenizer=None)
    found = seen.images(data, 3, 8)
    assert found.sum() == 24
    pixels, labels = seen.pictures(data, np.flatnonzero(found))
    drawn = [data.batch(step, 8) for step in range(3)]
    assert sorted(labels) == sorted(np.concatenate([b["labels"].numpy() for b in drawn]))
    theirs = np.concatenate([b["pixel_values"].flatten(1).numpy() for b in drawn])
    order, other = (np.lexsort(of.T[::-1]) for of in (pixels, theirs))
    assert pixels.dtype == np.float32 and np.allclose(pixels[order], theirs[other], atol=1e-6)
    assert seen.evaluated(data, "test")[0].shape == (data.evaluated("test"), pixels.shape[1])
