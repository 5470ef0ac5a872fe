"""Compare runs in one page: the command `rgsiam report`."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

from rgsiam_ros.errors import ResultsError
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.report.figure_style import RUNS, to_html
from rgsiam_ros.report.figures import Errors, draw_cumulative
from rgsiam_ros.report.page import render, write_page
from rgsiam_ros.report.schema import Metrics, Spread

NEEDED = ("metrics.json", "config.yaml", "frames.csv")


@dataclass(frozen=True)
class Run:
    """A results folder."""

    name: str
    title: str
    metrics: Metrics
    provenance: dict[str, str]
    error_m_M: Array
    """Position errors of the published poses with a true pose."""
    error_deg_M: Array


@dataclass(frozen=True)
class Row:
    """One line of a table with a column for each run."""

    name: str
    values: list[str]

    @property
    def differs(self) -> bool:
        """Whether not all runs have the same value."""
        return len(set(self.values)) > 1


def write_comparison(folders: Sequence[Path], out: Path) -> None:
    """Write the page `out`. Raises ResultsError if a folder is not of a run, or the page cannot be written."""
    runs = [read_run(folder, name) for folder, name in zip(folders, names_of(folders), strict=True)]
    if out.exists():
        raise ResultsError(f"{out} exists: choose another --out or remove it")
    text = comparison_page(runs)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_page(out, text)
    except OSError as error:
        raise ResultsError(f"{out} cannot be written ({error}): change --out") from error


def names_of(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell the folders apart."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = [str(Path(*part[-length:])) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ResultsError(f"{folders[0]} and another folder are the same: give each run once")


def read_run(folder: Path, name: str) -> Run:
    """Read a results folder. Raises ResultsError, which says why it is none."""
    missing = [file for file in NEEDED if not (folder / file).is_file()]
    if missing:
        raise ResultsError(
            f"{folder} is no results folder of `rgsiam replay` or `evaluate`: it has no {missing[0]}"
        )
    try:
        metrics = Metrics.model_validate_json((folder / "metrics.json").read_text())
        config = yaml.safe_load((folder / "config.yaml").read_text())
        with (folder / "frames.csv").open(newline="") as file:
            rows = [
                (float(row["error_m"]), float(row["error_deg"]))
                for row in csv.DictReader(file)
                if row["answered"] == "1" and row["error_m"]
            ]
        title, provenance = str(config["title"]), dict(config.get("provenance", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ResultsError(
            f"{folder} cannot be read as a results folder ({_short(error)}): run the command that wrote it again"
        ) from error
    errors = np.array(rows, np.float64).reshape(-1, 2)
    return Run(name, title, metrics, provenance, errors[:, 0], errors[:, 1])


def comparison_page(runs: Sequence[Run]) -> str:
    """The page as HTML. Every name that comes from data is escaped."""
    tracks = {
        run.name: Errors(run.error_m_M, run.error_deg_M, run.metrics.frames_with_truth)
        for run in runs
        if len(run.error_m_M)
    }
    all_limits = [run.metrics.limits for run in runs]
    same = all(limits == all_limits[0] for limits in all_limits)
    cumulative = ""
    if tracks:
        figure = draw_cumulative(tracks, all_limits[0].model_dump() if same else {}, RUNS)
        cumulative = to_html(figure, "plot-cumulative")
    names = list(dict.fromkeys(key for run in runs for key in run.provenance))
    return render(
        "compare.html.j2",
        title=f"Comparison of {len(runs)} runs",
        names=[run.name for run in runs],
        warnings=_warnings(runs, same),
        metrics=_rows(runs),
        cumulative=cumulative,
        provenance=[
            Row("run", [run.title for run in runs]),
            *(Row(name, [run.provenance.get(name, "-") for run in runs]) for name in names),
        ],
    )


def _warnings(runs: Sequence[Run], same_limits: bool) -> list[str]:
    warnings = []
    if len({run.provenance.get("data fingerprint") for run in runs}) > 1:
        warnings.append(
            "The runs are of different data: their figures cannot be compared directly."
        )
    if not same_limits:
        warnings.append("The maps have different limits, so right and wrong mean different errors.")
    warnings += [
        f"{run.name}: the bundle was built from the same data; its figures say nothing about other drives."
        for run in runs
        if run.metrics.seen_in_training
    ]
    warnings += [f"{run.name}: {doubt}." for run in runs for doubt in run.metrics.bundle_doubts]
    return warnings


def _rows(runs: Sequence[Run]) -> list[Row]:
    def row(name: str, cell: Callable[..., str], *arguments: str) -> Row:
        return Row(name, [cell(run.metrics, *arguments) for run in runs])

    rows = [
        row("images", lambda m: str(m.frames)),
        row("answered", lambda m: _share(m.availability)),
        row("right", lambda m: _share(m.right)),
        row("right is within", lambda m: f"{m.limits.right_m:g} m and {m.limits.right_deg:g}°"),
        row("wrong", lambda m: _share(m.wrong)),
        row("wrong is beyond", lambda m: f"{m.limits.wrong_m:g} m or {m.limits.wrong_deg:g}°"),
    ]
    for what, key, unit in (
        ("position", "position_error_m", "m"),
        ("rotation", "rotation_error_deg", "°"),
    ):
        for name in ("median", "mean", "p95", "max"):
            rows.append(row(f"{what} error, {name}", _spread, key, name, unit))
    for part in ("position", "rotation"):
        rows.append(row(f"{part} NEES per degree of freedom", _nees, part))
        rows.append(row(f"{part} errors in the 95 % ellipsoid", _covered, part))
    stages = dict.fromkeys(stage for run in runs for stage in run.metrics.latency_ms)
    return [*rows, *(row(f"{stage}, p50 and p95", _times, stage) for stage in stages)]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _spread(metrics: Metrics, key: str, name: str, unit: str) -> str:
    spread: Spread | None = getattr(metrics, key)
    return "-" if spread is None else f"{getattr(spread, name):.3g} {unit}"


def _nees(metrics: Metrics, part: str) -> str:
    if metrics.consistency is None:
        return "-"
    value, low, high = getattr(metrics.consistency, part).nees
    return f"{value:.2f}" + ("" if low is None else f" ({low:.2f} to {high:.2f})")


def _covered(metrics: Metrics, part: str) -> str:
    if metrics.consistency is None:
        return "-"
    return f"{getattr(metrics.consistency, part).coverage['95%'][0]:.0%}"


def _times(metrics: Metrics, stage: str) -> str:
    times = metrics.latency_ms.get(stage)
    return "-" if times is None else f"{times.p50:.1f}, {times.p95:.1f} ms"


def _short(error: Any) -> str:
    """The first complaint of an error, on one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"metrics.json: {where or 'the whole file'}: {first['msg']}"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
