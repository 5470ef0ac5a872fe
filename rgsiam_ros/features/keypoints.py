"""Keypoints and descriptors from the outputs of the local features' network.

The network (see `rgsiam_training.features.network`) gives a descriptor and a reliability for each cell of 8 x
8 pixels, and a heat map of keypoints for each pixel. Non-maximum suppression and the choice of the best
keypoints are done here, so that the network has only operators that every engine can run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

IMAGE = "image"
"""Input of the network: ``(1, 1, H, W)``, grey values 0..255."""
DESCRIPTORS = "descriptors"
"""Output: ``(1, 64, H/8, W/8)``, unit descriptors."""
RELIABILITY = "reliability"
"""Output: ``(1, 1, H/8, W/8)``, 0..1."""
HEAT = "heat"
"""Output: ``(1, 1, H, W)``: the probability that the keypoint of a cell is at this pixel."""
CELL = 8
"""Side of a cell, pixels."""
SIDE_MULTIPLE = 32
"""The sides of the network's image are multiples of this number of pixels."""
DESCRIPTOR_SIZE = 64

SUPPRESSION_PX = 2
"""A keypoint is the maximum of the heat map within this distance along each axis."""
SMALLEST_HEAT = 0.05
BORDER_PX = 4
"""No keypoint is nearer than this to the border of the image."""
FINE_STEPS, COARSE_STEPS = 127.0, 18.0
"""Steps of an 8-bit integer that a component of 1 is stored as. Coarse ones need half the bytes of a compressed
file, and turn a descriptor by 7 degrees."""


@dataclass(frozen=True)
class Keypoints:
    """N keypoints of one image, the strongest first."""

    pixel_N2: NDArray[np.float32]
    """x, y in pixels of the network's image. The centre of the first pixel is (0, 0)."""
    descriptor_ND: NDArray[np.float32]
    """Unit descriptors."""
    score_N: NDArray[np.float32]
    """Heat times reliability, 0..1."""

    def strongest(self, most: int) -> Keypoints:
        """At most so many of them."""
        return Keypoints(self.pixel_N2[:most], self.descriptor_ND[:most], self.score_N[:most])


def extract(outputs: Mapping[str, NDArray[np.float32]], most: int) -> Keypoints:
    """The strongest keypoints of one image, at most `most`. outputs: of the network, by name."""
    heat = outputs[HEAT][0, 0]
    size = 2 * SUPPRESSION_PX + 1
    largest = cv2.dilate(heat, np.ones((size, size), np.uint8))
    peaks = (heat == largest) & (heat > SMALLEST_HEAT)
    peaks[:BORDER_PX] = peaks[-BORDER_PX:] = False
    peaks[:, :BORDER_PX] = peaks[:, -BORDER_PX:] = False
    flat = np.flatnonzero(peaks)
    row, column = np.divmod(flat, heat.shape[1])
    xy = np.stack([column, row], axis=1).astype(np.float32)
    reliability = _sampled(outputs[RELIABILITY][0], xy)[:, 0]
    score = heat.ravel()[flat] * reliability
    kept = np.argsort(-score, kind="stable")[:most]
    xy, score = xy[kept], score[kept]
    xy = xy + _offset(heat, row[kept], column[kept])
    descriptors = _sampled(outputs[DESCRIPTORS][0], xy)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True) + 1e-12
    return Keypoints(xy, descriptors, score)


def to_bytes(descriptor_ND: NDArray[np.float32], steps: float = FINE_STEPS) -> NDArray[np.int8]:
    """Unit descriptors as 8-bit integers. steps: `FINE_STEPS` or `COARSE_STEPS`."""
    return np.rint(np.clip(descriptor_ND, -1.0, 1.0) * steps).astype(np.int8)


def from_bytes(descriptor_ND: NDArray[np.int8]) -> NDArray[np.float32]:
    """Unit descriptors from 8-bit integers."""
    descriptors = descriptor_ND.astype(np.float32)
    length = np.sqrt(np.einsum("ij,ij->i", descriptors, descriptors))[:, None]
    descriptors /= np.maximum(length, 1e-12)
    return descriptors


def _offset(
    heat: NDArray[np.float32], row: NDArray[np.int64], column: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Distance ``(N, 2)`` from a peak's pixel to the vertex of a parabola through the logarithms."""
    offsets = []
    centre = np.log(heat[row, column] + 1e-9)
    for dx, dy in ((1, 0), (0, 1)):
        before = np.log(heat[row - dy, column - dx] + 1e-9)
        after = np.log(heat[row + dy, column + dx] + 1e-9)
        curvature = np.minimum(before + after - 2.0 * centre, -1e-6)
        offsets.append(np.clip(0.5 * (before - after) / curvature, -0.5, 0.5))
    return np.stack(offsets, axis=1).astype(np.float32)


def _sampled(cells_Chw: NDArray[np.float32], xy_N2: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bilinear values of a map of cells at pixels of the image, ``(N, C)``."""
    channels, h, w = cells_Chw.shape
    at = (xy_N2 - (CELL - 1) / 2.0) / CELL
    x = np.clip(at[:, 0], 0.0, w - 1.0)
    y = np.clip(at[:, 1], 0.0, h - 1.0)
    x0, y0 = np.minimum(np.floor(x), w - 2.0), np.minimum(np.floor(y), h - 2.0)
    u, v = x - x0, y - y0  # in single precision, as the products with the descriptors
    corner_N4 = (y0 * w + x0).astype(np.int32)[:, None] + np.array([0, 1, w, w + 1], np.int32)
    weight_N4 = np.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v], axis=1)
    starts = np.arange(0, corner_N4.size + 1, 4, dtype=np.int32)
    rows = csr_array((weight_N4.ravel(), corner_N4.ravel(), starts), (len(xy_N2), h * w))
    return rows @ cv2.transpose(cells_Chw.reshape(channels, h * w))
