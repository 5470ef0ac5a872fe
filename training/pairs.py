"""Which images the twins see together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch.utils.data import Sampler

from rgsiam_ros.geometry import Array


class PairConfig(BaseModel):
    """How the second image of a pair is drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    near_share: float = Field(0.5, ge=0.0, le=1.0)
    """Share of pairs whose second image is one of the nearest; the rest is drawn from anywhere."""
    near_neighbours: int = Field(16, ge=1)
    """How many nearest images count as near."""
    metres_per_radian: float = Field(4.0, gt=0.0)
    """Exchange rate between rotation and translation in the distance of two poses."""


class PairSampler(Sampler[list[int]]):
    """Batches of pairs, flattened: ``[first_1 .. first_B, second_1 .. second_B]``.

    Every image is a first image once per epoch, in an order drawn anew from seed and epoch, so that
    a resumed run sees what an uninterrupted one would have seen.
    """

    def __init__(self, poses_N44: Array, config: PairConfig, batch_pairs: int, seed: int) -> None:
        if len(poses_N44) < 2:
            raise ValueError("at least two images are needed to make a pair")
        self._neighbours = nearest_poses(
            poses_N44, config.near_neighbours, config.metres_per_radian
        )
        self._config = config
        self._batch_pairs = min(batch_pairs, len(poses_N44))
        self._seed = seed
        self.epoch = 0

    @property
    def sampler(self) -> PairSampler:
        """Itself: Lightning looks for `set_epoch` on a batch sampler's ``sampler``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is drawn next (Lightning calls this)."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches per epoch; an incomplete last one is left out."""
        return len(self._neighbours) // self._batch_pairs

    def __iter__(self) -> Iterator[list[int]]:
        """One epoch of batches."""
        random = np.random.default_rng([self._seed, self.epoch])
        count, near = self._neighbours.shape
        first = random.permutation(count)
        anywhere = (first + random.integers(1, count, size=count)) % count
        neighbour = self._neighbours[first, random.integers(0, near, size=count)]
        is_near = random.random(count) < self._config.near_share
        second = np.where(is_near, neighbour, anywhere)
        for batch in range(len(self)):
            chosen = slice(batch * self._batch_pairs, (batch + 1) * self._batch_pairs)
            yield [*first[chosen].tolist(), *second[chosen].tolist()]


def nearest_poses(poses_N44: Array, count: int, metres_per_radian: float) -> np.ndarray:
    """Indices ``(N, count)`` of the nearest *other* poses, nearest first.

    The distance of two poses is metres plus `metres_per_radian` times the angle between them.
    """
    t = torch.from_numpy(np.ascontiguousarray(poses_N44[:, :3, 3]))
    R = torch.from_numpy(np.ascontiguousarray(poses_N44[:, :3, :3])).reshape(-1, 9)
    count = min(count, len(t) - 1)
    rows = []
    for block_t, block_R in zip(t.split(1024), R.split(1024), strict=True):
        cosine = ((block_R @ R.T - 1.0) / 2.0).clamp(-1.0, 1.0)
        distance = torch.cdist(block_t, t) + metres_per_radian * torch.acos(cosine)
        own = torch.arange(len(block_t))
        distance[own, own + sum(len(row) for row in rows)] = torch.inf
        rows.append(distance.topk(count, largest=False).indices)
    return torch.cat(rows).numpy()
