"""Choose the golden images of a bundle, and the tolerances that an engine has to keep on them."""

from __future__ import annotations

import numpy as np
import torch

from rgsiam_ros.bundle.golden import GoldenImages
from rgsiam_ros.bundle.parts import Differences
from rgsiam_ros.camera.preprocessing import normalise
from rgsiam_ros.engines.self_test import differences_from_golden
from rgsiam_training.evaluation.held_out import HeldOutSet, Outputs, torch_absolute_branch
from rgsiam_training.fitting.run_folder import StoredImages
from rgsiam_training.model.network import AbsoluteBranch

COUNT = 6
"""Number of golden images."""
MARGIN = 2.0
"""Tolerance divided by the difference at export. It is above 1 because other machines round differently."""
FLOOR = Differences(
    position_m=5e-3,
    rotation_deg=5e-3,
    sigma=1e-3,
    metric_feature=1e-3,
)
"""Smallest tolerances, in every precision. Such differences do not matter."""


def choose_golden(branch: AbsoluteBranch, held_out: HeldOutSet) -> GoldenImages:
    """Golden images, spread over the held-out frames, with the outputs of torch in float32.

    The held-out frames are divided into `COUNT` parts. Each part gives the image with the largest difference
    between the logits of its two likeliest anchors. If two anchors are equally likely, rounding decides between
    them, and the position jumps.
    """
    stored = held_out.validation
    margin_N = _anchor_margins(branch, stored, held_out)
    parts = np.array_split(np.arange(len(margin_N)), min(COUNT, len(margin_N)))
    chosen = np.array([part[np.argmax(margin_N[part])] for part in parts])
    images = StoredImages(stored.image_NHW3[chosen], stored.T_map_camera_N44[chosen])
    return GoldenImages(images.image_NHW3, held_out.infer(torch_absolute_branch(branch), images))


def tolerance_for(outputs: Outputs, golden: GoldenImages, held_out: HeldOutSet) -> Differences:
    """The tolerances of a precision: `MARGIN` times the differences measured here, and at least `FLOOR`.

    outputs: those of the precision's engine for the golden images, by name.
    """
    measured = differences_from_golden(outputs, golden, held_out.run.target)
    floor = FLOOR.model_dump()
    tolerance = {
        name: None if value is None else max(MARGIN * value, floor[name])
        for name, value in measured.model_dump().items()
    }
    return Differences.model_validate(tolerance)


@torch.no_grad()
def _anchor_margins(
    branch: AbsoluteBranch, stored: StoredImages, held_out: HeldOutSet
) -> np.ndarray:
    """Difference between the logits of the two likeliest anchors of each image, ``(N,)``."""
    margins = []
    for image in stored.image_NHW3:
        input_13HW = torch.from_numpy(normalise(image, held_out.run.preprocessing)[None])
        logits = branch.network(input_13HW).anchor_logits_BK[0].sort(descending=True).values
        margins.append(float(logits[0] - logits[1]) if len(logits) > 1 else 0.0)
    return np.array(margins)
