"""Write the results folder: trajectories, a table of frames, metrics, configuration and picture."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rgsiam_ros.errors import ResultsError
from rgsiam_ros.geometry.conversions import quaternion_xyzw_of
from rgsiam_ros.geometry.poses import Array, pose_errors
from rgsiam_ros.geometry.units import length_text
from rgsiam_ros.recordings.tum import write_tum
from rgsiam_ros.report.covariance_consistency import report_lines
from rgsiam_ros.report.gallery import Gallery
from rgsiam_ros.report.page import report_page, write_page
from rgsiam_ros.report.plot import draw_replay
from rgsiam_ros.report.records import FrameRecord, ReplayRecord


def claim_folder(out: Path) -> Path:
    """Create the results folder. Raises ResultsError if it holds files or cannot be created."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ResultsError(f"{out} exists and is not empty: choose another --out or remove it")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(f"{out} cannot be created ({error}): choose another --out") from error
    return out


def write_results(
    record: ReplayRecord,
    metrics: dict[str, Any],
    config: dict[str, Any],
    gallery: Gallery,
    out: Path,
    seen: str = "",
) -> None:
    """Write the results of a replay to the folder `out`.

    metrics: for ``metrics.json``, see `rgsiam_ros.report.metrics.replay_metrics`; config: for
    ``config.yaml``; gallery, seen: for ``report.html``, see `rgsiam_ros.report.page.report_page`. Raises ResultsError if
    the folder cannot be written.
    """
    with all_or_nothing(out) as folder:
        write_tum(folder / "estimated.tum", _poses(record, "T_map_frame"))
        write_tum(folder / "ground_truth.tum", _poses(record, "T_true"))
        _write_frames(record, folder / "frames.csv")
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        draw_replay(record, folder / "replay.png", title=str(config.get("title", "")))
        write_page(folder / "report.html", report_page(record, metrics, config, gallery, seen))


@contextmanager
def all_or_nothing(out: Path) -> Iterator[Path]:
    """A temporary folder. Its files move to `out` at the end of the ``with`` block.

    Raises ResultsError if the files cannot be written. None of them is then left.
    """
    staging = None
    try:
        staging = Path(tempfile.mkdtemp(prefix=".unfinished.", dir=out))
        yield staging
        for file in sorted(staging.iterdir()):
            file.rename(out / file.name)
    except OSError as error:
        raise ResultsError(
            f"{out} cannot be written ({error}): free space or change --out"
        ) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def print_table(metrics: dict[str, Any], console: Console, title: str) -> None:
    """Print a short table of the metrics."""
    table = Table(title=title, title_justify="left")
    for column in ("", "median", "mean", "p95"):
        table.add_column(column, justify="left" if not column else "right")
    errors = (
        ("position error", "position_error_m", "m"),
        ("rotation error", "rotation_error_deg", "deg"),
    )
    rows = [(label, metrics[key], unit) for label, key, unit in errors]
    if moved := metrics.get("with_time_offset"):
        how = f"labels moved by {1e3 * moved['time_offset_s']:.0f} ms"
        rows += [(f"{label}, {how}", moved[key], unit) for label, key, unit in errors]
    for label, spread, unit in rows:
        cells = (
            ["-"] * 3
            if spread is None
            else [
                length_text(spread[name]) if unit == "m" else f"{spread[name]:.2f} {unit}"
                for name in ("median", "mean", "p95")
            ]
        )
        table.add_row(label, *cells)
    for stage, spread in metrics["latency_ms"].items():
        table.add_row(f"{stage} time", f"{spread['p50']:.1f} ms", "", f"{spread['p95']:.1f} ms")
    for name in ("lost", "rejected", "skipped", "never_arrived"):
        if "ros" in metrics:
            table.add_row(f"images {name.replace('_', ' ')}", str(metrics["ros"][name]))
    console.print(table)
    console.print(
        f"answered {metrics['answered']} of {metrics['frames']} frames, {metrics['availability']:.1%}"
        + (f", lost in {metrics['lost']}" if metrics["lost"] else "")
        + ("" if metrics["frames_with_truth"] else "; the bag has no true poses: no errors"),
        soft_wrap=True,
    )
    if metrics["frames_with_truth"]:
        console.print(_shares(metrics, metrics["limits"]), soft_wrap=True)
    if moved and moved["frames_with_truth"]:
        console.print(f"{how}: {_shares(moved, metrics['limits'])}", soft_wrap=True)
    for line in report_lines(metrics["consistency"]):
        console.print(line)
    for line in report_lines(moved["consistency"]) if moved else ():
        console.print(f"{how}: {line}")


def _shares(figures: dict[str, Any], limits: dict[str, float]) -> str:
    """The shares of right and wrong poses and the recalls, in words."""
    within = ", ".join(f"{name}: {share:.0%}" for name, share in figures["recall"].items())
    return (
        f"right {figures['right']:.1%} (within {limits['right_m']:g} m and {limits['right_deg']:g} deg), "
        f"wrong {figures['wrong']:.1%} (off by more than {limits['wrong_m']:g} m or "
        f"{limits['wrong_deg']:g} deg); within {within}"
    )


def print_in_red(lines: Iterable[str], console: Console) -> None:
    """Print what must not be overlooked, one line each."""
    for line in lines:
        console.print(f"[bold red]{escape(line)}[/]", soft_wrap=True, highlight=False)


def _poses(record: ReplayRecord, attribute: str) -> Iterable[tuple[int, Array]]:
    for frame in record.frames:
        T = getattr(frame, attribute)
        if T is not None:
            yield frame.stamp_ns, T


# the last six are the standard deviations of position and rotation, see `_row`
COLUMNS = [
    "stamp_ns",
    "answered",
    "x",
    "y",
    "z",
    "qx",
    "qy",
    "qz",
    "qw",
    "true_x",
    "true_y",
    "true_z",
    "error_m",
    "error_deg",
    "sigma_x_m",
    "sigma_y_m",
    "sigma_z_m",
    "sigma_rot_x_deg",
    "sigma_rot_y_deg",
    "sigma_rot_z_deg",
]
GEOMETRIC = ["inliers", "matches", "residual_px"]
"""The fields of `GeometricQuality` with the same names."""
TRUST = ["trust", "feature_distance"]
"""The fields of `FrameRecord` with the same names."""


def _write_frames(record: ReplayRecord, path: Path) -> None:
    stages = sorted({stage for frame in record.frames for stage in frame.timings_ms})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(
            file, [*COLUMNS, "branch", *GEOMETRIC, *TRUST, *(f"{s}_ms" for s in stages), "problem"]
        )
        writer.writeheader()
        for frame in record.frames:
            writer.writerow(_row(frame))


def _row(frame: FrameRecord) -> dict[str, Any]:
    row: dict[str, Any] = {
        "stamp_ns": frame.stamp_ns,
        "answered": int(frame.T_map_frame is not None),
        "problem": frame.problem,
        "branch": frame.branch,
    }
    if frame.geometric_quality is not None:
        row |= {name: getattr(frame.geometric_quality, name) for name in GEOMETRIC}
    row |= {name: getattr(frame, name) for name in TRUST}
    T = frame.T_estimated
    if T is not None:
        names = ("x", "y", "z", "qx", "qy", "qz", "qw")
        row |= dict(zip(names, [*T[:3, 3], *quaternion_xyzw_of(T)], strict=True))
    if frame.T_true is not None:
        row |= dict(zip(("true_x", "true_y", "true_z"), frame.T_true[:3, 3], strict=True))
    if T is not None and frame.T_true is not None:
        metres, radians = pose_errors(T, frame.T_true)
        row |= {"error_m": float(metres), "error_deg": float(np.degrees(radians))}
    if frame.covariance_66 is not None:
        sigma = np.sqrt(np.diag(frame.covariance_66))
        row |= dict(zip(COLUMNS[-6:-3], sigma[:3], strict=True))
        row |= dict(zip(COLUMNS[-3:], np.degrees(sigma[3:]), strict=True))
    return row | {f"{stage}_ms": value for stage, value in frame.timings_ms.items()}
