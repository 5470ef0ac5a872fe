"""Find the local features of all frames of the mapping sessions, and what validation needs of the held-out ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.features.keypoints import Keypoints
from rgsiam_ros.mapping.extraction import Extractor
from rgsiam_ros.mapping.labels import Labels
from rgsiam_ros.mapping.progress import Progress
from rgsiam_ros.mapping.spoilt_images import mirrored, spoilt
from rgsiam_ros.recordings.base import Dataset, require_shape

GOLDEN_VIEWS = 4
MOST_SPOILT = 80
"""Number of held-out images that are spoilt, mirrored, and looked for in the map without their place."""


@dataclass(frozen=True)
class FrameFeatures:
    """The local features of all frames. Dictionaries are by the index of a held-out frame."""

    keypoints: list[Keypoints] = field(default_factory=list)
    """As a map has them, with descriptors in half precision."""
    live: dict[int, Keypoints] = field(default_factory=dict)
    """As a live image has them."""
    spoilt: dict[int, tuple[Keypoints, ...]] = field(default_factory=dict)
    """Of some: the features of their spoilt versions, see `rgsiam_ros.mapping.spoilt_images`."""
    mirrored: dict[int, Keypoints] = field(default_factory=dict)
    """Of the same: the features of the mirrored image."""
    view_HW: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    """Of some: the grey image, of which golden views are chosen."""


def find_features(
    datasets: Sequence[Dataset],
    labels: Labels,
    extractor: Extractor,
    most_live: int,
    seed: int,
    progress: Progress,
) -> FrameFeatures:
    """Read every image once. most_live: most keypoints of a live image; seed: of the spoilt images.

    Raises DatasetError for an image whose shape is not that of the camera.
    """
    advance = progress.start("local features", len(labels.held_out_N))
    held = np.flatnonzero(labels.held_out_N)
    views = set(held[:: max(1, len(held) // (4 * GOLDEN_VIEWS))].tolist())
    hard = set(held[:: max(1, -(-len(held) // MOST_SPOILT))].tolist())
    random = np.random.default_rng(seed)
    features = FrameFeatures()

    def live(image_HW: NDArray[np.uint8]) -> Keypoints:
        return extractor.keypoints(image_HW).strongest(most_live)

    images = chain.from_iterable(dataset.read_images() for dataset in datasets)
    decoded = (
        require_shape(image.decode(), extractor.camera, frame.name)
        for frame, image in zip(labels.frames, images, strict=True)
    )
    for index, (fitted, found) in enumerate(extractor.each(decoded)):
        if labels.held_out_N[index]:
            features.live[index] = found.strongest(most_live)
        if index in views:
            features.view_HW[index] = fitted
        if index in hard:
            features.spoilt[index] = tuple(live(image) for image in spoilt(fitted, random))
            features.mirrored[index] = live(mirrored(fitted))
        features.keypoints.append(
            Keypoints(found.pixel_N2, found.descriptor_ND.astype(np.float16), found.score_N)
        )
        advance(1)
    return features
