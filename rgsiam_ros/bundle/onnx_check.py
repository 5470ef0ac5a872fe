"""What an ONNX file must be before an engine may see it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from rgsiam_ros.errors import BundleError

STANDARD_DOMAINS = {"", "ai.onnx"}


def check_onnx(content: bytes, path: Path, input_shape: tuple[int, ...] | None = None) -> None:
    """Refuse external data, custom operators, non-finite weights or another input shape.

    path names the file in messages; input_shape is the ``(1, 3, H, W)`` that the manifest implies
    (dynamic dimensions fit any size). Raises BundleError.
    """
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise BundleError(
            f"{path} is not an ONNX file ({error}): export the bundle anew"
        ) from error
    if not model.graph.node:
        raise BundleError(f"{path} is an ONNX file without a graph: export the bundle anew")
    for graph in _graphs(model.graph):
        for tensor in _tensors(graph):
            _check_tensor(tensor, path)
        for node in graph.node:
            if node.domain not in STANDARD_DOMAINS:
                raise BundleError(
                    f"{path} uses the operator {node.domain}::{node.op_type}; only standard ONNX "
                    "operators are allowed: export the bundle anew"
                )
    if input_shape is not None:
        _check_input(model, path, input_shape)


def _graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    graphs = [graph]
    for node in graph.node:
        for attribute in node.attribute:
            subgraphs = [attribute.g] if attribute.HasField("g") else []
            for subgraph in [*subgraphs, *attribute.graphs]:
                graphs += _graphs(subgraph)
    return graphs


def _tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    tensors = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            tensors += [attribute.t] if attribute.HasField("t") else []
            tensors += list(attribute.tensors)
    return tensors


def _check_tensor(tensor: onnx.TensorProto, path: Path) -> None:
    if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise BundleError(
            f"{path} keeps weight {tensor.name!r} in another file; a bundle's networks must be "
            "self-contained: export without external data"
        )
    try:
        values = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise BundleError(f"{path}: weight {tensor.name!r} is damaged ({error})") from error
    if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
        raise BundleError(f"{path}: weight {tensor.name!r} holds a non-finite number: train anew")


def _check_input(model: onnx.ModelProto, path: Path, expected: tuple[int, ...]) -> None:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise BundleError(f"{path} has {len(inputs)} inputs, not one image: export it anew")
    dims = inputs[0].type.tensor_type.shape.dim
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)
    fits = len(shape) == len(expected) and all(
        got in (None, want) for got, want in zip(shape, expected, strict=True)
    )
    if not fits:
        raise BundleError(
            f"{path} takes an input of shape {shape}, the manifest's preprocessing gives "
            f"{expected}: export the bundle anew"
        )
