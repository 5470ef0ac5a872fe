"""Datasets whose 16-bit images are scaled by the range of their values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from rgsiam_ros.camera.levels import Levels, measured_levels
from rgsiam_ros.camera.preprocessing import ImageBGR
from rgsiam_ros.recordings.base import Dataset, SourceImage

IMAGES_OF_A_DATASET = 20
"""Number of images that the range is measured on, spread over each dataset."""


@dataclass(frozen=True)
class _Scaled:
    image: SourceImage
    levels: Levels

    @property
    def content(self) -> bytes:
        return self.image.content

    def decode(
        self, enough: tuple[int, int] | None = None, levels: Levels | None = None
    ) -> ImageBGR:
        return self.image.decode(enough, levels or self.levels)


class ScaledDataset:
    """A dataset whose 16-bit images are scaled by given levels. See `rgsiam_ros.recordings.base.Dataset`."""

    def __init__(self, dataset: Dataset, levels: Levels) -> None:
        self.path, self.camera, self.map_frame = dataset.path, dataset.camera, dataset.map_frame
        self.frames, self.dropped = dataset.frames, dataset.dropped
        self._dataset, self._levels = dataset, levels

    def read_images(self) -> Iterator[SourceImage]:
        """Yield the image of each of `frames`, in order."""
        return (_Scaled(image, self._levels) for image in self._dataset.read_images())


def levels_of(datasets: Sequence[Dataset]) -> Levels | None:
    """The levels of the datasets' 16-bit images; None for images of 8 bits. Raises DatasetError."""
    images = []
    for dataset in datasets:
        step = max(1, len(dataset.frames) // IMAGES_OF_A_DATASET)
        for index, image in enumerate(dataset.read_images()):
            if index == 0 and measured_levels([partial(image.decode, None)]) is None:
                return None
            if index % step == 0:
                images.append(partial(image.decode, None))
    return measured_levels(images)


def with_levels(dataset: Dataset, levels: Levels | None) -> Dataset:
    """The dataset with its 16-bit images scaled by these levels. levels: None for an unchanged one."""
    return dataset if levels is None else ScaledDataset(dataset, levels)
