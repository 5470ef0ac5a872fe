"""What would decoding JPEGs at half size save, and how far would it move the poses?

    .venv/bin/python benchmarks/reduced_jpeg.py models/town test/data/town_drive

Frames of the drive scaled up to 1280x720. Full and reduced decoding (`cv2.IMREAD_REDUCED_COLOR_2`) take turns;
poses are of the float32 network, against those of the image before compression.
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
WAYS = {"full": cv2.IMREAD_COLOR, "reduced by 2": cv2.IMREAD_REDUCED_COLOR_2}
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
    true = [
        relocalizer.estimate(np.frombuffer(r, np.uint8).reshape(720, 1280, 3)).T_map_camera
        for r in raw
    ]
    taken, poses = {name: [] for name in WAYS}, {name: [] for name in WAYS}
    for repeat in range(REPEATS):
        for content in jpeg:
            for name, flag in WAYS.items():
                began = time.perf_counter()
                image = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
                taken[name].append(1e3 * (time.perf_counter() - began))
                if repeat == 0:
                    poses[name].append(relocalizer.estimate(image).T_map_camera)
    print("| decoding | ms | pose change to raw, median | largest |")
    print("|---|---|---|---|")
    pairs = {name: (poses[name], true) for name in WAYS}
    pairs["reduced against full"] = (poses["reduced by 2"], poses["full"])
    for name, (ours, reference) in pairs.items():
        metres, radians = pose_errors(np.stack(ours), np.stack(reference))
        mm, degrees = 1e3 * metres, np.degrees(radians)
        ms = f"{np.median(taken[name]):.2f}" if name in taken else ""
        print(
            f"| {name} | {ms} | {np.median(mm):.1f} mm, {np.median(degrees):.3f}\u00b0 | "
            f"{mm.max():.1f} mm, {degrees.max():.3f}\u00b0 |"
        )


if __name__ == "__main__":
    main()
