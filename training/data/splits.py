"""Validation split: contiguous stretches of frames are held out of each session.

Neighbouring frames of a drive are nearly equal, so validation on random frames would measure memorisation.
Whole stretches are held out, and the guard frames beside them are used for neither training nor validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.recordings.base import Frame, poses_of
from rgsiam_training.config import SplitConfig


def split_contiguous(
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
