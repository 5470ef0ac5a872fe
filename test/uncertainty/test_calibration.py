import numpy as np
import pytest
from support.bundles import npz_bytes, refinable_parts
from support.calibrations import (
    CALIBRATED,
    LENGTHS,
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
    near, _ = calibration.covariance_and_trust(
        "refined", pose_quality(nearest_m=8.0 * 0.98), LENGTHS
    )
    np.testing.assert_allclose(np.sqrt(np.diag(near)), SIGMA, rtol=1e-6)  # the logarithm is 0
    nearer, _ = calibration.covariance_and_trust(
        "refined", pose_quality(nearest_m=8.0 * 0.23), LENGTHS
    )
    np.testing.assert_allclose(np.sqrt(np.diag(nearer)), SIGMA * np.sqrt(0.25), rtol=1e-6)
    beyond, _ = calibration.covariance_and_trust("refined", pose_quality(nearest_m=1e9), LENGTHS)
    np.testing.assert_allclose(np.sqrt(np.diag(beyond)), SIGMA * np.exp(0.5 * 3.0), rtol=1e-6)


def test_trust_is_zero_at_the_threshold_and_falls_with_distance():
    calibration = Calibration.from_arrays(calibration_arrays())
    for branch in ("absolute", "refined"):
        for distance, expected in ((0.5, 0.0), (0.1, 1.0), (1.0, -1.0)):
            trust = calibration.covariance_and_trust(
                branch, pose_quality(feature_distance=distance), LENGTHS
            )[1]
            assert np.sign(round(trust, 9)) == expected


def test_predictors_are_finite_where_numbers_are_zero_or_missing():
    nothing = pose_quality(
        **dict.fromkeys(("absolute_m", "absolute_rad", "support", "spread_m", "sigma_m"), 0.0),
        nearest_m=0.0,
        change_m=0.0,
        feature_distance=0.0,
        last_feature_distance=0.0,
        raw_sigma_6=None,
    )
    for branch in ("absolute", "refined"):
        assert np.isfinite(sigma_predictors(branch, nothing, LENGTHS)).all()
        assert np.isfinite(trust_predictors(branch, nothing, SIGMA, LENGTHS)).all()


def test_a_calibration_is_stored_and_read_back():
    original = Calibration.from_arrays(calibration_arrays())
    restored = Calibration.from_arrays(original.to_arrays())
    for branch in ("absolute", "refined"):
        for expected, result in zip(
            original.covariance_and_trust(branch, pose_quality(), LENGTHS),
            restored.covariance_and_trust(branch, pose_quality(), LENGTHS),
            strict=True,
        ):
            np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": np.array(2)}, "version 1 only"),
        ({"version": None}, "version 1 only"),
        ({"absolute_threshold": None}, "absolute branch's calibration is missing"),
        ({"refined_trust_weight_G": np.zeros(3)}, "shape"),
        ({"refined_sigma_offset_6": None}, "missing"),
        ({"refined_sigma_scale_6F": np.zeros((6, 4))}, "not positive"),
        ({"refined_correlation_66": np.ones((6, 6))}, "not positive definite"),
        ({"refined_correlation_66": 2.0 * np.eye(6)}, "diagonal is not 1"),
    ],
)
def test_arrays_that_are_not_a_calibration_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Calibration.from_arrays(calibration_arrays(**change))


def flat(red):
    return np.full((96, 128, 3), (153, 102, red), np.uint8)


def test_a_calibrated_bundle_gives_each_image_its_covariance(tmp_path):
    bundle = calibrated_bundle(tmp_path / "b")
    relocalizer = Relocalizer.from_bundle(bundle.path)
    assert relocalizer.calibrated
    near, far = relocalizer.estimate(flat(55)), relocalizer.estimate(flat(75))
    assert near.branch == far.branch == "refined"
    assert np.diag(near.covariance_66)[0] < np.diag(far.covariance_66)[0]
    assert not near.lost
    assert near.trust > 0.0


def test_an_image_unlike_the_map_is_lost_and_says_why(tmp_path):
    relocalizer = Relocalizer.from_bundle(calibrated_bundle(tmp_path / "b").path)
    unlike = relocalizer.estimate(np.full((96, 128, 3), (0, 255, 0), np.uint8))
    assert unlike.lost
    assert "trust" in unlike.why_lost
    assert relocalizer.estimate(flat(55)).why_lost == ""


def test_a_trust_that_is_not_a_number_is_lost(tmp_path):
    """Finite numbers in the file may overflow to infinity; infinity times zero is not a number."""
    changes = {"refined_trust_mean_G": np.full(6, 1e308), "refined_trust_scale_G": np.full(6, 1e-9)}
    relocalizer = Relocalizer.from_bundle(calibrated_bundle(tmp_path / "b", **changes).path)
    with np.errstate(over="ignore", invalid="ignore"):
        estimate = relocalizer.estimate(flat(55))
    assert np.isnan(estimate.trust)
    assert estimate.why_lost == "lost: trust is not a number"


def test_lost_when_no_map_image_gives_a_pose(tmp_path):
    """White has the same feature direction as grey, but its pose is 8 m away."""
    relocalizer = Relocalizer.from_bundle(calibrated_bundle(tmp_path / "b").path)
    white = relocalizer.estimate(np.full((96, 128, 3), 255, np.uint8))
    assert white.branch == "absolute"
    assert white.quality.feature_distance < 0.01
    assert white.lost


def test_an_uncalibrated_bundle_gives_no_trust(refinable_bundle):
    relocalizer = Relocalizer.from_bundle(refinable_bundle)
    assert not relocalizer.calibrated
    assert relocalizer.estimate(np.zeros((96, 128, 3), np.uint8)).trust is None


def test_a_bundle_is_calibrated_in_place_or_elsewhere(refinable_bundle, tmp_path):
    bundle = Bundle.load(refinable_bundle)
    added = (
        {"calibrations": {"float32": CALIBRATED}},
        {"calibration.float32.npz": npz_bytes(calibration_arrays())},
    )
    copy = rewrite_bundle(bundle, tmp_path / "copy", *added)
    assert copy.calibration() is not None
    assert copy.manifest.name == "copy"
    assert Bundle.load(refinable_bundle).calibration() is None  # the source is unchanged
    again = rewrite_bundle(bundle, refinable_bundle, *added)
    assert again.calibration() is not None
    assert again.manifest.name == bundle.manifest.name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", "refinable"]  # no temporary files
    broken = (
        added[0],
        {"calibration.float32.npz": npz_bytes(calibration_arrays(version=np.array(9)))},
    )
    with pytest.raises(BundleError, match="version 1 only"):
        rewrite_bundle(again, refinable_bundle, *broken)
    assert Bundle.load(refinable_bundle).calibration() is not None


def test_calibrations_without_their_file_or_network_are_refused(tmp_path):
    text, contents = refinable_parts()
    text["calibrations"] = {"float32": CALIBRATED}
    with pytest.raises(BundleError, match="do not fit together"):
        write_bundle(tmp_path / "a", text, contents)
    text["calibrations"] = {"int8": CALIBRATED}
    contents["calibration.int8.npz"] = npz_bytes(calibration_arrays())
    with pytest.raises(BundleError, match="bundle has no int8 network"):
        write_bundle(tmp_path / "b", text, contents)
    absolute_only = {n: v for n, v in calibration_arrays().items() if not n.startswith("refined")}
    text["calibrations"] = {"float32": CALIBRATED}
    del contents["calibration.int8.npz"]
    contents["calibration.float32.npz"] = npz_bytes(absolute_only)
    with pytest.raises(BundleError, match="refined branch's calibration is missing"):
        write_bundle(tmp_path / "c", text, contents)
