import numpy as np
import pytest
from support.geodesy import ecef

from rgsiam_ros.geometry.geodesy import Datum, LocalFrame

DATUM = Datum(latitude_deg=48.0, longitude_deg=11.5, ellipsoidal_height_m=520.0)


def test_local_coordinates_agree_with_the_textbook_formula():
    phi, lam = np.radians([48.0, 11.5])
    east = np.array([-np.sin(lam), np.cos(lam), 0.0])
    north = np.array([-np.sin(phi) * np.cos(lam), -np.sin(phi) * np.sin(lam), np.cos(phi)])
    up = np.array([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)])
    place = (48.013, 11.478, 611.0)
    expected = np.stack([east, north, up]) @ (ecef(*place) - ecef(48.0, 11.5, 520.0))
    np.testing.assert_allclose(LocalFrame(DATUM).from_geodetic(place), expected, atol=1e-6)


def test_round_trip_within_twenty_kilometres():
    frame, random = LocalFrame(DATUM), np.random.default_rng(0)
    places = random.uniform(-20_000.0, 20_000.0, (50, 3)) * [1.0, 1.0, 0.01]
    back = frame.from_geodetic(frame.to_geodetic(places))
    np.testing.assert_allclose(back, places, atol=1e-6)
    np.testing.assert_allclose(frame.to_geodetic([0.0, 0.0, 0.0]), [48.0, 11.5, 520.0], atol=1e-9)


def test_a_metre_north_is_a_metre():
    latitude = LocalFrame(DATUM).to_geodetic([0.0, 1.0, 0.0])[0]
    assert (latitude - 48.0) * 111_200.0 == pytest.approx(1.0, rel=0.01)
