"""The local features' network of a bundle, in each precision that the package ships."""

from __future__ import annotations

import logging
from typing import Any

from rgsiam_ros.bundle.golden_views import GoldenViews
from rgsiam_ros.bundle.parts import Differences
from rgsiam_ros.bundle.precision import Precision, local_features_name
from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_ros.engines import EngineRequest, create_engine
from rgsiam_ros.engines.self_test import describe_exceeded
from rgsiam_ros.errors import EngineError
from rgsiam_ros.features.network import FeatureNetworks, network_for
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.geometric import GeometricBranch
from rgsiam_ros.localization.networks import golden_differences
from rgsiam_ros.mapping.validation import Validated

logger = logging.getLogger(__name__)

FEWEST_INLIERS = 30
"""A live image with fewer inliers is lost."""
REFERENCE_ENGINE = "onnxruntime"
REDUCED: tuple[Precision, ...] = ("bfloat16", "float16", "int8", "int8_symmetric")
"""Reduced precisions that the package ships; bfloat16 takes the float32 file."""
TOLERANCE_SHARE, REDUCED_TOLERANCE_SHARE = 0.5, 2.0
"""Tolerance of another engine's poses on the golden views, as a share of the median validation error: in
float32, and in a reduced precision."""


def make_variants(
    preprocessing: Preprocessing,
    found: Validated,
    golden: GoldenViews,
    branch: GeometricBranch,
    K: Array,
    keypoints: int,
    shipped: FeatureNetworks,
) -> tuple[dict[str, dict[str, Any]], dict[str, bytes]]:
    """The manifest's `FeatureVariant` of each precision, and the networks' files by name.

    found: the poses of the held-out images; branch: over the map, in the points' frame; K: intrinsic matrix
    of the network's image; keypoints: most keypoints of a live image; shipped: the
    networks with open sides. A precision that does not localize the
    golden views is left out with a warning.
    """
    float32 = local_features_name("float32")
    variants = {"float32": _variant(found, TOLERANCE_SHARE)}
    files = {float32: network_for(preprocessing, float32, shipped)}
    for precision in REDUCED:
        name, variant = local_features_name(precision), _variant(found, REDUCED_TOLERANCE_SHARE)
        content = network_for(preprocessing, name, shipped)
        # not every CPU can compute bfloat16: its engine is tested where it is used
        if precision != "bfloat16":
            problem = _problem(content, precision, variant, golden, branch, K, keypoints)
            if problem:
                logger.warning("%s is left out: %s", precision, problem)
                continue
        variants[precision], files[name] = variant, content
    return variants, files


def _variant(found: Validated, share: float) -> dict[str, Any]:
    """share: of the median errors, for the tolerance."""
    median_m, _, median_deg, _ = found.errors()
    return {
        "accepted_with": REFERENCE_ENGINE,
        "tolerance_m": max(share * median_m, 1e-3),
        "tolerance_deg": max(share * median_deg, 1e-2),
    }


def _problem(
    network: bytes,
    precision: Precision,
    variant: dict[str, Any],
    golden: GoldenViews,
    branch: GeometricBranch,
    K: Array,
    keypoints: int,
) -> str:
    """Why a reduced precision cannot go into the bundle; empty if it can."""
    try:
        engine = create_engine(REFERENCE_ENGINE, EngineRequest(network, precision))
    except EngineError as error:
        return str(error)
    try:
        differences = golden_differences(engine, golden, branch, K, keypoints, FEWEST_INLIERS)
    except EngineError as error:
        return str(error)
    finally:
        engine.close()
    limits = Differences(position_m=variant["tolerance_m"], rotation_deg=variant["tolerance_deg"])
    return "; ".join(describe_exceeded(differences, limits))
