"""The geometric branch: the pose from matches between a live image's keypoints and the map's points.

1. The map images that look most like the live image, and those near the expected position, are *candidates*.
2. The points that they see are matched with the live keypoints, once for all candidates together.
3. A robust search finds the pose that most matches agree with (`rgsiam_ros.localization.pnp`).
4. Points near their expected pixel are matched once more, and the pose is refined with all of them.
5. Without an expected position, candidates of other places give a rival pose. The pose with more inliers is
   taken; two places that look alike are told by a rival with nearly as many, and nearly as similar, matches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from threadpoolctl import ThreadpoolController

from rgsiam_ros.bundle.map_points import MapPoints
from rgsiam_ros.features.keypoints import Keypoints
from rgsiam_ros.features.matching import mutual_matches, mutual_pairs
from rgsiam_ros.geometry.poses import Array, invert
from rgsiam_ros.localization.pnp import PnpOptions, refine_pose, reprojection_residuals, solve_pnp
from rgsiam_ros.uncertainty.pose_quality import GeometricQuality

LEAST_SIMILARITY = 0.75
"""Smallest cosine of a match, when nothing is known about the pose."""
GUIDED_SIMILARITY = 0.6
GUIDED_PX = 6.0
"""Smallest cosine of a match whose pixel is expected, and the largest distance from that pixel."""
INLIER_PX = 4.0
CAUCHY_PX = 2.0
FEWEST_MATCHES = 6
SMALLEST_DEPTH = 1e-6
NEAR = 4
FEW_LOOK_ALIKES = 2
"""With an expected pose: number of candidates near it, and number of those that look alike."""
SURE_INLIERS, SURE_SHARE = 90, 0.25
"""A pose from these few candidates is taken if it has so many inliers, and if map images near the expected pose see
this share of them. In another place they would see none. Otherwise all look-alikes are tried."""
SEARCH_ITERATIONS = 4
"""Refinement steps at the end of the search. The last refinement comes after the second matching."""


@dataclass(frozen=True)
class GeometricPose:
    """A pose, and the M matches that it was computed from."""

    T_map_camera: Array
    """``(4, 4)``, metres."""
    information_66: Array
    """See `rgsiam_ros.localization.pnp.refine_pose`."""
    quality: GeometricQuality
    candidates: NDArray[np.int64]
    """Indices of the map images whose points were used: those that look alike, the most similar one first,
    then those near an expected position."""
    keypoint_M: NDArray[np.int64]
    """Index of the live keypoint of each match."""
    point_M: NDArray[np.int64]
    """Index of the map point of each match."""
    inlier_M: NDArray[np.bool_]
    searched_keypoint_S: NDArray[np.int64]
    searched_point_S: NDArray[np.int64]
    """The S matches that the pose was searched with, right and wrong: live keypoints and map points."""
    T_map_rival: Array | None = None
    """The best pose in another place, if there is one."""


@dataclass(frozen=True)
class _Compared:
    """The N live keypoints, compared with P points of the map."""

    pixel_N2: NDArray[np.float32]
    point_P: NDArray[np.int64]
    """Indices of the points, rising."""
    similarity_NP: NDArray[np.float32]
    """Cosines of their descriptors."""


class GeometricBranch:
    """The map's points, ready to localize images."""

    def __init__(
        self, points: MapPoints, T_map_points: Array, candidates: int, seed: int = 0
    ) -> None:
        """T_map_points: ``(4, 4)`` pose of the points' frame in the map frame; candidates: number of map
        images that are chosen by their look; seed: of the random numbers in the robust search.
        """
        self.points = points
        self._T_map_points = T_map_points
        self.candidates = candidates
        self._options = PnpOptions(
            inlier_px=INLIER_PX,
            cauchy_px=CAUCHY_PX,
            refine_iterations=SEARCH_ITERATIONS,
            seed=seed,
        )
        self._global_NG = points.global_feature_NG.astype(np.float32)
        self._threads = ThreadpoolController()

    def localize(
        self,
        keypoints: Keypoints,
        K: Array,
        near: Sequence[Array] = (),
        allowed: NDArray[np.int64] | None = None,
        then_near: Callable[[], Sequence[Array]] = tuple,
    ) -> GeometricPose | None:
        """The pose of the camera, or None if no pose is found.

        K: intrinsic matrix of the image in which the keypoints were found; near: expected poses
        ``T_map_camera``, if any, which add candidates and need not be right; allowed: indices of the map
        images that may be used, None for all; then_near: gives more expected poses, and is called only if
        `near` does not lead to a sure pose. A pose with few inliers may be wrong: the caller decides how many
        it asks for.
        """
        # BLAS's own threads would wait in a busy loop, on the cores of the engine's threads.
        with self._threads.limit(limits=1, user_api="blas"):
            return self._localize_once(keypoints, K, near, allowed, then_near)

    def _localize_once(
        self,
        keypoints: Keypoints,
        K: Array,
        near: Sequence[Array],
        allowed: NDArray[np.int64] | None,
        then_near: Callable[[], Sequence[Array]],
    ) -> GeometricPose | None:
        T_points_map = invert(self._T_map_points)
        look_alikes = self._look_alikes(keypoints, allowed)
        near_found = None
        for propose in (lambda: near, then_near):
            expected = [T_points_map @ T for T in propose()]
            if not expected:
                continue
            near_images = _joined(*(self.points.nearest(T, NEAR, allowed) for T in expected))
            few = _joined(look_alikes[:FEW_LOOK_ALIKES], near_images)
            found = self._localize(self._compare(keypoints, few), K, few, expected)
            if found is not None and self._is_sure(found, near_images):
                return found
            near_found = _better(near_found, found)
        compared = self._compare(keypoints, look_alikes)
        found = _better(self._localize(compared, K, look_alikes, []), near_found)
        return None if found is None else self._against_rival(found, compared, K, look_alikes)

    def _is_sure(self, found: GeometricPose, near_images: NDArray[np.int64]) -> bool:
        """Whether a pose has many inliers, and images near the expected pose see enough of their points."""
        points = found.point_M[found.inlier_M]
        expected = np.isin(points, self.points.seen_by(near_images))
        return len(points) >= SURE_INLIERS and bool(expected.mean() > SURE_SHARE)

    def _against_rival(
        self,
        found: GeometricPose,
        compared: _Compared,
        K: Array,
        candidates: NDArray[np.int64],
    ) -> GeometricPose:
        """The better of a pose and its rival: the pose from those candidates that see none of its points."""
        used = np.zeros(len(self.points.position_P3), bool)
        used[found.point_M[found.inlier_M]] = True
        others = np.array(
            [i for i in candidates if not used[self.points.visible[i]].any()], np.int64
        )
        rival = self._localize(compared, K, others, []) if len(others) else None
        if rival is None:
            return found
        if rival.quality.inliers > found.quality.inliers:
            found, rival = rival, found
        quality = replace(
            found.quality,
            rival_inliers=rival.quality.inliers,
            rival_similarity=rival.quality.similarity,
        )
        return replace(found, quality=quality, T_map_rival=rival.T_map_camera)

    def _compare(self, keypoints: Keypoints, candidates: NDArray[np.int64]) -> _Compared:
        index = self.points.seen_by(candidates)
        similarity = keypoints.descriptor_ND @ self.points.unit_descriptor_PD[index].T
        return _Compared(keypoints.pixel_N2, index, similarity)

    def _localize(
        self,
        compared: _Compared,
        K: Array,
        candidates: NDArray[np.int64],
        expected: Sequence[Array],
    ) -> GeometricPose | None:
        """The pose from the points that candidates see; compared: all of these points, and maybe others.

        expected: poses in the points' frame, tried first.
        """
        index, similarity = compared.point_P, compared.similarity_NP
        seen = self.points.seen_by(candidates)
        if len(seen) < FEWEST_MATCHES:
            return None
        if len(seen) < len(index):
            index, similarity = seen, similarity[:, np.searchsorted(index, seen)]
        position = self.points.position_P3[index]
        pixel = compared.pixel_N2.astype(np.float64)
        found = mutual_matches(similarity, LEAST_SIMILARITY)
        solution = solve_pnp(
            position[found.second_M],
            pixel[found.first_M],
            K,
            weight_M=found.similarity_M - LEAST_SIMILARITY,
            guesses_P44=np.stack(expected) if expected else None,
            options=self._options,
        )
        if solution is None or solution.inlier_M.sum() < FEWEST_MATCHES:
            return None
        T = solution.T_map_camera
        first, second = near_pairs(T, position, compared.pixel_N2, K)
        guided = mutual_pairs(first, second, similarity[first, second], GUIDED_SIMILARITY)
        matched, observed = position[guided.second_M], pixel[guided.first_M]
        T, information = refine_pose(T, matched, observed, K, cauchy_px=CAUCHY_PX)
        residual = reprojection_residuals(T, matched, observed, K)
        inlier = residual <= INLIER_PX
        quality = GeometricQuality(
            inliers=int(inlier.sum()),
            matches=len(found.first_M),
            residual_px=float(np.sqrt(np.square(residual[inlier]).mean())) if inlier.any() else 0.0,
            similarity=float(guided.similarity_M[inlier].mean()) if inlier.any() else 0.0,
        )
        return GeometricPose(
            self._T_map_points @ T,
            information,
            quality,
            candidates,
            guided.first_M,
            index[guided.second_M],
            inlier,
            found.first_M,
            index[found.second_M],
        )

    def most_similar(
        self, descriptor_ND: NDArray[np.float32], allowed: NDArray[np.int64] | None = None
    ) -> Array:
        """Pose, in the points' frame, of the map image that looks most like one with these descriptors.

        allowed: indices of the map images that may be used, None for all.
        """
        index = np.arange(len(self._global_NG)) if allowed is None else allowed
        with self._threads.limit(limits=1, user_api="blas"):
            similarity = self._global_NG[index] @ self.points.vlad.feature(descriptor_ND)
        return self.points.T_points_camera_N44[index[int(similarity.argmax())]]

    def _look_alikes(
        self, keypoints: Keypoints, allowed: NDArray[np.int64] | None
    ) -> NDArray[np.int64]:
        """Indices of the map images that look most like the live image, best first."""
        index = np.arange(len(self._global_NG)) if allowed is None else allowed
        similarity = self._global_NG[index] @ self.points.vlad.feature(keypoints.descriptor_ND)
        return index[np.argsort(-similarity, kind="stable")[: self.candidates]]


def _better(one: GeometricPose | None, other: GeometricPose | None) -> GeometricPose | None:
    """The pose with more inliers, the first one if they have equally many; None without any."""
    if one is None or other is None:
        return one or other
    return other if other.quality.inliers > one.quality.inliers else one


def _joined(*parts: NDArray[np.int64]) -> NDArray[np.int64]:
    """All indices, each once, in the order of their first occurrence."""
    return np.array(list(dict.fromkeys(np.concatenate(parts).tolist())), np.int64)


def projected_pixels(
    T_map_camera: Array, position_P3: Array, K: Array
) -> tuple[Array, NDArray[np.bool_]]:
    """Where a camera with the intrinsic matrix K sees points: pixels ``(P, 2)``, and which lie in front of it.

    T_map_camera: ``(4, 4)``; position_P3: in the same frame, metres. Pixels of points behind the camera are 0.
    """
    inside = (position_P3 - T_map_camera[:3, 3]) @ T_map_camera[:3, :3]
    depth = inside[:, 2]
    front = depth > SMALLEST_DEPTH
    return (inside @ K.T)[:, :2] / np.where(front, depth, np.inf)[:, None], front


def near_pairs(
    T_map_camera: Array, position_P3: Array, pixel_N2: NDArray[np.float32], K: Array
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All pairs of a keypoint and a point that projects within `GUIDED_PX` of it: indices of both."""
    projected, front = projected_pixels(T_map_camera, position_P3, K)
    low, high = pixel_N2.min(axis=0) - GUIDED_PX, pixel_N2.max(axis=0) + GUIDED_PX
    near = front & ((projected > low) & (projected < high)).all(axis=1)
    index = np.flatnonzero(near)
    if not len(index):
        return index, index
    trees = cKDTree(pixel_N2), cKDTree(projected[index])
    pairs = trees[0].sparse_distance_matrix(trees[1], GUIDED_PX, output_type="ndarray")
    return pairs["i"], index[pairs["j"]]
