"""Match the images of a map with their neighbours and keep what the known poses allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.features.keypoints import Keypoints, from_bytes, to_bytes
from rgsiam_ros.features.matching import Matches, mutual_matches
from rgsiam_ros.geometry.poses import Array, invert
from rgsiam_ros.mapping.pairs import epipolar_distances
from rgsiam_ros.mapping.progress import Advance

LEAST_SIMILARITY = 0.82
EPIPOLAR_PX = 3.0
"""Largest distance of a match from its epipolar line, pixels of the local features' image."""


@dataclass(frozen=True)
class MapImage:
    """The local features of one map image."""

    pixel_N2: NDArray[np.float32]
    descriptor_ND: NDArray[np.int8]

    @classmethod
    def of(cls, keypoints: Keypoints) -> MapImage:
        """The keypoints of an image, as a map keeps them."""
        return cls(keypoints.pixel_N2, to_bytes(keypoints.descriptor_ND))


@dataclass(frozen=True)
class MapMatches:
    """M matches between the keypoints of all images, counted over all images."""

    first_M: NDArray[np.int64]
    second_M: NDArray[np.int64]
    similarity_M: NDArray[np.float32]
    pairs: int
    """Number of image pairs."""
    proposed: int
    """Number of matches before the epipolar check."""


def proposed_matches(images: Sequence[MapImage], pairs_P2: NDArray[np.int64]) -> Iterator[Matches]:
    """The matches of each pair of images, by their descriptors alone."""
    last, descriptors = -1, np.empty((0, 0), np.float32)
    for i, j in pairs_P2:
        if i != last:
            last, descriptors = i, from_bytes(images[i].descriptor_ND)
        other = from_bytes(images[j].descriptor_ND)
        yield mutual_matches(descriptors @ other.T, LEAST_SIMILARITY)


def match_pairs(
    images: Sequence[MapImage],
    T_map_camera_N44: Array,
    pairs_P2: NDArray[np.int64],
    K: Array,
    advance: Advance,
) -> MapMatches:
    """Match each pair of images. advance: is called with the number of pairs done since the last call."""
    offset = np.cumsum([0] + [len(image.pixel_N2) for image in images])
    T_camera_map = invert(T_map_camera_N44)
    first, second, similarity = [], [], []
    proposed = 0
    for (i, j), found in zip(pairs_P2, proposed_matches(images, pairs_P2), strict=True):
        distance = epipolar_distances(
            images[i].pixel_N2[found.first_M].astype(np.float64),
            images[j].pixel_N2[found.second_M].astype(np.float64),
            T_camera_map[i] @ T_map_camera_N44[j],
            K,
        )
        good = distance < EPIPOLAR_PX
        proposed += len(good)
        first.append(offset[i] + found.first_M[good])
        second.append(offset[j] + found.second_M[good])
        similarity.append(found.similarity_M[good])
        advance(1)
    none = [np.empty(0, np.int64)]
    return MapMatches(
        np.concatenate(first or none),
        np.concatenate(second or none),
        np.concatenate(similarity or [np.empty(0, np.float32)]),
        len(pairs_P2),
        proposed,
    )
