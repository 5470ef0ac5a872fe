"""What torch-tensorrt makes of the networks; no GPU is needed.

Torch-tensorrt changes the process that imports it (an operator library, a stand-in for the package
`tensorrt`), so all that needs it runs in a process apart. Without a GPU it is told of one there.
"""

import os.path
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing import get_context
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_ros.bundle import network_io
from rgsiam_ros.bundle.golden import ABSOLUTE_OUTPUTS
from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_ros.engines import cuda
from rgsiam_ros.engines.cache import EngineCache
from rgsiam_ros.engines.tensorrt_build import engine_key
from rgsiam_ros.errors import EngineError
from rgsiam_training.config import NetworkConfig
from rgsiam_training.export import tensorrt_export
from rgsiam_training.export.tensorrt_export import (
    RELATIVE_INPUTS,
    absolute_program,
    compile_for_this_gpu,
    relative_program,
    with_half_convolutions,
)
from rgsiam_training.model.network import AbsoluteBranch, RelativeBranch, SiameseNetwork

needs_torch_tensorrt = pytest.mark.skipif(
    find_spec("torch_tensorrt") is None, reason="torch-tensorrt has no package for this platform"
)
HEIGHT, WIDTH = 64, 96
SIZE = Preprocessing(input_width=WIDTH, input_height=HEIGHT)
SMALL = NetworkConfig(backbone="resnet18", pretrained=False, neck_channels=8, feature_size=32)
OUTPUTS = ABSOLUTE_OUTPUTS
NETWORKS = [
    ("absolute", "resnet18", "6d"),
    ("absolute", "resnet50", "quaternion"),
    ("absolute", "tf_efficientnet_lite0", "log_quaternion"),
    ("absolute in half", "resnet18", "log_quaternion"),
    ("absolute in half", "tf_efficientnet_lite0", "6d"),
    ("relative", "resnet18", "6d"),
]
COMPILED = [
    ("absolute.onnx", "float32"),
    ("absolute.float16.onnx", "float16"),
    ("relative.onnx", "float32"),
]


def siamese(backbone="resnet18", rotation="quaternion", iterations=6):
    relative = SMALL.relative.model_copy(update={"iterations": iterations})
    changed = {"backbone": backbone, "rotation": rotation, "relative": relative}
    config = SMALL.model_copy(update=changed)
    anchors = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    ray_HW2 = torch.rand(HEIGHT // 8, WIDTH // 8, 2)
    return SiameseNetwork(config, HEIGHT, WIDTH, anchors, ray_HW2, reach=0.5).eval()


def local_shape(network):
    with torch.no_grad():
        return network(torch.zeros(1, 3, HEIGHT, WIDTH)).local_BCHW.shape[1:]


def program(kind, backbone, rotation):
    network = siamese(backbone, rotation)
    if kind == "relative":
        return relative_program(RelativeBranch(network.relative_unit), local_shape(network), 4)
    branch = AbsoluteBranch(network, OUTPUTS)
    return absolute_program(with_half_convolutions(branch) if "half" in kind else branch, SIZE)


class Crossing(torch.nn.Module):
    """With the operator for whose sake `rgsiam_training.model.rotation_outputs` writes products out."""

    def __init__(self):
        super().__init__()
        self.before, self.after = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)

    def forward(self, x):
        return self.after(torch.linalg.cross(self.before(x), self.before(2.0 * x)))


def crossing():
    return torch.export.export(Crossing().eval(), (torch.rand(2, 3),))


# What follows runs in the process apart.


@contextmanager
def torch_tensorrt():
    """Torch-tensorrt, with a GPU that is only said to be there where torch has none."""
    with pytest.MonkeyPatch.context() as patch:
        if not torch.cuda.is_available():
            patch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 9))
            patch.setattr(torch.cuda, "current_device", lambda: 0)
            patch.setattr(torch.cuda, "mem_get_info", lambda *_: (1 << 36, 1 << 36))
            patch.setattr(torch._C, "_CudaDeviceProperties", object, raising=False)
        with pytest.MonkeyPatch.context() as while_importing:
            if (
                torch.version.cuda is None
            ):  # its C++ library is linked to CUDA's torch; it does without
                is_file = os.path.isfile
                while_importing.setattr(
                    os.path, "isfile", lambda path: "libtorchtrt" not in str(path) and is_file(path)
                )
            import torch_tensorrt as imported
            from torch_tensorrt.dynamo import _compiler
        patch.setattr(_compiler, "to_torch_device", lambda _: torch.device("cpu"))
        yield imported, patch


def dry_run(make, *arguments):
    """Engines that would be made, operators not supported, nodes that would be left to torch."""
    found = []
    with torch_tensorrt() as (imported, patch):
        display = "torch_tensorrt.dynamo._compiler.dryrun_stats_display"
        patch.setattr(display, lambda tracker, _: found.append(tracker))
        exported = make(*arguments)
        options = tensorrt_export.OPTIONS | {"require_full_compilation": False, "dryrun": True}
        inputs = list(exported.example_inputs[0])
        imported.dynamo.compile(exported, arg_inputs=inputs, device="cuda:0", **options)
    (tracker,) = found
    assert tracker.total_ops_in_graph > 3
    return tracker.tensorrt_graph_count, dict(tracker.unsupported_ops), tracker.to_run_in_torch


def compile_all(cache):
    """Really compile, but do not load the engines: that alone needs a GPU.

    Returns what was reported, and for each engine its tensors, the precisions of its convolutions and
    of its matrix products, and whether the cache gives it back under the key of the runtime.
    """
    with torch_tensorrt() as (imported, patch):
        if imported.tensorrt_package_name != "tensorrt_rtx":
            return None
        plans, made, told = [], [], []
        watch(patch, plans, made)
        network = siamese(iterations=1)
        run = SimpleNamespace(
            preprocessing=SIZE,
            absolute_branch=lambda: AbsoluteBranch(network, OUTPUTS),
            relative_branch=lambda: RelativeBranch(network.relative_unit),
        )
        patch.setattr(tensorrt_export, "open_run", lambda _: run)
        refinement = SimpleNamespace(neighbours=2)
        bundle = SimpleNamespace(
            manifest=SimpleNamespace(
                precisions=("float32", "int8", "float16"), refinement=refinement
            ),
            content=lambda name: name.encode(),
            map_features=lambda: SimpleNamespace(local_NCHW=np.empty((2, *local_shape(network)))),
        )
        paths = compile_for_this_gpu(cache, bundle, told.append, cache)
        kept = [
            EngineCache(cache).load(engine_key("tensorrt_rtx", name.encode(), precision, (1, 1, 1)))
            for name, precision in COMPILED
        ]
    return told, [str(path) for path in paths], made, kept == plans


def watch(patch, plans, made):
    """Keep what is built instead of loading it, and describe each network before it is built."""
    import tensorrt
    from torch_tensorrt.dynamo.conversion import TRTInterpreter

    construct, compiler = TRTInterpreter._construct_trt_network_def, tensorrt_export.find_compiler

    def look_at(interpreter):
        construct(interpreter)
        made.append(described(interpreter.ctx.net, tensorrt))

    def loaded(plan):
        plans.append(bytes(plan))
        return SimpleNamespace(serialize=lambda: plan)

    def with_cuda():
        with pytest.MonkeyPatch.context() as there:  # for long it would mislead torch
            there.setattr(torch.cuda, "is_available", lambda: True)
            return compiler()

    runtime = SimpleNamespace(deserialize_cuda_engine=loaded)
    patch.setattr(TRTInterpreter, "_construct_trt_network_def", look_at)
    patch.setitem(vars(tensorrt), "Runtime", lambda _: runtime)
    patch.setattr(cuda, "gpu", lambda: ("Some GPU", "8.9"))
    patch.setattr(tensorrt_export, "find_compiler", with_cuda)


def described(network, tensorrt):
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    kinds = [
        {layer.get_output(0).dtype.name for layer in layers if layer.type == kind}
        for kind in (tensorrt.LayerType.CONVOLUTION, tensorrt.LayerType.MATRIX_MULTIPLY)
    ]
    return [(t.name, tuple(t.shape), t.dtype.name) for t in tensors], *kinds


def refuse_crossing():
    refused = pytest.raises(EngineError, match=r"could not compile some\.onnx: .*linalg_cross")
    with torch_tensorrt(), refused:
        tensorrt_export.compile_program("some.onnx", crossing(), ("x",), ("y",))


# And this in the process of the tests.


@pytest.fixture(scope="module")
def apart():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield lambda work, *arguments: pool.submit(work, *arguments).result()


@needs_torch_tensorrt
@pytest.mark.parametrize(("kind", "backbone", "rotation"), NETWORKS)
def test_each_network_becomes_one_engine_with_nothing_left_to_torch(
    apart, kind, backbone, rotation
):
    assert apart(dry_run, program, kind, backbone, rotation) == (1, {}, [])


@needs_torch_tensorrt
def test_a_cross_product_would_split_a_network(apart):
    engines, unsupported, left = apart(dry_run, crossing)
    assert engines == 2
    assert list(unsupported) == ["torch.ops.aten.linalg_cross.default"]
    assert len(left) == 1
    apart(refuse_crossing)


@needs_torch_tensorrt
def test_engines_are_compiled_named_and_kept_where_the_runtime_looks(apart, tmp_path):
    done = apart(compile_all, tmp_path / "engines")
    if done is None:
        pytest.skip("only TensorRT for RTX compiles without a GPU")
    told, paths, made, found = done
    assert found
    for (name, precision), path, line in zip(COMPILED, paths, told, strict=True):
        assert line == f"{name} in {precision}, compiled by torch-tensorrt for Some GPU: {path}"
    absolute, in_half, (relative, _, products) = made
    names = [network_io.IMAGE, *OUTPUTS]
    for tensors, _, _ in (absolute, in_half):
        assert [name for name, _, _ in tensors] == names
        assert {kind for _, _, kind in tensors} == {"FLOAT"}
        assert tensors[0][1] == (1, 3, HEIGHT, WIDTH)
    assert absolute[1:] == ({"FLOAT"}, {"FLOAT"})
    assert in_half[1:] == ({"HALF"}, {"FLOAT"})
    assert products == {"FLOAT"}
    outputs = {network_io.TRANSLATION: (2, 3), network_io.ROTATION: (2, 4)}
    shapes = {name: shape for name, shape, _ in relative}
    assert list(shapes)[:2] == list(RELATIVE_INPUTS)
    assert shapes.items() >= (outputs | {network_io.INFORMATION: (2, 6, 6)}).items()
    assert shapes[network_io.LOCAL_MAP][0] == 1
    assert {kind for _, _, kind in relative} == {"FLOAT"}


def test_half_convolutions_answer_almost_the_same_in_float32():
    branch = AbsoluteBranch(siamese(), OUTPUTS)
    halved = with_half_convolutions(branch)
    image = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for full, half in zip(branch(image), halved(image), strict=True):
            assert half.dtype == torch.float32
            torch.testing.assert_close(half, full, atol=2e-3, rtol=2e-3)
    assert {p.dtype for p in branch.parameters()} == {torch.float32}


def test_without_a_gpu_it_says_where_to_compile(tmp_path):
    try:
        cuda.gpu()
    except EngineError:
        with pytest.raises(EngineError, match=r"(?s)(CUDA|cuda).*for a Jetson on the Jetson"):
            compile_for_this_gpu(tmp_path, None, print)
    else:
        pytest.skip("this machine has a GPU")


def test_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(cuda, "gpu", lambda: ("Some GPU", "8.9"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="cannot use CUDA.*install a torch that is built for"):
        compile_for_this_gpu(tmp_path, None, print)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    version = torch.__version__.split("+")[0]
    with pytest.raises(EngineError, match=f"pip install torch-tensorrt=={version}"):
        compile_for_this_gpu(tmp_path, None, print)
