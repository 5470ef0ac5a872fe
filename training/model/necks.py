"""Necks: modules that compute an image's feature vector from the backbone's feature maps.

All take the maps ``[(B, C, h, w), .., (B, C', h', w')]``, fine to coarse, and return features ``(B, F)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rgsiam_training.config import LSTM_ROWS, NetworkConfig

HOURGLASS_STRIDE = 8
"""Stride of the finest feature map that `HourglassNeck` needs."""
HOURGLASS_CHANNELS = 64
HOURGLASS_CHANNELS_OUT = 16


def create_neck(config: NetworkConfig, shapes: Sequence[torch.Size]) -> nn.Module:
    """Create the neck that `NetworkConfig.neck` names.

    shapes: shapes of the feature maps without the batch dimension, fine to coarse.
    """
    kinds = {"flatten": FlattenNeck, "lstm": LstmNeck, "hourglass": HourglassNeck}
    return kinds[config.neck](config, shapes)


class FlattenNeck(nn.Sequential):
    """Reduces the channels of the coarsest map and flattens it.

    The map is not pooled, because the position of an object in the image distinguishes neighbouring poses.
    """

    def __init__(self, config: NetworkConfig, shapes: Sequence[torch.Size]) -> None:
        channels, height, width = shapes[-1]
        super().__init__(
            nn.Conv2d(channels, config.neck_channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(config.neck_channels),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(config.neck_channels * height * width, config.feature_size),
            nn.ReLU(inplace=True),
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the features ``(B, F)``."""
        return super().forward(maps[-1])


class LstmNeck(nn.Module):
    """Our reading of the LSTM neck of Walch et al. 2017 (arXiv 1611.07890).

    The feature vector of `FlattenNeck` is reshaped to a rectangle. Four LSTMs read it upwards, downwards, to
    the left and to the right. Their last states form the feature vector.
    """

    def __init__(self, config: NetworkConfig, shapes: Sequence[torch.Size]) -> None:
        super().__init__()
        self.flatten = FlattenNeck(config, shapes)
        columns, hidden = config.feature_size // LSTM_ROWS, config.feature_size // 4
        self.down_and_up = nn.LSTM(columns, hidden, batch_first=True, bidirectional=True)
        self.right_and_left = nn.LSTM(LSTM_ROWS, hidden, batch_first=True, bidirectional=True)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the features ``(B, F)``."""
        feature = self.flatten(maps)
        grid = feature.reshape(len(feature), LSTM_ROWS, -1)
        start = feature.new_zeros(2, len(feature), self.down_and_up.hidden_size)
        _, (vertical, _) = self.down_and_up(grid, (start, start))
        _, (horizontal, _) = self.right_and_left(grid.transpose(1, 2), (start, start))
        return torch.cat([*vertical, *horizontal], dim=1)


class HourglassNeck(nn.Module):
    """Our reading of the hourglass network of Melekhov et al. 2017 (arXiv 1703.07971).

    The coarsest map is enlarged step by step to the size of the finest one, which has stride 8. At each step the backbone's map
    of that size is added. The result is flattened.
    """

    def __init__(self, config: NetworkConfig, shapes: Sequence[torch.Size]) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Conv2d(shape[0], HOURGLASS_CHANNELS, kernel_size=1) for shape in shapes
        )
        self.smooth = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(HOURGLASS_CHANNELS, HOURGLASS_CHANNELS, 3, padding=1, bias=False),
                nn.BatchNorm2d(HOURGLASS_CHANNELS),
                nn.ReLU(inplace=True),
            )
            for _ in shapes[:-1]
        )
        _, height, width = shapes[0]
        self.reduce = nn.Sequential(
            nn.Conv2d(HOURGLASS_CHANNELS, HOURGLASS_CHANNELS_OUT, kernel_size=1, bias=False),
            nn.BatchNorm2d(HOURGLASS_CHANNELS_OUT),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(HOURGLASS_CHANNELS_OUT * height * width, config.feature_size),
            nn.ReLU(inplace=True),
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the features ``(B, F)``."""
        merged = self.lateral[-1](maps[-1])
        for lateral, smooth, finer in zip(
            self.lateral[-2::-1], self.smooth, maps[-2::-1], strict=True
        ):
            merged = F.interpolate(merged, size=finer.shape[2:], mode="nearest")
            merged = smooth(merged + lateral(finer))
        return self.reduce(merged)
