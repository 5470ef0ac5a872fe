"""Build a bundle with a geometric branch from recorded drives with known poses.

1. Read the labels, and refuse what cannot give a map before any image is read (`labels`, `checks`).
2. Look at the texture of a few images, then find the local features of each image (`extraction`).
3. Refine the poses if they are worse than the features (`refinement`). Make the map's points from all images
   but the held-out ones (`points`).
4. Compute the global features by which candidates are found (`rgsiam_ros.features.vlad`).
5. Localize the held-out images; fit the trust threshold and the covariance on the answers (`validation`).
6. Write the bundle. It appears under its name only when it is complete.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rgsiam_ros.bundle import Bundle, refuse_existing, write_bundle
from rgsiam_ros.bundle.geometric_part import MapSession
from rgsiam_ros.bundle.golden_views import GoldenViews
from rgsiam_ros.bundle.manifest import GOLDEN_VIEWS_NAME, MAP_POINTS_NAME
from rgsiam_ros.bundle.map_points import MapPoints, global_bytes
from rgsiam_ros.bundle.npz import npz_bytes
from rgsiam_ros.bundle.parts import LabelCorrection, MapExtent
from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_ros.engines import EngineRequest, create_engine
from rgsiam_ros.errors import DatasetError
from rgsiam_ros.features.keypoints import from_bytes
from rgsiam_ros.features.network import (
    DEFAULT_WIDTH,
    PACKAGE,
    FeatureNetworks,
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
from rgsiam_ros.mapping.frame_features import GOLDEN_VIEWS, FrameFeatures, find_features
from rgsiam_ros.mapping.held_out import held_out_images, placed
from rgsiam_ros.mapping.label_correction import OffsetOption, correct_labels
from rgsiam_ros.mapping.labels import Labels, held_out_text, read_labels
from rgsiam_ros.mapping.map_scale import scale_of_points
from rgsiam_ros.mapping.map_sessions import built_sessions
from rgsiam_ros.mapping.matching import MapImage
from rgsiam_ros.mapping.points import PointCloud, make_points
from rgsiam_ros.mapping.precisions import FEWEST_INLIERS, REFERENCE_ENGINE, make_variants
from rgsiam_ros.mapping.progress import Progress, Silent
from rgsiam_ros.mapping.refinement import Refine, Refined, refine_poses
from rgsiam_ros.mapping.tuned_features import load_features
from rgsiam_ros.mapping.validation import Validated, validate
from rgsiam_ros.recordings.base import (
    Dataset,
    common_camera,
    describe_dropped,
    describe_repeated,
    fingerprint,
    session_fingerprints,
)
from rgsiam_ros.recordings.levels import levels_of, with_levels

logger = logging.getLogger(__name__)

MAP_KEYPOINTS = 1000
"""Most keypoints of a map image."""
LEAST_RIGHT_SHARE = 0.5
"""If fewer held-out images get a right pose, a warning tells."""
LARGEST_ERROR_SHARE = 0.05
"""If the held-out images' median error is a larger share of the points' distance, poses are wrong."""
AS_GIVEN = "errors are from the given poses of the held-out images, whose noise is part of them"
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
    time_offset: OffsetOption = 0.0
    """An image shows where the camera was this long before its stamp, seconds; auto: estimate it."""
    refine_camera: bool = False
    """Whether the focal length is estimated."""
    seed: int = 0
    features: Path | None = None
    """Folder of `rgsiam tune-features`, whose network is taken; None: the package's."""


def build_bundle(
    datasets: Sequence[Dataset],
    out: Path,
    options: MapOptions | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Build the bundle `out` from the images and poses of `datasets`.

    Raises BundleError if `out` exists, or if `MapOptions.features` cannot be used. Raises DatasetError before any
    image is read if the datasets differ in camera or map frame, if there are too few frames, or if most of them
    have no neighbour that can share points, because they are too far apart or the camera only turns. Raises it
    after a few images if these have too little texture. Raises it later, but before anything is written, if most
    images have too little texture or share too few points, or if no held-out image can be localized.
    """
    options, progress = options or MapOptions(), progress or Silent()
    refuse_existing(out)
    recorded = datasets
    common_camera(recorded)
    check_neighbours(read_labels(recorded))
    prints = session_fingerprints(recorded)
    datasets, correction = correct_labels(
        recorded, options.time_offset, options.refine_camera, progress
    )
    for dataset in datasets:
        if left_out := describe_dropped(dataset):
            logger.warning(left_out)
    camera = common_camera(datasets)
    labels = read_labels(datasets)
    check_neighbours(labels)
    for dataset in datasets:
        if repeated := describe_repeated(dataset):
            logger.warning(repeated)
    levels = levels_of(datasets)
    datasets = [with_levels(dataset, levels) for dataset in datasets]
    preprocessing = feature_preprocessing(camera, options.feature_width, levels)
    networks = PACKAGE
    if options.features is not None:
        networks = load_features(options.features, preprocessing, datasets)
    network = network_for(preprocessing, networks=networks)
    engine = create_engine(REFERENCE_ENGINE, EngineRequest(network))
    extractor = Extractor(engine, camera, preprocessing, MAP_KEYPOINTS)
    try:
        check_sample(datasets, labels, extractor)
        features = find_features(
            datasets, labels, extractor, options.keypoints, options.seed, progress
        )
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
    K = intrinsics(camera, preprocessing)
    branch = GeometricBranch(points, np.eye(4), options.candidates, options.seed)
    distance_m = points.typical_distance_m()
    held_out = held_out_images(labels, features, points, -origin_m, distance_m)
    T_N44, width = points.T_points_camera_N44, preprocessing.input_width
    extent = MapExtent.of_scale(scale_of_points(cloud, T_N44, K, width))
    logger.info(extent.describe())
    found = validate(branch, held_out, K, FEWEST_INLIERS, extent.limits)
    _report(found, distance_m, refined)
    golden = _golden_views(found, features, branch, K)
    variants, files = make_variants(
        preprocessing, found, golden, branch, K, options.keypoints, networks
    )
    contents = {
        **files,
        MAP_POINTS_NAME: npz_bytes(points.to_arrays()),
        GOLDEN_VIEWS_NAME: npz_bytes(golden.to_arrays()),
    }
    description = _describe(
        recorded,
        prints,
        out.name,
        camera,
        correction,
        preprocessing,
        points,
        origin_m,
        options,
        extent,
        found,
        held_out_text(labels) + (f"; {AS_GIVEN}" if refined is not None else ""),
        variants,
        refined,
        networks,
        built_sessions(datasets, prints, labels.held_out_N, points),
    )
    return write_bundle(out, description, contents)


def _make_map(
    labels: Labels,
    features: FrameFeatures,
    camera: Camera,
    preprocessing: Preprocessing,
    options: MapOptions,
    progress: Progress,
) -> tuple[MapPoints, Array, PointCloud, Refined | None]:
    """The map of all frames but the held-out ones, the origin of its points, the points' observations, and
    how the poses were refined.
    """
    mapped = np.flatnonzero(~labels.held_out_N)
    images = [MapImage.of(features.keypoints[i]) for i in mapped]
    T_map_camera = labels.T_map_camera_N44[mapped]
    origin_m = T_map_camera[:, :3, 3].mean(axis=0)
    T_points_camera = placed(T_map_camera, -origin_m)
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


def _report(found: Validated, distance_m: float, refined: Refined | None) -> None:
    """Log how well the held-out images were localized. distance_m: of the map's points from the cameras."""
    for line in found.describe():
        logger.info(line)
    if refined is not None:
        logger.info(AS_GIVEN)
    median_m, recorded = found.errors()[0], found.recorded
    right = recorded.share(recorded.right_N) or 0.0
    if median_m > LARGEST_ERROR_SHARE * distance_m:
        logger.warning(
            "half of the localized held-out images are more than %s off, and points are %s away: the poses "
            "do not fit the images; check them with `rgsiam inspect`",
            *(length_text(median_m), length_text(distance_m)),
        )
    elif right < LEAST_RIGHT_SHARE:
        logger.warning(
            "%.0f %% of the held-out images get a right pose: the images are too far apart, or the poses do not fit "
            "the images; check them with `rgsiam inspect`",
            100.0 * right,
        )


def _golden_views(
    found: Validated, features: FrameFeatures, branch: GeometricBranch, K: Array
) -> GoldenViews:
    """Some held-out images with their poses in the whole map, those with the most inliers first."""
    usable = []
    for index, view in features.view_HW.items():
        pose = branch.localize(features.live[index], K)
        if pose is not None and not found.trust.why_not(pose.quality):
            usable.append((pose, view))
    usable.sort(key=lambda item: -item[0].quality.inliers)
    chosen = usable[:GOLDEN_VIEWS]
    if not chosen:
        raise DatasetError(
            f"{found.recorded.answered_N.sum()} of {len(found.recorded.poses)} held-out images could be localized: the "
            "poses do not fit the images, or the images are too far apart; check them with `rgsiam inspect`"
        )
    T = np.stack([pose.T_map_camera for pose, _ in chosen])
    return GoldenViews(np.stack([view for _, view in chosen]), T)


def _describe(
    datasets: Sequence[Dataset],
    prints: Sequence[str],
    name: str,
    camera: Camera,
    correction: LabelCorrection,
    preprocessing: Preprocessing,
    points: MapPoints,
    origin_m: Array,
    options: MapOptions,
    extent: MapExtent,
    found: Validated,
    kind: str,
    variants: dict[str, dict[str, Any]],
    refined: Refined | None,
    networks: FeatureNetworks,
    sessions: Sequence[MapSession],
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
            "sessions": list(prints),
        },
        "geometry": {
            "preprocessing": preprocessing.model_dump(),
            "network": {
                "name": networks.name,
                "licence": networks.licence,
                "opset": opset(networks),
                "exported_with": networks.origin,
            },
            "placement": {"origin_m": origin_m.tolist()},
            "map_images": len(points.visible),
            "points": len(points.position_P3),
            "keypoints": options.keypoints,
            "candidates": options.candidates,
            "fewest_inliers": FEWEST_INLIERS,
            "trust_threshold": found.trust.threshold,
            **extent.model_dump(),
            **correction.model_dump(mode="json"),
            "pose_refinement": None if refined is None else refined.summary(),
            "variants": variants,
            "validation": found.summary(kind),
            **vars(found.uncertainty),
            "sessions": [session.model_dump() for session in sessions],
        },
    }
