"""Choose the points that the map keeps: the best ones of each image, spread over the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GRID = (8, 5)
"""Number of cells of an image, across and down. Points are taken from all cells in turn."""


def best_points(
    image_V: NDArray[np.int64],
    point_V: NDArray[np.int64],
    pixel_V2: NDArray[np.float64],
    score_P: NDArray[np.float64],
    size_wh: tuple[int, int],
    per_image: int,
) -> NDArray[np.bool_]:
    """Which of the P points are kept.

    image_V, point_V, pixel_V2: image, point and pixel of each observation, sorted by image; score_P: how good
    each point is; size_wh: width and height of the images, pixels; per_image: number of kept points that each
    image sees, where it sees that many. A point that an earlier image has chosen counts for every image that
    sees it.
    """
    kept = np.zeros(len(score_P), bool)
    cell_xy = np.clip(pixel_V2 / np.array(size_wh) * GRID, 0, np.array(GRID) - 1).astype(np.int64)
    cell_V = cell_xy[:, 1] * GRID[0] + cell_xy[:, 0]
    first = np.searchsorted(image_V, np.unique(image_V))
    for rows in np.split(np.arange(len(image_V)), first[1:]):
        points, cells = point_V[rows], cell_V[rows]
        missing = per_image - int(kept[points].sum())
        if missing <= 0:
            continue
        order = np.lexsort((-score_P[points], ~kept[points], cells))
        start = np.searchsorted(cells[order], cells[order])
        turn = np.empty(len(rows), np.int64)
        turn[order] = np.arange(len(rows)) - start
        free = np.flatnonzero(~kept[points])
        chosen = free[np.lexsort((-score_P[points[free]], turn[free]))][:missing]
        kept[points[chosen]] = True
    return kept
