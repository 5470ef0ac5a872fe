"""TensorRT: engines are really built by TensorRT for RTX, which needs no GPU for a build.

Running an engine is tested with test doubles of TensorRT and CUDA, which follow their documentation.
docs/engines.md lists what was run on devices.
"""

import ctypes
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.bundles import colour_absolute
from support.paths import TOWN_BUNDLE

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.bundle.precision import local_features_name
from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_ros.engines import EngineRequest, create_engine
from rgsiam_ros.engines.availability import why_not
from rgsiam_ros.engines.build import build_for_bundle
from rgsiam_ros.engines.cache import EngineCache
from rgsiam_ros.engines.served import absolute_network
from rgsiam_ros.engines.tensorrt_build import BATCHES, build_engine, engine_key, load_library
from rgsiam_ros.errors import EngineError, EngineNotBuiltError
from rgsiam_ros.features.network import network_for


@pytest.fixture(scope="module")
def rtx():
    return pytest.importorskip(
        "tensorrt_rtx", reason="TensorRT for RTX has wheels for x86-64 Linux and Windows only"
    )


@pytest.fixture(scope="module")
def town():
    return Bundle.load(TOWN_BUNDLE)


class Steps(list):
    def __call__(self, phase, done, steps):
        self.append((phase, done, steps))


@pytest.mark.parametrize("name", ["absolute.onnx", "local_features.onnx"])
def test_the_whole_graph_is_supported(rtx, town, name):
    logger = rtx.Logger(rtx.Logger.ERROR)
    builder = rtx.Builder(logger)
    strongly = 1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(strongly)  # keep a reference: the parser holds none
    parser = rtx.OnnxParser(network, logger)
    assert parser.supports_model_v2(town.content(name))
    assert parser.num_subgraphs == 1
    assert parser.is_subgraph_supported(0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["absolute.onnx", "local_features.onnx"])
def test_polygraphy_reports_full_support(rtx, name):
    pytest.importorskip("polygraphy")
    environment = {**os.environ, "POLYGRAPHY_USE_TENSORRT_RTX": "1"}
    program = Path(sys.executable).parent / "polygraphy"
    command = [str(program), "inspect", "capability"]
    done = subprocess.run(
        [*command, str(TOWN_BUNDLE / name)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Graph is fully supported by TensorRT" in done.stdout


@pytest.mark.slow
def test_the_local_features_build_in_half_precision(rtx):
    size = Preprocessing(input_width=512, input_height=288)
    full, half = (
        build_engine("tensorrt_rtx", network_for(size, local_features_name(p)), p)
        for p in ("float32", "float16")
    )
    assert 0.3 * len(full) < len(half) < 0.9 * len(full)


@pytest.mark.slow
def test_a_network_is_built_with_progress_and_a_batch_profile(rtx, town):
    steps = Steps()
    engine = build_engine("tensorrt_rtx", town.absolute_onnx(), "float32", BATCHES, steps)
    assert len(engine) > 1e6
    assert steps
    assert all(0 < done <= of for _, done, of in steps)


def test_int8_does_not_build_for_rtx(rtx, town):
    with pytest.raises(EngineError, match="tensorrt_rtx does not compute in int8_symmetric, only"):
        build_engine("tensorrt_rtx", town.absolute_onnx(), "int8_symmetric")
    with pytest.raises(
        EngineError, match="tensorrt_rtx cannot read this network: .*QuantizeLinear"
    ):
        build_engine("tensorrt_rtx", town.absolute_onnx("int8"), "float32")


def test_invalid_bytes_give_the_error_of_the_parser(rtx):
    with pytest.raises(EngineError, match="tensorrt_rtx cannot read this network: .+"):
        build_engine("tensorrt_rtx", b"not a network", "float32")


@pytest.mark.skipif(not why_not("tensorrt_rtx"), reason="there is a GPU here")
def test_a_missing_gpu_is_an_error(rtx, town, tmp_path):
    for action in (
        lambda: create_engine("tensorrt_rtx", EngineRequest(town.absolute_onnx(), cache=tmp_path)),
        lambda: build_for_bundle(
            town, absolute_network(town), "tensorrt_rtx", "float32", cache=tmp_path
        ),
    ):
        with pytest.raises(EngineError, match="no CUDA GPU"):
            action()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (None, "TensorRT is not installed for this Python: on a Jetson install python3-libnvinfer"),
        (SimpleNamespace(), "the installed package has no libraries"),
        (
            SimpleNamespace(__version__="8.6.2", Builder=object),
            r"tensorrt 8\.6\.2 is too old: install 10 or newer .on a Jetson, JetPack 6\.1",
        ),
    ],
)
def test_missing_and_old_libraries(monkeypatch, module, message):
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(EngineError, match=message):
        load_library("tensorrt")
    with pytest.raises(EngineError, match=message):
        create_engine("tensorrt", EngineRequest(colour_absolute()))


def test_missing_cuda_python(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRt())
    monkeypatch.setitem(sys.modules, "cuda", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(EngineError, match=r"cuda-python is not installed: pip install .*12\.6"):
        create_engine("tensorrt", EngineRequest(colour_absolute()))


# Test doubles of TensorRT and of the CUDA runtime. "Device" memory is host memory, and the engine multiplies
# its input by two. Captured work runs when the graph is launched, other work runs at once.


class FakeCuda:
    cudaHostAllocDefault = 0
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self, way="graph"):
        self.allocated, self.launches, self.way = {}, 0, way
        self.captured = None

    def do(self, work):
        self.captured.append(work) if self.captured is not None else work()
        return (0,)

    def cudaGetDeviceCount(self):
        return 0, 1

    def cudaGetDeviceProperties(self, index):
        return 0, SimpleNamespace(name=b"Fake GPU\0\0", major=8, minor=7)

    def cudaStreamCreate(self):
        return 0, 7

    def cudaMalloc(self, size):
        memory = ctypes.create_string_buffer(size)
        self.allocated[ctypes.addressof(memory)] = memory
        return 0, ctypes.addressof(memory)

    def cudaHostAlloc(self, size, flags):
        return self.cudaMalloc(size)

    def cudaMemcpyAsync(self, to, source, size, kind, stream):
        return self.do(lambda: ctypes.memmove(to, source, size))

    def cudaStreamSynchronize(self, stream):
        return (0,)

    def cudaStreamBeginCapture(self, stream, mode):
        self.captured = []
        return (0,)

    def cudaStreamEndCapture(self, stream):
        graph, self.captured = self.captured, None
        return (901, None) if self.way == "not ended" else (0, graph)

    def cudaGetLastError(self):
        return (0,)

    def cudaGraphDestroy(self, graph):
        return (0,)

    cudaGraphExecDestroy = cudaGraphDestroy

    def cudaGraphInstantiate(self, graph, flags):
        return 0, graph

    def cudaGraphLaunch(self, graph, stream):
        self.launches += 1
        for work in graph:
            work()
        return (0,)

    def cudaFree(self, pointer):
        del self.allocated[pointer]
        return (0,)

    cudaFreeHost = cudaFree

    def cudaStreamDestroy(self, stream):
        return (0,)


class FakeTensorRt:
    __version__ = "10.3.0"
    Builder = object
    TensorIOMode = SimpleNamespace(INPUT=0, OUTPUT=1)

    def __init__(self, cuda=None):
        self.cuda, self.addresses, self.shapes = cuda, {}, {}

    class Logger:
        ERROR = 1

        def __init__(self, severity):
            pass

    def Runtime(self, logger):
        return self

    def deserialize_cuda_engine(self, plan):
        return self if plan == b"plan" else None

    num_io_tensors = 2

    def get_tensor_name(self, index):
        return ("image", "double")[index]

    def get_tensor_shape(self, name):
        return (-1, 3)

    def get_tensor_dtype(self, name):
        return np.float32

    def nptype(self, dtype):
        return dtype

    def get_tensor_mode(self, name):
        return int(name != "image")

    def create_execution_context(self):
        return self

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape
        return True

    def execute_async_v3(self, stream):
        if self.cuda.captured is not None and self.cuda.way == "not captured":
            return False

        def run():
            size = int(np.prod(self.shapes["image"]))
            image, doubled = (
                np.ctypeslib.as_array((ctypes.c_float * size).from_address(self.addresses[n]))
                for n in ("image", "double")
            )
            doubled[:] = 2.0 * image

        self.cuda.do(run)
        return True


@pytest.fixture(params=["graph", "not ended", "not captured"])
def device(request, monkeypatch):
    fake = FakeCuda(request.param)
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRt(fake))
    monkeypatch.setattr("rgsiam_ros.engines.cuda.runtime", lambda: fake)
    return fake


@pytest.mark.parametrize("batch", [1, 8])
def test_an_engine_runs_with_test_doubles(device, tmp_path, batch):
    network = colour_absolute()
    request = EngineRequest(network, "float16", batch=batch, cache=tmp_path / "cache")
    with pytest.raises(
        EngineNotBuiltError, match="no engine is built for this network: run `rgsiam engine b"
    ):
        create_engine("tensorrt", request)
    assert not (tmp_path / "cache").exists()  # a start builds nothing
    batches = (1, 1, 1) if batch == 1 else BATCHES
    key = engine_key("tensorrt", network, "float16", batches)
    assert (key.gpu_name, key.compute_capability) == ("Fake GPU", "8.7")
    EngineCache(request.cache).store(key, b"plan", "test")
    engine = create_engine("tensorrt", request)
    for value in (1.0, 3.0):
        answer = engine.infer({"image": np.full((batch, 3), value, np.float32)})
        np.testing.assert_array_equal(answer["double"], np.full((batch, 3), 2.0 * value))
    assert device.launches == (2 if device.way == "graph" else 0)
    info = engine.describe()
    assert (info.name, info.version, info.device) == ("tensorrt", "10.3.0", "Fake GPU")
    assert info.precision == "float16"
    engine.close()
    assert not device.allocated
    with pytest.raises(EngineError, match="closed"):
        engine.infer({"image": np.zeros((batch, 3), np.float32)})
    with pytest.raises(EngineError, match="batches up to 32, not 33"):
        create_engine("tensorrt", replace(request, batch=33))
    EngineCache(request.cache).store(key, b"other", "test")
    with pytest.raises(EngineError, match="cannot load the stored engine: build it again"):
        create_engine("tensorrt", request)
