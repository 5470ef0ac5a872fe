"""What each engine on this machine makes of a bundle: a row of a table that a user can send us."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rgsiam_ros.bundle import Bundle, network_io
from rgsiam_ros.bundle.manifest import Differences
from rgsiam_ros.bundle.precision import Precision
from rgsiam_ros.camera.preprocessing import normalise
from rgsiam_ros.engines.selection import (
    INT8_FEATURES,
    SelectedEngines,
    candidates,
    cpu_entry,
    select_engines,
)
from rgsiam_ros.errors import EngineError

REPEATS = 50
WARM_UP = 5


@dataclass(frozen=True)
class EngineTiming:
    """One engine in one precision."""

    engine: str
    precision: Precision
    device: str
    version: str = ""
    differences: Differences | None = None
    absolute_ms: tuple[float, float] = (float("nan"), float("nan"))
    """Median and 99th percentile of one inference of the absolute branch."""
    relative_ms: tuple[float, float] | None = None
    """Of the relative unit, for all neighbours of one look."""
    problem: str = ""
    """Why it does not serve; empty where it does."""


def benchmark_engines(
    bundle: Bundle, engine: str, precision: str, *, threads: int = 0, cache: Path | None = None
) -> list[EngineTiming]:
    """Start, self-test and time what was asked for, each engine and precision on its own."""
    rows = []
    features = None if engine == "auto" and precision == "auto" else INT8_FEATURES
    for name, chosen in candidates(bundle.manifest.precisions, engine, precision, features):
        try:
            serving = select_engines(
                bundle,
                engine=name,
                precision=chosen,
                refine=bundle.manifest.refinement is not None,
                threads=threads,
                cache=cache,
                fallback="none",
            )
        except EngineError as error:
            reason = str(error).partition(f"{name} {chosen}: ")[2] or str(error)
            rows.append(EngineTiming(name, chosen, "", problem=reason))
            continue
        info = serving.describe()
        device = cpu_name() if info.device == "cpu" else info.device
        try:
            times = _time(serving, bundle)
            rows.append(
                EngineTiming(name, chosen, device, info.version, serving.differences, *times)
            )
        except EngineError as error:
            rows.append(EngineTiming(name, chosen, device, info.version, problem=str(error)))
        finally:
            serving.close()
    return rows


def cpu_name() -> str:
    """As Linux names it, else the architecture."""
    return cpu_entry("model name", "Model") or platform.machine()


def _time(
    serving: SelectedEngines, bundle: Bundle
) -> tuple[tuple[float, float], tuple[float, float] | None]:
    size = bundle.manifest.preprocessing
    golden = bundle.golden
    if golden is None:
        image = np.zeros((1, 3, size.input_height, size.input_width), np.float32)
    else:
        image = normalise(golden.image_NHW3[0], size)[None]
    inputs = {network_io.IMAGE: image}
    outputs = serving.absolute.infer(inputs)
    absolute, relative = [], []
    relative_inputs = None
    if serving.relative is not None and bundle.manifest.refinement is not None:
        features = bundle.map_features(serving.precision)
        map_local = features.local_NCHW[: bundle.manifest.refinement.neighbours]
        relative_inputs = {
            network_io.MAP_LOCAL: map_local.astype(np.float32),
            network_io.LOCAL_MAP: outputs[network_io.LOCAL_MAP].copy(),
        }
    for _ in range(WARM_UP + REPEATS):
        began = time.perf_counter()
        serving.absolute.infer(inputs)
        between = time.perf_counter()
        absolute.append(between - began)
        if serving.relative is not None and relative_inputs is not None:
            serving.relative.infer(relative_inputs)
            relative.append(time.perf_counter() - between)
    return _percentiles(absolute), _percentiles(relative) if relative else None


def _percentiles(seconds: list[float]) -> tuple[float, float]:
    median, high = np.percentile(seconds[WARM_UP:], [50, 99]) * 1e3
    return float(median), float(high)
