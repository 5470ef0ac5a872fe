"""Where along the way some frames lie, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.geometry.units import length_text
from rgsiam_ros.recordings.base import Frame

MOST_NAMED = 5
"""Number of stretches that are named; of more, the longest ones."""


def stretches(
    chosen_N: NDArray[np.bool_], session_N: NDArray[np.int64], gap: int
) -> list[NDArray[np.int64]]:
    """The indices of the chosen frames, one array for each stretch.

    session_N: number of the session of each frame, not falling. A stretch lies in one session; up to `gap`
    frames in a row that are not chosen do not end it.
    """
    index = np.flatnonzero(chosen_N)
    if not len(index):
        return []
    ends = (np.diff(index) > gap + 1) | (np.diff(session_N[index]) != 0)
    return np.split(index, np.flatnonzero(ends) + 1)


def describe_stretches(
    chosen_N: NDArray[np.bool_], frames: Sequence[Frame], session_N: NDArray[np.int64], gap: int
) -> str:
    """The stretches of the chosen frames: names, seconds and metres from the start of the session.

    The arguments are those of `stretches`, and all N frames.
    """
    every = stretches(chosen_N, session_N, gap)
    longest = sorted(range(len(every)), key=lambda i: -len(every[i]))[:MOST_NAMED]
    text = "; ".join(_describe(every[i], frames, session_N) for i in sorted(longest))
    left = len(every) - len(longest)
    return f"{text}; and {left} shorter stretches" if left else text


def _describe(
    stretch: NDArray[np.int64], frames: Sequence[Frame], session_N: NDArray[np.int64]
) -> str:
    first, last = int(stretch[0]), int(stretch[-1])
    start = int(np.searchsorted(session_N, session_N[first]))
    position = np.stack([frame.T_map_camera[:3, 3] for frame in frames[start : last + 1]])
    steps = np.linalg.norm(np.diff(position, axis=0), axis=1)
    metres = [float(part.sum()) for part in (steps[: first - start], steps)]
    seconds = [(frames[i].stamp_ns - frames[start].stamp_ns) * 1e-9 for i in (first, last)]
    if first == last:
        seconds, metres = seconds[:1], metres[:1]
    where = f"{' to '.join(f'{s:.1f}' for s in seconds)} s"
    if np.isfinite(metres).all():  # not a frame without a pose
        where += f" and {' to '.join(length_text(m) for m in metres)}"
    where += f" from the start of {frames[first].session}"
    if first == last:
        return f"{frames[first].name} ({where})"
    return f"{frames[first].name} to {frames[last].name} ({len(stretch)} images, {where})"
