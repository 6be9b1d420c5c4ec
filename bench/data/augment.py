"""Pictures changed at random as they are trained on: what a class does not depend on."""

import numpy as np

NAMES = ("none", "shift_flip")
SHIFT = 2  # pixels, at most, in each direction
STREAM = 1  # sets these random numbers apart from those of the order of pictures


def shift_flip(images: np.ndarray, seed: int, step: int) -> np.ndarray:
    """Each image moved by up to SHIFT pixels, what comes in black, and half of them mirrored.

    images: uint8 (N, H, W, C), as are those returned. A function of its arguments alone.
    """
    count, height, width, _ = images.shape
    generator = np.random.default_rng([seed, step, STREAM])
    down, right = generator.integers(-SHIFT, SHIFT, size=(2, count, 1), endpoint=True)
    mirrored = generator.random(count) < 0.5
    rows, columns = (SHIFT + by + np.arange(size) for by, size in ((down, height), (right, width)))
    columns[mirrored] = columns[mirrored, ::-1]
    edge = (SHIFT, SHIFT)
    padded = np.pad(images, ((0, 0), edge, edge, (0, 0)))
    return padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
