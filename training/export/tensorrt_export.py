"""Compile a run's network to TensorRT engines with torch-tensorrt, directly from torch.

The engines are stored in the engine cache under the same keys as engines that were built from ONNX, so that
the vehicle finds them and needs no torch. An engine runs only on the type of GPU that it was compiled on:
compile on the Jetson for a Jetson.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from rgsiam_ros.bundle import Bundle, network_io
from rgsiam_ros.bundle.precision import Precision, absolute_name
from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_ros.engines import cuda
from rgsiam_ros.engines.cache import EngineCache
from rgsiam_ros.engines.tensorrt_build import COMPUTES, ONE, WORKSPACE_BYTES, engine_key
from rgsiam_ros.errors import EngineError
from rgsiam_training.export.onnx_export import round_large_weights
from rgsiam_training.fitting.run_folder import open_run
from rgsiam_training.model.network import AbsoluteBranch

logger = logging.getLogger(__name__)

COMPILED_PRECISIONS: tuple[Precision, ...] = ("float32", "float16")
OPTIONS: dict[str, Any] = {
    "disable_tf32": True,  # TF32 has fewer digits than float32
    "min_block_size": 1,
    "require_full_compilation": True,
    "workspace_size": WORKSPACE_BYTES,
}
"""Options of torch-tensorrt."""


def compile_for_this_gpu(run_folder: Path, bundle: Bundle, cache: Path | None = None) -> list[Path]:
    """Compile a run's network for this machine's GPU, and store it as the engines of its bundle.

    It is compiled in float32, and in float16 if the bundle has that precision, for single images. Engines that were built from ONNX are replaced. bundle: exported
    from this run; cache: folder of the engines, None for the user's cache folder. Returns the paths of the
    engines.

    Raises EngineError when there is no GPU, torch-tensorrt is missing or does not work, a network cannot be
    compiled, or the folder cannot be written. Raises DatasetError when `run_folder` holds no run.
    """
    gpu_name, library, made_by = find_compiler()
    EngineCache(cache).prepare()
    run, part = open_run(run_folder), bundle.manifest.absolute_part
    branch = run.absolute_branch()
    round_large_weights(branch)
    paths = []
    for precision in COMPILED_PRECISIONS:
        if precision not in part.precisions or precision not in COMPUTES[library]:
            continue
        module = branch if precision == "float32" else with_half_convolutions(branch)
        program = absolute_program(module, run.preprocessing)
        name = absolute_name(precision)
        key = engine_key(library, bundle.content(name), precision, ONE)
        engine = compile_program(name, program, (network_io.IMAGE,), branch.output_names)
        paths.append(EngineCache(cache).store(key, engine, made_by))
        logger.info(
            "%s in %s, compiled by torch-tensorrt for %s: %s", name, precision, gpu_name, paths[-1]
        )
    return paths


def absolute_program(branch: AbsoluteBranch, preprocessing: Preprocessing) -> ExportedProgram:
    """The exported program of the absolute branch for one image, with its weights on the CPU."""
    size = preprocessing.input_height, preprocessing.input_width
    return _program(branch, torch.zeros(1, 3, *size))


def with_half_convolutions(branch: AbsoluteBranch) -> AbsoluteBranch:
    """A copy that computes like ``absolute.float16.onnx``: convolutions in half precision, heads in float32.

    Every cast is a node of the graph. torch-tensorrt builds strongly typed networks, in which TensorRT does not choose
    precisions.
    """
    halved = copy.deepcopy(branch)
    for module in halved.modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            module.half().register_forward_pre_hook(_to_half)
        elif isinstance(module, nn.Linear):
            module.register_forward_pre_hook(_to_float)
    return halved


def compile_program(
    name: str, program: ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]
) -> bytes:
    """Compile the whole program to a serialised engine.

    name: name of the network, for messages; inputs, outputs: names of the engine's tensors, in the order of
    the program's. Raises EngineError, for example for an operator that torch-tensorrt cannot convert.
    """
    from torch_tensorrt import dynamo

    example = program.example_inputs
    assert example is not None
    try:
        with _named(inputs, outputs):
            return bytes(
                dynamo.convert_exported_program_to_serialized_trt_engine(
                    program, arg_inputs=list(example[0]), device="cuda:0", **OPTIONS
                )
            )
    except Exception as error:  # torch-tensorrt raises errors of many types and libraries
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise EngineError(f"torch-tensorrt could not compile {name}: {reason}") from error


def find_compiler() -> tuple[str, str, str]:
    """Check that torch-tensorrt can compile on this machine.

    Returns the name of the GPU, the name of TensorRT's Python package, and a text that names the compiler and
    the GPU, for the engine cache. Raises EngineError with what is missing.
    """
    try:
        gpu_name, _ = cuda.gpu()
    except EngineError as error:
        raise EngineError(
            f"{error}; an engine runs only on the type of GPU that it was compiled on: run the export on the "
            "machine that uses the engine, for a Jetson on the Jetson"
        ) from error
    if not torch.cuda.is_available():
        raise EngineError(
            f"torch {torch.__version__} cannot use CUDA, which torch-tensorrt needs: install a torch that "
            "is built for this machine's CUDA"
        )
    version = torch.__version__.split("+", maxsplit=1)[0]
    install = f"pip install torch-tensorrt=={version} (the version of torch) on this machine"
    try:
        import torch_tensorrt
    except ImportError as error:
        raise EngineError(f"torch-tensorrt is not installed ({error}): {install}") from error
    except Exception as error:  # wrong version, or TensorRT's libraries are missing
        raise EngineError(f"torch-tensorrt cannot be used ({error}): {install}") from error
    library = getattr(torch_tensorrt, "tensorrt_package_name", "") or "tensorrt"
    return gpu_name, library, f"torch-tensorrt {torch_tensorrt.__version__} on {gpu_name}"


def _program(module: nn.Module, *example: Tensor) -> ExportedProgram:
    with torch.no_grad():
        return torch.export.export(module.eval(), example, strict=False)


def _to_half(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(value.half() for value in inputs)


def _to_float(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(value.float() for value in inputs)


@contextmanager
def _named(inputs: Sequence[str], outputs: Sequence[str]) -> Iterator[None]:
    """Give the tensors of networks that torch-tensorrt makes in this context these names.

    torch-tensorrt names inputs after the arguments in lower case, and outputs ``output0``, ``output1``, and
    has no option for other names. The tensors are therefore renamed before TensorRT builds the engine.
    """
    from torch_tensorrt.dynamo.conversion import TRTInterpreter

    finish = TRTInterpreter.output

    def finish_and_name(interpreter: Any, target: str, args: Any, kwargs: Any) -> Any:
        finished = finish(interpreter, target, args, kwargs)
        network = interpreter.ctx.net
        tensors = [network.get_input(i) for i in range(network.num_inputs)]
        tensors += [network.get_output(i) for i in range(network.num_outputs)]
        for tensor, name in zip(tensors, [*inputs, *outputs], strict=True):
            tensor.name = name
        return finished

    TRTInterpreter.output = finish_and_name
    try:
        yield
    finally:
        TRTInterpreter.output = finish
