"""Inference engines, chosen by name."""

from __future__ import annotations

from rgsiam_ros.engines.base import Engine, EngineInfo
from rgsiam_ros.errors import EngineError

ENGINES = ("onnxruntime",)

__all__ = ["ENGINES", "Engine", "EngineInfo", "create_engine"]


def create_engine(name: str, onnx_bytes: bytes, *, threads: int = 0) -> Engine:
    """The engine called `name` (or ``auto``, the best one there is) over a network's ONNX bytes.

    threads: CPU threads for one inference, 0 lets the engine choose.
    Raises EngineError for an unknown engine or a network it cannot run.
    """
    chosen = ENGINES[0] if name == "auto" else name
    if chosen == "onnxruntime":
        from rgsiam_ros.engines.onnxruntime_engine import OnnxRuntimeEngine

        return OnnxRuntimeEngine(onnx_bytes, threads=threads)
    raise EngineError(f"engine {name!r} is unknown: choose auto or one of {', '.join(ENGINES)}")
