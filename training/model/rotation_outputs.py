"""Conversion of the network's rotation outputs to unit quaternions wxyz, in operations that export to ONNX.

The functions compute the same as roma's, but without branches and cross products: a `linalg_cross` node
splits a TensorRT graph.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from rgsiam_training.config import RotationOutput

IDENTITY: dict[RotationOutput, tuple[float, ...]] = {
    "quaternion": (1.0, 0.0, 0.0, 0.0),
    "log_quaternion": (0.0, 0.0, 0.0),
    "6d": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
}
"""The raw outputs that represent the identity rotation."""


def unit_quaternion_wxyz(raw: Tensor, output: RotationOutput) -> Tensor:
    """Convert raw outputs ``(B, 4)``, ``(B, 3)`` or ``(B, 6)`` to unit quaternions wxyz ``(B, 4)``.

    ``quaternion``: a quaternion wxyz of any length; ``log_quaternion``: half the rotation vector; ``6d``: the
    first two columns of the rotation matrix before orthonormalisation (Zhou et al. 2019, arXiv 1812.07035).
    """
    if output == "quaternion":
        return F.normalize(raw, dim=1)
    if output == "log_quaternion":
        return _exponential(raw)
    return _from_matrix(*_gram_schmidt(raw[:, :3], raw[:, 3:]))


def _exponential(half_vector_B3: Tensor) -> Tensor:
    half_angle = (half_vector_B3.square().sum(dim=1, keepdim=True) + 1e-12).sqrt()
    return F.normalize(
        torch.cat([half_angle.cos(), half_vector_B3 * (half_angle.sin() / half_angle)], dim=1)
    )


def _gram_schmidt(first_B3: Tensor, second_B3: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = F.normalize(first_B3, dim=1)
    y = F.normalize(second_B3 - (x * second_B3).sum(dim=1, keepdim=True) * x, dim=1)
    (a, b, c), (d, e, f) = x.unbind(dim=1), y.unbind(dim=1)
    return x, y, torch.stack([b * f - c * e, c * d - a * f, a * e - b * d], dim=1)


def _from_matrix(x_B3: Tensor, y_B3: Tensor, z_B3: Tensor) -> Tensor:
    """Return the quaternions wxyz of the rotation matrices with these columns.

    Four formulas give the same quaternion up to its length. The longest result is the best conditioned one.
    """
    (xx, yx, zx), (xy, yy, zy), (xz, yz, zz) = (c.unbind(dim=1) for c in (x_B3, y_B3, z_B3))
    by_w = torch.stack([1 + xx + yy + zz, zy - yz, xz - zx, yx - xy], dim=1)
    by_x = torch.stack([zy - yz, 1 + xx - yy - zz, xy + yx, xz + zx], dim=1)
    by_y = torch.stack([xz - zx, xy + yx, 1 - xx + yy - zz, yz + zy], dim=1)
    by_z = torch.stack([yx - xy, xz + zx, yz + zy, 1 - xx - yy + zz], dim=1)
    candidates = torch.stack([by_w, by_x, by_y, by_z], dim=1)
    best = candidates.square().sum(dim=2).argmax(dim=1).reshape(-1, 1, 1).expand(-1, 1, 4)
    return F.normalize(candidates.gather(1, best)[:, 0], dim=1)
