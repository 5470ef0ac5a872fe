"""The labels of the frames that a map is built from, and which frames are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.recordings.base import Dataset

FEWEST_FRAMES = 12
HELD_OUT, PERIOD = 3, 24
"""Of every `PERIOD` frames, the last `HELD_OUT` are held out."""
FEWEST_HELD_OUT = 6
"""If these would be fewer, every fourth frame is held out."""
SMALLEST_SPREAD_M = 1e-3
"""If no camera is farther than this from the mean position, there is no parallax. Metres."""


@dataclass(frozen=True)
class Labels:
    """All N frames of the datasets, in order."""

    T_map_camera_N44: Array
    """Poses of the camera in the map frame, metres."""
    held_out_N: NDArray[np.bool_]
    """Which frames validate the map. The map is built from the others."""


def read_labels(datasets: Sequence[Dataset]) -> Labels:
    """The poses of all frames. Raises DatasetError, before any image is read, if they cannot give a map."""
    names = ", ".join(str(dataset.path) for dataset in datasets)
    poses = [frame.T_map_camera for dataset in datasets for frame in dataset.frames]
    if len(poses) < FEWEST_FRAMES:
        raise DatasetError(
            f"{names}: {len(poses)} posed images are too few for a map: record at least {FEWEST_FRAMES}"
        )
    T_N44 = np.stack(poses)
    spread = float(np.linalg.norm(T_N44[:, :3, 3] - T_N44[:, :3, 3].mean(axis=0), axis=1).max())
    if spread < SMALLEST_SPREAD_M:
        raise DatasetError(
            f"{names}: the camera only turns (all positions lie within {2e3 * spread:.1f} mm), and points "
            "cannot be triangulated without parallax: move the camera while you record"
        )
    held_out = np.arange(len(poses)) % PERIOD >= PERIOD - HELD_OUT
    if held_out.sum() < FEWEST_HELD_OUT:
        held_out = np.arange(len(poses)) % 4 == 2
    return Labels(T_N44, held_out)


def held_out_text(labels: Labels) -> str:
    """How the frames were held out, in words."""
    frames, held = len(labels.held_out_N), int(labels.held_out_N.sum())
    stretches = (labels.held_out_N[1:] & labels.held_out_N[:-1]).any()
    how = "in short stretches" if stretches else "one by one"
    return f"{held} of {frames} frames of the mapping sessions, {how} all along the way"
