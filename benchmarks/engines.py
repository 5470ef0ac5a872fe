"""Measure latency, load time and memory of each engine and precision, compared with torch eager in float32.

    .venv/bin/python benchmarks/engines.py                                   # 224x224, four backbones
    .venv/bin/python benchmarks/engines.py --size 160x90 --backbones tf_efficientnet_lite0

The networks have random weights, because latency does not depend on them. Latency is measured with batch 1;
the engines of a backbone take turns of ten inferences. Load time and memory are measured in a separate
process for each engine. Memory is the growth of the resident set from before loading to after the first
inference.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from rgsiam_ros.bundle import network_io
from rgsiam_ros.bundle.golden import ABSOLUTE_OUTPUTS
from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_ros.engines import EngineRequest, create_engine
from rgsiam_ros.engines.availability import why_not
from rgsiam_ros.engines.benchmark import cpu_name
from rgsiam_ros.engines.selection import cpu_features
from rgsiam_training.config import NetworkConfig
from rgsiam_training.evaluation.held_out import torch_absolute_branch
from rgsiam_training.export.onnx_export import (
    absolute_to_onnx,
    round_large_weights,
    to_bytes,
)
from rgsiam_training.export.quantization import Quantiser, to_float16
from rgsiam_training.model.network import AbsoluteBranch, SiameseNetwork

BACKBONES = ("resnet18", "resnet34", "resnet50", "tf_efficientnet_lite0")
CANDIDATES = (
    ("onnxruntime", "float32"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("onnxruntime", "int8"),
    ("openvino", "int8"),
    ("onnxruntime_cuda", "float32"),
    ("onnxruntime_cuda", "float16"),
)
WARM_UP = 3
"""Inferences at the start of each turn that do not count."""
TURN_INFERENCES = 10
PAUSE_S = 0.3
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp")
LOAD = """
import json, resource, sys, time
def resident(): return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
import numpy as np
from rgsiam_ros.engines import EngineRequest, create_engine
path, name, precision, threads = sys.argv[1:]
inputs = dict(np.load(path + ".npz"))
content = open(path, "rb").read()
import onnx, onnxruntime  # the libraries are not measured
if name == "openvino": import openvino
before, began = resident(), time.perf_counter()
engine = create_engine(name, EngineRequest(content, precision, int(threads)))
loaded = time.perf_counter() - began
engine.infer(inputs)
print(json.dumps([loaded * 1e3, (resident() - before) / 2**20]))
"""


def absolute_branch(backbone, width, height):
    """The absolute branch of a network with random weights, in evaluation mode."""
    config = NetworkConfig(backbone=backbone, pretrained=False)
    torch.manual_seed(0)
    anchors = torch.rand(config.anchors, 3)
    network = SiameseNetwork(config, height, width, anchors).eval()
    return AbsoluteBranch(network, ABSOLUTE_OUTPUTS).eval()


def load_figures(content, inputs, name, precision, threads):
    """Load time in milliseconds and memory in MiB, measured in a separate process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        path.write_bytes(content)
        np.savez(f"{path}.npz", **inputs)
        command = [sys.executable, "-c", LOAD, str(path), name, precision, str(threads)]
        process = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(process.stdout.splitlines()[-1])


def interleaved(callables, repeats):
    """Median and 99th percentile, in milliseconds, of the durations of functions that take turns.

    callables: functions without arguments, by name. A turn is a few calls after a pause, because the idle
    threads of a library spin for a while and would slow down the next one. Returns ``{name: (p50, p99)}``.
    """
    durations_ms = {name: [] for name in callables}
    for _ in range(-(-repeats // TURN_INFERENCES)):
        for name, function in callables.items():
            time.sleep(PAUSE_S)
            for i in range(WARM_UP + TURN_INFERENCES):
                began = time.perf_counter()
                function()
                if i >= WARM_UP:
                    durations_ms[name].append((time.perf_counter() - began) * 1e3)
    return {name: np.percentile(values, [50, 99]) for name, values in durations_ms.items()}


def table(contents, eager, inputs, candidates, arguments):
    """Yield the table rows of one network: torch eager, then each engine that can run on this machine.

    contents: ONNX file by precision; eager: function that runs torch; inputs: arrays by name; candidates: pairs
    of engine and precision; arguments: of the command line.
    """
    callables, loads = {("torch eager", "float32"): eager}, {}
    for name, precision in candidates:
        if why_not(name) is not None:
            continue
        content = contents[precision]
        request = EngineRequest(content, precision, arguments.threads)
        engine = create_engine(name, request)
        callables[name, precision] = lambda engine=engine: engine.infer(inputs)
        loads[name, precision] = load_figures(content, inputs, name, precision, arguments.threads)
    figures = interleaved(callables, arguments.repeats)
    eager_ms = figures["torch eager", "float32"][0]
    for key, (p50, p99) in figures.items():
        load = "- | -" if key not in loads else "{:.0f} | {:.0f}".format(*loads[key])
        yield f"{key[0]} | {key[1]} | {p50:.2f} | {p99:.2f} | {eager_ms / p50:.1f} | {load}"


def reduced_contents(model, width, height):
    """The ONNX file of each precision."""
    random = np.random.default_rng(0)
    images = random.normal(size=(16, 3, height, width)).astype(np.float32)
    float32 = to_bytes(model)
    return {
        "float32": float32,
        "bfloat16": float32,
        "float16": to_bytes(to_float16(model)),
        "int8": to_bytes(Quantiser(model, images, symmetric=False).quantise()),
    }


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="224x224", help="WIDTHxHEIGHT of the network's input")
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    width, height = map(int, arguments.size.split("x"))
    flags = ", ".join(flag for flag in CPU_FLAGS if flag in cpu_features())
    print(f"{cpu_name()} ({flags}), {arguments.threads} threads, {arguments.size}, batch 1")
    print("\n| network | engine | precision | p50 ms | p99 ms | times eager | load ms | MiB |")
    print("|---|---|---|---|---|---|---|---|")
    image = np.random.default_rng(1).normal(size=(1, 3, height, width)).astype(np.float32)
    for backbone in arguments.backbones:
        absolute = absolute_branch(backbone, width, height)
        round_large_weights(absolute)
        preprocessing = Preprocessing(input_width=width, input_height=height)
        contents = reduced_contents(absolute_to_onnx(absolute, preprocessing), width, height)
        eager = partial(torch_absolute_branch(absolute), image)
        inputs = {network_io.IMAGE: image}
        for row in table(contents, eager, inputs, CANDIDATES, arguments):
            print(f"| {backbone} | {row} |", flush=True)


if __name__ == "__main__":
    main()
