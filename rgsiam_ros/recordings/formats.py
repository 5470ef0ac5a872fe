"""Recognise the format of a dataset and open it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.recordings.base import Dataset
from rgsiam_ros.recordings.cambridge import CambridgeDataset
from rgsiam_ros.recordings.colmap import ColmapDataset, find_model
from rgsiam_ros.recordings.csv_table import CsvDataset
from rgsiam_ros.recordings.image_files import NoSplitError
from rgsiam_ros.recordings.kitti import KittiDataset
from rgsiam_ros.recordings.nerfstudio import NerfstudioDataset
from rgsiam_ros.recordings.posed_folder import DATASET_NAME, PosedFolderDataset
from rgsiam_ros.recordings.rosbag_dataset import RosbagDataset
from rgsiam_ros.recordings.seven_scenes import SevenScenesDataset
from rgsiam_ros.recordings.topics import BagTopics
from rgsiam_ros.recordings.tum_rgbd import TumRgbdDataset

BAG_ENDINGS = (".mcap", ".db3", ".bag")


@dataclass(frozen=True)
class Format:
    """A dataset format."""

    name: str
    layout: str
    """The files by which the format is recognised, as text for messages."""
    recognise: Callable[[Path], bool]
    open: Callable[[Path, str, BagTopics], Dataset]
    has_splits: bool = True
    """False for formats in which a path is one session without train and test splits."""


FORMATS = (
    Format(
        "bag",
        "metadata.yaml in the folder, or an .mcap, .db3 or .bag file",
        lambda path: (path / "metadata.yaml").is_file() or path.suffix in BAG_ENDINGS,
        lambda path, split, topics: RosbagDataset(path, topics),
        has_splits=False,
    ),
    Format(
        "posed folder",
        "dataset.yaml, of `rgsiam dataset from-bag`",
        lambda path: (path / DATASET_NAME).is_file(),
        lambda path, split, topics: PosedFolderDataset(path),
        has_splits=False,
    ),
    Format(
        "7-Scenes",
        "TrainSplit.txt or TestSplit.txt",
        lambda path: any((path / f"{name}Split.txt").is_file() for name in ("Train", "Test")),
        lambda path, split, topics: SevenScenesDataset(path, split),
    ),
    Format(
        "Cambridge Landmarks",
        "dataset_train.txt or dataset_test.txt",
        lambda path: any((path / f"dataset_{n}.txt").is_file() for n in ("train", "test")),
        lambda path, split, topics: CambridgeDataset(path, split),
    ),
    Format(
        "TUM RGB-D",
        "rgb.txt and groundtruth.txt",
        lambda path: (path / "rgb.txt").is_file() and (path / "groundtruth.txt").is_file(),
        lambda path, split, topics: TumRgbdDataset(path),
        has_splits=False,
    ),
    Format(
        "KITTI odometry",
        "ROOT/sequences/NN with calib.txt and times.txt",
        lambda path: (path / "calib.txt").is_file() and (path / "times.txt").is_file(),
        lambda path, split, topics: KittiDataset(path),
        has_splits=False,
    ),
    Format(
        "COLMAP",
        "cameras.txt or cameras.bin in the folder, sparse or sparse/0",
        lambda path: find_model(path) is not None,
        lambda path, split, topics: ColmapDataset(path, split),
    ),
    Format(
        "nerfstudio",
        "transforms.json, the file or its folder",
        lambda path: (path / "transforms.json").is_file() or path.suffix == ".json",
        lambda path, split, topics: NerfstudioDataset(path, split),
    ),
    Format(
        "CSV",
        "a .csv file with the header image,x,y,z,qw,qx,qy,qz, camera.yaml beside it",
        lambda path: path.suffix == ".csv",
        lambda path, split, topics: CsvDataset(path, split),
    ),
)


def find_format(path: Path) -> Format:
    """Return the format of the dataset at `path`. Raises DatasetError when none or several fit."""
    if not path.exists():
        raise DatasetError(f"{path} does not exist: give the path of a dataset")
    fitting = [known for known in FORMATS if known.recognise(path)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = " and ".join(known.name for known in fitting)
        raise DatasetError(
            f"{path} fits the formats {names}: give the path of one of them (PATH/transforms.json, "
            "PATH/sparse), or move the files of the other away"
        )
    layouts = "; ".join(f"{known.name}: {known.layout}" for known in FORMATS)
    raise DatasetError(
        f"{path} has no known dataset format. The formats and their files: {layouts}"
    )


def open_dataset(
    path: str | Path, split: str = "train", topics: BagTopics | None = None
) -> Dataset:
    """Open a dataset of any of `FORMATS`.

    split: train or test. Bags, TUM RGB-D and KITTI sequences are one session each and ignore the split. A
    dataset of another format without splits gives all frames for train, and NoSplitError for test.
    topics: the topics of a bag.

    Raises DatasetError or BagError.
    """
    return find_format(Path(path)).open(Path(path), split, topics or BagTopics())


def open_split(path: str | Path, split: str, topics: BagTopics | None = None) -> Dataset:
    """Open a split of a dataset to measure with. A dataset without splits gives all its frames for ``test``.

    Raises the errors of `open_dataset`.
    """
    return open_test_side(path, topics) if split == "test" else open_dataset(path, split, topics)


def open_test_side(path: str | Path, topics: BagTopics | None = None) -> Dataset:
    """Open a dataset for testing: its test split, or all frames when it has no splits.

    Raises the errors of `open_dataset`.
    """
    try:
        return open_dataset(path, "test", topics)
    except NoSplitError as error:
        if error.has_others:
            raise
        return open_dataset(path, "train", topics)


def own_test_split(path: str | Path, topics: BagTopics | None = None) -> Dataset | None:
    """Open the test split of a dataset; None when it has none. Raises the errors of `open_dataset`."""
    if not find_format(Path(path)).has_splits:
        return None
    try:
        return open_dataset(path, "test", topics)
    except NoSplitError:
        return None
