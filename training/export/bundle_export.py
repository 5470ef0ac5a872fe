"""From a training run to a bundle, with proof that the exported networks are the trained ones."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from rgsiam_ros.bundle import Bundle, refuse_existing, write_bundle
from rgsiam_ros.bundle.manifest import ABSOLUTE_NAME, GOLDEN_NAME, RELATIVE_NAME
from rgsiam_ros.bundle.npz import npz_bytes
from rgsiam_ros.bundle.precision import Precision, absolute_name, map_features_name
from rgsiam_ros.engines import EngineRequest, create_engine
from rgsiam_ros.engines.self_test import Infer
from rgsiam_ros.errors import DatasetError, RgsiamError
from rgsiam_ros.geometry.poses import Array
from rgsiam_training.evaluation.held_out import (
    HeldOutSet,
    engine_absolute_branch,
    largest_difference,
    torch_absolute_branch,
    torch_relative_unit,
)
from rgsiam_training.export.acceptance import AcceptedPrecision, Float32Reference, try_precision
from rgsiam_training.export.calibrate import calibrate_bundle, images_of_run
from rgsiam_training.export.golden_images import choose_golden, tolerance_for
from rgsiam_training.export.onnx_export import (
    OPSET,
    absolute_to_onnx,
    relative_to_onnx,
    round_large_weights,
    to_bytes,
)
from rgsiam_training.fitting.run_folder import Run, StoredImages, open_run

LARGEST_DIFFERENCE_M = 1e-3
LARGEST_DIFFERENCE_DEG = 1e-3
REFERENCE_ENGINE = "onnxruntime"
DEFAULT_PRECISIONS: tuple[Precision, ...] = ("int8",)


class ExportError(RgsiamError):
    """The exported network is not the trained one."""


def export_bundle(
    folder: Path,
    out: Path,
    map_spacing: float | None = None,
    precisions: Sequence[Precision] = DEFAULT_PRECISIONS,
    report: Callable[[str], None] = lambda _: None,
    calibrate: bool = True,
) -> Bundle:
    """Export the averaged network of the run in `folder` to a bundle at `out`.

    map_spacing: thins the map's images further, see `MapImagesConfig.spacing`; precisions: to try
    beside float32; report: told what was accepted and what was refused; calibrate: see
    `rgsiam_training.export.calibrate`, on the run's validation (what does not suffice is reported). Raises DatasetError for an
    incomplete run, ExportError when ONNX Runtime and torch differ by more than a millimetre or a
    millidegree on any validation frame, in either branch (of the refined one: on those whose pose the
    image determines), BundleError when `out` exists.
    """
    refuse_existing(out)
    run = open_run(folder)
    _check_exportable(run)
    held_out = HeldOutSet(run, map_spacing)
    branch = run.absolute_branch()
    round_large_weights(branch)
    model = absolute_to_onnx(branch, run.preprocessing)
    contents = {ABSOLUTE_NAME: to_bytes(model)}
    features = held_out.map_features(torch_absolute_branch(branch))
    relate: Infer | None = None
    relate_torch: Infer | None = None
    if features is not None:
        unit, local_shape = run.relative_branch(), features.local_NCHW.shape[1:]
        contents[RELATIVE_NAME] = to_bytes(relative_to_onnx(unit, local_shape, held_out.neighbours))
        contents[map_features_name("float32")] = npz_bytes(features.to_arrays())
        relate = create_engine(REFERENCE_ENGINE, EngineRequest(contents[RELATIVE_NAME])).infer
        relate_torch = torch_relative_unit(unit)
    engine = create_engine(REFERENCE_ENGINE, EngineRequest(contents[ABSOLUTE_NAME]))
    by_onnx = held_out.answers(engine_absolute_branch(engine), relate, features)
    by_torch = held_out.answers(torch_absolute_branch(branch), relate_torch, features, like=by_onnx)
    absolute = held_out.figures(by_onnx.T_absolute_N44, by_torch.T_absolute_N44)
    check_parity(by_onnx.T_absolute_N44, by_torch.T_absolute_N44)
    golden = choose_golden(branch, relate_torch, features, held_out)
    stored = StoredImages(golden.image_NHW3, np.empty((0, 4, 4)))
    outputs = held_out.infer(engine_absolute_branch(engine), stored)
    tolerance = tolerance_for(outputs, relate, features, golden, held_out)
    engine.close()
    contents[GOLDEN_NAME] = npz_bytes(golden.to_arrays())
    description = run.description(out.name) | {
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "network": {
            "backbone": run.config.network.backbone,
            "opset": OPSET,
            "exported_with": f"torch {torch.__version__}, onnx {version('onnx')}",
        },
        **absolute,
        "tolerance": tolerance.model_dump(),
        "variants": {},
    }
    if features is not None:
        assert by_onnx.T_refined_N44 is not None
        assert by_torch.T_refined_N44 is not None
        determined = held_out.determined(by_torch.T_refined_N44)
        check_parity(by_onnx.T_refined_N44[determined], by_torch.T_refined_N44[determined])
        description["refinement"] = {
            "neighbours": held_out.neighbours,
            "reach_m": run.config.pairs.reach_m,
            "metres_per_radian": run.config.pairs.metres_per_radian,
            "map_images": len(features.local_NCHW),
            **held_out.figures(by_onnx.T_refined_N44, by_torch.T_refined_N44),
        }
    reference = Float32Reference(model, by_torch, relate, features, golden)
    for precision in precisions:
        tried = try_precision(precision, reference, held_out)
        if not isinstance(tried, AcceptedPrecision):
            report(f"{precision} refused: {tried.reason}")
            continue
        report(f"{precision} accepted: {tried.summary}")
        description["variants"][precision] = tried.variant
        if tried.onnx_bytes is not None:
            contents[absolute_name(precision)] = tried.onnx_bytes
        if tried.features is not None:
            contents[map_features_name(precision)] = npz_bytes(tried.features.to_arrays())
    bundle = write_bundle(out, description, contents)
    return _calibrated(bundle, run, report) if calibrate else bundle


def _check_exportable(run: Run) -> None:
    if run.config.network.neck == "lstm":
        raise DatasetError(
            f"{run.folder}: LSTMs do not export for any number of images: this body is there to be "
            "compared with; train with network.neck flatten or hourglass"
        )
    if not run.config.losses.global_pose.enabled:
        raise DatasetError(
            f"{run.folder} was trained without global_pose and has no absolute branch to export"
        )


def _calibrated(bundle: Bundle, run: Run, report: Callable[[str], None]) -> Bundle:
    try:
        return calibrate_bundle(bundle, images_of_run(run), bundle.path, report=report)
    except DatasetError as error:
        report(f"not calibrated: {error}")
        return bundle


def check_parity(T_onnx_N44: Array, T_torch_N44: Array) -> None:
    """Raises ExportError where poses differ by more than a millimetre or a millidegree."""
    apart_m, apart_deg = largest_difference(T_onnx_N44, T_torch_N44)
    if apart_m > LARGEST_DIFFERENCE_M or apart_deg > LARGEST_DIFFERENCE_DEG:
        raise ExportError(
            f"ONNX Runtime and torch differ by up to {apart_m * 1e3:.3f} mm and "
            f"{apart_deg * 1e3:.3f} millidegrees over {len(T_onnx_N44)} validation frames (limits: "
            f"{LARGEST_DIFFERENCE_M * 1e3:g} mm, {LARGEST_DIFFERENCE_DEG * 1e3:g} millidegrees); "
            "nothing was exported"
        )
