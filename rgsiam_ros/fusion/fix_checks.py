"""What can be wrong between fixes and map although an alignment exists: clocks, mirrored axes, a map upside down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rgsiam_ros.geometry.poses import Array

SMALLEST_AGREEING_SHARE = 0.5
"""Smallest share of the fixes that must agree with an alignment."""
AGREES_FROM = 0.25
"""A fix whose robust weight is larger is counted as agreeing with the map."""
LARGEST_OFFSET_S = 30.0
"""Largest clock offset that is looked for, seconds. GPS time is 18 s ahead of UTC."""
COARSE_STEP_S, FINE_STEP_S = 0.5, 0.05
MOST_TRIED = 400
"""Number of fixes with which clock offsets are tried."""
SMALLEST_GAIN = 0.05
"""A clock offset, or a mirrored map, counts only if the mean robust cost (0..1) falls by this."""
SMALLEST_OVERLAP = 0.5
"""Smallest share of the fixes that must have a map position under a clock offset."""

Fit = Callable[[Array, Array, Array], Array]
"""Aligns antenna positions ``(N, 3)`` to fixes ``(N, 3)`` with sigmas ``(N,)``. Returns the robust weights ``(N,)``."""


@dataclass(frozen=True)
class ClockOffset:
    """A clock offset between fixes and poses under which more fixes agree."""

    seconds: float
    """The stamps of the fixes are late by this."""
    agreeing: int
    fixes: int
    """Number of fixes that have a map position under the offset."""


def cost(weight_N: Array) -> float:
    """The mean robust cost, 0 (all fixes agree) to 1, of an alignment with these Geman-McClure weights."""
    return float(np.mean(1.0 - np.sqrt(weight_N)))


def clock_offset(
    stamps_ns: NDArray[np.int64], antenna_N3: Array, fix_N3: Array, sigma_N: Array, fit: Fit
) -> ClockOffset | None:
    """The clock offset under which the fixes agree better with the map; None if there is none.

    antenna_N3: positions in the map at `stamps_ns`, which increase; fix_N3: in a frame of metres.
    """
    seconds = (stamps_ns - stamps_ns[0]) * 1e-9
    every = max(1, len(seconds) // MOST_TRIED)

    def inside(offset_s: float) -> NDArray[np.bool_]:
        wanted = seconds - offset_s
        return (wanted >= seconds[0]) & (wanted <= seconds[-1])

    def weights(offset_s: float, chosen: NDArray[np.bool_]) -> Array:
        wanted = seconds[chosen] - offset_s
        moved = np.stack([np.interp(wanted, seconds, a) for a in antenna_N3.T], axis=1)
        return fit(moved, fix_N3[chosen], sigma_N[chosen])

    def tried_cost(offset_s: float) -> tuple[float, float]:
        chosen = inside(offset_s) & (np.arange(len(seconds)) % every == 0)
        return cost(weights(offset_s, chosen)), abs(offset_s)

    span = min(LARGEST_OFFSET_S, (1.0 - SMALLEST_OVERLAP) * float(seconds[-1]))
    best = 0.0
    for step, reach in ((COARSE_STEP_S, span), (FINE_STEP_S, COARSE_STEP_S)):
        tried = best + step * np.arange(-int(reach / step), int(reach / step) + 1)
        best = float(min((x for x in tried if inside(x).any()), key=tried_cost, default=0.0))
    chosen = inside(best)
    found, before = weights(best, chosen), weights(0.0, chosen)
    agreeing = found > AGREES_FROM
    if (
        abs(best) < FINE_STEP_S / 2
        or cost(found) > cost(before) - SMALLEST_GAIN
        or agreeing.mean() < SMALLEST_AGREEING_SHARE
    ):
        return None
    return ClockOffset(round(best, 2), int(agreeing.sum()), len(found))


def mirrored_agreeing(antenna_N3: Array, fix_N3: Array, sigma_N: Array, fit: Fit) -> int | None:
    """How many fixes agree with the mirrored map; None if it does not fit better than the map itself."""
    mirrored = fit(antenna_N3 * [1.0, -1.0, -1.0], fix_N3, sigma_N)
    if cost(mirrored) > cost(fit(antenna_N3, fix_N3, sigma_N)) - SMALLEST_GAIN:
        return None
    return int((mirrored > AGREES_FROM).sum())
