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
    return built_from(manifest, fingerprint([dataset]))


def built_from(manifest: Manifest, data: str | None) -> bool:
    """Whether a fingerprint is of a session that the bundle was built from. Data without labels has none."""
    recorded, geometry = manifest.mapping_data, manifest.geometry
    in_map = () if geometry is None else (session.fingerprint for session in geometry.sessions)
    return data is not None and data in (recorded.fingerprint, *recorded.sessions, *in_map)


def fingerprint_of_bag(bag: Path, topics: BagTopics) -> str | None:
    """The fingerprint of a bag's labelled images; None if it has no labels."""
    try:
        return fingerprint([RosbagDataset(bag, topics)])
    except (BagError, DatasetError):
        return None


def describe_seen(manifest: Manifest) -> str:
    """What to say about figures on such data."""
    return (
        f"bundle {manifest.name} was built from these images: the errors, trust and covariance figures say nothing about "
        "other drives. Measure on a session that it has never seen"
    )
