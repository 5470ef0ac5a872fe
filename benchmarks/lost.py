"""Measure how well the trust score detects that the vehicle is lost: ROC curves, AUROC and accepted shares.

    python benchmarks/lost.py DRIVE BUNDLE --elsewhere OTHER_DATASET --out results/lost
    python benchmarks/lost.py DRIVE BUNDLE_WITHOUT_A_STRETCH --leave-out=x,y,radius --out results/hole

The images to accept are those of the drive with a right pose. The images to reject are those with a wrong
pose, those inside a circle that was left out of the map, corrupted images of the drive, and images of another
place. The corruptions differ from those of the calibration: they have other strengths, and are applied at the
camera's resolution before JPEG compression.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata

from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.cli.console import log_to_terminal
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.errors import RgsiamError
from rgsiam_ros.localization.pose_estimate import PoseEstimate
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.recordings.ground_truth import drive_in_map
from rgsiam_ros.recordings.rosbag import Drive, read_drive
from rgsiam_ros.replay.offline import decoded
from rgsiam_ros.report.results import claim_folder
from rgsiam_training.config import SplitConfig

TRUST_WITHOUT_POSE = -1e3
"""Trust score of an image for which no pose can be estimated."""
FROZEN_RUN = 50
"""Number of identical images of the frozen camera."""


def jpeg(image: ImageBGR) -> ImageBGR:
    """The image after JPEG compression, as a camera driver sends it."""
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1], 1)  # type: ignore[return-value]


def covered(image: ImageBGR, random: np.random.Generator) -> ImageBGR:
    """A smear on the whole lens: only large areas of colour remain."""
    small = cv2.resize(image, (3, 2), interpolation=cv2.INTER_AREA)
    smear = cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return _noisy(0.6 * smear + 20.0, 2.0, random)


def night(image: ImageBGR, random: np.random.Generator) -> ImageBGR:
    """A dark road: low gain, a gamma of 2.2, and the noise of a sensor with high gain."""
    return _noisy(255.0 * 0.10 * (image / 255.0) ** 2.2, 4.0, random)


def blurred(image: ImageBGR, random: np.random.Generator) -> ImageBGR:
    """Out of focus: a disc whose diameter is a sixth of the image width."""
    size = image.shape[1] // 6
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)).astype(np.float32)
    return cv2.filter2D(image, -1, disc / disc.sum(), borderType=cv2.BORDER_REFLECT)  # type: ignore[return-value]


def rotated(image: ImageBGR, random: np.random.Generator) -> ImageBGR:
    """A camera that was turned by 60 to 300 degrees about its optical axis."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), random.uniform(60.0, 300.0), 1.3)
    return cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REFLECT)  # type: ignore[return-value]


def noise(image: ImageBGR, random: np.random.Generator) -> ImageBGR:
    """A tenth of the contrast, with strong noise."""
    return _noisy(0.1 * image + 115.0, 60.0, random)


CORRUPTIONS: dict[str, Callable[[ImageBGR, np.random.Generator], ImageBGR]] = {
    "covered lens": covered,
    "night": night,
    "heavy blur": blurred,
    "rotated camera": rotated,
    "noise": noise,
}


def main(
    drive_path: Annotated[Path, typer.Argument(metavar="DRIVE")],
    bundle: Path,
    elsewhere: Annotated[list[Path] | None, typer.Option(help="Dataset of another place.")] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="x,y,radius of a circle that the map lacks, metres.")
    ] = None,
    out: Annotated[Path, typer.Option()] = Path("results/lost"),
    precision: str = "float32",
    branch: str = "auto",
    every: Annotated[int, typer.Option(min=1, help="Corrupt one in this many images.")] = 4,
    seed: int = 0,
) -> None:
    """Print a table and draw the ROC curves."""
    log_to_terminal()
    circles = [_circle(text) for text in leave_out or ()]
    console = Console(width=120)
    relocalizer = Relocalizer.from_bundle(
        bundle, EngineOptions("onnxruntime", precision), branch=branch, frozen_images=0
    )
    if not relocalizer.calibrated:
        raise typer.BadParameter(f"{bundle} is not calibrated: run `rgsiam calibrate` first")
    drive = drive_in_map(read_drive(drive_path), relocalizer.manifest)
    assert drive.camera is not None
    claim_folder(out)
    relocalizer.use_camera(drive.camera)
    images, true_position_N3 = _images_with_truth(drive)
    estimates = relocalizer.estimate_many(images)
    trust = np.array([_trust(estimate) for estimate in estimates])
    error_m = np.array(
        [_error_m(e, position) for e, position in zip(estimates, true_position_N3, strict=True)]
    )
    unmapped = SplitConfig(leave_out=circles).inside(true_position_N3)
    groups: dict[str, np.ndarray] = {}
    if unmapped.any():
        groups["unmapped stretch"] = trust[unmapped]
    wrong_m = relocalizer.manifest.limits.wrong_m
    if (wrong := ~unmapped & (error_m > wrong_m)).any():
        groups[f"error above {wrong_m:g} m"] = trust[wrong]
    right = trust[~unmapped & (error_m <= wrong_m)]
    random = np.random.default_rng(seed)
    for name, corrupt in CORRUPTIONS.items():
        corrupted = [jpeg(corrupt(image, random)) for image in images[::every]]
        groups[name] = np.array([_trust(e) for e in relocalizer.estimate_many(corrupted)])
    for path in elsewhere or ():
        groups[f"other place: {path.name}"] = _other_place(relocalizer, path, every)
    table = Table("images to reject", "images", "AUROC", "accepted")
    report: dict[str, Any] = {}
    for name, values in groups.items():
        report[name] = {
            "images": len(values),
            "auroc": auroc(right, values),
            "accepted": float((values >= 0.0).mean()),
        }
        row = report[name]
        table.add_row(name, str(len(values)), f"{row['auroc']:.4f}", f"{row['accepted']:.1%}")
    frozen = _accepted_of_frozen(bundle, precision, branch, drive, images)
    table.add_row("frozen camera", str(len(frozen)), "", f"{np.mean(frozen):.1%}")
    mapped = ~unmapped
    report["drive"] = {
        "frames": int(mapped.sum()),
        "accepted": float((trust[mapped] >= 0.0).mean()),
        "accepted_of_right": float((right >= 0.0).mean()),
        "wrong_of_accepted": float((error_m[mapped & (trust >= 0.0)] > wrong_m).mean()),
        "frozen_accepted": float(np.mean(frozen)),
    }
    if relocalizer.branch == "absolute":
        calibration = relocalizer.manifest.calibrations[relocalizer.engine.precision]
        report["drive"]["stated_false_accept_rate"] = calibration.false_accept_rate
    if unmapped.any():
        falsely_accepted = unmapped & (trust >= 0.0)
        errors_m = sorted(error_m[falsely_accepted].round(2).tolist())
        report["drive"]["unmapped_accepted_off_m"] = errors_m
    console.print(
        f"{drive_path.name}, {bundle.name}, {precision}; one in {every} images corrupted, seed {seed}"
    )
    console.print(table)
    d = report["drive"]
    console.print(
        f"the drive{' outside the circle' if unmapped.any() else ''}: {d['accepted']:.1%} of "
        f"{d['frames']} images are accepted, {d['accepted_of_right']:.1%} of the right ones; "
        f"{d['wrong_of_accepted']:.2%} of the accepted ones have an error above {wrong_m:g} m"
    )
    (out / "lost.json").write_text(json.dumps(report, indent=2) + "\n")
    _draw(right, groups, out / "lost.png", f"{drive_path.name}, {bundle.name}")
    console.print(f"plot: {out / 'lost.png'}")


def auroc(right: np.ndarray, wrong: np.ndarray) -> float:
    """Probability that a right image has a higher trust score than a wrong one (area under the ROC curve)."""
    ranks = rankdata(np.concatenate([right, wrong]))[: len(right)]
    return float((ranks.sum() - len(right) * (len(right) + 1) / 2) / len(right) / len(wrong))


def _circle(text: str) -> tuple[float, float, float]:
    try:
        x, y, radius = (float(value) for value in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"--leave-out takes x,y,radius, not {text}") from error
    return x, y, radius


def _images_with_truth(drive: Drive) -> tuple[list[ImageBGR], np.ndarray]:
    """The readable images whose true pose is known, and the camera's true positions ``(N, 3)``."""
    encoded = list(drive.read_images())
    T, known = drive.true_base_poses([image.stamp_ns for image in encoded])
    kept = [(decoded(image), i) for i, image in enumerate(encoded) if known[i]]
    usable = [(image, i) for image, i in kept if not isinstance(image, RgsiamError)]
    assert drive.T_base_camera is not None
    positions = (T @ drive.T_base_camera)[[i for _, i in usable], :3, 3]
    return [image for image, _ in usable], positions


def _trust(estimate: PoseEstimate | RgsiamError) -> float:
    if isinstance(estimate, RgsiamError):
        return TRUST_WITHOUT_POSE
    assert estimate.trust is not None
    return estimate.trust


def _error_m(estimate: PoseEstimate | RgsiamError, true_position_3: np.ndarray) -> float:
    if isinstance(estimate, RgsiamError):
        return np.inf
    return float(np.linalg.norm(estimate.T_map_camera[:3, 3] - true_position_3))


def _other_place(relocalizer: Relocalizer, path: Path, every: int) -> np.ndarray:
    """Trust scores of the images of another dataset, scaled and cropped to the bundle's camera."""
    camera = relocalizer.manifest.camera
    images = []
    for encoded in list(open_dataset(path, "train").read_images())[::every]:
        image = encoded.decode()
        height, width = image.shape[:2]
        scale = max(camera.width / width, camera.height / height)
        scaled = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        top, left = (scaled.shape[0] - camera.height) // 2, (scaled.shape[1] - camera.width) // 2
        cropped = scaled[top : top + camera.height, left : left + camera.width]
        images.append(np.ascontiguousarray(cropped))
    return np.array([_trust(estimate) for estimate in relocalizer.estimate_many(images)])


def _accepted_of_frozen(
    bundle: Path, precision: str, branch: str, drive: Drive, images: list[ImageBGR]
) -> list[bool]:
    """Whether each of `FROZEN_RUN` identical images is accepted, with the default limit."""
    options = EngineOptions("onnxruntime", precision)
    relocalizer = Relocalizer.from_bundle(bundle, options, branch=branch)
    assert drive.camera is not None
    relocalizer.use_camera(drive.camera)
    estimates = relocalizer.estimate_many([images[len(images) // 3]] * FROZEN_RUN)
    return [isinstance(estimate, PoseEstimate) and not estimate.lost for estimate in estimates]


def _noisy(values: np.ndarray, sigma: float, random: np.random.Generator) -> ImageBGR:
    noisy_values = values + random.normal(0.0, sigma, values.shape)
    return np.clip(np.round(noisy_values), 0, 255).astype(np.uint8)


def _draw(right: np.ndarray, groups: dict[str, np.ndarray], path: Path, title: str) -> None:
    figure = Figure(figsize=(12.0, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    roc, values = figure.subplots(1, 2)
    for name, wrong in groups.items():
        thresholds = np.sort(np.concatenate([right, wrong]))[::-1]
        false_accepts = [(wrong >= t).mean() for t in thresholds]
        true_accepts = [(right >= t).mean() for t in thresholds]
        roc.plot(false_accepts, true_accepts, label=f"{name}: {auroc(right, wrong):.3f}")
    roc.set(
        xlabel="false-accept rate", ylabel="share of right images accepted", title="ROC (AUROC)"
    )
    roc.grid(alpha=0.3)
    roc.legend(loc="lower right", fontsize=8)
    shown = {"right": right, **groups}
    low = np.percentile(np.concatenate(list(shown.values())), 1)
    values.boxplot(
        [np.maximum(v, low) for v in shown.values()],
        orientation="horizontal",
        whis=(1, 99),
        showfliers=False,
    )
    values.set_yticks(range(1, len(shown) + 1), list(shown))
    values.axvline(0.0, color="tab:red", linewidth=1)
    values.set(xlabel="trust score (accepted from 0 on); whiskers: 1 and 99 %")
    values.grid(alpha=0.3, axis="x")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    typer.run(main)
