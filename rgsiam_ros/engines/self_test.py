"""Self-test of an engine: compare its outputs for the golden images with torch's in float32."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from rgsiam_ros.bundle import Bundle, network_io
from rgsiam_ros.bundle.golden import GoldenImages
from rgsiam_ros.bundle.parts import Differences, Target
from rgsiam_ros.camera.preprocessing import normalise
from rgsiam_ros.engines.base import Engine
from rgsiam_ros.engines.batching import infer_all
from rgsiam_ros.geometry.poses import pose_errors
from rgsiam_ros.geometry.units import angle_text, length_text


def measure_golden_images(engine: Engine, bundle: Bundle, batch: int = 1) -> Differences:
    """Differences of an engine's outputs from torch's in float32, on the bundle's golden images.

    engine: runs ``absolute.onnx``; batch: the batch size that it was started with. Raises EngineError.
    """
    golden, part = bundle.golden, bundle.manifest.absolute_part
    images = np.stack([normalise(i, part.preprocessing) for i in golden.image_NHW3])
    return differences_from_golden(infer_all(engine, images, batch), golden, part.target)


def differences_from_golden(
    outputs: Mapping[str, ArrayLike], golden: GoldenImages, target: Target
) -> Differences:
    """Largest differences of a network's outputs for the golden images from torch's in float32.

    outputs: of ``absolute.onnx`` by name, ``(N, ...)`` each.
    """
    expected = golden.absolute
    found = {name: np.asarray(outputs[name], np.float64) for name in expected}
    metres, degrees = _pose_differences(found, expected, target)
    figures = {"position_m": float(metres.max()), "rotation_deg": float(degrees.max())}
    if network_io.PRECISION_FACTOR in expected:
        sigma, true = (_sigmas(o[network_io.PRECISION_FACTOR], target) for o in (found, expected))
        figures["sigma"] = float(np.abs(sigma / true - 1.0).max())
    if network_io.METRIC_FEATURE in expected:
        pair = found[network_io.METRIC_FEATURE], expected[network_io.METRIC_FEATURE]
        figures["metric_feature"] = float(np.linalg.norm(pair[0] - pair[1], axis=1).max())
    return Differences(**figures)


def describe_exceeded(found: Differences, tolerance: Differences) -> list[str]:
    """One line for each difference that exceeds its tolerance; empty if none does.

    A difference that is not finite always exceeds.
    """
    problems = []
    for name, value in found.model_dump().items():
        limit = getattr(tolerance, name)
        if value is None or (limit is not None and value <= limit):
            continue
        allowed = "no tolerance is known" if limit is None else f"{_text(name, limit)} is allowed"
        what = name.removesuffix("_m").removesuffix("_deg").replace("_", " ")
        problems.append(f"{what} is off by {_text(name, value)}, {allowed}")
    return problems


def _text(name: str, value: float) -> str:
    if name.endswith("_m"):
        return length_text(value)
    return angle_text(value) if name.endswith("_deg") else f"{value:.3g}"


def _pose_differences(
    outputs: Mapping[str, ArrayLike],
    expected: Mapping[str, ArrayLike],
    target: Target,
) -> tuple[np.ndarray, np.ndarray]:
    """Metres and degrees between the poses of two sets of outputs, ``(N,)`` each."""
    T, T_true = (
        network_io.restore_poses(o[network_io.TRANSLATION], o[network_io.ROTATION], target)
        for o in (outputs, expected)
    )
    metres, radians = pose_errors(T, T_true)
    return metres, np.degrees(radians)


def _sigmas(factor_N21: ArrayLike, target: Target) -> np.ndarray:
    """Standard deviations ``(N, 6)`` in the camera's axes."""
    rows = []
    for factor in np.asarray(factor_N21):
        covariance = network_io.raw_covariance({network_io.PRECISION_FACTOR: factor[None]}, target)
        rows.append(np.full(6, np.nan) if covariance is None else np.sqrt(np.diag(covariance)))
    return np.stack(rows)
