"""Join matches of image pairs to tracks: all observations of one point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

MOST_OBSERVATIONS = 16
"""A longer track is thinned to this many observations, evenly over its images."""
ROUNDS = 12
REMOVED_SHARE = 0.25
"""Share of the matches of a track in conflict that each round removes."""


@dataclass(frozen=True)
class Tracks:
    """P tracks of at most L observations."""

    keypoint_PL: NDArray[np.int64]
    """Indices of the keypoints, counted over all images; -1 where there is no observation."""

    @property
    def valid_PL(self) -> NDArray[np.bool_]:
        """Which observations exist."""
        return self.keypoint_PL >= 0


def join_matches(
    first_M: NDArray[np.int64],
    second_M: NDArray[np.int64],
    similarity_M: NDArray[np.float32],
    image_of_keypoint_N: NDArray[np.int64],
    fewest: int = 2,
) -> Tracks:
    """Tracks of at least `fewest` images from M matches.

    first_M, second_M: indices of the matched keypoints, counted over all N keypoints of all images;
    image_of_keypoint_N: the image of each keypoint, not falling. One wrong match joins two points, and then
    an image has several keypoints in one track. Such tracks are split: their least similar matches are
    removed until there is no conflict. What still is in conflict after `ROUNDS` rounds is discarded.
    """
    N = len(image_of_keypoint_N)
    tracks = []
    a, b, similarity = first_M, second_M, similarity_M
    for _ in range(ROUNDS):
        if not len(a):
            break
        graph = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(N, N))
        _, label = connected_components(graph, directed=False)
        used = np.unique(np.concatenate([a, b]))
        order = used[np.lexsort((image_of_keypoint_N[used], label[used]))]
        track, image = label[order], image_of_keypoint_N[order]
        doubled = (track[1:] == track[:-1]) & (image[1:] == image[:-1])
        conflicts = np.bincount(track[1:][doubled], minlength=label.max() + 1)
        size = np.bincount(track, minlength=label.max() + 1)
        clean = conflicts == 0
        tracks.append(order[clean[track] & (size[track] >= fewest)])
        dirty = ~clean[label[a]]
        a, b, similarity = a[dirty], b[dirty], similarity[dirty]
        if len(a):
            part = label[a]
            rank = np.lexsort((similarity, part))
            start = np.searchsorted(part[rank], part[rank])
            total = np.bincount(part, minlength=label.max() + 1)[part[rank]]
            removed = (np.arange(len(rank)) - start) < np.ceil(REMOVED_SHARE * total)
            kept = rank[~removed]
            a, b, similarity = a[kept], b[kept], similarity[kept]
        tracks[-1] = np.stack([tracks[-1], label[tracks[-1]]])
    return _table(tracks)


def _table(rounds: list[NDArray[np.int64]]) -> Tracks:
    """Tracks from the keypoints and labels ``(2, n)`` of each round, sorted by label."""
    rows = []
    for keypoint, label in rounds:
        _, first, length = np.unique(label, return_index=True, return_counts=True)
        place = np.arange(MOST_OBSERVATIONS)
        thinned = np.minimum(length, MOST_OBSERVATIONS)
        step = (length - 1) / np.maximum(thinned - 1, 1)
        at = first[:, None] + np.rint(place * step[:, None]).astype(np.int64)
        exists = place < thinned[:, None]
        rows.append(
            np.where(exists, keypoint[np.where(exists, at, 0)], -1)
            if len(first)
            else np.empty((0, MOST_OBSERVATIONS), np.int64)
        )
    return Tracks(np.concatenate(rows) if rows else np.empty((0, MOST_OBSERVATIONS), np.int64))
