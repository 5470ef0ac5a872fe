"""Conversion between geodetic coordinates (WGS 84) and metres in a map with a datum.

The axes of such a map are east, north and up at the datum.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from rgsiam_ros.geometry.poses import Array

if TYPE_CHECKING:
    from pyproj import Transformer


class Datum(BaseModel):
    """The point on the Earth (WGS 84) at the map's origin. The map's axes are east, north and up there."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    latitude_deg: float = Field(ge=-90.0, le=90.0)
    longitude_deg: float = Field(ge=-180.0, le=180.0)
    ellipsoidal_height_m: float = Field(ge=-1000.0, le=20000.0)


class LocalFrame:
    """The local Cartesian frame at a datum, with the axes east, north and up."""

    def __init__(self, datum: Datum) -> None:
        self.datum = datum
        self._pipeline = _pipeline(
            datum.latitude_deg, datum.longitude_deg, datum.ellipsoidal_height_m
        )

    def from_geodetic(self, latitude_longitude_height_N3: ArrayLike) -> Array:
        """Convert geodetic coordinates to metres east, north and up of the datum.

        latitude_longitude_height_N3: ``(..., 3)``, degrees, degrees and metres above the ellipsoid.
        Returns ``(..., 3)``.
        """
        values = np.asarray(latitude_longitude_height_N3, np.float64)
        latitude, longitude, height = np.moveaxis(values, -1, 0)
        return np.stack(self._pipeline.transform(longitude, latitude, height), axis=-1)

    def to_geodetic(self, east_north_up_N3: ArrayLike) -> Array:
        """Convert metres east, north and up ``(..., 3)`` to geodetic coordinates: inverts `from_geodetic`."""
        east, north, up = np.moveaxis(np.asarray(east_north_up_N3, np.float64), -1, 0)
        longitude, latitude, height = self._pipeline.transform(east, north, up, direction="INVERSE")
        return np.stack([latitude, longitude, height], axis=-1)


@lru_cache(maxsize=8)
def _pipeline(latitude_deg: float, longitude_deg: float, height_m: float) -> Transformer:
    from pyproj import Transformer  # only a map with a datum needs it

    return Transformer.from_pipeline(
        "+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad "
        "+step +proj=cart +ellps=WGS84 "
        f"+step +proj=topocentric +ellps=WGS84 +lat_0={latitude_deg!r} +lon_0={longitude_deg!r} "
        f"+h_0={height_m!r}"
    )
