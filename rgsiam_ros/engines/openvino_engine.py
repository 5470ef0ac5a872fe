"""The OpenVINO engine on the CPU. It always sets the precision: OpenVINO may choose bfloat16 by default."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from rgsiam_ros.engines.base import (
    Buffers,
    EngineInfo,
    EngineRequest,
    Tensors,
    fill,
    fixed_shape,
    refuse_precision,
)
from rgsiam_ros.errors import EngineError

HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
"""Precision of the layers that are not quantised. In the int8 network they stay in float32."""
NOT_INSTALLED = "OpenVINO is not installed: pip install openvino"


class OpenVinoEngine:
    """See `rgsiam_ros.engines.base.Engine`."""

    def __init__(self, request: EngineRequest) -> None:
        """Raises EngineError."""
        refuse_precision("openvino", request.precision, tuple(HINTS))
        try:
            import openvino as ov
        except ImportError as error:
            raise EngineError(NOT_INSTALLED) from error
        core = ov.Core()
        capable = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if request.precision == "bfloat16" and "BF16" not in capable:
            raise EngineError(
                "this CPU has no bfloat16 arithmetic (AVX512-BF16 or AMX): choose another precision"
            )
        hint = HINTS[request.precision]
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": hint,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if request.threads:
            settings["INFERENCE_NUM_THREADS"] = request.threads
        self._version = ov.__version__.split("-")[0]
        self._precision = request.precision
        try:
            model = core.read_model(request.onnx_bytes)
            model.reshape({port: _shape(port, request.batch) for port in model.inputs})
            compiled = core.compile_model(model, "CPU", settings)
            used = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
            self._request: Any = compiled.create_infer_request()
            names = _names(request.onnx_bytes)
            self._inputs, self._outputs = (
                self._bind(ports, port_names, request.batch)
                for ports, port_names in zip(
                    (compiled.inputs, compiled.outputs), names, strict=True
                )
            )
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"OpenVINO cannot load this network: {error}") from error
        if used != hint:
            raise EngineError(
                f"OpenVINO would compute in {used} instead of {hint}: choose another precision or engine"
            )

    def _bind(self, ports: Any, names: list[str], batch: int) -> Buffers:
        import openvino as ov

        buffers = {}
        for port, name in zip(ports, names, strict=True):
            buffers[name] = np.zeros(_shape(port, batch), np.float32)
            self._request.set_tensor(port, ov.Tensor(buffers[name], shared_memory=True))
        return buffers

    def infer(self, inputs: Tensors) -> Buffers:
        """See `Engine.infer`."""
        if self._request is None:
            raise EngineError("the engine was closed")
        fill(self._inputs, inputs)
        try:
            self._request.infer()
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed on an image: {error}") from error
        return dict(self._outputs)

    def describe(self) -> EngineInfo:
        """Return engine, version, device and precision in use."""
        return EngineInfo("openvino", self._version, "cpu", self._precision)

    def close(self) -> None:
        """Release the request."""
        self._request = None


def _shape(port: Any, batch: int) -> tuple[int, ...]:
    sizes = [size.get_length() if size.is_static else None for size in port.get_partial_shape()]
    return fixed_shape(sizes, batch)


def _names(onnx_bytes: bytes) -> tuple[list[str], list[str]]:
    """Names of the network's inputs and outputs, in order. OpenVINO may rename them but keeps the order."""
    graph = onnx.load_model_from_string(onnx_bytes).graph
    weights = {weight.name for weight in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in weights]
    return inputs, [value.name for value in graph.output]
