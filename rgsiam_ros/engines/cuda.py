"""The little of the CUDA runtime that an engine needs, through NVIDIA's cuda-python."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.errors import EngineError

NOT_INSTALLED = (
    "cuda-python is not installed: pip install 'cuda-python' of your CUDA's version, on JetPack 6 "
    "'cuda-python==12.6.*'"
)


def runtime() -> Any:
    """The module of CUDA runtime functions. Raises EngineError where it is not installed."""
    try:
        from cuda.bindings import runtime as module
    except ImportError:
        try:
            from cuda import cudart as module  # before 12.8 under this name
        except ImportError as error:
            raise EngineError(NOT_INSTALLED) from error
    return module


def call(function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
    """A runtime function's result without its status. Raises EngineError when that is an error."""
    try:
        status, *values = function(*arguments)
    except RuntimeError as error:  # no driver library at all
        raise EngineError(
            f"CUDA cannot be used ({error}): is the NVIDIA driver installed?"
        ) from error
    if int(status) != 0:
        name = getattr(function, "__name__", "CUDA")
        raise EngineError(f"{name} failed: {getattr(status, 'name', status)}")
    return values[0] if len(values) == 1 else values


def gpu() -> tuple[str, str]:
    """Name and compute capability of the first GPU. Raises EngineError where there is none."""
    rt = runtime()
    try:
        count = call(rt.cudaGetDeviceCount)
    except EngineError as error:
        raise EngineError(f"no CUDA GPU can be used: {error}") from error
    if not count:
        raise EngineError("no CUDA GPU was found")
    properties = call(rt.cudaGetDeviceProperties, 0)
    name = properties.name
    text = name.decode() if isinstance(name, bytes) else str(name)
    return text.rstrip("\0"), f"{properties.major}.{properties.minor}"


class Stream:
    """A stream, and the buffers used on it."""

    def __init__(self) -> None:
        self._rt = runtime()
        self.handle = call(self._rt.cudaStreamCreate)
        self._graph: Any = None
        self._pinned: list[int] = []
        self._device: list[int] = []

    def pinned(self, shape: Sequence[int], dtype: np.dtype) -> NDArray:
        """Page-locked host memory as an array of zeros: copies from it need no staging."""
        size = int(np.prod(shape)) * dtype.itemsize
        pointer = int(call(self._rt.cudaHostAlloc, size, self._rt.cudaHostAllocDefault))
        self._pinned.append(pointer)
        memory = (ctypes.c_byte * size).from_address(pointer)
        array: NDArray = np.frombuffer(memoryview(memory), dtype).reshape(shape)
        array[...] = 0
        return array

    def device(self, size: int) -> int:
        """Address of device memory."""
        pointer = int(call(self._rt.cudaMalloc, size))
        self._device.append(pointer)
        return pointer

    def upload(self, host: NDArray, device: int) -> None:
        """Copy to the device, in the stream's order."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        call(self._rt.cudaMemcpyAsync, device, host.ctypes.data, host.nbytes, kind, self.handle)

    def download(self, device: int, host: NDArray) -> None:
        """Copy from the device, in the stream's order."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        call(self._rt.cudaMemcpyAsync, host.ctypes.data, device, host.nbytes, kind, self.handle)

    def synchronize(self) -> None:
        """Wait for everything in the stream. Raises EngineError for what failed in it."""
        call(self._rt.cudaStreamSynchronize, self.handle)

    def capture(self, work: Callable[[], None]) -> Any:
        """A CUDA graph of what `work` enqueues, ready to be launched; None where it cannot be."""
        mode = self._rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call(self._rt.cudaStreamBeginCapture, self.handle, mode)
        graph = None
        try:
            work()
            graph = call(self._rt.cudaStreamEndCapture, self.handle)
            self._graph = call(self._rt.cudaGraphInstantiate, graph, 0)
        except EngineError:  # what is enqueued cannot be captured: the stream has to do
            if graph is None:
                self._rt.cudaStreamEndCapture(self.handle)
            self._rt.cudaGetLastError()
        finally:
            if graph is not None:
                self._rt.cudaGraphDestroy(graph)
        return self._graph

    def launch(self, graph: Any) -> None:
        """Run a captured graph."""
        call(self._rt.cudaGraphLaunch, graph, self.handle)

    def close(self) -> None:
        """Release graph, buffers and stream; what fails by now is of no consequence."""
        if self._graph is not None:
            self._rt.cudaGraphExecDestroy(self._graph)
        for pointer in self._device:
            self._rt.cudaFree(pointer)
        for pointer in self._pinned:
            self._rt.cudaFreeHost(pointer)
        self._device, self._pinned, self._graph = [], [], None
        self._rt.cudaStreamDestroy(self.handle)
