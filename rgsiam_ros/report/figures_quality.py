"""More plots of one run: calibration, the timeline of lost frames, and latency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from html import escape
from textwrap import wrap
from typing import Any

import numpy as np
from plotly.graph_objects import Figure

from rgsiam_ros.report.figure_style import (
    AMBER,
    BLUE,
    GREY,
    RED,
    RUNS,
    SMALLEST,
    TEAL,
    drawn_frames,
    log_axis,
    new_figure,
)
from rgsiam_ros.report.records import ReplayRecord
from rgsiam_ros.report.series import Series
from rgsiam_ros.report.stretches import reason_class

MOST_REASONS = 6
ANSWERED, OTHER = "answered", "other reasons"


def draw_coverage(consistency: Mapping[str, Any]) -> Figure:
    """Per cent of the errors inside the ellipsoid that should hold so many per cent of them."""
    figure = new_figure(420)
    figure.add_scatter(
        x=[0, 100],
        y=[0, 100],
        mode="lines",
        name="true covariance",
        line={"color": GREY, "dash": "dash"},
        hoverinfo="skip",
    )
    for name, colour in (("position", BLUE), ("rotation", AMBER)):
        coverage = consistency[name]["coverage"]
        value, low, high = 100.0 * np.array([*coverage.values()], np.float64).T
        figure.add_scatter(
            x=[float(level.rstrip("%")) for level in coverage],
            y=value,
            error_y={
                "type": "data",
                "symmetric": False,
                "array": high - value,
                "arrayminus": value - low,
            },
            mode="lines+markers",
            name=name,
            marker={"size": 8, "color": colour},
            hovertemplate="%{y:.0f} % in the ellipsoid of %{x:g} %",
        )
    figure.update_xaxes(title="ellipsoid of the covariance (%)", range=[0, 102])
    figure.update_yaxes(title="errors inside (%)", range=[0, 102])
    return figure


def draw_sharpness(series: Series) -> Figure:
    """The error of each pose over its standard deviation, for position and rotation."""
    figure = new_figure(420, 1, 2, horizontal_spacing=0.15)
    drawn = drawn_frames(len(series.stamp_ns_N))
    for column, (error, sigma, unit) in enumerate(
        ((series.error_m_N, series.sigma_m_N, "m"), (series.error_deg_N, series.sigma_deg_N, "°")),
        start=1,
    ):
        both = drawn[np.isfinite(error[drawn]) & np.isfinite(sigma[drawn])]
        x, y = np.maximum(sigma[both], SMALLEST), np.maximum(error[both], SMALLEST)
        figure.add_scatter(
            x=x,
            y=y,
            mode="markers",
            marker={"color": BLUE, "size": 4, "opacity": 0.6},
            name="a pose",
            customdata=both,
            showlegend=column == 1,
            hovertemplate=f"image %{{customdata}}: predicted %{{x:.3g}} {unit}, error %{{y:.3g}} {unit}",
            row=1,
            col=column,
        )
        if len(both):
            ends = np.array([x.min(), x.max()])
            for factor, dash in ((1.0, "solid"), (2.0, "dot")):
                figure.add_scatter(
                    x=ends,
                    y=factor * ends,
                    mode="lines",
                    line={"color": RED if factor > 1.0 else GREY, "dash": dash, "width": 1.5},
                    name="as predicted" if factor == 1.0 else "twice as predicted",
                    showlegend=column == 1,
                    hoverinfo="skip",
                    row=1,
                    col=column,
                )
        title = f"sigma ({unit})"
        figure.update_xaxes(title=title, **log_axis(x), row=1, col=column)
        name = ("position", "rotation")[column - 1]
        figure.update_yaxes(title=f"{name} error ({unit})", **log_axis(x, y), row=1, col=column)
    return figure


def draw_timeline(record: ReplayRecord, series: Series) -> Figure:
    """When frames were answered and when not, with reasons, and their trust below."""
    reasons = [
        ANSWERED if frame.T_map_frame is not None else reason_class(frame.problem)
        for frame in record.frames
    ]
    counts = Counter(reasons)
    names = [name for name, _ in counts.most_common() if name != ANSWERED][:MOST_REASONS]
    kinds = [ANSWERED, *names] + ([OTHER] if len(counts) > len(names) + 1 else [])
    reason_N = np.array([r if r in kinds else OTHER for r in reasons] or [""])
    with_trust = bool(np.isfinite(series.trust_N).any())
    strip = 40 * len(kinds) + 60
    heights = [strip, 240] if with_trust else [strip]
    figure = new_figure(
        sum(heights) + 110,
        len(heights),
        row_heights=heights,
        shared_xaxes=True,
        vertical_spacing=0.08,
    )
    drawn = drawn_frames(len(reasons))
    for number, kind in enumerate(kinds):
        own = drawn[reason_N[drawn] == kind]
        colour = TEAL if kind == ANSWERED else RUNS[(number + 3) % len(RUNS)] if number > 1 else RED
        style: dict[str, Any] = {"color": colour, "line": {"color": colour, "width": 2}}
        figure.add_scatter(
            x=series.seconds_N[own],
            y=np.full(len(own), -number),
            mode="markers",
            marker={"symbol": "line-ns", "size": 22, **style},
            name=escape(kind),
            customdata=own,
            hovertemplate="image %{customdata}, %{x:.1f} s",
            showlegend=False,
            row=1,
            col=1,
        )
        if with_trust:
            known = own[np.isfinite(series.trust_N[own])]
            figure.add_scatter(
                x=series.seconds_N[known],
                y=series.trust_N[known],
                mode="markers",
                marker={"size": 4, "color": colour},
                customdata=known,
                hovertemplate="image %{customdata}, %{x:.1f} s: trust %{y:.2f}",
                showlegend=False,
                row=2,
                col=1,
            )
    texts = [
        "<br>".join(escape(line) for line in wrap(f"{kind} ({_count(counts, kind, names)})", 34))
        for kind in kinds
    ]
    figure.update_yaxes(
        tickvals=[-n for n in range(len(kinds))],
        ticktext=texts,
        tickfont={"size": 11},
        range=[-len(kinds) + 0.4, 0.6],
        showgrid=False,
        row=1,
    )
    if with_trust:
        figure.add_hline(y=0.0, line={"color": GREY, "width": 1}, row=2, col=1)
        figure.update_yaxes(title="trust (lost below 0)", row=2)
    pauses = ", without pauses" if series.after_pause_N.any() else ""
    figure.update_xaxes(title=f"time (s){pauses}", row=len(heights))
    return figure


def draw_latency(latency_ms: Mapping[str, Mapping[str, float]]) -> Figure:
    """Percentiles of the time that each stage takes."""
    figure = new_figure(90 + 52 * len(latency_ms))
    stages = list(latency_ms)
    for percentile, colour in (("p99", "#bfdbfe"), ("p95", "#60a5fa"), ("p50", BLUE)):
        figure.add_bar(
            y=[escape(stage) for stage in stages],
            x=[latency_ms[stage][percentile] for stage in stages],
            orientation="h",
            name=percentile,
            marker={"color": colour},
            hovertemplate="%{y}, " + percentile + ": %{x:.2f} ms",
        )
    figure.update_layout(barmode="group", bargap=0.25)
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title="time of one image (ms)", rangemode="tozero")
    return figure


def _count(counts: Mapping[str, int], kind: str, names: list[str]) -> int:
    if kind != OTHER:
        return counts.get(kind, 0)
    return sum(n for name, n in counts.items() if name not in (ANSWERED, *names))
