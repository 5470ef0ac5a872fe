"""Tell whether a bundle was built from the images that it is measured on."""

from __future__ import annotations

from pathlib import Path

from rgsiam_ros.bundle import Manifest
from rgsiam_ros.errors import BagError, DatasetError
from rgsiam_ros.recordings.base import Dataset, fingerprint
from rgsiam_ros.recordings.rosbag_dataset import RosbagDataset
from rgsiam_ros.recordings.topics import BagTopics


def seen_in_training(manifest: Manifest, dataset: Dataset) -> bool:
    """Return whether the dataset is a session that the bundle was built from, by the fingerprint of its content."""
    data = manifest.mapping_data
    return fingerprint([dataset]) in (data.fingerprint, *data.sessions)


def bag_seen_in_training(manifest: Manifest, bag: Path, topics: BagTopics) -> bool:
    """As `seen_in_training`, for a bag. A bag that has no labels was not trained on."""
    try:
        return seen_in_training(manifest, RosbagDataset(bag, topics))
    except (BagError, DatasetError):
        return False


def describe_seen(manifest: Manifest) -> str:
    """What to say about figures on such data."""
    return (
        f"bundle {manifest.name} was built from these images: the errors, trust and covariance figures say nothing about "
        "other drives. Measure on a session that it has never seen"
    )
