"""From the bytes of a JPEG to a pose: the geometric branch beside the row `structure` of `rgsiam compare`.

    python benchmarks/image_to_pose.py --foreign ../shared/data/redkitchen --out results/image_to_pose

Stretches of consecutive frames of the town's drive are rendered at each size, with the poses and the light of
test/data/town_drive. The map of `structure` is made of test/data/town_map. The two methods take turns, each for
a whole round of the images, which come at 10 Hz. Foreign images, which no map shows, are for the worst case.
Prints a table: time, CPU time, cores in use at 10 Hz, share answered, and the errors of the answered images.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import cv2
import numpy as np

from rgsiam_ros.camera.decoding import decode_compressed
from rgsiam_ros.camera.model import Camera
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.geometry.poses import pose_errors
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.recordings.rosbag import read_drive
from rgsiam_training.config import TrainingConfig
from rgsiam_training.evaluation.compare.structure import build_structure, structure_settings
from rgsiam_training.town.layout import build_town, mesh
from rgsiam_training.town.renderer import Renderer
from rgsiam_training.town.session import CAMERA, demo_sessions

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "test" / "data"
TOWN_SEED = 7
"""The seed that test/data was made with."""
STRETCH = 15
"""Number of consecutive frames in a stretch."""
PERIOD_S = 0.1
JPEG_QUALITY = 90


def camera_of_width(width, centre):
    """The town's camera with images of another width. centre: coordinates of the first pixel's centre, 0 or 0.5."""
    k = width / CAMERA.width
    cx, cy = (k * (c + 0.5 - centre) - (0.5 - centre) for c in (CAMERA.cx, CAMERA.cy))
    height = round(k * CAMERA.height)
    return Camera(width=width, height=height, fx=k * CAMERA.fx, fy=k * CAMERA.fy, cx=cx, cy=cy)


def rendered(width, T_N44, folder):
    """JPEGs of the town in the light of the drive, kept in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    session = demo_sessions(TOWN_SEED)[1]
    renderer, contents = None, []
    for T in T_N44:
        file = folder / f"{width}_{len(contents):04d}.jpg"
        if not file.exists():
            if renderer is None:
                town = build_town(TOWN_SEED, session.parked_cars_seed)
                renderer = Renderer(mesh(town), camera_of_width(width, 0.5), session.light)
            quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            file.write_bytes(cv2.imencode(".jpg", renderer.draw(T), quality)[1].tobytes())
        contents.append(file.read_bytes())
    if renderer is not None:
        renderer.close()
    return contents


def measure(locate, contents):
    """Seconds and CPU seconds of each image, and its pose or None. Images come at 10 Hz."""
    rows, began = [], time.monotonic()
    for i, content in enumerate(contents):
        time.sleep(max(0.0, began + i * PERIOD_S - time.monotonic()))
        start, cpu = time.perf_counter(), time.process_time()
        T = locate(content)
        rows.append((time.perf_counter() - start, time.process_time() - cpu, T))
    return rows


def line(name, rows, T_true):
    """A row of the table. T_true: None for foreign images."""
    ms, cpu_ms = (1e3 * np.array([row[k] for row in rows]) for k in (0, 1))
    answered = np.array([row[2] is not None for row in rows])
    error = "-"
    if T_true is not None and answered.any():
        T = np.stack([row[2] for row in rows if row[2] is not None])
        metres, radians = pose_errors(
            T, np.tile(T_true, (len(rows) // len(T_true), 1, 1))[answered]
        )
        degrees = np.degrees(radians)
        error = ", ".join(
            f"{np.percentile(metres, q):.3f} m {np.percentile(degrees, q):.2f}°" for q in (50, 95)
        )
    return (
        f"| {name} | {np.median(ms):.1f} | {np.percentile(ms, 95):.1f} | {np.median(cpu_ms):.1f} | "
        f"{cpu_ms.mean() / (1e3 * PERIOD_S):.2f} | {answered.mean():.1%} | {error} |"
    )


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=ROOT / "models" / "town")
    parser.add_argument("--widths", nargs="+", type=int, default=[640, 1280])
    parser.add_argument("--stretches", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--foreign", type=Path, help="a dataset of another place")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/image_to_pose"))
    options = parser.parse_args()
    cv2.setNumThreads(options.threads)
    drive = read_drive(DATA / "town_drive")
    stamps = np.array([image.stamp_ns for image in drive.read_images()])
    firsts = np.linspace(0, len(stamps) - STRETCH, options.stretches).round().astype(int)
    chosen = (firsts[:, None] + np.arange(STRETCH)).ravel()
    T_true = drive.true_base_poses(stamps[chosen])[0] @ drive.T_base_camera
    settings = TrainingConfig(datasets=(str(DATA / "town_map"),), seed=options.seed)
    structure = build_structure(settings, structure_settings("town"), CAMERA)
    relocalizer = Relocalizer.from_bundle(
        options.bundle, EngineOptions(threads=options.threads), frozen_images=0
    )

    def ours(content):
        estimate = relocalizer.estimate(decode_compressed(content, enough=relocalizer.enough))
        return None if estimate.lost else estimate.T_map_camera

    def theirs(content):
        return structure.estimate(decode_compressed(content))

    methods = {"ours": ours, "structure": theirs}
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{relocalizer.describe_engine()}, {options.threads} threads, load before {load}")
    print("| images, method | p50 ms | p95 ms | CPU ms | cores at 10 Hz | answered | median, p95 |")
    print("|---|---|---|---|---|---|---|")
    for width in options.widths:
        camera = camera_of_width(width, 0.0)  # as in a resized image
        relocalizer.use_camera(camera)
        cases = {"town": (rendered(width, T_true, options.out), T_true)}
        if options.foreign is not None:
            size, images = (camera.width, camera.height), []
            for _, image in zip(
                range(STRETCH), open_dataset(options.foreign).read_images(), strict=False
            ):
                resized = cv2.resize(image.decode(), size, interpolation=cv2.INTER_CUBIC)
                images.append(cv2.imencode(".jpg", resized)[1].tobytes())
            cases["foreign"] = (images, None)
        for case, (contents, truth) in cases.items():
            rows = {name: [] for name in methods}
            for _ in range(options.rounds):
                for name, locate in methods.items():
                    locate(contents[-1])  # warm up
                    relocalizer.forget()
                    rows[name] += measure(locate, contents)
            for name, measured in rows.items():
                print(line(f"{width}x{camera.height} {case}, {name}", measured, truth), flush=True)


if __name__ == "__main__":
    main()
