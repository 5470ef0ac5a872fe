"""Measure what the relative branch costs on the vehicle: time per image and per neighbour, bytes of the map.

    .venv/bin/python benchmarks/relative_branch.py models/town test/data/town_drive

Both branches take turns: each estimates the pose of each image. Milliseconds are medians.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import numpy as np

from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.localization.refinement import LOOKS
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.recordings.rosbag import read_drive

WARM_UP = 10


def main():
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--threads", type=int, default=0, help="0: the engine's choice")
    arguments = parser.parse_args()
    branches = {
        name: Relocalizer.from_bundle(
            arguments.bundle, EngineOptions(threads=arguments.threads), branch=name
        )
        for name in ("absolute", "refined")
    }
    drive = read_drive(arguments.bag)
    timings_ms: dict[str, list[dict[str, float]]] = {name: [] for name in branches}
    for i, image in enumerate(islice(drive.read_images(), arguments.images + WARM_UP)):
        picture = image.decode()
        for name, relocalizer in branches.items():
            estimate = relocalizer.estimate(picture)
            if i >= WARM_UP:
                timings_ms[name].append(estimate.timings_ms)

    def median_ms(branch, *stages):
        return float(np.median([sum(t[s] for s in stages) for t in timings_ms[branch]]))

    refinement = branches["refined"].manifest.absolute_part.refinement
    absolute_ms = median_ms("absolute", "preprocess", "inference", "pose")
    refinement_ms = median_ms("refined", "refinement")
    alignments = LOOKS * refinement.neighbours
    size = (arguments.bundle / "map_features.npz").stat().st_size
    print(f"{len(timings_ms['refined'])} images, medians")
    print(f"absolute branch: {absolute_ms:.2f} ms")
    print(
        f"refinement: {refinement_ms:.2f} ms more ({refinement_ms / absolute_ms:.2f} times the absolute "
        f"branch): {LOOKS} alignments to {refinement.neighbours} of {refinement.map_images} map images, "
        f"{refinement_ms / alignments:.2f} ms for each neighbour and alignment"
    )
    print(f"map_features.npz: {size / refinement.map_images:.0f} bytes per map image")


if __name__ == "__main__":
    main()
