"""Convert the network to a self-contained, checked ONNX file.

Large weights are rounded to half precision before anything is measured, and stored in half precision. This
halves the size of the file. Engines still compute in float32, unless another precision is chosen.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
import onnx
import onnxscript.optimizer
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.onnx_model import OnnxModel
from torch import Tensor, nn

from rgsiam_ros.bundle import network_io
from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_ros.engines.onnxruntime_engine import BATCH_DIMENSION
from rgsiam_training.model.network import AbsoluteBranch

OPSET = 18
LARGE = 4096
"""A weight with at least this many elements is stored in half precision."""
LARGEST_BATCH = 64
"""Upper bound of the open batch dimension."""


def round_large_weights(module: nn.Module) -> None:
    """Round large matrices and kernels, in place, to values that half precision represents exactly."""
    with torch.no_grad():
        for weight in module.parameters():
            if weight.ndim > 1 and weight.numel() >= LARGE:
                weight.copy_(weight.half().float())


def absolute_to_onnx(branch: AbsoluteBranch, preprocessing: Preprocessing) -> onnx.ModelProto:
    """Convert the absolute branch, with an open batch dimension. Batch normalisation is not folded."""
    image = torch.zeros(2, 3, preprocessing.input_height, preprocessing.input_width)
    batch = torch.export.Dim(BATCH_DIMENSION, min=1, max=LARGEST_BATCH)
    program = export_module(
        branch,
        (image,),
        [network_io.IMAGE],
        branch.output_names,
        dynamic_shapes=({0: batch},),
        optimize=False,  # the optimiser would fold batch normalisation into the rounded weights
    )
    onnxscript.optimizer.fold_constants(program.model)
    onnxscript.optimizer.remove_unused_nodes(program.model)
    return program.model_proto


def to_bytes(model: onnx.ModelProto) -> bytes:
    """Check and serialise a model.

    Large weights that half precision represents exactly are stored in half precision. Doc strings are
    removed.
    """
    stored = onnx.ModelProto()
    stored.CopyFrom(model)
    _store_in_half(stored.graph)
    _forget_origins(stored.graph)
    OnnxModel(stored).topological_sort()
    onnx.checker.check_model(stored, full_check=True)
    buffer = io.BytesIO()
    onnx.save_model(stored, buffer)
    return buffer.getvalue()


def export_module(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    **options: object,
) -> torch.onnx.ONNXProgram:
    """Convert a module. inputs, outputs: names; options: of `torch.onnx.export`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            external_data=False,
            verbose=False,
            **options,  # type: ignore[arg-type]
        )
    assert program is not None
    return program


def _store_in_half(graph: onnx.GraphProto) -> None:
    """Store large weights in half precision, with a cast to float32, where that is exact."""
    casts = []
    for weight in graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < LARGE:
            continue
        values = numpy_helper.to_array(weight)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(
            helper.make_node("Cast", [f"{name}_half"], [name], f"{name}_cast", to=TensorProto.FLOAT)
        )
    for cast in reversed(casts):
        graph.node.insert(0, cast)


def _forget_origins(graph: onnx.GraphProto) -> None:
    """Remove the nodes' source locations, which need many bytes."""
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in graph.value_info:
        del value.metadata_props[:]
