"""Between the map and the Earth: a map with a datum is the east-north-up frame there (WGS 84)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from pyproj import Transformer

from rgsiam_ros.bundle.manifest import Datum
from rgsiam_ros.geometry import Array


class LocalFrame:
    """East, north, up at a datum."""

    def __init__(self, datum: Datum) -> None:
        self.datum = datum
        self._pipeline = _pipeline(
            datum.latitude_deg, datum.longitude_deg, datum.ellipsoidal_height_m
        )

    def from_geodetic(self, latitude_longitude_height_N3: ArrayLike) -> Array:
        """Metres east, north, up ``(..., 3)`` of degrees, degrees and ellipsoidal metres ``(..., 3)``."""
        values = np.asarray(latitude_longitude_height_N3, np.float64)
        latitude, longitude, height = np.moveaxis(values, -1, 0)
        return np.stack(self._pipeline.transform(longitude, latitude, height), axis=-1)

    def to_geodetic(self, east_north_up_N3: ArrayLike) -> Array:
        """The reverse of `from_geodetic`."""
        east, north, up = np.moveaxis(np.asarray(east_north_up_N3, np.float64), -1, 0)
        longitude, latitude, height = self._pipeline.transform(east, north, up, direction="INVERSE")
        return np.stack([latitude, longitude, height], axis=-1)


@lru_cache(maxsize=8)
def _pipeline(latitude_deg: float, longitude_deg: float, height_m: float) -> Transformer:
    return Transformer.from_pipeline(
        "+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad "
        "+step +proj=cart +ellps=WGS84 "
        f"+step +proj=topocentric +ellps=WGS84 +lat_0={latitude_deg!r} +lon_0={longitude_deg!r} "
        f"+h_0={height_m!r}"
    )
