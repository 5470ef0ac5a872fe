"""Check an ONNX file from an untrusted source before an engine loads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from rgsiam_ros.errors import BundleError

STANDARD_DOMAINS = {"", "ai.onnx"}
FORBIDDEN = {
    *("If", "Loop", "Scan", "SequenceMap"),
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
    *("Bernoulli", "Multinomial", "StringNormalizer", "TfIdfVectorizer", "RegexFullMatch"),
    *("StringConcat", "StringSplit", "ImageDecoder"),
}
"""Operators that a network does not need. They could run forever, give random outputs or read other data."""
MOST_NODES = 20_000


Shape = tuple[int, ...]


def check_onnx(
    content: bytes,
    path: Path,
    inputs: Mapping[str, Shape] | None = None,
    outputs: Mapping[str, Shape] | None = None,
    optional_outputs: Mapping[str, Shape] | None = None,
) -> set[str]:
    """Check a network and return the names of its outputs.

    Raises BundleError for external data, custom operators, non-finite weights, and inputs or outputs that do
    not fit. path: names the file in messages; inputs: name and shape of all inputs; outputs: name and shape
    of the outputs that must exist; optional_outputs: shapes of outputs that may exist. A dynamic dimension
    fits any size.
    """
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise BundleError(
            f"{path} is not an ONNX file ({error}): export the bundle anew"
        ) from error
    if not model.graph.node:
        raise BundleError(f"{path} is an ONNX file without a graph: export the bundle anew")
    _check_content(model, path)
    weights = {tensor.name for tensor in model.graph.initializer}
    if inputs is not None:
        taken = [value for value in model.graph.input if value.name not in weights]
        _check_values("takes", taken, inputs, path, exactly=True)
    if outputs is not None:
        output_names = {value.name for value in model.graph.output}
        existing = {n: shape for n, shape in (optional_outputs or {}).items() if n in output_names}
        _check_values("gives", model.graph.output, {**outputs, **existing}, path, exactly=False)
    values = [*model.graph.input, *model.graph.output]
    for value in values if inputs is not None else []:
        if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT and value.name not in weights:
            raise BundleError(f"{path}: {value.name!r} is not float32: export the bundle anew")
    return {value.name for value in model.graph.output}


def _check_content(model: onnx.ModelProto, path: Path) -> None:
    """Check operators and weights, in subgraphs too."""
    if model.functions or model.training_info:
        raise BundleError(
            f"{path} has its own functions or training information: export the bundle anew"
        )
    graphs = _graphs(model.graph)
    if sum(len(graph.node) for graph in graphs) > MOST_NODES:
        raise BundleError(f"{path} has more than {MOST_NODES} operators: export the bundle anew")
    for graph in graphs:
        for tensor in _tensors(graph):
            _check_tensor(tensor, path)
        for node in graph.node:
            numbers = [n for a in node.attribute for n in (a.f, *a.floats)]
            if not np.isfinite(numbers).all():
                raise BundleError(
                    f"{path}: the operator {node.name or node.op_type!r} has a non-finite attribute: train anew"
                )
            if node.domain not in STANDARD_DOMAINS:
                raise BundleError(
                    f"{path} uses the operator {node.domain}::{node.op_type}; only standard ONNX "
                    "operators are allowed: export the bundle anew"
                )
            if node.op_type in FORBIDDEN:
                raise BundleError(
                    f"{path} uses the operator {node.op_type}, which is not allowed in a bundle: "
                    "export the bundle anew"
                )


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
    sparse = list(graph.sparse_initializer)
    for node in graph.node:
        for attribute in node.attribute:
            tensors += [attribute.t] if attribute.HasField("t") else []
            tensors += list(attribute.tensors)
            sparse += [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            sparse += list(attribute.sparse_tensors)
    for pair in sparse:
        tensors += [pair.values, pair.indices]
    return tensors


def _check_tensor(tensor: onnx.TensorProto, path: Path) -> None:
    if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise BundleError(
            f"{path} keeps weight {tensor.name!r} in another file; a bundle's networks must be "
            "self-contained: export without external data"
        )
    # An old onnx cannot convert complex numbers that are stored so.
    stored = np.array([*tensor.float_data, *tensor.double_data])
    if not np.isfinite(stored).all():
        raise BundleError(f"{path}: weight {tensor.name!r} holds a non-finite number: train anew")
    try:
        values = numpy_helper.to_array(tensor)
    except Exception as error:  # onnx raises many kinds for damaged tensors
        raise BundleError(f"{path}: weight {tensor.name!r} is damaged ({error})") from error
    if values.dtype == object:
        raise BundleError(f"{path}: weight {tensor.name!r} holds text: export the bundle anew")
    if values.dtype.kind in "biu":
        return
    if values.dtype.kind not in "fc":  # types that numpy does not have, such as bfloat16
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise BundleError(f"{path}: weight {tensor.name!r} holds a non-finite number: train anew")


def _check_values(
    verb: str,
    values: Iterable[onnx.ValueInfoProto],
    expected: Mapping[str, Shape],
    path: Path,
    *,
    exactly: bool,
) -> None:
    found = {value.name: _shape_of(value) for value in values}
    fits = set(found) == set(expected) if exactly else set(found) >= set(expected)
    fits = fits and all(_shapes_fit(found[name], shape) for name, shape in expected.items())
    if not fits:
        raise BundleError(
            f"{path} {verb} {_listed(found)}, but the rest of the bundle needs "
            f"{_listed(expected)}: export the bundle anew"
        )


def _shape_of(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)


def _shapes_fit(found: tuple[int | None, ...], expected: Shape) -> bool:
    return len(found) == len(expected) and all(
        got in (None, want) for got, want in zip(found, expected, strict=True)
    )


def _listed(shapes: Mapping[str, tuple[int | None, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "nothing"
