"""Inference engines, chosen by name. Each imports its library only when it is asked for."""

from __future__ import annotations

from rgsiam_ros.engines.base import Engine, EngineInfo, EngineRequest
from rgsiam_ros.errors import EngineError

ENGINES = (
    "tensorrt",
    "tensorrt_rtx",
    "onnxruntime_tensorrt",
    "onnxruntime_cuda",
    "openvino",
    "onnxruntime",
)

__all__ = ["ENGINES", "Engine", "EngineInfo", "EngineRequest", "create_engine"]


def create_engine(name: str, request: EngineRequest) -> Engine:
    """The engine called `name` over a network.

    Raises EngineError for an unknown engine, one that is not installed or cannot compute in the
    precision asked for, and a network that it cannot run; EngineNotBuiltError for one that has to be
    built first.
    """
    if name in ("tensorrt", "tensorrt_rtx"):
        from rgsiam_ros.engines.tensorrt_engine import TensorRtEngine

        return TensorRtEngine(request, name)
    if name == "openvino":
        from rgsiam_ros.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(request)
    if name in ENGINES:
        from rgsiam_ros.engines.onnxruntime_engine import OnnxRuntimeEngine

        return OnnxRuntimeEngine(request, name)
    raise EngineError(f"engine {name!r} is unknown: choose auto or one of {', '.join(ENGINES)}")
