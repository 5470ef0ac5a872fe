"""Some frames of a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from rgsiam_ros.recordings.base import Dataset, SourceImage


class Subset:
    """Some frames of a dataset, in its order. See `rgsiam_ros.recordings.base.Dataset`."""

    def __init__(self, dataset: Dataset, kept: Iterable[int]) -> None:
        """kept: indices of the frames."""
        self.path, self.camera, self.map_frame = dataset.path, dataset.camera, dataset.map_frame
        self.dropped = dataset.dropped
        self._dataset, self._kept = dataset, {int(i) for i in kept}
        self.frames = [dataset.frames[i] for i in sorted(self._kept)]

    def read_images(self) -> Iterator[SourceImage]:
        """The images of these frames."""
        images = islice(self._dataset.read_images(), max(self._kept, default=-1) + 1)
        return (image for i, image in enumerate(images) if i in self._kept)
