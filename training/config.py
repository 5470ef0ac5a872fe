"""The configuration of a training run: its fields, their defaults, and how it is loaded and saved.

A run folder keeps a copy, so that the run can be resumed, repeated and exported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.recordings.topics import BagTopics


class _Section(BaseModel):
    """Base class of the sections. Fields cannot be changed, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


LSTM_ROWS = 16
"""Rows of the rectangle that the neck ``lstm`` reshapes the feature vector to."""
LARGEST_SIDE = 2048
"""Largest width and height of the network's input, pixels."""
RotationOutput = Literal["quaternion", "log_quaternion", "6d"]
"""Rotation parameters that the network regresses, see `rgsiam_training.model.rotation_outputs`."""


class SplitConfig(_Section):
    """How frames are held out of the sessions for validation."""

    fraction: float = Field(0.12, gt=0.0, lt=0.5)
    """Share of each session's frames that is held out."""
    stretch_frames: int = Field(40, ge=2)
    """Length of one stretch, frames. It is at most the held-out share of the session, and so less in a short
    session."""
    guard_frames: int = Field(8, ge=0)
    """Frames on either side of a stretch that are used neither for training nor for validation."""
    hold_out: Literal["auto", "stretches", "interleaved", "map"] = "auto"
    """``stretches``, or ``interleaved``: two frames in a row all along the way. ``auto``: stretches, unless most of them
    show places that the rest of the sessions does not pass. ``map``: the frames that `rgsiam map build` holds out."""
    leave_out: tuple[tuple[float, float, Annotated[float, Field(gt=0.0)]], ...] = ()
    """Circles (x, y, radius; metres in the map frame). Frames inside them are used neither for training nor
    for validation. This tests what the relocalizer reports where there is no map."""

    def inside(self, position_N3: ArrayLike) -> NDArray[np.bool_]:
        """Return which positions lie in one of the circles of `leave_out`: ``(N,)`` bool.

        position_N3: metres in the map frame.
        """
        xy = np.asarray(position_N3, np.float64)[:, :2]
        left_out = np.zeros(len(xy), bool)
        for x, y, radius in self.leave_out:
            left_out |= np.hypot(xy[:, 0] - x, xy[:, 1] - y) <= radius
        return left_out


class PairConfig(_Section):
    """How the second image of a pair is drawn."""

    near_share: float = Field(0.6, ge=0.0, le=1.0)
    """Share of pairs whose images have overlapping views."""
    hard_share: float = Field(0.2, ge=0.0, le=1.0)
    """Share of pairs whose images were taken far apart and yet have similar metric features, as computed
    when the network last saw the images. The remaining pairs are drawn at random."""
    reach_m: float = Field(8.0, gt=0.0)
    """Largest distance between the cameras of overlapping images, metres. Choose about the distance between a
    live image and the map images that are nearest to it. One metre or less suits indoor maps."""
    smallest_overlap: float = Field(0.4, gt=0.0, le=1.0)
    """Smallest share of one image's view that the other image of an overlapping pair must see."""
    other_pass_share: float = Field(0.5, ge=0.0, le=1.0)
    """Share of the overlapping pairs whose second image is drawn only from other passes (sessions or laps),
    if any of them overlaps. In the remaining overlapping pairs it is drawn from all passes."""
    pass_gap_s: float = Field(10.0, ge=0.0)
    """Images of one session belong to different passes when more time than this lies between them."""
    metres_per_radian: float = Field(4.0, gt=0.0)
    """Metres that one radian of rotation counts in the distance between two poses."""

    @model_validator(mode="after")
    def _shares_fit(self) -> PairConfig:
        if self.near_share + self.hard_share > 1.0:
            raise ValueError("near_share and hard_share add up to more than 1")
        return self


class AugmentationConfig(_Section):
    """How strongly training images are changed, see `rgsiam_training.data.augmentation`. Zero switches a change off."""

    brightness: float = Field(0.5, ge=0.0, lt=1.0)
    """Largest relative change of exposure."""
    contrast: float = Field(0.5, ge=0.0, lt=1.0)
    """Largest relative change of the contrast."""
    saturation: float = Field(0.6, ge=0.0, le=1.0)
    """Largest relative change of the colour saturation."""
    colour_cast: float = Field(0.25, ge=0.0, lt=1.0)
    """Largest relative change of one colour channel, as in warm and cold light."""
    gamma: float = Field(0.5, ge=0.0, lt=1.0)
    """Largest absolute value of the logarithm of the exponent of the pixel values (gamma correction)."""
    shading: float = Field(0.6, ge=0.0, lt=1.0)
    """Largest relative change of the brightness by a smooth random field, which imitates shadows."""
    noise: float = Field(0.02, ge=0.0, lt=0.5)
    """Largest standard deviation of the pixel noise, for pixel values in 0..1."""
    haze: float = Field(0.3, ge=0.0, lt=1.0)
    """Largest share of grey light mixed into the image, as by mist, rain, or a wet or dusty lens."""
    blur_share: float = Field(0.2, ge=0.0, le=1.0)
    """Share of images that are blurred as if out of focus. The same share gets horizontal motion blur."""
    occlusion_share: float = Field(0.3, ge=0.0, le=1.0)
    """Share of images that are partly covered by a rectangle of one colour."""
    occlusion_size: float = Field(0.4, gt=0.0, le=1.0)
    """Largest width and height of that rectangle, as a share of the image's width and height."""
    rotation_deg: float = Field(4.0, ge=0.0, lt=45.0)
    """Largest rotation of the camera about its centre, degrees. The true pose is rotated with the image."""


class NetworkConfig(_Section):
    """The architecture of the network."""

    backbone: str = "tf_efficientnet_lite0"
    """Name of a timm model."""
    pretrained: bool = True
    """Start from ImageNet weights. For the default backbone they come from a Python package."""
    neck_channels: int = Field(64, ge=8)
    """Channels that each cell of the last feature map is reduced to before the map is flattened."""
    feature_size: int = Field(512, ge=16)
    """Length of the image's feature vector."""
    dropout: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of the feature vector that dropout sets to zero before the global pose unit, in training."""
    anchors: int = Field(64, ge=1)
    """Number of anchors: positions spread over the map. The global pose unit classifies the nearest anchor
    and regresses the offset from it."""
    frozen_stages: int = Field(2, ge=0)
    """Number of stages at the start of the backbone that keep their ImageNet weights. The stem keeps its
    weights with them. 0: all weights are trained."""
    neck: Literal["flatten", "lstm", "hourglass"] = "flatten"
    """Module between the backbone's feature maps and the feature vector, see `rgsiam_training.model.necks`."""
    rotation: RotationOutput = "quaternion"
    """Rotation parameters that the global pose unit regresses. The bundle's network always outputs unit
    quaternions."""
    metric_size: int = Field(128, ge=8)
    """Length of the metric feature, which is used to find the nearest map images."""

    @model_validator(mode="after")
    def _size_fits_neck(self) -> NetworkConfig:
        if self.neck == "lstm" and self.feature_size % (4 * LSTM_ROWS):
            raise ValueError(
                f"feature_size is {self.feature_size}: the neck lstm needs a multiple of {4 * LSTM_ROWS}"
            )
        return self


class TermConfig(_Section):
    """Switch and weight of one loss term."""

    enabled: bool = True
    weight: float = Field(1.0, gt=0.0)
    """Fixed weight ``w`` of the term's errors, see `rgsiam_training.losses.weighting.LearnedWeighting`."""


class ReprojectionConfig(TermConfig):
    """Settings of the geometric reprojection term, which needs scene points."""

    enabled: bool = False
    start: float = Field(0.5, ge=0.0, lt=1.0)
    """Share of the training steps after which this term replaces the translation and rotation errors."""
    points: int = Field(64, ge=1)
    """Largest number of scene points that are kept of each image."""


class LossConfig(_Section):
    """The terms of `rgsiam_training.losses`. The last three fields belong to methods that we compare with."""

    global_pose: TermConfig = TermConfig()
    relative_pose: TermConfig = TermConfig()
    consistency: TermConfig = TermConfig(weight=0.3)
    metric_distance: TermConfig = TermConfig()
    uncertainty: TermConfig = TermConfig(weight=0.05)
    reprojection: ReprojectionConfig = ReprojectionConfig()
    mapnet_relative: TermConfig = TermConfig(enabled=False)
    fixed_beta_m: float | None = Field(None, gt=0.0)
    """Fixed weight of the rotation error in `global_pose`: metres that one unit of quaternion error counts.
    None: the weight is learned."""

    @model_validator(mode="after")
    def _has_the_errors_it_changes(self) -> LossConfig:
        for name in ("reprojection", "mapnet_relative"):
            if getattr(self, name).enabled and not self.global_pose.enabled:
                raise ValueError(f"{name} changes the errors of global_pose, which is not enabled")
        return self


OVERLAP_TERMS = ("relative_pose", "consistency", "mapnet_relative")
"""Names of the loss terms that count only pairs of images with overlapping views."""
PAIR_TERMS = (*OVERLAP_TERMS, "metric_distance")
"""Names of the loss terms that need pairs of images."""


class OptimisationConfig(_Section):
    """Settings of the optimiser (AdamW) and of the training loop."""

    epochs: int | None = Field(None, ge=1)
    """Number of passes over the training images. None: as many as make `steps` steps."""
    steps: int = Field(1500, ge=1)
    """Number of steps, at least, if `epochs` is not given."""
    batch_pairs: int = Field(16, ge=1)
    """Number of pairs in a batch, over all processes."""
    learning_rate: float = Field(1e-3, gt=0.0)
    """Largest learning rate, which is reached at the end of the warm-up. It then decays to zero."""
    backbone_learning_rate_factor: float = Field(0.5, gt=0.0, le=1.0)
    """Learning rate of the backbone divided by that of the other modules."""
    weighting_learning_rate: float = Field(2e-2, gt=0.0)
    """Learning rate of the learned loss weights. It is high because they must change far in few steps."""
    weight_decay: float = Field(0.02, ge=0.0)
    warmup_fraction: float = Field(0.1, gt=0.0, lt=1.0)
    """Share of the steps in which the learning rate rises linearly."""
    average_decay: float = Field(0.99, ge=0.0, lt=1.0)
    """Decay per step of the moving average of the weights, which is validated and exported. 0: no average."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """``bf16-mixed`` turns on bfloat16 autocast. docs/training.md says where it helps."""
    patience: int = Field(0, ge=0)
    """Training stops after this many validations without a better median position error. 0: it never stops
    early."""


class MapImagesConfig(_Section):
    """Which training images become map images. The bundle holds their metric features, which find the map images
    that a live image resembles and tell how far the absolute branch can be trusted.
    """

    spacing: float = Field(1.0 / 16.0, ge=0.0)
    """Smallest distance between two map images, in units of `PairConfig.reach_m`. 0 keeps all images."""
    spacing_deg: float = Field(5.0, gt=0.0)
    """Rotation that counts as much as the distance `spacing`, degrees."""
    neighbours: int = Field(8, ge=1, le=64)
    """Number of map images that a live image is compared with."""


class TrainingConfig(_Section):
    """The configuration of a training run."""

    datasets: tuple[str, ...] = Field(min_length=1)
    """Paths of the sessions, which must be of one map and one camera."""
    topics: BagTopics = Field(default_factory=BagTopics)
    """Topics to read from bags."""
    time_offset: float | Literal["auto"] = "auto"
    """Images show where the camera was this many seconds before their stamps; auto: as the images say."""
    refine_camera: bool = False
    """Whether the focal length is estimated from the images."""
    seed: int = Field(0, ge=0)
    """Seed of all random numbers: split, initial weights, pairs, augmentation."""
    input_width: int = Field(160, ge=32, le=LARGEST_SIDE)
    """Width of the network's input, pixels."""
    input_height: int | None = Field(None, ge=32, le=LARGEST_SIDE)
    """Height of the network's input, pixels. None: that of the camera's aspect, so that nothing is cropped."""
    split: SplitConfig = SplitConfig()
    pairs: PairConfig = PairConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    network: NetworkConfig = NetworkConfig()
    losses: LossConfig = LossConfig()
    map_images: MapImagesConfig = MapImagesConfig()
    optimisation: OptimisationConfig = OptimisationConfig()

    def why_no_export(self) -> str:
        """Why a network with these settings cannot be exported, and what to do; empty if it can."""
        if self.network.neck == "lstm":
            return (
                "a network with LSTMs cannot be exported, because ONNX would fix its batch size: train with "
                "network.neck flatten or hourglass"
            )
        if not self.losses.global_pose.enabled:
            return "without losses.global_pose there is no absolute branch to export: train with it enabled"
        return ""

    def with_settings(self, settings: Mapping[str, Any]) -> TrainingConfig:
        """Return a copy with some fields replaced.

        settings: new values by dotted field name. Raises DatasetError for an unknown field or a wrong value.
        """
        return _validated(self.model_dump(mode="json"), settings, (), "settings")

    def save(self, path: Path) -> None:
        """Write the configuration to a YAML file."""
        path.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))


def load_config(
    path: Path | None, overrides: Mapping[str, Any], assignments: Sequence[str] = ()
) -> TrainingConfig:
    """Load a configuration from a YAML file, then apply `overrides`, then `assignments`.

    path: None starts from the defaults. overrides: values by dotted field name; None values are ignored.
    assignments: texts ``NAME=VALUE``, each a dotted field name and a YAML value, as given to ``--set``.
    Raises DatasetError, which names the file and the wrong fields.
    """
    try:
        tree = {} if path is None else yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DatasetError(f"training configuration {path} cannot be read: {error}") from error
    if not isinstance(tree, dict):
        raise DatasetError(f"training configuration {path} is not a YAML mapping of field names")
    settings = {name: value for name, value in overrides.items() if value is not None}
    return _validated(tree, settings, assignments, str(path or "from the command line"))


def default_of(name: str) -> Any:
    """Return the default value of a field. name: dotted, as for ``--set``."""
    value: Any = TrainingConfig(datasets=("-",))
    for field in name.split("."):
        value = getattr(value, field)
    return value


def _validated(
    tree: Mapping[str, Any],
    settings: Mapping[str, Any],
    assignments: Sequence[str],
    source: str,
) -> TrainingConfig:
    """Return the configuration in `tree` after `settings` and `assignments` are applied to it.

    source: where `tree` is from, for error messages.
    """
    for text in assignments:
        if not text.partition("=")[0].strip() or "=" not in text:
            raise DatasetError(f"--set {text!r} is not NAME=VALUE, for example pairs.reach_m=1")
    try:
        merged = OmegaConf.create(dict(tree))
        for name, value in settings.items():
            OmegaConf.update(merged, name, value, merge=False)
        complete = OmegaConf.merge(merged, OmegaConf.from_dotlist(list(assignments)))
        return TrainingConfig.model_validate(OmegaConf.to_container(complete))
    except ValidationError as error:
        problems = []
        for item in error.errors():
            name = ".".join(str(key) for key in item["loc"]) or "all fields"
            unknown = item["type"] == "extra_forbidden"
            problems.append(f"{name}: {'there is no such field' if unknown else item['msg']}")
        text = "; ".join(problems)
        raise DatasetError(f"training configuration {source}: {text}") from error
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise DatasetError(f"training configuration {source}: {error}") from error
