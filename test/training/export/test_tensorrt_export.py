"""Compilation of the networks with torch-tensorrt. No GPU is needed.

Importing torch-tensorrt changes the process (an operator library, a stand-in for the package
`tensorrt`). So tests that need it run in a process of its own, which pretends to have a GPU.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context

import pytest

torch = pytest.importorskip("torch", reason="the training extra is not installed here")

from support.torch_tensorrt_process import (
    COMPILED,
    HEIGHT,
    WIDTH,
    compile_all,
    crossing,
    dry_run,
    program,
    refuse_crossing,
    siamese,
)

from rgsiam_ros.bundle import network_io
from rgsiam_ros.bundle.golden import ABSOLUTE_OUTPUTS
from rgsiam_ros.engines import cuda
from rgsiam_ros.errors import EngineError
from rgsiam_training.export.tensorrt_export import (
    compile_for_this_gpu,
    with_half_convolutions,
)
from rgsiam_training.model.network import AbsoluteBranch

needs_torch_tensorrt = pytest.mark.skipif(
    find_spec("torch_tensorrt") is None, reason="torch-tensorrt has no package for this platform"
)
NETWORKS = [
    ("absolute", "resnet18", "6d"),
    ("absolute", "resnet50", "quaternion"),
    ("absolute", "tf_efficientnet_lite0", "log_quaternion"),
    ("absolute in half", "resnet18", "log_quaternion"),
    ("absolute in half", "tf_efficientnet_lite0", "6d"),
]


@pytest.fixture(scope="module")
def in_process():
    """A function that runs another one in a process of its own, and returns its result."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield lambda work, *arguments: pool.submit(work, *arguments).result()


@pytest.mark.slow
@needs_torch_tensorrt
@pytest.mark.parametrize(("kind", "backbone", "rotation"), NETWORKS)
def test_each_network_becomes_one_complete_engine(in_process, kind, backbone, rotation):
    assert in_process(dry_run, program, kind, backbone, rotation) == (1, {}, [])


@pytest.mark.slow
@needs_torch_tensorrt
def test_a_cross_product_would_split_a_network(in_process):
    engines, unsupported, left = in_process(dry_run, crossing)
    assert engines == 2
    assert list(unsupported) == ["torch.ops.aten.linalg_cross.default"]
    assert len(left) == 1
    in_process(refuse_crossing)


@pytest.mark.slow
@needs_torch_tensorrt
def test_compiled_engines_are_found_by_the_runtime(in_process, tmp_path):
    done = in_process(compile_all, tmp_path / "engines")
    if done is None:
        pytest.skip("only TensorRT for RTX compiles without a GPU")
    lines, paths, made, found = done
    assert found
    for (name, precision), path, line in zip(COMPILED, paths, lines, strict=True):
        assert line == f"{name} in {precision}, compiled by torch-tensorrt for Some GPU: {path}"
    absolute, in_half = made
    names = [network_io.IMAGE, *ABSOLUTE_OUTPUTS]
    for tensors, _, _ in (absolute, in_half):
        assert [name for name, _, _ in tensors] == names
        assert {kind for _, _, kind in tensors} == {"FLOAT"}
        assert tensors[0][1] == (1, 3, HEIGHT, WIDTH)
    assert absolute[1:] == ({"FLOAT"}, {"FLOAT"})
    assert in_half[1:] == ({"HALF"}, {"FLOAT"})


@pytest.mark.slow
def test_half_convolutions_change_the_outputs_little():
    branch = AbsoluteBranch(siamese(), ABSOLUTE_OUTPUTS)
    halved = with_half_convolutions(branch)
    image = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for full, half in zip(branch(image), halved(image), strict=True):
            assert half.dtype == torch.float32
            torch.testing.assert_close(half, full, atol=2e-3, rtol=2e-3)
    assert {p.dtype for p in branch.parameters()} == {torch.float32}


def test_without_a_gpu_the_error_names_where_to_compile(tmp_path):
    try:
        cuda.gpu()
    except EngineError:
        with pytest.raises(EngineError, match=r"(?s)(CUDA|cuda).*for a Jetson on the Jetson"):
            compile_for_this_gpu(tmp_path, None)
    else:
        pytest.skip("this machine has a GPU")


def test_the_error_names_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(cuda, "gpu", lambda: ("Some GPU", "8.9"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="cannot use CUDA.*install a torch that is built for"):
        compile_for_this_gpu(tmp_path, None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    version = torch.__version__.split("+")[0]
    with pytest.raises(EngineError, match=f"pip install torch-tensorrt=={version}"):
        compile_for_this_gpu(tmp_path, None)
