"""Networks as self-contained, checked ONNX files."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import onnx
import torch
from torch import Tensor, nn

from rgsiam_ros import networks
from rgsiam_ros.preprocessing import Preprocessing
from rgsiam_training.network import AbsoluteBranch, RelativeBranch

OPSET = 18


def absolute_to_onnx(branch: AbsoluteBranch, preprocessing: Preprocessing) -> bytes:
    """The absolute branch for one image."""
    image = torch.zeros(1, 3, preprocessing.input_height, preprocessing.input_width)
    return _to_onnx(branch, (image,), [networks.IMAGE], branch.output_names)


def relative_to_onnx(
    branch: RelativeBranch, local_shape: tuple[int, ...], neighbours: int
) -> bytes:
    """The relative branch for this number of neighbours; local_shape: ``(C, h, w)``."""
    example = torch.rand(1 + neighbours, *local_shape) + 0.1
    inputs = [networks.MAP_LOCAL, networks.LOCAL_MAP]
    return _to_onnx(branch, (example[1:], example[:1]), inputs, branch.output_names)


def _to_onnx(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> bytes:
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
        )
    model = program.model_proto
    _forget_origins(model.graph)
    onnx.checker.check_model(model, full_check=True)
    buffer = io.BytesIO()
    onnx.save_model(model, buffer)
    return buffer.getvalue()


def _forget_origins(graph: onnx.GraphProto) -> None:
    """Drop where in the source each node came from: more bytes than the relative unit's weights."""
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in graph.value_info:
        del value.metadata_props[:]
