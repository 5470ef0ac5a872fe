"""The relative unit's geometry, on scenes whose every answer is known."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

torch = pytest.importorskip("torch", reason="the training extra is not installed here")

from rgsiam_training.config import RelativeConfig
from rgsiam_training.model.gauss_newton import align, multiply_wxyz, rotation_matrix, solve_spd
from rgsiam_training.model.relative_unit import RelativeUnit

H, W, CELL = 12, 20, 0.1
DESCRIPTOR = 32


def rays():
    column, row = np.meshgrid(np.arange(W), np.arange(H))
    return np.stack([(column - (W - 1) / 2) * CELL, (row - (H - 1) / 2) * CELL], axis=-1)


def motion(seed, metres=0.5, degrees=8.0):
    """``T_first_second`` and its parts."""
    random = np.random.default_rng(seed)
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * random.uniform(-1, 1, 3)).as_matrix()
    T[:3, 3] = metres * random.uniform(-1.0, 1.0, 3)
    return T


def motion_error(translation_B3, quaternion_wxyz_B4, T):
    R = Rotation.from_quat(quaternion_wxyz_B4[0].detach().numpy(), scalar_first=True)
    turn = (R.inv() * Rotation.from_matrix(T[:3, :3])).magnitude()
    return np.linalg.norm(translation_B3[0].detach().numpy() - T[:3, 3]), np.degrees(turn)


def tensor(array):
    return torch.from_numpy(np.asarray(array, np.float32))


@pytest.mark.parametrize("seed", range(5))
def test_alignment_finds_the_motion_from_exact_rays_despite_outliers(seed):
    random = np.random.default_rng(seed)
    ray = rays().reshape(-1, 2)
    point = np.concatenate([ray, np.ones((len(ray), 1))], axis=1)
    point *= random.uniform(2.0, 10.0, (len(ray), 1))
    T_2_1 = motion(seed)
    moved = point @ T_2_1[:3, :3].T + T_2_1[:3, 3]
    seen = moved[:, :2] / moved[:, 2:]
    wrong = random.random(len(seen)) < 0.2
    seen[wrong] += random.normal(0.0, 10.0 * CELL, (wrong.sum(), 2))
    found = align(
        tensor(point)[None], tensor(seen)[None], torch.ones(1, len(ray)), CELL, iterations=12
    )
    metres, degrees = motion_error(found.translation_B3, found.quaternion_wxyz_B4, T_2_1)
    assert metres < 0.02
    assert degrees < 0.1


def test_information_grows_with_weight_and_is_least_along_the_view():
    ray = rays().reshape(-1, 2)
    point = 5.0 * np.concatenate([ray, np.ones((len(ray), 1))], axis=1)
    weight = torch.ones(1, len(ray))
    full = align(tensor(point)[None], tensor(ray)[None], weight, CELL, 3).information_B66
    half = align(tensor(point)[None], tensor(ray)[None], 0.5 * weight, CELL, 3).information_B66
    torch.testing.assert_close(half, 0.5 * full)
    diagonal = full[0].diagonal()
    assert diagonal[2] < 0.5 * min(diagonal[0], diagonal[1])


def test_zero_weights_give_no_motion_and_finite_gradients():
    point = torch.rand(2, 30, 3, requires_grad=True)
    found = align(point, torch.rand(2, 30, 2), torch.zeros(2, 30), CELL, 4)
    torch.testing.assert_close(found.translation_B3, torch.zeros(2, 3))
    (found.translation_B3.sum() + found.quaternion_wxyz_B4.sum()).backward()
    assert torch.isfinite(point.grad).all()


def test_small_linear_algebra():
    random = np.random.default_rng(0)
    root = random.normal(size=(4, 6, 6))
    A, b = root @ np.swapaxes(root, 1, 2) + np.eye(6), random.normal(size=(4, 6))
    expected = np.linalg.solve(A, b[..., None])[..., 0]
    np.testing.assert_allclose(solve_spd(torch.tensor(A), torch.tensor(b)), expected, rtol=1e-6)
    a, c = (Rotation.random(5, random_state=i) for i in (1, 2))
    wxyz = [torch.tensor(r.as_quat(scalar_first=True)) for r in (a, c)]
    np.testing.assert_allclose(rotation_matrix(wxyz[0]), a.as_matrix(), atol=1e-12)
    product = rotation_matrix(multiply_wxyz(*wxyz))
    np.testing.assert_allclose(product, (a * c).as_matrix(), atol=1e-12)


def local_map(T_world_camera, depth, frequency):
    """The local map of a perfect network that sees a wall at world z = depth."""
    ray = np.concatenate([rays(), np.ones((H, W, 1))], axis=-1)
    direction = ray @ T_world_camera[:3, :3].T
    share = (depth - T_world_camera[2, 3]) / direction[..., 2]
    place = T_world_camera[:3, 3] + share[..., None] * direction
    phase = place[..., :2] @ frequency
    descriptor = np.concatenate([np.sin(phase), np.cos(phase)], axis=-1) / np.sqrt(DESCRIPTOR / 2)
    inverse_depth = (1.0 / share)[..., None]  # z of a ray with z = 1
    layers = np.concatenate([descriptor, inverse_depth, np.ones((H, W, 1))], axis=-1)
    return tensor(layers.transpose(2, 0, 1))[None]


def unit(reach=1.0):
    config = RelativeConfig(descriptor_size=DESCRIPTOR, iterations=8)
    return RelativeUnit(config, tensor(rays()), reach).eval()


@pytest.mark.parametrize("seed", range(4))
def test_the_unit_finds_the_motion_between_two_views_of_a_wall(seed):
    """The tolerance is a quarter of a cell; a cell is 5.7 degrees wide."""
    frequency = np.random.default_rng(0).normal(0.0, 2.0, (2, DESCRIPTOR // 2))
    T = motion(seed, metres=0.8, degrees=6.0)
    T[:3, :3] = Rotation.from_rotvec([0.05, -0.08, 0.03 * seed]).as_matrix()
    output = unit()(local_map(np.eye(4), 5.0, frequency), local_map(T, 5.0, frequency))
    metres, degrees = motion_error(output.poses.translation_B3, output.poses.quaternion_wxyz_B4, T)
    assert metres < 0.15
    assert degrees < 1.5
    sideways = np.linalg.norm(T[:2, 3])
    assert metres < 0.5 * sideways  # better than no motion at all


def test_translations_scale_with_the_reach():
    """Depths and points are in units of the reach; poses and information in the map's normalised unit."""
    frequency = np.random.default_rng(0).normal(0.0, 2.0, (2, DESCRIPTOR // 2))
    T = motion(1, metres=0.6, degrees=0.0)
    maps = local_map(np.eye(4), 5.0, frequency), local_map(T, 5.0, frequency)
    plain, scaled = unit(reach=1.0)(*maps), unit(reach=0.25)(*maps)
    torch.testing.assert_close(scaled.poses.translation_B3, 0.25 * plain.poses.translation_B3)
    torch.testing.assert_close(
        scaled.information_B66[:, :3, :3], 16.0 * plain.information_B66[:, :3, :3]
    )
    torch.testing.assert_close(scaled.information_B66[:, 3:, 3:], plain.information_B66[:, 3:, 3:])


def test_several_map_images_need_only_the_descriptors_of_one_live_image():
    frequency = np.random.default_rng(0).normal(0.0, 2.0, (2, DESCRIPTOR // 2))
    first = torch.cat([local_map(motion(s, degrees=2.0), 5.0, frequency) for s in range(3)])
    second = local_map(np.eye(4), 5.0, frequency)
    together = unit()(first, second)
    other = second.clone()
    other[:, DESCRIPTOR:] = 7.0
    for i in range(3):
        alone = unit()(first[i : i + 1], other)
        torch.testing.assert_close(
            together.poses.translation_B3[i : i + 1],
            alone.poses.translation_B3,
            atol=1e-4,
            rtol=1e-3,
        )
