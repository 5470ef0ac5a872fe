"""Poses and pairs as tensors. Needs torch."""

import math

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from rgsiam_training.model.poses import PairTruth, Poses

IDENTITY = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
REACH, WIDEST = 2.0, math.radians(60.0)


def unit(count, seed=0):
    q = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(q, dim=1)


def poses(count, seed=0):
    t = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed + 100))
    return Poses(t, unit(count, seed))


def near_pair(count=6, seed=0):
    """True poses of pairs with a common view: they differ by a short distance and a small rotation."""
    first = poses(count, seed)
    turn = Rotation.from_rotvec(0.2 * np.random.default_rng(seed).normal(size=(count, 3)))
    q = Rotation.from_quat(first.quaternion_wxyz_B4.numpy(), scalar_first=True) * turn
    second = Poses(
        first.translation_B3 + 0.3 * poses(count, seed + 1).translation_B3,
        torch.from_numpy(q.as_quat(scalar_first=True).astype(np.float32)),
    )
    return PairTruth(first, second)


def negated(poses_):
    """The same rotations with negated quaternions."""
    return Poses(poses_.translation_B3, -poses_.quaternion_wxyz_B4)
