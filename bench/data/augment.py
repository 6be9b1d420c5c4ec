"""Random changes to training images that do not affect their class."""

import numpy as np

NAMES = ("none", "shift_flip")
SHIFT = 2  # pixels, the maximum in each direction
STREAM = 1  # separates these random numbers from those of the image order


def shift_flip(images: np.ndarray, seed: int, step: int) -> np.ndarray:
    """Shift each image by up to SHIFT pixels, filled with black, and mirror half of the images.

    images: uint8 (N, H, W, C), like the result. A function of its arguments alone.
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
