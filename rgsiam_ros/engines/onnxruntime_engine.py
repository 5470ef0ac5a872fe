"""The ONNX Runtime engine, on the CPU or, with a build that has the GPU providers, on a GPU."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnxruntime as ort

from rgsiam_ros.engines import cuda
from rgsiam_ros.engines.base import (
    Buffers,
    EngineInfo,
    EngineRequest,
    Tensors,
    fill,
    fixed_shape,
    refuse_precision,
)
from rgsiam_ros.engines.cache import BuiltByProvider, network_digest
from rgsiam_ros.errors import EngineError

ERRORS_ONLY = 3
BATCH_DIMENSION = "batch"
PROVIDERS = {
    "onnxruntime": "CPUExecutionProvider",
    "onnxruntime_cuda": "CUDAExecutionProvider",
    "onnxruntime_tensorrt": "TensorrtExecutionProvider",
}
COMPUTES = {
    "onnxruntime": ("float32", "float16", "int8", "int8_symmetric"),
    "onnxruntime_cuda": ("float32", "float16"),
    "onnxruntime_tensorrt": ("float32",),
}
UNWANTED_OPTIMIZER = "WeightBiasQuantization"
"""An optimizer of ONNX Runtime (seen in 1.32). It quantises a convolution between quantised tensors, with one
scale for all channels, even if the export kept this convolution in float32."""
CUDA_OPTIONS = {"use_tf32": "0"}
SPINNING = "session.intra_op.allow_spinning"
"""Option that lets idle threads wait in a busy loop. This would take CPU time from other programs and from
the threads of the other network, see docs/latency.md."""


class OnnxRuntimeEngine:
    """See `rgsiam_ros.engines.base.Engine`."""

    def __init__(self, request: EngineRequest, name: str = "onnxruntime", *, build: bool = False):
        """name: a key of `PROVIDERS`; build: let the TensorRT provider build its engine again.

        Raises EngineError, or EngineNotBuiltError when the TensorRT provider has no engine for this network.
        """
        refuse_precision(name, request.precision, COMPUTES[name])
        provider = refuse_missing_provider(name)
        self._name, self._precision = name, request.precision
        options = ort.SessionOptions()
        options.intra_op_num_threads = request.threads or _threads_of_restricted_process()
        options.log_severity_level = ERRORS_ONLY
        options.add_session_config_entry(SPINNING, "0")
        options.add_free_dimension_override_by_name(BATCH_DIMENSION, request.batch)
        providers, built = _with_options(provider, request, build=build)
        try:
            session = ort.InferenceSession(
                request.onnx_bytes,
                options,
                providers=providers,
                disabled_optimizers=[UNWANTED_OPTIMIZER],
            )
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise EngineError(f"ONNX Runtime cannot load this network: {error}") from error
        if session.get_providers()[0] != provider:
            raise EngineError(
                f"ONNX Runtime could not start {provider} and chose {session.get_providers()[0]} "
                "instead: check the driver and the CUDA libraries"
            )
        if built is not None and build:
            built.keep()
        self._session: ort.InferenceSession | None = session
        self._inputs = _buffers(session.get_inputs(), request.batch)
        self._outputs = _buffers(session.get_outputs(), request.batch)
        self._binding = session.io_binding()
        for bind, buffers in (
            (self._binding.bind_input, self._inputs),
            (self._binding.bind_output, self._outputs),
        ):
            for label, array in buffers.items():
                bind(label, "cpu", 0, np.float32, array.shape, array.ctypes.data)

    def infer(self, inputs: Tensors) -> Buffers:
        """See `Engine.infer`."""
        if self._session is None:
            raise EngineError("the engine was closed")
        fill(self._inputs, inputs)
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise EngineError(f"ONNX Runtime failed on an image: {error}") from error
        return dict(self._outputs)

    def describe(self) -> EngineInfo:
        """Return engine, version, device and precision in use."""
        device = "cpu" if self._name == "onnxruntime" else _gpu_name()
        return EngineInfo(self._name, ort.__version__, device, self._precision)

    def close(self) -> None:
        """Release the session."""
        self._session = None
        self._binding = None


def refuse_missing_provider(name: str) -> str:
    """Return the provider of an engine. Raises EngineError when this build of ONNX Runtime lacks it."""
    provider = PROVIDERS[name]
    if provider not in ort.get_available_providers():
        raise EngineError(
            f"this build of ONNX Runtime has no {provider}: install onnxruntime-gpu (on a Jetson, from "
            "NVIDIA's index for your JetPack)"
        )
    return provider


def _gpu_name() -> str:
    try:
        return cuda.gpu()[0]
    except EngineError:
        return "cuda"


def provider_folder(request: EngineRequest) -> BuiltByProvider:
    """Return the folder of the TensorRT provider's engine for a request. Raises EngineError without a GPU."""
    digest = network_digest(request.onnx_bytes)[:16]
    gpu = "-".join(cuda.gpu()).replace(" ", "_")
    name = f"ort{ort.__version__}-{gpu}-{digest}-{request.precision}-{request.batch}"
    return BuiltByProvider(request.cache, name)


def _buffers(values: list[Any], batch: int) -> Buffers:
    return {v.name: np.zeros(fixed_shape(v.shape, batch), np.float32) for v in values}


def _with_options(
    provider: str, request: EngineRequest, *, build: bool
) -> tuple[list[Any], BuiltByProvider | None]:
    """The provider with its options and fallbacks, and for TensorRT the folder of its engine."""
    if provider == PROVIDERS["onnxruntime"]:
        return [provider], None
    if provider == PROVIDERS["onnxruntime_cuda"]:
        return [(provider, CUDA_OPTIONS), PROVIDERS["onnxruntime"]], None
    built = provider_folder(request)
    if build:
        built.empty()
    else:
        built.refuse_missing()
    options = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(built.folder),
    }
    fallbacks = [(PROVIDERS["onnxruntime_cuda"], CUDA_OPTIONS), PROVIDERS["onnxruntime"]]
    return [(provider, options), *fallbacks], built


def _threads_of_restricted_process() -> int:
    """Number of CPUs that this process may use, or 0 (the default) when it may use all.

    ONNX Runtime would start one thread for each CPU of the machine.
    """
    allowed = len(os.sched_getaffinity(0))
    return allowed if allowed < (os.cpu_count() or 1) else 0
