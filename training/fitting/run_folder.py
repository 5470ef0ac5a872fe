"""Reading of a training run from its folder: configuration, network, held-out images and map images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from rgsiam_ros.bundle import network_io
from rgsiam_ros.bundle.parts import LabelCorrection, MapExtent, Target
from rgsiam_ros.camera.model import Camera, match_view
from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_ros.errors import CameraError, DatasetError
from rgsiam_ros.geometry.poses import Array
from rgsiam_ros.recordings.base import Dataset
from rgsiam_ros.recordings.formats import open_split
from rgsiam_ros.recordings.time_offset import with_time_offset
from rgsiam_training.config import TrainingConfig, load_config
from rgsiam_training.fitting.lightning_module import MapScale, RelocalizationModule
from rgsiam_training.fitting.run_files import (
    image_keys,
    read_arrays,
    read_checkpoint,
    read_description,
)
from rgsiam_training.fitting.train import (
    BEST_NAME,
    CHECKPOINT_NAME,
    CONFIG_NAME,
    DATA_NAME,
    MAPPING_NAME,
    VALIDATION_NAME,
)
from rgsiam_training.model.network import AbsoluteBranch, SiameseNetwork


@dataclass(frozen=True)
class StoredImages:
    """Images at the network's input size with their true poses."""

    image_NHW3: NDArray[np.uint8]
    """BGR."""
    T_map_camera_N44: Array
    """True poses of the camera's optical frame."""


class Run:
    """A training run that `rgsiam_training.fitting.train` wrote to a folder."""

    def __init__(self, folder: Path, config: TrainingConfig, data: dict[str, Any]) -> None:
        self.folder = folder
        self.config = config
        self._data = data
        self.preprocessing = Preprocessing.model_validate(data["preprocessing"])
        self.camera = Camera.model_validate(data["camera"])
        self.target = Target.model_validate(data["target"])
        self.labels = LabelCorrection.model_validate(data.get("labels", {}))
        self.extent = MapExtent.model_validate(data.get("extent", {}))

    def description(self, name: str) -> dict[str, Any]:
        """Return the manifest's fields outside its parts that come from the run. name: of the bundle."""
        copied = ("map_frame", "camera", "mapping_data")
        return {"name": name} | {key: self._data[key] for key in copied}

    @cached_property
    def validation(self) -> StoredImages:
        """The held-out images. Raises DatasetError when the run does not have them."""
        return self._images(VALIDATION_NAME)

    @cached_property
    def mapping(self) -> StoredImages:
        """The map images, which also calibrate int8. Raises DatasetError when the run does not have them."""
        return self._images(MAPPING_NAME)

    def open_sessions(self, paths: Sequence[str], split: str) -> list[Dataset]:
        """Open sessions with the topics and the time offset of the run.

        Raises DatasetError, before any image is read, if the camera or the map frame does not fit the run.
        """
        sessions = []
        for path in paths:
            dataset = open_split(path, split, self.config.topics)
            try:
                match_view(dataset.camera.with_focal_scale(self.labels.focal_scale), self.camera)
            except CameraError as error:
                raise DatasetError(f"{path}: {error}") from error
            if dataset.map_frame != self._data["map_frame"]:
                raise DatasetError(
                    f"{path}: its true poses are in the frame {dataset.map_frame}, those of {self.folder} in "
                    f"{self._data['map_frame']}: give a session of the same map"
                )
            sessions.append(with_time_offset(dataset, self.labels.time_offset_s))
        return sessions

    def trained_on(self, image_NHW3: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which of these images at the network's input size the run was trained on, ``(N,)`` bool."""
        keys = read_arrays(self.folder / MAPPING_NAME, ("trained_key_M",))["trained_key_M"]
        return np.isin(image_keys(image_NHW3), keys)

    def absolute_branch(self) -> AbsoluteBranch:
        """Return the absolute branch of the averaged network for a bundle, in evaluation mode.

        It always outputs translation and rotation. It outputs the precision factor only if the loss term
        `uncertainty` trained it, and the metric feature only if `metric_distance` trained it.
        """
        names = [network_io.TRANSLATION, network_io.ROTATION]
        if self.config.losses.uncertainty.enabled:
            names.append(network_io.PRECISION_FACTOR)
        if self.config.losses.metric_distance.enabled:
            names.append(network_io.METRIC_FEATURE)
        return AbsoluteBranch(self.network, tuple(names)).eval()

    @cached_property
    def network(self) -> SiameseNetwork:
        """The averaged network, in evaluation mode, from the checkpoint of the best validation if there is one,
        else from the last checkpoint. Raises DatasetError when there is none.
        """
        best = self.folder / BEST_NAME
        path = best if best.is_file() else self.folder / CHECKPOINT_NAME
        if not path.is_file():
            raise DatasetError(
                f"{path} does not exist: train first, or wait until the first epoch ends"
            )
        untrained = self.config.model_copy(
            update={"network": self.config.network.model_copy(update={"pretrained": False})}
        )
        state = read_checkpoint(path)["state_dict"]
        try:
            anchors_K3 = state["network.global_unit.anchors_K3"].numpy()
            origin_m = np.asarray(self.target.origin_m)
            scale = MapScale(origin_m, self.target.scale_m, anchors_K3, self.camera)
            images = len(state["last_feature_ND"])
            module = RelocalizationModule(
                untrained, self.preprocessing, scale, steps=1, images=images
            )
            module.load_state_dict(state)
        except (KeyError, AttributeError, TypeError, RuntimeError) as error:
            raise DatasetError(
                f"{path} does not fit {self.folder / CONFIG_NAME}: it is of another run or release, train again"
            ) from error
        network = module.average.module
        assert isinstance(network, SiameseNetwork)
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return network.eval()

    def _images(self, name: str) -> StoredImages:
        if not (self.folder / name).is_file():
            raise DatasetError(f"{self.folder / name} does not exist: train again to create it")
        stored = read_arrays(self.folder / name, ("image_NHW3", "T_map_camera_N44"))
        return StoredImages(**stored)


def open_run(folder: Path) -> Run:
    """Open the training run in `folder`. Raises DatasetError when the folder is not a training run."""
    for name in (CONFIG_NAME, DATA_NAME, VALIDATION_NAME):
        if not (folder / name).is_file():
            raise DatasetError(f"{folder / name} does not exist: {folder} is not a training run")
    data = read_description(folder / DATA_NAME)
    if "mapping_data" not in data:
        raise DatasetError(f"{folder / DATA_NAME} is of an older release: train again")
    config = load_config(folder / CONFIG_NAME, {})
    try:
        return Run(folder, config, data)
    except (KeyError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"{folder / DATA_NAME} is damaged ({reason}): train again") from error
