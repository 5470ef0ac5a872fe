"""Figures of a replay, as `metrics.json` holds them."""

from __future__ import annotations

from typing import Any

import numpy as np

from rgsiam_ros.replay.records import ReplayRecord

SCHEMA_VERSION = 1
RECALL_THRESHOLDS = ((0.25, 2.0), (0.5, 5.0), (5.0, 10.0))
"""Metres and degrees, both of which must be met."""


def summarise(record: ReplayRecord) -> dict[str, Any]:
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
        "position_error_m": _spread(metres),
        "rotation_error_deg": _spread(degrees),
        "recall": {
            f"{m:g} m {deg:g} deg": (
                float(np.sum((metres <= m) & (degrees <= deg)) / with_truth) if with_truth else None
            )
            for m, deg in RECALL_THRESHOLDS
        },
        "latency_ms": latency(record),
        "reported_frame": record.reported_frame,
        "map_frame": record.map_frame,
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


def _spread(values: np.ndarray) -> dict[str, float] | None:
    if not len(values):
        return None
    return {
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "p95": float(np.percentile(values, 95)),
        "max": float(values.max()),
    }
