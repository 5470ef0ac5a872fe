"""Reduced precisions and golden images: which go into a bundle and which are refused."""

import numpy as np
import onnx
import pytest
import yaml
from onnx import numpy_helper
from support.bags import cut_bag
from support.log_messages import log_messages
from support.paths import TOWN_MAP

torch = pytest.importorskip("torch", reason="the training extra is not installed here")
from support.small_training import TINY_BACKBONE, small_training

from rgsiam_ros.bundle import Bundle
from rgsiam_ros.camera.preprocessing import normalise
from rgsiam_ros.engines import EngineRequest, create_engine
from rgsiam_ros.engines.batching import infer_all
from rgsiam_ros.engines.tensorrt_build import build_engine
from rgsiam_training.export import acceptance
from rgsiam_training.export.bundle_export import export_bundle
from rgsiam_training.export.onnx_export import absolute_to_onnx, round_large_weights, to_bytes
from rgsiam_training.export.quantization import Quantiser, to_float16
from rgsiam_training.fitting.run_folder import open_run
from rgsiam_training.fitting.train import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return cut_bag(TOWN_MAP, tmp_path_factory.mktemp("bag") / "bag", images=80)


@pytest.fixture(scope="module")
def run(bag, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    train(small_training(bag), folder, progress=False)
    return open_run(folder)


@pytest.fixture(scope="module")
def tiny_run(bag, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "tiny"
    train(small_training(bag, network=TINY_BACKBONE), folder, progress=False)
    return open_run(folder)


@pytest.fixture(scope="module")
def network(run):
    branch = run.absolute_branch()
    round_large_weights(branch)
    return absolute_to_onnx(branch, run.preprocessing)


@pytest.fixture(scope="module")
def images(run):
    return np.stack([normalise(i, run.preprocessing) for i in run.mapping.image_NHW3[:24]])


def infer(model, images, name="onnxruntime", precision="float32"):
    return infer_all(create_engine(name, EngineRequest(to_bytes(model), precision)), images)


def relative_difference(outputs, expected, name="metric_feature"):
    return np.linalg.norm(outputs[name] - expected[name]) / np.linalg.norm(expected[name])


def weight_is_quantised(model, convolution):
    """Whether the weight of a convolution is stored in int8."""
    makers = {output: node for node in model.graph.node for output in node.output}
    node = next(n for n in model.graph.node if n.name == convolution)
    maker = makers.get(node.input[1])
    return maker is not None and maker.op_type == "DequantizeLinear"


def test_weights_are_stored_in_float16_without_loss(run, network, images):
    content = to_bytes(network)
    stored = onnx.load_model_from_string(content)
    kinds = {w.data_type for w in stored.graph.initializer if np.prod(w.dims) >= 4096}
    assert kinds == {onnx.TensorProto.FLOAT16}
    full = sum(numpy_helper.to_array(w).nbytes for w in network.graph.initializer)
    assert len(content) < 0.6 * full
    expected = infer(network, images)
    branch = run.absolute_branch()
    with torch.no_grad():
        values = branch(torch.from_numpy(images))
    for name, value in zip(branch.output_names, values, strict=True):
        np.testing.assert_allclose(expected[name], value.numpy(), atol=1e-4)


def test_float16_keeps_its_heads_in_float32(network, images):
    halved = to_float16(network)
    kinds = {w.name: w.data_type for w in halved.graph.initializer}
    for node in halved.graph.node:
        if node.op_type == "Cast":
            kinds[node.output[0]] = node.attribute[0].i
    for node in halved.graph.node:
        if node.op_type == "Gemm":
            assert kinds[node.input[1]] == onnx.TensorProto.FLOAT
        if node.op_type == "Conv":
            assert kinds[node.input[1]] == onnx.TensorProto.FLOAT16
    io = [*halved.graph.input, *halved.graph.output]
    assert {v.type.tensor_type.elem_type for v in io} == {onnx.TensorProto.FLOAT}
    half, expected = infer(halved, images, precision="float16"), infer(network, images)
    assert 1e-5 < relative_difference(half, expected) < 2e-2


def test_the_float16_network_builds_for_tensorrt(network):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not here")
    half, full = (
        build_engine("tensorrt_rtx", to_bytes(m), p)
        for m, p in ((to_float16(network), "float16"), (network, "float32"))
    )
    assert 0.3 * len(full) < len(half) < 0.9 * len(full)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("percentile", [99.999, None])
def test_int8_quantises_all_convolutions_with_a_small_error(network, images, symmetric, percentile):
    quantiser = Quantiser(network, images, symmetric=symmetric, percentile=percentile)
    model = quantiser.quantise()
    assert all(weight_is_quantised(model, name) for name in quantiser.convolutions)
    precision = "int8_symmetric" if symmetric else "int8"
    expected = infer(network, images)
    assert 1e-3 < relative_difference(infer(model, images, precision=precision), expected) < 0.3
    zero_points = {
        int(numpy_helper.to_array(w).max())
        for w in model.graph.initializer
        if w.name.endswith("zero_point") and not w.dims
    }
    assert (zero_points == {0}) == symmetric
    if symmetric:  # TensorRT takes no biases of 32 bits
        assert not any(w.data_type == onnx.TensorProto.INT32 for w in model.graph.initializer)


def test_excluded_convolutions_stay_in_float32_on_every_engine(network, images):
    """Without the options of our engine, ONNX Runtime would quantise them."""
    quantiser = Quantiser(network, images, symmetric=False)
    order = quantiser.most_sensitive_first()
    assert sorted(order) == sorted(quantiser.convolutions)
    kept = order[:4]
    model = quantiser.quantise(kept)
    assert [n for n in quantiser.convolutions if not weight_is_quantised(model, n)] == sorted(
        kept, key=quantiser.convolutions.index
    )
    expected = infer(network, images)
    here = relative_difference(infer(model, images, precision="int8"), expected)
    assert here < relative_difference(
        infer(quantiser.quantise(), images, precision="int8"), expected
    )
    pytest.importorskip("openvino")
    there = relative_difference(infer(model, images, "openvino", "int8"), expected)
    assert here == pytest.approx(there, rel=0.3)


@pytest.fixture(scope="module")
def accepted(tiny_run, tmp_path_factory):
    """A bundle whose reduced precisions were accepted, however bad they are."""
    out = tmp_path_factory.mktemp("bundle") / "all"
    with pytest.MonkeyPatch.context() as patch, log_messages("rgsiam_training.export") as messages:
        patch.setattr(acceptance, "LARGEST_LOSS", 9.0)
        export_bundle(tiny_run.folder, out, precisions=("float16", "int8"))
    accepted = [message.split(":")[0] for message in messages if " accepted: " in message]
    assert accepted == ["float16 accepted", "int8 accepted"]
    return Bundle.load(out)


def test_golden_images_are_held_out_images_with_outputs_of_torch(tiny_run, accepted):
    golden = accepted.golden
    stored = {image.tobytes() for image in tiny_run.validation.image_NHW3}
    assert len(golden.image_NHW3) == 6
    assert all(image.tobytes() in stored for image in golden.image_NHW3)
    branch = tiny_run.absolute_branch()
    round_large_weights(branch)
    inputs = np.stack([normalise(i, tiny_run.preprocessing) for i in golden.image_NHW3])
    with torch.no_grad():
        values = branch(torch.from_numpy(inputs))
    for name, value in zip(branch.output_names, values, strict=True):
        np.testing.assert_allclose(golden.absolute[name], value.numpy(), atol=1e-5)


def test_a_precision_that_worsens_validation_is_refused(tiny_run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(acceptance, "LARGEST_LOSS", -0.99)  # nothing is that much better
    monkeypatch.setattr(acceptance, "KEPT", (0, 1))
    bundle = export_bundle(tiny_run.folder, tmp_path / "b", precisions=("int8",))
    assert bundle.manifest.precisions == ("float32",)
    refused, not_calibrated = (
        record.getMessage() for record in caplog.records if record.levelname == "WARNING"
    )
    assert refused.startswith("int8 refused: median ")
    assert "are needed: give another session" in not_calibrated


def test_an_accepted_precision_is_in_the_bundle(accepted):
    bundle = accepted
    assert bundle.manifest.precisions == ("float32", "float16", "int8")
    stored = yaml.safe_load((bundle.path / "manifest.yaml").read_text())
    variant = stored["absolute"]["variants"]["int8"]
    assert variant["accepted_with"].startswith("onnxruntime ")
    assert variant["validation"]["export_difference_m"] > 0.0
    reduced, full = (bundle.map_features(p).metric_feature_ND for p in ("int8", "float32"))
    assert np.abs(reduced - full).max() > 0.0
