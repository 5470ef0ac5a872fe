"""Inference engines, selected by name. The library of an engine is imported only when it is created."""

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
    """Create the engine `name` for a network.

    Raises EngineError when the name is unknown, when the engine is not installed, when it cannot compute in
    the requested precision, and when it cannot run the network. Raises EngineNotBuiltError when the engine
    must be built first.
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
