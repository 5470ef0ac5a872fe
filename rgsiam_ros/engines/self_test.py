"""Self-test of an engine: compare its outputs for the golden images with torch's in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rgsiam_ros.bundle import Bundle, network_io
from rgsiam_ros.bundle.golden import GoldenImages
from rgsiam_ros.bundle.map_features import MapFeatures
from rgsiam_ros.bundle.parts import Differences, Target
from rgsiam_ros.camera.preprocessing import normalise
from rgsiam_ros.engines.base import Engine
from rgsiam_ros.engines.batching import infer_all
from rgsiam_ros.geometry.poses import pose_errors
from rgsiam_ros.geometry.units import angle_text, length_text

Infer = Callable[[Mapping[str, NDArray[np.float32]]], Mapping[str, NDArray[np.float32]]]
"""Runs a network: takes inputs by name, returns outputs by name."""
TINY = 1e-12


def measure_golden_images(
    absolute: Engine, relative: Engine | None, bundle: Bundle, batch: int = 1
) -> Differences:
    """Differences of the engines' outputs from torch's in float32, on the bundle's golden images.

    relative: None if only the absolute branch is in use; batch: the batch size that `absolute` was
    started with. Raises EngineError.
    """
    golden, part = bundle.golden, bundle.manifest.absolute_part
    images = np.stack([normalise(i, part.preprocessing) for i in golden.image_NHW3])
    outputs = infer_all(absolute, images, batch)
    infer = relative.infer if relative is not None else None
    features = bundle.map_features() if infer is not None else None
    return differences_from_golden(outputs, infer, features, golden, part.target)


def differences_from_golden(
    absolute_outputs: Mapping[str, ArrayLike],
    relate: Infer | None,
    features: MapFeatures | None,
    golden: GoldenImages,
    target: Target,
) -> Differences:
    """Largest differences of a network's outputs for the golden images from torch's in float32.

    absolute_outputs: of ``absolute.onnx`` by name, ``(N, ...)`` each; relate: runs ``relative.onnx``, which
    always computes in float32; features: the map's, in float32. ``relative.onnx`` runs on torch's local maps
    and on these features for all neighbours in `golden`, so that only its own differences count.
    """
    expected = golden.absolute
    outputs = {name: np.asarray(absolute_outputs[name], np.float64) for name in expected}
    metres, degrees = _pose_differences(network_io.restore_poses, outputs, expected, target)
    figures = {"position_m": float(metres.max()), "rotation_deg": float(degrees.max())}
    if network_io.PRECISION_FACTOR in expected:
        sigma, true = (_sigmas(o[network_io.PRECISION_FACTOR], target) for o in (outputs, expected))
        figures["sigma"] = float(np.abs(sigma / true - 1.0).max())
    for name, label in (
        (network_io.METRIC_FEATURE, "metric_feature"),
        (network_io.LOCAL_MAP, "local_map"),
    ):
        if name in expected:
            figures[label] = _relative_length(outputs[name], expected[name])
    if relate is not None and features is not None and golden.relative is not None:
        figures |= _relative_unit(relate, features, golden, target)
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
    restore: Callable[..., np.ndarray],
    outputs: Mapping[str, ArrayLike],
    expected: Mapping[str, ArrayLike],
    target: Target,
) -> tuple[np.ndarray, np.ndarray]:
    """Metres and degrees between the poses of two sets of outputs, ``(N,)`` each."""
    T, T_true = (
        restore(o[network_io.TRANSLATION], o[network_io.ROTATION], target)
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


def _relative_length(values: ArrayLike, expected: ArrayLike) -> float:
    """Largest norm of a row's difference, divided by the norm of the expected row."""
    true = np.asarray(expected, np.float64).reshape(len(expected), -1)  # type: ignore[arg-type]
    difference = np.asarray(values).reshape(true.shape) - true
    return float((np.linalg.norm(difference, axis=1) / (np.linalg.norm(true, axis=1) + TINY)).max())


def _relative_unit(
    relate: Infer, features: MapFeatures, golden: GoldenImages, target: Target
) -> dict[str, float]:
    """Largest differences of the relative unit's outputs, over all golden images and their neighbours."""
    assert golden.relative is not None
    assert golden.map_index_NK is not None
    metres, degrees, information = [], [], []
    for i, nearest in enumerate(golden.map_index_NK):
        outputs = relate(
            {
                network_io.MAP_LOCAL: features.local_NCHW[nearest].astype(np.float32),
                network_io.LOCAL_MAP: golden.absolute[network_io.LOCAL_MAP][i : i + 1],
            }
        )
        expected = {name: value[i] for name, value in golden.relative.items()}
        m, deg = _pose_differences(network_io.restore_relative_poses, outputs, expected, target)
        metres.append(m.max())
        degrees.append(deg.max())
        information.append(
            _relative_length(outputs[network_io.INFORMATION], expected[network_io.INFORMATION])
        )
    return {
        "relative_position_m": float(np.max(metres)),
        "relative_rotation_deg": float(np.max(degrees)),
        "relative_information": float(np.max(information)),
    }
