"""Maps from noisy mapping poses, with and without refinement.

    python benchmarks/noisy_poses.py ../shared/data/circuit_map --out results/noisy --time-offset 0.065
    python benchmarks/noisy_poses.py test/data/town_map --out results/noisy
    python benchmarks/noisy_poses.py ../shared/data/redkitchen --out results/noisy --white 0.05 --wander 0.08 --room

The validation stretches of training are left out, with their guards, and a map is built from the rest: with the
poses as given (clean), with white noise on them, and with noise that wanders (first-order, correlated over 30
frames); the noisy ones with `--refine-poses` off and auto. The row "clean, on" shows what refinement does to
the given poses themselves. The left-out images are localized, each alone. Their errors are from their true poses, after
the one rigid transform that fits the map's poses to the true ones. The offset is the length of that transform at the
middle of the map, and its angle. Noise is independent along and about each axis.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.poses import Array, pose_errors, rotation_angle
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.mapping.build import MapOptions, build_bundle
from rgsiam_ros.mapping.labels import read_labels
from rgsiam_ros.mapping.refinement import Refine
from rgsiam_ros.recordings.base import Dataset, poses_of
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.recordings.subset import Subset
from rgsiam_ros.recordings.time_offset import with_time_offset
from rgsiam_ros.uncertainty.geometric_trust import OUTDOORS, ROOM
from rgsiam_training.config import SplitConfig
from rgsiam_training.data.splits import split_contiguous

CORRELATED_FRAMES = 30


def main() -> None:
    """Print the table."""
    options = _options()
    dataset = with_time_offset(open_dataset(options.dataset, "train"), options.time_offset)
    frames = dataset.frames[: options.frames]
    mapped, left_out = split_contiguous(frames, SplitConfig(), options.seed)
    left_out = left_out[:: options.every]
    T_left_out = poses_of([frames[i] for i in left_out])
    T_given = poses_of([frames[i] for i in mapped])
    degrees = options.degrees
    random = np.random.default_rng(options.seed)
    white = _noise(len(mapped), options.white, degrees, 0, random)
    wander = _noise(len(mapped), options.wander, degrees, CORRELATED_FRAMES, random)
    rows: list[tuple[str, Array, Refine]] = [
        ("clean", 0.0 * white, "off"),
        ("clean", 0.0 * white, "auto"),
        ("clean", 0.0 * white, "on"),
        ("white noise", white, "off"),
        ("white noise", white, "auto"),
        ("wandering noise", wander, "off"),
        ("wandering noise", wander, "auto"),
    ]
    print(
        f"{len(mapped)} frames for the map, {len(left_out)} images to localize, seed {options.seed}"
    )
    print(
        "| poses | refinement | answered | right | median | p95 | offset | build, CPU |", flush=True
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for kind, noise, refine in rows:
        if options.only and f"{kind}, {refine}" not in options.only:
            continue
        noisy = Subset(dataset, mapped)
        noisy.frames = [
            replace(frame, T_map_camera=T)
            for frame, T in zip(noisy.frames, _perturbed(T_given, noise), strict=True)
        ]
        out = options.out / f"{options.dataset.name}_{kind}_{refine}".replace(" ", "_")
        began = time.process_time()
        bundle = _build(noisy, out, refine)
        took_s = time.process_time() - began
        cells = "no map | - | - | - | -"
        if bundle is not None:
            in_map = ~read_labels([noisy]).held_out_N
            sigmas = (options.white, np.radians(degrees))
            T_true_map = _alignment(
                bundle.points_in_map().T_points_camera_N44, T_given[in_map], *sigmas
            )
            answers = _localize(out, dataset, left_out)
            cells = _row(answers, T_left_out, T_true_map, T_given, options.room)
        print(f"| {kind} | {refine} | {cells} | {took_s:.0f} s |", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundles")
    parser.add_argument("--white", type=float, default=0.3, help="sigma of white noise, metres")
    parser.add_argument("--wander", type=float, default=0.5, help="sigma of slow noise, metres")
    parser.add_argument("--degrees", type=float, default=1.0, help="sigma of both on rotations")
    parser.add_argument("--frames", type=int, help="use only so many frames, the first ones")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument(
        "--only", action="append", help='a row, for example "white noise, auto"; may be repeated'
    )
    parser.add_argument("--time-offset", type=float, default=0.0, help="of all labels, seconds")
    parser.add_argument("--room", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _noise(
    count: int, metres: float, degrees: float, correlated: int, random: np.random.Generator
) -> Array:
    """Noise ``(N, 6)`` of positions, metres, and rotation vectors, radians."""
    noise = random.normal(size=(count, 6))
    if correlated:
        keep = np.exp(-1.0 / correlated)
        for i in range(1, count):
            noise[i] = keep * noise[i - 1] + np.sqrt(1.0 - keep**2) * noise[i]
    return noise * np.array([metres] * 3 + [np.radians(degrees)] * 3)


def _perturbed(T_N44: Array, noise_N6: Array) -> Array:
    moved = T_N44.copy()
    moved[:, :3, 3] += noise_N6[:, :3]
    moved[:, :3, :3] = T_N44[:, :3, :3] @ Rotation.from_rotvec(noise_N6[:, 3:]).as_matrix()
    return moved


def _build(dataset: Dataset, out: Path, refine: Refine) -> Bundle | None:
    """The bundle; None if no map could be built."""
    try:
        return build_bundle([dataset], out, MapOptions(refine_poses=refine))
    except DatasetError as error:
        print(f"no map: {error}", flush=True)
        return None


def _alignment(T_map_N44: Array, T_true_N44: Array, sigma_m: float, sigma_rad: float) -> Array:
    """The rigid transform that fits the map's poses to the true ones, weighted by the noise."""
    a, b = T_map_N44[:, :3, 3], T_true_N44[:, :3, 3]
    middle_a, middle_b = a.mean(axis=0), b.mean(axis=0)
    positions = (b - middle_b).T @ (a - middle_a) / sigma_m**2
    turns = np.einsum("nij,nkj->ik", T_true_N44[:, :3, :3], T_map_N44[:, :3, :3])
    U, _, Vt = np.linalg.svd(positions + turns / (2.0 * sigma_rad**2))
    T = np.eye(4)
    T[:3, :3] = U @ np.diag([1.0, 1.0, np.linalg.det(U @ Vt)]) @ Vt
    T[:3, 3] = middle_b - T[:3, :3] @ middle_a
    return T


def _localize(path: Path, dataset: Dataset, chosen: NDArray[np.int64]) -> list[Array | None]:
    """The pose of each chosen image; None without an answer."""
    engine = EngineOptions(precision="float32", fallback="none")
    relocalizer = Relocalizer.from_bundle(path, engine, frozen_images=0)
    relocalizer.use_camera(dataset.camera)
    answers: list[Array | None] = []
    for image in Subset(dataset, chosen).read_images():
        relocalizer.forget()
        estimate = relocalizer.estimate(image.decode())
        answers.append(None if estimate.lost else estimate.T_map_camera)
    return answers


def _row(
    answers: list[Array | None], T_true_N44: Array, T_true_map: Array, T_given: Array, room: bool
) -> str:
    """The cells: shares, errors of what was answered, and the offset of the map."""
    pairs = [
        (T_true_map @ T, true) for T, true in zip(answers, T_true_N44, strict=True) if T is not None
    ]
    middle = T_given[:, :3, 3].mean(axis=0)
    offset_m = float(np.linalg.norm(T_true_map[:3, :3] @ middle + T_true_map[:3, 3] - middle))
    offset_deg = float(np.degrees(rotation_angle(T_true_map[:3, :3])))
    errors, right = ["-", "-"], 0.0
    if pairs:
        metres, radians = pose_errors(*(np.stack(poses) for poses in zip(*pairs, strict=True)))
        degrees = np.degrees(radians)
        right = (ROOM if room else OUTDOORS).right(metres, degrees).sum() / len(answers)
        errors = [
            f"{np.percentile(metres, q):.3f} m {np.percentile(degrees, q):.2f}°" for q in (50, 95)
        ]
    cells = [f"{len(pairs) / len(answers):.1%}", f"{right:.1%}", *errors]
    return " | ".join([*cells, f"{offset_m:.3f} m {offset_deg:.2f}°"])


if __name__ == "__main__":
    main()
