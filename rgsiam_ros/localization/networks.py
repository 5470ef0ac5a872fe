"""Which network of a bundle is run for a branch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rgsiam_ros.bundle import Bundle, Manifest
from rgsiam_ros.bundle.golden_views import GoldenViews
from rgsiam_ros.bundle.parts import Differences
from rgsiam_ros.bundle.precision import local_features_name
from rgsiam_ros.engines import Engine
from rgsiam_ros.engines.base import Tensors
from rgsiam_ros.engines.batching import infer_all
from rgsiam_ros.engines.served import ServedNetwork, absolute_network
from rgsiam_ros.errors import BundleError, EngineError
from rgsiam_ros.features.keypoints import IMAGE, extract
from rgsiam_ros.features.network import intrinsics
from rgsiam_ros.geometry.poses import Array, pose_errors
from rgsiam_ros.localization.geometric import GeometricBranch

BRANCHES = ("auto", "absolute", "refined")
"""``absolute``: the pose of the absolute branch. ``refined``: the pose of the geometric branch. ``auto``: refined
if the bundle has it."""


def check_branch(path: str | Path, manifest: Manifest, branch: str) -> None:
    """Raise BundleError if `branch` is none of `BRANCHES`, or if the bundle at `path` does not have it."""
    if branch not in BRANCHES:
        raise BundleError(f"branch {branch!r} is unknown: choose one of {', '.join(BRANCHES)}")
    if branch == "absolute" and manifest.absolute is None:
        raise BundleError(
            f"{path} has no absolute branch: set branch to auto, or export a run of `rgsiam train`"
        )
    if branch == "refined" and manifest.geometry is None:
        raise BundleError(
            f"{path} has no geometric branch: set branch to absolute, or build a map with `rgsiam map build`"
        )


def uses_geometry(manifest: Manifest, branch: str) -> bool:
    """Whether the geometric branch is the one in use."""
    return manifest.geometry is not None and branch != "absolute"


def network_of(bundle: Bundle, branch: str = "auto", batch: int = 1) -> ServedNetwork:
    """The network that is run for a branch, which `check_branch` has accepted."""
    if uses_geometry(bundle.manifest, branch):
        return _geometric_network(bundle, batch)
    return absolute_network(bundle, batch)


def all_networks(bundle: Bundle) -> list[ServedNetwork]:
    """The networks of all branches that the bundle has, the one of `auto` first."""
    manifest = bundle.manifest
    both = manifest.geometry is not None and manifest.absolute is not None
    return [network_of(bundle), *([absolute_network(bundle)] if both else [])]


def golden_differences(
    engine: Engine,
    golden: GoldenViews,
    branch: GeometricBranch,
    K: Array,
    most_keypoints: int,
    fewest_inliers: int,
    batch: int = 1,
) -> Differences:
    """Largest differences of the poses of the golden views from the stated ones.

    engine: runs the local features' network; branch: over the map, in the points' frame; K: intrinsic matrix of
    the views; batch: the batch size that the engine was started with. Raises EngineError, also if a view is not
    localized.
    """
    outputs = infer_all(engine, golden.view_NHW[:, None].astype(np.float32), batch)
    metres, radians = 0.0, 0.0
    for row, T in enumerate(golden.T_points_camera_N44):
        own = {name: value[row : row + 1] for name, value in outputs.items()}
        found = branch.localize(extract(own, most_keypoints), K)
        if found is None or found.quality.inliers < fewest_inliers:
            inliers = 0 if found is None else found.quality.inliers
            raise EngineError(
                f"golden view {row} is not localized: {inliers} matches agree, {fewest_inliers} are needed"
            )
        errors = pose_errors(found.T_map_camera, T)
        metres, radians = max(metres, float(errors[0])), max(radians, float(errors[1]))
    return Differences(position_m=metres, rotation_deg=float(np.degrees(radians)))


def _geometric_network(bundle: Bundle, batch: int) -> ServedNetwork:
    part = bundle.manifest.geometric_part

    def example() -> Tensors:
        return {IMAGE: bundle.golden_views.view_NHW[:1, None].astype(np.float32)}

    def measure(engine: Engine) -> Differences:
        K = intrinsics(bundle.manifest.camera, part.preprocessing)
        branch = GeometricBranch(bundle.map_points, np.eye(4), part.candidates)
        return golden_differences(
            engine, bundle.golden_views, branch, K, part.keypoints, part.fewest_inliers, batch
        )

    return ServedNetwork(
        offered=part.precisions,
        file=local_features_name,
        measure=measure,
        tolerance={
            precision: Differences(
                position_m=variant.tolerance_m, rotation_deg=variant.tolerance_deg
            )
            for precision, variant in part.variants.items()
        },
        example=example,
    )
