"""Reading of the files of a run folder. Nothing in them is executed, and a damaged one is named in one line."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from rgsiam_ros.errors import DatasetError


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. Raises DatasetError.

    Only tensors and plain values are read. A checkpoint that holds any other object is refused, because
    unpickling such an object can run code.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DatasetError(
            f"{path} holds more than weights, so it may run code when it is read, or it is damaged: do not use it, "
            "train again"
        ) from error
    except Exception as error:  # torch raises many kinds for damaged files
        raise DatasetError(
            f"{path} is truncated or damaged ({_first_line(error)}): copy the run again, or train again"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise DatasetError(f"{path} is not a checkpoint of `rgsiam train`: train again")
    return content


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, NDArray]:
    """These arrays of an npz file. Raises DatasetError if one is missing or the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(
            f"{path} is truncated or damaged ({_first_line(error)}): copy the run again, or train again"
        ) from error


def image_keys(image_NHW3: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """A number for each image, equal for equal images: by it a run knows the images that it was trained on."""
    digests = [hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in image_NHW3]
    return np.frombuffer(b"".join(digests), np.uint64)


def read_description(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises DatasetError."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DatasetError(f"{path} cannot be read ({_first_line(error)}): train again") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path} is not a YAML mapping: train again")
    return content


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
