"""A global feature of an image from its local features, without any training (VLAD, Jegou et al. 2010).

A *word* is the centre of a cluster of descriptors. For each word, the differences of the descriptors nearest
to it are summed. A principal component analysis makes the sums of all words shorter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.features.keypoints import DESCRIPTOR_SIZE

WORDS = 32
SIZE = 256
"""Length of the global feature."""
SAMPLES = 50_000
"""Largest number of descriptors that the words are computed from."""
ITERATIONS = 15
BASIS_STEPS = 0.5
"""Standard deviation of the components of that axis of the basis whose components are smallest. They are stored
as whole numbers, so this says how many bits they need."""
ARRAYS = ("word_WD", "mean_E", "basis_EG")


@dataclass(frozen=True)
class Vlad:
    """The words and the basis, from the map's images."""

    word_WD: NDArray[np.float32]
    """W words, D numbers each."""
    mean_E: NDArray[np.float32]
    """Mean of the sums, E = W D."""
    basis_EG: NDArray[np.float32]
    """G principal axes of the sums, each divided by the square root of the standard deviation along it, and all
    multiplied by one number. Whole numbers of 8 bits."""

    @classmethod
    def fit(
        cls, descriptors: Sequence[NDArray[np.float32]], seed: int
    ) -> tuple[Vlad, NDArray[np.float32]]:
        """The words and the basis, and the features ``(N, G)`` of the N images that they are computed from.

        descriptors: ``(M, D)`` unit descriptors of each image.
        """
        from scipy.cluster.vq import kmeans2  # only a map build needs it

        random = np.random.default_rng(seed)
        pool = np.concatenate(descriptors)
        chosen = random.permutation(len(pool))[:SAMPLES]
        words, _ = kmeans2(
            pool[np.sort(chosen)], min(WORDS, len(chosen)), ITERATIONS, minit="++", seed=seed
        )
        words = words.astype(np.float32)
        sums = np.stack([_sum(d, words) for d in descriptors])
        mean = sums.mean(axis=0)
        _, scale, axes = np.linalg.svd(sums - mean, full_matrices=False)
        count = int(min(SIZE, (scale > 1e-6 * scale[0]).sum()))
        sigma = scale[:count] / np.sqrt(max(len(sums) - 1, 1))
        basis = (axes[:count] / np.sqrt(sigma)[:, None]).T
        steps = np.rint(basis * (BASIS_STEPS / basis.std(axis=0).min()))
        vlad = cls(words, mean.astype(np.float32), np.clip(steps, -127, 127).astype(np.float32))
        return vlad, np.stack([vlad.feature(d) for d in descriptors])

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> Vlad:
        """Read the arrays of `to_arrays`. Raises ValueError, which says what is wrong."""
        missing = [name for name in ARRAYS if name not in arrays]
        if missing:
            raise ValueError(f"array {missing[0]!r} is missing")
        word, mean, basis = (arrays[name].astype(np.float32) for name in ARRAYS)
        fits = word.ndim == 2 and basis.ndim == 2 and mean.shape == (word.size,)
        if not fits or len(basis) != word.size or word.shape[1] != DESCRIPTOR_SIZE or not len(word):
            raise ValueError("the arrays of the global feature do not fit each other")
        if arrays["basis_EG"].dtype != np.int8:
            raise ValueError(f"array 'basis_EG' has type {arrays['basis_EG'].dtype}, not int8")
        return cls(word, mean, basis)

    def to_arrays(self) -> dict[str, NDArray]:
        """The arrays to store."""
        return {
            "word_WD": self.word_WD,
            "mean_E": self.mean_E,
            "basis_EG": self.basis_EG.astype(np.int8),
        }

    def feature(self, descriptor_MD: NDArray[np.float32]) -> NDArray[np.float32]:
        """The global feature ``(G,)`` of an image, of unit length; zero without descriptors."""
        if not len(descriptor_MD):
            return np.zeros(self.basis_EG.shape[1], np.float32)
        return self._reduced(_sum(descriptor_MD, self.word_WD))

    def _reduced(self, sums_E: NDArray[np.float32]) -> NDArray[np.float32]:
        feature = (sums_E - self.mean_E) @ self.basis_EG
        return (feature / max(float(np.linalg.norm(feature)), 1e-12)).astype(np.float32)


def _sum(descriptor_MD: NDArray[np.float32], word_WD: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sums of differences ``(W D,)``, of unit length for each word and as a whole."""
    sums = np.zeros_like(word_WD)
    if len(descriptor_MD):
        distance = (word_WD**2).sum(axis=1) - 2.0 * descriptor_MD @ word_WD.T
        member = np.zeros((len(descriptor_MD), len(word_WD)), np.float32)
        member[np.arange(len(descriptor_MD)), distance.argmin(axis=1)] = 1.0
        sums = member.T @ descriptor_MD - member.sum(axis=0)[:, None] * word_WD
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    sums = (sums / np.maximum(length, 1e-12)).ravel()
    return (sums / max(float(np.linalg.norm(sums)), 1e-12)).astype(np.float32)
