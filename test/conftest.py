"""Shared parts of the tests: where things are, small bundles, small bags."""

import os
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.spatial.transform import Rotation

from rgsiam_ros.bundle import write_bundle

ROOT = Path(__file__).resolve().parent.parent
TOWN_DRIVE = ROOT / "test" / "data" / "town_drive"
TOWN_MAP = ROOT / "test" / "data" / "town_map"
TOWN_BUNDLE = ROOT / "models" / "town"


@pytest.fixture
def shared_data():
    folder = Path(os.environ.get("RGSIAM_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: shared test data is not part of the repository")
    return folder


def random_poses(count, seed=0, scale_m=5.0):
    """``(N, 4, 4)`` random poses."""
    random = np.random.default_rng(seed)
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = Rotation.random(count, random_state=seed).as_matrix()
    T[:, :3, 3] = random.normal(0.0, scale_m, (count, 3))
    return T


def brightness_network(width=64, height=48, quaternion_wxyz=(1.0, 0.0, 0.0, 0.0)):
    """ONNX bytes of a network whose x coordinate is the image's mean red value, y green, z blue."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "one"], ["translation_normalised"]),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("ReduceSum", ["nothing", "axis"], ["none"], keepdims=1),
        helper.make_node("Add", ["none", "quaternion"], ["rotation_quaternion_wxyz"]),
    ]
    weights = [
        numpy_helper.from_array(np.ones(1, np.float32), "one"),
        numpy_helper.from_array(np.zeros(1, np.float32), "zero"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(np.array([quaternion_wxyz], np.float32), "quaternion"),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, height, width])],
        [
            helper.make_tensor_value_info("translation_normalised", TensorProto.FLOAT, [1, 3]),
            helper.make_tensor_value_info("rotation_quaternion_wxyz", TensorProto.FLOAT, [1, 4]),
        ],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def description(width=64, height=48):
    """The manifest of a small bundle, without its files."""
    sigma = [0.1, 0.1, 0.1, 0.02, 0.02, 0.02]
    return {
        "name": "small",
        "created": "2026-01-01T00:00:00+00:00",
        "map_frame": "map",
        "preprocessing": {
            "input_width": width,
            "input_height": height,
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
        },
        "camera": {"width": 128, "height": 96, "fx": 100.0, "fy": 100.0, "cx": 64.0, "cy": 48.0},
        "target": {"origin_m": [1000.0, 2000.0, 3.0], "scale_m": 10.0},
        "network": {"backbone": "brightness", "opset": 17, "exported_with": "test"},
        "training_data": {"fingerprint": "0" * 64, "source": "test", "frames": 10},
        "validation": {
            "frames": 10,
            **{f"{n}_{u}": 0.1 for n in ("median", "mean", "p95") for u in ("m", "deg")},
            "export_difference_m": 0.0,
            "export_difference_deg": 0.0,
        },
        "covariance": {"matrix": np.diag(np.square(sigma)).tolist()},
    }


@pytest.fixture
def small_bundle(tmp_path):
    """A valid bundle whose answers are known: see `brightness_network`."""
    return write_bundle(
        tmp_path / "small", description(), {"absolute.onnx": brightness_network()}
    ).path


def flat_image(blue, green, red, width=128, height=96):
    """One colour everywhere, BGR."""
    return np.full((height, width, 3), (blue, green, red), np.uint8)


def jpeg_bytes(image_HW3, quality=95):
    return cv2.imencode(".jpg", image_HW3, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


@pytest.fixture
def town_like_bundle(tmp_path):
    """The small bundle, for the town's camera: quick, and as real as any other to the program."""
    text = description()
    text["camera"] = {
        "width": 320,
        "height": 180,
        "fx": 190.0,
        "fy": 190.0,
        "cx": 160.0,
        "cy": 90.0,
    }
    return write_bundle(tmp_path / "town_like", text, {"absolute.onnx": brightness_network()}).path
