"""Every engine that runs on this machine, with real exported networks."""

import numpy as np
import pytest
from support.bundles import colour_absolute
from support.machine import int8_is_fast
from support.paths import TOWN_BUNDLE

from rgsiam_ros.bundle import Bundle, network_io
from rgsiam_ros.camera.preprocessing import normalise
from rgsiam_ros.engines import ENGINES, EngineRequest, create_engine
from rgsiam_ros.engines.availability import why_not
from rgsiam_ros.engines.batching import infer_all
from rgsiam_ros.engines.self_test import describe_exceeded, measure_golden_images
from rgsiam_ros.errors import EngineError

CPU_ENGINES = [
    pytest.param(name, marks=pytest.mark.skipif(bool(why_not(name)), reason=f"no {name} here"))
    for name in ("onnxruntime", "openvino")
]


@pytest.fixture(scope="module")
def town():
    return Bundle.load(TOWN_BUNDLE)


@pytest.fixture(scope="module")
def images(town):
    size = town.manifest.absolute.preprocessing
    return np.stack([normalise(image, size) for image in town.golden.image_NHW3])


def relative_difference(output, expected):
    return float(np.linalg.norm(output - expected) / np.linalg.norm(expected))


@pytest.mark.slow
@pytest.mark.parametrize("name", CPU_ENGINES)
def test_float32_outputs_equal_those_of_torch(town, images, name):
    engine = create_engine(name, EngineRequest(town.absolute_onnx(), "float32", threads=1))
    outputs = infer_all(engine, images)
    for output, expected in town.golden.absolute.items():
        assert relative_difference(outputs[output], expected) < 1e-4, output
    info = engine.describe()
    assert (info.name, info.device, info.precision) == (name, "cpu", "float32")
    assert info.version


@pytest.mark.slow
@pytest.mark.parametrize("name", CPU_ENGINES)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_network_passes_the_self_test(town, name, precision):
    if precision == "int8" and not int8_is_fast():
        pytest.skip("int8 sums saturate on this CPU, and `auto` does not take it")
    absolute = create_engine(name, EngineRequest(town.absolute_onnx(precision), precision))
    found = measure_golden_images(absolute, town)
    assert describe_exceeded(found, town.manifest.absolute.variants[precision].tolerance) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", CPU_ENGINES)
def test_batches_give_the_outputs_of_single_images(town, images, name):
    single, batched = (
        infer_all(create_engine(name, EngineRequest(town.absolute_onnx(), batch=b)), images, b)
        for b in (1, 4)  # six images: the second batch is padded
    )
    for output, expected in single.items():
        assert len(batched[output]) == len(images)
        np.testing.assert_allclose(batched[output], expected, atol=1e-4)


def test_openvino_computes_in_the_requested_precision(town, images):
    """Without the setting, OpenVINO chooses bfloat16 on a CPU that has it."""
    ov = pytest.importorskip("openvino")
    if "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(EngineError, match="no bfloat16 arithmetic"):
            create_engine("openvino", EngineRequest(town.absolute_onnx(), "bfloat16"))
        pytest.skip("this CPU has no bfloat16")
    engine = create_engine("openvino", EngineRequest(town.absolute_onnx(), "bfloat16"))
    difference = relative_difference(
        infer_all(engine, images)[network_io.METRIC_FEATURE],
        town.golden.absolute[network_io.METRIC_FEATURE],
    )
    assert engine.describe().precision == "bfloat16"
    assert 1e-3 < difference < 0.2


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_buffers_are_fixed(name):
    engine = create_engine(name, EngineRequest(colour_absolute()))
    image = np.full((1, 3, 48, 64), 0.25, np.float32)
    first = engine.infer({"image": image})
    assert first["translation_normalised"].ravel() == pytest.approx([0.3, 0.25, 0.25])
    second = engine.infer({"image": 2.0 * image})
    assert second["translation_normalised"] is first["translation_normalised"]
    assert first["translation_normalised"].ravel() == pytest.approx([0.55, 0.5, 0.5])
    assert image[0, 0, 0, 0] == 0.25


@pytest.mark.parametrize("name", CPU_ENGINES)
def test_wrong_inputs_and_closed_engines_are_errors(name):
    engine = create_engine(name, EngineRequest(colour_absolute()))
    image = np.zeros((1, 3, 48, 64), np.float32)
    with pytest.raises(EngineError, match="the network takes image, not picture"):
        engine.infer({"picture": image})
    with pytest.raises(
        EngineError, match=r"image has shape \(1, 3, 48, 63\), not \(1, 3, 48, 64\)"
    ):
        engine.infer({"image": image[..., 1:]})
    engine.infer({"image": image})
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer({"image": image})
    with pytest.raises(EngineError, match="cannot load this network"):
        create_engine(name, EngineRequest(b"not a network"))


def test_unsupported_precisions_are_refused():
    for name, precision in (("openvino", "float16"), ("onnxruntime", "bfloat16")):
        with pytest.raises(EngineError, match=f"{name} does not compute in {precision}, only in"):
            create_engine(name, EngineRequest(colour_absolute(), precision))


@pytest.mark.parametrize("name", ENGINES)
def test_an_unavailable_engine_says_what_to_install(name):
    reason = why_not(name)
    if reason is None and "tensorrt" in name:
        pytest.skip("what is built is tested on the device: rgsiam engine verify")
    if reason is None:
        create_engine(name, EngineRequest(colour_absolute())).close()
        return
    assert "install" in reason or "GPU" in reason
    with pytest.raises(EngineError):
        create_engine(name, EngineRequest(colour_absolute()))
