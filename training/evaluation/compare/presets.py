"""The presets of a comparison: settings of this package's training program that reproduce published methods.

All presets share the backbone, image size, augmentation, optimiser, training time and the L1 errors of the
global pose term, so that only the method differs. None of them uses the authors' own code. The baselines
`retrieval`, `geometric` and `structure` train nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rgsiam_ros.errors import DatasetError
from rgsiam_training.config import PAIR_TERMS, TrainingConfig

EstimatorName = Literal[
    "absolute",
    "geometric",
    "sampled",
    "regressed",
    "nearest_feature",
    "nearest_thumbnail",
    "structure",
]
"""Names of the estimators, see `rgsiam_training.evaluation.compare.estimators`."""

ONE_IMAGE: dict[str, Any] = {
    **{f"losses.{term}.enabled": False for term in PAIR_TERMS},
    "losses.uncertainty.enabled": False,
    "pairs.near_share": 0.0,
    "pairs.hard_share": 0.0,
}
"""Settings that switch off everything that needs a pair of images."""
COORDINATES = {**ONE_IMAGE, "network.anchors": 1}
"""Settings for the regression of coordinates from single images: the only anchor is the middle of the map."""


@dataclass(frozen=True)
class Preset:
    """A method to compare: settings of the training program, and the estimators to measure."""

    name: str
    summary: str
    """What the method is, and where this implementation differs from its authors'."""
    source: str
    """The publication."""
    estimators: tuple[EstimatorName, ...]
    """Each gives one row of the table."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Changed fields of `TrainingConfig`, by dotted name."""
    trained: bool = True
    """False if there is nothing to train."""

    def apply(self, config: TrainingConfig) -> TrainingConfig:
        """`config` with this preset's settings."""
        return config.with_settings(self.settings)


PRESETS = (
    Preset(
        "siamese",
        "this package's absolute branch: global pose, relative pose, consistency and metric distance together",
        "Li et al. 2019, arXiv 1901.01049, our reading",
        ("absolute",),
    ),
    Preset(
        "single",
        "our absolute branch with its anchors, trained on single images",
        "ours, to separate the effect of pairs from that of anchors",
        ("absolute",),
        ONE_IMAGE,
    ),
    Preset(
        "posenet",
        "regresses coordinates and a quaternion, weighted by a fixed beta of 300 m (the authors choose "
        "120 to 2000 for each scene)",
        "Kendall et al. 2015, arXiv 1505.07427",
        ("absolute",),
        {**COORDINATES, "losses.fixed_beta_m": 300.0},
    ),
    Preset(
        "posenet_learned",
        "as posenet, with learned weights of the loss terms",
        "Kendall and Cipolla 2017, arXiv 1704.00390",
        ("absolute",),
        COORDINATES,
    ),
    Preset(
        "posenet2",
        "as posenet_learned; the reprojection error of scene points replaces the pose errors in the second "
        "half of the training; needs depth images or points",
        "Kendall and Cipolla 2017, arXiv 1704.00390",
        ("absolute",),
        {**COORDINATES, "losses.reprojection.enabled": True},
    ),
    Preset(
        "bayesian_posenet",
        "as posenet_learned, with a dropout of one half on the feature; estimates the mean of 40 samples. "
        "The authors use dropout in the backbone too",
        "Kendall and Cipolla 2016, arXiv 1509.05909",
        ("sampled",),
        {**COORDINATES, "network.dropout": 0.5},
    ),
    Preset(
        "lstm_posenet",
        "as posenet_learned; four LSTMs read the feature vector, reshaped to a rectangle",
        "Walch et al. 2017, arXiv 1611.07890",
        ("absolute",),
        {**COORDINATES, "network.neck": "lstm"},
    ),
    Preset(
        "hourglass",
        "as posenet_learned; an encoder and a decoder with skip connections before the regression",
        "Melekhov et al. 2017, arXiv 1703.07971",
        ("absolute",),
        {**COORDINATES, "network.neck": "hourglass"},
    ),
    Preset(
        "relnet",
        "retrieves 5 map images by the feature of `retrieval`, regresses the relative pose to each, takes "
        "the robust mean. The authors retrieve by the trained network's feature (errors above 100 m on our "
        "circuit), regress a direction and triangulate",
        "Laskar et al. 2017, arXiv 1707.09733",
        ("regressed",),
        {
            **ONE_IMAGE,
            "pairs.near_share": 1.0,
            "losses.global_pose.enabled": False,
            "losses.relative_pose.enabled": True,
        },
    ),
    Preset(
        "mapnet",
        "regresses coordinates and the logarithm of the quaternion, and their differences over pairs, as the "
        "authors define them; pairs are images with overlapping views, not consecutive frames",
        "Brahmbhatt et al. 2018, arXiv 1712.03342",
        ("absolute",),
        {
            **COORDINATES,
            "network.rotation": "log_quaternion",
            "pairs.near_share": 1.0,
            "losses.mapnet_relative.enabled": True,
        },
    ),
    Preset(
        "retrieval",
        "returns the pose of the nearest training image: by the mean of the backbone's last feature map with "
        "ImageNet weights, and by a thumbnail of 16x12 grey pixels",
        "the usual baseline",
        ("nearest_feature", "nearest_thumbnail"),
        trained=False,
    ),
    Preset(
        "geometric",
        "this package's geometric branch: a map of the training images by `rgsiam map build`, on the dataset's own "
        "images; no answer where the vehicle would be lost",
        "ours, with the network of Potje et al. 2024, arXiv 2404.19174",
        ("geometric",),
        trained=False,
    ),
    Preset(
        "structure",
        "triangulates SIFT keypoints of the training images, finds the nearest images by VLAD and fits the pose "
        "to matched scene points, on the dataset's own images; no answer below 12 inliers",
        "the usual structure-based localizer, our code with OpenCV",
        ("structure",),
        trained=False,
    ),
)


def presets_named(names: list[str]) -> list[Preset]:
    """The presets with these names; all presets if there are none. Raises DatasetError if one is unknown."""
    known = {preset.name: preset for preset in PRESETS}
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise DatasetError(
            f"there is no preset {', '.join(unknown)}: choose from {', '.join(known)}"
        )
    return [known[name] for name in names] or list(PRESETS)


def trainable(name: str) -> Preset:
    """The preset with this name. Raises DatasetError for an unknown name, or if there is nothing to train."""
    (preset,) = presets_named([name])
    if not preset.trained:
        raise DatasetError(f"preset {name} trains nothing: use it in `rgsiam compare` only")
    return preset
