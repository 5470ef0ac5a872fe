"""From what one answer says about itself to a covariance that holds, and to whether it is believed.

`rgsiam_training.export.calibrate` fits a calibration on stretches that were not trained on. The uncertainty
is modelled in the camera's own axes: the logarithm of each standard deviation is linear in a few
signs of difficulty, and the correlations between the axes are constant. Trust is a logistic score
over signs of being lost; a pose is believed where the score reaches a threshold that was chosen for a
stated share of falsely believed poses. Both are our reading of what the method leaves open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.uncertainty.covariance import MINIMUM_SIGMA_M, MINIMUM_SIGMA_RAD, check_covariance
from rgsiam_ros.uncertainty.pose_quality import Disagreement, Evidence

Branch = Literal["absolute", "refined"]
BRANCHES: tuple[Branch, ...] = ("absolute", "refined")
VERSION = 1
LARGEST_SIGN = 3.0
"""Signs are held within so many standard deviations of what calibration saw: a sigma that is
extrapolated further means nothing."""
LARGEST_SIGMA_M, LARGEST_SIGMA_RAD = 1e3, np.pi

DIFFICULTY: dict[Branch, tuple[str, ...]] = {
    "absolute": ("raw",),
    "refined": ("nearest", "information", "spread", "raw"),
}
"""Signs that each standard deviation depends on: the network's raw uncertainty of the same axis, the
distance of the nearest map image, the relative unit's information, the spread of the hypotheses.
Chosen by the likelihood of left-out stretches, see docs/covariance.md."""
DOUBT: dict[Branch, tuple[str, ...]] = {
    "absolute": ("feature", "last_feature", "sigma_m", "sigma_rad"),
    "refined": ("feature", "apart", "support", "change", "information", "spread"),
}
"""Signs that trust depends on: feature distance to the map, disagreement of the branches, share of the
hypotheses that agree, change from look to look, and what the covariance is predicted from: the relative
unit's information and the spread of the hypotheses (absolute: the predicted sigmas)."""


@dataclass(frozen=True)
class Lengths:
    """What signs are measured in."""

    reach_m: float = 1.0
    """Of the relative unit."""
    metres_per_radian: float = 1.0


@dataclass(frozen=True)
class BranchCalibration:
    """Of one branch. F signs of difficulty, G signs of doubt."""

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

    def sigmas(self, difficulty_6F: Array) -> Array:
        """Standard deviations ``(6,)`` in the camera's axes, metres and radians."""
        z = (difficulty_6F - self.sigma_mean_6F) / self.sigma_scale_6F
        z = np.clip(z, -LARGEST_SIGN, LARGEST_SIGN)
        sigma = np.exp(self.sigma_offset_6 + (self.sigma_weight_6F * z).sum(axis=1))
        least = np.repeat([MINIMUM_SIGMA_M, MINIMUM_SIGMA_RAD], 3)
        most = np.repeat([LARGEST_SIGMA_M, LARGEST_SIGMA_RAD], 3)
        return np.clip(sigma, least, most)

    def trust(self, doubt_G: Array) -> float:
        """How far the pose may be believed: the score less its threshold, believed from 0 on."""
        z = (doubt_G - self.trust_mean_G) / self.trust_scale_G
        return float(self.trust_offset + self.trust_weight_G @ z - self.threshold)


@dataclass(frozen=True)
class Calibration:
    """Of a bundle, in one precision."""

    branches: Mapping[Branch, BranchCalibration]

    def judge(self, branch: Branch, evidence: Evidence, lengths: Lengths) -> tuple[Array, float]:
        """Covariance ``(6, 6)`` in the camera's axes, order x y z rotX rotY rotZ; and the trust."""
        part = self.branches[branch]
        sigma = part.sigmas(difficulty(branch, evidence, lengths))
        doubts = doubt(branch, evidence, sigma, lengths)
        return part.correlation_66 * np.outer(sigma, sigma), part.trust(doubts)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> Calibration:
        """From the arrays of ``calibration.PRECISION.npz``. Raises ValueError, saying what is wrong."""
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
        """As they are stored: numbers only."""
        arrays: dict[str, NDArray] = {"version": np.array(VERSION)}
        for branch, part in self.branches.items():
            for name, value in vars(part).items():
                arrays[f"{branch}_{name}"] = np.asarray(value, np.float64)
        return arrays


def difficulty(branch: Branch, evidence: Evidence, lengths: Lengths) -> Array:
    """Signs of difficulty ``(6, F)``: one row for each axis."""
    raw = np.ones(6) if evidence.raw_sigma_6 is None else np.asarray(evidence.raw_sigma_6)
    columns = {"raw": np.log(np.maximum(raw, 1e-9))}
    if branch == "refined":
        of = _of_refined(evidence)
        shared = {
            "nearest": np.log(of.nearest_m / lengths.reach_m + 0.02),
            "information": _information(of, lengths),
            "spread": _spread(of, lengths),
        }
        columns |= {name: np.full(6, value) for name, value in shared.items()}
    return np.stack([columns[name] for name in DIFFICULTY[branch]], axis=1)


def doubt(branch: Branch, evidence: Evidence, sigma_6: Array, lengths: Lengths) -> Array:
    """Signs of doubt ``(G,)``. sigma_6: the predicted standard deviations."""
    signs = {
        "feature": np.log(evidence.feature_distance + 0.02),
        "last_feature": np.log(evidence.last_feature_distance + 0.02),
        "sigma_m": np.log(np.linalg.norm(sigma_6[:3])),
        "sigma_rad": np.log(np.linalg.norm(sigma_6[3:])),
    }
    if branch == "refined":
        of = _of_refined(evidence)
        apart = of.absolute_m + lengths.metres_per_radian * of.absolute_rad
        signs |= {
            "apart": np.log(apart / lengths.reach_m + 0.05),
            "support": of.support,
            "change": np.log(of.change_m / lengths.reach_m + 0.003),
            "information": _information(of, lengths),
            "spread": _spread(of, lengths),
        }
    return np.array([signs[name] for name in DOUBT[branch]], np.float64)


def _information(of: Disagreement, lengths: Lengths) -> float:
    return float(np.log(of.sigma_m / lengths.reach_m + 1e-9))


def _spread(of: Disagreement, lengths: Lengths) -> float:
    return float(np.log(of.spread_m / lengths.reach_m + 0.003))


def _of_refined(evidence: Evidence) -> Disagreement:
    if evidence.disagreement is None:
        raise ValueError("evidence of a refined pose needs its disagreement")
    return evidence.disagreement


def _branch_from(arrays: Mapping[str, NDArray], branch: Branch) -> BranchCalibration:
    F, G = len(DIFFICULTY[branch]), len(DOUBT[branch])
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
