"""Localize the images that were held out of a map, and fit the trust threshold and the covariance on the answers.

Each held-out image is localized without the nearest images of the same pass (`withheld`), as if it were of another
drive. Some are localized again: darkened, blurred and covered; and with their own place withheld from the map, as an
unmapped stretch. Mirrored, they are another place that the map never saw.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.features.keypoints import Keypoints
from rgsiam_ros.geometry.poses import Array, pose_errors
from rgsiam_ros.geometry.units import angle_text, length_text
from rgsiam_ros.localization.geometric import GeometricBranch, GeometricPose
from rgsiam_ros.mapping.held_out import HeldOut
from rgsiam_ros.mapping.withheld import other_places
from rgsiam_ros.uncertainty.covariance import pose_error_vectors, turn_errors
from rgsiam_ros.uncertainty.geometric import (
    FEWEST_FITTED,
    UNFITTED,
    GeometricUncertainty,
    fit_uncertainty,
)
from rgsiam_ros.uncertainty.geometric_trust import (
    ErrorLimits,
    GeometricTrust,
    fit_threshold,
    score_of,
)


@dataclass(frozen=True)
class Answers:
    """The poses of N images."""

    poses: list[GeometricPose | None]
    T_true_N44: Array
    limits: ErrorLimits
    trust: GeometricTrust

    @cached_property
    def metres_N(self) -> Array:
        """Position errors; NaN without a pose."""
        return self._errors[0]

    @cached_property
    def degrees_N(self) -> Array:
        """Rotation errors; NaN without a pose."""
        return np.degrees(self._errors[1])

    @cached_property
    def answered_N(self) -> NDArray[np.bool_]:
        """Which images have a pose that may be used."""
        return np.array(
            [p is not None and not self.trust.why_not(p.quality) for p in self.poses], bool
        )

    @cached_property
    def right_N(self) -> NDArray[np.bool_]:
        """Which poses are right, whether they may be used or not."""
        return self.limits.right(self.metres_N, self.degrees_N)

    @cached_property
    def wrong_N(self) -> NDArray[np.bool_]:
        """Which poses are wrong, whether they may be used or not."""
        return self.limits.wrong(self.metres_N, self.degrees_N)

    @cached_property
    def _errors(self) -> tuple[Array, Array]:
        nothing = np.full((4, 4), np.nan)
        T = np.array([nothing if pose is None else pose.T_map_camera for pose in self.poses])
        return pose_errors(T.reshape(-1, 4, 4), self.T_true_N44)

    def scores(self, which_N: NDArray[np.bool_]) -> Array:
        """Scores of some poses."""
        return np.array(
            [score_of(p.quality) for p, w in zip(self.poses, which_N, strict=True) if w and p]
        )

    def share(self, which_N: NDArray[np.bool_]) -> float | None:
        """Share of the images that are answered and marked; None without images."""
        return float((self.answered_N & which_N).mean()) if self.poses else None


@dataclass(frozen=True)
class Validated:
    """The answers for the held-out images, and what was fitted on them."""

    recorded: Answers
    spoilt: Answers
    mirrored: Answers
    unmapped: Answers
    """With their place withheld from the map."""
    trust: GeometricTrust
    uncertainty: GeometricUncertainty
    fitted: bool
    """Whether enough images have a pose to fit the covariance."""
    retrieval: dict[str, float]
    """The manifest's `RetrievalErrors`, by name; empty if no image may use any map image."""

    def with_threshold(self, threshold: float) -> Validated:
        """The same poses, judged by another threshold. The uncertainty stays."""
        trust = replace(self.trust, threshold=threshold)
        kinds = (self.recorded, self.spoilt, self.mirrored, self.unmapped)
        recorded, spoilt, mirrored, unmapped = (replace(kind, trust=trust) for kind in kinds)
        return replace(
            self,
            recorded=recorded,
            spoilt=spoilt,
            mirrored=mirrored,
            unmapped=unmapped,
            trust=trust,
        )

    def errors(self) -> tuple[float, float, float, float]:
        """Median and 95th percentile of the position errors, metres, and of the rotation errors, degrees."""
        found = self.recorded
        if not found.answered_N.any():
            return 0.0, 0.0, 0.0, 0.0
        metres, degrees = found.metres_N[found.answered_N], found.degrees_N[found.answered_N]
        return tuple(  # type: ignore[return-value]
            float(np.percentile(values, q)) for values in (metres, degrees) for q in (50, 95)
        )

    def summary(self, kind: str) -> dict[str, Any]:
        """Fields of the manifest's `GeometricValidation`. kind: how the images were held out, in words."""
        median_m, p95_m, median_deg, p95_deg = self.errors()
        recorded, spoilt = self.recorded, self.spoilt
        return {
            "kind": kind,
            "frames": len(recorded.poses),
            "answered": float(recorded.answered_N.mean()),
            "median_m": median_m,
            "p95_m": p95_m,
            "median_deg": median_deg,
            "p95_deg": p95_deg,
            "right": recorded.share(recorded.right_N),
            "wrong": recorded.share(recorded.wrong_N),
            "spoilt_right": spoilt.share(spoilt.right_N),
            "spoilt_wrong": spoilt.share(spoilt.wrong_N),
            "unmapped_accepted": self.unmapped.share(self.unmapped.wrong_N),
            "mirrored_accepted": self.mirrored.share(self.mirrored.wrong_N),
            **self.retrieval,
        }

    def describe(self) -> list[str]:
        """Lines for a log."""
        median_m, p95_m, median_deg, p95_deg = self.errors()
        found, spoilt = self.recorded, self.spoilt
        wrong = found.answered_N & found.wrong_N
        elsewhere = ""
        if wrong.any():
            elsewhere = (
                f"; {wrong.sum()} of them wrong, up to "
                f"{length_text(float(found.metres_N[wrong].max()))} away: their place looks like another"
            )
        lines = [
            f"{found.answered_N.sum()} of {len(found.poses)} held-out images localized: median "
            f"{length_text(median_m)} and {angle_text(median_deg)}, 95 % within {length_text(p95_m)} and "
            f"{angle_text(p95_deg)}{elsewhere}"
        ]
        if spoilt.poses:
            lines.append(
                f"dark, blurred or covered: {spoilt.share(spoilt.right_N):.0%} right, "
                f"{spoilt.share(spoilt.wrong_N):.1%} wrong"
            )
        for name, answers in (
            ("place withheld from the map", self.unmapped),
            ("place withheld, and mirrored", self.mirrored),
        ):
            if answers.poses:
                lines.append(f"{name}: {answers.share(answers.wrong_N):.1%} got a wrong pose")
        return lines


def validate(
    branch: GeometricBranch,
    held_out: Sequence[HeldOut],
    K: Array,
    fewest_inliers: int,
    limits: ErrorLimits,
) -> Validated:
    """Localize held-out images, and fit the threshold and the covariance on the answers.

    branch: over the map, in the points' frame; K: intrinsic matrix of the images in which the keypoints were found;
    fewest_inliers: a pose with fewer inliers is no answer; limits: which errors are right and wrong.
    """
    start = GeometricTrust(fewest_inliers)

    def answers(
        images: Iterable[tuple[Keypoints, Array, NDArray[np.int64] | None]],
    ) -> Answers:
        poses, true = [], []
        for keypoints, T, allowed in images:
            poses.append(branch.localize(keypoints, K, allowed=allowed))
            true.append(T)
        return Answers(poses, np.array(true).reshape(-1, 4, 4), limits, start)

    some = [image for image in held_out if image.mirrored is not None]
    recorded = answers((i.keypoints, i.T_points_camera, i.allowed) for i in held_out)
    spoilt = answers((k, i.T_points_camera, i.allowed) for i in some for k in i.spoilt)
    places = [(i, other_places(i.T_points_camera, branch.points)) for i in some]
    places = [(i, elsewhere) for i, elsewhere in places if len(elsewhere) >= branch.candidates]
    mirrored = answers((i.mirrored, i.T_points_camera, e) for i, e in places if i.mirrored)
    unmapped = answers(
        (keypoints, image.T_points_camera, elsewhere)
        for image, elsewhere in places
        for keypoints in (image.keypoints, *image.spoilt)
    )
    threshold = _threshold(recorded, [spoilt, mirrored, unmapped])
    trust = GeometricTrust(fewest_inliers, threshold)
    recorded, spoilt, mirrored, unmapped = (
        replace(found, trust=trust) for found in (recorded, spoilt, mirrored, unmapped)
    )
    uncertainty, fitted = _uncertainty([recorded, spoilt])
    retrieval = _retrieval(branch, held_out)
    return Validated(recorded, spoilt, mirrored, unmapped, trust, uncertainty, fitted, retrieval)


def _retrieval(branch: GeometricBranch, held_out: Sequence[HeldOut]) -> dict[str, float]:
    """Median errors of the most similar map image that each image may use."""
    usable = [image for image in held_out if image.allowed is None or len(image.allowed)]
    if not usable:
        return {}
    T = [branch.most_similar(image.keypoints.descriptor_ND, image.allowed) for image in usable]
    metres, radians = pose_errors(
        np.stack(T), np.stack([image.T_points_camera for image in usable])
    )
    return {
        "retrieval_median_m": float(np.median(metres)),
        "retrieval_median_deg": float(np.degrees(np.median(radians))),
    }


def _threshold(recorded: Answers, others: Sequence[Answers]) -> float:
    """The smallest score of a pose that may be used. Poses that are lost for another reason do not count."""
    right = [found.scores(found.answered_N & found.right_N) for found in (recorded, *others)]
    wrong = [found.scores(found.answered_N & found.wrong_N) for found in (recorded, *others)]
    marked = np.zeros(sum(map(len, right)), bool)
    marked[: len(right[0])] = True
    images = sum(len(found.poses) for found in others)
    return fit_threshold(np.concatenate(right), marked, np.concatenate(wrong), images)


def _uncertainty(found: Sequence[Answers]) -> tuple[GeometricUncertainty, bool]:
    """Fitted on the answers that are not wrong, and whether there were enough of the first kind.

    found: as recorded, and spoilt.
    """
    errors, poses = [], []
    for answers in found:
        used = answers.answered_N & ~answers.wrong_N
        own = [pose for pose, use in zip(answers.poses, used, strict=True) if use and pose]
        if own:
            T = np.stack([pose.T_map_camera for pose in own])
            error = pose_error_vectors(T, answers.T_true_N44[used])
            errors.append(turn_errors(error, np.swapaxes(T[:, :3, :3], 1, 2)))
            poses += own
    if (found[0].answered_N & ~found[0].wrong_N).sum() < FEWEST_FITTED:
        return UNFITTED, False
    return (
        fit_uncertainty(
            np.concatenate(errors),
            [pose.information_66 for pose in poses],
            [pose.quality for pose in poses],
            np.arange(len(poses)) < len(errors[0]),
        ),
        True,
    )
