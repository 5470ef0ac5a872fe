"""GPS fixes along a loop. The map is rotated against east and north."""

import numpy as np
from scipy.spatial.transform import Rotation

from rgsiam_ros.fusion.map_alignment import Fixes
from rgsiam_ros.geometry.geodesy import Datum, LocalFrame

ORIGIN = Datum(latitude_deg=48.0, longitude_deg=11.5, ellipsoidal_height_m=520.0)
"""True position of the origin of the map."""


def fixes_of_a_rotated_map(yaw_deg=30.0, scale=1.0, count=400, bad=0.3, seed=0, extent_m=150.0):
    """Fixes along a loop, on a map that is rotated by `yaw_deg`; and which of them are wrong.

    A share `bad` of the fixes is off by 15 m horizontally, all in the same direction.
    """
    random = np.random.default_rng(seed)
    angle = np.linspace(0.0, 2.0 * np.pi, count)
    antenna = np.stack([extent_m * np.cos(angle), extent_m * np.sin(2 * angle), 0 * angle + 2.0], 1)
    R = Rotation.from_euler("z", yaw_deg, degrees=True).as_matrix()
    enu = scale * antenna @ R.T + random.normal(0.0, 0.4, antenna.shape)
    wrong = np.arange(count) < bad * count
    enu[wrong] += [12.0, 9.0, 20.0]
    places = LocalFrame(ORIGIN).to_geodetic(enu)
    stamps = np.arange(count, dtype=np.int64) * 200_000_000
    return Fixes(stamps, places, np.full(count, 0.4), antenna), wrong
