"""The absolute branch in fewer bits: convolutions in half precision or quantised, heads in float32.

What turns features into metres stays in float32: at the scale of a map, half precision would round a
position to centimetres or decimetres.
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
"""What computes in half precision; everything else stays in float32."""
QUANTISED = ("Conv", "Clip", "Relu", "Add", "MaxPool")
SENSITIVITY_IMAGES = 16
BINS = 2048
TINY = 1e-12
CHUNK = 16


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with its convolutions in half precision; inputs and outputs stay float32."""
    others = sorted({node.op_type for node in model.graph.node} - set(BODY))
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    halved = convert_float_to_float16(copied, keep_io_types=True, op_block_list=others)
    del halved.graph.value_info[:]  # some still speak of float32
    return halved


class Quantiser:
    """Static int8 quantisation of one network, in QuantizeLinear and DequantizeLinear nodes.

    Weights get a scale for each output channel; activations one for each tensor, from its values over
    the calibration images. One file serves ONNX Runtime and OpenVINO alike.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        calibration_N3HW: NDArray[np.float32],
        *,
        symmetric: bool,
        percentile: float | None = None,
    ) -> None:
        """calibration_N3HW: normalised training images; symmetric: activations without a zero
        point and biases in float32, as TensorRT asks for; percentile: of a tensor's values that its
        scale spans, None for all of them.
        """
        self._symmetric = symmetric
        self._percentile = percentile
        self._calibration = calibration_N3HW
        self._fused = _fused(model)

    @property
    def convolutions(self) -> list[str]:
        """Names of what can be kept in float32."""
        return [node.name for node in self._fused.graph.node if node.op_type == "Conv"]

    def quantise(
        self, keep_float32: Sequence[str] = (), only: Sequence[str] = ()
    ) -> onnx.ModelProto:
        """The quantised network; keep_float32: convolutions to leave; only: quantise but these."""
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
        """Convolutions in the order in which their own quantisation disturbs an output.

        Each output's disturbance is taken relative to that by quantising everything, so that those that
        spoil the pose come as early as those that spoil the local map.
        """
        images = self._calibration[:: max(1, len(self._calibration) // SENSITIVITY_IMAGES)]
        images = images[:SENSITIVITY_IMAGES]
        expected = _features(self._fused, images)

        def disturbance(model: onnx.ModelProto) -> NDArray[np.float64]:
            given = _features(model, images)
            return np.array([np.linalg.norm(given[n] - expected[n]) for n in expected]) + TINY

        whole = disturbance(self.quantise())
        share = {n: (disturbance(self.quantise(only=[n])) / whole).max() for n in self.convolutions}
        return sorted(share, key=lambda name: -share[name])

    @cached_property
    def _ranges(self) -> Any:
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
            for start in range(0, len(self._calibration), CHUNK):  # it keeps all it has not counted
                calibrator.collect_data(_Reader(self._calibration[start : start + CHUNK]))
            return calibrator.compute_data()


class _Reader(CalibrationDataReader):
    def __init__(self, image_N3HW: NDArray[np.float32]) -> None:
        self._images: Iterator[NDArray[np.float32]] = iter(image_N3HW)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        image = next(self._images, None)
        return None if image is None else {network_io.IMAGE: image[None]}


def _fused(model: onnx.ModelProto) -> onnx.ModelProto:
    """With batch normalisation folded into the convolutions, and shapes inferred."""
    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, fused = (str(Path(folder) / name) for name in ("given.onnx", "fused.onnx"))
        onnx.save_model(model, given)
        quant_pre_process(given, fused, skip_symbolic_shape=True)
        return onnx.load(fused)


def _features(
    model: onnx.ModelProto, image_N3HW: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """All outputs but the position, which jumps where another anchor is the likeliest."""
    engine = create_engine("onnxruntime", EngineRequest(model.SerializeToString(), "int8"))
    outputs = infer_all(engine, image_N3HW)
    engine.close()
    return {name: value for name, value in outputs.items() if name != network_io.TRANSLATION}


@contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's tools advise through the root logger and print."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
