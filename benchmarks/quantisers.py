"""Compare this package's int8 networks, for ONNX Runtime and OpenVINO, with one that NNCF quantises.

    pip install nncf==3.4.0
    .venv/bin/python benchmarks/quantisers.py runs/NAME

All are calibrated with the same images of the run. On the run's held-out frames this measures the median
errors of the absolute branch, and the relative difference of its metric features from torch in float32. The networks
take turns in the measurement of the latency. Without NNCF its row is missing.
"""

from __future__ import annotations

import argparse
from functools import partial
from importlib.util import find_spec
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
    """A function that runs the network in OpenVINO. NNCF quantises it, except the matrix products of the heads."""
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
        rows = []
        for image in image_N3HW:
            outputs = request.infer({network_io.IMAGE: image[None]})
            rows.append([value.copy() for value in outputs.values()])
        return dict(zip(names, map(np.concatenate, zip(*rows, strict=True)), strict=True))

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
    networks = {}
    for percentile in PERCENTILES:
        quantiser = Quantiser(model, images, symmetric=False, percentile=percentile)
        int8 = to_bytes(quantiser.quantise())
        for name in ("onnxruntime", "openvino"):
            request = EngineRequest(int8, "int8", arguments.threads)
            networks[f"ours ({percentile or 100} %), {name}"] = engine_absolute_branch(
                create_engine(name, request)
            )
    if find_spec("nncf") is not None:
        networks["NNCF, openvino"] = by_nncf(content, images, arguments.threads)
    reference = held_out.estimate(torch_absolute_branch(branch))
    times = interleaved(
        {name: partial(infer, images[:1]) for name, infer in networks.items()}, arguments.repeats
    )
    print(f"{len(reference.T_map_camera_N44)} held-out frames, {len(images)} calibration images")
    print("| int8 | median m | median deg | metric feature | p50 ms |")
    print("|---" * 5 + "|")
    for name, infer in {"float32, torch": torch_absolute_branch(branch), **networks}.items():
        poses = held_out.estimate(infer)
        errors = error_summary(poses.T_map_camera_N44, held_out.validation.T_map_camera_N44)
        found, expected = (p.outputs[network_io.METRIC_FEATURE] for p in (poses, reference))
        feature = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        p50 = f"{times[name][0]:.2f}" if name in times else ""
        print(
            f"| {name} | {errors['median_m']:.3f} | {errors['median_deg']:.2f} | {feature:.3f} | {p50} |"
        )


if __name__ == "__main__":
    main()
