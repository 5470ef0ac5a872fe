"""Choose the golden images of a bundle, and how far an engine may be from their answers."""

from __future__ import annotations

import numpy as np
import torch

from rgsiam_ros.bundle import network_io
from rgsiam_ros.bundle.golden import RELATIVE_OUTPUTS, GoldenImages
from rgsiam_ros.bundle.manifest import Differences
from rgsiam_ros.bundle.map_features import MapFeatures
from rgsiam_ros.camera.preprocessing import normalise
from rgsiam_ros.engines.self_test import Infer, differences_from_golden
from rgsiam_training.evaluation.held_out import HeldOutSet, Outputs, torch_absolute_branch
from rgsiam_training.fitting.run_folder import StoredImages
from rgsiam_training.model.network import AbsoluteBranch

COUNT = 6
MARGIN = 2.0
"""Other machines round otherwise: this many times the difference seen at export is allowed."""
FLOOR = Differences(
    position_m=5e-3,
    rotation_deg=5e-3,
    sigma=1e-3,
    metric_feature=1e-3,
    local_map=1e-3,
    relative_position_m=5e-3,
    relative_rotation_deg=5e-3,
    relative_information=1e-2,
)
"""Differences that never matter, in any precision."""


def choose_golden(
    branch: AbsoluteBranch, relate: Infer | None, features: MapFeatures | None, held_out: HeldOutSet
) -> GoldenImages:
    """Images spread over the validation split, with the answers of torch in float32.

    From each stretch the one whose anchor is the clearest: where two anchors are equally likely, the
    last digit decides between them, and the position jumps.
    """
    stored = held_out.validation
    clear = _clearness(branch, stored, held_out)
    stretches = np.array_split(np.arange(len(clear)), min(COUNT, len(clear)))
    chosen = np.array([s[np.argmax(clear[s])] for s in stretches])
    images = StoredImages(stored.image_NHW3[chosen], stored.T_map_camera_N44[chosen])
    absolute = held_out.infer(torch_absolute_branch(branch), images)
    if relate is None or features is None:
        return GoldenImages(images.image_NHW3, absolute)
    exchange = held_out.run.config.pairs.metres_per_radian
    nearest = np.stack(
        [features.near(T, held_out.neighbours, exchange) for T in images.T_map_camera_N44]
    )
    relative = [
        relate(
            {
                network_io.MAP_LOCAL: features.local_NCHW[near_K].astype(np.float32),
                network_io.LOCAL_MAP: absolute[network_io.LOCAL_MAP][i : i + 1],
            }
        )
        for i, near_K in enumerate(nearest)
    ]
    answers = {name: np.stack([r[name] for r in relative]) for name in RELATIVE_OUTPUTS}
    return GoldenImages(images.image_NHW3, absolute, nearest, answers)


def tolerance_for(
    outputs: Outputs,
    relate: Infer | None,
    features: MapFeatures | None,
    golden: GoldenImages,
    held_out: HeldOutSet,
) -> Differences:
    """From what a precision's own engine gives for the golden images."""
    seen = differences_from_golden(outputs, relate, features, golden, held_out.run.target)
    floor = FLOOR.model_dump()
    allowed = {
        name: None if value is None else max(MARGIN * value, floor[name])
        for name, value in seen.model_dump().items()
    }
    return Differences.model_validate(allowed)


@torch.no_grad()
def _clearness(branch: AbsoluteBranch, stored: StoredImages, held_out: HeldOutSet) -> np.ndarray:
    """How much likelier the likeliest anchor is than the next, ``(N,)``, as a difference of logits."""
    clear = []
    for image in stored.image_NHW3:
        input_13HW = torch.from_numpy(normalise(image, held_out.run.preprocessing)[None])
        logits = branch.network(input_13HW).anchor_logits_BK[0].sort(descending=True).values
        clear.append(float(logits[0] - logits[1]) if len(logits) > 1 else 0.0)
    return np.array(clear)
