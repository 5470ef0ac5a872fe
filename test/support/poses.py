"""Random poses."""

import numpy as np
from scipy.spatial.transform import Rotation


def random_poses(count, seed=0, scale_m=5.0):
    """``(N, 4, 4)`` random poses."""
    random = np.random.default_rng(seed)
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = Rotation.random(count, random_state=seed).as_matrix()
    T[:, :3, 3] = random.normal(0.0, scale_m, (count, 3))
    return T
