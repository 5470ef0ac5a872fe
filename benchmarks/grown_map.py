"""A map before and after `rgsiam map add`: share answered and right, errors, bytes.

    python benchmarks/grown_map.py town --bundle models/town --out results/grown
    python benchmarks/grown_map.py circuit --bundle models/circuit --out results/grown

town: a third session in evening light is rendered to --out; test/data/town_drive (afternoon) is added to the map (morning), and
the third session is the test. circuit: lap 1 of the drive four days later is added, and its lap 2 is the test. Each image is
localized alone by the geometric branch, int8 where it is offered; its labels are moved by the bundle's time offset. *Right* and
*wrong* as in benchmarks/robustness.py. With --without-poses the drive is added as if it had no true poses.
"""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.geometry.poses import Array, pose_errors
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.mapping.grow import add_session
from rgsiam_ros.mapping.map_sessions import size_of
from rgsiam_ros.recordings.base import Dataset, poses_of
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.recordings.subset import Subset
from rgsiam_ros.recordings.time_offset import with_time_offset
from rgsiam_training.town.renderer import Light
from rgsiam_training.town.route import Ride
from rgsiam_training.town.session import Session, write_session

SEED = 7
EVENING = Light(228.0, 9.0, (1.15, 0.8, 0.5), (0.3, 0.31, 0.4), 0.004, 15.0)
THIRD = Session("town_evening", (Ride(-0.25, 0.2, SEED + 6),), EVENING, SEED + 7, 1_790_030_000)


class WithoutPoses(Subset):
    """A dataset without true poses."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset, range(len(dataset.frames)))
        nowhere = np.full((4, 4), np.nan)
        self.frames = [replace(frame, T_map_camera=nowhere) for frame in self.frames]


def town(out: Path) -> tuple[Dataset, Dataset]:
    """The drive that is added, and the test."""
    third = out / THIRD.name
    if not third.exists():
        write_session(THIRD, out, SEED)
    return open_dataset("test/data/town_drive"), open_dataset(third)


def circuit() -> tuple[Dataset, Dataset]:
    """As `town`."""
    drive = open_dataset("../shared/data/circuit_drive")
    step_m = np.linalg.norm(np.diff(poses_of(drive.frames)[:, :3, 3], axis=0), axis=1)
    second = int(np.searchsorted(np.cumsum(step_m), step_m.sum() / 2.0)) + 1
    laps = range(second), range(second, len(drive.frames))
    return Subset(drive, laps[0]), Subset(drive, laps[1])


def measure(name: str, bundle: Bundle, test: Dataset) -> None:
    """Print a row."""
    test = with_time_offset(test, bundle.manifest.labels.time_offset_s)
    relocalizer = Relocalizer.from_bundle(bundle, EngineOptions(threads=1), branch="refined")
    relocalizer.use_camera(test.camera)
    found: list[Array] = []
    answered, inliers, nees = [], [], []
    began = time.process_time()
    for frame, image in zip(test.frames, test.read_images(), strict=True):
        relocalizer.forget()
        estimate = relocalizer.estimate(image.decode(levels=relocalizer.levels))
        found.append(estimate.T_map_camera)
        answered.append(not estimate.lost)
        quality = estimate.quality.geometric_quality
        inliers.append(0 if quality is None else quality.inliers)
        apart = estimate.T_map_camera[:3, 3] - frame.T_map_camera[:3, 3]
        nees.append(apart @ np.linalg.solve(estimate.covariance_66[:3, :3], apart) / 3.0)
    cpu_ms = 1e3 * (time.process_time() - began) / len(found)
    relocalizer.close()
    metres, radians = pose_errors(np.stack(found), poses_of(test.frames))
    degrees, given = np.degrees(radians), np.array(answered)
    limits = bundle.manifest.limits
    size = bundle.manifest.files["map_points.npz"].size
    right, wrong = (
        (judge(metres, degrees) & given).mean() for judge in (limits.right, limits.wrong)
    )
    p50, p95 = ([np.percentile(e[given], q) for e in (metres, degrees)] for q in (50, 95))
    print(
        f"| {name} | {len(found)} | {given.mean():.1%} | {right:.1%} | {wrong:.1%} | {p50[0]:.3f} m {p50[1]:.2f}° | "
        f"{p95[0]:.2f} m {p95[1]:.2f}° | {np.median(inliers):.0f} | {nees_text(nees, given)} | {size / 1e6:.2f} MB of "
        f"{size_of(bundle) / 1e6:.2f} MB | {cpu_ms:.0f} ms |",
        flush=True,
    )


def nees_text(nees: list[float], given: np.ndarray) -> str:
    """Mean and median NEES per degree of freedom of the positions."""
    values = np.array(nees)[given]
    return f"{values.mean():.2f}, {np.median(values):.2f}"


def main() -> None:
    """Read the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("place", choices=("town", "circuit"))
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--without-poses", action="store_true")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    before = Bundle.load(arguments.bundle)
    added, test = town(arguments.out) if arguments.place == "town" else circuit()
    name = f"{arguments.place}_grown"
    if arguments.without_poses:
        added, name = WithoutPoses(added), f"{name}_without_poses"
    print(
        "| map | images | answered | right | wrong | median | p95 | inliers | NEES | map | one image |"
    )
    measure("before", before, test)
    began = time.process_time()
    grown = add_session(before, added, arguments.out / name)
    print(f"added: {time.process_time() - began:.0f} s of CPU time")
    print("\n".join(grown.lines))
    measure("after", grown.bundle, test)


if __name__ == "__main__":
    main()
