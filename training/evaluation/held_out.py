"""Estimate the poses of a run's held-out frames, in torch or in an engine, and measure their errors.

The export uses this to check the exported networks against torch, and to accept or refuse a reduced
precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from rgsiam_ros.engines.self_test import Infer
from rgsiam_ros.geometry.poses import Array, pose_errors
from rgsiam_ros.geometry.summaries import summarise
from rgsiam_ros.localization.refinement import Agreement, look, make_agreement
from rgsiam_ros.uncertainty.covariance import residual_covariance
from rgsiam_training.data.map_selection import thin
from rgsiam_training.fitting.run_folder import Run, StoredImages
from rgsiam_training.model.network import AbsoluteBranch, RelativeBranch

CHUNK = 32
"""Number of images that are normalised and passed on at once, to limit the memory."""

Outputs = dict[str, np.ndarray]
InferMany = Callable[[NDArray[np.float32]], Outputs]
"""A function that runs the absolute branch on normalised images ``(N, 3, H, W)`` and returns the outputs
``(N, ...)`` by name."""


@dataclass(frozen=True)
class BranchPoses:
    """The poses that both branches estimate for the held-out frames, in the map frame, metres."""

    outputs: Outputs
    """Outputs of the absolute branch by name, ``(N, ...)`` each."""
    T_absolute_N44: Array
    T_refined_N44: Array | None = None
    """None without a relative branch."""


class HeldOutSet:
    """The held-out frames and the map images of a run, on which networks are measured."""

    def __init__(self, run: Run, map_spacing: float | None = None) -> None:
        """map_spacing: keeps fewer map images, see `MapImagesConfig.spacing`; None keeps those of the run."""
        self.run = run
        self.validation = run.validation
        self.mapping: StoredImages | None = None
        if run.config.has_relative_unit:
            self.mapping = _map_images(run, map_spacing)

    @property
    def neighbours(self) -> int:
        """Number of map images that each live image is aligned to."""
        assert self.mapping is not None
        return min(self.run.config.map_images.neighbours, len(self.mapping.image_NHW3))

    def map_features(self, infer: InferMany) -> MapFeatures | None:
        """The features of the map images, as the bundle stores them: local maps in half precision.

        infer: runs the absolute branch. None without a relative unit.
        """
        if self.mapping is None:
            return None
        outputs = self.infer(infer, self.mapping)
        features = MapFeatures(
            outputs[network_io.METRIC_FEATURE],
            outputs[network_io.LOCAL_MAP].astype(np.float16),
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

    def estimate(
        self,
        infer: InferMany,
        relate: Infer | None,
        features: MapFeatures | None,
        neighbours_from: BranchPoses | None = None,
    ) -> BranchPoses:
        """Estimate the poses of the held-out frames with both branches.

        infer, relate: run the absolute branch and the relative unit. Without `relate` or `features` only the
        absolute branch is used. neighbours_from: an estimate of another implementation. Its metric features
        then select the neighbours, and its errors set the agreement, so that both implementations align to
        the same map images and their refined poses can be compared. None: the features and errors of this
        estimate are used.
        """
        outputs = self.infer(infer, self.validation)
        target = self.run.target
        T_absolute = restore_poses(
            outputs[network_io.TRANSLATION], outputs[network_io.ROTATION], target
        )
        if relate is None or features is None:
            return BranchPoses(outputs, T_absolute)
        selecting = neighbours_from.outputs if neighbours_from else outputs
        query_ND = selecting[network_io.METRIC_FEATURE]
        agreement = self.agreement(selecting)
        local_NCHW = outputs[network_io.LOCAL_MAP]
        poses = [
            self.refine(relate, features, query_ND[i], local_NCHW[i : i + 1], T, agreement)
            for i, T in enumerate(T_absolute)
        ]
        return BranchPoses(outputs, T_absolute, np.stack(poses))

    def refine(
        self,
        relate: Infer,
        features: MapFeatures,
        metric_feature_D: Array,
        local_1CHW: NDArray[np.float32],
        T_absolute: Array,
        agreement: Agreement,
    ) -> Array:
        """The refined pose ``T_map_camera`` of one image, ``(4, 4)``.

        It is `T_absolute` if there is no pose hypothesis. metric_feature_D: selects the neighbours;
        local_1CHW: the local map of the image.
        """

        def relate_to(nearest_K: NDArray[np.int64]) -> Mapping[str, np.ndarray]:
            map_local = features.local_NCHW[nearest_K].astype(np.float32)
            return relate({network_io.MAP_LOCAL: map_local, network_io.LOCAL_MAP: local_1CHW})

        target = self.run.target
        nearest_K = features.nearest(metric_feature_D, self.neighbours)
        looked = look(relate_to, features, nearest_K, T_absolute, target, agreement)
        return T_absolute if looked is None else looked.combined.T_map_camera

    def agreement(self, outputs: Outputs) -> Agreement:
        """The lengths by which pose hypotheses are judged, from the absolute branch's median errors.

        outputs: those of the absolute branch for the held-out frames.
        """
        target, pairs = self.run.target, self.run.config.pairs
        T = restore_poses(outputs[network_io.TRANSLATION], outputs[network_io.ROTATION], target)
        metres, radians = pose_errors(T, self.validation.T_map_camera_N44)
        return make_agreement(
            pairs.reach_m,
            pairs.metres_per_radian,
            float(np.median(metres)),
            float(np.degrees(np.median(radians))),
        )

    def determined(self, T_N44: Array) -> NDArray[np.bool_]:
        """Which of the poses are within the reach of the true pose, ``(N,)`` bool; all if none is.

        These poses are determined by their images. For other images several wrong poses are about equally
        likely, and rounding decides between them, so that two correct implementations can differ by metres.
        """
        pairs = self.run.config.pairs
        metres, radians = pose_errors(T_N44, self.validation.T_map_camera_N44)
        near = metres + pairs.metres_per_radian * radians <= pairs.reach_m
        return near if near.any() else np.ones(len(near), bool)

    def figures(self, T_N44: Array, T_reference_N44: Array) -> dict[str, Any]:
        """The manifest's `BranchFigures` of one branch: errors, difference from the reference, covariance.

        T_N44: the branch's poses of the held-out frames; T_reference_N44: those of torch in float32.
        """
        T_true = self.validation.T_map_camera_N44
        determined = self.determined(T_reference_N44)
        metres, degrees = largest_difference(T_N44[determined], T_reference_N44[determined])
        validation = error_summary(T_N44, T_true)
        validation |= {"export_difference_m": metres, "export_difference_deg": degrees}
        covariance = residual_covariance(T_N44, T_true)
        return {"validation": validation, "covariance": {"matrix": covariance.tolist()}}

    def branch_figures(self, poses: BranchPoses, reference: BranchPoses) -> dict[str, Any]:
        """The manifest's figures of each branch, by its name. reference: poses of torch in float32."""
        figures = {"absolute": self.figures(poses.T_absolute_N44, reference.T_absolute_N44)}
        if poses.T_refined_N44 is not None and reference.T_refined_N44 is not None:
            figures["refined"] = self.figures(poses.T_refined_N44, reference.T_refined_N44)
        return figures


def torch_absolute_branch(branch: AbsoluteBranch) -> InferMany:
    """A function that runs the absolute branch in torch."""

    @torch.no_grad()
    def infer(image_N3HW: NDArray[np.float32]) -> Outputs:
        values = (value.numpy() for value in branch(torch.from_numpy(image_N3HW)))
        return dict(zip(branch.output_names, values, strict=True))

    return infer


def torch_relative_unit(unit: RelativeBranch) -> Infer:
    """A function that runs the relative unit in torch."""

    @torch.no_grad()
    def relate(inputs: Mapping[str, np.ndarray]) -> Outputs:
        names = (network_io.MAP_LOCAL, network_io.LOCAL_MAP)
        tensors = (torch.from_numpy(inputs[name]) for name in names)
        values = (value.numpy() for value in unit(*tensors))
        return dict(zip(unit.output_names, values, strict=True))

    return relate


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
