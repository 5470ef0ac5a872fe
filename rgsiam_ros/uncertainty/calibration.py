"""Predict a covariance and a trust score for one absolute pose, from the figures of `PoseQuality`.

`rgsiam_training.export.calibrate` fits a calibration on frames that were held out from training.

- Covariance, in the camera's axes: the logarithm of each standard deviation is linear in a few predictors.
  The correlations between the axes are constant.
- Trust: a logistic score over other predictors, minus a threshold. The vehicle is lost if the result is
  negative. The threshold was chosen for a stated false-accept rate.

The paper (arXiv 1901.01049) specifies neither of them; both models are our own. The geometric branch has its
own, see `rgsiam_ros.uncertainty.geometric`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.uncertainty.covariance import MINIMUM_SIGMA_M, MINIMUM_SIGMA_RAD, check_covariance
from rgsiam_ros.uncertainty.pose_quality import PoseQuality

VERSION = 2
LARGEST_PREDICTOR = 3.0
"""Predictors are clipped to this many standard deviations of what calibration saw. A sigma that is
extrapolated further is meaningless."""
LARGEST_SIGMA_M, LARGEST_SIGMA_RAD = 1e3, np.pi

SIGMA_PREDICTORS = ("raw",)
"""What each standard deviation is predicted from: ``raw``, the logarithm of the standard deviation that the
network itself predicts for the same axis. It was chosen by its likelihood on held-out stretches, see
docs/covariance.md."""
TRUST_PREDICTORS = ("feature", "last_feature", "sigma_m", "sigma_rad")
"""What trust is predicted from, all logarithms:

- ``feature``, ``last_feature``: distance of the metric feature to that of the most and of the least similar
  neighbour;
- ``sigma_m``, ``sigma_rad``: the predicted standard deviations of position and rotation."""


@dataclass(frozen=True)
class Calibration:
    """The fitted numbers of one precision: F predictors of sigma, G predictors of trust."""

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

    def covariance_and_trust(self, quality: PoseQuality) -> tuple[Array, float]:
        """Covariance ``(6, 6)`` in the camera's axes, order x y z rotX rotY rotZ, and the trust score."""
        sigma = self.sigmas(sigma_predictors(quality))
        trust = self.trust(trust_predictors(quality, sigma))
        return self.correlation_66 * np.outer(sigma, sigma), trust

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> Calibration:
        """Read the arrays of ``calibration.PRECISION.npz``. Raises ValueError, which says what is wrong."""
        if "version" not in arrays or int(arrays["version"]) != VERSION:
            raise ValueError(f"this release reads calibrations of version {VERSION} only")
        F, G = len(SIGMA_PREDICTORS), len(TRUST_PREDICTORS)
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
            stored = arrays.get(name)
            if stored is None or stored.shape != shape:
                found = "missing" if stored is None else f"of shape {stored.shape}"
                raise ValueError(f"array {name!r} is {found}, not of shape {shape}")
            values[name] = stored.astype(np.float64)
        for name in ("sigma_scale_6F", "trust_scale_G"):
            if (values[name] <= 0.0).any():
                raise ValueError(f"array {name!r} holds a scale that is not positive")
        try:
            correlation = check_covariance(values["correlation_66"])
        except ValueError as error:
            raise ValueError(f"array 'correlation_66': {error}") from error
        if np.abs(np.diag(correlation) - 1.0).max() > 1e-6:
            raise ValueError("array 'correlation_66' is no correlation: its diagonal is not 1")
        scalars = {name: float(values[name]) for name in ("trust_offset", "threshold")}
        return cls(**{**values, **scalars})  # type: ignore[arg-type]

    def to_arrays(self) -> dict[str, NDArray]:
        """The arrays to store."""
        fitted = {name: np.asarray(value, np.float64) for name, value in vars(self).items()}
        return {"version": np.array(VERSION), **fitted}


def sigma_predictors(quality: PoseQuality) -> Array:
    """Predictors of the standard deviations, ``(6, F)``: one row for each axis."""
    raw = np.ones(6) if quality.raw_sigma_6 is None else np.asarray(quality.raw_sigma_6)
    return np.log(np.maximum(raw, 1e-9))[:, None]


def trust_predictors(quality: PoseQuality, sigma_6: Array) -> Array:
    """Predictors of trust, ``(G,)``. sigma_6: the predicted standard deviations."""
    distances = [quality.feature_distance + 0.02, quality.last_feature_distance + 0.02]
    lengths = np.linalg.norm(sigma_6.reshape(2, 3), axis=1)
    return np.log(np.array([*distances, *lengths], np.float64))
