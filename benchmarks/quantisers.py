"""One int8 file for both CPU engines, or NNCF's own network for OpenVINO? Accuracy and latency.

    pip install nncf==3.4.0
    .venv/bin/python benchmarks/quantisers.py runs/NAME

Over a run's validation images and with the same calibration images: medians of the absolute branch,
distance of its features from torch's in float32, milliseconds of one inference (in turn, one run).
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from engines import interleaved

from rgsiam_ros.bundle import network_io
from rgsiam_ros.engines import EngineRequest, create_engine
from rgsiam_training.evaluation.held_out import (
    HeldOutSet,
    engine_absolute_branch,
    error_summary,
    torch_absolute_branch,
)
from rgsiam_training.export.acceptance import PERCENTILES, calibration_images
from rgsiam_training.export.onnx_export import absolute_to_onnx, round_large_weights, to_bytes
from rgsiam_training.export.quantization import Quantiser
from rgsiam_training.fitting.run_folder import open_run


def by_nncf(content, images, threads):
    """NNCF's post-training quantisation of the network in OpenVINO; matrix products left alone."""
    import nncf
    import openvino as ov

    core = ov.Core()
    dataset = nncf.Dataset(images, lambda image: {network_io.IMAGE: image[None]})
    heads = nncf.IgnoredScope(types=["MatMul"])
    model = core.read_model(content)
    model.reshape([1, *images.shape[1:]])
    quantised = nncf.quantize(model, dataset, subset_size=len(images), ignored_scope=heads)
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(quantised, "CPU", settings).create_infer_request()
    names = [output.get_any_name() for output in model.outputs]

    def infer(image_N3HW):
        answers = []
        for image in image_N3HW:
            answer = request.infer({network_io.IMAGE: image[None]})
            answers.append([value.copy() for value in answer.values()])
        return dict(zip(names, map(np.concatenate, zip(*answers, strict=True)), strict=True))

    return infer


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=200)
    arguments = parser.parse_args()
    run = open_run(arguments.run)
    held_out = HeldOutSet(run)
    branch = run.absolute_branch()
    round_large_weights(branch)
    model = absolute_to_onnx(branch, run.preprocessing)
    images = calibration_images(held_out)
    content = to_bytes(model)
    ways = {}
    for percentile in PERCENTILES:
        own = to_bytes(Quantiser(model, images, symmetric=False, percentile=percentile).quantise())
        for name in ("onnxruntime", "openvino"):
            request = EngineRequest(own, "int8", arguments.threads)
            ways[f"ours ({percentile or 100} %), {name}"] = engine_absolute_branch(
                create_engine(name, request)
            )
    ways["NNCF, openvino"] = by_nncf(content, images, arguments.threads)
    reference = held_out.estimate(torch_absolute_branch(branch), None, None)
    times = interleaved(
        {name: partial(infer, images[:1]) for name, infer in ways.items()}, arguments.repeats
    )
    print(f"{len(reference.T_absolute_N44)} validation images, {len(images)} to calibrate")
    print(
        "| int8 | median m | median deg | metric feature | local map | p50 ms |\n|---|---|---|---|---|---|"
    )
    for name, infer in {"float32, torch": torch_absolute_branch(branch), **ways}.items():
        estimates = held_out.estimate(infer, None, None)
        errors = error_summary(estimates.T_absolute_N44, held_out.validation.T_map_camera_N44)
        apart = [
            np.linalg.norm(estimates.outputs[n] - reference.outputs[n])
            / np.linalg.norm(reference.outputs[n])
            for n in (network_io.METRIC_FEATURE, network_io.LOCAL_MAP)
        ]
        took = f"{times[name][0]:.2f}" if name in times else ""
        print(
            f"| {name} | {errors['median_m']:.3f} | {errors['median_deg']:.2f} | {apart[0]:.3f} | "
            f"{apart[1]:.3f} | {took} |"
        )


if __name__ == "__main__":
    main()
