"""The number formats that a network can compute in, and the bundle's files for each."""

from __future__ import annotations

from typing import Literal, get_args

Precision = Literal["float32", "bfloat16", "float16", "int8", "int8_symmetric"]
"""``float32``: as trained. ``bfloat16``: the float32 network, computed by the engine in bfloat16.
``float16``: convolutions in half precision, heads in float32. ``int8``: quantised convolutions, activations
with a zero point, which is fast on CPUs. ``int8_symmetric``: without zero point, as TensorRT needs it."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)


OWN_GRAPHS: tuple[Precision, ...] = ("float16", "int8", "int8_symmetric")
"""The precisions with a graph of their own. The others take the float32 graph."""


def absolute_name(precision: Precision) -> str:
    """Name of the file with the absolute branch in this precision."""
    return f"absolute.{precision}.onnx" if precision in OWN_GRAPHS else "absolute.onnx"


def local_features_name(precision: Precision) -> str:
    """Name of the file with the local features' network in this precision."""
    own = precision in OWN_GRAPHS
    return f"local_features.{precision}.onnx" if own else "local_features.onnx"


def map_features_name(precision: Precision) -> str:
    """Name of the file with the map's features, computed in this precision."""
    return "map_features.npz" if precision == "float32" else f"map_features.{precision}.npz"


def calibration_name(precision: Precision) -> str:
    """Name of the file with the calibration of this precision."""
    return f"calibration.{precision}.npz"
