"""The number formats that a network can compute in, and the bundle's files for each."""

from __future__ import annotations

from typing import Literal, get_args

Precision = Literal["float32", "bfloat16", "float16", "int8", "int8_symmetric"]
"""``float32``: as trained. ``bfloat16``: the float32 network, computed by the engine in bfloat16.
``float16``: convolutions in half precision, heads in float32. ``int8``: quantised convolutions, activations
with a zero point, which is fast on CPUs. ``int8_symmetric``: without zero point, as TensorRT needs it."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def absolute_name(precision: Precision) -> str:
    """Name of the file with the absolute branch in this precision."""
    has_own_graph = precision in ("float16", "int8", "int8_symmetric")
    return f"absolute.{precision}.onnx" if has_own_graph else "absolute.onnx"


def map_features_name(precision: Precision) -> str:
    """Name of the file with the map's features, computed in this precision."""
    return "map_features.npz" if precision == "float32" else f"map_features.{precision}.npz"


def calibration_name(precision: Precision) -> str:
    """Name of the file with the calibration of this precision."""
    return f"calibration.{precision}.npz"
