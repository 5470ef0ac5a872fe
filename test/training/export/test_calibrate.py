"""Calibration of a bundle whose poses are known from the colours of its images."""

import dataclasses

import cv2
import numpy as np
import pytest
from support.bags import cut_bag
from support.bundles import brightness_contents, description
from support.command_line import rgsiam
from support.fixes import fixes_of_a_rotated_map
from support.images import flat_image
from support.paths import TOWN_BUNDLE, TOWN_DRIVE

torch = pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_ros.bundle import Bundle, write_bundle
from rgsiam_ros.errors import BundleError, DatasetError
from rgsiam_ros.fusion.map_alignment import align_map, georeferenced
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.recordings.topics import BagTopics
from rgsiam_training.config import AugmentationConfig
from rgsiam_training.export.calibrate import HeldOutImages, calibrate_bundle, images_of_datasets
from rgsiam_training.fitting.run_folder import StoredImages

AS_IT_IS = AugmentationConfig(
    **dict.fromkeys(AugmentationConfig.model_fields, 0.0) | {"occlusion_size": 0.1}
)


def colours(count, seed=0):
    """Held-out images for `colour_bundle`, in whose world each colour is a place."""
    random = np.random.default_rng(seed)
    around = np.array([[51, 102, 153], [204, 102, 51]])[random.integers(0, 2, count)]
    rgb = np.clip(around + random.integers(-30, 31, (count, 3)), 0, 255)
    images = np.stack([flat_image(*colour[::-1], 64, 48) for colour in rgb])
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, 3] = np.array([1000.0, 2000.0, 3.0]) + 10.0 * rgb / 255.0
    T[:, 0, 3] += random.normal(0.0, 0.1, count)  # labels are never exact
    return HeldOutImages(StoredImages(images, T), "colours", AS_IT_IS)


@pytest.mark.slow
def test_a_bundle_is_calibrated_on_held_out_images(colour_bundle, tmp_path, caplog):
    with caplog.at_level("INFO"):
        made = calibrate_bundle(Bundle.load(colour_bundle), colours(80), tmp_path / "c")
    assert "of the right poses are trusted" in caplog.text
    figure = made.manifest.calibrations["float32"]
    assert figure.source == "colours"
    assert figure.false_accept_rate == 0.01
    relocalizer = Relocalizer.from_bundle(made.path)
    estimate = relocalizer.estimate(flat_image(150, 100, 60))
    assert estimate.branch == "absolute"
    assert estimate.lost == (estimate.trust < 0.0)
    sigma = np.sqrt(np.diag(estimate.covariance_66))
    assert sigma[0] == pytest.approx(0.5, rel=0.4)  # x errs, y and z do not
    assert sigma[0] > 5.0 * sigma[1]
    again = calibrate_bundle(Bundle.load(colour_bundle), colours(80), tmp_path / "again")
    assert again.content("calibration.float32.npz") == made.content("calibration.float32.npz")


def test_too_few_images_are_refused_and_the_bundle_stays(colour_bundle, tmp_path):
    with pytest.raises(DatasetError, match=r"colours: 20 images are too few .* --data"):
        calibrate_bundle(Bundle.load(colour_bundle), colours(20), colour_bundle)
    assert Bundle.load(colour_bundle).calibration() is None


@pytest.mark.slow
def test_the_command_needs_a_run_or_data():
    done = rgsiam("calibrate", TOWN_BUNDLE)
    assert done.returncode == 2
    assert "--run or --data" in done.stderr


@pytest.mark.slow
def test_a_rotated_bundle_can_be_calibrated_with_old_true_poses(colour_bundle, tmp_path, caplog):
    """Its calibration is the same, because it is in the camera's axes, which do not turn."""
    old = Bundle.load(colour_bundle)
    turned = georeferenced(old, align_map(fixes_of_a_rotated_map()[0]), tmp_path / "turned")
    held_out = dataclasses.replace(colours(48), map_frame="map")
    one = calibrate_bundle(old, held_out, tmp_path / "one")
    caplog.clear()
    with caplog.at_level("INFO"):
        other = calibrate_bundle(turned, held_out, tmp_path / "other")
    assert "true poses are rotated by 30 degrees" in caplog.text
    assert "bundle turned" in caplog.text
    first, second = (b.calibration().to_arrays() for b in (one, other))
    for name, values in first.items():
        np.testing.assert_allclose(second[name], values, rtol=1e-3, atol=1e-3, err_msg=name)
    elsewhere = dataclasses.replace(held_out, map_frame="world")
    with pytest.raises(
        BundleError, match="are in the frame world, the poses of bundle turned in map"
    ):
        calibrate_bundle(turned, elsewhere, tmp_path / "no")


def test_images_of_a_wider_camera_are_fitted_as_on_the_vehicle(tmp_path):
    """The bundle is for a narrow camera with a mask; its network returns the mean colour it sees."""
    text = description()
    text["camera"] = {"width": 160, "height": 120, "fx": 190.0, "fy": 190.0, "cx": 80.0, "cy": 60.0}
    text["absolute"]["preprocessing"]["mask"] = "mask.png"
    target = text["absolute"]["target"]
    mask = np.full((120, 160), 255, np.uint8)
    mask[60:] = 0
    contents = {
        **brightness_contents(),
        "mask.png": cv2.imencode(".png", mask)[1].tobytes(),
    }
    bundle = write_bundle(tmp_path / "narrow", text, contents)
    bag = cut_bag(TOWN_DRIVE, tmp_path / "bag", 4)
    dataset = open_dataset(bag, "test", BagTopics())
    held_out = images_of_datasets([dataset], bundle)
    assert held_out.map_frame == "map"
    relocalizer = Relocalizer.from_bundle(bundle.path)
    relocalizer.use_camera(dataset.camera)
    for image, fitted in zip(dataset.read_images(), held_out.images.image_NHW3, strict=True):
        T = relocalizer.estimate(image.decode()).T_map_camera
        seen_rgb = (T[:3, 3] - target["origin_m"]) / target["scale_m"]
        mean_bgr = fitted.mean(axis=(0, 1)) / 255.0
        np.testing.assert_allclose(mean_bgr[::-1], seen_rgb, atol=1e-4)
        assert (fitted[25:] == 0).all()  # masked
    text["camera"] |= {"fx": 50.0, "fy": 50.0}
    wide = write_bundle(tmp_path / "wide", text, contents)
    with pytest.raises(DatasetError, match="bag: the live image does not contain the view"):
        images_of_datasets([dataset], wide)
