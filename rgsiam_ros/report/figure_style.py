"""How the plots of a page look, and how they are put into it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from plotly.graph_objects import Figure
from plotly.subplots import make_subplots

from rgsiam_ros.geometry.poses import Array

BLUE, AMBER, RED, GREY, TEAL = "#2563eb", "#f59e0b", "#b91c1c", "#94a3b8", "#0d9488"
RUNS = (BLUE, "#dc6803", TEAL, "#9333ea", "#b91c1c", "#475569", "#65a30d", "#db2777")
"""Colours of several runs in one plot."""
ERROR_SCALE = [[0.0, BLUE], [0.5, AMBER], [1.0, RED]]
TEXT, GRID = "#1f2937", "#e5e7eb"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
MOST_DRAWN = 3000
"""Of a longer run, every n-th frame is drawn, so that the page stays small. The figures count all frames."""
SMALLEST = 1e-4
"""Smaller errors and standard deviations are drawn here, in metres or degrees."""
TICK_STEPS = [(1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(np.arange(10, 100) / 10.0)]
"""Ticks in each decade of a logarithmic axis. The first are taken that give enough ticks."""
FEWEST_TICKS = 3
CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtonsToRemove": ["select2d", "lasso2d"],
}


def new_figure(height: int, rows: int = 1, columns: int = 1, **options: Any) -> Figure:
    """A figure in the page's style. height: pixels; options: of `plotly.subplots.make_subplots`."""
    figure = make_subplots(rows=rows, cols=columns, **options)
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 64, "r": 16, "t": 66, "b": 52},
        font={"family": FONT, "size": 13, "color": TEXT},
        legend={
            **{"orientation": "h", "x": 0.0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"},
            "bgcolor": "rgba(0,0,0,0)",
        },
        hovermode="closest",
        modebar={"bgcolor": "#ffffff", "color": "#cbd5e1", "activecolor": TEXT},
        paper_bgcolor="#ffffff",
        plot_bgcolor="#ffffff",
    )
    axis = {
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": GREY,
        "mirror": True,
        "ticks": "outside",
    }
    figure.update_xaxes(automargin=True, tickangle=0, **axis)
    figure.update_yaxes(automargin=True, **axis)
    return figure


def to_html(figure: Figure, name: str) -> str:
    """The figure as part of a page that has plotly's script. name: id of its element."""
    html: str = figure.to_html(include_plotlyjs=False, full_html=False, div_id=name, config=CONFIG)
    return html


def drawn_frames(count: int) -> NDArray[np.int64]:
    """Indices of the frames that are drawn."""
    return np.arange(0, count, max(1, -(-count // MOST_DRAWN)))


def log_axis(*values: Array) -> dict[str, Any]:
    """Options of a logarithmic axis for some values, with ticks that read well. Smaller values are at `SMALLEST`."""
    known = np.concatenate([np.ravel(v) for v in values] or [np.empty(0)])
    known = np.maximum(known[np.isfinite(known)], SMALLEST)
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.1, 10.0)
    ticks, texts = log_ticks(low / 1.2, high * 1.2)
    ends = [float(np.log10(low)), float(np.log10(high))]
    margin = 0.05 * max(ends[1] - ends[0], 0.2)
    return {
        "type": "log",
        "range": [ends[0] - margin, ends[1] + margin],
        "tickvals": ticks,
        "ticktext": texts,
    }


def log_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """At least three round ticks of a logarithmic scale from `low` to `high`, and their texts."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in TICK_STEPS:
        values = [float(f"{step}e{decade}") for decade in decades for step in steps]
        shown = [value for value in values if low <= value <= high]
        if len(shown) >= FEWEST_TICKS:
            break
    return shown, [f"{value:g}" for value in shown]


def degrees_text(degrees: float) -> str:
    """An angle, for example ``0.09°``."""
    return f"{float(f'{degrees:.2g}'):g}°"
