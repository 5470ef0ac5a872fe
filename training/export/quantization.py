"""Reduce the precision of the absolute branch: convolutions to float16 or int8.

The heads stay in float32. In half precision, positions of the size of a map would be rounded to centimetres
or decimetres.
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import (
    CalibrationDataReader,
    CalibrationMethod,
    create_calibrator,
)
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantType
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from rgsiam_ros.bundle import network_io
from rgsiam_ros.engines import EngineRequest, create_engine
from rgsiam_ros.engines.batching import infer_all

BODY = ("Conv", "BatchNormalization", "Clip", "Relu", "Add", "MaxPool", "Pad", "GlobalAveragePool")
"""Operators that compute in half precision. All others stay in float32."""
QUANTISED = ("Conv", "Clip", "Relu", "Add", "MaxPool")
"""Operators that are quantised to int8."""
SENSITIVITY_IMAGES = 16
"""Number of images for the order of `Quantiser.most_sensitive_first`."""
BINS = 2048
"""Bins of the histogram that percentiles of activations are computed from."""
TINY = 1e-12
"""Is added to norms that are divided by."""
CHUNK = 16
"""Number of images that the calibrator gets at once."""


def to_float16(model: onnx.ModelProto, keep_float32: Sequence[str] = ()) -> onnx.ModelProto:
    """The network with its convolutions in half precision; inputs and outputs stay float32.

    keep_float32: names of nodes that stay in float32 too.
    """
    others = sorted({node.op_type for node in model.graph.node} - set(BODY))
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    halved = convert_float_to_float16(
        copied, keep_io_types=True, op_block_list=others, node_block_list=list(keep_float32)
    )
    del halved.graph.value_info[:]  # some entries still say float32
    return halved


class Quantiser:
    """Static int8 quantisation of one network, in QuantizeLinear and DequantizeLinear nodes.

    Weights have a scale for each output channel. Activations have a scale for each tensor, which is computed
    from its values on the calibration images. ONNX Runtime and OpenVINO both run the same file.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        calibration_N3HW: NDArray[np.float32],
        *,
        symmetric: bool,
        percentile: float | None = None,
    ) -> None:
        """calibration_N3HW: normalised training images; symmetric: activations without a zero point, and
        biases in float32, as TensorRT requires; percentile: percentile of a tensor's values that its scale
        spans, None for all values.
        """
        self._symmetric = symmetric
        self._percentile = percentile
        self._calibration = calibration_N3HW
        self._fused = _fused(model)

    @property
    def convolutions(self) -> list[str]:
        """Names of the convolutions, which can be kept in float32."""
        return [node.name for node in self._fused.graph.node if node.op_type == "Conv"]

    @property
    def channels(self) -> dict[str, int]:
        """Number of output channels of each convolution, by name."""
        graph = self._fused.graph
        sizes = {weight.name: weight.dims[0] for weight in graph.initializer if weight.dims}
        return {node.name: sizes[node.input[1]] for node in graph.node if node.op_type == "Conv"}

    def quantise(
        self, keep_float32: Sequence[str] = (), only: Sequence[str] = ()
    ) -> onnx.ModelProto:
        """The quantised network.

        keep_float32: convolutions that are not quantised; only: convolutions that are quantised, empty for
        all.
        """
        copied = onnx.ModelProto()
        copied.CopyFrom(self._fused)
        quantizer = QDQQuantizer(
            copied,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8 if self._symmetric else QuantType.QUInt8,
            tensors_range=self._ranges,
            nodes_to_quantize=list(only),
            nodes_to_exclude=list(keep_float32),
            op_types_to_quantize=list(QUANTISED),
            extra_options={
                "ActivationSymmetric": self._symmetric,
                "QuantizeBias": not self._symmetric,
            },
        )
        with _quiet():
            quantizer.quantize_model()
        return quantizer.model.model

    def most_sensitive_first(self) -> list[str]:
        """Names of the convolutions, sorted by the error that the quantisation of each one alone causes.

        The error of each output is divided by its error when everything is quantised, so that the pose and
        the local map count equally. The largest of these ratios counts.
        """
        images = self._calibration[:: max(1, len(self._calibration) // SENSITIVITY_IMAGES)]
        images = images[:SENSITIVITY_IMAGES]
        expected = _outputs(self._fused, images)

        def errors(model: onnx.ModelProto) -> NDArray[np.float64]:
            outputs = _outputs(model, images)
            return np.array([np.linalg.norm(outputs[n] - expected[n]) for n in expected]) + TINY

        total = errors(self.quantise())
        share = {n: (errors(self.quantise(only=[n])) / total).max() for n in self.convolutions}
        return sorted(share, key=lambda name: -share[name])

    @cached_property
    def _ranges(self) -> Any:
        """The range of each activation on the calibration images, as ONNX Runtime's quantiser takes it."""
        method, options = CalibrationMethod.MinMax, {}
        if self._percentile is not None:
            method = CalibrationMethod.Percentile
            options = {"percentile": self._percentile, "num_bins": BINS, "symmetric": False}
        with tempfile.TemporaryDirectory() as folder, _quiet():
            path = Path(folder) / "network.onnx"
            onnx.save_model(self._fused, path)
            calibrator = create_calibrator(
                path,
                list(QUANTISED),
                augmented_model_path=str(Path(folder) / "augmented.onnx"),
                calibrate_method=method,
                extra_options=options,
            )
            for start in range(0, len(self._calibration), CHUNK):  # limits the memory of a call
                calibrator.collect_data(_Reader(self._calibration[start : start + CHUNK]))
            return calibrator.compute_data()


class _Reader(CalibrationDataReader):
    def __init__(self, image_N3HW: NDArray[np.float32]) -> None:
        self._images: Iterator[NDArray[np.float32]] = iter(image_N3HW)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        image = next(self._images, None)
        return None if image is None else {network_io.IMAGE: image[None]}


def _fused(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with batch normalisation folded into the convolutions, and with inferred shapes."""
    with tempfile.TemporaryDirectory() as folder, _quiet():
        original, fused = (str(Path(folder) / name) for name in ("original.onnx", "fused.onnx"))
        onnx.save_model(model, original)
        quant_pre_process(original, fused, skip_symbolic_shape=True)
        return onnx.load(fused)


def _outputs(
    model: onnx.ModelProto, image_N3HW: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """All outputs except the translation, which jumps where another anchor becomes the likeliest."""
    engine = create_engine("onnxruntime", EngineRequest(model.SerializeToString(), "int8"))
    outputs = infer_all(engine, image_N3HW)
    engine.close()
    return {name: value for name, value in outputs.items() if name != network_io.TRANSLATION}


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress what ONNX Runtime's tools print and log through the root logger."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
