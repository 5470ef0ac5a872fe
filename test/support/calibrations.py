"""A calibration whose results can be computed by hand, and a bundle with it."""

import numpy as np

from rgsiam_ros.bundle import write_bundle
from rgsiam_ros.uncertainty.calibration import SIGMA_PREDICTORS, TRUST_PREDICTORS
from rgsiam_ros.uncertainty.pose_quality import PoseQuality
from support.bundles import colour_parts, npz_bytes

SIGMA = np.array([0.3, 0.1, 0.5, 0.01, 0.02, 0.03])


def pose_quality(**changes):
    """The quality of a pose. changes: fields of `PoseQuality`."""
    quality = {"feature_distance": 0.1, "last_feature_distance": 0.3, "raw_sigma_6": np.ones(6)}
    return PoseQuality(**(quality | changes))


def calibration_arrays(**changes):
    """A calibration that uses only the predicted sigmas and the distance to the nearest feature.

    changes: arrays to replace; None removes one.
    """
    F, G = len(SIGMA_PREDICTORS), len(TRUST_PREDICTORS)
    trust_weight = np.zeros(G)
    trust_weight[TRUST_PREDICTORS.index("feature")] = -1.0
    arrays = {
        "version": np.array(2),
        "sigma_offset_6": np.log(SIGMA),
        "sigma_weight_6F": np.full((6, F), 0.5),
        "sigma_mean_6F": np.zeros((6, F)),
        "sigma_scale_6F": np.ones((6, F)),
        "correlation_66": np.eye(6),
        "trust_offset": np.array(0.0),
        "trust_weight_G": trust_weight,
        "trust_mean_G": np.zeros(G),
        "trust_scale_G": np.ones(G),
        "threshold": np.array(-np.log(0.52)),  # believed up to a feature distance of 0.5
    }
    return {name: value for name, value in {**arrays, **changes}.items() if value is not None}


CALIBRATED = {
    "source": "test",
    "frames": 100,
    "false_accept_rate": 0.01,
    "accepted": 0.9,
    "wrong_m": 1.0,
}


def calibrated_bundle(path, **changes):
    text, contents = colour_parts()
    text["calibrations"] = {"float32": CALIBRATED}
    contents["calibration.float32.npz"] = npz_bytes(calibration_arrays(**changes))
    return write_bundle(path, text, contents)
