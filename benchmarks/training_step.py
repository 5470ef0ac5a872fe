"""Forward, loss and backward of a step, per backbone: float32 or bfloat16, channels last or not.

    .venv/bin/python benchmarks/training_step.py --threads 2

All variants of a backbone take turns in one run, so that their ratios mean something on a noisy
machine; milliseconds are medians. Images are noise of the network's input size; six in ten pairs
overlap, as in training. Augmentation and the optimiser's own step are left out: they are the same for
all.
"""

from __future__ import annotations

import argparse
import time
from itertools import product

import numpy as np
import torch

from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_training.config import TrainingConfig
from rgsiam_training.fitting.lightning_module import MapScale, RelocalizationModule
from rgsiam_training.model.poses import Poses

OVERLAPPING = 0.6
FORMATS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}


def make_step(backbone, dtype, layout, arguments):
    """A function that does one step and returns the seconds it took."""
    config = TrainingConfig(
        datasets=("none",),
        input_width=arguments.width,
        input_height=arguments.height,
        network={"backbone": backbone, "pretrained": False},
    )
    w, h = arguments.width, arguments.height
    camera = Camera(width=w, height=h, fx=w / 2, fy=w / 2, cx=w / 2, cy=h / 2)
    anchors = np.random.default_rng(0).normal(size=(64, 3))
    torch.manual_seed(0)
    module = RelocalizationModule(
        config,
        Preprocessing(input_width=w, input_height=h),
        MapScale(np.zeros(3), 100.0, anchors, camera),
        steps=1,
    )
    module.network.to(memory_format=FORMATS[layout])
    module.train()
    images = torch.rand(2 * arguments.pairs, 3, h, w).contiguous(memory_format=FORMATS[layout])
    identity = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(len(images), 1)
    translation = torch.zeros(len(images), 3)
    translation[arguments.pairs + round(OVERLAPPING * arguments.pairs) :] = 100.0
    true = Poses(translation, identity)

    def step():
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
            twins = module.network(images)
        loss, _ = module.objective(module.network, twins, true)
        loss.backward()
        module.zero_grad()
        return time.perf_counter() - start

    return step


def main():
    """Print a table in markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", nargs="+", default=["tf_efficientnet_lite0", "resnet18"])
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} threads, {arguments.pairs} pairs of")
    print(f"{arguments.width}x{arguments.height}; milliseconds, medians of {arguments.repeats}\n")
    print("| backbone | numbers | layout | ms | against float32, channels last |")
    print("|---|---|---|---|---|")
    variants = list(product(("float32", "bfloat16"), FORMATS))
    for backbone in arguments.backbones:
        steps = {variant: make_step(backbone, *variant, arguments) for variant in variants}
        taken = {variant: [] for variant in variants}
        for repeat in range(arguments.repeats + 2):
            for variant, step in steps.items():
                seconds = step()
                if repeat >= 2:  # the first two warm up
                    taken[variant].append(seconds)
        medians = {variant: 1e3 * float(np.median(t)) for variant, t in taken.items()}
        base = medians["float32", "channels last"]
        for variant, ms in medians.items():
            print(f"| {backbone} | {' | '.join(variant)} | {ms:.0f} | {ms / base:.2f} |")


if __name__ == "__main__":
    main()
