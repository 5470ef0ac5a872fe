"""Does an engine compute what was trained? Golden images say so, on the machine it runs on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rgsiam_ros.bundle import Bundle, network_io
from rgsiam_ros.bundle.golden import GoldenImages
from rgsiam_ros.bundle.manifest import Differences, Target
from rgsiam_ros.bundle.map_features import MapFeatures
from rgsiam_ros.bundle.precision import Precision
from rgsiam_ros.camera.preprocessing import normalise
from rgsiam_ros.engines import Engine
from rgsiam_ros.geometry.poses import pose_errors

Infer = Callable[[Mapping[str, NDArray[np.float32]]], Mapping[str, NDArray[np.float32]]]

TINY = 1e-12
UNITS = {
    "position_m": "m",
    "rotation_deg": "deg",
    "relative_position_m": "m",
    "relative_rotation_deg": "deg",
}


def measure_golden_images(
    absolute: Engine,
    relative: Engine | None,
    bundle: Bundle,
    precision: Precision,
    batch: int = 1,
) -> Differences | None:
    """How far the engines' answers on the golden images are from torch's; None without any.

    relative: None where only the absolute branch is in use. Raises EngineError.
    """
    golden = bundle.golden
    if golden is None:
        return None
    manifest = bundle.manifest
    images = np.stack([normalise(i, manifest.preprocessing) for i in golden.image_NHW3])
    given = infer_all(absolute, images, batch)
    infer = relative.infer if relative is not None else None
    features = bundle.map_features() if infer is not None else None
    return differences_from_golden(given, infer, features, golden, manifest.target)


def infer_all(
    engine: Engine, image_N3HW: NDArray[np.float32], batch: int = 1
) -> dict[str, NDArray[np.float32]]:
    """An engine's outputs for any number of images, `batch` at a time; the last batch is filled up.

    image_N3HW: normalised; batch: what the engine was started with. Raises EngineError.
    """
    answers: list[dict[str, NDArray[np.float32]]] = []
    for start in range(0, len(image_N3HW), batch):
        images = image_N3HW[start : start + batch]
        count = len(images)
        if count < batch:
            images = np.concatenate([images, np.repeat(images[-1:], batch - count, axis=0)])
        outputs = engine.infer({network_io.IMAGE: images})
        answers.append({name: value[:count].copy() for name, value in outputs.items()})
    return {name: np.concatenate([a[name] for a in answers]) for name in answers[0]}


def differences_from_golden(
    given: Mapping[str, ArrayLike],
    relate: Infer | None,
    features: MapFeatures | None,
    golden: GoldenImages,
    target: Target,
) -> Differences:
    """Largest differences of answers for the golden images from those of torch in float32.

    given: outputs of ``absolute.onnx`` by name, stacked; relate: of ``relative.onnx``, which computes
    in float32 always and is asked with torch's own local maps and the map's `features` in float32, so
    that every neighbour counts.
    """
    expected = golden.absolute
    outputs = {name: np.asarray(given[name], np.float64) for name in expected}
    apart = dict(_apart(network_io.restore_poses, outputs, expected, target))
    figures = {"position_m": float(apart["m"].max()), "rotation_deg": float(apart["deg"].max())}
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


def exceeded(found: Differences, tolerance: Differences) -> list[str]:
    """What is farther off than it may be, in words with figures; empty where all is well.

    A number that is not finite counts as too far.
    """
    problems = []
    for name, value in found.model_dump().items():
        limit = getattr(tolerance, name)
        if value is None:
            continue
        if limit is None or not value <= limit:
            unit = f" {UNITS[name]}" if name in UNITS else ""
            allowed = "none is known" if limit is None else f"{limit:.3g}{unit} is allowed"
            problems.append(f"{name.replace('_', ' ')} {value:.3g}{unit} where {allowed}")
    return problems


def _apart(
    restore: Callable[..., np.ndarray],
    outputs: Mapping[str, ArrayLike],
    expected: Mapping[str, ArrayLike],
    target: Target,
) -> list[tuple[str, np.ndarray]]:
    T, T_true = (
        restore(o[network_io.TRANSLATION], o[network_io.ROTATION], target)
        for o in (outputs, expected)
    )
    metres, radians = pose_errors(T, T_true)
    return [("m", metres), ("deg", np.degrees(radians))]


def _sigmas(factor_N21: ArrayLike, target: Target) -> np.ndarray:
    """Standard deviations ``(N, 6)`` in the camera's axes."""
    rows = []
    for factor in np.asarray(factor_N21):
        covariance = network_io.raw_covariance({network_io.PRECISION_FACTOR: factor[None]}, target)
        rows.append(np.full(6, np.nan) if covariance is None else np.sqrt(np.diag(covariance)))
    return np.stack(rows)


def _relative_length(values: ArrayLike, expected: ArrayLike) -> float:
    true = np.asarray(expected, np.float64).reshape(len(expected), -1)  # type: ignore[arg-type]
    apart = np.asarray(values).reshape(true.shape) - true
    return float((np.linalg.norm(apart, axis=1) / (np.linalg.norm(true, axis=1) + TINY)).max())


def _relative_unit(
    relate: Infer, features: MapFeatures, golden: GoldenImages, target: Target
) -> dict[str, float]:
    assert golden.relative is not None
    assert golden.map_index_NK is not None
    metres, degrees, information = [], [], []
    for i, nearest in enumerate(golden.map_index_NK):
        answer = relate(
            {
                network_io.MAP_LOCAL: features.local_NCHW[nearest].astype(np.float32),
                network_io.LOCAL_MAP: golden.absolute[network_io.LOCAL_MAP][i : i + 1],
            }
        )
        expected = {name: value[i] for name, value in golden.relative.items()}
        apart = dict(_apart(network_io.restore_relative_poses, answer, expected, target))
        metres.append(apart["m"].max())
        degrees.append(apart["deg"].max())
        information.append(
            _relative_length(answer[network_io.INFORMATION], expected[network_io.INFORMATION])
        )
    return {
        "relative_position_m": float(np.max(metres)),
        "relative_rotation_deg": float(np.max(degrees)),
        "relative_information": float(np.max(information)),
    }
