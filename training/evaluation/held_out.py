"""Estimate the poses of a run's held-out frames, in torch or in an engine, and measure their errors.

The export uses this to check the exported networks against torch, and to accept or refuse a reduced
precision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rgsiam_ros.bundle import network_io
from rgsiam_ros.bundle.map_features import MapFeatures
from rgsiam_ros.bundle.network_io import restore_poses
from rgsiam_ros.camera.preprocessing import normalise
from rgsiam_ros.engines import Engine
from rgsiam_ros.engines.batching import infer_all
from rgsiam_ros.geometry.poses import Array, pose_errors
from rgsiam_ros.geometry.summaries import summarise
from rgsiam_ros.uncertainty.covariance import residual_covariance
from rgsiam_training.data.map_selection import thin
from rgsiam_training.fitting.run_folder import Run, StoredImages
from rgsiam_training.model.network import AbsoluteBranch

CHUNK = 32
"""Number of images that are normalised and passed on at once, to limit the memory."""

Outputs = dict[str, np.ndarray]
InferMany = Callable[[NDArray[np.float32]], Outputs]
"""A function that runs the absolute branch on normalised images ``(N, 3, H, W)`` and returns the outputs
``(N, ...)`` by name."""


@dataclass(frozen=True)
class HeldOutPoses:
    """The absolute branch's poses of the held-out frames."""

    outputs: Outputs
    """Outputs of the network by name, ``(N, ...)`` each."""
    T_map_camera_N44: Array
    """Metres."""


class HeldOutSet:
    """The held-out frames and the map images of a run, on which networks are measured."""

    def __init__(self, run: Run, map_spacing: float | None = None) -> None:
        """map_spacing: keeps fewer map images, see `MapImagesConfig.spacing`; None keeps those of the run."""
        self.run = run
        self.validation = run.validation
        self.mapping: StoredImages | None = None
        if run.config.losses.metric_distance.enabled:
            self.mapping = _map_images(run, map_spacing)

    @property
    def neighbours(self) -> int:
        """Number of map images that each live image is compared with."""
        assert self.mapping is not None
        return min(self.run.config.map_images.neighbours, len(self.mapping.image_NHW3))

    def map_features(self, infer: InferMany) -> MapFeatures | None:
        """The metric features of the map images, as the bundle stores them: in half precision.

        infer: runs the absolute branch. None for a network without a trained metric feature.
        """
        if self.mapping is None:
            return None
        outputs = self.infer(infer, self.mapping)
        features = MapFeatures(
            outputs[network_io.METRIC_FEATURE],
            self.mapping.T_map_camera_N44,
        )
        return MapFeatures.from_arrays(features.to_arrays())

    def infer(self, infer: InferMany, images: StoredImages) -> Outputs:
        """The outputs of the absolute branch for stored images, by name."""
        chunks = []
        for start in range(0, len(images.image_NHW3), CHUNK):
            chosen = images.image_NHW3[start : start + CHUNK]
            chunks.append(infer(np.stack([normalise(i, self.run.preprocessing) for i in chosen])))
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}

    def estimate(self, infer: InferMany) -> HeldOutPoses:
        """Estimate the poses of the held-out frames. infer: runs the absolute branch."""
        outputs = self.infer(infer, self.validation)
        t, q_wxyz = outputs[network_io.TRANSLATION], outputs[network_io.ROTATION]
        return HeldOutPoses(outputs, restore_poses(t, q_wxyz, self.run.target))

    def determined(self, T_N44: Array) -> NDArray[np.bool_]:
        """Which of the poses are within the reach of the true pose, ``(N,)`` bool; all if none is.

        These poses are determined by their images. For other images several wrong poses are about equally
        likely, and rounding decides between them, so that two correct implementations can differ by metres.
        """
        pairs = self.run.config.pairs
        metres, radians = pose_errors(T_N44, self.validation.T_map_camera_N44)
        near = metres + pairs.metres_per_radian * radians <= pairs.reach_m
        return near if near.any() else np.ones(len(near), bool)

    def figures(self, poses: HeldOutPoses, reference: HeldOutPoses) -> dict[str, Any]:
        """Fields of the manifest's `Variant`: errors, difference from the reference, covariance.

        reference: the poses of torch in float32.
        """
        T, T_true = poses.T_map_camera_N44, self.validation.T_map_camera_N44
        determined = self.determined(reference.T_map_camera_N44)
        metres, degrees = largest_difference(T[determined], reference.T_map_camera_N44[determined])
        validation = error_summary(T, T_true)
        validation |= {"export_difference_m": metres, "export_difference_deg": degrees}
        covariance = residual_covariance(T, T_true)
        return {"validation": validation, "covariance": {"matrix": covariance.tolist()}}


def torch_absolute_branch(branch: AbsoluteBranch) -> InferMany:
    """A function that runs the absolute branch in torch."""

    @torch.no_grad()
    def infer(image_N3HW: NDArray[np.float32]) -> Outputs:
        values = (value.numpy() for value in branch(torch.from_numpy(image_N3HW)))
        return dict(zip(branch.output_names, values, strict=True))

    return infer


def engine_absolute_branch(engine: Engine) -> InferMany:
    """A function that runs the absolute branch in an engine, one image at a time, as on the vehicle."""
    return lambda image_N3HW: infer_all(engine, image_N3HW)


def largest_difference(T_N44: Array, T_reference_N44: Array) -> tuple[float, float]:
    """The largest distance of corresponding poses ``(N, 4, 4)``: metres, degrees."""
    metres, radians = pose_errors(T_N44, T_reference_N44)
    return float(metres.max()), float(np.degrees(radians.max()))


def error_summary(T_estimated_N44: Array, T_true_N44: Array) -> dict[str, Any]:
    """Number of frames; median, mean and 95th percentile of the pose errors in metres and degrees."""
    metres, radians = pose_errors(T_estimated_N44, T_true_N44)
    figures: dict[str, Any] = {"frames": len(metres)}
    for unit, values in (("m", metres), ("deg", np.degrees(radians))):
        figures |= summarise(values, ("median", "mean", "p95"), f"_{unit}")
    return figures


def _map_images(run: Run, map_spacing: float | None) -> StoredImages:
    mapping = run.mapping
    if map_spacing is None:
        return mapping
    spacing_m = map_spacing * run.config.pairs.reach_m
    kept = thin(mapping.T_map_camera_N44, spacing_m, run.config.map_images.spacing_deg)
    return StoredImages(mapping.image_NHW3[kept], mapping.T_map_camera_N44[kept])
