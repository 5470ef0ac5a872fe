"""Measure how well a bundle's absolute branch distinguishes places that look alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from rgsiam_ros.bundle import Bundle, network_io
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.engines import EngineRequest, create_engine
from rgsiam_ros.engines.batching import infer_all
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.errors import BundleError, DatasetError
from rgsiam_ros.geometry.poses import Array, pose_errors
from rgsiam_ros.localization.live_view import LiveView
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.recordings.base import Dataset, poses_of
from rgsiam_ros.recordings.ground_truth import truth_turn


def measure_look_alikes(
    dataset: Dataset, bundle_path: Path, places_m: Sequence[tuple[float, float]], radius_m: float
) -> dict[str, Any]:
    """Measure metric features and position errors on images that were taken near places that look alike.

    places_m: x and y of at least two places in the bundle's map frame. An image belongs to the nearest place
    within `radius_m`.

    The result holds ``images``, the number of images near a place, ``near_pairs``, the number of pairs of
    such an image and a map image within the reach, and ``far_pairs``, the number of pairs whose map image is
    at another place. ``auroc`` is the probability that the features of a near pair are closer than those of a
    far pair. ``median_m`` is the median position error of the absolute branch, and ``wrong`` the share of
    images whose pose is wrong, see `rgsiam_ros.bundle.manifest.Manifest.limits`.

    Raises DatasetError if there are fewer than two places, or too few images near them, and BundleError if
    the bundle has no map features.
    """
    if len(places_m) < 2:
        raise DatasetError(f"at least two places are needed to compare, given: {len(places_m)}")
    bundle = Bundle.load(bundle_path)
    if bundle.manifest.absolute_part.retrieval is None:
        raise BundleError(
            f"{bundle_path} has no map features: export a run with losses.metric_distance"
        )
    turn = truth_turn(bundle.manifest, dataset.map_frame, dataset.path)
    T_live = turn @ poses_of(dataset.frames)
    place_of_live = _place_of(T_live, places_m, radius_m)
    place_of_map = _place_of(bundle.map_features().T_map_camera_N44, places_m, radius_m)
    chosen = np.flatnonzero(place_of_live >= 0)
    if not len(chosen) or not (place_of_map >= 0).any():
        raise DatasetError(
            f"{dataset.path}: no image within {radius_m:g} m of the places, in the dataset or in the map: "
            "enlarge the radius or name other places"
        )
    wanted = set(chosen.tolist())
    levels = bundle.manifest.absolute_part.preprocessing.levels
    images = [
        image.decode(levels=levels) for i, image in enumerate(dataset.read_images()) if i in wanted
    ]
    near, far = _feature_distances(
        _metric_features(images, dataset, bundle),
        T_live[chosen],
        place_of_live[chosen],
        place_of_map,
        bundle,
    )
    if not len(near) or not len(far):
        raise DatasetError(
            f"{dataset.path}: {len(near)} pairs of images at one place and {len(far)} at two places are too "
            "few to compare: enlarge the radius or name other places"
        )
    result: dict[str, Any] = {
        "images": len(images),
        "near_pairs": len(near),
        "far_pairs": len(far),
        "auroc": float(mannwhitneyu(far, near).statistic / (len(near) * len(far))),
    }
    metres, radians = _errors(images, T_live[chosen], dataset, bundle_path)
    wrong_N = bundle.manifest.limits.wrong(metres, np.degrees(radians))
    result |= {"median_m": float(np.median(metres)), "wrong": float(wrong_N.mean())}
    return result


def _place_of(
    T_N44: Array, places_m: Sequence[tuple[float, float]], radius_m: float
) -> NDArray[np.int64]:
    """Index of the nearest place of each pose, ``(N,)``; -1 if none is within the radius."""
    distance_NP = np.linalg.norm(T_N44[:, None, :2, 3] - np.asarray(places_m, np.float64), axis=2)
    return np.where(distance_NP.min(axis=1) <= radius_m, distance_NP.argmin(axis=1), -1)


def _metric_features(
    images: Sequence[ImageBGR], dataset: Dataset, bundle: Bundle
) -> NDArray[np.float32]:
    view = LiveView(bundle, bundle.manifest.absolute_part.preprocessing)
    view.use_camera(dataset.camera)
    inputs = [view.prepare(image) for image in images]
    engine = create_engine("onnxruntime", EngineRequest(bundle.absolute_onnx()))
    outputs = infer_all(engine, np.stack(inputs))
    engine.close()
    return outputs[network_io.METRIC_FEATURE]


def _feature_distances(
    live_ND: NDArray[np.float32],
    T_live_N44: Array,
    place_of_live: NDArray[np.int64],
    place_of_map: NDArray[np.int64],
    bundle: Bundle,
) -> tuple[Array, Array]:
    """Distances of the features of near pairs, and of pairs at different places."""
    retrieval, features = bundle.manifest.absolute_part.retrieval, bundle.map_features()
    assert retrieval is not None
    distance_NM = np.linalg.norm(live_ND[:, None] - features.metric_feature_ND, axis=2)
    metres, radians = pose_errors(
        np.broadcast_to(T_live_N44[:, None], (*distance_NM.shape, 4, 4)), features.T_map_camera_N44
    )
    near = metres + retrieval.metres_per_radian * radians <= retrieval.reach_m
    live_place_N1, map_place_1M = place_of_live[:, None], place_of_map[None]
    far = (map_place_1M >= 0) & (map_place_1M != live_place_N1)
    return distance_NM[near], distance_NM[far]


def _errors(
    images: Sequence[ImageBGR], T_true_N44: Array, dataset: Dataset, bundle: Path
) -> tuple[Array, Array]:
    relocalizer = Relocalizer.from_bundle(
        bundle, EngineOptions("onnxruntime", "float32"), branch="absolute"
    )
    relocalizer.use_camera(dataset.camera)
    estimated = np.stack([relocalizer.estimate(image).T_map_camera for image in images])
    relocalizer.close()
    return pose_errors(estimated, T_true_N44)
