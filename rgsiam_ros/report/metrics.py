"""Compute the figures of a replay that ``metrics.json`` holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.geometry.poses import Array, pose_errors
from rgsiam_ros.geometry.summaries import summarise
from rgsiam_ros.report.covariance_consistency import consistency_report
from rgsiam_ros.report.records import ReplayRecord
from rgsiam_ros.uncertainty.covariance import pose_error_vectors
from rgsiam_ros.uncertainty.geometric_trust import RIGHT_DEG, WRONG_DEG, ErrorLimits

SCHEMA_VERSION = 1


def replay_metrics(record: ReplayRecord, limits: ErrorLimits) -> dict[str, Any]:
    """Errors, shares of right and wrong poses, recall, availability, consistency and latency of a replay.

    limits: of the bundle's map, see `rgsiam_ros.bundle.manifest.Manifest.limits`.

    The errors are those of the frames with a pose and a true pose. Recall is the number of frames whose
    errors are within both thresholds, divided by the number of frames with a true pose; so are the shares of right
    and wrong poses. A frame without a pose therefore lowers recall and availability, is neither right nor wrong,
    and does not change the errors.
    """
    metres, radians, _ = record.errors()
    degrees = np.degrees(radians)
    with_truth = sum(frame.T_true is not None for frame in record.frames)
    answered = sum(frame.T_map_frame is not None for frame in record.frames)

    def share(which_M: NDArray[np.bool_]) -> float | None:
        return float(which_M.sum() / with_truth) if with_truth else None

    return {
        "schema_version": SCHEMA_VERSION,
        "frames": len(record.frames),
        "answered": answered,
        "availability": answered / len(record.frames) if record.frames else 0.0,
        "frames_with_truth": with_truth,
        "position_error_m": summarise(metres) if len(metres) else None,
        "rotation_error_deg": summarise(degrees) if len(degrees) else None,
        "limits": {
            "right_m": limits.right_m,
            "right_deg": RIGHT_DEG,
            "wrong_m": limits.wrong_m,
            "wrong_deg": WRONG_DEG,
        },
        "right": share(limits.right(metres, degrees)),
        "wrong": share(limits.wrong(metres, degrees)),
        "recall": {
            f"{m:g} m {deg:g} deg": share((metres <= m) & (degrees <= deg))
            for m, deg in limits.recall_levels
        },
        "lost": sum(frame.T_withheld is not None for frame in record.frames),
        "lost_detection": _lost_detection(record, limits),
        "consistency": _consistency(record),
        "latency_ms": latency(record),
        "reported_frame": record.reported_frame,
        "map_frame": record.map_frame,
    }


def metrics_with_offset(
    record: ReplayRecord, T_true: Sequence[Array | None], offset_s: float, limits: ErrorLimits
) -> dict[str, Any]:
    """The errors against labels that were moved in time, under a key of their own.

    T_true: true pose ``(4, 4)`` of each frame at its stamp minus `offset_s`; None where it is unknown.
    """
    frames = [replace(frame, T_true=T) for frame, T in zip(record.frames, T_true, strict=True)]
    metrics = replay_metrics(replace(record, frames=frames), limits)
    errors = ("frames_with_truth", "position_error_m", "rotation_error_deg")
    kept = (*errors, "right", "wrong", "recall", "consistency")
    figures = {name: metrics[name] for name in kept}
    return {"with_time_offset": {"time_offset_s": offset_s, **figures}}


def _consistency(record: ReplayRecord) -> dict[str, Any] | None:
    frames = record.complete_frames()
    if not frames:
        return None
    T, T_true, covariance = (
        np.stack([getattr(frame, name) for frame in frames])
        for name in ("T_map_frame", "T_true", "covariance_66")
    )
    return consistency_report(pose_error_vectors(T, T_true), covariance)


def _lost_detection(record: ReplayRecord, limits: ErrorLimits) -> dict[str, Any] | None:
    """How well the trust score separates wrong poses from right ones; None without scores or true poses."""
    scored = [
        (frame.T_estimated, frame.T_true, frame.trust >= 0.0)
        for frame in record.frames
        if frame.trust is not None and frame.T_estimated is not None and frame.T_true is not None
    ]
    if not scored:
        return None
    T, T_true, accepted = (np.array(values) for values in zip(*scored, strict=True))
    metres, radians = pose_errors(T, T_true)
    wrong = limits.wrong(metres, np.degrees(radians))
    return {
        "accepted": float(accepted.mean()),
        "accepted_of_right": float(accepted[~wrong].mean()) if (~wrong).any() else None,
        "wrong": float(wrong.mean()),
        "wrong_of_accepted": float(wrong[accepted].mean()) if accepted.any() else None,
    }


def latency(record: ReplayRecord) -> dict[str, dict[str, float]]:
    """Percentiles p50, p95 and p99 of the time that each stage takes, milliseconds."""
    stages: dict[str, list[float]] = {}
    for frame in record.frames:
        for stage, milliseconds in frame.timings_ms.items():
            stages.setdefault(stage, []).append(milliseconds)
    return {
        stage: {f"p{p}": float(np.percentile(values, p)) for p in (50, 95, 99)}
        for stage, values in stages.items()
    }
