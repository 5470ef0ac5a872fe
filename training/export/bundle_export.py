"""Export a training run to a bundle, and check that the exported network computes as the trained one."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rgsiam_ros.bundle import Bundle, geometry_for, refuse_existing, write_bundle
from rgsiam_ros.bundle.manifest import ABSOLUTE_NAME, GOLDEN_NAME
from rgsiam_ros.bundle.npz import npz_bytes
from rgsiam_ros.bundle.precision import Precision, absolute_name, map_features_name
from rgsiam_ros.engines import EngineRequest, create_engine
from rgsiam_ros.errors import DatasetError, RgsiamError
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.geometry.units import angle_text, length_text
from rgsiam_ros.mapping.progress import Progress, Silent
from rgsiam_ros.recordings.base import Dataset
from rgsiam_ros.uncertainty.covariance import MINIMUM_SAMPLES
from rgsiam_training.evaluation.held_out import (
    HeldOutSet,
    engine_absolute_branch,
    largest_difference,
    torch_absolute_branch,
)
from rgsiam_training.export.acceptance import AcceptedPrecision, Float32Reference, try_precision
from rgsiam_training.export.calibrate import calibrate_bundle, images_not_trained_on, images_of_run
from rgsiam_training.export.golden_images import choose_golden, tolerance_for
from rgsiam_training.export.nearest_image import nearest_image_errors
from rgsiam_training.export.onnx_export import (
    OPSET,
    absolute_to_onnx,
    round_large_weights,
    to_bytes,
)
from rgsiam_training.fitting.run_folder import Run, StoredImages, open_run

logger = logging.getLogger(__name__)

LARGEST_DIFFERENCE_M = 1e-3
LARGEST_DIFFERENCE_DEG = 1e-3
"""Largest accepted difference between the poses of ONNX Runtime and those of torch, in float32."""
REFERENCE_ENGINE = "onnxruntime"
"""The engine in which the float32 export is checked."""
DEFAULT_PRECISIONS: tuple[Precision, ...] = ("int8",)


class ExportError(RgsiamError):
    """The exported network computes other poses than the trained network."""


@dataclass(frozen=True)
class _Float32Export:
    """The float32 network, ready for the bundle."""

    reference: Float32Reference
    contents: dict[str, bytes]
    """Files of the bundle, by name."""
    variant: dict[str, Any]
    """Fields of the manifest's `Variant`."""


def export_bundle(
    folder: Path,
    out: Path,
    map_spacing: float | None = None,
    precisions: Sequence[Precision] = DEFAULT_PRECISIONS,
    calibrate: bool = True,
    map_bundle: Path | None = None,
    calibrate_on: Sequence[Dataset] = (),
    progress: Progress | None = None,
) -> Bundle:
    """Export the averaged network of the run in `folder` to a new bundle at `out`.

    map_spacing: keeps fewer map images, see `MapImagesConfig.spacing`; precisions: reduced precisions to try
    beside float32; calibrate: fit covariance and trust, see `rgsiam_training.export.calibrate`; calibrate_on:
    sessions for this, of which the frames are taken that the run was not trained on, if they are enough; none for
    the run's validation frames; map_bundle: a bundle of `rgsiam map build` whose geometric branch is added.
    progress: shows the stages. Logs which precisions were accepted, which were refused, and why a calibration was not
    possible.

    Raises DatasetError for an incomplete run, and BundleError if `out` exists, or if `map_bundle` has another
    camera or map frame than the run. Raises ExportError if ONNX Runtime and torch differ by more than a
    millimetre or a millidegree on any validation frame.
    """
    refuse_existing(out)
    run = open_run(folder)
    _check_exportable(run)
    geometry: dict[str, Any] = {}
    geometry_files: dict[str, bytes] = {}
    if map_bundle is not None:
        part, geometry_files = geometry_for(
            Bundle.load(map_bundle), run.camera, run.description(out.name)["map_frame"]
        )
        if part["preprocessing"]["levels"] != run.preprocessing.model_dump(mode="json")["levels"]:
            raise DatasetError(
                f"{map_bundle} and {folder} scale 16-bit images differently: build the map and train on the same sessions"
            )
        geometry = {"geometry": part}
    held_out = HeldOutSet(run, map_spacing)
    advance = (progress or Silent()).start("exporting and checking precisions", 1 + len(precisions))
    logger.info(
        "exporting float32, and comparing it with torch on %d held-out images",
        len(run.validation.image_NHW3),
    )
    float32 = _export_float32(run, held_out)
    contents, variants = float32.contents, {"float32": float32.variant}
    advance(1)
    for precision in precisions:
        logger.info("trying %s: how much accuracy it costs on the held-out images", precision)
        outcome = try_precision(precision, float32.reference, held_out)
        advance(1)
        if not isinstance(outcome, AcceptedPrecision):
            logger.warning("%s refused: %s", precision, outcome.reason)
            continue
        logger.info("%s accepted: %s", precision, outcome.summary)
        variants[precision] = outcome.variant
        if outcome.onnx_bytes is not None:
            contents[absolute_name(precision)] = outcome.onnx_bytes
        if outcome.features is not None:
            contents[map_features_name(precision)] = npz_bytes(outcome.features.to_arrays())
    nearest = nearest_image_errors(held_out, float32.reference)
    for variant in variants.values():
        variant["validation"] |= nearest
    description = run.description(out.name) | {
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "absolute": _describe(run, held_out, float32.reference) | {"variants": variants},
    }
    bundle = write_bundle(out, description | geometry, contents | geometry_files)
    return _calibrated(bundle, run, calibrate_on, progress) if calibrate else bundle


def _export_float32(run: Run, held_out: HeldOutSet) -> _Float32Export:
    """Export the network in float32 and check it against torch. Raises ExportError."""
    branch = run.absolute_branch()
    round_large_weights(branch)
    model = absolute_to_onnx(branch, run.preprocessing)
    contents = {ABSOLUTE_NAME: to_bytes(model)}
    infer_torch = torch_absolute_branch(branch)
    features = held_out.map_features(infer_torch)
    if features is not None:
        contents[map_features_name("float32")] = npz_bytes(features.to_arrays())
    engine = create_engine(REFERENCE_ENGINE, EngineRequest(contents[ABSOLUTE_NAME]))
    infer_onnx = engine_absolute_branch(engine)
    poses_onnx, poses_torch = held_out.estimate(infer_onnx), held_out.estimate(infer_torch)
    check_parity(poses_onnx.T_map_camera_N44, poses_torch.T_map_camera_N44)
    golden = choose_golden(branch, held_out)
    contents[GOLDEN_NAME] = npz_bytes(golden.to_arrays())
    outputs = held_out.infer(infer_onnx, StoredImages(golden.image_NHW3, np.empty((0, 4, 4))))
    info = engine.describe()
    engine.close()
    variant = {
        "accepted_with": f"{info.name} {info.version}",
        "tolerance": tolerance_for(outputs, golden, held_out).model_dump(),
        **held_out.figures(poses_onnx, poses_torch),
    }
    return _Float32Export(Float32Reference(model, poses_torch, features, golden), contents, variant)


def _describe(run: Run, held_out: HeldOutSet, reference: Float32Reference) -> dict[str, Any]:
    """Fields of the manifest's `AbsolutePart`, except variants."""
    description: dict[str, Any] = {
        "preprocessing": run.preprocessing.model_dump(mode="json"),
        "target": run.target.model_dump(mode="json"),
        **run.labels.model_dump(mode="json"),
        **run.extent.model_dump(mode="json"),
        "network": {
            "backbone": run.config.network.backbone,
            "opset": OPSET,
            "exported_with": f"torch {torch.__version__}, onnx {version('onnx')}",
        },
    }
    if reference.features is not None:
        description["retrieval"] = {
            "neighbours": held_out.neighbours,
            "reach_m": run.config.pairs.reach_m,
            "metres_per_radian": run.config.pairs.metres_per_radian,
            "map_images": len(reference.features.metric_feature_ND),
        }
    return description


def _check_exportable(run: Run) -> None:
    if reason := run.config.why_no_export():
        raise DatasetError(f"{run.folder}: {reason}")
    frames = len(run.validation.image_NHW3)
    if frames < MINIMUM_SAMPLES:
        raise DatasetError(
            f"{run.folder}: {frames} held-out frames are too few, {MINIMUM_SAMPLES} are needed: train on more "
            "images, or with a larger --set split.fraction"
        )


def _calibrated(
    bundle: Bundle, run: Run, sessions: Sequence[Dataset], progress: Progress | None
) -> Bundle:
    try:
        held_out = images_not_trained_on(run, sessions, bundle) if sessions else images_of_run(run)
        return calibrate_bundle(bundle, held_out, bundle.path, progress=progress)
    except DatasetError as error:
        logger.warning("not calibrated: %s", error)
        return bundle


def check_parity(T_onnx_N44: Array, T_torch_N44: Array) -> None:
    """Raise ExportError if any two corresponding poses differ by more than a millimetre or a millidegree."""
    metres, degrees = largest_difference(T_onnx_N44, T_torch_N44)
    if metres > LARGEST_DIFFERENCE_M or degrees > LARGEST_DIFFERENCE_DEG:
        raise ExportError(
            f"ONNX Runtime and torch differ by up to {length_text(metres)} and {angle_text(degrees)} over "
            f"{len(T_onnx_N44)} validation frames (limits: {length_text(LARGEST_DIFFERENCE_M)}, "
            f"{angle_text(LARGEST_DIFFERENCE_DEG)}); nothing was exported"
        )
