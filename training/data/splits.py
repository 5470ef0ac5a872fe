"""Validation split: frames of each session are held out, in long stretches or all along the way.

Neighbouring frames of a drive are nearly equal, so validation on random frames would measure memorisation.
Whole stretches are held out, and the guard frames beside them are used for neither training nor validation. A drive that
passes each place once has no map where a long stretch is missing. Then a few frames in a row are held out all along the way.
``map`` holds out the frames that `rgsiam map build` holds out of the same sessions, so that a map and a network can be
compared on images that neither has seen. One guard frame on either side is not trained on, unless this would leave
fewer than half of the frames.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.mapping.labels import held_out_frames
from rgsiam_ros.recordings.base import Frame, poses_of
from rgsiam_ros.uncertainty.covariance import MINIMUM_SAMPLES
from rgsiam_training.config import SplitConfig

Split = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Indices of the training frames and of the validation frames."""

CALIBRATION_SAMPLES = 24
"""Held-out frames that are needed to calibrate a bundle."""
SMALL = 120
"""Frames below which fewer are held out than a calibration needs."""
FEWEST_FRAMES = 3 * MINIMUM_SAMPLES
FEWEST_GUARDS = 2
"""Guard frames beside the stretch of a short session, at least."""
IN_A_ROW = 2
"""Frames in a row that are held out all along the way, with one guard frame on either side."""
LARGEST_FAR_SHARE = 0.5
"""Largest share of the held-out frames that may be nowhere in the map."""
SAME_WAY_COSINE = 0.5
"""Cosine of the largest angle between two optical axes that look the same way."""

logger = logging.getLogger(__name__)


def split_frames(frames: Sequence[Frame], config: SplitConfig, reach_m: float, seed: int) -> Split:
    """Return the indices of the training frames and of the validation frames, as `SplitConfig.hold_out` says.

    ``auto`` holds out stretches, unless more than half of their frames are then farther than `reach_m` (metres) from any
    training frame that looks the same way, or no session is long enough. If `SplitConfig.fraction` holds out fewer frames
    than an export needs, it is raised. Logs what was chosen.

    Raises DatasetError when there are too few frames, or when no training or no validation frame is left.
    """
    if len(frames) < FEWEST_FRAMES:
        raise DatasetError(
            f"{len(frames)} posed images are too few to train and to validate with: record at least {FEWEST_FRAMES}"
        )
    if config.hold_out == "map":
        held = held_out_frames(len(frames))
        guarded = np.convolve(held, [True] * 3, "same").astype(bool)
        beside = guarded if 2 * guarded.sum() <= len(frames) else held
        return _exportable(_remaining(frames, config, ~beside, held), len(frames))
    config = _enough(config, len(frames))
    if config.hold_out != "interleaved":
        try:
            split = split_contiguous(frames, config, seed)
        except DatasetError:
            if config.hold_out == "stretches":
                raise
        else:
            far = _far_share(poses_of(frames), split, reach_m)
            needed = _needed(len(frames))
            enough = len(split[1]) >= needed or bool(config.leave_out)
            if config.hold_out == "stretches" or (far <= LARGEST_FAR_SHARE and enough):
                return _exportable(split, len(frames))
            logger.info(
                "the drive passes most places once: frames are held out all along the way, not in stretches "
                "(split.hold_out)"
            )
    split = _remaining(frames, config, *split_interleaved(frames, config))
    return _exportable(split, len(frames))


def split_contiguous(frames: Sequence[Frame], config: SplitConfig, seed: int) -> Split:
    """Return the indices of the training frames and of the validation frames.

    Each session is divided into ``round(fraction * length / stretch_frames)`` equal parts (at least one). In
    each part one stretch is held out at a seeded random position. A stretch has ``stretch_frames`` frames, or
    ``fraction * length`` (at least 2) if that is less. A session that is too short for this is trained on as a whole, with
    a warning. Guard frames and the frames inside the circles of `SplitConfig.leave_out` are in neither result; `leave_out`
    does not change where the stretches are.

    Raises DatasetError when all sessions are too short, or when no training or no validation frame is left.
    """
    random = np.random.default_rng(seed)
    held = np.zeros(len(frames), bool)
    guarded = np.zeros(len(frames), bool)
    short = []
    start = 0
    for session, group in groupby(frames, key=lambda frame: frame.session):
        length = len(list(group))
        stretches = max(1, round(config.fraction * length / config.stretch_frames))
        stretch = min(config.stretch_frames, max(2, round(config.fraction * length)))
        edges = np.linspace(0, length, stretches + 1).astype(int)
        room = int(np.diff(edges).min()) - stretch - 1
        guard = min(config.guard_frames, max(length // 20, room // 2))
        if room < 2 * guard or guard < min(config.guard_frames, FEWEST_GUARDS):
            short.append(f"{session} ({length} frames)")
        else:
            for low, high in pairwise(edges):
                first = start + int(random.integers(low, high - stretch + 1))
                held[first : first + stretch] = True
                low_guard, high_guard = max(start, first - guard), first + stretch + guard
                guarded[low_guard : min(high_guard, start + length)] = True
        start += length
    if not held.any():
        raise DatasetError(
            f"session {', '.join(short)}: too few frames to hold out a stretch with its guards: lower "
            "split.stretch_frames or split.guard_frames, hold out frames all along the way (--hold-out interleaved), or "
            "record longer"
        )
    if short:
        logger.warning(
            "too short to hold out a stretch, and trained on as a whole: %s", ", ".join(short)
        )
    return _remaining(frames, config, ~(held | guarded), held)


def split_interleaved(
    frames: Sequence[Frame], config: SplitConfig
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which frames are for training and which for validation: a few in a row, all along each session."""
    period = max(IN_A_ROW + 3, int(IN_A_ROW / config.fraction))
    place = np.concatenate(
        [np.arange(len(list(g))) for _, g in groupby(frames, key=lambda f: f.session)]
    )
    place = place % period - (period - IN_A_ROW) // 2
    held = (place >= 0) & (place < IN_A_ROW)
    return (place < -1) | (place > IN_A_ROW), held


def _remaining(
    frames: Sequence[Frame],
    config: SplitConfig,
    training: NDArray[np.bool_],
    validation: NDArray[np.bool_],
) -> Split:
    """The indices of both without the circles that are left out."""
    kept = ~config.inside(poses_of(frames)[:, :3, 3])
    split = np.flatnonzero(training & kept), np.flatnonzero(validation & kept)
    if not (len(split[0]) and len(split[1])):
        raise DatasetError(
            "no frame is left for training or for validation: make the circles of split.leave_out "
            "smaller"
        )
    return split


def _exportable(split: Split, count: int) -> Split:
    """The split unchanged. Raises DatasetError if it holds out too few of `count` frames for an export."""
    if len(split[1]) < MINIMUM_SAMPLES:
        raise DatasetError(
            f"only {len(split[1])} of {count} frames would be held out, an export needs {MINIMUM_SAMPLES}: hold "
            "out more (--set split.fraction), or make the circles of split.leave_out smaller"
        )
    return split


def _needed(count: int) -> int:
    return CALIBRATION_SAMPLES if count >= SMALL else MINIMUM_SAMPLES


def _enough(config: SplitConfig, count: int) -> SplitConfig:
    """The configuration with a share that holds out enough frames of `count`."""
    if round(config.fraction * count) >= _needed(count):
        return config
    fraction = (_needed(count) + 1) / count
    logger.warning(
        "%.0f %% of the frames are held out instead of %.0f %%, because an export needs %d",
        *(100.0 * fraction, 100.0 * config.fraction, _needed(count)),
    )
    return config.model_copy(update={"fraction": fraction})


def _far_share(T_N44: Array, split: Split, reach_m: float) -> float:
    """Share of the validation frames without a training frame within reach that looks the same way."""
    training, validation = (T_N44[indices] for indices in split)
    far = 0
    for T in validation:
        near = np.linalg.norm(training[:, :3, 3] - T[:3, 3], axis=1) <= reach_m
        far += not (near & (training[:, :3, 2] @ T[:3, 2] >= SAME_WAY_COSINE)).any()
    return far / len(validation)
