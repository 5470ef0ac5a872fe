"""From the networks' outputs for one image to judged poses of both branches."""

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
    """One branch's pose of one image, and what it says about itself."""

    branch: Branch
    T_map_camera: Array
    quality: PoseQuality
    raw_covariance_66: Array | None
    """The network's own, uncalibrated, of the absolute pose; the camera's axes."""


class PoseBranches:
    """A bundle's way from outputs to poses, in one precision."""

    def __init__(self, bundle: Bundle, precision: Precision, relative: Engine | None) -> None:
        """relative: over the bundle's ``relative.onnx``; None for the absolute branch alone."""
        manifest = bundle.manifest
        self._target = manifest.target
        self._map: MapFeatures | None = None
        self._refiner: Refiner | None = None
        self.length_scale = LengthScale()
        if manifest.refinement is not None:
            refinement = manifest.refinement
            self.length_scale = LengthScale(refinement.reach_m, refinement.metres_per_radian)
            self._neighbours = refinement.neighbours
            self._map = bundle.map_features(precision)
        if relative is not None:
            self._refiner = Refiner(bundle, relative, precision)
        self._calibration = bundle.calibration(precision)
        self._residual_66: dict[Branch, Array] = {}
        figures = {"absolute": manifest.absolute_figures(precision)}
        refined = manifest.refined_figures(precision)
        if refined is not None:
            figures["refined"] = refined
        for branch, figure in figures.items():
            matrix = np.asarray(figure.covariance.matrix, np.float64)
            self._residual_66[branch] = matrix  # type: ignore[index]

    @property
    def refines(self) -> bool:
        """Whether the relative branch answers."""
        return self._refiner is not None

    @property
    def calibrated(self) -> bool:
        """Whether covariances are per image and lost images are noticed."""
        return self._calibration is not None

    def absolute(
        self, outputs: Mapping[str, np.ndarray], allowed: NDArray[np.int64] | None = None
    ) -> BranchEstimate:
        """The absolute branch's answer. outputs: of ``absolute.onnx`` for one image; allowed: indices
        of the map images that may be used, None for all. Raises EngineError for numbers that are no pose.
        """
        T = restore_poses(
            outputs[network_io.TRANSLATION][0], outputs[network_io.ROTATION][0], self._target
        )
        raw = raw_covariance(outputs, self._target)
        first = last = 0.0
        if self._map is not None:
            feature = outputs[network_io.METRIC_FEATURE][0]
            first, last = self._map.feature_distances(feature, self._neighbours, allowed)
        sigma = None if raw is None else np.sqrt(np.diag(raw))
        return BranchEstimate("absolute", T, PoseQuality(first, last, sigma), raw)

    def refined(
        self,
        outputs: Mapping[str, np.ndarray],
        absolute: BranchEstimate,
        allowed: NDArray[np.int64] | None = None,
    ) -> BranchEstimate | None:
        """The relative branch's answer; None where there is none. Arguments as in `absolute`."""
        if self._refiner is None:
            return None
        found = self._refiner.refine(outputs, absolute.T_map_camera, allowed)
        if found is None:
            return None
        T, disagreement = found
        evidence = replace(absolute.quality, refined_quality=disagreement)
        return BranchEstimate("refined", T, evidence, absolute.raw_covariance_66)

    def judge(self, answer: BranchEstimate) -> tuple[Array, float | None]:
        """Covariance ``(6, 6)`` in fixed map axes, metres and radians; and the trust, if calibrated."""
        R_map_camera = answer.T_map_camera[:3, :3]
        if self._calibration is None:
            return rotate_axes(self._residual_66[answer.branch], R_map_camera), None
        covariance, trust = self._calibration.covariance_and_trust(
            answer.branch, answer.quality, self.length_scale
        )
        return rotate_axes(covariance, R_map_camera), trust
