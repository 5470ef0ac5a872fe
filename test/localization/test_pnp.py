"""The pose of a camera from matches, on synthetic scenes with known poses."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from support.poses import random_poses

from rgsiam_ros.geometry.poses import pose_errors
from rgsiam_ros.localization.pnp import (
    PnpOptions,
    refine_pose,
    reprojection_residuals,
    solve_pnp,
)
from rgsiam_ros.uncertainty.covariance import pose_error_vectors, rotate_axes

K = np.array([[610.0, 0.5, 318.0], [0.0, 590.0, 243.0], [0.0, 0.0, 1.0]])
WIDTH, HEIGHT = 640.0, 480.0


def pixels_in_image(random, count):
    return random.uniform([0.0, 0.0], [WIDTH, HEIGHT], (count, 2))


def scene(count=300, wrong=0.0, noise_px=0.0, seed=0, depth_m=(3.0, 40.0)):
    """Points, pixels, the true pose, and which matches are right. Wrong matches have random pixels."""
    random = np.random.default_rng(seed)
    T = random_poses(1, seed)[0]
    pixel = pixels_in_image(random, count)
    ray = np.insert(pixel, 2, 1.0, axis=1) @ np.linalg.inv(K).T
    point = ray * random.uniform(*depth_m, (count, 1)) @ T[:3, :3].T + T[:3, 3]
    pixel = pixel + noise_px * random.normal(size=pixel.shape)
    right = np.ones(count, bool)
    right[random.permutation(count)[: round(wrong * count)]] = False
    pixel[~right] = pixels_in_image(random, np.count_nonzero(~right))
    return point, pixel, T, right


def off(T, metres, degrees):
    """A pose that is off by so much along and about an axis of the map."""
    moved = T.copy()
    moved[:3, :3] = Rotation.from_euler("y", degrees, degrees=True).as_matrix() @ T[:3, :3]
    moved[0, 3] += metres
    return moved


def assert_near(T, T_true, metres, degrees):
    error_m, error_rad = pose_errors(T, T_true)
    assert error_m < metres
    assert np.degrees(error_rad) < degrees


@pytest.mark.parametrize("count", [4, 6, 50])
def test_clean_matches_give_the_exact_pose(count):
    point, pixel, T, _ = scene(count)
    solution = solve_pnp(point, pixel, K)
    assert_near(solution.T_map_camera, T, 1e-7, 1e-6)
    assert solution.inlier_M.all()
    assert solution.residual_rms_px < 1e-6


def test_a_map_may_lie_far_from_its_origin():
    point, pixel, _, _ = scene(300, wrong=0.7, noise_px=1.0)
    near = solve_pnp(point, pixel, K)
    far = np.array([500_000.0, 5_400_000.0, 300.0])
    solution = solve_pnp(point + far, pixel, K)
    assert solution.hypotheses == near.hypotheses
    np.testing.assert_array_equal(solution.inlier_M, near.inlier_M)
    solution.T_map_camera[:3, 3] -= far
    np.testing.assert_allclose(solution.T_map_camera, near.T_map_camera, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_noisy_matches_with_60_percent_wrong_ones(seed):
    point, pixel, T, right = scene(300, wrong=0.6, noise_px=1.0, seed=seed)
    solution = solve_pnp(point, pixel, K)
    assert_near(solution.T_map_camera, T, 0.03, 0.15)
    assert np.mean(solution.inlier_M[right]) > 0.95
    assert np.mean(solution.inlier_M[~right]) < 0.05
    assert solution.residual_rms_px == pytest.approx(np.sqrt(2.0), rel=0.2)


def test_90_percent_wrong_matches_need_more_hypotheses():
    point, pixel, T, right = scene(300, wrong=0.9, noise_px=0.5)
    solution = solve_pnp(point, pixel, K, options=PnpOptions(most_hypotheses=6000))
    assert_near(solution.T_map_camera, T, 0.05, 0.3)
    assert np.count_nonzero(solution.inlier_M & right) >= 28


def test_weights_find_the_few_right_matches():
    point, pixel, T, right = scene(300, wrong=0.9, noise_px=0.5)
    weight = np.where(right, 1.0, 0.1)
    solution = solve_pnp(point, pixel, K, weight_M=weight)
    assert_near(solution.T_map_camera, T, 0.05, 0.3)
    assert solution.hypotheses <= PnpOptions().most_hypotheses


def test_matches_without_weight_are_never_drawn():
    point, pixel, T, right = scene(200, wrong=0.95)
    solution = solve_pnp(point, pixel, K, weight_M=right.astype(float))
    assert_near(solution.T_map_camera, T, 1e-6, 1e-5)
    assert solve_pnp(point, pixel, K, weight_M=np.zeros(200)) is None


def test_wrong_matches_alone_have_few_inliers_and_bounded_work():
    point, pixel, _, _ = scene(300, wrong=1.0)
    for most in (100, PnpOptions().most_hypotheses):
        solution = solve_pnp(point, pixel, K, options=PnpOptions(most_hypotheses=most))
        assert np.count_nonzero(solution.inlier_M) < 10
        assert 0.8 * most < solution.hypotheses <= most


def test_few_hypotheses_are_scored_where_many_matches_agree():
    for wrong, most in ((0.1, 64), (0.65, 200)):
        point, pixel, _, _ = scene(300, wrong, noise_px=1.0)
        assert solve_pnp(point, pixel, K).hypotheses <= most


def test_a_good_guess_needs_no_hypothesis():
    point, pixel, T, _ = scene(300, wrong=0.4, noise_px=1.0)
    guesses = np.stack([off(T, 30.0, 90.0), off(T, 0.4, 3.0)])
    solution = solve_pnp(point, pixel, K, guesses_P44=guesses)
    assert solution.hypotheses == 0
    assert_near(solution.T_map_camera, T, 0.03, 0.15)


def test_a_guess_finds_a_pose_that_few_matches_support():
    point, pixel, T, _ = scene(300, wrong=0.9, noise_px=1.0)
    few = PnpOptions(most_hypotheses=10)
    assert np.count_nonzero(solve_pnp(point, pixel, K, options=few).inlier_M) < 15
    solution = solve_pnp(point, pixel, K, guesses_P44=off(T, 0.2, 1.0)[None], options=few)
    assert_near(solution.T_map_camera, T, 0.1, 0.5)


def test_a_wrong_guess_does_no_harm():
    point, pixel, T, _ = scene(300, wrong=0.5, noise_px=1.0)
    solution = solve_pnp(point, pixel, K, guesses_P44=random_poses(2, seed=9))
    assert_near(solution.T_map_camera, T, 0.03, 0.15)


def test_points_behind_the_camera_never_count():
    """Points mirrored at the camera's centre project to the same pixels."""
    point, pixel, T, _ = scene(120)
    point[:60] = 2.0 * T[:3, 3] - point[:60]
    residual = reprojection_residuals(T, point, pixel, K)
    assert np.isinf(residual[:60]).all()
    assert residual[60:].max() < 1e-9
    point, pixel = point[20:], pixel[20:]
    solution = solve_pnp(point, pixel, K, guesses_P44=T[None])
    assert_near(solution.T_map_camera, T, 1e-6, 1e-5)
    assert solution.inlier_M.tolist() == [False] * 40 + [True] * 60


def test_a_pose_gains_nothing_from_points_behind_it():
    """60 matches agree with one pose. 50 agree with another, and 50 more would from behind."""
    point, pixel, T, _ = scene(60, noise_px=1.0)
    other_point, other_pixel, other, _ = scene(100, noise_px=1.0, seed=1)
    other_point[:50] = 2.0 * other[:3, 3] - other_point[:50]
    points, pixels = np.concatenate([point, other_point]), np.concatenate([pixel, other_pixel])
    assert_near(solve_pnp(points, pixels, K).T_map_camera, T, 0.05, 0.3)


def test_points_in_a_plane():
    random = np.random.default_rng(5)
    T = random_poses(1, seed=5)[0]
    plane = np.insert(random.uniform(-6.0, 6.0, (200, 2)), 2, 0.0, axis=1)
    seen = plane @ Rotation.from_euler("xy", [35.0, 10.0], degrees=True).as_matrix().T
    seen = seen + [0.0, 0.0, 15.0]
    pixel = (seen / seen[:, 2:] @ K.T)[:, :2] + 0.5 * random.normal(size=(200, 2))
    pixel[:100] = pixels_in_image(random, 100)
    solution = solve_pnp(seen @ T[:3, :3].T + T[:3, 3], pixel, K)
    assert_near(solution.T_map_camera, T, 0.1, 0.4)


def test_a_symmetric_sample():
    """Only the corners of an equilateral triangle are drawn, seen from above its centre."""
    angle = np.radians([0.0, 120.0, 240.0, 30.0, 75.0, 200.0])
    height = np.array([0.0, 0.0, 0.0, 1.0, 2.0, -1.0])
    seen = np.stack([np.cos(angle), np.sin(angle), 5.0 + height], axis=1)
    pixel = (seen / seen[:, 2:] @ K.T)[:, :2]
    T = random_poses(1)[0]
    point = seen @ T[:3, :3].T + T[:3, 3]
    solution = solve_pnp(point, pixel, K, weight_M=[1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    assert_near(solution.T_map_camera, T, 1e-6, 1e-5)


def test_too_few_or_degenerate_matches_give_none():
    point, pixel, _, _ = scene(20)
    for count in (0, 3):
        assert solve_pnp(point[:count], pixel[:count], K) is None
    assert solve_pnp(np.outer(np.arange(20.0), [1.0, 2.0, 3.0]), pixel, K) is None
    assert solve_pnp(np.ones((20, 3)), pixel, K) is None


@pytest.mark.parametrize("scale", [0.0, 1e-300, 1e150, 1e308])
def test_extreme_numbers_raise_nothing(scale):
    point, pixel, T, _ = scene(20)
    point = np.clip(point, -1.0, 1.0)
    solve_pnp(scale * point, pixel, K)
    solve_pnp(point, scale * np.sign(pixel), K)
    solve_pnp(point, pixel, scale * np.eye(3))
    solve_pnp(point, pixel, K, guesses_P44=scale * np.sign(T)[None], weight_M=np.full(20, scale))


def test_what_is_not_finite_or_has_a_wrong_shape_is_refused():
    point, pixel, T, _ = scene(20)
    for at, name in enumerate(("points", "pixels", "camera matrix")):
        arrays = [point.copy(), pixel.copy(), K.copy()]
        arrays[at][0, 0] = np.nan
        with pytest.raises(ValueError, match=f"{name}: a number is not finite"):
            solve_pnp(*arrays)
    with pytest.raises(ValueError, match="guesses: a number is not finite"):
        solve_pnp(point, pixel, K, guesses_P44=np.full((1, 4, 4), np.inf))
    with pytest.raises(ValueError, match=r"pixels: the shape is \(19, 2\), not \(20, 2\)"):
        solve_pnp(point, pixel[1:], K)
    with pytest.raises(ValueError, match="guesses: the shape"):
        solve_pnp(point, pixel, K, guesses_P44=T)
    with pytest.raises(ValueError, match="weights: the shape"):
        solve_pnp(point, pixel, K, weight_M=np.ones(3))


def test_equal_input_gives_equal_output():
    point, pixel, _, _ = scene(300, wrong=0.7, noise_px=1.0)
    first, second = solve_pnp(point, pixel, K), solve_pnp(point.copy(), pixel.copy(), K)
    for name in ("T_map_camera", "inlier_M", "information_66", "residual_rms_px", "hypotheses"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    other = solve_pnp(point, pixel, K, options=PnpOptions(seed=1))
    np.testing.assert_allclose(other.T_map_camera, first.T_map_camera, atol=1e-3)


def test_a_refinement_leaves_wrong_matches_out():
    point, pixel, T, right = scene(200, wrong=0.3)
    refined, information = refine_pose(off(T, 0.02, 0.1), point, pixel, K)
    residual = reprojection_residuals(refined, point, pixel, K)
    assert np.median(residual[right]) < 0.05
    np.testing.assert_allclose(information, information.T)
    assert np.linalg.eigvalsh(information).min() > 0.0


def test_a_refinement_without_support_keeps_the_pose():
    point, pixel, T, _ = scene(50)
    away = off(T, 0.0, 180.0)
    refined, information = refine_pose(away, point, pixel, K, gate_px=1e-3)
    np.testing.assert_allclose(refined, away, atol=1e-12)
    np.testing.assert_array_equal(information, np.zeros((6, 6)))


def test_the_information_predicts_the_covariance_of_the_errors():
    """In the map's axes, with a narrow scene: its errors are correlated, and larger along the axis."""
    noise_px = 0.7
    point, exact, T, _ = scene(60, depth_m=(8.0, 12.0), seed=2)
    exact = exact.copy()
    random = np.random.default_rng(0)
    poses, information = [], np.zeros((6, 6))
    for _ in range(150):
        noisy = exact + noise_px * random.normal(size=exact.shape)
        solution = solve_pnp(point, noisy, K, guesses_P44=T[None])
        poses.append(solution.T_map_camera)
        information += solution.information_66 / 150
    predicted = rotate_axes(noise_px**2 * np.linalg.inv(information), T[:3, :3])
    errors = pose_error_vectors(np.array(poses), np.tile(T, (150, 1, 1)))
    whitened = np.linalg.solve(np.linalg.cholesky(predicted), errors.T)
    ratios = np.linalg.eigvalsh(whitened @ whitened.T / 150)  # 1 in each direction if exact
    assert ratios.min() > 0.6
    assert ratios.max() < 1.4
