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
    "matching": {"matching"},
    "uncertainty": {"uncertainty"},
}


def siamese(config=SMALL, height=64, width=96):
    ray_HW2 = torch.rand(height // 8, width // 8, 2)
    return SiameseNetwork(config, height, width, ANCHORS, ray_HW2, reach=0.5)


def images(count, seed=1):
    return torch.rand(count, 3, 64, 96, generator=torch.Generator().manual_seed(seed))
