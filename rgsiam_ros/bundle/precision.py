"""With how many bits a network computes, and which file of a bundle serves that."""

from __future__ import annotations

from typing import Literal, get_args

Precision = Literal["float32", "bfloat16", "float16", "int8", "int8_symmetric"]
"""``bfloat16``: the float32 network, computed in bfloat16 by an engine that can. ``float16``: its
convolutions in half precision, heads in float32. ``int8``: its convolutions quantised, activations
with a zero point, as CPUs like it. ``int8_symmetric``: without one, as TensorRT asks for."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
REDUCED: tuple[Precision, ...] = PRECISIONS[1:]


def absolute_name(precision: Precision) -> str:
    """The bundle's file with the absolute branch for this precision."""
    graph_of_its_own = precision in ("float16", "int8", "int8_symmetric")
    return f"absolute.{precision}.onnx" if graph_of_its_own else "absolute.onnx"


def map_features_name(precision: Precision) -> str:
    """The bundle's file with the map's features as this precision sees them."""
    return "map_features.npz" if precision == "float32" else f"map_features.{precision}.npz"


def calibration_name(precision: Precision) -> str:
    """The bundle's file with the calibration of this precision."""
    return f"calibration.{precision}.npz"
