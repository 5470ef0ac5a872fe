"""Build the TensorRT engines of a bundle for this machine's GPU, before they are needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.bundle.precision import Precision
from rgsiam_ros.engines import cuda
from rgsiam_ros.engines.base import EngineRequest
from rgsiam_ros.engines.cache import BuiltByProvider, EngineCache
from rgsiam_ros.engines.served import ServedNetwork
from rgsiam_ros.engines.tensorrt_build import (
    BATCHES,
    ONE,
    BuildProgress,
    build_engine,
    engine_key,
    load_library,
)


def build_for_bundle(
    bundle: Bundle,
    network: ServedNetwork,
    engine: str,
    precision: Precision,
    *,
    batch: bool = False,
    cache: Path | None = None,
    progress: Callable[[str], BuildProgress] = lambda _: lambda *_: None,
) -> Path:
    """Build the network in `precision` and store the engine.

    batch: build it for batches of 1 to 32 instead of single images (with ONNX Runtime's
    provider: for batches of 8); progress: called with the file name of the network, returns the function that
    receives the build steps. An existing engine is built again. Returns the path of the engine.

    Raises EngineError when a library or the GPU is missing, a network cannot be read, or the folder cannot be
    written.
    """
    bundle.check_offered(network.offered, precision)
    name, batches = network.file(precision), BATCHES if batch else ONE
    if engine != "onnxruntime_tensorrt":
        load_library(engine)
    cuda.gpu()
    EngineCache(cache).prepare()
    onnx_bytes = bundle.content(name)
    if engine == "onnxruntime_tensorrt":
        return _build_by_provider(onnx_bytes, precision, batches[1], cache)
    key = engine_key(engine, onnx_bytes, precision, batches)
    built = build_engine(engine, onnx_bytes, precision, batches, progress(name))
    return EngineCache(cache).store(key, built, f"{engine} {key.library_version} from ONNX")


def _build_by_provider(
    onnx_bytes: bytes, precision: Precision, batch: int, cache: Path | None
) -> Path:
    from rgsiam_ros.engines.onnxruntime_engine import OnnxRuntimeEngine, provider_folder

    request = EngineRequest(onnx_bytes, precision, 0, batch, cache)
    OnnxRuntimeEngine(request, "onnxruntime_tensorrt", build=True).close()
    folder: BuiltByProvider = provider_folder(request)
    return folder.folder
