"""Summaries of errors and times."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from rgsiam_ros.geometry.poses import Array

SUMMARIES: dict[str, Callable[[Array], np.floating]] = {
    "median": np.median,
    "mean": np.mean,
    "p95": lambda values: np.percentile(values, 95),
    "max": np.max,
}


def summarise(
    values: ArrayLike, names: Sequence[str] = tuple(SUMMARIES), suffix: str = ""
) -> dict[str, float]:
    """Summaries of some values, by name: median, mean, 95th percentile and maximum.

    names: the summaries to compute, keys of `SUMMARIES`; suffix: added to each name, for example ``_m``.
    Raises ValueError without values.
    """
    numbers = np.asarray(values, np.float64)
    if not numbers.size:
        raise ValueError("there are no values to summarise")
    return {f"{name}{suffix}": float(SUMMARIES[name](numbers)) for name in names}
