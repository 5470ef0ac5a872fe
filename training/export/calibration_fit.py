"""Fit a calibration: covariances by maximum likelihood, trust scores by logistic regression."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.uncertainty.calibration import LARGEST_PREDICTOR, Calibration

SIGMA_RIDGE = 1.0
"""Factor of the ridge penalty on the weights of sigma, which is added to the mean negative log-likelihood."""
SHRINK_CORRELATION = 0.3
"""Share by which correlations are shrunk towards zero, because only a part of them recurs on another day."""
TRUST_RIDGE = 0.01
"""Factor of the ridge penalty on the weights of trust, which is added to the mean logistic loss."""
SMALLEST_SCALE = 1e-3
"""Smallest standard deviation by which a predictor is divided."""
SMALLEST_VARIANCE = 1e-12
"""Is added to the squared errors, so that their mean has a logarithm."""
SMALLEST_SECOND_MOMENT = 1e-9
"""Is added to the second moment of the whitened errors, so that an axis without errors has a sigma."""
LARGEST_WIDENING = 3.0
"""Largest factor of `widen_for_the_unseen`."""
RIGHT_KEPT = 0.95
"""Largest share of the right poses that the threshold of trust accepts, see `fit_trust`."""
SMALLEST_GROUP = 20
"""Fewest samples of a kind of wrong poses that the false-accept rate is tested on."""


class CovarianceFit(TypedDict):
    """The fields of a `Calibration` that predict covariances."""

    sigma_offset_6: Array
    sigma_weight_6F: Array
    sigma_mean_6F: Array
    sigma_scale_6F: Array
    correlation_66: Array


class TrustFit(TypedDict):
    """The fields of a `Calibration` that predict trust."""

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
"""Trust fields of a calibration that is used for its covariances alone."""


def fit_covariance(predictor_N6F: Array, error_N6: Array) -> CovarianceFit:
    """Fit the covariance of Gaussian errors by maximum likelihood.

    predictor_N6F: F predictors of each axis, see `rgsiam_ros.uncertainty.calibration.sigma_predictors`;
    error_N6: the errors in the camera's axes, metres and radians. The model is our own: for each axis
    ``log sigma = offset + weight * z``, where z are the standardised predictors. A ridge on the weights
    prevents overfitting, because there are few held-out stretches. The correlations are those of the errors
    divided by sigma, shrunk by `SHRINK_CORRELATION`.
    """
    mean = predictor_N6F.mean(axis=0)
    scale = np.maximum(predictor_N6F.std(axis=0), SMALLEST_SCALE)
    z_N6F = np.clip((predictor_N6F - mean) / scale, -LARGEST_PREDICTOR, LARGEST_PREDICTOR)
    fitted = np.stack([_fit_axis(z_N6F[:, axis], error_N6[:, axis]) for axis in range(6)])
    offset, weight = fitted[:, 0], fitted[:, 1:]
    whitened = error_N6 / np.exp(offset + (weight * z_N6F).sum(axis=2))
    second = whitened.T @ whitened / len(whitened) + SMALLEST_SECOND_MOMENT * np.eye(6)
    scale_6 = np.sqrt(np.diag(second))  # 1, apart from the effect of the ridge
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
    fitted: CovarianceFit, predictor_N6F: Array, error_N6: Array, fold_N: NDArray[np.int64]
) -> CovarianceFit:
    """Enlarge the sigmas of a fit by a factor from cross-validation.

    With few held-out stretches the fit is overconfident: its sigmas are too small for other frames. Each fold
    of neighbouring frames is therefore predicted by a fit to the other folds. The factor is the root mean
    square of ``error / sigma`` over all frames, limited to 1 .. `LARGEST_WIDENING`. There is one factor for
    the position and one for the rotation. fold_N: the fold of each frame. With a single fold `fitted` is
    returned.
    """
    square_N6 = np.zeros_like(error_N6)
    for fold in np.unique(fold_N):
        inside = fold_N == fold
        if inside.all():
            return fitted
        fit_to_others = fit_covariance(predictor_N6F[~inside], error_N6[~inside])
        calibration = Calibration(**fit_to_others, **NO_TRUST)
        sigma = np.stack([calibration.sigmas(row) for row in predictor_N6F[inside]])
        square_N6[inside] = (error_N6[inside] / sigma) ** 2
    widening = np.sqrt([square_N6[:, :3].mean(), square_N6[:, 3:].mean()])
    widening = np.clip(widening, 1.0, LARGEST_WIDENING)
    return {**fitted, "sigma_offset_6": fitted["sigma_offset_6"] + np.log(np.repeat(widening, 3))}


def _fit_axis(z_NF: Array, error_N: Array) -> Array:
    """Offset and weights of ``log sigma`` of one axis, ``(1 + F,)``."""
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

    right_NG, wrong_MG: predictors of the poses, see `rgsiam_ros.uncertainty.calibration.trust_predictors`;
    kind_M: what was done to the image of each wrong pose.

    All right poses together have the same weight as all wrong poses together. The score minimises the weighted
    mean logistic loss plus ``TRUST_RIDGE * |weights|^2``; the offset is not penalised.

    At the threshold at most `false_accept_rate` of the wrong poses of each kind are accepted. Kinds with
    fewer than `SMALLEST_GROUP` poses are not tested alone; if all kinds are that small, the rate holds for
    all wrong poses together. If more than `RIGHT_KEPT` of the right poses reach the threshold, it is raised
    until only that share does. The reason: images of a really unmapped place resemble the map more than the
    wrong samples of a calibration do. binding: the kinds for which the rate holds (None: all); the other
    kinds only influence the score. Raises ValueError if one side is empty.
    """
    if not len(right_NG) or not len(wrong_MG):
        raise ValueError("a calibration needs right and wrong poses")
    predictors = np.concatenate([right_NG, wrong_MG])
    is_right = np.arange(len(predictors)) < len(right_NG)
    mean = predictors.mean(axis=0)
    scale = np.maximum(predictors.std(axis=0), SMALLEST_SCALE)
    z = (predictors - mean) / scale
    weight = np.where(is_right, 0.5 / is_right.sum(), 0.5 / (~is_right).sum())
    model = LogisticRegression(C=0.5 / TRUST_RIDGE, tol=1e-8, max_iter=10_000)
    model.fit(z, is_right, sample_weight=weight)
    score = model.decision_function(z)
    wrong_score = score[~is_right]
    kinds = np.asarray(kind_M)
    bound = [kind for kind in np.unique(kinds) if binding is None or kind in binding]
    groups = [wrong_score[kinds == kind] for kind in bound]
    groups = [group for group in groups if len(group) >= SMALLEST_GROUP] or [wrong_score]
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
    """The smallest threshold that at most `share` of the scores reach."""
    kept = int(np.floor(share * len(score_M)))
    return float(np.nextafter(np.sort(score_M)[::-1][kept], np.inf))
