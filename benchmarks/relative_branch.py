"""What the relative branch costs on the vehicle: milliseconds per image and per neighbour, bytes.

    .venv/bin/python benchmarks/relative_branch.py models/town test/data/town_drive

Both branches answer each image in turn, in one run; milliseconds are medians.
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
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in branches}
    for i, image in enumerate(islice(drive.read_images(), arguments.images + WARM_UP)):
        picture = image.decode()
        for name, relocalizer in branches.items():
            estimate = relocalizer.estimate(picture)
            if i >= WARM_UP:
                taken[name].append(estimate.timings_ms)

    def median(branch, *stages):
        return float(np.median([sum(t[s] for s in stages) for t in taken[branch]]))

    bundle = branches["refined"]
    refinement = bundle.manifest.refinement
    absolute = median("absolute", "preprocess", "inference", "pose")
    extra = median("refined", "refinement")
    aligned = LOOKS * refinement.neighbours
    size = (arguments.bundle / "map_features.npz").stat().st_size
    print(f"{len(taken['refined'])} images, medians")
    print(f"absolute branch: {absolute:.2f} ms")
    print(
        f"refinement: {extra:.2f} ms more ({extra / absolute:.2f} times the absolute branch): "
        f"{LOOKS} looks at {refinement.neighbours} of {refinement.map_images} map images, "
        f"{extra / aligned:.2f} ms per neighbour and look"
    )
    print(f"map_features.npz: {size / refinement.map_images:.0f} bytes per map image")


if __name__ == "__main__":
    main()
