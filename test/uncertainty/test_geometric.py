from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rgsiam_ros.localization.pnp import refine_pose
from rgsiam_ros.uncertainty.covariance import check_covariance, rotate_axes
from rgsiam_ros.uncertainty.geometric import (
    GeometricUncertainty,
    fit_uncertainty,
)
from rgsiam_ros.uncertainty.pose_quality import GeometricQuality

K = np.array([[300.0, 0.0, 160.0], [0.0, 300.0, 90.0], [0.0, 0.0, 1.0]])
WITHOUT_FLOOR = {"floor_m": 0.0, "floor_rad": 0.0}
ALL = np.ones(4000, bool)


def quality(inliers=200, similarity=0.9, sigma=1.0):
    """Of a pose with inliers as similar as the reference, if nothing else is said."""
    return GeometricQuality(
        inliers=inliers, matches=300, residual_px=sigma * np.sqrt(2.0), similarity=similarity
    )


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
    covariances = np.stack([uncertainty.covariance(i, quality())[part, part] for i in informations])
    return np.einsum("ni,nij,nj->n", errors[:, part], np.linalg.inv(covariances), errors[:, part])


POSITION, ROTATION = slice(0, 3), slice(3, 6)


@pytest.mark.slow
@pytest.mark.parametrize("factors", [(1.0, 1.0), (3.0, 0.5)])
def test_after_the_fit_errors_have_the_predicted_size(factors):
    errors, informations = synthetic(4000, sigma=0.7, factors=factors)
    fitted = fit_uncertainty(errors, informations, [quality(sigma=0.7)] * 4000, ALL[:4000])
    assert fitted.pixel_sigma == pytest.approx(0.7)
    assert fitted.position_factor == pytest.approx(factors[0], rel=0.02)
    assert fitted.rotation_factor == pytest.approx(factors[1], rel=0.02)
    new, informations = synthetic(4000, sigma=0.7, factors=factors, seed=1)
    exact = replace(fitted, **WITHOUT_FLOOR)
    for part in (POSITION, ROTATION):
        squares = normalised_squares(new, informations, exact, part)
        assert squares.mean() / 3.0 == pytest.approx(1.0, abs=0.04)


def test_a_few_wrong_labels_hardly_change_the_factors():
    errors, informations = synthetic(400)
    before = fit_uncertainty(errors, informations, [quality()] * 400, ALL[:400])
    errors[::80] *= 1000.0
    after = fit_uncertainty(errors, informations, [quality()] * 400, ALL[:400])
    assert after.position_factor == pytest.approx(before.position_factor, rel=0.1)
    assert after.rotation_factor == pytest.approx(before.rotation_factor, rel=0.1)


def test_few_errors_are_all_used():
    errors, informations = synthetic(12)
    errors[3] *= 100.0
    fitted = fit_uncertainty(errors, informations, [quality()] * 12, ALL[:12])
    exact = replace(fitted, **WITHOUT_FLOOR)
    squares = normalised_squares(errors, informations, exact, POSITION)
    assert squares.mean() / 3.0 == pytest.approx(1.0, rel=1e-6)


def test_errors_of_spoilt_images_do_not_change_the_factor_of_the_others():
    errors, informations = synthetic(800)
    errors[400:] *= 5.0
    fitted = fit_uncertainty(errors, informations, [quality()] * 800, np.arange(800) < 400)
    assert fitted.position_factor == pytest.approx(1.0, rel=0.1)
    assert fitted.rotation_factor == pytest.approx(1.0, rel=0.1)


def test_the_covariance_is_the_scaled_inverse_of_the_information():
    information = information_of(np.random.default_rng(0))
    plain = GeometricUncertainty(**WITHOUT_FLOOR).covariance(information, quality())
    np.testing.assert_allclose(plain, np.linalg.inv(information), rtol=1e-6)
    scaled = GeometricUncertainty(0.5, 3.0, 2.0, **WITHOUT_FLOOR).covariance(information, quality())
    np.testing.assert_allclose(scaled[:3, :3], 0.25 * 9.0 * plain[:3, :3], rtol=1e-9)
    np.testing.assert_allclose(scaled[3:, 3:], 0.25 * 4.0 * plain[3:, 3:], rtol=1e-9)
    np.testing.assert_allclose(scaled[:3, 3:], 0.25 * 6.0 * plain[:3, 3:], rtol=1e-9)
    check_covariance(scaled)


def test_the_covariance_never_falls_below_its_floor():
    sure = 1e12 * information_of(np.random.default_rng(0))
    covariance = GeometricUncertainty(floor_m=0.02, floor_rad=0.003).covariance(sure, quality())
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
    covariance = GeometricUncertainty().covariance(information, quality())
    for seed in range(10):
        R = Rotation.random(random_state=seed).as_matrix()
        check_covariance(rotate_axes(covariance, R))
    check_covariance(covariance)
    if len(directions) == 1:
        assert np.sqrt(np.linalg.eigvalsh(covariance).max()) > 1.0


def test_without_any_information_the_covariance_is_huge_and_finite():
    covariance = check_covariance(GeometricUncertainty().covariance(np.zeros((6, 6)), quality()))
    assert np.diag(covariance).min() > 1e6


def test_the_fit_finds_how_errors_grow_as_matches_get_less_similar():
    """Errors double with each 0.1 of similarity lost."""
    random = np.random.default_rng(2)
    errors, informations = synthetic(4000)
    recorded = np.arange(4000) < 1000
    similarities = np.where(
        recorded, random.uniform(0.96, 0.97, 4000), random.uniform(0.75, 0.96, 4000)
    )
    qualities = [quality(similarity=s) for s in similarities]
    scale = np.array([2.0 ** ((0.9 - q.similarity) / 0.1) for q in qualities])
    fitted = fit_uncertainty(errors * scale[:, None], informations, qualities, recorded)
    assert fitted.position_slope == pytest.approx(-np.log(2.0), abs=0.03)
    assert fitted.rotation_slope == pytest.approx(-np.log(2.0), abs=0.03)
    assert fitted.position_factor == pytest.approx(1.0, rel=0.05)
    good = fitted.covariance(informations[0], quality(similarity=0.9))
    bad = fitted.covariance(informations[0], quality(similarity=0.8))
    np.testing.assert_allclose(bad, 4.0 * good, rtol=0.1)


def test_matches_more_similar_than_most_held_out_ones_promise_no_more():
    errors, informations = synthetic(4000)
    random = np.random.default_rng(2)
    similarities = random.uniform(0.75, 0.85, 4000)
    qualities = [quality(similarity=s) for s in similarities]
    scale = np.array([2.0 ** ((0.9 - s) / 0.1) for s in similarities])
    fitted = fit_uncertainty(errors * scale[:, None], informations, qualities, ALL)
    assert fitted.largest_similarity == pytest.approx(0.775, abs=0.002)
    bounds = [fitted.covariance(informations[0], quality(similarity=s)) for s in (0.775, 0.97)]
    np.testing.assert_allclose(*bounds, rtol=0.02)
    less = fitted.covariance(informations[0], quality(similarity=0.75))
    assert (np.diag(less) > 1.1 * np.diag(bounds[0])).all()


def test_the_axes_of_the_camera_do_not_matter():
    """Information in turned axes gives the covariance in turned axes."""
    information = information_of(np.random.default_rng(0))
    R = Rotation.from_euler("xyz", [0.3, -0.5, 1.0]).as_matrix()
    J = np.kron(np.eye(2), R)
    uncertainty = GeometricUncertainty(0.5, 3.0, 2.0)
    turned = uncertainty.covariance(J @ information @ J.T, quality())
    np.testing.assert_allclose(
        turned, J @ uncertainty.covariance(information, quality()) @ J.T, rtol=1e-6, atol=1e-12
    )
