"""A small network of random weights. Needs torch."""

import torch

from rgsiam_training.config import NetworkConfig
from rgsiam_training.model.network import SiameseNetwork

ANCHORS = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
SMALL = NetworkConfig(backbone="test_resnet", pretrained=False, neck_channels=8, feature_size=32)

TERMS = {
    "global_pose": {"translation", "rotation", "anchor"},
    "relative_pose": {"relative_translation", "relative_rotation"},
    "consistency": {"consistency_translation", "consistency_rotation"},
    "metric_distance": {"metric"},
    "uncertainty": {"uncertainty"},
}


def siamese(config=SMALL, height=64, width=96):
    return SiameseNetwork(config, height, width, ANCHORS)


def images(count, seed=1):
    return torch.rand(count, 3, 64, 96, generator=torch.Generator().manual_seed(seed))
