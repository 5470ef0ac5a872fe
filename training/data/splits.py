"""Validation split: frames are held out of each session.

Neighbouring frames of a drive are nearly equal, so validation on random frames would measure memorisation.
Whole stretches are held out, and the guard frames beside them are used for neither training nor validation. A drive
that passes each place once shows a stretch nowhere else. Then a few frames at a time are held out, all along the way.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.recordings.base import Frame, poses_of
from rgsiam_training.config import SplitConfig

logger = logging.getLogger(__name__)

INTERLEAVED_FRAMES, INTERLEAVED_GUARD = 3, 1
"""Frames held out at a time, and frames on either side that are not used, if they are interleaved."""
FEWEST_SEEN = 0.5
"""Share of the held-out frames that must have a training frame near them."""
SAME_WAY = np.radians(60.0)
"""Cameras whose axes differ by less look the same way."""
ENOUGH_HELD_OUT, LARGEST_FRACTION = 24, 1.0 / 3.0
"""Number of held-out frames with which a covariance can be fitted, if they are no larger share of all frames."""


def split_frames(
    frames: Sequence[Frame], config: SplitConfig, seed: int, reach_m: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the training frames and of the validation frames, as `SplitConfig.hold_out` says.

    reach_m: a training frame within this distance, that looks the same way, shows the same place. Of few frames a
    larger fraction is held out, because the calibration needs them. Logs which way was taken. Raises DatasetError as `split_stretches` does.
    """
    needed = min(ENOUGH_HELD_OUT / max(len(frames), 1), LARGEST_FRACTION)
    config = config.model_copy(update={"fraction": max(config.fraction, needed)})
    interleaved = config.model_copy(
        update={"stretch_frames": INTERLEAVED_FRAMES, "guard_frames": INTERLEAVED_GUARD}
    )
    if config.hold_out == "interleaved":
        return _logged("a few at a time", split_stretches(frames, interleaved, seed))
    try:
        stretches = split_stretches(frames, config, seed)
    except DatasetError:
        if config.hold_out == "stretches":
            raise
        return _logged("a few at a time", split_stretches(frames, interleaved, seed))
    seen = _share_seen(poses_of(frames), *stretches, reach_m)
    if config.hold_out == "stretches" or seen >= FEWEST_SEEN:
        return _logged("in stretches", stretches)
    logger.warning(
        "the drive passes most places once: of stretches held out of it, only %.0f %% would be near a training frame, "
        "so frames are held out a few at a time (split.hold_out)",
        100.0 * seen,
    )
    return _logged("a few at a time", split_stretches(frames, interleaved, seed))


def _logged(
    how: str, split: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    training, validation = split
    logger.info(
        "%d frames for training, %d held out for validation, %s",
        *(len(training), len(validation), how),
    )
    return split


def _share_seen(
    T_N44: Array, training: NDArray[np.int64], validation: NDArray[np.int64], reach_m: float
) -> float:
    """Share of the validation frames that have a training frame near them, which looks the same way."""
    tree = cKDTree(T_N44[training, :3, 3])
    near = tree.query_ball_point(T_N44[validation, :3, 3], reach_m)
    facing = [
        (T_N44[training[found], :3, 2] @ T_N44[index, :3, 2] > np.cos(SAME_WAY)).any()
        for found, index in zip(near, validation, strict=True)
    ]
    return float(np.mean(facing))


def split_stretches(
    frames: Sequence[Frame], config: SplitConfig, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the training frames and of the validation frames.

    Each session is divided into ``round(fraction * length / stretch_frames)`` equal parts (at least one). In
    each part one stretch is held out at a seeded random position. A stretch has ``stretch_frames`` frames, or
    ``fraction * length`` (at least 2) if that is less. Guard frames and the frames inside the circles of
    `SplitConfig.leave_out` are in neither result; `leave_out` does not change where the stretches are.

    Raises DatasetError when a session is too short, or when no training or no validation frame is left.
    """
    random = np.random.default_rng(seed)
    training, validation = [], []
    start = 0
    for session, group in groupby(frames, key=lambda frame: frame.session):
        length = len(list(group))
        held = np.zeros(length, bool)
        held_or_guard = np.zeros(length, bool)
        stretches = max(1, round(config.fraction * length / config.stretch_frames))
        edges = np.linspace(0, length, stretches + 1).astype(int)
        for low, high in pairwise(edges):
            stretch = min(config.stretch_frames, max(2, round(config.fraction * length)))
            if high - low < stretch + 2 * config.guard_frames + 1:
                raise DatasetError(
                    f"session {session} has {length} frames, too few to hold out a stretch of "
                    f"{stretch} with guards of {config.guard_frames}: lower split.stretch_frames "
                    "or split.guard_frames, or record longer"
                )
            first = int(random.integers(low, high - stretch + 1))
            held[first : first + stretch] = True
            guards = slice(
                max(0, first - config.guard_frames), first + stretch + config.guard_frames
            )
            held_or_guard[guards] = True
        validation.append(start + np.flatnonzero(held))
        training.append(start + np.flatnonzero(~held_or_guard))
        start += length
    left_out = config.inside(poses_of(frames)[:, :3, 3])
    kept_training, kept_validation = (
        indices[~left_out[indices]]
        for indices in (np.concatenate(training), np.concatenate(validation))
    )
    if not (len(kept_training) and len(kept_validation)):
        raise DatasetError(
            "no frame is left for training or for validation: make the circles of split.leave_out "
            "smaller"
        )
    return kept_training, kept_validation
