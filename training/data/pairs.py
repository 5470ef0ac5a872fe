"""Which images the twins see together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from rgsiam_ros.errors import DatasetError
from rgsiam_ros.geometry.poses import Array, angles_between
from rgsiam_training.config import PairConfig

HARD_CANDIDATES = 8


class PairSampler(Sampler[list[int]]):
    """Batches of pairs, flattened: ``[first_1 .. first_B, second_1 .. second_B]``.

    Every image is a first image once per epoch, in an order drawn anew from seed and epoch, so that
    a resumed run sees what an uninterrupted one would have seen.
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
        """partners: of each image those that overlap with it; session_N, stamp_ns_N: of each image.

        hard_partners: asked at the start of an epoch for distant images ``(N, k)`` that look like
        each image, -1 where there are fewer; None while nothing is known. part: index and number of
        the equal parts that each batch is cut into, for one process each. Raises DatasetError where
        it cannot be.
        """
        if len(partners) < 2:
            raise ValueError("at least two images are needed to make a pair")
        self._partners = partners
        gap_ns = config.pass_gap_s * 1e9
        self._elsewhere = [
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
                "optimisation.batch_pairs to a multiple"
            )
        share = self._batch_pairs // parts
        self._part = slice(index * share, (index + 1) * share)
        self._seed = seed
        self._hard_partners = hard_partners
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
        return len(self._partners) // self._batch_pairs

    def __iter__(self) -> Iterator[list[int]]:
        """One epoch of batches."""
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
            elsewhere = self._elsewhere[own]
            wanted = random.random() < self._config.other_pass_share
            near = elsewhere if wanted and len(elsewhere) else self._partners[own]
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
    """For each image the `count` distant ones ``(N, count)`` with the most similar features.

    feature_ND: unit length; a row of zeros has not been seen yet and is nobody's look-alike. Distant:
    farther than twice `reach_m` in metres plus `metres_per_radian` times the angle. -1 where there
    are fewer.
    """
    t = T_map_camera_N44[:, :3, 3]
    R = T_map_camera_N44[:, :3, :3]
    known = np.linalg.norm(feature_ND, axis=1) > 0.5
    count = min(count, len(t))
    rows = []
    for block in np.array_split(np.arange(len(t)), max(1, len(t) // 512)):
        distance = np.linalg.norm(t[block, None] - t, axis=2)
        distance += metres_per_radian * angles_between(R[block, None], R)
        likeness = feature_ND[block] @ feature_ND.T
        allowed = (distance > 2.0 * reach_m) & known & known[block, None]
        likeness = np.where(allowed, likeness, -np.inf)
        best = np.argsort(-likeness, axis=1, kind="stable")[:, :count]
        rows.append(np.where(np.isfinite(np.take_along_axis(likeness, best, 1)), best, -1))
    return np.concatenate(rows)
