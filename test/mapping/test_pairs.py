import numpy as np
from scipy.spatial.transform import Rotation
from support.poses import random_poses

from rgsiam_ros.geometry.poses import invert
from rgsiam_ros.mapping.pairs import LARGEST_ANGLE, RANKS, epipolar_distances, neighbour_pairs

K = np.array([[300.0, 0.0, 161.0], [0.0, 290.0, 92.0], [0.0, 0.0, 1.0]])


def drive(count, spacing_m=1.0):
    """Cameras along the x axis of the map that look along its y axis."""
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = Rotation.from_euler("x", -90.0, degrees=True).as_matrix()
    T[:, 0, 3] = spacing_m * np.arange(count)
    return T


def test_pairs_are_of_near_and_of_far_neighbours():
    pairs = neighbour_pairs(drive(100))
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    apart = pairs[:, 1] - pairs[:, 0]
    assert {(i, i + 1) for i in range(99)} <= set(map(tuple, pairs.tolist()))
    # an image in the middle has two neighbours at each distance: rank r is r // 2 + 1 frames away
    assert set(apart[(pairs == 50).any(axis=1)]) >= {rank // 2 + 1 for rank in RANKS}
    assert apart.max() <= max(RANKS) + 1
    assert len(pairs) <= 100 * len(RANKS)


def test_images_that_look_elsewhere_are_never_paired():
    T = np.concatenate([drive(30), drive(30)])
    T[30:, :3, :3] = T[30:, :3, :3] @ Rotation.from_euler("y", 180.0, degrees=True).as_matrix()
    pairs = neighbour_pairs(T)
    assert ((pairs < 30).sum(axis=1) != 1).all()
    assert {0, 29, 30, 59} <= set(pairs.ravel().tolist())
    random = random_poses(60, seed=4)
    view = random[:, :3, 2]
    found = neighbour_pairs(random)
    cosine = (view[found[:, 0]] * view[found[:, 1]]).sum(axis=1)
    assert len(found) > 50
    assert (cosine > np.cos(LARGEST_ANGLE)).all()


def test_a_single_image_has_no_pair():
    assert neighbour_pairs(drive(1)).shape == (0, 2)


def projected(T_map_camera, point_M3):
    inside = (point_M3 - T_map_camera[:3, 3]) @ T_map_camera[:3, :3]
    pixel = inside @ K.T
    return pixel[:, :2] / pixel[:, 2:]


def distance_from_line(T_a, T_b, pixel_a, pixel_b):
    """Distance of a pixel in image a from the line through the images of two points on the ray of image b."""
    ray = T_b[:3, :3] @ np.linalg.inv(K) @ [*pixel_b, 1.0]
    start, end = (projected(T_a, (T_b[:3, 3] + depth * ray)[None])[0] for depth in (4.0, 9.0))
    along = (end - start) / np.linalg.norm(end - start)
    across = pixel_a - start
    return abs(along[0] * across[1] - along[1] * across[0])


def test_epipolar_distances_agree_with_projected_rays():
    random = np.random.default_rng(2)
    T_a, T_b = drive(2, spacing_m=0.8)
    T_b = T_b.copy()
    T_b[:3, 3] += [0.1, 0.5, -0.2]
    T_b[:3, :3] = T_b[:3, :3] @ Rotation.from_rotvec([0.1, -0.2, 0.05]).as_matrix()
    points = np.stack(
        [random.uniform(-2, 3, 50), random.uniform(5, 9, 50), random.uniform(-2, 2, 50)]
    )
    pixel_a = projected(T_a, points.T) + random.normal(0.0, 4.0, (50, 2))
    pixel_b = projected(T_b, points.T)
    found = epipolar_distances(pixel_a, pixel_b, invert(T_a) @ T_b, K)
    expected = [
        max(distance_from_line(T_a, T_b, a, b), distance_from_line(T_b, T_a, b, a))
        for a, b in zip(pixel_a, pixel_b, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    exact = epipolar_distances(projected(T_a, points.T), pixel_b, invert(T_a) @ T_b, K)
    np.testing.assert_allclose(exact, 0.0, atol=1e-8)
    assert (epipolar_distances(pixel_a, pixel_b, invert(T_b) @ T_a, K) > 1.0).mean() > 0.5
