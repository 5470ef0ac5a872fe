"""What is compared on: training sessions, a test session, and the settings that fit the place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rgsiam_ros.errors import DatasetError
from rgsiam_training.config import TrainingConfig


class Scene(BaseModel):
    """A map to train on and a session to test with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    train: tuple[str, ...] = Field(min_length=1)
    test: str
    settings: dict[str, Any] = {}
    """Fields of `TrainingConfig`, nested, for every preset: image size, reach, augmentation, ..."""

    def config(self, seed: int) -> TrainingConfig:
        """The configuration before any preset. Raises DatasetError for unknown settings."""
        try:
            return TrainingConfig.model_validate(
                self.settings | {"datasets": self.train, "seed": seed}
            )
        except ValidationError as error:
            raise DatasetError(f"scene {self.name}: settings: {error}") from error


def open_scene(text: str) -> Scene:
    """A scene from what was typed: a YAML of `Scene` (paths in it from its own folder), a dataset with
    a test split of its own, or ``TRAIN:TEST``. Raises DatasetError.
    """
    path = Path(text)
    if path.suffix in (".yaml", ".yml"):
        try:
            scene = Scene.model_validate(yaml.safe_load(path.read_text()))
        except (OSError, yaml.YAMLError, ValidationError) as error:
            raise DatasetError(f"scene {path}: {error}") from error

        def beside(name: str) -> str:
            return str((path.parent / name).resolve())

        return scene.model_copy(
            update={"train": tuple(map(beside, scene.train)), "test": beside(scene.test)}
        )
    train, _, test = text.partition(":")
    return Scene(name=Path(train).name, train=(train,), test=test or train)
