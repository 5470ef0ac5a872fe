"""From a training run to a bundle, with proof that the exported networks are the trained ones."""

from __future__ import annotations

import datetime
import io
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rgsiam_ros import networks
from rgsiam_ros.bundle import Bundle, refuse_existing, write_bundle
from rgsiam_ros.bundle.manifest import ABSOLUTE_NAME, MAP_FEATURES_NAME, RELATIVE_NAME
from rgsiam_ros.covariance import residual_covariance
from rgsiam_ros.engines import Engine, create_engine
from rgsiam_ros.errors import RgsiamError
from rgsiam_ros.geometry import Array, pose_errors
from rgsiam_ros.map_features import MapFeatures
from rgsiam_ros.networks import restore_poses
from rgsiam_ros.preprocessing import normalise
from rgsiam_ros.refinement import Agreement, look, make_agreement
from rgsiam_training.map_images import thin
from rgsiam_training.network import AbsoluteBranch, RelativeBranch
from rgsiam_training.onnx_export import OPSET, absolute_to_onnx, relative_to_onnx
from rgsiam_training.run import Run, StoredImages, open_run

BATCH = 32
LARGEST_DIFFERENCE_M = 1e-3
LARGEST_DIFFERENCE_DEG = 1e-3

Outputs = dict[str, np.ndarray]


class ExportError(RgsiamError):
    """The exported network is not the trained one."""


def export_bundle(folder: Path, out: Path, map_spacing: float | None = None) -> Bundle:
    """Export the averaged network of the run in `folder` to a bundle at `out`.

    map_spacing: thins the map's images further, see `MapImagesConfig.spacing`. Raises DatasetError for an incomplete run, ExportError when ONNX Runtime and torch differ by
    more than a millimetre or a millidegree on any validation frame, in either branch, BundleError
    when `out` exists.
    """
    refuse_existing(out)
    run = open_run(folder)
    absolute = run.absolute_branch()
    contents = {ABSOLUTE_NAME: absolute_to_onnx(absolute, run.preprocessing)}
    validation = run.validation
    by_onnx = _infer_all(create_engine("onnxruntime", contents[ABSOLUTE_NAME]), validation, run)
    by_torch = _torch_all(absolute, validation, run)
    T_onnx, T_torch = (_global_poses(outputs, run) for outputs in (by_onnx, by_torch))
    apart = check_parity(T_onnx, T_torch)
    figures = errors_of(T_onnx, validation.T_map_camera_N44, *apart)
    residual = residual_covariance(T_onnx, validation.T_map_camera_N44)
    description = run.description(out.name) | {
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "network": {
            "backbone": run.config.network.backbone,
            "opset": OPSET,
            "exported_with": f"torch {torch.__version__}, onnx {version('onnx')}",
        },
        "validation": figures,
        "covariance": {"matrix": residual.tolist()},
    }
    if run.config.has_relative_unit:
        unit = run.relative_branch()
        local_shape = by_torch[networks.LOCAL_MAP].shape[1:]
        features = map_features(absolute, run, map_spacing)
        neighbours = min(run.config.map_images.neighbours, len(features.local_NCHW))
        contents[RELATIVE_NAME] = relative_to_onnx(unit, local_shape, neighbours)
        contents[MAP_FEATURES_NAME] = _npz(features.to_arrays())
        engine = create_engine("onnxruntime", contents[RELATIVE_NAME])
        agreement = make_agreement(
            run.config.pairs.reach_m,
            run.config.pairs.metres_per_radian,
            figures["median_m"],
            figures["median_deg"],
        )
        refined_onnx = _refine_all(engine.infer, by_onnx, T_onnx, features, run, agreement)
        refined_torch = _refine_all(
            _as_engine(unit), by_torch, T_torch, features, run, agreement, like=by_onnx
        )
        engine.close()
        apart = check_parity(refined_onnx, refined_torch)
        residual = residual_covariance(refined_onnx, validation.T_map_camera_N44)
        description["refinement"] = {
            "neighbours": neighbours,
            "reach_m": run.config.pairs.reach_m,
            "metres_per_radian": run.config.pairs.metres_per_radian,
            "map_images": len(features.local_NCHW),
            "validation": errors_of(refined_onnx, validation.T_map_camera_N44, *apart),
            "covariance": {"matrix": residual.tolist()},
        }
    return write_bundle(out, description, contents)


def map_features(
    absolute: AbsoluteBranch, run: Run, map_spacing: float | None = None
) -> MapFeatures:
    """Features of the run's mapping images as the vehicle will have them: half precision."""
    mapping = run.mapping
    if map_spacing is not None:
        spacing_m = map_spacing * run.config.pairs.reach_m
        kept = thin(mapping.T_map_camera_N44, spacing_m, run.config.map_images.spacing_deg)
        mapping = StoredImages(mapping.image_NHW3[kept], mapping.T_map_camera_N44[kept])
    outputs = _torch_all(absolute, mapping, run)
    features = MapFeatures(
        outputs[networks.METRIC_FEATURE],
        outputs[networks.LOCAL_MAP].astype(np.float16),
        mapping.T_map_camera_N44,
    )
    return MapFeatures.from_arrays(features.to_arrays())


def check_parity(T_onnx_N44: Array, T_torch_N44: Array) -> tuple[float, float]:
    """Largest difference in metres and degrees. Raises ExportError above the limits."""
    metres, radians = pose_errors(T_onnx_N44, T_torch_N44)
    apart_m, apart_deg = float(metres.max()), float(np.degrees(radians.max()))
    if apart_m > LARGEST_DIFFERENCE_M or apart_deg > LARGEST_DIFFERENCE_DEG:
        raise ExportError(
            f"ONNX Runtime and torch differ by up to {apart_m * 1e3:.3f} mm and "
            f"{apart_deg * 1e3:.3f} millidegrees over {len(metres)} validation frames (limits: "
            f"{LARGEST_DIFFERENCE_M * 1e3:g} mm, {LARGEST_DIFFERENCE_DEG * 1e3:g} millidegrees); "
            "nothing was exported"
        )
    return apart_m, apart_deg


def errors_of(
    T_estimated_N44: Array, T_true_N44: Array, apart_m: float, apart_deg: float
) -> dict[str, Any]:
    """A manifest's validation section."""
    metres, radians = pose_errors(T_estimated_N44, T_true_N44)
    figures: dict[str, Any] = {"frames": len(metres)}
    for unit, values in (("m", metres), ("deg", np.degrees(radians))):
        figures[f"median_{unit}"] = float(np.median(values))
        figures[f"mean_{unit}"] = float(values.mean())
        figures[f"p95_{unit}"] = float(np.percentile(values, 95))
    return figures | {"export_difference_m": apart_m, "export_difference_deg": apart_deg}


def _global_poses(outputs: Outputs, run: Run) -> Array:
    return restore_poses(outputs[networks.TRANSLATION], outputs[networks.ROTATION], run.target)


@torch.no_grad()
def _torch_all(branch: AbsoluteBranch, images: Any, run: Run) -> Outputs:
    """The branch's outputs over stored images, stacked."""
    parts = []
    for start in range(0, len(images.image_NHW3), BATCH):
        batch = [normalise(i, run.preprocessing) for i in images.image_NHW3[start : start + BATCH]]
        parts.append([value.numpy() for value in branch(torch.from_numpy(np.stack(batch)))])
    stacked = (np.concatenate(part) for part in zip(*parts, strict=True))
    return dict(zip(branch.output_names, stacked, strict=True))


def _infer_all(engine: Engine, images: Any, run: Run) -> Outputs:
    """As `_torch_all`, one image at a time through an engine, as on the vehicle."""
    answers = [
        engine.infer({networks.IMAGE: normalise(image, run.preprocessing)[None]})
        for image in images.image_NHW3
    ]
    engine.close()
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def _as_engine(unit: RelativeBranch) -> Any:
    """The torch unit behind the signature of `Engine.infer`."""

    @torch.no_grad()
    def infer(inputs: Mapping[str, np.ndarray]) -> Outputs:
        tensors = (torch.from_numpy(inputs[n]) for n in (networks.MAP_LOCAL, networks.LOCAL_MAP))
        values = (value.numpy() for value in unit(*tensors))
        return dict(zip(unit.output_names, values, strict=True))

    return infer


def _refine_all(
    infer: Any,
    outputs: Outputs,
    T_absolute_N44: Array,
    features: MapFeatures,
    run: Run,
    agreement: Agreement,
    like: Outputs | None = None,
) -> Array:
    """Refined poses of all images; like: outputs that decide on the neighbours, else `outputs`."""
    queries = (like or outputs)[networks.METRIC_FEATURE]
    poses = []
    for i, T_absolute in enumerate(T_absolute_N44):

        def relate(nearest_K: np.ndarray, i: int = i) -> Outputs:
            map_local = features.local_NCHW[nearest_K].astype(np.float32)
            local = outputs[networks.LOCAL_MAP][i : i + 1]
            return infer({networks.MAP_LOCAL: map_local, networks.LOCAL_MAP: local})

        neighbours = min(run.config.map_images.neighbours, len(features.local_NCHW))
        found = look(relate, features, queries[i], T_absolute, run.target, neighbours, agreement)
        poses.append(T_absolute if found is None else found.T_map_camera)
    return np.stack(poses)


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
