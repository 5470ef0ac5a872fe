"""The relative branch: poses from map images that look alike, combined with the absolute pose.

Each of the nearest map images gives one hypothesis. They may disagree, because an image can look like
two places; the pose is the robust mean of the hypotheses around the best supported one. A second look
then takes the map images that stand nearest to that pose, for which the motion to be found is small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rgsiam_ros.bundle import Bundle, network_io
from rgsiam_ros.bundle.map_features import MapFeatures
from rgsiam_ros.bundle.parts import AbsolutePart, Target
from rgsiam_ros.bundle.precision import Precision
from rgsiam_ros.engines import Engine
from rgsiam_ros.errors import BundleError
from rgsiam_ros.geometry.poses import Array, pose_errors, rotation_vector
from rgsiam_ros.uncertainty.pose_quality import RefinedQuality

ITERATIONS = 5
LOOKS = 2
AGREE_SHARE = 0.1
LONG_STEP_SHARE = 0.25
LARGEST_STEP_SHARE = 1.5
"""In units of the relative unit's reach, see `Agreement`; chosen on the circuit's validation split."""
ABSOLUTE_VOTE = 0.5
"""Weight of the absolute branch's vote for a hypothesis; that of all neighbours together is 1."""


@dataclass(frozen=True)
class Agreement:
    """Lengths by which hypotheses are judged."""

    agree_m: float
    """Hypotheses this far apart still support each other."""
    absolute_m: float
    """How far off the absolute branch usually is, its rotation counted in."""
    metres_per_radian: float
    """Exchange rate between rotation and translation in the distance of two poses."""
    long_step_m: float
    """A motion of this length is known half as well as a short one: depths are never exact."""
    largest_step_m: float
    """A live image farther than this from its map image is no answer."""


@dataclass(frozen=True)
class Combined:
    """The robust mean of hypotheses."""

    T_map_camera: Array
    """``(4, 4)``, metres."""
    support: float
    """Share of the hypotheses' weight that agrees with it, 0..1."""
    spread_m: float
    """See `rgsiam_ros.uncertainty.pose_quality.RefinedQuality`."""
    sigma_m: float = float("nan")
    """See `rgsiam_ros.uncertainty.pose_quality.RefinedQuality`; where the relative unit's information is known."""


@dataclass(frozen=True)
class Looked:
    """The outcome of all looks."""

    combined: Combined
    nearest_m: float
    """See `rgsiam_ros.uncertainty.pose_quality.RefinedQuality`."""
    change_m: float


def position_sigma(information_K66: ArrayLike) -> Array:
    """How loosely each hypothesis holds its position ``(K,)``, in the information's own units."""
    information = np.asarray(information_K66, np.float64)
    scale = np.trace(information, axis1=1, axis2=2)[:, None, None] / 6.0 + 1e-12
    regular = information + 1e-6 * scale * np.eye(6)
    covariance = np.linalg.inv(regular)
    return np.sqrt(np.trace(covariance[:, :3, :3], axis1=1, axis2=2))


def combine(
    T_map_camera_K44: Array,
    weight_K: ArrayLike,
    T_map_camera_absolute: Array,
    agreement: Agreement,
) -> Combined | None:
    """Robust mean of the hypotheses, or None where there is none with a weight.

    T_map_camera_K44: one pose from each neighbour; weight_K: not negative. The hypothesis to start
    from is the one that the others, and the absolute branch, support most; then poses are averaged
    (positions linearly, rotations on SO(3)) with Cauchy weights of the distance to the mean.
    """
    weight = np.asarray(weight_K, np.float64)
    if not len(weight) or weight.max() <= 0.0:
        return None
    weight = weight / weight.sum()

    def distance(T: Array) -> tuple[Array, Array]:
        """Of each hypothesis to poses ``(..., 4, 4)``, and the turn from there, radians."""
        metres = np.linalg.norm(T_map_camera_K44[:, :3, 3] - T[..., :3, 3], axis=-1)
        turn = rotation_vector(T_map_camera_K44[:, :3, :3] @ np.swapaxes(T[..., :3, :3], -1, -2))
        return metres + agreement.metres_per_radian * np.linalg.norm(turn, axis=-1), turn

    apart, _ = distance(T_map_camera_K44[:, None])
    support = np.exp(-0.5 * (apart / agreement.agree_m) ** 2) @ weight
    from_absolute, _ = distance(T_map_camera_absolute)
    vote = np.exp(-0.5 * (from_absolute / agreement.absolute_m) ** 2)
    mean = T_map_camera_K44[np.argmax(np.where(weight > 0.0, support + ABSOLUTE_VOTE * vote, -1.0))]
    away, turn = distance(mean)
    for _ in range(ITERATIONS):
        robust = weight / (1.0 + (away / agreement.agree_m) ** 2)
        robust = robust / robust.sum()
        updated = mean.copy()
        updated[:3, :3] = cv2.Rodrigues(robust @ turn)[0] @ mean[:3, :3]
        updated[:3, 3] = robust @ T_map_camera_K44[:, :3, 3]
        mean = updated
        away, turn = distance(mean)
    agreeing = np.exp(-0.5 * (away / agreement.agree_m) ** 2)
    robust = weight / (1.0 + (away / agreement.agree_m) ** 2)
    square = np.sum((T_map_camera_K44[:, :3, 3] - mean[:3, 3]) ** 2, axis=1)
    spread_m = np.sqrt(robust @ square / robust.sum())
    return Combined(mean, float(weight @ agreeing), float(spread_m))


class Refiner:
    """The relative branch of a bundle, ready to answer."""

    def __init__(self, bundle: Bundle, engine: Engine, precision: Precision = "float32") -> None:
        """engine: over the bundle's ``relative.onnx``; precision: of the absolute branch, whose
        features are only ever compared with the map's in the same precision. Raises BundleError.
        """
        part = bundle.manifest.absolute_part
        self._target = part.target
        self._engine = engine
        self._agreement = agreement_of(part, precision)
        self._map = bundle.map_features(precision)

    def refine(
        self,
        outputs: Mapping[str, np.ndarray],
        T_absolute: Array,
        nearest_K: NDArray[np.int64],
        allowed: NDArray[np.int64] | None = None,
    ) -> tuple[Array, RefinedQuality] | None:
        """Refined ``T_map_camera``, and how it stands to its sources.

        outputs: of ``absolute.onnx`` for one image; T_absolute: the pose among them; nearest_K: the map
        images that are most like it; allowed: map images that may be used. None where no neighbour gives a pose. Raises EngineError.
        """
        local_1CHW = outputs[network_io.LOCAL_MAP]

        def relate(nearest_K: NDArray[np.int64]) -> Mapping[str, np.ndarray]:
            map_local = self._map.local_NCHW[nearest_K].astype(np.float32)
            return self._engine.infer(
                {network_io.MAP_LOCAL: map_local, network_io.LOCAL_MAP: local_1CHW}
            )

        looked = look(
            relate,
            self._map,
            nearest_K,
            T_absolute,
            self._target,
            self._agreement,
            allowed,
        )
        if looked is None:
            return None
        combined = looked.combined
        metres, radians = pose_errors(combined.T_map_camera, T_absolute)
        disagreement = RefinedQuality(
            absolute_m=float(metres),
            absolute_rad=float(radians),
            support=combined.support,
            spread_m=combined.spread_m,
            sigma_m=combined.sigma_m,
            nearest_m=looked.nearest_m,
            change_m=looked.change_m,
        )
        return combined.T_map_camera, disagreement


def agreement_of(part: AbsolutePart, precision: Precision = "float32") -> Agreement:
    """The lengths by which a bundle's hypotheses are judged in this precision.

    Raises BundleError for a bundle without a relative branch.
    """
    if part.refinement is None:
        raise BundleError("the bundle has no relative branch: export a run with relative_pose on")
    absolute = part.variants[precision].absolute.validation
    return make_agreement(
        part.refinement.reach_m,
        part.refinement.metres_per_radian,
        absolute.median_m,
        absolute.median_deg,
    )


def make_agreement(
    reach_m: float, metres_per_radian: float, absolute_m: float, absolute_deg: float
) -> Agreement:
    """From the reach of the relative unit and the absolute branch's median errors on validation."""
    absolute = absolute_m + metres_per_radian * np.radians(absolute_deg)
    return Agreement(
        agree_m=AGREE_SHARE * reach_m,
        absolute_m=2.0 * absolute + AGREE_SHARE * reach_m,
        metres_per_radian=metres_per_radian,
        long_step_m=LONG_STEP_SHARE * reach_m,
        largest_step_m=LARGEST_STEP_SHARE * reach_m,
    )


def look(
    relate: Callable[[NDArray[np.int64]], Mapping[str, np.ndarray]],
    features: MapFeatures,
    nearest_K: NDArray[np.int64],
    T_absolute: Array,
    target: Target,
    agreement: Agreement,
    allowed: NDArray[np.int64] | None = None,
) -> Looked | None:
    """The refined pose of one image: a look at what is alike, then one at what is near.

    relate: the answers of ``relative.onnx`` for these map images, see `rgsiam_ros.bundle.network_io`;
    nearest_K: indices of the map images that are most like it; allowed: indices of the map images that may be
    used, None for all. None where no neighbour gives a pose.
    """
    nearest = nearest_K
    exchange = agreement.metres_per_radian
    looked = None
    for _ in range(LOOKS):
        T_map_neighbour = features.T_map_camera_N44[nearest]
        found = hypotheses_together(relate(nearest), T_map_neighbour, T_absolute, target, agreement)
        if found is None:
            break
        position = found.T_map_camera[:3, 3]
        nearest_m = np.linalg.norm(T_map_neighbour[:, :3, 3] - position, axis=1).min()
        before = found if looked is None else looked.combined
        metres, radians = pose_errors(found.T_map_camera, before.T_map_camera)
        looked = Looked(found, float(nearest_m), float(metres + exchange * radians))
        nearest = features.near(found.T_map_camera, len(nearest_K), exchange, allowed)
    return looked


def hypotheses_together(
    relative: Mapping[str, np.ndarray],
    T_map_neighbour_K44: Array,
    T_absolute: Array,
    target: Target,
    agreement: Agreement,
) -> Combined | None:
    """The pose that ``relative.onnx``'s answers for K neighbours make together; see `combine`.

    A hypothesis weighs ``1 / (sigma^2 (1 + (step / long_step)^2))``, and one whose numbers are no pose
    does not count.
    """
    numbers = [np.reshape(v, (len(T_map_neighbour_K44), -1)) for v in relative.values()]
    usable = np.isfinite(np.concatenate(numbers, axis=1)).all(axis=1)
    usable &= np.linalg.norm(relative[network_io.ROTATION], axis=1) > network_io.SMALLEST_QUATERNION
    if not usable.any():
        return None
    relative = {name: value[usable] for name, value in relative.items()}
    T_map_neighbour_K44 = T_map_neighbour_K44[usable]
    T_neighbour_camera = network_io.restore_relative_poses(
        relative[network_io.TRANSLATION], relative[network_io.ROTATION], target
    )
    step_m = np.linalg.norm(T_neighbour_camera[:, :3, 3], axis=1)
    variance = position_sigma(relative[network_io.INFORMATION]) ** 2
    weight = 1.0 / (variance * (1.0 + (step_m / agreement.long_step_m) ** 2))
    weight = np.where(step_m <= agreement.largest_step_m, weight, 0.0)
    found = combine(T_map_neighbour_K44 @ T_neighbour_camera, weight, T_absolute, agreement)
    if found is None:
        return None
    return replace(found, sigma_m=float(target.scale_m / np.sqrt((1.0 / variance).sum())))
