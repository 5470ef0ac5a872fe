"""Measure the time that decoding JPEGs at half size saves, and by how much it changes the poses.

    .venv/bin/python benchmarks/reduced_jpeg.py models/town test/data/town_drive

The frames of the drive are scaled up to 1280x720. Decoding at full size and at half size
(`cv2.IMREAD_REDUCED_COLOR_2`) take turns. The poses of the float32 network are compared with those of the
uncompressed images.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
from latency_images import encoded_images

from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.geometry.poses import pose_errors
from rgsiam_ros.localization.relocalizer import Relocalizer

SIZE = "1280x720"
FLAGS = {"full": cv2.IMREAD_COLOR, "reduced by 2": cv2.IMREAD_REDUCED_COLOR_2}
REPEATS = 10


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("drive", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    relocalizer = Relocalizer.from_bundle(options.bundle, EngineOptions("onnxruntime", "float32"))
    raw = encoded_images(options.drive, SIZE, "raw", options.seed)
    jpeg = encoded_images(options.drive, SIZE, "compressed", options.seed)
    uncompressed = [
        relocalizer.estimate(np.frombuffer(r, np.uint8).reshape(720, 1280, 3)).T_map_camera
        for r in raw
    ]
    durations_ms, poses = {name: [] for name in FLAGS}, {name: [] for name in FLAGS}
    for repeat in range(REPEATS):
        for content in jpeg:
            for name, flag in FLAGS.items():
                began = time.perf_counter()
                image = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
                durations_ms[name].append(1e3 * (time.perf_counter() - began))
                if repeat == 0:
                    poses[name].append(relocalizer.estimate(image).T_map_camera)
    print("| decoding | ms | pose difference from uncompressed, median | largest |")
    print("|---|---|---|---|")
    pairs = {name: (poses[name], uncompressed) for name in FLAGS}
    pairs["reduced, compared with full"] = (poses["reduced by 2"], poses["full"])
    for name, (compared, reference) in pairs.items():
        metres, radians = pose_errors(np.stack(compared), np.stack(reference))
        mm, degrees = 1e3 * metres, np.degrees(radians)
        ms = f"{np.median(durations_ms[name]):.2f}" if name in durations_ms else ""
        print(
            f"| {name} | {ms} | {np.median(mm):.1f} mm, {np.median(degrees):.3f}\u00b0 | "
            f"{mm.max():.1f} mm, {degrees.max():.3f}\u00b0 |"
        )


if __name__ == "__main__":
    main()
