"""Try a reduced precision: accepted where validation hardly worsens, refused with figures else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from rgsiam_ros.bundle.golden import GoldenImages
from rgsiam_ros.bundle.map_features import MapFeatures
from rgsiam_ros.bundle.precision import Precision
from rgsiam_ros.camera.preprocessing import normalise
from rgsiam_ros.engines import EngineRequest, create_engine
from rgsiam_ros.engines.self_test import Infer
from rgsiam_ros.errors import DatasetError, EngineError
from rgsiam_training.evaluation.held_out import (
    BranchPoses,
    HeldOutSet,
    engine_absolute_branch,
    error_summary,
)
from rgsiam_training.export.golden_images import tolerance_for
from rgsiam_training.export.onnx_export import to_bytes
from rgsiam_training.export.quantization import Quantiser, to_float16
from rgsiam_training.fitting.run_folder import StoredImages

LARGEST_LOSS = 0.05
"""By which each median on validation may worsen."""
ACCEPTED_WITH: dict[Precision, str] = {
    "bfloat16": "openvino",
    "float16": "onnxruntime",
    "int8": "onnxruntime",
    "int8_symmetric": "onnxruntime",
}
"""The engine in which a precision is tried at export. ONNX Runtime runs the float16 network's nodes in
float32 on most CPUs and rounds between them."""
CALIBRATION_IMAGES = 256
PERCENTILES = (99.999, None)
"""Of the values that an activation's scale spans, tried in this order; None: all of them."""
KEPT = (0, 1, 2, 4, 8, 16)
"""How many of the most sensitive convolutions stay in float32, tried in this order."""


@dataclass(frozen=True)
class Float32Reference:
    """Float32: what a reduced precision is held against."""

    model: onnx.ModelProto
    answers: BranchPoses
    """Of torch."""
    relate: Infer | None
    features: MapFeatures | None
    golden: GoldenImages


@dataclass(frozen=True)
class AcceptedPrecision:
    """A reduced precision that may go into the bundle."""

    precision: Precision
    onnx_bytes: bytes | None
    """None where the float32 file serves."""
    features: MapFeatures | None
    variant: dict[str, Any]
    """For the manifest."""
    summary: str


@dataclass(frozen=True)
class RefusedPrecision:
    """A reduced precision that may not, and why."""

    precision: Precision
    reason: str


def try_precision(
    precision: Precision, reference: Float32Reference, held_out: HeldOutSet
) -> AcceptedPrecision | RefusedPrecision:
    """Reduce, measure on validation, and accept or refuse.

    Where int8 is not accurate enough, the convolutions that disturb the features most are left in
    float32, more and more of them, before it is refused.
    """
    reason = "nothing could be tried"
    try:
        for kept, model in _attempts(precision, reference.model, held_out):
            tried = _measure(precision, kept, model, reference, held_out)
            if isinstance(tried, AcceptedPrecision):
                return tried
            reason = tried.reason
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
    content = to_bytes(model)
    try:
        engine = create_engine(ACCEPTED_WITH[precision], EngineRequest(content, precision))
    except EngineError as error:
        return RefusedPrecision(precision, str(error))
    infer = engine_absolute_branch(engine)
    try:
        features = held_out.map_features(infer)
        answers = held_out.estimate(infer, reference.relate, features)
        stored = StoredImages(reference.golden.image_NHW3, np.empty((0, 4, 4)))
        outputs = held_out.infer(infer, stored)
        tolerance = tolerance_for(
            outputs, reference.relate, reference.features, reference.golden, held_out
        )
    except (EngineError, ValueError) as error:  # numbers that are none, or beyond half precision
        return RefusedPrecision(precision, f"it computes no usable answers: {error}")
    finally:
        engine.close()
    every = [*answers.outputs.values(), *([] if features is None else [features.local_NCHW])]
    if not all(np.isfinite(values).all() for values in every):
        return RefusedPrecision(precision, "its answers are not all finite")
    losses, acceptable = _losses(answers, reference.answers, held_out)
    if not acceptable:
        return RefusedPrecision(precision, f"{losses}; at most {LARGEST_LOSS:.0%} more is accepted")
    info = engine.describe()
    variant = {
        "accepted_with": f"{info.name} {info.version}",
        "tolerance": tolerance.model_dump(),
        "kept_float32": list(kept),
        **_both(answers, reference.answers, held_out),
    }
    own = None if precision == "bfloat16" else content
    summary = f"{losses}; {len(kept)} convolutions kept in float32" if kept else losses
    return AcceptedPrecision(precision, own, features, variant, summary)


def _attempts(
    precision: Precision, model: onnx.ModelProto, held_out: HeldOutSet
) -> Iterator[tuple[Sequence[str], onnx.ModelProto]]:
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
    """Training images spread over the map, normalised."""
    stored = held_out.run.mapping
    chosen = np.linspace(0, len(stored.image_NHW3) - 1, CALIBRATION_IMAGES).round().astype(int)
    images = [stored.image_NHW3[i] for i in np.unique(chosen)]
    return np.stack([normalise(i, held_out.run.preprocessing) for i in images])


def _losses(answers: BranchPoses, reference: BranchPoses, held_out: HeldOutSet) -> tuple[str, bool]:
    """By how much each median worsens, in words; and whether all of them may."""
    T_true = held_out.validation.T_map_camera_N44
    words, acceptable = [], True
    for branch in ("absolute", "refined"):
        T, T_reference = (getattr(a, f"T_{branch}_N44") for a in (answers, reference))
        if T is None:
            continue
        now, before = (error_summary(poses, T_true) for poses in (T, T_reference))
        for unit in ("m", "deg"):
            change = now[f"median_{unit}"] / before[f"median_{unit}"] - 1.0
            acceptable &= change <= LARGEST_LOSS
            words.append(f"{branch} median {now[f'median_{unit}']:.3f} {unit} ({change:+.1%})")
    return ", ".join(words), acceptable


def _both(answers: BranchPoses, reference: BranchPoses, held_out: HeldOutSet) -> Mapping[str, Any]:
    both = {"absolute": held_out.figures(answers.T_absolute_N44, reference.T_absolute_N44)}
    if answers.T_refined_N44 is not None:
        assert reference.T_refined_N44 is not None
        both["refined"] = held_out.figures(answers.T_refined_N44, reference.T_refined_N44)
    return both
