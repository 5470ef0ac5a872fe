"""Collect the results of a comparison in one table: Markdown, CSV and a plot."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.uncertainty.geometric_trust import OUTDOORS, ErrorLimits
from rgsiam_training.evaluation.compare.presets import PRESETS
from rgsiam_training.evaluation.compare.runner import RECALLS, RESULT_NAME

OLDER = dict(
    zip(("recall_0.25m_2deg", "recall_0.5m_5deg", "recall_5m_10deg"), RECALLS, strict=True)
)
"""Names of the recalls in results of older releases."""
ERRORS = ("median_m", "p95_m", "median_deg", "p95_deg")
SHARES = (ANSWERED, RIGHT, WRONG) = ("answered", "right", "wrong")
COSTS = ("parameters", "training_s", "inference_ms", "epochs")
FIGURES = (*ERRORS, *SHARES, *RECALLS, *COSTS)
"""The columns of figures, in order. The errors are those of the answered images, the shares and recalls those of all."""
HEADINGS = {
    "median_m": "median m",
    "p95_m": "p95 m",
    "median_deg": "median deg",
    "p95_deg": "p95 deg",
    **{name: name for name in SHARES},
    **{name: name.replace("recall_", "recall, ") for name in RECALLS},
    "parameters": "weights, M",
    "training_s": "training s",
    "inference_ms": "ms an image",
    "epochs": "epochs",
}
MEAN_OF_SCENES = "mean of scenes"


@dataclass(frozen=True)
class ResultRow:
    """The figures of one method on one scene, or averaged over the scenes."""

    scene: str
    method: str
    seeds: int
    mean: dict[str, float]
    spread: dict[str, float]
    """Standard deviation over the seeds; NaN with one seed."""
    limits: ErrorLimits | None
    """Which errors are right and wrong in the scene. None: of scenes that differ in them."""


def read_rows(out: Path) -> list[ResultRow]:
    """The results below `out`: one row for each method and scene, then the averages over the scenes.

    The average over the scenes is taken for each seed with which the method ran on all scenes; mean and spread
    are then over these seeds. A method without such a seed has no average. Raises DatasetError if there is no result,
    or if a file cannot be read.
    """
    results: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
    """By scene and method, then by seed."""
    limits: dict[str, ErrorLimits] = {}
    for path in sorted(out.glob(f"*/*/*/{RESULT_NAME}")):
        try:
            result = json.loads(path.read_text())
            several = len(result["estimates"]) > 1
            limits[result["scene"]] = ErrorLimits(**result.get("limits", vars(OUTDOORS)))
            for row in result["estimates"]:
                name = result["preset"] + (f", {row['estimator']}" if several else "")
                # older results lack the shares: all images were answered
                figures = {ANSWERED: 1.0, RIGHT: np.nan, WRONG: np.nan}
                figures |= {OLDER.get(n, n): value for n, value in row.items()}
                values = {n: float(figures[n]) for n in FIGURES}
                results.setdefault((result["scene"], name), {})[result["seed"]] = values
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f"{path} is no result of `rgsiam compare` ({error!r}): remove it"
            ) from error
    if not results:
        raise DatasetError(f"{out} holds no result yet: run `rgsiam compare` without --tables-only")
    scenes = sorted({scene for scene, _ in results})
    methods = sorted({method for _, method in results}, key=_preset_order)
    rows = [
        _row(scene, method, list(results[scene, method].values()), limits[scene])
        for scene in scenes
        for method in methods
        if (scene, method) in results
    ]
    if len(scenes) > 1:
        common = set(limits.values())
        shared = common.pop() if len(common) == 1 else None
        for method in methods:
            by_seed = [results.get((scene, method), {}) for scene in scenes]
            seeds = set.intersection(*(set(values) for values in by_seed))
            if seeds:
                means = [
                    {n: float(np.mean([r[s][n] for r in by_seed])) for n in by_seed[0][s]}
                    for s in sorted(seeds)
                ]
                rows.append(_row(MEAN_OF_SCENES, method, means, shared))
    return rows


def write_tables(out: Path, notes: Sequence[str] = ()) -> list[ResultRow]:
    """Write ``compare.md``, ``compare.csv`` and ``compare.png`` to `out`. notes: lines below the tables."""
    rows = read_rows(out)
    (out / "compare.md").write_text(_markdown(rows, notes))
    with (out / "compare.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        spreads = (f"{name}_spread" for name in FIGURES)
        writer.writerow(["scene", "method", "seeds", *FIGURES, *spreads])
        for row in rows:
            values = [*(row.mean[n] for n in FIGURES), *(row.spread[n] for n in FIGURES)]
            writer.writerow(
                [row.scene, row.method, row.seeds, *(f"{value:.6g}" for value in values)]
            )
    _draw(rows, out / "compare.png")
    return rows


def _preset_order(method: str) -> tuple[int, str]:
    """Sort key of a method: the position of its preset, then its name."""
    return [preset.name for preset in PRESETS].index(method.partition(",")[0]), method


def _row(
    scene: str, method: str, results: list[dict[str, float]], limits: ErrorLimits | None
) -> ResultRow:
    mean = {name: float(np.mean([r[name] for r in results])) for name in results[0]}
    several = len(results) > 1
    spread = {
        name: float(np.std([r[name] for r in results], ddof=1)) if several else float("nan")
        for name in mean
    }
    return ResultRow(scene, method, len(results), mean, spread, limits)


def _markdown(rows: Sequence[ResultRow], notes: Sequence[str]) -> str:
    lines = []
    for scene in dict.fromkeys(row.scene for row in rows):
        lines += [f"### {scene}", ""]
        limits = next(row.limits for row in rows if row.scene == scene)
        headings = HEADINGS | _recall_headings(limits)
        if limits is not None:
            lines += [f"{limits.describe().capitalize()}.", ""]
        lines.append("| method | seeds | " + " | ".join(headings[n] for n in FIGURES) + " |")
        lines.append("|---" * (len(FIGURES) + 2) + "|")
        for row in rows:
            if row.scene == scene:
                cells = [_cell(n, row.mean[n], row.spread[n]) for n in FIGURES]
                lines.append(f"| {row.method} | {row.seeds} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join([*lines, *notes]) + "\n"


def _recall_headings(limits: ErrorLimits | None) -> dict[str, str]:
    """The levels of the recalls; none for scenes that differ in them."""
    if limits is None:
        return {}
    levels = zip(RECALLS, limits.recall_levels, strict=True)
    return {name: f"{m:g} m {deg:g}°" for name, (m, deg) in levels}


def _cell(name: str, mean: float, spread: float) -> str:
    if np.isnan(mean):
        return "-"
    if name in SHARES:
        return f"{mean:.1%}"
    if name in RECALLS:
        return f"{mean:.0%}"
    if name == "parameters":
        return f"{mean / 1e6:.1f}"
    if name in ("training_s", "epochs"):
        return f"{mean:.0f}"
    if name == "inference_ms":
        return f"{mean:.3g}"
    text = f"{mean:.2f}"
    return text if np.isnan(spread) else f"{text} ± {spread:.2f}"


def _draw(rows: Sequence[ResultRow], path: Path) -> None:
    """Draw the median and the 95th percentile of each method on each scene."""
    scenes = list(dict.fromkeys(row.scene for row in rows))
    methods = sorted({row.method for row in rows}, key=_preset_order)
    height = 1.6 + 0.28 * len(methods)
    figure = Figure(figsize=(3.4 * len(scenes) + 1.6, 2.0 * height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(scenes), squeeze=False, sharey=True)
    for column, scene in enumerate(scenes):
        for line, (unit, label) in enumerate((("m", "position, m"), ("deg", "rotation, deg"))):
            ax = axes[line, column]
            for row in (r for r in rows if r.scene == scene):
                y = methods.index(row.method)
                median, p95 = row.mean[f"median_{unit}"], row.mean[f"p95_{unit}"]
                ours = row.method.startswith(("siamese", "geometric"))
                colour = "tab:blue" if ours else "0.35"
                ax.plot([median, p95], [y, y], color=colour, linewidth=1.0, alpha=0.5)
                ax.plot(p95, y, "|", color=colour, markersize=8)
                spread = np.nan_to_num(row.spread[f"median_{unit}"])
                ax.errorbar(median, y, xerr=spread, fmt="o", color=colour, markersize=5, capsize=2)
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
            ax.xaxis.set_major_formatter(FormatStrFormatter("%g"))
            ax.xaxis.set_minor_locator(NullLocator())
            ax.set_xlabel(label)
            ax.grid(alpha=0.3, which="both", axis="x")
            ax.set_yticks(range(len(methods)), methods)
            ax.set_ylim(len(methods) - 0.5, -0.5)
        axes[0, column].set_title(scene)
    figure.suptitle(
        "answered images; dot: median, with its spread over the seeds; bar: 95th percentile"
    )
    figure.savefig(path, dpi=110)
