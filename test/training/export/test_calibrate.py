"""Calibration: the mathematics on drawn errors, and the whole on a bundle with known answers."""

import dataclasses
import subprocess
import sys

import cv2
import numpy as np
import pytest
from support.bags import cut_bag
from support.bundles import brightness_network, description
from support.fixes import fixes_of_a_turned_map
from support.images import flat_image
from support.paths import TOWN_BUNDLE, TOWN_DRIVE

torch = pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_ros.bundle import Bundle, write_bundle
from rgsiam_ros.errors import BundleError, DatasetError
from rgsiam_ros.fusion.map_alignment import align_map, georeferenced
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.recordings import open_dataset
from rgsiam_ros.recordings.rosbag import BagTopics
from rgsiam_ros.uncertainty.calibration import BranchCalibration
from rgsiam_training.config import AugmentationConfig
from rgsiam_training.export.calibrate import HeldOutImages, calibrate_bundle, images_of_datasets
from rgsiam_training.export.calibration_fit import (
    NO_TRUST,
    fit_covariance,
    fit_trust,
    widen_for_the_unseen,
)
from rgsiam_training.export.corruptions import CORRUPTIONS
from rgsiam_training.fitting.run_folder import StoredImages

SIGMA = np.array([0.3, 0.1, 0.5, 0.01, 0.02, 0.03])


def drawn(count, slope, seed=0):
    """Errors whose sigmas grow with a single sign of difficulty; x and rotY are correlated."""
    random = np.random.default_rng(seed)
    sign = random.normal(size=count)
    correlation = np.eye(6)
    correlation[0, 4] = correlation[4, 0] = 0.8
    unit = random.multivariate_normal(np.zeros(6), correlation, count)
    error = unit * SIGMA * np.exp(slope * sign)[:, None]
    return np.repeat(sign[:, None, None], 6, axis=1), error


def test_a_covariance_fit_finds_the_slope_and_the_correlation():
    signs, error = drawn(3000, slope=0.7)
    part = BranchCalibration(**fit_covariance(signs, error), **NO_TRUST)
    easy, hard = (part.sigmas(np.full((6, 1), value)) for value in (-1.0, 1.0))
    assert (hard > 1.3 * easy).all()  # the ridge takes a part of exp(1.4)
    assert part.correlation_66[0, 4] == pytest.approx(0.7 * 0.8, abs=0.05)  # shrunk by 0.3
    square = [error[i] / part.sigmas(signs[i]) for i in range(len(error))]
    assert np.square(square).mean() == pytest.approx(1.0, abs=0.02)


def test_without_a_sign_that_counts_the_sigmas_are_constant():
    signs, error = drawn(2000, slope=0.0)
    part = BranchCalibration(**fit_covariance(signs, error), **NO_TRUST)
    np.testing.assert_allclose(part.sigmas(np.full((6, 1), 2.0)), SIGMA, rtol=0.1)


def test_folds_that_the_others_do_not_foresee_widen_the_sigmas():
    signs, error = drawn(1000, slope=0.0)
    fold = np.arange(1000) // 200
    alike = widen_for_the_unseen(fit_covariance(signs, error), signs, error, fold)
    error[fold == 4, :3] *= 4.0  # one stretch where positions are bad
    fitted = fit_covariance(signs, error)
    differing = widen_for_the_unseen(fitted, signs, error, fold)
    wider = np.exp(differing["sigma_offset_6"] - fitted["sigma_offset_6"])
    assert (wider[:3] > 1.4).all()
    np.testing.assert_allclose(wider[3:], 1.0, atol=0.05)
    again = np.exp(alike["sigma_offset_6"])
    np.testing.assert_allclose(again, SIGMA, rtol=0.1)


def test_the_threshold_accepts_the_stated_share_of_wrong_poses():
    random = np.random.default_rng(0)
    right = random.normal(0.0, 1.0, (2000, 2))
    wrong = np.concatenate([random.normal(3.0, 1.0, (500, 2)), random.normal(1.5, 1.0, (500, 2))])
    kind = ["far"] * 500 + ["near"] * 500
    for rate in (0.01, 0.1):
        part = BranchCalibration(
            **fit_covariance(*drawn(50, 0.0)), **fit_trust(right, wrong, kind, rate)
        )
        believed = np.array([part.trust(signs) >= 0.0 for signs in wrong])
        assert believed[500:].mean() == pytest.approx(rate, abs=0.002)
        assert believed[:500].mean() <= rate
    far = np.full((30, 2), 50.0)  # easy to tell apart: most of the right ones are kept, not all
    lenient = fit_trust(right, far, ["far"] * 30, 0.01)
    part = BranchCalibration(**fit_covariance(*drawn(50, 0.0)), **lenient)
    assert np.mean([part.trust(signs) >= 0.0 for signs in right]) == pytest.approx(0.95, abs=0.001)
    with pytest.raises(ValueError, match="right and wrong"):
        fit_trust(right, wrong[:0], [], 0.01)


def test_spoilt_images_keep_their_size_and_are_spoilt():
    random = np.random.default_rng(0)
    image = random.integers(0, 255, (48, 64, 3), np.uint8)
    image[:24] //= 2
    for spoil in CORRUPTIONS.values():
        spoilt = spoil(image, np.random.default_rng(1))
        assert spoilt.shape == image.shape
        assert spoilt.dtype == np.uint8
        assert np.abs(spoilt.astype(int) - image).mean() > 10
    assert (CORRUPTIONS["night"](image, random).mean()) < 20


AS_IT_IS = AugmentationConfig(
    **dict.fromkeys(AugmentationConfig.model_fields, 0.0) | {"occlusion_size": 0.1}
)


def colours(count, seed=0):
    """Held-out images for `refinable_bundle`, in whose world each colour is a place."""
    random = np.random.default_rng(seed)
    around = np.array([[51, 102, 153], [204, 102, 51]])[random.integers(0, 2, count)]
    rgb = np.clip(around + random.integers(-30, 31, (count, 3)), 0, 255)
    images = np.stack([flat_image(*colour[::-1], 64, 48) for colour in rgb])
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, 3] = np.array([1000.0, 2000.0, 3.0]) + 10.0 * rgb / 255.0
    T[:, 0, 3] += random.normal(0.0, 0.1, count)  # labels are never exact
    return HeldOutImages(StoredImages(images, T), "colours", AS_IT_IS)


def test_a_bundle_is_calibrated_on_held_out_images(refinable_bundle, tmp_path):
    said = []
    made = calibrate_bundle(
        Bundle.load(refinable_bundle), colours(80), tmp_path / "c", report=said.append
    )
    figure = made.manifest.calibrations["float32"]
    assert figure.source == "colours"
    assert figure.false_accept_rate == 0.01
    assert "of the right poses are believed" in said[0]
    relocalizer = Relocalizer.from_bundle(made.path)
    estimate = relocalizer.estimate(flat_image(150, 100, 60))
    assert estimate.branch == "refined"
    assert estimate.lost == (estimate.trust < 0.0)
    sigma = np.sqrt(np.diag(estimate.covariance_66))
    assert sigma[0] == pytest.approx(0.1, rel=0.4)  # x errs, y and z do not
    assert sigma[0] > 5.0 * sigma[1]
    again = calibrate_bundle(Bundle.load(refinable_bundle), colours(80), tmp_path / "again")
    assert again.content("calibration.float32.npz") == made.content("calibration.float32.npz")


def test_too_few_images_are_refused_and_the_bundle_stays(refinable_bundle, tmp_path):
    with pytest.raises(DatasetError, match=r"colours: 20 images are too few .* --data"):
        calibrate_bundle(Bundle.load(refinable_bundle), colours(20), refinable_bundle)
    assert Bundle.load(refinable_bundle).calibration() is None


@pytest.mark.slow
def test_the_command_asks_for_one_source(tmp_path):
    command = [sys.executable, "-m", "rgsiam_ros.cli.main", "calibrate", str(TOWN_BUNDLE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--run or --data" in done.stderr


def test_a_turned_bundle_is_calibrated_by_true_poses_of_before(refinable_bundle, tmp_path):
    """Its calibration is the same, because it is in the camera's axes, which do not turn."""
    old = Bundle.load(refinable_bundle)
    turned = georeferenced(old, align_map(fixes_of_a_turned_map()[0]), tmp_path / "turned")
    held_out, said = dataclasses.replace(colours(48), map_frame="map"), []
    one = calibrate_bundle(old, held_out, tmp_path / "one")
    other = calibrate_bundle(turned, held_out, tmp_path / "other", report=said.append)
    assert "true poses are turned by 30.0" in said[0]
    assert "bundle turned" in said[0]
    first, second = (b.calibration().to_arrays() for b in (one, other))
    for name, values in first.items():
        np.testing.assert_allclose(second[name], values, rtol=1e-3, atol=1e-3, err_msg=name)
    elsewhere = dataclasses.replace(held_out, map_frame="world")
    with pytest.raises(BundleError, match="are in the frame world, but bundle turned answers in"):
        calibrate_bundle(turned, elsewhere, tmp_path / "no")


def test_sessions_of_a_wider_camera_are_seen_as_the_vehicle_sees_them(tmp_path):
    """The bundle is for a narrow camera with a mask; its network returns the mean colour it sees."""
    text = description()
    text["camera"] = {"width": 160, "height": 120, "fx": 190.0, "fy": 190.0, "cx": 80.0, "cy": 60.0}
    text["preprocessing"]["mask"] = "mask.png"
    mask = np.full((120, 160), 255, np.uint8)
    mask[60:] = 0
    contents = {
        "absolute.onnx": brightness_network(),
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
        seen_rgb = (T[:3, 3] - text["target"]["origin_m"]) / text["target"]["scale_m"]
        mean_bgr = fitted.mean(axis=(0, 1)) / 255.0
        np.testing.assert_allclose(mean_bgr[::-1], seen_rgb, atol=1e-4)
        assert (fitted[25:] == 0).all()  # masked
    text["camera"] |= {"fx": 50.0, "fy": 50.0}
    wide = write_bundle(tmp_path / "wide", text, contents)
    with pytest.raises(DatasetError, match="bag: the live image does not contain the view"):
        images_of_datasets([dataset], wide)
