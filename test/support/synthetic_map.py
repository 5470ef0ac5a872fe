"""A scene of points with random descriptors, and the keypoints of cameras that drive past it."""

import numpy as np
from scipy.spatial.transform import Rotation

from rgsiam_ros.features.keypoints import DESCRIPTOR_SIZE, to_bytes
from rgsiam_ros.mapping.matching import MapImage

K = np.array([[300.0, 0.0, 161.0], [0.0, 290.0, 92.0], [0.0, 0.0, 1.0]])
SIZE = (320, 192)


def drive(count, spacing_m=0.5):
    """Cameras near the x axis of the map that look roughly along its y axis. ``T_map_camera``."""
    random = np.random.default_rng(count)
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = Rotation.from_euler("x", -90.0, degrees=True).as_matrix()
    T[:, :3, :3] = (
        T[:, :3, :3] @ Rotation.from_rotvec(random.normal(0, 0.06, (count, 3))).as_matrix()
    )
    T[:, 0, 3] = spacing_m * np.arange(count)
    T[:, 1:3, 3] = random.normal(0.0, 0.1, (count, 2))
    return T


def unit_descriptors(random, count):
    descriptors = random.normal(size=(count, DESCRIPTOR_SIZE))
    return descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)


def scene(count, seed=0, distance_m=(5.0, 12.0)):
    """Points in the map, and the unit descriptors of them."""
    random = np.random.default_rng(seed)
    low, high = distance_m
    point = random.uniform([-4.0, low, -2.0], [10.0, high, 2.0], (count, 3))
    return point, unit_descriptors(random, count)


def map_images(T_map_camera_N44, points_and_descriptors, noise_px=0.0, clutter=0, seed=1):
    """The map images, and the point of each keypoint, counted over all images; -1 for clutter."""
    random = np.random.default_rng(seed)
    point, descriptor = points_and_descriptors
    images, point_of = [], []
    for T in T_map_camera_N44:
        inside = (point - T[:3, 3]) @ T[:3, :3] @ K.T
        pixel = inside[:, :2] / inside[:, 2:]
        seen = np.flatnonzero(
            (inside[:, 2] > 0.1) & (pixel > 0.0).all(axis=1) & (pixel < SIZE).all(axis=1)
        )
        seen = random.permutation(seen)
        pixels = pixel[seen] + noise_px * random.normal(size=(len(seen), 2))
        pixels = np.concatenate([pixels, random.uniform([0.0, 0.0], SIZE, (clutter, 2))])
        descriptors = np.concatenate([descriptor[seen], unit_descriptors(random, clutter)])
        images.append(MapImage(pixels.astype(np.float32), to_bytes(descriptors)))
        point_of.append(np.concatenate([seen, np.full(clutter, -1)]))
    return images, np.concatenate(point_of)
