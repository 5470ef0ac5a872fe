"""A training that takes seconds: few and small images, a small network. Needs torch."""

from rgsiam_training.config import TrainingConfig

SETTINGS = {
    "time_offset": 0.0,
    "input_width": 96,
    "input_height": 64,
    "split": {"fraction": 0.2, "stretch_frames": 8, "guard_frames": 2},
    "network": {
        "neck_channels": 8,
        "feature_size": 64,
        "anchors": 8,
        "frozen_stages": 5,
    },
    "map_images": {"neighbours": 4, "spacing": 0.25},
    "optimisation": {"epochs": 1, "batch_pairs": 8, "average_decay": 0.5},
}
TINY_BACKBONE = {"backbone": "test_efficientnet", "pretrained": False}
"""A backbone of 82 000 random weights, for tests that do not need the default one."""


def small_settings(**changes):
    """Settings as in a YAML file; changes replace single fields of nested settings."""
    changed = {
        name: {**SETTINGS.get(name, {}), **value} if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return {**SETTINGS, **changed}


def small_training(dataset, **changes):
    return TrainingConfig(datasets=(str(dataset),), **small_settings(**changes))
