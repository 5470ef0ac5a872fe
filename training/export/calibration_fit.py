"""The mathematics of a calibration: likelihood for covariances, logistic scores for trust."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.uncertainty.calibration import LARGEST_PREDICTOR, BranchCalibration

SIGMA_RIDGE = 1.0
"""Pull of the weights of difficulty towards zero, against the mean log-likelihood of a frame."""
SHRINK_CORRELATION = 0.3
"""By which correlations are drawn towards none: another day repeats them only in part."""
TRUST_RIDGE = 0.01
"""Pull of the weights of doubt towards zero, against the mean logistic loss of a pose."""
SMALLEST_SCALE = 1e-3
SMALLEST_VARIANCE = 1e-12
SMALLEST_SECOND_MOMENT = 1e-9
"""Of whitened errors: an axis without any error still has a sigma."""
LARGEST_WIDENING = 3.0
RIGHT_KEPT = 0.95
SMALLEST_GROUP = 20
"""A kind of wrong poses with fewer samples has no threshold of its own."""


class CovarianceFit(TypedDict):
    """The fields of a `BranchCalibration` that covariances come from."""

    sigma_offset_6: Array
    sigma_weight_6F: Array
    sigma_mean_6F: Array
    sigma_scale_6F: Array
    correlation_66: Array


class TrustFit(TypedDict):
    """The fields of a `BranchCalibration` that trust comes from."""

    trust_offset: float
    trust_weight_G: Array
    trust_mean_G: Array
    trust_scale_G: Array
    threshold: float


NO_TRUST: TrustFit = {
    "trust_offset": 0.0,
    "trust_weight_G": np.zeros(0),
    "trust_mean_G": np.zeros(0),
    "trust_scale_G": np.ones(0),
    "threshold": 0.0,
}
"""Of a calibration whose covariances alone are asked for."""


def fit_covariance(difficulty_N6F: Array, error_N6: Array) -> CovarianceFit:
    """Maximum-likelihood Gaussian errors, see `rgsiam_ros.uncertainty.calibration.BranchCalibration.sigmas`.

    Our reading: each axis ``log sigma = offset + weight * z`` with standardised signs z; a ridge on the
    weights, because held-out stretches are few; correlations of what is left, shrunk. error_N6: in
    the camera's axes.
    """
    mean = difficulty_N6F.mean(axis=0)
    scale = np.maximum(difficulty_N6F.std(axis=0), SMALLEST_SCALE)
    z_N6F = np.clip((difficulty_N6F - mean) / scale, -LARGEST_PREDICTOR, LARGEST_PREDICTOR)
    fitted = np.stack([_fit_axis(z_N6F[:, axis], error_N6[:, axis]) for axis in range(6)])
    offset, weight = fitted[:, 0], fitted[:, 1:]
    whitened = error_N6 / np.exp(offset + (weight * z_N6F).sum(axis=2))
    second = whitened.T @ whitened / len(whitened) + SMALLEST_SECOND_MOMENT * np.eye(6)
    scale_6 = np.sqrt(np.diag(second))  # one, but for the ridge
    correlation = second / np.outer(scale_6, scale_6)
    correlation = (1.0 - SHRINK_CORRELATION) * correlation + SHRINK_CORRELATION * np.eye(6)
    return {
        "sigma_offset_6": offset + np.log(scale_6),
        "sigma_weight_6F": weight,
        "sigma_mean_6F": mean,
        "sigma_scale_6F": scale,
        "correlation_66": correlation,
    }


def widen_for_the_unseen(
    fitted: CovarianceFit, difficulty_N6F: Array, error_N6: Array, fold_N: NDArray[np.int64]
) -> CovarianceFit:
    """Widen the sigmas of positions, and of rotations, by what a fit promises too little elsewhere.

    Each fold of neighbouring frames is predicted by a fit to the others; the root of its normalised error
    squared per degree of freedom, averaged over all frames, is what sigmas are multiplied with (never
    below 1, at most `LARGEST_WIDENING`). With few held-out stretches a fit knows less than it thinks.
    """
    square_N6 = np.zeros_like(error_N6)
    for fold in np.unique(fold_N):
        here = fold_N == fold
        if here.all():
            return fitted
        other = fit_covariance(difficulty_N6F[~here], error_N6[~here])
        part = BranchCalibration(**other, **NO_TRUST)
        sigma = np.stack([part.sigmas(signs) for signs in difficulty_N6F[here]])
        square_N6[here] = (error_N6[here] / sigma) ** 2
    widening = np.sqrt([square_N6[:, :3].mean(), square_N6[:, 3:].mean()])
    widening = np.clip(widening, 1.0, LARGEST_WIDENING)
    return {**fitted, "sigma_offset_6": fitted["sigma_offset_6"] + np.log(np.repeat(widening, 3))}


def _fit_axis(z_NF: Array, error_N: Array) -> Array:
    square = error_N**2 + SMALLEST_VARIANCE

    def loss(parameters: Array) -> tuple[float, Array]:
        log_sigma = np.clip(parameters[0] + z_NF @ parameters[1:], -15.0, 15.0)
        ratio = square * np.exp(-2.0 * log_sigma)
        value = (log_sigma + 0.5 * ratio).mean() + SIGMA_RIDGE * (parameters[1:] ** 2).sum()
        slope = 1.0 - ratio
        weights = z_NF.T @ slope / len(slope) + 2.0 * SIGMA_RIDGE * parameters[1:]
        return value, np.concatenate([[slope.mean()], weights])

    start = np.zeros(1 + z_NF.shape[1])
    start[0] = 0.5 * np.log(square.mean())
    return minimize(loss, start, jac=True, method="L-BFGS-B").x


def fit_trust(
    right_NG: Array,
    wrong_MG: Array,
    kind_M: Sequence[str],
    false_accept_rate: float,
    binding: Collection[str] | None = None,
) -> TrustFit:
    """Fit a logistic score that separates right from wrong poses, and choose its threshold.

    The right poses together weigh as much as the wrong poses together. The score minimises the weighted
    mean logistic loss plus ``TRUST_RIDGE * |weights|^2``; the offset is not penalised.

    At the threshold at most `false_accept_rate` of the wrong poses of each kind are accepted. Kinds with
    fewer than `SMALLEST_GROUP` poses are not tested alone; if all kinds are that small, the rate holds for
    all wrong poses together. If the threshold keeps more than `RIGHT_KEPT` of the right poses, it is
    raised until it keeps that share, because a place that is really unmapped resembles the map more than
    the wrong poses that a calibration can make. binding: the kinds that the rate holds for (None: all);
    the other kinds only shape the score. Raises ValueError if one side is empty.
    """
    if not len(right_NG) or not len(wrong_MG):
        raise ValueError("a calibration needs right and wrong poses")
    signs = np.concatenate([right_NG, wrong_MG])
    is_right = np.arange(len(signs)) < len(right_NG)
    mean, scale = signs.mean(axis=0), np.maximum(signs.std(axis=0), SMALLEST_SCALE)
    z = (signs - mean) / scale
    weight = np.where(is_right, 0.5 / is_right.sum(), 0.5 / (~is_right).sum())
    model = LogisticRegression(C=0.5 / TRUST_RIDGE, tol=1e-8, max_iter=10_000)
    model.fit(z, is_right, sample_weight=weight)
    score = model.decision_function(z)
    wrong = score[~is_right]
    kinds = np.asarray(kind_M)
    bound = [kind for kind in np.unique(kinds) if binding is None or kind in binding]
    groups = [wrong[kinds == kind] for kind in bound]
    groups = [group for group in groups if len(group) >= SMALLEST_GROUP] or [wrong]
    thresholds = [_just_above(group, false_accept_rate) for group in groups]
    threshold = max(*thresholds, float(np.quantile(score[is_right], 1.0 - RIGHT_KEPT)))
    return {
        "trust_offset": float(model.intercept_[0]),
        "trust_weight_G": model.coef_[0],
        "trust_mean_G": mean,
        "trust_scale_G": scale,
        "threshold": threshold,
    }


def _just_above(score_M: Array, share: float) -> float:
    """The least threshold that at most `share` of the scores reach."""
    kept = int(np.floor(share * len(score_M)))
    return float(np.nextafter(np.sort(score_M)[::-1][kept], np.inf))
