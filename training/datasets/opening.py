"""Tell what kind of dataset a path is, and open it."""

from __future__ import annotations

from pathlib import Path

from rgsiam_ros.bags import BagTopics
from rgsiam_ros.errors import DatasetError
from rgsiam_training.datasets.base import Dataset
from rgsiam_training.datasets.rosbag import RosbagDataset
from rgsiam_training.datasets.seven_scenes import SevenScenesDataset

BAG_ENDINGS = (".mcap", ".db3", ".bag")


def open_dataset(
    path: str | Path, split: str = "train", topics: BagTopics | None = None
) -> Dataset:
    """Open a 7-Scenes folder (`split` chooses its train or test sequences) or a bag.

    Raises DatasetError or BagError with what is wrong.
    """
    folder = Path(path)
    if not folder.exists():
        raise DatasetError(f"{folder} does not exist")
    if (folder / "TrainSplit.txt").is_file():
        return SevenScenesDataset(folder, split)
    if (folder / "metadata.yaml").is_file() or folder.suffix in BAG_ENDINGS:
        return RosbagDataset(folder, topics or BagTopics())
    raise DatasetError(
        f"{folder} is neither a bag (metadata.yaml) nor a 7-Scenes folder (TrainSplit.txt)"
    )
