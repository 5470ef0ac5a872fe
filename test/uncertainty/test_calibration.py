import numpy as np
import pytest
from support.bundles import colour_parts, npz_bytes
from support.calibrations import (
    CALIBRATED,
    SIGMA,
    calibrated_bundle,
    calibration_arrays,
    pose_quality,
)

from rgsiam_ros.bundle import Bundle, rewrite_bundle, write_bundle
from rgsiam_ros.errors import BundleError
from rgsiam_ros.localization.relocalizer import Relocalizer
from rgsiam_ros.uncertainty.calibration import (
    Calibration,
    sigma_predictors,
    trust_predictors,
)


def test_sigmas_follow_their_predictors_within_bounds():
    calibration = Calibration.from_arrays(calibration_arrays())

    def sigmas(raw):
        quality = pose_quality(raw_sigma_6=np.full(6, raw))
        return np.sqrt(np.diag(calibration.covariance_and_trust(quality)[0]))

    np.testing.assert_allclose(sigmas(1.0), SIGMA, rtol=1e-6)  # the logarithm is 0
    np.testing.assert_allclose(sigmas(0.25), 0.5 * SIGMA, rtol=1e-6)
    np.testing.assert_allclose(sigmas(1e9), SIGMA * np.exp(0.5 * 3.0), rtol=1e-6)


def test_trust_is_zero_at_the_threshold_and_falls_with_distance():
    calibration = Calibration.from_arrays(calibration_arrays())
    for distance, expected in ((0.5, 0.0), (0.1, 1.0), (1.0, -1.0)):
        trust = calibration.covariance_and_trust(pose_quality(feature_distance=distance))[1]
        assert np.sign(round(trust, 9)) == expected


def test_predictors_are_finite_where_numbers_are_zero_or_missing():
    nothing = pose_quality(feature_distance=0.0, last_feature_distance=0.0, raw_sigma_6=None)
    assert np.isfinite(sigma_predictors(nothing)).all()
    assert np.isfinite(trust_predictors(nothing, SIGMA)).all()


def test_a_calibration_is_stored_and_read_back():
    original = Calibration.from_arrays(calibration_arrays())
    restored = Calibration.from_arrays(original.to_arrays())
    for expected, result in zip(
        original.covariance_and_trust(pose_quality()),
        restored.covariance_and_trust(pose_quality()),
        strict=True,
    ):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": np.array(1)}, "version 2 only"),
        ({"version": None}, "version 2 only"),
        ({"threshold": None}, "'threshold' is missing"),
        ({"trust_weight_G": np.zeros(3)}, "shape"),
        ({"sigma_offset_6": None}, "missing"),
        ({"sigma_scale_6F": np.zeros((6, 1))}, "not positive"),
        ({"correlation_66": np.ones((6, 6))}, "not positive definite"),
        ({"correlation_66": 2.0 * np.eye(6)}, "diagonal is not 1"),
    ],
)
def test_arrays_that_are_not_a_calibration_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Calibration.from_arrays(calibration_arrays(**change))


def flat(red):
    return np.full((96, 128, 3), (153, 102, red), np.uint8)


def test_a_calibrated_bundle_has_its_covariance_and_trust(tmp_path):
    relocalizer = Relocalizer.from_bundle(calibrated_bundle(tmp_path / "b").path)
    assert relocalizer.calibrated
    estimate = relocalizer.estimate(flat(55))  # this network predicts no sigma: the predictor is 0
    np.testing.assert_allclose(np.sqrt(np.diag(estimate.covariance_66)), SIGMA, rtol=1e-6)
    assert not estimate.lost
    assert estimate.trust > 0.0


def test_an_image_unlike_the_map_is_lost_and_says_why(tmp_path):
    relocalizer = Relocalizer.from_bundle(calibrated_bundle(tmp_path / "b").path)
    unlike = relocalizer.estimate(np.full((96, 128, 3), (0, 255, 0), np.uint8))
    assert unlike.lost
    assert "trust" in unlike.why_lost
    assert relocalizer.estimate(flat(55)).why_lost == ""


def test_a_trust_that_is_not_a_number_is_lost(tmp_path):
    """Finite numbers in the file may overflow to infinity; infinity times zero is not a number."""
    changes = {"trust_mean_G": np.full(4, 1e308), "trust_scale_G": np.full(4, 1e-9)}
    relocalizer = Relocalizer.from_bundle(calibrated_bundle(tmp_path / "b", **changes).path)
    with np.errstate(over="ignore", invalid="ignore"):
        estimate = relocalizer.estimate(flat(55))
    assert np.isnan(estimate.trust)
    assert estimate.why_lost == "lost: trust is not a number"


def test_an_uncalibrated_bundle_gives_no_trust(colour_bundle):
    relocalizer = Relocalizer.from_bundle(colour_bundle)
    assert not relocalizer.calibrated
    assert relocalizer.estimate(np.zeros((96, 128, 3), np.uint8)).trust is None


def test_a_bundle_is_calibrated_in_place_or_elsewhere(colour_bundle, tmp_path):
    bundle = Bundle.load(colour_bundle)
    added = (
        {"calibrations": {"float32": CALIBRATED}},
        {"calibration.float32.npz": npz_bytes(calibration_arrays())},
    )
    copy = rewrite_bundle(bundle, tmp_path / "copy", *added)
    assert copy.calibration() is not None
    assert copy.manifest.name == "copy"
    assert Bundle.load(colour_bundle).calibration() is None  # the source is unchanged
    again = rewrite_bundle(bundle, colour_bundle, *added)
    assert again.calibration() is not None
    assert again.manifest.name == bundle.manifest.name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["colour", "copy"]  # no temporary files
    broken = (
        added[0],
        {"calibration.float32.npz": npz_bytes(calibration_arrays(version=np.array(9)))},
    )
    with pytest.raises(BundleError, match="version 2 only"):
        rewrite_bundle(again, colour_bundle, *broken)
    assert Bundle.load(colour_bundle).calibration() is not None


def test_calibrations_without_their_file_or_network_are_refused(tmp_path):
    text, contents = colour_parts()
    text["calibrations"] = {"float32": CALIBRATED}
    with pytest.raises(BundleError, match="do not fit together"):
        write_bundle(tmp_path / "a", text, contents)
    text["calibrations"] = {"int8": CALIBRATED}
    contents["calibration.int8.npz"] = npz_bytes(calibration_arrays())
    with pytest.raises(BundleError, match="bundle has no int8 network"):
        write_bundle(tmp_path / "b", text, contents)
