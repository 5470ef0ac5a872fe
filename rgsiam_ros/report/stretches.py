"""The stretches of a drive on which the poses cannot be trusted, and why."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.report.records import ReplayRecord
from rgsiam_ros.report.series import Series
from rgsiam_ros.uncertainty.geometric_trust import RIGHT_DEG, ErrorLimits

GOOD, LOST, WRONG, UNSURE = range(4)
"""Kinds of frames: without a pose, with a wrong one, and with a standard deviation beyond what counts as right."""
LONGEST_GOOD_GAP = 5
"""Two stretches with no more good frames between them are one."""


@dataclass(frozen=True)
class Stretch:
    """Consecutive frames, most of which cannot be trusted."""

    first: int
    last: int
    lost: int
    wrong: int
    unsure: int
    start_m: float
    end_m: float
    """Distance travelled."""
    place_3: Array
    """A place in the middle, metres in the map frame; NaN if none is known."""
    reason: str
    """The most frequent reason for no pose, see `reason_class`; empty if all frames have one."""

    @property
    def frames(self) -> int:
        """Number of frames, good ones included."""
        return self.last - self.first + 1

    @property
    def bad(self) -> int:
        """Number of frames that cannot be trusted."""
        return self.lost + self.wrong + self.unsure


def kinds_of(series: Series, limits: ErrorLimits) -> NDArray[np.int64]:
    """The kind of each frame ``(N,)``. A wrong pose counts as wrong, whatever its standard deviation."""
    unsure_N = (series.sigma_m_N > limits.right_m) | (series.sigma_deg_N > RIGHT_DEG)
    wrong_N = limits.wrong(series.error_m_N, series.error_deg_N)
    return np.select([~series.answered_N, wrong_N, unsure_N], [LOST, WRONG, UNSURE], GOOD)


def stretches_of(record: ReplayRecord, series: Series, limits: ErrorLimits) -> list[Stretch]:
    """All stretches, those with the most frames that cannot be trusted first."""
    kind_N = kinds_of(series, limits)
    bad = np.flatnonzero(kind_N != GOOD)
    if not len(bad):
        return []
    pauses = np.cumsum(series.after_pause_N)[bad]
    cuts = np.flatnonzero((np.diff(bad) > LONGEST_GOOD_GAP + 1) | (np.diff(pauses) > 0)) + 1
    found = [_stretch(record, series, kind_N, group) for group in np.split(bad, cuts)]
    return sorted(found, key=lambda stretch: -stretch.bad)


def reason_class(problem: str) -> str:
    """The reason for no pose without its numbers, so that reasons can be counted."""
    text = problem.removeprefix("lost: ")
    return re.sub(r"-?\d+(\.\d+)?(?<!below 0)", "…", text) or "no reason given"


def _stretch(
    record: ReplayRecord, series: Series, kind_N: NDArray[np.int64], bad: NDArray[np.int64]
) -> Stretch:
    counts = Counter(kind_N[bad].tolist())
    lost = bad[kind_N[bad] == LOST]
    reasons = Counter(reason_class(record.frames[i].problem) for i in lost.tolist())
    place = series.place_N3[bad]
    known = place[np.isfinite(place).all(axis=1)]
    return Stretch(
        int(bad[0]),
        int(bad[-1]),
        counts[LOST],
        counts[WRONG],
        counts[UNSURE],
        float(series.metres_N[bad[0]]),
        float(series.metres_N[bad[-1]]),
        known[len(known) // 2] if len(known) else np.full(3, np.nan),
        reasons.most_common(1)[0][0] if reasons else "",
    )
