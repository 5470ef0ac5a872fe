"""Estimate from the images of a mapping session how late its labels are, and how wrong its focal length is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rgsiam_ros.features.matching import mutual_matches
from rgsiam_ros.mapping.epipolar_fit import EpipolarFit, Matched
from rgsiam_ros.mapping.label_pairs import LARGEST_OFFSET_S, Track, choose_pairs, track_of
from rgsiam_ros.mapping.matching import LEAST_SIMILARITY
from rgsiam_ros.mapping.progress import Progress, Silent
from rgsiam_ros.mapping.sample_features import sample_features
from rgsiam_ros.recordings.base import Dataset, frames_of

FEWEST_STRETCHES = 8
"""Intervals from fewer stretches of the drive would mean little."""
LONGEST_PERIOD_S = 0.7
"""Labels farther apart in time do not tell where the camera was in between."""
MATCHES_A_PAIR, FEWEST_MATCHES = 100, 15
NOMINAL_STAMPS = "the dataset has no time stamps; they were made from the order of the images"


@dataclass(frozen=True)
class Estimate:
    """One value with its 95 % interval."""

    value: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside the interval."""
        return not self.low <= value <= self.high


@dataclass(frozen=True)
class LabelEstimate:
    """What the images say about the labels."""

    time_offset_s: Estimate | None
    """An image shows where the camera was this many seconds before its stamp."""
    focal_scale: Estimate | None
    """True focal length divided by the stated one."""
    why_not: str = ""
    """Why there is no estimate."""

    def lines(self) -> list[str]:
        """What was found, what it means and what to do."""
        if self.time_offset_s is None or self.focal_scale is None:
            return [f"time offset and focal scale: not estimated: {self.why_not}"]
        return [_offset_line(self.time_offset_s), _focal_line(self.focal_scale)]


def _offset_line(found: Estimate) -> str:
    text = f"time offset: {1e3 * found.value:.0f} ms ({_interval(found, 1e3, '.0f')} ms, 95 %)"
    if not found.excludes(0.0):
        wide = found.high - found.low > 0.1
        hint = "; the motion shows it badly: record with turns" if wide else ""
        return f"{text}: labels and images may agree{hint}"
    sign = "before" if found.value > 0.0 else "after"
    return (
        f"{text}: an image shows where the camera was {abs(1e3 * found.value):.0f} ms {sign} its labelled "
        "pose; mend the clocks or delays, or leave --time-offset auto, which moves the labels"
    )


def _focal_line(found: Estimate) -> str:
    text = f"focal scale: {found.value:.3f} ({_interval(found, 1.0, '.3f')}, 95 %)"
    if not found.excludes(1.0):
        return f"{text}: the stated focal length may be right"
    longer = "longer" if found.value > 1.0 else "shorter"
    return (
        f"{text}: the focal length is {abs(found.value - 1.0):.1%} {longer} than stated; calibrate the "
        "camera, or give `rgsiam map build` or `train` --refine-camera"
    )


def estimate_labels(datasets: Sequence[Dataset], progress: Progress | None = None) -> LabelEstimate:
    """Estimate time offset and focal scale from matches between neighbouring images, in seconds of CPU.

    The sessions must be of one camera, with labels as recorded. A value that images and poses do not show
    is None, with the reason. Raises DatasetError if an image cannot be read.
    """
    frames = frames_of(datasets)
    if any(frame.nominal_stamp for frame in frames):
        return LabelEstimate(None, None, NOMINAL_STAMPS)
    track = track_of(frames)
    if track.period_s > LONGEST_PERIOD_S:
        return LabelEstimate(
            None, None, f"images are {track.period_s:.1f} s apart: record 2 a second"
        )
    fit = _fit(datasets, track, progress or Silent())
    if fit is None:
        return LabelEstimate(None, None, "too few moving images that show the same: drive longer")
    if not np.isfinite(fit.half_width_2).all():
        return LabelEstimate(None, None, "the motion does not show it: drive with turns")
    if abs(fit.value_2[0]) > LARGEST_OFFSET_S:
        why = f"the labels would be more than {LARGEST_OFFSET_S:g} s off: mend the stamps"
        return LabelEstimate(None, None, why)
    low, high = fit.value_2 - fit.half_width_2, fit.value_2 + fit.half_width_2
    offset, scale = (
        Estimate(float(fit.value_2[i]), float(low[i]), float(high[i])) for i in range(2)
    )
    return LabelEstimate(offset, scale)


def _fit(datasets: Sequence[Dataset], track: Track, progress: Progress) -> EpipolarFit | None:
    """None if too few stretches of the drive have matches."""
    pairs = choose_pairs(track)
    if len(np.unique(pairs.stretch_P)) < FEWEST_STRETCHES:
        return None
    chosen = np.unique(track.frame_N[np.concatenate([pairs.first_P, pairs.second_P])])
    advance = progress.start("time offset", len(chosen))
    found, K, _ = sample_features(datasets, chosen, advance)
    keypoints = dict(zip(chosen.tolist(), found, strict=True))
    first, second, pair = [], [], []
    for number, (i, j) in enumerate(zip(pairs.first_P, pairs.second_P, strict=True)):
        a, b = (keypoints[int(track.frame_N[k])] for k in (i, j))
        matches = mutual_matches(a.descriptor_ND @ b.descriptor_ND.T, LEAST_SIMILARITY)
        if len(matches.first_M) < FEWEST_MATCHES:
            continue
        every = max(1, len(matches.first_M) // MATCHES_A_PAIR)
        first.append(a.pixel_N2[matches.first_M[::every]].astype(np.float64))
        second.append(b.pixel_N2[matches.second_M[::every]].astype(np.float64))
        pair.append(np.full(len(first[-1]), number))
    matched = np.array([numbers[0] for numbers in pair], np.int64)
    if len(np.unique(pairs.stretch_P[matched])) < FEWEST_STRETCHES:
        return None
    arrays = np.concatenate(first), np.concatenate(second), np.concatenate(pair)
    return Matched(track, pairs, K, *arrays).fit()


def _interval(found: Estimate, factor: float, digits: str) -> str:
    return f"{factor * found.low:{digits}} to {factor * found.high:{digits}}"
