"""Draw a replay: a view of the map, and errors over time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.replay.records import ReplayRecord

LONGEST_GAP_NS = 2_000_000_000
"""A longer time between two frames is a pause: the time axis shortens it to this, and the track is cut."""
TRUE_COLOUR, ESTIMATED_COLOUR, WITHHELD_COLOUR = "0.55", "tab:blue", "tab:orange"


def draw_replay(record: ReplayRecord, path: Path, *, title: str) -> None:
    """Write the picture as PNG. It needs no screen and no true poses."""
    figure = Figure(figsize=(12.0, 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, width_ratios=[1.15, 1.0])
    _draw_map(record, figure.add_subplot(grid[:, 0]))
    metres, radians, indices = record.errors()
    stamps_ns = np.array([frame.stamp_ns for frame in record.frames])
    steps_ns = np.clip(np.diff(stamps_ns, prepend=stamps_ns[:1]), 0, LONGEST_GAP_NS)
    seconds = np.cumsum(steps_ns) * 1e-9
    above = figure.add_subplot(grid[0, 1])
    below = figure.add_subplot(grid[1, 1], sharex=above)
    for axes, values, label in (
        (above, metres, "position error (m)"),
        (below, np.degrees(radians), "rotation error (deg)"),
    ):
        if len(values):
            axes.semilogy(seconds[indices], np.maximum(values, 1e-3), ".", markersize=3)
            median, p95 = np.median(values), np.percentile(values, 95)
            for value, style, name in ((median, "-", "median"), (p95, ":", "p95")):
                axes.axhline(
                    value, color="k", linewidth=1, linestyle=style, label=f"{name} {value:.2f}"
                )
            axes.legend(loc="upper right")
        else:
            axes.text(0.5, 0.5, "no true poses", ha="center", transform=axes.transAxes)
        missing = [i for i, frame in enumerate(record.frames) if frame.T_map_frame is None]
        for i in missing:
            axes.axvline(seconds[i], color="tab:red", alpha=0.3, linewidth=1)
        axes.set_ylabel(label)
        axes.grid(alpha=0.3, which="both")
    below.set_xlabel("time (s), pauses shortened to 2 s; red lines: no pose published")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def _draw_map(record: ReplayRecord, axes: Axes) -> None:
    true = _track(record)
    estimated = [f.T_map_frame[:2, 3] for f in record.frames if f.T_map_frame is not None]
    if len(true):
        axes.plot(*true.T, color=TRUE_COLOUR, linewidth=3, label="true")
    withheld = _in_view(
        [f.T_withheld[:2, 3] for f in record.frames if f.T_withheld is not None],
        [*true, *estimated],
    )
    if estimated:
        axes.plot(
            *np.array(estimated).T, ".", color=ESTIMATED_COLOUR, markersize=4, label="estimated"
        )
    if withheld:
        axes.plot(
            *np.array(withheld).T,
            ".",
            color=WITHHELD_COLOUR,
            markersize=3,
            alpha=0.6,
            label="lost: not published",
        )
    both = [f for f in record.frames if f.T_true is not None and f.T_map_frame is not None]
    lines = [np.stack([f.T_true[:2, 3], f.T_map_frame[:2, 3]]) for f in both]  # type: ignore[index]
    axes.add_collection(LineCollection(lines, colors="tab:red", linewidths=0.6, alpha=0.6))
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel(f"{record.map_frame} x (m)")
    axes.set_ylabel(f"{record.map_frame} y (m)")
    axes.set_title(f"{record.reported_frame} in {record.map_frame}, {len(record.frames)} frames")
    axes.grid(alpha=0.3)
    if len(true) or estimated or withheld:
        axes.legend(loc="best")


def _in_view(places: list[Array], shown: list[Array]) -> list[Array]:
    """The places that do not widen the view by more than a tenth. Withheld poses may be anywhere."""
    if not shown:
        return places
    low, high = np.nanmin(shown, axis=0), np.nanmax(shown, axis=0)
    margin = 0.1 * (high - low).max()
    return [p for p in places if (p >= low - margin).all() and (p <= high + margin).all()]


def _track(record: ReplayRecord) -> Array:
    """True positions ``(N, 2)`` with a row of NaN wherever the recording pauses."""
    rows: list[Array] = []
    last_ns = None
    for frame in record.frames:
        if frame.T_true is None:
            continue
        if last_ns is not None and frame.stamp_ns - last_ns > LONGEST_GAP_NS:
            rows.append(np.full(2, np.nan))
        rows.append(frame.T_true[:2, 3])
        last_ns = frame.stamp_ns
    return np.array(rows)
