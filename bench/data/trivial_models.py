"""The reference lines of a run: trivial models of the data it sees, on its evaluation data."""

import math
from typing import Any

import numpy as np

from bench.data import ngrams, seen, softmax_regression, tokenizer
from bench.data.batches import Images, Tokens

ORDERS = ("unigram", "bigram", "trigram", "4-gram")
VARIANT = "interpolated Kneser-Ney, modified discounts (Chen and Goodman 1998)"


def of_text(data: Tokens, steps: int, examples: int, name: str) -> dict[str, Any]:
    """Uniform and n-gram models of the tokens in the batches of `steps` steps.

    examples: per step; name: that of the tokenizer. Losses are nats per predicted token.
    """
    positions = seen.positions(data, steps, examples)
    windows = {part: seen.windows(data, part) for part in ("validation", "test")}
    vocabulary = data.vocab_size
    validation, test = ngrams.losses(
        *(data.parts["train"], positions, list(windows.values()), vocabulary, len(ORDERS))
    )
    lengths = np.array(tokenizer.byte_lengths(name))
    bytes_per_token = float(lengths[windows["test"][:, 1:]].mean())
    even = math.log(vocabulary)
    rows = [("uniform", even, even), *zip(ORDERS, test, validation, strict=True)]
    lines = [
        {
            "name": name,
            "loss": loss,
            "validation_loss": validation_loss,
            "bits_per_byte": loss / math.log(2) / bytes_per_token,
            "accuracy": None,
        }
        for name, loss, validation_loss in rows
    ]
    return {
        "unit": data.unit,
        "lines": lines,
        "bytes_per_token": bytes_per_token,
        "seen": int(positions.sum()),
        "there": len(positions),
        "evaluated": {part: len(own) for part, own in windows.items()},
        "model": VARIANT,
    }


def of_images(data: Images, steps: int, examples: int) -> dict[str, Any]:
    """Uniform and softmax regression on the images in the batches of `steps` steps, with the L2
    strength chosen on validation. Losses are nats per image."""
    chosen = seen.images(data, steps, examples)
    validation, test = (seen.evaluated(data, part) for part in ("validation", "test"))
    train = seen.pictures(data, np.flatnonzero(chosen))
    fitted = softmax_regression.tuned(train, validation, data.classes)
    even = math.log(data.classes)
    (loss, accuracy), (validation_loss, _) = fitted.tested(test), fitted.tested(validation)
    rows = [
        ("uniform", even, even, 1 / data.classes),
        ("softmax regression", loss, validation_loss, accuracy),
    ]
    names = ("name", "loss", "validation_loss", "accuracy")
    return {
        "unit": data.unit,
        "lines": [{**dict(zip(names, row, strict=True)), "bits_per_byte": None} for row in rows],
        "bytes_per_token": None,
        "seen": int(chosen.sum()),
        "there": len(chosen),
        "evaluated": {"validation": len(validation[1]), "test": len(test[1])},
        "model": f"softmax regression, L2 strength {fitted.strength:.3g}",
    }
