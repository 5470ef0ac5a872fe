"""ONNX Runtime on the CPU, float32."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from rgsiam_ros.engines.base import EngineInfo, Tensors
from rgsiam_ros.errors import EngineError

ERRORS_ONLY = 3


class OnnxRuntimeEngine:
    """See `rgsiam_ros.engines.base.Engine`."""

    def __init__(self, onnx_bytes: bytes, *, threads: int = 0) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = ERRORS_ONLY
        try:
            session = ort.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise EngineError(f"ONNX Runtime cannot load this network: {error}") from error
        self._session: ort.InferenceSession | None = session
        self._outputs = tuple(output.name for output in session.get_outputs())

    def infer(self, inputs: Tensors) -> dict[str, NDArray[np.float32]]:
        """Named outputs for named inputs. Raises EngineError."""
        if self._session is None:
            raise EngineError("the engine was closed")
        try:
            values = self._session.run(list(self._outputs), dict(inputs))
        except Exception as error:  # as above
            raise EngineError(f"ONNX Runtime failed on an image: {error}") from error
        return dict(zip(self._outputs, values, strict=True))

    def describe(self) -> EngineInfo:
        """Engine, version, device and precision in use."""
        return EngineInfo("onnxruntime", ort.__version__, "cpu", "float32")

    def close(self) -> None:
        """Release the session."""
        self._session = None
