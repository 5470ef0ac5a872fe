"""Draw a replay: a view of the map, and errors over time. Without true poses, sigmas and trust over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.report.records import ReplayRecord

LONGEST_GAP_NS = 2_000_000_000
"""A longer time between two frames is a pause: the time axis shortens it to this, and the track is cut."""
TRUE_COLOUR, ESTIMATED_COLOUR, WITHHELD_COLOUR = "0.55", "tab:blue", "tab:orange"
MISSING_COLOUR = "tab:red"
SMALLEST = 1e-4
"""Errors and sigmas below this are drawn here, in metres or degrees."""


def draw_replay(record: ReplayRecord, path: Path, *, title: str) -> None:
    """Write the picture as PNG. It needs no screen and no true poses."""
    figure = Figure(figsize=(12.0, 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    with_truth = any(frame.T_true is not None for frame in record.frames)
    panels = 2 if with_truth else 3
    grid = figure.add_gridspec(panels, 2, width_ratios=[1.15, 1.0])
    _draw_map(record, figure.add_subplot(grid[:, 0]))
    axes = [figure.add_subplot(grid[0, 1])]
    axes += [figure.add_subplot(grid[row, 1], sharex=axes[0]) for row in range(1, panels)]
    stamps_ns = np.array([frame.stamp_ns for frame in record.frames], np.int64)
    steps_ns = np.diff(stamps_ns, prepend=stamps_ns[:1])
    seconds = np.cumsum(np.clip(steps_ns, 0, LONGEST_GAP_NS)) * 1e-9
    if with_truth:
        _draw_errors(record, seconds, axes)
    else:
        _draw_sigmas_and_trust(record, seconds, axes)
    missing = [frame.T_map_frame is None for frame in record.frames]
    for panel in axes:
        if any(missing):
            panel.vlines(
                seconds[missing],
                *(0.0, 1.0),
                transform=panel.get_xaxis_transform(),
                color=MISSING_COLOUR,
                alpha=0.3,
                linewidth=1,
                label=f"no pose: {sum(missing)} frames",
            )
        panel.grid(alpha=0.3, which="both")
        if panel.get_legend_handles_labels()[1]:
            panel.margins(y=0.35)  # the legend hides no value
            panel.legend(loc="upper right", fontsize=8, ncols=3)
    if len(seconds):
        edge = max(0.02 * seconds[-1], 0.1)
        axes[0].set_xlim(-edge, seconds[-1] + edge)
    paused = bool((steps_ns > LONGEST_GAP_NS).any())
    axes[-1].set_xlabel("time (s)" + (", pauses shortened to 2 s" if paused else ""))
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def widest_axes(positions_N3: Array) -> tuple[int, int]:
    """Indices of the two axes with the largest extent: x and y on a road, others for a hand-held camera perhaps."""
    low, high = np.nanmin(positions_N3, axis=0), np.nanmax(positions_N3, axis=0)
    first, second = sorted(np.argsort(high - low, kind="stable")[:0:-1].tolist())
    return first, second


def _draw_errors(record: ReplayRecord, seconds: Array, axes: Sequence[Axes]) -> None:
    metres, radians, indices = record.errors()
    axes[0].set_title(
        f"errors of the {len(metres)} frames with a pose and a true pose", fontsize=10
    )
    for panel, values, what, unit in (
        (axes[0], metres, "position error", "m"),
        (axes[1], np.degrees(radians), "rotation error", "deg"),
    ):
        panel.set_ylabel(f"{what} ({unit})")
        if not len(values):
            panel.text(0.5, 0.5, "no frame has both", ha="center", transform=panel.transAxes)
            continue
        panel.semilogy(seconds[indices], np.maximum(values, SMALLEST), ".", markersize=3)
        median, p95 = np.median(values), np.percentile(values, 95)
        for value, style, name in ((median, "-", "median"), (p95, ":", "p95")):
            panel.axhline(
                value, color="k", linewidth=1, linestyle=style, label=f"{name} {value:.3g} {unit}"
            )


def _draw_sigmas_and_trust(record: ReplayRecord, seconds: Array, axes: Sequence[Axes]) -> None:
    axes[0].set_title("the recording has no true poses: sigmas and trust", fontsize=10)
    nothing = np.full((6, 6), np.nan)
    C = np.array([nothing if f.covariance_66 is None else f.covariance_66 for f in record.frames])
    trust = np.array([np.nan if f.trust is None else f.trust for f in record.frames], np.float64)
    diagonal = np.einsum("nii->ni", C.reshape(-1, 6, 6))
    sigma_m = np.sqrt(diagonal[:, :3].sum(axis=1))
    sigma_deg = np.degrees(np.sqrt(diagonal[:, 3:].sum(axis=1)))
    used = np.array([f.T_map_frame is not None for f in record.frames], bool)
    for panel, values, label in (
        (axes[0], np.maximum(sigma_m, SMALLEST), "position sigma (m)"),
        (axes[1], np.maximum(sigma_deg, SMALLEST), "rotation sigma (deg)"),
        (axes[2], trust, "trust"),
    ):
        panel.set_ylabel(label)
        if not np.isfinite(values).any():
            panel.text(0.5, 0.5, "not known here", ha="center", transform=panel.transAxes)
            continue
        if panel is not axes[2]:
            panel.set_yscale("log")
        for chosen, colour, name in (
            (used, ESTIMATED_COLOUR, "published"),
            (~used & np.isfinite(values), WITHHELD_COLOUR, "lost: not published"),
        ):
            if chosen.any():
                panel.plot(
                    seconds[chosen], values[chosen], ".", color=colour, markersize=3, label=name
                )
    if np.isfinite(trust).any():
        axes[2].axhline(0.0, color="k", linewidth=1, label="lost below this")


def _draw_map(record: ReplayRecord, axes: Axes) -> None:
    true = _track(record)
    estimated, withheld = (
        np.array([T[:3, 3] for f in record.frames if (T := getattr(f, name)) is not None])
        for name in ("T_map_frame", "T_withheld")
    )
    estimated, withheld = estimated.reshape(-1, 3), withheld.reshape(-1, 3)
    shown = np.concatenate([true, estimated])
    if not len(shown):
        shown = withheld
    along = widest_axes(shown) if len(shown) else (0, 1)
    withheld = _in_view(withheld, shown)
    if len(true):
        axes.plot(*true[:, along].T, color=TRUE_COLOUR, linewidth=3, label="true")
    for places, colour, size, label in (
        (estimated, ESTIMATED_COLOUR, 4, "estimated"),
        (withheld, WITHHELD_COLOUR, 3, "lost: not published"),
    ):
        if len(places):
            axes.plot(*places[:, along].T, ".", color=colour, markersize=size, label=label)
    both = [f for f in record.frames if f.T_true is not None and f.T_map_frame is not None]
    lines = [np.stack([f.T_true[:3, 3], f.T_map_frame[:3, 3]])[:, along] for f in both]  # type: ignore[index]
    label = "error" if lines else ""
    axes.add_collection(
        LineCollection(lines, colors=MISSING_COLOUR, linewidths=0.6, alpha=0.6, label=label)
    )
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel(f"{record.map_frame} {'xyz'[along[0]]} (m)")
    axes.set_ylabel(f"{record.map_frame} {'xyz'[along[1]]} (m)")
    axes.set_title(
        f"{record.reported_frame} in {record.map_frame}: {len(estimated)} of {len(record.frames)} frames have a pose",
        fontsize=10,
    )
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="best", fontsize=8)


def _in_view(places_N3: Array, shown_M3: Array) -> Array:
    """The places that do not widen the view by more than a tenth. Withheld poses may be anywhere."""
    if not len(shown_M3):
        return places_N3
    low, high = np.nanmin(shown_M3, axis=0), np.nanmax(shown_M3, axis=0)
    margin = 0.1 * (high - low).max()
    inside = (places_N3 >= low - margin) & (places_N3 <= high + margin)
    return places_N3[inside.all(axis=1)]


def _track(record: ReplayRecord) -> Array:
    """True positions ``(N, 3)`` with a row of NaN wherever the recording pauses."""
    rows: list[Array] = []
    last_ns = None
    for frame in record.frames:
        if frame.T_true is None:
            continue
        if last_ns is not None and frame.stamp_ns - last_ns > LONGEST_GAP_NS:
            rows.append(np.full(3, np.nan))
        rows.append(frame.T_true[:3, 3])
        last_ns = frame.stamp_ns
    return np.array(rows).reshape(-1, 3)
