import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rgsiam_ros.mapping.triangulation import triangulate

K = np.array([[310.0, 0.0, 158.0], [0.0, 290.0, 93.0], [0.0, 0.0, 1.0]])
LIMIT_PX = 3.0


def scene(points=60, cameras=6, noise_px=0.0, seed=0):
    """Points, and the cameras that see them all: origins, rotations and pixels, one row for each point."""
    random = np.random.default_rng(seed)
    origin = np.stack([np.linspace(-2.0, 2.0, cameras), *random.normal(0.0, 0.3, (2, cameras))], 1)
    R = Rotation.from_rotvec(random.normal(0.0, 0.1, (cameras, 3))).as_matrix()
    point = np.stack(
        [
            random.uniform(-3, 3, points),
            random.uniform(-2, 2, points),
            random.uniform(6, 20, points),
        ],
        1,
    )
    inside = np.einsum("lij,plj->pli", R, point[:, None] - origin)
    pixel = inside @ K.T
    pixel = pixel[..., :2] / pixel[..., 2:] + noise_px * random.normal(size=(points, cameras, 2))
    shape = (points, cameras)
    return (
        point,
        np.broadcast_to(origin, (*shape, 3)).copy(),
        np.broadcast_to(R, (*shape, 3, 3)).copy(),
        pixel,
        np.ones(shape, bool),
    )


def test_exact_observations_give_the_exact_points():
    point, *rest = scene()
    found = triangulate(*rest, K, LIMIT_PX)
    np.testing.assert_allclose(found.position_P3, point, atol=1e-7)
    np.testing.assert_allclose(found.residual_PL, 0.0, atol=1e-6)
    direction = rest[0] - point[:, None]
    direction /= np.linalg.norm(direction, axis=2, keepdims=True)
    angle = [max(np.arccos(np.clip(a @ b, -1, 1)) for a in row for b in row) for row in direction]
    np.testing.assert_allclose(found.parallax_P, angle, rtol=1e-5)


@pytest.mark.parametrize("wrong_ones", [1, 2])
def test_wrong_observations_are_found_and_do_no_harm(wrong_ones):
    """Of six observations. They are off along the line between the cameras, where two rays still meet."""
    point, origin, R, pixel, valid = scene(200, noise_px=0.5, seed=1)
    random = np.random.default_rng(2)
    wrong = random.permuted(np.tile(np.arange(6) < wrong_ones, (200, 1)), axis=1)
    pixel[wrong, 0] += random.choice([-1.0, 1.0], wrong.sum()) * random.uniform(20, 60, wrong.sum())
    found = triangulate(origin, R, pixel, valid, K, LIMIT_PX)
    assert ((found.residual_PL > LIMIT_PX) == wrong).all(axis=1).mean() > 0.98
    error = np.linalg.norm(found.position_P3 - point, axis=1)
    assert np.median(error) < 0.1
    assert np.percentile(error, 98) < 0.7


def test_places_without_observation_do_not_matter():
    _, origin, R, pixel, valid = scene(noise_px=0.5)
    few = [part[:, :4] for part in (origin, R, pixel, valid)]
    valid[:, 4:] = False
    pixel[:, 4:] = 1e4
    origin[:, 4:] = 55.0
    expected, found = (
        triangulate(*parts, K, LIMIT_PX) for parts in (few, (origin, R, pixel, valid))
    )
    np.testing.assert_allclose(found.position_P3, expected.position_P3, atol=1e-9)
    np.testing.assert_allclose(found.parallax_P, expected.parallax_P, atol=1e-9)
    assert np.isinf(found.residual_PL[:, 4:]).all()


def test_a_camera_that_looks_away_cannot_see_the_point():
    """Its pixel fits the line to the point, but the point is behind it."""
    point, origin, R, pixel, valid = scene()
    behind = Rotation.from_euler("y", 180.0, degrees=True).as_matrix()
    R[:, 2] = behind @ R[:, 2]
    seen = np.einsum("pij,pj->pi", R[:, 2], point - origin[:, 2]) @ K.T
    assert (seen[:, 2] < 0.0).all()
    pixel[:, 2] = seen[:, :2] / seen[:, 2:]
    found = triangulate(origin, R, pixel, valid, K, LIMIT_PX)
    np.testing.assert_allclose(found.position_P3, point, atol=1e-6)
    assert np.isinf(found.residual_PL[:, 2]).all()
    assert (np.delete(found.residual_PL, 2, axis=1) < LIMIT_PX).all()


def test_rays_that_only_meet_behind_the_cameras_give_no_observation():
    """The left camera looks left, the right one looks right."""
    origin = np.array([[[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])
    R = np.tile(np.eye(3), (1, 2, 1, 1))
    pixel = np.array([[[K[0, 2] - 90.0, K[1, 2]], [K[0, 2] + 90.0, K[1, 2]]]])
    found = triangulate(origin, R, pixel, np.ones((1, 2), bool), K, LIMIT_PX)
    assert (found.residual_PL > LIMIT_PX).all()
    assert found.parallax_P[0] == 0.0


def test_rays_without_parallax_have_none():
    point, origin, R, _, valid = scene(20)
    origin[:] = origin[:, :1]
    seen = np.einsum("plij,pj->pli", R, point - origin[:, 0]) @ K.T
    found = triangulate(origin, R, seen[..., :2] / seen[..., 2:], valid, K, LIMIT_PX)
    assert np.isfinite(found.position_P3).all()
    np.testing.assert_allclose(found.parallax_P, 0.0, atol=1e-4)


@pytest.mark.parametrize("noise_px", [0.1, 0.3])
def test_the_information_is_that_of_repeated_measurements(noise_px):
    """2000 measurements of one point."""
    point, origin, R, _, _ = (part[:1] for part in scene(cameras=4))
    seen = np.einsum("plij,pj->pli", R, point) - np.einsum("plij,plj->pli", R, origin)
    exact = seen @ K.T
    exact = exact[..., :2] / exact[..., 2:]
    noise = np.random.default_rng(0).normal(0.0, noise_px, (2000, 4, 2))
    many = [np.repeat(part, 2000, axis=0) for part in (origin, R)]
    found = triangulate(*many, exact + noise, np.ones((2000, 4), bool), K, LIMIT_PX)
    measured = np.cov(found.position_P3.T)
    predicted = noise_px**2 * np.linalg.inv(found.information_P33.mean(axis=0))
    ratio = np.linalg.eigvals(np.linalg.solve(predicted, measured)).real
    assert ratio.min() > 0.85
    assert ratio.max() < 1.2
    np.testing.assert_allclose(found.position_P3.mean(axis=0), point[0], atol=0.02)
