"""The page of a run, ``report.html``: one file that opens without a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from rgsiam_ros.geometry.units import length_text
from rgsiam_ros.report.figure_style import MOST_DRAWN, RUNS, degrees_text, to_html
from rgsiam_ros.report.figures import Errors, draw_cumulative, draw_errors_along, draw_map
from rgsiam_ros.report.figures_quality import (
    draw_coverage,
    draw_latency,
    draw_sharpness,
    draw_timeline,
)
from rgsiam_ros.report.gallery import Gallery
from rgsiam_ros.report.records import ReplayRecord
from rgsiam_ros.report.series import Series, series_of
from rgsiam_ros.report.summary import summarise_run

NO_TRUTH = "The data has no true poses, so no errors can be given."
FEW = "Too few images have a pose, a covariance and a true pose to say whether the covariance is true."


def report_page(
    record: ReplayRecord,
    metrics: Mapping[str, Any],
    config: Mapping[str, Any],
    gallery: Gallery,
    seen: str = "",
) -> str:
    """The page as HTML.

    metrics, config: as in ``metrics.json`` and ``config.yaml``; seen: what to say if the bundle was built from the same
    data. Every name that comes from data is escaped.
    """
    series = series_of(record)
    consistency, with_truth = metrics["consistency"], bool(metrics["frames_with_truth"])
    cumulative = coverage = sharpness = ""
    if metrics["position_error_m"] is not None:
        known = np.isfinite(series.error_m_N)
        errors = Errors(
            series.error_m_N[known], series.error_deg_N[known], metrics["frames_with_truth"]
        )
        figure = draw_cumulative({"": errors}, metrics["limits"], RUNS)
        cumulative = to_html(figure, "plot-cumulative")
    if consistency is not None:
        coverage = to_html(draw_coverage(consistency), "plot-coverage")
        sharpness = to_html(draw_sharpness(series), "plot-sharpness")
    latency_ms = metrics["latency_ms"]
    figure = draw_map(record, series, gallery.map_position_N3)
    return render(
        "report.html.j2",
        title=str(config.get("title", "A run")),
        provenance=config.get("provenance", {}),
        tiles=_tiles(metrics, series),
        findings=summarise_run(record, series, metrics, seen),
        map=to_html(figure, "plot-map"),
        map_text=_map_text(record, with_truth),
        errors=to_html(draw_errors_along(record, series), "plot-errors"),
        errors_text=_errors_text(len(record.frames), metrics),
        cumulative=cumulative,
        no_errors=NO_TRUTH if not with_truth else "No image has both a pose and a true pose.",
        coverage=coverage,
        sharpness=sharpness,
        consistency=_consistency_rows(consistency),
        no_consistency=FEW
        if with_truth
        else f"{NO_TRUTH} Whether the covariance is true cannot be told.",
        timeline=to_html(draw_timeline(record, series), "plot-timeline"),
        pauses=bool(series.after_pause_N.any()),
        latency=to_html(draw_latency(latency_ms), "plot-latency") if latency_ms else "",
        latency_ms=latency_ms,
        gallery=gallery,
        through_node="ros" in metrics,
        config=yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True),
        metrics=json.dumps(metrics, indent=2),
    )


def write_page(path: Path, html: str) -> None:
    """Write a page. A name that is no valid text, as a file's may be, gets question marks."""
    path.write_text(html, encoding="utf-8", errors="replace")


def render(template: str, **values: Any) -> str:
    """A page from one of the templates. Plotly's script is in it once."""
    environment = Environment(
        loader=PackageLoader("rgsiam_ros.report", "data"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(template).render(plotly_script=get_plotlyjs(), **values)


def _tiles(metrics: Mapping[str, Any], series: Series) -> list[tuple[str, str]]:
    """The most important figures, with names."""
    tiles = [(f"{metrics['availability']:.1%}", "of the images answered")]
    if metrics["position_error_m"] is not None:
        metres, degrees = metrics["position_error_m"], metrics["rotation_error_deg"]
        limits = metrics["limits"]
        tiles += [
            (
                f"{metrics['right']:.1%}",
                f"right: within {limits['right_m']:g} m, {limits['right_deg']:g}°",
            ),
            (
                f"{metrics['wrong']:.1%}",
                f"wrong: beyond {limits['wrong_m']:g} m, {limits['wrong_deg']:g}°",
            ),
            (length_text(metres["median"]), "position error, median"),
            (length_text(metres["p95"]), "position error, p95"),
            (degrees_text(degrees["median"]), "rotation error, median"),
        ]
    if len(series.metres_N) and series.metres_N[-1] > 0.0:
        tiles.append((length_text(float(series.metres_N[-1])), "travelled"))
    total = metrics["latency_ms"].get("total") or metrics["latency_ms"].get("image to pose")
    if total:
        tiles.append((f"{total['p50']:.0f} ms", "for one image, median"))
    return tiles


def _map_text(record: ReplayRecord, with_truth: bool) -> str:
    what = f"Poses of {record.reported_frame} in the frame {record.map_frame}, seen from above"
    if with_truth:
        return f"{what}. Estimated positions are coloured by their error, on a logarithmic scale."
    return f"{what}. Estimated positions are coloured by their standard deviation, on a logarithmic scale."


def _errors_text(frames: int, metrics: Mapping[str, Any]) -> str:
    text = "Errors of the published poses over the distance travelled, and the standard deviations that they state."
    if metrics.get("with_time_offset"):
        text += " The plots are as labelled: the time offset of the labels counts as error."
    if not metrics["frames_with_truth"]:
        text = f"{NO_TRUTH} The standard deviations of the published poses over the distance travelled."
    if frames > MOST_DRAWN:
        text += f" Of {frames} images every {-(-frames // MOST_DRAWN)}th is drawn in the plots; the figures count all."
    return text


def _consistency_rows(consistency: Mapping[str, Any] | None) -> list[list[str]]:
    if consistency is None:
        return []
    rows = []
    for name, text in (("position", length_text), ("rotation", degrees_text)):
        figures = consistency[name]
        value, low, high = figures["nees"]
        interval = "too few images" if low is None else f"{low:.2f} to {high:.2f}"
        rows.append(
            [name, f"{value:.2f}", interval, text(figures["sigma"]), text(figures["error"])]
        )
    return rows
