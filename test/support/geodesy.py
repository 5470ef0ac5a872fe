"""Geodesy by the textbook, to check the project's own."""

import numpy as np

A, F = 6378137.0, 1.0 / 298.257223563
"""Semi-major axis (metres) and flattening of the WGS 84 ellipsoid."""


def ecef(latitude_deg, longitude_deg, height_m):
    """Earth-centred coordinates (WGS 84), metres, by the textbook formula."""
    phi, lam = np.radians([latitude_deg, longitude_deg])
    e2 = F * (2.0 - F)
    N = A / np.sqrt(1.0 - e2 * np.sin(phi) ** 2)
    horizontal = (N + height_m) * np.cos(phi)
    return np.array(
        [
            horizontal * np.cos(lam),
            horizontal * np.sin(lam),
            (N * (1.0 - e2) + height_m) * np.sin(phi),
        ]
    )
