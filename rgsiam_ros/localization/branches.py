"""Compute the pose of each branch from the networks' outputs for one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle import Bundle, network_io
from rgsiam_ros.bundle.map_features import MapFeatures
from rgsiam_ros.bundle.network_io import raw_covariance, restore_poses
from rgsiam_ros.bundle.precision import Precision
from rgsiam_ros.engines import Engine
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.refinement import Refiner
from rgsiam_ros.uncertainty.calibration import Branch, LengthScale
from rgsiam_ros.uncertainty.covariance import rotate_axes
from rgsiam_ros.uncertainty.pose_quality import PoseQuality


@dataclass(frozen=True)
class BranchEstimate:
    """The pose that one branch estimates for one image."""

    branch: Branch
    T_map_camera: Array
    """``(4, 4)``, metres."""
    quality: PoseQuality
    raw_covariance_66: Array | None
    """Covariance of the absolute pose as the network predicts it, not calibrated, in the camera's axes."""
    neighbour_K: NDArray[np.int64] | None = None
    """Indices of the map images most similar to the live image. None for a bundle without a map."""


class PoseBranches:
    """The branches of a bundle, in one precision."""

    def __init__(self, bundle: Bundle, precision: Precision, relative: Engine | None) -> None:
        """relative: runs the bundle's ``relative.onnx``; None for the absolute branch alone."""
        part = bundle.manifest.absolute_part
        variant = part.variants[precision]
        self._target = part.target
        self._map: MapFeatures | None = None
        self._refiner: Refiner | None = None
        self.length_scale = LengthScale()
        if part.refinement is not None:
            refinement = part.refinement
            self.length_scale = LengthScale(refinement.reach_m, refinement.metres_per_radian)
            self._neighbours = refinement.neighbours
            self._map = bundle.map_features(precision)
        if relative is not None:
            self._refiner = Refiner(bundle, relative, precision)
        self._calibration = bundle.calibration(precision)
        self._residual_66: dict[Branch, Array] = {
            "absolute": np.asarray(variant.absolute.covariance.matrix, np.float64)
        }
        if variant.refined is not None:
            matrix = np.asarray(variant.refined.covariance.matrix, np.float64)
            self._residual_66["refined"] = matrix

    @property
    def refines(self) -> bool:
        """Whether the relative branch is in use."""
        return self._refiner is not None

    @property
    def calibrated(self) -> bool:
        """Whether each image gets its own covariance and a trust score."""
        return self._calibration is not None

    def estimate_absolute(
        self, outputs: Mapping[str, np.ndarray], allowed: NDArray[np.int64] | None = None
    ) -> BranchEstimate:
        """The absolute branch's estimate.

        outputs: of ``absolute.onnx`` for one image; allowed: indices of the map images that may be used,
        None for all. Raises EngineError if the outputs are no valid pose.
        """
        T = restore_poses(
            outputs[network_io.TRANSLATION][0], outputs[network_io.ROTATION][0], self._target
        )
        raw = raw_covariance(outputs, self._target)
        sigma = None if raw is None else np.sqrt(np.diag(raw))
        if self._map is None:
            return BranchEstimate("absolute", T, PoseQuality(raw_sigma_6=sigma), raw)
        feature = outputs[network_io.METRIC_FEATURE][0]
        neighbour_K = self._map.nearest(feature, self._neighbours, allowed)
        first, last = self._map.feature_distances(feature, neighbour_K[[0, -1]])
        quality = PoseQuality(float(first), float(last), sigma)
        return BranchEstimate("absolute", T, quality, raw, neighbour_K)

    def estimate_refined(
        self,
        outputs: Mapping[str, np.ndarray],
        absolute: BranchEstimate,
        allowed: NDArray[np.int64] | None = None,
    ) -> BranchEstimate | None:
        """The relative branch's estimate. None if no neighbour gives a pose, or without that branch.

        absolute: the estimate of the same image. Other arguments and errors as in `estimate_absolute`.
        """
        if self._refiner is None or absolute.neighbour_K is None:
            return None
        found = self._refiner.refine(outputs, absolute.T_map_camera, absolute.neighbour_K, allowed)
        if found is None:
            return None
        T, refined_quality = found
        quality = replace(absolute.quality, refined_quality=refined_quality)
        return BranchEstimate("refined", T, quality, absolute.raw_covariance_66)

    def covariance_and_trust(self, estimate: BranchEstimate) -> tuple[Array, float | None]:
        """Covariance ``(6, 6)`` in fixed map axes, metres and radians, and the trust score.

        Without a calibration the covariance is the branch's residual covariance and the score is None.
        """
        R_map_camera = estimate.T_map_camera[:3, :3]
        if self._calibration is None:
            return rotate_axes(self._residual_66[estimate.branch], R_map_camera), None
        covariance, trust = self._calibration.covariance_and_trust(
            estimate.branch, estimate.quality, self.length_scale
        )
        return rotate_axes(covariance, R_map_camera), trust
