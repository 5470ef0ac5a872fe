"""Is it noticed when the vehicle is lost? ROC over unmapped places, spoilt images, and other places.

    python benchmarks/lost.py DRIVE BUNDLE --elsewhere OTHER_DATASET --out results/lost
    python benchmarks/lost.py DRIVE BUNDLE_WITHOUT_A_STRETCH --leave-out=x,y,radius --out results/hole

BUNDLE_WITHOUT_A_STRETCH is of `rgsiam train ... --set 'split.leave_out=[[x,y,radius]]'`. Every image of the drive is
relocalized as it is, and spoilt in each way. The spoilt images, those of the other dataset and those in the circle
that was left out of the map are to be rejected. The ways of spoiling are not those that calibration used: other
strengths, at the camera's resolution, before JPEG.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata

from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.errors import RgsiamError
from rgsiam_ros.localization.relocalizer import PoseEstimate, Relocalizer
from rgsiam_ros.recordings import open_dataset
from rgsiam_ros.recordings.ground_truth import drive_in_map
from rgsiam_ros.recordings.rosbag import Drive, read_drive
from rgsiam_ros.replay.metrics import WRONG_M
from rgsiam_ros.replay.offline import decoded
from rgsiam_ros.replay.results import claim_folder
from rgsiam_training.config import SplitConfig

ASTRAY = -1e3
"""Trust of an image that gets no answer at all."""
FROZEN_RUN = 50


def jpeg(image: ImageBGR) -> ImageBGR:
    """As a camera driver would send it."""
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1], 1)  # type: ignore[return-value]


def covered(image: ImageBGR, random: np.random.Generator) -> ImageBGR:
    """A smear over all of the lens: what is left of the picture is colour."""
    small = cv2.resize(image, (3, 2), interpolation=cv2.INTER_AREA)
    smear = cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return _noisy(0.6 * smear + 20.0, 2.0, random)


def night(image: ImageBGR, random: np.random.Generator) -> ImageBGR:
    """Gamma and gain of a dark road, and a gained-up sensor's noise."""
    return _noisy(255.0 * 0.10 * (image / 255.0) ** 2.2, 4.0, random)


def blurred(image: ImageBGR, random: np.random.Generator) -> ImageBGR:
    """A disc of a sixth of the width."""
    size = image.shape[1] // 6
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)).astype(np.float32)
    return cv2.filter2D(image, -1, disc / disc.sum(), borderType=cv2.BORDER_REFLECT)  # type: ignore[return-value]


def rotated(image: ImageBGR, random: np.random.Generator) -> ImageBGR:
    """Rolled by 60 to 300 degrees about the optical axis, at the camera's scale."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), random.uniform(60.0, 300.0), 1.3)
    return cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REFLECT)  # type: ignore[return-value]


def noise(image: ImageBGR, random: np.random.Generator) -> ImageBGR:
    """A tenth of the picture under nine tenths of noise."""
    return _noisy(0.1 * image + 115.0, 60.0, random)


SPOILERS: dict[str, Callable[[ImageBGR, np.random.Generator], ImageBGR]] = {
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
        list[str] | None, typer.Option(help="x,y,radius that the bundle's map lacks.")
    ] = None,
    out: Annotated[Path, typer.Option()] = Path("results/lost"),
    precision: str = "float32",
    every: Annotated[int, typer.Option(min=1, help="Spoil one image in this many.")] = 4,
    seed: int = 0,
) -> None:
    """Print a table and draw the ROC curves."""
    console = Console(width=120)
    relocalizer = Relocalizer.from_bundle(
        bundle, EngineOptions("onnxruntime", precision), frozen_images=0
    )
    if not relocalizer.calibrated:
        raise typer.BadParameter(f"{bundle} is not calibrated: run `rgsiam calibrate` first")
    drive = drive_in_map(read_drive(drive_path), relocalizer.manifest)
    assert drive.camera is not None
    claim_folder(out)
    relocalizer.use_camera(drive.camera)
    pictures, position = _pictures(drive)
    answers = relocalizer.estimate_many(pictures)
    trust = np.array([_trust(answer) for answer in answers])
    off = np.array([_off(a, xyz, drive) for a, xyz in zip(answers, position, strict=True)])
    unmapped = _circles(leave_out or ()).inside(position)
    groups: dict[str, np.ndarray] = {}
    if unmapped.any():
        groups["unmapped stretch"] = trust[unmapped]
    wrong = ~unmapped & (off > WRONG_M)
    if wrong.any():
        groups[f"off by more than {WRONG_M:g} m"] = trust[wrong]
    right = trust[~unmapped & (off <= WRONG_M)]
    random = np.random.default_rng(seed)
    for name, spoil in SPOILERS.items():
        spoilt = [jpeg(spoil(picture, random)) for picture in pictures[::every]]
        groups[name] = np.array([_trust(a) for a in relocalizer.estimate_many(spoilt)])
    for path in elsewhere or ():
        groups[f"other place: {path.name}"] = _other_place(relocalizer, path, every)
    table = Table("to be rejected", "images", "AUROC", "accepted")
    report: dict[str, Any] = {}
    for name, values in groups.items():
        report[name] = {
            "images": len(values),
            "auroc": auroc(right, values),
            "accepted": float((values >= 0.0).mean()),
        }
        row = report[name]
        table.add_row(name, str(len(values)), f"{row['auroc']:.4f}", f"{row['accepted']:.1%}")
    frozen = _frozen_run(bundle, precision, drive, pictures)
    table.add_row("frozen camera", str(len(frozen)), "", f"{np.mean(frozen):.1%}")
    stated = relocalizer.manifest.calibrations[relocalizer.engines.precision].false_accept_rate
    mapped = ~unmapped
    accepted = mapped & (trust >= 0.0)
    report["drive"] = {
        "frames": int(mapped.sum()),
        "accepted": float((trust[mapped] >= 0.0).mean()),
        "accepted_of_right": float((right >= 0.0).mean()),
        "wrong_of_accepted": float((off[accepted] > WRONG_M).mean()),
        "frozen_accepted": float(np.mean(frozen)),
        "stated_false_accept_rate": stated,
    }
    if unmapped.any():
        let_in = unmapped & (trust >= 0.0)
        report["drive"]["unmapped_accepted_off_m"] = sorted(off[let_in].round(2).tolist())
    console.print(
        f"{drive_path.name}, {bundle.name}, {precision}; spoilt: every {every}th image, seed {seed}"
    )
    console.print(table)
    d = report["drive"]
    console.print(
        f"of the drive{' outside the circle' if unmapped.any() else ''}: {d['accepted']:.1%} of "
        f"{d['frames']} images accepted, {d['accepted_of_right']:.1%} of the right ones; "
        f"{d['wrong_of_accepted']:.2%} of the accepted are off by more than {WRONG_M:g} m"
    )
    if unmapped.any():
        console.print(f"accepted inside the circle are off by (m): {d['unmapped_accepted_off_m']}")
    (out / "lost.json").write_text(json.dumps(report, indent=2) + "\n")
    _draw(right, groups, out / "lost.png", f"{drive_path.name}, {bundle.name}")
    console.print(f"picture: {out / 'lost.png'}")


def _circles(texts: Sequence[str]) -> SplitConfig:
    """The circles that ``--leave-out`` names, each as x,y,radius in metres."""
    try:
        return SplitConfig(leave_out=[text.split(",") for text in texts])
    except ValidationError as error:
        raise typer.BadParameter(f"a circle is x,y,radius, not {' '.join(texts)}") from error


def auroc(right: np.ndarray, wrong: np.ndarray) -> float:
    """Share of pairs in which the right image is trusted more."""
    ranks = rankdata(np.concatenate([right, wrong]))[: len(right)]
    return float((ranks.sum() - len(right) * (len(right) + 1) / 2) / len(right) / len(wrong))


def _pictures(drive: Drive) -> tuple[list[ImageBGR], np.ndarray]:
    images = list(drive.read_images())
    T, known = drive.true_base_poses([image.stamp_ns for image in images])
    kept = [(decoded(image), i) for i, image in enumerate(images) if known[i]]
    usable = [(picture, i) for picture, i in kept if not isinstance(picture, RgsiamError)]
    assert drive.T_base_camera is not None
    positions = (T @ drive.T_base_camera)[[i for _, i in usable], :3, 3]
    return [picture for picture, _ in usable], positions


def _trust(answer: PoseEstimate | RgsiamError) -> float:
    if isinstance(answer, RgsiamError):
        return ASTRAY
    assert answer.trust is not None
    return answer.trust


def _off(answer: PoseEstimate | RgsiamError, true_xyz: np.ndarray, drive: Drive) -> float:
    if isinstance(answer, RgsiamError):
        return np.inf
    return float(np.linalg.norm(answer.T_map_camera[:3, 3] - true_xyz))


def _other_place(relocalizer: Relocalizer, path: Path, every: int) -> np.ndarray:
    """Images of another camera, cut to the aspect of the bundle's."""
    camera = relocalizer.manifest.camera
    pictures = []
    for image in list(open_dataset(path, "train").read_images())[::every]:
        picture = image.decode()
        height, width = picture.shape[:2]
        scale = max(camera.width / width, camera.height / height)
        larger = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        top, left = (larger.shape[0] - camera.height) // 2, (larger.shape[1] - camera.width) // 2
        cut = larger[top : top + camera.height, left : left + camera.width]
        pictures.append(np.ascontiguousarray(cut))
    return np.array([_trust(answer) for answer in relocalizer.estimate_many(pictures)])


def _frozen_run(bundle: Path, precision: str, drive: Drive, pictures: list[ImageBGR]) -> list[bool]:
    """Whether each of a run of one picture is accepted, with the default limit."""
    relocalizer = Relocalizer.from_bundle(bundle, EngineOptions("onnxruntime", precision))
    assert drive.camera is not None
    relocalizer.use_camera(drive.camera)
    run = [pictures[len(pictures) // 3]] * FROZEN_RUN
    answers = relocalizer.estimate_many(run)
    return [isinstance(answer, PoseEstimate) and not answer.lost for answer in answers]


def _noisy(values: np.ndarray, sigma: float, random: np.random.Generator) -> ImageBGR:
    return np.clip(np.round(values + random.normal(0.0, sigma, values.shape)), 0, 255).astype(
        np.uint8
    )


def _draw(right: np.ndarray, groups: dict[str, np.ndarray], path: Path, title: str) -> None:
    figure = Figure(figsize=(12.0, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    roc, values = figure.subplots(1, 2)
    for name, wrong in groups.items():
        thresholds = np.sort(np.concatenate([right, wrong]))[::-1]
        false = [(wrong >= t).mean() for t in thresholds]
        true = [(right >= t).mean() for t in thresholds]
        roc.plot(false, true, label=f"{name}: {auroc(right, wrong):.3f}")
    roc.set(xlabel="wrong or spoilt, accepted", ylabel="right, accepted", title="ROC (AUROC)")
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
    values.set(xlabel="trust (accepted from 0 on); whiskers: 1 and 99 %")
    values.grid(alpha=0.3, axis="x")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    typer.run(main)
