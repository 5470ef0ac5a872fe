"""Rigid motion from matched rays and depths: Gauss-Newton written out, so that it exports to ONNX.

Only additions, products, divisions and gathers: no `linalg` node, no cross product, no branch.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    point_B3N, ray_B2N = point_BN3.transpose(1, 2), ray_BN2.transpose(1, 2)
    weight_B1N = weight_BN[:, None]
    q_B4 = point_BN3.new_tensor([1.0, 0.0, 0.0, 0.0]).expand(batch, 4)
    t_B31 = point_BN3.new_zeros(1, 3, 1).expand(batch, 3, 1)
    information = point_BN3.new_zeros(1, 6, 6).expand(batch, 6, 6)
    eye = torch.eye(6, dtype=point_BN3.dtype, device=point_BN3.device)
    for iteration in range(iterations):
        width = SCHEDULE[iteration] if iteration < len(SCHEDULE) else 1.0
        moved = rotation_matrix(q_B4) @ point_B3N + t_B31
        J_x, J_y = _linearise(moved, ray_B2N)
        in_cells = (J_x[:, 6:].square() + J_y[:, 6:].square()) / cell**2
        in_front = (moved[:, 2:] > NEAREST).to(moved.dtype)
        w_B1N = weight_B1N * in_front / (cell**2 + in_cells * (cell / width) ** 2)
        normal_x, normal_y = ((J[:, :6] * w_B1N) @ J.transpose(1, 2) for J in (J_x, J_y))
        normal = normal_x + normal_y
        information = normal[..., :6]
        mean = (information * eye).sum(dim=(1, 2), keepdim=True) / 6.0
        step = -solve_spd(information + eye * (DAMPING * mean + 1e-6), normal[..., 6])
        length = (step.square().sum(dim=1, keepdim=True) + 1e-12).sqrt()
        step = step * (LARGEST_STEP / length).clamp(max=1.0)
        turn_B4 = _small_turn(step[:, 3:])
        t_B31 = rotation_matrix(turn_B4) @ t_B31 + step[:, :3, None]
        q_B4 = multiply_wxyz(turn_B4, q_B4)
    return Alignment(t_B31[..., 0], q_B4, information)


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
    products = _products(quaternion_wxyz_B4, quaternion_wxyz_B4)
    return (products @ _ROTATION.to(products)).reshape(-1, 3, 3)


def multiply_wxyz(first_B4: Tensor, second_B4: Tensor) -> Tensor:
    """Hamilton product of quaternions wxyz: the rotation `second`, then `first`."""
    products = _products(first_B4, second_B4)
    return products @ _HAMILTON.to(products)


def _linearise(point_B3N: Tensor, ray_B2N: Tensor) -> tuple[Tensor, Tensor]:
    """``(B, 7, N)`` for x and for y: the derivative of the seen place by a motion (v, omega) of the
    points, ``x + omega x x + v``, and as last row the residual.

    With ``(x, y)`` the seen place and ``d = 1/z`` the derivative is ::

        [d  0  -x d  -x y    1+x^2  -y]
        [0  d  -y d  -1-y^2  x y     x]

    Points stand in the last dimension: engines run over long rows much faster than over short ones.
    """
    inverse_z = 1.0 / point_B3N[:, 2:].clamp(min=NEAREST)
    seen = point_B3N[:, :2] * inverse_z
    terms = torch.cat([torch.ones_like(inverse_z), seen, inverse_z], dim=1)
    products = (terms[:, :, None] * terms[:, None]).flatten(1, 2)
    J_x, J_y = (_DERIVATIVE.to(products).T @ products).chunk(2, dim=1)
    residual = seen - ray_B2N
    return torch.cat([J_x, residual[:, :1]], dim=1), torch.cat([J_y, residual[:, 1:]], dim=1)


def _small_turn(omega_B3: Tensor) -> Tensor:
    """Unit quaternion wxyz of a small rotation vector: ``(1, omega / 2)`` made unit."""
    half = 0.5 * omega_B3
    scale = torch.rsqrt(1.0 + half.square().sum(dim=1, keepdim=True))
    return torch.cat([scale, half * scale], dim=1)


def _products(first: Tensor, second: Tensor) -> Tensor:
    """All products of four numbers with four others, ``(..., 16)``.

    Quaternion products and rotation matrices are linear in them, as is the derivative in those of its
    terms (`_linearise`, whose points stand last): one matrix product instead of dozens of small nodes,
    which an engine would start one by one.
    """
    return (first[..., :, None] * second[..., None, :]).flatten(-2)


def _coefficients(*rows: Mapping[str, float]) -> Tensor:
    """``(16, len(rows))`` coefficients of the products in each result; "02" is of numbers 0 and 2."""
    matrix = torch.zeros(16, len(rows), dtype=torch.float64)
    for column, row in enumerate(rows):
        for pair, factor in row.items():
            matrix[4 * int(pair[0]) + int(pair[1]), column] = factor
    return matrix


_HAMILTON = _coefficients(
    {"00": 1.0, "11": -1.0, "22": -1.0, "33": -1.0},
    {"01": 1.0, "10": 1.0, "23": 1.0, "32": -1.0},
    {"02": 1.0, "13": -1.0, "20": 1.0, "31": 1.0},
    {"03": 1.0, "12": 1.0, "21": -1.0, "30": 1.0},
)
_ROTATION = _coefficients(
    {"00": 1.0, "11": 1.0, "22": -1.0, "33": -1.0},
    {"12": 2.0, "03": -2.0},
    {"13": 2.0, "02": 2.0},
    {"12": 2.0, "03": 2.0},
    {"00": 1.0, "11": -1.0, "22": 1.0, "33": -1.0},
    {"23": 2.0, "01": -2.0},
    {"13": 2.0, "02": -2.0},
    {"23": 2.0, "01": 2.0},
    {"00": 1.0, "11": -1.0, "22": -1.0, "33": 1.0},
)
_DERIVATIVE = _coefficients(
    {"03": 1.0},
    {},
    {"13": -1.0},
    {"12": -1.0},
    {"00": 1.0, "11": 1.0},
    {"02": -1.0},
    {},
    {"03": 1.0},
    {"23": -1.0},
    {"00": -1.0, "22": -1.0},
    {"12": 1.0},
    {"01": 1.0},
)
