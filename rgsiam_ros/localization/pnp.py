"""The pose of a camera from matches between its image and 3D points of the map. Most matches may be wrong.

Three matches give up to four poses. Samples of three are drawn in batches, and their poses are scored against
all matches, until a better pose is unlikely. Cauchy weights then refine the best pose. All random numbers come
from one seed and nothing depends on time: equal input gives equal output.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.localization.three_points import three_point_poses

LOCAL_SCALES = (2.0, 1.0)
GUESS_SCALES = (8.0, 4.0, 2.0, 1.0)
"""Cauchy scales from a pose of three points and from a guess, one after the other, in inlier distances."""
STEPS = 2
"""Gauss-Newton steps with each of these scales."""
GATE = 3.0
"""Matches have no weight above this many of these scales, and above as many inlier distances at the end."""
SCREEN = 64
"""So many matches, chosen at random, decide which poses of a batch are scored against all matches."""
SCREEN_SCALE = 3.0
"""The limit of residuals in this decision, in inlier distances: a pose of three matches is not exact."""
CHUNK = 30_000
"""Residuals of poses that are computed at once. More are slower."""
DAMPING = 1e-9
"""Share of the information's diagonal that is added to it for a step."""
CONVERGED_PX = 5e-3
"""Matches are off by a pixel and more, and the pose that hundreds of them give by a tenth of it."""
TINY = 1e-300


@dataclass(frozen=True)
class PnpOptions:
    """Options of `solve_pnp`."""

    inlier_px: float = 4.0
    """A match counts as inlier if its point projects at most this far from its pixel."""
    most_hypotheses: int = 576
    """Limit on the samples of three matches. Enough for 20 % right matches; 10 % need 4600."""
    batch: int = 512
    """Samples that are scored at once. The first batch is an eighth of it, and is often enough."""
    confidence: float = 0.99
    """The search stops when it would have found a better pose with this probability."""
    refine_iterations: int = 15
    cauchy_px: float = 3.0
    """Scale of the Cauchy weight in the final refinement."""
    seed: int = 0


DEFAULT = PnpOptions()


@dataclass(frozen=True)
class PnpSolution:
    """The pose that most matches agree with. The number of inliers tells how far to believe it."""

    T_map_camera: Array
    """``(4, 4)``, metres."""
    inlier_M: NDArray[np.bool_]
    """Matches within the inlier distance."""
    information_66: Array
    """In the camera's own axes; see `refine_pose`."""
    residual_rms_px: float
    """Root mean square of the inliers' residuals."""
    hypotheses: int
    """Samples of three matches that were scored. 0 if a guess was enough."""


def reprojection_residuals(
    T_map_camera: Array, point_M3: Array, pixel_M2: Array, K: Array
) -> Array:
    """Distances ``(M,)`` between the pixels and the projected points, pixels; inf behind the camera."""
    return np.sqrt(_project(T_map_camera, point_M3, pixel_M2, K)[0])


def refine_pose(
    T_map_camera: Array,
    point_M3: Array,
    pixel_M2: Array,
    K_33: Array,
    *,
    cauchy_px: float = DEFAULT.cauchy_px,
    gate_px: float = GATE * DEFAULT.inlier_px,
    iterations: int = DEFAULT.refine_iterations,
) -> tuple[Array, Array]:
    """Improve a pose by Gauss-Newton steps with Cauchy weights. Returns the pose and its information.

    Matches with a residual of gate_px or more, and points behind the camera, have no weight. A step that
    raises the robust cost is halved, so the result is never worse than the start.

    The information ``(6, 6)`` is the Hessian ``sum(weight J^T J)`` in units of 1 / pixel^2. J is the derivative
    of the projected pixel by a small motion of the camera, in the order ``x y z rotX rotY rotZ``, metres and
    radians, in the *camera's own axes*: ``delta_t = R_map_camera^T (t_estimated - t_true)`` and
    ``delta_theta = R_map_camera^T Log(R_estimated R_true^T)``. The inverse times the variance of a pixel
    coordinate is the covariance of the pose in these axes; `rotate_axes` of `rgsiam_ros.uncertainty.covariance`
    turns it to the map's axes with R_map_camera. As weights are below 1, this covariance is too large: by
    10 to 15 % if the Cauchy scale is three times the noise of a coordinate.
    """
    T = np.array(T_map_camera, np.float64)
    data = (point_M3, pixel_M2, K_33, cauchy_px, gate_px)
    cost, information, step = _linearise(T, *data)
    for _ in range(iterations):
        moved = _moved(T, step)
        at_moved = _linearise(moved, *data)
        if not at_moved[0] <= cost:
            step = 0.5 * step
            continue
        done = step @ information @ step < len(point_M3) * CONVERGED_PX**2
        T, (cost, information, step) = moved, at_moved
        if done:
            break
    return T, information


def _moved(T: Array, step: Array) -> Array:
    """A pose after a small motion in the camera's own axes."""
    moved = T.copy()
    moved[:3, 3] += T[:3, :3] @ step[:3]
    moved[:3, :3] = T[:3, :3] @ cv2.Rodrigues(step[3:])[0]
    return moved


def solve_pnp(
    point_M3: ArrayLike,
    pixel_M2: ArrayLike,
    K_33: ArrayLike,
    *,
    weight_M: ArrayLike | None = None,
    guesses_P44: ArrayLike | None = None,
    options: PnpOptions = DEFAULT,
) -> PnpSolution | None:
    """The pose that most matches agree with. None for fewer than 4 matches, or if no pose is found.

    point_M3: points in the map, metres; pixel_M2: their pixels, undistorted, in OpenCV's convention;
    K_33: the camera matrix; weight_M: how likely each match is right, in any unit, None if all are alike
    (samples are drawn in proportion); guesses_P44: poses ``T_map_camera``, refined and scored before any
    sample. Raises ValueError for non-finite numbers and for shapes that do not fit.
    """
    points = _checked("points", point_M3, (-1, 3))
    pixels = _checked("pixels", pixel_M2, (len(points), 2))
    K = _checked("camera matrix", K_33, (3, 3))
    weights = np.ones(len(points)) if weight_M is None else weight_M
    weight = np.maximum(_checked("weights", weights, (len(points),)), 0.0)
    guesses = np.zeros((0, 4, 4)) if guesses_P44 is None else guesses_P44
    guesses = _checked("guesses", guesses, (-1, 4, 4))
    if len(points) < 4:
        return None
    with np.errstate(all="ignore"):
        shift = np.zeros((4, 4))
        shift[:3, 3] = np.median(points, axis=0)  # a map may lie far from its origin
        matches = (points - shift[:3, 3], pixels, K)
        search = _Search(matches, weight / max(weight.max(), TINY), options)
        best = search.run(guesses - shift)
        if best is None:
            return None
        gate_px, steps = GATE * options.inlier_px, options.refine_iterations
        T, information = refine_pose(
            best, *matches, cauchy_px=options.cauchy_px, gate_px=gate_px, iterations=steps
        )
        residual = reprojection_residuals(T, *matches)
        inlier = residual <= options.inlier_px
        rms = math.sqrt(np.square(residual[inlier]).sum() / max(inlier.sum(), 1))
        return PnpSolution(T + shift, inlier, information, rms, search.scored)


class _Search:
    """The search for the pose with the lowest cost: the sum of squared residuals, each with a limit."""

    def __init__(self, matches: tuple[Array, ...], weight_M: Array, options: PnpOptions) -> None:
        self._matches, self._weight_M, self._options = matches, weight_M, options
        self._random = np.random.default_rng(options.seed)
        self._best: Array | None = None
        self._needed, self.scored = options.most_hypotheses, 0
        point_M3 = matches[0]
        self._cost = len(point_M3) * options.inlier_px**2  # of no pose

    def run(self, guess_P44: Array) -> Array | None:
        """The best pose ``T_map_camera``, or None if there is none."""
        for guess in guess_P44:
            T = guess.copy()
            T[:3, :3] = cv2.Rodrigues(cv2.Rodrigues(guess[:3, :3])[0])[0]  # orthonormal
            self._consider(T, GUESS_SCALES)
        if self._needed:
            self._sample()
        return self._best

    def _sample(self) -> None:
        """Draw samples of three matches and score their poses, until enough are drawn."""
        point_M3, pixel_M2, K = self._matches
        order = self._random.permutation(len(point_M3))
        point_M4 = np.insert(point_M3, 3, 1.0, axis=1)[order]
        # An error times the depth is a product of these factors with two rows of K [R t].
        factor_2M8 = [np.hstack([point_M4, -x[:, None] * point_M4]) for x in pixel_M2[order].T]
        self._factor_2M8 = np.asarray(factor_2M8, np.float32)
        ray_M3 = np.insert(pixel_M2, 2, 1.0, axis=1) @ cv2.invert(K)[1].T
        ray_M3 = ray_M3 / np.linalg.norm(ray_M3, axis=1, keepdims=True)
        end_M = np.cumsum(self._weight_M)  # each match owns an interval as long as its weight
        drawn, size = 0, max(self._options.batch // 8, 1)
        while drawn < self._needed and end_M[-1] > 0.0:
            uniform_3S = self._random.random((3, min(size, self._needed - drawn)))
            drawn, size = drawn + uniform_3S.shape[1], self._options.batch
            sample_3S = np.searchsorted(end_M[:-1], uniform_3S * end_M[-1], side="right")
            corner_33S, ray_33S = (a[sample_3S].transpose(0, 2, 1) for a in (point_M3, ray_M3))
            used, pose_34H = three_point_poses(corner_33S, ray_33S)
            self.scored += used
            rows_34H = (K @ pose_34H.reshape(3, -1)).reshape(pose_34H.shape).astype(np.float32)
            order = np.argsort(self._costs(rows_34H, SCREEN, SCREEN_SCALE), kind="stable")
            kept = order[: 8 + len(order) // 8]
            cost_H = self._costs(rows_34H[..., kept], len(point_M3), 1.0)
            if cost_H.size and cost_H.min() < self._cost:
                R, t = np.split(pose_34H[..., kept[np.argmin(cost_H)]], [3], axis=1)
                T = np.block([[R.T, -R.T @ t], [np.eye(4)[3:]]])
                self._consider(T, ())
                self._consider(T, LOCAL_SCALES)

    def _consider(self, T_map_camera: Array, scales: tuple[float, ...]) -> None:
        """Refine a pose and take it if its cost is the lowest. Then fewer samples may be needed."""
        T, options = T_map_camera, self._options
        point_M3, pixel_M2, K = self._matches
        for px in options.inlier_px * np.repeat(scales, STEPS):
            T = _moved(T, _linearise(T, point_M3, pixel_M2, K, px, GATE * px)[2])
        square_M = _project(T, *self._matches)[0]
        cost = float(np.minimum(square_M, options.inlier_px**2).sum())
        if not cost < self._cost:
            return
        self._best, self._cost = T, cost
        inlier = square_M <= options.inlier_px**2
        if 2 * (inlier.sum() - 3) > len(inlier) - 3:
            self._needed = (
                0  # all poses agree with three matches; no other agrees with more of the rest
            )
            return
        share_M = self._weight_M / max(self._weight_M.sum(), TINY)
        one, two, three = (np.sum(share_M[inlier] ** power) for power in (1, 2, 3))
        chance = one**3 - 3.0 * one * two + 2.0 * three  # that three draws give different inliers
        chance = min(max(chance, 1e-12), 0.999)
        needed = math.ceil(math.log(max(1.0 - options.confidence, TINY)) / math.log1p(-chance))
        self._needed = min(options.most_hypotheses, needed)

    def _costs(self, rows_34H: NDArray[np.float32], count: int, scale: float) -> Array:
        """The costs ``(H,)`` of poses, given the rows of ``K [R t]``, over the first matches."""
        limit = np.float32((scale * self._options.inlier_px) ** 2)
        cost_H = np.zeros(rows_34H.shape[-1])
        size = max(CHUNK // count, 1)
        for part in (slice(i, i + size) for i in range(0, len(cost_H), size)):
            x_4H, y_4H, z_4H = rows_34H[..., part]
            error_x = self._factor_2M8[0, :count] @ np.concatenate([x_4H, z_4H])
            error_y = self._factor_2M8[1, :count] @ np.concatenate([y_4H, z_4H])
            depth = np.maximum(self._factor_2M8[0, :count, :4] @ z_4H, np.float32(0.0))
            # Behind the camera: inf, or NaN, which fmin leaves out.
            square = (error_x * error_x + error_y * error_y) / (depth * depth)
            cost_H[part] = np.fmin(square, limit).sum(axis=0)
        return cost_H


def _project(T: Array, point_M3: Array, pixel_M2: Array, K: Array) -> tuple[Array, ...]:
    """Squared residuals (inf behind the camera), x / z and y / z, 1 / z, and errors ``(2, M)``."""
    x_3M = T[:3, :3].T @ (point_M3 - T[:3, 3]).T
    front_M = x_3M[2] > 0.0
    inverse_depth_M = 1.0 / np.where(front_M, x_3M[2], 1.0)
    slope_2M = x_3M[:2] * inverse_depth_M
    error_2M = K[:2, :2] @ slope_2M + K[:2, 2:] - pixel_M2.T
    square_M = np.where(front_M, error_2M[0] ** 2 + error_2M[1] ** 2, np.inf)
    return square_M, slope_2M, inverse_depth_M, error_2M


def _linearise(
    T: Array, point_M3: Array, pixel_M2: Array, K: Array, cauchy_px: float, gate_px: float
) -> tuple[float, Array, Array]:
    """The robust cost, the information ``(6, 6)``, and the Gauss-Newton step ``(6,)``; see `refine_pose`."""
    square_M, slope_2M, inverse_depth_M, error_2M = _project(T, point_M3, pixel_M2, K)
    share_M = square_M * cauchy_px**-2
    cost = float(np.log1p(np.fmin(share_M, (gate_px / cauchy_px) ** 2)).sum())
    weight_M = (square_M < gate_px**2) / (1.0 + share_M)
    x, y = slope_2M
    J_62M = np.zeros((6, 2, len(x)))  # a point X in the camera moves by -delta_t + X x delta_theta
    J_62M[0, 0] = J_62M[1, 1] = -inverse_depth_M
    J_62M[2] = slope_2M * inverse_depth_M
    J_62M[3, 0] = x * y
    J_62M[3, 1] = y * y + 1.0
    J_62M[4, 0] = -1.0 - x * x
    J_62M[4, 1] = -J_62M[3, 0]
    J_62M[5, 0] = y
    J_62M[5, 1] = -x
    J_62M = K[:2, :2] @ J_62M
    J, weighted = J_62M.reshape(6, -1), (J_62M * weight_M).reshape(6, -1)
    information = weighted @ J.T
    damped = information.copy()
    damped.flat[::7] *= 1.0 + DAMPING
    step = -cv2.solve(damped, weighted @ error_2M.reshape(-1))[1][:, 0]  # 0 if singular
    return cost, information, step  # type: ignore[return-value]


def _checked(what: str, values: ArrayLike, shape: tuple[int, ...]) -> Array:
    """As float64. Raises ValueError for another shape (-1: any length) and for non-finite numbers."""
    array = np.asarray(values, np.float64)
    if len(shape) != array.ndim or any(n not in (-1, m) for n, m in zip(shape, array.shape)):  # noqa: B905
        raise ValueError(f"{what}: the shape is {array.shape}, not {shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{what}: a number is not finite")
    return array
