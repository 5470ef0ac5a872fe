"""How well the pose of the most similar map image fits: what a network must beat to be of use."""

from __future__ import annotations

import numpy as np

from rgsiam_ros.bundle import network_io
from rgsiam_training.evaluation.compare.estimators import thumbnail
from rgsiam_training.evaluation.held_out import HeldOutSet, error_summary
from rgsiam_training.export.acceptance import Float32Reference


def nearest_image_errors(held_out: HeldOutSet, reference: Float32Reference) -> dict[str, float]:
    """Fields of the manifest's `RetrievalErrors`: median errors over the held-out frames.

    The map image with the most similar thumbnail, or metric feature if the network has one, whichever is better.
    """
    mapping, validation = held_out.run.mapping, held_out.validation
    pictures = [np.stack([thumbnail(i) for i in s.image_NHW3]) for s in (validation, mapping)]
    found = [(pictures[0] @ pictures[1].T, mapping.T_map_camera_N44)]
    if reference.features is not None:
        live = reference.poses.outputs[network_io.METRIC_FEATURE]
        features = reference.features
        found.append((live @ features.metric_feature_ND.T, features.T_map_camera_N44))
    errors = [
        error_summary(T_N44[similarity_VN.argmax(axis=1)], validation.T_map_camera_N44)
        for similarity_VN, T_N44 in found
    ]
    best = min(errors, key=lambda summary: summary["median_m"])
    return {f"retrieval_median_{unit}": best[f"median_{unit}"] for unit in ("m", "deg")}
