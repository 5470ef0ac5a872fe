"""Build a TensorRT engine from the ONNX bytes of a network, on the machine that will run it.

The code is for TensorRT (10 and newer) and for TensorRT for RTX. Networks are strongly typed: the graph fixes
the number format of every layer, and TensorRT may not choose another.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from rgsiam_ros.bundle.precision import Precision
from rgsiam_ros.engines import cuda
from rgsiam_ros.engines.base import refuse_precision
from rgsiam_ros.engines.cache import EngineKey, network_digest
from rgsiam_ros.errors import EngineError

OLDEST = {"tensorrt": 10, "tensorrt_rtx": 1}
"""Oldest supported major version of each library."""
COMPUTES: dict[str, tuple[Precision, ...]] = {
    "tensorrt": ("float32", "float16", "int8_symmetric"),
    "tensorrt_rtx": ("float32", "float16"),
}
NOT_INSTALLED = {
    "tensorrt": "TensorRT is not installed for this Python: on a Jetson install python3-libnvinfer "
    "(JetPack 6.1 or later), elsewhere pip install tensorrt",
    "tensorrt_rtx": "TensorRT for RTX is not installed: pip install tensorrt-rtx",
}
ONE = (1, 1, 1)
"""Batch sizes of an engine for single images."""
BATCHES = (1, 8, 32)
"""Smallest, usual and largest batch size of an engine for offline replay."""
WORKSPACE_BYTES = 1 << 30

BuildProgress = Callable[[str, int, int], None]
"""Called with the name of a build phase, its number of finished steps, and its total number of steps."""


def load_library(name: str) -> Any:
    """Import ``tensorrt`` or ``tensorrt_rtx``. Raises EngineError when it is missing or too old."""
    try:
        library = import_module(name)
    except ImportError as error:
        raise EngineError(f"{NOT_INSTALLED[name]} ({error})") from error
    version = str(getattr(library, "__version__", ""))  # the stub packages on PyPI have none
    if not version or not hasattr(library, "Builder"):
        raise EngineError(f"{NOT_INSTALLED[name]} (the installed package has no libraries)")
    if int(version.split(".", maxsplit=1)[0]) < OLDEST[name]:
        raise EngineError(
            f"{name} {version} is too old: install {OLDEST[name]} or newer (on a Jetson, JetPack 6.1 or "
            "later)"
        )
    return library


def engine_key(
    library: str, onnx_bytes: bytes, precision: Precision, batches: tuple[int, int, int]
) -> EngineKey:
    """Return the cache key of a network's engine on this machine.

    Raises EngineError when the library or a GPU is missing.
    """
    version = load_library(library).__version__
    name, capability = cuda.gpu()
    digest = network_digest(onnx_bytes)
    return EngineKey(digest, library, version, name, capability, precision, batches)


def build_engine(
    library: str,
    onnx_bytes: bytes,
    precision: Precision,
    batches: tuple[int, int, int] = ONE,
    progress: BuildProgress | None = None,
) -> bytes:
    """Build and serialize an engine.

    library: ``tensorrt`` or ``tensorrt_rtx``; batches: smallest, usual and largest batch size, for networks
    with an open batch dimension. Raises EngineError with the messages of the parser or the builder.
    """
    refuse_precision(library, precision, COMPUTES[library])
    trt = load_library(library)
    logger = _collecting_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx_bytes):
        errors = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        raise EngineError(f"{library} cannot read this network: {'; '.join(errors)}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    if hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)  # TF32 has a shorter mantissa than float32
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    if any(-1 in tuple(value.shape) for value in inputs):
        profile = builder.create_optimization_profile()
        for value in inputs:
            shapes = [[b if s == -1 else s for s in value.shape] for b in batches]
            profile.set_shape(value.name, *shapes)
        config.add_optimization_profile(profile)
    if progress is not None:
        config.progress_monitor = _monitor(trt, progress)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise EngineError(f"{library} could not build an engine: {'; '.join(logger.errors[-3:])}")
    return bytes(engine)


def _strongly_typed(trt: Any) -> int:
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    if flag is None:  # newer libraries have no flag, because all their networks are strongly typed
        return 0
    return 1 << int(flag)


def _collecting_logger(trt: Any) -> Any:
    class Logger(trt.ILogger):
        """Collects errors for our message instead of printing them."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(message)

    return Logger()


def _monitor(trt: Any, progress: BuildProgress) -> Any:
    class Monitor(trt.IProgressMonitor):
        """Reports the builder's steps to `progress`."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            del parent
            self._steps[name] = steps

        def step_complete(self, name: str, step: int) -> bool:
            progress(name, step + 1, self._steps.get(name, step + 1))
            return True

        def phase_finish(self, name: str) -> None:
            steps = self._steps.pop(name, 1)
            progress(name, steps, steps)

    return Monitor()
