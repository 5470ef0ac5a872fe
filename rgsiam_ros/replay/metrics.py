"""Figures of a replay, as `metrics.json` holds them."""

from __future__ import annotations

from typing import Any

import numpy as np

from rgsiam_ros.geometry.summaries import summarise
from rgsiam_ros.replay import covariance_consistency
from rgsiam_ros.replay.records import ReplayRecord
from rgsiam_ros.uncertainty.covariance import pose_error_vectors

SCHEMA_VERSION = 1
RECALL_THRESHOLDS = ((0.25, 2.0), (0.5, 5.0), (5.0, 10.0))
"""Metres and degrees, both of which must be met."""
WRONG_M = 5.0
"""A pose off by more is counted as wrong."""


def replay_metrics(record: ReplayRecord) -> dict[str, Any]:
    """Errors of the answered frames, recall over all frames with a true pose, availability, latency.

    A frame without an answer counts against recall and availability, not against the errors.
    """
    metres, radians, _ = record.errors()
    degrees = np.degrees(radians)
    with_truth = sum(frame.T_true is not None for frame in record.frames)
    answered = sum(frame.T_map_frame is not None for frame in record.frames)
    return {
        "schema_version": SCHEMA_VERSION,
        "frames": len(record.frames),
        "answered": answered,
        "refined": _refined(record),
        "availability": answered / len(record.frames) if record.frames else 0.0,
        "frames_with_truth": with_truth,
        "position_error_m": summarise(metres) if len(metres) else None,
        "rotation_error_deg": summarise(degrees) if len(degrees) else None,
        "recall": {
            f"{m:g} m {deg:g} deg": (
                float(np.sum((metres <= m) & (degrees <= deg)) / with_truth) if with_truth else None
            )
            for m, deg in RECALL_THRESHOLDS
        },
        "lost": sum(frame.T_withheld is not None for frame in record.frames),
        "lost_detection": _lost_detection(record),
        "consistency": _consistency(record),
        "latency_ms": latency(record),
        "reported_frame": record.reported_frame,
        "map_frame": record.map_frame,
    }


def _consistency(record: ReplayRecord) -> dict[str, Any] | None:
    frames = record.with_both()
    if not frames:
        return None
    T, T_true, covariance = (
        np.stack([getattr(frame, name) for frame in frames])
        for name in ("T_map_frame", "T_true", "covariance_66")
    )
    return covariance_consistency.report(pose_error_vectors(T, T_true), covariance)


def _lost_detection(record: ReplayRecord) -> dict[str, Any] | None:
    """How wrong poses were told from right ones; None where nothing was judged or known."""
    judged = [
        (np.linalg.norm(frame.T_estimated[:3, 3] - frame.T_true[:3, 3]), frame.trust >= 0.0)
        for frame in record.frames
        if frame.trust is not None and frame.T_estimated is not None and frame.T_true is not None
    ]
    if not judged:
        return None
    off, accepted = (np.array(values) for values in zip(*judged, strict=True))
    wrong = off > WRONG_M
    return {
        "wrong_m": WRONG_M,
        "accepted": float(accepted.mean()),
        "accepted_of_right": float(accepted[~wrong].mean()) if (~wrong).any() else None,
        "wrong": float(wrong.mean()),
        "wrong_of_accepted": float(wrong[accepted].mean()) if accepted.any() else None,
    }


def latency(record: ReplayRecord) -> dict[str, dict[str, float]]:
    """p50, p95 and p99 of each stage, milliseconds."""
    stages: dict[str, list[float]] = {}
    for frame in record.frames:
        for stage, milliseconds in frame.timings_ms.items():
            stages.setdefault(stage, []).append(milliseconds)
    return {
        stage: {f"p{p}": float(np.percentile(values, p)) for p in (50, 95, 99)}
        for stage, values in stages.items()
    }


def _refined(record: ReplayRecord) -> int | None:
    """How many poses are from the relative branch; None where the poses do not say."""
    branches = [frame.branch for frame in record.frames if frame.branch]
    return branches.count("refined") if branches else None
