"""Images that no pose can be estimated from, made from real ones."""

import numpy as np

from rgsiam_training.export.corruptions import CORRUPTIONS


def test_corrupted_images_keep_their_size_and_differ():
    random = np.random.default_rng(0)
    image = random.integers(0, 255, (48, 64, 3), np.uint8)
    image[:24] //= 2
    for corrupt in CORRUPTIONS.values():
        corrupted = corrupt(image, np.random.default_rng(1))
        assert corrupted.shape == image.shape
        assert corrupted.dtype == np.uint8
        assert np.abs(corrupted.astype(int) - image).mean() > 10
    assert (CORRUPTIONS["night"](image, random).mean()) < 20
