"""The engines TensorRT and TensorRT for RTX, through NVIDIA's Python runtime, without torch."""

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
    """See `rgsiam_ros.engines.base.Engine`. The engine comes from the cache; it is never built here.

    The buffers are fixed. The copies and the inference are captured as one CUDA graph if the engine allows
    it, and enqueued one by one otherwise.
    """

    def __init__(self, request: EngineRequest, name: str = "tensorrt") -> None:
        """name: ``tensorrt`` or ``tensorrt_rtx``.

        Raises EngineNotBuiltError when the cache has no engine for this network, and EngineError.
        """
        refuse_precision(name, request.precision, COMPUTES[name])
        if request.batch > BATCHES[2]:
            raise EngineError(
                f"engines are built for batches up to {BATCHES[2]}, not {request.batch}: choose a smaller "
                "batch"
            )
        self._trt = load_library(name)
        batches = ONE if request.batch == 1 else BATCHES
        key = engine_key(name, request.onnx_bytes, request.precision, batches)
        plan = EngineCache(request.cache).load(key)
        self._info = EngineInfo(name, key.library_version, key.gpu_name, request.precision)
        self._logger = self._trt.Logger(self._trt.Logger.ERROR)
        self._engine = self._trt.Runtime(self._logger).deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(
                f"{name} cannot load the stored engine: build it again with `rgsiam engine build`"
            )
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(
                f"{name} has too little GPU memory for this engine: stop other programs on the GPU"
            )
        self._stream = Stream()
        self._graph: Any = None
        self._inputs: Buffers = {}
        self._outputs: Buffers = {}
        self._device: dict[str, int] = {}
        try:
            for index in range(self._engine.num_io_tensors):
                self._bind(self._engine.get_tensor_name(index), request.batch)
            self._enqueue()  # the first inference initializes the engine and must not be captured
            self._stream.synchronize()
            self._graph = self._stream.capture(self._enqueue)
        except EngineError:
            self.close()
            raise

    def infer(self, inputs: Tensors) -> Buffers:
        """See `Engine.infer`."""
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
        """Return engine, version, device and precision in use."""
        return self._info

    def close(self) -> None:
        """Release the context and all memory."""
        if self._context is not None:
            self._context = self._engine = self._graph = None
            self._inputs, self._outputs = {}, {}
            self._stream.close()

    def _bind(self, name: str, batch: int) -> None:
        shape = fixed_shape(tuple(self._engine.get_tensor_shape(name)), batch)
        dtype = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
        if dtype != np.float32:
            raise EngineError(
                f"tensor {name} of the engine is {dtype}, not float32: export the bundle again"
            )
        buffer = self._stream.pinned(shape, dtype)
        self._device[name] = self._stream.device(buffer.nbytes)
        bound = self._context.set_tensor_address(name, self._device[name])
        if self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT:
            bound = bound and self._context.set_input_shape(name, shape)
            self._inputs[name] = buffer
        else:
            self._outputs[name] = buffer
        if not bound:
            raise EngineError(
                f"{self._info.name} does not take {name} of shape {shape}: build the engine again with "
                "`rgsiam engine build`"
            )

    def _enqueue(self) -> None:
        for name, buffer in self._inputs.items():
            self._stream.upload(buffer, self._device[name])
        if not self._context.execute_async_v3(int(self._stream.handle)):
            raise EngineError(f"{self._info.name} failed on an image")
        for name, buffer in self._outputs.items():
            self._stream.download(self._device[name], buffer)
