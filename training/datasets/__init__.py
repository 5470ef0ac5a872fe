"""Datasets of posed images. Each loader is one small file that yields the same typed frames."""

from rgsiam_training.datasets.base import Dataset, Frame, fingerprint
from rgsiam_training.datasets.opening import open_dataset

__all__ = ["Dataset", "Frame", "fingerprint", "open_dataset"]
