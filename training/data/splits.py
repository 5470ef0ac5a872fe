"""Cut validation out of training sessions: contiguous stretches with guard gaps.

Neighbouring frames of a drive are near-copies of each other; validating on random frames would
measure memory. A stretch is held out whole, and the frames beside it belong to neither side.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.recordings.base import Frame
from rgsiam_training.config import SplitConfig


def split_contiguous(
    frames: Sequence[Frame], config: SplitConfig, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the training and of the validation frames; the guards are in neither.

    Each session gets ``round(fraction * length / stretch_frames)`` stretches (at least one), one at
    a seeded random place in each of as many equal parts. Frames of `SplitConfig.leave_out` are in
    neither, and do not move the cuts. Raises DatasetError for a session too short to be cut, or where
    nothing is left.
    """
    random = np.random.default_rng(seed)
    training, validation = [], []
    start = 0
    for session, group in groupby(frames, key=lambda frame: frame.session):
        length = len(list(group))
        held = np.zeros(length, bool)
        near = np.zeros(length, bool)
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
            near[guards] = True
        validation.append(start + np.flatnonzero(held))
        training.append(start + np.flatnonzero(~near))
        start += length
    left_out = config.inside(np.stack([frame.T_map_camera[:3, 3] for frame in frames]))
    parts = [np.concatenate(part) for part in (training, validation)]
    parts = [part[~left_out[part]] for part in parts]
    if not all(len(part) for part in parts):
        raise DatasetError("nothing is left to train on or to validate with: leave out less")
    return parts[0], parts[1]
