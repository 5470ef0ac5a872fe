"""Pose estimates of the geometric branch, image after image."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.features.keypoints import extract
from rgsiam_ros.geometry.poses import Array, pose_matrix
from rgsiam_ros.localization.geometric import GeometricBranch
from rgsiam_ros.localization.live_view import LiveView
from rgsiam_ros.localization.matches import Matches
from rgsiam_ros.localization.pose_estimate import Branch, PoseEstimate
from rgsiam_ros.uncertainty.covariance import rotate_axes
from rgsiam_ros.uncertainty.geometric import GeometricUncertainty
from rgsiam_ros.uncertainty.geometric_trust import GeometricTrust
from rgsiam_ros.uncertainty.pose_quality import PoseQuality

SIGMA_WITHOUT_POSE = np.repeat([1e3, np.pi], 3)
"""Standard deviations, metres and radians, of an image that gives no pose."""


class _Absolute:
    """The absolute estimate of one image, computed once it is asked for."""

    def __init__(self, compute: Callable[[], PoseEstimate | None] | None) -> None:
        self._compute = compute
        self._estimate: PoseEstimate | None = None

    def poses(self) -> list[Array]:
        """Its pose, if it is trusted."""
        self._estimate = self._compute() if self._compute is not None else None
        return [] if self._estimate is None else [self._estimate.T_map_camera]

    def sigmas(self, T_map_camera: Array) -> float | None:
        """How far a pose is from it, in its standard deviations along an axis; None if it was not asked for."""
        if self._estimate is None:
            return None
        apart = T_map_camera[:3, 3] - self._estimate.T_map_camera[:3, 3]
        covariance = self._estimate.covariance_66[:3, :3]
        return float(np.sqrt(apart @ np.linalg.solve(covariance, apart) / 3.0))


class GeometricEstimator:
    """Keeps the last trusted pose: map images near it are candidates for the next image.

    So are those near a pose that `expect` was given, until there is a trusted one.
    """

    branch: Branch = "refined"
    calibrated = True
    """Each image gets its own covariance and a trust score."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises BundleError for a bundle without a geometric branch."""
        part = bundle.manifest.geometric_part
        self.preprocessing = part.preprocessing
        self._keypoints = part.keypoints
        self._trust = GeometricTrust(part.fewest_inliers, part.trust_threshold)
        self._T_map_points = pose_matrix(part.placement.origin_m, part.placement.turn_wxyz)
        self._branch = GeometricBranch(bundle.map_points, self._T_map_points, part.candidates)
        self._uncertainty = GeometricUncertainty(
            part.pixel_sigma,
            part.position_factor,
            part.rotation_factor,
            part.position_slope,
            part.rotation_slope,
            part.largest_similarity,
            part.floor_m,
            part.floor_rad,
        )
        self._last: Array | None = None
        self._expected: Array | None = None

    def map_cameras(self) -> Array:
        """Poses ``(N, 4, 4)`` of the map images' cameras in the map frame."""
        return self._T_map_points @ self._branch.points.T_points_camera_N44

    def forget(self) -> None:
        """Forget the last pose and the expected one."""
        self._last = self._expected = None

    def expect(self, T_map_camera: Array) -> None:
        """Expect the camera near a pose ``(4, 4)``, metres: it may be metres and tens of degrees off."""
        self._expected = T_map_camera

    def prepare(self, view: LiveView, image_HW3: ImageBGR) -> NDArray[np.float32]:
        """The network's input ``(1, H, W)`` of a BGR image. Raises ImageError, CameraError."""
        return view.features_input(image_HW3)

    def estimate(
        self,
        outputs: Mapping[str, NDArray[np.float32]],
        K: Array,
        timings_ms: Mapping[str, float],
        *,
        frozen: bool = False,
        allowed: NDArray[np.int64] | None = None,
        absolute: Callable[[], PoseEstimate | None] | None = None,
    ) -> PoseEstimate:
        """The estimate from the network's outputs for one image.

        K: intrinsic matrix of the network's image; timings_ms: of the stages before, to which this adds its own;
        allowed: map images that may be used, None for all; absolute: gives the estimate of the absolute branch,
        if it is trusted, and is called only if the camera is not near the last pose.
        """
        began = time.perf_counter()
        keypoints = extract(outputs, self._keypoints)
        between = time.perf_counter()
        near = [T for T in (self._last, self._expected) if T is not None]
        second = _Absolute(absolute)
        found = self._branch.localize(keypoints, K, near, allowed, second.poses)
        timings = {
            **timings_ms,
            "keypoints": (between - began) * 1e3,
            "pose": (time.perf_counter() - between) * 1e3,
        }
        matches = Matches(self._branch.points, self._T_map_points, K, keypoints.pixel_N2, found)
        if found is None:
            return self._without_pose(keypoints.descriptor_ND, timings, frozen, matches)
        quality = replace(found.quality, absolute_sigmas=second.sigmas(found.T_map_camera))
        why_not = self._trust.why_not(quality)
        self._last = None if why_not or frozen else found.T_map_camera
        if self._last is not None:
            self._expected = None
        covariance = self._uncertainty.covariance(found.information_66, quality)
        return PoseEstimate(
            T_map_camera=found.T_map_camera,
            covariance_66=rotate_axes(covariance, found.T_map_camera[:3, :3]),
            timings_ms=timings,
            branch=self.branch,
            quality=PoseQuality(geometric_quality=quality),
            trust=self._trust.margin(quality),
            frozen=frozen,
            why_no_pose=why_not,
            matches=matches,
        )

    def _without_pose(
        self,
        descriptor_ND: NDArray[np.float32],
        timings_ms: dict[str, float],
        frozen: bool,
        matches: Matches,
    ) -> PoseEstimate:
        self._last = None
        T = self._T_map_points @ self._branch.most_similar(descriptor_ND)
        return PoseEstimate(
            T_map_camera=T,
            covariance_66=np.diag(np.square(SIGMA_WITHOUT_POSE)),
            timings_ms=timings_ms,
            branch=self.branch,
            trust=-1.0,
            frozen=frozen,
            why_no_pose=f"no pose fits the matches with the map ({len(descriptor_ND)} keypoints)",
            matches=matches,
        )
