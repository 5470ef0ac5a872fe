"""Test and time the engines on this machine, for a table of engines and devices."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass, replace

import numpy as np

from rgsiam_ros.bundle import Bundle, network_io
from rgsiam_ros.bundle.parts import Differences
from rgsiam_ros.bundle.precision import Precision
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.engines.selection import (
    INT8_FEATURES,
    SelectedEngines,
    candidates,
    cpu_entry,
    select_engines,
)
from rgsiam_ros.engines.served import ServedNetworks
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
    main_ms: tuple[float, float] = (float("nan"), float("nan"))
    """Median and 99th percentile of the time of one inference of the network that takes the image."""
    relative_ms: tuple[float, float] | None = None
    """The same of the relative unit, for all neighbours of an image at once."""
    problem: str = ""
    """Why the engine cannot serve; empty if it can."""


def benchmark_engines(
    bundle: Bundle, options: EngineOptions, networks: ServedNetworks
) -> list[EngineTiming]:
    """Start, self-test and time each engine and precision that `options` allow, one after the other.

    networks: what each must run.
    """
    timings = []
    automatic = options.engine == "auto" and options.precision == "auto"
    # an engine or precision that is named is timed even if this CPU is slow with int8
    features = None if automatic else INT8_FEATURES
    for name, precision in candidates(
        networks.offered, options.engine, options.precision, features
    ):
        wanted = replace(options, engine=name, precision=precision, fallback="none")
        try:
            engines = select_engines(bundle, wanted, networks)
        except EngineError as error:
            reason = str(error).partition(f"{name} {precision}: ")[2] or str(error)
            timings.append(EngineTiming(name, precision, "", problem=reason))
            continue
        info = engines.describe()
        device = cpu_name() if info.device == "cpu" else info.device
        row = EngineTiming(name, precision, device, info.version)
        try:
            main, relative = _time(engines, bundle, networks)
            row = replace(
                row,
                differences=engines.differences,
                main_ms=main,
                relative_ms=relative,
            )
        except EngineError as error:
            row = replace(row, problem=str(error))
        finally:
            engines.close()
        timings.append(row)
    return timings


def cpu_name() -> str:
    """The name of the CPU on Linux. On other systems, its architecture."""
    return cpu_entry("model name", "Model") or platform.machine()


def _time(
    engines: SelectedEngines, bundle: Bundle, networks: ServedNetworks
) -> tuple[tuple[float, float], tuple[float, float] | None]:
    """Median and 99th percentile of the main network and of the relative unit, milliseconds."""
    inputs = networks.example()
    outputs = engines.main.infer(inputs)
    relative_inputs = None
    if engines.relative is not None:
        refinement = bundle.manifest.absolute_part.refinement
        assert refinement is not None
        features = bundle.map_features(engines.precision)
        map_local = features.local_NCHW[: refinement.neighbours]
        relative_inputs = {
            network_io.MAP_LOCAL: map_local.astype(np.float32),
            network_io.LOCAL_MAP: outputs[network_io.LOCAL_MAP].copy(),
        }
    main, relative = [], []
    for _ in range(WARM_UP + REPEATS):
        began = time.perf_counter()
        engines.main.infer(inputs)
        between = time.perf_counter()
        main.append(between - began)
        if engines.relative is not None and relative_inputs is not None:
            engines.relative.infer(relative_inputs)
            relative.append(time.perf_counter() - between)
    return _percentiles(main), _percentiles(relative) if relative else None


def _percentiles(seconds: list[float]) -> tuple[float, float]:
    median, high = np.percentile(seconds[WARM_UP:], [50, 99]) * 1e3
    return float(median), float(high)
