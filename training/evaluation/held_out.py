"""What a pair of networks answers on a run's held-out images, through torch or through an engine."""

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

Outputs = dict[str, np.ndarray]
InferMany = Callable[[NDArray[np.float32]], Outputs]
"""Outputs of the absolute branch for normalised images ``(N, 3, H, W)``, stacked."""


@dataclass(frozen=True)
class BranchPoses:
    """Of both branches on the validation images."""

    outputs: Outputs
    T_absolute_N44: Array
    T_refined_N44: Array | None = None


class HeldOutSet:
    """A run's validation images and map, on which networks are measured."""

    def __init__(self, run: Run, map_spacing: float | None = None) -> None:
        """map_spacing: thins the map's images further, see `MapImagesConfig.spacing`."""
        self.run = run
        self.validation = run.validation
        self.mapping: StoredImages | None = None
        if run.config.has_relative_unit:
            self.mapping = _thinned(run, map_spacing)

    @property
    def neighbours(self) -> int:
        """Map images that each live image is aligned to."""
        assert self.mapping is not None
        return min(self.run.config.map_images.neighbours, len(self.mapping.image_NHW3))

    def map_features(self, infer: InferMany) -> MapFeatures | None:
        """As the vehicle will have them: in half precision. None without a relative unit."""
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
        """A network's outputs over stored images."""
        parts = []
        for start in range(0, len(images.image_NHW3), CHUNK):
            chosen = images.image_NHW3[start : start + CHUNK]
            parts.append(infer(np.stack([normalise(i, self.run.preprocessing) for i in chosen])))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def estimate(
        self,
        infer: InferMany,
        relate: Infer | None,
        features: MapFeatures | None,
        like: BranchPoses | None = None,
    ) -> BranchPoses:
        """Poses of both branches; like: answers whose neighbours are taken instead of one's own."""
        outputs = self.infer(infer, self.validation)
        target = self.run.target
        T_absolute = restore_poses(
            outputs[network_io.TRANSLATION], outputs[network_io.ROTATION], target
        )
        if relate is None or features is None:
            return BranchPoses(outputs, T_absolute)
        queries = (like.outputs if like else outputs)[network_io.METRIC_FEATURE]
        agreement = self.agreement((like or BranchPoses(outputs, T_absolute)).outputs)
        local_NCHW = outputs[network_io.LOCAL_MAP]
        poses = [
            self.refined(relate, features, queries[i], local_NCHW[i : i + 1], T, agreement)
            for i, T in enumerate(T_absolute)
        ]
        return BranchPoses(outputs, T_absolute, np.stack(poses))

    def refined(
        self,
        relate: Infer,
        features: MapFeatures,
        metric_feature_D: Array,
        local_1CHW: NDArray[np.float32],
        T_absolute: Array,
        agreement: Agreement,
    ) -> Array:
        """The relative branch's ``(4, 4)`` pose of one image; the absolute one where it has none."""

        def relate_to(nearest_K: NDArray[np.int64]) -> Mapping[str, np.ndarray]:
            map_local = features.local_NCHW[nearest_K].astype(np.float32)
            return relate({network_io.MAP_LOCAL: map_local, network_io.LOCAL_MAP: local_1CHW})

        target = self.run.target
        nearest_K = features.nearest(metric_feature_D, self.neighbours)
        found = look(relate_to, features, nearest_K, T_absolute, target, agreement)
        return T_absolute if found is None else found.combined.T_map_camera

    def agreement(self, outputs: Outputs) -> Agreement:
        """The lengths by which hypotheses are judged. outputs: of the validation images."""
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
        """Which poses the image determines: those within the reach of the truth; all, if none is.

        Where the vehicle is lost, rounding alone decides between answers that are equally wrong, and two
        correct implementations differ by more than they do elsewhere.
        """
        pairs = self.run.config.pairs
        metres, radians = pose_errors(T_N44, self.validation.T_map_camera_N44)
        near = metres + pairs.metres_per_radian * radians <= pairs.reach_m
        return near if near.any() else np.ones(len(near), bool)

    def figures(self, T_N44: Array, T_reference_N44: Array) -> dict[str, Any]:
        """A manifest's figures of one branch: errors, difference to the reference, covariance."""
        T_true = self.validation.T_map_camera_N44
        determined = self.determined(T_reference_N44)
        apart_m, apart_deg = largest_difference(T_N44[determined], T_reference_N44[determined])
        validation = error_summary(T_N44, T_true)
        validation |= {"export_difference_m": apart_m, "export_difference_deg": apart_deg}
        covariance = residual_covariance(T_N44, T_true)
        return {"validation": validation, "covariance": {"matrix": covariance.tolist()}}


def torch_absolute_branch(branch: AbsoluteBranch) -> InferMany:
    """The absolute branch in torch."""

    @torch.no_grad()
    def infer(image_N3HW: NDArray[np.float32]) -> Outputs:
        values = (value.numpy() for value in branch(torch.from_numpy(image_N3HW)))
        return dict(zip(branch.output_names, values, strict=True))

    return infer


def torch_relative_unit(unit: RelativeBranch) -> Infer:
    """The relative unit in torch."""

    @torch.no_grad()
    def relate(inputs: Mapping[str, np.ndarray]) -> Outputs:
        tensors = (
            torch.from_numpy(inputs[n]) for n in (network_io.MAP_LOCAL, network_io.LOCAL_MAP)
        )
        values = (value.numpy() for value in unit(*tensors))
        return dict(zip(unit.output_names, values, strict=True))

    return relate


def engine_absolute_branch(engine: Engine) -> InferMany:
    """The absolute branch in an engine, one image at a time, as on the vehicle."""
    return lambda image_N3HW: infer_all(engine, image_N3HW)


def largest_difference(T_N44: Array, T_reference_N44: Array) -> tuple[float, float]:
    """In metres and degrees."""
    metres, radians = pose_errors(T_N44, T_reference_N44)
    return float(metres.max()), float(np.degrees(radians.max()))


def error_summary(T_estimated_N44: Array, T_true_N44: Array) -> dict[str, Any]:
    """Median, mean and 95th percentile in metres and degrees."""
    metres, radians = pose_errors(T_estimated_N44, T_true_N44)
    figures: dict[str, Any] = {"frames": len(metres)}
    for unit, values in (("m", metres), ("deg", np.degrees(radians))):
        figures |= summarise(values, ("median", "mean", "p95"), f"_{unit}")
    return figures


def _thinned(run: Run, map_spacing: float | None) -> StoredImages:
    mapping = run.mapping
    if map_spacing is None:
        return mapping
    spacing_m = map_spacing * run.config.pairs.reach_m
    kept = thin(mapping.T_map_camera_N44, spacing_m, run.config.map_images.spacing_deg)
    return StoredImages(mapping.image_NHW3[kept], mapping.T_map_camera_N44[kept])
