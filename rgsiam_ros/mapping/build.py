"""Build a bundle with a geometric branch from recorded drives with known poses.

1. Read the labels, and refuse what cannot give a map before any image is read (`labels`, `checks`).
2. Look at the texture of a few images, then find the local features of each image (`extraction`).
3. Refine the poses if they are worse than the features (`refinement`). Make the map's points from all images
   but the held-out ones (`points`).
4. Compute the global features by which candidates are found (`rgsiam_ros.features.vlad`).
5. Localize the held-out images; fit the covariance on their errors (`validation`).
6. Write the bundle. It appears under its name only when it is complete.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.bundle import Bundle, refuse_existing, write_bundle
from rgsiam_ros.bundle.golden_views import GoldenViews
from rgsiam_ros.bundle.manifest import GOLDEN_VIEWS_NAME, MAP_POINTS_NAME
from rgsiam_ros.bundle.map_points import MapPoints, global_bytes
from rgsiam_ros.bundle.npz import npz_bytes
from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_ros.engines import EngineRequest, create_engine
from rgsiam_ros.errors import DatasetError
from rgsiam_ros.features.keypoints import Keypoints, from_bytes, to_bytes
from rgsiam_ros.features.network import (
    DEFAULT_WIDTH,
    LICENCE,
    NAME,
    ORIGIN,
    feature_preprocessing,
    intrinsics,
    network_for,
    opset,
)
from rgsiam_ros.features.vlad import Vlad
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.geometry.units import length_text
from rgsiam_ros.localization.geometric import GeometricBranch
from rgsiam_ros.mapping.checks import (
    FEWEST_KEYPOINTS,
    check_neighbours,
    check_points,
    check_sample,
    check_texture,
)
from rgsiam_ros.mapping.extraction import Extractor
from rgsiam_ros.mapping.labels import Labels, held_out_text, read_labels
from rgsiam_ros.mapping.matching import MapImage
from rgsiam_ros.mapping.points import PointCloud, make_points
from rgsiam_ros.mapping.precisions import FEWEST_INLIERS, REFERENCE_ENGINE, make_variants
from rgsiam_ros.mapping.progress import Progress, Silent
from rgsiam_ros.mapping.refinement import Refine, Refined, refine_poses
from rgsiam_ros.mapping.validation import Validated, validate
from rgsiam_ros.recordings.base import Dataset, common_camera, describe_dropped, fingerprint
from rgsiam_ros.recordings.time_offset import with_time_offset
from rgsiam_ros.uncertainty.covariance import MINIMUM_SAMPLES

logger = logging.getLogger(__name__)

MAP_KEYPOINTS = 1000
"""Most keypoints of a map image."""
LARGEST_ERROR_SHARE = 0.05
"""If the held-out images' median error is a larger share of the points' distance, poses are wrong."""
GOLDEN_VIEWS = 4
AS_GIVEN = "; errors are from their given poses, whose noise is part of them"
"""Is said of the validation if the map's poses were refined: those of held-out frames are not."""


@dataclass(frozen=True)
class MapOptions:
    """Options of `build_bundle`."""

    feature_width: int = DEFAULT_WIDTH
    """Width of the image in which local features are found, pixels."""
    points_per_image: int = 250
    """Number of points that the map keeps for each image."""
    keypoints: int = 600
    """Most keypoints of a live image."""
    candidates: int = 10
    """Number of map images that a live image is matched with."""
    refine_poses: Refine = "auto"
    """Whether noisy mapping poses are refined, see `rgsiam_ros.mapping.refinement`."""
    time_offset_s: float = 0.0
    """An image shows where the camera was this long before its stamp, seconds."""
    seed: int = 0


@dataclass(frozen=True)
class _Features:
    """The local features of all frames."""

    keypoints: list[Keypoints]
    golden_HW: dict[int, NDArray[np.uint8]]
    """Grey images of some held-out frames, by index."""


def build_bundle(
    datasets: Sequence[Dataset],
    out: Path,
    options: MapOptions | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Build the bundle `out` from the images and poses of `datasets`.

    Raises BundleError if `out` exists. Raises DatasetError before any image is read if the datasets differ in
    camera or map frame, if there are too few frames, or if most of them have no neighbour that can share points,
    because they are too far apart or the camera only turns. Raises it after a few images if these have too
    little texture, and later, but before anything is written, if most images have too little texture or share
    too few points, or if no held-out image can be localized.
    """
    options, progress = options or MapOptions(), progress or Silent()
    refuse_existing(out)
    recorded = datasets
    datasets = [with_time_offset(dataset, options.time_offset_s) for dataset in recorded]
    for dataset in datasets:
        if left_out := describe_dropped(dataset):
            logger.warning(left_out)
    camera = common_camera(datasets)
    labels = read_labels(datasets)
    check_neighbours(labels)
    preprocessing = feature_preprocessing(camera, options.feature_width)
    network = network_for(preprocessing)
    engine = create_engine(REFERENCE_ENGINE, EngineRequest(network))
    extractor = Extractor(engine, camera, preprocessing, MAP_KEYPOINTS)
    try:
        check_sample(datasets, labels, extractor)
        features = _extract(datasets, labels, extractor, progress)
    finally:
        engine.close()
    found_N = np.array([len(keypoints.score_N) for keypoints in features.keypoints])
    check_texture(found_N < FEWEST_KEYPOINTS, labels, len(found_N))
    points, origin_m, cloud, refined = _make_map(
        labels, features, camera, preprocessing, options, progress
    )
    seen_N = np.array([len(seen) for seen in points.visible])
    logger.info(
        "%d points from %d tracks of %d image pairs; %.0f points for each of %d map images",
        *(len(points.position_P3), cloud.tracks, cloud.pairs, seen_N.mean(), len(seen_N)),
    )
    check_points(seen_N, labels)
    held = np.flatnonzero(labels.held_out_N)
    K = intrinsics(camera, preprocessing)
    branch = GeometricBranch(points, np.eye(4), options.candidates, options.seed)
    found = validate(
        branch,
        [_strongest(features.keypoints[i], options.keypoints) for i in held],
        _placed(labels.T_map_camera_N44[held], -origin_m),
        K,
        FEWEST_INLIERS,
    )
    _report(found, cloud.typical_distance_m(points.T_points_camera_N44), refined)
    golden = _golden_views(found, features, held)
    variants, networks = make_variants(preprocessing, found, golden, branch, K, options.keypoints)
    contents = {
        **networks,
        MAP_POINTS_NAME: npz_bytes(points.to_arrays()),
        GOLDEN_VIEWS_NAME: npz_bytes(golden.to_arrays()),
    }
    description = _describe(
        recorded,
        out.name,
        camera,
        preprocessing,
        points,
        origin_m,
        options,
        found,
        held_out_text(labels) + (AS_GIVEN if refined is not None else ""),
        variants,
        refined,
    )
    return write_bundle(out, description, contents)


def _extract(
    datasets: Sequence[Dataset], labels: Labels, extractor: Extractor, progress: Progress
) -> _Features:
    """The keypoints of every frame, and the images of those from which golden views are chosen."""
    advance = progress.start("local features", len(labels.held_out_N))
    held = np.flatnonzero(labels.held_out_N)
    kept = set(held[:: max(1, len(held) // (4 * GOLDEN_VIEWS))].tolist())
    keypoints: list[Keypoints] = []
    golden: dict[int, NDArray[np.uint8]] = {}
    images = chain.from_iterable(dataset.read_images() for dataset in datasets)
    for fitted, found in extractor.each(image.decode() for image in images):
        if len(keypoints) in kept:
            golden[len(keypoints)] = fitted
        keypoints.append(_compact(found))
        advance(1)
    return _Features(keypoints, golden)


def _compact(keypoints: Keypoints) -> Keypoints:
    """The same keypoints with descriptors in half precision, which need half the memory."""
    return Keypoints(
        keypoints.pixel_N2, keypoints.descriptor_ND.astype(np.float16), keypoints.score_N
    )


def _strongest(keypoints: Keypoints, most: int) -> Keypoints:
    return Keypoints(
        keypoints.pixel_N2[:most],
        keypoints.descriptor_ND[:most].astype(np.float32),
        keypoints.score_N[:most],
    )


def _make_map(
    labels: Labels,
    features: _Features,
    camera: Camera,
    preprocessing: Preprocessing,
    options: MapOptions,
    progress: Progress,
) -> tuple[MapPoints, Array, PointCloud, Refined | None]:
    """The map of all frames but the held-out ones, the origin of its points, the points' observations, and
    how the poses were refined.
    """
    mapped = np.flatnonzero(~labels.held_out_N)
    images = [
        MapImage(features.keypoints[i].pixel_N2, to_bytes(features.keypoints[i].descriptor_ND))
        for i in mapped
    ]
    T_map_camera = labels.T_map_camera_N44[mapped]
    origin_m = T_map_camera[:, :3, 3].mean(axis=0)
    T_points_camera = _placed(T_map_camera, -origin_m)
    K, size_wh = (
        intrinsics(camera, preprocessing),
        (preprocessing.input_width, preprocessing.input_height),
    )
    refined = refine_poses(images, T_points_camera, K, size_wh, options.refine_poses, progress)
    if refined is not None:
        T_points_camera = refined.T_map_camera_N44
    cloud = make_points(images, T_points_camera, K, size_wh, options.points_per_image, progress)
    if not len(cloud.position_P3):
        raise DatasetError(
            "no point could be triangulated: the camera hardly moves between images that show the same "
            "things, or the poses do not fit the images: check them with `rgsiam inspect`"
        )
    vlad, feature_NG = Vlad.fit([from_bytes(image.descriptor_ND) for image in images], options.seed)
    points = MapPoints(
        cloud.position_P3,
        cloud.descriptor_PD,
        T_points_camera,
        global_bytes(feature_NG),
        cloud.visible(len(images)),
        vlad,
    )
    return MapPoints.from_arrays(points.to_arrays()), origin_m, cloud, refined


def _placed(T_N44: Array, shift_m: Array) -> Array:
    moved = T_N44.copy()
    moved[:, :3, 3] += shift_m
    return moved


def _report(found: Validated, distance_m: float, refined: Refined | None) -> None:
    """Log how well the held-out images were localized. distance_m: of the map's points from the cameras."""
    logger.info(found.describe() + (AS_GIVEN if refined is not None else ""))
    median_m = found.errors()[0]
    if median_m > LARGEST_ERROR_SHARE * distance_m:
        logger.warning(
            "half of the localized held-out images are more than %s off, and points are %s away: the poses "
            "do not fit the images; check them with `rgsiam inspect`",
            *(length_text(median_m), length_text(distance_m)),
        )
    if not found.fitted:
        logger.warning(
            "%d localized held-out images are too few to fit the covariance, %d are needed: it only says how "
            "the matches constrain the pose; record more images",
            *(found.answered_N.sum(), MINIMUM_SAMPLES),
        )


def _golden_views(found: Validated, features: _Features, held_N: NDArray[np.int64]) -> GoldenViews:
    """Some held-out images with their poses, those with the most inliers first."""
    usable = [
        (place, index)
        for place, index in enumerate(held_N.tolist())
        if index in features.golden_HW and found.answered_N[place]
    ]
    usable.sort(key=lambda item: -found.inliers_N[item[0]])
    chosen = usable[:GOLDEN_VIEWS]
    if not chosen:
        raise DatasetError(
            f"{found.answered_N.sum()} of {len(held_N)} held-out images could be localized: the poses do not "
            "fit the images, or the images are too far apart; check them with `rgsiam inspect`"
        )
    poses = [found.poses[place] for place, _ in chosen]
    T = np.stack([pose.T_map_camera for pose in poses if pose is not None])
    return GoldenViews(np.stack([features.golden_HW[index] for _, index in chosen]), T)


def _describe(
    datasets: Sequence[Dataset],
    name: str,
    camera: Camera,
    preprocessing: Preprocessing,
    points: MapPoints,
    origin_m: Array,
    options: MapOptions,
    found: Validated,
    kind: str,
    variants: dict[str, dict[str, Any]],
    refined: Refined | None,
) -> dict[str, Any]:
    """The manifest's fields except the files."""
    return {
        "name": name,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "map_frame": datasets[0].map_frame,
        "camera": camera.model_dump(),
        "mapping_data": {
            "fingerprint": fingerprint(datasets),
            "source": ", ".join(dataset.path.name for dataset in datasets),
            "frames": len(points.visible),
        },
        "geometry": {
            "preprocessing": preprocessing.model_dump(),
            "network": {
                "name": NAME,
                "licence": LICENCE,
                "opset": opset(),
                "exported_with": ORIGIN,
            },
            "placement": {"origin_m": origin_m.tolist()},
            "map_images": len(points.visible),
            "points": len(points.position_P3),
            "keypoints": options.keypoints,
            "candidates": options.candidates,
            "fewest_inliers": FEWEST_INLIERS,
            "time_offset_s": options.time_offset_s,
            "pose_refinement": None if refined is None else refined.summary(),
            "variants": variants,
            "validation": found.summary(kind),
            **vars(found.uncertainty),
        },
    }
