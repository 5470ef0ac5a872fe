"""Tell what kind of dataset a path is, and open it."""

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
from rgsiam_ros.recordings.rosbag import BagTopics
from rgsiam_ros.recordings.rosbag_dataset import RosbagDataset
from rgsiam_ros.recordings.seven_scenes import SevenScenesDataset
from rgsiam_ros.recordings.tum_rgbd import TumRgbdDataset

BAG_ENDINGS = (".mcap", ".db3", ".bag")


@dataclass(frozen=True)
class Format:
    """A layout of datasets."""

    name: str
    layout: str
    """How it is recognised, for people."""
    recognise: Callable[[Path], bool]
    open: Callable[[Path, str, BagTopics], Dataset]
    has_splits: bool = True
    """False: a path is one session, whatever split is asked for."""


FORMATS = (
    Format(
        "bag",
        "metadata.yaml in the folder, or an .mcap, .db3 or .bag file",
        lambda path: (path / "metadata.yaml").is_file() or path.suffix in BAG_ENDINGS,
        lambda path, split, topics: RosbagDataset(path, topics),
        has_splits=False,
    ),
    Format(
        "7-Scenes",
        "TrainSplit.txt",
        lambda path: (path / "TrainSplit.txt").is_file(),
        lambda path, split, topics: SevenScenesDataset(path, split),
    ),
    Format(
        "Cambridge Landmarks",
        "dataset_train.txt",
        lambda path: (path / "dataset_train.txt").is_file(),
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
    """What kind of dataset a path is. Raises DatasetError for none, or more than one."""
    if not path.exists():
        raise DatasetError(f"{path} does not exist")
    found = [known for known in FORMATS if known.recognise(path)]
    if len(found) == 1:
        return found[0]
    if found:
        names = " and ".join(known.name for known in found)
        raise DatasetError(
            f"{path} is {names}: name the one that is meant (PATH/transforms.json, PATH/sparse), or "
            "move one away"
        )
    layouts = "; ".join(f"{known.name}: {known.layout}" for known in FORMATS)
    raise DatasetError(f"{path} is no dataset that is known here ({layouts})")


def open_dataset(
    path: str | Path, split: str = "train", topics: BagTopics | None = None
) -> Dataset:
    """Open a dataset of any of `FORMATS`.

    split: train or test. Bags, TUM RGB-D and KITTI sequences are one session each and ignore it; what
    could have splits but has none gives all its frames as train and refuses test. topics: of bags.

    Raises DatasetError or BagError with what is wrong.
    """
    return find_format(Path(path)).open(Path(path), split, topics or BagTopics())


def open_test_side(path: str | Path, topics: BagTopics | None = None) -> Dataset:
    """A dataset that was named to test with: its test split, or all of it where it has no splits.

    Raises as `open_dataset`.
    """
    try:
        return open_dataset(path, "test", topics)
    except NoSplitError:
        return open_dataset(path, "train", topics)


def own_test_split(path: str | Path, topics: BagTopics | None = None) -> Dataset | None:
    """The test split of a dataset, None where it has none. Raises as `open_dataset`."""
    if not find_format(Path(path)).has_splits:
        return None
    try:
        return open_dataset(path, "test", topics)
    except NoSplitError:
        return None
