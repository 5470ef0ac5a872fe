"""The fits of a calibration, on drawn errors: covariances and the trust score."""

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the training extra is not installed here")

from scipy.special import expit

from rgsiam_ros.uncertainty.calibration import Calibration
from rgsiam_training.export.calibration_fit import (
    NO_TRUST,
    TRUST_RIDGE,
    fit_covariance,
    fit_trust,
    widen_for_the_unseen,
)

SIGMA = np.array([0.3, 0.1, 0.5, 0.01, 0.02, 0.03])


def drawn(count, slope, seed=0):
    """Errors whose sigmas grow with a single predictor; x and rotY are correlated."""
    random = np.random.default_rng(seed)
    predictor = random.normal(size=count)
    correlation = np.eye(6)
    correlation[0, 4] = correlation[4, 0] = 0.8
    unit = random.multivariate_normal(np.zeros(6), correlation, count)
    error = unit * SIGMA * np.exp(slope * predictor)[:, None]
    return np.repeat(predictor[:, None, None], 6, axis=1), error


def test_a_covariance_fit_finds_the_slope_and_the_correlation():
    predictors, error = drawn(3000, slope=0.7)
    part = Calibration(**fit_covariance(predictors, error), **NO_TRUST)
    easy, hard = (part.sigmas(np.full((6, 1), value)) for value in (-1.0, 1.0))
    assert (hard > 1.3 * easy).all()  # the ridge takes a part of exp(1.4)
    assert part.correlation_66[0, 4] == pytest.approx(0.7 * 0.8, abs=0.05)  # shrunk by 0.3
    normalised = [error[i] / part.sigmas(predictors[i]) for i in range(len(error))]
    assert np.square(normalised).mean() == pytest.approx(1.0, abs=0.02)


def test_sigmas_are_constant_without_a_useful_predictor():
    predictors, error = drawn(2000, slope=0.0)
    part = Calibration(**fit_covariance(predictors, error), **NO_TRUST)
    np.testing.assert_allclose(part.sigmas(np.full((6, 1), 2.0)), SIGMA, rtol=0.1)


def test_a_fold_with_larger_errors_increases_the_sigmas():
    predictors, error = drawn(1000, slope=0.0)
    fold = np.arange(1000) // 200
    alike = widen_for_the_unseen(fit_covariance(predictors, error), predictors, error, fold)
    error[fold == 4, :3] *= 4.0  # one stretch where positions are bad
    fitted = fit_covariance(predictors, error)
    differing = widen_for_the_unseen(fitted, predictors, error, fold)
    wider = np.exp(differing["sigma_offset_6"] - fitted["sigma_offset_6"])
    assert (wider[:3] > 1.4).all()
    np.testing.assert_allclose(wider[3:], 1.0, atol=0.05)
    again = np.exp(alike["sigma_offset_6"])
    np.testing.assert_allclose(again, SIGMA, rtol=0.1)


def clouds(right_count, wrong_count, distance=2.0, predictors=2, seed=0):
    """Predictors of right poses around zero, of wrong poses around `distance`."""
    random = np.random.default_rng(seed)
    right = random.normal(0.0, 1.0, (right_count, predictors))
    return right, random.normal(distance, 1.0, (wrong_count, predictors))


def scores(fitted, predictors):
    z = (predictors - fitted["trust_mean_G"]) / fitted["trust_scale_G"]
    return fitted["trust_offset"] + z @ fitted["trust_weight_G"]


def accepted(fitted, predictors):
    return float(np.mean(scores(fitted, predictors) >= fitted["threshold"]))


def test_the_trust_fit_of_two_points_has_its_known_optimum():
    right, wrong = np.full((40, 1), 3.0), np.full((40, 1), 7.0)
    fitted = fit_trust(right, wrong, ["far"] * 40, 0.01)
    assert fitted["trust_mean_G"] == pytest.approx([5.0])
    assert fitted["trust_scale_G"] == pytest.approx([2.0])
    assert fitted["trust_offset"] == pytest.approx(0.0, abs=1e-6)
    # log(1 + exp(-b)) + TRUST_RIDGE * b^2 is least where its derivative vanishes
    strength = -fitted["trust_weight_G"][0]
    assert expit(-strength) == pytest.approx(2.0 * TRUST_RIDGE * strength, abs=1e-7)


def test_the_trust_fit_minimises_the_penalised_loss():
    right, wrong = clouds(300, 80, predictors=3)
    fitted = fit_trust(right, wrong, ["far"] * 80, 0.01)

    def loss(offset, weights):
        moved = fitted | {"trust_offset": offset, "trust_weight_G": weights}
        of_right = np.logaddexp(0.0, -scores(moved, right)).mean()
        of_wrong = np.logaddexp(0.0, scores(moved, wrong)).mean()
        return 0.5 * (of_right + of_wrong) + TRUST_RIDGE * (weights**2).sum()

    offset, weights = fitted["trust_offset"], fitted["trust_weight_G"]
    least = loss(offset, weights)
    for step in np.concatenate([np.eye(4), -np.eye(4)]) * 1e-3:
        assert loss(offset + step[0], weights + step[1:]) > least


@pytest.mark.parametrize(("right_count", "wrong_count"), [(1000, 30), (30, 1000), (200, 200)])
def test_right_and_wrong_poses_have_equal_weight(right_count, wrong_count):
    right, wrong = clouds(right_count, wrong_count, distance=1.0)
    fitted = fit_trust(right, wrong, ["far"] * wrong_count, 0.01)
    distrust = 1.0 - expit(scores(fitted, right)).mean()
    trust = expit(scores(fitted, wrong)).mean()
    assert distrust == pytest.approx(trust, abs=1e-6)  # the offset is not penalised
    assert 0.1 < distrust < 0.4


def test_a_constant_predictor_gets_no_weight():
    right, wrong = clouds(100, 100)
    right[:, 1] = wrong[:, 1] = 4.0
    fitted = fit_trust(right, wrong, ["far"] * 100, 0.01)
    assert fitted["trust_weight_G"][1] == pytest.approx(0.0, abs=1e-9)
    assert fitted["trust_weight_G"][0] < -1.0


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_the_vehicle_trusts_the_stated_share_of_wrong_poses(rate):
    right, far = clouds(2000, 500, distance=3.0)
    near = clouds(1, 500, distance=1.5, seed=1)[1]
    wrong, kinds = np.concatenate([far, near]), ["far"] * 500 + ["near"] * 500
    fitted = fit_trust(right, wrong, kinds, rate)
    part = Calibration(**fit_covariance(*drawn(50, 0.0)), **fitted)
    trusted = np.array([part.trust(predictors) >= 0.0 for predictors in wrong])
    assert trusted[500:].mean() == pytest.approx(rate, abs=0.002)
    assert trusted[:500].mean() <= rate


def test_the_threshold_holds_for_each_binding_kind():
    right, far = clouds(1000, 200, distance=3.0)
    near = clouds(1, 200, distance=1.5, seed=1)[1]
    wrong, kinds = np.concatenate([far, near]), ["far"] * 200 + ["near"] * 200
    every = fit_trust(right, wrong, kinds, 0.1)
    assert accepted(every, near) == 0.1
    assert accepted(every, far) < 0.1
    only_far = fit_trust(right, wrong, kinds, 0.1, binding={"far"})
    assert accepted(only_far, near) > 0.1
    assert accepted(only_far, far) <= 0.1
    np.testing.assert_array_equal(only_far["trust_weight_G"], every["trust_weight_G"])


def test_a_kind_of_few_poses_has_no_threshold_of_its_own():
    right, far = clouds(1000, 100, distance=1.5)
    few = clouds(10, 1)[0]  # as right poses look
    fitted = fit_trust(right, np.concatenate([far, few]), ["far"] * 100 + ["few"] * 10, 0.1)
    assert accepted(fitted, far) == 0.1
    assert accepted(fitted, few) > 0.1
    small = clouds(1, 15, distance=1.5, seed=1)[1]
    wrong = np.concatenate([small, few])
    together = fit_trust(right, wrong, ["small"] * 15 + ["few"] * 10, 0.2)
    assert accepted(together, wrong) == 0.2


def test_a_threshold_that_keeps_too_many_right_poses_is_raised():
    right, far = clouds(1000, 100, distance=30.0)
    fitted = fit_trust(right, far, ["far"] * 100, 0.01)
    assert accepted(fitted, far) == 0.0
    assert accepted(fitted, right) == pytest.approx(0.95, abs=0.001)


@pytest.mark.parametrize("side", ["right", "wrong"])
def test_a_fit_without_right_or_wrong_poses_is_refused(side):
    right, wrong = clouds(0 if side == "right" else 9, 0 if side == "wrong" else 9)
    with pytest.raises(ValueError, match="right and wrong"):
        fit_trust(right, wrong, ["far"] * len(wrong), 0.01)
