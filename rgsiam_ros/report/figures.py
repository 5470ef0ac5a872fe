"""The plots of one run: the map, and errors over the distance, as a share of the images, and over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from plotly.graph_objects import Figure

from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.report.figure_style import (
    AMBER,
    BLUE,
    ERROR_SCALE,
    RED,
    SMALLEST,
    TEAL,
    drawn_frames,
    log_axis,
    log_ticks,
    new_figure,
)
from rgsiam_ros.report.plot import widest_axes
from rgsiam_ros.report.records import ReplayRecord
from rgsiam_ros.report.series import Series

MOST_ELLIPSES, ELLIPSE_POINTS, ELLIPSE_SIGMAS = 300, 24, 2.0
MOST_MAP_IMAGES = 3000
BELOW: dict[str, Any] = {
    "orientation": "h",
    "x": 0.5,
    "y": -0.14,
    "yanchor": "top",
    "len": 0.8,
    "thickness": 12,
}


@dataclass(frozen=True)
class Errors:
    """Errors of a run."""

    metres_M: Array
    """Of the frames with a pose and a true pose."""
    degrees_M: Array
    known: int
    """Number of frames with a true pose, with or without a pose."""


def draw_map(record: ReplayRecord, series: Series, map_position_N3: Array | None) -> Figure:
    """The map from above with the tracks, coloured by error, or by standard deviation without true poses.

    map_position_N3: positions of the map images.
    """
    figure = new_figure(620)
    shown = series.place_N3[np.isfinite(series.place_N3).all(axis=1)]
    parts = [part for part in (shown, map_position_N3) if part is not None and len(part)]
    along = list(widest_axes(np.concatenate(parts))) if parts else [0, 1]
    if map_position_N3 is not None:
        every = max(1, -(-len(map_position_N3) // MOST_MAP_IMAGES))
        _dots(figure, map_position_N3[::every, along], "map images", color="#d1d5db", size=5)
    drawn = drawn_frames(len(record.frames))
    if series.with_truth:
        track = _with_breaks(series.true_N3[:, along], series.after_pause_N)
        figure.add_scatter(
            **_xy(track),
            mode="lines",
            name="true",
            line={"color": "#475569", "width": 1.5},
            hoverinfo="skip",
        )
    figure.add_scatter(
        **_xy(_ellipses(record, drawn, along)),
        mode="lines",
        name=f"{ELLIPSE_SIGMAS:g}-sigma ellipses (zoom in)",
        line={"color": BLUE, "width": 1},
        opacity=0.5,
        hoverinfo="skip",
    )
    lost = drawn[~series.answered_N[drawn]]
    if series.with_truth and len(lost):
        places = series.true_N3[lost][:, along]
        _dots(
            figure, places, "no pose (at the true place)", color=RED, size=7, symbol="x-thin-open"
        )
    _estimated(figure, series, drawn[series.answered_N[drawn]], along)
    name = escape(record.map_frame)
    figure.update_xaxes(title=f"{name} {'xyz'[along[0]]} (m)")
    figure.update_yaxes(title=f"{name} {'xyz'[along[1]]} (m)", scaleanchor="x", scaleratio=1)
    figure.update_xaxes(exponentformat="none")
    figure.update_yaxes(exponentformat="none")
    figure.update_layout(margin_b=110)
    return figure


def draw_errors_along(record: ReplayRecord, series: Series) -> Figure:
    """Position and rotation error over the distance travelled, with standard deviations, and frames without a pose."""
    figure = new_figure(560, 2, shared_xaxes=True, vertical_spacing=0.06)
    drawn = drawn_frames(len(record.frames))
    x = series.metres_N[drawn]
    for row, (error, sigma, unit) in enumerate(
        ((series.error_m_N, series.sigma_m_N, "m"), (series.error_deg_N, series.sigma_deg_N, "°")),
        start=1,
    ):
        first = row == 1
        figure.add_scatter(
            x=x,
            y=_clipped(sigma[drawn]),
            mode="markers",
            name="sigma (standard deviation)",
            marker={"color": AMBER, "size": 3},
            showlegend=first,
            hovertemplate=f"%{{x:.0f}} m: %{{y:.3g}} {unit}",
            row=row,
            col=1,
        )
        if series.with_truth:
            figure.add_scatter(
                x=x,
                y=_clipped(error[drawn]),
                mode="markers",
                name="error",
                marker={"color": BLUE, "size": 4},
                customdata=drawn,
                showlegend=first,
                hovertemplate=f"image %{{customdata}}, %{{x:.0f}} m: %{{y:.3g}} {unit}",
                row=row,
                col=1,
            )
        values = np.concatenate([sigma, error])
        lost = ~series.answered_N[drawn]
        lowest = float(np.nanmin(_clipped(values))) if np.isfinite(values).any() else 1.0
        bottom = np.full(int(lost.sum()), 0.6 * lowest)
        _lost_ticks(figure, x[lost], bottom, row)
        figure.update_yaxes(**log_axis(values, bottom), row=row)
    what = "error" if series.with_truth else "sigma"
    figure.update_yaxes(title=f"position {what} (m)", row=1)
    figure.update_yaxes(title=f"rotation {what} (°)", row=2)
    kind = "" if series.with_truth else ", by the published poses"
    figure.update_xaxes(title=f"distance travelled{kind} (m)", row=2)
    return figure


def draw_cumulative(
    runs: Mapping[str, Errors],
    limits: Mapping[str, float],
    colours: tuple[str, ...],
) -> Figure:
    """Share of the images with at most an error, for position and rotation.

    runs: by name. limits: ``right_m``, ``wrong_m``, ``right_deg`` and ``wrong_deg``, which are drawn, or nothing.
    """
    figure = new_figure(420, 1, 2, shared_yaxes=True, horizontal_spacing=0.06)
    for number, (name, run) in enumerate(runs.items()):
        for column, values in enumerate((run.metres_M, run.degrees_M), start=1):
            value, share = _cumulative(values, run.known)
            figure.add_scatter(
                x=_clipped(value),
                y=share,
                mode="lines",
                line={"shape": "hv", "color": colours[number % len(colours)], "width": 2},
                name=escape(name),
                legendgroup=str(number),
                showlegend=column == 1 and len(runs) > 1,
                hovertemplate="%{y:.1f} % within %{x:.3g}",
                row=1,
                col=column,
            )
    for column, unit in enumerate(("m", "deg"), start=1):
        shown = [(run.metres_M, run.degrees_M)[column - 1] for run in runs.values()]
        bounds = [limits[f"{word}_{unit}"] for word in ("right", "wrong") if limits]
        figure.update_xaxes(**log_axis(*shown, np.array(bounds)), col=column)
        for word, colour in (("right", TEAL), ("wrong", RED)):
            if limits:
                limit = limits[f"{word}_{unit}"]
                line = {"color": colour, "width": 1, "dash": "dot"}
                figure.add_vline(x=limit, line=line, row=1, col=column)
                figure.add_annotation(
                    x=np.log10(limit),
                    y=6,
                    text=word,
                    textangle=-90,
                    xanchor="right",
                    yanchor="bottom",
                    showarrow=False,
                    font={"color": colour, "size": 12},
                    row=1,
                    col=column,
                )
    figure.update_xaxes(title="position error (m)", col=1)
    figure.update_xaxes(title="rotation error (°)", col=2)
    figure.update_yaxes(range=[0, 102])
    figure.update_yaxes(title="images with at most this error (%)", col=1)
    return figure


def _cumulative(values_M: Array, known: int) -> tuple[Array, Array]:
    """Errors, rising, and the per cent of the images that have at most these; at most about a thousand steps."""
    ordered = np.sort(values_M)
    share = 100.0 * np.arange(1, len(ordered) + 1) / max(known, 1)
    every = max(1, len(ordered) // 1000)
    kept = np.unique(np.append(np.arange(0, len(ordered), every), max(len(ordered) - 1, 0)))
    kept = kept[: len(ordered)]
    return ordered[kept], share[kept]


def _estimated(figure: Figure, series: Series, drawn: NDArray[np.int64], along: list[int]) -> None:
    """The published positions; the worst are drawn last."""
    value_N = series.error_m_N if series.with_truth else series.sigma_m_N
    value = np.maximum(np.nan_to_num(value_N[drawn], nan=SMALLEST), SMALLEST)
    order = np.argsort(value, kind="stable")
    drawn, value = drawn[order], value[order]
    what = "position error" if series.with_truth else "standard deviation of the position"
    low, high = np.percentile(value, [5, 100]).tolist() if len(value) else (0.1, 10.0)
    high = max(high, 1.2 * low)
    ticks, texts = log_ticks(low, high)
    figure.add_scatter(
        **_xy(series.estimated_N3[drawn][:, along]),
        mode="markers",
        name="estimated",
        customdata=np.stack([drawn, value_N[drawn], series.metres_N[drawn]], axis=-1),
        hovertemplate=f"image %{{customdata[0]}}, {what} %{{customdata[1]:.3g}} m, %{{customdata[2]:.0f}} m along",
        marker={
            "size": 6,
            "color": np.log10(value),
            "cmin": np.log10(low),
            "cmax": np.log10(high),
            "colorscale": ERROR_SCALE,
            "colorbar": {
                **BELOW,
                "title": {"text": f"{what} (m)", "side": "bottom"},
                "tickvals": np.log10(ticks),
                "ticktext": texts,
            },
        },
    )


def _ellipses(record: ReplayRecord, drawn: NDArray[np.int64], along: list[int]) -> Array:
    """Outlines of the covariances ``(E, 2)``, with a row of NaN after each."""
    every = max(1, -(-len(drawn) // MOST_ELLIPSES))
    angle = np.linspace(0.0, 2.0 * np.pi, ELLIPSE_POINTS)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    outlines = [np.empty((0, 2))]
    for index in drawn[::every].tolist():
        frame = record.frames[index]
        if frame.T_map_frame is None or frame.covariance_66 is None:
            continue
        variances, axes = np.linalg.eigh(frame.covariance_66[np.ix_(along, along)])
        reach = axes * ELLIPSE_SIGMAS * np.sqrt(np.maximum(variances, 0.0))
        outlines += [frame.T_map_frame[along, 3] + (reach @ circle).T, np.full((1, 2), np.nan)]
    return np.concatenate(outlines)


def _with_breaks(place_N2: Array, after_pause_N: NDArray[np.bool_]) -> Array:
    """Some of the places of a track, with a row of NaN before each frame after a pause."""
    kept = np.union1d(drawn_frames(len(place_N2)), np.flatnonzero(after_pause_N))
    breaks = np.flatnonzero(after_pause_N[kept])
    return np.insert(place_N2[kept], breaks, np.nan, axis=0)


def _dots(figure: Figure, place_N2: Array, name: str, **marker: Any) -> None:
    if marker.get("symbol", "").endswith("-open"):
        marker["line"] = {"color": marker["color"], "width": 2}
    figure.add_scatter(**_xy(place_N2), mode="markers", name=name, marker=marker, hoverinfo="skip")


def _lost_ticks(figure: Figure, x: Array, y: Array, row: int) -> None:
    """A tick for each frame without a pose."""
    if len(x):
        figure.add_scatter(
            x=x,
            y=y,
            mode="markers",
            name="no pose",
            marker={
                "symbol": "line-ns",
                "size": 12,
                "color": RED,
                "line": {"color": RED, "width": 1.5},
            },
            showlegend=row == 1,
            hovertemplate="%{x:.0f} m: no pose",
            row=row,
            col=1,
        )


def _clipped(values: Array) -> NDArray[np.float32]:
    return np.maximum(values, SMALLEST).astype(np.float32)


def _xy(place_N2: Array) -> dict[str, Array]:
    return {"x": place_N2[:, 0], "y": place_N2[:, 1]}
