"""From a training run to a bundle, with proof that the exported network is the trained one."""

from __future__ import annotations

import datetime
import io
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import yaml

from rgsiam_ros.bundle import Bundle, write_bundle
from rgsiam_ros.bundle.manifest import ABSOLUTE_NAME, Target
from rgsiam_ros.covariance import residual_covariance
from rgsiam_ros.engines import create_engine
from rgsiam_ros.errors import DatasetError, RgsiamError
from rgsiam_ros.geometry import Array, pose_errors
from rgsiam_ros.preprocessing import Preprocessing, normalise
from rgsiam_ros.relocalizer import restore_poses
from rgsiam_training.config import TrainingConfig, load_config
from rgsiam_training.module import RelocalizationModule
from rgsiam_training.network import OUTPUT_NAMES, AbsoluteBranch
from rgsiam_training.train import CHECKPOINT_NAME, CONFIG_NAME, DATA_NAME, VALIDATION_NAME

OPSET = 18
TORCH_BATCH = 32
LARGEST_DIFFERENCE_M = 1e-3
LARGEST_DIFFERENCE_DEG = 1e-3


class ExportError(RgsiamError):
    """The exported network is not the trained one."""


def export_bundle(run: Path, out: Path) -> Bundle:
    """Export the run's averaged network to a bundle at `out`.

    Raises DatasetError for an incomplete run, ExportError when ONNX Runtime and torch differ by
    more than a millimetre or a millidegree on any validation frame, BundleError when `out` exists.
    """
    config, data = _read_run(run)
    branch = load_branch(run, config, data)
    preprocessing = Preprocessing.model_validate(data["preprocessing"])
    onnx_bytes = to_onnx(branch, preprocessing)
    with np.load(run / VALIDATION_NAME, allow_pickle=False) as stored:
        image_NHW3, T_true_N44 = stored["image_NHW3"], stored["T_map_camera_N44"]
    input_N3HW = np.stack([normalise(image, preprocessing) for image in image_NHW3])
    target = Target.model_validate(data["target"])
    by_torch = _poses_by_torch(branch, input_N3HW, target)
    by_onnx = _poses_by_onnx(onnx_bytes, input_N3HW, target)
    apart_m, apart_deg = check_parity(by_onnx, by_torch)
    description = {
        "name": out.name,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "map_frame": data["map_frame"],
        "preprocessing": data["preprocessing"],
        "camera": data["camera"],
        "target": data["target"],
        "network": {
            "backbone": config.network.backbone,
            "opset": OPSET,
            "exported_with": f"torch {torch.__version__}, onnx {version('onnx')}",
        },
        "training_data": data["training_data"],
        "validation": _validation(by_onnx, T_true_N44, apart_m, apart_deg),
        "covariance": {"matrix": residual_covariance(by_onnx, T_true_N44).tolist()},
    }
    return write_bundle(out, description, {ABSOLUTE_NAME: onnx_bytes})


def load_branch(run: Path, config: TrainingConfig, data: dict[str, Any]) -> AbsoluteBranch:
    """The run's averaged network, in evaluation mode. Raises DatasetError without a checkpoint."""
    path = run / CHECKPOINT_NAME
    if not path.is_file():
        raise DatasetError(f"{path} does not exist: train first, or wait for the first epoch")
    untrained = config.model_copy(
        update={"network": config.network.model_copy(update={"pretrained": False})}
    )
    preprocessing = Preprocessing.model_validate(data["preprocessing"])
    target = data["target"]
    state = torch.load(path, map_location="cpu", weights_only=False)["state_dict"]
    anchors_K3 = state["network.global_unit.anchors_K3"].numpy()
    module = RelocalizationModule(
        untrained, preprocessing, target["origin_m"], target["scale_m"], anchors_K3, steps=1
    )
    module.load_state_dict(state)
    return AbsoluteBranch(module.average.module.to(memory_format=torch.contiguous_format)).eval()


def to_onnx(branch: AbsoluteBranch, preprocessing: Preprocessing) -> bytes:
    """The branch as a self-contained ONNX file for one image, checked."""
    example = torch.zeros(1, 3, preprocessing.input_height, preprocessing.input_width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            branch,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=list(OUTPUT_NAMES),
            external_data=False,
            verbose=False,
        )
    model = program.model_proto
    onnx.checker.check_model(model, full_check=True)
    buffer = io.BytesIO()
    onnx.save_model(model, buffer)
    return buffer.getvalue()


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


def _read_run(run: Path) -> tuple[TrainingConfig, dict[str, Any]]:
    for name in (CONFIG_NAME, DATA_NAME, VALIDATION_NAME):
        if not (run / name).is_file():
            raise DatasetError(f"{run / name} does not exist: {run} is not a training run")
    return load_config(run / CONFIG_NAME, {}), yaml.safe_load((run / DATA_NAME).read_text())


@torch.no_grad()
def _poses_by_torch(branch: AbsoluteBranch, input_N3HW: Array, target: Target) -> Array:
    outputs = [branch(images) for images in torch.from_numpy(input_N3HW).split(TORCH_BATCH)]
    translation, quaternion_wxyz = (torch.cat(part).numpy() for part in zip(*outputs, strict=True))
    return restore_poses(translation, quaternion_wxyz, target)


def _poses_by_onnx(onnx_bytes: bytes, input_N3HW: Array, target: Target) -> Array:
    engine = create_engine("onnxruntime", onnx_bytes)
    outputs = [engine.infer(image[None]) for image in input_N3HW]
    engine.close()
    translation, quaternion_wxyz = (
        np.concatenate([output[name] for output in outputs]) for name in OUTPUT_NAMES
    )
    return restore_poses(translation, quaternion_wxyz, target)


def _validation(
    T_estimated_N44: Array, T_true_N44: Array, apart_m: float, apart_deg: float
) -> dict[str, Any]:
    metres, radians = pose_errors(T_estimated_N44, T_true_N44)
    figures: dict[str, Any] = {"frames": len(metres)}
    for unit, values in (("m", metres), ("deg", np.degrees(radians))):
        figures[f"median_{unit}"] = float(np.median(values))
        figures[f"mean_{unit}"] = float(values.mean())
        figures[f"p95_{unit}"] = float(np.percentile(values, 95))
    return figures | {"export_difference_m": apart_m, "export_difference_deg": apart_deg}
