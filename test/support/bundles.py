"""Small bundles whose answers are known."""

import io

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from rgsiam_ros.engines.selection import INT8_FEATURES, cpu_features
from support.images import flat_image


def int8_is_fast():
    """Whether this CPU has the instructions without which ``auto`` does not try int8."""
    return bool(cpu_features() & set(INT8_FEATURES))


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


MAP_COLOURS = np.array([[0.2, 0.4, 0.6], [0.8, 0.4, 0.2], [0.8, 0.5, 0.3], [0.5, 0.5, 0.5]])
"""Red, green and blue of the images in the map of `refinable_bundle`."""


ABSOLUTE_BIAS = 0.05
"""By which the absolute branch of `refinable_bundle` is off, normalised, in x."""


def _model(nodes, weights, inputs, outputs):
    def values(shapes):
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]

    stored = [numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items()]
    graph = helper.make_graph(nodes, "colour", values(inputs), values(outputs), stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def colour_absolute(width=64, height=48, bias=ABSOLUTE_BIAS):
    """As `brightness_network`, off by the bias, with the colour itself as features."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["local_map"], axes=[2, 3], keepdims=1),
        helper.make_node("Reshape", ["local_map", "flat"], ["mean"]),
        helper.make_node("Add", ["mean", "bias"], ["translation_normalised"]),
        helper.make_node("LpNormalization", ["mean"], ["metric_feature"], axis=1, p=2),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("ReduceSum", ["nothing", "axis"], ["none"], keepdims=1),
        helper.make_node("Add", ["none", "identity"], ["rotation_quaternion_wxyz"]),
    ]
    weights = {
        "flat": np.array([1, 3]),
        "bias": np.array([[bias, 0.0, 0.0]], np.float32),
        "zero": np.zeros(1, np.float32),
        "axis": np.array([1]),
        "identity": np.array([[1.0, 0.0, 0.0, 0.0]], np.float32),
    }
    outputs = {
        "translation_normalised": [1, 3],
        "rotation_quaternion_wxyz": [1, 4],
        "metric_feature": [1, 3],
        "local_map": [1, 3, 1, 1],
    }
    return _model(nodes, weights, {"image": [1, 3, height, width]}, outputs)


def colour_relative(neighbours):
    """The motion between two images is their difference in colour: exact."""
    K = neighbours
    nodes = [
        helper.make_node("Sub", ["local_map", "map_local_map"], ["apart"]),
        helper.make_node("Reshape", ["apart", "flat"], ["translation_normalised"]),
        helper.make_node("Identity", ["turn"], ["rotation_quaternion_wxyz"]),
        helper.make_node("Identity", ["known"], ["information"]),
    ]
    weights = {
        "flat": np.array([K, 3]),
        "turn": np.tile(np.array([1.0, 0.0, 0.0, 0.0], np.float32), (K, 1)),
        "known": np.tile(100.0 * np.eye(6, dtype=np.float32), (K, 1, 1)),
    }
    inputs = {"map_local_map": [K, 3, 1, 1], "local_map": [1, 3, 1, 1]}
    outputs = {
        "translation_normalised": [K, 3],
        "rotation_quaternion_wxyz": [K, 4],
        "information": [K, 6, 6],
    }
    return _model(nodes, weights, inputs, outputs)


GOLDEN_COLOURS = ((76, 102, 204), (153, 102, 51), (128, 128, 128))
"""Blue, green and red of the golden images."""
INT8_BIAS = ABSOLUTE_BIAS + 0.01
"""Error of the "int8" network of `int8_parts`, normalised: 0.1 m more than float32."""
TIGHT = 5e-3
"""Tolerance of every difference, whatever its unit."""


def npz_bytes(arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def golden_colours(width=64, height=48, colours=GOLDEN_COLOURS):
    """Golden images ``(N, H, W, 3)`` of one colour each, and the colours, red first, 0..1."""
    images = np.stack([flat_image(*colour, width, height) for colour in colours])
    return images, images[:, 0, 0, ::-1].astype(np.float32) / 255.0


def figures(sigma_6):
    """Errors and residual covariance of a branch, for a manifest."""
    names = [f"{n}_{u}" for n in ("median", "mean", "p95") for u in ("m", "deg")]
    difference = {"export_difference_m": 0.0, "export_difference_deg": 0.0}
    return {
        "validation": {"frames": 10, **dict.fromkeys(names, 0.1), **difference},
        "covariance": {"matrix": np.diag(np.square(sigma_6)).tolist()},
    }


ABSOLUTE_SIGMA = np.array([0.1, 0.1, 0.1, 0.02, 0.02, 0.02])
REFINED_SIGMA = np.sqrt([0.01, 0.02, 0.03, 1e-4, 2e-4, 3e-4])


def description(width=64, height=48):
    """The manifest of a small bundle with an absolute branch, without its files."""
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
        "variants": {
            "float32": {
                "accepted_with": "test",
                "tolerance": {"position_m": TIGHT, "rotation_deg": TIGHT},
                "absolute": figures(ABSOLUTE_SIGMA),
            }
        },
    }


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


def refinable_parts(neighbours=2):
    """Description and contents of a bundle whose relative branch is exact; the absolute branch is off."""
    text = description()
    text["refinement"] = {
        "neighbours": neighbours,
        "reach_m": 2.0,
        "metres_per_radian": 4.0,
        "map_images": len(MAP_COLOURS),
    }
    names = ("position_m", "metric_feature", "local_map", "relative_position_m")
    others = ("rotation_deg", "relative_rotation_deg", "relative_information")
    float32 = text["variants"]["float32"]
    float32["tolerance"] = dict.fromkeys((*names, *others), TIGHT)
    float32["refined"] = figures(REFINED_SIGMA)
    poses = np.tile(np.eye(4), (len(MAP_COLOURS), 1, 1))
    poses[:, :3, 3] = np.array(text["target"]["origin_m"]) + 10.0 * MAP_COLOURS
    unit = MAP_COLOURS / np.linalg.norm(MAP_COLOURS, axis=1, keepdims=True)
    features = {
        "metric_feature_ND": unit.astype(np.float16),
        "local_NCHW": MAP_COLOURS[:, :, None, None].astype(np.float16),
        "T_map_camera_N44": poses,
    }
    images, colour = golden_colours()
    identity = np.tile(np.array([1.0, 0.0, 0.0, 0.0], np.float32), (len(images), 1))
    index = np.tile(np.arange(neighbours), (len(images), 1))
    golden = {
        "image_NHW3": images,
        "translation_normalised": colour + [ABSOLUTE_BIAS, 0.0, 0.0],
        "rotation_quaternion_wxyz": identity,
        "metric_feature": colour / np.linalg.norm(colour, axis=1, keepdims=True),
        "local_map": colour[:, :, None, None],
        "map_index_NK": index,
        "relative_translation_normalised": colour[:, None] - MAP_COLOURS[index].astype(np.float16),
        "relative_rotation_quaternion_wxyz": np.tile(identity[:, None], (1, neighbours, 1)),
        "relative_information": np.tile(100.0 * np.eye(6), (len(images), neighbours, 1, 1)),
    }
    contents = {
        "absolute.onnx": colour_absolute(),
        "relative.onnx": colour_relative(neighbours),
        "map_features.npz": npz_bytes(features),
        "golden_images.npz": npz_bytes(golden),
    }
    return text, contents


def int8_parts(neighbours=2, int8_bias=INT8_BIAS):
    """As `refinable_parts`, with a network that plays the int8 one."""
    text, contents = refinable_parts(neighbours)
    float32 = text["variants"]["float32"]
    text["variants"]["int8"] = {
        "accepted_with": "test",
        "tolerance": {**float32["tolerance"], "position_m": 0.15},
        "absolute": figures(2.0 * ABSOLUTE_SIGMA),
        "refined": figures(2.0 * ABSOLUTE_SIGMA),
    }
    contents["absolute.int8.onnx"] = colour_absolute(bias=int8_bias)
    contents["map_features.int8.npz"] = contents["map_features.npz"]
    return text, contents


def edit_manifest(bundle, change):
    path = bundle / "manifest.yaml"
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(yaml.safe_dump(data))


def golden_arrays(contents):
    """The arrays of a bundle's golden images."""
    with np.load(io.BytesIO(contents["golden_images.npz"])) as stored:
        return dict(stored)
