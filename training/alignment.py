"""Rigid motion from matched rays and depths: Gauss-Newton written out, so that it exports to ONNX.

Only additions, products, divisions and gathers: no `linalg` node, no cross product, no branch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEAREST = 0.02
"""Points nearer to the image plane than this do not count, in the unit of the points."""
LARGEST_STEP = 1.0
"""Longest step of one iteration: the norm of (translation in the unit of the points, radians)."""
SCHEDULE = (4.0, 2.0)
"""Width of the robust kernel in the first iterations, in cells; 1 afterwards."""
DAMPING = 1e-3


@dataclass(frozen=True)
class Alignment:
    """``T_2_1``, which takes points of camera 1 to camera 2, and how firmly it is held."""

    translation_B3: Tensor
    quaternion_wxyz_B4: Tensor
    information_B66: Tensor
    """Of a small motion of camera 2 in its own axes, order x y z rotX rotY rotZ, before any scale of
    the noise: residuals are in cells."""


def align(
    point_BN3: Tensor, ray_BN2: Tensor, weight_BN: Tensor, cell: float, iterations: int
) -> Alignment:
    """The motion that brings points of camera 1 onto the rays at which camera 2 sees them.

    Minimises ``sum_i w_i rho(|pi(R x_i + t) - u_i| / cell)`` with ``pi(x, y, z) = (x/z, y/z)`` and
    Cauchy's kernel ``rho``, from the identity, by damped Gauss-Newton steps on SE(3).

    point_BN3: in any unit, z forward; ray_BN2: normalised image coordinates ``(x/z, y/z)``;
    weight_BN: 0..1; cell: distance of neighbouring cells in normalised image coordinates.
    """
    batch = len(point_BN3)
    q_B4 = point_BN3.new_tensor([1.0, 0.0, 0.0, 0.0]).expand(batch, 4)
    t_B3 = point_BN3.new_zeros(1, 3).expand(batch, 3)
    information = point_BN3.new_zeros(1, 6, 6).expand(batch, 6, 6)
    for iteration in range(iterations):
        width = SCHEDULE[iteration] if iteration < len(SCHEDULE) else 1.0
        moved = point_BN3 @ rotation_matrix(q_B4).transpose(1, 2) + t_B3[:, None]
        residual_BN2, J_BN26 = _linearise(moved, ray_BN2)
        in_cells = residual_BN2.square().sum(dim=2) / cell**2
        in_front = (moved[..., 2] > NEAREST).to(moved.dtype)
        w_BN = weight_BN * in_front / (1.0 + in_cells / width**2)
        weighted = J_BN26 * (w_BN / cell**2)[..., None, None]
        J_flat = J_BN26.flatten(1, 2)
        information = weighted.flatten(1, 2).transpose(1, 2) @ J_flat
        gradient = (weighted * residual_BN2[..., None]).sum(dim=(1, 2))
        trace = information.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
        eye = torch.eye(6, dtype=moved.dtype, device=moved.device)
        step = -solve_spd(information + eye * (DAMPING * trace + 1e-6), gradient)
        length = (step.square().sum(dim=1, keepdim=True) + 1e-12).sqrt()
        step = step * (LARGEST_STEP / length).clamp(max=1.0)
        turn_B4 = _small_turn(step[:, 3:])
        t_B3 = (rotation_matrix(turn_B4) @ t_B3[..., None])[..., 0] + step[:, :3]
        q_B4 = multiply_wxyz(turn_B4, q_B4)
    return Alignment(t_B3, q_B4, information)


def solve_spd(A_BNN: Tensor, b_BN: Tensor) -> Tensor:
    """``x`` of ``A x = b`` for symmetric positive definite A, by Gauss-Jordan without pivoting."""
    size = A_BNN.shape[-1]
    eye = torch.eye(size, dtype=A_BNN.dtype, device=A_BNN.device)
    M = torch.cat([A_BNN, b_BN[..., None]], dim=2)
    for k in range(size):
        row = M[:, k : k + 1] / M[:, k : k + 1, k : k + 1]
        M = M - (M[:, :, k : k + 1] - eye[:, k : k + 1]) * row
    return M[..., -1]


def rotation_matrix(quaternion_wxyz_B4: Tensor) -> Tensor:
    """``(B, 3, 3)`` matrices of unit quaternions wxyz."""
    w, x, y, z = quaternion_wxyz_B4.unbind(dim=1)
    entries = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=1) for row in entries], dim=1)


def multiply_wxyz(first_B4: Tensor, second_B4: Tensor) -> Tensor:
    """Hamilton product of quaternions wxyz: the rotation `second`, then `first`."""
    a, b, c, d = first_B4.unbind(dim=1)
    w, x, y, z = second_B4.unbind(dim=1)
    product = (
        a * w - b * x - c * y - d * z,
        a * x + b * w + c * z - d * y,
        a * y - b * z + c * w + d * x,
        a * z + b * y - c * x + d * w,
    )
    return torch.stack(product, dim=1)


def _linearise(point_BN3: Tensor, ray_BN2: Tensor) -> tuple[Tensor, Tensor]:
    """Residuals, and their derivative by a motion (v, omega) of the points: ``x + omega x x + v``."""
    inverse_z = 1.0 / point_BN3[..., 2].clamp(min=NEAREST)
    x, y = point_BN3[..., 0] * inverse_z, point_BN3[..., 1] * inverse_z
    zero = torch.zeros_like(x)
    by_x = (inverse_z, zero, -x * inverse_z, -x * y, 1.0 + x * x, -y)
    by_y = (zero, inverse_z, -y * inverse_z, -1.0 - y * y, x * y, x)
    J = torch.stack([torch.stack(by_x, dim=-1), torch.stack(by_y, dim=-1)], dim=2)
    return torch.stack([x, y], dim=-1) - ray_BN2, J


def _small_turn(omega_B3: Tensor) -> Tensor:
    """Unit quaternion wxyz of a small rotation vector: ``(1, omega / 2)`` made unit."""
    half = 0.5 * omega_B3
    scale = torch.rsqrt(1.0 + half.square().sum(dim=1, keepdim=True))
    return torch.cat([scale, half * scale], dim=1)
