"""The preset `structure`: the localizer that one would build of known parts instead of training a network.

A live image is compared with the map images by VLAD of its SIFT descriptors. Its keypoints are matched with
the scene points that the nearest map images see, and a camera pose is fitted to the matches.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.geometry.poses import Array, invert
from rgsiam_ros.recordings.base import common_camera, poses_of
from rgsiam_training.config import TrainingConfig
from rgsiam_training.evaluation.compare.structure_map import (
    FeatureExtractor,
    ImageFeatures,
    StructureSettings,
    build_map,
    mutual_matches,
)
from rgsiam_training.evaluation.compare.training_images import training_images

SETTINGS = {
    "circuit": StructureSettings(enlargement=1.5, keypoints=800, brighten=True),
    "town": StructureSettings(enlargement=2.0, keypoints=800),
    "redkitchen": StructureSettings(enlargement=1.0, keypoints=1500),
}
"""Settings by the name of the scene: chosen on validation images of these scenes, then frozen."""
WORDS = 32
"""Words of the VLAD vocabulary."""
VLAD_SIZE = 256
"""Largest length of a VLAD vector after its reduction by principal components."""
VOCABULARY_SAMPLE = 20000
"""Number of descriptors from which the vocabulary is made."""
RETRIEVED_IMAGES = 10
"""Number of map images whose scene points are matched."""
FEWEST_INLIERS = 12
"""An image with fewer inliers gets no answer."""
FOCAL_LENGTH_PX = 1000.0
"""Focal length of the camera without lens distortion that OpenCV gets, pixels. Its limits are in pixels."""
CONFIDENCE, ITERATIONS = 0.9999, 20000
"""Confidence and largest number of iterations of RANSAC."""


class Vlad:
    """Describes an image by the sums of its descriptors' differences from their nearest words."""

    def __init__(self, descriptors: Sequence[NDArray[np.float32]], seed: int) -> None:
        """descriptors: of each map image, ``(M, D)``."""
        random = np.random.default_rng(seed)
        everything = np.concatenate(descriptors)
        sample = random.permutation(len(everything))[:VOCABULARY_SAMPLE]
        self._word_WD, _ = kmeans2(everything[sample], WORDS, minit="++", seed=seed)
        vector_NF = np.stack([self._vlad(descriptor_MD) for descriptor_MD in descriptors])
        self._mean_F = vector_NF.mean(axis=0)
        _, _, axis_QF = np.linalg.svd(vector_NF - self._mean_F, full_matrices=False)
        self._axis_QF = axis_QF[:VLAD_SIZE]
        self.numbers = self._word_WD.size + self._mean_F.size + self._axis_QF.size
        """How many fitted numbers it consists of."""

    def __call__(self, descriptor_MD: NDArray[np.float32]) -> NDArray[np.float32]:
        """A vector ``(Q,)`` of unit length."""
        return _unit(self._axis_QF @ (self._vlad(descriptor_MD) - self._mean_F))

    def _vlad(self, descriptor_MD: NDArray[np.float32]) -> NDArray[np.float32]:
        distance_MW = (self._word_WD**2).sum(axis=1) - 2.0 * descriptor_MD @ self._word_WD.T
        nearest_M = distance_MW.argmin(axis=1)
        member_WM = (nearest_M == np.arange(WORDS)[:, None]).astype(np.float32)
        sum_WD = member_WM @ descriptor_MD - member_WM.sum(axis=1, keepdims=True) * self._word_WD
        return _unit(_unit(sum_WD).ravel())


class StructureEstimator:
    """Estimates the pose by matching keypoints with triangulated scene points.

    It takes images of the dataset's own size, and it has no answer for some.
    """

    def __init__(
        self,
        features: Sequence[ImageFeatures],
        T_map_camera_N44: Array,
        reach_m: float,
        camera: Camera,
        settings: StructureSettings,
        seed: int,
    ) -> None:
        """features, T_map_camera_N44: of the map images; reach_m: largest distance of map images that are
        matched with each other; camera: of the images to localize.
        """
        self._camera, self._settings, self._seed = camera, settings, seed
        self._extract = FeatureExtractor(settings)
        self._map = build_map(features, T_map_camera_N44, reach_m, 1.0 / camera.fx, settings)
        self._vlad = Vlad([f.descriptor_MD for f in features], seed)
        self._vlad_NQ = np.stack([self._vlad(f.descriptor_MD) for f in features])
        self.parameters = self._vlad.numbers

    def estimate(self, image_HW3: ImageBGR) -> Array | None:
        """See `PoseEstimator`; None without an answer."""
        features = self._extract(image_HW3, self._camera)
        if len(features.ray_M2) < FEWEST_INLIERS:
            return None
        similarity_N = self._vlad_NQ @ self._vlad(features.descriptor_MD)
        nearest = np.argsort(-similarity_N, kind="stable")[:RETRIEVED_IMAGES]
        matches = []
        for n in nearest:
            match_M2 = mutual_matches(features.descriptor_MD, self._map.descriptors[n])
            matches.append(
                np.stack([match_M2[:, 0], self._map.point_indices[n][match_M2[:, 1]]], axis=1)
            )
        match_M2 = np.unique(np.concatenate(matches), axis=0)
        return fit_pose(
            self._map.point_P3[match_M2[:, 1]],
            features.ray_M2[match_M2[:, 0]],
            self._settings.inlier_px / self._camera.fx,
            self._seed,
        )


def fit_pose(point_M3: Array, ray_M2: Array, inlier_limit: float, seed: int) -> Array | None:
    """The camera pose ``T_map_camera`` that fits matches of scene points and rays; None if too few agree.

    Locally optimised RANSAC with P3P, then the least squares of the inliers' reprojection errors.
    inlier_limit: largest reprojection error of an inlier, in normalised image coordinates.
    """
    if len(point_M3) < FEWEST_INLIERS:
        return None
    origin = np.median(point_M3, axis=0)  # small numbers, where OpenCV uses single precision
    near_M3 = point_M3 - origin
    pixel_M2, K = FOCAL_LENGTH_PX * ray_M2, np.diag([FOCAL_LENGTH_PX, FOCAL_LENGTH_PX, 1.0])
    params = cv2.UsacParams()
    params.confidence, params.maxIterations = CONFIDENCE, ITERATIONS
    params.threshold, params.randomGeneratorState = FOCAL_LENGTH_PX * inlier_limit, seed
    params.sampler, params.score = cv2.SAMPLING_UNIFORM, cv2.SCORE_METHOD_MSAC
    params.loMethod, params.loIterations, params.loSampleSize = cv2.LOCAL_OPTIM_INNER_LO, 10, 14
    found, _, rotation, translation, inliers = cv2.solvePnPRansac(
        near_M3, pixel_M2, K, None, params=params
    )
    if not found or inliers is None or len(inliers) < FEWEST_INLIERS:
        return None
    chosen = inliers.ravel()
    rotation, translation = cv2.solvePnPRefineLM(
        near_M3[chosen], pixel_M2[chosen], K, None, rotation, translation
    )
    T_camera_near = np.eye(4)
    T_camera_near[:3, :3], T_camera_near[:3, 3] = cv2.Rodrigues(rotation)[0], translation.ravel()
    T = invert(T_camera_near)
    T[:3, 3] += origin
    return T if np.isfinite(T).all() else None


def structure_settings(scene: str) -> StructureSettings:
    """The settings for the scene of this name: those of `SETTINGS`, for other scenes the defaults."""
    return SETTINGS.get(scene, StructureSettings())


def build_structure(
    config: TrainingConfig, settings: StructureSettings, camera: Camera
) -> StructureEstimator:
    """Build the map of every n-th training image, the images that the other methods train on.

    camera: of the images to localize.
    """
    parts = training_images(config)
    map_camera = common_camera(parts)
    extract = FeatureExtractor(settings)
    images = chain.from_iterable(part.read_images() for part in parts)
    features = [
        extract(image.decode(), map_camera) for image in islice(images, None, None, settings.every)
    ]
    frames = [frame for part in parts for frame in part.frames]
    T_map_camera_N44 = poses_of(frames[:: settings.every])
    return StructureEstimator(
        features, T_map_camera_N44, config.pairs.reach_m, camera, settings, config.seed
    )


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors ``(..., D)`` scaled to unit length; zeros stay."""
    return vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-9)
