"""The images that a comparison's methods train on, for those that make a map instead."""

from __future__ import annotations

from rgsiam_ros.recordings.base import Dataset, frames_of
from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.recordings.levels import levels_of, with_levels
from rgsiam_ros.recordings.subset import Subset
from rgsiam_training.config import TrainingConfig
from rgsiam_training.data.splits import split_frames


def training_images(config: TrainingConfig) -> list[Dataset]:
    """For each session, its frames that are not held out; sessions without any are left out.

    16-bit images are scaled by `levels_of` them.
    """
    datasets = [open_dataset(path, split="train", topics=config.topics) for path in config.datasets]
    training, _ = split_frames(frames_of(datasets), config.split, config.pairs.reach_m, config.seed)
    parts, first = [], 0
    for dataset in datasets:
        last = first + len(dataset.frames)
        own = training[(training >= first) & (training < last)] - first
        if len(own):
            parts.append(Subset(dataset, own))
        first = last
    levels = levels_of(parts)
    return [with_levels(part, levels) for part in parts]
