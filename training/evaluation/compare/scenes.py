"""Scenes of a comparison: training sessions, a test session, and the settings that suit the place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rgsiam_ros.errors import DatasetError
from rgsiam_training.config import TrainingConfig


class Scene(BaseModel):
    """Sessions to train on and a session to test with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    train: tuple[str, ...] = Field(min_length=1)
    test: str
    settings: dict[str, Any] = {}
    """Nested fields of `TrainingConfig` that all presets get, for example image size and reach."""

    def config(self, seed: int) -> TrainingConfig:
        """The configuration without a preset. Unless the settings say otherwise, labels are taken as they are,
        because not every method can be given others. Raises DatasetError for invalid settings.
        """
        try:
            return TrainingConfig.model_validate(
                {"time_offset": 0.0} | self.settings | {"datasets": self.train, "seed": seed}
            )
        except ValidationError as error:
            raise DatasetError(f"scene {self.name}: settings: {error}") from error


def open_scene(text: str) -> Scene:
    """The scene that a command line argument names. Raises DatasetError for an unusable YAML file.

    text: one of three forms. A YAML file with the fields of `Scene`, whose paths are relative to its folder;
    a dataset with its own test split; or ``TRAIN:TEST``, two datasets.
    """
    path = Path(text)
    if path.suffix in (".yaml", ".yml"):
        try:
            scene = Scene.model_validate(yaml.safe_load(path.read_text()))
        except (OSError, yaml.YAMLError, ValidationError) as error:
            raise DatasetError(f"scene {path}: {error}") from error

        def absolute(name: str) -> str:
            return str((path.parent / name).resolve())

        return scene.model_copy(
            update={"train": tuple(map(absolute, scene.train)), "test": absolute(scene.test)}
        )
    train, _, test = text.partition(":")
    return Scene(name=Path(train).name, train=(train,), test=test or train)
