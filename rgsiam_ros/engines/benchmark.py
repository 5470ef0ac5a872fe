"""Test and time the engines on this machine, for a table of engines and devices."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass, replace

import numpy as np

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.bundle.parts import Differences
from rgsiam_ros.bundle.precision import Precision
from rgsiam_ros.engines.base import Engine
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.engines.selection import INT8_FEATURES, candidates, cpu_entry, select_engine
from rgsiam_ros.engines.served import ServedNetwork
from rgsiam_ros.errors import EngineError

REPEATS = 50
WARM_UP = 5


@dataclass(frozen=True)
class EngineTiming:
    """Test result and times of one engine in one precision."""

    engine: str
    precision: Precision
    device: str
    version: str = ""
    differences: Differences | None = None
    """From torch in float32, on the golden images. None if the engine cannot serve."""
    inference_ms: tuple[float, float] = (float("nan"), float("nan"))
    """Median and 99th percentile of the time of one inference."""
    problem: str = ""
    """Why the engine cannot serve; empty if it can."""


def benchmark_engines(
    bundle: Bundle, options: EngineOptions, network: ServedNetwork
) -> list[EngineTiming]:
    """Start, self-test and time each engine and precision that `options` allow, one after the other.

    network: what each must run.
    """
    timings = []
    automatic = options.engine == "auto" and options.precision == "auto"
    # an engine or precision that is named is timed even if this CPU is slow with int8
    features = None if automatic else INT8_FEATURES
    for name, precision in candidates(network.offered, options.engine, options.precision, features):
        wanted = replace(options, engine=name, precision=precision, fallback="none")
        try:
            selected = select_engine(bundle, wanted, network)
        except EngineError as error:
            reason = str(error).partition(f"{name} {precision}: ")[2] or str(error)
            timings.append(EngineTiming(name, precision, "", problem=reason))
            continue
        info = selected.describe()
        device = cpu_name() if info.device == "cpu" else info.device
        row = EngineTiming(name, precision, device, info.version)
        try:
            row = replace(
                row,
                differences=selected.differences,
                inference_ms=_time(selected.engine, network),
            )
        except EngineError as error:
            row = replace(row, problem=str(error))
        finally:
            selected.close()
        timings.append(row)
    return timings


def cpu_name() -> str:
    """The name of the CPU on Linux. On other systems, its architecture."""
    return cpu_entry("model name", "Model") or platform.machine()


def _time(engine: Engine, network: ServedNetwork) -> tuple[float, float]:
    """Median and 99th percentile of one inference, milliseconds."""
    inputs, seconds = network.example(), []
    for _ in range(WARM_UP + REPEATS):
        began = time.perf_counter()
        engine.infer(inputs)
        seconds.append(time.perf_counter() - began)
    median, high = np.percentile(seconds[WARM_UP:], [50, 99]) * 1e3
    return float(median), float(high)
