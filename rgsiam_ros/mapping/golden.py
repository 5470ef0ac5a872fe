"""The golden views of a bundle whose map has changed: the same images, with their poses in the map as it is now."""

from __future__ import annotations

import numpy as np

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.bundle.geometric_part import GeometricPart
from rgsiam_ros.bundle.golden_views import GoldenViews
from rgsiam_ros.bundle.map_points import MapPoints
from rgsiam_ros.bundle.parts import Differences
from rgsiam_ros.bundle.precision import Precision
from rgsiam_ros.engines import Engine, EngineRequest, create_engine
from rgsiam_ros.engines.self_test import describe_exceeded
from rgsiam_ros.errors import BundleError, EngineError
from rgsiam_ros.features.keypoints import IMAGE, extract
from rgsiam_ros.features.network import intrinsics
from rgsiam_ros.localization.geometric import GeometricBranch
from rgsiam_ros.localization.networks import golden_differences
from rgsiam_ros.mapping.precisions import REFERENCE_ENGINE
from rgsiam_ros.uncertainty.geometric_trust import GeometricTrust


def golden_on(bundle: Bundle, points: MapPoints, trust: GeometricTrust) -> GoldenViews:
    """The golden views that are localized in other points, by every precision of the bundle within its tolerance.

    points, trust: of the changed map, in use. Raises BundleError if there is none.
    """
    part = bundle.manifest.geometric_part
    K = intrinsics(bundle.manifest.camera, part.preprocessing)
    branch = GeometricBranch(points, np.eye(4), part.candidates)
    views, poses = [], []
    engine = create_engine(REFERENCE_ENGINE, EngineRequest(bundle.features_onnx()))
    try:
        for view in bundle.golden_views.view_NHW:
            outputs = engine.infer({IMAGE: view[None, None].astype(np.float32)})
            found = branch.localize(extract(outputs, part.keypoints), K)
            if found is not None and not trust.why_not(found.quality):
                views.append(view)
                poses.append(found.T_map_camera)
    finally:
        engine.close()
    kept = list(range(len(views)))
    for precision in part.precisions:
        reduced = _engine(bundle, precision)
        if reduced is None:
            continue
        try:
            kept = [
                i for i in kept if _passes(reduced, precision, views[i], poses[i], part, K, branch)
            ]
        finally:
            reduced.close()
    if not kept:
        raise BundleError(
            f"{bundle.path} is left as it is: none of its golden views is localized in the changed map, so no engine could be "
            "tested on it"
        )
    return GoldenViews(np.stack([views[i] for i in kept]), np.stack([poses[i] for i in kept]))


def _engine(bundle: Bundle, precision: Precision) -> Engine | None:
    """None if this machine cannot run the precision."""
    if precision in ("float32", "bfloat16"):  # what is stated; and what not every CPU can compute
        return None
    try:
        return create_engine(
            REFERENCE_ENGINE, EngineRequest(bundle.features_onnx(precision), precision)
        )
    except EngineError:
        return None


def _passes(
    engine: Engine,
    precision: Precision,
    view: np.ndarray,
    T: np.ndarray,
    part: GeometricPart,
    K: np.ndarray,
    branch: GeometricBranch,
) -> bool:
    golden = GoldenViews(view[None], T[None])
    try:
        found = golden_differences(engine, golden, branch, K, part.keypoints, part.fewest_inliers)
    except EngineError:
        return False
    variant = part.variants[precision]
    limits = Differences(position_m=variant.tolerance_m, rotation_deg=variant.tolerance_deg)
    return not describe_exceeded(found, limits)
