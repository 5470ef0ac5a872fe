"""The map of the preset `structure`: scene points with SIFT descriptors, triangulated with the known poses.

Keypoints are matched between neighbouring map images. Matches that agree with the known poses are joined to
tracks, and each track gives one scene point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.errors import DatasetError
from rgsiam_ros.features import matching
from rgsiam_ros.geometry.poses import Array, angles_between, invert, skew

LARGEST_TURN_DEG = 45.0
"""Images whose directions of view differ more are not matched with each other."""
SMALLEST_BASELINE = 0.02
"""Images that are closer are not matched with each other, in units of the reach."""
RELAXATION = (8.0, 4.0, 2.0, 1.0, 1.0)
"""Multiples of the reprojection limit at which an observation loses most of its weight, in the rounds of
triangulation. They shrink, so that a wrong match does not spoil a track."""
WIDTH_PX = 640
"""See `StructureSettings.enlargement`."""
GAMMA = 0.5
"""Exponent of the pixel values in `StructureSettings.brighten`."""


@dataclass(frozen=True)
class StructureSettings:
    """Settings of the preset `structure`. Pixels are those of the dataset's own images."""

    enlargement: float | None = None
    """Factor by which an image is enlarged before keypoints are extracted. None: to the width `WIDTH_PX`, but
    at most twice; a wider image keeps its size."""
    keypoints: int = 1500
    """Largest number of keypoints of an image."""
    brighten: bool = False
    """Whether gamma and a local equalisation of the histogram (CLAHE) are applied first."""
    every: int = 2
    """Every n-th training image is a map image."""
    partners: int = 12
    """Number of neighbours that each map image is matched with."""
    epipolar_px: float = 2.0
    """Largest distance of a match from its epipolar line, pixels."""
    reprojection_px: float = 2.0
    """Largest distance of an observation from its projected scene point, pixels."""
    views: int = 2
    """Smallest number of map images that see a scene point."""
    parallax_deg: float = 1.0
    """Smallest angle between a ray to a scene point and the mean of its rays, degrees."""
    inlier_px: float = 3.0
    """Largest reprojection error of an inlier when the pose of a live image is estimated, pixels."""


@dataclass(frozen=True)
class ImageFeatures:
    """The M keypoints of an image."""

    ray_M2: Array
    """Normalised image coordinates ``(x/z, y/z)``, without lens distortion."""
    descriptor_MD: NDArray[np.float32]
    """RootSIFT descriptors, of unit length."""


@dataclass(frozen=True)
class StructureMap:
    """Scene points and the descriptors with which the N map images see them."""

    point_P3: Array
    """Metres in the map frame."""
    descriptors: tuple[NDArray[np.float32], ...]
    """For each map image, the descriptors ``(M, D)`` of the keypoints that have a scene point."""
    point_indices: tuple[NDArray[np.int64], ...]
    """For each map image, the scene points ``(M,)`` of these keypoints."""


class FeatureExtractor:
    """Extracts RootSIFT features."""

    def __init__(self, settings: StructureSettings) -> None:
        self._settings = settings
        self._sift = cv2.SIFT.create(settings.keypoints)
        self._equalise = cv2.createCLAHE(2.0, (8, 8))
        self._gamma = np.round(255.0 * (np.arange(256) / 255.0) ** GAMMA).astype(np.uint8)

    def __call__(self, image_HW3: ImageBGR, camera: Camera) -> ImageFeatures:
        """The features of a BGR image of any resolution that this camera took."""
        factor = self._settings.enlargement
        if factor is None:
            factor = min(2.0, max(1.0, WIDTH_PX / camera.width))
        grey = cv2.cvtColor(image_HW3, cv2.COLOR_BGR2GRAY)
        size = (round(factor * camera.width), round(factor * camera.height))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC)
        if self._settings.brighten:
            grey = self._equalise.apply(cv2.LUT(grey, self._gamma))
        keypoints, sift = self._sift.detectAndCompute(grey, None)
        if sift is None:
            return ImageFeatures(np.empty((0, 2)), np.empty((0, 128), np.float32))
        # SIFT may return a few more than it was asked for.
        strongest = np.argsort([-k.response for k in keypoints], kind="stable")
        strongest = strongest[: self._settings.keypoints]
        enlarged = np.array([k.pt for k in keypoints], np.float64)[strongest]
        scale = np.array([camera.width / size[0], camera.height / size[1]])
        root = np.sqrt(sift[strongest] / np.maximum(sift[strongest].sum(1, keepdims=True), 1e-9))
        return ImageFeatures(_rays((enlarged + 0.5) * scale - 0.5, camera), root)


def build_map(
    features: Sequence[ImageFeatures],
    T_map_camera_N44: Array,
    reach_m: float,
    pixel: float,
    settings: StructureSettings,
) -> StructureMap:
    """Triangulate the scene points that the map images see.

    features, T_map_camera_N44: of the map images; reach_m: largest distance of images that are matched;
    pixel: the size of one pixel in normalised image coordinates. Raises DatasetError if there is no such point.
    """
    first = np.concatenate([[0], np.cumsum([len(f.ray_M2) for f in features])])
    if not first[-1]:
        raise DatasetError("the map images have no keypoints")
    image_K = np.repeat(np.arange(len(features)), np.diff(first))
    joined = []
    for i, j in neighbours(T_map_camera_N44, reach_m, settings.partners):
        match_M2 = mutual_matches(features[i].descriptor_MD, features[j].descriptor_MD)
        ray_i, ray_j = features[i].ray_M2[match_M2[:, 0]], features[j].ray_M2[match_M2[:, 1]]
        T_j_i = invert(T_map_camera_N44[j]) @ T_map_camera_N44[i]
        good = epipolar_distance(ray_i, ray_j, T_j_i) <= settings.epipolar_px * pixel
        joined.append(match_M2[good] + [first[i], first[j]])
    a, b = np.concatenate([np.empty((0, 2), np.int64), *joined]).T
    graph = csr_matrix((np.ones(len(a)), (a, b)), (first[-1], first[-1]))
    _, track_K = connected_components(graph, directed=False)
    # A track must not see one image twice: these keypoints are left out.
    _, label_K, count = np.unique(
        track_K * len(features) + image_K, return_inverse=True, return_counts=True
    )
    seen_once = count[label_K] == 1
    ray_K2 = np.concatenate([f.ray_M2 for f in features])
    point_P3, index_K = triangulate(
        ray_K2, T_map_camera_N44[image_K], np.where(seen_once, track_K, -1), pixel, settings
    )
    if not len(point_P3):
        raise DatasetError("no scene point can be triangulated from the map images")
    indices = np.split(index_K, first[1:-1])
    return StructureMap(
        point_P3,
        tuple(f.descriptor_MD[i >= 0] for f, i in zip(features, indices, strict=True)),
        tuple(index_M[index_M >= 0] for index_M in indices),
    )


def neighbours(T_map_camera_N44: Array, reach_m: float, partners: int) -> Iterator[tuple[int, int]]:
    """Yield each pair of neighbouring images once, by their known poses.

    The partners of an image are spread evenly over all images within the reach, from near to far.
    """
    position_N3, R_N33 = T_map_camera_N44[:, :3, 3], T_map_camera_N44[:, :3, :3]
    tree = cKDTree(position_N3)
    pairs = set()
    for i in range(len(position_N3)):
        near = np.array(tree.query_ball_point(position_N3[i], reach_m), np.int64)
        metres = np.linalg.norm(position_N3[near] - position_N3[i], axis=1)
        turn = angles_between(R_N33[near], R_N33[i])
        usable = (metres > SMALLEST_BASELINE * reach_m) & (turn <= np.radians(LARGEST_TURN_DEG))
        ranked = near[usable][np.argsort(metres[usable], kind="stable")]
        spread = np.linspace(0, len(ranked) - 1, min(partners, len(ranked))).round().astype(int)
        pairs |= {(min(i, j), max(i, j)) for j in ranked[spread].tolist()}
    yield from sorted(pairs)


def mutual_matches(a_MD: NDArray[np.float32], b_ND: NDArray[np.float32]) -> NDArray[np.int64]:
    """The pairs ``(K, 2)`` of descriptors that are each other's nearest neighbour."""
    if not (len(a_MD) and len(b_ND)):
        return np.empty((0, 2), np.int64)
    found = matching.mutual_matches(a_MD @ b_ND.T, -np.inf)
    return np.stack([found.first_M, found.second_M], axis=1)


def epipolar_distance(ray_i_M2: Array, ray_j_M2: Array, T_j_i: Array) -> Array:
    """The larger distance ``(M,)`` of two matched rays from each other's epipolar line.

    Unit: that of the rays. NaN if the images were taken at the same place.
    """
    ones = np.ones((len(ray_i_M2), 1))
    i_M3, j_M3 = np.hstack([ray_i_M2, ones]), np.hstack([ray_j_M2, ones])
    E = skew(T_j_i[:3, 3]) @ T_j_i[:3, :3]
    in_j_M3, in_i_M3 = i_M3 @ E.T, j_M3 @ E
    offset_M = np.abs((j_M3 * in_j_M3).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        shorter = np.minimum(np.hypot(*in_j_M3[:, :2].T), np.hypot(*in_i_M3[:, :2].T))
        return offset_M / shorter


def triangulate(
    ray_K2: Array,
    T_map_camera_K44: Array,
    track_K: NDArray[np.int64],
    pixel: float,
    settings: StructureSettings,
) -> tuple[Array, NDArray[np.int64]]:
    """Triangulate tracks. Returns points ``(P, 3)``, metres in the map frame, and their observations ``(K,)``.

    The observations are numbers of points, -1 for none. ray_K2, T_map_camera_K44, track_K: the ray of each
    observation, its camera pose, and the number of its track (-1: none). Observations with a large
    reprojection error or behind the camera are dropped, and whole tracks with too few views or too little
    parallax.
    """
    views_T = np.bincount(track_K[track_K >= 0])
    kept = np.flatnonzero((track_K >= 0) & (np.append(views_T, 0)[track_K] >= settings.views))
    _, track = np.unique(track_K[kept], return_inverse=True)
    tracks = int(track.max(initial=-1)) + 1
    of_track = csr_matrix((np.ones(len(kept)), (track, np.arange(len(kept)))), (tracks, len(kept)))
    R, centre, ray = T_map_camera_K44[kept, :3, :3], T_map_camera_K44[kept, :3, 3], ray_K2[kept]
    direction = np.einsum("kij,kj->ki", R, np.hstack([ray, np.ones((len(ray), 1))]))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    weight, good, point = np.ones(len(kept)), np.ones(len(kept), bool), np.zeros((tracks, 3))
    for factor in RELAXATION:
        point = _nearest_points(centre, direction, weight, of_track)
        offset = point[track] - centre
        in_camera = np.einsum("kji,kj->ki", R, offset)
        in_front = in_camera[:, 2] > 0.0
        z = np.where(in_front, in_camera[:, 2], 1.0)
        error = np.linalg.norm(in_camera[:, :2] / z[:, None] - ray, axis=1)
        error /= settings.reprojection_px * pixel
        good = in_front & (error <= 1.0)
        length_2 = np.maximum((offset**2).sum(axis=1), 1e-12)
        weight = in_front / (length_2 * (1.0 + (error / factor) ** 2) ** 2)
    mean = of_track @ (direction * good[:, None])
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    wide = (direction * mean[track]).sum(axis=1) < np.cos(np.radians(settings.parallax_deg))
    accepted = (of_track @ good >= settings.views) & (of_track @ (wide & good) > 0)
    good &= accepted[track]
    index_K = np.full(len(track_K), -1)
    index_K[kept[good]] = (np.cumsum(accepted) - 1)[track[good]]
    return point[accepted], index_K


def _nearest_points(
    centre_K3: Array, direction_K3: Array, weight_K: Array, of_track: csr_matrix
) -> Array:
    """The point ``(T, 3)`` of each track with the least weighted squared distances from its rays.

    of_track: ``(T, K)``, 1 where an observation is part of a track.
    """
    origin = centre_K3.mean(axis=0) if len(centre_K3) else np.zeros(3)
    across = np.eye(3) - direction_K3[:, :, None] * direction_K3[:, None, :]
    across = across * weight_K[:, None, None]
    A = (of_track @ across.reshape(-1, 9)).reshape(-1, 3, 3)
    b = of_track @ np.einsum("kij,kj->ki", across, centre_K3 - origin)
    size = np.trace(A, axis1=1, axis2=2)[:, None, None]
    A = A + (1e-12 * size + (size == 0.0)) * np.eye(3)  # a track without weights is singular
    return np.linalg.solve(A, b[:, :, None])[:, :, 0] + origin


def _rays(pixel_M2: Array, camera: Camera) -> Array:
    """The normalised image coordinates ``(M, 2)`` of pixels, without lens distortion."""
    undo = cv2.fisheye if camera.distortion_model == "equidistant" else cv2
    distortion = np.asarray(camera.distortion) if camera.distortion else np.zeros(4)
    return undo.undistortPoints(pixel_M2[:, None], camera.K, distortion)[:, 0]
