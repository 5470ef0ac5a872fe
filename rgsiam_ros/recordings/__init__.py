"""Loaders for datasets of images with known poses. Each format has a module; all return the same types."""

from rgsiam_ros.recordings.base import (
    Dataset,
    Dropped,
    Frame,
    PointDataset,
    describe_dropped,
    fingerprint,
)
from rgsiam_ros.recordings.formats import open_dataset, open_test_side

__all__ = [
    "Dataset",
    "Dropped",
    "Frame",
    "PointDataset",
    "describe_dropped",
    "fingerprint",
    "open_dataset",
    "open_test_side",
]
