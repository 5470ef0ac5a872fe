"""Small bundles whose poses are known."""

import io

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from rgsiam_ros.bundle.golden_views import GoldenViews
from rgsiam_ros.bundle.map_points import MapPoints
from rgsiam_ros.features.vlad import Vlad
from support.images import flat_image


def _model(nodes, weights, inputs, outputs):
    """ONNX bytes of a network. weights: values by name; inputs and outputs: shapes by name."""

    def values(shapes):
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]

    stored = [numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items()]
    graph = helper.make_graph(nodes, "small", values(inputs), values(outputs), stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def brightness_network(width=64, height=48, quaternion_wxyz=(1.0, 0.0, 0.0, 0.0)):
    """ONNX bytes of a network whose x coordinate is the image's mean red value, y green, z blue."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "one"], ["translation_normalised"]),
        helper.make_node("Mul", ["mean", "zero"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros", "axis"], ["zero_sum"], keepdims=1),
        helper.make_node("Add", ["zero_sum", "quaternion"], ["rotation_quaternion_wxyz"]),
    ]
    weights = {
        "one": np.ones(1, np.float32),
        "zero": np.zeros(1, np.float32),
        "axis": np.array([1], np.int64),
        "quaternion": np.array([quaternion_wxyz], np.float32),
    }
    outputs = {"translation_normalised": [1, 3], "rotation_quaternion_wxyz": [1, 4]}
    return _model(nodes, weights, {"image": [1, 3, height, width]}, outputs)


MAP_COLOURS = np.array([[0.2, 0.4, 0.6], [0.8, 0.4, 0.2], [0.8, 0.5, 0.3], [0.5, 0.5, 0.5]])
"""Red, green and blue of the images in the map of `colour_bundle`."""


ABSOLUTE_BIAS = 0.05
"""Error in x of the absolute branch of `colour_bundle`, normalised."""


def colour_absolute(width=64, height=48, bias=ABSOLUTE_BIAS):
    """ONNX bytes of an absolute branch like `brightness_network`, with an error in x.

    Its metric feature is the direction of the mean colour.
    """
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Add", ["mean", "bias"], ["translation_normalised"]),
        helper.make_node("LpNormalization", ["mean"], ["metric_feature"], axis=1, p=2),
        helper.make_node("Mul", ["mean", "zero"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros", "axis"], ["zero_sum"], keepdims=1),
        helper.make_node("Add", ["zero_sum", "identity"], ["rotation_quaternion_wxyz"]),
    ]
    weights = {
        "bias": np.array([[bias, 0.0, 0.0]], np.float32),
        "zero": np.zeros(1, np.float32),
        "axis": np.array([1]),
        "identity": np.array([[1.0, 0.0, 0.0, 0.0]], np.float32),
    }
    outputs = {
        "translation_normalised": [1, 3],
        "rotation_quaternion_wxyz": [1, 4],
        "metric_feature": [1, 3],
    }
    return _model(nodes, weights, {"image": [1, 3, height, width]}, outputs)


GOLDEN_COLOURS = ((76, 102, 204), (153, 102, 51), (128, 128, 128))
"""Blue, green and red of the golden images."""
INT8_BIAS = ABSOLUTE_BIAS + 0.01
"""Error of the "int8" network of `int8_parts`, normalised: 0.1 m more than float32."""
TIGHT = 5e-3
"""Tolerance of each golden output, in the unit of that output."""


def npz_bytes(arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def golden_colours(width=64, height=48, colours=GOLDEN_COLOURS):
    """Golden images ``(N, H, W, 3)`` of one colour each, and the colours, red first, 0..1."""
    images = np.stack([flat_image(*colour, width, height) for colour in colours])
    return images, images[:, 0, 0, ::-1].astype(np.float32) / 255.0


def figures(sigma_6):
    """Errors and residual covariance of the absolute branch, for a manifest."""
    names = [f"{n}_{u}" for n in ("median", "mean", "p95") for u in ("m", "deg")]
    difference = {"export_difference_m": 0.0, "export_difference_deg": 0.0}
    return {
        "validation": {"frames": 10, **dict.fromkeys(names, 0.1), **difference},
        "covariance": {"matrix": np.diag(np.square(sigma_6)).tolist()},
    }


ABSOLUTE_SIGMA = np.array([0.1, 0.1, 0.1, 0.02, 0.02, 0.02])


def description(width=64, height=48):
    """The manifest of a small bundle with an absolute branch, without its files."""
    return {
        "name": "small",
        "created": "2026-01-01T00:00:00+00:00",
        "map_frame": "map",
        "camera": {"width": 128, "height": 96, "fx": 100.0, "fy": 100.0, "cx": 64.0, "cy": 48.0},
        "mapping_data": {"fingerprint": "0" * 64, "source": "test", "frames": 10},
        "absolute": {
            "preprocessing": {
                "input_width": width,
                "input_height": height,
                "mean": [0.0, 0.0, 0.0],
                "std": [1.0, 1.0, 1.0],
            },
            "target": {"origin_m": [1000.0, 2000.0, 3.0], "scale_m": 10.0},
            "network": {"backbone": "brightness", "opset": 17, "exported_with": "test"},
            "variants": {
                "float32": {
                    "accepted_with": "test",
                    "tolerance": {"position_m": TIGHT, "rotation_deg": TIGHT},
                    **figures(ABSOLUTE_SIGMA),
                }
            },
        },
    }


TOWN_CAMERA = {"width": 320, "height": 180, "fx": 190.0, "fy": 190.0, "cx": 159.5, "cy": 89.5}
"""The camera of the drives in `test/data`."""


def brightness_contents(
    width=64, height=48, quaternion_wxyz=(1.0, 0.0, 0.0, 0.0), colours=GOLDEN_COLOURS
):
    """The files of a small bundle: `brightness_network` and its golden images."""
    images, colour = golden_colours(width, height, colours)
    golden = {
        "image_NHW3": images,
        "translation_normalised": colour,
        "rotation_quaternion_wxyz": np.tile(np.float32(quaternion_wxyz), (len(images), 1)),
    }
    return {
        "absolute.onnx": brightness_network(width, height, quaternion_wxyz),
        "golden_images.npz": npz_bytes(golden),
    }


def colour_parts(neighbours=2):
    """Description and contents of a bundle with `colour_absolute` and map features."""
    text = description()
    text["absolute"]["retrieval"] = {
        "neighbours": neighbours,
        "reach_m": 2.0,
        "metres_per_radian": 4.0,
        "map_images": len(MAP_COLOURS),
    }
    tolerances = ("position_m", "rotation_deg", "metric_feature")
    text["absolute"]["variants"]["float32"]["tolerance"] = dict.fromkeys(tolerances, TIGHT)
    poses = np.tile(np.eye(4), (len(MAP_COLOURS), 1, 1))
    poses[:, :3, 3] = np.array(text["absolute"]["target"]["origin_m"]) + 10.0 * MAP_COLOURS
    unit = MAP_COLOURS / np.linalg.norm(MAP_COLOURS, axis=1, keepdims=True)
    features = {
        "metric_feature_ND": unit.astype(np.float16),
        "T_map_camera_N44": poses,
    }
    images, colour = golden_colours()
    identity = np.tile(np.array([1.0, 0.0, 0.0, 0.0], np.float32), (len(images), 1))
    golden = {
        "image_NHW3": images,
        "translation_normalised": colour + [ABSOLUTE_BIAS, 0.0, 0.0],
        "rotation_quaternion_wxyz": identity,
        "metric_feature": colour / np.linalg.norm(colour, axis=1, keepdims=True),
    }
    contents = {
        "absolute.onnx": colour_absolute(),
        "map_features.npz": npz_bytes(features),
        "golden_images.npz": npz_bytes(golden),
    }
    return text, contents


def int8_parts(neighbours=2, int8_bias=INT8_BIAS):
    """As `colour_parts`, with a second float32 network in place of an int8 one."""
    text, contents = colour_parts(neighbours)
    variants = text["absolute"]["variants"]
    float32 = variants["float32"]
    variants["int8"] = {
        "accepted_with": "test",
        "tolerance": {**float32["tolerance"], "position_m": 0.15},
        **figures(2.0 * ABSOLUTE_SIGMA),
    }
    contents["absolute.int8.onnx"] = colour_absolute(bias=int8_bias)
    contents["map_features.int8.npz"] = contents["map_features.npz"]
    return text, contents


def local_features_network(width=64, height=32):
    """ONNX bytes of a local features' network whose outputs are means of the grey values in each cell."""
    nodes = [
        helper.make_node("Mul", ["image", "scale"], ["heat"]),
        helper.make_node(
            "AveragePool", ["heat"], ["reliability"], kernel_shape=[8, 8], strides=[8, 8]
        ),
        helper.make_node("Mul", ["reliability", "channels"], ["descriptors"]),
    ]
    weights = {
        "scale": np.array([1.0 / 255.0], np.float32),
        "channels": np.ones((1, 64, 1, 1), np.float32),
    }
    outputs = {
        "descriptors": [1, 64, height // 8, width // 8],
        "reliability": [1, 1, height // 8, width // 8],
        "heat": [1, 1, height, width],
    }
    return _model(nodes, weights, {"image": [1, 1, height, width]}, outputs)


def small_map_points():
    """A map of two images and three points."""
    descriptors = np.zeros((3, 64), np.int8)
    descriptors[[0, 1, 2], [0, 1, 2]] = 127
    words = np.eye(2, 64, dtype=np.float32)
    return MapPoints(
        np.arange(9.0).reshape(3, 3),
        descriptors,
        np.tile(np.eye(4), (2, 1, 1)),
        np.array([[127, 0], [0, 127]], np.int8),
        (np.array([0, 1]), np.array([1, 2])),
        Vlad(words, np.zeros(128, np.float32), np.eye(128, 2, dtype=np.float32)),
    )


def geometric_parts(width=64, height=32):
    """Description and contents of a bundle with a geometric branch only. Its map is too small to answer."""
    text = description()
    del text["absolute"]
    variant = {"accepted_with": "test", "tolerance_m": TIGHT, "tolerance_deg": TIGHT}
    text["geometry"] = {
        "preprocessing": {"input_width": width, "input_height": height},
        "network": {"name": "means", "licence": "none", "opset": 17, "exported_with": "test"},
        "placement": {"origin_m": [1000.0, 2000.0, 3.0]},
        "map_images": 2,
        "points": 3,
        "keypoints": 16,
        "candidates": 1,
        "fewest_inliers": 4,
        "variants": {"float32": variant},
        "pixel_sigma": 1.0,
        "position_factor": 1.0,
        "rotation_factor": 1.0,
        "floor_m": 0.0,
        "floor_rad": 0.0,
        "sessions": [{"name": "drive", "source": "drive", "images": 2, "points": 3}],
    }
    contents = {
        "local_features.onnx": local_features_network(width, height),
        "map_points.npz": npz_bytes(small_map_points().to_arrays()),
        "golden_views.npz": npz_bytes(
            GoldenViews(
                np.zeros((2, height, width), np.uint8), np.tile(np.eye(4), (2, 1, 1))
            ).to_arrays()
        ),
    }
    return text, contents


def parts_of_both_branches():
    """As `int8_parts`, with the geometric branch of `geometric_parts` too."""
    text, contents = int8_parts()
    geometric_text, geometric_contents = geometric_parts()
    return text | {"geometry": geometric_text["geometry"]}, contents | geometric_contents


def calibrated_summary(source="test"):
    """What a manifest says about a calibration."""
    return {
        "source": source,
        "frames": 100,
        "false_accept_rate": 0.01,
        "accepted": 0.9,
        "wrong_m": 1.0,
    }


def edit_manifest(bundle, change):
    """Rewrite the manifest of a bundle. `change` edits its data in place."""
    path = bundle / "manifest.yaml"
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(yaml.safe_dump(data))


def golden_arrays(contents):
    """The arrays of a bundle's golden images."""
    with np.load(io.BytesIO(contents["golden_images.npz"])) as stored:
        return dict(stored)
