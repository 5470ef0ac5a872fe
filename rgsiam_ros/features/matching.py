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
    least_similarity: smallest cosine of a match.
    """
    none = np.empty(0, np.int64)
    if not similarity_NP.size:
        return Matches(none, none, np.empty(0, np.float32))
    best = similarity_NP.argmax(axis=1)
    back = similarity_NP.argmax(axis=0)
    index = np.arange(len(best))
    value = similarity_NP[index, best]
    mutual = (back[best] == index) & (value >= least_similarity)
    return Matches(index[mutual], best[mutual], value[mutual])
