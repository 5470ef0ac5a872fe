"""Localizers in other light and on spoilt images: share answered, right and wrong, and the errors.

    python benchmarks/robustness.py ../shared/data/circuit_map --bundle results/circuit_part --contiguous --structure circuit
    python benchmarks/robustness.py ../shared/data/circuit_map --bundle models/circuit --on ../shared/data/circuit_drive
    python benchmarks/robustness.py test/data/town_map --bundle models/town --held-out --every 2

With --contiguous the validation stretches of training are left out, with their guards, and the map is built from the rest:
this is nearest to another drive. --features names tuned features for this map; if there are none, they are tuned on the rest
first. With --held-out the images are those that `rgsiam map build` left out. With --on they are of
another recording, a test set. --structure adds the row `structure` of `rgsiam compare`, on the same images and in the same run. Each
image is localized alone, without a pose of the image before. *Right* is within 1 m and 5 degrees of the true pose
(in a room 0.25 m and 5 degrees), *wrong* is answered and off by more than 5 m or 20 degrees (in a room 0.5 m).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.cli.options import read_offset
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.geometry.poses import Array, pose_errors
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.mapping.build import MapOptions, build_bundle
from rgsiam_ros.mapping.labels import read_labels
from rgsiam_ros.mapping.progress import Silent
from rgsiam_ros.recordings.base import Dataset
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.recordings.subset import Subset
from rgsiam_ros.recordings.time_offset import moved_labels
from rgsiam_ros.uncertainty.geometric_trust import OUTDOORS, ROOM
from rgsiam_training.config import PairConfig, SplitConfig, TrainingConfig
from rgsiam_training.data.splits import split_contiguous
from rgsiam_training.evaluation.compare.structure import build_structure, structure_settings
from rgsiam_training.features.tune import TuneOptions, tune_features

Localize = Callable[[ImageBGR], Array | None]
"""Gives the pose of an image, None without an answer."""
Spoil = Callable[[ImageBGR, np.random.Generator], ImageBGR]


def _gamma(power: float) -> Spoil:
    table = (255.0 * (np.arange(256) / 255.0) ** power).round().astype(np.uint8)
    return lambda image, random: table[image]


def _night(image: ImageBGR, random: np.random.Generator) -> ImageBGR:
    dark = 255.0 * (image / 255.0) ** 2.2 * 0.25
    return np.clip(dark + random.normal(0.0, 4.0, image.shape), 0, 255).astype(np.uint8)


def _haze(image: ImageBGR, random: np.random.Generator) -> ImageBGR:
    return (0.45 * image + 0.55 * 210.0).astype(np.uint8)


def _blur(image: ImageBGR, random: np.random.Generator) -> ImageBGR:
    kernel = np.zeros((9, 9), np.float32)
    kernel[4] = 1.0 / 9.0  # the camera turns while it exposes
    return cv2.filter2D(image, -1, kernel)  # type: ignore[return-value]


def _half(image: ImageBGR, random: np.random.Generator) -> ImageBGR:
    small = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (image.shape[1], image.shape[0]))  # type: ignore[return-value]


def _jpeg(image: ImageBGR, random: np.random.Generator) -> ImageBGR:
    content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 15])[1]
    return cv2.imdecode(content, cv2.IMREAD_COLOR)  # type: ignore[return-value]


def _covered(image: ImageBGR, random: np.random.Generator) -> ImageBGR:
    covered = image.copy()
    height, width = image.shape[:2]
    y, x = (int(random.integers(0, side // 2 + 1)) for side in (height, width))
    covered[y : y + height // 2, x : x + width // 2] = 90
    return covered


SPOILS: dict[str, Spoil] = {
    "as recorded": lambda image, random: image,
    "night with noise": _night,
    "gamma 0.4": _gamma(0.4),
    "gamma 2.2": _gamma(2.2),
    "haze": _haze,
    "blur, 9 pixels": _blur,
    "half resolution": _half,
    "JPEG quality 15": _jpeg,
    "a quarter covered": _covered,
}


def main() -> None:
    """Print the table."""
    options = _options()
    dataset = open_dataset(options.dataset, "train")
    images, T_true = _images(dataset, options)
    camera = dataset.camera if options.on is None else open_dataset(options.on, "test").camera
    localizers: dict[str, Localize] = {}
    for precision in options.precision:
        engine = EngineOptions(precision=precision, fallback="none")
        relocalizer = Relocalizer.from_bundle(
            options.bundle, engine, branch=options.branch, frozen_images=0
        )
        relocalizer.use_camera(camera)
        print(f"{precision}: {relocalizer.describe_engine()}")
        localizers[f"{relocalizer.branch}, {precision}"] = _alone(relocalizer)
    if options.structure is not None:
        config = TrainingConfig(
            datasets=(str(options.dataset),),
            seed=options.seed,
            pairs=PairConfig(reach_m=1.0) if options.room else PairConfig(),
        )
        peer = build_structure(config, structure_settings(options.structure), camera)
        localizers["structure"] = peer.estimate
    print(f"{len(images)} images")
    print("| images | | answered | right | wrong | median | p95 | one image |")
    print("|---|---|---|---|---|---|---|---|")
    names = list(SPOILS)[: 1 if options.clean else None]
    for name, spoil in ((name, SPOILS[name]) for name in names):
        random = np.random.default_rng(options.seed)
        spoilt = [spoil(image, random) for image in images]
        for who, localizer in localizers.items():
            print(
                f"| {name} | {who} | {_row(localizer, spoilt, T_true, options.room)} |", flush=True
            )


def _alone(relocalizer: Relocalizer) -> Localize:
    """Localizes each image without a pose of the image before."""

    def localize(image: ImageBGR) -> Array | None:
        relocalizer.forget()
        estimate = relocalizer.estimate(image)
        return None if estimate.lost else estimate.T_map_camera

    return localize


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--branch", default="auto")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--held-out", action="store_true", help="only what `map build` held out of this dataset"
    )
    which.add_argument(
        "--contiguous",
        action="store_true",
        help="the validation stretches; without --bundle's folder, build it from the rest",
    )
    which.add_argument("--on", type=Path, help="the test images of this dataset")
    parser.add_argument("--structure", metavar="SCENE", help="add the row structure")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument(
        "--time-offset",
        type=read_offset,
        default=0.0,
        help="the labels are moved by it; auto: with --contiguous estimated for the map, else the bundle's",
    )
    parser.add_argument("--refine-camera", action="store_true", help="of a map that is built")
    parser.add_argument("--as-labelled", action="store_true", help="do not move the true poses")
    parser.add_argument("--room", action="store_true")
    parser.add_argument("--clean", action="store_true", help="only the images as recorded")
    parser.add_argument("--precision", nargs="+", default=["auto"], help="a row for each")
    parser.add_argument("--features", type=Path, help="of `rgsiam tune-features`, see above")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _images(dataset: Dataset, options: argparse.Namespace) -> tuple[list[ImageBGR], Array]:
    """The images to localize, and their true poses ``T_map_camera``. Builds the map if it has to."""
    chosen = np.arange(len(dataset.frames))
    if options.on is not None:
        dataset = open_dataset(options.on, "test")
        chosen = np.arange(len(dataset.frames))
    elif options.held_out:
        chosen = np.flatnonzero(read_labels([dataset]).held_out_N)
    elif options.contiguous:
        mapped, chosen = split_contiguous(dataset.frames, SplitConfig(), options.seed)
        if not options.bundle.exists():
            _build(Subset(dataset, mapped), options)
    labels = Bundle.load(options.bundle).manifest.labels
    offset_s = 0.0 if options.as_labelled else labels.offset_or(options.time_offset)
    true = list(dataset.frames)
    if offset_s:
        sessions = groupby(dataset.frames, key=lambda frame: frame.session)
        true = [frame for _, own in sessions for frame in moved_labels(list(own), offset_s)]
    wanted = {i for i in chosen[:: options.every].tolist() if true[i] is not None}
    images = [image.decode() for i, image in enumerate(dataset.read_images()) if i in wanted]
    print(f"true poses moved by {offset_s:.3f} s, focal scale {labels.focal_scale:.4f}")
    return images, np.stack([true[i].T_map_camera for i in sorted(wanted)])


def _build(mapped: Dataset, options: argparse.Namespace) -> None:
    """Build the map, and tune the features first if they are wanted and not there. Print the CPU time of both."""
    features, offset = options.features, options.time_offset
    began = time.process_time()
    if features is not None and not features.exists():
        tune_features([mapped], features, TuneOptions(time_offset=offset), Silent())
        print(f"tuned in {time.process_time() - began:.0f} s of CPU time", flush=True)
        began = time.process_time()
    settings = MapOptions(
        time_offset=offset, refine_camera=options.refine_camera, features=features
    )
    build_bundle([mapped], options.bundle, settings)
    print(f"map built in {time.process_time() - began:.0f} s of CPU time", flush=True)


def _row(localize: Localize, images: list[ImageBGR], T_true: Array, room: bool) -> str:
    """The cells of one row: shares, errors of what was answered, and the time of one image."""
    limits = ROOM if room else OUTDOORS
    metres, degrees, took_ms = [], [], []
    for image, T in zip(images, T_true, strict=True):
        began = time.perf_counter()
        found = localize(image)
        took_ms.append((time.perf_counter() - began) * 1e3)
        if found is not None:
            position, angle = pose_errors(found, T)
            metres.append(float(position))
            degrees.append(float(np.degrees(angle)))
    m, deg = np.array(metres), np.array(degrees)
    counts = len(m), limits.right(m, deg).sum(), limits.wrong(m, deg).sum()
    shares = [f"{number / len(images):.1%}" for number in counts]
    errors = ["-", "-"]
    if len(m):
        errors = [f"{np.percentile(m, q):.3f} m {np.percentile(deg, q):.2f}°" for q in (50, 95)]
    return " | ".join([*shares, *errors, f"{np.median(took_ms):.0f} ms"])


if __name__ == "__main__":
    main()
