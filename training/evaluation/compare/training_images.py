"""The images that a comparison's methods train on, for those that make a map instead."""

from __future__ import annotations

from rgsiam_ros.recordings.formats import open_dataset
from rgsiam_ros.recordings.subset import Subset
from rgsiam_training.config import TrainingConfig
from rgsiam_training.data.splits import frames_of, split_frames


def training_images(config: TrainingConfig) -> list[Subset]:
    """For each session, its frames that are not held out; sessions without any are left out."""
    datasets = [open_dataset(path, split="train", topics=config.topics) for path in config.datasets]
    training, _ = split_frames(frames_of(datasets), config.split, config.pairs.reach_m, config.seed)
    parts, first = [], 0
    for dataset in datasets:
        last = first + len(dataset.frames)
        own = training[(training >= first) & (training < last)] - first
        if len(own):
            parts.append(Subset(dataset, own))
        first = last
    return parts
