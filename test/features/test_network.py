import cv2
import numpy as np
import onnx
import pytest
from support.paths import ROOT, TOWN_MAP

from rgsiam_ros.bundle.onnx_check import check_onnx
from rgsiam_ros.camera.model import Camera
from rgsiam_ros.camera.preprocessing import fit_image
from rgsiam_ros.engines import EngineRequest, create_engine
from rgsiam_ros.features.keypoints import extract
from rgsiam_ros.features.matching import mutual_matches
from rgsiam_ros.features.network import (
    feature_preprocessing,
    grey,
    intrinsics,
    network_for,
    network_input,
    opset,
    shipped_network,
)
from rgsiam_ros.recordings.formats import open_dataset


def camera(width, height, **lens):
    focal = 0.8 * width
    return Camera(
        width=width,
        height=height,
        fx=focal,
        fy=1.02 * focal,
        cx=0.49 * width,
        cy=0.53 * height,
        **lens,
    )


WIDE_LENS = {"distortion_model": "plumb_bob", "distortion": (-0.2, 0.04, 0.001, -0.001)}
SHIPPED = [
    ("local_features.onnx", "float32"),
    ("local_features.float16.onnx", "float16"),
    ("local_features.int8.onnx", "int8"),
    ("local_features.int8_symmetric.onnx", "int8_symmetric"),
]
POINTS = np.array([[-0.9, -0.4, 3.0], [0.8, 0.5, 2.5], [0.1, -0.2, 1.2], [1.1, -0.6, 3.1]])
"""In the camera's axes, metres."""


@pytest.mark.parametrize(
    ("size", "width", "expected"),
    [
        ((320, 180), 512, (512, 288)),
        ((640, 480), 512, (512, 384)),
        ((641, 479), 500, (512, 384)),
        ((640, 480), 320, (320, 256)),  # 240 is no multiple of 32
        ((3000, 100), 512, (512, 64)),
        ((1080, 1920), 2048, (1152, 2048)),  # not higher than the largest side
    ],
)
def test_the_sides_of_the_network_are_multiples_of_32(size, width, expected):
    preprocessing = feature_preprocessing(camera(*size), width)
    assert (preprocessing.input_width, preprocessing.input_height) == expected
    assert preprocessing.aspect == "stretch"
    assert not preprocessing.undistort


def blob(x, y, width, height, sigma):
    """A bright spot on black; x, y in pixels, the centre of the first pixel is (0, 0)."""
    rows, columns = np.mgrid[:height, :width]
    value = 255.0 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2.0 * sigma**2))
    return np.rint(value).astype(np.uint8)


def centre_of(image_HW):
    value = network_input(image_HW)[0, 0].astype(np.float64)
    rows, columns = np.mgrid[: value.shape[0], : value.shape[1]]
    return np.array([(columns * value).sum(), (rows * value).sum()]) / value.sum()


@pytest.mark.parametrize(
    ("size", "width", "lens"),
    [
        ((320, 180), 512, {}),
        ((640, 480), 512, {}),
        ((333, 251), 256, {}),
        ((640, 480), 256, WIDE_LENS),
    ],
)
def test_points_lie_where_the_intrinsics_say_in_the_image_of_the_network(size, width, lens):
    seen_by = camera(*size, **lens)
    preprocessing = feature_preprocessing(seen_by, width)
    assert preprocessing.undistort == bool(lens)
    K = intrinsics(seen_by, preprocessing)
    no_motion = np.zeros(3), np.zeros(3)
    original = cv2.projectPoints(
        POINTS, *no_motion, seen_by.K, np.array(seen_by.distortion or [0.0] * 4)
    )[0][:, 0]
    expected = cv2.projectPoints(POINTS, *no_motion, K, None)[0][:, 0]
    for (x, y), wanted in zip(original, expected, strict=True):
        image = blob(x, y, *size, sigma=0.015 * size[0])
        found = centre_of(fit_image(image, preprocessing, seen_by))
        np.testing.assert_allclose(found, wanted, atol=0.25 if lens else 0.03)


@pytest.mark.parametrize(("file", "precision"), SHIPPED)
def test_a_network_for_a_size_takes_and_gives_exactly_that_size(file, precision, tmp_path):
    network = network_for(feature_preprocessing(camera(256, 160), 256), file)
    inputs = {"image": (1, 1, 160, 256)}
    outputs = {"descriptors": (1, 64, 20, 32), "reliability": (1, 1, 20, 32)}
    outputs["heat"] = (1, 1, 160, 256)
    check_onnx(network, tmp_path / "network.onnx", inputs, outputs)
    engine = create_engine("onnxruntime", EngineRequest(network, precision, threads=1))
    found = engine.infer({"image": np.zeros((1, 1, 160, 256), np.float32)})
    assert {name: value.shape for name, value in found.items()} == outputs
    assert all(np.isfinite(value).all() for value in found.values())
    engine.close()
    assert opset() == onnx.load_model_from_string(network).opset_import[0].version


def test_every_shipped_network_is_tested():
    folder = ROOT / "rgsiam_ros" / "features" / "data"
    assert {path.name for path in folder.glob("*.onnx")} == {file for file, _ in SHIPPED}


def town_image():
    return grey(next(open_dataset(TOWN_MAP).read_images()).decode())


@pytest.mark.parametrize(("file", "precision"), SHIPPED[1:])
def test_reduced_networks_find_nearly_the_same_keypoints(file, precision):
    image = network_input(town_image()[:160, :256])
    size = feature_preprocessing(camera(256, 160), 256)
    found = []
    for name, kind in (SHIPPED[0], (file, precision)):
        engine = create_engine("onnxruntime", EngineRequest(network_for(size, name), kind))
        found.append(extract(engine.infer({"image": image}), 200))
        engine.close()
    full, reduced = found
    apart = np.linalg.norm(full.pixel_N2[:, None] - reduced.pixel_N2[None], axis=2)
    nearest = apart.argmin(axis=1)
    same = apart.min(axis=1) < 1.0
    assert same.mean() > 0.8
    similar = (full.descriptor_ND * reduced.descriptor_ND[nearest]).sum(axis=1)[same]
    assert np.median(similar) > 0.97


def test_the_symmetric_network_is_as_tensorrt_takes_it():
    """No zero points, and no biases of 32 bits."""
    model = onnx.load_model_from_string(shipped_network("local_features.int8_symmetric.onnx"))
    weights = {w.name: w for w in model.graph.initializer}
    quantised = [n for n in model.graph.node if n.op_type == "DequantizeLinear"]
    assert len(quantised) > 50
    for node in quantised:
        zero_point = onnx.numpy_helper.to_array(weights[node.input[2]])
        assert zero_point.dtype == np.int8
        assert not zero_point.any()


def test_keypoints_move_with_the_image():
    """Two parts of one real image, of which one begins 37 pixels to the right and 19 below the other."""
    image = town_image()
    network = network_for(feature_preprocessing(camera(256, 160), 256))
    engine = create_engine("onnxruntime", EngineRequest(network, threads=1))
    parts = image[:160, :256], image[19:179, 37:293]
    first, second = (extract(engine.infer({"image": network_input(part)}), 500) for part in parts)
    engine.close()
    found = mutual_matches(first.descriptor_ND @ second.descriptor_ND.T, 0.85)
    shift = first.pixel_N2[found.first_M] - second.pixel_N2[found.second_M]
    assert len(shift) > 100
    right = np.abs(shift - [37.0, 19.0]).max(axis=1) < 1.5
    assert right.mean() > 0.4  # the windows of the houses look alike
    np.testing.assert_allclose(shift[right].mean(axis=0), [37.0, 19.0], atol=0.1)


def test_the_licence_of_the_weights_is_shipped_with_them():
    folder = ROOT / "rgsiam_ros" / "features" / "data"
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert "XFeat" in (folder / "NOTICE").read_text()
    assert len(shipped_network()) < 2e6
