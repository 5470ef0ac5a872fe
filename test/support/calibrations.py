"""A calibration whose results can be computed by hand, and a bundle with it."""

import numpy as np

from rgsiam_ros.bundle import write_bundle
from rgsiam_ros.uncertainty.calibration import SIGMA_PREDICTORS, TRUST_PREDICTORS, LengthScale
from rgsiam_ros.uncertainty.pose_quality import PoseQuality, RefinedQuality
from support.bundles import npz_bytes, refinable_parts

LENGTHS = LengthScale(reach_m=8.0, metres_per_radian=4.0)


SIGMA = np.array([0.3, 0.1, 0.5, 0.01, 0.02, 0.03])


def pose_quality(**changes):
    """The quality of a refined pose. changes: fields of `PoseQuality` or of `RefinedQuality`."""
    refined = {
        "absolute_m": 1.0,
        "absolute_rad": 0.02,
        "support": 0.8,
        "spread_m": 0.3,
        "sigma_m": 0.1,
        "nearest_m": 0.5,
        "change_m": 0.02,
    }
    refined |= {name: changes.pop(name) for name in list(changes) if name in refined}
    quality = {"feature_distance": 0.1, "last_feature_distance": 0.3, "raw_sigma_6": SIGMA}
    return PoseQuality(**(quality | changes), refined_quality=RefinedQuality(**refined))


def calibration_arrays(**changes):
    """A calibration that uses only the distances to the nearest map image and feature.

    changes: arrays to replace; None removes one.
    """
    arrays = {"version": np.array(1)}
    for branch in ("absolute", "refined"):
        F, G = len(SIGMA_PREDICTORS[branch]), len(TRUST_PREDICTORS[branch])
        sigma_weight, trust_weight = np.zeros((6, F)), np.zeros(G)
        trust_weight[TRUST_PREDICTORS[branch].index("feature")] = -1.0
        if branch == "refined":
            sigma_weight[:, SIGMA_PREDICTORS[branch].index("nearest")] = 0.5
        parts = {
            "sigma_offset_6": np.log(SIGMA),
            "sigma_weight_6F": sigma_weight,
            "sigma_mean_6F": np.zeros((6, F)),
            "sigma_scale_6F": np.ones((6, F)),
            "correlation_66": np.eye(6),
            "trust_offset": 0.0,
            "trust_weight_G": trust_weight,
            "trust_mean_G": np.zeros(G),
            "trust_scale_G": np.ones(G),
            "threshold": -np.log(0.52),  # believed up to a feature distance of 0.5
        }
        arrays |= {f"{branch}_{name}": np.asarray(value) for name, value in parts.items()}
    return {name: value for name, value in {**arrays, **changes}.items() if value is not None}


CALIBRATED = {
    "source": "test",
    "frames": 100,
    "false_accept_rate": 0.01,
    "accepted": 0.9,
    "wrong_m": 1.0,
}


def calibrated_bundle(path, **changes):
    text, contents = refinable_parts()
    text["calibrations"] = {"float32": CALIBRATED}
    contents["calibration.float32.npz"] = npz_bytes(calibration_arrays(**changes))
    return write_bundle(path, text, contents)
