"""Made records of a run, and the gallery and metrics that belong to them."""

from dataclasses import replace

import numpy as np

from rgsiam_ros.geometry.poses import pose_matrix
from rgsiam_ros.report.gallery import Gallery
from rgsiam_ros.report.metrics import replay_metrics
from rgsiam_ros.report.records import FrameRecord, ReplayRecord
from rgsiam_ros.uncertainty.geometric_trust import OUTDOORS

NO_GALLERY = Gallery([], [], "no pictures", "how they were chosen")


def straight_drive(frames=100, *, step_m=1.0, error_m=0.1, sigma_m=0.1, lost=(), reason="dark"):
    """A drive along x, an image a second. Each position is off along y; lost frames have no pose, for this reason."""
    random = np.random.default_rng(0)
    records = []
    for i in range(frames):
        T_true = pose_matrix([i * step_m, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0])
        T = T_true.copy()
        T[1, 3] += error_m * random.choice([-1.0, 1.0])
        gone = i in lost
        records.append(
            FrameRecord(
                i * 10**9,
                None if gone else T,
                np.diag(np.square([sigma_m / np.sqrt(3.0)] * 3 + [1e-3] * 3)),
                T_true,
                {"inference": 10.0, "total": 20.0 + 0.1 * i},
                problem=f"lost: {reason}" if gone else "",
                trust=-1.0 if gone else 1.0,
                T_withheld=T if gone else None,
            )
        )
    return ReplayRecord(records, "base_link", "map")


def without_truth(record):
    return replace(record, frames=[replace(frame, T_true=None) for frame in record.frames])


def metrics_of(record, **more):
    return (
        replay_metrics(record, OUTDOORS) | {"seen_in_training": False, "bundle_doubts": []} | more
    )
