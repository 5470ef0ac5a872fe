"""Measure the time of a training step of each backbone, in float32 and bfloat16, channels last and
contiguous.

    .venv/bin/python benchmarks/training_step.py --threads 2

A step is the forward pass, the losses and the backward pass, without augmentation and the optimiser, which
are the same for all variants. The variants of a backbone take turns, so that other programs affect them
equally. Milliseconds are medians. The images are noise of the network's input size; 60 % of the pairs
overlap, as in training.
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

OVERLAPPING_SHARE = 0.6
FORMATS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}


def make_step(backbone, dtype, layout, arguments):
    """A function that does one step and returns its duration in seconds."""
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
    translation[arguments.pairs + round(OVERLAPPING_SHARE * arguments.pairs) :] = 100.0
    true_poses = Poses(translation, identity)

    def step():
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
            twins = module.network(images)
        loss, _ = module.objective(module.network, twins, true_poses)
        loss.backward()
        module.zero_grad()
        return time.perf_counter() - start

    return step


def main():
    """Print a Markdown table."""
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
    print("| backbone | precision | layout | ms | relative to float32, channels last |")
    print("|---|---|---|---|---|")
    variants = list(product(("float32", "bfloat16"), FORMATS))
    for backbone in arguments.backbones:
        steps = {variant: make_step(backbone, *variant, arguments) for variant in variants}
        durations_s = {variant: [] for variant in variants}
        for repeat in range(arguments.repeats + 2):
            for variant, step in steps.items():
                seconds = step()
                if repeat >= 2:  # the first two warm up
                    durations_s[variant].append(seconds)
        medians_ms = {variant: 1e3 * float(np.median(t)) for variant, t in durations_s.items()}
        reference_ms = medians_ms["float32", "channels last"]
        for variant, ms in medians_ms.items():
            ratio = ms / reference_ms
            print(f"| {backbone} | {' | '.join(variant)} | {ms:.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
