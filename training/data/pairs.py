"""Drawing of the image pairs that the network is trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.poses import Array, angles_between
from rgsiam_training.config import PairConfig

HARD_CANDIDATES = 8
"""Number of look-alikes from which the partner of a hard pair is drawn."""


class PairSampler(Sampler[list[int]]):
    """Yields batches of pairs as image indices ``[first_1 .. first_B, second_1 .. second_B]``.

    Each image is the first of a pair at most once per epoch. The order depends only on seed and epoch, so
    that a resumed run draws the same pairs as an uninterrupted one.
    """

    def __init__(
        self,
        partners: Sequence[NDArray[np.int64]],
        session_N: NDArray[np.int64],
        stamp_ns_N: NDArray[np.int64],
        config: PairConfig,
        batch_pairs: int,
        seed: int,
        hard_partners: Callable[[], NDArray[np.int64] | None] = lambda: None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        """partners: for each image, the indices of the images that overlap with it. session_N, stamp_ns_N:
        session number and time stamp of each image.

        hard_partners: called at the start of each epoch. It returns for each image the indices ``(N, k)``
        of distant images that look like it, -1 where there are fewer than k, or None while no features are
        known. part: index of this process and number of processes; each batch is cut into that many equal
        parts. Raises ValueError for fewer than two images, and DatasetError when a batch cannot be cut into
        equal parts.
        """
        if len(partners) < 2:
            raise ValueError("at least two images are needed to make a pair")
        self._partners = partners
        gap_ns = config.pass_gap_s * 1e9
        self._other_pass_partners = [
            near[
                (session_N[near] != session_N[own])
                | (np.abs(stamp_ns_N[near] - stamp_ns_N[own]) > gap_ns)
            ]
            for own, near in enumerate(partners)
        ]
        self._config = config
        self._batch_pairs = min(batch_pairs, len(partners))
        index, parts = part
        if self._batch_pairs % parts:
            raise DatasetError(
                f"a batch of {self._batch_pairs} pairs cannot be shared by {parts} processes: set "
                f"optimisation.batch_pairs to a multiple of {parts}"
            )
        share = self._batch_pairs // parts
        self._part = slice(index * share, (index + 1) * share)
        self._seed = seed
        self._hard_partners = hard_partners
        self.epoch = 0

    @property
    def sampler(self) -> PairSampler:
        """The sampler itself: Lightning calls `set_epoch` on the ``sampler`` of a batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose pairs are drawn next. Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of batches per epoch. An incomplete last batch is left out."""
        return len(self._partners) // self._batch_pairs

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of one epoch."""
        random = np.random.default_rng([self._seed, self.epoch])
        count = len(self._partners)
        hard = self._hard_partners()
        first = random.permutation(count)
        second = [self._draw(int(own), hard, random) for own in first]
        for batch in range(len(self)):
            chosen = slice(batch * self._batch_pairs, (batch + 1) * self._batch_pairs)
            yield [*first[chosen][self._part].tolist(), *second[chosen][self._part]]

    def _draw(
        self, own: int, hard_NK: NDArray[np.int64] | None, random: np.random.Generator
    ) -> int:
        kind = random.random()
        if kind < self._config.near_share and len(self._partners[own]):
            other_pass = self._other_pass_partners[own]
            prefer_other_pass = random.random() < self._config.other_pass_share
            near = other_pass if prefer_other_pass and len(other_pass) else self._partners[own]
            return int(random.choice(near))
        if hard_NK is not None and kind >= 1.0 - self._config.hard_share:
            alike = hard_NK[own][hard_NK[own] >= 0]
            if len(alike):
                return int(random.choice(alike))
        return int((own + random.integers(1, len(self._partners))) % len(self._partners))


def look_alikes(
    feature_ND: NDArray[np.float32],
    T_map_camera_N44: Array,
    *,
    reach_m: float,
    metres_per_radian: float,
    count: int = HARD_CANDIDATES,
) -> NDArray[np.int64]:
    """Return for each image the indices ``(N, count)`` of the distant images with the most similar features.

    feature_ND: metric features of unit length. A row of zeros stands for an image whose feature is not known
    yet: it has no look-alikes and is no look-alike of others. Two images are distant when
    ``metres + metres_per_radian * radians > 2 * reach_m``. The indices are -1 where there are fewer distant
    images. For `count` above N the result has N columns.
    """
    t = T_map_camera_N44[:, :3, 3]
    R = T_map_camera_N44[:, :3, :3]
    known = np.linalg.norm(feature_ND, axis=1) > 0.5
    count = min(count, len(t))
    rows = []
    for block in np.array_split(np.arange(len(t)), max(1, len(t) // 512)):
        distance = np.linalg.norm(t[block, None] - t, axis=2)
        distance += metres_per_radian * angles_between(R[block, None], R)
        similarity = feature_ND[block] @ feature_ND.T
        allowed = (distance > 2.0 * reach_m) & known & known[block, None]
        similarity = np.where(allowed, similarity, -np.inf)
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
        rows.append(np.where(np.isfinite(np.take_along_axis(similarity, best, 1)), best, -1))
    return np.concatenate(rows)
