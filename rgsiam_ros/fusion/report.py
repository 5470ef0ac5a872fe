"""Tracks of filters beside the truth: figures, TUM files and a picture."""

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
"""After the start, which is not counted: a filter must find its heading first."""
COLOURS = {"gps": "tab:orange", "visual": "tab:green", "both": "tab:blue"}
LABELS = {"gps": "odometry + GPS", "visual": "odometry + visual", "both": "all three"}

Tracks = dict[str, tuple[np.ndarray, Array]]


def errors_of_tracks(tracks: Tracks, drive: Drive) -> dict[str, tuple[Array, Array]]:
    """Seconds since the first true pose and horizontal errors, metres, of each track.

    Poses that are not finite have none.
    """
    errors = {}
    for name, (stamps, T) in finite(tracks).items():
        T_true, known = drive.true_base_poses(stamps)
        seconds = (stamps - drive.truth_stamps_ns[0]) * 1e-9
        off = np.linalg.norm(T[:, :2, 3] - T_true[:, :2, 3], axis=1)
        counted = known & (seconds >= SETTLING_S)
        errors[name] = (seconds[counted], off[counted])
    return errors


def finite(tracks: Tracks) -> Tracks:
    """The tracks without the poses that are not finite, which a diverged filter gives."""
    kept = {name: np.isfinite(T).all(axis=(1, 2)) for name, (_, T) in tracks.items()}
    return {name: (at[kept[name]], T[kept[name]]) for name, (at, T) in tracks.items()}


def report_tracks(
    tracks: Tracks, drive: Drive, gps: tuple[np.ndarray, np.ndarray], out: Path, title: str
) -> dict[str, Any]:
    """Write ``fused_NAME.tum`` and ``fusion.png``; return figures for ``metrics.json``.

    gps: stamps (ns) of the bag's messages and what GPS was there: 0 good, 1 bad, 2 none; empty: no GPS was
    asked for, and errors are not divided by it. Without true poses there are no errors and no picture.
    """
    figures: dict[str, Any] = {"settling_s": SETTLING_S}
    for name, (stamps, T) in finite(tracks).items():
        write_tum(out / f"fused_{name}.tum", zip(stamps.tolist(), T, strict=True))
        answers = len(tracks[name][0])
        figures[name] = {"answers": answers, "not_finite": answers - len(stamps)}
    if not len(drive.truth_stamps_ns):
        return figures
    errors = errors_of_tracks(tracks, drive)
    gps_seconds = (gps[0] - drive.truth_stamps_ns[0]) * 1e-9
    for name, (seconds, off) in errors.items():
        figures[name]["all"] = _spread(off)
        if not len(gps_seconds):
            continue
        state = _state_at(seconds, gps_seconds, gps[1])
        figures[name] |= {
            word: _spread(off[state == i]) for i, word in enumerate(("good", "bad", "none"))
        }
        figures[name]["bad_or_none"] = _spread(off[state > 0])
    _draw(errors, gps_seconds, gps[1], out / "fusion.png", title)
    return figures


def gps_state(messages: list[Any], good_sigma_m: float = 1.0) -> np.ndarray:
    """0 where a fix claims to be good, 1 where it does not, 2 where there is none."""
    state = []
    for m in messages:
        if m.status.status < 0 or not np.isfinite(m.latitude):
            state.append(2)
        else:
            state.append(int(np.sqrt(max(m.position_covariance[0], 0.0)) > good_sigma_m))
    return np.array(state)


def _state_at(seconds: Array, gps_seconds: Array, state: np.ndarray) -> np.ndarray:
    last = np.clip(np.searchsorted(gps_seconds, seconds, side="right") - 1, 0, len(state) - 1)
    return state[last]


def in_words(figures: dict[str, Any]) -> str:
    """What `report_tracks` found for one track, in a line."""
    if not figures["answers"]:
        return "no answer at all: see the filter's messages above"
    words = {"good": "where GPS is good", "bad": "where it is bad", "none": "where there is none"}
    if "good" not in figures:
        words = {"all": "over the whole drive"}
    parts = [
        f"{figures[key]['median_m']:.2f} m median, {figures[key]['p95_m']:.2f} m p95 {word}"
        for key, word in words.items()
        if figures.get(key)
    ]
    if figures["not_finite"]:
        parts.append(
            f"it diverged: {figures['not_finite']} of {figures['answers']} answers are no finite pose"
        )
    return "; ".join(parts) or f"{figures['answers']} poses, none beside a true one"


def _spread(values: Array) -> dict[str, float] | None:
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
    for name, (seconds, off) in errors.items():
        axes.semilogy(
            seconds, np.maximum(off, 1e-2), color=COLOURS[name], label=LABELS[name], linewidth=1
        )
    axes.set(xlabel="time (s)", ylabel="position error, horizontal (m)", title=title)
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="upper right", fontsize=8)
    figure.savefig(path, dpi=110)
