"""Pose estimates of the absolute branch."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle import Bundle, network_io
from rgsiam_ros.bundle.network_io import raw_covariance, restore_poses
from rgsiam_ros.bundle.precision import Precision
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.live_view import LiveView
from rgsiam_ros.localization.pose_estimate import Branch, PoseEstimate
from rgsiam_ros.uncertainty.covariance import rotate_axes
from rgsiam_ros.uncertainty.pose_quality import PoseQuality


class AbsoluteEstimator:
    """Reads a pose from the outputs of ``absolute.onnx``. Without a calibration no pose is ever lost."""

    branch: Branch = "absolute"

    def __init__(self, bundle: Bundle, precision: Precision) -> None:
        """Raises BundleError for a bundle without an absolute branch."""
        part = bundle.manifest.absolute_part
        self.preprocessing = part.preprocessing
        self._target = part.target
        self._retrieval = part.retrieval
        self._map = None if part.retrieval is None else bundle.map_features(precision)
        self._calibration = bundle.calibration(precision)
        self._residual_66 = np.asarray(part.variants[precision].covariance.matrix, np.float64)

    @property
    def calibrated(self) -> bool:
        """Whether each image gets its own covariance and a trust score."""
        return self._calibration is not None

    def map_cameras(self) -> Array | None:
        """Poses ``(N, 4, 4)`` of the map images' cameras in the map frame; None for a bundle without map features."""
        return None if self._map is None else self._map.T_map_camera_N44

    def forget(self) -> None:
        """Nothing: each image is estimated alone."""

    def prepare(self, view: LiveView, image_HW3: ImageBGR) -> NDArray[np.float32]:
        """The network's input ``(3, H, W)`` of a BGR image. Raises ImageError, CameraError."""
        return view.prepare(image_HW3)

    def estimate(
        self,
        outputs: Mapping[str, NDArray[np.float32]],
        timings_ms: Mapping[str, float],
        *,
        frozen: bool = False,
        allowed: NDArray[np.int64] | None = None,
    ) -> PoseEstimate:
        """The estimate from the network's outputs for one image.

        timings_ms: of the stages before, to which this adds its own; allowed: map images that the live image
        may be compared with, None for all. Raises EngineError if the outputs are no valid pose.
        """
        began = time.perf_counter()
        T = restore_poses(
            outputs[network_io.TRANSLATION][0], outputs[network_io.ROTATION][0], self._target
        )
        raw = raw_covariance(outputs, self._target)
        first, last = 0.0, 0.0
        if self._map is not None and self._retrieval is not None:
            feature = outputs[network_io.METRIC_FEATURE][0]
            neighbour_K = self._map.nearest(feature, self._retrieval.neighbours, allowed)
            first, last = self._map.feature_distances(feature, neighbour_K[[0, -1]])
        sigma = None if raw is None else np.sqrt(np.diag(raw))
        quality = PoseQuality(float(first), float(last), sigma)
        covariance, trust = self._residual_66, None
        if self._calibration is not None:
            covariance, trust = self._calibration.covariance_and_trust(quality)
        R_map_camera = T[:3, :3]
        return PoseEstimate(
            T_map_camera=T,
            covariance_66=rotate_axes(covariance, R_map_camera),
            timings_ms={**timings_ms, "pose": (time.perf_counter() - began) * 1e3},
            branch=self.branch,
            quality=quality,
            raw_covariance_66=None if raw is None else rotate_axes(raw, R_map_camera),
            trust=trust,
            frozen=frozen,
        )
