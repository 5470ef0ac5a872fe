"""The labels of the frames that a map is built from, and which frames are held out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.recordings.base import Dataset, Frame, frames_of, poses_of
from rgsiam_ros.uncertainty.covariance import MINIMUM_SAMPLES
from rgsiam_ros.uncertainty.geometric import FEWEST_FITTED

logger = logging.getLogger(__name__)

FEWEST_FRAMES = 12
HELD_OUT, PERIOD = 3, 24
"""Of every `PERIOD` frames, the last `HELD_OUT` are held out."""
FEWEST_HELD_OUT = MINIMUM_SAMPLES + 4
"""If these would be fewer, every fourth frame is held out, or every third: a training that holds out the same frames
needs `MINIMUM_SAMPLES`."""


@dataclass(frozen=True)
class Labels:
    """All N frames of the datasets, in order."""

    frames: list[Frame]
    session_N: NDArray[np.int64]
    """Number of the session of each frame, rising."""
    T_map_camera_N44: Array
    """Poses of the camera in the map frame, metres."""
    held_out_N: NDArray[np.bool_]
    """Which frames validate the map. The map is built from the others."""


def read_labels(datasets: Sequence[Dataset]) -> Labels:
    """The poses of all frames. Raises DatasetError if there are too few."""
    names = ", ".join(str(dataset.path) for dataset in datasets)
    frames = frames_of(datasets)
    if len(frames) < FEWEST_FRAMES:
        raise DatasetError(
            f"{names}: {len(frames)} posed images are too few for a map: record at least {FEWEST_FRAMES}"
        )
    lengths = [len(list(group)) for _, group in groupby(frames, key=lambda frame: frame.session)]
    held_out = held_out_frames(len(frames))
    if held_out.sum() < FEWEST_FITTED:
        logger.warning(
            "%s: %d images are too few to fit a covariance, which needs poses of %d held-out images: "
            "record at least %d",
            *(names, len(frames), FEWEST_FITTED, 4 * FEWEST_FITTED),
        )
    session = np.repeat(np.arange(len(lengths)), lengths)
    return Labels(frames, session, poses_of(frames), held_out)


def held_out_frames(count: int) -> NDArray[np.bool_]:
    """Which of so many frames are held out. If they are too few for a training, the map keeps as many as possible."""
    index = np.arange(count)
    stretches, fourth, third = index % PERIOD >= PERIOD - HELD_OUT, index % 4 == 2, index % 3 == 1
    if stretches.sum() >= FEWEST_HELD_OUT:
        return stretches
    if fourth.sum() > MINIMUM_SAMPLES or third.sum() < MINIMUM_SAMPLES:
        return fourth
    return third


def held_out_text(labels: Labels) -> str:
    """How the frames were held out, in words."""
    frames, held = len(labels.held_out_N), int(labels.held_out_N.sum())
    stretches = (labels.held_out_N[1:] & labels.held_out_N[:-1]).any()
    how = "in short stretches" if stretches else "one by one"
    return f"{held} of {frames} frames of the mapping sessions, {how} all along the way"
