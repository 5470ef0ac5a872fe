"""Decide whether a reduced precision goes into a bundle.

A reduced network is measured on the held-out frames and accepted if no median error grows by more than 5 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from rgsiam_ros.bundle.golden import GoldenImages
from rgsiam_ros.bundle.map_features import MapFeatures
from rgsiam_ros.bundle.precision import Precision
from rgsiam_ros.camera.preprocessing import normalise
from rgsiam_ros.engines import EngineRequest, create_engine
from rgsiam_ros.errors import DatasetError, EngineError
from rgsiam_training.evaluation.held_out import (
    HeldOutPoses,
    HeldOutSet,
    engine_absolute_branch,
    error_summary,
)
from rgsiam_training.export.golden_images import tolerance_for
from rgsiam_training.export.onnx_export import to_bytes
from rgsiam_training.export.quantization import Quantiser, to_float16
from rgsiam_training.fitting.run_folder import StoredImages

LARGEST_LOSS = 0.05
"""Largest accepted growth of each median error on the held-out frames, relative to float32."""
ACCEPTED_WITH: dict[Precision, str] = {
    "bfloat16": "openvino",
    "float16": "onnxruntime",
    "int8": "onnxruntime",
    "int8_symmetric": "onnxruntime",
}
"""The engine that measures each precision at export. On most CPUs ONNX Runtime computes the nodes of the
float16 network in float32 and rounds their results to float16."""
CALIBRATION_IMAGES = 256
"""Largest number of map images that the int8 scales of the activations are computed from."""
PERCENTILES = (99.999, None)
"""Percentiles of an activation's values that its int8 scale spans, in the order in which they are tried.
None: all values."""
KEPT = (0, 1, 2, 4, 8, 16)
"""Numbers of the most sensitive convolutions that stay in float32, in the order in which they are tried."""


@dataclass(frozen=True)
class Float32Reference:
    """The float32 network and its poses, which a reduced precision is compared with."""

    model: onnx.ModelProto
    poses: HeldOutPoses
    """The poses that torch estimates for the held-out frames."""
    features: MapFeatures | None
    """Features of the map images. None for a network without a metric feature."""
    golden: GoldenImages


@dataclass(frozen=True)
class AcceptedPrecision:
    """A reduced precision that goes into the bundle."""

    precision: Precision
    onnx_bytes: bytes | None
    """The absolute branch; None if the engine takes the float32 file."""
    features: MapFeatures | None
    variant: dict[str, Any]
    """Fields of the manifest's `Variant`."""
    summary: str
    """The median errors and their growth, for the log."""


@dataclass(frozen=True)
class RefusedPrecision:
    """A reduced precision that does not go into the bundle, and the reason."""

    precision: Precision
    reason: str


def try_precision(
    precision: Precision, reference: Float32Reference, held_out: HeldOutSet
) -> AcceptedPrecision | RefusedPrecision:
    """Make the network in `precision`, measure it on the held-out frames, and accept or refuse it.

    If int8 is not accurate enough, more and more of the most sensitive convolutions are kept in float32.
    It is refused when the last of these attempts is not accurate enough either.
    """
    reason = "no network could be made in this precision"
    try:
        for kept, model in _attempts(precision, reference.model, held_out):
            outcome = _measure(precision, kept, model, reference, held_out)
            if isinstance(outcome, AcceptedPrecision):
                return outcome
            reason = outcome.reason
    except DatasetError as error:
        reason = str(error)
    return RefusedPrecision(precision, reason)


def _measure(
    precision: Precision,
    kept: Sequence[str],
    model: onnx.ModelProto,
    reference: Float32Reference,
    held_out: HeldOutSet,
) -> AcceptedPrecision | RefusedPrecision:
    """Compare one reduced network with float32. kept: names of the convolutions that stay in float32."""
    content = to_bytes(model)
    try:
        engine = create_engine(ACCEPTED_WITH[precision], EngineRequest(content, precision))
    except EngineError as error:
        return RefusedPrecision(precision, str(error))
    infer = engine_absolute_branch(engine)
    try:
        features = held_out.map_features(infer)
        poses = held_out.estimate(infer)
        stored = StoredImages(reference.golden.image_NHW3, np.empty((0, 4, 4)))
        outputs = held_out.infer(infer, stored)
        tolerance = tolerance_for(outputs, reference.golden, held_out)
    except (EngineError, ValueError) as error:  # NaN, or an overflow of half precision
        return RefusedPrecision(precision, f"its outputs are not usable: {error}")
    finally:
        engine.close()
    arrays = [*poses.outputs.values(), *([] if features is None else [features.metric_feature_ND])]
    if not all(np.isfinite(values).all() for values in arrays):
        return RefusedPrecision(precision, "its outputs are not all finite")
    medians, acceptable = _compare_medians(poses, reference.poses, held_out)
    if not acceptable:
        return RefusedPrecision(precision, f"{medians}; at most {LARGEST_LOSS:+.0%} is accepted")
    info = engine.describe()
    variant = {
        "accepted_with": f"{info.name} {info.version}",
        "tolerance": tolerance.model_dump(),
        "kept_float32": list(kept),
        **held_out.figures(poses, reference.poses),
    }
    onnx_bytes = None if precision == "bfloat16" else content
    summary = f"{medians}; {len(kept)} convolutions kept in float32" if kept else medians
    return AcceptedPrecision(precision, onnx_bytes, features, variant, summary)


def _attempts(
    precision: Precision, model: onnx.ModelProto, held_out: HeldOutSet
) -> Iterator[tuple[Sequence[str], onnx.ModelProto]]:
    """The networks to try, most reduced first, each with the convolutions that it keeps in float32."""
    if precision == "bfloat16":
        yield (), model
    elif precision == "float16":
        yield (), to_float16(model)
    else:
        symmetric = precision == "int8_symmetric"
        images = calibration_images(held_out)
        quantisers = [
            Quantiser(model, images, symmetric=symmetric, percentile=p) for p in PERCENTILES
        ]
        sensitive: list[str] = []
        for count in KEPT:
            if count and not sensitive:
                sensitive = quantisers[0].most_sensitive_first()
            for quantiser in quantisers:
                if count < len(quantiser.convolutions):
                    yield sensitive[:count], quantiser.quantise(sensitive[:count])


def calibration_images(held_out: HeldOutSet) -> np.ndarray:
    """Normalised map images ``(N, 3, H, W)``, spread evenly over the map."""
    stored = held_out.run.mapping
    spread = np.linspace(0, len(stored.image_NHW3) - 1, CALIBRATION_IMAGES).round().astype(int)
    images = [stored.image_NHW3[i] for i in np.unique(spread)]
    return np.stack([normalise(i, held_out.run.preprocessing) for i in images])


def _compare_medians(
    poses: HeldOutPoses, reference: HeldOutPoses, held_out: HeldOutSet
) -> tuple[str, bool]:
    """The growth of each median error, as text, and whether all of it is acceptable."""
    T_true = held_out.validation.T_map_camera_N44
    texts, acceptable = [], True
    errors, reference_errors = (
        error_summary(p.T_map_camera_N44, T_true) for p in (poses, reference)
    )
    for unit in ("m", "deg"):
        median = errors[f"median_{unit}"]
        growth = median / reference_errors[f"median_{unit}"] - 1.0
        acceptable &= growth <= LARGEST_LOSS
        texts.append(f"median {median:.3f} {unit} ({growth:+.1%})")
    return ", ".join(texts), acceptable
