from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rgsiam_ros.localization.pnp import refine_pose
from rgsiam_ros.uncertainty.covariance import check_covariance, rotate_axes
from rgsiam_ros.uncertainty.geometric import (
    GeometricUncertainty,
    fit_uncertainty,
    trust_of,
    why_not_trusted,
)
from rgsiam_ros.uncertainty.pose_quality import GeometricQuality

K = np.array([[300.0, 0.0, 160.0], [0.0, 300.0, 90.0], [0.0, 0.0, 1.0]])
WITHOUT_FLOOR = {"floor_m": 0.0, "floor_rad": 0.0}


def information_of(random, matches=80):
    """Information of a pose from points that the camera sees, in its own axes."""
    point = random.uniform([-4.0, -2.0, 4.0], [4.0, 2.0, 20.0], (matches, 3))
    pixel = point @ K.T
    return refine_pose(np.eye(4), point, pixel[:, :2] / pixel[:, 2:], K)[1]


def synthetic(count, sigma=1.0, factors=(1.0, 1.0), seed=0):
    """Errors of the size that the information predicts, times factors. 40 poses have the same information."""
    random = np.random.default_rng(seed)
    informations, errors = [], []
    for i in range(0, count, 40):
        information = information_of(random)
        some = min(40, count - i)
        informations += [information] * some
        errors.append(random.multivariate_normal(np.zeros(6), np.linalg.inv(information), some))
    return sigma * np.repeat(factors, 3) * np.concatenate(errors), informations


def normalised_squares(errors, informations, uncertainty, part):
    covariances = np.stack([uncertainty.covariance(i)[part, part] for i in informations])
    return np.einsum("ni,nij,nj->n", errors[:, part], np.linalg.inv(covariances), errors[:, part])


POSITION, ROTATION = slice(0, 3), slice(3, 6)


@pytest.mark.slow
@pytest.mark.parametrize("factors", [(1.0, 1.0), (3.0, 0.5)])
def test_after_the_fit_errors_have_the_predicted_size(factors):
    errors, informations = synthetic(4000, sigma=0.7, factors=factors)
    fitted = fit_uncertainty(errors, informations, np.full(4000, 0.7 * np.sqrt(2.0)))
    assert fitted.pixel_sigma == pytest.approx(0.7)
    assert fitted.position_factor == pytest.approx(factors[0], rel=0.02)
    assert fitted.rotation_factor == pytest.approx(factors[1], rel=0.02)
    new, informations = synthetic(4000, sigma=0.7, factors=factors, seed=1)
    exact = replace(fitted, **WITHOUT_FLOOR)
    for part in (POSITION, ROTATION):
        squares = normalised_squares(new, informations, exact, part)
        assert squares.mean() / 3.0 == pytest.approx(1.0, abs=0.04)


def test_a_few_gross_errors_hardly_change_the_fit():
    errors, informations = synthetic(400)
    before = fit_uncertainty(errors, informations, np.full(400, np.sqrt(2.0)))
    errors[::80] *= 1000.0
    after = fit_uncertainty(errors, informations, np.full(400, np.sqrt(2.0)))
    assert after.position_factor == pytest.approx(before.position_factor, rel=0.1)
    assert after.rotation_factor == pytest.approx(before.rotation_factor, rel=0.1)


def test_few_errors_are_all_used():
    errors, informations = synthetic(12)
    errors[3] *= 100.0
    fitted = fit_uncertainty(errors, informations, np.full(12, np.sqrt(2.0)))
    exact = replace(fitted, **WITHOUT_FLOOR)
    squares = normalised_squares(errors, informations, exact, POSITION)
    assert squares.mean() / 3.0 == pytest.approx(1.0, rel=1e-6)


def test_the_covariance_is_the_scaled_inverse_of_the_information():
    information = information_of(np.random.default_rng(0))
    plain = GeometricUncertainty(**WITHOUT_FLOOR).covariance(information)
    np.testing.assert_allclose(plain, np.linalg.inv(information), rtol=1e-6)
    scaled = GeometricUncertainty(0.5, 3.0, 2.0, **WITHOUT_FLOOR).covariance(information)
    np.testing.assert_allclose(scaled[:3, :3], 0.25 * 9.0 * plain[:3, :3], rtol=1e-9)
    np.testing.assert_allclose(scaled[3:, 3:], 0.25 * 4.0 * plain[3:, 3:], rtol=1e-9)
    np.testing.assert_allclose(scaled[:3, 3:], 0.25 * 6.0 * plain[:3, 3:], rtol=1e-9)
    check_covariance(scaled)


def test_the_covariance_never_falls_below_its_floor():
    sure = 1e12 * information_of(np.random.default_rng(0))
    covariance = GeometricUncertainty(floor_m=0.02, floor_rad=0.003).covariance(sure)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), [0.02] * 3 + [0.003] * 3, rtol=1e-3)


@pytest.mark.parametrize(
    "directions",
    [
        [[0.1, 0.1, 1.0]],  # one ray: points behind each other
        [[0.1, 0.1, 1.0], [-0.2, 0.1, 1.0]],
        [[0.0, -0.1, 1.0], [0.0, 0.0, 1.0], [0.0, 0.2, 1.0]],
    ],
)
def test_matches_that_do_not_fix_the_pose_give_a_usable_covariance(directions):
    """Its unknown directions have large variances, in the camera's axes and in any others."""
    point = np.concatenate([np.outer([5.0, 8.0, 20.0], ray) for ray in directions])
    pixel = point @ K.T
    information = refine_pose(np.eye(4), point, pixel[:, :2] / pixel[:, 2:], K)[1]
    covariance = GeometricUncertainty().covariance(information)
    for seed in range(10):
        R = Rotation.random(random_state=seed).as_matrix()
        check_covariance(rotate_axes(covariance, R))
    check_covariance(covariance)
    if len(directions) == 1:
        assert np.sqrt(np.linalg.eigvalsh(covariance).max()) > 1.0


def test_without_any_information_the_covariance_is_huge_and_finite():
    covariance = check_covariance(GeometricUncertainty().covariance(np.zeros((6, 6))))
    assert np.diag(covariance).min() > 1e6


@pytest.mark.parametrize(
    ("inliers", "rival_inliers", "reason"),
    [
        (30, 0, ""),
        (30, 15, ""),
        (29, 0, "29 matches with the map agree, 30 are needed"),
        (30, 16, "two places look alike: 30 matches agree with one, 16 with the other"),
        (100, 51, "two places look alike: 100 matches agree with one, 51 with the other"),
    ],
)
def test_trust_is_negative_exactly_if_there_is_a_reason(inliers, rival_inliers, reason):
    quality = GeometricQuality(
        inliers=inliers, matches=200, residual_px=1.0, rival_inliers=rival_inliers
    )
    assert why_not_trusted(quality, 30) == reason
    assert (trust_of(quality, 30) < 0.0) == bool(reason)


def test_the_axes_of_the_camera_do_not_matter():
    """Information in turned axes gives the covariance in turned axes."""
    information = information_of(np.random.default_rng(0))
    R = Rotation.from_euler("xyz", [0.3, -0.5, 1.0]).as_matrix()
    J = np.kron(np.eye(2), R)
    uncertainty = GeometricUncertainty(0.5, 3.0, 2.0)
    turned = uncertainty.covariance(J @ information @ J.T)
    np.testing.assert_allclose(
        turned, J @ uncertainty.covariance(information) @ J.T, rtol=1e-6, atol=1e-12
    )
