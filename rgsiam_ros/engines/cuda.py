"""Access to the functions of the CUDA runtime that engines need, through NVIDIA's cuda-python."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.errors import EngineError

NOT_INSTALLED = (
    "cuda-python is not installed: pip install 'cuda-python' for the version of your CUDA, on JetPack 6 "
    "'cuda-python==12.6.*'"
)


def runtime() -> Any:
    """Return the module of CUDA runtime functions. Raises EngineError when it is not installed."""
    try:
        from cuda.bindings import runtime as module
    except ImportError:
        try:
            from cuda import cudart as module  # its name before 12.8
        except ImportError as error:
            raise EngineError(NOT_INSTALLED) from error
    return module


def call(function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
    """Call a runtime function and return its result without the status.

    Raises EngineError when the status is an error.
    """
    try:
        status, *values = function(*arguments)
    except RuntimeError as error:  # the driver library is missing
        raise EngineError(f"CUDA cannot be used ({error}): install the NVIDIA driver") from error
    if int(status) != 0:
        name = getattr(function, "__name__", "CUDA")
        raise EngineError(f"{name} failed: {getattr(status, 'name', status)}")
    return values[0] if len(values) == 1 else values


def gpu() -> tuple[str, str]:
    """Return name and compute capability of the first GPU. Raises EngineError when there is none."""
    rt = runtime()
    try:
        count = call(rt.cudaGetDeviceCount)
    except EngineError as error:
        raise EngineError(f"no CUDA GPU can be used: {error}") from error
    if not count:
        raise EngineError("no CUDA GPU was found: check the driver, or --gpus of a container")
    properties = call(rt.cudaGetDeviceProperties, 0)
    name = properties.name
    text = name.decode() if isinstance(name, bytes) else str(name)
    return text.rstrip("\0"), f"{properties.major}.{properties.minor}"


class Stream:
    """A CUDA stream and its buffers."""

    def __init__(self) -> None:
        self._rt = runtime()
        self.handle = call(self._rt.cudaStreamCreate)
        self._graph: Any = None
        self._pinned: list[int] = []
        self._device: list[int] = []

    def pinned(self, shape: Sequence[int], dtype: np.dtype) -> NDArray:
        """Allocate page-locked host memory as an array of zeros. Copies from it need no staging buffer."""
        size = int(np.prod(shape)) * dtype.itemsize
        pointer = int(call(self._rt.cudaHostAlloc, size, self._rt.cudaHostAllocDefault))
        self._pinned.append(pointer)
        memory = (ctypes.c_byte * size).from_address(pointer)
        array: NDArray = np.frombuffer(memoryview(memory), dtype).reshape(shape)
        array[...] = 0
        return array

    def device(self, size: int) -> int:
        """Allocate `size` bytes of device memory and return the address."""
        pointer = int(call(self._rt.cudaMalloc, size))
        self._device.append(pointer)
        return pointer

    def upload(self, host: NDArray, device: int) -> None:
        """Enqueue a copy from the host to the device."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        call(self._rt.cudaMemcpyAsync, device, host.ctypes.data, host.nbytes, kind, self.handle)

    def download(self, device: int, host: NDArray) -> None:
        """Enqueue a copy from the device to the host."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        call(self._rt.cudaMemcpyAsync, host.ctypes.data, device, host.nbytes, kind, self.handle)

    def synchronize(self) -> None:
        """Wait for all work in the stream. Raises EngineError when some of it failed."""
        call(self._rt.cudaStreamSynchronize, self.handle)

    def capture(self, work: Callable[[], None]) -> Any:
        """Capture the work that `work` enqueues as a CUDA graph. Returns None when it cannot be captured."""
        mode = self._rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call(self._rt.cudaStreamBeginCapture, self.handle, mode)
        graph = None
        try:
            work()
            graph = call(self._rt.cudaStreamEndCapture, self.handle)
            self._graph = call(self._rt.cudaGraphInstantiate, graph, 0)
        except EngineError:  # the work cannot be captured; the caller enqueues it each time
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
        """Release graph, buffers and stream. Errors are ignored."""
        if self._graph is not None:
            self._rt.cudaGraphExecDestroy(self._graph)
        for pointer in self._device:
            self._rt.cudaFree(pointer)
        for pointer in self._pinned:
            self._rt.cudaFreeHost(pointer)
        self._device, self._pinned, self._graph = [], [], None
        self._rt.cudaStreamDestroy(self.handle)
