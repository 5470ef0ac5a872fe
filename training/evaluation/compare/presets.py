"""The methods that are compared: each is our training program with some of its settings changed.

All share backbone, image size, augmentation, optimiser and budget, and the global pose term with its
L1 errors, so that what differs is the method. None is the authors' own code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rgsiam_ros.errors import DatasetError
from rgsiam_training.config import PAIR_TERMS, TrainingConfig

EstimatorName = Literal[
    "absolute", "refined", "sampled", "regressed", "nearest_feature", "nearest_thumbnail"
]
"""Names of the estimators, see `rgsiam_training.evaluation.compare.estimators`."""

ONE_IMAGE: dict[str, Any] = {
    **{f"losses.{term}.enabled": False for term in PAIR_TERMS},
    "losses.uncertainty.enabled": False,
    "pairs.near_share": 0.0,
    "pairs.hard_share": 0.0,
}
"""Nothing that needs a pair of images."""
COORDINATES = {**ONE_IMAGE, "network.anchors": 1}
"""The position is regressed as such, from the middle of the map."""


@dataclass(frozen=True)
class Preset:
    """One method."""

    name: str
    summary: str
    """What it is, and where our reading departs from its authors."""
    source: str
    estimators: tuple[EstimatorName, ...]
    """Each is one row of the table."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of `TrainingConfig`, dotted."""
    trained: bool = True

    def apply(self, config: TrainingConfig) -> TrainingConfig:
        """A configuration with this preset's settings."""
        return config.with_settings(self.settings)


PRESETS = (
    Preset(
        "siamese",
        "this package: both branches of one network",
        "Li et al. 2019, arXiv 1901.01049, our reading",
        ("absolute", "refined"),
    ),
    Preset(
        "single",
        "our absolute network, anchors and all, of single images",
        "ours, to tell the twins' part from the anchors'",
        ("absolute",),
        ONE_IMAGE,
    ),
    Preset(
        "posenet",
        "coordinates and quaternion, weighed by a fixed beta of 300 m (the authors' range: 120 to "
        "2000, chosen anew for each scene)",
        "Kendall et al. 2015, arXiv 1505.07427",
        ("absolute",),
        {**COORDINATES, "losses.fixed_beta_m": 300.0},
    ),
    Preset(
        "posenet_learned",
        "the same with learned weights",
        "Kendall and Cipolla 2017, arXiv 1704.00390",
        ("absolute",),
        COORDINATES,
    ),
    Preset(
        "posenet2",
        "learned weights, then from half of the training on the reprojection error of scene points; "
        "needs depth or points",
        "Kendall and Cipolla 2017, arXiv 1704.00390",
        ("absolute",),
        {**COORDINATES, "losses.reprojection.enabled": True},
    ),
    Preset(
        "bayesian_posenet",
        "learned weights, half of the feature dropped; the mean of 40 samples. The authors drop in the "
        "backbone too",
        "Kendall and Cipolla 2016, arXiv 1509.05909",
        ("sampled",),
        {**COORDINATES, "network.dropout": 0.5},
    ),
    Preset(
        "lstm_posenet",
        "four LSTMs read the feature vector, laid out as a rectangle",
        "Walch et al. 2017, arXiv 1611.07890",
        ("absolute",),
        {**COORDINATES, "network.neck": "lstm"},
    ),
    Preset(
        "hourglass",
        "an encoder and decoder with connections between them before the regression",
        "Melekhov et al. 2017, arXiv 1703.07971",
        ("absolute",),
        {**COORDINATES, "network.neck": "hourglass"},
    ),
    Preset(
        "relnet",
        "the 5 nearest map images by the feature of `retrieval`, a regressed relative pose to each, "
        "their robust mean. The authors retrieve by the trained network's feature (over 100 m off on our "
        "circuit), regress a direction and triangulate",
        "Laskar et al. 2017, arXiv 1707.09733",
        ("regressed",),
        {
            **ONE_IMAGE,
            "pairs.near_share": 1.0,
            "losses.global_pose.enabled": False,
            "losses.relative_regression.enabled": True,
        },
    ),
    Preset(
        "mapnet",
        "coordinates and logarithm of the quaternion, and their differences over pairs, as the authors "
        "define them; pairs overlap in view instead of following each other",
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
        "the pose of the nearest map image: by the mean of the backbone's last map, with its ImageNet "
        "weights, and by a thumbnail of 16x12 grey pixels",
        "the usual baseline",
        ("nearest_feature", "nearest_thumbnail"),
        trained=False,
    ),
)


def presets_named(names: list[str]) -> list[Preset]:
    """The presets of these names, all for none. Raises DatasetError for an unknown name."""
    known = {preset.name: preset for preset in PRESETS}
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise DatasetError(
            f"there is no preset {', '.join(unknown)}: choose from {', '.join(known)}"
        )
    return [known[name] for name in names] or list(PRESETS)


def trainable(name: str) -> Preset:
    """The preset of this name. Raises DatasetError where there is nothing to train."""
    (preset,) = presets_named([name])
    if not preset.trained:
        raise DatasetError(f"preset {name} trains nothing: it is there for `rgsiam compare`")
    return preset
