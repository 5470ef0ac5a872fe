"""Compare the consistency of the calibrated covariances, a constant covariance, and the network's raw covariances.

    python benchmarks/covariance.py DRIVE BUNDLE --out results/covariance

A drive with true poses is replayed offline. Frames on which the vehicle is lost do not count. The constant
covariance is the bundle's residual covariance, the second moment of the errors on the held-out frames. It is
the best constant that can be known before the drive. Other packages that publish a constant covariance
usually publish a guess, or zeros.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy.stats import chi2

from rgsiam_ros.cli.console import log_to_terminal
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.pose_estimate import PoseEstimate
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.recordings.ground_truth import drive_in_map
from rgsiam_ros.recordings.rosbag import read_drive
from rgsiam_ros.replay.offline import decoded
from rgsiam_ros.report import covariance_consistency
from rgsiam_ros.report.results import claim_folder
from rgsiam_ros.uncertainty.covariance import pose_error_vectors, rotate_axes

COLOURS = {"calibrated": "tab:blue", "constant": "tab:orange", "network's own": "tab:green"}


def main(
    drive_path: Annotated[Path, typer.Argument(metavar="DRIVE")],
    bundle: Path,
    out: Annotated[Path, typer.Option()] = Path("results/covariance"),
    precision: str = "float32",
    branch: str = "auto",
    seed: int = 0,
) -> None:
    """Print a table, and draw coverage and predicted errors."""
    log_to_terminal()
    console = Console(width=150)
    relocalizer = Relocalizer.from_bundle(
        bundle, EngineOptions("onnxruntime", precision), branch=branch
    )
    if not relocalizer.calibrated:
        raise typer.BadParameter(f"{bundle} is not calibrated: run `rgsiam calibrate` first")
    drive = drive_in_map(read_drive(drive_path), relocalizer.manifest)
    assert drive.T_base_camera is not None
    assert drive.camera is not None
    claim_folder(out)
    relocalizer.use_camera(drive.camera)
    images = list(drive.read_images())
    T_map_base, known = drive.true_base_poses([image.stamp_ns for image in images])
    estimates = relocalizer.estimate_many([decoded(image) for image in images])
    kept = [
        (estimate, T @ drive.T_base_camera)
        for estimate, T, is_known in zip(estimates, T_map_base, known, strict=True)
        if isinstance(estimate, PoseEstimate) and is_known and not estimate.lost
    ]
    T = np.stack([estimate.T_map_camera for estimate, _ in kept])
    error = pose_error_vectors(T, np.stack([T_true for _, T_true in kept]))
    covariances = {"calibrated": np.stack([estimate.covariance_66 for estimate, _ in kept])}
    if relocalizer.branch == "absolute":
        part = relocalizer.manifest.absolute_part
        constant = np.asarray(part.variants[relocalizer.engine.precision].covariance.matrix)
        covariances["constant"] = np.stack([rotate_axes(constant, pose[:3, :3]) for pose in T])
    raw = [estimate.raw_covariance_66 for estimate, _ in kept]
    if all(covariance is not None for covariance in raw):
        covariances["network's own"] = np.stack(raw)  # type: ignore[arg-type]
    console.print(
        f"{drive_path.name}, {bundle.name}: {len(kept)} of {len(images)} frames are not lost; "
        f"{precision}; bootstrap: blocks of {covariance_consistency.BLOCK_FRAMES} frames, "
        f"{covariance_consistency.RESAMPLES} resamples, seed {seed}"
    )
    table = Table(
        "", "covariance", "NEES / dof", *(f"{p:.0%}" for p in covariance_consistency.LEVELS)
    )
    table.add_column("predicted RMS")
    table.add_column("actual RMS")
    reports = {
        name: covariance_consistency.consistency_report(error, C, seed)
        for name, C in covariances.items()
    }
    for part in covariance_consistency.PARTS:
        for name, report in reports.items():
            assert report is not None
            row = report[part]
            rms = (f"{row['sigma']:.2f}", f"{row['error']:.2f}") if "sigma" in row else ("", "")
            coverage = (_interval(value, 100) for value in row["coverage"].values())
            table.add_row(part, name, _interval(row["nees"], 1), *coverage, *rms)
    console.print(table)
    (out / "covariance.json").write_text(json.dumps(reports, indent=2) + "\n")
    _draw(error, covariances, out / "covariance.png", drive_path.name)
    console.print(f"plot: {out / 'covariance.png'}")


def _interval(value: list[float | None], factor: float) -> str:
    """A value times `factor` with its confidence interval, if it has one."""
    if None in value:
        return f"{factor * (value[0] or 0.0):.3g}"
    mean, low, high = (factor * v for v in value if v is not None)
    return f"{mean:.3g} ({low:.3g}..{high:.3g})"


def _draw(error: Array, covariances: dict[str, Array], path: Path, title: str) -> None:
    figure = Figure(figsize=(13.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    levels = np.linspace(0.0, 1.0, 101)[1:-1]
    for ax, part in zip(axes[:2], ("position", "rotation"), strict=True):
        ax.plot([0, 100], [0, 100], color="0.6", linewidth=1)
        for name, C in covariances.items():
            square = covariance_consistency.normalised_squares(error, C, part)
            share = [100 * np.mean(square <= chi2.ppf(level, 3)) for level in levels]
            ax.plot(100 * levels, share, color=COLOURS[name], label=name)
        ax.set(xlabel="confidence ellipsoid (%)", ylabel="errors inside (%)", title=part)
        ax.set_aspect("equal")
        ax.grid(alpha=0.3)
    axes[0].legend(loc="lower right")
    actual = np.linalg.norm(error[:, :3], axis=1)
    C = covariances["calibrated"]
    predicted = np.sqrt(np.einsum("nii->n", C[:, :3, :3]))
    axes[2].loglog(predicted, np.maximum(actual, 1e-3), ".", markersize=3, alpha=0.5)
    ends = np.array([predicted.min(), predicted.max()])
    axes[2].loglog(ends, ends, color="0.6", linewidth=1)
    for group in np.array_split(np.argsort(predicted), 6):
        axes[2].loglog(
            np.sqrt((predicted[group] ** 2).mean()),
            np.sqrt((actual[group] ** 2).mean()),
            "o",
            color="tab:red",
        )
    axes[2].set(
        xlabel="predicted position sigma (m)",
        ylabel="position error (m)",
        title="calibrated; red: RMS of each sixth of the frames",
    )
    axes[2].grid(alpha=0.3, which="both")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    typer.run(main)
