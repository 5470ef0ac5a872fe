"""The relative pose unit: how the second camera stands to the first, from two small feature maps.

Pooled features lose what small motions change, and a regressor on the pair learns its training pairs
by heart. So the unit keeps the places of things: it matches the cells of two feature maps, takes the
depth of the first image's cells from the first image alone, and finds the motion that explains the
matches (`rgsiam_training.model.gauss_newton`). On the vehicle the first image is one of the map's, seen in
training; of the live image only descriptors are used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rgsiam_training.config import RelativeConfig
from rgsiam_training.model.gauss_newton import align, rotation_matrix
from rgsiam_training.model.poses import Poses

FARTHEST, NEAREST = 50.0, 0.25
"""Range of depths that can be said, in units of the reach."""
INITIAL_DEPTH = 1.5
INITIAL_SHARPNESS = 15.0
GEOMETRY_CHANNELS = 2
SMALLEST_SUM = 1e-30
"""Of a column whose cells are all far less alike than the best ones: its softmax does not matter."""


@dataclass(frozen=True)
class RelativeOutput:
    """What the unit says about pairs of images."""

    poses: Poses
    """``T_first_second``, normalised units."""
    information_B66: Tensor
    """Of a small motion of the second camera in its own axes; translation in normalised units."""
    match_BNN: Tensor
    """Probability that a cell of the first image is seen at a cell of the second."""
    point_BN3: Tensor
    """The first image's cells in the first camera, in units of the reach."""


class LocalHead(nn.Module):
    """A backbone's feature map ``(B, C, h, w)`` to the local map ``(B, D + 2, h, w)`` of an image.

    Channels: D of a descriptor of unit length, the inverse depth in 1 / reach, and a weight in 0..1.
    """

    def __init__(self, channels: int, config: RelativeConfig) -> None:
        super().__init__()
        hidden = config.hidden_channels
        self.normalise = nn.BatchNorm2d(channels, affine=False)
        self.trunk = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
        )
        self.descriptor = nn.Conv2d(hidden, config.descriptor_size, 1)
        self.skip = nn.Conv2d(channels, config.descriptor_size, 1)
        self.geometry = nn.Conv2d(hidden, GEOMETRY_CHANNELS, 1)
        nearest, farthest = 1.0 / NEAREST, 1.0 / FARTHEST
        start = (1.0 / INITIAL_DEPTH - farthest) / (nearest - farthest)
        nn.init.zeros_(self.geometry.weight)
        assert self.geometry.bias is not None
        with torch.no_grad():
            self.geometry.bias.copy_(torch.tensor([math.log(start / (1.0 - start)), 0.0]))

    def forward(self, feature_BCHW: Tensor) -> Tensor:
        """Local maps."""
        feature = self.normalise(feature_BCHW)
        hidden = self.trunk(feature)
        descriptor = F.normalize(self.descriptor(hidden) + self.skip(feature), dim=1)
        share, weight = torch.sigmoid(self.geometry(hidden)).chunk(2, dim=1)
        inverse_depth = 1.0 / FARTHEST + (1.0 / NEAREST - 1.0 / FARTHEST) * share
        return torch.cat([descriptor, inverse_depth, weight], dim=1)


class RelativeUnit(nn.Module):
    """Two local maps to the relative pose ``T_first_second = T_1^-1 T_2``."""

    ray_N2: Tensor
    window_NN: Tensor

    def __init__(self, config: RelativeConfig, ray_HW2: Tensor, reach: float) -> None:
        """ray_HW2: normalised image coordinates of the cells; reach: normalised units."""
        super().__init__()
        height, width, _ = ray_HW2.shape
        self.config = config
        self.reach = reach
        self.cell = float((ray_HW2[:, 1:, 0] - ray_HW2[:, :-1, 0]).abs().median())
        self.register_buffer("ray_N2", ray_HW2.reshape(-1, 2).clone(), persistent=False)
        row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        place = torch.stack([row.flatten(), column.flatten()], dim=1)
        apart_NN = (place[:, None] - place[None]).abs().amax(dim=2)
        self.register_buffer("window_NN", (apart_NN <= config.window).float(), persistent=False)
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(INITIAL_SHARPNESS)))

    def forward(self, first_BCHW: Tensor, second_BCHW: Tensor) -> RelativeOutput:
        """Relative poses. second: one local map may stand beside several first ones."""
        size = self.config.descriptor_size
        first_BCN, second_BCN = first_BCHW.flatten(2), second_BCHW[:, :size].flatten(2)
        likeness = first_BCN[:, :size].transpose(1, 2) @ second_BCN * self.log_sharpness.exp()
        best_BN1 = likeness.amax(dim=2, keepdim=True)
        share_BNN = (likeness - best_BN1).exp()
        match_BNN = share_BNN / share_BNN.sum(dim=2, keepdim=True)
        certainty_BN = _certainty(share_BNN, best_BN1)
        homogeneous_N3 = torch.cat([self.ray_N2, torch.ones_like(self.ray_N2[:, :1])], dim=1)
        ray_BN2 = self._seen_at(share_BNN, homogeneous_N3)
        depth = 1.0 / first_BCN[:, size]
        point_BN3 = homogeneous_N3 * depth[..., None]
        weight_BN = first_BCN[:, size + 1] * certainty_BN
        found = align(point_BN3, ray_BN2, weight_BN, self.cell, self.config.iterations)
        R_21 = rotation_matrix(found.quaternion_wxyz_B4)
        t_12 = -(R_21.transpose(1, 2) @ found.translation_B3[..., None])[..., 0] * self.reach
        conjugate = found.quaternion_wxyz_B4 * self.ray_N2.new_tensor([1.0, -1.0, -1.0, -1.0])
        unit = self.ray_N2.new_tensor([1.0 / self.reach] * 3 + [1.0] * 3)
        information = found.information_B66 * unit[:, None] * unit
        return RelativeOutput(Poses(t_12, conjugate), information, match_BNN, point_BN3)

    def _seen_at(self, share_BNN: Tensor, homogeneous_N3: Tensor) -> Tensor:
        """Ray ``(B, N, 2)`` in the second image at which each cell of the first is seen.

        The mean over the window of the likeliest cell, so that it can lie between cells.
        """
        near_BNN = share_BNN * self.window_NN[share_BNN.argmax(dim=2)]
        sums_BN3 = near_BNN @ homogeneous_N3
        return sums_BN3[..., :2] / sums_BN3[..., 2:]


def _certainty(share_BNN: Tensor, best_BN1: Tensor) -> Tensor:
    """``(B, N)``: largest product of the softmax of the likeness over rows and over columns.

    share: ``exp(likeness - best)``, best: the largest likeness of each row. One exponential serves both
    softmaxes, which are most of what the unit computes.
    """
    scaled = share_BNN * (best_BN1 - best_BN1.amax(dim=1, keepdim=True)).exp()
    both = share_BNN * (scaled / scaled.sum(dim=1, keepdim=True).clamp(min=SMALLEST_SUM))
    return both.amax(dim=2) / share_BNN.sum(dim=2)
