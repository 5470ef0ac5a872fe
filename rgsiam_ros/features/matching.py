"""Match unit descriptors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Matches:
    """M matches between two sets of descriptors."""

    first_M: NDArray[np.int64]
    """Indices into the first set."""
    second_M: NDArray[np.int64]
    """Indices into the second set."""
    similarity_M: NDArray[np.float32]
    """Cosine of the angle between the two descriptors."""


def mutual_matches(similarity_NP: NDArray[np.float32], least_similarity: float) -> Matches:
    """The pairs in which each descriptor is the most similar one to the other.

    similarity_NP: cosines between the N descriptors of the first set and the P of the second;
    least_similarity: smallest cosine of a match. Of equally similar pairs the first one is taken.
    """
    if not similarity_NP.size:
        none = np.empty(0, np.int64)
        return Matches(none, none, np.empty(0, np.float32))
    best = similarity_NP.argmax(axis=1)
    index = np.arange(len(best))
    value = similarity_NP[index, best]
    # numpy finds the largest number of each column much faster than its row.
    mutual = np.flatnonzero(
        (value == similarity_NP.max(axis=0)[best]) & (value >= least_similarity)
    )
    once = np.sort(np.unique(best[mutual], return_index=True)[1])
    mutual = mutual[once]
    return Matches(mutual, best[mutual], value[mutual])


def mutual_pairs(
    first_M: NDArray[np.int64],
    second_M: NDArray[np.int64],
    similarity_M: NDArray[np.float32],
    least_similarity: float,
) -> Matches:
    """As `mutual_matches`, where only M pairs may match. Each pair may occur once."""
    order = np.argsort(-similarity_M, kind="stable")
    order = order[similarity_M[order] >= least_similarity]
    mutual = np.ones(len(order), bool)
    for index_M in (first_M[order], second_M[order]):
        best = np.zeros(len(order), bool)
        best[np.unique(index_M, return_index=True)[1]] = True
        mutual &= best
    order = np.sort(order[mutual])
    return Matches(first_M[order], second_M[order], similarity_M[order])
