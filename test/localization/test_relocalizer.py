import shutil

import cv2
import numpy as np
import onnx
import pytest
from support.bundles import (
    ABSOLUTE_BIAS,
    brightness_contents,
    description,
    geometric_parts,
    golden_arrays,
)
from support.images import flat_image, jpeg_bytes
from support.paths import TOWN_BUNDLE, TOWN_DRIVE

from rgsiam_ros.bundle import Bundle, write_bundle
from rgsiam_ros.bundle.npz import npz_bytes
from rgsiam_ros.camera.decoding import decode_compressed
from rgsiam_ros.camera.model import Camera
from rgsiam_ros.engines.options import EngineOptions
from rgsiam_ros.errors import BundleError, CameraError, EngineError, ImageError
from rgsiam_ros.geometry.poses import pose_errors
from rgsiam_ros.localization.live_view import LiveView
from rgsiam_ros.localization.pose_estimate import PoseEstimate
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.recordings.rosbag import read_drive


def test_metres_are_restored_in_float64(small_bundle):
    """origin + scale * output, far from the origin where float32 would lose millimetres."""
    relocalizer = Relocalizer.from_bundle(small_bundle)
    estimate = relocalizer.estimate(flat_image(51, 102, 204))
    expected = np.array([1000.0, 2000.0, 3.0]) + 10.0 * np.array([0.8, 0.4, 0.2])
    np.testing.assert_allclose(estimate.T_map_camera[:3, 3], expected, atol=1e-5)
    assert estimate.T_map_camera.dtype == np.float64
    np.testing.assert_allclose(estimate.T_map_camera[:3, :3], np.eye(3), atol=1e-12)
    assert set(estimate.timings_ms) == {"preprocess", "inference", "pose"}
    assert estimate.branch == "absolute"
    assert estimate.raw_covariance_66 is None  # this network does not predict it
    assert all(value >= 0.0 for value in estimate.timings_ms.values())


LIVE = (76, 102, 204)  # blue, green, red: near the second image of the map


def live_position(blue, green, red):
    return np.array([1000.0, 2000.0, 3.0]) + 10.0 * np.array([red, green, blue]) / 255.0


def test_a_bundle_without_a_map_uses_its_absolute_branch(colour_bundle):
    relocalizer = Relocalizer.from_bundle(colour_bundle)
    estimate = relocalizer.estimate(flat_image(*LIVE))
    off = estimate.T_map_camera[:3, 3] - live_position(*LIVE)
    np.testing.assert_allclose(off, [10.0 * ABSOLUTE_BIAS, 0.0, 0.0], atol=0.01)
    assert relocalizer.branch == estimate.branch == "absolute"


def test_the_intrinsics_are_those_of_the_camera_in_use():
    """A camera with twice the pixels and a margin at the right sees the same in the rest of its image."""
    bundle = Bundle.load(TOWN_BUNDLE)
    view = LiveView(bundle, bundle.manifest.geometric_part.preprocessing)
    own, learnt = view.K, bundle.manifest.camera
    larger = learnt.model_copy(
        update={
            "width": 2 * learnt.width + 60,
            "height": 2 * learnt.height,
            "fx": 2 * learnt.fx,
            "fy": 2 * learnt.fy,
            "cx": 2 * learnt.cx + 0.4,
            "cy": 2 * learnt.cy + 0.4,
        }
    )
    view.use_camera(larger)
    assert np.abs(view.K - own).max() < 1.0
    assert np.abs(view.K - own).max() > 0.05
    view.use_camera(learnt)
    np.testing.assert_array_equal(view.K, own)


def test_a_loaded_bundle_is_not_read_again(small_bundle, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(small_bundle, copy)
    loaded = Bundle.load(copy)
    shutil.rmtree(copy)
    found = Relocalizer.from_bundle(loaded).estimate(flat_image(*LIVE))
    expected = Relocalizer.from_bundle(small_bundle).estimate(flat_image(*LIVE))
    np.testing.assert_array_equal(found.T_map_camera, expected.T_map_camera)


def test_unknown_and_missing_branches_are_refused(small_bundle):
    assert Relocalizer.from_bundle(small_bundle).branch == "absolute"
    with pytest.raises(BundleError, match="has no geometric branch: set branch to absolute"):
        Relocalizer.from_bundle(small_bundle, branch="refined")
    with pytest.raises(BundleError, match="'best' is unknown: choose one of auto, absolute, refin"):
        Relocalizer.from_bundle(small_bundle, branch="best")


def test_covariance_turns_with_the_camera(tmp_path):
    half = float(np.sqrt(0.5))
    text = description()
    matrix = np.diag([1.0, 4.0, 9.0, 0.01, 0.02, 0.03]).tolist()
    text["absolute"]["variants"]["float32"]["covariance"]["matrix"] = matrix
    contents = brightness_contents(quaternion_wxyz=(half, 0.0, 0.0, half))  # a quarter turn about z
    path = write_bundle(tmp_path / "turned", text, contents).path
    covariance = Relocalizer.from_bundle(path).estimate(flat_image(0, 0, 0)).covariance_66
    np.testing.assert_allclose(np.diag(covariance), [4.0, 1.0, 9.0, 0.02, 0.01, 0.03], rtol=1e-5)


def test_network_outputs_that_are_no_pose_raise(tmp_path):
    """This network's quaternion is the image's red, and zero for a black image."""
    contents = brightness_contents()
    model = onnx.load_model_from_string(contents["absolute.onnx"])
    for node in model.graph.node:
        if node.output[0] == "zeros":
            node.input[1] = "red"
        elif node.output[0] == "rotation_quaternion_wxyz":
            node.op_type = "Mul"
    red = np.array([[1.0, 0.0, 0.0]], np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(red, "red"))
    golden = golden_arrays(contents)
    golden["rotation_quaternion_wxyz"] *= golden["translation_normalised"][:, :1]
    contents |= {
        "absolute.onnx": model.SerializeToString(),
        "golden_images.npz": npz_bytes(golden),
    }
    relocalizer = Relocalizer.from_bundle(
        write_bundle(tmp_path / "b", description(), contents).path
    )
    relocalizer.estimate(flat_image(0, 0, 100))
    with pytest.raises(EngineError, match="non-finite"):
        relocalizer.estimate(flat_image(0, 0, 0))


def test_a_missing_absolute_branch_is_refused(tmp_path):
    path = write_bundle(tmp_path / "b", *geometric_parts()).path
    with pytest.raises(BundleError, match="b has no absolute branch: set branch to auto"):
        Relocalizer.from_bundle(path, branch="absolute")


def test_an_engine_that_cannot_localize_the_golden_views_is_refused(tmp_path):
    path = write_bundle(tmp_path / "b", *geometric_parts()).path
    with pytest.raises(EngineError, match="golden view 0 is not localized: 0 matches agree, 4 are"):
        Relocalizer.from_bundle(path)


def test_a_bad_image_does_not_change_later_poses(small_bundle):
    relocalizer = Relocalizer.from_bundle(small_bundle)
    before = relocalizer.estimate(flat_image(10, 20, 30)).T_map_camera
    with pytest.raises(ImageError):
        relocalizer.estimate(np.zeros((0, 0, 3), np.uint8))
    np.testing.assert_array_equal(relocalizer.estimate(flat_image(10, 20, 30)).T_map_camera, before)


def test_an_unknown_engine_is_refused(small_bundle):
    with pytest.raises(EngineError, match="'warp' is unknown: choose auto or one of tensorrt, .*"):
        Relocalizer.from_bundle(small_bundle, EngineOptions("warp"))


def test_a_closed_relocalizer_raises(small_bundle):
    relocalizer = Relocalizer.from_bundle(small_bundle)
    relocalizer.close()
    with pytest.raises(EngineError, match="closed"):
        relocalizer.estimate(flat_image(0, 0, 0))


def test_images_that_contradict_camera_info_are_refused(small_bundle):
    relocalizer = Relocalizer.from_bundle(small_bundle)
    relocalizer.use_camera(Camera(width=256, height=192, fx=200, fy=200, cx=128, cy=96))
    relocalizer.estimate(flat_image(1, 2, 3, width=128, height=96))  # binned by two: the same view
    with pytest.raises(CameraError, match="128x128 pixels, but camera_info says 256x192"):
        relocalizer.estimate(flat_image(1, 2, 3, width=128, height=128))


def test_a_camera_that_does_not_fit_changes_nothing(small_bundle):
    relocalizer = Relocalizer.from_bundle(small_bundle)
    with pytest.raises(CameraError, match="does not contain the view"):
        relocalizer.use_camera(Camera(width=128, height=96, fx=900, fy=900, cx=64, cy=48))
    relocalizer.estimate(flat_image(1, 2, 3))


@pytest.mark.slow
def test_the_shipped_bundle_localises_in_the_town():
    """Every 20th image of a drive that was not trained on, in other light."""
    relocalizer = Relocalizer.from_bundle(TOWN_BUNDLE)
    drive = read_drive(TOWN_DRIVE)
    images = list(drive.read_images())[::20]
    T_map_base, known = drive.true_base_poses([image.stamp_ns for image in images])
    assert known.all()
    estimated = np.stack([relocalizer.estimate(image.decode()).T_map_camera for image in images])
    metres, radians = pose_errors(estimated, T_map_base @ drive.T_base_camera)
    assert np.median(metres) < 8.0  # the town is 190 m by 80 m
    assert np.median(np.degrees(radians)) < 3.0
    validation = relocalizer.manifest.absolute.variants["float32"].validation
    assert validation.export_difference_m < 1e-3
    assert validation.export_difference_deg < 1e-3


@pytest.mark.slow
def test_a_jpeg_that_is_shrunk_while_it_is_decoded_gives_the_same_pose():
    """A camera of 1600x900 whose inner 1280x720 show the view of the bundle."""
    relocalizer = Relocalizer.from_bundle(TOWN_BUNDLE)
    assert relocalizer.enough == (512, 288)
    live = Camera(width=1600, height=900, fx=760.0, fy=760.0, cx=800.0, cy=450.0)
    relocalizer.use_camera(live)
    assert relocalizer.enough == (640, 360)
    for image in list(read_drive(TOWN_DRIVE).read_images())[10::160]:
        wide = cv2.resize(image.decode(), (1280, 720), interpolation=cv2.INTER_CUBIC)
        wide = cv2.copyMakeBorder(wide, 90, 90, 160, 160, cv2.BORDER_CONSTANT)
        poses, sizes = [], []
        for enough in (None, relocalizer.enough):
            decoded = decode_compressed(jpeg_bytes(wide), enough=enough)
            relocalizer.forget()
            poses.append(relocalizer.estimate(decoded).T_map_camera)
            sizes.append(decoded.shape[:2])
        assert sizes == [(900, 1600), (450, 800)]
        metres, radians = pose_errors(poses[1], poses[0])
        assert metres < 0.05
        assert np.degrees(radians) < 0.15


def test_the_absolute_branch_takes_images_of_full_size(small_bundle):
    assert Relocalizer.from_bundle(small_bundle).enough is None


def test_many_images_give_the_same_poses_as_one_by_one(int8_bundle):
    """One call with several images, a bad image and an error."""
    colours = [(76, 102, 204), (50, 100, 50), (153, 102, 51), (128, 128, 128), (70, 100, 200)]
    images = [flat_image(*colour) for colour in colours]
    inputs = [*images[:2], np.zeros((0, 0, 3), np.uint8), ImageError("torn"), *images[2:]]
    onnxruntime = EngineOptions("onnxruntime")
    single = Relocalizer.from_bundle(int8_bundle, onnxruntime)
    together = Relocalizer.from_bundle(int8_bundle, onnxruntime).estimate_many(inputs)
    assert [type(error) for error in together[2:4]] == [ImageError, ImageError]
    estimates = [e for e in together if not isinstance(e, Exception)]
    assert len(estimates) == len(images)
    for image, estimate in zip(images, estimates, strict=True):
        expected = single.estimate(image)
        np.testing.assert_allclose(estimate.T_map_camera, expected.T_map_camera, atol=1e-6)
        assert estimate.branch == expected.branch


def test_the_batch_size_does_not_change_poses():
    """11 images in batches of 8, so that the last batch is incomplete."""
    drive = read_drive(TOWN_DRIVE)
    images = [image.decode() for image, _ in zip(drive.read_images(), range(11), strict=False)]
    poses = []
    for batch in (1, 8):
        options = EngineOptions("onnxruntime", "float32", batch=batch)
        relocalizer = Relocalizer.from_bundle(TOWN_BUNDLE, options, branch="absolute")
        relocalizer.use_camera(drive.camera)
        poses.append(np.stack([e.T_map_camera for e in relocalizer.estimate_many(images)]))
        relocalizer.close()
    metres, radians = pose_errors(*poses)
    assert len(poses[0]) == 11
    assert metres.max() < 1e-3
    assert np.degrees(radians).max() < 1e-3


SINGULAR = np.eye(6)
SINGULAR[0, 1] = SINGULAR[1, 0] = 1.0
OVERCONFIDENT = np.eye(6)
OVERCONFIDENT[0, 1] = OVERCONFIDENT[1, 0] = 1.1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"trust": float("nan")}, "lost: trust is not a number"),
        ({"trust": -1.5}, "lost: trust -1.50 is below 0"),
        ({"covariance_66": np.full((6, 6), np.nan)}, "holds a non-finite number"),
        ({"covariance_66": -np.eye(6)}, "not positive definite"),
        ({"covariance_66": SINGULAR}, "not positive definite"),
        ({"covariance_66": OVERCONFIDENT}, "not positive definite"),
        ({"T_map_camera": np.full((4, 4), np.nan)}, "a pose holds a non-finite number"),
        ({"raw_covariance_66": np.full((6, 6), np.nan)}, "own uncertainty is not usable"),
    ],
)
def test_an_invalid_estimate_is_lost(change, reason):
    valid = {"T_map_camera": np.eye(4), "covariance_66": np.eye(6), "timings_ms": {}, "trust": 0.0}
    assert not PoseEstimate(**valid).lost
    assert reason in PoseEstimate(**{**valid, **change}).why_lost


def test_a_predicted_covariance_that_is_not_finite_is_lost(tmp_path):
    """This network takes the logarithm of the brightness minus 0.5, which is NaN for a dark image."""
    contents = brightness_contents(colours=((150, 160, 170), (200, 210, 220)))
    model = onnx.load_model_from_string(contents["absolute.onnx"])
    helper, graph = onnx.helper, model.graph
    for name, value in (("half", np.full((1, 1), 0.5)), ("many", np.ones((1, 21)))):
        graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
    graph.node.extend(
        [
            helper.make_node("ReduceMean", ["mean"], ["grey"], axes=[1], keepdims=1),
            helper.make_node("Sub", ["grey", "half"], ["above"]),
            helper.make_node("Log", ["above"], ["log"]),
            helper.make_node("Mul", ["log", "many"], ["precision_factor"]),
        ]
    )
    shape = helper.make_tensor_value_info("precision_factor", onnx.TensorProto.FLOAT, [1, 21])
    graph.output.append(shape)
    golden = golden_arrays(contents)
    factor = np.log(golden["translation_normalised"].mean(axis=1, keepdims=True) - 0.5)
    golden["precision_factor"] = np.tile(factor, (1, 21))
    contents |= {
        "absolute.onnx": model.SerializeToString(),
        "golden_images.npz": npz_bytes(golden),
    }
    text = description()
    text["absolute"]["variants"]["float32"]["tolerance"]["sigma"] = 1e-3
    relocalizer = Relocalizer.from_bundle(write_bundle(tmp_path / "b", text, contents).path)
    assert relocalizer.estimate(flat_image(200, 200, 200)).why_lost == ""
    dark = relocalizer.estimate(flat_image(50, 50, 50))
    assert dark.why_lost == "lost: the network's own uncertainty is not usable"
