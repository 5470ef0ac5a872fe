"""Compare the tracks of filters with the true poses: error figures, TUM files and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.geometry.summaries import summarise
from rgsiam_ros.recordings.rosbag import Drive
from rgsiam_ros.recordings.tum import write_tum

SETTLING_S = 10.0
"""Time at the start of a drive that is not counted, because a filter must find its heading first."""
GOOD_SIGMA_M = 1.0
"""Largest standard deviation that a good GPS fix states, metres."""
COLOURS = {"gps": "tab:orange", "visual": "tab:green", "both": "tab:blue"}
LABELS = {"gps": "odometry + GPS", "visual": "odometry + visual", "both": "all three"}

Tracks = dict[str, tuple[np.ndarray, Array]]
"""Stamps ``(N,)``, ns, and poses ``T_map_base`` ``(N, 4, 4)`` of each filter by its name."""


def errors_of_tracks(tracks: Tracks, drive: Drive) -> dict[str, tuple[Array, Array]]:
    """Return for each track the seconds since the first true pose and the horizontal errors, metres.

    Poses that are not finite, have no true pose, or lie in the first `SETTLING_S` are left out.
    """
    errors = {}
    for name, (stamps, T) in finite_poses(tracks).items():
        T_true, known = drive.true_base_poses(stamps)
        seconds = (stamps - drive.truth_stamps_ns[0]) * 1e-9
        error_m = np.linalg.norm(T[:, :2, 3] - T_true[:, :2, 3], axis=1)
        counted = known & (seconds >= SETTLING_S)
        errors[name] = (seconds[counted], error_m[counted])
    return errors


def finite_poses(tracks: Tracks) -> Tracks:
    """Return the tracks without poses that are not finite. A diverged filter gives such poses."""
    finite = {name: np.isfinite(T).all(axis=(1, 2)) for name, (_, T) in tracks.items()}
    return {name: (stamps[finite[name]], T[finite[name]]) for name, (stamps, T) in tracks.items()}


def report_tracks(
    tracks: Tracks, drive: Drive, gps: tuple[np.ndarray, np.ndarray], out: Path, title: str
) -> dict[str, Any]:
    """Write ``fused_NAME.tum`` and ``fusion.png``; return the figures for ``metrics.json``.

    gps: stamps (ns) of the GPS messages and the state of GPS, see `gps_state`; empty arrays when GPS is not
    used: then the errors are not split by the state of GPS. Without true poses there are no errors and no
    plot.
    """
    figures: dict[str, Any] = {"settling_s": SETTLING_S}
    for name, (stamps, T) in finite_poses(tracks).items():
        write_tum(out / f"fused_{name}.tum", zip(stamps.tolist(), T, strict=True))
        published = len(tracks[name][0])
        figures[name] = {"answers": published, "not_finite": published - len(stamps)}
    if not len(drive.truth_stamps_ns):
        return figures
    errors = errors_of_tracks(tracks, drive)
    gps_seconds = (gps[0] - drive.truth_stamps_ns[0]) * 1e-9
    for name, (seconds, error_m) in errors.items():
        figures[name]["all"] = _median_and_p95(error_m)
        if not len(gps_seconds):
            continue
        state = _state_at(seconds, gps_seconds, gps[1])
        figures[name] |= {
            word: _median_and_p95(error_m[state == i])
            for i, word in enumerate(("good", "bad", "none"))
        }
        figures[name]["bad_or_none"] = _median_and_p95(error_m[state > 0])
    _draw(errors, gps_seconds, gps[1], out / "fusion.png", title)
    return figures


def gps_state(messages: list[Any]) -> np.ndarray:
    """Return the state of GPS for each NavSatFix message: 0 good, 1 bad, 2 no fix.

    A fix is good when the standard deviation that it states for east is at most `GOOD_SIGMA_M`.
    """
    state = []
    for m in messages:
        if m.status.status < 0 or not np.isfinite(m.latitude):
            state.append(2)
        else:
            state.append(int(np.sqrt(max(m.position_covariance[0], 0.0)) > GOOD_SIGMA_M))
    return np.array(state)


def _state_at(seconds: Array, gps_seconds: Array, state: np.ndarray) -> np.ndarray:
    """The state of the last GPS message before each time."""
    last = np.clip(np.searchsorted(gps_seconds, seconds, side="right") - 1, 0, len(state) - 1)
    return state[last]


def describe_track(figures: dict[str, Any]) -> str:
    """Return the figures of `report_tracks` for one track as one line of text."""
    if not figures["answers"]:
        return "the filter published no pose: see its messages above"
    words = {"good": "where GPS is good", "bad": "where it is bad", "none": "where there is none"}
    if "good" not in figures:
        words = {"all": "over the whole drive"}
    phrases = [
        f"{figures[key]['median_m']:.2f} m median, {figures[key]['p95_m']:.2f} m p95 {word}"
        for key, word in words.items()
        if figures.get(key)
    ]
    if figures["not_finite"]:
        phrases.append(
            f"the filter diverged: {figures['not_finite']} of {figures['answers']} poses are not finite"
        )
    return "; ".join(phrases) or f"{figures['answers']} poses, none with a true pose"


def _median_and_p95(values: Array) -> dict[str, float] | None:
    return summarise(values, ("median", "p95"), "_m") if len(values) else None


def _draw(
    errors: dict[str, tuple[Array, Array]],
    gps_seconds: Array,
    state: np.ndarray,
    path: Path,
    title: str,
) -> None:
    figure = Figure(figsize=(11.0, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for value, colour, word in ((1, "0.90", "GPS bad"), (2, "0.78", "no GPS")):
        inside = np.concatenate([[0], (state == value).astype(int), [0]])
        edges = np.flatnonzero(np.diff(inside))
        for i, (start, end) in enumerate(zip(edges[::2], edges[1::2], strict=True)):
            last = gps_seconds[min(end, len(gps_seconds) - 1)]
            axes.axvspan(gps_seconds[start], last, color=colour, label=word if i == 0 else None)
    for name, (seconds, error_m) in errors.items():
        axes.semilogy(
            seconds, np.maximum(error_m, 1e-2), color=COLOURS[name], label=LABELS[name], linewidth=1
        )
    ends = [times[-1] for times in (gps_seconds, *(s for s, _ in errors.values())) if len(times)]
    axes.set(xlabel="time (s)", ylabel="horizontal position error (m)", title=title)
    axes.set_xlim(0.0, max(ends, default=SETTLING_S))
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="upper right", fontsize=8)
    figure.savefig(path, dpi=110)
