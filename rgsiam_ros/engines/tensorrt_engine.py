"""TensorRT, and TensorRT for RTX, through their plain Python runtime: no torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from rgsiam_ros.engines.base import (
    Buffers,
    EngineInfo,
    EngineRequest,
    Tensors,
    fill,
    fixed_shape,
    refuse_precision,
)
from rgsiam_ros.engines.cache import EngineCache
from rgsiam_ros.engines.cuda import Stream
from rgsiam_ros.engines.tensorrt_build import BATCHES, COMPUTES, ONE, engine_key, load_library
from rgsiam_ros.errors import EngineError


class TensorRtEngine:
    """See `rgsiam_ros.engines.base.Engine`. Takes its engine from the cache; never builds one.

    Buffers are fixed, so the copies and the engine are captured as one CUDA graph where the engine
    allows it, else enqueued one by one.
    """

    def __init__(self, request: EngineRequest, name: str = "tensorrt") -> None:
        """name: ``tensorrt`` or ``tensorrt_rtx``. Raises EngineError, or EngineNotBuiltError."""
        refuse_precision(name, request.precision, COMPUTES[name])
        if request.batch > BATCHES[2]:
            raise EngineError(
                f"engines are built for batches up to {BATCHES[2]}, not {request.batch}"
            )
        self._trt = load_library(name)
        batches = ONE if request.batch == 1 else BATCHES
        key = engine_key(name, request.onnx_bytes, request.precision, batches)
        plan = EngineCache(request.cache).load(key)
        self._info = EngineInfo(name, key.library_version, key.gpu_name, request.precision)
        self._logger = self._trt.Logger(self._trt.Logger.ERROR)
        self._engine = self._trt.Runtime(self._logger).deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(f"{name} cannot load the engine it built: build it anew")
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(f"{name} has no memory for this engine on the GPU")
        self._stream = Stream()
        self._graph: Any = None
        self._inputs: Buffers = {}
        self._outputs: Buffers = {}
        self._device: dict[str, int] = {}
        try:
            for index in range(self._engine.num_io_tensors):
                self._bind(self._engine.get_tensor_name(index), request.batch)
            self._enqueue()  # once outside the graph: the first call sets things up
            self._stream.synchronize()
            self._graph = self._stream.capture(self._enqueue)
        except EngineError:
            self.close()
            raise

    def infer(self, inputs: Tensors) -> Buffers:
        """Named outputs for named inputs, in buffers that the next call overwrites."""
        if self._context is None:
            raise EngineError("the engine was closed")
        fill(self._inputs, inputs)
        if self._graph is None:
            self._enqueue()
        else:
            self._stream.launch(self._graph)
        self._stream.synchronize()
        return dict(self._outputs)

    def describe(self) -> EngineInfo:
        """Engine, version, device and precision in use."""
        return self._info

    def close(self) -> None:
        """Release the context and all memory."""
        if self._context is not None:
            self._context = self._engine = self._graph = None
            self._inputs, self._outputs = {}, {}
            self._stream.close()

    def _bind(self, name: str, batch: int) -> None:
        shape = fixed_shape(tuple(self._engine.get_tensor_shape(name)), batch)
        kind = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
        if kind != np.float32:
            raise EngineError(f"tensor {name} of the engine is {kind}, not float32: export anew")
        buffer = self._stream.pinned(shape, kind)
        self._device[name] = self._stream.device(buffer.nbytes)
        bound = self._context.set_tensor_address(name, self._device[name])
        if self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT:
            bound = bound and self._context.set_input_shape(name, shape)
            self._inputs[name] = buffer
        else:
            self._outputs[name] = buffer
        if not bound:
            raise EngineError(
                f"{self._info.name} does not take {name} of shape {shape}: build anew"
            )

    def _enqueue(self) -> None:
        for name, buffer in self._inputs.items():
            self._stream.upload(buffer, self._device[name])
        if not self._context.execute_async_v3(int(self._stream.handle)):
            raise EngineError(f"{self._info.name} failed on an image")
        for name, buffer in self._outputs.items():
            self._stream.download(self._device[name], buffer)
