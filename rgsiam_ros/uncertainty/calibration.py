"""Predict a covariance and a trust score for one pose, from the figures of `PoseQuality`.

`rgsiam_training.export.calibrate` fits a calibration on frames that were held out from training.

- Covariance, in the camera's axes: the logarithm of each standard deviation is linear in a few predictors.
  The correlations between the axes are constant.
- Trust: a logistic score over other predictors, minus a threshold. The vehicle is lost if the result is
  negative. The threshold was chosen for a stated false-accept rate.

The paper (arXiv 1901.01049) specifies neither of them; both models are our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.uncertainty.covariance import MINIMUM_SIGMA_M, MINIMUM_SIGMA_RAD, check_covariance
from rgsiam_ros.uncertainty.pose_quality import PoseQuality, RefinedQuality

Branch = Literal["absolute", "refined"]
BRANCHES: tuple[Branch, ...] = ("absolute", "refined")
VERSION = 1
LARGEST_PREDICTOR = 3.0
"""Predictors are clipped to this many standard deviations of what calibration saw. A sigma that is
extrapolated further is meaningless."""
LARGEST_SIGMA_M, LARGEST_SIGMA_RAD = 1e3, np.pi

SIGMA_PREDICTORS: dict[Branch, tuple[str, ...]] = {
    "absolute": ("raw",),
    "refined": ("nearest", "information", "spread", "raw"),
}
"""What each standard deviation is predicted from. All are logarithms of figures of `PoseQuality`:

- ``raw``: the standard deviation that the network itself predicts for the same axis;
- ``nearest``: the distance of the nearest map image;
- ``information``: the standard deviation that the relative unit's information implies;
- ``spread``: the spread of the hypotheses.

They were chosen by their likelihood on held-out stretches, see docs/covariance.md."""
TRUST_PREDICTORS: dict[Branch, tuple[str, ...]] = {
    "absolute": ("feature", "last_feature", "sigma_m", "sigma_rad"),
    "refined": ("feature", "apart", "support", "change", "information", "spread"),
}
"""What trust is predicted from. All but ``support`` are logarithms:

- ``feature``, ``last_feature``: distance of the metric feature to that of the most and of the least similar
  neighbour;
- ``sigma_m``, ``sigma_rad``: the predicted standard deviations of position and rotation;
- ``apart``: the distance between the poses of the two branches;
- ``support``: the share of the hypotheses' weight that agrees with the refined pose;
- ``change``: the distance between the first and the second estimate of the refined pose;
- ``information``, ``spread``: as in `SIGMA_PREDICTORS`."""


@dataclass(frozen=True)
class LengthScale:
    """Lengths that scale the predictors, so that one calibration model suits a room and a city."""

    reach_m: float = 1.0
    """Largest distance between two cameras for which the relative unit was trained."""
    metres_per_radian: float = 1.0
    """Metres that count as much as a rotation by one radian."""


@dataclass(frozen=True)
class BranchCalibration:
    """The fitted numbers of one branch: F predictors of sigma, G predictors of trust."""

    sigma_offset_6: Array
    sigma_weight_6F: Array
    sigma_mean_6F: Array
    sigma_scale_6F: Array
    correlation_66: Array
    trust_offset: float
    trust_weight_G: Array
    trust_mean_G: Array
    trust_scale_G: Array
    threshold: float

    def sigmas(self, predictor_6F: Array) -> Array:
        """Standard deviations ``(6,)`` in the camera's axes, metres and radians."""
        z = (predictor_6F - self.sigma_mean_6F) / self.sigma_scale_6F
        z = np.clip(z, -LARGEST_PREDICTOR, LARGEST_PREDICTOR)
        sigma = np.exp(self.sigma_offset_6 + (self.sigma_weight_6F * z).sum(axis=1))
        least = np.repeat([MINIMUM_SIGMA_M, MINIMUM_SIGMA_RAD], 3)
        most = np.repeat([LARGEST_SIGMA_M, LARGEST_SIGMA_RAD], 3)
        return np.clip(sigma, least, most)

    def trust(self, predictor_G: Array) -> float:
        """Score minus threshold. The pose is trusted if the result is at least 0."""
        z = (predictor_G - self.trust_mean_G) / self.trust_scale_G
        return float(self.trust_offset + self.trust_weight_G @ z - self.threshold)


@dataclass(frozen=True)
class Calibration:
    """The calibration of a bundle in one precision."""

    branches: Mapping[Branch, BranchCalibration]

    def covariance_and_trust(
        self, branch: Branch, quality: PoseQuality, length_scale: LengthScale
    ) -> tuple[Array, float]:
        """Covariance ``(6, 6)`` in the camera's axes, order x y z rotX rotY rotZ, and the trust score."""
        part = self.branches[branch]
        sigma = part.sigmas(sigma_predictors(branch, quality, length_scale))
        trust = part.trust(trust_predictors(branch, quality, sigma, length_scale))
        return part.correlation_66 * np.outer(sigma, sigma), trust

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> Calibration:
        """Read the arrays of ``calibration.PRECISION.npz``. Raises ValueError, which says what is wrong."""
        if "version" not in arrays or int(arrays["version"]) != VERSION:
            raise ValueError(f"this release reads calibrations of version {VERSION} only")
        found: dict[Branch, BranchCalibration] = {}
        for branch in BRANCHES:
            if f"{branch}_threshold" in arrays:
                found[branch] = _branch_from(arrays, branch)
        if "absolute" not in found:
            raise ValueError("the absolute branch's calibration is missing")
        return cls(found)

    def to_arrays(self) -> dict[str, NDArray]:
        """The arrays to store."""
        arrays: dict[str, NDArray] = {"version": np.array(VERSION)}
        for branch, part in self.branches.items():
            for name, value in vars(part).items():
                arrays[f"{branch}_{name}"] = np.asarray(value, np.float64)
        return arrays


def sigma_predictors(branch: Branch, quality: PoseQuality, length_scale: LengthScale) -> Array:
    """Predictors of the standard deviations, ``(6, F)``: one row for each axis."""
    raw = np.ones(6) if quality.raw_sigma_6 is None else np.asarray(quality.raw_sigma_6)
    columns = {"raw": np.log(np.maximum(raw, 1e-9))}
    if branch == "refined":
        refined = _refined_quality(quality)
        shared = {
            "nearest": np.log(refined.nearest_m / length_scale.reach_m + 0.02),
            "information": _information(refined, length_scale),
            "spread": _spread(refined, length_scale),
        }
        columns |= {name: np.full(6, value) for name, value in shared.items()}
    return np.stack([columns[name] for name in SIGMA_PREDICTORS[branch]], axis=1)


def trust_predictors(
    branch: Branch, quality: PoseQuality, sigma_6: Array, length_scale: LengthScale
) -> Array:
    """Predictors of trust, ``(G,)``. sigma_6: the predicted standard deviations."""
    values = {
        "feature": np.log(quality.feature_distance + 0.02),
        "last_feature": np.log(quality.last_feature_distance + 0.02),
        "sigma_m": np.log(np.linalg.norm(sigma_6[:3])),
        "sigma_rad": np.log(np.linalg.norm(sigma_6[3:])),
    }
    if branch == "refined":
        refined = _refined_quality(quality)
        apart = refined.absolute_m + length_scale.metres_per_radian * refined.absolute_rad
        values |= {
            "apart": np.log(apart / length_scale.reach_m + 0.05),
            "support": refined.support,
            "change": np.log(refined.change_m / length_scale.reach_m + 0.003),
            "information": _information(refined, length_scale),
            "spread": _spread(refined, length_scale),
        }
    return np.array([values[name] for name in TRUST_PREDICTORS[branch]], np.float64)


def _information(refined: RefinedQuality, length_scale: LengthScale) -> float:
    return float(np.log(refined.sigma_m / length_scale.reach_m + 1e-9))


def _spread(refined: RefinedQuality, length_scale: LengthScale) -> float:
    return float(np.log(refined.spread_m / length_scale.reach_m + 0.003))


def _refined_quality(quality: PoseQuality) -> RefinedQuality:
    if quality.refined_quality is None:
        raise ValueError("the quality figures of a refined pose are missing")
    return quality.refined_quality


def _branch_from(arrays: Mapping[str, NDArray], branch: Branch) -> BranchCalibration:
    F, G = len(SIGMA_PREDICTORS[branch]), len(TRUST_PREDICTORS[branch])
    shapes: dict[str, tuple[int, ...]] = {
        "sigma_offset_6": (6,),
        "sigma_weight_6F": (6, F),
        "sigma_mean_6F": (6, F),
        "sigma_scale_6F": (6, F),
        "correlation_66": (6, 6),
        "trust_offset": (),
        "trust_weight_G": (G,),
        "trust_mean_G": (G,),
        "trust_scale_G": (G,),
        "threshold": (),
    }
    values: dict[str, NDArray] = {}
    for name, shape in shapes.items():
        stored = arrays.get(f"{branch}_{name}")
        if stored is None or stored.shape != shape:
            found = "missing" if stored is None else f"of shape {stored.shape}"
            raise ValueError(f"array '{branch}_{name}' is {found}, not of shape {shape}")
        values[name] = stored.astype(np.float64)
    for name in ("sigma_scale_6F", "trust_scale_G"):
        if (values[name] <= 0.0).any():
            raise ValueError(f"array '{branch}_{name}' holds a scale that is not positive")
    try:
        correlation = check_covariance(values["correlation_66"])
    except ValueError as error:
        raise ValueError(f"array '{branch}_correlation_66': {error}") from error
    if np.abs(np.diag(correlation) - 1.0).max() > 1e-6:
        raise ValueError(
            f"array '{branch}_correlation_66' is no correlation: its diagonal is not 1"
        )
    scalars = {name: float(values[name]) for name in ("trust_offset", "threshold")}
    return BranchCalibration(**{**values, **scalars})  # type: ignore[arg-type]
