"""The folder of local features' networks that were tuned on a user's own drives (`rgsiam tune-features`)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from pydantic import Field, ValidationError

from rgsiam_ros.bundle.manifest import Sha256
from rgsiam_ros.bundle.onnx_check import check_onnx
from rgsiam_ros.bundle.parts import StrictModel
from rgsiam_ros.bundle.precision import local_features_name
from rgsiam_ros.camera.preprocessing import Preprocessing
from rgsiam_ros.errors import BundleError, DatasetError
from rgsiam_ros.features.network import FeatureNetworks, network_shapes
from rgsiam_ros.mapping.labels import read_labels
from rgsiam_ros.mapping.precisions import REDUCED
from rgsiam_ros.recordings.base import Dataset

DESCRIPTION_NAME = "features.yaml"
FRAMES_NAME = "frames.txt"
"""A digest of each frame that the network was tuned on, one a line."""
NETWORK_NAMES = tuple(dict.fromkeys(map(local_features_name, ("float32", *REDUCED))))
LARGEST_FILE = 64 * 1024 * 1024
AGAIN = "tune again with `rgsiam tune-features`"


class TunedOn(StrictModel):
    """What a network was tuned on."""

    source: str
    fingerprint: Sha256
    """Of all frames of the datasets, see `rgsiam_ros.recordings.base.fingerprint`."""
    frames: int = Field(ge=1)
    """Number of frames that were used."""


class TunedFeatures(StrictModel):
    """``features.yaml``: where tuned networks come from."""

    schema_version: Literal[1] = 1
    name: str
    licence: str
    origin: str
    tuned_on: TunedOn
    feature_width: int = Field(ge=64, le=2048)
    """Width of the image that the network was tuned for, pixels."""
    seed: int
    steps: int = Field(ge=1)
    versions: dict[str, str]
    files: dict[str, Sha256]
    """SHA-256 of each other file of the folder."""

    def exported_with(self) -> str:
        """One line for the manifest of a bundle."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return (
            f"{self.origin}; tuned on {self.tuned_on.frames} frames of {self.tuned_on.source} "
            f"(fingerprint {self.tuned_on.fingerprint}), {self.steps} steps, seed {self.seed}, {versions}"
        )


def frame_digests(datasets: Sequence[Dataset]) -> list[str]:
    """A digest of stamp and stored image of each frame, 16 hex digits, in order."""
    return [
        hashlib.sha256(np.int64(frame.stamp_ns).tobytes() + image.content).hexdigest()[:16]
        for dataset in datasets
        for frame, image in zip(dataset.frames, dataset.read_images(), strict=True)
    ]


def contents_of(
    description: Mapping[str, object], networks: Mapping[str, bytes], digests: Sequence[str]
) -> dict[str, bytes]:
    """The files of a folder, by name. description: fields of `TunedFeatures` except ``files``."""
    files = {**networks, FRAMES_NAME: "".join(f"{digest}\n" for digest in digests).encode()}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    whole = TunedFeatures.model_validate({**description, "files": sums})
    text = yaml.safe_dump(whole.model_dump(mode="json"), sort_keys=False, width=100)
    return {**files, DESCRIPTION_NAME: text.encode()}


def load_features(
    folder: Path, preprocessing: Preprocessing, datasets: Sequence[Dataset]
) -> FeatureNetworks:
    """The tuned networks of a folder, for a map of `datasets`.

    Raises BundleError if the folder is damaged, lacks a precision of the package, or was tuned for images of
    another width. Raises DatasetError if the network was tuned on frames that validate the map: its errors
    on them would be smaller than on another drive.
    """
    described = _description(folder)
    contents = {
        name: _content(folder / name, described.files.get(name))
        for name in (*NETWORK_NAMES, FRAMES_NAME)
    }
    if round(described.feature_width / 32) != round(preprocessing.input_width / 32):
        raise BundleError(
            f"{folder} was tuned for images {described.feature_width} pixels wide, not "
            f"{preprocessing.input_width}: give both commands the same --feature-width"
        )
    inputs, outputs = network_shapes(preprocessing)
    for name in NETWORK_NAMES:
        check_onnx(contents[name], folder / name, inputs, outputs)
    held_out = list(compress(frame_digests(datasets), read_labels(datasets).held_out_N))
    seen = len(set(contents[FRAMES_NAME].decode(errors="replace").split()).intersection(held_out))
    if seen:
        raise DatasetError(
            f"{folder} was tuned on {seen} of the {len(held_out)} frames that validate this map: give "
            "`rgsiam tune-features` the same datasets in the same order, and the same --time-offset"
        )
    return FeatureNetworks(
        described.name, described.licence, described.exported_with(), contents.__getitem__
    )


def _description(folder: Path) -> TunedFeatures:
    path = folder / DESCRIPTION_NAME
    try:
        return TunedFeatures.model_validate(yaml.safe_load(_content(path)))
    except (yaml.YAMLError, ValidationError) as error:
        why = " ".join(str(error).split())[:200]
        raise BundleError(f"{path} is damaged ({why}): {AGAIN}") from error


def _content(path: Path, digest: str | None = "") -> bytes:
    """A file's bytes. digest: its SHA-256, empty for any, None if the description does not list it."""
    try:
        if digest is None:
            raise OSError(f"{DESCRIPTION_NAME} does not list it")
        if path.stat().st_size > LARGEST_FILE:
            raise OSError(f"it is larger than {LARGEST_FILE} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be used ({error}): {AGAIN}") from error
    if digest and hashlib.sha256(content).hexdigest() != digest:
        raise BundleError(f"{path} is not the file that {DESCRIPTION_NAME} lists: {AGAIN}")
    return content
