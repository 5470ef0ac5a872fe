"""What a recording cannot give a map: it is refused if this is most of the images, and named otherwise."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.mapping.extraction import Extractor
from rgsiam_ros.mapping.labels import HELD_OUT, Labels
from rgsiam_ros.mapping.pairs import LARGEST_ANGLE, neighbour_pairs
from rgsiam_ros.mapping.stretches import describe_stretches
from rgsiam_ros.recordings.base import Dataset

logger = logging.getLogger(__name__)

LARGEST_POOR_SHARE = 0.5
"""Share of the images that may lack something."""
FEWEST_KEYPOINTS = 50
"""A map image with fewer keypoints has too little texture."""
SAMPLES = 20
"""Number of images whose texture is looked at before the long work."""
FEWEST_POINTS = 30
"""A map image that sees fewer points cannot be found again."""
SMALLEST_BASELINE_M = 0.01
"""If an image and all that it is matched with are nearer than this to each other, there is no parallax."""
LARGEST_DISTANCE_M = 30.0
"""Images farther apart than this share nothing that can be matched."""


def check_neighbours(labels: Labels) -> None:
    """Raise DatasetError if most map images have no other one that can share points with them.

    Only poses are needed. A neighbour is near enough, looks the same way, and is not at the same place.
    """
    mapped = np.flatnonzero(~labels.held_out_N)
    T = labels.T_map_camera_N44[mapped]
    pairs = neighbour_pairs(T)
    metres = np.linalg.norm(T[pairs[:, 0], :3, 3] - T[pairs[:, 1], :3, 3], axis=1)
    near = metres <= LARGEST_DISTANCE_M
    paired, moved = (np.zeros(len(labels.frames), bool) for _ in range(2))
    paired[mapped[pairs[near]]] = True
    moved[mapped[pairs[near & (metres > SMALLEST_BASELINE_M)]]] = True
    _judge(
        ~labels.held_out_N & ~paired,
        labels,
        len(mapped),
        f"are alone: no other image within {LARGEST_DISTANCE_M:.0f} m looks the same way, up to "
        f"{np.degrees(LARGEST_ANGLE):.0f} degrees",
        "record images closer together, or check the poses with `rgsiam inspect`",
    )
    _judge(
        paired & ~moved,
        labels,
        len(mapped),
        "have no parallax: the camera stands or only turns",
        "points cannot be triangulated there: move the camera while you record",
    )


def check_sample(datasets: Sequence[Dataset], labels: Labels, extractor: Extractor) -> None:
    """Raise DatasetError if most images of a small, even sample have too little texture."""
    count = len(labels.frames)
    sample = np.unique(np.linspace(0, count - 1, SAMPLES).round().astype(np.int64))
    chosen = set(sample.tolist())
    poor = np.zeros(count, bool)
    images = chain.from_iterable(dataset.read_images() for dataset in datasets)
    for index, image in enumerate(images):
        if index in chosen:
            found = extractor.keypoints(np.ascontiguousarray(extractor.fit(image.decode())))
            poor[index] = len(found.score_N) < FEWEST_KEYPOINTS
    if poor.sum() > LARGEST_POOR_SHARE * len(sample):
        check_texture(poor, labels, len(sample), gap=count // len(sample))


def check_texture(
    poor_N: NDArray[np.bool_], labels: Labels, looked_at: int, gap: int = HELD_OUT
) -> None:
    """Raise DatasetError if most images that were looked at have too few keypoints.

    poor_N: which frames have fewer than `FEWEST_KEYPOINTS`.
    """
    _judge(
        poor_N,
        labels,
        looked_at,
        f"have fewer than {FEWEST_KEYPOINTS} keypoints",
        "they show too little texture, are blurred or dark",
        gap,
    )


def check_points(seen_N: NDArray[np.int64], labels: Labels) -> None:
    """Raise DatasetError if most map images see too few points. seen_N: number for each map image."""
    poor = np.zeros(len(labels.frames), bool)
    poor[~labels.held_out_N] = seen_N < FEWEST_POINTS
    _judge(
        poor,
        labels,
        len(seen_N),
        f"share fewer than {FEWEST_POINTS} points with others",
        "record images closer together, or check the poses with `rgsiam inspect`",
    )


def _judge(
    poor_N: NDArray[np.bool_],
    labels: Labels,
    count: int,
    what: str,
    advice: str,
    gap: int = HELD_OUT,
) -> None:
    """Refuse, or warn. count: number of images that were looked at; gap: see `describe_stretches`."""
    poor = int(poor_N.sum())
    if not poor:
        return
    where = describe_stretches(poor_N, labels.frames, labels.session_N, gap)
    text = f"{poor} of {count} images {what}: {where}; {advice}"
    if poor > LARGEST_POOR_SHARE * count:
        raise DatasetError(f"a map cannot be built: {text}")
    logger.warning("%s; poses there will be rare", text)
