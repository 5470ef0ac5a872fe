"""Functions that the tests of torch-tensorrt run in a process of its own. Needs torch.

The process cannot import test modules, because `test` is a package of the standard library.
"""

import os.path
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from rgsiam_ros.bundle.golden import ABSOLUTE_OUTPUTS
from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_ros.engines import cuda
from rgsiam_ros.engines.cache import EngineCache
from rgsiam_ros.engines.tensorrt_build import engine_key
from rgsiam_ros.errors import EngineError
from rgsiam_training.export import tensorrt_export
from rgsiam_training.export.tensorrt_export import (
    absolute_program,
    compile_for_this_gpu,
    with_half_convolutions,
)
from rgsiam_training.model.network import AbsoluteBranch
from support import small_network
from support.log_messages import log_messages
from support.small_network import SMALL

HEIGHT, WIDTH = 64, 96
SIZE = Preprocessing(input_width=WIDTH, input_height=HEIGHT)
COMPILED = [
    ("absolute.onnx", "float32"),
    ("absolute.float16.onnx", "float16"),
]


def siamese(backbone="resnet18", rotation="quaternion"):
    changed = {"backbone": backbone, "rotation": rotation}
    return small_network.siamese(SMALL.model_copy(update=changed), HEIGHT, WIDTH).eval()


def program(kind, backbone, rotation):
    network = siamese(backbone, rotation)
    branch = AbsoluteBranch(network, ABSOLUTE_OUTPUTS)
    return absolute_program(with_half_convolutions(branch) if "half" in kind else branch, SIZE)


class Crossing(torch.nn.Module):
    """A module with a cross product, which `rgsiam_training.model.rotation_outputs` avoids."""

    def __init__(self):
        super().__init__()
        self.before, self.after = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)

    def forward(self, x):
        return self.after(torch.linalg.cross(self.before(x), self.before(2.0 * x)))


def crossing():
    return torch.export.export(Crossing().eval(), (torch.rand(2, 3),))


@contextmanager
def torch_tensorrt():
    """Import torch-tensorrt; where torch has no GPU, pretend that it has one."""
    with pytest.MonkeyPatch.context() as patch:
        if not torch.cuda.is_available():
            patch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 9))
            patch.setattr(torch.cuda, "current_device", lambda: 0)
            patch.setattr(torch.cuda, "mem_get_info", lambda *_: (1 << 36, 1 << 36))
            patch.setattr(torch._C, "_CudaDeviceProperties", object, raising=False)
        with pytest.MonkeyPatch.context() as while_importing:
            if torch.version.cuda is None:  # its C++ library, which it can do without, needs CUDA
                is_file = os.path.isfile
                while_importing.setattr(
                    os.path, "isfile", lambda path: "libtorchtrt" not in str(path) and is_file(path)
                )
            import torch_tensorrt as imported
            from torch_tensorrt.dynamo import _compiler
        patch.setattr(_compiler, "to_torch_device", lambda _: torch.device("cpu"))
        yield imported, patch


def dry_run(make, *arguments):
    """Number of engines, operators that are not supported, and nodes that are left to torch."""
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
    """Compile for real, but do not load the engines: loading them needs a GPU.

    Returns the log messages; the paths; of each engine its tensors and the precisions of its convolutions
    and of its matrix products; and whether the cache returns each engine for the runtime's key.
    """
    with torch_tensorrt() as (imported, patch):
        if imported.tensorrt_package_name != "tensorrt_rtx":
            return None
        plans, made = [], []
        watch(patch, plans, made)
        network = siamese()
        run = SimpleNamespace(
            preprocessing=SIZE,
            absolute_branch=lambda: AbsoluteBranch(network, ABSOLUTE_OUTPUTS),
        )
        patch.setattr(tensorrt_export, "open_run", lambda _: run)
        part = SimpleNamespace(precisions=("float32", "int8", "float16"))
        bundle = SimpleNamespace(
            manifest=SimpleNamespace(absolute_part=part),
            content=lambda name: name.encode(),
        )
        with log_messages(tensorrt_export.__name__) as lines:
            paths = compile_for_this_gpu(cache, bundle, cache)
        kept = [
            EngineCache(cache).load(engine_key("tensorrt_rtx", name.encode(), precision, (1, 1, 1)))
            for name, precision in COMPILED
        ]
    return lines, [str(path) for path in paths], made, kept == plans


def watch(patch, plans, made):
    """Keep the engines instead of loading them, and describe each network before it is built."""
    import tensorrt
    from torch_tensorrt.dynamo.conversion import TRTInterpreter

    construct, compiler = TRTInterpreter._construct_trt_network_def, tensorrt_export.find_compiler

    def construct_and_describe(interpreter):
        construct(interpreter)
        made.append(describe(interpreter.ctx.net, tensorrt))

    def keep(plan):
        plans.append(bytes(plan))
        return SimpleNamespace(serialize=lambda: plan)

    def with_cuda():
        with pytest.MonkeyPatch.context() as there:  # if it lasted, it would mislead torch
            there.setattr(torch.cuda, "is_available", lambda: True)
            return compiler()

    runtime = SimpleNamespace(deserialize_cuda_engine=keep)
    patch.setattr(TRTInterpreter, "_construct_trt_network_def", construct_and_describe)
    patch.setitem(vars(tensorrt), "Runtime", lambda _: runtime)
    patch.setattr(cuda, "gpu", lambda: ("Some GPU", "8.9"))
    patch.setattr(tensorrt_export, "find_compiler", with_cuda)


def describe(network, tensorrt):
    """The tensors of a network, and the precisions of its convolutions and of its matrix products."""
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
